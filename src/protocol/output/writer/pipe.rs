//! What a pipe holds, and whether more can come.

use std::io;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use linux::sys;

pub(super) enum Available {
    Bytes(u64),
    Nothing,
    Closed,
}

/// What this pipe holds; it never blocks.
pub(super) fn available(pipe: BorrowedFd<'_>) -> io::Result<Available> {
    loop {
        let bytes = sys::bytes_in_pipe(pipe)?;
        if bytes > 0 {
            return Ok(Available::Bytes(u64::try_from(bytes).unwrap_or(u64::MAX)));
        }
        let mut polled = [PollFd::new(pipe, PollFlags::POLLIN)];
        match poll(&mut polled, PollTimeout::ZERO) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let events = polled[0].revents().unwrap_or(PollFlags::empty());
        if events.contains(PollFlags::POLLIN) {
            // They came in between.
            continue;
        }
        return Ok(if events.contains(PollFlags::POLLHUP) {
            Available::Closed
        } else {
            Available::Nothing
        });
    }
}
