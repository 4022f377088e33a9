//! The listening sockets, bound once and kept over every restart of the server.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};

use crate::record;
use crate::state_dir::{SERVING, UNIX_SOCKET};

/// How long the server of a supervisor that was killed may keep the address.
const PREDECESSOR_END: Duration = Duration::from_secs(60);

/// How long it may take to end without its lock.
const PREDECESSOR_TEARDOWN: Duration = Duration::from_secs(2);

/// How often the address is tried until then, in milliseconds.
const PREDECESSOR_PAUSE: u8 = 10;

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
/// address. A server of this state directory whose supervisor was killed is waited for: it keeps the address for as long
/// as it has requests to answer.
pub fn bind(
    listen: SocketAddr,
    passed: Vec<OwnedFd>,
    state_dir: &Path,
) -> Result<Listeners, String> {
    let tcp = match <[OwnedFd; 1]>::try_from(passed) {
        Ok([passed]) => take(passed)?,
        Err(passed) if passed.is_empty() => bind_tcp(listen, state_dir)?,
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

fn bind_tcp(listen: SocketAddr, state_dir: &Path) -> Result<TcpListener, String> {
    let began = Instant::now();
    let mut last_served = began;
    loop {
        if began.elapsed() < PREDECESSOR_END && is_served(state_dir) {
            last_served = Instant::now();
        }
        // The server lets go of its lock before it ends, and of the address when it ends.
        let may_come_free = last_served.elapsed() < PREDECESSOR_TEARDOWN;
        let why = match TcpListener::bind(listen) {
            Ok(tcp) => return Ok(tcp),
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                format!("cannot listen on {listen}: {error}")
            }
            Err(_) if may_come_free => {
                let _ = poll(&mut [], PollTimeout::from(PREDECESSOR_PAUSE));
                continue;
            }
            Err(_) => format!("{listen} is in use by another process"),
        };
        return Err(format!("{why}; choose another address with --listen"));
    }
}

/// Is there a server of this state directory, whose supervisor is gone if the directory's own lock is to be had?
fn is_served(state_dir: &Path) -> bool {
    let holder = File::open(state_dir.join(SERVING)).and_then(|file| record::lock_holder(&file));
    holder.is_ok_and(|holder| holder.is_some())
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
