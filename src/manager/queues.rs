//! Queues: what is set of them, and what is in them. Who starts when is the admission's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

use super::admission::Contents;
use super::shared::Shared;
use job::queue::{Queue, Settings};
use job::time::Timestamp;
use linux::clock;
use store::StoreError;

/// The queues of which something is set.
#[derive(Debug)]
pub(super) struct Registry {
    known: Mutex<BTreeMap<String, Queue>>,
    /// Whose turn it is to change one, so that no change is lost.
    turn: Semaphore,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            turn: Semaphore::new(1),
        }
    }
}

impl Registry {
    /// Is anything set of this queue?
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.known().contains_key(name)
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Queue>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// At a server's start: the queues as earlier servers have left them.
pub(super) async fn recall(shared: &Arc<Shared>) -> Result<(), StoreError> {
    let (queues, starts) = shared.store.queues().all().await?;
    for queue in queues {
        let settings = queue.settings.clone();
        shared.room.set_queue(&queue.name, Some(settings));
        shared.queues.known().insert(queue.name.clone(), queue);
    }
    for (queue, at) in starts {
        if shared.queues.known().contains_key(&queue) {
            shared.room.recall_start(&queue, at);
        }
    }
    Ok(())
}

/// A queue as it is at a moment.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueState {
    /// Its name.
    pub name: String,
    /// What is set; the default ones if nothing is.
    pub settings: Settings,
    /// Grows on every change of that; 0 if nothing is set.
    pub version: u64,
    /// When something was set of it first and last.
    pub set_at: Option<(Timestamp, Timestamp)>,
    /// What is in it.
    pub contents: Contents,
}

/// Why a request on a queue was not granted.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// Nothing is set of it, and no job is in it.
    #[error("no such queue")]
    NoSuchQueue,
    /// Jobs wait or run in it.
    #[error("the queue is in use")]
    InUse,
    /// It is no longer in the version that was meant.
    #[error("the queue has changed")]
    Changed,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A handle to the queues.
#[derive(Clone, Debug)]
pub struct Queues {
    shared: Arc<Shared>,
}

impl Queues {
    pub(super) fn of(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// All of which something is set or that have jobs, by name.
    #[must_use]
    pub fn list(&self) -> Vec<QueueState> {
        let mut names: BTreeSet<String> = self.shared.queues.known().keys().cloned().collect();
        let in_use = |it: &super::admission::Admission| {
            let names = it.queues().map(|(name, _)| name.to_owned());
            names.collect::<Vec<_>>()
        };
        names.extend(self.shared.room.look(in_use));
        names.iter().filter_map(|name| self.get(name)).collect()
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<QueueState> {
        let known = self.shared.queues.known().get(name).cloned();
        let contents = self.shared.room.look(|it| it.contents(name));
        if known.is_none() && contents.is_none() {
            return None;
        }
        let contents = contents.unwrap_or_default();
        Some(match known {
            Some(queue) => QueueState {
                name: queue.name,
                settings: queue.settings,
                version: queue.version,
                set_at: Some((queue.created_at, queue.changed_at)),
                contents,
            },
            None => QueueState {
                name: name.to_owned(),
                settings: Settings::default(),
                version: 0,
                set_at: None,
                contents,
            },
        })
    }

    /// Sets a queue up, if it is still in the version that is expected, if any is; durable when this returns. `true`:
    /// nothing was set of it before. The same again changes nothing.
    ///
    /// # Errors
    /// If it has changed, or the store fails; nothing is set then.
    pub async fn set(
        &self,
        name: &str,
        settings: Settings,
        expected: Option<u64>,
    ) -> Result<(QueueState, bool), QueueError> {
        let (queues, name) = (self.clone(), name.to_owned());
        let setting = async move { queues.set_now(&name, settings, expected).await };
        self.shared.see_through(setting).await
    }

    async fn set_now(
        &self,
        name: &str,
        settings: Settings,
        expected: Option<u64>,
    ) -> Result<(QueueState, bool), QueueError> {
        let _turn = self.shared.queues.turn.acquire().await;
        let before = self.shared.queues.known().get(name).cloned();
        let version = before.as_ref().map_or(0, |it| it.version);
        if expected.is_some_and(|it| it != version) {
            return Err(QueueError::Changed);
        }
        let is_new = before.is_none();
        if before.as_ref().is_none_or(|it| it.settings != settings) {
            let now = clock::wall();
            let queue = Queue {
                name: name.to_owned(),
                settings: settings.clone(),
                version: version + 1,
                created_at: before.as_ref().map_or(now, |it| it.created_at),
                changed_at: now,
            };
            self.shared.store.queues().put(queue.clone()).await?;
            self.shared.queues.known().insert(name.to_owned(), queue);
            self.put_into_force(name, Some(settings)).await;
        }
        let state = self.get(name).ok_or(QueueError::NoSuchQueue)?;
        Ok((state, is_new))
    }

    /// Forgets what was set of a queue; `force` also if jobs wait or run in it.
    ///
    /// # Errors
    /// If there is no such queue, it is in use or has changed, or the store fails.
    pub async fn reset(
        &self,
        name: &str,
        force: bool,
        expected: Option<u64>,
    ) -> Result<(), QueueError> {
        let (queues, name) = (self.clone(), name.to_owned());
        let resetting = async move { queues.reset_now(&name, force, expected).await };
        self.shared.see_through(resetting).await
    }

    async fn reset_now(
        &self,
        name: &str,
        force: bool,
        expected: Option<u64>,
    ) -> Result<(), QueueError> {
        let _turn = self.shared.queues.turn.acquire().await;
        let present = self.get(name).ok_or(QueueError::NoSuchQueue)?;
        if expected.is_some_and(|it| it != present.version) {
            return Err(QueueError::Changed);
        }
        if !force && present.contents.running + present.contents.queued > 0 {
            return Err(QueueError::InUse);
        }
        let now = clock::wall();
        let queues = self.shared.store.queues();
        queues.delete(name.to_owned(), now).await?;
        self.shared.queues.known().remove(name);
        self.put_into_force(name, None).await;
        Ok(())
    }

    async fn put_into_force(&self, name: &str, settings: Option<Settings>) {
        let room = &self.shared.room;
        let before = room.look(|it| it.settings(name)).fair_by;
        let after = settings.as_ref().and_then(|it| it.fair_by.clone());
        room.set_queue(name, settings);
        if before != after {
            for id in room.look(|it| it.members(name)) {
                // One that cannot be read keeps its group until it starts.
                if let Ok(job) = self.shared.get(id).await {
                    let group = room.ticket_of(&job).group;
                    room.amend(id, |ticket| ticket.group = group);
                }
            }
        }
        self.shared.grant();
    }
}
