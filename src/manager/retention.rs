//! Finished jobs go when their time has come, or when there are too many: output, record and row.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::shared::Shared;
use super::time::until;
use super::{batches, purge};
use job::JobId;
use linux::clock;

/// How often they are looked for.
const PERIOD: Duration = Duration::from_secs(5);

/// Starts the task that removes finished jobs until the service ends.
pub(super) fn start(shared: &Arc<Shared>) {
    let mut shutdown = shared.shutdown.subscribe();
    let removing = shared.clone();
    shared.spawn(async move {
        loop {
            while remove_some(&removing).await == purge::AT_ONCE {}
            batches::remove_expired(&removing).await;
            removing.job_dirs.tidy_again().await;
            tokio::select! {
                _ = shutdown.changed() => return,
                () = until(Some(Instant::now() + PERIOD)) => {}
            }
        }
    });
}

/// Removes as many as go at a time; how many that were.
async fn remove_some(shared: &Arc<Shared>) -> usize {
    let doomed = {
        // From here on nobody keeps one of them for longer.
        let _turn = shared.finished_amendments.acquire().await;
        let mut doomed = choose(shared).await;
        doomed.truncate(purge::AT_ONCE);
        shared.chains.begin_removal(doomed)
    };
    let count = doomed.len();
    if count > 0
        && let Err(error) = purge::remove(shared, doomed).await
    {
        tracing::error!(%error, "finished jobs could not be removed: {error}");
        return 0;
    }
    count
}

/// Those that are to go now.
async fn choose(shared: &Shared) -> Vec<JobId> {
    // Those that unfinished jobs depend on stay, and must not stand in the way of others.
    let limit = purge::AT_ONCE + shared.chains.wanted();
    let expired = shared.store.expired(clock::wall(), limit).await;
    let surplus = shared
        .store
        .oldest_finished_beyond(shared.limits.max_finished, limit)
        .await;
    let mut doomed = HashSet::new();
    for found in [expired, surplus] {
        match found {
            Ok(found) => doomed.extend(found),
            Err(error) => shared.store_failed(&error),
        }
    }
    doomed.retain(|id| !shared.chains.is_wanted(*id));
    doomed.into_iter().collect()
}
