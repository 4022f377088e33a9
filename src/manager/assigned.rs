//! Jobs that a hub has assigned to this node: how they are taken, how they are reported, and what is asked about them.
//!
//! How a message travels is not known here.

mod files;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::api::{LookupError, NotReady};
use super::runner::JobRequest;
use super::shared::Shared;
use super::submit::{self, Newcomer};
use super::time::until;
use super::{Manager, RequestError, SubmitError, Until};
use job::amendment::Amendment;
use job::event::{Cursor, What};
use job::life::Stop;
use job::query::{Filter, Order, Query};
use job::spec::Secrets;
use job::{Cause, Job, JobId, State};
use protocol::wire::link::{Ask, AskRefused, Assignment, Change, Happened, Report};
use protocol::wire::messages::RequestRefused;
use store::{EventQuery, StoreError};
use tokio::time::Instant;

/// The most lost jobs that a hub is told of.
const LOST: usize = 1000;

/// The most events of a report.
const EVENTS: usize = 1000;

/// How soon it is looked again whether a job was stored, after the store has failed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How long is waited for the end of an attempt that another one has come for.
const CLEARED: Duration = Duration::from_secs(5);

/// How soon it is looked again whether something of a job is left.
const LOOK_FOR_LEFT: Duration = Duration::from_millis(100);

/// Why this node does not take a job. Nothing of it is stored.
#[derive(Debug)]
pub struct NotTaken {
    /// For people.
    pub why: String,
    /// It would not on another try either.
    pub is_final: bool,
}

impl From<SubmitError> for NotTaken {
    fn from(error: SubmitError) -> Self {
        Self {
            is_final: matches!(
                error,
                SubmitError::Unavailable(_) | SubmitError::TooHeavy(_) | SubmitError::Workspace(_)
            ),
            why: error.to_string(),
        }
    }
}

/// The jobs that a hub has assigned to this node.
#[derive(Clone, Debug)]
pub struct Assigned {
    pub(super) manager: Manager,
}

impl Assigned {
    fn shared(&self) -> &Arc<Shared> {
        &self.manager.shared
    }

    /// What tells the store of this node from all others.
    #[must_use]
    pub fn store(&self) -> &str {
        self.shared().store.source()
    }

    /// The life of the machine and of the state directory.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.shared().host.boot_id
    }

    /// May new jobs come?
    pub fn ready(&self) -> Result<(), NotReady> {
        self.shared().ready()
    }

    /// Notes whether there is a hub to get jobs from.
    pub fn linked(&self, is_linked: bool) {
        self.shared().linked.send_replace(is_linked);
    }

    /// By which claim this node has the job; `None` if it does not.
    async fn fence_of(&self, id: JobId) -> Result<Option<u32>, StoreError> {
        match self.shared().get_any(id).await {
            Ok(job) => Ok(Some(job.last_fence())),
            Err(LookupError::NoSuchJob) => Ok(None),
            Err(LookupError::Store(error)) => Err(error),
        }
    }

    /// The jobs that have not ended, and the lost ones, which may have left something; each with the number of its claim.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn held(&self) -> Result<Vec<(JobId, u32)>, StoreError> {
        let store = &self.shared().store;
        let unfinished = store.unfinished(|job, _| (job.id, job.last_fence()));
        let mut held = unfinished.await?;
        let query = Query {
            filter: Filter {
                states: vec![State::Lost],
                ..Filter::default()
            },
            order: Order::CreatedDescending,
            after: None,
            limit: LOST,
            is_brief: true,
        };
        let (_, lost) = store.list(query, 0).await?;
        held.extend(lost.iter().map(|job| (job.id, job.last_fence())));
        Ok(held)
    }

    /// Ends what is left of a job whose claim is not valid any more, and removes it.
    async fn clear(&self, id: JobId) {
        let stop = Stop {
            reason: Some("it has started again on another node".to_owned()),
            force: true,
            ..Stop::for_cause(Cause::Superseded)
        };
        let stopped = self.manager.stop(id, stop).await;
        if stopped.is_ok() && self.is_gone(id, CLEARED).await.unwrap_or(false) {
            self.forget(vec![id]).await;
        }
    }

    /// Takes a job: durable when this returns, and started as soon as it can be. One that is there already is left as it
    /// is.
    ///
    /// # Errors
    /// If it is certain that nothing of it is stored.
    pub async fn take(&self, assignment: Assignment) -> Result<(), NotTaken> {
        let Assignment { job, secrets } = assignment;
        let id = job.id;
        if self.make_room(&job).await {
            return Ok(());
        }
        let is_whole = job.spec.workspace.is_none() || self.shared().workspaces.handover.has(id);
        if !is_whole {
            return Err(NotTaken::for_now("its files are not here"));
        }
        linux::failpoint::hit("take.storing");
        let mut taken = self.accept(job, Secrets(secrets)).await;
        linux::failpoint::hit("take.stored");
        // A store that fails may have stored it all the same, and so may one that ends meanwhile.
        while let Err(SubmitError::Store(_) | SubmitError::Draining) = &taken {
            match self.fence_of(id).await {
                Ok(Some(_)) => taken = Ok(()),
                Ok(None) => break,
                Err(error) => {
                    self.shared().store_failed(&error);
                    until(Some(Instant::now() + LOOK_AGAIN)).await;
                }
            }
        }
        if taken.is_ok() {
            self.shared().workspaces.handover.taken(id);
        }
        taken.map_err(NotTaken::from)
    }

    /// Ends an attempt that the hub has given up for lost, before another one comes in its place. `true`: this one is
    /// there already.
    async fn make_room(&self, job: &Job) -> bool {
        // What has no claim yet gets the next one.
        let next = job.last_fence().saturating_add(1);
        let fence = job.claim.as_ref().map_or(next, |claim| claim.fence);
        loop {
            match self.fence_of(job.id).await {
                Ok(Some(present)) if present >= fence => return true,
                Ok(Some(_)) => self.clear(job.id).await,
                Ok(None) => return false,
                Err(error) => self.shared().store_failed(&error),
            }
            until(Some(Instant::now() + LOOK_AGAIN)).await;
        }
    }

    async fn accept(&self, job: Job, secrets: Secrets) -> Result<(), SubmitError> {
        let shared = self.shared();
        submit::check(shared, &job.spec).await?;
        let newcomer = Newcomer {
            job,
            secrets,
            idempotency: None,
            planned: None,
            parts: BTreeMap::new(),
            is_alone: false,
        };
        submit::accept(shared, newcomer).await.map(drop)
    }

    /// Tells as the job changes, or as there are events of it.
    ///
    /// # Errors
    /// If this node does not have the job, or its store cannot be read.
    pub async fn watch(&self, id: JobId) -> Result<Watching, LookupError> {
        let follow = self.shared().follow(id).await?;
        Ok(Watching {
            state: follow.state,
            news: self.shared().store.news(Some(id)),
        })
    }

    /// The job as it is, with what has happened since `seen`.
    ///
    /// # Errors
    /// If this node does not have the job, or its store cannot be read.
    pub async fn report(&self, id: JobId, seen: Cursor) -> Result<Report, LookupError> {
        let mut after = (seen > 0).then_some(seen);
        loop {
            let job = self.manager.get(id).await?;
            // What has made the job what it is goes with it.
            self.shared().store.told_is_durable().await?;
            let page = self.shared().store.events(EventQuery {
                job: Some(id),
                after,
                limit: EVENTS,
            });
            let page = page.await?;
            if page.expired {
                // They are not kept any more: from the oldest that is.
                after = None;
                continue;
            }
            let is_end = |what: &What| matches!(what, What::Finished { .. });
            let ends = page.events.iter().any(|(_, event)| is_end(&event.what));
            if ends && !job.state.is_terminal() {
                // It has ended since it was looked at.
                continue;
            }
            let mut report = Report {
                job: (*job).clone(),
                events: Vec::new(),
                seen: page.events.last().map_or(seen, |(cursor, _)| *cursor),
                answers: Vec::new(),
            };
            if let Some(process) = &mut report.job.process {
                // It means something on this machine alone.
                process.unwatched = None;
            }
            report.events = page
                .events
                .into_iter()
                .filter(|(_, event)| !matches!(event.what, What::Created { .. } | What::Changed))
                .filter_map(|(_, event)| {
                    Some(Happened {
                        at: event.at,
                        state: event.state?,
                        attempt: event.attempt?,
                        what: event.what,
                    })
                })
                .collect();
            return Ok(report);
        }
    }

    /// Does what is asked about a job.
    pub async fn ask(&self, id: JobId, ask: Ask) -> Result<u64, AskRefused> {
        let manager = &self.manager;
        let result = match ask {
            Ask::Stop(stop) => manager.stop(id, stop).await.map(|_| 0),
            Ask::Relay(request) => {
                let asked = self
                    .shared()
                    .ask(id, |reply| JobRequest::Relay(request, reply));
                asked.await
            }
            Ask::Amend(change) => self.amend(id, &change).await,
            Ask::IsGone(limit) => self.is_gone(id, limit).await.map(u64::from),
        };
        result.map_err(told)
    }

    async fn amend(&self, id: JobId, change: &Change) -> Result<u64, RequestError> {
        loop {
            let job = self.manager.get(id).await?;
            let amendment = Amendment {
                timeout: change.timeout,
                stop: change.stop,
                retry: change.retry.clone(),
                next_attempt_at: change.next_attempt_at,
                ..Amendment::none(&job)
            };
            match self.manager.amend(id, job.version, amendment).await {
                // It has changed by itself: look again.
                Err(RequestError::Changed) => {}
                other => return other.map(|job| job.version),
            }
        }
    }

    async fn is_gone(&self, id: JobId, limit: Duration) -> Result<bool, RequestError> {
        let end = Instant::now() + limit;
        let job = self.manager.wait(id, Until::Finished, limit).await?;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if job.state.is_terminal() && self.manager.survivors_ended(&job, left).await {
                return Ok(true);
            }
            if left.is_zero() {
                return Ok(false);
            }
            // The stop may not have begun yet.
            until(Some(end.min(Instant::now() + LOOK_FOR_LEFT))).await;
        }
    }

    /// Removes what is left of jobs that have ended.
    pub async fn forget(&self, ids: Vec<JobId>) {
        for id in ids {
            let Ok(job) = self.manager.get(id).await else {
                // Its files may have come before it.
                self.give_files_up(id).await;
                continue;
            };
            if !job.state.is_terminal() {
                tracing::warn!(job.id = %id, "the hub has removed job {id}, which still runs here");
            } else if let Err(error) = self.shared().purge(&[id]).await {
                self.shared().store_failed(&error);
            }
        }
    }
}

fn told(error: RequestError) -> AskRefused {
    let refused = |why| AskRefused::Refused(why);
    match error {
        RequestError::NoSuchJob => AskRefused::NoSuchJob,
        RequestError::Refused(refusal) => refused(RequestRefused::Refused(refusal)),
        RequestError::Errno(errno) => {
            refused(RequestRefused::Errno(linux::sys::errno_number(errno)))
        }
        RequestError::Changed => AskRefused::Changed,
        RequestError::NotQueued => AskRefused::NotQueued,
        RequestError::StdinClosed => refused(RequestRefused::StdinClosed),
        RequestError::StdinOffset { expected } => refused(RequestRefused::StdinOffset { expected }),
        RequestError::NoTerminal => AskRefused::NoTerminal,
        RequestError::DependedOn
        | RequestError::MonitorGone
        | RequestError::NodeUnreachable
        | RequestError::Store(_) => AskRefused::Unavailable,
    }
}

/// A subscription to a job of a hub.
#[derive(Debug)]
pub struct Watching {
    state: watch::Receiver<Arc<Job>>,
    news: watch::Receiver<Cursor>,
}

impl Watching {
    /// Ends when there may be something to report; never for a job that is over and has been reported.
    pub async fn changed(&mut self) {
        let state = async {
            if self.state.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let news = async {
            if self.news.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = state => {}
            () = news => {}
        }
    }
}
