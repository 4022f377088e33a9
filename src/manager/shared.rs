//! What the manager's tasks share: who owns what, and the few acts that need several owners at once.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::unistd::geteuid;
use tokio::sync::{Semaphore, watch};

use super::admission::Admission;
use super::api::LookupError;
use super::chains::Chains;
use super::job_dirs::JobDirs;
use super::link::SupervisorLink;
use super::lost_jobs::LostJobs;
use super::metrics::Metrics;
use super::nodes::NodeBook;
use super::outputs::Recent;
use super::queues::Registry;
use super::resolve::{Resolver, own_environment};
use super::room::Room;
use super::runner::{Arrivals, late};
use super::setup::{Host, Limits, Membership, Setup};
use super::shutdown::Shutdown;
use super::spans::Exporter;
use super::stats::Stats;
use super::tasks::Spawner;
use super::time::until;
use super::trouble::Trouble;
use super::workspaces::{Workspaces, handover};
use super::{Info, NotReady, SubmitError, schedules};
use job::life::Stop;
use job::time::Timestamp;
use job::workspace::Uploads;
use job::{Cause, Job, JobId, NodeName, Spec, State};
use linux::clock;
use linux::sandbox;
use protocol::state_dir::STORE;
use protocol::wire::link::Ask;
use store::{Store, StoreError};

/// With fewer files that can still be made no job is accepted: its directory, its record and its log are such.
const MIN_FREE_FILES: u64 = 32;

/// How soon a node that did not answer is asked again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How soon what the store has not taken is tried again.
pub(super) const STORE_RETRY: Duration = Duration::from_secs(1);

pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) supervisor: SupervisorLink,
    pub(super) host: Host,
    pub(super) limits: Limits,
    pub(super) started_at: Timestamp,
    pub(super) shutdown: Shutdown,
    tasks: Spawner,
    /// Which jobs have tasks, and which wait.
    pub(super) room: Room,
    /// How many are on their way in.
    pub(super) arrivals: Arrivals,
    /// Which jobs wait for the ends of others.
    pub(super) chains: Chains,
    /// The queues of which something is set.
    pub(super) queues: Registry,
    pub(super) schedules: schedules::Registry,
    pub(super) resolver: Arc<Resolver>,
    pub(super) job_dirs: Arc<JobDirs>,
    pub(super) recent: Recent,
    pub(super) workspaces: Arc<Workspaces>,
    /// What tells the directory of the workspaces from all others, if this is a hub or was one.
    place: Option<String>,
    pub(super) lost_jobs: Arc<LostJobs>,
    /// What operators count.
    pub(super) metrics: Arc<Metrics>,
    /// The same by minutes, for people.
    pub(super) stats: Stats,
    /// Where spans go, if they go anywhere.
    pub(super) spans: Option<Exporter>,
    /// Whose turn it is to change a finished job, or to begin to remove it.
    pub(super) finished_amendments: Semaphore,
    /// How the store failed last.
    pub(super) trouble: Trouble,
    /// The nodes of the cluster whose hub this is.
    pub(super) nodes: Option<Arc<NodeBook>>,
    /// This is a node of a cluster, and jobs come from its hub.
    is_node: bool,
    /// The hub is connected, if there is one.
    pub(super) linked: watch::Sender<bool>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("room", &self.room)
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(
        setup: Setup,
        tasks: Spawner,
        metrics: Arc<Metrics>,
        spans: Option<Exporter>,
    ) -> std::io::Result<Self> {
        let host = setup.host;
        let controllers = match &host.cgroup {
            Ok(home) => Ok(home.controllers.clone()),
            Err(why) => Err(why.clone()),
        };
        let max_running = u32::try_from(setup.limits.max_running).unwrap_or(u32::MAX);
        let shutdown = Shutdown::new(setup.draining, tasks.clone());
        let workspaces = Workspaces::open(
            &setup.workspaces,
            &setup.state_dir,
            setup.limits.max_workspace_bytes,
        )?;
        let nodes = match &setup.part {
            Membership::Hub(hub) => {
                let source = setup.store.source();
                let book = NodeBook::open(hub, source, &setup.state_dir, max_running)?;
                Some(Arc::new(book))
            }
            Membership::Alone | Membership::Node => None,
        };
        Ok(Self {
            store: setup.store,
            supervisor: SupervisorLink::new(setup.supervisor)?,
            started_at: clock::wall(),
            room: Room::new(
                Admission::new(max_running, setup.limits.max_queued),
                nodes.clone(),
            ),
            arrivals: Arrivals::default(),
            chains: Chains::default(),
            queues: Registry::default(),
            stats: Stats::open(&setup.state_dir),
            schedules: schedules::Registry::default(),
            resolver: Arc::new(Resolver {
                environment: own_environment(),
                work_dir: setup.work_dir,
                workspaces: setup.workspaces,
                controllers,
                deny_root_jobs: setup.deny_root_jobs,
                sandbox: setup.sandbox,
                features: sandbox::features(),
                state_dir: setup.state_dir,
                sampler: setup.otlp.map(|otlp| otlp.sampler),
            }),
            job_dirs: Arc::new(JobDirs::new(setup.jobs)),
            recent: Recent::default(),
            place: handover::place(&workspaces, nodes.is_some())?,
            workspaces: Arc::new(workspaces),
            lost_jobs: Arc::new(LostJobs::new(
                host.boot_id.clone(),
                tasks.clone(),
                shutdown.subscribe(),
            )),
            metrics,
            spans,
            finished_amendments: Semaphore::new(1),
            trouble: Trouble::new(),
            nodes,
            is_node: matches!(setup.part, Membership::Node),
            linked: watch::Sender::new(false),
            shutdown,
            tasks,
            host,
            limits: setup.limits,
        })
    }

    /// Runs a task in the set that the manager's starter joins. After the shutdown there is none: then
    /// the task is dropped, and with it whatever it would have answered.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// See [`Spawner::see_through`]: for whatever a handler changes in more than one place.
    pub(super) fn see_through<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = T> {
        self.tasks.see_through(work)
    }

    /// Lets all start that may start now. After each change of what runs and waits.
    pub(super) fn grant(self: &Arc<Self>) {
        if self.shutdown.has_begun() {
            return;
        }
        for waker in self.room.grant(clock::wall()) {
            self.spawn(self.clone().wake(waker));
        }
    }

    /// The queue of this name as the series have it.
    pub(super) fn queue_label(&self, name: &str) -> Arc<str> {
        self.metrics.queue(name, self.queues.is_set(name))
    }

    /// The end of a job is durable: it is counted, and its spans are made.
    pub(super) fn count_end(&self, job: &Job) {
        let exported = self.spans.as_ref().and_then(|spans| spans.ended(job));
        let trace = exported.or_else(|| job.trace.as_ref()?.recorded());
        let queue = self.queue_label(&job.spec.queue);
        self.metrics.ended(job, queue, trace);
        self.stats.ended(job);
    }

    /// The end of an attempt is durable, and another one follows.
    pub(super) fn count_attempt(&self, ended: &Job) {
        self.metrics.attempt_ended(ended.state);
        if let Some(spans) = &self.spans {
            spans.attempt_ended(ended);
        }
    }

    /// Gives back what a job took, to those that wait for it.
    pub(super) fn leave(self: &Arc<Self>, id: JobId) {
        self.room.leave(id);
        match &self.nodes {
            Some(nodes) => {
                nodes.release(id);
                self.nodes_changed();
            }
            None => self.grant(),
        }
    }

    /// Counts the nodes again, and lets all start that may start now.
    pub(super) fn nodes_changed(self: &Arc<Self>) {
        if let Some(nodes) = &self.nodes {
            let (most, heaviest) = nodes.capacity();
            self.room.set_most(most, heaviest);
            nodes.tell();
        }
        self.grant();
    }

    /// Does another node of the cluster have this job?
    pub(super) fn is_there(&self, job: &Job) -> bool {
        let claim = job.claim.as_ref();
        claim.is_some_and(|claim| claim.store != self.store.source())
    }

    /// Begins to end what a lost job has left, wherever that is. Gives the job as it is then.
    pub(super) async fn end_left(
        self: &Arc<Self>,
        job: Arc<Job>,
        stop: &Stop,
    ) -> Result<Arc<Job>, LookupError> {
        match (&self.nodes, &job.claim) {
            (Some(nodes), Some(claim)) if self.is_there(&job) => {
                if job.state == State::Lost {
                    nodes.ask_blindly(&claim.node, job.id, Ask::Stop(stop.clone()));
                    late::keep_stop(self, job.id, stop).await?;
                    // The node may have come between the two, and has been asked nothing.
                    nodes.ask_blindly(&claim.node, job.id, Ask::Stop(stop.clone()));
                    return self.get(job.id).await;
                }
            }
            _ => self.lost_jobs.end(&job, stop).await,
        }
        Ok(job)
    }

    /// Is nothing left of a job that has ended, wherever it ran? Waits for as long as `limit` if a stop was asked.
    pub(super) async fn is_nothing_left(&self, job: &Job, limit: Duration) -> bool {
        match (&self.nodes, &job.claim) {
            (Some(nodes), Some(claim)) if self.is_there(job) && job.state == State::Lost => {
                let is_gone = nodes.is_gone(&claim.node, job.id, limit).await;
                if !is_gone {
                    let end = Instant::now() + limit.min(LOOK_AGAIN);
                    tokio::time::sleep_until(end.into()).await;
                }
                is_gone
            }
            _ => self.lost_jobs.ended(job, limit).await,
        }
    }

    /// Are jobs accepted from clients?
    pub(super) fn takes_own(&self) -> Result<(), SubmitError> {
        match self.is_node {
            true => Err(SubmitError::RunnerOnly),
            false => Ok(()),
        }
    }

    /// Are there nodes, if a job with this spec wants to choose?
    pub(super) fn has_nodes(&self, spec: &Spec) -> Result<(), SubmitError> {
        match self.nodes.is_none() && spec.placement.is_some() {
            true => Err(SubmitError::NoNodes),
            false => Ok(()),
        }
    }

    /// Where files are from now on that are uploaded for jobs which wait: nothing but in a cluster, where another one may
    /// lead when the job starts.
    pub(super) fn uploads(&self) -> Option<Box<Uploads>> {
        let node = self.nodes.as_ref()?.own.clone();
        let place = self.place.clone()?;
        Some(Box::new(Uploads { node, place }))
    }

    /// Who has the files that were uploaded for a job, if that is not this one.
    pub(super) fn lacks_uploads(&self, job: &Job) -> Option<NodeName> {
        let uploads = job.uploads.as_ref()?;
        (self.place.as_ref() != Some(&uploads.place)).then(|| uploads.node.clone())
    }

    /// Ends those that a job supersedes. They have been kept from starting by now.
    pub(super) fn end_superseded(self: &Arc<Self>, doomed: Vec<JobId>, by: &Job) {
        let key = by.spec.concurrency.as_ref();
        let key = key.map(|it| it.key.as_str()).unwrap_or_default();
        let stop = Stop {
            requested_by: Some(by.created_by.clone()),
            reason: Some(format!("job {} has come with the key {key}", by.id)),
            ..Stop::for_cause(Cause::Superseded)
        };
        for id in doomed {
            let (shared, stop) = (self.clone(), stop.clone());
            self.spawn(async move { shared.see_stopped(id, stop).await });
        }
    }

    /// Notes that a job has started, for the rate of its queue.
    pub(super) fn note_start(&self, job: &Job) {
        let queue = &job.spec.queue;
        let Some(rate) = self.room.look(|it| it.settings(queue).rate) else {
            return;
        };
        // Seen after it was, and so never counted as too early; what its monitor tells of it may still move a little.
        let at = clock::wall();
        self.room.started(job.id, at);
        self.store.queues().tell_start(queue.clone(), at, rate.per);
    }

    pub(super) fn store_failed(&self, error: &StoreError) {
        self.trouble.note(error);
    }

    /// Stores something of a job, however often that fails; `None` if `end` comes first.
    pub(super) async fn until_stored<T, F>(
        &self,
        (id, what): (JobId, &str),
        mut attempt: impl FnMut() -> F,
        end: impl Future,
    ) -> Option<T>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        tokio::pin!(end);
        let mut was_said = false;
        loop {
            let error = match attempt().await {
                Ok(done) => return Some(done),
                Err(error) => error,
            };
            self.store_failed(&error);
            if !std::mem::replace(&mut was_said, true) {
                tracing::error!(job.id = %id, %error, "{what} of job {id} could not be stored, and is tried again until it is: {error}");
            }
            tokio::select! {
                () = until(Some(tokio::time::Instant::now() + STORE_RETRY)) => {}
                _ = &mut end => return None,
            }
        }
    }

    /// Are requests answered?
    pub(super) fn serving(&self) -> Result<(), NotReady> {
        if self.shutdown.has_begun() {
            return Err(NotReady::Ending);
        }
        Ok(())
    }

    /// Is there a hub, if this is a node?
    pub(super) fn is_linked(&self) -> Result<(), NotReady> {
        match self.is_node && !*self.linked.borrow() {
            true => Err(NotReady::NotLinked),
            false => Ok(()),
        }
    }

    /// May new jobs come?
    pub(super) fn ready(&self) -> Result<(), NotReady> {
        self.serving()?;
        if self.shutdown.is_draining() {
            return Err(NotReady::Draining);
        }
        if !self.is_in_place() {
            return Err(NotReady::Gone);
        }
        match self.has_room() {
            true => Ok(()),
            false => Err(NotReady::NoRoom),
        }
    }

    /// Is more of the disk free than is to stay free?
    fn has_room(&self) -> bool {
        let bytes = self.job_dirs.free_bytes();
        let files = self.job_dirs.free_files();
        bytes.is_none_or(|it| it >= self.limits.min_free_bytes)
            && files.is_none_or(|it| it >= MIN_FREE_FILES)
    }

    /// Are the store and the jobs' directories where they were at the start? What is written to files that were moved away
    /// or removed is lost with the next start.
    fn is_in_place(&self) -> bool {
        let state_dir = &self.resolver.state_dir;
        self.job_dirs.are_at(&state_dir.join("jobs")) && state_dir.join(STORE).exists()
    }

    pub(super) fn info(&self) -> Info {
        let (running, queued, most) = self
            .room
            .look(|it| (it.running(), it.waiting(), it.max_running()));
        let cgroup = self.host.cgroup.as_ref();
        Info {
            containment: match cgroup {
                Ok(_) => "cgroup+subreaper",
                Err(_) => "subreaper",
            },
            cgroup: cgroup.map(|home| home.path()).map_err(String::clone),
            controllers: cgroup.map_or_else(|_| Vec::new(), |home| home.controllers.clone()),
            sandbox: self.resolver.sandbox,
            features: self.resolver.features,
            running,
            queued,
            max_running: usize::try_from(most).unwrap_or(usize::MAX),
            max_queued: self.limits.max_queued,
            started_at: self.started_at,
            supervisor_pid: i32::try_from(self.host.supervisor_pid).unwrap_or_default(),
            server_restarts: self.host.restarts,
            draining: self.shutdown.is_draining(),
            has_room: self.has_room(),
            root_jobs: geteuid().is_root() && !self.resolver.deny_root_jobs,
            damaged_records: self.job_dirs.damaged_records(),
            disk: self.job_dirs.disk(),
            output_bytes: self.store.counts().output_bytes,
        }
    }
}
