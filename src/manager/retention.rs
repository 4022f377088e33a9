//! Finished jobs whose time has come go: output, record and row.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::runner;
use super::shared::Shared;
use crate::clock::Timestamp;

/// How often expired jobs are looked for, and how many go at a time.
const PERIOD: Duration = Duration::from_secs(10);
const BATCH: usize = 500;

/// Starts the task that removes expired jobs until the service ends.
pub(super) fn start(shared: &Arc<Shared>) {
    let mut shutdown = shared.shutdown.subscribe();
    let removing = shared.clone();
    shared.spawn(async move {
        loop {
            while remove_expired(&removing).await == BATCH {}
            tokio::select! {
                _ = shutdown.changed() => return,
                () = runner::until(Some(Instant::now() + PERIOD)) => {}
            }
        }
    });
}

async fn remove_expired(shared: &Arc<Shared>) -> usize {
    let expired = match shared.store.expired(Timestamp::now(), BATCH).await {
        Ok(expired) => expired,
        Err(error) => {
            shared.store_failed(&error);
            return 0;
        }
    };
    let count = expired.len();
    if count > 0
        && let Err(error) = shared.purge(expired).await
    {
        tracing::error!(%error, "expired jobs could not be removed: {error}");
        return 0;
    }
    count
}
