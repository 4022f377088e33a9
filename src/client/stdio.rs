//! This process's own standard streams, however whoever started it has set them.
//!
//! They may be non-blocking, since that is a setting of the open file and others share it: what is not possible
//! now is waited for. Reads and writes run on threads of the runtime, so that a reader that does not read keeps
//! neither signals nor input from being handled.

use std::future::pending;
use std::io;
use std::os::fd::AsFd;
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::fstat;
use nix::unistd::{read, write};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};

use super::failure::Failure;
use super::follow::Stream;

/// How much is read at a time: what a pipe holds.
const PIECE: usize = 64 << 10;

/// So much output is collected before it is written.
const ENOUGH: usize = 64 << 10;

fn wait_for(fd: &impl AsFd, flags: PollFlags) -> io::Result<()> {
    let mut fds = [PollFd::new(fd.as_fd(), flags)];
    match poll(&mut fds, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Writes all of it.
pub(super) fn write_all(to: &impl AsFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match write(to, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(Errno::EAGAIN) => wait_for(to, PollFlags::POLLOUT)?,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Reads what there is, as soon as there is something; nothing at the end.
fn read_some(from: &impl AsFd) -> io::Result<Vec<u8>> {
    let mut piece = vec![0; PIECE];
    loop {
        match read(from, &mut piece) {
            Ok(count) => {
                piece.truncate(count);
                return Ok(piece);
            }
            Err(Errno::EAGAIN) => wait_for(from, PollFlags::POLLIN)?,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Standard input to its end.
pub(super) fn read_stdin() -> io::Result<Vec<u8>> {
    let (stdin, mut all) = (io::stdin(), Vec::new());
    loop {
        let piece = read_some(&stdin)?;
        if piece.is_empty() {
            return Ok(all);
        }
        all.extend(piece);
    }
}

/// Standard input, piece by piece.
///
/// [`Input::next`] may be dropped at any moment and called again: a read that has begun is kept here.
#[derive(Debug, Default)]
pub(super) struct Input {
    reading: Option<JoinHandle<io::Result<Vec<u8>>>>,
}

impl Input {
    /// The next bytes; none at the end.
    pub(super) async fn next(&mut self) -> io::Result<Vec<u8>> {
        let reading = self
            .reading
            .get_or_insert_with(|| spawn_blocking(|| read_some(&io::stdin())));
        let read = reading.await;
        self.reading = None;
        read.map_err(io::Error::other)?
    }
}

/// Standard output and error, in the order in which they are written to.
#[derive(Debug, Default)]
pub(super) struct Sinks {
    pending: Vec<u8>,
    last: Option<Stream>,
}

impl Sinks {
    /// Takes bytes for a stream.
    pub(super) async fn write(&mut self, stream: Stream, bytes: &[u8]) -> Result<(), Failure> {
        if self.last != Some(stream) {
            self.flush().await?;
            self.last = Some(stream);
        }
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= ENOUGH {
            self.flush().await?;
        }
        Ok(())
    }

    /// Returns once everything has been written.
    pub(super) async fn flush(&mut self) -> Result<(), Failure> {
        let Some(stream) = self.last.filter(|_| !self.pending.is_empty()) else {
            return Ok(());
        };
        let bytes = std::mem::take(&mut self.pending);
        let written = spawn_blocking(move || match stream {
            Stream::Stdout => write_all(&io::stdout(), &bytes),
            Stream::Stderr => write_all(&io::stderr(), &bytes),
        });
        let written = written.await.map_err(io::Error::other);
        written.flatten().map_err(|error| Failure::writing(&error))
    }
}

/// Resolves when nobody reads standard output any more, before anything is written to it, as of `tail -f`.
pub(super) async fn reader_gone() {
    static GONE: OnceLock<watch::Receiver<bool>> = OnceLock::new();
    let mut gone = GONE.get_or_init(watch_reader).clone();
    if gone.wait_for(|is_gone| *is_gone).await.is_err() {
        pending().await
    }
}

/// Waits in a thread, which ends with the process: a file has readers for ever.
fn watch_reader() -> watch::Receiver<bool> {
    let (tell, gone) = watch::channel(false);
    std::thread::spawn(move || {
        let stdout = io::stdout();
        loop {
            // Errors are reported without being asked for.
            let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
        let _ = tell.send(true);
    });
    gone
}

/// Are standard output and standard error one file, as after `2>&1`?
pub(super) fn is_one_file() -> bool {
    let (Ok(out), Ok(err)) = (fstat(io::stdout()), fstat(io::stderr())) else {
        return false;
    };
    (out.st_dev, out.st_ino) == (err.st_dev, err.st_ino)
}
