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
use super::runner::{self, Runner};
use super::shared::Shared;
use crate::job::JobId;
use crate::job::outcome::Cause;
use crate::record::{self, Found, Record};

/// How often and how long a live monitor is tried that does not listen yet. It listens as soon as it has
/// seen that its server is gone.
const CONNECT_PAUSE: Duration = Duration::from_millis(5);
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// Takes every unfinished job over.
pub(super) async fn take_over(shared: &Arc<Shared>) -> Result<(), StartError> {
    let unfinished = shared.store.unfinished().await?;
    let ids: Vec<JobId> = unfinished.iter().map(|(job, _)| job.id).collect();
    let reading = shared.clone();
    let mut found: HashMap<JobId, Found> = tokio::task::spawn_blocking(move || {
        ids.into_iter()
            .filter_map(|id| Some((id, runner::read_record(reading.jobs.as_fd(), id)?)))
            .collect()
    })
    .await
    .map_err(io::Error::other)?;
    for (job, secrets) in unfinished {
        let id = job.id;
        let found = found.remove(&id);
        let runner = shared.enlist(job, true);
        match found {
            // Nobody has started it.
            None => shared.spawn(runner.requeue(secrets)),
            Some(Found {
                record,
                monitor: Some(_),
            }) => shared.spawn(reconnect(shared.clone(), runner, id, record)),
            Some(Found {
                record: Some(record),
                monitor: None,
            }) if record.life.ended_at().is_some() => {
                shared.spawn(runner.conclude(record));
            }
            Some(Found {
                record: Some(record),
                monitor: None,
            }) => {
                let cause = lost_cause(shared, &record);
                shared.spawn(runner.lose(Some(record), cause));
            }
            // The monitor was lost before the leader existed, which writes a record before it runs anything.
            Some(Found {
                record: None,
                monitor: None,
            }) => {
                let clearing = shared.clone();
                shared.spawn(async move {
                    let cleared = tokio::task::spawn_blocking(move || record::remove(clearing.jobs.as_fd(), id)).await;
                    if let Ok(Err(error)) = cleared {
                        tracing::warn!(job.id = %id, %error, "the empty record of job {id} could not be removed: {error}");
                    }
                    runner.requeue(secrets).await;
                });
            }
        }
    }
    Ok(())
}

fn lost_cause(shared: &Shared, record: &Record) -> Cause {
    if record.boot_id != shared.boot_id {
        Cause::HostRebooted
    } else if shared.is_first_server() {
        // This supervisor has started no monitor yet: the one before it is gone too.
        Cause::SupervisorLost
    } else {
        Cause::MonitorLost
    }
}

async fn reconnect(shared: Arc<Shared>, runner: Runner, id: JobId, record: Option<Record>) {
    let give_up = Instant::now() + CONNECT_LIMIT;
    loop {
        let linked = record::open_directory(shared.jobs.as_fd(), id)
            .and_then(|directory| MonitorLink::connect(directory.as_fd()));
        match linked {
            Ok(link) => return runner.adopt(link, record).await,
            Err(error) if Instant::now() >= give_up => {
                tracing::error!(job.id = %id, %error, "the monitor of job {id} does not answer: {error}");
                return runner.lose(record, Cause::MonitorLost).await;
            }
            Err(_) => {}
        }
        // Its job may have ended, and the monitor with it.
        match runner::read_record(shared.jobs.as_fd(), id) {
            Some(Found {
                record: Some(last),
                monitor: None,
            }) if last.life.ended_at().is_some() => {
                return runner.conclude(last).await;
            }
            Some(Found {
                record: last,
                monitor: None,
            }) => {
                let cause = last
                    .as_ref()
                    .map_or(Cause::MonitorLost, |last| lost_cause(&shared, last));
                return runner.lose(last, cause).await;
            }
            Some(Found {
                monitor: Some(_), ..
            })
            | None => {}
        }
        runner::until(Some(Instant::now() + CONNECT_PAUSE)).await;
    }
}
