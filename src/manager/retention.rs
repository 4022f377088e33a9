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

/// How often they are looked for, and how many go at a time.
const PERIOD: Duration = Duration::from_secs(5);
const BATCH: usize = 500;

/// Starts the task that removes finished jobs until the service ends.
pub(super) fn start(shared: &Arc<Shared>) {
    let mut shutdown = shared.shutdown.subscribe();
    let removing = shared.clone();
    shared.spawn(async move {
        loop {
            while remove_batch(&removing).await == BATCH {}
            batches::remove_expired(&removing).await;
            removing.job_dirs.tidy_again().await;
            tokio::select! {
                _ = shutdown.changed() => return,
                () = until(Some(Instant::now() + PERIOD)) => {}
            }
        }
    });
}

async fn remove_batch(shared: &Arc<Shared>) -> usize {
    let mut doomed = HashSet::new();
    // Those that unfinished jobs depend on stay, and must not stand in the way of others.
    let limit = BATCH + shared.chains.wanted();
    let expired = shared.store.expired(clock::wall(), limit).await;
    let surplus = shared
        .store
        .oldest_finished_beyond(shared.limits.max_finished, limit)
        .await;
    for found in [expired, surplus] {
        match found {
            Ok(found) => doomed.extend(found),
            Err(error) => shared.store_failed(&error),
        }
    }
    doomed.retain(|id| !shared.chains.is_wanted(*id));
    let doomed: Vec<JobId> = doomed.into_iter().take(BATCH).collect();
    let count = doomed.len();
    if count > 0
        && let Err(error) = purge::ended(shared, &doomed).await
    {
        tracing::error!(%error, "finished jobs could not be removed: {error}");
        return 0;
    }
    count
}
