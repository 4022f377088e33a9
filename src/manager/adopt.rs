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
use super::link::MonitorLink;
use super::shared::Shared;
use super::{mirror, runner};
use crate::clock::Timestamp;
use crate::job::outcome::Cause;
use crate::job::{JobId, State};
use crate::record::{self, Found, Record};

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
    /// No program was ever executed for it.
    NeverStarted,
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
    for (mut job, secrets) in unfinished {
        let found = launched.remove(&job.id);
        mirror::outlive_server(&mut job, Timestamp::now());
        if let Some(found) = found {
            // What it was when its monitor last wrote, until the monitor is heard.
            job.state = State::Starting;
            if let Some(record) = &found.record {
                mirror::mirror(&mut job, record);
            }
            shared.admission().adopt();
            shared.spawn(shared.enlist(job, true).resume(secrets));
        } else {
            shared.spawn(shared.enlist(job, true).requeue(secrets));
        }
    }
    Ok(())
}

/// Finds out what became of a job whose monitor cannot be heard, and was not heard by this server before.
pub(super) async fn fate(shared: &Shared, id: JobId) -> Fate {
    // Under a fresh supervisor no rescuer will come: it has forked no monitor that could have died.
    if shared.is_first_server() {
        find_out(shared, id, Duration::ZERO, Cause::SupervisorLost).await
    } else {
        find_out(shared, id, RESCUE_LIMIT, Cause::MonitorLost).await
    }
}

/// The same for a monitor that this server has heard before.
pub(super) async fn fate_of_lost(shared: &Shared, id: JobId) -> Fate {
    find_out(shared, id, RESCUE_LIMIT, Cause::MonitorLost).await
}

async fn find_out(shared: &Shared, id: JobId, rescue_limit: Duration, cause: Cause) -> Fate {
    let began = Instant::now();
    loop {
        let waited = began.elapsed();
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
                ..
            }) => {
                if record.life.ended_at().is_some() {
                    return Fate::Ended(record);
                }
                if waited >= rescue_limit || record.boot_id != shared.boot_id {
                    let cause = if record.boot_id == shared.boot_id {
                        cause
                    } else {
                        Cause::HostRebooted
                    };
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
                return Fate::Lost(None, cause);
            }
            // A monitor makes the directory, then the record; the leader writes into it before it
            // executes anything.
            Some(Found {
                record: None,
                monitor: None,
                ..
            })
            | None => {
                if waited >= BIRTH_LIMIT {
                    return Fate::NeverStarted;
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
