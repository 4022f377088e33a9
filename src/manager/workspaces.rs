//! The directories that jobs have for themselves, on disk: made, filled, looked at, and removed.
//!
//! A job may change its own at any moment, so that all goes through `linux::beneath`. What of it clients may see is
//! decided in `job::workspace`; whose turn it is to remove something, in `workspaces/sweep`.

pub(super) mod changes;
mod drafts;
pub(super) mod handover;
pub(super) mod sweep;
mod unpack;
pub(super) mod usage;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, renameat};
use nix::sys::stat::{FileStat, Mode, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, geteuid, syncfs, unlinkat};
use tokio::sync::Notify;

use super::inputs::Sources;
use changes::Changes;
pub(super) use drafts::{Aside, Draft};
use handover::Handover;
pub use handover::{Bundle, Parcel};
use job::workspace::{self, Artifacts, Content, FileMode, Input, Kept, Tally};
use job::{Job, JobId};
use linux::beneath::{self, InTheWay, Kind, Owner};
use linux::failpoint;
pub use unpack::UnpackError;

/// What is not complete yet.
const INCOMING: &str = ".incoming";
/// What is to be removed.
const TRASH: &str = ".trash";
/// A file for each job of whose workspace a part is still to be removed.
const ENDING: &str = ".ending";

/// The directory of the jobs' own directories.
#[derive(Debug)]
pub(super) struct Workspaces {
    root: OwnedFd,
    incoming: OwnedFd,
    trash: OwnedFd,
    ending: OwnedFd,
    /// Files of which clients get nothing, whatever names a job gives them.
    state_dir: OwnedFd,
    next: AtomicU64,
    /// The most that may be in one.
    most: u64,
    /// What was in all of them when it was counted last.
    all_bytes: AtomicU64,
    /// There is something to remove.
    untidy: Notify,
    /// Those that go to other nodes or have come from a hub.
    pub(super) handover: Handover,
    /// Those that clients change at this moment, and those of jobs that end.
    changes: Changes,
}

impl Workspaces {
    /// Opens the directory, or makes it. What was not complete when the last server ended is trash.
    pub(super) fn open(path: &Path, state_dir: &Path, most: u64) -> io::Result<Self> {
        // Jobs of other users pass through it, where they can get to it.
        let is_passed = geteuid().is_root() && !path.starts_with(state_dir);
        let mode = if is_passed { 0o711 } else { 0o700 };
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        match nix::unistd::mkdir(path, Mode::from_bits_truncate(mode)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        let root = open(path, flags | OFlag::O_NOFOLLOW, Mode::empty())?;
        let within = |name: &str| {
            match mkdirat(&root, name, Mode::from_bits_truncate(0o700)) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
            beneath::directory(root.as_fd(), name)
        };
        let workspaces = Self {
            incoming: within(INCOMING)?,
            trash: within(TRASH)?,
            ending: within(ENDING)?,
            root,
            state_dir: open(state_dir, flags, Mode::empty())?,
            next: AtomicU64::new(0),
            most,
            all_bytes: AtomicU64::new(0),
            untidy: Notify::new(),
            handover: Handover::default(),
            changes: Changes::default(),
        };
        for name in names(workspaces.incoming.as_fd())? {
            workspaces.discard(workspaces.incoming.as_fd(), &name)?;
        }
        Ok(workspaces)
    }

    /// A job's own directory; `NotFound` as long as there is none.
    pub(super) fn of(&self, id: JobId) -> io::Result<OwnedFd> {
        beneath::directory(self.root.as_fd(), &id.to_string())
    }

    /// Makes what is to become a job's directory with its inputs, unless it has one. Blocks.
    pub(super) fn prepare(
        self: &Arc<Self>,
        id: JobId,
        (inputs, sources): (&[Input], Sources),
        owner: Owner,
    ) -> Result<Option<Aside>, ProvideError> {
        match self.of(id) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            found => return Ok(found.map(|_| None)?),
        }
        let aside = Aside::begin(self)?;
        failpoint::hit("workspace.filling");
        self.fill(&aside, (inputs, sources), owner)?;
        failpoint::hit("workspace.filled");
        Ok(Some(aside))
    }

    fn fill(
        self: &Arc<Self>,
        aside: &Aside,
        (inputs, mut sources): (&[Input], Sources),
        owner: Owner,
    ) -> Result<(), ProvideError> {
        let directory = aside.open()?;
        let mut left = self.most;
        for (place, input) in inputs.iter().enumerate() {
            let draft = match sources.copies.remove(&place) {
                Some(copy) => copy.0,
                None => {
                    let other = sources.files.remove(&place);
                    self.drafted(&input.content, other, &mut sources)?
                }
            };
            let length = draft.file.metadata()?.len();
            if length > left {
                let why = UnpackError::TooLarge(self.most);
                return Err(ProvideError::Archive { place, why });
            }
            left -= match input.unpack {
                Some(form) => {
                    let into = (directory.as_fd(), Some(&input.path));
                    let archive = beneath::reopen(&draft.file)?;
                    let unpacked = unpack::unpack(archive, form, into, owner, left);
                    unpacked.map_err(|why| ProvideError::Archive { place, why })?
                }
                None => {
                    let mode = input.mode.unwrap_or(FileMode::DEFAULT);
                    let to = input.path.as_str();
                    draft.complete((owner, mode))?;
                    draft.put(directory.as_fd(), to, owner, InTheWay::Stays)?;
                    length
                }
            };
        }
        beneath::give(&directory, owner, 0o700)?;
        if inputs.iter().any(|input| input.unpack.is_some()) {
            // One call instead of one for each file.
            syncfs(&directory).map_err(io::Error::from)?;
        }
        Ok(beneath::sync(&directory)?)
    }

    /// What is in an input, as a file that is to be moved.
    fn drafted(
        self: &Arc<Self>,
        content: &Content,
        other: Option<File>,
        sources: &mut Sources,
    ) -> io::Result<Draft> {
        let gone = |what: &str| io::Error::other(format!("{what} is not there any more"));
        if let Content::Part(name) = content {
            let part = sources.parts.remove(name);
            return part
                .map(|part| part.0)
                .ok_or_else(|| gone("a part of the form"));
        }
        let mut draft = Draft::begin(self)?;
        match content {
            Content::Text(text) => draft.write(text.as_bytes())?,
            Content::Base64(text) => {
                let decoded = BASE64_STANDARD.decode(text).map_err(io::Error::other)?;
                draft.write(&decoded)?;
            }
            Content::From(_) => {
                let mut other = other.ok_or_else(|| gone("a file of another job"))?;
                io::copy(&mut other, &mut draft.file)?;
            }
            Content::Part(_) => {}
        }
        Ok(draft)
    }

    /// What may still come into the workspace of a job. Blocks.
    pub(super) fn left(&self, id: JobId) -> u64 {
        self.most.saturating_sub(self.used(id))
    }

    /// May clients read this file of a job of this owner? A second name may be that of a file which is none of the job's.
    pub(super) fn may_read(&self, stat: &FileStat, owner: Owner) -> bool {
        let owner = owner.map_or_else(|| geteuid().as_raw(), |(uid, _)| uid);
        stat.st_nlink <= 1 || (stat.st_uid == owner && !self.is_of_service(stat))
    }

    fn is_of_service(&self, stat: &FileStat) -> bool {
        let Ok(names) = names(self.state_dir.as_fd()) else {
            return true;
        };
        let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
        let mut found = names
            .iter()
            .filter_map(|name| fstatat(&self.state_dir, name.as_str(), flags).ok());
        found.any(|it| (it.st_dev, it.st_ino) == (stat.st_dev, stat.st_ino))
    }

    /// What there is of a job's artifacts when it has ended. Before its end is durable, and each time the same. Blocks.
    pub(super) fn collect(&self, job: &Job, owner: Owner) -> Artifacts {
        let patterns = workspace::artifacts_of(&job.spec, job.state);
        let (Some(rules), Some(patterns)) = (&job.spec.artifacts, patterns) else {
            return Artifacts::default();
        };
        let mut tally = Tally::new(rules, &patterns);
        let directory = match self.of(job.id) {
            Ok(directory) => directory,
            // It was never made, since the job never started.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return tally.finish(),
            Err(error) => {
                let error = Some(format!("the workspace: {error}"));
                return Artifacts {
                    error,
                    ..tally.finish()
                };
            }
        };
        let mut walk = beneath::walk(directory.as_fd(), "", beneath::Limits::default());
        for entry in &mut walk {
            if entry.kind == Kind::File && self.may_read(&entry.stat, owner) {
                tally.add(&entry.path, entry.bytes);
            }
        }
        let mut artifacts = tally.finish();
        artifacts.truncated |= walk.is_truncated();
        artifacts.error = walk.error().map(str::to_owned);
        artifacts
    }

    /// Notes that what is not kept of the workspace has to go, before the end is durable. Blocks.
    pub(super) fn note_end(&self, id: JobId) {
        let noted = beneath::new_file(self.ending.as_fd(), &id.to_string());
        if let Err(error) = noted
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            tracing::warn!(job.id = %id, %error, "the end of the workspace of job {id} could not be noted: {error}");
        }
    }

    /// There is something to remove.
    pub(super) fn is_untidy(&self) {
        self.untidy.notify_one();
    }

    /// Removes what is not kept of the workspace of a job that has ended. Blocks.
    fn tidy(&self, job: &Job) -> io::Result<()> {
        let kept = if job.artifacts.as_ref().is_some_and(|it| it.truncated) {
            Kept::Everything
        } else {
            Kept::of(&job.spec, job.state)
        };
        match kept {
            Kept::Everything => {}
            Kept::Nothing => self.discard(self.root.as_fd(), &job.id.to_string())?,
            Kept::Matching(patterns) => {
                if let Ok(directory) = self.of(job.id) {
                    prune(directory.as_fd(), |path| patterns.is_match(path))?;
                }
            }
        }
        self.end_is_done(job.id)
    }

    fn end_is_done(&self, id: JobId) -> io::Result<()> {
        match unlinkat(
            &self.ending,
            id.to_string().as_str(),
            UnlinkatFlags::NoRemoveDir,
        ) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Removes what these jobs have, behind the scenes. Blocks.
    pub(super) fn remove(&self, ids: &[JobId]) {
        for id in ids {
            let removed = self.discard(self.root.as_fd(), &id.to_string());
            if let Err(error) = removed.and_then(|()| self.end_is_done(*id)) {
                tracing::warn!(job.id = %id, %error, "the workspace of job {id} could not be removed: {error}");
            }
        }
        self.is_untidy();
    }

    /// Moves something to the trash, if it is there.
    fn discard(&self, from: BorrowedFd<'_>, name: &str) -> io::Result<()> {
        let trashed = self.fresh_name();
        match renameat(from, name, &self.trash, trashed.as_str()) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// A name that nothing in the trash, and nothing that is incoming, has.
    fn fresh_name(&self) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let now = linux::clock::wall().as_micros();
        format!("{now}-{}-{number}", std::process::id())
    }
}

/// Why a job's directory was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProvideError {
    /// This input is too large, or is no archive that can be unpacked.
    #[error("{why}")]
    Archive { place: usize, why: UnpackError },
    /// The disk.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Removes all files but these, and directories that are empty then.
fn prune(directory: BorrowedFd<'_>, is_kept: impl Fn(&str) -> bool) -> io::Result<()> {
    let walk = beneath::walk(directory, "", beneath::Limits::default());
    let entries: Vec<(String, Kind)> = walk.map(|entry| (entry.path, entry.kind)).collect();
    // What is within a directory comes after it.
    for (path, kind) in entries.iter().rev() {
        let removed = match kind {
            Kind::Directory => {
                let (parent, leaf) = path.rsplit_once('/').unwrap_or(("", path));
                let parent = beneath::directory(directory, parent)?;
                unlinkat(&parent, leaf, UnlinkatFlags::RemoveDir).map_err(io::Error::from)
            }
            Kind::File | Kind::Symlink if is_kept(path) => continue,
            Kind::File | Kind::Symlink => beneath::remove_file(directory, path),
        };
        match removed.map_err(|error| (error.raw_os_error(), error)) {
            Ok(()) | Err((Some(nix::libc::ENOTEMPTY | nix::libc::ENOENT), _)) => {}
            Err((_, error)) => return Err(error),
        }
    }
    Ok(())
}

fn names(directory: BorrowedFd<'_>) -> io::Result<Vec<String>> {
    let mut listing = Dir::from_fd(beneath::directory(directory, "")?)?;
    let mut names = Vec::new();
    for found in listing.iter() {
        if let Ok(name) = found?.file_name().to_str()
            && name != "."
            && name != ".."
        {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}
