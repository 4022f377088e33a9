//! What the manager is started with.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use crate::nodes::HubSetup;
use crate::spans::Otlp;
use job::sandbox::Baseline;
use linux::cgroup::Home;
use store::Store;

/// What the manager is started with.
#[derive(Debug)]
pub struct Setup {
    pub store: Store,
    /// The socket to the supervisor.
    pub supervisor: OwnedFd,
    /// The directory of the jobs' directories.
    pub jobs: OwnedFd,
    /// How often the supervisor wants a sign of life.
    pub beat_every: Option<Duration>,
    /// An earlier server was told to drain.
    pub draining: bool,
    pub host: Host,
    pub limits: Limits,
    pub part: Membership,
    pub deny_root_jobs: bool,
    /// Webhooks may go to private addresses.
    pub webhook_allow_private: bool,
    pub sandbox: Baseline,
    /// Labels of jobs that are also labels of series.
    pub metrics_labels: Vec<String>,
    /// Where spans go, if they go anywhere.
    pub otlp: Option<Otlp>,
    pub state_dir: PathBuf,
    pub work_dir: PathBuf,
    /// The directory of the jobs' own directories.
    pub workspaces: PathBuf,
}

/// What a service is in a cluster.
#[derive(Clone, Debug)]
pub enum Membership {
    /// There is none.
    Alone,
    /// Its hub, which gives jobs to nodes.
    Hub(HubSetup),
    /// A node that has joined one.
    Node,
}

/// Where the service runs.
#[derive(Debug)]
pub struct Host {
    pub boot_id: String,
    /// Where jobs' cgroups are made, or why there are none.
    pub cgroup: Result<Home, String>,
    pub supervisor_pid: u32,
    /// How often the server has been started again.
    pub restarts: u32,
}

/// How much the service takes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub max_running: usize,
    pub max_queued: usize,
    pub max_finished: u64,
    pub min_free_bytes: u64,
    /// The largest file or form that is taken.
    pub max_upload_bytes: u64,
    /// The most in the workspace of one job.
    pub max_workspace_bytes: u64,
    /// The most in all of them.
    pub max_workspaces_bytes: u64,
}

/// Why a manager could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Store(#[from] store::StoreError),
    #[error(
        "jobs of this state directory run on other nodes: start it with --cluster local, as before"
    )]
    HasNodes,
}
