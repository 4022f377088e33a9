//! The way of a job's directory from a hub to the node that is about to get the job.
//!
//! On the node it is there before the job is, and belongs to nobody until that. What a server finds at its start and no row
//! leads to is a stranger, which goes.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::fcntl::readlinkat;
use nix::sys::stat::{FileStat, Mode, mkdirat};
use nix::unistd::syncfs;

use super::unpack::{self, ENTRIES_MAX, UnpackError};
use super::{Draft, Workspaces, names};
use job::JobId;
use job::workspace::Unpack;
use linux::beneath::{self, Kind, Owner};
use linux::{failpoint, sys};

/// The name of the file that tells this directory of workspaces from all others.
const PLACE: &str = ".place";

/// Which directories are on their way.
#[derive(Debug, Default)]
pub(crate) struct Handover(Mutex<Ways>);

#[derive(Debug, Default)]
struct Ways {
    /// Found at the start of this server, and not looked at yet.
    found: HashSet<JobId>,
    /// Come for jobs that are not here yet.
    prepared: HashSet<JobId>,
    /// On the way to a node.
    leaving: HashSet<JobId>,
}

impl Handover {
    fn ways(&self) -> MutexGuard<'_, Ways> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These are there at the start of the server.
    pub(super) fn found(&self, ids: &[JobId]) {
        self.ways().found.extend(ids);
    }

    /// Has the directory of this job come, since the start of this server?
    pub(crate) fn has(&self, id: JobId) -> bool {
        self.ways().prepared.contains(&id)
    }

    /// The job has come as well.
    pub(crate) fn taken(&self, id: JobId) {
        self.ways().prepared.remove(&id);
    }

    /// Does it leave? What is changed in it now may not be in what the node gets.
    pub(crate) fn is_leaving(&self, id: JobId) -> bool {
        self.ways().leaving.contains(&id)
    }
}

/// A directory leaves for as long as this is held.
#[derive(Debug)]
pub(crate) struct Leaving {
    workspaces: Arc<Workspaces>,
    id: JobId,
}

/// From now on the directory of this job leaves.
pub(crate) fn leave(workspaces: &Arc<Workspaces>, id: JobId) -> Leaving {
    workspaces.handover.ways().leaving.insert(id);
    Leaving {
        workspaces: workspaces.clone(),
        id,
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.workspaces.handover.ways().leaving.remove(&self.id);
    }
}

/// What tells this directory of workspaces from all others, over restarts; only a hub gives one to it. Blocks.
pub(crate) fn place(workspaces: &Workspaces, is_hub: bool) -> io::Result<Option<String>> {
    let known = read_place(workspaces)?;
    if known.is_some() || !is_hub {
        return Ok(known);
    }
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    let place: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut draft = beneath::new_file(workspaces.incoming.as_fd(), PLACE)?;
    draft.write_all(place.as_bytes())?;
    draft.sync_all()?;
    let from = (workspaces.incoming.as_fd(), PLACE);
    sys::rename_new(from, (workspaces.root.as_fd(), PLACE))?;
    beneath::sync(&workspaces.root)?;
    Ok(Some(place))
}

fn read_place(workspaces: &Workspaces) -> io::Result<Option<String>> {
    match beneath::file(workspaces.root.as_fd(), PLACE, |_| true) {
        Ok((file, _)) => io::read_to_string(file).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes those of these that were found at the start and have not been made anew since. Blocks.
pub(super) fn remove_strangers(workspaces: &Workspaces, ids: &[JobId]) {
    for id in ids {
        // Under the lock: one may be prepared in this very moment.
        let mut ways = workspaces.handover.ways();
        if ways.found.remove(id) {
            remove_now(workspaces, *id);
        }
    }
    workspaces.handover.ways().found.clear();
    workspaces.is_untidy();
}

fn remove_now(workspaces: &Workspaces, id: JobId) {
    if let Err(error) = workspaces.discard(workspaces.root.as_fd(), &id.to_string()) {
        tracing::warn!(job.id = %id, %error, "the workspace of job {id} could not be removed: {error}");
    }
}

/// Makes the directory of a job that is about to come, of the archive that its hub has sent. Blocks.
pub(crate) fn receive(
    workspaces: &Workspaces,
    id: JobId,
    archive: Draft,
    owner: Owner,
) -> Result<(), UnpackError> {
    {
        let mut ways = workspaces.handover.ways();
        ways.found.remove(&id);
        ways.prepared.remove(&id);
        // What is left of an earlier try.
        remove_now(workspaces, id);
    }
    let name = workspaces.fresh_name();
    let incoming = workspaces.incoming.as_fd();
    let made = mkdirat(incoming, name.as_str(), Mode::from_bits_truncate(0o700));
    made.map_err(|errno| UnpackError::Io(errno.into()))?;
    let received = fill(workspaces, (&name, id), &archive.file, owner);
    if received.is_err()
        && let Err(error) = workspaces.discard(incoming, &name)
    {
        tracing::warn!(%error, "what is left of an archive could not be removed: {error}");
    }
    received?;
    workspaces.handover.ways().prepared.insert(id);
    Ok(())
}

fn fill(
    workspaces: &Workspaces,
    (name, id): (&str, JobId),
    archive: &File,
    owner: Owner,
) -> Result<(), UnpackError> {
    let directory = beneath::directory(workspaces.incoming.as_fd(), name)?;
    let archive = beneath::reopen(archive).map_err(UnpackError::Io)?;
    let into = (directory.as_fd(), None);
    unpack::unpack(archive, Unpack::Tar, into, owner, workspaces.most)?;
    beneath::give(&directory, owner, 0o700).map_err(UnpackError::Io)?;
    syncfs(&directory).map_err(|errno| UnpackError::Io(errno.into()))?;
    failpoint::hit("files.moving");
    let (from, to) = ((workspaces.incoming.as_fd(), name), id.to_string());
    sys::rename_new(from, (workspaces.root.as_fd(), &to))
        .map_err(|errno| UnpackError::Io(errno.into()))?;
    beneath::sync(&workspaces.root).map_err(UnpackError::Io)
}

/// The job does not come after all. Blocks.
pub(crate) fn give_up(workspaces: &Workspaces, id: JobId) {
    let mut ways = workspaces.handover.ways();
    if ways.prepared.remove(&id) {
        remove_now(workspaces, id);
        drop(ways);
        workspaces.is_untidy();
    }
}

/// A thing in a workspace that goes to a node.
#[derive(Debug)]
pub enum Parcel {
    /// A directory.
    Directory,
    /// A link to this.
    Link(PathBuf),
    /// A file with this mode and so many bytes.
    File(File, u32, u64),
}

/// All that is in the workspace of a job that goes to a node.
#[derive(Debug)]
pub struct Bundle {
    pub(crate) workspaces: Arc<Workspaces>,
    pub(crate) directory: OwnedFd,
    pub(crate) owner: Owner,
}

impl Bundle {
    fn walk(&self) -> beneath::Walk<'_> {
        // Whoever reads it may be slow.
        let limits = beneath::Limits {
            time: Duration::MAX,
            ..beneath::Limits::default()
        };
        beneath::walk(self.directory.as_fd(), "", limits)
    }

    /// Are there more than a node takes? Blocks.
    pub(crate) fn is_too_much(&self) -> bool {
        let most = usize::try_from(ENTRIES_MAX).unwrap_or(usize::MAX);
        self.walk().take(most.saturating_add(1)).count() > most
    }

    /// Gives all of it with its paths, what is in a directory after the directory. Blocks.
    ///
    /// # Errors
    /// What `take` returns; or if something cannot be read, since nothing may be missing.
    pub fn each(&self, mut take: impl FnMut(&str, Parcel) -> io::Result<()>) -> io::Result<()> {
        let root = self.directory.as_fd();
        let mut walk = self.walk();
        for entry in &mut walk {
            let parcel = match entry.kind {
                Kind::Directory => Parcel::Directory,
                Kind::Symlink => {
                    let (parent, leaf) = entry.path.rsplit_once('/').unwrap_or(("", &entry.path));
                    let parent = beneath::directory(root, parent)?;
                    Parcel::Link(readlinkat(&parent, leaf)?.into())
                }
                Kind::File => {
                    let may = |stat: &FileStat| self.workspaces.may_read(stat, self.owner);
                    let (file, stat) = beneath::file(root, &entry.path, may)?;
                    let bytes = u64::try_from(stat.st_size).unwrap_or_default();
                    Parcel::File(file, stat.st_mode & 0o777, bytes)
                }
            };
            take(&entry.path, parcel)?;
        }
        match (walk.is_truncated(), walk.error()) {
            (false, None) => Ok(()),
            (_, Some(error)) => Err(io::Error::other(error.to_owned())),
            (true, None) => Err(io::Error::other("there is more than is looked at")),
        }
    }
}

/// The jobs that have a directory. Blocks.
pub(crate) fn all(workspaces: &Workspaces) -> Vec<JobId> {
    let names = names(workspaces.root.as_fd()).unwrap_or_default();
    let ids: Vec<JobId> = names.iter().filter_map(|name| name.parse().ok()).collect();
    workspaces.handover.found(&ids);
    ids
}
