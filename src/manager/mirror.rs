//! From a monitor's record to the job that clients see. Pure.

use std::sync::Arc;

use job::event::Event;
use job::outcome::{Cause, ExitStatus, SpawnFailure, Termination};
use job::time::Timestamp;
use job::{Job, Process, State, Survivor, Unwatched};
use protocol::record::Record;
use protocol::wire::link::Happened;

/// Takes over what the monitor says, all except the end: a terminal state is shown after it is durable.
pub(super) fn mirror(job: &mut Job, record: &Record) {
    let started_at = record
        .life
        .started_at()
        .and(record.leader.as_ref().map(|leader| leader.started_at));
    job.started_at = match job.attempts.is_empty() {
        true => started_at,
        false => job.started_at.or(started_at),
    };
    job.next_attempt_at = None;
    job.process = record
        .leader
        .as_ref()
        .filter(|_| started_at.is_some())
        .map(|leader| Process {
            pid: leader.identity.pid,
            started_at: leader.started_at,
            start_ticks: leader.identity.start_ticks,
            monitor_pid: record.monitor.pid,
            used_before: record.used_before,
            executable: (!leader.executable.is_empty()).then(|| leader.executable.clone()),
            cgroup: record.cgroup.clone(),
            sandbox: leader.sandbox.clone(),
            unwatched: record.rescued.then(|| unwatched(record)),
        });
    let plan = record.life.plan();
    if plan.timeout != job.spec.timeout || plan.stop != job.spec.stop {
        let spec = Arc::make_mut(&mut job.spec);
        spec.timeout = plan.timeout;
        spec.stop = plan.stop;
    }
    job.deadline_at = record.deadline_at;
    job.exit = record.life.exit().copied();
    if record.output.next_offset >= job.attempt_offset() {
        job.output = record.output;
    }
    job.usage = record
        .usage
        .and_then(|usage| job.usage_with(Some(usage)))
        .or(job.usage);
    job.survivors.clone_from(&record.survivors);
    let state = record.life.state(&job.spec.success_exit_codes);
    if !state.is_terminal() {
        job.state = state;
        job.message = waiting_message(job, record);
    }
}

/// The job as it was when its program had begun, from a record that may tell more; nothing if that tells of no start.
pub(super) fn as_started(job: &Job, record: &Record) -> Option<Job> {
    record.life.started_at()?;
    let mut started = job.clone();
    mirror(&mut started, record);
    started.state = State::Running;
    started.exit = None;
    started.usage = job.usage;
    started.survivors.clear();
    Some(started)
}

/// The job as another node has it, as far as that is the node's affair.
pub(super) fn mirror_there(job: &mut Job, there: &Job) {
    // It has its slot. What it waits for there is over in a moment.
    let is_about_to_start = there.state == State::Queued && there.next_attempt_at.is_none();
    job.state = if is_about_to_start {
        State::Starting
    } else {
        there.state
    };
    job.message.clone_from(&there.message);
    job.started_at = there.started_at;
    job.finished_at = there.finished_at;
    job.deadline_at = there.deadline_at;
    job.process.clone_from(&there.process);
    job.attempt = there.attempt;
    job.attempts.clone_from(&there.attempts);
    job.next_attempt_at = there.next_attempt_at;
    job.exit = there.exit;
    job.termination.clone_from(&there.termination);
    job.spawn_failure.clone_from(&there.spawn_failure);
    job.usage = there.usage;
    job.output = there.output;
    job.warned_at = there.warned_at;
    job.ready_at = there.ready_at;
    job.not_ready_at = there.not_ready_at;
    job.ready_message.clone_from(&there.ready_message);
    job.survivors.clone_from(&there.survivors);
    job.artifacts.clone_from(&there.artifacts);
    if let Some(process) = &mut job.process {
        // It would be looked for on this machine.
        process.unwatched = None;
    }
}

/// What another node tells of the job.
pub(super) fn told_there(job: &Job, happened: Vec<Happened>) -> Vec<Event> {
    let event = |it: Happened| Event {
        state: Some(it.state),
        attempt: Some(it.attempt),
        ..Event::of(job, it.at, it.what)
    };
    happened.into_iter().map(event).collect()
}

/// How the job's processes are found without a monitor above them.
pub(super) fn unwatched(record: &Record) -> Unwatched {
    let strays = record.strays.iter();
    Unwatched {
        boot_id: record.boot_id.clone(),
        pipes: record.pipes.clone(),
        strays: strays
            .map(|process| (process.pid, process.start_ticks))
            .collect(),
    }
}

/// A new server knows only what is durable, and clients may have seen later versions: it continues from a
/// number that no run of changes can have reached, the job's age in milliseconds when this server started. Doing it
/// again changes nothing.
pub(super) fn outlive_server(job: &mut Job, started_at: Timestamp) {
    let age = started_at.since(job.created_at).as_millis();
    let unreached = u64::try_from(age).unwrap_or_default().saturating_add(1);
    job.version = job.version.max(unreached);
}

fn waiting_message(job: &Job, record: &Record) -> Option<String> {
    let refused = record.output_refused.map(|errno| {
        let why = std::io::Error::from_raw_os_error(errno);
        format!("the job's output cannot be written down, so that it waits: {why}")
    });
    let waits = "the job waits until its output is read (on_limit: wait)";
    let output = refused.or_else(|| record.output_waits.then(|| waits.to_owned()));
    let names: Vec<String> = job
        .survivors
        .iter()
        .map(|survivor| format!("{} ({}, {})", survivor.name, survivor.pid, survivor.state))
        .collect();
    let survivors = (!names.is_empty())
        .then(|| format!("these processes cannot be ended yet: {}", names.join(", ")));
    match (survivors, output) {
        (Some(survivors), Some(output)) => Some(format!("{survivors}; {output}")),
        (one, other) => one.or(other),
    }
}

/// The end of a job as its monitor's last record tells it; `false` if that record is not of an end.
pub(super) fn finish(job: &mut Job, record: &Record) -> bool {
    let (Some(ended_at), Some(termination)) = (record.life.ended_at(), record.life.termination())
    else {
        return false;
    };
    mirror(job, record);
    job.spawn_failure = record.life.spawn_failure().cloned();
    end(job, termination, ended_at);
    true
}

/// The end of a job that never got a monitor.
pub(super) fn fail_to_spawn(job: &mut Job, failure: SpawnFailure, at: Timestamp) {
    job.spawn_failure = Some(failure);
    end(job, Termination::unasked(Cause::SpawnFailed), at);
}

/// The end of a job for this reason.
pub(super) fn end(job: &mut Job, termination: Termination, at: Timestamp) {
    job.state = State::of_ended(
        termination.cause,
        job.exit.as_ref(),
        &job.spec.success_exit_codes,
    );
    job.message = Some(describe(job, &termination));
    job.next_attempt_at = None;
    job.finished_at = Some(at);
    job.expires_at = Some(at.after(job.spec.ttl_after_finished));
    job.deadline_at = None;
    job.survivors.clear();
    job.output.complete = true;
    job.termination = Some(termination);
    if let Some(process) = &mut job.process {
        process.unwatched = None;
    }
    if job.state == State::Lost {
        // What cannot be known is not said.
        job.exit = None;
    }
}

/// The end of a job that nobody saw, and that has left these processes.
pub(super) fn outlive(job: &mut Job, unwatched: Unwatched, left: &[Survivor]) {
    if let Some(process) = &mut job.process {
        process.unwatched = Some(unwatched);
    }
    let names: Vec<String> = left
        .iter()
        .map(|left| format!("{} ({})", left.name, left.pid))
        .collect();
    let why = job.message.take().unwrap_or_default();
    job.message = Some(format!(
        "{why}; these processes outlived it, and DELETE ends them: {}",
        names.join(", ")
    ));
}

fn describe(job: &Job, termination: &Termination) -> String {
    let exit = match job.exit.map(|exit| exit.status) {
        Some(ExitStatus::Code(code)) => format!("the program exited with code {code}"),
        Some(ExitStatus::Signal { signal, .. }) => format!("{signal} ended the program"),
        None => "the program never ran".to_owned(),
    };
    let exit = match termination.killed_leftovers {
        0 => exit,
        1 => format!("{exit}; a process that it left running was ended"),
        left => format!("{exit}; {left} processes that it left running were ended"),
    };
    let by = termination
        .requested_by
        .as_deref()
        .map(|who| format!(" by {who}"))
        .unwrap_or_default();
    match termination.cause {
        Cause::Exited | Cause::Signaled => exit,
        Cause::SpawnFailed => job
            .spawn_failure
            .as_ref()
            .map_or(exit, |failure| failure.message.clone()),
        Cause::Timeout => format!("the timeout passed; {exit}"),
        Cause::Canceled => format!("canceled{by}; {exit}"),
        Cause::Superseded => format!("superseded by a newer job with the same key; {exit}"),
        Cause::DependencyFailed => termination.reason.clone().unwrap_or(exit),
        Cause::OomKilled => format!("the job used more memory than it may; {exit}"),
        Cause::OutputLimit => format!("the job wrote more output than it may; {exit}"),
        Cause::WorkspaceLimit => format!("the job put more into its workspace than it may; {exit}"),
        Cause::NotReady => format!(
            "the job was not ready in time ({}); {exit}",
            job.ready_message.as_deref().unwrap_or("nobody knows why")
        ),
        Cause::StartDeadline => "the start deadline passed while the job was queued".to_owned(),
        Cause::Shutdown => format!("the service shut down; {exit}"),
        Cause::MonitorLost => "the job's monitor was lost, and the exit status with it".to_owned(),
        Cause::SupervisorLost => "the supervisor was lost, and the exit status with it".to_owned(),
        Cause::HostRebooted => "the machine restarted while the job ran".to_owned(),
        Cause::NodeLost => {
            "the node that had the job is lost, and the exit status with it".to_owned()
        }
    }
}
