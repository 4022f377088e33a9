//! The bodies of requests on many jobs at once.

use std::time::Duration;

use super::fields::{At, Errors, Fields, boolean, code, seconds};
use super::{Body, FieldError, ONE_DAY, dependencies, rules};
use job::query::Filter;
use job::selector::Selector;
use job::{JobId, Signal};

/// The most jobs that one request names.
const JOBS_MAX: usize = 1000;

/// Which jobs are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// These.
    Ids(Vec<JobId>),
    /// Those that match and have not finished.
    Matching(Filter),
}

/// The body of `POST /jobs/wait`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitMany {
    /// For which jobs.
    pub which: Which,
    /// For all of them, not for the first one.
    pub all: bool,
    /// How long.
    pub timeout: Duration,
}

/// The body of `POST /jobs/stop`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopMany {
    /// Which jobs.
    pub filter: Filter,
    /// Instead of their own signal.
    pub signal: Option<Signal>,
    /// Instead of their own grace period.
    pub grace: Option<Duration>,
    /// Kill at once.
    pub force: bool,
    /// Shown in the jobs.
    pub reason: Option<String>,
}

/// Reads the body of `POST /jobs/wait`. More than `longest` is lowered.
pub fn parse_wait_many(body: &Body, longest: Duration) -> Result<WaitMany, Vec<FieldError>> {
    const ONE: &str = "give job_ids, or label_selector or batch";
    let errors = Errors::default();
    let at = At::root(&body.0, &errors);
    let wait = Fields::of(&at).map(|mut f| {
        let ids = f.optional("job_ids", |at| at.list(JOBS_MAX, job_id));
        let filter = filter(&mut f);
        match (f.has("job_ids"), f.has("label_selector"), f.has("batch")) {
            (true, true, _) => f.refuse("label_selector", code::CONFLICT, ONE),
            (true, _, true) => f.refuse("batch", code::CONFLICT, ONE),
            (false, false, false) => f.refuse("job_ids", code::MISSING, ONE),
            (true, false, false) | (false, _, _) => {}
        }
        let all = f.or(true, "mode", |at| {
            at.choice(&[("all", true), ("any", false)])
        });
        let timeout = f.or(
            Duration::ZERO,
            "timeout_seconds",
            seconds(Duration::ZERO..=Duration::MAX),
        );
        f.finish();
        WaitMany {
            which: ids.map_or(Which::Matching(filter), Which::Ids),
            all,
            timeout: timeout.min(longest),
        }
    });
    errors.result(wait)
}

/// Reads the body of `POST /jobs/stop`. A selector that selects everything is refused.
pub fn parse_stop_many(body: &Body, reason_max: usize) -> Result<StopMany, Vec<FieldError>> {
    let errors = Errors::default();
    let at = At::root(&body.0, &errors);
    let stop = Fields::of(&at).map(|mut f| {
        let filter = filter(&mut f);
        if !f.has("label_selector") && !f.has("batch") {
            f.refuse(
                "label_selector",
                code::MISSING,
                "give label_selector or batch",
            );
        }
        let signal = f.optional("signal", rules::signal);
        let grace = f.optional("grace_seconds", seconds(Duration::ZERO..=ONE_DAY));
        let force = f.or(false, "force", boolean);
        let reason = f.optional("reason", |at| {
            let text = at.text()?;
            if text.chars().count() > reason_max {
                return at.refuse(code::TOO_LONG, format!("at most {reason_max} characters"));
            }
            Some(text.to_owned())
        });
        f.finish();
        StopMany {
            filter,
            signal,
            grace,
            force,
            reason,
        }
    });
    errors.result(stop)
}

/// Which jobs are meant by what they are.
fn filter(f: &mut Fields<'_>) -> Filter {
    Filter {
        selector: f.or_default("label_selector", selector),
        batch: f.optional("batch", dependencies::id),
        ..Filter::default()
    }
}

fn job_id(at: &At<'_>) -> Option<JobId> {
    match at.text()?.parse() {
        Ok(id) => Some(id),
        Err(_) => at.refuse(code::INVALID_VALUE, "must be the id of a job"),
    }
}

fn selector(at: &At<'_>) -> Option<Selector> {
    match at.text()?.parse::<Selector>() {
        Ok(selector) if selector.requirements.is_empty() => at.refuse(
            code::INVALID_VALUE,
            "must not be empty: it would select every job",
        ),
        Ok(selector) => Some(selector),
        Err(error) => at.refuse(code::INVALID_VALUE, error.to_string()),
    }
}
