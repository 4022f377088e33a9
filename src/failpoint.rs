//! Places at which a test can have a process killed. Nothing of it is in a release build.
//!
//! A test names a directory in `PROCESSION_FAILPOINTS` and arms a place by a file with the place's name in
//! it. The first process that comes by takes the file away and is killed with SIGKILL at that very place;
//! where the file holds `parent` or a PID, that process is killed instead, and this one goes on. Every
//! place is a step of "What is durable when" in ARCHITECTURE.md, before it or after it.
//!
//! Other places are system calls that can fail: there the file holds an errno, which everybody who comes by
//! gets for as long as the file is there.

use std::io;

/// Kills whom an armed place says, where this one is armed.
#[cfg(debug_assertions)]
pub(crate) fn hit(place: &str) {
    armed::hit(place);
}

/// Nothing: this is a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub(crate) fn hit(_place: &str) {}

/// Fails as an armed place says.
#[cfg(debug_assertions)]
pub(crate) fn fail(place: &str) -> io::Result<()> {
    armed::fail(place)
}

/// Nothing: this is a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub(crate) fn fail(_place: &str) -> io::Result<()> {
    Ok(())
}

#[cfg(debug_assertions)]
mod armed {
    use std::fs;
    use std::io;
    use std::path::PathBuf;
    use std::sync::OnceLock;
    use std::time::{Duration, Instant};

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::{Pid, getpid, getppid};

    /// How long a place waits for the death of the parent that it has killed.
    const DEATH: Duration = Duration::from_secs(5);

    fn directory() -> Option<&'static PathBuf> {
        static DIRECTORY: OnceLock<Option<PathBuf>> = OnceLock::new();
        DIRECTORY
            .get_or_init(|| std::env::var_os("PROCESSION_FAILPOINTS").map(PathBuf::from))
            .as_ref()
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

    pub(super) fn hit(place: &str) {
        let Some(directory) = directory() else { return };
        let file = directory.join(place);
        let Ok(whom) = fs::read_to_string(&file) else {
            return;
        };
        // Of several processes at the same place, the one that takes the file away is meant.
        if fs::remove_file(&file).is_err() {
            return;
        }
        let whom = match whom.trim() {
            "" => getpid(),
            "parent" => getppid(),
            pid => pid.parse().map_or(getpid(), Pid::from_raw),
        };
        let parent = getppid();
        let _ = kill(whom, Signal::SIGKILL);
        let end = Instant::now() + DEATH;
        // Whoever it is must be dead before this process goes on.
        while (whom == getpid() || (whom == parent && getppid() == parent)) && Instant::now() < end
        {
            std::thread::yield_now();
        }
    }
}
