//! The job manager: admits, queues and launches jobs, mirrors what their monitors say, and is the only
//! writer of the store. It knows no HTTP.

mod admission;
mod adopt;
mod alarm;
mod amend;
mod api;
mod assigned;
mod batches;
mod chains;
mod cleanup;
pub mod cloud_event;
mod files;
mod inputs;
mod job_dirs;
mod link;
mod listing;
mod live;
mod lost_jobs;
pub mod metrics;
mod mirror;
mod nodes;
mod outputs;
mod processes;
mod pulse;
mod purge;
mod queues;
mod readers;
mod readiness;
mod resolve;
mod retention;
mod room;
mod runner;
mod schedules;
mod scrape;
mod seldom;
mod setup;
mod shared;
mod shutdown;
pub mod spans;
mod stats;
mod submit;
mod tasks;
mod time;
mod trouble;
mod wake;
mod webhooks;
mod workspaces;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::metrics::{Metrics, Present};
pub use admission::{Claim, Contents, Reason, Rejection};
pub use api::{
    Actor, Follow, Info, LookupError, NotReady, Page, Purged, RequestError, Submission,
    SubmitError, Submitted, Unavailable, Until,
};
pub use assigned::{Assigned, Listening, NotTaken, Watching};
pub use batches::{BatchError, BatchJob, BatchState, BatchSubmission, BatchUntil, Batches};
pub use files::{Archive, FileEntry, Files, FilesError, Listing, Opened, Upload, Wanted};
pub use inputs::{Fetch, FetchFile, Part};
use job::event::Cursor;
use job::life::{Refusal, Stop};
use job::pty::Size;
use job::query::{Filter, OnNode, Query};
use job::time::Timestamp;
use job::{Idempotency, Job, JobId, Spec, State};
pub use linux::beneath::Kind as FileKind;
pub use linux::ports::{Port, Ports};
pub use listing::Budget;
pub use nodes::{Hub, HubSetup, Joined, NodeError, NodeState, own_labels};
pub use processes::{ProcessInfo, Use};
use protocol::output::Reader;
pub use protocol::wire::messages::INPUT_BYTES;
pub use queues::{QueueError, QueueState, Queues};
pub use readers::Reading;
use room::Awake;
use runner::JobRequest;
pub use schedules::{
    Expected, Maker, ScheduleError, ScheduleState, Schedules, Unmakeable, due_times, zone,
};
pub use setup::{Host, Limits, Membership, Setup, StartError};
use shared::Shared;
pub use shutdown::SupervisorSaid;
use spans::Exporter;
pub use stats::Row;
use store::{EventPage, EventQuery, Store, StoreError};
use tasks::Spawner;
pub use tasks::Tasks;
pub use workspaces::{Bundle, Parcel, UnpackError};

/// A handle to the job manager; clones are the same manager.
#[derive(Clone, Debug)]
pub struct Manager {
    shared: Arc<Shared>,
}

impl Manager {
    /// Starts a manager: takes over what earlier servers left, and accepts jobs from then on.
    pub async fn start(setup: Setup) -> Result<(Self, Tasks), StartError> {
        let (spawner, tasks) = Spawner::new();
        let webhook_allow_private = setup.webhook_allow_private;
        let beat_every = setup.beat_every;
        let metrics = Arc::new(Metrics::new(&setup.metrics_labels));
        let commits = metrics.clone();
        setup.store.on_commit(move |took| commits.committed(took));
        let spans = setup.otlp.clone();
        let (spans, delivery) = spans
            .map(|otlp| Exporter::new(otlp, metrics.clone()))
            .unzip();
        let shared = Arc::new(Shared::new(setup, spawner, metrics, spans)?);
        adopt::take_over(&shared).await?;
        workspaces::sweep::start(&shared).await;
        workspaces::usage::start(&shared);
        alarm::start(&shared);
        retention::start(&shared);
        stats::start(&shared);
        if let Some(every) = beat_every {
            pulse::start(&shared, every);
        }
        let mut shutdown = shared.shutdown.subscribe();
        let end = async move { drop(shutdown.changed().await) };
        let store = shared.store.clone();
        shared.spawn(webhooks::deliver(
            store,
            shared.metrics.clone(),
            webhook_allow_private,
            end,
        ));
        let tasks = match delivery {
            Some(delivery) => tasks.with_last(|end| delivery.run(end)),
            None => tasks,
        };
        Ok((Self { shared }, tasks))
    }

    /// Tells the supervisor that requests are accepted.
    pub async fn announce_ready(&self) -> std::io::Result<()> {
        self.shared.supervisor.ready().await
    }

    /// Waits until the supervisor says that the service ends; the jobs' tasks see to it from then on,
    /// and [`Tasks::run`] ends with the last of them.
    pub async fn supervisor_said(&self) -> SupervisorSaid {
        self.shared.shutdown.heed(&self.shared.supervisor).await
    }

    /// Leaves every job to its monitor, and the queued ones to the store.
    pub fn leave_jobs(&self) {
        self.shared.shutdown.leave_jobs();
    }

    /// The store, to be closed when everything else has ended.
    pub fn store(&self) -> Store {
        self.shared.store.clone()
    }

    /// Accepts a job: durable when this returns, started where a slot was free and 5 s were enough. Dropping the future
    /// after the job is durable takes nothing back.
    pub async fn submit(&self, submission: Submission) -> Result<Submitted, SubmitError> {
        submit::submit(&self.shared, submission).await
    }

    /// The job that an earlier submission of this actor with this key made, whatever is true for new ones;
    /// `None` if there was no such submission, or its job is gone.
    pub async fn submitted(
        &self,
        actor: &str,
        idempotency: &Idempotency,
    ) -> Result<Option<Submitted>, SubmitError> {
        submit::submitted(&self.shared, actor, idempotency).await
    }

    /// The id of the job or the batch that this actor has made with this key.
    pub async fn made(&self, actor: &str, key: &str) -> Result<Option<JobId>, StoreError> {
        self.shared.store.made(actor, key).await
    }

    /// The nodes of the cluster whose hub this is.
    #[must_use]
    pub fn hub(&self) -> Option<Hub> {
        Hub::of(&self.shared)
    }

    /// The jobs that the hub of this node has assigned to it.
    #[must_use]
    pub fn assigned(&self) -> Assigned {
        let manager = self.clone();
        Assigned::new(manager)
    }

    /// Does another node of the cluster have this job?
    #[must_use]
    pub fn is_there(&self, job: &Job) -> bool {
        self.shared.is_there(job)
    }

    /// The batches.
    #[must_use]
    pub fn batches(&self) -> Batches {
        Batches::of(self.shared.clone())
    }

    /// The schedules.
    #[must_use]
    pub fn schedules(&self) -> Schedules {
        Schedules::of(self.shared.clone())
    }

    /// The files of jobs.
    #[must_use]
    pub fn files(&self) -> Files {
        Files::of(self.shared.clone())
    }

    /// The queues.
    #[must_use]
    pub fn queues(&self) -> Queues {
        Queues::of(self.shared.clone())
    }

    /// Checks what [`Manager::submit`] would check of the spec, and does nothing.
    pub async fn validate(&self, spec: &Spec) -> Result<(), SubmitError> {
        Ok(self.shared.resolver.check_apart(spec).await?)
    }

    /// The job as it is now, with the output it has written up to now.
    pub async fn get(&self, id: JobId) -> Result<Arc<Job>, LookupError> {
        self.shared.present(id).await
    }

    /// The job once it is as wanted, or as it is when `limit` has passed.
    pub async fn wait(
        &self,
        id: JobId,
        until: Until,
        limit: Duration,
    ) -> Result<Arc<Job>, LookupError> {
        if let Some(Awake { mut state, .. }) = self.shared.awake(id).await? {
            let reached = |job: &Arc<Job>| match until {
                Until::Finished => job.state.is_terminal(),
                Until::Started => !matches!(job.state, State::Queued | State::Starting),
                Until::Ready => job.knows_ready(),
                Until::VersionAfter(version) => job.version > version,
            };
            // A closed channel is a job that has ended: its last state is still there.
            if let Ok(Ok(job)) = timeout(limit, state.wait_for(reached)).await
                && job.state.is_terminal()
            {
                return Ok(job.clone());
            }
        }
        self.get(id).await
    }

    /// One page of jobs, live and finished.
    pub async fn list(&self, mut query: Query) -> Result<Page, StoreError> {
        query.filter = self.with_own_node(query.filter);
        listing::page(&self.shared, query).await
    }

    /// How many jobs of each state match, and whether that is all. What moves meanwhile may be missed or counted twice.
    pub async fn counts(
        &self,
        filter: Filter,
        limit: u64,
    ) -> Result<Vec<(State, u64, bool)>, StoreError> {
        listing::counts(&self.shared, self.with_own_node(filter), limit).await
    }

    /// The filter as it is held against jobs: a hub is the node of its own name.
    #[must_use]
    pub fn with_own_node(&self, mut filter: Filter) -> Filter {
        if let Some(OnNode::Named(name)) = &filter.node
            && self.hub().is_some_and(|hub| hub.is_own(name))
        {
            filter.node = Some(OnNode::Hub);
        }
        filter
    }

    /// The jobs that match and have not finished, oldest first.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn unfinished(&self, filter: Filter) -> Result<Vec<JobId>, StoreError> {
        listing::unfinished(&self.shared, filter).await
    }

    /// What a queued job waits for; `None` if it does not wait any more.
    #[must_use]
    pub fn why(&self, id: JobId) -> Option<Reason> {
        self.shared.room.why(id)
    }

    /// Asks for the job's end; idempotent. Returns the job as it is after the request was taken in.
    pub async fn stop(&self, id: JobId, stop: Stop) -> Result<Arc<Job>, RequestError> {
        let asked = stop.clone();
        let asked = self
            .shared
            .ask(id, |reply| JobRequest::Stop(asked, reply))
            .await;
        match asked {
            // To end what has ended is granted; a lost job may have left processes.
            Ok(_) | Err(RequestError::Refused(Refusal::Finished)) => {
                let job = self.get(id).await?;
                if job.state != State::Lost {
                    return Ok(job);
                }
                let shared = self.shared.clone();
                let ending = async move { shared.end_left(job, &stop).await };
                Ok(self.shared.see_through(ending).await?)
            }
            Err(error) => Err(error),
        }
    }

    /// Stops the job, waits for its end, then removes record and output; waits for no longer than `limit`. Once this
    /// has been polled, all of it happens, whether anybody waits for it or not, unless this server ends before the job.
    pub async fn purge(
        &self,
        id: JobId,
        stop: Stop,
        limit: Duration,
    ) -> Result<Purged, RequestError> {
        let manager = self.clone();
        let purging = async move { purge::stopped(&manager, id, stop).await };
        match timeout(limit, self.shared.see_through(purging)).await {
            Ok(purged) => purged.map(|()| Purged::Gone),
            Err(_) => match self.shared.present(id).await {
                Ok(job) => Ok(Purged::StillThere(job)),
                Err(LookupError::NoSuchJob) => Ok(Purged::Gone),
                Err(LookupError::Store(error)) => Err(error.into()),
            },
        }
    }

    /// Removes records and outputs of jobs that have ended and have left no processes; returns those that stay, and why.
    /// Once this has been polled, all of it happens, whether anybody waits for it or not.
    pub async fn purge_ended(
        &self,
        ids: Vec<JobId>,
    ) -> Result<Vec<(JobId, RequestError)>, RequestError> {
        let shared = self.shared.clone();
        let purging = async move { purge::ended(&shared, &ids).await };
        Ok(self.shared.see_through(purging).await?)
    }

    /// The job's live processes, and those that a lost job has left.
    pub async fn processes(&self, id: JobId) -> Result<Vec<ProcessInfo>, LookupError> {
        processes::of(&self.shared, id).await
    }

    /// The TCP ports that those processes listen on.
    pub async fn ports(&self, id: JobId) -> Result<Ports, LookupError> {
        processes::ports(&self.shared, id).await
    }

    /// What those processes have used; a job without any has used nothing.
    pub async fn used(&self, id: JobId) -> Result<Use, LookupError> {
        processes::used(&self.shared, id).await
    }

    /// Is nothing left of a lost job? Waits for as long as `limit` where a stop has asked for its end.
    pub async fn survivors_ended(&self, job: &Job, limit: Duration) -> bool {
        self.shared.is_nothing_left(job, limit).await
    }

    /// A reader of the job's output as kept now.
    pub async fn output(&self, id: JobId) -> Result<Reader, RequestError> {
        self.output_of(&*self.shared.get(id).await?).await
    }

    /// The same of a job that has just been looked at.
    pub async fn output_of(&self, job: &Job) -> Result<Reader, RequestError> {
        outputs::of(&self.shared, job).await
    }

    /// The same, or `None` while the job has nothing that output could be in.
    pub async fn started_output(&self, id: JobId) -> Result<Option<Reader>, StoreError> {
        outputs::started(&self.shared, id).await
    }

    /// The sizes that the job's terminal got after its start, and when.
    pub async fn sizes(&self, id: JobId) -> std::io::Result<Vec<(Timestamp, Size)>> {
        self.shared.job_dirs.sizes(id).await
    }

    /// Tells of the job's states and of new output. Nobody looks at the disk for that.
    pub async fn follow(&self, id: JobId) -> Result<Follow, LookupError> {
        self.shared.follow(id).await
    }

    /// What this instance is and can do.
    #[must_use]
    pub fn info(&self) -> Info {
        self.shared.info()
    }

    /// What happened in each step of so many minutes since then, thirty days at most; steps in which nothing happened
    /// are left out.
    pub async fn stats(
        &self,
        since: Timestamp,
        minutes: u64,
    ) -> std::io::Result<Vec<(Timestamp, Row)>> {
        let shared = self.shared.clone();
        let read = tokio::task::spawn_blocking(move || shared.stats.read(since, minutes));
        read.await.map_err(std::io::Error::other)?
    }

    /// Where spans of requests go, if they go anywhere.
    #[must_use]
    pub fn spans(&self) -> Option<&Exporter> {
        self.shared.spans.as_ref()
    }

    /// What operators count.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// What [`Metrics::encode`] reports as it is now, as far as the manager knows it.
    pub async fn present(&self) -> Result<Present, StoreError> {
        scrape::present(&self.shared).await
    }

    /// Are requests answered? `Err` says why not for much longer.
    pub fn serving(&self) -> Result<(), NotReady> {
        self.shared.serving()
    }

    /// May new jobs come? `Err` says why not.
    pub fn ready(&self) -> Result<(), NotReady> {
        self.shared.ready()?;
        self.shared.is_linked()
    }

    /// One page of events, of all jobs or of one that exists.
    pub async fn events(&self, query: EventQuery) -> Result<EventPage, LookupError> {
        if let Some(job) = query.job
            && self.shared.room.state(job).is_none()
        {
            self.shared.get(job).await?;
        }
        Ok(self.shared.store.events(query).await?)
    }

    /// Tells as there are new events, of all jobs or of one. A hint to look; closed when the job is
    /// removed or the service ends.
    #[must_use]
    pub fn news(&self, job: Option<JobId>) -> watch::Receiver<Cursor> {
        self.shared.store.news(job)
    }

    /// Ends every subscription to news: the service ends.
    pub fn end_news(&self) {
        self.shared.store.end_news();
    }

    /// What tells this service's events from those of others, as a URI.
    #[must_use]
    pub fn event_source(&self) -> &str {
        self.shared.store.source()
    }
}
