//! What a supervisor begins with: a state directory and sockets of its own, or what its predecessor held; and
//! what it needs of the machine.

use std::io;
use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::pipe2;

use super::Settings;
use super::monitors::Monitors;
use super::upgrade::Upgrade;
use crate::monitor::Host;
use linux::cgroup::Home;
use protocol::listeners::{self, Listeners};
use protocol::state_dir::StateDir;
use protocol::stderr::Failure;

/// What a supervisor begins with, taken over or fresh.
pub(super) struct Beginning {
    pub(super) state: StateDir,
    pub(super) listeners: Listeners,
    pub(super) monitors: Monitors,
    pub(super) restarts: u32,
    pub(super) original_nofile: (u64, u64),
    pub(super) upgrade: Upgrade,
}

/// What monitors need of the machine, and where they say that their jobs are over.
pub(super) struct Surroundings {
    pub(super) host: Host,
    /// Why there is no cgroup home.
    pub(super) no_cgroup: Option<String>,
    pub(super) idle_notes: OwnedFd,
}

impl Beginning {
    /// That of a service that no other has handed over.
    pub(super) fn first(settings: &Settings, passed: Vec<OwnedFd>) -> Result<Self, Failure> {
        let state = StateDir::open(&settings.state_dir, None).map_err(Failure::config)?;
        let listeners =
            listeners::bind(settings.listen, passed, state.path()).map_err(Failure::config)?;
        let original_nofile =
            raise_nofile().map_err(Failure::system("cannot read the limit of open files"))?;
        Ok(Self {
            state,
            listeners,
            monitors: Monitors::default(),
            restarts: 0,
            original_nofile,
            upgrade: Upgrade::None,
        })
    }

    /// Sets up what it needs of the machine.
    pub(super) fn surroundings(&self) -> Result<Surroundings, Failure> {
        let (no_cgroup, cgroup) = match Home::set_up(self.state.instance()) {
            Ok(home) => (None, Some(home)),
            Err(why) => (Some(why), None),
        };
        let (idle_notes, idle) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
            .map_err(io::Error::from)
            .map_err(Failure::system("cannot make a pipe"))?;
        let host = Host {
            idle,
            jobs: self
                .state
                .jobs()
                .map_err(Failure::system("cannot open the jobs directory"))?,
            boot_id: self.state.epoch().to_owned(),
            cgroup,
            original_nofile: self.original_nofile,
        };
        Ok(Surroundings {
            host,
            no_cgroup,
            idle_notes,
        })
    }
}

/// Lets this process and its children open as many files as they may; returns what it was.
fn raise_nofile() -> io::Result<(u64, u64)> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    Ok((soft, hard))
}
