//! How a job's leader ended, how the job ended, and what it used.

use serde::{Deserialize, Serialize};

use crate::Signal;
use crate::time::Timestamp;

/// How the leader ended. A code and a signal exclude each other, so they cannot be written together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// It called `exit` with this code.
    Code(u8),
    /// A signal ended it.
    Signal {
        /// The signal.
        signal: Signal,
        /// The kernel wrote a core file.
        core_dumped: bool,
    },
}

/// The leader's exit as the kernel told it (wait(2)); never made up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// By code or by signal.
    pub status: ExitStatus,
    /// When the monitor saw it.
    pub at: Timestamp,
    /// Whether the kernel's out-of-memory killer struck the job; `None` if that cannot be known.
    pub oom_killed: Option<bool>,
}

/// Why a job is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The leader exited with a code, by itself.
    Exited,
    /// A signal that Procession did not send as part of a stop ended the leader.
    Signaled,
    /// The program could not be executed.
    SpawnFailed,
    /// `timeout_seconds` passed.
    Timeout,
    /// A client asked for the end.
    Canceled,
    /// A newer job took its key.
    Superseded,
    /// A job or a batch that it depends on ended in another way than it needs.
    DependencyFailed,
    /// The kernel's out-of-memory killer ended the leader.
    OomKilled,
    /// The output limit was reached and `on_limit` is `stop_job`.
    OutputLimit,
    /// It put more into its workspace than it may.
    WorkspaceLimit,
    /// It was not ready in time and `on_timeout` is `stop`.
    NotReady,
    /// The job was still queued at its start deadline.
    StartDeadline,
    /// The service shut down and took its jobs with it.
    Shutdown,
    /// The job's monitor died and the exit status went with it.
    MonitorLost,
    /// The supervisor died and the exit status went with it.
    SupervisorLost,
    /// The machine restarted while the job ran.
    HostRebooted,
    /// The node of the cluster that had the job has not been heard for too long, or was given up.
    NodeLost,
}

impl Cause {
    /// Is a stop for this cause one of the job, whatever its attempt ends of?
    #[must_use]
    pub fn is_of_the_job(self) -> bool {
        matches!(
            self,
            Self::Canceled | Self::Superseded | Self::DependencyFailed
        )
    }

    /// The word in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exited => "exited",
            Self::Signaled => "signaled",
            Self::SpawnFailed => "spawn_failed",
            Self::Timeout => "timeout",
            Self::Canceled => "canceled",
            Self::Superseded => "superseded",
            Self::DependencyFailed => "dependency_failed",
            Self::OomKilled => "oom_killed",
            Self::OutputLimit => "output_limit",
            Self::WorkspaceLimit => "workspace_limit",
            Self::NotReady => "not_ready",
            Self::StartDeadline => "start_deadline",
            Self::Shutdown => "shutdown",
            Self::MonitorLost => "monitor_lost",
            Self::SupervisorLost => "supervisor_lost",
            Self::HostRebooted => "host_rebooted",
            Self::NodeLost => "node_lost",
        }
    }
}

/// A signal that Procession sent as part of ending the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentSignal {
    /// The signal.
    pub signal: Signal,
    /// When it was sent.
    pub at: Timestamp,
}

/// Why and how a job was ended; set when it has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Termination {
    /// Why the job is over.
    pub cause: Cause,
    /// Who asked for the end, such as `token:default`; absent when nobody did.
    pub requested_by: Option<String>,
    /// The words the client gave with the request.
    pub reason: Option<String>,
    /// What was sent, in order.
    pub signals_sent: Vec<SentSignal>,
    /// The grace period passed and the job was killed.
    pub escalated: bool,
    /// Processes that outlived the leader and were stopped.
    pub killed_leftovers: u32,
}

impl Termination {
    /// A termination that nobody asked for and no signal was sent for.
    #[must_use]
    pub fn unasked(cause: Cause) -> Self {
        Self {
            cause,
            requested_by: None,
            reason: None,
            signals_sent: Vec::new(),
            escalated: false,
            killed_leftovers: 0,
        }
    }
}

/// The step between fork and exec that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// A monitor or the leader could not be made (fork, pipes, job directory).
    Fork,
    /// setsid(2).
    Session,
    /// Joining or limiting the job's cgroup.
    Cgroup,
    /// Writing the run record.
    Record,
    /// setrlimit(2).
    Rlimits,
    /// nice(2).
    Nice,
    /// `/proc/self/oom_score_adj`.
    OomScoreAdj,
    /// sched_setaffinity(2).
    CpuAffinity,
    /// Standard input, output and error.
    Stdio,
    /// close_range(2).
    CloseFds,
    /// setgroups(2), setgid(2), setuid(2).
    User,
    /// chdir(2), as the job's user.
    Cwd,
    /// prctl(2) `PR_SET_NO_NEW_PRIVS`.
    NoNewPrivs,
    /// Landlock and seccomp.
    Sandbox,
    /// Resetting handlers and mask.
    Signals,
    /// execve(2).
    Exec,
    /// ioprio_set(2).
    IoPriority,
}

impl Stage {
    /// Every stage.
    pub const ALL: [Self; 17] = [
        Self::Fork,
        Self::Session,
        Self::Cgroup,
        Self::Record,
        Self::Rlimits,
        Self::Nice,
        Self::OomScoreAdj,
        Self::CpuAffinity,
        Self::Stdio,
        Self::CloseFds,
        Self::User,
        Self::Cwd,
        Self::NoNewPrivs,
        Self::Sandbox,
        Self::Signals,
        Self::Exec,
        Self::IoPriority,
    ];

    /// Its place in [`Stage::ALL`], which stays what it is: files name a stage by it.
    #[must_use]
    pub fn number(self) -> u32 {
        let place = Self::ALL.iter().position(|stage| *stage == self);
        place
            .and_then(|place| u32::try_from(place).ok())
            .unwrap_or_default()
    }

    /// The stage of [`Stage::number`].
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// The stage in words that fit after "failed to".
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::Fork => "make the process",
            Self::Session => "make the session",
            Self::Cgroup => "set up the cgroup",
            Self::Record => "write the run record",
            Self::Rlimits => "set the resource limits",
            Self::Nice => "set the nice value",
            Self::OomScoreAdj => "set oom_score_adj",
            Self::CpuAffinity => "set the CPU affinity",
            Self::Stdio => "set up standard input and output",
            Self::CloseFds => "close inherited file descriptors",
            Self::User => "change to the job's user and groups",
            Self::Cwd => "change to the working directory",
            Self::NoNewPrivs => "set no_new_privs",
            Self::Sandbox => "put the sandbox in force",
            Self::Signals => "reset the signal handlers",
            Self::Exec => "execute the program",
            Self::IoPriority => "set the I/O priority",
        }
    }
}

/// Why a job's program never ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpawnFailure {
    /// The step that failed.
    pub stage: Stage,
    /// The error number of the failed call.
    pub errno: i32,
    /// One sentence for people: what failed, on what, and why.
    pub message: String,
}

/// What the job's processes used, over all that have been reaped (getrusage(2), `RUSAGE_CHILDREN`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time in user mode.
    pub user_cpu_seconds: f64,
    /// CPU time in the kernel.
    pub system_cpu_seconds: f64,
    /// The largest resident set of any one process.
    pub max_rss_bytes: u64,
    /// The most memory that all of them had at a time, where the job has a cgroup that counts it.
    #[serde(default)]
    pub max_memory_bytes: Option<u64>,
}

impl Usage {
    /// What both have used.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            user_cpu_seconds: self.user_cpu_seconds + other.user_cpu_seconds,
            system_cpu_seconds: self.system_cpu_seconds + other.system_cpu_seconds,
            max_rss_bytes: self.max_rss_bytes.max(other.max_rss_bytes),
            max_memory_bytes: self.max_memory_bytes.max(other.max_memory_bytes),
        }
    }
}

/// How much output there is and which part of it is kept. Offsets count payload bytes over both streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputTotals {
    /// Bytes written to standard output, dropped ones included.
    pub stdout_bytes: u64,
    /// Bytes written to standard error, dropped ones included.
    pub stderr_bytes: u64,
    /// The oldest offset still kept.
    pub first_offset: u64,
    /// The offset after the last byte.
    pub next_offset: u64,
    /// Bytes that the output limit dropped.
    pub dropped_bytes: u64,
    /// No more output can come.
    pub complete: bool,
}
