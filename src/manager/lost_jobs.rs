//! What a lost job has left running: found, named, and ended when a client asks for that.
//!
//! Its monitor and its supervisor are dead, so nobody has seen its end and nobody will see theirs. Only those
//! that are certainly the job's are signalled, each through a pidfd (see [`linux::tree`]).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::shutdown::ShutdownPlan;
use super::tasks::Spawner;
use super::time::until;
use job::life::Stop;
use job::spec::Scope;
use job::{Job, JobId, Process, Signal, State};
use linux::cgroup::Group;
use linux::procfs::ProcessIdentity;
use linux::procfs::Stat;
use linux::sys::Pid;
use linux::tree::{Reach, Traces, Tree};

/// How often they are looked at while they are being ended, at first and at most.
const LOOK_FIRST: Duration = Duration::from_millis(20);
const LOOK_MOST: Duration = Duration::from_secs(1);

/// The lost jobs whose processes are being ended, and when the kill comes.
#[derive(Debug, Default)]
struct Endings(Mutex<HashMap<JobId, watch::Sender<Instant>>>);

impl Endings {
    /// Brings the kill forward where they are being ended already, else begins; a repeat never puts it off.
    fn begin(&self, id: JobId, kill_at: Instant) -> Option<watch::Receiver<Instant>> {
        let mut endings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = endings.get(&id) {
            known.send_if_modified(|at| {
                let is_earlier = kill_at < *at;
                *at = kill_at.min(*at);
                is_earlier
            });
            return None;
        }
        let (sender, receiver) = watch::channel(kill_at);
        endings.insert(id, sender);
        Some(receiver)
    }

    fn end(&self, id: JobId) {
        let mut endings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        endings.remove(&id);
    }

    /// Closes when they have ended; `None` if nobody ends any.
    fn watch(&self, id: JobId) -> Option<watch::Receiver<Instant>> {
        let endings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        endings.get(&id).map(watch::Sender::subscribe)
    }
}

/// The processes of a job as they are found without its monitor: beneath this supervisor, or anywhere.
/// `None` if nothing says how.
pub(super) fn tree(id: JobId, process: &Process, supervisor: Option<i32>) -> Option<Tree> {
    let unwatched = process.unwatched.as_ref()?;
    let identity = |(pid, start_ticks)| ProcessIdentity { pid, start_ticks };
    let traces = Traces::new(
        id,
        identity((process.pid, process.start_ticks)),
        unwatched.pipes.clone(),
        unwatched.strays.iter().copied().map(identity),
    );
    let reach = Reach::Traces {
        traces: traces.into(),
        supervisor,
    };
    Some(Tree::new(
        reach,
        process.cgroup.as_deref().and_then(Group::at),
    ))
}

/// The lost jobs of this service.
#[derive(Debug)]
pub(super) struct LostJobs {
    /// Which life of the machine this is.
    boot_id: String,
    endings: Endings,
    tasks: Spawner,
    shutdown: watch::Receiver<Option<ShutdownPlan>>,
}

impl LostJobs {
    pub(super) fn new(
        boot_id: String,
        tasks: Spawner,
        shutdown: watch::Receiver<Option<ShutdownPlan>>,
    ) -> Self {
        Self {
            boot_id,
            endings: Endings::default(),
            tasks,
            shutdown,
        }
    }

    /// Where to look for the processes that a lost job has left in this life of the machine.
    pub(super) fn left_by(&self, job: &Job) -> Option<Tree> {
        let process = job.process.as_ref()?;
        let is_present = process.unwatched.as_ref()?.boot_id == self.boot_id;
        (job.state == State::Lost && is_present)
            .then(|| tree(job.id, process, None))
            .flatten()
    }

    /// Begins to end what a lost job has left. Returns when somebody ends it, or when there is nothing.
    pub(super) async fn end(self: &Arc<Self>, job: &Job, stop: &Stop) {
        let Some(tree) = self.left_by(job) else {
            return;
        };
        let (tree, left) = look(tree).await;
        if left.is_empty() {
            return;
        }
        let grace = match stop.force {
            true => Duration::ZERO,
            false => stop.grace.unwrap_or(job.spec.stop.grace),
        };
        let Some(kill_at) = self.endings.begin(job.id, Instant::now() + grace) else {
            return;
        };
        let signal = (!stop.force).then(|| stop.signal.unwrap_or(job.spec.stop.signal));
        let (lost_jobs, id, by) = (self.clone(), job.id, stop.requested_by.clone());
        self.tasks.spawn(async move {
            lost_jobs.end_each(tree, signal, kill_at).await;
            lost_jobs.endings.end(id);
            let by = by.as_deref().unwrap_or_default();
            tracing::info!(job.id = %id, "the processes that the lost job {id} left were ended for {by}");
        });
    }

    /// The polite signal, then the kill, until none is left or the service ends.
    async fn end_each(
        &self,
        mut tree: Tree,
        signal: Option<Signal>,
        mut kill_at: watch::Receiver<Instant>,
    ) {
        let mut shutdown = self.shutdown.clone();
        if let Some(signal) = signal {
            tree = act(tree, move |tree| {
                // A leader that was reaped has no number of its own any more: each is held by a pidfd.
                let nobody = Pid::new(i32::MAX).expect("it is positive");
                tree.terminate(signal, Scope::All, nobody, true);
            })
            .await;
        }
        let mut pause = LOOK_FIRST;
        loop {
            if *kill_at.borrow_and_update() <= Instant::now() {
                tree = act(tree, |tree| {
                    let _ = tree.kill_group();
                    let _ = tree.kill();
                })
                .await;
            }
            let left;
            (tree, left) = look(tree).await;
            if left.is_empty() {
                if let Some(group) = tree.group() {
                    let _ = group.remove();
                }
                return;
            }
            tokio::select! {
                () = until(Some(Instant::now() + pause)) => pause = (pause * 2).min(LOOK_MOST),
                _ = kill_at.changed() => pause = LOOK_FIRST,
                _ = shutdown.wait_for(Option::is_some) => return,
            }
        }
    }

    /// Is nothing left of this job, now or before `limit` passes? Waits only if somebody ends it.
    pub(super) async fn ended(&self, job: &Job, limit: Duration) -> bool {
        if let Some(mut ending) = self.endings.watch(job.id) {
            let ended = async { while ending.changed().await.is_ok() {} };
            let _ = timeout(limit, ended).await;
        }
        match self.left_by(job) {
            Some(tree) => look(tree).await.1.is_empty(),
            None => true,
        }
    }
}

/// Who is left?
pub(super) async fn look(tree: Tree) -> (Tree, Vec<Stat>) {
    let looked = tokio::task::spawn_blocking(move || {
        let left = tree.members();
        (tree, left)
    });
    looked.await.expect("looking does not panic")
}

async fn act(tree: Tree, act: impl FnOnce(&Tree) + Send + 'static) -> Tree {
    let acted = tokio::task::spawn_blocking(move || {
        act(&tree);
        tree
    });
    acted.await.expect("signalling does not panic")
}
