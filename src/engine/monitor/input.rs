//! Standard input: given whole, or open, from the server's packets to the job's pipe and never waiting for it.
//!
//! Each packet is answered when the pipe has taken it, which is all the back-pressure there is. The
//! supervisor holds the pipe, too, so that a monitor's death is no end of the input for the job; it lets
//! go when the server tells it of the end in the record.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl, open};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::Mode;
use nix::unistd::write;

use super::terminal::Terminal;
use linux::failpoint;
use protocol::record;
use protocol::wire::messages::{FromMonitor, Input, RequestRefused};

/// The writing side of a job's standard input.
#[derive(Debug, Default)]
pub(super) struct Stdin {
    /// `None`: the job has no open standard input, or it was closed.
    pipe: Option<OwnedFd>,
    /// How many bytes were written; `None` if an earlier monitor was killed while it wrote some of them.
    offset: Option<u64>,
    /// A client said that this is the end.
    ended: bool,
    waiting: VecDeque<Packet>,
}

#[derive(Debug)]
struct Packet {
    ticket: u64,
    input: Input,
    /// Its turn has come, and it was not refused.
    has_begun: bool,
    written: usize,
}

/// What became of the first packet.
enum Taken {
    Written,
    PipeFull,
    Refused(RequestRefused),
}

impl Stdin {
    /// The input of a job that has just been launched.
    pub(super) fn new(pipe: Option<OwnedFd>) -> Self {
        Self {
            pipe,
            offset: Some(0),
            ..Self::default()
        }
    }

    /// The input of a job to which another monitor has written so many bytes; `None` if nobody knows.
    pub(super) fn taken_over(pipe: Option<OwnedFd>, offset: Option<u64>) -> Self {
        Self {
            pipe,
            offset,
            ..Self::default()
        }
    }

    /// The pipe, where its having room matters.
    pub(super) fn awaited(&self) -> Option<&OwnedFd> {
        self.pipe.as_ref().filter(|_| !self.waiting.is_empty())
    }

    pub(super) fn is_open(&self) -> bool {
        self.pipe.is_some()
    }

    /// Takes a packet in; it is answered when it has been written.
    pub(super) fn take(&mut self, ticket: u64, input: Input) {
        self.waiting.push_back(Packet {
            ticket,
            input,
            has_begun: false,
            written: 0,
        });
    }

    /// Writes of the first packet what the pipe takes; its answer, once it has one. `terminal`: what it is typed into.
    pub(super) fn write(
        &mut self,
        record: &record::Writer,
        terminal: Option<&mut Terminal>,
    ) -> Option<FromMonitor> {
        let ticket = self.waiting.front()?.ticket;
        let result = match self.step(record, terminal) {
            Taken::PipeFull => return None,
            Taken::Written => Ok(self.offset.unwrap_or_default()),
            Taken::Refused(refusal) => Err(refusal),
        };
        self.waiting.pop_front();
        Some(FromMonitor::Reply { ticket, result })
    }

    fn step(&mut self, record: &record::Writer, terminal: Option<&mut Terminal>) -> Taken {
        let Some(packet) = self.waiting.front_mut() else {
            return Taken::PipeFull;
        };
        let input = &mut packet.input;
        if !packet.has_begun && input.offset.is_some() && input.offset != self.offset {
            return Taken::Refused(RequestRefused::StdinOffset {
                expected: self.offset,
            });
        }
        let Some(pipe) = &self.pipe else {
            // The answer to the end may have been lost, and it was asked again.
            let is_repeat =
                self.ended && input.eof && input.offset.is_some() && input.bytes.is_empty();
            return if is_repeat {
                Taken::Written
            } else {
                Taken::Refused(RequestRefused::StdinClosed)
            };
        };
        if !packet.has_begun {
            packet.has_begun = true;
            // By now all that was typed before it is known.
            if let Some(terminal) = terminal {
                terminal.typed(input);
            }
        }
        while let Some(rest) = input
            .bytes
            .get(packet.written..)
            .filter(|rest| !rest.is_empty())
        {
            // A rescuer knows where the input is, unless this monitor dies between the two notes.
            let note = |offset: Option<u64>, pending: usize| match offset {
                Some(offset) => {
                    record.note_input(offset, u64::try_from(pending).unwrap_or(u64::MAX))
                }
                None => Ok(()),
            };
            if let Err(error) = note(self.offset, rest.len()) {
                let errno = error.raw_os_error().unwrap_or_default();
                return Taken::Refused(RequestRefused::Errno(errno));
            }
            let wrote = write(pipe, rest);
            if let Ok(count) = wrote {
                packet.written += count;
                let count = u64::try_from(count).unwrap_or_default();
                self.offset = self.offset.map(|offset| offset + count);
            }
            failpoint::hit("input.written");
            // If it fails, the note before it stands, and a rescuer knows that it does not know.
            let _ = note(self.offset, 0);
            match wrote {
                Ok(_) => {}
                Err(Errno::EAGAIN) => return Taken::PipeFull,
                Err(Errno::EINTR) => {}
                // EPIPE: nobody reads it any more.
                Err(_) => {
                    self.pipe = None;
                    return Taken::Refused(RequestRefused::StdinClosed);
                }
            }
        }
        if input.eof {
            self.pipe = None;
            self.ended = true;
        }
        Taken::Written
    }
}

/// A job's standard input as a sealed file in memory, opened for reading at its start. It needs nobody
/// to pump it and outlives every role.
pub(super) fn sealed_file(bytes: &[u8]) -> io::Result<OwnedFd> {
    let memory = memfd_create(
        c"stdin",
        MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING,
    )?;
    let mut file = File::from(memory);
    file.write_all(bytes)?;
    let seals = SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(open(
        path.as_str(),
        OFlag::O_RDONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?)
}
