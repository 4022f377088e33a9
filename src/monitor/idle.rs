//! A monitor between two jobs: what it keeps, how it says that it could take another, and how it gets one.
//!
//! Only a monitor that has nothing beneath it and has let go of all that its job had says so. The supervisor
//! alone decides how long it waits: a closed channel ends it, so that no launch is lost to one that leaves.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;

use super::{Descriptors, Host, REST_AFTER_MILLIS};
use crate::failpoint;
use crate::job::{JobId, Signal};
use crate::record::ProcessIdentity;
use crate::sys::{self, Pid, WaitTarget};
use crate::wire::messages::NextJob;
use crate::wire::{self, Received};

/// What a monitor keeps from job to job.
#[derive(Debug)]
pub(super) struct Idle {
    channel: OwnedFd,
    pub(super) signals: Rc<SignalFd>,
    pub(super) me: ProcessIdentity,
}

impl Idle {
    pub(super) fn new(channel: OwnedFd, signals: SignalFd, me: ProcessIdentity) -> Self {
        Self {
            channel,
            signals: Rc::new(signals),
            me,
        }
    }

    /// Waits for what comes after `job`, which is over; `None` where this monitor has to end.
    pub(super) fn next(&self, host: &Host, job: JobId) -> Option<Descriptors> {
        // The proof that this monitor is nobody's any more.
        let nothing_beneath = sys::wait(WaitTarget::Any, false) == Err(Errno::ECHILD);
        // A request to end that came for the last job must not meet the next one.
        if !nothing_beneath || self.is_asked_to_end() {
            return None;
        }
        let note = Note {
            monitor: Pid::new(self.me.pid)?,
            job,
        };
        note.write(&host.idle).ok()?;
        failpoint::hit("monitor.idle");
        let mut patience = PollTimeout::from(REST_AFTER_MILLIS);
        loop {
            let mut polled = [
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.channel.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut polled, patience) {
                Ok(0) => {
                    sys::give_back_memory();
                    patience = PollTimeout::NONE;
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return None,
            }
            if self.is_asked_to_end() {
                return None;
            }
            match wire::receive::<NextJob>(self.channel.as_fd()) {
                Ok(Received::Message(next, fds)) => return next.descriptors(fds),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(Received::Closed) | Err(_) => return None,
            }
        }
    }

    fn is_asked_to_end(&self) -> bool {
        let mut is_asked = false;
        while let Ok(Some(signal)) = self.signals.read_signal() {
            is_asked |= i32::try_from(signal.ssi_signo) == Ok(Signal::TERM.number());
        }
        is_asked
    }
}

/// A monitor's word that its job is over and that it could take another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) monitor: Pid,
    pub(crate) job: JobId,
}

impl Note {
    /// On the pipe; less than `PIPE_BUF`, so that it arrives whole (pipe(7)).
    const LENGTH: usize = 4 + 16;

    fn write(self, pipe: &OwnedFd) -> io::Result<()> {
        let mut bytes = [0; Self::LENGTH];
        let (monitor, job) = bytes.split_at_mut(4);
        monitor.copy_from_slice(&self.monitor.as_i32().to_le_bytes());
        job.copy_from_slice(self.job.as_bytes());
        match nix::unistd::write(pipe, &bytes)? {
            Self::LENGTH => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    /// The next note in the pipe; `None` where there is none.
    pub(crate) fn read(pipe: &OwnedFd) -> Option<Self> {
        let mut bytes = [0; Self::LENGTH];
        let count = nix::unistd::read(pipe, &mut bytes).ok()?;
        if count != Self::LENGTH {
            return None;
        }
        let (monitor, job) = bytes.split_first_chunk::<4>()?;
        Some(Self {
            monitor: Pid::new(i32::from_le_bytes(*monitor))?,
            job: JobId::from_bytes(job.try_into().ok()?),
        })
    }
}
