//! The directory that a job has for itself: there before it is accepted or launched, and looked through before its end is
//! durable.

use std::io;
use std::sync::Arc;

use super::Runner;
use crate::SubmitError;
use crate::shared::Shared;
use crate::submit::Planned;
use job::spec::Secrets;
use job::{Idempotency, Job};
use linux::failpoint;
use store::Inserted;

impl Runner {
    /// Stores a new job, with its inputs in place.
    pub(super) async fn insert(
        &self,
        secrets: &Secrets,
        idempotency: Option<Idempotency>,
        planned: Option<&Planned>,
    ) -> Result<Inserted, SubmitError> {
        if !self.job.spec.inputs.is_empty() {
            let provided = self.provide_workspace().await;
            provided.map_err(SubmitError::Workspace)?;
            failpoint::hit("workspace.provided");
        }
        let insertion = crate::submit::insertion(&self.job, secrets, idempotency, planned)?;
        Ok(self.shared.store.insert_all(insertion).await?)
    }

    /// Sees to it that the job has its directory, if it is to have one.
    pub(super) async fn provide_workspace(&self) -> io::Result<()> {
        provide(&self.shared, &self.job).await
    }

    /// Removes what was made for a job that is not accepted.
    pub(super) async fn remove_workspace(&self) {
        if self.job.spec.inputs.is_empty() {
            return;
        }
        let (workspaces, id) = (self.shared.workspaces.clone(), self.job.id);
        // What stays belongs to no job, and the next server removes it.
        let _ = tokio::task::spawn_blocking(move || workspaces.remove(&[id])).await;
    }

    /// Looks for the artifacts of a job that has ended. However often: a server may be killed before the end is durable.
    pub(super) async fn collect(&mut self) {
        if self.job.spec.workspace.is_none() {
            return;
        }
        failpoint::hit("artifacts.collecting");
        let (shared, job) = (self.shared.clone(), self.job.clone());
        let collected = tokio::task::spawn_blocking(move || {
            shared.workspaces.note_end(job.id);
            let owner = shared.resolver.owner(&job.spec);
            shared.workspaces.collect(&job, owner)
        });
        self.job.artifacts = collected.await.ok();
        failpoint::hit("artifacts.collected");
    }
}

async fn provide(shared: &Arc<Shared>, job: &Job) -> io::Result<()> {
    if job.spec.workspace.is_none() {
        return Ok(());
    }
    let (shared, id, spec) = (shared.clone(), job.id, job.spec.clone());
    let provided = tokio::task::spawn_blocking(move || {
        let owner = shared.resolver.owner(&spec);
        shared.workspaces.provide(id, &spec.inputs, owner)
    });
    provided.await.map_err(io::Error::other)?
}
