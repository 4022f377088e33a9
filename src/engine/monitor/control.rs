//! The monitor's conversation with the server: requests in, records and replies out.
//!
//! The server may die at any time. Then the monitor binds a socket in the job's directory and goes on.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::Monitor;
use job::life::{Stop, Verdict};
use job::time::Now;
use linux::sys;
use linux::tree::{Delivery, Tree};
use protocol::record;
use protocol::wire::messages::{FromMonitor, Request, RequestRefused, ToMonitor};
use protocol::wire::{self, Received};

/// What the server has still to be told. A slow server never makes the monitor wait: what is newer takes
/// the place of what is older, and only replies, of which there is one for each request, queue up.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) record: bool,
    replies: VecDeque<FromMonitor>,
    /// Where the output ends, while it is watched.
    pub(super) output: Option<u64>,
    /// Where it ended when the server was told last.
    told: Option<u64>,
    /// The server wants to know of new output.
    pub(super) watched: bool,
    /// The socket took no more.
    pub(super) is_full: bool,
    /// The job is over, and its last record is not written yet: nothing is said before it is.
    pub(super) is_held: bool,
}

impl Outbox {
    pub(super) fn reply(&mut self, reply: FromMonitor) {
        self.replies.push_back(reply);
    }
}

impl Monitor {
    /// Has the server told how things are now.
    pub(super) fn send_record(&mut self) {
        self.outbox.record = true;
        self.flush();
    }

    /// Sends what the socket takes. The record goes before replies, so that whoever is answered finds
    /// what the answer speaks of.
    pub(super) fn flush(&mut self) {
        self.outbox.is_full = false;
        if self.outbox.is_held {
            return;
        }
        loop {
            let message = if self.outbox.record {
                FromMonitor::Record(Box::new(self.facts.clone()))
            } else if let Some(reply) = self.outbox.replies.pop_front() {
                reply
            } else if let Some(next_offset) = self.outbox.output
                && self.outbox.told != Some(next_offset)
            {
                FromMonitor::Output { next_offset }
            } else {
                return;
            };
            let Some(control) = &self.control else {
                self.outbox = Outbox::default();
                return;
            };
            match wire::send(control.as_fd(), &message, &[]) {
                Ok(()) => match message {
                    FromMonitor::Record(_) => self.outbox.record = false,
                    FromMonitor::Output { next_offset } => self.outbox.told = Some(next_offset),
                    FromMonitor::Reply { .. } | FromMonitor::NotLaunched(_) => {}
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.outbox.is_full = true;
                    if let FromMonitor::Reply { .. } = message {
                        self.outbox.replies.push_front(message);
                    }
                    return;
                }
                Err(_) => return self.server_gone(),
            }
        }
    }

    pub(super) fn on_control(&mut self, now: Now) -> io::Result<()> {
        loop {
            let Some(control) = &self.control else {
                return Ok(());
            };
            match wire::receive::<ToMonitor>(control.as_fd()) {
                Ok(Received::Message(message, _)) => {
                    let ToMonitor { ticket, request } = message;
                    if let Some(result) = self.answer(ticket, request, now)? {
                        self.outbox.reply(FromMonitor::Reply { ticket, result });
                        self.flush();
                    }
                }
                Ok(Received::Closed) => {
                    self.server_gone();
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    tracing::warn!(job.id = %self.facts.job, %error, "a request for job {} was not understood", self.facts.job);
                }
                Err(_) => {
                    self.server_gone();
                    return Ok(());
                }
            }
        }
    }

    /// The answer; `None` where it comes later.
    fn answer(
        &mut self,
        ticket: u64,
        request: Request,
        now: Now,
    ) -> io::Result<Option<Result<u64, RequestRefused>>> {
        // What has ended already has ended by itself.
        self.reap(now)?;
        let result = match request {
            Request::Stop(stop) => self.stop(stop, now)?,
            Request::Signal { signal, scope } => match self.facts.life.may_signal() {
                Verdict::Refuse(refusal) => Err(RequestRefused::Refused(refusal)),
                Verdict::Do(_) | Verdict::Already => {
                    told(
                        self.tree
                            .signal(signal, scope, self.leader, self.leader_reaped),
                    )
                }
            },
            Request::Pause => {
                let verdict = self.facts.life.pause(now);
                self.pause_or_resume(verdict, Tree::freeze, now)?
            }
            Request::Resume => {
                let verdict = self.facts.life.resume(now);
                self.pause_or_resume(verdict, Tree::thaw, now)?
            }
            Request::Amend { timeout, stop } => match self.facts.life.amend(timeout, stop, now) {
                Verdict::Refuse(refusal) => Err(RequestRefused::Refused(refusal)),
                Verdict::Do(_) | Verdict::Already => {
                    self.changed(now)?;
                    Ok(0)
                }
            },
            Request::WatchOutput(watched) => {
                // Told anew even where nothing has changed: another server may ask.
                self.outbox.told = None;
                self.outbox.watched = watched;
                self.outbox.output = watched.then(|| self.output.totals().next_offset);
                Ok(0)
            }
            Request::Resize(size) => self.resize(size),
            Request::Stdin(input) => {
                let input = self.typed(input);
                self.take_input(ticket, input, now)?;
                return Ok(None);
            }
        };
        Ok(Some(result))
    }

    pub(super) fn stop(&mut self, stop: Stop, now: Now) -> io::Result<Result<u64, RequestRefused>> {
        let before = self.facts.life.clone();
        let verdict = self.facts.life.stop(stop, now);
        if self.facts.life != before {
            self.changed(now)?;
        }
        match verdict {
            Verdict::Do(effect) => {
                self.carry_out(effect, now)?;
                Ok(Ok(0))
            }
            Verdict::Already => Ok(Ok(0)),
            Verdict::Refuse(refusal) => Ok(Err(RequestRefused::Refused(refusal))),
        }
    }

    pub(super) fn pause_or_resume(
        &mut self,
        verdict: Verdict,
        act: fn(&Tree) -> Delivery,
        now: Now,
    ) -> io::Result<Result<u64, RequestRefused>> {
        match verdict {
            Verdict::Do(_) => {
                let delivery = act(&self.tree);
                self.changed(now)?;
                Ok(told(delivery))
            }
            Verdict::Already => Ok(Ok(0)),
            Verdict::Refuse(refusal) => Ok(Err(RequestRefused::Refused(refusal))),
        }
    }

    /// The server has died or is being replaced: wait for the next one in the job's directory.
    pub(super) fn server_gone(&mut self) {
        self.control = None;
        self.outbox = Outbox::default();
        if self.listener.is_none() {
            match listen(&self.directory) {
                Ok(listener) => self.listener = Some(listener),
                Err(error) => {
                    tracing::error!(job.id = %self.facts.job, %error, "the monitor of job {} cannot be reached any more", self.facts.job);
                }
            }
        }
    }

    pub(super) fn on_listener(&mut self) -> io::Result<()> {
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
                    self.directory.as_fd(),
                    record::CONTROL_SOCKET,
                    UnlinkatFlags::NoRemoveDir,
                );
                self.send_record();
                Ok(())
            }
            Err(Errno::EAGAIN | Errno::ECONNABORTED | Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

fn told(delivery: Delivery) -> Result<u64, RequestRefused> {
    match delivery {
        Delivery {
            delivered: 0,
            refused: Some(errno),
        } => Err(RequestRefused::Errno(sys::errno_number(errno))),
        Delivery { delivered, .. } => Ok(delivered.into()),
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
