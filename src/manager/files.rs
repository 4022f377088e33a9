//! The files of jobs, as clients see them: listed, read, put and removed. Where they are is not known here.

mod archive;
mod seen;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::sys::stat::FileStat;

use super::api::{LookupError, RequestError, SubmitError};
use super::inputs::Part;
use super::runner::JobRequest;
use super::runner::workspace::prepare;
use super::shared::Shared;
use super::workspaces::changes::{self, Change};
use super::workspaces::{Draft, UnpackError};
pub use archive::Archive;
use job::amendment::Amendment;
use job::life::Refusal;
use job::time::Timestamp;
use job::workspace::{FileMode, InnerPath, Unpack};
use job::{Job, JobId, State};
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
    /// The node that has the job is not connected.
    #[error("the node that has the job is not connected")]
    NodeUnreachable,
    /// They cannot be used at this moment, for this reason.
    #[error("{0}")]
    Unavailable(String),
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
    shared: Arc<Shared>,
    id: JobId,
    owner: Owner,
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
        let part = tokio::task::spawn_blocking(move || Ok(Part(Draft::begin(&workspaces)?)));
        Ok(part.await.map_err(io::Error::other).flatten()?)
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
        are_here(&shared, &job)?;
        is_in(&shared, id)?;
        if !job.state.is_terminal() {
            make_workspace(&shared, &job).await?;
            note_upload(&shared, id).await?;
        }
        self.at(id, move |place| {
            if place.job.state.is_terminal() {
                return Err(FilesError::Finished);
            }
            let workspaces = &shared.workspaces;
            Ok(Upload {
                shared: shared.clone(),
                most: workspaces.left(id).min(shared.limits.max_upload_bytes),
                draft: Draft::begin(workspaces)?,
                id,
                owner: place.owner,
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
        let shared = &self.shared;
        let job = shared.get(id).await?;
        are_here(shared, &job)?;
        // Where nothing is, nothing changes.
        if !job.state.is_terminal() && shared.workspaces.of(id).is_ok() {
            note_upload(shared, id).await?;
        }
        let change = changes::begin(&shared.workspaces, id).ok_or(FilesError::Finished)?;
        self.at(id, move |place| {
            let _change = change;
            if place.job.state.is_terminal() {
                return Err(FilesError::Finished);
            }
            let directory = place.directory.as_ref().ok_or(FilesError::NotFound)?;
            Ok(beneath::remove_file(directory.as_fd(), path.as_str())?)
        })
        .await?;
        is_in(shared, id)
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
        are_here(&self.shared, &job)?;
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
        let (shared, id, owner) = (self.shared, self.id, self.owner);
        let (draft, most) = (self.draft, self.most);
        let unpacked = tokio::task::spawn_blocking(move || draft.unpack(form, owner, most));
        let aside = match unpacked.await.map_err(io::Error::other)? {
            Ok(aside) => aside,
            Err(UnpackError::Io(error)) => return Err(error.into()),
            Err(error) => return Err(FilesError::Archive(error)),
        };
        let path = self.path;
        change(&shared, id, move |directory| {
            aside.move_into((directory, path.as_str()), owner)
        })
        .await
    }

    /// Writes on.
    pub async fn write(mut self, bytes: Vec<u8>) -> Result<Self, FilesError> {
        let written = tokio::task::spawn_blocking(move || {
            self.draft.write(&bytes)?;
            Ok(self)
        });
        Ok(written.await.map_err(io::Error::other).flatten()?)
    }

    /// The file is complete, and there; `true`: nothing was before.
    pub async fn finish(self) -> Result<bool, FilesError> {
        let (draft, path, in_the_way) = (self.draft, self.path, self.in_the_way);
        let (owner, mode) = (self.owner, self.mode);
        // This may take long, and no end waits for it.
        let complete = tokio::task::spawn_blocking(move || {
            draft.complete((owner, mode))?;
            Ok(draft)
        });
        let draft = complete.await.map_err(io::Error::other).flatten()?;
        change(&self.shared, self.id, move |directory| {
            draft.put(directory, path.as_str(), owner, in_the_way)
        })
        .await
    }
}

/// Changes the workspace of a job that has not ended. Its end waits for that.
async fn change<R: Send + 'static>(
    shared: &Arc<Shared>,
    id: JobId,
    work: impl FnOnce(BorrowedFd<'_>) -> io::Result<R> + Send + 'static,
) -> Result<R, FilesError> {
    let change = begin_change(shared, id).await?;
    let workspaces = shared.workspaces.clone();
    let changed = tokio::task::spawn_blocking(move || {
        let _change = change;
        work(workspaces.of(id)?.as_fd())
    });
    let changed = changed.await.map_err(io::Error::other);
    is_in(shared, id)?;
    Ok(changed.flatten()?)
}

async fn begin_change(shared: &Shared, id: JobId) -> Result<Change, FilesError> {
    let change = changes::begin(&shared.workspaces, id).ok_or(FilesError::Finished)?;
    if shared.get(id).await?.state.is_terminal() {
        return Err(FilesError::Finished);
    }
    Ok(change)
}

/// Makes the workspace of a job that has none yet.
async fn make_workspace(shared: &Arc<Shared>, job: &Job) -> Result<(), FilesError> {
    let aside = match prepare(shared, job, BTreeMap::new()).await {
        Ok(Some(aside)) => aside,
        Ok(None) => return Ok(()),
        Err(SubmitError::Input { why, .. }) => return Err(why),
        Err(error) => return Err(FilesError::Io(io::Error::other(error))),
    };
    let id = job.id;
    // It may have ended meanwhile, and what it had may be gone.
    let change = begin_change(shared, id).await?;
    let made = tokio::task::spawn_blocking(move || {
        let _change = change;
        aside.become_workspace(id)
    });
    Ok(made.await.map_err(io::Error::other).flatten()?)
}

/// Are the files of the job on this machine, as far as it has not been given to another node?
fn are_here(shared: &Shared, job: &Job) -> Result<(), FilesError> {
    let Some(node) = shared.lacks_uploads(job).filter(|_| !shared.is_there(job)) else {
        return Ok(());
    };
    Err(FilesError::Unavailable(
        SubmitError::UploadsElsewhere(node).to_string(),
    ))
}

/// Before something is put into the workspace of a job that waits: makes durable where that is, if another one may be the
/// hub when the job starts.
async fn note_upload(shared: &Arc<Shared>, id: JobId) -> Result<(), FilesError> {
    let uploads = shared.uploads();
    loop {
        let job = shared.get(id).await?;
        if uploads.is_none() || job.state != State::Queued || job.uploads == uploads {
            return Ok(());
        }
        let amendment = Amendment {
            uploads: uploads.clone(),
            ..Amendment::none(&job)
        };
        let amended = shared.ask(id, |reply| {
            JobRequest::Amend(job.version, Box::new(amendment), reply)
        });
        match amended.await {
            // It has changed by itself: look again.
            Ok(_) | Err(RequestError::Changed) => {}
            Err(RequestError::Refused(Refusal::Finished)) => return Err(FilesError::Finished),
            Err(RequestError::Store(error)) => return Err(error.into()),
            Err(other) => return Err(FilesError::Unavailable(other.to_string())),
        }
    }
}

/// Is what has just been put here in what the job gets? Not if its directory has left for a node meanwhile.
fn is_in(shared: &Shared, id: JobId) -> Result<(), FilesError> {
    let has_gone = shared
        .room
        .any_state(id)
        .is_some_and(|job| shared.is_there(&job));
    match has_gone || shared.workspaces.handover.is_leaving(id) {
        true => Err(FilesError::Unavailable(
            "its files are on their way to its node: try again".to_owned(),
        )),
        false => Ok(()),
    }
}

fn tag(stat: &FileStat) -> String {
    let (seconds, nanos) = (stat.st_mtime, stat.st_mtime_nsec);
    format!(
        "\"{:x}-{seconds:x}.{nanos:x}-{:x}\"",
        stat.st_ino, stat.st_size
    )
}
