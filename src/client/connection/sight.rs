//! Does the service see a directory as this command does?

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::geteuid;

/// The same directory, and the same user: one in a container, or under another user, may not get into it.
pub(super) fn is_shared(socket: &Path, directory: &Path) -> bool {
    let same = || {
        let service = getsockopt(&UnixStream::connect(socket).ok()?, PeerCredentials).ok()?;
        if service.uid() != geteuid().as_raw() || service.pid() <= 0 {
            return None;
        }
        let there = format!("/proc/{}/root{}", service.pid(), directory.display());
        let (here, there) = (fs::metadata(directory).ok()?, fs::metadata(there).ok()?);
        Some((here.dev(), here.ino()) == (there.dev(), there.ino()))
    };
    directory.is_absolute() && same().unwrap_or(false)
}
