//! The manager's own tasks: where they are spawned, and who waits for their end.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Spawns tasks for whose end the manager's starter waits; clones spawn for the same.
#[derive(Clone, Debug)]
pub(super) struct Spawner(Arc<Mutex<Door>>);

/// What a task meets that is to be spawned. Nobody is woken for one that begins or ends, but for the last.
struct Door {
    /// Held by every task; nothing once no more are taken.
    alive: Option<Alive>,
    /// What runs them, once they may run.
    runtime: Option<Handle>,
    /// Where they wait until then. Not here: they hold the spawner.
    waiting: mpsc::UnboundedSender<Task>,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").finish_non_exhaustive()
    }
}

/// Dropped with the task that it belongs to.
#[derive(Clone)]
struct Alive(#[expect(dead_code, reason = "it is there to be dropped")] mpsc::Sender<Infallible>);

impl Drop for Alive {
    fn drop(&mut self) {
        if thread::panicking() {
            // What and where it was, the panic hook has said.
            tracing::error!("a task of the job manager panicked");
        }
    }
}

impl Spawner {
    pub(super) fn new() -> (Self, Tasks) {
        let (alive, ended) = mpsc::channel(1);
        let (waiting, before) = mpsc::unbounded_channel();
        let spawner = Self(Arc::new(Mutex::new(Door {
            alive: Some(Alive(alive)),
            runtime: None,
            waiting,
        })));
        let tasks = Tasks {
            spawner: spawner.clone(),
            before,
            ended,
            last: None,
        };
        (spawner, tasks)
    }

    /// After [`Spawner::close`] the task is dropped, and with it whatever it would have answered.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        // In a box of its own: what waits for it would have room for it twice.
        drop(self.take(Box::pin(task)));
    }

    /// Does work that is carried through once it has begun, whether anybody waits for it or not: a handler is dropped
    /// when its client hangs up. After [`Spawner::close`] whoever waits does it: all that is not durable ends anyway.
    pub(super) async fn see_through<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let (answer, answered) = oneshot::channel();
        let work: Task = Box::pin(async move {
            // Nobody may be there any more.
            let _ = answer.send(work.await);
        });
        if let Err(work) = self.take(work) {
            work.await;
        }
        answered.await.expect("the work does not panic")
    }

    /// Runs a task, or gives it back after [`Spawner::close`].
    fn take(&self, task: Task) -> Result<(), Task> {
        let door = self.door();
        let Some(alive) = door.alive.clone() else {
            return Err(task);
        };
        let task: Task = Box::pin(async move {
            let _alive = alive;
            task.await;
        });
        let refused = match &door.runtime {
            Some(runtime) => {
                drop(runtime.spawn(task));
                None
            }
            None => door.waiting.send(task).err(),
        };
        // It may want to spawn as it is dropped, which is not done here.
        refused.map_or(Ok(()), |refused| Err(refused.0))
    }

    /// Takes no more tasks: the end of those there are is the end of the manager's work.
    pub(super) fn close(&self) {
        self.door().alive.take();
    }

    fn door(&self) -> MutexGuard<'_, Door> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The manager's own tasks; whoever started it waits for their end.
#[derive(Debug)]
pub struct Tasks {
    spawner: Spawner,
    /// What was spawned before it may run.
    before: mpsc::UnboundedReceiver<Task>,
    /// Closed once every task has ended and no more are taken.
    ended: mpsc::Receiver<Infallible>,
    /// A task that outlives the others, and what ends it.
    last: Option<(oneshot::Sender<()>, JoinSet<()>)>,
}

impl Tasks {
    /// Runs every task that the manager spawns, until the manager is told to shut down and the last of
    /// them has ended.
    pub async fn run(mut self) {
        let runtime = Handle::current();
        self.spawner.door().runtime = Some(runtime.clone());
        while let Ok(task) = self.before.try_recv() {
            drop(runtime.spawn(task));
        }
        // Nothing is ever sent.
        self.ended.recv().await;
        if let Some((end, mut last)) = self.last {
            drop(end);
            while let Some(ended) = last.join_next().await {
                log_panic(&ended);
            }
        }
    }

    /// With a task that ends after all others: it is told when.
    pub(super) fn with_last<F>(self, task: impl FnOnce(oneshot::Receiver<()>) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (end, ended) = oneshot::channel();
        let mut last = JoinSet::new();
        last.spawn(task(ended));
        Self {
            last: Some((end, last)),
            ..self
        }
    }
}

fn log_panic(ended: &Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a task of the job manager panicked: {error}");
    }
}
