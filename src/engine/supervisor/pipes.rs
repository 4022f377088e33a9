//! The pipes and the terminal of a job, made before there is a monitor for it, so that the supervisor has spare ends.

use std::os::fd::OwnedFd;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::pty::openpty;
use nix::unistd::pipe2;

use crate::monitor::Pipes;

/// Which pipes a job gets besides standard output.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) merge_stderr: bool,
    pub(super) open_stdin: bool,
    pub(super) pty: bool,
}

pub(super) fn make(wanted: Wanted) -> nix::Result<Pipes> {
    let pipe_if = |wanted: bool| wanted.then(|| pipe2(OFlag::O_CLOEXEC)).transpose();
    Ok(Pipes {
        stdin: pipe_if(wanted.open_stdin)?,
        stdout: pipe2(OFlag::O_CLOEXEC)?,
        stderr: pipe_if(!wanted.merge_stderr)?,
        terminal: wanted.pty.then(open_terminal),
    })
}

/// A pair of pseudo-terminals, master first; nobody's controlling terminal yet.
fn open_terminal() -> nix::Result<(OwnedFd, OwnedFd)> {
    let pair = openpty(None, None)?;
    for side in [&pair.master, &pair.slave] {
        fcntl(side, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    }
    Ok((pair.master, pair.slave))
}
