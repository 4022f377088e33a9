//! A monitor between two jobs: what it keeps, how it says that it could take another, and how it gets one.
//!
//! Only a monitor that has nothing beneath it and has let go of all that its job had says so. The supervisor
//! alone decides how long it waits: a closed channel ends it, so that no launch is lost to one that leaves.

use std::cell::Cell;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;
use nix::unistd::getppid;

use super::{Descriptors, Host, REST_AFTER_MILLIS};
use job::{JobId, Signal};
use linux::failpoint;
use linux::procfs;
use linux::procfs::ProcessIdentity;
use linux::sys::child::Stack;
use linux::sys::{self, Pid, WaitTarget};
use protocol::wire::messages::NextJob;
use protocol::wire::{self, Received};

/// So much more than is known may be counted as a leader's own memory.
const PEAK_MARGIN: u64 = 1 << 20;

/// What a monitor keeps from job to job.
#[derive(Debug)]
pub(super) struct BetweenJobs {
    channel: OwnedFd,
    pub(super) signals: Rc<SignalFd>,
    pub(super) me: ProcessIdentity,
    /// Where its leaders begin.
    pub(super) stack: Rc<Stack>,
    /// What a job gets that does not ask for another; `None` if it is not known.
    pub(super) oom_score_adj: Option<i32>,
    /// How much memory it had at most before its first job, or when that was last forgotten.
    known_peak: Cell<u64>,
}

impl BetweenJobs {
    pub(super) fn new(
        channel: OwnedFd,
        signals: SignalFd,
        me: ProcessIdentity,
    ) -> io::Result<Self> {
        Ok(Self {
            channel,
            signals: Rc::new(signals),
            me,
            stack: Rc::new(Stack::new()?),
            oom_score_adj: usual_oom_score_adj(),
            known_peak: Cell::new(sys::own_peak_bytes()),
        })
    }

    /// Waits for what comes after `job`, which is over; `None` if this monitor has to end.
    pub(super) fn next(&self, host: &Host, job: JobId) -> Option<Descriptors> {
        // The proof that this monitor is nobody's any more.
        let nothing_beneath = sys::wait(WaitTarget::Any, false) == Err(Errno::ECHILD);
        // A request to end that came for the last job must not meet the next one.
        if !nothing_beneath || self.stack.is_used() || self.is_asked_to_end() {
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
                    self.stack.give_back();
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
                Ok(Received::Message(next, fds)) => return Descriptors::received(&next, fds),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(Received::Closed) | Err(_) => return None,
            }
        }
    }

    /// Before a leader begins in this memory: what was the most of it counts as the leader's own (getrusage(2)), so
    /// that a large job would be counted with each that comes after it.
    pub(super) fn forget_peak(&self) {
        if sys::own_peak_bytes() > self.known_peak.get().saturating_add(PEAK_MARGIN) {
            // Since Linux 4.0 (proc_pid_clear_refs(5)). What is left is what this process has now.
            let _ = fs::write("/proc/self/clear_refs", "5");
            self.known_peak.set(sys::own_peak_bytes());
        }
    }

    fn is_asked_to_end(&self) -> bool {
        is_asked_to_end(&self.signals)
    }
}

/// Reads every signal; was one of them the supervisor's SIGTERM? Anybody else's, such as one to all processes of the
/// service, asks for nothing.
pub(super) fn is_asked_to_end(signals: &SignalFd) -> bool {
    let supervisor = u32::try_from(getppid().as_raw()).unwrap_or_default();
    let mut is_asked = false;
    while let Ok(Some(signal)) = signals.read_signal() {
        let is_term = i32::try_from(signal.ssi_signo) == Ok(Signal::TERM.number());
        is_asked |= is_term && signal.ssi_pid == supervisor;
    }
    is_asked
}

/// Has this process an OOM score of 0, as its jobs are to have it, where it may set that; what it has then. The service's
/// own, which may keep the supervisor from being killed, is nothing for a process that is small and can be replaced; and
/// it could not be changed in a leader that shares this memory without changing it here.
fn usual_oom_score_adj() -> Option<i32> {
    let score = procfs::own_oom_score_adj();
    if score == Some(0) {
        return score;
    }
    let _ = fs::write("/proc/self/oom_score_adj", "0");
    procfs::own_oom_score_adj()
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

    /// The next note in the pipe; `None` if there is none.
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
