//! What the server gets from the supervisor by being forked from it.

use std::os::fd::OwnedFd;

use crate::listeners::Listeners;
use linux::cgroup::Home;

/// The server's end of everything that the supervisor holds for it.
#[derive(Debug)]
pub struct Inherited {
    /// The socket to the supervisor.
    pub supervisor: OwnedFd,
    pub supervisor_pid: u32,
    pub listeners: Listeners,
    /// The directory of the jobs' directories.
    pub jobs: OwnedFd,
    pub boot_id: String,
    /// The service's place in cgroup v2.
    pub cgroup: Option<Home>,
    /// Why there is none.
    pub no_cgroup: Option<String>,
    /// How many servers there were before.
    pub restarts: u32,
    /// How often the supervisor wants a sign of life.
    pub beat_every: Option<std::time::Duration>,
    /// An earlier server was told to drain.
    pub draining: bool,
}
