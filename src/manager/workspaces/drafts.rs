//! What is in the making, aside from all workspaces: files, and directories. Dropped, it is gone.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, syncfs, unlinkat};

use super::Workspaces;
use super::unpack::{self, UnpackError};
use job::JobId;
use job::workspace::{FileMode, Unpack};
use linux::beneath::{self, InTheWay, Kind, Owner};
use linux::{failpoint, sys};

/// A file in the making.
#[derive(Debug)]
pub(crate) struct Draft {
    workspaces: Arc<Workspaces>,
    name: String,
    pub(super) file: File,
    is_done: bool,
}

/// A directory in the making.
#[derive(Debug)]
pub(crate) struct Aside {
    workspaces: Arc<Workspaces>,
    name: String,
    is_done: bool,
}

impl Draft {
    /// Begins a file that is to be put into a workspace. Blocks.
    pub(crate) fn begin(workspaces: &Arc<Workspaces>) -> io::Result<Self> {
        let name = workspaces.fresh_name();
        Ok(Self {
            file: beneath::new_file(workspaces.incoming.as_fd(), &name)?,
            workspaces: workspaces.clone(),
            name,
            is_done: false,
        })
    }

    /// Unpacks it: all of it, or nothing if it is refused. Blocks.
    pub(crate) fn unpack(
        self,
        form: Unpack,
        owner: Owner,
        most: u64,
    ) -> Result<Aside, UnpackError> {
        let aside = Aside::begin(&self.workspaces).map_err(UnpackError::Io)?;
        let own = aside.open().map_err(UnpackError::Io)?;
        let archive = beneath::reopen(&self.file).map_err(UnpackError::Io)?;
        unpack::unpack(archive, form, (own.as_fd(), None), owner, most)?;
        syncfs(&own).map_err(|errno| UnpackError::Io(errno.into()))?;
        Ok(aside)
    }

    /// Writes on. Blocks.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    /// It is complete, and belongs to this owner: makes it durable. Blocks.
    pub(crate) fn complete(&self, (owner, mode): (Owner, FileMode)) -> io::Result<()> {
        beneath::give(&self.file, owner, mode.bits())?;
        self.file.sync_all()?;
        failpoint::hit("file.putting");
        Ok(())
    }

    /// Puts what is complete where it belongs; returns whether nothing was there. Blocks.
    pub(crate) fn put(
        mut self,
        directory: BorrowedFd<'_>,
        path: &str,
        owner: Owner,
        in_the_way: InTheWay,
    ) -> io::Result<bool> {
        failpoint::hit("file.placing");
        let from = (self.workspaces.incoming.as_fd(), self.name.as_str());
        let is_new = beneath::put(from, (directory, path), owner, in_the_way)?;
        self.is_done = true;
        Ok(is_new)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.is_done {
            let flags = UnlinkatFlags::NoRemoveDir;
            // If it stays, the next server takes it away.
            let _ = unlinkat(&self.workspaces.incoming, self.name.as_str(), flags);
        }
    }
}

impl Aside {
    /// Makes an empty one. Blocks.
    pub(super) fn begin(workspaces: &Arc<Workspaces>) -> io::Result<Self> {
        let name = workspaces.fresh_name();
        let mode = Mode::from_bits_truncate(0o700);
        mkdirat(&workspaces.incoming, name.as_str(), mode)?;
        Ok(Self {
            workspaces: workspaces.clone(),
            name,
            is_done: false,
        })
    }

    pub(super) fn open(&self) -> io::Result<OwnedFd> {
        beneath::directory(self.workspaces.incoming.as_fd(), &self.name)
    }

    /// It becomes the directory of this job, unless somebody else was faster. Blocks.
    pub(crate) fn become_workspace(mut self, id: JobId) -> io::Result<()> {
        let root = &self.workspaces.root;
        let from = (self.workspaces.incoming.as_fd(), self.name.as_str());
        match sys::rename_new(from, (root.as_fd(), &id.to_string())) {
            Ok(()) => {
                beneath::sync(root)?;
                self.is_done = true;
                Ok(())
            }
            Err(Errno::EEXIST) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Moves all that is in it into a job's directory, each file at once. Blocks.
    pub(crate) fn move_into(
        self,
        (root, path): (BorrowedFd<'_>, &str),
        owner: Owner,
    ) -> io::Result<()> {
        let from = self.open()?;
        failpoint::hit("archive.moving");
        beneath::make_directories(root, path, owner)?;
        for entry in beneath::walk(from.as_fd(), "", beneath::Limits::default()) {
            let to = format!("{path}/{}", entry.path);
            if entry.kind == Kind::Directory {
                beneath::make_directories(root, &to, owner)?;
                continue;
            }
            let (parent, leaf) = entry.path.rsplit_once('/').unwrap_or(("", &entry.path));
            let parent = beneath::directory(from.as_fd(), parent)?;
            beneath::put((parent.as_fd(), leaf), (root, &to), owner, InTheWay::Goes)?;
        }
        Ok(())
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        let incoming = self.workspaces.incoming.as_fd();
        if let Err(error) = self.workspaces.discard(incoming, &self.name) {
            tracing::warn!(%error, "a directory in the making could not be removed: {error}");
        }
        self.workspaces.is_untidy();
    }
}
