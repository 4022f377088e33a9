//! What the server gets from the supervisor by being forked from it.

use std::os::fd::OwnedFd;

use crate::cgroup::Home;
use crate::listeners::Listeners;

/// The server's end of everything that the supervisor holds for it.
#[derive(Debug)]
pub(crate) struct Inherited {
    /// The socket to the supervisor.
    pub(crate) supervisor: OwnedFd,
    pub(crate) supervisor_pid: u32,
    pub(crate) listeners: Listeners,
    /// The directory of the jobs' directories.
    pub(crate) jobs: OwnedFd,
    pub(crate) boot_id: String,
    /// The service's place in cgroup v2.
    pub(crate) cgroup: Option<Home>,
    /// Why there is none.
    pub(crate) no_cgroup: Option<String>,
    /// How many servers there were before.
    pub(crate) restarts: u32,
    /// An earlier server was told to drain.
    pub(crate) draining: bool,
}
