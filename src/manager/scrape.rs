//! What a scrape reads at its moment, as far as the manager knows it.

use std::sync::Arc;

use super::RequestError;
use super::listing::{self, count_of};
use super::metrics::{Present, PresentQueue};
use super::queues::Queues;
use super::schedules::Schedules;
use super::shared::Shared;
use job::State;
use job::query::Filter;

/// All of it.
pub(super) async fn present(shared: &Arc<Shared>) -> Result<Present, RequestError> {
    let info = shared.info();
    let (live, waiting) = listing::live(shared, &Filter::default()).await?;
    let unfinished = State::ALL.into_iter().filter(|state| !state.is_terminal());
    Ok(Present {
        jobs: unfinished
            .map(|state| (state.as_str(), number(count_of(state, &live, waiting))))
            .collect(),
        limits: [
            ("running", number(info.max_running)),
            ("queued", number(info.max_queued)),
        ],
        queues: queues(shared),
        blocked: number(live.iter().filter(|job| !job.survivors.is_empty()).count()),
        successes: successes(shared).await?,
        finished: shared.store.counts().finished,
        store_bytes: shared.store.bytes(),
        webhooks_pending: shared.store.deliveries().pending().await?,
        free_bytes: shared.job_dirs.free_bytes().unwrap_or_default(),
        draining: info.draining,
        restarts: u64::from(info.server_restarts),
        damaged_records: info.damaged_records,
        started_at: info.started_at,
        ..Present::default()
    })
}

fn queues(shared: &Arc<Shared>) -> Vec<PresentQueue> {
    let queues = Queues::of(shared.clone()).list();
    let present = queues.into_iter().map(|queue| PresentQueue {
        name: shared.metrics.queue(&queue.name, queue.version > 0),
        jobs: [
            ("running", number(queue.contents.running)),
            ("queued", number(queue.contents.queued)),
        ],
        limits: [
            ("running", queue.settings.max_running.map(u64::from)),
            ("queued", queue.settings.max_queued.map(u64::from)),
        ],
    });
    present.collect()
}

/// Of the schedules that have series of their own.
async fn successes(
    shared: &Arc<Shared>,
) -> Result<Vec<(Arc<str>, job::time::Timestamp)>, RequestError> {
    let schedules = Schedules::of(shared.clone()).list().await?;
    let successes = schedules.into_iter().filter_map(|schedule| {
        let name = shared.metrics.schedule(&schedule.record.name);
        let has_own = *name == *schedule.record.name;
        Some((name, schedule.last_success_at?)).filter(|_| has_own)
    });
    Ok(successes.collect())
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
