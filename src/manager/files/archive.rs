//! Many files of a job, to be read one by one.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::stat::FileStat;

use super::{FileEntry, Files, FilesError, Seen};
use crate::shared::Shared;
use crate::workspaces::Bundle;
use job::JobId;
use job::workspace::{InnerPath, Patterns};
use linux::beneath::{self, Kind, Owner};

/// Files of a job that are read one after the other.
#[derive(Debug)]
pub struct Archive {
    shared: Arc<Shared>,
    directory: Option<OwnedFd>,
    owner: Owner,
    within: Option<InnerPath>,
    seen: Seen,
    patterns: Option<Patterns>,
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
            Ok(Archive {
                shared,
                seen: Seen::of(&place.job),
                directory: place.directory,
                owner: place.owner,
                within,
                patterns,
            })
        })
        .await
    }

    /// All that is in the job's workspace, for the node that is about to get the job.
    pub async fn bundle(&self, id: JobId) -> Result<Bundle, FilesError> {
        let workspaces = self.shared.workspaces.clone();
        self.at(id, move |place| {
            Ok(Bundle {
                workspaces,
                directory: place.directory.ok_or(FilesError::NotFound)?,
                owner: place.owner,
            })
        })
        .await
    }
}

impl Archive {
    /// Gives each of them with its size, open for reading, in the order of their paths. What goes meanwhile is left out. As
    /// they are looked for one after the other, many take no more memory than a few. Blocks.
    ///
    /// # Errors
    /// What `take` returns; or if one cannot be read, or there are too many.
    pub fn each(
        &self,
        mut take: impl FnMut(FileEntry, File, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let Some(directory) = &self.directory else {
            return Ok(());
        };
        let from = self.within.as_ref().map_or("", InnerPath::as_str);
        // Whoever reads it may be slow.
        let limits = beneath::Limits {
            time: Duration::MAX,
            ..beneath::Limits::default()
        };
        let mut walk = beneath::walk(directory.as_fd(), from, limits);
        for entry in &mut walk {
            let patterns = self.patterns.as_ref();
            let is_wanted = entry.kind == Kind::File
                && self.seen.has(&entry.path)
                && patterns.is_none_or(|it| it.is_match(&entry.path));
            if is_wanted && let Some((file, bytes)) = self.open(directory, &entry.path)? {
                take(self.seen.entry(entry), file, bytes)?;
            }
        }
        match walk.is_truncated() {
            true => Err(io::Error::other("there are more files than are looked at")),
            false => Ok(()),
        }
    }

    /// Opens one of them, and says how large it is; nothing if it has gone, or is none any more.
    fn open(&self, directory: &OwnedFd, path: &str) -> io::Result<Option<(File, u64)>> {
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
