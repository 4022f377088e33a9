//! What servers that were killed have not tidied up: records and cgroups of jobs that are over.

use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use nix::dir::Dir;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::shared::Shared;
use job::JobId;
use protocol::record;

/// Looks at what is there now, when no job has been accepted yet, and removes behind the scenes what
/// belongs to no unfinished job.
pub(super) async fn remove(shared: &Arc<Shared>, unfinished: HashSet<JobId>) {
    let listing = shared.clone();
    let found = tokio::task::spawn_blocking(move || {
        if let Some(home) = &listing.cgroup {
            home.sweep(|job| job.parse().is_ok_and(|id| unfinished.contains(&id)));
        }
        directories(&listing)
            .into_iter()
            .filter(|id| !unfinished.contains(id))
            .collect::<Vec<JobId>>()
    });
    let Ok(found) = found.await else { return };
    let removing = shared.clone();
    shared.spawn(async move {
        for id in found {
            // A directory that no row leads to is nobody's here to remove.
            if let Ok(Some(job)) = removing.store.get(id).await
                && job.state.is_terminal()
            {
                removing.remove_record(id).await;
            }
            if removing.shutdown.borrow().is_some() {
                return;
            }
        }
    });
}

/// The jobs that have a directory.
pub(super) async fn all(shared: &Arc<Shared>) -> io::Result<HashSet<JobId>> {
    let listing = shared.clone();
    let found = tokio::task::spawn_blocking(move || names(&listing).into_iter().collect());
    found.await.map_err(io::Error::other)
}

/// The jobs' directories that hold nothing but a record, or a record as well.
fn directories(shared: &Shared) -> Vec<JobId> {
    let mut ids = names(shared);
    ids.retain(|id| record::is_untidy(shared.jobs.as_fd(), *id));
    ids
}

fn names(shared: &Shared) -> Vec<JobId> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let Ok(mut jobs) = Dir::openat(&shared.jobs, ".", flags, Mode::empty()) else {
        return Vec::new();
    };
    jobs.iter()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str().ok()?.parse().ok())
        .collect()
}
