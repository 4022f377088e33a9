//! The directory that a job has for itself: there before the job is accepted or launched, and looked through before its end is
//! durable.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crate::shared::Shared;
use crate::workspaces::ProvideError;
use crate::{Part, SubmitError, inputs};
use job::Job;
use linux::failpoint;
use store::{Inserted, Insertion, StoreError};

/// Stores a new job, with its inputs in place.
pub(super) async fn insert(
    shared: &Arc<Shared>,
    job: &Job,
    (insertion, parts): (Result<Insertion, StoreError>, BTreeMap<String, Part>),
) -> Result<Inserted, SubmitError> {
    let insertion = insertion?;
    // What another job is still to make is copied when this one starts.
    if job.spec.inputs.is_empty() || (parts.is_empty() && inputs::are_awaited(job)) {
        return Ok(shared.store.insert_all(insertion).await?);
    }
    let inserted = match provide(shared, job, parts).await {
        Ok(()) => {
            failpoint::hit("workspace.provided");
            let inserted = shared.store.insert_all(insertion).await;
            inserted.map_err(SubmitError::Store)
        }
        Err(error) => Err(error),
    };
    if !matches!(inserted, Ok(Inserted::New)) {
        let (workspaces, id) = (shared.workspaces.clone(), job.id);
        // What stays belongs to no job, and the next server removes it.
        let _ = tokio::task::spawn_blocking(move || workspaces.remove(&[id])).await;
    }
    inserted
}

/// Sees to it that the job has its directory, if it is to have one.
pub(crate) async fn provide(
    shared: &Arc<Shared>,
    job: &Job,
    parts: BTreeMap<String, Part>,
) -> Result<(), SubmitError> {
    if job.spec.workspace.is_none() {
        return Ok(());
    }
    // What may be in a directory of an earlier time would not be what was uploaded.
    if let Some(node) = shared.lacks_uploads(job) {
        return Err(SubmitError::UploadsElsewhere(node));
    }
    if shared.workspaces.of(job.id).is_ok() {
        return Ok(());
    }
    if job.uploads.is_some() && parts.is_empty() {
        // It was there before anything could be uploaded.
        let why = "files that were uploaded for it are not there any more";
        return Err(SubmitError::Workspace(io::Error::other(why)));
    }
    let sources = inputs::open(shared, &job.spec, parts).await?;
    let (shared, id, spec) = (shared.clone(), job.id, job.spec.clone());
    let provided = tokio::task::spawn_blocking(move || {
        let owner = shared.resolver.owner(&spec);
        shared
            .workspaces
            .provide(id, (&spec.inputs, sources), owner)
    });
    let provided = provided.await.map_err(io::Error::other);
    match provided
        .map_err(ProvideError::Io)
        .and_then(|provided| provided)
    {
        Ok(()) => Ok(()),
        Err(ProvideError::Archive { place, why }) => Err(SubmitError::Archive { place, why }),
        Err(ProvideError::Io(error)) => Err(SubmitError::Workspace(error)),
    }
}

/// Looks for the artifacts of a job that has ended. However often: a server may be killed before the end is durable.
pub(super) async fn collect(shared: &Arc<Shared>, job: &mut Job) {
    if job.spec.workspace.is_none() {
        return;
    }
    failpoint::hit("artifacts.collecting");
    if shared.is_there(job) {
        // The node has looked; what is here are the files that it got.
        let (workspaces, id) = (shared.workspaces.clone(), job.id);
        let _ = tokio::task::spawn_blocking(move || workspaces.note_end(id)).await;
        return;
    }
    let (shared, ended) = (shared.clone(), job.clone());
    let collected = tokio::task::spawn_blocking(move || {
        shared.workspaces.note_end(ended.id);
        let owner = shared.resolver.owner(&ended.spec);
        shared.workspaces.collect(&ended, owner)
    });
    job.artifacts = collected.await.ok();
    failpoint::hit("artifacts.collected");
}
