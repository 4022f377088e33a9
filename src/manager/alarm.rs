//! The one clock of the jobs that wait: it looks again when time opens a gate.

use std::sync::Arc;

use tokio::time::Instant;

use super::shared::Shared;
use super::time::{pause_until, until};
use linux::clock;

/// Starts the task that grants what time alone lets start, until the service ends.
pub(super) fn start(shared: &Arc<Shared>) {
    let mut shutdown = shared.shutdown.subscribe();
    let shared = shared.clone();
    let task = shared.clone();
    shared.spawn(async move {
        loop {
            let pause = pause_until(task.room.wake_at(), clock::wall());
            tokio::select! {
                _ = shutdown.changed() => return,
                () = task.room.changed.notified() => continue,
                () = until(Some(Instant::now() + pause)) => {}
            }
            let now = clock::wall();
            for waker in task.room.overdue(now) {
                task.spawn(task.clone().wake(waker));
            }
            task.grant();
        }
    });
}
