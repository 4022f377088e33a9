//! What is put into a workspace before the job starts, besides what stands in its spec: parts of a form, and files of
//! other jobs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::Arc;

use super::files::Files;
use super::shared::Shared;
use super::workspaces::Draft;
use super::{FilesError, SubmitError};
use job::Job;
use job::Spec;
use job::dependency::Awaited;
use job::workspace::Content;

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

/// The files that the inputs of a job name.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// The parts of the form, by their names.
    pub(super) parts: BTreeMap<String, Part>,
    /// Files of other jobs, by the places of the inputs.
    pub(super) files: BTreeMap<usize, File>,
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
        let files = Files::of(shared.clone());
        let opened = files.open(from.job, from.path.clone()).await;
        let opened = opened.map_err(|why| SubmitError::Input { place, why })?;
        sources.files.insert(place, opened.file);
    }
    Ok(sources)
}
