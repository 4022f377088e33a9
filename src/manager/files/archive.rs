//! Many files of a job, to be read one by one.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::sys::stat::FileStat;

use super::{FileEntry, Files, FilesError, Seen};
use crate::shared::Shared;
use job::JobId;
use job::workspace::{InnerPath, Patterns};
use linux::beneath::{self, Entry, Kind, Owner};

/// Files of a job that are read one after the other.
#[derive(Debug)]
pub struct Archive {
    shared: Arc<Shared>,
    directory: Option<OwnedFd>,
    owner: Owner,
    files: Vec<FileEntry>,
}

impl Files {
    /// The files of the job that are seen, beneath this directory and of these patterns, to be read one by one.
    pub async fn archive(
        &self,
        id: JobId,
        within: Option<InnerPath>,
        patterns: Option<Patterns>,
    ) -> Result<Archive, FilesError> {
        let shared = self.shared.clone();
        self.at(id, move |place| {
            let mut files = Vec::new();
            if let Some(directory) = &place.directory {
                let from = within.as_ref().map_or("", InnerPath::as_str);
                let walked = beneath::walk(directory.as_fd(), from, beneath::Limits::default());
                let seen = Seen::of(&place.job);
                let is_wanted = |entry: &Entry| {
                    entry.kind == Kind::File
                        && seen.has(&entry.path)
                        && patterns.as_ref().is_none_or(|it| it.is_match(&entry.path))
                };
                let wanted = walked.entries.into_iter().filter(is_wanted);
                files.extend(wanted.map(|entry| seen.entry(entry)));
            }
            Ok(Archive {
                shared,
                directory: place.directory,
                owner: place.owner,
                files,
            })
        })
        .await
    }
}

impl Archive {
    /// All of them, in the order of their paths.
    #[must_use]
    pub fn files(&self) -> &[FileEntry] {
        &self.files
    }

    /// Opens one of them, and says how large it is; nothing if it has gone, or is none any more. Blocks.
    pub fn open(&self, path: &str) -> io::Result<Option<(File, u64)>> {
        let Some(directory) = &self.directory else {
            return Ok(None);
        };
        let may = |stat: &FileStat| self.shared.workspaces.may_read(stat, self.owner);
        match beneath::file(directory.as_fd(), path, may).map_err(FilesError::from) {
            Ok((file, stat)) => {
                let bytes = u64::try_from(stat.st_size).unwrap_or_default();
                Ok(Some((file, bytes)))
            }
            Err(FilesError::NotFound | FilesError::NotAFile) => Ok(None),
            Err(FilesError::Io(error)) => Err(error),
            Err(error) => Err(io::Error::other(error)),
        }
    }
}
