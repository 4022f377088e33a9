//! The files of jobs, as clients see them: listed, read, put and removed. Where they are is not known here.

mod archive;
mod seen;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::sys::stat::FileStat;

use super::api::{LookupError, SubmitError};
use super::inputs::Part;
use super::runner::workspace::provide;
use super::shared::Shared;
use super::workspaces::{Draft, UnpackError};
pub use archive::Archive;
use job::time::Timestamp;
use job::workspace::{FileMode, InnerPath, Unpack};
use job::{Job, JobId};
use linux::beneath::{self, InTheWay, Kind, Owner};
use seen::{Seen, Within};
use store::StoreError;

/// The files of all jobs.
#[derive(Clone, Debug)]
pub struct Files {
    shared: Arc<Shared>,
}

/// Why something was not done with a file.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// No job has this id.
    #[error("no such job")]
    NoSuchJob,
    /// The job has no directory of its own.
    #[error("the job has no workspace")]
    NoWorkspace,
    /// Nothing is there.
    #[error("no such file")]
    NotFound,
    /// Something is there that is no file of the job, or in the way of it.
    #[error("not a file of the job")]
    NotAFile,
    /// Something is there already.
    #[error("something is there already")]
    Exists,
    /// Nothing is put into the workspace of a job that has ended.
    #[error("the job has finished")]
    Finished,
    /// It is no archive that can be unpacked, or too large.
    #[error(transparent)]
    Archive(UnpackError),
    /// The disk is full.
    #[error("no room")]
    NoRoom,
    /// The disk fails.
    #[error("{0}")]
    Io(io::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<LookupError> for FilesError {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::NoSuchJob => Self::NoSuchJob,
            LookupError::Store(error) => Self::Store(error),
        }
    }
}

impl From<io::Error> for FilesError {
    fn from(error: io::Error) -> Self {
        use nix::libc::{
            EACCES, EDQUOT, EEXIST, EISDIR, ELOOP, ENOENT, ENOSPC, ENOTDIR, ENOTEMPTY, ENXIO,
            EPERM, EXDEV,
        };
        match error.raw_os_error() {
            Some(ENOENT) => Self::NotFound,
            Some(EEXIST) => Self::Exists,
            Some(ENOSPC | EDQUOT) => Self::NoRoom,
            Some(EACCES | EISDIR | ELOOP | ENOTDIR | ENOTEMPTY | ENXIO | EPERM | EXDEV) => {
                Self::NotAFile
            }
            _ => Self::Io(error),
        }
    }
}

/// What is listed.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// What is beneath this directory; without it, everything.
    pub beneath: Option<InnerPath>,
    /// So many levels.
    pub depth: Option<usize>,
    /// What comes after this path.
    pub after: Option<String>,
    /// So many entries at the most.
    pub limit: usize,
}

/// A file, directory or link of a job.
#[derive(Clone, Debug)]
pub struct FileEntry {
    /// Relative to the workspace.
    pub path: String,
    /// What it is.
    pub kind: Kind,
    /// The size of a file; else 0.
    pub bytes: u64,
    /// The permission bits.
    pub mode: u32,
    /// When it was changed last.
    pub modified_at: Timestamp,
    /// Is it an artifact, or will it be one if it is there at the end?
    pub is_artifact: bool,
}

/// A part of what is there.
#[derive(Debug, Default)]
pub struct Listing {
    /// In the order of their paths.
    pub files: Vec<FileEntry>,
    /// Not everything was looked at.
    pub truncated: bool,
    /// More comes after the last of them.
    pub more: bool,
}

/// A file that is open for reading.
#[derive(Debug)]
pub struct Opened {
    /// The file, at its beginning.
    pub file: File,
    /// Its size now.
    pub bytes: u64,
    /// What changes with its content.
    pub tag: String,
}

/// A file that is being put into a workspace. Nothing is seen of it before [`Upload::finish`].
#[derive(Debug)]
pub struct Upload {
    place: Place,
    draft: Draft,
    path: InnerPath,
    mode: FileMode,
    in_the_way: InTheWay,
    most: u64,
}

/// A job and its directory.
#[derive(Debug)]
struct Place {
    job: Arc<Job>,
    directory: Option<OwnedFd>,
    owner: Owner,
}

impl Files {
    pub(super) fn of(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// What is in the job's workspace. After its end, what is kept of it.
    pub async fn list(&self, id: JobId, wanted: Wanted) -> Result<Listing, FilesError> {
        let shared = self.shared.clone();
        self.at(id, move |place| {
            let Some(directory) = &place.directory else {
                return Ok(Listing::default());
            };
            let from = wanted.beneath.as_ref().map_or("", InnerPath::as_str);
            let limits = beneath::Limits {
                depth: wanted.depth.unwrap_or(usize::MAX),
                ..beneath::Limits::default()
            };
            let walk = beneath::walk(directory.as_fd(), from, limits);
            let mut walk = walk.after(wanted.after.as_deref());
            let seen = Seen::of(&place.job);
            let mut within = Within::of(&seen, directory.as_fd());
            let mut listing = Listing::default();
            for entry in &mut walk {
                let is_wanted = match entry.kind {
                    Kind::Directory => within.has_any(&entry.path),
                    Kind::File => {
                        seen.has(&entry.path)
                            && shared.workspaces.may_read(&entry.stat, place.owner)
                    }
                    Kind::Symlink => seen.has(&entry.path),
                };
                if !is_wanted {
                    continue;
                }
                if listing.files.len() >= wanted.limit {
                    listing.more = true;
                    break;
                }
                listing.files.push(seen.entry(entry));
            }
            listing.truncated = walk.is_truncated() || walk.error().is_some();
            Ok(listing)
        })
        .await
    }

    /// The largest file, or form with files, that is taken.
    #[must_use]
    pub fn max_upload_bytes(&self) -> u64 {
        self.shared.limits.max_upload_bytes
    }

    /// Begins a part of a form.
    pub async fn part(&self) -> Result<Part, FilesError> {
        let workspaces = self.shared.workspaces.clone();
        let part = tokio::task::spawn_blocking(move || Ok(Part(workspaces.draft()?)));
        part.await
            .unwrap_or_else(|error| Err(FilesError::Io(io::Error::other(error))))
    }

    /// Opens a file of the job.
    pub async fn open(&self, id: JobId, path: InnerPath) -> Result<Opened, FilesError> {
        let shared = self.shared.clone();
        self.at(id, move |place| {
            let directory = place.directory.as_ref().ok_or(FilesError::NotFound)?;
            if !Seen::of(&place.job).has(path.as_str()) {
                return Err(FilesError::NotFound);
            }
            let may = |stat: &FileStat| shared.workspaces.may_read(stat, place.owner);
            let (file, stat) = beneath::file(directory.as_fd(), path.as_str(), may)?;
            Ok(Opened {
                file,
                bytes: u64::try_from(stat.st_size).unwrap_or_default(),
                tag: tag(&stat),
            })
        })
        .await
    }

    /// Begins to put a file into the workspace of a job that has not ended. `is_new`: only if nothing is there.
    pub async fn upload(
        &self,
        id: JobId,
        path: InnerPath,
        mode: Option<FileMode>,
        is_new: bool,
    ) -> Result<Upload, FilesError> {
        let shared = self.shared.clone();
        if shared.workspaces.all_bytes() >= shared.limits.max_workspaces_bytes {
            return Err(FilesError::NoRoom);
        }
        let job = shared.get(id).await?;
        if !job.state.is_terminal() {
            let provided = provide(&shared, &job, BTreeMap::new()).await;
            if let Err(SubmitError::Input { why, .. }) = provided {
                return Err(why);
            }
            provided.map_err(|error| FilesError::Io(io::Error::other(error)))?;
        }
        self.at(id, move |place| {
            if place.job.state.is_terminal() {
                return Err(FilesError::Finished);
            }
            let workspaces = &shared.workspaces;
            Ok(Upload {
                most: workspaces.left(id).min(shared.limits.max_upload_bytes),
                draft: workspaces.draft()?,
                place,
                path,
                mode: mode.unwrap_or(FileMode::DEFAULT),
                in_the_way: if is_new {
                    InTheWay::Stays
                } else {
                    InTheWay::Goes
                },
            })
        })
        .await
    }

    /// Removes a file of a job that has not ended.
    pub async fn remove(&self, id: JobId, path: InnerPath) -> Result<(), FilesError> {
        self.at(id, move |place| {
            if place.job.state.is_terminal() {
                return Err(FilesError::Finished);
            }
            let directory = place.directory.as_ref().ok_or(FilesError::NotFound)?;
            Ok(beneath::remove_file(directory.as_fd(), path.as_str())?)
        })
        .await
    }

    /// Does something that may block with the directory of a job.
    async fn at<R: Send + 'static>(
        &self,
        id: JobId,
        work: impl FnOnce(Place) -> Result<R, FilesError> + Send + 'static,
    ) -> Result<R, FilesError> {
        let job = self.shared.get(id).await?;
        if job.spec.workspace.is_none() {
            return Err(FilesError::NoWorkspace);
        }
        let shared = self.shared.clone();
        let done = tokio::task::spawn_blocking(move || {
            let directory = match shared.workspaces.of(id) {
                Ok(directory) => Some(directory),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(error.into()),
            };
            work(Place {
                owner: shared.resolver.owner(&job.spec),
                job,
                directory,
            })
        });
        done.await
            .unwrap_or_else(|error| Err(FilesError::Io(io::Error::other(error))))
    }
}

impl Upload {
    /// The most bytes that are taken.
    #[must_use]
    pub fn most(&self) -> u64 {
        self.most
    }

    /// The file is complete, and what is in it comes into the directory of its path.
    pub async fn unpack(self, form: Unpack) -> Result<(), FilesError> {
        let unpacked = tokio::task::spawn_blocking(move || {
            let directory = self.place.directory.as_ref().ok_or(FilesError::NotFound)?;
            let to = (directory.as_fd(), &self.path);
            let unpacked = self.draft.unpack(form, to, self.place.owner, self.most);
            if let Err(UnpackError::Io(error)) = unpacked {
                return Err(error.into());
            }
            unpacked.map_err(FilesError::Archive)
        });
        unpacked
            .await
            .unwrap_or_else(|error| Err(FilesError::Io(io::Error::other(error))))
    }

    /// Writes on.
    pub async fn write(mut self, bytes: Vec<u8>) -> Result<Self, FilesError> {
        let written = tokio::task::spawn_blocking(move || {
            self.draft.write(&bytes)?;
            Ok(self)
        });
        written
            .await
            .unwrap_or_else(|error| Err(FilesError::Io(io::Error::other(error))))
    }

    /// The file is complete, and there; `true`: nothing was before.
    pub async fn finish(self) -> Result<bool, FilesError> {
        let put = tokio::task::spawn_blocking(move || {
            let Place {
                directory, owner, ..
            } = &self.place;
            let directory = directory.as_ref().ok_or(FilesError::NotFound)?;
            let is_new = self.draft.put(
                directory.as_fd(),
                self.path.as_str(),
                (*owner, self.mode),
                self.in_the_way,
            )?;
            Ok(is_new)
        });
        put.await
            .unwrap_or_else(|error| Err(FilesError::Io(io::Error::other(error))))
    }
}

fn tag(stat: &FileStat) -> String {
    let (seconds, nanos) = (stat.st_mtime, stat.st_mtime_nsec);
    format!(
        "\"{:x}-{seconds:x}.{nanos:x}-{:x}\"",
        stat.st_ino, stat.st_size
    )
}
