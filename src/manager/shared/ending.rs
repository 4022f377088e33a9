//! The end of the service, as far as the jobs' tasks are told. What they do about it is theirs.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::Shared;
use crate::runner::{self, ShutdownPlan};
use protocol::wire::messages::FromSupervisor;

/// What the supervisor said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SupervisorSaid {
    /// End the service; a second time: at once.
    Shutdown,
    /// Another server takes over.
    Replace,
    /// Nothing, ever again.
    Gone,
}

impl Shared {
    /// The service ends and leaves the jobs to their monitors.
    pub(crate) fn leaves_jobs(&self) -> bool {
        self.shutdown.borrow().is_some_and(|plan| !plan.stop_jobs)
    }

    /// Refuses new jobs from now on, or no more. The supervisor keeps it: a drain outlives this server.
    pub(crate) async fn drain(&self, draining: bool) {
        // Told first, so that what was answered holds. Without a supervisor this service is over anyway.
        let _ = self.supervisor.drain(draining).await;
        self.draining.store(draining, Ordering::Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed) || self.shutdown.borrow().is_some()
    }

    /// Listens to the supervisor until it has something to say about the service's end.
    pub(crate) async fn supervisor_said(&self) -> SupervisorSaid {
        loop {
            match self.supervisor.receive().await {
                Ok(Some(FromSupervisor::Shutdown { stop_jobs, kill_at })) => {
                    self.end(ShutdownPlan {
                        stop_jobs,
                        kill_at: runner::instant_of(kill_at),
                    });
                    return SupervisorSaid::Shutdown;
                }
                Ok(Some(FromSupervisor::Replace)) => return SupervisorSaid::Replace,
                // Without a supervisor there is no service: the jobs are left to their monitors.
                Ok(None) => {
                    self.leave_jobs();
                    return SupervisorSaid::Gone;
                }
                Err(error) => {
                    tracing::error!(%error, "a message of the supervisor was not understood: {error}");
                }
            }
        }
    }

    /// Leaves every job to its monitor, and the queued ones to the store.
    pub(crate) fn leave_jobs(&self) {
        self.end(ShutdownPlan {
            stop_jobs: false,
            kill_at: tokio::time::Instant::now(),
        });
    }

    fn end(&self, plan: ShutdownPlan) {
        self.shutdown.send_replace(Some(plan));
        // No task comes after these: their end is the end of the manager's work.
        self.spawner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }
}
