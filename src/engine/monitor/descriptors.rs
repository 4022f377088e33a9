//! What the supervisor gives a monitor for one launch, by a fork or beside a message.

use std::io;
use std::os::fd::OwnedFd;

use nix::sys::stat::{Mode, fchmod, fstat};

use protocol::wire::messages::NextJob;

/// The descriptors of one launch.
#[derive(Debug)]
pub(crate) struct Descriptors {
    /// The monitor's end of its control socket; the launch is the first packet in it.
    pub(crate) control: OwnedFd,
    pub(crate) pipes: Pipes,
}

/// A job's pipes, both ends of each: read end, write end.
#[derive(Debug)]
pub(crate) struct Pipes {
    /// Standard input that stays open.
    pub(crate) stdin: Option<(OwnedFd, OwnedFd)>,
    pub(crate) stdout: (OwnedFd, OwnedFd),
    /// Standard error; `None` if it is merged.
    pub(crate) stderr: Option<(OwnedFd, OwnedFd)>,
    /// The terminal of a job that is to have one: master, slave; or why there is none.
    pub(crate) terminal: Option<nix::Result<(OwnedFd, OwnedFd)>>,
}

impl Pipes {
    /// Lets whoever has one of the pipes open it again by name, such as `/dev/stdout`: the job's user, and one that the
    /// job becomes. Nobody else has a name for it (proc_pid_fd(5)).
    pub(super) fn open_to_all(&self) {
        let ends = [
            self.stdin.as_ref().map(|pipe| &pipe.0),
            Some(&self.stdout.0),
            self.stderr.as_ref().map(|pipe| &pipe.0),
        ];
        for pipe in ends.into_iter().flatten() {
            let _ = fchmod(pipe, Mode::from_bits_truncate(0o666));
        }
    }

    /// The inodes of the outputs' pipes: who holds one of them is of the job.
    pub(super) fn read_inodes(&self) -> Vec<u64> {
        inodes([
            Some(&self.stdout.0),
            self.stderr.as_ref().map(|pipe| &pipe.0),
        ])
    }
}

/// The inodes of pipes.
pub(super) fn inodes<const N: usize>(pipes: [Option<&OwnedFd>; N]) -> Vec<u64> {
    let inode = |pipe| Some(fstat(pipe).ok()?.st_ino);
    pipes.into_iter().flatten().filter_map(inode).collect()
}

impl Descriptors {
    /// Every one of them.
    pub(crate) fn all(&self) -> Vec<&OwnedFd> {
        let Pipes {
            stdin,
            stdout,
            stderr,
            terminal,
        } = &self.pipes;
        let terminal = terminal.as_ref().and_then(|pair| pair.as_ref().ok());
        let pairs = [stdin.as_ref(), Some(stdout), stderr.as_ref(), terminal];
        let pairs = pairs.into_iter().flatten();
        std::iter::once(&self.control)
            .chain(pairs.flat_map(|(one, other)| [one, other]))
            .collect()
    }

    /// The same under other numbers: the lowest that are free.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        let twin = |(one, other): &(OwnedFd, OwnedFd)| {
            Ok::<_, io::Error>((one.try_clone()?, other.try_clone()?))
        };
        let terminal = match &self.pipes.terminal {
            Some(Ok(pair)) => Some(Ok(twin(pair)?)),
            Some(Err(errno)) => Some(Err(*errno)),
            None => None,
        };
        Ok(Self {
            control: self.control.try_clone()?,
            pipes: Pipes {
                stdin: self.pipes.stdin.as_ref().map(twin).transpose()?,
                stdout: twin(&self.pipes.stdout)?,
                stderr: self.pipes.stderr.as_ref().map(twin).transpose()?,
                terminal,
            },
        })
    }

    /// The message that takes these to a monitor, and what goes beside it.
    pub(crate) fn to_send(&self) -> (NextJob, Vec<&OwnedFd>) {
        let next = NextJob {
            open_stdin: self.pipes.stdin.is_some(),
            own_stderr: self.pipes.stderr.is_some(),
        };
        (next, self.all())
    }

    /// What [`Descriptors::to_send`] took apart. `None` if something is missing: then the launch has failed, which
    /// the server learns from its closed socket.
    pub(super) fn received(next: &NextJob, fds: Vec<OwnedFd>) -> Option<Self> {
        let mut fds = fds.into_iter();
        let control = fds.next()?;
        let mut pair = || Some((fds.next()?, fds.next()?));
        let stdin = if next.open_stdin { Some(pair()?) } else { None };
        let stdout = pair()?;
        let stderr = if next.own_stderr { Some(pair()?) } else { None };
        Some(Self {
            control,
            pipes: Pipes {
                stdin,
                stdout,
                stderr,
                // A job with a terminal gets a new monitor.
                terminal: None,
            },
        })
    }
}
