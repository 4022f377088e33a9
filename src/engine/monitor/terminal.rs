//! A job's terminal: read into the pipe of standard output, resized.
//!
//! The pipe stands between the terminal and the log, since the log takes what is still in a pipe for its own:
//! each byte is in the terminal, in the pipe or in the log, whoever is killed. splice(2) moves it in one step.
//! The end of the output is that no process of the job is left and none has the terminal open (EIO, see `pty(7)`).

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, SpliceFFlags, open, splice};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, stat};
use nix::sys::termios::{self, InputFlags, SetArg};
use nix::unistd::{read, write};

use job::pty::{Pty, Size};
use linux::sys;
use protocol::wire::messages::Input;

/// What is moved at once: as much as a pipe holds by default.
const MOST: usize = 64 << 10;

/// What a pipe that says it has room takes for certain (`PIPE_BUF`, pipe(7)).
const CERTAIN: usize = 4096;

/// A terminal, as its monitor holds it.
#[derive(Debug)]
pub(super) struct Terminal {
    master: OwnedFd,
    /// The write end of the pipe; `None` after the end.
    feed: Option<OwnedFd>,
    /// The other side, from the moment on at which nobody has it open and until none of the job's processes is left: one
    /// of them may open it again by name.
    held: Option<OwnedFd>,
    /// Nothing will open it any more.
    is_final: bool,
    /// Nothing has been typed since the last end of a line; so far as this monitor knows.
    at_line_start: bool,
}

/// A terminal, and what the leader and the monitor have of it in the places of pipes.
#[derive(Debug)]
pub(super) struct Plugged {
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    /// What standard input is written to.
    pub(super) keyboard: OwnedFd,
    pub(super) terminal: Terminal,
}

/// What came of one look at a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    Bytes,
    Nothing,
    /// Nobody has the other side open.
    End,
}

impl Plugged {
    /// Plugs a job into its terminal; `feed` is the write end of the pipe of standard output.
    pub(super) fn new(
        pty: &Pty,
        pair: Option<nix::Result<(OwnedFd, OwnedFd)>>,
        feed: OwnedFd,
    ) -> io::Result<Self> {
        let (master, slave) = pair.unwrap_or(Err(Errno::ENOTTY))?;
        let terminal = Terminal::new(master, feed, pty.size())?;
        Ok(Self {
            stdin: slave.try_clone()?,
            stdout: slave,
            keyboard: terminal.keyboard()?,
            terminal,
        })
    }
}

impl Terminal {
    /// The terminal of a job that is being launched, at its size; `feed` is the write end of the pipe.
    pub(super) fn new(master: OwnedFd, feed: OwnedFd, size: Size) -> io::Result<Self> {
        sys::set_nonblocking(master.as_fd())?;
        sys::set_nonblocking(feed.as_fd())?;
        sys::set_terminal_size(master.as_fd(), size.rows, size.cols)?;
        // Erasing takes whole characters, where the terminal itself is the editor.
        let mut modes = termios::tcgetattr(&master)?;
        modes.input_flags.insert(InputFlags::IUTF8);
        termios::tcsetattr(&master, SetArg::TCSANOW, &modes)?;
        Ok(Self {
            master,
            feed: Some(feed),
            held: None,
            is_final: false,
            at_line_start: true,
        })
    }

    /// The terminal of a job whose monitor died; `pipe` is the read end, whose write end died with it.
    pub(super) fn taken_over(master: OwnedFd, pipe: &OwnedFd) -> io::Result<Self> {
        // A pipe can be opened again as long as anybody has one of its ends (proc_pid_fd(5)).
        let path = format!("/proc/self/fd/{}", pipe.as_raw_fd());
        let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let feed = open(path.as_str(), flags, Mode::empty())?;
        Ok(Self {
            master,
            feed: Some(feed),
            held: None,
            is_final: false,
            at_line_start: false,
        })
    }

    /// What the job's standard input is written to.
    pub(super) fn keyboard(&self) -> io::Result<OwnedFd> {
        self.master.try_clone()
    }

    /// Moves what the job has written to the pipe, as far as there is room; was there anything?
    pub(super) fn fill(&mut self) -> bool {
        let Some(feed) = &self.feed else { return false };
        match self.take(feed) {
            Taken::Bytes => true,
            Taken::Nothing => false,
            // The kernel looks for bytes first and for writers then: the last of them may have written and gone in between.
            Taken::End if self.is_final && self.take(feed) == Taken::Bytes => true,
            Taken::End => self.ended(),
        }
    }

    fn take(&self, feed: &OwnedFd) -> Taken {
        let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
        let moved = match splice(&self.master, None, feed, None, MOST, flags) {
            // Not every kernel, and not every sandbox, can splice from a terminal.
            Err(Errno::EINVAL) => copy(&self.master, feed),
            moved => moved,
        };
        match moved {
            Ok(1..) => Taken::Bytes,
            Err(Errno::EAGAIN | Errno::EINTR) => Taken::Nothing,
            Ok(0) | Err(_) => Taken::End,
        }
    }

    /// EIO: nobody has the other side open. While the job lives that is not its end: it is held open here, so that
    /// what is written to it later arrives; and held again if somebody hangs it up (vhangup(2)).
    fn ended(&mut self) -> bool {
        self.held = if self.is_final {
            None
        } else {
            sys::terminal_peer(self.master.as_fd()).ok()
        };
        if self.held.is_none() {
            self.feed = None;
        }
        false
    }

    /// No process of the job is left: what they wrote is read to its end.
    pub(super) fn let_go(&mut self) {
        self.is_final = true;
        self.held = None;
    }

    /// The master, if its having something to say matters.
    pub(super) fn awaited(&self) -> Option<&OwnedFd> {
        self.feed.as_ref().map(|_| &self.master)
    }

    pub(super) fn resize(&self, size: Size) -> nix::Result<()> {
        sys::set_terminal_size(self.master.as_fd(), size.rows, size.cols)
    }

    /// The input as it goes into a terminal, which has no end that could be closed: it is typed.
    pub(super) fn typed(&mut self, input: &mut Input) {
        if let Some(last) = input.bytes.last() {
            self.at_line_start = matches!(last, b'\n' | b'\r');
        }
        if input.eof {
            input.bytes.extend(self.end_of_input());
        }
    }

    /// What a person types to say that nothing follows: once at the start of a line, else twice.
    fn end_of_input(&self) -> Vec<u8> {
        let Ok(modes) = termios::tcgetattr(&self.master) else {
            return Vec::new();
        };
        let character = modes.control_chars.get(libc::VEOF).copied();
        let times = if self.at_line_start { 1 } else { 2 };
        character
            .filter(|character| *character != libc::_POSIX_VDISABLE)
            .map_or_else(Vec::new, |character| vec![character; times])
    }
}

/// The same as splice(2) in two steps: between them, a kill of the monitor loses what was read.
fn copy(terminal: &OwnedFd, pipe: &OwnedFd) -> nix::Result<usize> {
    let mut room = [PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)];
    if poll(&mut room, PollTimeout::ZERO)? == 0 {
        return Err(Errno::EAGAIN);
    }
    let mut bytes = [0; CERTAIN];
    let count = read(terminal, &mut bytes)?;
    write(pipe, bytes.get(..count).unwrap_or_default())
}

/// The device number by which `/proc` knows a terminal, given its master.
pub(super) fn device(master: &OwnedFd) -> Option<u64> {
    let number = sys::terminal_number(master.as_fd()).ok()?;
    let slave = stat(format!("/dev/pts/{number}").as_str()).ok()?;
    Some(slave.st_rdev)
}

#[cfg(test)]
mod tests {
    use nix::pty::openpty;
    use nix::unistd::pipe;

    use super::*;

    fn terminal() -> (Terminal, OwnedFd, OwnedFd) {
        let pair = openpty(None, None).unwrap();
        let (read, write) = pipe().unwrap();
        let size = Size { rows: 5, cols: 7 };
        let terminal = Terminal::new(pair.master, write, size).unwrap();
        (terminal, pair.slave, read)
    }

    fn read_all(pipe: &OwnedFd) -> Vec<u8> {
        let mut bytes = vec![0; 1 << 16];
        let count = read(pipe, &mut bytes).unwrap();
        bytes.truncate(count);
        bytes
    }

    #[test]
    fn what_is_written_reaches_the_pipe_and_the_end_of_the_job_ends_it() {
        let (mut terminal, slave, pipe) = terminal();
        assert!(!terminal.fill(), "nothing yet");
        write(&slave, b"one\n").unwrap();
        assert!(terminal.fill());
        assert_eq!(read_all(&pipe), b"one\r\n");
        write(&slave, b"two\n").unwrap();
        drop(slave);
        while terminal.fill() {}
        assert_eq!(read_all(&pipe), b"two\r\n");
        // It was let go of, and is opened again by name.
        assert!(!terminal.fill());
        let name = format!(
            "/dev/pts/{}",
            sys::terminal_number(terminal.master.as_fd()).unwrap()
        );
        let again = open(
            name.as_str(),
            OFlag::O_WRONLY | OFlag::O_NOCTTY,
            Mode::empty(),
        )
        .unwrap();
        write(&again, b"three\n").unwrap();
        drop(again);
        assert!(terminal.fill());
        assert_eq!(read_all(&pipe), b"three\r\n");
        terminal.let_go();
        while terminal.feed.is_some() {
            terminal.fill();
        }
        assert_eq!(read_all(&pipe), b"", "the end");
    }

    #[test]
    fn what_cannot_be_spliced_is_copied() {
        let (terminal, slave, pipe) = terminal();
        let feed = terminal.feed.as_ref().unwrap();
        assert_eq!(copy(&terminal.master, feed), Err(Errno::EAGAIN));
        write(&slave, b"one\n").unwrap();
        assert_eq!(copy(&terminal.master, feed), Ok(5));
        assert_eq!(read_all(&pipe), b"one\r\n");
        drop(slave);
        assert_eq!(copy(&terminal.master, feed), Err(Errno::EIO));
    }

    #[test]
    fn a_full_pipe_keeps_the_rest_in_the_terminal() {
        let (mut terminal, slave, pipe) = terminal();
        let modes = {
            let mut modes = termios::tcgetattr(&slave).unwrap();
            termios::cfmakeraw(&mut modes);
            modes
        };
        termios::tcsetattr(&slave, SetArg::TCSANOW, &modes).unwrap();
        let wanted = 300_000;
        let writer = std::thread::spawn(move || {
            let mut left = wanted;
            while left > 0 {
                left -= write(&slave, &vec![b'x'; left.min(4000)]).unwrap();
            }
        });
        terminal.let_go();
        let mut got = 0;
        while got < wanted || terminal.feed.is_some() {
            while terminal.fill() {}
            if sys::bytes_in_pipe(pipe.as_fd()).unwrap() > 0 {
                got += read_all(&pipe).len();
            }
        }
        writer.join().unwrap();
        assert_eq!(got, wanted);
    }

    #[test]
    fn a_pipe_is_fed_again_after_its_writer_died() {
        let pair = openpty(None, None).unwrap();
        let (read_end, write_end) = pipe().unwrap();
        sys::set_nonblocking(pair.master.as_fd()).unwrap();
        write(&write_end, b"before ").unwrap();
        drop(write_end);
        let mut terminal = Terminal::taken_over(pair.master, &read_end).unwrap();
        write(&pair.slave, b"after").unwrap();
        assert!(terminal.fill());
        assert_eq!(read_all(&read_end), b"before after");
    }

    #[test]
    fn the_end_of_the_input_is_typed_as_often_as_it_takes() {
        let (mut terminal, _slave, _pipe) = terminal();
        assert_eq!(terminal.end_of_input(), [4]);
        terminal.at_line_start = false;
        assert_eq!(terminal.end_of_input(), [4, 4]);
    }
}
