//! The listening sockets, bound once and kept over every restart of the server.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::sys::socket::{getsockopt, sockopt};

use crate::state_dir::UNIX_SOCKET;

/// Both listening sockets.
#[derive(Debug)]
pub struct Listeners {
    pub tcp: TcpListener,
    pub unix: UnixListener,
}

impl Listeners {
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            tcp: self.tcp.try_clone()?,
            unix: self.unix.try_clone()?,
        })
    }
}

/// Binds both; the error is one line that says the fix. A socket that a service manager has opened stands for the
/// address.
pub fn bind(
    listen: SocketAddr,
    passed: Vec<OwnedFd>,
    state_dir: &Path,
) -> Result<Listeners, String> {
    let tcp = match <[OwnedFd; 1]>::try_from(passed) {
        Ok([passed]) => take(passed)?,
        Err(passed) if passed.is_empty() => bind_tcp(listen)?,
        Err(_) => {
            return Err("several sockets were passed on; name one ListenStream=".to_owned());
        }
    };
    let unix = bind_unix(state_dir)
        .map_err(|error| format!("cannot make the unix socket in the state directory: {error}"))?;
    Ok(Listeners { tcp, unix })
}

/// What was passed on, if it is a TCP socket that listens.
fn take(passed: OwnedFd) -> Result<TcpListener, String> {
    let listens = getsockopt(&passed, sockopt::AcceptConn).unwrap_or(false);
    let tcp = TcpListener::from(passed);
    if listens && tcp.local_addr().is_ok() {
        Ok(tcp)
    } else {
        Err("the socket that was passed on is no listening TCP socket; name ADDRESS:PORT in ListenStream=".to_owned())
    }
}

fn bind_tcp(listen: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(listen).map_err(|error| {
        if error.kind() == io::ErrorKind::AddrInUse {
            format!("{listen} is in use by another process; choose another address with --listen")
        } else {
            format!("cannot listen on {listen}: {error}; choose another address with --listen")
        }
    })
}

fn bind_unix(state_dir: &Path) -> io::Result<UnixListener> {
    let path = state_dir.join(UNIX_SOCKET);
    // The state directory's lock is ours, so a socket that is there is nobody's any more.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // An address has room for 108 bytes; this form does not depend on the length of the path.
    let directory = std::fs::File::open(state_dir)?;
    let listener = UnixListener::bind(format!(
        "/proc/self/fd/{}/{UNIX_SOCKET}",
        directory.as_raw_fd()
    ))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}
