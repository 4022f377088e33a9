//! What the manager's tasks share: the room of jobs, the store and the supervisor.

mod ending;
mod files;

use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::admission::Admission;
use super::link::SupervisorLink;
use super::metrics::Metrics;
use super::queues::Registry;
use super::readers::Readers;
use super::resolve::{Resolver, own_environment};
use super::room::{Awake, Place, Room, Waker};
use super::runner::{Ask, Reply, Runner, ShutdownPlan, Told};
use super::survivors::Endings;
use super::{Follow, Info, NotReady, RequestError, Setup, Unavailable, mirror, runner};
pub use ending::SupervisorSaid;
use job::life::{Refusal, Stop};
use job::spec::OnLimit;
use job::time::Timestamp;
use job::{Cause, Job, JobId, Spec};
use linux::cgroup::Home;
use linux::clock;
use linux::sandbox;
use protocol::wire::messages::Launch;
use store::{Store, StoreError};

/// A task of the manager.
pub(super) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How many requests may wait for a job's task.
const ASKS: usize = 16;

/// With fewer files that can still be made no job is accepted: its directory, its record and its log are such.
const MIN_FREE_FILES: u64 = 32;

/// How often a job that waits is woken for one request: it may fall asleep again before the request is seen.
const WAKINGS: usize = 16;

pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) supervisor: SupervisorLink,
    pub(super) jobs: OwnedFd,
    pub(super) boot_id: String,
    pub(super) cgroup: Option<Home>,
    pub(super) shutdown: watch::Sender<Option<ShutdownPlan>>,
    resolver: Arc<Resolver>,
    /// Which jobs have tasks, and which wait.
    pub(super) room: Room,
    /// The queues of which something is set.
    pub(super) queues: Registry,
    /// What operators count.
    pub(super) metrics: Arc<Metrics>,
    /// Whose survivors are being ended.
    pub(super) endings: Endings,
    spawner: Mutex<Option<mpsc::UnboundedSender<Task>>>,
    /// An operator wants no new jobs.
    draining: AtomicBool,
    /// Whose turn it is to change a finished job.
    pub(super) finished_amendments: Semaphore,
    damaged_records: AtomicU64,
    min_free_bytes: u64,
    pub(super) max_finished: u64,
    fixed: Fixed,
}

/// What `/info` says and never changes.
struct Fixed {
    no_cgroup: Option<String>,
    max_running: usize,
    max_queued: usize,
    started_at: Timestamp,
    supervisor_pid: u32,
    restarts: u32,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("room", &self.room)
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(setup: Setup, spawner: mpsc::UnboundedSender<Task>) -> std::io::Result<Self> {
        let controllers = match (&setup.cgroup, &setup.no_cgroup) {
            (Some(home), _) => Ok(home.controllers.clone()),
            (None, why) => Err(why.clone().unwrap_or_default()),
        };
        Ok(Self {
            store: setup.store,
            supervisor: SupervisorLink::new(setup.supervisor)?,
            jobs: setup.jobs,
            boot_id: setup.boot_id,
            cgroup: setup.cgroup,
            metrics: Arc::default(),
            shutdown: watch::Sender::new(None),
            resolver: Arc::new(Resolver {
                environment: own_environment(),
                work_dir: setup.work_dir,
                controllers,
                deny_root_jobs: setup.deny_root_jobs,
                sandbox: setup.sandbox,
                features: sandbox::features(),
                state_dir: setup.state_dir,
            }),
            room: Room::new(Admission::new(
                u32::try_from(setup.max_running).unwrap_or(u32::MAX),
                setup.max_queued,
            )),
            queues: Registry::default(),
            endings: Endings::default(),
            spawner: Mutex::new(Some(spawner)),
            draining: AtomicBool::new(setup.draining),
            finished_amendments: Semaphore::new(1),
            damaged_records: AtomicU64::new(0),
            min_free_bytes: setup.min_free_bytes,
            max_finished: setup.max_finished,
            fixed: Fixed {
                no_cgroup: setup.no_cgroup,
                max_running: setup.max_running,
                max_queued: setup.max_queued,
                started_at: clock::wall(),
                supervisor_pid: setup.supervisor_pid,
                restarts: setup.restarts,
            },
        })
    }

    /// Runs a task in the set that the manager's starter joins. After the shutdown there is none: then
    /// the task is dropped, and with it whatever it would have answered.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let spawner = self.spawner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(spawner) = &*spawner {
            let _ = spawner.send(Box::pin(task));
        }
    }

    /// Makes the job's task-to-be and its entry in the room; one that waits is granted by `slot`.
    pub(super) fn enlist(
        self: &Arc<Self>,
        job: Job,
        visible: bool,
        slot: Option<oneshot::Sender<()>>,
    ) -> Box<Runner> {
        let id = job.id;
        let (publish, state) = watch::channel(Arc::new(job.clone()));
        let (asks, asked) = mpsc::channel(ASKS);
        let feed = Arc::new(watch::Sender::new(0));
        let waits = job.spec.output.on_limit == OnLimit::Wait;
        let readers = waits.then(Arc::<Readers>::default);
        let awake = Awake {
            state,
            feed: feed.clone(),
            readers: readers.clone(),
            asks,
        };
        self.room.enlist(id, awake, visible, slot);
        let told = Told {
            publish,
            feed,
            readers,
        };
        Box::new(Runner::new(self.clone(), job, told, asked))
    }

    /// Forgets a live job whose end is in the store, and removes its record.
    pub(super) async fn forget(self: &Arc<Self>, id: JobId) {
        self.room.forget(id);
        linux::failpoint::hit("record.removing");
        self.remove_record(id).await;
    }

    /// Lets all start that may start now. After each change of what runs and waits.
    pub(super) fn grant(self: &Arc<Self>) {
        if self.shutdown.borrow().is_some() {
            return;
        }
        for waker in self.room.grant(clock::wall()) {
            self.spawn(self.clone().wake(waker));
        }
    }

    /// Gives back what a job took, to those that wait for it.
    pub(super) fn leave(self: &Arc<Self>, id: JobId) {
        self.room.leave(id);
        self.grant();
    }

    /// Gives a waiting job a task, and is that task.
    pub(super) async fn wake(self: Arc<Self>, waker: Waker) {
        let Waker { job: id, done } = waker;
        loop {
            match self.store.unfinished_job(id).await {
                Ok(Some((job, secrets))) => {
                    let (slot, has_slot) = oneshot::channel();
                    let runner = self.enlist(self.outlived(job), true, Some(slot));
                    done.send_replace(Some(Ok(())));
                    return runner.go_on_waiting(has_slot, secrets).await;
                }
                Ok(None) => {
                    tracing::error!(job.id = %id, "job {id} waits and is not in the store");
                    self.room.withdraw(id);
                    self.room.forget(id);
                    done.send_replace(Some(Ok(())));
                    return self.leave(id);
                }
                Err(error) => {
                    self.store_failed(&error);
                    if !self.room.stay_asleep(id) {
                        done.send_replace(Some(Err(error)));
                        return;
                    }
                    if self.shutdown.borrow().is_some() {
                        return;
                    }
                    runner::until(Some(Instant::now() + runner::STORE_RETRY)).await;
                }
            }
        }
    }

    /// A waiting job as the store has it, with a version that no earlier server can have told.
    pub(super) fn outlived(&self, mut job: Job) -> Job {
        mirror::outlive_server(&mut job, self.fixed.started_at);
        job
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
            self.spawn(async move {
                let asked = shared.ask(id, |reply| Ask::Stop(stop, reply)).await;
                if let Err(error) = asked {
                    tracing::debug!(job.id = %id, %error, "job {id} is superseded and was not stopped: {error}");
                }
            });
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
        self.store.tell_start(queue.clone(), at, rate.per);
    }

    /// What is to be held of a job that has a task, or waits and is woken for it; `None` for one that is over.
    pub(super) async fn awake(self: &Arc<Self>, id: JobId) -> Result<Option<Awake>, StoreError> {
        for _ in 0..WAKINGS {
            let mut woken = match self.room.find(id) {
                Place::Awake(awake) => return Ok(Some(awake)),
                Place::Nowhere => return Ok(None),
                Place::Waking(woken) => woken,
                Place::Asleep(waker) => {
                    let woken = waker.done.subscribe();
                    self.spawn(self.clone().wake(waker));
                    woken
                }
            };
            // Closed without a word where the service ends.
            let Ok(woken) = woken.wait_for(Option::is_some).await else {
                return Ok(None);
            };
            if let Some(Err(error)) = &*woken {
                return Err(error.clone());
            }
        }
        Ok(None)
    }

    pub(super) async fn get(&self, id: JobId) -> Result<Arc<Job>, RequestError> {
        match self.room.state(id) {
            Some(job) => Ok(job),
            None => self.stored(id).await,
        }
    }

    /// The same for a job that has just become durable under its idempotency key.
    pub(super) async fn get_any(&self, id: JobId) -> Result<Arc<Job>, RequestError> {
        match self.room.any_state(id) {
            Some(job) => Ok(job),
            None => self.stored(id).await,
        }
    }

    async fn stored(&self, id: JobId) -> Result<Arc<Job>, RequestError> {
        let job = self.store.get(id).await?.ok_or(RequestError::NoSuchJob)?;
        Ok(Arc::new(if job.state.is_terminal() {
            job
        } else {
            self.outlived(job)
        }))
    }

    /// Asks a live job's task; a job that is not live has finished, or never was.
    pub(super) async fn ask(
        self: &Arc<Self>,
        id: JobId,
        ask: impl FnOnce(Reply) -> Ask,
    ) -> Result<u64, RequestError> {
        let (reply, replied) = oneshot::channel();
        if let Some(awake) = self.awake(id).await?
            && awake.asks.send(Box::new(ask(reply))).await.is_ok()
            && let Ok(result) = replied.await
        {
            return result;
        }
        let job = self.get(id).await?;
        Err(if job.state.is_terminal() {
            Refusal::Finished.into()
        } else {
            RequestError::MonitorGone
        })
    }

    /// Subscribes to a job's states and to the growth of its output.
    pub(super) async fn follow(self: &Arc<Self>, id: JobId) -> Result<Follow, RequestError> {
        if let Some(awake) = self.awake(id).await? {
            let follow = Follow {
                state: awake.state.clone(),
                output: Some(awake.feed.subscribe()),
                readers: awake.readers.clone(),
            };
            // A task that is over has published the end.
            let _ = awake.asks.send(Box::new(Ask::Follow)).await;
            return Ok(follow);
        }
        let (_, state) = watch::channel(self.get(id).await?);
        Ok(Follow {
            state,
            output: None,
            readers: None,
        })
    }

    pub(super) async fn check(&self, spec: &Spec) -> Result<(), Unavailable> {
        if spec.user.is_none() && spec.group.is_none() && spec.supplementary_groups.is_none() {
            return self.resolver.check(spec);
        }
        // User data bases may be on the network.
        let (resolver, spec) = (self.resolver.clone(), spec.clone());
        let checked = tokio::task::spawn_blocking(move || resolver.check(&spec)).await;
        checked.unwrap_or(Ok(()))
    }

    /// The launch of a job, with this spec that holds the real secrets.
    pub(super) async fn resolve_launch(
        &self,
        job: &Job,
        spec: Spec,
    ) -> Result<Launch, Unavailable> {
        if spec.user.is_none() && spec.group.is_none() && spec.supplementary_groups.is_none() {
            return self.resolver.launch(job, &spec);
        }
        let (resolver, job) = (self.resolver.clone(), job.clone());
        let resolved = tokio::task::spawn_blocking(move || resolver.launch(&job, &spec)).await;
        resolved.unwrap_or(Err(Unavailable::RootDenied))
    }

    /// No server has run under this supervisor before.
    pub(super) fn is_first_server(&self) -> bool {
        self.fixed.restarts == 0
    }

    pub(super) fn store_failed(&self, error: &StoreError) {
        tracing::error!(%error, "the store failed: {error}");
    }

    /// Free space for output, unless the file system does not say.
    pub(super) fn free_bytes(&self) -> Option<u64> {
        let space = nix::sys::statvfs::fstatvfs(&self.jobs).ok()?;
        Some(
            space
                .blocks_available()
                .saturating_mul(space.fragment_size()),
        )
    }

    /// How many files can still be made, where the file system has a number of them.
    fn free_files(&self) -> Option<u64> {
        let space = nix::sys::statvfs::fstatvfs(&self.jobs).ok()?;
        (space.files() > 0).then(|| space.files_available())
    }

    pub(super) fn ready(&self) -> Result<(), NotReady> {
        if self.is_draining() {
            return Err(NotReady::Draining);
        }
        let is_full = self.free_bytes().is_some_and(|it| it < self.min_free_bytes);
        if is_full || self.free_files().is_some_and(|it| it < MIN_FREE_FILES) {
            return Err(NotReady::NoRoom);
        }
        Ok(())
    }

    pub(super) fn info(&self) -> Info {
        let (running, queued) = self.room.look(|it| (it.running(), it.waiting()));
        Info {
            containment: if self.cgroup.is_some() {
                "cgroup+subreaper"
            } else {
                "subreaper"
            },
            cgroup: match &self.cgroup {
                Some(home) => Ok(home.path()),
                None => Err(self.fixed.no_cgroup.clone().unwrap_or_default()),
            },
            controllers: self
                .cgroup
                .as_ref()
                .map(|home| home.controllers.clone())
                .unwrap_or_default(),
            sandbox: self.resolver.sandbox,
            features: self.resolver.features,
            running,
            queued,
            max_running: self.fixed.max_running,
            max_queued: self.fixed.max_queued,
            started_at: self.fixed.started_at,
            supervisor_pid: i32::try_from(self.fixed.supervisor_pid).unwrap_or_default(),
            server_restarts: self.fixed.restarts,
            draining: self.is_draining(),
            damaged_records: self.damaged_records.load(Ordering::Relaxed),
        }
    }
}
