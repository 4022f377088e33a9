//! The end of the service, as far as the jobs' tasks hear of it. What they do about it is theirs.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;
use tokio::time::Instant;

use super::link::SupervisorLink;
use super::tasks::Spawner;
use super::time::instant_of;
use protocol::wire::messages::FromSupervisor;

/// How a server's life ends for the jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ShutdownPlan {
    pub(super) stop_jobs: bool,
    pub(super) kill_at: Instant,
}

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

/// Whether the service ends, and how; and whether it takes new jobs until then.
#[derive(Debug)]
pub(super) struct Shutdown {
    plan: watch::Sender<Option<ShutdownPlan>>,
    /// An operator wants no new jobs.
    draining: AtomicBool,
    tasks: Spawner,
}

impl Shutdown {
    /// `draining`: an earlier server was told to drain.
    pub(super) fn new(draining: bool, tasks: Spawner) -> Self {
        Self {
            plan: watch::Sender::new(None),
            draining: AtomicBool::new(draining),
            tasks,
        }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Option<ShutdownPlan>> {
        self.plan.subscribe()
    }

    pub(super) fn has_begun(&self) -> bool {
        self.plan.borrow().is_some()
    }

    /// The service ends and leaves the jobs to their monitors.
    pub(super) fn leaves_jobs(&self) -> bool {
        self.plan.borrow().is_some_and(|plan| !plan.stop_jobs)
    }

    /// Refuses new jobs from now on, or no more. The supervisor keeps it: a drain outlives this server.
    pub(super) async fn drain(&self, draining: bool, supervisor: &SupervisorLink) {
        // It hears of it first, so that what was answered holds. Without a supervisor this service is over anyway.
        let _ = supervisor.drain(draining).await;
        self.draining.store(draining, Ordering::Relaxed);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed) || self.has_begun()
    }

    /// Listens to the supervisor until it has something to say about the service's end.
    pub(super) async fn heed(&self, supervisor: &SupervisorLink) -> SupervisorSaid {
        loop {
            match supervisor.receive().await {
                Ok(Some(FromSupervisor::Shutdown { stop_jobs, kill_at })) => {
                    self.begin(ShutdownPlan {
                        stop_jobs,
                        kill_at: instant_of(kill_at),
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
    pub(super) fn leave_jobs(&self) {
        self.begin(ShutdownPlan {
            stop_jobs: false,
            kill_at: Instant::now(),
        });
    }

    fn begin(&self, plan: ShutdownPlan) {
        self.plan.send_replace(Some(plan));
        self.tasks.close();
    }
}
