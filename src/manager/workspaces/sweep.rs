//! Removes behind the scenes what no job keeps any more: parts of workspaces, those of jobs that are gone, and trash.

use std::sync::Arc;

use job::{Job, JobId};

use super::handover;
use crate::shared::Shared;

/// How many entries are removed at a time.
const BATCH: usize = 1000;

/// Starts the task that does so until the service ends. What is there now, when no job has been accepted yet, belongs to a
/// job that has a row, or to nobody.
pub(crate) async fn start(shared: &Arc<Shared>) {
    let workspaces = shared.workspaces.clone();
    let found = tokio::task::spawn_blocking(move || handover::all(&workspaces));
    let found = found.await.unwrap_or_default();
    let sweeping = shared.clone();
    let mut shutdown = shared.shutdown.subscribe();
    shared.spawn(async move {
        remove_strangers(&sweeping, found).await;
        loop {
            tidy_ended(&sweeping).await;
            empty_trash(&sweeping).await;
            tokio::select! {
                _ = shutdown.wait_for(Option::is_some) => return,
                () = sweeping.workspaces.untidy.notified() => {}
            }
        }
    });
}

/// Those without a row.
async fn remove_strangers(shared: &Arc<Shared>, found: Vec<JobId>) {
    let mut strangers = Vec::new();
    for id in found {
        if shared.shutdown.has_begun() {
            return;
        }
        if let Ok(None) = shared.store.get(id).await {
            strangers.push(id);
        }
    }
    let workspaces = shared.workspaces.clone();
    let removed = tokio::task::spawn_blocking(move || {
        handover::remove_strangers(&workspaces, &strangers);
    });
    let _ = removed.await;
}

async fn tidy_ended(shared: &Arc<Shared>) {
    let workspaces = shared.workspaces.clone();
    let noted = tokio::task::spawn_blocking(move || {
        let names = super::names(std::os::fd::AsFd::as_fd(&workspaces.ending));
        names.unwrap_or_default()
    });
    for id in noted.await.unwrap_or_default() {
        let Ok(id) = id.parse::<JobId>() else {
            continue;
        };
        if shared.shutdown.has_begun() {
            return;
        }
        match shared.store.get(id).await {
            Ok(Some(job)) if job.state.is_terminal() => tidy(shared, job).await,
            // It will be noted once more.
            Ok(Some(_)) => {}
            Ok(None) => {
                let workspaces = shared.workspaces.clone();
                let removed = tokio::task::spawn_blocking(move || workspaces.remove(&[id]));
                let _ = removed.await;
            }
            Err(error) => shared.store_failed(&error),
        }
    }
}

async fn tidy(shared: &Arc<Shared>, job: Job) {
    let workspaces = shared.workspaces.clone();
    let id = job.id;
    // What has ended on another node has its files there.
    let is_there = shared.is_there(&job);
    let tidied = tokio::task::spawn_blocking(move || match is_there {
        true => {
            workspaces.remove(&[id]);
            Ok(())
        }
        false => workspaces.tidy(&job),
    });
    if let Ok(Err(error)) = tidied.await {
        tracing::warn!(job.id = %id, %error, "the workspace of job {id} could not be tidied up: {error}");
    }
}

async fn empty_trash(shared: &Arc<Shared>) {
    while !shared.shutdown.has_begun() {
        let workspaces = shared.workspaces.clone();
        let cleared = tokio::task::spawn_blocking(move || {
            linux::beneath::clear(std::os::fd::AsFd::as_fd(&workspaces.trash), BATCH)
        });
        match cleared.await {
            Ok(Ok(false)) => {}
            Ok(Ok(true)) | Err(_) => return,
            Ok(Err(error)) => {
                tracing::warn!(%error, "removed workspaces could not be cleared away: {error}");
                return;
            }
        }
    }
}
