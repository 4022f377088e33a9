//! A server's start: what earlier servers accepted is queued again, followed on, or brought to its end.
//!
//! The store says what was accepted, the record in a job's directory what became of it, and the lock on
//! that record whether its monitor lives. A process number read from disk decides nothing.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::StartError;
use super::leftovers;
use super::link::MonitorLink;
use super::shared::Shared;
use super::{mirror, runner};
use job::outcome::{Cause, SpawnFailure};
use job::{JobId, State};
use linux::clock;
use protocol::record::{self, Found, Record};

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
    /// Nobody saw the end.
    Lost(Option<Record>, Cause),
    /// No program was ever executed for it, and none will be: nothing of the launch is left.
    NeverStarted,
    /// No program could be executed for it.
    Failed(SpawnFailure),
    /// The service ends without its jobs: the next server finds out.
    Undecided,
}

/// Whose monitor it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// It was launched under this supervisor, which sends a rescuer when it dies.
    Ours,
    /// It may have been launched under an earlier one, which nobody rescues.
    Inherited,
}

/// Takes every unfinished job over.
pub(super) async fn take_over(shared: &Arc<Shared>) -> Result<(), StartError> {
    let unfinished = shared.store.unfinished().await?;
    let ids: Vec<JobId> = unfinished.iter().map(|(job, _)| job.id).collect();
    let reading = shared.clone();
    let mut launched: HashMap<JobId, Found> = tokio::task::spawn_blocking(move || {
        let read = |id: JobId| Some((id, runner::read_record(reading.jobs.as_fd(), id)?));
        ids.into_iter().filter_map(read).collect()
    })
    .await
    .map_err(io::Error::other)?;
    leftovers::remove(shared, unfinished.iter().map(|(job, _)| job.id).collect()).await;
    // A first server has a fresh supervisor, which has forked nothing yet.
    let origin = if shared.is_first_server() {
        Origin::Inherited
    } else {
        Origin::Ours
    };
    let told = shared.store.told().await?;
    for (mut job, secrets) in unfinished {
        let told = told.get(&job.id).copied();
        let found = launched.remove(&job.id);
        mirror::outlive_server(&mut job, clock::wall());
        if let Some(found) = found {
            // What it was when its monitor last wrote, until the monitor is heard.
            job.state = State::Starting;
            if let Some(record) = &found.record {
                mirror::mirror(&mut job, record);
            }
            shared.admission().adopt();
            let runner = shared.enlist(job, true).told(told);
            shared.spawn(runner.resume(secrets, origin));
        } else {
            shared.spawn(shared.enlist(job, true).told(told).requeue(secrets));
        }
    }
    Ok(())
}

/// Finds out what became of a job whose monitor cannot be heard.
pub(super) async fn fate(shared: &Arc<Shared>, id: JobId, origin: Origin) -> Fate {
    let began = Instant::now();
    let rescue_limit = match origin {
        Origin::Inherited => Duration::ZERO,
        Origin::Ours => RESCUE_LIMIT,
    };
    loop {
        let waited = began.elapsed();
        if shared.leaves_jobs() {
            return Fate::Undecided;
        }
        match runner::read_record(shared.jobs.as_fd(), id) {
            Some(Found {
                record,
                monitor: Some(_),
                ..
            }) => match connect(shared, id) {
                Ok(link) => return Fate::Lives(link, record),
                Err(error) if waited >= CONNECT_LIMIT => {
                    tracing::error!(job.id = %id, %error, "the monitor of job {id} does not answer: {error}");
                    return Fate::Lost(record, Cause::MonitorLost);
                }
                Err(_) => {}
            },
            Some(Found {
                record: Some(record),
                monitor: None,
                last_word,
                ..
            }) => {
                if record.life.ended_at().is_some() {
                    return Fate::Ended(record);
                }
                if last_word.as_ref().is_some_and(record::is_orphaned) && discard(shared, id).await
                {
                    return Fate::NeverStarted;
                }
                if waited >= rescue_limit || record.boot_id != shared.boot_id {
                    if let Some(failure) = last_word {
                        return Fate::Failed(failure);
                    }
                    let cause = lost_cause(shared, origin, Some(&record));
                    return Fate::Lost(Some(record), cause);
                }
            }
            // It may have run: never again.
            Some(Found {
                damaged: true,
                monitor: None,
                ..
            }) => {
                shared.quarantine(id);
                return Fate::Lost(None, lost_cause(shared, origin, None));
            }
            // A monitor makes the directory, then the record; the leader writes into it before it
            // executes anything.
            Some(Found {
                record: None,
                monitor: None,
                ..
            })
            | None => {
                if waited >= BIRTH_LIMIT && discard(shared, id).await {
                    return Fate::NeverStarted;
                }
                if waited >= CONNECT_LIMIT {
                    return Fate::Lost(None, lost_cause(shared, origin, None));
                }
            }
        }
        runner::until(Some(Instant::now() + CONNECT_PAUSE)).await;
    }
}

fn connect(shared: &Shared, id: JobId) -> io::Result<MonitorLink> {
    let directory = record::open_directory(shared.jobs.as_fd(), id)?;
    MonitorLink::connect(directory.as_fd())
}

/// Removes what a launch without a monitor left; `false` where a program may run or have run.
async fn discard(shared: &Arc<Shared>, id: JobId) -> bool {
    let discarding = shared.clone();
    let discarded =
        tokio::task::spawn_blocking(move || record::discard(discarding.jobs.as_fd(), id)).await;
    match discarded {
        Ok(Ok(is_gone)) => is_gone,
        Ok(Err(error)) => {
            tracing::warn!(job.id = %id, %error, "what a launch of job {id} left cannot be removed: {error}");
            false
        }
        Err(_) => false,
    }
}

fn lost_cause(shared: &Shared, origin: Origin, record: Option<&Record>) -> Cause {
    if record.is_some_and(|record| record.boot_id != shared.boot_id) {
        return Cause::HostRebooted;
    }
    match origin {
        // Its supervisor is gone, or its monitor would have been rescued.
        Origin::Inherited => Cause::SupervisorLost,
        Origin::Ours => Cause::MonitorLost,
    }
}
