//! Emptying a directory that holds whatever anybody has left there.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::directory;

/// Names of directories that were moved up.
static MOVED: AtomicU64 = AtomicU64::new(0);

/// Removes about `most` entries of a directory that nobody else uses, and of what is beneath; `true`: it is empty.
///
/// A directory within a directory is moved to the top before it is emptied. So no path gets long, and nothing has to be
/// remembered.
pub fn clear(trash: BorrowedFd<'_>, most: usize) -> io::Result<bool> {
    let mut left = most;
    // Directories within directories come up, one level a turn.
    loop {
        let found = names(trash, left)?;
        if found.is_empty() {
            return Ok(true);
        }
        for name in found {
            match unlinkat(trash, name.as_c_str(), UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => left = left.saturating_sub(1),
                Err(Errno::EISDIR | Errno::EPERM) => {
                    left = left.saturating_sub(empty(trash, &name, left)?);
                }
                Err(errno) => return Err(errno.into()),
            }
            if left == 0 {
                return Ok(false);
            }
        }
    }
}

/// Empties one directory, and removes it if it is empty then; returns how many entries that took.
fn empty(trash: BorrowedFd<'_>, name: &std::ffi::CStr, most: usize) -> io::Result<usize> {
    let opened = open_anyway(trash, name)?;
    let mut done = 1;
    for inner in names(opened.as_fd(), most)? {
        done += 1;
        match unlinkat(&opened, inner.as_c_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => continue,
            Err(Errno::EISDIR | Errno::EPERM) => {}
            Err(errno) => return Err(errno.into()),
        }
        match unlinkat(&opened, inner.as_c_str(), UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => continue,
            Err(Errno::ENOTEMPTY | Errno::EACCES) => {}
            Err(errno) => return Err(errno.into()),
        }
        // It must be open to us to be moved.
        drop(open_anyway(opened.as_fd(), &inner)?);
        let number = MOVED.fetch_add(1, Ordering::Relaxed);
        let moved = format!("{}.{number}", std::process::id());
        renameat(&opened, inner.as_c_str(), trash, moved.as_str())?;
    }
    match unlinkat(trash, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT | Errno::ENOTEMPTY) => Ok(done),
        Err(errno) => Err(errno.into()),
    }
}

/// Opens a directory whose modes may forbid it to its own owner.
fn open_anyway(at: BorrowedFd<'_>, name: &std::ffi::CStr) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let found = openat(at, name, flags, Mode::empty())?;
    if let Ok(opened) = directory(found.as_fd(), "")
        && nix::unistd::faccessat(
            &found,
            ".",
            nix::unistd::AccessFlags::W_OK | nix::unistd::AccessFlags::X_OK,
            nix::fcntl::AtFlags::AT_EACCESS,
        )
        .is_ok()
    {
        return Ok(opened);
    }
    // By its descriptor, which stands for this directory whatever has its name by now.
    let path = format!("/proc/self/fd/{}", found.as_raw_fd());
    let here = nix::fcntl::AT_FDCWD;
    fchmodat(
        here,
        path.as_str(),
        Mode::from_bits_truncate(0o700),
        FchmodatFlags::FollowSymlink,
    )?;
    directory(found.as_fd(), "")
}

fn names(at: BorrowedFd<'_>, most: usize) -> io::Result<Vec<std::ffi::CString>> {
    let mut listing = Dir::from_fd(directory(at, "")?)?;
    let mut names = Vec::new();
    for found in listing.iter() {
        let found = found?;
        let name = found.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
        if names.len() >= most {
            break;
        }
    }
    Ok(names)
}
