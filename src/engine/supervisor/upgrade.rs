//! How far an upgrade is, and the first step of the program that comes out of it.

use std::fs::File;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;

use super::handover::{self, Handover};
use super::monitors::Monitors;
use job::time::BootInstant;
use linux::sys::Pid;
use protocol::listeners::Listeners;
use protocol::state_dir::StateDir;
use protocol::stderr::Failure;

/// How far an upgrade is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Upgrade {
    /// None is under way.
    None,
    /// The binary on disk is being asked.
    Checking {
        /// The process that answers with its exit code.
        pid: Pid,
        /// When it is given up.
        give_up_at: BootInstant,
    },
    /// It understands; the server is ending.
    Replacing {
        /// When the server is killed, so that the upgrade can go on.
        kill_at: BootInstant,
    },
}

impl Upgrade {
    /// When something is to be done about it.
    pub(super) fn due(self) -> Option<BootInstant> {
        match self {
            Self::None => None,
            Self::Checking { give_up_at, .. } => Some(give_up_at),
            Self::Replacing { kill_at } => Some(kill_at),
        }
    }

    pub(super) fn is_checked_by(self, ended: Pid) -> bool {
        match self {
            Self::Checking { pid, .. } => pid == ended,
            Self::None | Self::Replacing { .. } => false,
        }
    }
}

/// What a supervisor begins with, taken over or fresh.
pub(super) type Beginning = (StateDir, Listeners, Monitors, u32, (u64, u64));

/// Takes over from the program that this one replaced. Its listening sockets stay as they are: an
/// address that was changed in the configuration needs a restart.
pub(super) fn take_over(state_dir: &Path, handover: Handover) -> Result<Beginning, Failure> {
    let fail = |error| Failure::system("cannot take over")(error);
    let listeners = Listeners {
        tcp: TcpListener::from(handover::take_fd(handover.tcp).map_err(fail)?),
        unix: UnixListener::from(handover::take_fd(handover.unix).map_err(fail)?),
    };
    let lock = File::from(handover::take_fd(handover.lock).map_err(fail)?);
    let state = StateDir::open(state_dir, Some(lock)).map_err(Failure::config)?;
    let monitors = Monitors::take_over(handover.monitors).map_err(fail)?;
    tracing::info!(
        "upgraded from version {} to {}, with {} monitors",
        handover.from_version,
        env!("CARGO_PKG_VERSION"),
        monitors.len()
    );
    Ok((
        state,
        listeners,
        monitors,
        handover.restarts,
        handover.original_nofile,
    ))
}
