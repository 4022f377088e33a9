//! The order of what clients change in a workspace and of the end of its job: the end waits for a change that has begun, and finds
//! it; no change begins after that.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::Workspaces;
use job::JobId;

/// The jobs whose workspaces change now, or that end now.
#[derive(Debug, Default)]
pub(super) struct Changes {
    now: Mutex<HashMap<JobId, Now>>,
    one_less: Notify,
}

#[derive(Debug, Default)]
struct Now {
    /// How many changes have begun.
    changes: usize,
    ends: bool,
}

impl Changes {
    fn now(&self) -> MutexGuard<'_, HashMap<JobId, Now>> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what there is now of a job, of which nothing is kept if that is nothing.
    fn set(&self, id: JobId, change: impl FnOnce(&mut Now)) {
        let mut all = self.now();
        let now = all.entry(id).or_default();
        change(now);
        if now.changes == 0 && !now.ends {
            all.remove(&id);
        }
    }
}

/// A client changes a workspace for as long as this is held.
#[derive(Debug)]
pub(crate) struct Change {
    workspaces: Arc<Workspaces>,
    id: JobId,
}

/// A job ends for as long as this is held.
#[derive(Debug)]
pub(crate) struct Ending {
    workspaces: Arc<Workspaces>,
    id: JobId,
}

/// Begins a change, unless the job ends. Whether it has ended is to be seen after this.
pub(crate) fn begin(workspaces: &Arc<Workspaces>, id: JobId) -> Option<Change> {
    let mut all = workspaces.changes.now();
    let now = all.entry(id).or_default();
    if now.ends {
        return None;
    }
    now.changes += 1;
    Some(Change {
        workspaces: workspaces.clone(),
        id,
    })
}

/// Lets no change begin any more, and waits for those that have. To be held until the end can be seen.
pub(crate) async fn end(workspaces: &Arc<Workspaces>, id: JobId) -> Ending {
    let ending = Ending {
        workspaces: workspaces.clone(),
        id,
    };
    let changes = &workspaces.changes;
    changes.set(id, |now| now.ends = true);
    loop {
        // Before the look, so that none is missed.
        let one_less = changes.one_less.notified();
        let left = changes.now().get(&id).map_or(0, |now| now.changes);
        if left == 0 {
            return ending;
        }
        one_less.await;
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        let changes = &self.workspaces.changes;
        changes.set(self.id, |now| now.changes = now.changes.saturating_sub(1));
        changes.one_less.notify_waiters();
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let changes = &self.workspaces.changes;
        changes.set(self.id, |now| now.ends = false);
    }
}
