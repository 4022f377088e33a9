//! Records and output of jobs go for good: after a stop, in bulk, or as their time is up. Never those of a job that has not
//! ended.

use std::time::Duration;

use tokio::time::Instant;

use super::room::Awake;
use super::shared::Shared;
use super::time::until;
use super::{Manager, RequestError};
use job::life::Stop;
use job::{JobId, NodeName};
use linux::failpoint;
use store::StoreError;

/// How many jobs are removed at a time: a new job waits for what the store was asked for before it.
pub(super) const AT_ONCE: usize = 64;

/// How long a purge waits for the processes of a lost job at a time, and how long it rests if nobody ends them.
const SURVIVORS_PATIENCE: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Stops a job, waits for the end of all that it has started, and removes it. A server that leaves its jobs meanwhile leaves
/// this one as well: it ends as it was asked to, and stays.
pub(super) async fn stopped(manager: &Manager, id: JobId, stop: Stop) -> Result<(), RequestError> {
    let shared = &manager.shared;
    if shared.chains.is_wanted(id) {
        return Err(RequestError::DependedOn);
    }
    let job = manager.stop(id, stop.clone()).await?;
    if !job.state.is_terminal()
        && let Some(Awake { mut state, .. }) = shared.awake(id).await?
    {
        // Closed without an end where the job is left to its monitor.
        let _ = state.wait_for(|job| job.state.is_terminal()).await;
    }
    let mut job = shared.get(id).await?;
    if !job.state.is_terminal() {
        return Err(RequestError::MonitorGone);
    }
    let mut shutdown = shared.shutdown.subscribe();
    loop {
        // It may have been lost since it was stopped.
        job = shared.end_left(job, &stop).await?;
        if shared.is_nothing_left(&job, SURVIVORS_PATIENCE).await {
            break;
        }
        tokio::select! {
            _ = shutdown.wait_for(Option::is_some) => return Err(RequestError::MonitorGone),
            () = until(Some(Instant::now() + LOOK_AGAIN)) => {}
        }
    }
    match ended(shared, &[id]).await?.pop() {
        None => Ok(()),
        Some((_, why)) => Err(why),
    }
}

/// Removes jobs that have ended, a few at a time. Returns those that stay, and why.
pub(super) async fn ended(
    shared: &Shared,
    ids: &[JobId],
) -> Result<Vec<(JobId, RequestError)>, StoreError> {
    let mut stay = Vec::new();
    for some in ids.chunks(AT_ONCE) {
        let mut over = Vec::with_capacity(some.len());
        for id in some {
            match shared.store.unfinished_job(*id).await? {
                Some(_) => stay.push((*id, RequestError::MonitorGone)),
                None => over.push(*id),
            }
        }
        let going = {
            let _turn = shared.finished_amendments.acquire().await;
            shared.chains.begin_removal(over.clone())
        };
        over.retain(|id| !going.contains(id));
        stay.extend(over.into_iter().map(|id| (id, RequestError::DependedOn)));
        remove(shared, going).await?;
    }
    Ok(stay)
}

/// Removes what is on disk first, then the rows, so that nothing is left that no row leads to. Their removal has begun: nobody
/// depends on them or changes them from now on.
pub(super) async fn remove(shared: &Shared, ids: Vec<JobId>) -> Result<(), StoreError> {
    tokio::task::block_in_place(|| failpoint::hit("purge.removing"));
    // Their tasks are over, even if the last of them is still on its way out.
    for id in &ids {
        shared.room.forget(*id);
    }
    shared.job_dirs.remove(ids.clone()).await;
    shared.recent.forget(&ids);
    let (workspaces, removed) = (shared.workspaces.clone(), ids.clone());
    // What it could not remove it has told.
    let _ = tokio::task::spawn_blocking(move || workspaces.remove(&removed)).await;
    let there = there(shared, &ids).await;
    let deleted = shared.store.delete(ids.clone()).await;
    if let (Ok(()), Some(nodes)) = (&deleted, &shared.nodes) {
        nodes.forget_jobs(there);
    }
    shared.chains.removed(&ids);
    deleted
}

/// The nodes that have something of these jobs.
async fn there(shared: &Shared, ids: &[JobId]) -> Vec<(NodeName, JobId)> {
    let mut there = Vec::new();
    for id in ids.iter().filter(|_| shared.nodes.is_some()) {
        if let Ok(Some(job)) = shared.store.get(*id).await
            && shared.is_there(&job)
            && let Some(claim) = job.claim
        {
            there.push((claim.node, *id));
        }
    }
    there
}
