//! Forking a monitor from a process that holds thousands of descriptors.
//!
//! fork(2) copies the whole table and the monitor closes what it does not need, one by one: with the spare
//! pipes of 5 000 jobs that is most of what a launch costs. Here the child shares the table until it has one
//! of its own with the low numbers alone (close_range(2) `CLOSE_RANGE_UNSHARE`, Linux 5.9). What it needs is
//! given low numbers for that time, which are kept free for it. It must not know what a monitor does.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{pipe2, read, write};

use crate::monitor::{Descriptors, Host};
use linux::sys::{self, Fork, Pid, WaitTarget};

/// How many low numbers are kept free: the most that a launch has.
const NUMBERS: usize = 10;

/// A table with more than these is not worth sharing: low numbers were not to be had.
const HIGHEST: i32 = 256;

/// How often the parent looks whether the child has died before it had its own table.
const LOOK_MILLIS: u8 = 20;

/// Low descriptor numbers kept free, and a pipe on which a child says that it has its own table.
#[derive(Debug)]
pub(super) struct LowDescriptors {
    free: Vec<OwnedFd>,
    said: OwnedFd,
    say: OwnedFd,
}

/// Which side of the fork this is.
pub(super) enum Forked {
    /// The parent, and the child's PID.
    Parent(Pid),
    /// The child, with the low numbers of its channel and of what else it was given.
    Child(OwnedFd, Descriptors),
}

impl LowDescriptors {
    /// Takes the lowest numbers that are free; to be called before there are many.
    pub(super) fn new() -> io::Result<Self> {
        if !sys::has_close_range() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let (said, say) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let mut low_descriptors = Self {
            free: Vec::new(),
            said,
            say,
        };
        low_descriptors.keep_free()?;
        Ok(low_descriptors)
    }

    fn keep_free(&mut self) -> io::Result<()> {
        while self.free.len() < NUMBERS {
            self.free.push(self.said.try_clone()?);
        }
        Ok(())
    }

    /// Forks a child that has `channel` and `descriptors`, those of `host`, and the standard ones. `None` if it
    /// cannot be done like this.
    pub(super) fn fork(
        &mut self,
        host: &Host,
        channel: &OwnedFd,
        descriptors: &Descriptors,
    ) -> Option<Forked> {
        self.free.clear();
        let low = channel.try_clone().ok().zip(descriptors.try_clone().ok());
        let forked = low.and_then(|(channel, low)| self.fork_with(host, channel, low));
        if !matches!(forked, Some(Forked::Child(..))) {
            let _ = self.keep_free();
        }
        forked
    }

    fn fork_with(&self, host: &Host, channel: OwnedFd, low: Descriptors) -> Option<Forked> {
        let fixed = [&host.jobs, &host.idle, &self.say, &channel];
        let highest = low.all().into_iter().chain(fixed);
        let highest = highest.map(AsRawFd::as_raw_fd).max()?;
        if highest > HIGHEST {
            return None;
        }
        match sys::fork_with_fds_below(highest + 1).ok()? {
            Fork::Child => {
                let _ = write(&self.say, b"!");
                Some(Forked::Child(channel, low))
            }
            Fork::Parent(pid) => {
                // Until then, what is closed here is closed there.
                self.await_own_table(pid);
                Some(Forked::Parent(pid))
            }
        }
    }

    fn await_own_table(&self, child: Pid) {
        loop {
            let mut said = [PollFd::new(self.said.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut said, PollTimeout::from(LOOK_MILLIS));
            if self.has_said() {
                return;
            }
            // Left unreaped: whoever reaps finds out what it was.
            if !matches!(sys::wait(WaitTarget::Child(child), false), Ok(None)) {
                // Said and ended since: the next child's word must not be taken for said already.
                let _ = self.has_said();
                return;
            }
        }
    }

    fn has_said(&self) -> bool {
        read(&self.said, &mut [0]).is_ok_and(|count| count == 1)
    }
}
