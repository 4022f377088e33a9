//! Jobs that a hub has assigned to this node: how they are taken, how they are reported, and what is asked about them.
//!
//! How a message travels is not known here.

mod files;
mod taken;
mod watching;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OnceCell, watch};

use super::api::{LookupError, NotReady};
use super::runner::JobRequest;
use super::shared::Shared;
use super::submit::{self, Newcomer};
use super::time::until;
use super::{Manager, RequestError, SubmitError, Until, purge};
use job::amendment::Amendment;
use job::event::{Cursor, Event, What};
use job::life::Stop;
use job::query::{Filter, Order, Query};
use job::spec::Secrets;
use job::{Cause, Job, JobId, State};
use protocol::wire::link::{Ask, AskRefused, Assignment, Change, Report};
use protocol::wire::messages::RequestRefused;
use store::{StoreError, Tellings};
use taken::Taken;
use tokio::time::Instant;
use watching::report_of;
pub use watching::{Listening, Watching};

/// The most lost jobs that a hub is told of.
const LOST: usize = 1000;

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
    taken: Arc<OnceCell<Mutex<Taken>>>,
}

impl Assigned {
    pub(super) fn new(manager: Manager) -> Self {
        let taken = Arc::default();
        Self { manager, taken }
    }

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
        if linux::failpoint::fail("superseded.stopping").is_err() {
            return;
        }
        let stopped = self.manager.stop(id, stop).await;
        if stopped.is_ok() && self.is_gone(id, CLEARED).await.unwrap_or(false) {
            self.forget(id).await;
        }
    }

    /// Takes a job: durable when this returns, and started as soon as it can be. One that is there already is left as it
    /// is. `true`: nothing of it was ever here before. What an attempt before has left is ended first, for as long as the job
    /// is still wanted.
    ///
    /// # Errors
    /// If it is certain that nothing of it is stored.
    pub async fn take(
        &self,
        assignment: Assignment,
        is_wanted: impl Fn() -> bool,
    ) -> Result<bool, NotTaken> {
        let Assignment { job, secrets } = assignment;
        let id = job.id;
        let is_new = self.is_new(id).await;
        if !is_new && self.make_room(&job, is_wanted).await? {
            return Ok(false);
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
        taken.map(|()| is_new).map_err(NotTaken::from)
    }

    /// Is it certain that this job was never here? Notes that it comes.
    async fn is_new(&self, id: JobId) -> bool {
        let newest = async || {
            let newest = self.shared().store.newest().await?;
            Ok::<_, StoreError>(Mutex::new(Taken::since(newest)))
        };
        let taken = self.taken.get_or_try_init(newest).await;
        taken.is_ok_and(|taken| {
            taken
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .note(id)
        })
    }

    /// Ends an attempt that the hub has given up for lost, before another one comes in its place. `true`: this one is
    /// there already.
    async fn make_room(&self, job: &Job, is_wanted: impl Fn() -> bool) -> Result<bool, NotTaken> {
        // What has no claim yet gets the next one.
        let next = job.last_fence().saturating_add(1);
        let fence = job.claim.as_ref().map_or(next, |claim| claim.fence);
        loop {
            match self.fence_of(job.id).await {
                Ok(Some(present)) if present >= fence => return Ok(true),
                Ok(Some(_)) => self.clear(job.id).await,
                Ok(None) => return Ok(false),
                Err(error) => self.shared().store_failed(&error),
            }
            if !is_wanted() {
                let why = "what an attempt before has left has not ended";
                return Err(NotTaken::for_now(why));
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

    /// What is told of a job from now on, which need not be here yet.
    #[must_use]
    pub fn listen(&self, id: JobId) -> Listening {
        Listening(Tellings(&self.shared().store).of(id))
    }

    /// Tells as the job changes, or as there are events of it. `listening`: nothing has been told of it that is not
    /// heard there.
    ///
    /// # Errors
    /// If this node does not have the job, or its store cannot be read.
    pub async fn watch(
        &self,
        id: JobId,
        listening: Option<Listening>,
    ) -> Result<Watching, LookupError> {
        let is_new = listening.is_some();
        let listening = listening.unwrap_or_else(|| self.listen(id));
        let state = match self.shared().awake(id).await? {
            Some(awake) => awake.state,
            None => watch::channel(self.shared().get(id).await?).1,
        };
        Ok(Watching::new(state, listening, is_new))
    }

    /// The job as it is, with what has happened since `seen` as far as that is durable: what there is to tell of a start
    /// comes later. But nothing is left out if it is to be `complete`, or the job has ended.
    ///
    /// # Errors
    /// If this node does not have the job any more, or its store cannot be read.
    pub async fn report(
        &self,
        watching: &mut Watching,
        seen: Cursor,
        complete: bool,
    ) -> Result<Report, LookupError> {
        let made = self.make_report(watching, seen, complete).await;
        if made.is_err() {
            watching.read_again();
        }
        made
    }

    async fn make_report(
        &self,
        watching: &mut Watching,
        seen: Cursor,
        complete: bool,
    ) -> Result<Report, LookupError> {
        let store = &self.shared().store;
        let tellings = Tellings(store);
        let mut job = watching.state.borrow_and_update().clone();
        if complete || job.state.is_terminal() && tellings.are_owed() {
            tellings.are_durable().await?;
            job = watching.state.borrow_and_update().clone();
        }
        let (events, seen) = watching.told(store, job.id, seen).await?;
        let is_end = |event: &Event| matches!(event.what, What::Finished { .. });
        if !job.state.is_terminal() && events.iter().any(is_end) {
            // It has ended since it was looked at, and shows so in a moment.
            let state = &mut watching.state;
            let shown = state.wait_for(|job| job.state.is_terminal()).await;
            let shown = shown.ok().map(|job| job.clone());
            job = match shown {
                Some(job) => job,
                None => self.shared().get(job.id).await?,
            };
        } else if !events.is_empty() && !job.state.is_terminal() {
            job = self.shared().job_dirs.with_present_output(job).await;
        }
        Ok(report_of(&job, events, seen))
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

    /// Removes what is left of a job that has ended.
    pub async fn forget(&self, id: JobId) {
        let Ok(job) = self.manager.get(id).await else {
            // Its files may have come before it.
            return self.give_files_up(id).await;
        };
        if !job.state.is_terminal() {
            tracing::warn!(job.id = %id, "the hub has removed job {id}, which still runs here");
        } else if let Err(error) = purge::ended(self.shared(), &[id]).await {
            self.shared().store_failed(&error);
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
