//! A server's start: what earlier servers accepted is queued again, followed on, or brought to its end.
//!
//! The store says what was accepted, the record in a job's directory what became of it, and the lock on
//! that record whether its monitor lives. A process number read from disk decides nothing.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::StartError;
use super::admission::Ticket;
use super::cleanup;
use super::link::MonitorLink;
use super::room::Superseded;
use super::runner::resume_there;
use super::shared::Shared;
use super::time::until;
use super::{batches, chains, mirror, queues, schedules, wake};
use job::outcome::{Cause, SpawnFailure};
use job::queue::OnConflict;
use job::spec::Secrets;
use job::time::Timestamp;
use job::{Job, JobId, State};
use linux::clock;
use protocol::record::{self, Record};
use protocol::state_dir::boot_of;

/// How often and how long a live monitor is tried that does not listen yet. It listens as soon as it has
/// seen that its server is gone.
const CONNECT_PAUSE: Duration = Duration::from_millis(5);
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// How long a monitor may take to make its record.
const BIRTH_LIMIT: Duration = Duration::from_secs(1);

/// How long a rescue monitor may take to appear after a monitor's death.
const RESCUE_LIMIT: Duration = Duration::from_secs(5);

/// What became of a job whose monitor cannot be heard.
pub(super) enum Fate {
    /// A monitor lives, the same one or a rescuer.
    Lives(MonitorLink, Option<Record>),
    /// The job has ended; this is the last record.
    Ended(Record),
    /// Nobody saw the end. Without a record, this is why there is none.
    Lost(Result<Record, NoRecord>, Cause),
    /// No program was ever executed for it, and none will be: nothing of the launch is left.
    NeverStarted,
    /// No program could be executed for it.
    Failed(SpawnFailure),
    /// The service ends without its jobs: the next server finds out.
    Undecided,
}

/// Why nothing is known of a job that had been started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRecord {
    Missing,
    Damaged,
    Unreadable,
    /// Its monitor lives and does not answer.
    Mute,
}

impl NoRecord {
    /// For the job's message.
    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::Missing => {
                "the job was started, and its directory or the record in it is missing: nobody knows how it ended"
            }
            Self::Damaged => "the job's record is damaged: nobody knows how it ended",
            Self::Unreadable => "the job's record cannot be read: nobody knows how it ended",
            Self::Mute => "the job's monitor does not answer, and it has no record",
        }
    }
}

/// Whose monitor it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// It was launched under this supervisor, which sends a rescuer when it dies.
    Ours,
    /// It may have been launched under an earlier one, which nobody rescues.
    Inherited,
}

/// What the last launch of a job has left.
enum Left {
    /// A record.
    Record(Box<record::Found>),
    /// No record that can be read, of a job that may have been started all the same.
    Doubt,
}

/// A job, the values of its secrets, and what its last launch has left.
type Known = (Job, Secrets, Left);

/// An unfinished job as a server's start finds it.
enum Found {
    /// Nobody has launched it: its ticket and its start deadline, and all of it if it puts an end to others.
    Waits(Ticket, Option<Timestamp>, Option<Box<Job>>),
    /// It was launched.
    Known(Box<Known>),
    /// Another node has it.
    There(Box<(Job, Secrets)>),
}

/// Takes every unfinished job over. All that wait do so again before the first of them may start, so that they start in
/// their order.
pub(super) async fn take_over(shared: &Arc<Shared>) -> Result<(), StartError> {
    if let Some(newest) = shared.store.newest().await? {
        newest.ascend_from();
    }
    queues::recall(shared).await?;
    schedules::recall(shared).await?;
    let told = shared.store.told().await?;
    batches::recall(shared).await?;
    let directories = shared.job_dirs.all().await?;
    let reading = shared.clone();
    let started: HashSet<JobId> = told
        .iter()
        .filter(|(_, state)| is_beyond_start(**state))
        .map(|(id, _)| *id)
        .collect();
    let unfinished = shared.store.unfinished(move |job, secrets| {
        let id = job.id;
        if reading.is_there(&job) {
            reading.chains.recall(&job);
            return (id, Found::There(Box::new((job, secrets))));
        }
        let left = directories
            .contains(&id)
            .then(|| left_of(&reading, &job))
            .flatten();
        // Its directory does not make it start again: the store knows that it has run.
        let was_started = started.contains(&id) || is_beyond_start(job.state);
        let left = left.or_else(|| was_started.then_some(Left::Doubt));
        reading.chains.recall(&job);
        if let Some(left) = left {
            return (id, Found::Known(Box::new((job, secrets, left))));
        }
        let ticket = reading.room.ticket_of(&job);
        let deadline = job.start_deadline_at();
        let job = supersedes(&job).then(|| Box::new(job));
        (id, Found::Waits(ticket, deadline, job))
    });
    let unfinished = unfinished.await?;
    let is_there = |(_, found): &(JobId, Found)| matches!(found, Found::There(_));
    if shared.nodes.is_none() && unfinished.iter().any(is_there) {
        return Err(StartError::HasNodes);
    }
    cleanup::remove(shared, unfinished.iter().map(|(id, _)| *id).collect()).await;
    // A first server has a fresh supervisor, which has forked nothing yet.
    let origin = if shared.host.restarts == 0 {
        Origin::Inherited
    } else {
        Origin::Ours
    };
    let mut superseding = Vec::new();
    for (id, found) in unfinished {
        match found {
            Found::Waits(ticket, deadline, job) => {
                shared.room.enter_asleep(ticket, deadline);
                superseding.extend(job);
            }
            Found::There(known) => follow_there(shared, *known, told.get(&id).copied()),
            Found::Known(known) => {
                take_known_over(shared, *known, told.get(&id).copied(), origin);
            }
        }
    }
    // An earlier server may have died before it had ended those.
    for job in superseding {
        if let Some(key) = &job.spec.concurrency {
            let doomed = shared.room.supersede(job.id, key, Superseded::Older);
            shared.end_superseded(doomed, &job);
        }
    }
    batches::stop_again(shared).await?;
    chains::settle_all(shared).await?;
    shared.nodes_changed();
    Ok(())
}

fn supersedes(job: &Job) -> bool {
    let policy = job.spec.concurrency.as_ref().map(|it| it.policy);
    matches!(policy, Some(OnConflict::Newest | OnConflict::Replace))
}

/// Is a job in this state only after a monitor had it?
pub(super) fn is_beyond_start(state: State) -> bool {
    match state {
        State::Queued | State::Starting => false,
        State::Running
        | State::Paused
        | State::Stopping
        | State::Succeeded
        | State::Failed
        | State::TimedOut
        | State::Canceled
        | State::Lost => true,
    }
}

/// What is in the directory of an unfinished job.
fn left_of(shared: &Shared, job: &Job) -> Option<Left> {
    match shared.job_dirs.read_record(job.id) {
        Ok(Some(found)) if is_settled(&found, job.attempt) => {
            shared.job_dirs.remove_record_now(job.id);
            None
        }
        Ok(found) => found.map(|found| Left::Record(Box::new(found))),
        Err(_) => Some(Left::Doubt),
    }
}

/// The start of a launched job, if the server that launched it may have died before it noted that for the rate of its queue.
fn untold_start(job: &Job, told: Option<State>) -> Option<Timestamp> {
    let is_noted = told.is_some_and(is_beyond_start);
    (!is_noted).then(|| job.attempt_started_at().unwrap_or_else(clock::wall))
}

fn follow_there(shared: &Arc<Shared>, (job, secrets): (Job, Secrets), told: Option<State>) {
    let ticket = shared.room.ticket_of(&job);
    if let (Some(nodes), Some(claim)) = (&shared.nodes, &job.claim) {
        nodes.hold(job.id, &claim.node, job.spec.weight);
    }
    let mut job = shared.outlived(job);
    if job.next_attempt_at.is_none() && job.state == State::Queued {
        job.state = State::Starting;
    }
    shared.room.adopt(ticket, untold_start(&job, told));
    let runner = shared.enlist(job, true, None).told(told);
    shared.spawn(resume_there(runner, secrets));
}

fn take_known_over(
    shared: &Arc<Shared>,
    (job, secrets, left): Known,
    told: Option<State>,
    origin: Origin,
) {
    let ticket = shared.room.ticket_of(&job);
    // A job that was changed while it ran is in the store as it was then.
    let row = Some(job.state).filter(|state| is_beyond_start(*state));
    let told = told
        .filter(|state| is_beyond_start(*state))
        .or(row)
        .or(told);
    let mut job = shared.outlived(job);
    // What it was when its monitor last wrote, until the monitor is heard.
    job.state = State::Starting;
    if let Left::Record(found) = &left
        && let Some(record) = &found.record
    {
        mirror::mirror(&mut job, record);
    }
    if let Some(nodes) = &shared.nodes {
        nodes.hold(job.id, &nodes.own, job.spec.weight);
    }
    shared.room.adopt(ticket, untold_start(&job, told));
    let runner = shared.enlist(job, true, None).told(told);
    shared.spawn(runner.resume(secrets, origin));
}

/// Is this record of an attempt that is over, and of which all is in the store? A server was killed before it removed it.
fn is_settled(found: &record::Found, attempt: u32) -> bool {
    found.record.as_ref().is_some_and(|it| it.attempt < attempt)
}

/// Finds out what became of the present attempt of a job whose monitor cannot be heard. One that is known to have
/// been started never starts again, whatever is in its directory.
pub(super) async fn fate(
    shared: &Arc<Shared>,
    job: &Job,
    was_started: bool,
    origin: Origin,
) -> Fate {
    let began = Instant::now();
    loop {
        if shared.shutdown.leaves_jobs() {
            return Fate::Undecided;
        }
        let look = Look {
            shared,
            job,
            was_started,
            origin,
            waited: began.elapsed(),
        };
        if let Some(fate) = look.at_job().await {
            return fate;
        }
        until(Some(Instant::now() + CONNECT_PAUSE)).await;
    }
}

/// A look at what a job's monitor has left.
struct Look<'a> {
    shared: &'a Arc<Shared>,
    job: &'a Job,
    was_started: bool,
    origin: Origin,
    /// How long after the first look.
    waited: Duration,
}

impl Look<'_> {
    /// What became of the job; `None` if that may still show itself.
    async fn at_job(&self) -> Option<Fate> {
        let (id, dirs) = (self.job.id, &self.shared.job_dirs);
        let found = match dirs.read_record(id) {
            Ok(found) => found,
            // A moment without descriptors says nothing of a job.
            Err(error) => {
                return self.is_late().then(|| {
                    tracing::error!(job.id = %id, %error, "the record of job {id} cannot be read: {error}");
                    self.lost(Err(NoRecord::Unreadable))
                });
            }
        };
        let Some(found) = found else {
            return self.at_nothing().await;
        };
        if is_settled(&found, self.job.attempt) {
            if found.monitor.is_some() {
                return None;
            }
            dirs.remove_record(id).await;
            return Some(Fate::NeverStarted);
        }
        match found {
            record::Found {
                record,
                monitor: Some(monitor),
                ..
            } => self.at_monitor(record, monitor),
            record::Found {
                record: Some(record),
                last_word,
                ..
            } => self.at_record(record, last_word).await,
            // It may have run: never again.
            record::Found { damaged: true, .. } => {
                dirs.quarantine(id);
                Some(self.lost(Err(NoRecord::Damaged)))
            }
            record::Found { .. } => self.at_nothing().await,
        }
    }

    fn is_late(&self) -> bool {
        self.waited >= CONNECT_LIMIT
    }

    fn at_monitor(&self, record: Option<Record>, monitor: i32) -> Option<Fate> {
        let (id, dirs) = (self.job.id, &self.shared.job_dirs);
        match dirs.connect(id) {
            Ok(link) => Some(Fate::Lives(link, record)),
            Err(error) if self.is_late() => {
                tracing::error!(job.id = %id, %error, "the monitor of job {id} does not answer: {error}");
                let record = record.ok_or(NoRecord::Mute);
                Some(Fate::Lost(record, Cause::MonitorLost))
            }
            // It listens once it has seen that its server is gone.
            Err(_) => {
                wake::wake(dirs, id, monitor);
                None
            }
        }
    }

    async fn at_record(&self, record: Record, last_word: Option<SpawnFailure>) -> Option<Fate> {
        if record.life.ended_at().is_some() {
            return Some(Fate::Ended(record));
        }
        if last_word.as_ref().is_some_and(record::is_orphaned)
            && self.shared.job_dirs.discard(self.job.id).await
        {
            return Some(Fate::NeverStarted);
        }
        let rescue_limit = match self.origin {
            Origin::Inherited => Duration::ZERO,
            Origin::Ours => RESCUE_LIMIT,
        };
        let is_of_this_life = record.boot_id == self.shared.host.boot_id;
        if is_of_this_life && self.waited < rescue_limit {
            return None;
        }
        Some(last_word.map_or_else(|| self.lost(Ok(record)), Fate::Failed))
    }

    /// A monitor makes the directory, then the record; the leader writes into it before it executes anything.
    async fn at_nothing(&self) -> Option<Fate> {
        let is_born = self.waited >= BIRTH_LIMIT;
        if is_born && !self.was_started && self.shared.job_dirs.discard(self.job.id).await {
            return Some(Fate::NeverStarted);
        }
        let is_over = self.is_late() || self.was_started && is_born;
        is_over.then(|| self.lost(Err(NoRecord::Missing)))
    }

    fn lost(&self, record: Result<Record, NoRecord>) -> Fate {
        let cause = match &record {
            Err(_) => self.cause_here(),
            Ok(record) => {
                let (then, now) = (record.boot_id.as_str(), self.shared.host.boot_id.as_str());
                if boot_of(then) != boot_of(now) {
                    Cause::HostRebooted
                } else if then != now {
                    // It is the original's of which this state directory is a copy.
                    Cause::SupervisorLost
                } else {
                    self.cause_here()
                }
            }
        };
        Fate::Lost(record, cause)
    }

    fn cause_here(&self) -> Cause {
        match self.origin {
            // Its supervisor is gone, or its monitor would have been rescued.
            Origin::Inherited => Cause::SupervisorLost,
            Origin::Ours => Cause::MonitorLost,
        }
    }
}
