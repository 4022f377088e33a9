//! What a process is kept from by the kernel: Landlock rules for files and signals, a seccomp filter for
//! system calls.
//!
//! Everything is built before the leader is forked; what is left for the leader are three system calls.
//! Whether a job gets a sandbox, and which, is decided in `job::sandbox`.

mod calls;
mod files;

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use seccompiler::BpfProgram;

use crate::sys;
use job::sandbox::Confinement;
use job::sandbox::{Features, InForce, Mechanism, Network};

/// What the running kernel has, found out by asking it.
pub fn features() -> Features {
    Features {
        landlock_abi: sys::landlock_abi(),
        seccomp: sys::has_seccomp_errno(),
    }
}

/// A sandbox that only has to be put in force.
#[derive(Debug)]
pub struct Prepared {
    ruleset: Option<OwnedFd>,
    filter: Option<BpfProgram>,
    in_force: InForce,
}

/// Why a sandbox could not be made.
#[derive(Debug)]
pub struct Failure {
    pub errno: Errno,
    /// What it happened on.
    pub on: String,
}

impl Failure {
    fn new(error: &io::Error, on: impl Into<String>) -> Self {
        Self {
            errno: Errno::from_raw(error.raw_os_error().unwrap_or(libc::EINVAL)),
            on: on.into(),
        }
    }
}

/// Builds what the job wants, as far as the kernel has it, or fails where it must be whole.
pub fn prepare(wanted: &Confinement, features: Features) -> Result<Prepared, Failure> {
    let Confinement {
        sandbox,
        hidden,
        work_dir,
        workspaces,
        owns_work_dir,
    } = wanted;
    let missing = sandbox.missing(features);
    if sandbox.require
        && let Some(part) = missing.first()
    {
        return Err(Failure {
            errno: Errno::EOPNOTSUPP,
            on: format!("this kernel has no {}", part.as_str()),
        });
    }
    let abi = features
        .landlock_abi
        .filter(|_| sandbox.landlock == Mechanism::Default);
    let ruleset = match abi {
        Some(_) => Some(files::ruleset(
            sandbox,
            &files::Places {
                hidden: [Some(hidden), workspaces.as_ref()]
                    .into_iter()
                    .flatten()
                    .map(Path::new)
                    .collect(),
                work_dir: Path::new(work_dir),
                owns_work_dir: *owns_work_dir,
            },
        )?),
        None => None,
    };
    let seccomp = features.seccomp && sandbox.seccomp == Mechanism::Default;
    let filter = if seccomp {
        Some(calls::filter(
            abi.is_some(),
            sandbox.network == Network::Off,
        )?)
    } else {
        None
    };
    Ok(Prepared {
        in_force: InForce {
            landlock_abi: abi,
            seccomp: filter.is_some(),
            missing,
        },
        ruleset,
        filter,
    })
}

impl Prepared {
    /// A descriptor that must stay open until [`Prepared::enter`].
    pub fn descriptor(&self) -> Option<RawFd> {
        self.ruleset.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// What it is, once it is in force.
    pub fn in_force(&self) -> &InForce {
        &self.in_force
    }

    /// Puts it in force for the calling process and all that it will start. `no_new_privs` must be set.
    /// The calling process must have its own memory: the filter's library writes errno.
    pub fn enter(&self) -> Result<(), (Step, Errno)> {
        if let Some(ruleset) = &self.ruleset {
            sys::landlock_restrict_self(ruleset.as_fd()).map_err(|errno| (Step::Ruleset, errno))?;
        }
        if let Some(filter) = &self.filter {
            seccompiler::apply_filter(filter).map_err(|error| {
                let (seccompiler::Error::Prctl(cause) | seccompiler::Error::Seccomp(cause)) = error
                else {
                    return (Step::Filter, Errno::EINVAL);
                };
                let errno = cause.raw_os_error().unwrap_or(libc::EINVAL);
                (Step::Filter, Errno::from_raw(errno))
            })?;
        }
        Ok(())
    }
}

/// What could not be put in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Ruleset,
    Filter,
}

/// Has this process been given filters for system calls that another one of this status does not have?
/// Filters are inherited and never taken off, so more of them mean that somebody has confined it.
/// Both texts are of `/proc/PID/status`; what cannot be read counts as confined.
pub fn is_more_confined(status: &str, than: &str) -> bool {
    let filters = |status: &str| {
        ["Seccomp_filters:", "Seccomp:"].iter().find_map(|field| {
            let line = status.lines().find_map(|line| line.strip_prefix(field))?;
            line.trim().parse::<u32>().ok()
        })
    };
    match (filters(status), filters(than)) {
        (Some(theirs), Some(ours)) => theirs > ours,
        (Some(_) | None, None) => false,
        (None, Some(_)) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_filters_than_ours_mean_that_somebody_has_confined_it() {
        let status = |filters: u32| format!("Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t{filters}\n");
        assert!(is_more_confined(&status(1), &status(0)));
        assert!(!is_more_confined(&status(1), &status(1)));
        assert!(!is_more_confined(&status(0), &status(1)));
        // Before Linux 5.9 there is only the mode.
        assert!(is_more_confined("Seccomp:\t2\n", "Seccomp:\t0\n"));
        assert!(!is_more_confined("Seccomp:\t0\n", "Seccomp:\t0\n"));
        assert!(is_more_confined("", &status(0)));
        assert!(!is_more_confined("", ""));
    }
}
