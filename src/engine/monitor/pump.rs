//! From the job's pipes to its log.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::PollFlags;

use super::terminal::Terminal;
use super::{Awaited, Ready};
use job::OutputTotals;
use job::time::{BootInstant, Now};
use protocol::output::{self, Pumped, Short, Stream};

/// How soon output is tried again after the disk refused it.
const OUTPUT_RETRY: Duration = Duration::from_secs(1);

/// How long a job waits for the readers of its output before its record says so.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a pipe holds at first (pipe(7)), and what one gets whose job writes faster than that is taken away:
/// the most that an ordinary user may ask for.
const NARROW: u64 = 64 * 1024;
const WIDE: i32 = 1024 * 1024;

/// So many steps in a row find the pipe full before it is made wider.
const FULL_STEPS: u8 = 4;

/// How often in a row either pipe was found full.
#[derive(Debug, Default)]
struct Width {
    stdout: u8,
    stderr: u8,
}

impl Width {
    /// Takes in a step; is it time to make the pipe wider? Once.
    fn is_too_small(&mut self, stream: Stream, moved: u64) -> bool {
        let full = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        if *full > FULL_STEPS {
            return false;
        }
        *full = if moved < NARROW { 0 } else { *full + 1 };
        *full > FULL_STEPS
    }
}

/// The ends of a job's pipes that are read here, and where what they hold goes.
pub(super) struct Pump {
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    terminal: Option<Terminal>,
    output: output::Writer,
    retry_at: Option<BootInstant>,
    /// Why the disk took nothing at the last attempt, as an errno.
    refusal: Option<i32>,
    /// The log is full until more of it has been read, and since when.
    full_since: Option<BootInstant>,
    /// That has been so for more than a moment.
    is_long_full: bool,
    width: Width,
}

impl Pump {
    pub(super) fn new(
        stdout: OwnedFd,
        stderr: Option<OwnedFd>,
        terminal: Option<Terminal>,
        output: output::Writer,
    ) -> Self {
        Self {
            stdout: Some(stdout),
            stderr,
            terminal,
            output,
            retry_at: None,
            refusal: None,
            full_since: None,
            is_long_full: false,
            width: Width::default(),
        }
    }

    pub(super) fn awaited<'a>(&'a self, awaited: &mut Vec<Awaited<'a>>) {
        if self.retry_at.is_some() || self.full_since.is_some() {
            return;
        }
        let terminal = self.terminal.as_ref().filter(|_| self.stdout.is_some());
        let readable = [
            (Ready::Stdout, self.stdout.as_ref()),
            (Ready::Stderr, self.stderr.as_ref()),
            (Ready::Terminal, terminal.and_then(Terminal::awaited)),
        ];
        for (ready, fd) in readable {
            awaited.extend(fd.map(|fd| (ready, fd.as_fd(), PollFlags::POLLIN)));
        }
    }

    /// When output is tried again that the disk has refused, or a wait for readers is long.
    pub(super) fn due(&self) -> Option<BootInstant> {
        let long = self.full_since.filter(|_| !self.is_long_full);
        let long = long.map(|since| since.after(PATIENCE));
        self.retry_at.into_iter().chain(long).min()
    }

    /// The log is full until more of it has been read.
    pub(super) fn is_full(&self) -> bool {
        self.full_since.is_some()
    }

    /// That has been so for more than a moment.
    pub(super) fn is_long_full(&self) -> bool {
        self.is_long_full
    }

    /// All output before this offset has been read.
    pub(super) fn read_up_to(&mut self, offset: u64) {
        self.output.read_up_to(offset);
        self.try_again();
    }

    /// No process is left that could wait.
    pub(super) fn take_the_rest(&mut self) {
        self.output.take_the_rest();
        self.try_again();
    }

    fn try_again(&mut self) {
        self.full_since = None;
    }

    /// Why output cannot be written down at the moment, as an errno.
    pub(super) fn refusal(&self) -> Option<i32> {
        self.refusal
    }

    pub(super) fn on_time(&mut self, now: BootInstant) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
        }
        let is_long = |since: BootInstant| since.after(PATIENCE) <= now;
        self.is_long_full = self
            .full_since
            .is_some_and(|since| self.is_long_full || is_long(since));
    }

    pub(super) fn is_open(&self, stream: Stream) -> bool {
        match stream {
            Stream::Stdout => self.stdout.is_some(),
            Stream::Stderr => self.stderr.is_some(),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.stdout.is_none() && self.stderr.is_none()
    }

    pub(super) fn close(&mut self) {
        self.stdout = None;
        self.stderr = None;
    }

    pub(super) fn terminal(&mut self) -> Option<&mut Terminal> {
        self.terminal.as_mut()
    }

    pub(super) fn totals(&self) -> OutputTotals {
        self.output.totals()
    }

    pub(super) fn limit_reached(&mut self) -> bool {
        self.output.limit_reached()
    }

    /// All of the output, if it is short and can be read back.
    pub(super) fn short(&self) -> Option<Short> {
        self.output.short().ok().flatten()
    }

    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.output.sync()
    }

    /// One step from a pipe to the log; is there more at once?
    pub(super) fn step(&mut self, stream: Stream, now: Now) -> bool {
        let is_filled =
            stream == Stream::Stdout && self.terminal.as_mut().is_some_and(Terminal::fill);
        let pipe = match stream {
            Stream::Stdout => self.stdout.as_ref(),
            Stream::Stderr => self.stderr.as_ref(),
        };
        let Some(pipe) = pipe else { return false };
        let more = match self.output.pump(stream, pipe.as_fd(), now.wall) {
            Ok(Pumped::Moved(moved)) => {
                self.refusal = None;
                if self.width.is_too_small(stream, moved) {
                    // If the user's share of memory for pipes is used up, it stays as it is.
                    let _ = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(WIDE));
                }
                true
            }
            Ok(Pumped::Full) => {
                self.full_since.get_or_insert(now.boot);
                return false;
            }
            // `Blocked`: the other pipe comes first, and is ready too.
            Ok(Pumped::Empty | Pumped::Blocked) => false,
            Ok(Pumped::Closed) => {
                match stream {
                    Stream::Stdout => self.stdout = None,
                    Stream::Stderr => self.stderr = None,
                }
                false
            }
            // A full or failing disk leaves the bytes in the pipe, and the job waits.
            Err(error) => {
                self.refusal = Some(error.raw_os_error().unwrap_or_default());
                self.retry_at = Some(now.boot.after(OUTPUT_RETRY));
                false
            }
        };
        more || (is_filled && self.retry_at.is_none())
    }
}
