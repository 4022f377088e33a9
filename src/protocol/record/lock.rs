//! POSIX record locks on whole files: proof that their holder lives. What a file is for is not known here.

use std::fs::File;
use std::io;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

fn whole_file(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: libc::c_short::try_from(kind).unwrap_or_default(),
        l_whence: libc::c_short::try_from(libc::SEEK_SET).unwrap_or_default(),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// Takes the write lock on a file; `false` if somebody else holds it. It goes with the process, and
/// with the first descriptor of the file that this process closes.
pub fn lock(file: &File) -> io::Result<bool> {
    match fcntl(file, FcntlArg::F_SETLK(&whole_file(libc::F_WRLCK))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Who holds the write lock on a file; 0 if the holder is in another PID namespace.
pub fn lock_holder(file: &File) -> io::Result<Option<i32>> {
    let mut query = whole_file(libc::F_WRLCK);
    fcntl(file, FcntlArg::F_GETLK(&mut query))?;
    Ok((i32::from(query.l_type) != libc::F_UNLCK).then_some(query.l_pid))
}
