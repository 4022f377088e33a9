//! The monitor's conversation with the server: requests in, records and replies out.
//!
//! The server may die at any time. Then the monitor binds a socket in the job's directory and continues.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::{Awaited, Ready};
use job::JobId;
use linux::sys;
use protocol::record::{self, Record};
use protocol::wire::messages::{FromMonitor, ToMonitor};
use protocol::wire::{self, Received};

/// How long a server may take to make room for the last word of a monitor.
const LAST_WORDS_MILLIS: u16 = 1000;

/// What the server has still to be told. A slow server never makes the monitor wait: what is newer takes
/// the place of what is older, and only replies, of which there is one for each request, queue up.
#[derive(Debug, Default)]
struct Outbox {
    record: bool,
    replies: VecDeque<FromMonitor>,
    /// Where the output ends, while it is watched.
    output: Option<u64>,
    /// Where it ended when the server was told last.
    told: Option<u64>,
    /// The server wants to know of new output.
    watched: bool,
    /// The log is full until more of it has been read, and whether the server knows.
    output_full: bool,
    told_full: bool,
    /// The socket took no more.
    is_full: bool,
    /// The job is over, and its last record is not written yet: nothing is said before it is.
    is_held: bool,
}

impl Outbox {
    fn next(&mut self, facts: &Record) -> Option<FromMonitor> {
        if self.record {
            return Some(FromMonitor::Record(Box::new(facts.clone())));
        }
        if let Some(reply) = self.replies.pop_front() {
            return Some(reply);
        }
        if self.output_full && !self.told_full {
            return Some(FromMonitor::OutputFull);
        }
        let next_offset = self.output.filter(|_| self.told != self.output)?;
        Some(FromMonitor::Output { next_offset })
    }

    fn sent(&mut self, message: &FromMonitor) {
        match message {
            FromMonitor::Record(_) => self.record = false,
            FromMonitor::Output { next_offset } => self.told = Some(*next_offset),
            FromMonitor::OutputFull => self.told_full = true,
            FromMonitor::Reply { .. } | FromMonitor::NotLaunched(_) => {}
        }
    }
}

/// The control socket, or where the next server finds this monitor.
#[derive(Default)]
pub(super) struct Conversation {
    control: Option<OwnedFd>,
    listener: Option<OwnedFd>,
    outbox: Outbox,
}

impl Conversation {
    /// With the server that has launched the job.
    pub(super) fn with(control: OwnedFd) -> Self {
        Self {
            control: Some(control),
            ..Self::default()
        }
    }

    pub(super) fn awaited<'a>(&'a self, awaited: &mut Vec<Awaited<'a>>) {
        if let Some(listener) = &self.listener {
            awaited.push((Ready::Listener, listener.as_fd(), PollFlags::POLLIN));
        }
        if let Some(control) = &self.control {
            let writable = if self.outbox.is_full {
                PollFlags::POLLOUT
            } else {
                PollFlags::empty()
            };
            let flags = PollFlags::POLLIN | writable;
            awaited.push((Ready::Control, control.as_fd(), flags));
        }
    }

    /// The record has changed; the server is told at the end of this round, before any reply: a short job has its end
    /// to tell by then.
    pub(super) fn record_changed(&mut self) {
        self.outbox.record = true;
    }

    /// The job is over, and its last record is not written yet: nothing is said before it is.
    pub(super) fn hold(&mut self) {
        self.outbox.is_held = true;
    }

    pub(super) fn reply(&mut self, reply: FromMonitor) {
        self.outbox.replies.push_back(reply);
    }

    /// Whether the server wants to know of new output. Told again even if nothing has changed: another server may ask.
    pub(super) fn watch(&mut self, watched: bool, next_offset: u64) {
        self.outbox.told = None;
        self.outbox.watched = watched;
        self.output_grew(next_offset);
    }

    pub(super) fn output_grew(&mut self, next_offset: u64) {
        self.outbox.output = self.outbox.watched.then_some(next_offset);
    }

    /// Whether the log is full until more of it has been read.
    pub(super) fn output_is_full(&mut self, is_full: bool) {
        self.outbox.output_full = is_full;
        self.outbox.told_full &= is_full;
    }

    /// Sends what the socket takes. The record goes before replies, so that whoever is answered finds
    /// what the answer speaks of.
    pub(super) fn flush(&mut self, facts: &Record, directory: &OwnedFd) {
        self.outbox.is_full = false;
        if self.outbox.is_held {
            return;
        }
        while let Some(message) = self.outbox.next(facts) {
            let Some(control) = &self.control else {
                self.outbox = Outbox::default();
                return;
            };
            match wire::send(control.as_fd(), &message, &[]) {
                Ok(()) => self.outbox.sent(&message),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.outbox.is_full = true;
                    if let FromMonitor::Reply { .. } = message {
                        self.outbox.replies.push_front(message);
                    }
                    return;
                }
                Err(_) => return self.server_gone(facts.job, directory),
            }
        }
    }

    /// The last words: the end, which is on disk.
    pub(super) fn finish(&mut self, facts: &Record, directory: &OwnedFd) {
        self.outbox.watched = false;
        self.outbox.is_held = false;
        self.record_changed();
        self.flush(facts, directory);
        if self.outbox.is_full
            && let Some(control) = &self.control
        {
            let mut writable = [PollFd::new(control.as_fd(), PollFlags::POLLOUT)];
            let _ = poll(&mut writable, PollTimeout::from(LAST_WORDS_MILLIS));
            self.flush(facts, directory);
        }
    }

    /// The next request; `None` once there is none.
    pub(super) fn receive(&mut self, job: JobId, directory: &OwnedFd) -> Option<ToMonitor> {
        loop {
            match wire::receive::<ToMonitor>(self.control.as_ref()?.as_fd()) {
                Ok(Received::Message(message, _)) => return Some(message),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    tracing::warn!(job.id = %job, %error, "a request for job {job} was not understood");
                }
                Ok(Received::Closed) | Err(_) => {
                    self.server_gone(job, directory);
                    return None;
                }
            }
        }
    }

    /// The server has died or is being replaced: wait for the next one in the job's directory.
    pub(super) fn server_gone(&mut self, job: JobId, directory: &OwnedFd) {
        self.control = None;
        self.outbox = Outbox::default();
        if self.listener.is_none() {
            match listen(directory) {
                Ok(listener) => self.listener = Some(listener),
                Err(error) => {
                    tracing::error!(job.id = %job, %error, "the monitor of job {job} cannot be reached any more");
                }
            }
        }
    }

    /// Takes in the next server.
    pub(super) fn accept(&mut self, facts: &Record, directory: &OwnedFd) -> io::Result<()> {
        let Some(listener) = &self.listener else {
            return Ok(());
        };
        match socket::accept4(
            listener.as_raw_fd(),
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        ) {
            Ok(fd) => {
                self.control = sys::adopt_fd(fd);
                self.listener = None;
                let _ = unlinkat(
                    directory.as_fd(),
                    record::CONTROL_SOCKET,
                    UnlinkatFlags::NoRemoveDir,
                );
                self.record_changed();
                self.flush(facts, directory);
                Ok(())
            }
            Err(Errno::EAGAIN | Errno::ECONNABORTED | Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

fn listen(directory: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let listener = socket::socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    let _ = unlinkat(
        directory.as_fd(),
        record::CONTROL_SOCKET,
        UnlinkatFlags::NoRemoveDir,
    );
    // The address has room for 108 bytes, whatever the length of the state directory's path.
    let path = format!(
        "/proc/self/fd/{}/{}",
        directory.as_raw_fd(),
        record::CONTROL_SOCKET
    );
    socket::bind(listener.as_raw_fd(), &UnixAddr::new(path.as_str())?)?;
    socket::listen(&listener, Backlog::new(1)?)?;
    Ok(listener)
}
