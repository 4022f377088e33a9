//! Batches: many jobs that are accepted together or not at all, counted together, and stopped together.
//!
//! Numbers and ends are the store's, who waits for whom is in the chains. A batch has no task: its jobs have.

mod accept;
mod left;
mod rerun;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::chains::Target;
use super::shared::Shared;
use super::{Actor, Manager, SubmitError, purge};
pub(super) use accept::{fail, recall, remove_expired, stop_again, with_batch};
use job::batch::{self, Batch, Ends, Group, On, OnFailure};
use job::life::Stop;
use job::query::{Filter, Order, Query};
use job::time::Timestamp;
use job::webhook::Webhook;
use job::{Idempotency, Job, JobId, Spec, State};
use store::{Inserted, StoreError};

/// Up to so many jobs of a batch, each is told of when it is created: more would push out what others were told.
const MOST_TOLD: usize = 100;

/// How many records of expired batches are removed at a time.
const PURGED: usize = 500;

/// Jobs that a client wants together.
#[derive(Debug)]
pub struct BatchSubmission {
    /// A name for people.
    pub name: Option<String>,
    /// Labels of the batch.
    pub labels: BTreeMap<String, String>,
    /// Who asks.
    pub actor: Actor,
    /// The batch that it repeats.
    pub rerun_of: Option<JobId>,
    /// How many of its jobs may run at once.
    pub max_running: Option<u32>,
    /// What happens to the others when a job has failed.
    pub on_failure: OnFailure,
    /// Who is told of its end.
    pub webhooks: Vec<Webhook>,
    /// How long the record stays after the end.
    pub ttl_after_finished: Duration,
    /// Against doubled requests.
    pub idempotency: Option<Idempotency>,
    /// The keys of its entries, in their order.
    pub keys: Vec<String>,
    /// Its jobs, in the order of the entries.
    pub jobs: Vec<BatchJob>,
}

/// One job of a batch.
#[derive(Clone, Debug)]
pub struct BatchJob {
    /// Which entry it is of, from 0.
    pub group: u32,
    /// Which job of it, from 0.
    pub index: u32,
    /// Of how many.
    pub count: u32,
    /// A name for people.
    pub name: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// What to run; its `secret_env` holds the real values.
    pub spec: Arc<Spec>,
    /// Its priority is its own, not the default of its queue.
    pub has_priority: bool,
    /// What has to end before it may start.
    pub depends_on: Arc<[(batch::Target, On)]>,
    /// It does not start before this moment.
    pub run_at: Option<Timestamp>,
    /// It does not start before it is released.
    pub hold: bool,
    /// The job that it repeats.
    pub rerun_of: Option<JobId>,
}

/// A batch as it is at a moment.
#[derive(Clone, Debug)]
pub struct BatchState {
    /// What was submitted, and what has ended.
    pub batch: Batch,
    /// How many jobs are in which state; all of them together.
    pub counts: Vec<(State, u32)>,
}

/// Why a request on a batch was not granted.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// No batch has this id.
    #[error("no such batch")]
    NoSuchBatch,
    /// Not all of its jobs have ended.
    #[error("the batch has not finished")]
    NotFinished,
    /// Records of its jobs have been removed.
    #[error("records of its jobs have expired")]
    Expired,
    /// Values of secrets are not known any more.
    #[error("values of its secrets are not known any more")]
    Secrets,
    /// Unfinished jobs depend on it, or on one of its jobs.
    #[error("unfinished jobs depend on it")]
    DependedOn,
    /// This job cannot be accepted, and so none is.
    #[error("job {0} cannot be accepted: {1}")]
    Job(usize, SubmitError),
    /// It cannot be accepted.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a wait for a batch waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchUntil {
    /// The last end.
    Finished,
    /// A version greater than this one.
    VersionAfter(u64),
}

/// A handle to the batches.
#[derive(Clone, Debug)]
pub struct Batches {
    shared: Arc<Shared>,
}

impl Batches {
    pub(super) fn of(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn manager(&self) -> Manager {
        Manager {
            shared: self.shared.clone(),
        }
    }

    /// Checks what [`Batches::submit`] would check of the specs, and does nothing.
    ///
    /// # Errors
    /// The first job whose spec cannot be granted here.
    pub async fn validate(&self, submission: &BatchSubmission) -> Result<(), BatchError> {
        let mut last: Option<&Arc<Spec>> = None;
        for (place, job) in submission.jobs.iter().enumerate() {
            // The jobs of one entry mostly have the same.
            if !last.is_some_and(|it| Arc::ptr_eq(it, &job.spec)) {
                let checked = self.shared.resolver.check_apart(&job.spec).await;
                checked.map_err(|error| BatchError::Job(place, error.into()))?;
            }
            last = Some(&job.spec);
        }
        Ok(())
    }

    /// Accepts a batch: all of it is durable when this returns, or nothing. `true`: it had been accepted before. Dropping
    /// the future takes nothing back.
    ///
    /// # Errors
    /// Nothing is accepted then.
    pub async fn submit(&self, submission: BatchSubmission) -> Result<(Batch, bool), BatchError> {
        self.validate(&submission).await?;
        self.shared.takes_own()?;
        self.shared.ready().map_err(SubmitError::from)?;
        for (place, job) in submission.jobs.iter().enumerate() {
            let has_nodes = self.shared.has_nodes(&job.spec);
            has_nodes.map_err(|error| BatchError::Job(place, error))?;
        }
        let (answer, answered) = oneshot::channel();
        let shared = self.shared.clone();
        self.shared.spawn(async move {
            let _ = answer.send(accept::accept(&shared, submission).await);
        });
        let gone = Err(SubmitError::Draining.into());
        answered.await.unwrap_or(gone)
    }

    /// The batch that an earlier submission of this actor with this key made.
    ///
    /// # Errors
    /// If the key belongs to another submission, or the store fails.
    pub async fn submitted(
        &self,
        actor: &str,
        idempotency: &Idempotency,
    ) -> Result<Option<Batch>, BatchError> {
        match self.shared.store.submitted(actor, idempotency).await? {
            None | Some(Inserted::New) => Ok(None),
            Some(Inserted::KeyReused) => Err(SubmitError::KeyReused.into()),
            Some(Inserted::Replay(id)) => Ok(self.shared.store.batches().get(id).await?),
        }
    }

    /// A batch as it is now.
    ///
    /// # Errors
    /// If there is none, or the store fails.
    pub async fn get(&self, id: JobId) -> Result<BatchState, BatchError> {
        // Before the row: who ends in between is counted as ended.
        let live = self.live();
        let batch = self.shared.store.batches().get(id).await?;
        let batch = batch.ok_or(BatchError::NoSuchBatch)?;
        Ok(state_of(batch, &live))
    }

    /// The entries of a batch, in their order.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn groups(&self, id: JobId) -> Result<Vec<Group>, BatchError> {
        let groups = self.shared.store.batches().groups(id).await?;
        Ok(groups.into_iter().map(|it| it.group).collect())
    }

    /// Batches that were made before this one, newest first, and whether there are more.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn list(
        &self,
        after: Option<JobId>,
        limit: usize,
    ) -> Result<(Vec<BatchState>, bool), BatchError> {
        let live = self.live();
        let mut found = self.shared.store.batches().list(after, limit + 1).await?;
        let more = found.len() > limit;
        found.truncate(limit);
        let states = found.into_iter().map(|batch| state_of(batch, &live));
        Ok((states.collect(), more))
    }

    /// How many jobs of each batch are in states of which only their tasks know.
    fn live(&self) -> BTreeMap<JobId, BTreeMap<State, u32>> {
        let mut live: BTreeMap<JobId, BTreeMap<State, u32>> = BTreeMap::new();
        for job in self.shared.room.states() {
            if let Some(batch) = &job.batch
                && !job.state.is_terminal()
                && job.state != State::Queued
            {
                let states = live.entry(batch.id).or_default();
                *states.entry(job.state).or_default() += 1;
            }
        }
        live
    }

    /// The batch once it is as wanted, or as it is when `limit` has passed.
    ///
    /// # Errors
    /// If there is none, or the store fails.
    pub async fn wait(
        &self,
        id: JobId,
        until: BatchUntil,
        limit: Duration,
    ) -> Result<BatchState, BatchError> {
        let mut news = self.shared.store.news(Some(id));
        let waiting = async {
            loop {
                news.mark_unchanged();
                let batch = self.shared.store.batches().get(id).await?;
                let reached = batch.is_none_or(|it| match until {
                    BatchUntil::Finished => it.state.is_terminal(),
                    BatchUntil::VersionAfter(version) => it.version() > version,
                });
                if reached || news.changed().await.is_err() {
                    return Ok::<_, StoreError>(());
                }
            }
        };
        if let Ok(waited) = timeout(limit, waiting).await {
            waited?;
        }
        self.get(id).await
    }

    /// Asks for the end of all its jobs; those that wait do not start any more.
    ///
    /// # Errors
    /// If there is none, or the store fails.
    pub async fn stop(&self, id: JobId, stop: Stop) -> Result<BatchState, BatchError> {
        self.get(id).await?;
        let shared = self.shared.clone();
        // All of it happens, whether the future is dropped or not, and whether this server lives or not.
        let stopping = async move {
            shared.store.batches().stop(id, &stop).await?;
            linux::failpoint::hit("batch.stop_stored");
            accept::stop_all(&shared, id, stop).await
        };
        self.shared.see_through(stopping).await?;
        self.get(id).await
    }

    /// Has nothing been left by its lost jobs, now or before `limit` has passed? It is ended, as their processes are.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn survivors_ended(
        &self,
        id: JobId,
        stop: &Stop,
        limit: Duration,
    ) -> Result<bool, BatchError> {
        let lost = left::end(&self.shared, id, stop).await?;
        Ok(left::has_ended(&self.shared, lost, limit).await)
    }

    /// Removes a batch that has finished, with the records and the output of its jobs.
    ///
    /// # Errors
    /// If jobs depend on it that have not ended, it has not finished, or the store fails.
    pub async fn purge(&self, id: JobId) -> Result<(), BatchError> {
        let batches = self.clone();
        let purging = async move { batches.purge_now(id).await };
        self.shared.see_through(purging).await
    }

    async fn purge_now(&self, id: JobId) -> Result<(), BatchError> {
        if !self.get(id).await?.batch.state.is_terminal() {
            return Err(BatchError::NotFinished);
        }
        let ids: Vec<JobId> = self.jobs(id, true).await?.iter().map(|it| it.id).collect();
        let chains = &self.shared.chains;
        let is_wanted = chains.account().is_wanted(Target::Batch(id));
        if is_wanted || ids.iter().any(|id| chains.is_wanted(*id)) {
            return Err(BatchError::DependedOn);
        }
        if !purge::ended(&self.shared, &ids).await?.is_empty() {
            return Err(BatchError::DependedOn);
        }
        if accept::remove(&self.shared, id).await? {
            Ok(())
        } else {
            Err(BatchError::DependedOn)
        }
    }

    /// The jobs of a batch whose records are there, in the order of the request.
    async fn jobs(&self, id: JobId, is_brief: bool) -> Result<Vec<Arc<Job>>, BatchError> {
        let mut jobs: Vec<Arc<Job>> = Vec::new();
        loop {
            let query = Query {
                filter: Filter {
                    batch: Some(id),
                    ..Filter::default()
                },
                order: Order::CreatedAscending,
                after: jobs.last().map(|job| job.id),
                limit: batch::JOBS_MAX,
                is_brief,
            };
            // It ends early if the jobs are large.
            let page = self.manager().list(query).await?;
            let is_all = !page.more || page.jobs.is_empty();
            jobs.extend(page.jobs);
            if is_all {
                return Ok(jobs);
            }
        }
    }
}

/// All jobs of the batch by their states. What has not ended and has no task waits.
fn state_of(batch: Batch, live: &BTreeMap<JobId, BTreeMap<State, u32>>) -> BatchState {
    let mut left = batch.total.saturating_sub(batch.ends.all());
    let Ends {
        succeeded,
        failed,
        canceled,
        timed_out,
        lost,
    } = batch.ends;
    let mut counts = vec![
        (State::Succeeded, succeeded),
        (State::Failed, failed),
        (State::Canceled, canceled),
        (State::TimedOut, timed_out),
        (State::Lost, lost),
    ];
    let none = BTreeMap::new();
    for (state, count) in live.get(&batch.id).unwrap_or(&none) {
        // Some of them may have ended since they were counted.
        let count = left.min(*count);
        left -= count;
        counts.push((*state, count));
    }
    counts.push((State::Queued, left));
    BatchState { batch, counts }
}
