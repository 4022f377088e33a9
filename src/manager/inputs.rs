//! What is put into a workspace before the job starts, besides what stands in its spec: parts of a form, and files of
//! other jobs.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use super::files::Files;
use super::shared::Shared;
use super::workspaces::Draft;
use super::{FilesError, SubmitError};
use job::dependency::Awaited;
use job::workspace::{Content, InnerPath};
use job::{Job, JobId, NodeName, Spec};

/// A part of a form, on disk. Dropped, it is gone.
#[derive(Debug)]
pub struct Part(pub(super) Draft);

impl Part {
    /// Writes on.
    pub async fn write(mut self, bytes: Vec<u8>) -> Result<Self, FilesError> {
        let written = tokio::task::spawn_blocking(move || {
            self.0.write(&bytes)?;
            Ok(self)
        });
        written
            .await
            .unwrap_or_else(|error| Err(FilesError::Io(io::Error::other(error))))
    }
}

/// Copies a file of a job that another node has into a part: the answer of that node to whoever asks the hub for it.
#[derive(Clone)]
pub struct Fetch(pub FetchFile);

/// See [`Fetch`].
pub type FetchFile = Arc<
    dyn Fn(
            NodeName,
            JobId,
            InnerPath,
            Part,
        ) -> Pin<Box<dyn Future<Output = Result<Part, FilesError>> + Send>>
        + Send
        + Sync,
>;

impl fmt::Debug for Fetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fetch")
    }
}

/// The files that the inputs of a job name.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// The parts of the form, by their names.
    pub(super) parts: BTreeMap<String, Part>,
    /// Files of other jobs, by the places of the inputs.
    pub(super) files: BTreeMap<usize, File>,
    /// The same of jobs on other nodes, of which there are copies now.
    pub(super) copies: BTreeMap<usize, Part>,
}

/// Does the job wait for one whose files it takes? Then they are copied when it starts.
pub(super) fn are_awaited(job: &Job) -> bool {
    let awaited = |of| {
        let mut dependencies = job.depends_on.iter();
        dependencies.any(|it| matches!(&it.awaited, Awaited::Job { job } if *job == of))
    };
    let mut inputs = job.spec.inputs.iter();
    inputs.any(|input| matches!(&input.content, Content::From(from) if awaited(from.job)))
}

/// Opens the files of other jobs. What is wrong with one of them is told with its place.
pub(super) async fn open(
    shared: &Arc<Shared>,
    spec: &Spec,
    parts: BTreeMap<String, Part>,
) -> Result<Sources, SubmitError> {
    let mut sources = Sources {
        parts,
        ..Sources::default()
    };
    for (place, input) in spec.inputs.iter().enumerate() {
        let Content::From(from) = &input.content else {
            continue;
        };
        let wrong = |why| SubmitError::Input { place, why };
        let files = Files::of(shared.clone());
        let job = shared.get(from.job).await;
        let job = job.map_err(|error| wrong(error.into()))?;
        match job.claim.as_ref().filter(|_| shared.is_there(&job)) {
            None => {
                let opened = files.open(from.job, from.path.clone()).await;
                sources.files.insert(place, opened.map_err(wrong)?.file);
            }
            Some(_) if job.spec.workspace.is_none() => return Err(wrong(FilesError::NoWorkspace)),
            Some(claim) => {
                let part = files.part().await.map_err(wrong)?;
                let fetch = shared.nodes.as_ref().and_then(|nodes| nodes.fetch());
                let fetch = fetch.ok_or(wrong(FilesError::NodeUnreachable))?;
                let copy = fetch.0(claim.node.clone(), from.job, from.path.clone(), part).await;
                sources.copies.insert(place, copy.map_err(wrong)?);
            }
        }
    }
    Ok(sources)
}
