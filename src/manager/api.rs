//! What is said to the manager and what it answers: submissions, queries, refusals, and facts about the
//! service. Types alone; nothing here does anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use super::admission::Rejection;
use super::chains::Unlinked;
use super::readers::{Readers, Reading};
use super::{FilesError, Part, UnpackError};
use job::dependency::Dependency;
use job::life::Refusal;
use job::sandbox::{Baseline, Features};
use job::time::Timestamp;
use job::trace::Trace;
use job::{Idempotency, Job, JobId, NodeName, Spec};

/// Who asks, such as `token:default` or `uid:1000`; recorded with what was asked.
pub type Actor = String;

/// A job that a client wants.
#[derive(Debug)]
pub struct Submission {
    /// A name for people.
    pub name: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// What to run; its `secret_env` holds the real values.
    pub spec: Spec,
    /// Who asks.
    pub actor: Actor,
    /// The job that it repeats.
    pub rerun_of: Option<JobId>,
    /// The caller's trace.
    pub trace: Option<Trace>,
    /// Not before this moment.
    pub run_at: Option<Timestamp>,
    /// Not before it is released.
    pub hold: bool,
    /// Against doubled requests.
    pub idempotency: Option<Idempotency>,
    /// Its priority is its own, not the default of its queue.
    pub has_priority: bool,
    /// What has to end before it may start.
    pub depends_on: Vec<Dependency>,
    /// The parts of the form that it came in, by their names.
    pub parts: BTreeMap<String, Part>,
}

/// A submission that was accepted.
#[derive(Debug)]
pub struct Submitted {
    /// The job: started, or queued where no slot was free.
    pub job: Arc<Job>,
    /// It had been accepted before under the same idempotency key.
    pub replayed: bool,
}

/// Why a submission was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The queue holds its maximum.
    #[error("the queue is full")]
    QueueFull,
    /// It does not wait for its key, and this job has it.
    #[error("job {0} has the key")]
    KeyTaken(JobId),
    /// Its weight is more than may run, which is this.
    #[error("the weight is more than {0}, which is the most that may run")]
    TooHeavy(u32),
    /// The job or batch that this dependency names is not there.
    #[error("dependency {0} names nothing that is there")]
    NoSuchDependency(usize),
    /// The service accepts no new jobs any more.
    #[error("the service is draining")]
    Draining,
    /// This is a node of a cluster: jobs come from its hub alone.
    #[error("this is a node of a cluster, and jobs come from its hub")]
    RunnerOnly,
    /// Files that were uploaded for it are on the disk of this API node, which does not lead any more.
    #[error(
        "files that were uploaded for it are on the disk of {0}, which is not the hub any more"
    )]
    UploadsElsewhere(NodeName),
    /// There are no nodes to choose from.
    #[error("this service is not the hub of a cluster, so there are no nodes to choose from")]
    NoNodes,
    /// The key was used with another body.
    #[error("the idempotency key was used with another body")]
    KeyReused,
    /// The spec asks for something this host or this service's privileges cannot give.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The state directory has less free space than is kept free.
    #[error("no room for output")]
    NoRoom,
    /// The workspace could not be made.
    #[error("cannot make the workspace: {0}")]
    Workspace(std::io::Error),
    /// The file of another job that this input names is not there.
    #[error("input {place}: {why}")]
    Input {
        /// Which input.
        place: usize,
        /// Why.
        why: FilesError,
    },
    /// This input is too large, or is no archive that can be unpacked.
    #[error("input {place}: {why}")]
    Archive {
        /// Which input.
        place: usize,
        /// Why.
        why: UnpackError,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::StoreError),
}

impl From<NotReady> for SubmitError {
    fn from(reason: NotReady) -> Self {
        match reason {
            NotReady::Ending | NotReady::Draining | NotReady::NotLinked => Self::Draining,
            NotReady::NoRoom => Self::NoRoom,
            NotReady::Gone => Self::Store(store::StoreError {
                doing: "accepting a job",
                why: reason.as_str().to_owned(),
                full: false,
                failing: true,
                unkept: false,
            }),
        }
    }
}

impl From<Unlinked> for SubmitError {
    fn from(unlinked: Unlinked) -> Self {
        match unlinked {
            Unlinked::Unknown(place) => Self::NoSuchDependency(place),
            Unlinked::Store(error) => Self::Store(error),
        }
    }
}

impl From<Rejection> for SubmitError {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::ServiceFull | Rejection::QueueFull => Self::QueueFull,
            Rejection::TooHeavy(most) => Self::TooHeavy(most),
            Rejection::Conflict(holder) => Self::KeyTaken(holder),
        }
    }
}

/// A valid wish that cannot be granted here.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unavailable {
    /// No such user or group; the JSON pointer says which field.
    #[error("no such user or group: {name}")]
    NoSuchUser {
        /// `/user`, `/group` or `/supplementary_groups/N`.
        pointer: String,
        /// As given.
        name: String,
    },
    /// Only a privileged service can do this.
    #[error("{what} needs a service that runs as root")]
    NeedsPrivilege {
        /// The field's JSON pointer.
        pointer: String,
        /// What was asked for.
        what: String,
    },
    /// The job would run as root, and the service refuses that.
    #[error("jobs that run as root are refused by this service; set `user`")]
    RootDenied,
    /// The job would have a group of root, or one that its user is not in, and the service refuses that.
    #[error(
        "this service refuses jobs with the group of root and with groups that their user is not in"
    )]
    GroupDenied {
        /// `/user`, `/group` or `/supplementary_groups/N`.
        pointer: String,
    },
    /// The kernel lacks a part of the sandbox that the job must have.
    #[error("{why}")]
    Sandbox {
        /// `/sandbox`, or the field that stands in its way.
        pointer: String,
        /// What is missing.
        why: String,
    },
    /// The job asks for less of a sandbox than the service insists on.
    #[error("this service requires the whole sandbox for every job")]
    SandboxRequired {
        /// The field that asks for less.
        pointer: String,
    },
    /// The job's user cannot get to its workspace.
    #[error("{0}")]
    Workspace(String),
    /// cgroup v2 or one of its controllers is missing.
    #[error("{why}")]
    Containment {
        /// `/limits/memory_bytes` and so on.
        pointer: String,
        /// What is missing.
        why: String,
    },
}

/// Why a job was not found.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// No job has this id.
    #[error("no such job")]
    NoSuchJob,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::StoreError),
}

impl From<LookupError> for RequestError {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::NoSuchJob => Self::NoSuchJob,
            LookupError::Store(error) => Self::Store(error),
        }
    }
}

/// Why a request on a job was not granted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RequestError {
    /// No job has this id.
    #[error("no such job")]
    NoSuchJob,
    /// Right request, wrong state.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The signal could not be sent (an errno, such as EPERM for a process that changed its user).
    #[error("cannot signal: {0}")]
    Errno(nix::errno::Errno),
    /// The job is no longer in the version that was meant.
    #[error("the job has changed")]
    Changed,
    /// Only a queued job's place can be changed.
    #[error("the job is not queued any more")]
    NotQueued,
    /// The job's standard input takes nothing (any more).
    #[error("standard input is closed")]
    StdinClosed,
    /// The bytes for standard input do not go where it is.
    #[error("standard input is at another offset")]
    StdinOffset {
        /// Where it is; `None` if nobody knows.
        expected: Option<u64>,
    },
    /// The job was not given a terminal.
    #[error("the job has no terminal")]
    NoTerminal,
    /// Jobs that have not ended depend on it.
    #[error("unfinished jobs depend on it")]
    DependedOn,
    /// The job's monitor does not answer any more.
    #[error("the job's monitor is gone")]
    MonitorGone,
    /// The node that has the job is not connected.
    #[error("the node that has the job is not connected")]
    NodeUnreachable,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::StoreError),
}

/// What came of a purge in the time that was given to it.
#[derive(Debug)]
pub enum Purged {
    /// The job is gone.
    Gone,
    /// It is still being stopped.
    StillThere(Arc<Job>),
}

/// What a wait waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// A terminal state.
    Finished,
    /// Any state but queued and starting.
    Started,
    /// It is known whether it is ready: it is, it was not in time, or it has ended.
    Ready,
    /// A version greater than this one.
    VersionAfter(u64),
}

/// A subscription to a job; dropping it ends it.
#[derive(Debug)]
pub struct Follow {
    /// The job as it is; closed without a terminal state where the service ends first.
    pub state: watch::Receiver<Arc<Job>>,
    /// Where the output ends, told as it grows; `None` for a job that has finished. A hint to look.
    pub output: Option<watch::Receiver<u64>>,
    /// Those whom a job with `on_limit: wait` waits for.
    pub(super) readers: Option<Arc<Readers>>,
}

impl Follow {
    /// Has a job that waits for its readers wait for this one, which has read up to this offset; `None` for any other.
    #[must_use]
    pub fn reading(&self, at: u64) -> Option<Reading> {
        let readers = self.readers.clone()?;
        Some(Reading::begin(readers, at))
    }
}

/// One page of jobs.
#[derive(Debug)]
pub struct Page {
    /// The jobs.
    pub jobs: Vec<Arc<Job>>,
    /// There are more after the last one.
    pub more: bool,
}

/// What this instance is and can do; for `/info`.
#[derive(Clone, Debug)]
pub struct Info {
    /// `cgroup+subreaper` or `subreaper`.
    pub containment: &'static str,
    /// Where jobs' cgroups are made, or why there are none.
    pub cgroup: Result<String, String>,
    /// The cgroup controllers that can limit a job: `memory`, `cpu`, `pids`.
    pub controllers: Vec<String>,
    /// What the service does about sandboxes.
    pub sandbox: Baseline,
    /// What the kernel has for them.
    pub features: Features,
    /// Jobs with a process.
    pub running: usize,
    /// Jobs that wait.
    pub queued: usize,
    /// The most that may run.
    pub max_running: usize,
    /// The most that may wait.
    pub max_queued: usize,
    /// When this server process started.
    pub started_at: Timestamp,
    /// The supervisor's PID.
    pub supervisor_pid: i32,
    /// How often the server has been restarted after a crash.
    pub server_restarts: u32,
    /// No new jobs are accepted.
    pub draining: bool,
    /// More of the disk is free than is to stay free.
    pub has_room: bool,
    /// Jobs that name no user run as root.
    pub root_jobs: bool,
    /// Records of jobs that this server found damaged and put aside.
    pub damaged_records: u64,
    /// Free bytes and all bytes of the file system of the state, where it says so.
    pub disk: Option<(u64, u64)>,
    /// Bytes of the output of ended jobs that are kept on this machine.
    pub output_bytes: u64,
}

/// Why no new job is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotReady {
    /// The service is ending.
    Ending,
    /// It was told to drain.
    Draining,
    /// The file system of the state directory has less free space than is kept free.
    NoRoom,
    /// The state directory, or a part of it, was moved or removed.
    Gone,
    /// It is a node of a cluster, and its hub is not connected.
    NotLinked,
}

impl NotReady {
    /// The reason in one sentence.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ending => "the service is ending",
            Self::Draining => "the service is draining",
            Self::NotLinked => "this node is not connected to its hub",
            Self::NoRoom => {
                "the file system of the state directory has less free space than --min-free-bytes"
            }
            Self::Gone => {
                "the state directory was moved or removed, or a part of it: put it back, or start the service again"
            }
        }
    }
}
