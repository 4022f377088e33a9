//! The one task of a live job, from its acceptance to its durable end. Nobody else changes the job.

mod acceptance;
mod ahead;
mod attempts;
mod held;
mod log;
mod ready;
mod requests;
mod start;
mod supervised;
mod there;
mod warning;
pub(super) mod workspace;

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

pub(super) use acceptance::Acceptance;
pub(super) use ahead::Arrivals;
pub(super) use held::Held;

use super::admission::Ticket;
use super::adopt::{self, Fate, NoRecord, Origin};
use super::job_dirs::Over;
use super::link::MonitorLink;
use super::readers::Readers;
use super::shared::Shared;
use super::shutdown::ShutdownPlan;
use super::{RequestError, SubmitError, Submitted, chains, lost_jobs, mirror, outputs};
use job::amendment::Amendment;
use job::event::{self, Event, What};
use job::life::{Refusal, Stop};
use job::outcome::{Cause, SpawnFailure, Termination};
use job::spec::Secrets;
use job::time::Timestamp;
use job::{Job, NodeName, State, Unwatched};
use linux::clock;
use linux::failpoint;
use linux::notify::NotifySocket;
use linux::tree;
use protocol::output::Short;
use protocol::record::Record;
pub(super) use requests::{JobRequest, Reply};
use supervised::{Followed, Supervised};
pub(super) use there::{late, resume as resume_there};

/// The most survivors of a lost job that its message names.
const SURVIVORS_NAMED: usize = 16;

/// How long a job that waits stays awake when nobody holds anything of it.
const WAKEFUL: Duration = Duration::from_secs(1);

/// How long the processes of a lost attempt are waited for at a time.
const SURVIVORS_PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Runner {
    shared: Arc<Shared>,
    job: Held,
    publish: watch::Sender<Arc<Job>>,
    feed: Arc<watch::Sender<u64>>,
    /// Up to where the output has been read, of a job that waits for that.
    read: Option<watch::Receiver<u64>>,
    requests: mpsc::Receiver<Box<JobRequest>>,
    shutdown: watch::Receiver<Option<ShutdownPlan>>,
    answer: Option<oneshot::Sender<Result<Submitted, SubmitError>>>,
    origin: Origin,
    /// The state that the events up to now tell.
    told: State,
    /// The rate of its queue counts its start.
    is_counted: bool,
    /// When it got its slot, if it was from this server and its start has not been seen.
    granted_at: Option<Timestamp>,
    /// Where it reports that it is ready, until somebody listens.
    notify: Option<NotifySocket>,
    /// Happenings that are told with the next change.
    untold: Vec<Event>,
    /// The node that does not take its present attempt, now or later.
    refused_by: Option<Box<NodeName>>,
    /// Its directory may be another job's once it is over.
    is_spare: bool,
    /// Its output, once it has ended, if that is short: it is not synced, and stored with the end of the job.
    short: Option<Arc<Short>>,
    /// Its monitor, which has made all ready and waits for the job to be durable.
    ahead: Option<MonitorLink>,
}

/// What is told of a job, and by whom.
pub(super) struct Told {
    pub(super) publish: watch::Sender<Arc<Job>>,
    /// Where the output ends, for those that follow it.
    pub(super) feed: Arc<watch::Sender<u64>>,
    /// Who reads the output, of a job that waits for that.
    pub(super) readers: Option<Arc<Readers>>,
}

/// A stop, and where to tell what came of it.
type Stopping = (Stop, Reply);

/// What a job's task does next.
pub(super) enum Next {
    /// It waits, to be granted by this. A stop was asked meanwhile.
    Wait(oneshot::Receiver<()>, Option<Stopping>),
    /// It starts. A stop was asked meanwhile.
    Start(Option<Stopping>),
    /// It is handed over to the node that it has been claimed for.
    HandOver,
    /// Nothing: the job is over, waits without a task, or is left to the next server.
    Over,
}

impl Runner {
    pub(super) fn new(
        shared: Arc<Shared>,
        job: Held,
        Told {
            publish,
            feed,
            readers,
        }: Told,
        requests: mpsc::Receiver<Box<JobRequest>>,
    ) -> Self {
        let shutdown = shared.shutdown.subscribe();
        Self {
            told: job.state,
            is_counted: false,
            granted_at: None,
            notify: None,
            untold: Vec::new(),
            refused_by: None,
            is_spare: false,
            short: None,
            ahead: None,
            shared,
            job,
            publish,
            feed,
            read: readers.map(|readers| readers.watch()),
            requests,
            shutdown,
            answer: None,
            origin: Origin::Ours,
        }
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
        let next = Next::Wait(has_slot, None);
        self.go_on(secrets, next, Instant::now() + WAKEFUL).await;
    }

    /// From one thing to the next, until the job is over or left to somebody else. One that waits has its task until
    /// `awake_until`.
    async fn go_on(mut self: Box<Self>, secrets: Secrets, mut next: Next, awake_until: Instant) {
        let mut awake_until = awake_until;
        loop {
            next = match next {
                Next::Wait(slot, stopping) => self.queue(slot, stopping, awake_until).await,
                Next::Start(stopping) => self.start(&secrets, stopping).await,
                Next::HandOver => Box::pin(there::claimed(&mut self, &secrets)).await,
                Next::Over => break,
            };
            awake_until = Instant::now() + WAKEFUL;
        }
        // It is accepted, whoever starts it.
        self.answer();
        if self.told.is_terminal() {
            let over = Over::of(&self.job, self.is_spare, self.short.is_some());
            self.shared.job_dirs.tidy(over).await;
        }
    }

    /// A job that an earlier server launched; it holds a slot.
    pub(super) async fn resume(mut self: Box<Self>, secrets: Secrets, origin: Origin) {
        self.origin = origin;
        let was_started = self.was_started();
        let fate = adopt::fate(&self.shared, &self.job, was_started, origin);
        let next = match Box::pin(fate).await {
            Fate::Lives(link, record) => {
                if let Some(record) = record {
                    mirror::mirror(&mut self.job, &record);
                    self.publish();
                }
                match Supervised::new(&mut self, link).follow(None).await {
                    Followed::Then(next) => next,
                    Followed::NeverStarted(None) => Next::Start(None),
                    Followed::NeverStarted(Some(stopping)) => self.cancel(stopping).await,
                }
            }
            Fate::Ended(record) => {
                self.finish(&record);
                attempts::settle(&mut self, Some(&record)).await
            }
            Fate::Lost(record, cause) => {
                self.shared.leave(self.job.id);
                self.lose(record, cause).await
            }
            Fate::NeverStarted => Next::Start(None),
            Fate::Failed(failure) => self.fail_to_spawn(failure).await,
            Fate::Undecided => Next::Over,
        };
        self.go_on(secrets, next, Instant::now() + WAKEFUL).await;
    }

    /// The end of an attempt that had a slot and no program.
    async fn fail_to_spawn(&mut self, failure: SpawnFailure) -> Next {
        self.shared.leave(self.job.id);
        mirror::fail_to_spawn(&mut self.job, failure, clock::wall());
        attempts::settle(self, None).await
    }

    /// The same of one that this node does not take, now or later.
    async fn fail_to_place(&mut self, node: &NodeName, why: String) -> Next {
        self.refused_by = Some(Box::new(node.clone()));
        self.fail_to_spawn(start::not_forked(why)).await
    }

    /// The end of a job that had a slot and was stopped before its program ran.
    async fn cancel(&mut self, (stop, reply): Stopping) -> Next {
        self.shared.leave(self.job.id);
        self.end_unstarted(unstarted(stop)).await;
        let _ = reply.send(Ok(0));
        Next::Over
    }

    /// The end of a job whose present attempt has not begun; what there is to see is that of the one before.
    async fn end_unstarted(&mut self, termination: Termination) {
        let job = &mut *self.job;
        if let Some(last) = job.attempts.last() {
            job.attempt = last.number;
            job.exit = last.exit;
            job.spawn_failure.clone_from(&last.spawn_failure);
        }
        mirror::end(job, termination, clock::wall());
        self.commit_end().await;
    }

    /// Has a program of the present attempt been executed, as far as is known without its record?
    fn was_started(&self) -> bool {
        adopt::is_beyond_start(self.told) || self.job.attempt_started_at().is_some()
    }

    /// The end of an attempt whose end nobody saw.
    async fn lose(&mut self, record: Result<Record, NoRecord>, cause: Cause) -> Next {
        if let Ok(record) = &record {
            mirror::mirror(&mut self.job, record);
        }
        // Its last record may be older than its last output.
        let present = self.job.shown();
        let present = self.shared.job_dirs.with_present_output(present).await;
        self.job.output = present.output;
        mirror::end(&mut self.job, Termination::unasked(cause), clock::wall());
        match &record {
            Ok(record) => self.name_survivors(mirror::unwatched(record)).await,
            Err(why) => self.job.message = Some(why.describe().to_owned()),
        }
        attempts::settle(self, record.as_ref().ok()).await
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
        let _ending = workspace::end(&self.shared, &self.job).await;
        workspace::collect(&self.shared, &mut self.job).await;
        self.job.version += 1;
        let events = event::since(self.told, &self.job, clock::wall());
        let events = ready::with_untold(self, events);
        self.commit_end_telling(events).await;
    }

    /// The same, with what there is to tell of it.
    async fn commit_end_telling(&mut self, events: Vec<Event>) {
        let job = self.job.shown();
        self.told = job.state;
        failpoint::hit("end.storing");
        let output = self.short.as_deref().map(outputs::encode);
        let store = self.shared.store.outputs();
        let finish = || store.finish(job.clone(), events.clone(), output.clone());
        let end = (job.id, "the end");
        self.shared.until_stored(end, finish, pending::<()>()).await;
        failpoint::hit("end.stored");
        self.shared.count_end(&job);
        if let Some(short) = &self.short {
            self.shared.recent.remember(job.id, short.clone());
        }
        self.publish.send_replace(job.clone());
        if job.spec.workspace.is_some() {
            self.shared.workspaces.is_untidy();
        }
        chains::end_is_known(&self.shared, &job);
        self.answer();
        log::ended(&job);
        self.shared.room.forget(job.id);
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
            // What it depends on is no part of an amendment.
            let depends = it.depends;
            *it = Ticket { depends, ..new };
            it.held |= is_doomed;
        });
        if !amended {
            return Err(RequestError::NotQueued);
        }
        let amended = self.amend(amendment).await;
        if amended.is_err() {
            self.shared.room.replace(old);
        }
        self.shared.grant();
        amended
    }

    /// Makes a change durable, then visible.
    async fn amend(&mut self, amendment: Amendment) -> Result<u64, RequestError> {
        let mut job = self.job.clone();
        amendment.apply(&mut job);
        if *job == *self.job {
            return Ok(job.version);
        }
        job.version += 1;
        let changed = Event::of(&job, clock::wall(), What::Changed);
        self.shared.store.update(job.shown(), vec![changed]).await?;
        self.job = job;
        self.publish.send_replace(self.job.shown());
        Ok(self.job.version)
    }

    fn publish(&mut self) {
        self.job.version += 1;
        self.note_start();
        // Before it can be seen, so that what is told of what was done next comes after it.
        let events = event::since(self.told, &self.job, clock::wall());
        if !events.is_empty() {
            self.told = self.job.state;
            self.shared.store.tell(events);
        }
        self.publish.send_replace(self.job.shown());
    }

    fn note_start(&mut self) {
        if self.job.attempt_started_at().is_some() && !self.is_counted {
            self.is_counted = true;
            self.shared.stats.started();
            if let (Some(granted), Some(started)) =
                (self.granted_at.take(), self.job.attempt_started_at())
            {
                let queue = self.shared.queue_label(&self.job.spec.queue);
                self.shared.metrics.started(queue, started.since(granted));
            }
            self.shared.note_start(&self.job);
            log::started(&self.job);
        }
    }

    /// The end as the last record tells it. Its start is noted before others may start in its place.
    fn finish(&mut self, record: &Record) {
        mirror::finish(&mut self.job, record);
        // A leader that executed nothing may write into the record later than anybody knows, and so may a rescuer's.
        let was_plain = !record.rescued && record.leader.is_some() && !self.job.spec.takes_input();
        self.is_spare = was_plain && self.origin == Origin::Ours;
        self.short = record.short.as_deref().cloned().map(Arc::new);
        warning::note(self, record);
        if record.rescued {
            self.shared.metrics.rescued();
        }
        self.note_start();
        self.shared.leave(self.job.id);
    }

    /// Tells of a happening that has left the job as it is.
    fn tell(&self, what: What) {
        let event = Event::of(&self.job, clock::wall(), what);
        self.shared.store.tell(vec![event]);
    }

    /// Does somebody wait for the start of the job?
    fn awaits_start(&self) -> bool {
        self.answer.as_ref().is_some_and(|it| !it.is_closed()) && self.job.state == State::Starting
    }

    fn answer(&mut self) {
        if let Some(answer) = self.answer.take() {
            let (job, replayed) = (self.publish.borrow().clone(), false);
            // A client that hung up takes nothing back.
            let _ = answer.send(Ok(Submitted { job, replayed }));
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
