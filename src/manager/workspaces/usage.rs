//! How much is in the workspaces: a job that puts too much into its own is stopped, and nothing new comes if all are full.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Workspaces;
use crate::runner::JobRequest;
use crate::shared::Shared;
use crate::time::until;
use job::JobId;
use job::life::Stop;
use job::outcome::Cause;
use linux::beneath;

/// The pause between two rounds is so many times what the last one took, between these bounds.
const PATIENCE: u32 = 20;
const LEAST: Duration = Duration::from_secs(2);
const MOST: Duration = Duration::from_secs(30);

/// Looks at them from now on.
pub(crate) fn start(shared: &Arc<Shared>) {
    let shared = shared.clone();
    let mut shutdown = shared.shutdown.subscribe();
    let looking = shared.clone();
    shared.spawn(async move {
        let rounds = async {
            loop {
                let began = Instant::now();
                round(&looking).await;
                let pause = (began.elapsed() * PATIENCE).clamp(LEAST, MOST);
                until(Some(tokio::time::Instant::now() + pause)).await;
            }
        };
        tokio::select! {
            () = rounds => {}
            _ = shutdown.wait_for(Option::is_some) => {}
        }
    });
}

async fn round(shared: &Arc<Shared>) {
    let most = shared.limits.max_workspace_bytes;
    for id in shared.room.running_with_workspace() {
        let (workspaces, of) = (shared.workspaces.clone(), id);
        let used = tokio::task::spawn_blocking(move || workspaces.used(of)).await;
        let used = used.unwrap_or_default();
        if used > most {
            stop(shared, id, used, most).await;
        }
    }
    if shared.limits.max_workspaces_bytes < u64::MAX {
        let workspaces = shared.workspaces.clone();
        let _ = tokio::task::spawn_blocking(move || workspaces.count_all()).await;
    }
}

async fn stop(shared: &Arc<Shared>, id: JobId, used: u64, most: u64) {
    let stop = Stop {
        reason: Some(format!(
            "{used} bytes are in its workspace, of {most} at most"
        )),
        ..Stop::for_cause(Cause::WorkspaceLimit)
    };
    let asked = shared.ask(id, |reply| JobRequest::Stop(stop, reply)).await;
    if let Err(error) = asked {
        tracing::debug!(job.id = %id, %error, "job {id} was not stopped at its limit: {error}");
    }
}

impl Workspaces {
    /// What a job's own directory takes on disk; 0 if it has none. Blocks.
    pub(crate) fn used(&self, id: JobId) -> u64 {
        let Ok(directory) = self.of(id) else { return 0 };
        sum(directory.as_fd())
    }

    /// Counts what all of them take. Blocks.
    fn count_all(&self) {
        self.all_bytes
            .store(sum(self.root.as_fd()), Ordering::Relaxed);
    }

    /// What all of them took when it was counted last; 0 if nobody counts.
    pub(crate) fn all_bytes(&self) -> u64 {
        self.all_bytes.load(Ordering::Relaxed)
    }
}

fn sum(directory: std::os::fd::BorrowedFd<'_>) -> u64 {
    // A file with holes takes what is between them, and one that is short a block.
    beneath::walk(directory, "", beneath::Limits::default())
        .map(|entry| entry.disk_bytes)
        .sum()
}
