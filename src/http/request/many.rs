//! The bodies of requests on many jobs at once.

use std::time::Duration;

use super::fields::{At, Errors, Fields, boolean, code, integer, seconds};
use super::{Body, FieldError, ONE_DAY, rules};
use job::query::Filter;
use job::selector::Selector;
use job::time::Timestamp;
use job::{JobId, Signal, State};

/// The most jobs that one request names.
const JOBS_MAX: usize = 1000;

/// Which jobs are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// These.
    Ids(Vec<JobId>),
    /// Those that match and have not finished.
    Selector(Selector),
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

/// Jobs that something is done to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picked {
    /// These, or those that match.
    pub which: Pick,
    /// Nothing is done where more than these match.
    pub expect: Option<u64>,
}

/// How jobs are picked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pick {
    /// These.
    Ids(Vec<JobId>),
    /// Those that match, if they are in a state that this can be done in, or in one of those that it names.
    Filter(Filter),
}

/// The body of `POST /jobs/stop`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopMany {
    /// Which jobs.
    pub picked: Picked,
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
    const ONE: &str = "give exactly one of job_ids and label_selector";
    let errors = Errors::default();
    let at = At::root(&body.0, &errors);
    let wait = Fields::of(&at).and_then(|mut f| {
        let ids = f.optional("job_ids", |at| at.list(JOBS_MAX, job_id));
        let selector = f.optional("label_selector", selector);
        match (f.has("job_ids"), f.has("label_selector")) {
            (true, true) => f.refuse("label_selector", code::CONFLICT, ONE),
            (false, false) => f.refuse("job_ids", code::MISSING, ONE),
            (true, false) | (false, true) => {}
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
        Some(WaitMany {
            which: ids.map(Which::Ids).or(selector.map(Which::Selector))?,
            all,
            timeout: timeout.min(longest),
        })
    });
    errors.result(wait)
}

/// Reads the body of `POST /jobs/stop`. A selector that selects everything is refused.
pub fn parse_stop_many(body: &Body, reason_max: usize) -> Result<StopMany, Vec<FieldError>> {
    let errors = Errors::default();
    let at = At::root(&body.0, &errors);
    let stop = Fields::of(&at).and_then(|mut f| {
        let picked = picked(&mut f);
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
        Some(StopMany {
            picked: picked?,
            signal,
            grace,
            force,
            reason,
        })
    });
    errors.result(stop)
}

/// Reads the body of a request that does something to many jobs and asks for nothing else.
pub fn parse_picked(body: &Body) -> Result<Picked, Vec<FieldError>> {
    let errors = Errors::default();
    let at = At::root(&body.0, &errors);
    let picked = Fields::of(&at).and_then(|mut f| {
        let picked = picked(&mut f);
        f.finish();
        picked
    });
    errors.result(picked)
}

/// The fields that narrow a filter down, of which there has to be one: the others would leave nearly every job.
const NARROW: [&str; 4] = ["label_selector", "states", "name_prefix", "queue"];

/// Reads which jobs are meant. A filter that lets every job pass is refused.
fn picked(f: &mut Fields<'_>) -> Option<Picked> {
    const ONE: &str =
        "give job_ids, or one or more of label_selector, states, name_prefix and queue";
    let ids = f.optional("job_ids", |at| at.filled_list(JOBS_MAX, job_id));
    let filter = Filter {
        selector: f.optional("label_selector", selector).unwrap_or_default(),
        states: f
            .optional("states", |at| at.set(State::ALL.len(), state))
            .unwrap_or_default(),
        name_prefix: f.optional("name_prefix", filled),
        queue: f.optional("queue", filled),
        created_after: f.optional("created_after", moment),
        created_before: f.optional("created_before", moment),
    };
    let expect = f.optional("expect", integer(0..=u64::from(u32::MAX)));
    let narrows = NARROW.iter().any(|name| f.has(name));
    let bounds = f.has("created_after") || f.has("created_before");
    match (f.has("job_ids"), narrows) {
        (true, true) => f.refuse("job_ids", code::CONFLICT, ONE),
        (true, false) if bounds => f.refuse("job_ids", code::CONFLICT, ONE),
        (false, false) => f.refuse("label_selector", code::MISSING, ONE),
        (true, false) | (false, true) => {}
    }
    let which = ids.map_or(Pick::Filter(filter), Pick::Ids);
    Some(Picked { which, expect })
}

fn state(at: &At<'_>) -> Option<State> {
    at.choice(&State::ALL.map(|state| (state.as_str(), state)))
}

fn filled(at: &At<'_>) -> Option<String> {
    let text = at.text()?;
    if text.is_empty() {
        return at.refuse(code::INVALID_VALUE, "must not be empty");
    }
    Some(text.to_owned())
}

fn moment(at: &At<'_>) -> Option<Timestamp> {
    match at.text()?.parse() {
        Ok(moment) => Some(moment),
        Err(_) => at.refuse(code::INVALID_VALUE, "must be a time in RFC 3339"),
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
