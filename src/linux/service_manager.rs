//! What systemd and others like it give a service and are told by it: sd_notify(3), sd_listen_fds(3),
//! sd_watchdog_enabled(3).

use std::env;
use std::io;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::sys;

/// Where it listens.
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";
const WATCHDOG_USEC: &str = "WATCHDOG_USEC";
const WATCHDOG_PID: &str = "WATCHDOG_PID";
const LISTEN_FDS: &str = "LISTEN_FDS";
const LISTEN_PID: &str = "LISTEN_PID";

/// The first descriptor of those that are passed on.
const FIRST_FD: i32 = 3;

/// Is there a service manager that wants to be told?
#[must_use]
pub fn listens() -> bool {
    env::var_os(NOTIFY_SOCKET).is_some_and(|path| !path.is_empty())
}

/// Tells it, without waiting: lines of `NAME=value`.
pub fn tell(lines: &str) -> io::Result<()> {
    let Some(path) = env::var_os(NOTIFY_SOCKET).filter(|path| !path.is_empty()) else {
        return Ok(());
    };
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(lines.as_bytes(), &address)?;
    Ok(())
}

/// How long it waits for a sign of life, if it waits for one.
#[must_use]
pub fn watchdog() -> Option<Duration> {
    let is_for_us = env::var(WATCHDOG_PID).map_or(true, |pid| pid == own_pid());
    let micros = env::var(WATCHDOG_USEC).ok()?.parse().ok()?;
    (is_for_us && micros > 0).then(|| Duration::from_micros(micros))
}

/// The sockets that it has opened for this process; to be taken once, before anything else is opened.
pub fn sockets() -> io::Result<Vec<OwnedFd>> {
    let is_for_us = env::var(LISTEN_PID).is_ok_and(|pid| pid == own_pid());
    let count = env::var(LISTEN_FDS)
        .ok()
        .and_then(|count| count.parse::<i32>().ok());
    let Some(count) = count.filter(|count| is_for_us && (1..=64).contains(count)) else {
        return Ok(Vec::new());
    };
    (FIRST_FD..FIRST_FD + count)
        .map(sys::adopt_passed_fd)
        .collect()
}

fn own_pid() -> String {
    std::process::id().to_string()
}
