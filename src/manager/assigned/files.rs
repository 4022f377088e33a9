//! The files of a job come to this node before the job does.

use std::io;

use super::{Assigned, NotTaken};
use crate::submit::check;
use crate::workspaces::handover;
use crate::{FilesError, Part, UnpackError};
use job::{Job, JobId};

impl Assigned {
    /// Could this node take the job with its files? Gives what they are to be written to, as one archive; nothing if it has
    /// the job already.
    ///
    /// # Errors
    /// Why it does not take them.
    pub async fn expect_files(&self, job: &Job) -> Result<Option<Part>, NotTaken> {
        if self.make_room(job, || true).await? {
            return Ok(None);
        }
        check(self.shared(), &job.spec)
            .await
            .map_err(NotTaken::from)?;
        let limits = &self.shared().limits;
        if self.shared().workspaces.all_bytes() >= limits.max_workspaces_bytes {
            return Err(NotTaken::for_now(FilesError::NoRoom));
        }
        let part = self.manager.files().part().await;
        part.map(Some).map_err(NotTaken::for_now)
    }

    /// The archive is complete: what is in it is the workspace of a job that is about to be assigned.
    ///
    /// # Errors
    /// Why it is not taken.
    pub async fn take_files(&self, job: &Job, archive: Part) -> Result<(), NotTaken> {
        linux::failpoint::hit("files.fetched");
        let owner = self.shared().resolver.owner(&job.spec);
        let (workspaces, id) = (self.shared().workspaces.clone(), job.id);
        let received = tokio::task::spawn_blocking(move || {
            handover::receive(&workspaces, id, archive.0, owner)
        });
        match received.await.map_err(io::Error::other) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(UnpackError::Io(error))) | Err(error) => Err(NotTaken::for_now(error)),
            Ok(Err(why @ (UnpackError::Refused(_) | UnpackError::TooLarge(_)))) => Err(NotTaken {
                why: why.to_string(),
                is_final: true,
            }),
        }
    }

    /// The job does not come after all.
    pub async fn give_files_up(&self, id: JobId) {
        let workspaces = self.shared().workspaces.clone();
        let given_up = tokio::task::spawn_blocking(move || handover::give_up(&workspaces, id));
        let _ = given_up.await;
    }
}

impl NotTaken {
    pub(super) fn for_now(why: impl std::fmt::Display) -> Self {
        Self {
            why: why.to_string(),
            is_final: false,
        }
    }
}
