//! What the manager's tasks share: the live jobs, the slots, the store and the supervisor.
//!
//! Two locks, both private to this module: the live jobs and the slots. Each is held for a look-up or an
//! insertion, and never over an await.

mod ending;
mod files;

use std::collections::HashMap;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::link::SupervisorLink;
use super::queue::Admission;
use super::resolve::{Resolver, own_environment};
use super::runner::{Ask, Reply, Runner, ShutdownPlan};
use super::survivors::Endings;
use super::{Follow, Info, NotReady, RequestError, Setup, Unavailable};
pub use ending::SupervisorSaid;
use job::life::Refusal;
use job::query::Query;
use job::time::Timestamp;
use job::{Job, JobId, Spec};
use linux::cgroup::Home;
use linux::clock;
use linux::sandbox;
use protocol::wire::messages::Launch;
use store::{Store, StoreError};

/// A task of the manager.
pub(super) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How many requests may wait for a job's task.
const ASKS: usize = 16;

pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) supervisor: SupervisorLink,
    pub(super) jobs: OwnedFd,
    pub(super) boot_id: String,
    pub(super) cgroup: Option<Home>,
    pub(super) shutdown: watch::Sender<Option<ShutdownPlan>>,
    resolver: Arc<Resolver>,
    live: Mutex<HashMap<JobId, Live>>,
    admission: Mutex<Admission<oneshot::Sender<()>>>,
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

/// What others hold of a live job.
struct Live {
    state: watch::Receiver<Arc<Job>>,
    /// Where the output ends. The task asks the monitor only while there are receivers.
    feed: Arc<watch::Sender<u64>>,
    /// Boxed, since the channel has room for 32 from the first on.
    asks: mpsc::Sender<Box<Ask>>,
    /// It is durable: clients may see it.
    visible: bool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("live", &self.live().len())
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
            live: Mutex::default(),
            admission: Mutex::new(Admission::new(setup.max_running, setup.max_queued)),
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

    fn live(&self) -> MutexGuard<'_, HashMap<JobId, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn admission(&self) -> MutexGuard<'_, Admission<oneshot::Sender<()>>> {
        self.admission
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a task in the set that the manager's starter joins. After the shutdown there is none: then
    /// the task is dropped, and with it whatever it would have answered.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let spawner = self.spawner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(spawner) = &*spawner {
            let _ = spawner.send(Box::pin(task));
        }
    }

    /// Makes the job's task-to-be and its entry among the live ones.
    pub(super) fn enlist(self: &Arc<Self>, job: Job, visible: bool) -> Box<Runner> {
        let id = job.id;
        let (publish, state) = watch::channel(Arc::new(job.clone()));
        let (asks, asked) = mpsc::channel(ASKS);
        let feed = Arc::new(watch::Sender::new(0));
        self.live().insert(
            id,
            Live {
                state,
                feed: feed.clone(),
                asks,
                visible,
            },
        );
        Box::new(Runner::new(self.clone(), job, publish, feed, asked))
    }

    pub(super) fn make_visible(&self, id: JobId) {
        if let Some(live) = self.live().get_mut(&id) {
            live.visible = true;
        }
    }

    /// Forgets a job that was not accepted after all.
    pub(super) fn withdraw(&self, id: JobId) {
        self.live().remove(&id);
        self.admission().withdraw();
    }

    /// Forgets a live job whose end is in the store, and removes its record.
    pub(super) async fn forget(self: &Arc<Self>, id: JobId) {
        self.live().remove(&id);
        linux::failpoint::hit("record.removing");
        self.remove_record(id).await;
    }

    /// Frees a slot and gives it to the next job in the queue.
    pub(super) fn leave(&self) {
        let mut admission = self.admission();
        admission.leave();
        while let Some(next) = admission.next() {
            if next.send(()).is_ok() {
                // `next` hands out one slot a call; another may be free.
                continue;
            }
            admission.leave();
        }
    }

    /// The watch of a live, visible job.
    pub(super) fn watch(&self, id: JobId) -> Option<watch::Receiver<Arc<Job>>> {
        self.live()
            .get(&id)
            .filter(|live| live.visible)
            .map(|live| live.state.clone())
    }

    pub(super) async fn get(&self, id: JobId) -> Result<Arc<Job>, RequestError> {
        match self.watch(id) {
            Some(state) => Ok(state.borrow().clone()),
            None => self
                .store
                .get(id)
                .await?
                .map(Arc::new)
                .ok_or(RequestError::NoSuchJob),
        }
    }

    /// The same for a job that has just become durable under its idempotency key.
    pub(super) async fn get_any(&self, id: JobId) -> Result<Arc<Job>, RequestError> {
        let live = self.live().get(&id).map(|live| live.state.clone());
        match live {
            Some(state) => Ok(state.borrow().clone()),
            None => self.get(id).await,
        }
    }

    pub(super) fn live_jobs(&self, query: &Query) -> Vec<Arc<Job>> {
        use job::query::Order;
        let live = self.live();
        let visible = live
            .values()
            .filter(|live| live.visible)
            .map(|live| live.state.borrow().clone());
        visible
            .filter(|job| {
                query.after.is_none_or(|after| match query.order {
                    Order::CreatedAscending => job.id > after,
                    Order::CreatedDescending => job.id < after,
                }) && query.filter.matches(job)
            })
            .collect()
    }

    /// Asks a live job's task; a job that is not live has finished, or never was.
    pub(super) async fn ask(
        &self,
        id: JobId,
        ask: impl FnOnce(Reply) -> Ask,
    ) -> Result<u64, RequestError> {
        let asks = self
            .live()
            .get(&id)
            .filter(|live| live.visible)
            .map(|live| live.asks.clone());
        let (reply, replied) = oneshot::channel();
        if let Some(asks) = asks
            && asks.send(Box::new(ask(reply))).await.is_ok()
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
    pub(super) async fn follow(&self, id: JobId) -> Result<Follow, RequestError> {
        let live = self
            .live()
            .get(&id)
            .filter(|live| live.visible)
            .map(|live| {
                let follow = Follow {
                    state: live.state.clone(),
                    output: Some(live.feed.subscribe()),
                };
                (follow, live.asks.clone())
            });
        if let Some((follow, asks)) = live {
            // A task that is over has published the end.
            let _ = asks.send(Box::new(Ask::Follow)).await;
            return Ok(follow);
        }
        let (_, state) = watch::channel(self.get(id).await?);
        Ok(Follow {
            state,
            output: None,
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

    pub(super) fn ready(&self) -> Result<(), NotReady> {
        if self.is_draining() {
            return Err(NotReady::Draining);
        }
        match nix::sys::statvfs::fstatvfs(&self.jobs) {
            Ok(space)
                if space
                    .blocks_available()
                    .saturating_mul(space.fragment_size())
                    < self.min_free_bytes =>
            {
                Err(NotReady::NoRoom)
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    pub(super) fn info(&self) -> Info {
        let (running, queued) = {
            let admission = self.admission();
            (admission.running(), admission.waiting())
        };
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
