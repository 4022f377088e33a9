//! A job's directory beside its output: made, opened, tidied and removed. Records are only looked at here
//! to find out whether a launch may be discarded.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::notes::read_last_word;
use super::{FILE, ReadRecord, is_orphaned, lock, read_record};
use crate::output;
use job::JobId;

/// The name of the socket that a monitor binds in the job's directory once its server is gone.
pub const CONTROL_SOCKET: &str = "control";

/// The name of a record that was put aside.
const DAMAGED: &str = "record.damaged";

/// Puts a damaged record aside, under a name that no reader looks for.
pub fn quarantine(jobs: BorrowedFd<'_>, job: JobId) -> io::Result<()> {
    let directory = open_directory(jobs, job)?;
    nix::fcntl::renameat(&directory, FILE, &directory, DAMAGED)?;
    Ok(())
}

/// Removes what was put aside in a job's directory.
pub fn remove_damaged(directory: &OwnedFd) -> io::Result<()> {
    use nix::unistd::{UnlinkatFlags, unlinkat};
    match unlinkat(directory.as_fd(), DAMAGED, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Opens a job's directory beneath `jobs`, without following links.
pub fn open_directory(jobs: BorrowedFd<'_>, job: JobId) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(openat(
        jobs,
        job.to_string().as_str(),
        flags,
        Mode::empty(),
    )?)
}

/// Makes a job's directory beneath `jobs` and opens it.
pub fn create_directory(jobs: BorrowedFd<'_>, job: JobId) -> io::Result<OwnedFd> {
    nix::sys::stat::mkdirat(
        jobs,
        job.to_string().as_str(),
        Mode::from_bits_truncate(0o700),
    )?;
    open_directory(jobs, job)
}

/// Opens the directory that an earlier attempt of the job has left, or makes it where that left none. What decides
/// between two launches is the record, which only one of them makes.
pub fn reopen_directory(jobs: BorrowedFd<'_>, job: JobId) -> io::Result<OwnedFd> {
    match create_directory(jobs, job) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => open_directory(jobs, job),
        made => made,
    }
}

/// Is there a record, a socket or an empty directory, as a job that is over does not have?
pub fn is_untidy(jobs: BorrowedFd<'_>, job: JobId) -> bool {
    use nix::fcntl::AtFlags;
    use nix::sys::stat::fstatat;
    let Ok(directory) = open_directory(jobs, job) else {
        return false;
    };
    let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
    if [FILE, CONTROL_SOCKET]
        .into_iter()
        .any(|name| fstatat(&directory, name, flags).is_ok())
    {
        return true;
    }
    let is_other = |entry: &nix::dir::Entry| !output::is_unused(entry.file_name().to_bytes());
    nix::dir::Dir::from_fd(directory)
        .is_ok_and(|mut entries| entries.iter().flatten().filter(is_other).count() == 2)
}

/// Makes sure that a launch whose monitor is dead never executes a program, and removes what it left.
/// `false` if that is not so: its monitor lives, or its leader may have executed one.
///
/// Whoever holds the lock decides: a monitor that comes late finds it held, or its file without a name.
pub fn discard(jobs: BorrowedFd<'_>, job: JobId) -> io::Result<bool> {
    use nix::unistd::{UnlinkatFlags, unlinkat};
    let directory = match open_directory(jobs, job) {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    };
    let flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let _lock = match openat(&directory, FILE, flags, Mode::empty()) {
        Ok(file) => {
            let file = File::from(file);
            if !lock(&file)? {
                return Ok(false);
            }
            // Read under the lock: no monitor lives, and a leader without one gives up.
            let ReadRecord { record, is_damaged } = read_record(&file, job);
            let may_have_run = record.is_some() || is_damaged;
            if may_have_run && !read_last_word(&file).is_some_and(|word| is_orphaned(&word)) {
                return Ok(false);
            }
            unlinkat(directory.as_fd(), FILE, UnlinkatFlags::NoRemoveDir)?;
            Some(file)
        }
        Err(Errno::ENOENT) => None,
        Err(errno) => return Err(errno.into()),
    };
    match unlinkat(
        directory.as_fd(),
        CONTROL_SOCKET,
        UnlinkatFlags::NoRemoveDir,
    ) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    output::remove_unused(&directory)?;
    match unlinkat(jobs, job.to_string().as_str(), UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        // Output of an attempt before; or a monitor has just made its record.
        Err(Errno::ENOTEMPTY | Errno::EEXIST) => {
            let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
            let found = nix::sys::stat::fstatat(&directory, FILE, flags);
            Ok(found.is_err())
        }
        Err(errno) => Err(errno.into()),
    }
}

/// Takes back a launch that failed, in its monitor: in the directory that it made, not in one that has
/// the same name by now.
pub fn abandon(jobs: BorrowedFd<'_>, job: JobId, directory: BorrowedFd<'_>) {
    use nix::fcntl::AtFlags;
    use nix::sys::stat::{fstat, fstatat};
    use nix::unistd::{UnlinkatFlags, unlinkat};
    let _ = unlinkat(directory, FILE, UnlinkatFlags::NoRemoveDir);
    let _ = output::remove_unused(directory);
    let name = job.to_string();
    let inode = |stat: nix::Result<nix::sys::stat::FileStat>| stat.map(|stat| stat.st_ino).ok();
    let ours = inode(fstat(directory));
    if ours.is_some() && ours == inode(fstatat(jobs, name.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW)) {
        let _ = unlinkat(jobs, name.as_str(), UnlinkatFlags::RemoveDir);
    }
}

/// Removes the record, and the directory with it where nothing else is in it.
pub fn remove(jobs: BorrowedFd<'_>, job: JobId) -> io::Result<()> {
    use nix::unistd::{UnlinkatFlags, unlinkat};
    let directory = match open_directory(jobs, job) {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let unlink = |name| unlinkat(directory.as_fd(), name, UnlinkatFlags::NoRemoveDir);
    let remove_directory = || unlinkat(jobs, job.to_string().as_str(), UnlinkatFlags::RemoveDir);
    match unlink(FILE) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    // Few jobs have ever had a socket there, or files that another job has left.
    let removed = match remove_directory() {
        Err(Errno::ENOTEMPTY | Errno::EEXIST) => {
            output::remove_unused(&directory)?;
            match unlink(CONTROL_SOCKET) {
                Ok(()) | Err(Errno::ENOENT) => remove_directory(),
                Err(errno) => return Err(errno.into()),
            }
        }
        removed => removed,
    };
    match removed {
        Ok(()) | Err(Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
