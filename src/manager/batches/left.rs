//! What the lost jobs of a batch have left running.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use crate::LookupError;
use crate::listing;
use crate::shared::Shared;
use job::batch;
use job::life::Stop;
use job::query::{Filter, Order, Query};
use job::{Job, JobId, State};
use store::StoreError;

/// How many of them are looked at at a time.
const AT_ONCE: usize = 64;

/// Begins to end it. Gives those jobs as they are then.
pub(super) async fn end(
    shared: &Arc<Shared>,
    id: JobId,
    stop: &Stop,
) -> Result<Vec<Arc<Job>>, StoreError> {
    let lost = Query {
        filter: Filter {
            batch: Some(id),
            states: vec![State::Lost],
            ..Filter::default()
        },
        order: Order::CreatedAscending,
        after: None,
        limit: batch::JOBS_MAX,
        is_brief: true,
    };
    let lost = stream::iter(listing::matching(shared, lost).await?);
    let mut ending = lost
        .map(|job| shared.end_left(job, stop))
        .buffer_unordered(AT_ONCE);
    let mut jobs = Vec::new();
    while let Some(job) = ending.next().await {
        match job {
            Ok(job) => jobs.push(job),
            // Somebody has removed it.
            Err(LookupError::NoSuchJob) => {}
            Err(LookupError::Store(error)) => return Err(error),
        }
    }
    Ok(jobs)
}

/// Is nothing left of these jobs, now or before `limit` has passed?
pub(super) async fn has_ended(shared: &Shared, jobs: Vec<Arc<Job>>, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    let looks = stream::iter(jobs).map(|job| async move {
        let limit = end.saturating_duration_since(Instant::now());
        shared.is_nothing_left(&job, limit).await
    });
    looks
        .buffer_unordered(AT_ONCE)
        .all(async |is_gone| is_gone)
        .await
}
