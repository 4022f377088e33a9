//! What earlier servers have left: records and cgroups of jobs that are over, and directories kept for others.

use std::collections::HashSet;
use std::sync::Arc;

use super::job_dirs::Over;
use super::shared::Shared;
use job::JobId;

/// Looks at what is there now, when no job has been accepted yet, and removes behind the scenes what
/// belongs to no unfinished job.
pub(super) async fn remove(shared: &Arc<Shared>, unfinished: HashSet<JobId>) {
    let listing = shared.clone();
    let found = tokio::task::spawn_blocking(move || {
        if let Ok(home) = &listing.host.cgroup {
            home.sweep(|job| job.parse().is_ok_and(|id| unfinished.contains(&id)));
        }
        listing.job_dirs.remove_spares();
        let mut found = listing.job_dirs.untidy();
        found.retain(|id| !unfinished.contains(id));
        found
    });
    let Ok(found) = found.await else { return };
    let removing = shared.clone();
    shared.spawn(async move {
        for id in found {
            // A directory that no row leads to is nobody's here to remove.
            if let Ok(Some(job)) = removing.store.get(id).await
                && job.state.is_terminal()
            {
                let stored = removing.store.outputs().get(id).await;
                let over = Over::of(&job, false, matches!(stored, Ok(Some(_))));
                removing.job_dirs.tidy(over).await;
            }
            if removing.shutdown.has_begun() {
                return;
            }
        }
    });
}
