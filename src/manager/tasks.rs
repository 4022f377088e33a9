//! The manager's own tasks: where they are spawned, and what drives them to their end.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Spawns tasks into the set that the manager's starter joins; clones spawn into the same.
#[derive(Clone, Debug)]
pub(super) struct Spawner(Arc<Mutex<Option<mpsc::UnboundedSender<Task>>>>);

impl Spawner {
    pub(super) fn new() -> (Self, Tasks) {
        let (sender, tasks) = mpsc::unbounded_channel();
        (
            Self(Arc::new(Mutex::new(Some(sender)))),
            Tasks { tasks, last: None },
        )
    }

    /// After [`Spawner::close`] the task is dropped, and with it whatever it would have answered.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let spawner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(spawner) = &*spawner {
            let _ = spawner.send(Box::pin(task));
        }
    }

    /// Takes no more tasks: the end of those there are is the end of the manager's work.
    pub(super) fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// The manager's own tasks; whoever started it drives them to their end.
#[derive(Debug)]
pub struct Tasks {
    tasks: mpsc::UnboundedReceiver<Task>,
    /// A task that outlives the others, and what ends it.
    last: Option<(oneshot::Sender<()>, JoinSet<()>)>,
}

impl Tasks {
    /// Runs every task that the manager spawns, until the manager is told to shut down and the last of
    /// them has ended.
    pub async fn run(mut self) {
        let mut running = JoinSet::new();
        loop {
            tokio::select! {
                task = self.tasks.recv() => match task {
                    Some(task) => drop(running.spawn(task)),
                    None => break,
                },
                Some(ended) = running.join_next() => log_panic(&ended),
            }
        }
        while let Some(ended) = running.join_next().await {
            log_panic(&ended);
        }
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
