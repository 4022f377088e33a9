//! Who is on the other end of a connection, as the kernel tells it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::geteuid;
use tokio::net::UnixStream;

use linux::procfs;
use linux::sandbox;

/// Who is on the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    Tcp(SocketAddr),
    /// A process of this user.
    Unix(u32),
    /// The hub of this node, over a stream that the node has opened.
    Hub,
    /// A process on the unix socket that is confined more than this service: its uid is no proof of who
    /// sent it there, so that it must show what a client over TCP shows.
    Confined,
}

/// Who is on the other end of a unix socket; `own_status` is this process's `/proc/self/status`.
///
/// Landlock does not close sockets that have a path, and a job in a sandbox under the service's own user
/// is to have no more than a stranger. Its filter for system calls gives it away.
pub(super) fn of(stream: &UnixStream, own_status: &str) -> io::Result<Peer> {
    let peer = stream.peer_cred()?;
    let as_told = Peer::Unix(peer.uid());
    // Others get in as root or not at all. A process without a number here is of another container.
    let Some(pid) = peer.pid().filter(|pid| *pid > 0) else {
        return Ok(as_told);
    };
    if peer.uid() != geteuid().as_raw() {
        return Ok(as_told);
    }
    // Another number names another process as soon as this one is gone. This descriptor does not.
    let process = match getsockopt(stream, sockopt::PeerPidfd) {
        Ok(process) => Some(process),
        Err(Errno::ENOPROTOOPT) => None, // Before Linux 6.5.
        Err(_) => return Ok(Peer::Confined),
    };
    let confined = match procfs::read_small(format!("/proc/{pid}/status")) {
        Ok(status) => {
            sandbox::is_more_confined(&status, own_status) || process.is_some_and(has_ended)
        }
        Err(_) => true,
    };
    Ok(if confined { Peer::Confined } else { as_told })
}

fn has_ended(process: OwnedFd) -> bool {
    let mut polled = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    poll(&mut polled, PollTimeout::ZERO) != Ok(0)
}
