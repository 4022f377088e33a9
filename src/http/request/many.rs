//! The bodies of requests on many jobs at once.

use std::time::Duration;

use super::fields::{At, Errors, Fields, boolean, code, filled_text, integer, seconds};
use super::json::Value;
use super::{Body, FieldError, ONE_DAY, dependencies, rules};
use job::query::{Filter, OnNode};
use job::selector::Selector;
use job::spec::Scope;
use job::time::Timestamp;
use job::{JobId, Signal, State};

/// The most jobs that one request names.
const JOBS_MAX: usize = 1000;

/// The most jobs that one request acts on.
pub const ACTED_MAX: u16 = 10_000;

/// The longest name of a queue or a job that can match.
const NAME_BYTES: usize = 512;

/// Which jobs are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// These.
    Ids(Vec<JobId>),
    /// Those that match and have not finished.
    Matching(Box<Filter>),
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

/// Which jobs something is done to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Never empty, if no jobs are named: nobody means every job by leaving something out.
    pub filter: Filter,
    /// Of these, those that match.
    pub ids: Option<Vec<JobId>>,
    /// Only count them.
    pub dry_run: bool,
    /// Nothing is done unless it is exactly so many.
    pub expect: Option<usize>,
}

/// The body of `POST /jobs/signal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignalMany {
    /// Which jobs.
    pub chosen: Chosen,
    /// What they get.
    pub signal: Signal,
    /// Which of their processes.
    pub scope: Scope,
}

/// The body of `POST /jobs/stop`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopMany {
    /// Which jobs.
    pub chosen: Chosen,
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
        let filter = Filter {
            selector: f.or_default("label_selector", selector),
            batch: f.optional("batch", dependencies::id),
            ..Filter::default()
        };
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
            which: ids.map_or_else(|| Which::Matching(Box::new(filter)), Which::Ids),
            all,
            timeout: timeout.min(longest),
        }
    });
    errors.result(wait)
}

/// The fields that choose jobs: their ids, and the fields of a filter as the query of `GET /jobs` has them.
const FILTER: [&str; 12] = [
    "job_ids",
    "label_selector",
    "state",
    "queue",
    "batch",
    "schedule",
    "node",
    "created_by",
    "name",
    "name_prefix",
    "created_after",
    "created_before",
];

fn chosen(f: &mut Fields<'_>) -> Option<Chosen> {
    let selector = f.optional("label_selector", selector);
    let states = f.optional("state", states);
    let filter = Filter {
        selector: selector.unwrap_or_default(),
        states: states.unwrap_or_default(),
        queue: f.optional("queue", filled_text(NAME_BYTES)),
        batch: f.optional("batch", dependencies::id),
        schedule: f.optional("schedule", filled_text(NAME_BYTES)),
        name: f.optional("name", filled_text(NAME_BYTES)),
        name_prefix: f.optional("name_prefix", filled_text(NAME_BYTES)),
        created_after: f.optional("created_after", moment),
        created_before: f.optional("created_before", moment),
        node: f
            .optional("node", filled_text(NAME_BYTES))
            .map(OnNode::Named),
        created_by: f.optional("created_by", filled_text(NAME_BYTES)),
    };
    let ids = f.optional("job_ids", |at| at.set(JOBS_MAX, job_id));
    if !FILTER.iter().any(|name| f.has(name)) {
        let detail = format!("give at least one of {}", FILTER.join(", "));
        f.refuse("label_selector", code::MISSING, detail);
    }
    let dry_run = f.or(false, "dry_run", boolean);
    let expect = f
        .optional("expect", integer(0..=ACTED_MAX))
        .map(usize::from);
    Some(Chosen {
        filter,
        ids,
        dry_run,
        expect,
    })
}

/// One state, or a list of such.
fn states(at: &At<'_>) -> Option<Vec<State>> {
    let one = |at: &At<'_>| at.choice(&State::ALL.map(|state| (state.as_str(), state)));
    match at.value {
        Value::List(_) => at.set(State::ALL.len(), one),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) | Value::Object(_) => {
            one(at).map(|state| vec![state])
        }
    }
}

fn moment(at: &At<'_>) -> Option<Timestamp> {
    match at.text()?.parse() {
        Ok(moment) => Some(moment),
        Err(_) => at.refuse(
            code::INVALID_VALUE,
            "must be a time in RFC 3339, such as 2026-01-31T12:00:00Z",
        ),
    }
}

/// Reads the body of `POST /jobs/pause`, `/jobs/resume`, `/jobs/rerun` and `/jobs/purge`.
pub fn parse_chosen(body: &Body) -> Result<Chosen, Vec<FieldError>> {
    let errors = Errors::default();
    let at = At::root(&body.0, &errors);
    let chosen = Fields::of(&at).and_then(|mut f| {
        let chosen = chosen(&mut f);
        f.finish();
        chosen
    });
    errors.result(chosen)
}

/// Reads the body of `POST /jobs/signal`.
pub fn parse_signal_many(body: &Body) -> Result<SignalMany, Vec<FieldError>> {
    let errors = Errors::default();
    let at = At::root(&body.0, &errors);
    let signal = Fields::of(&at).and_then(|mut f| {
        let chosen = chosen(&mut f);
        let signal = f.required("signal", rules::signal);
        let scope = f.or_default("scope", rules::scope);
        f.finish();
        Some(SignalMany {
            chosen: chosen?,
            signal: signal?,
            scope,
        })
    });
    errors.result(signal)
}

/// Reads the body of `POST /jobs/stop`.
pub fn parse_stop_many(body: &Body, reason_max: usize) -> Result<StopMany, Vec<FieldError>> {
    let errors = Errors::default();
    let at = At::root(&body.0, &errors);
    let stop = Fields::of(&at).and_then(|mut f| {
        let chosen = chosen(&mut f);
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
            chosen: chosen?,
            signal,
            grace,
            force,
            reason,
        })
    });
    errors.result(stop)
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
