//! What the log says of a job: one line each where it starts, is asked to end, and has ended. No command, environment or
//! output is in it.

use job::life::Stop;
use job::time::rounded_seconds;
use job::{ExitStatus, Job, State};

/// Its program has been executed.
pub(super) fn started(job: &Job) {
    let Some(at) = job.started_at else {
        return;
    };
    tracing::info!(
        job.id = %job.id,
        name = job.name.as_deref(),
        queue = job.spec.queue,
        trace_id = trace_id(job),
        pid = job.process.as_ref().map(|process| process.pid),
        attempt = job.attempt,
        queued_seconds = rounded_seconds(at.since(job.created_at)),
        "job {} started",
        job.id
    );
}

fn trace_id(job: &Job) -> Option<&str> {
    job.trace.as_ref().map(|trace| trace.trace_id.as_str())
}

/// It is ready, or is not in time.
pub(super) fn ready(job: &Job) {
    let message = job.ready_message.as_deref();
    match (job.ready_at, job.not_ready_at) {
        (Some(_), _) => tracing::info!(job.id = %job.id, message, "job {} is ready", job.id),
        (None, _) => {
            tracing::info!(job.id = %job.id, message, "job {} was not ready in time", job.id);
        }
    }
}

/// Its timeout is near.
pub(super) fn warned(job: &Job) {
    tracing::info!(
        job.id = %job.id,
        deadline_at = job.deadline_at.map(tracing::field::display),
        "job {} is warned of its timeout",
        job.id
    );
}

/// Somebody has asked for its end.
pub(super) fn stopping(job: &Job, stop: &Stop) {
    tracing::info!(
        job.id = %job.id,
        cause = stop.cause.as_str(),
        actor = stop.requested_by.as_deref(),
        grace_seconds = rounded_seconds(stop.grace.unwrap_or(job.spec.stop.grace)),
        force = stop.force,
        "job {} is asked to end",
        job.id
    );
}

/// Its end is durable.
pub(super) fn ended(job: &Job) {
    let termination = job.termination.as_ref();
    let (exit_code, signal) = match job.exit.map(|exit| exit.status) {
        Some(ExitStatus::Code(code)) => (Some(code), None),
        Some(ExitStatus::Signal { signal, .. }) => (None, Some(signal)),
        None => (None, None),
    };
    let seconds = job.started_at.zip(job.finished_at);
    let seconds = seconds.map(|(from, to)| rounded_seconds(to.since(from)));
    let state = job.state.as_str();
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                job.id = %job.id,
                state,
                cause = termination.map(|it| it.cause.as_str()),
                exit_code,
                signal = signal.map(tracing::field::display),
                seconds,
                trace_id = trace_id(job),
                actor = termination.and_then(|it| it.requested_by.as_deref()),
                killed_leftovers = termination.map(|it| it.killed_leftovers).filter(|count| *count > 0),
                "job {} ended: {state}",
                job.id
            )
        };
    }
    // What went wrong is the job's own affair, unless its end was not seen.
    if job.state == State::Lost {
        line!(warn);
    } else {
        line!(info);
    }
}
