//! From the job's pipes to its log.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{FcntlArg, fcntl};

use super::{Monitor, OUTPUT_RETRY};
use job::life::Event;
use job::spec::OnLimit;
use job::time::Now;
use protocol::output::{Pumped, Stream};

/// What a pipe holds at first (pipe(7)), and what one gets whose job writes faster than that is taken away:
/// the most that an ordinary user may ask for.
const NARROW: u64 = 64 * 1024;
const WIDE: i32 = 1024 * 1024;

/// So many steps in a row find the pipe full before it is made wider.
const FULL_STEPS: u8 = 4;

/// How often in a row either pipe was found full.
#[derive(Debug, Default)]
pub(super) struct Width {
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

impl Monitor {
    pub(super) fn pipe(&self, stream: Stream) -> Option<&OwnedFd> {
        match stream {
            Stream::Stdout => self.stdout.as_ref(),
            Stream::Stderr => self.stderr.as_ref(),
        }
    }

    pub(super) fn pump(&mut self, stream: Stream, now: Now) -> io::Result<()> {
        self.pump_once(stream, now)?;
        self.tell_output_closed(now)
    }

    /// One step from a pipe to the log; is there more at once?
    pub(super) fn pump_once(&mut self, stream: Stream, now: Now) -> io::Result<bool> {
        let is_filled = stream == Stream::Stdout && self.fill_from_terminal();
        let pipe = match stream {
            Stream::Stdout => self.stdout.as_ref(),
            Stream::Stderr => self.stderr.as_ref(),
        };
        let Some(pipe) = pipe else { return Ok(false) };
        let more = match self.output.pump(stream, pipe.as_fd(), now.wall) {
            Ok(Pumped::Moved(moved)) => {
                if self.width.is_too_small(stream, moved) {
                    // Where the user's share of memory for pipes is used up, it stays as it is.
                    let _ = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(WIDE));
                }
                true
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
            Err(_) => {
                self.output_retry_at = Some(now.boot.after(OUTPUT_RETRY));
                false
            }
        };
        if self.output.limit_reached() && self.facts.life.plan().output.on_limit == OnLimit::StopJob
        {
            self.apply(Event::OutputLimitReached, now)?;
        }
        Ok(more || (is_filled && self.output_retry_at.is_none()))
    }

    pub(super) fn tell_output_closed(&mut self, now: Now) -> io::Result<()> {
        if self.stdout.is_none() && self.stderr.is_none() {
            self.apply(Event::OutputClosed, now)?;
        }
        Ok(())
    }
}
