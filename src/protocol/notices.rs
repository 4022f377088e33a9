//! Whatever the service's roles write for people, on standard error or output: log lines, greetings, complaints.
//!
//! A line is never waited for and never a reason to end: one that cannot be written at once is dropped, and the next
//! one that can be says how many were.

use std::borrow::Cow;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::write;

use linux::clock;

/// What a pipe that says it has room takes without waiting (`PIPE_BUF`, pipe(7)).
const CERTAIN: usize = 4096;

/// How many lines were dropped since the last one that was written.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// The last line on standard error was cut short.
static IS_CUT: AtomicBool = AtomicBool::new(false);

/// Lines on standard error are JSON objects.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// From now on the word about dropped lines is a JSON object, as the log is.
pub fn set_json() {
    IS_JSON.store(true, Ordering::Relaxed);
}

/// One line on standard output. Nobody is told if it cannot be written.
pub fn announce(message: &str) {
    let line = format!("{message}\n");
    let _ = write_now(io::stdout().as_fd(), line.as_bytes());
}

/// Standard output as a log writes to it, a line at a time. Nobody is told of what cannot be written.
#[derive(Clone, Copy, Debug)]
pub struct Announcements;

impl io::Write for Announcements {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let _ = write_now(io::stdout().as_fd(), line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Standard error as a log writes to it, a line at a time. It takes everything and fails never.
#[derive(Clone, Copy, Debug)]
pub struct Log;

impl Log {
    fn put(self, line: &[u8]) {
        let dropped = DROPPED.load(Ordering::Relaxed);
        let mut text = Cow::Borrowed(line);
        if dropped > 0 || IS_CUT.load(Ordering::Relaxed) {
            text = Cow::Owned([word_about(dropped).as_bytes(), line].concat());
        }
        match write_now(io::stderr().as_fd(), &text) {
            Ok(written) => {
                DROPPED.fetch_sub(dropped, Ordering::Relaxed);
                IS_CUT.store(written < text.len(), Ordering::Relaxed);
                if written < text.len() {
                    DROPPED.fetch_add(1, Ordering::Relaxed);
                }
            }
            Err(_) => {
                DROPPED.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl io::Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What comes before the first line that is written again.
fn word_about(dropped: u64) -> String {
    // Ends a line that was cut short.
    let end = if IS_CUT.load(Ordering::Relaxed) {
        "\n"
    } else {
        ""
    };
    let message = format!("{dropped} lines before this one were dropped: standard error took none");
    let now = clock::wall();
    match (dropped, IS_JSON.load(Ordering::Relaxed)) {
        (0, _) => end.to_owned(),
        (_, true) => format!(
            "{end}{{\"timestamp\":\"{now}\",\"level\":\"WARN\",\"message\":\"{message}\",\"dropped_lines\":{dropped}}}\n"
        ),
        (_, false) => format!("{end}{now}  WARN {message} dropped_lines={dropped}\n"),
    }
}

/// Writes what can be written without waiting, and says how much that was.
fn write_now(fd: BorrowedFd<'_>, bytes: &[u8]) -> nix::Result<usize> {
    let kind = SFlag::from_bits_truncate(fstat(fd)?.st_mode) & SFlag::S_IFMT;
    if kind == SFlag::S_IFSOCK {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        return send(fd.as_raw_fd(), bytes, flags);
    }
    if kind != SFlag::S_IFIFO && kind != SFlag::S_IFCHR {
        return write(fd, bytes);
    }
    // O_NONBLOCK on the descriptor itself would be seen by everybody who shares it (open(2)), so it is opened again.
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    if let Ok(own) = open(path.as_str(), flags, Mode::empty()) {
        return write(&own, bytes);
    }
    // Another user's pipe, or no descriptor is free.
    let mut room = [PollFd::new(fd, PollFlags::POLLOUT)];
    if poll(&mut room, PollTimeout::ZERO)? == 0 {
        return Err(Errno::EAGAIN);
    }
    write(fd, bytes.get(..CERTAIN).unwrap_or(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use nix::pty::openpty;
    use nix::unistd::pipe;

    use super::*;

    /// Writes lines until one is refused; there must be one.
    fn fill(fd: BorrowedFd<'_>) -> Errno {
        let line = [b'x'; 1000];
        let refused = (0..100_000).find_map(|_| write_now(fd, &line).err());
        refused.expect("it fills up")
    }

    #[test]
    fn what_is_full_is_not_waited_for() {
        let (read, write_end) = pipe().unwrap();
        assert_eq!(fill(write_end.as_fd()), Errno::EAGAIN);
        drop(read);
        assert_eq!(write_now(write_end.as_fd(), b"x"), Err(Errno::EPIPE));
        let (_here, there) = UnixStream::pair().unwrap();
        assert_eq!(fill(there.as_fd()), Errno::EAGAIN);
        let pair = openpty(None, None).unwrap();
        assert_eq!(fill(pair.slave.as_fd()), Errno::EAGAIN);
        let full = open("/dev/full", OFlag::O_WRONLY, Mode::empty()).unwrap();
        assert_eq!(write_now(full.as_fd(), b"x"), Err(Errno::ENOSPC));
    }
}
