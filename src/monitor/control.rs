//! The monitor's conversation with the server: requests in, records and replies out.
//!
//! The server may die at any time. Then the monitor binds a socket in the job's directory and goes on.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::Monitor;
use super::tree::{Delivery, Tree};
use crate::clock::Now;
use crate::job::life::{Stop, Verdict};
use crate::wire::messages::{FromMonitor, Request, RequestRefused, ToMonitor};
use crate::wire::{self, Received};
use crate::{record, sys};

impl Monitor {
    pub(super) fn send_record(&mut self) {
        let message = FromMonitor::Record(Box::new(self.facts.clone()));
        self.send(&message);
    }

    pub(super) fn send(&mut self, message: &FromMonitor) {
        let Some(control) = &self.control else { return };
        match wire::send(control.as_fd(), message, &[]) {
            Ok(()) => self.unsent = false,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.unsent = true,
            Err(_) => self.server_gone(),
        }
    }

    pub(super) fn on_control(&mut self, now: Now) -> io::Result<()> {
        loop {
            let Some(control) = &self.control else {
                return Ok(());
            };
            match wire::receive::<ToMonitor>(control.as_fd()) {
                Ok(Received::Message(message, _)) => {
                    let result = self.answer(message.request, now)?;
                    self.send(&FromMonitor::Reply {
                        ticket: message.ticket,
                        result,
                    });
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

    pub(super) fn answer(
        &mut self,
        request: Request,
        now: Now,
    ) -> io::Result<Result<u32, RequestRefused>> {
        // What has ended already has ended by itself.
        self.reap(now)?;
        match request {
            Request::Stop(stop) => self.stop(stop, now),
            Request::Signal { signal, scope } => match self.facts.life.may_signal() {
                Verdict::Refuse(refusal) => Ok(Err(RequestRefused::Refused(refusal))),
                Verdict::Do(_) | Verdict::Already => Ok(told(self.tree.signal(
                    signal,
                    scope,
                    self.leader,
                    self.leader_reaped,
                ))),
            },
            Request::Pause => {
                let verdict = self.facts.life.pause(now);
                self.pause_or_resume(verdict, Tree::freeze, now)
            }
            Request::Resume => {
                let verdict = self.facts.life.resume(now);
                self.pause_or_resume(verdict, Tree::thaw, now)
            }
        }
    }

    pub(super) fn stop(&mut self, stop: Stop, now: Now) -> io::Result<Result<u32, RequestRefused>> {
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
    ) -> io::Result<Result<u32, RequestRefused>> {
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
        self.unsent = false;
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

fn told(delivery: Delivery) -> Result<u32, RequestRefused> {
    match delivery {
        Delivery {
            delivered: 0,
            refused: Some(errno),
        } => Err(RequestRefused::Errno(sys::errno_number(errno))),
        Delivery { delivered, .. } => Ok(delivered),
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
