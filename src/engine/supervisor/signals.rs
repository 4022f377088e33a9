//! The signals that the supervisor reads, and what each asks for.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow, Signal as NixSignal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::stop::Asked;
use linux::sys::{self, Pid};

/// The signals of this process, which come as a file.
pub(super) struct Signals(SignalFd);

/// What has come since the last look.
#[derive(Default)]
pub(super) struct Arrived {
    /// The service is to end.
    pub(super) end: Option<Asked>,
    /// The program is to be replaced.
    pub(super) upgrade: bool,
    /// Children that have ended; signals of ends that come together are one, so it may not be all of them.
    pub(super) ended: Vec<Pid>,
}

impl Signals {
    /// Blocks the signals that are read here. Blocked, they reach even PID 1, which ignores every signal
    /// that it has no handler for. SIGCHLD inherited as ignored would lose every exit status.
    pub(super) fn take() -> io::Result<Self> {
        let mut read = SigSet::empty();
        read.extend([
            NixSignal::SIGCHLD,
            NixSignal::SIGTERM,
            NixSignal::SIGINT,
            NixSignal::SIGHUP,
        ]);
        let mut mask = read;
        // Never read: a file that may not grow and a terminal that is somebody else's are errors, and what is sent to a
        // whole family of processes to have logs opened again means nothing here.
        mask.extend([
            NixSignal::SIGXFSZ,
            NixSignal::SIGTTOU,
            NixSignal::SIGUSR1,
            NixSignal::SIGUSR2,
            NixSignal::SIGALRM,
            NixSignal::SIGVTALRM,
            NixSignal::SIGPROF,
            NixSignal::SIGIO,
            NixSignal::SIGPWR,
        ]);
        // Blocked before the actions are the default ones: what is pending from before an execve stays so.
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None)?;
        sys::default_actions();
        sys::ignore_signals(&[NixSignal::SIGPIPE]);
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Ok(Self(SignalFd::with_flags(&read, flags)?))
    }

    /// What has come; never waits.
    pub(super) fn read(&self) -> Arrived {
        let mut arrived = Arrived::default();
        while let Ok(Some(signal)) = self.0.read_signal() {
            let number = i32::try_from(signal.ssi_signo).unwrap_or_default();
            if number == libc::SIGTERM || number == libc::SIGINT {
                arrived.end = Some(Asked::by(&signal));
            }
            // The kernel's own says that a terminal has hung up, which asks for nothing.
            arrived.upgrade |= number == libc::SIGHUP && signal.ssi_code != libc::SI_KERNEL;
            if number == libc::SIGCHLD {
                let ended = i32::try_from(signal.ssi_pid).ok();
                arrived.ended.extend(ended.and_then(Pid::new));
            }
        }
        arrived
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
