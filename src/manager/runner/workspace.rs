//! The directory that a job has for itself: there before the job is accepted or launched, and looked through before its end is
//! durable.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crate::shared::Shared;
use crate::workspaces::changes::{self, Ending};
use crate::workspaces::{Aside, ProvideError};
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
pub(super) async fn provide(
    shared: &Arc<Shared>,
    job: &Job,
    parts: BTreeMap<String, Part>,
) -> Result<(), SubmitError> {
    let Some(aside) = prepare(shared, job, parts).await? else {
        return Ok(());
    };
    let id = job.id;
    let provided = tokio::task::spawn_blocking(move || aside.become_workspace(id));
    let provided = provided.await.map_err(io::Error::other);
    provided.flatten().map_err(SubmitError::Workspace)
}

/// Makes the directory of a job that is to have one and has none yet. It is not the job's so far.
pub(crate) async fn prepare(
    shared: &Arc<Shared>,
    job: &Job,
    parts: BTreeMap<String, Part>,
) -> Result<Option<Aside>, SubmitError> {
    if job.spec.workspace.is_none() {
        return Ok(None);
    }
    // What may be in a directory of an earlier time would not be what was uploaded.
    if let Some(node) = shared.lacks_uploads(job) {
        return Err(SubmitError::UploadsElsewhere(node));
    }
    if shared.workspaces.of(job.id).is_ok() {
        return Ok(None);
    }
    if job.uploads.is_some() && parts.is_empty() {
        // It was there before anything could be uploaded.
        let why = "files that were uploaded for it are not there any more";
        return Err(SubmitError::Workspace(io::Error::other(why)));
    }
    let sources = inputs::open(shared, &job.spec, parts).await?;
    let (shared, id, spec) = (shared.clone(), job.id, job.spec.clone());
    let prepared = tokio::task::spawn_blocking(move || {
        let owner = shared.resolver.owner(&spec);
        let prepare = (&spec.inputs[..], sources);
        shared.workspaces.prepare(id, prepare, owner)
    });
    let prepared = prepared.await.map_err(io::Error::other);
    match prepared.map_err(ProvideError::Io).flatten() {
        Ok(aside) => Ok(aside),
        Err(ProvideError::Archive { place, why }) => Err(SubmitError::Archive { place, why }),
        Err(ProvideError::Io(error)) => Err(SubmitError::Workspace(error)),
    }
}

/// The job ends: what clients are changing in its directory is waited for, and no more of it begins. To be held until the end
/// can be seen.
pub(super) async fn end(shared: &Shared, job: &Job) -> Option<Ending> {
    job.spec.workspace.as_ref()?;
    Some(changes::end(&shared.workspaces, job.id).await)
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
