//! The one task of a live job, from its acceptance to its durable end. Nobody else changes the job.

mod log;
mod requests;
mod start;
mod supervised;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::adopt::{self, Fate, Origin};
use super::api::LookupError;
use super::room::Superseded;
use super::shared::Shared;
use super::shutdown::ShutdownPlan;
use super::time::until;
use super::{RequestError, SubmitError, Submitted, lost_jobs, mirror};
use job::amendment::Amendment;
use job::event::{self, Event, What};
use job::life::{Refusal, Stop};
use job::outcome::{Cause, SpawnFailure, Termination};
use job::schedule;
use job::spec::Secrets;
use job::{Idempotency, Job, State, Unwatched};
use linux::clock;
use linux::failpoint;
use linux::tree;
use protocol::record::Record;
pub(super) use requests::{JobRequest, Reply};
use store::{Inserted, Insertion, StoreError};
use supervised::{Followed, Supervised};

/// The most survivors of a lost job that its message names.
const SURVIVORS_NAMED: usize = 16;

/// How long a job that waits stays awake when nobody holds anything of it.
const WAKEFUL: Duration = Duration::from_secs(1);

/// How soon a failed write of a job's end is tried again.
pub(super) const STORE_RETRY: Duration = Duration::from_secs(1);

/// How a new job comes in.
pub(super) struct Acceptance {
    pub(super) secrets: Secrets,
    pub(super) idempotency: Option<Idempotency>,
    /// The step of a schedule that makes it.
    pub(super) step: Option<schedule::Record>,
    pub(super) answer: oneshot::Sender<Result<Submitted, SubmitError>>,
}

pub(super) struct Runner {
    shared: Arc<Shared>,
    job: Job,
    publish: watch::Sender<Arc<Job>>,
    /// Where the output ends, for those that follow it.
    feed: Arc<watch::Sender<u64>>,
    requests: mpsc::Receiver<Box<JobRequest>>,
    shutdown: watch::Receiver<Option<ShutdownPlan>>,
    answer: Option<oneshot::Sender<Result<Submitted, SubmitError>>>,
    origin: Origin,
    /// The state that the events up to now tell.
    told: State,
    /// The rate of its queue counts its start.
    is_counted: bool,
}

/// A stop, and where to tell what came of it.
type Stopping = (Stop, Reply);

impl Runner {
    pub(super) fn new(
        shared: Arc<Shared>,
        job: Job,
        publish: watch::Sender<Arc<Job>>,
        feed: Arc<watch::Sender<u64>>,
        requests: mpsc::Receiver<Box<JobRequest>>,
    ) -> Self {
        let shutdown = shared.shutdown.subscribe();
        Self {
            told: job.state,
            is_counted: false,
            shared,
            job,
            publish,
            feed,
            requests,
            shutdown,
            answer: None,
            origin: Origin::Ours,
        }
    }

    /// A new job: durable first, then queued or started.
    pub(super) async fn accept(mut self: Box<Self>, acceptance: Acceptance) {
        let Acceptance {
            secrets,
            idempotency,
            step,
            answer,
        } = acceptance;
        failpoint::hit("job.accepting");
        let inserted = match insertion(&self.job, &secrets, idempotency, step.as_ref()) {
            Ok(insertion) => self.shared.store.insert_all(insertion).await,
            Err(error) => Err(error),
        };
        let refusal = match inserted {
            Ok(Inserted::New) => {
                failpoint::hit("job.accepted");
                self.shared.metrics.accepted();
                self.answer = Some(answer);
                let (slot, has_slot) = oneshot::channel();
                let ticket = self.shared.room.ticket_of(&self.job);
                self.shared.room.enter(ticket, Some(slot));
                if let Some(key) = &self.job.spec.concurrency {
                    let room = &self.shared.room;
                    let doomed = room.supersede(self.job.id, key, Superseded::Others);
                    self.shared.end_superseded(doomed, &self.job);
                }
                self.shared.grant();
                return self.queue(has_slot, secrets, Instant::now()).await;
            }
            Ok(Inserted::Replay(id)) => {
                self.shared.room.take_back(self.job.id);
                self.shared
                    .get_any(id)
                    .await
                    .map(|job| Submitted {
                        job,
                        replayed: true,
                    })
                    .map_err(|error| match error {
                        LookupError::Store(error) => SubmitError::Store(error),
                        // It expired in this very moment.
                        LookupError::NoSuchJob => SubmitError::KeyReused,
                    })
            }
            Ok(Inserted::KeyReused) => {
                self.shared.room.take_back(self.job.id);
                Err(SubmitError::KeyReused)
            }
            Err(error) => {
                self.shared.room.take_back(self.job.id);
                Err(SubmitError::Store(error))
            }
        };
        let _ = answer.send(refusal);
    }

    /// What earlier servers have told of the job; without it, nothing is told of what it is now.
    pub(super) fn told(mut self: Box<Self>, told: Option<State>) -> Box<Self> {
        self.told = told.unwrap_or(self.told);
        // Counted by the server that told of it.
        self.is_counted = ![State::Queued, State::Starting].contains(&self.told);
        self
    }

    /// A job that waited without a task and has been woken, for whoever did it to find it.
    pub(super) async fn go_on_waiting(
        self: Box<Self>,
        has_slot: oneshot::Receiver<()>,
        secrets: Secrets,
    ) {
        self.queue(has_slot, secrets, Instant::now() + WAKEFUL)
            .await;
    }

    /// A job that an earlier server launched; it holds a slot.
    pub(super) async fn resume(mut self: Box<Self>, secrets: Secrets, origin: Origin) {
        self.origin = origin;
        match Box::pin(adopt::fate(&self.shared, self.job.id, origin)).await {
            Fate::Lives(link, record) => {
                if let Some(record) = record {
                    mirror::mirror(&mut self.job, &record);
                    self.publish();
                }
                match Supervised::new(&mut self, link).follow(None).await {
                    Followed::Over => {}
                    Followed::NeverStarted(None) => self.start(secrets, None).await,
                    Followed::NeverStarted(Some(stopping)) => self.cancel(stopping).await,
                }
            }
            Fate::Ended(record) => {
                self.finish(&record);
                self.commit_end().await;
            }
            Fate::Lost(record, cause) => {
                self.shared.leave(self.job.id);
                self.lose(record, cause).await;
            }
            Fate::NeverStarted => self.start(secrets, None).await,
            Fate::Failed(failure) => self.fail_to_spawn(failure).await,
            Fate::Undecided => {}
        }
    }

    /// The end of a job that had a slot and no program.
    async fn fail_to_spawn(&mut self, failure: SpawnFailure) {
        self.shared.leave(self.job.id);
        mirror::fail_to_spawn(&mut self.job, failure, clock::wall());
        self.commit_end().await;
    }

    /// The end of a job that had a slot and was stopped before its program ran.
    async fn cancel(&mut self, (stop, reply): Stopping) {
        self.shared.leave(self.job.id);
        mirror::end(&mut self.job, unstarted(stop), clock::wall());
        self.commit_end().await;
        let _ = reply.send(Ok(0));
    }

    /// The end of a job whose end nobody saw.
    async fn lose(&mut self, record: Option<Record>, cause: Cause) {
        if let Some(record) = &record {
            mirror::mirror(&mut self.job, record);
        }
        // Its last record may be older than its last output.
        let present = Arc::new(self.job.clone());
        let present = self.shared.job_dirs.with_present_output(present).await;
        self.job.output = present.output;
        mirror::end(&mut self.job, Termination::unasked(cause), clock::wall());
        if let Some(record) = record {
            self.name_survivors(mirror::unwatched(&record)).await;
        }
        self.commit_end().await;
    }

    /// Says what a lost job has left running, if anything, and keeps what finds it again.
    async fn name_survivors(&mut self, unwatched: Unwatched) {
        if let Some(process) = &mut self.job.process {
            process.unwatched = Some(unwatched.clone());
        }
        let left = match self.shared.lost_jobs.left_by(&self.job) {
            Some(tree) => lost_jobs::look(tree).await.1,
            None => Vec::new(),
        };
        if left.is_empty() {
            if let Some(process) = &mut self.job.process {
                process.unwatched = None;
            }
            return;
        }
        let named = tree::survivors(&left, SURVIVORS_NAMED);
        mirror::outlive(&mut self.job, unwatched, &named);
        let (id, message) = (self.job.id, self.job.message.as_deref().unwrap_or_default());
        tracing::warn!(job.id = %id, "job {id} is lost: {message}");
    }

    /// Makes the end durable, then visible; then the record has served its purpose.
    async fn commit_end(&mut self) {
        self.job.version += 1;
        let job = Arc::new(self.job.clone());
        let events = event::since(self.told, &job, clock::wall());
        self.told = job.state;
        failpoint::hit("end.storing");
        while let Err(error) = self.shared.store.finish(job.clone(), events.clone()).await {
            self.shared.store_failed(&error);
            tracing::error!(job.id = %job.id, %error, "the end of job {} could not be stored and is tried again: {error}", job.id);
            until(Some(Instant::now() + STORE_RETRY)).await;
        }
        failpoint::hit("end.stored");
        self.shared.metrics.ended(&job);
        self.publish.send_replace(job.clone());
        self.answer();
        log::ended(&job);
        self.shared.forget(job.id).await;
        failpoint::hit("record.removed");
        // Whoever asked in the meantime asked a job that is over.
        self.requests.close();
        while let Some(request) = self.requests.recv().await {
            match *request {
                JobRequest::Stop(_, reply) => drop(reply.send(Ok(0))),
                JobRequest::Relay(_, reply) => drop(reply.send(Err(Refusal::Finished.into()))),
                JobRequest::Follow => {}
                // By the time it is asked again, it is in the store.
                JobRequest::Amend(_, _, reply) => drop(reply.send(Err(RequestError::Changed))),
            }
        }
    }

    async fn amend_queued(
        &mut self,
        version: u64,
        amendment: Amendment,
    ) -> Result<u64, RequestError> {
        if version != self.job.version {
            return Err(RequestError::Changed);
        }
        if !amendment.changes_place(&self.job) {
            return self.amend(amendment).await;
        }
        let before = self.job.clone();
        let mut after = before.clone();
        amendment.clone().apply(&mut after);
        let room = &self.shared.room;
        let (new, old) = (room.ticket_of(&after), room.ticket_of(&before));
        let was_held = old.held;
        let amended = room.amend(before.id, |it| {
            // One that is about to be ended since another has come with its key stays held.
            let is_doomed = it.held && !was_held;
            *it = new;
            it.held |= is_doomed;
        });
        if !amended {
            return Err(RequestError::NotQueued);
        }
        let amended = self.amend(amendment).await;
        if amended.is_err() {
            self.shared.room.amend(before.id, |it| *it = old);
        }
        self.shared.grant();
        amended
    }

    /// Makes a change durable, then visible.
    async fn amend(&mut self, amendment: Amendment) -> Result<u64, RequestError> {
        let mut job = self.job.clone();
        amendment.apply(&mut job);
        job.version += 1;
        let changed = Event::of(&job, clock::wall(), What::Changed);
        let stored = Arc::new(job.clone());
        self.shared.store.update(stored, vec![changed]).await?;
        self.job = job;
        self.publish.send_replace(Arc::new(self.job.clone()));
        Ok(self.job.version)
    }

    fn publish(&mut self) {
        self.job.version += 1;
        self.note_start();
        self.publish.send_replace(Arc::new(self.job.clone()));
        let events = event::since(self.told, &self.job, clock::wall());
        if !events.is_empty() {
            self.told = self.job.state;
            self.shared.store.tell(events);
        }
    }

    fn note_start(&mut self) {
        if self.job.started_at.is_some() && !self.is_counted {
            self.is_counted = true;
            self.shared.note_start(&self.job);
            log::started(&self.job);
        }
    }

    /// The end as the last record tells it. Its start is noted before others may start in its place.
    fn finish(&mut self, record: &Record) {
        mirror::finish(&mut self.job, record);
        self.note_start();
        self.shared.leave(self.job.id);
    }

    /// Tells of a happening that has left the job as it is.
    fn tell(&self, what: What) {
        let event = Event::of(&self.job, clock::wall(), what);
        self.shared.store.tell(vec![event]);
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

/// A new job with what belongs to it.
fn insertion(
    job: &Job,
    secrets: &Secrets,
    idempotency: Option<Idempotency>,
    step: Option<&schedule::Record>,
) -> Result<Insertion, StoreError> {
    let mut insertion = Insertion::default();
    insertion.add(job, secrets, vec![Event::created(job)])?;
    if let Some(idempotency) = idempotency {
        insertion.keyed(&job.created_by, idempotency, job.id);
    }
    if let Some(step) = step {
        insertion.step(step)?;
    }
    Ok(insertion)
}

/// The end of a job that was stopped before its program ran.
fn unstarted(stop: Stop) -> Termination {
    Termination {
        requested_by: stop.requested_by,
        reason: stop.reason,
        ..Termination::unasked(stop.cause)
    }
}
