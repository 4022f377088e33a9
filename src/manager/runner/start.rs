//! The way of a job from its acceptance to its monitor: it waits for a slot, then it is launched.
//!
//! What becomes of it under a monitor is not known here.

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::requests::JobRequest;
use super::supervised::{Followed, Supervised};
use super::there::{self, Chosen};
use super::{
    Held, Next, Runner, Stopping, WAKEFUL, ahead, attempts, log, ready, unstarted, workspace,
};
use crate::adopt::Origin;
use crate::batches;
use crate::link::MonitorLink;
use crate::time::until;
use job::State;
use job::life::Refusal;
use job::outcome::{Cause, SpawnFailure, Stage, Termination};
use job::spec::Secrets;
use linux::clock;
use linux::failpoint;

/// How often a job is launched whose monitor dies before it could start it.
const MOST_LAUNCHES: u32 = 5;

/// Why a job was not launched.
pub(super) enum NotLaunched {
    Failed(SpawnFailure),
    /// The supervisor is dead, and with it this service.
    NoSupervisor,
}

/// What a job that waits is woken by.
enum Woken {
    Slot,
    Asked(JobRequest),
    /// It is time to look whether anybody needs the task.
    Tired,
    StartDeadline,
    Shutdown,
}

impl Runner {
    /// Waits for the slot, with a task until `awake_until` and for as long as anybody holds anything of the job.
    pub(super) async fn queue(
        &mut self,
        mut slot: oneshot::Receiver<()>,
        stopping: Option<Stopping>,
        mut awake_until: Instant,
    ) -> Next {
        if let Some(stopping) = stopping {
            return self.stop_queued(stopping).await;
        }
        if slot.try_recv().is_ok() {
            return Next::Start(None);
        }
        self.answer();
        let mut deadline = self.start_deadline();
        loop {
            // It may have begun while the last attempt ended.
            if self.shutdown.borrow().is_some() {
                return Next::Over;
            }
            let now = Instant::now();
            if awake_until <= now {
                if self.sleep() {
                    return Next::Over;
                }
                awake_until = now + WAKEFUL;
            }
            let woken = tokio::select! {
                biased;
                _ = &mut slot => Woken::Slot,
                Some(asked) = self.requests.recv() => Woken::Asked(*asked),
                _ = self.shutdown.changed() => Woken::Shutdown,
                () = until(deadline) => Woken::StartDeadline,
                () = until(Some(awake_until)) => Woken::Tired,
            };
            match woken {
                Woken::Slot => return Next::Start(None),
                Woken::Asked(JobRequest::Stop(stop, reply)) => {
                    return self.stop_queued((stop, reply)).await;
                }
                Woken::Asked(JobRequest::Relay(_, reply)) => {
                    let _ = reply.send(Err(Refusal::NotStarted.into()));
                }
                // The monitor will be asked as soon as there is one.
                Woken::Asked(JobRequest::Follow) | Woken::Tired => {}
                Woken::Asked(JobRequest::Amend(version, amendment, reply)) => {
                    let amended = self.amend_queued(version, *amendment).await;
                    deadline = self.start_deadline();
                    if let Some(ended) = attempts::given_up(self)
                        && self.withdraw()
                    {
                        self.job = Held::new(ended);
                        self.commit_end().await;
                        let _ = reply.send(amended);
                        return Next::Over;
                    }
                    let _ = reply.send(amended);
                }
                Woken::StartDeadline => {
                    if self.withdraw() {
                        let termination = Termination::unasked(Cause::StartDeadline);
                        self.end_unstarted(termination).await;
                        return Next::Over;
                    }
                    return Next::Start(None);
                }
                // It stays queued in the store for the next start.
                Woken::Shutdown => return Next::Over,
            }
        }
    }

    /// A job that waits is stopped.
    async fn stop_queued(&mut self, (stop, reply): Stopping) -> Next {
        log::stopping(&self.job, &stop);
        if self.withdraw() {
            self.end_unstarted(unstarted(stop)).await;
            let _ = reply.send(Ok(0));
            return Next::Over;
        }
        // It got its slot in this very moment: the stop goes to its monitor.
        Next::Start(Some((stop, reply)))
    }

    /// Takes the job out of those that wait; `false` if it has been granted by now.
    fn withdraw(&self) -> bool {
        let is_out = self.shared.room.withdraw(self.job.id);
        if is_out {
            self.shared.grant();
        }
        is_out
    }

    /// Leaves the job to the room, if nobody holds anything of it.
    fn sleep(&self) -> bool {
        let deadline = self.job.start_deadline_at();
        let room = &self.shared.room;
        room.sleep(self.job.id, &self.publish, &self.requests, deadline)
    }

    pub(super) fn start_deadline(&self) -> Option<Instant> {
        let left = self.job.start_deadline_at()?.since(clock::wall());
        Some(Instant::now() + left)
    }

    pub(super) async fn start(&mut self, secrets: &Secrets, mut stop: Option<Stopping>) -> Next {
        if let Some(nodes) = self.shared.nodes.clone() {
            match Box::pin(there::choose(self, &nodes, &mut stop)).await {
                Chosen::There(node, store) => {
                    return Box::pin(there::hand_over(self, secrets, (node, store))).await;
                }
                Chosen::Then(next) => return next,
                Chosen::Here => {
                    if !there::take_back(self).await {
                        return Next::Over;
                    }
                }
            }
        }
        self.origin = Origin::Ours;
        self.is_spare = false;
        self.job.next_attempt_at = None;
        self.granted_at = Some(clock::wall());
        for _ in 0..MOST_LAUNCHES {
            if self.shutdown.borrow().is_some() {
                return self.stay_queued();
            }
            self.job.state = State::Starting;
            self.job.message = None;
            self.publish();
            ready::listen(self);
            let launched = match ahead::begin(self).await {
                Some(link) => Ok(link),
                None => Box::pin(self.launch(secrets.clone(), false)).await,
            };
            let link = match launched {
                Ok(link) => link,
                Err(NotLaunched::Failed(failure)) => return self.fail_to_spawn(failure).await,
                Err(NotLaunched::NoSupervisor) => return self.stay_queued(),
            };
            match Supervised::new(self, link).follow(stop.take()).await {
                Followed::Then(next) => return next,
                Followed::NeverStarted(None) => {
                    tracing::warn!(job.id = %self.job.id, "the monitor of job {} died before it could start it", self.job.id);
                }
                Followed::NeverStarted(Some(stopping)) => return self.cancel(stopping).await,
            }
        }
        let message = "failed to make the monitor: it ended before it could start the job";
        self.fail_to_spawn(not_forked(message.to_owned())).await
    }

    /// Leaves the job to the next server, which finds it queued in the store.
    pub(super) fn stay_queued(&mut self) -> Next {
        self.shared.leave(self.job.id);
        self.job.state = State::Queued;
        self.publish();
        Next::Over
    }

    /// Has a monitor launch the job, which waits before the program if it `is_held`.
    pub(super) async fn launch(
        &self,
        secrets: Secrets,
        is_held: bool,
    ) -> Result<MonitorLink, NotLaunched> {
        let failed = |message: String| NotLaunched::Failed(not_forked(message));
        let provided = workspace::provide(&self.shared, &self.job, Default::default()).await;
        provided.map_err(|error| failed(format!("failed to make the workspace: {error}")))?;
        let mut spec = batches::with_batch(&self.job, (*self.job.spec).clone());
        spec.secret_env = secrets;
        let mut launch = self
            .shared
            .resolver
            .launch_apart(&self.job, spec)
            .await
            .map_err(|error| failed(error.to_string()))?;
        // What an attempt before has left is there.
        if launch.attempt == 1 {
            launch.spare = self.shared.job_dirs.take_spare();
        }
        launch.is_held = is_held;
        // The directory of such a job stays in any case.
        launch.keeps_short = !self.job.spec.takes_input();
        failpoint::hit("launch.sending");
        let link = self
            .shared
            .supervisor
            .launch(&launch)
            .await
            .map_err(|error| {
                if is_gone(&error) {
                    NotLaunched::NoSupervisor
                } else {
                    failed(format!("failed to make the monitor: {error}"))
                }
            });
        failpoint::hit("launch.sent");
        link
    }
}

/// Is nobody on the other side of the socket?
fn is_gone(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
    [BrokenPipe, ConnectionReset, NotConnected].contains(&error.kind())
}

pub(super) fn not_forked(message: String) -> SpawnFailure {
    SpawnFailure {
        stage: Stage::Fork,
        errno: 0,
        message,
    }
}
