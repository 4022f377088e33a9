//! What a job may use: limits per process, and limits over all of its processes.

use serde::{Deserialize, Serialize};

/// A resource of setrlimit(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RlimitResource {
    /// `RLIMIT_NOFILE`, file descriptors.
    Nofile,
    /// `RLIMIT_NPROC`, processes of the user.
    Nproc,
    /// `RLIMIT_CPU`, seconds.
    Cpu,
    /// `RLIMIT_FSIZE`, bytes.
    Fsize,
    /// `RLIMIT_AS`, bytes.
    As,
    /// `RLIMIT_CORE`, bytes.
    Core,
    /// `RLIMIT_STACK`, bytes.
    Stack,
    /// `RLIMIT_MEMLOCK`, bytes.
    Memlock,
    /// `RLIMIT_DATA`, bytes.
    Data,
}

/// One side of a resource limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RlimitValue {
    /// `RLIM_INFINITY`.
    Unlimited,
    /// A number in the resource's unit.
    #[serde(untagged)]
    Value(u64),
}

/// The soft and the hard limit of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// What applies.
    pub soft: RlimitValue,
    /// How far the job may raise it.
    pub hard: RlimitValue,
}

/// Limits for all processes of the job together; they need cgroup v2 controllers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// `memory.max`, bytes.
    pub memory_bytes: Option<u64>,
    /// `cpu.max`, in cores; fractions allowed.
    pub cpu: Option<f64>,
    /// `pids.max`.
    pub pids: Option<u64>,
}

impl Limits {
    /// No limit is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
