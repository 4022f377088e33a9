//! The one clock of the jobs that wait: it looks again when time opens a gate.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::shared::Shared;
use super::time::until;
use linux::clock;

/// How long it sleeps at most: the wall clock may be set meanwhile.
const LONGEST: Duration = Duration::from_secs(60);

/// Starts the task that grants what time alone lets start, until the service ends.
pub(super) fn start(shared: &Arc<Shared>) {
    let mut shutdown = shared.shutdown.subscribe();
    let shared = shared.clone();
    let task = shared.clone();
    shared.spawn(async move {
        loop {
            let now = clock::wall();
            let pause = task.room.wake_at().map_or(LONGEST, |at| at.since(now));
            tokio::select! {
                _ = shutdown.changed() => return,
                () = task.room.changed.notified() => continue,
                () = until(Some(Instant::now() + pause.min(LONGEST))) => {}
            }
            let now = clock::wall();
            for waker in task.room.overdue(now) {
                task.spawn(task.clone().wake(waker));
            }
            task.grant();
        }
    });
}
