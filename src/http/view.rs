//! The JSON that a client sees. Every field is always there; `null` says that there is no value yet.

mod command;
mod ports;
mod processes;
mod usage;
mod waiting;

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use command::command_line;
use job::batch::Membership;
use job::dependency::Dependency;
use job::schedule::Occurrence;
use job::time::Timestamp;
use job::trace::Trace;
use job::workspace::Artifacts;
use job::{
    Attempt, Cause, Job, OutputTotals, SpawnFailure, Spec, State, Survivor, Termination, Usage,
};
use manager::cloud_event::{ExitView, LateView};
use manager::{Manager, Reason, Use};
pub(super) use ports::PortList;
pub(super) use processes::ProcessList;
use processes::ProcessView;
use usage::UsageView;
use waiting::{state_message, state_reason, unheard, waits_for};

/// A job.
#[derive(Debug, Serialize)]
pub struct JobView<'a> {
    id: String,
    name: Option<&'a str>,
    labels: &'a BTreeMap<String, String>,
    created_by: &'a str,
    rerun_of: Option<String>,
    trace: Option<TraceView<'a>>,
    run_at: Option<Timestamp>,
    hold: bool,
    schedule: Option<&'a Occurrence>,
    version: u64,
    state: State,
    state_reason: Option<&'static str>,
    state_message: Option<Cow<'a, str>>,
    spec: &'a Spec,
    depends_on: &'a [Dependency],
    batch: Option<BatchPlace<'a>>,
    created_at: Timestamp,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
    deadline_at: Option<Timestamp>,
    warned_at: Option<Timestamp>,
    ready_at: Option<Timestamp>,
    not_ready_at: Option<Timestamp>,
    ready_message: Option<&'a str>,
    process: Option<ProcessView<'a>>,
    attempt: u32,
    attempts: Vec<AttemptView<'a>>,
    next_attempt_at: Option<Timestamp>,
    exit: Option<ExitView>,
    termination: Option<&'a Termination>,
    spawn_failure: Option<&'a SpawnFailure>,
    usage: Option<UsageView>,
    output: OutputView<'a>,
    blocked_by: &'a [Survivor],
    artifacts: Option<&'a Artifacts>,
    /// Of a job of a hub that has been given to a node.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    /// Of a lost job of a node that has come back.
    #[serde(skip_serializing_if = "Option::is_none")]
    late: Option<LateView<'a>>,
}

impl<'a> JobView<'a> {
    /// The job as the manager has it, with what it waits for at this moment if it waits.
    pub(super) fn of(job: &'a Job, manager: &Manager) -> Self {
        let mut view = Self::with(job, waits_for(job, manager).as_ref());
        if let Some(hub) = manager.hub() {
            view.node = hub.node_of(job).map(ToString::to_string);
            if let Some((reason, message)) = unheard(job, &hub) {
                (view.state_reason, view.state_message) = (Some(reason), Some(message.into()));
            }
        }
        view
    }

    /// The job, and what it waits for.
    #[must_use]
    pub fn with(job: &'a Job, why: Option<&Reason>) -> Self {
        Self {
            id: job.id.to_string(),
            name: job.name.as_deref(),
            labels: &job.labels,
            created_by: &job.created_by,
            rerun_of: job.rerun_of.map(|id| id.to_string()),
            trace: job.trace.as_ref().map(TraceView::of),
            run_at: job.run_at,
            hold: job.hold,
            schedule: job.schedule.as_ref(),
            version: job.version,
            state: job.state,
            state_reason: state_reason(job, why),
            state_message: state_message(job, why),
            spec: &job.spec,
            depends_on: &job.depends_on,
            batch: job.batch.as_ref().map(BatchPlace::from),
            created_at: job.created_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
            expires_at: job.expires_at,
            deadline_at: job.deadline_at,
            warned_at: job.warned_at,
            ready_at: job.ready_at,
            not_ready_at: job.not_ready_at,
            ready_message: job.ready_message.as_deref(),
            process: job.process.as_ref().map(ProcessView::from),
            attempt: job.attempt,
            attempts: job.attempts.iter().map(AttemptView::from).collect(),
            next_attempt_at: job.next_attempt_at,
            exit: job.exit.as_ref().map(ExitView::from),
            termination: job.termination.as_ref(),
            spawn_failure: job.spawn_failure.as_ref(),
            usage: job.usage.map(UsageView::from),
            output: OutputView {
                totals: &job.output,
                excerpt: None,
            },
            blocked_by: &job.survivors,
            artifacts: job.artifacts.as_ref(),
            node: None,
            late: job.late.as_deref().map(LateView::from),
        }
    }

    /// With what it uses at this moment.
    pub(super) fn using(mut self, job: &Job, used: &Use) -> Self {
        if used.processes > 0 {
            self.usage = UsageView::now(job, used);
        }
        self
    }

    /// With its output, or `null` where that could not be read.
    pub(super) fn showing(mut self, excerpt: Option<Value>) -> Self {
        self.output.excerpt = Some(excerpt);
        self
    }
}

/// Numbers of the output, and its text where that was asked for.
#[derive(Debug, Serialize)]
struct OutputView<'a> {
    #[serde(flatten)]
    totals: &'a OutputTotals,
    #[serde(skip_serializing_if = "Option::is_none")]
    excerpt: Option<Option<Value>>,
}

/// The caller's place in a trace, without what it adds for those that follow.
#[derive(Debug, Serialize)]
struct TraceView<'a> {
    trace_id: &'a str,
    span_id: &'a str,
    sampled: bool,
}

impl<'a> TraceView<'a> {
    fn of(trace: &'a Trace) -> Self {
        Self {
            trace_id: &trace.trace_id,
            span_id: &trace.span_id,
            sampled: trace.sampled,
        }
    }
}

/// An attempt that has ended.
#[derive(Debug, Serialize)]
struct AttemptView<'a> {
    number: u32,
    started_at: Option<Timestamp>,
    finished_at: Timestamp,
    cause: Cause,
    exit: Option<ExitView>,
    spawn_failure: Option<&'a SpawnFailure>,
    usage: Option<&'a Usage>,
    first_offset: u64,
    next_offset: u64,
    escalated: bool,
    killed_leftovers: u32,
    message: Option<&'a str>,
    /// Of one that was lost with its node.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
}

impl<'a> From<&'a Attempt> for AttemptView<'a> {
    fn from(attempt: &'a Attempt) -> Self {
        Self {
            number: attempt.number,
            started_at: attempt.started_at,
            finished_at: attempt.finished_at,
            cause: attempt.cause,
            exit: attempt.exit.as_ref().map(ExitView::from),
            spawn_failure: attempt.spawn_failure.as_ref(),
            usage: attempt.usage.as_ref(),
            first_offset: attempt.first_offset,
            next_offset: attempt.next_offset,
            escalated: attempt.escalated,
            killed_leftovers: attempt.killed_leftovers,
            message: attempt.message.as_deref(),
            node: attempt.node().map(job::NodeName::as_str),
        }
    }
}

/// The place of a job in a batch.
#[derive(Debug, Serialize)]
struct BatchPlace<'a> {
    id: String,
    key: &'a str,
    index: u32,
    count: u32,
}

impl<'a> From<&'a Membership> for BatchPlace<'a> {
    fn from(place: &'a Membership) -> Self {
        Self {
            id: place.id.to_string(),
            key: &place.key,
            index: place.index,
            count: place.count,
        }
    }
}

/// What a list shows of a job: less than a kB, whatever its spec is.
#[derive(Debug, Serialize)]
pub(super) struct BasicView<'a> {
    id: String,
    name: Option<&'a str>,
    labels: &'a BTreeMap<String, String>,
    created_by: &'a str,
    version: u64,
    state: State,
    state_reason: Option<&'static str>,
    state_message: Option<Cow<'a, str>>,
    command: String,
    queue: &'a str,
    priority: i32,
    pty: bool,
    timeout_seconds: Option<f64>,
    created_at: Timestamp,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    attempt: u32,
    max_attempts: u32,
    exit: Option<ExitView>,
    termination: Option<BasicTermination<'a>>,
    spawn_failure: Option<&'a SpawnFailure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
}

impl<'a> BasicView<'a> {
    /// The job as the manager has it, with what it waits for at this moment if it waits.
    pub(super) fn of(job: &'a Job, manager: &Manager) -> Self {
        let why = waits_for(job, manager);
        let spec = &job.spec;
        let hub = manager.hub();
        let unheard = hub.as_ref().and_then(|hub| unheard(job, hub));
        let (unheard_reason, unheard_message) = unheard.unzip();
        Self {
            node: hub.and_then(|hub| hub.node_of(job).map(ToString::to_string)),
            id: job.id.to_string(),
            name: job.name.as_deref(),
            labels: &job.labels,
            created_by: &job.created_by,
            version: job.version,
            state: job.state,
            state_reason: unheard_reason.or_else(|| state_reason(job, why.as_ref())),
            state_message: (unheard_message.map(Cow::from))
                .or_else(|| state_message(job, why.as_ref())),
            command: command_line(&spec.program),
            queue: &spec.queue,
            priority: spec.priority,
            pty: spec.pty.is_some(),
            timeout_seconds: spec.timeout.map(|timeout| timeout.as_secs_f64()),
            created_at: job.created_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
            attempt: job.attempt,
            max_attempts: spec.retry.as_ref().map_or(1, |retry| retry.max_attempts),
            exit: job.exit.as_ref().map(ExitView::from),
            termination: job.termination.as_ref().map(BasicTermination::from),
            spawn_failure: job.spawn_failure.as_ref(),
        }
    }
}

/// Why a job has ended, without the signals that were sent.
#[derive(Debug, Serialize)]
struct BasicTermination<'a> {
    cause: Cause,
    requested_by: Option<&'a str>,
    reason: Option<&'a str>,
    escalated: bool,
}

impl<'a> From<&'a Termination> for BasicTermination<'a> {
    fn from(termination: &'a Termination) -> Self {
        Self {
            cause: termination.cause,
            requested_by: termination.requested_by.as_deref(),
            reason: termination.reason.as_deref(),
            escalated: termination.escalated,
        }
    }
}

/// The `ETag` of a job: its version in quotes.
#[must_use]
pub fn etag(job: &Job) -> String {
    format!("\"{}\"", job.version)
}

/// A page of jobs.
#[derive(Debug, Serialize)]
pub(super) struct JobList<T> {
    /// The jobs.
    pub(super) jobs: Vec<T>,
    /// Where to go on; `null` on the last page.
    pub(super) next_page_token: Option<String>,
}

/// A submission that would be accepted.
#[derive(Debug, Serialize)]
pub(super) struct ValidView<'a> {
    /// Always `true`: what is not valid is a problem.
    pub(super) valid: bool,
    /// As given.
    pub(super) name: Option<&'a str>,
    /// As given.
    pub(super) labels: &'a BTreeMap<String, String>,
    /// With defaults filled in.
    pub(super) spec: &'a Spec,
}

/// The answer to a signal.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Delivered {
    /// How many processes it was sent to.
    pub(super) delivered_to: u64,
    /// What became of it, if that is not what it looks like.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) note: Option<&'static str>,
}
