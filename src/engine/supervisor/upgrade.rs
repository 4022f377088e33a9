//! An upgrade from SIGHUP to execve, and the first step of the program that comes out of it.

use std::fs::File;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use super::Supervisor;
use super::handover::{self, Handover};
use super::monitors::Monitors;
use job::Signal;
use job::time::BootInstant;
use linux::clock;
use linux::sys::{self, End, Pid};
use protocol::listeners::Listeners;
use protocol::state_dir::StateDir;
use protocol::stderr::Failure;
use protocol::wire::messages::FromSupervisor;

/// How long the new binary may take to say whether it understands, and the old server to end.
const CHECK_LIMIT: Duration = Duration::from_secs(30);
const SERVER_LIMIT: Duration = Duration::from_secs(10);

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

impl Supervisor {
    pub(super) fn is_being_replaced(&self) -> bool {
        matches!(self.upgrade, Upgrade::Replacing { .. })
    }

    /// Asks the binary that is on disk now whether it understands what it would take over.
    pub(super) fn begin_upgrade(&mut self) {
        if self.shutdown.is_some() || self.upgrade != Upgrade::None {
            tracing::warn!(
                "an upgrade or a shutdown is under way; this request for an upgrade changes nothing"
            );
            return;
        }
        let binary = self.invocation.binary().display();
        match self.invocation.check() {
            Ok(pid) => {
                tracing::info!("upgrade: asking {binary} whether it understands the state");
                let give_up_at = clock::now().boot.after(CHECK_LIMIT);
                self.upgrade = Upgrade::Checking { pid, give_up_at };
            }
            Err(error) => {
                tracing::error!(%error, "upgrade: cannot run {binary}: {error}; nothing was replaced")
            }
        }
    }

    /// The binary on disk has answered.
    pub(super) fn on_checked(&mut self, end: End) {
        self.upgrade = Upgrade::None;
        if end != End::Code(0) {
            let binary = self.invocation.binary().display();
            tracing::error!("upgrade: {binary} refuses ({end:?}); nothing was replaced");
            return;
        }
        if self.shutdown.is_some() {
            return;
        }
        self.restart_at = None;
        self.upgrade = Upgrade::Replacing {
            kill_at: clock::now().boot.after(SERVER_LIMIT),
        };
        if self.server.is_some() {
            self.tell_server(&FromSupervisor::Replace);
        } else {
            self.become_successor();
        }
    }

    pub(super) fn on_upgrade_time(&mut self, now: BootInstant) {
        match self.upgrade {
            Upgrade::Checking { pid, give_up_at } if give_up_at <= now => {
                let _ = sys::signal_process(pid, Signal::KILL);
            }
            Upgrade::Replacing { kill_at } if kill_at <= now => {
                if let Some(server) = &self.server {
                    let _ = sys::signal_process(server.pid, Signal::KILL);
                }
            }
            Upgrade::None | Upgrade::Checking { .. } | Upgrade::Replacing { .. } => {}
        }
    }

    /// The server has ended: becomes the new program. Where that fails, the old one goes on.
    pub(super) fn become_successor(&mut self) {
        let error = match self.hand_over() {
            Ok(handover) => self.invocation.become_successor(&handover),
            Err(error) => error,
        };
        tracing::error!(%error, "upgrade: cannot become the new program: {error}; the old one goes on");
        self.upgrade = Upgrade::None;
        self.restarts = self.restarts.saturating_add(1);
        self.restart_at = Some(clock::now().boot);
    }

    fn hand_over(&mut self) -> std::io::Result<Handover> {
        Ok(Handover {
            from_version: env!("CARGO_PKG_VERSION").to_owned(),
            restarts: self.restarts.saturating_add(1),
            draining: self.draining,
            original_nofile: self.host.original_nofile,
            tcp: handover::give_fd(self.listeners.tcp.as_fd())?,
            unix: handover::give_fd(self.listeners.unix.as_fd())?,
            lock: handover::give_fd(self.state.lock().as_fd())?,
            monitors: self.monitors.hand_over()?,
        })
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
