//! Signs of life for the supervisor, which ends a server that gives none.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::shared::Shared;
use linux::failpoint;

/// Gives a sign every so often, until the service ends.
pub(super) fn start(shared: &Arc<Shared>, every: Duration) {
    let mut shutdown = shared.shutdown.subscribe();
    let supervisor = Arc::clone(shared);
    shared.spawn(async move {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = shutdown.changed() => return,
            }
            failpoint::hit("server.beating");
            // A supervisor that is gone is noticed elsewhere.
            let _ = supervisor.supervisor.alive().await;
        }
    });
}
