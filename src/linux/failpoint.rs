//! Places at which a test can have a process killed. Nothing of it is in a release build.
//!
//! A test names a directory in `PROCESSION_FAILPOINTS` and arms a place by a file with the place's name in
//! it. The first process that comes by takes the file away and is killed with SIGKILL at that very place;
//! where the file holds `parent` or a PID, that process is killed instead, and this one goes on; where it holds
//! `hang`, this one is stopped by SIGSTOP, as if a system call of it did not return; where it holds `wait`, this one goes
//! on once the place is armed again. Every place is a step of
//! "What is durable when" in ARCHITECTURE.md, before it or after it.
//!
//! Other places are system calls that can fail: there the file holds an errno, which everybody who comes by
//! gets for as long as the file is there. The file `clock` says by how many microseconds the wall clock is off, and some
//! numbers of the program can be put in the place of others by a file with the name of the place.

use std::io;

/// Kills whom an armed place says, where this one is armed.
pub fn hit(place: &str) {
    Failpoint::new(place).hit();
}

/// A place that is known in advance, for a process that may not allocate when it comes by.
#[derive(Debug)]
pub struct Failpoint {
    /// Its file, where a test has places.
    #[cfg(debug_assertions)]
    file: Option<std::ffi::CString>,
}

#[cfg(debug_assertions)]
impl Failpoint {
    pub fn new(name: &str) -> Self {
        Self {
            file: armed::file(name),
        }
    }

    pub fn hit(&self) {
        if let Some(file) = &self.file {
            armed::hit(file);
        }
    }
}

/// Nothing: this is a release build.
#[cfg(not(debug_assertions))]
impl Failpoint {
    #[inline(always)]
    pub fn new(_name: &str) -> Self {
        Self {}
    }

    #[inline(always)]
    pub fn hit(&self) {}
}

/// Fails as an armed place says.
#[cfg(debug_assertions)]
pub fn fail(place: &str) -> io::Result<()> {
    armed::fail(place)
}

/// Nothing: this is a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn fail(_place: &str) -> io::Result<()> {
    Ok(())
}

/// This number, or the one that a test has put in its place.
#[cfg(debug_assertions)]
pub fn number(place: &str, number: u64) -> u64 {
    armed::number(place).unwrap_or(number)
}

/// This number: this is a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn number(_place: &str, number: u64) -> u64 {
    number
}

/// By how many microseconds a test has set the wall clock.
#[cfg(debug_assertions)]
pub fn clock_is_off() -> i64 {
    armed::clock_is_off()
}

/// Not at all: this is a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn clock_is_off() -> i64 {
    0
}

#[cfg(debug_assertions)]
mod armed {
    use std::ffi::{CStr, CString};
    use std::fs;
    use std::io;
    use std::path::PathBuf;
    use std::sync::OnceLock;

    use nix::libc;

    use crate::sys::raw;

    /// How long a place waits for the death of the parent that it has killed, in microseconds.
    const DEATH: i64 = 5_000_000;

    fn directory() -> Option<&'static PathBuf> {
        static DIRECTORY: OnceLock<Option<PathBuf>> = OnceLock::new();
        DIRECTORY
            .get_or_init(|| std::env::var_os("PROCESSION_FAILPOINTS").map(PathBuf::from))
            .as_ref()
    }

    pub(super) fn file(place: &str) -> Option<CString> {
        let path = directory()?.join(place);
        CString::new(path.into_os_string().into_encoded_bytes()).ok()
    }

    pub(super) fn fail(place: &str) -> io::Result<()> {
        let Some(directory) = directory() else {
            return Ok(());
        };
        match fs::read_to_string(directory.join(place)) {
            Ok(errno) => Err(io::Error::from_raw_os_error(
                errno.trim().parse().unwrap_or(nix::libc::EIO),
            )),
            Err(_) => Ok(()),
        }
    }

    pub(super) fn clock_is_off() -> i64 {
        let text = directory().and_then(|it| fs::read_to_string(it.join("clock")).ok());
        text.and_then(|it| it.trim().parse().ok()).unwrap_or(0)
    }

    pub(super) fn number(place: &str) -> Option<u64> {
        let text = fs::read_to_string(directory()?.join(place)).ok()?;
        text.trim().parse().ok()
    }

    pub(super) fn hit(file: &CStr) {
        let Ok(opened) = raw::open(file, libc::O_RDONLY) else {
            return;
        };
        let mut whom = [0; 32];
        let length = raw::read(opened, &mut whom).unwrap_or_default();
        raw::close(opened);
        // Of several processes at the same place, the one that takes the file away is meant.
        if raw::unlink(file).is_err() {
            return;
        }
        let whom = whom
            .get(..length)
            .and_then(|text| str::from_utf8(text).ok());
        let (me, parent) = (raw::getpid(), raw::getppid());
        let whom = match whom.unwrap_or_default().trim() {
            "" => me,
            "parent" => parent,
            "hang" => {
                raw::kill(me, libc::SIGSTOP);
                return;
            }
            "wait" => {
                while raw::unlink(file).is_err() {
                    raw::yield_now();
                }
                return;
            }
            pid => pid.parse().unwrap_or(me),
        };
        raw::kill(whom, libc::SIGKILL);
        let end = raw::wall_micros().saturating_add(DEATH);
        // Whoever it is must be dead before this process goes on.
        while (whom == me || (whom == parent && raw::getppid() == parent))
            && raw::wall_micros() < end
        {
            raw::yield_now();
        }
    }
}
