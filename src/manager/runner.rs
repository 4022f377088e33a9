//! The one task of a live job, from its acceptance to its durable end. Nobody else changes the job.

mod asks;

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::adopt::{self, Fate, Origin};
use super::link::MonitorLink;
use super::queue::Arrival;
use super::{Idempotency, RequestError, Shared, SubmitError, Submitted, mirror};
use crate::clock::{Now, Timestamp};
use crate::failpoint;
use crate::job::life::{Refusal, Stop};
use crate::job::outcome::{Cause, SpawnFailure, Stage, Termination};
use crate::job::spec::{Secrets, Stdin};
use crate::job::{Job, State};
use crate::record::{self, Record};
use crate::store::{Inserted, StoreError};
use crate::wire::messages::{FromMonitor, Request, ToMonitor};

pub(super) use asks::{Ask, Reply};
use asks::{Pending, UNANSWERED, refused, send};

/// How soon a failed write of a job's end is tried again.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// How often a job is launched whose monitor dies before it could start it.
const MOST_LAUNCHES: u32 = 5;

/// The job's directory exists (`EEXIST`): making it is what decides between two launches of one job.
const ALREADY_LAUNCHED: i32 = nix::libc::EEXIST;

/// How a server's life ends for the jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ShutdownPlan {
    pub(super) stop_jobs: bool,
    pub(super) kill_at: Instant,
}

/// How a new job comes in.
pub(super) struct Acceptance {
    pub(super) secrets: Secrets,
    pub(super) idempotency: Option<Idempotency>,
    pub(super) answer: oneshot::Sender<Result<Submitted, SubmitError>>,
}

pub(super) struct Runner {
    shared: Arc<Shared>,
    job: Job,
    publish: watch::Sender<Arc<Job>>,
    /// Where the output ends, for those that follow it.
    feed: Arc<watch::Sender<u64>>,
    asks: mpsc::Receiver<Ask>,
    shutdown: watch::Receiver<Option<ShutdownPlan>>,
    answer: Option<oneshot::Sender<Result<Submitted, SubmitError>>>,
    origin: Origin,
}

/// A stop, and where to tell what came of it.
type Stopping = (Stop, Reply);

/// How following a monitor ended.
enum Followed {
    /// The job is over, or left to the next server.
    Over,
    /// No program was executed and none will be: it may be launched again. A stop was asked meanwhile.
    NeverStarted(Option<Stopping>),
}

/// Why a job was not launched.
enum NotLaunched {
    Failed(SpawnFailure),
    /// The supervisor is dead, and with it this service.
    NoSupervisor,
}

/// What a job that waits, or one that runs, is woken by.
enum Woken {
    Slot,
    Ask(Ask),
    StartDeadline,
    Shutdown,
    Monitor(std::io::Result<Option<FromMonitor>>),
    /// Nobody follows the output any more.
    Unfollowed,
    Overdue,
}

impl Runner {
    pub(super) fn new(
        shared: Arc<Shared>,
        job: Job,
        publish: watch::Sender<Arc<Job>>,
        feed: Arc<watch::Sender<u64>>,
        asks: mpsc::Receiver<Ask>,
    ) -> Self {
        let shutdown = shared.shutdown.subscribe();
        Self {
            shared,
            job,
            publish,
            feed,
            asks,
            shutdown,
            answer: None,
            origin: Origin::Ours,
        }
    }

    /// A new job: durable first, then queued or started.
    pub(super) async fn accept(mut self, acceptance: Acceptance) {
        let Acceptance {
            secrets,
            idempotency,
            answer,
        } = acceptance;
        failpoint::hit("job.accepting");
        let inserted = self
            .shared
            .store
            .insert(Arc::new(self.job.clone()), secrets.clone(), idempotency)
            .await;
        let refusal = match inserted {
            Ok(Inserted::New) => {
                failpoint::hit("job.accepted");
                self.answer = Some(answer);
                self.shared.make_visible(self.job.id);
                let (slot, has_slot) = oneshot::channel();
                let arrival =
                    self.shared
                        .admission()
                        .arrive(self.job.id, self.job.spec.priority, slot);
                return self.queue(arrival, has_slot, secrets).await;
            }
            Ok(Inserted::Replay(id)) => {
                self.shared.withdraw(self.job.id);
                self.shared
                    .get_any(id)
                    .await
                    .map(|job| Submitted {
                        job,
                        replayed: true,
                    })
                    .map_err(|error| match error {
                        RequestError::Store(error) => SubmitError::Store(error),
                        // It expired in this very moment.
                        RequestError::NoSuchJob
                        | RequestError::Refused(_)
                        | RequestError::Errno(_)
                        | RequestError::Changed
                        | RequestError::NotQueued
                        | RequestError::StdinClosed
                        | RequestError::StdinOffset { .. }
                        | RequestError::MonitorGone => SubmitError::KeyReused,
                    })
            }
            Ok(Inserted::KeyReused) => {
                self.shared.withdraw(self.job.id);
                Err(SubmitError::KeyReused)
            }
            Err(error) => {
                self.shared.withdraw(self.job.id);
                Err(SubmitError::Store(error))
            }
        };
        let _ = answer.send(refusal);
    }

    /// A job that an earlier server accepted and nobody has started.
    pub(super) async fn requeue(self, secrets: Secrets) {
        let (slot, has_slot) = oneshot::channel();
        let arrival = self
            .shared
            .admission()
            .enter(self.job.id, self.job.spec.priority, slot);
        self.queue(arrival, has_slot, secrets).await;
    }

    /// A job that an earlier server launched; it holds a slot.
    pub(super) async fn resume(mut self, secrets: Secrets, origin: Origin) {
        self.origin = origin;
        match adopt::fate(&self.shared, self.job.id, origin).await {
            Fate::Lives(link, record) => {
                if let Some(record) = record {
                    mirror::mirror(&mut self.job, &record);
                    self.publish();
                }
                match self.follow(link, None).await {
                    Followed::Over => {}
                    Followed::NeverStarted(None) => self.start(secrets, None).await,
                    Followed::NeverStarted(Some(stopping)) => self.cancel(stopping).await,
                }
            }
            Fate::Ended(record) => {
                self.shared.leave();
                mirror::finish(&mut self.job, &record);
                self.commit_end().await;
            }
            Fate::Lost(record, cause) => {
                self.shared.leave();
                self.lose(record, cause).await;
            }
            Fate::NeverStarted => self.start(secrets, None).await,
            Fate::Failed(failure) => self.fail_to_spawn(failure).await,
            Fate::Undecided => {}
        }
    }

    /// The end of a job that had a slot and no program.
    async fn fail_to_spawn(&mut self, failure: SpawnFailure) {
        self.shared.leave();
        mirror::fail_to_spawn(&mut self.job, failure, Timestamp::now());
        self.commit_end().await;
    }

    /// The end of a job that had a slot and was stopped before its program ran.
    async fn cancel(&mut self, (stop, reply): Stopping) {
        self.shared.leave();
        mirror::end(&mut self.job, unstarted(stop), Timestamp::now());
        self.commit_end().await;
        let _ = reply.send(Ok(0));
    }

    /// The end of a job whose end nobody saw.
    async fn lose(&mut self, record: Option<Record>, cause: Cause) {
        if let Some(record) = record {
            mirror::mirror(&mut self.job, &record);
        }
        mirror::end(&mut self.job, Termination::unasked(cause), Timestamp::now());
        self.commit_end().await;
    }

    async fn queue(mut self, arrival: Arrival, mut slot: oneshot::Receiver<()>, secrets: Secrets) {
        if arrival == Arrival::Waits {
            self.answer();
            let deadline = self.start_deadline();
            loop {
                let woken = tokio::select! {
                    biased;
                    _ = &mut slot => Woken::Slot,
                    Some(ask) = self.asks.recv() => Woken::Ask(ask),
                    _ = self.shutdown.changed() => Woken::Shutdown,
                    () = until(deadline) => Woken::StartDeadline,
                };
                match woken {
                    Woken::Slot => break,
                    Woken::Ask(Ask::Stop(stop, reply)) => {
                        if self
                            .shared
                            .admission()
                            .cancel(self.job.id, self.job.spec.priority)
                        {
                            mirror::end(&mut self.job, unstarted(stop), Timestamp::now());
                            self.commit_end().await;
                            let _ = reply.send(Ok(0));
                            return;
                        }
                        // It got its slot in this very moment: the stop goes to its monitor.
                        return self.start(secrets, Some((stop, reply))).await;
                    }
                    Woken::Ask(Ask::Relay(_, reply)) => {
                        let _ = reply.send(Err(Refusal::NotStarted.into()));
                    }
                    // The monitor will be asked as soon as there is one.
                    Woken::Ask(Ask::Follow) => {}
                    Woken::Ask(Ask::Amend(version, amendment, reply)) => {
                        let amended = self.amend_queued(version, *amendment).await;
                        let _ = reply.send(amended);
                    }
                    Woken::StartDeadline => {
                        if self
                            .shared
                            .admission()
                            .cancel(self.job.id, self.job.spec.priority)
                        {
                            mirror::end(
                                &mut self.job,
                                Termination::unasked(Cause::StartDeadline),
                                Timestamp::now(),
                            );
                            return self.commit_end().await;
                        }
                        break;
                    }
                    Woken::Shutdown => return, // It stays queued in the store for the next start.
                    Woken::Monitor(_) | Woken::Unfollowed | Woken::Overdue => {}
                }
            }
        }
        self.start(secrets, None).await;
    }

    fn start_deadline(&self) -> Option<Instant> {
        let waited = Timestamp::now().since(self.job.created_at);
        self.job
            .spec
            .start_deadline
            .map(|limit| Instant::now() + limit.saturating_sub(waited))
    }

    async fn start(mut self, secrets: Secrets, mut stop: Option<Stopping>) {
        self.origin = Origin::Ours;
        for _ in 0..MOST_LAUNCHES {
            if self.shutdown.borrow().is_some() {
                return self.stay_queued();
            }
            self.job.state = State::Starting;
            self.publish();
            let link = match self.launch(secrets.clone()).await {
                Ok(link) => link,
                Err(NotLaunched::Failed(failure)) => return self.fail_to_spawn(failure).await,
                Err(NotLaunched::NoSupervisor) => return self.stay_queued(),
            };
            match self.follow(link, stop.take()).await {
                Followed::Over => return,
                Followed::NeverStarted(None) => {
                    tracing::warn!(job.id = %self.job.id, "the monitor of job {} died before it could start it", self.job.id);
                }
                Followed::NeverStarted(Some(stopping)) => return self.cancel(stopping).await,
            }
        }
        let message = "failed to make the monitor: it ended before it could start the job";
        self.fail_to_spawn(not_forked(message.to_owned())).await;
    }

    /// Leaves the job to the next server, which finds it queued in the store.
    fn stay_queued(&mut self) {
        self.shared.leave();
        self.job.state = State::Queued;
        self.publish();
        self.answer();
    }

    async fn launch(&self, secrets: Secrets) -> Result<MonitorLink, NotLaunched> {
        let failed = |message: String| NotLaunched::Failed(not_forked(message));
        let mut spec = (*self.job.spec).clone();
        spec.secret_env = secrets;
        let launch = self
            .shared
            .resolve_launch(&self.job, spec)
            .await
            .map_err(|error| failed(error.to_string()))?;
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

    /// Mirrors the monitor until the job is over; `stopping` is the first that it is asked.
    async fn follow(&mut self, mut link: MonitorLink, stopping: Option<Stopping>) -> Followed {
        let mut pending: HashMap<u64, Pending> = HashMap::new();
        let mut next_ticket = 1;
        let mut kill_at = None;
        if let Some((stop, reply)) = stopping {
            let message = ToMonitor {
                ticket: 0,
                request: Request::Stop(stop.clone()),
            };
            pending.insert(
                0,
                Pending {
                    stop: Some(stop),
                    amendment: None,
                    reply,
                },
            );
            let _ = link.send(&message).await;
        }
        let mut watching = false;
        let mut has_stdin = self.job.spec.stdin == Stdin::Open;
        loop {
            if !watching && self.feed.receiver_count() > 0 {
                watching = true;
                send(&link, UNANSWERED, Request::WatchOutput(true)).await;
            }
            let woken = tokio::select! {
                message = link.receive() => Woken::Monitor(message),
                Some(ask) = self.asks.recv() => Woken::Ask(ask),
                _ = self.shutdown.changed() => Woken::Shutdown,
                () = self.feed.closed(), if watching => Woken::Unfollowed,
                () = until(kill_at) => Woken::Overdue,
            };
            let request = match woken {
                Woken::Monitor(Ok(Some(FromMonitor::Record(record)))) => {
                    if record.life.ended_at().is_some() {
                        self.end_with(&record, pending).await;
                        return Followed::Over;
                    }
                    if has_stdin && record.stdin_closed {
                        has_stdin = false;
                        // Without a supervisor nobody holds it.
                        let _ = self.shared.supervisor.close_stdin(self.job.id).await;
                    }
                    mirror::mirror(&mut self.job, &record);
                    self.publish();
                    if self.job.state != State::Starting {
                        self.answer();
                    }
                    continue;
                }
                Woken::Monitor(Ok(Some(FromMonitor::Reply { ticket, result }))) => {
                    if let Some(Pending {
                        amendment, reply, ..
                    }) = pending.remove(&ticket)
                    {
                        let result = match (result, amendment) {
                            (Ok(_), Some(amendment)) => self.amend(*amendment).await,
                            (result, _) => result.map_err(refused),
                        };
                        let _ = reply.send(result);
                    }
                    continue;
                }
                Woken::Monitor(Ok(Some(FromMonitor::Output { next_offset }))) => {
                    self.feed.send_replace(next_offset);
                    continue;
                }
                Woken::Monitor(Ok(Some(FromMonitor::NotLaunched(failure))))
                    if failure.errno != ALREADY_LAUNCHED =>
                {
                    self.fail_to_spawn(failure).await;
                    return Followed::Over;
                }
                // An earlier server's launch was still under way: that monitor has the job, and this
                // one closes its socket.
                Woken::Monitor(Ok(Some(FromMonitor::NotLaunched(_)))) => continue,
                Woken::Monitor(Ok(None) | Err(_)) => {
                    match adopt::fate(&self.shared, self.job.id, self.origin).await {
                        Fate::Lives(found, record) => {
                            link = found;
                            watching = false;
                            if let Some(record) = record {
                                mirror::mirror(&mut self.job, &record);
                                self.publish();
                                self.answer();
                            }
                            // A stop may be asked twice; a signal may have been delivered already.
                            pending.retain(|_, ask| ask.stop.is_some());
                            for (ticket, ask) in &pending {
                                if let Some(stop) = ask.stop.clone() {
                                    send(&link, *ticket, Request::Stop(stop)).await;
                                }
                            }
                            continue;
                        }
                        Fate::Ended(record) => {
                            self.end_with(&record, pending).await;
                            return Followed::Over;
                        }
                        Fate::Lost(record, cause) => {
                            self.shared.leave();
                            self.lose(record, cause).await;
                            return Followed::Over;
                        }
                        Fate::NeverStarted => {
                            let asked = pending
                                .into_values()
                                .find_map(|ask| Some((ask.stop?, ask.reply)));
                            return Followed::NeverStarted(asked);
                        }
                        Fate::Failed(failure) => {
                            self.fail_to_spawn(failure).await;
                            return Followed::Over;
                        }
                        Fate::Undecided => return Followed::Over,
                    }
                }
                Woken::Ask(Ask::Stop(stop, reply)) => {
                    pending.insert(
                        next_ticket,
                        Pending {
                            stop: Some(stop.clone()),
                            amendment: None,
                            reply,
                        },
                    );
                    Request::Stop(stop)
                }
                Woken::Ask(Ask::Relay(request, reply)) => {
                    let asked = Pending {
                        stop: None,
                        amendment: None,
                        reply,
                    };
                    pending.insert(next_ticket, asked);
                    request
                }
                Woken::Ask(Ask::Amend(version, amendment, reply)) => {
                    // One at a time: the next one is to see what this one has changed.
                    let is_taken = pending.values().any(|ask| ask.amendment.is_some());
                    let refusal = if is_taken || version != self.job.version {
                        Some(RequestError::Changed)
                    } else if amendment.changes_place(&self.job) {
                        Some(RequestError::NotQueued)
                    } else {
                        None
                    };
                    if let Some(refusal) = refusal {
                        let _ = reply.send(Err(refusal));
                        continue;
                    }
                    if !amendment.changes_plan(&self.job) {
                        let _ = reply.send(self.amend(*amendment).await);
                        continue;
                    }
                    let request = Request::Amend {
                        timeout: amendment.timeout,
                        stop: amendment.stop,
                    };
                    let asked = Pending {
                        stop: None,
                        amendment: Some(amendment),
                        reply,
                    };
                    pending.insert(next_ticket, asked);
                    request
                }
                Woken::Ask(Ask::Follow) => continue,
                Woken::Unfollowed => {
                    watching = false;
                    Request::WatchOutput(false)
                }
                Woken::Shutdown => match *self.shutdown.borrow_and_update() {
                    Some(ShutdownPlan {
                        stop_jobs: true,
                        kill_at: at,
                    }) => {
                        kill_at = Some(at);
                        let grace = self
                            .job
                            .spec
                            .stop
                            .grace
                            .min(at.saturating_duration_since(Instant::now()));
                        Request::Stop(Stop {
                            grace: Some(grace),
                            ..Stop::for_cause(Cause::Shutdown)
                        })
                    }
                    // The monitor goes on without us, and the next server adopts it.
                    Some(ShutdownPlan {
                        stop_jobs: false, ..
                    }) => return Followed::Over,
                    None => continue,
                },
                Woken::Overdue => {
                    kill_at = None;
                    Request::Stop(Stop {
                        force: true,
                        ..Stop::for_cause(Cause::Shutdown)
                    })
                }
                Woken::Slot | Woken::StartDeadline => continue,
            };
            send(&link, next_ticket, request).await;
            next_ticket += 1;
        }
    }

    /// The monitor's last record tells the end.
    async fn end_with(&mut self, record: &Record, pending: HashMap<u64, Pending>) {
        self.shared.leave();
        mirror::finish(&mut self.job, record);
        self.commit_end().await;
        for (_, ask) in pending {
            let _ = ask.reply.send(Err(Refusal::Finished.into()));
        }
    }

    /// Makes the end durable, then visible; then the record has served its purpose.
    async fn commit_end(&mut self) {
        self.job.version += 1;
        let job = Arc::new(self.job.clone());
        failpoint::hit("end.storing");
        while let Err(error) = self.shared.store.finish(job.clone()).await {
            self.shared.store_failed(&error);
            tracing::error!(job.id = %job.id, %error, "the end of job {} could not be stored and is tried again: {error}", job.id);
            until(Some(Instant::now() + STORE_RETRY)).await;
        }
        failpoint::hit("end.stored");
        self.publish.send_replace(job.clone());
        self.answer();
        tracing::debug!(job.id = %job.id, state = job.state.as_str(), "job {} ended: {}", job.id, job.state.as_str());
        self.shared.forget(job.id).await;
        failpoint::hit("record.removed");
        // Whoever asked in the meantime asked a job that is over.
        self.asks.close();
        while let Some(ask) = self.asks.recv().await {
            match ask {
                Ask::Stop(_, reply) => drop(reply.send(Ok(0))),
                Ask::Relay(_, reply) => drop(reply.send(Err(Refusal::Finished.into()))),
                Ask::Follow => {}
                // By the time it is asked again, it is in the store.
                Ask::Amend(_, _, reply) => drop(reply.send(Err(RequestError::Changed))),
            }
        }
    }

    fn publish(&mut self) {
        self.job.version += 1;
        self.publish.send_replace(Arc::new(self.job.clone()));
    }

    fn answer(&mut self) {
        if let Some(answer) = self.answer.take() {
            let job = self.publish.borrow().clone();
            // A client that hung up takes nothing back.
            let _ = answer.send(Ok(Submitted {
                job,
                replayed: false,
            }));
        }
    }
}

/// The end of a job that was stopped before its program ran.
fn unstarted(stop: Stop) -> Termination {
    Termination {
        requested_by: stop.requested_by,
        reason: stop.reason,
        ..Termination::unasked(stop.cause)
    }
}

/// Is nobody on the other side of the socket?
fn is_gone(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
    [BrokenPipe, ConnectionReset, NotConnected].contains(&error.kind())
}

fn not_forked(message: String) -> SpawnFailure {
    SpawnFailure {
        stage: Stage::Fork,
        errno: 0,
        message,
    }
}

/// Ends at `at`; never where there is none.
pub(super) async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The tokio instant of a moment on the boot clock.
pub(super) fn instant_of(at: crate::clock::BootInstant) -> Instant {
    Instant::now() + at.remaining(Now::read().boot)
}

/// Reads a job's record from its directory.
pub(super) fn read_record(
    jobs: std::os::fd::BorrowedFd<'_>,
    id: crate::job::JobId,
) -> Option<record::Found> {
    let directory = record::open_directory(jobs, id).ok()?;
    record::read(directory.as_fd()).ok()?
}

/// A store error in the words of a log line.
pub(super) fn log_store_error(error: &StoreError) {
    tracing::error!(%error, "the store failed: {error}");
}
