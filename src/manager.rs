//! The job manager: admits, queues and launches jobs, mirrors what their monitors say, and is the only
//! writer of the store. It knows no HTTP.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::job::life::{Refusal, Stop};
use crate::job::query::Query;
use crate::job::spec::{Scope, Secrets};
use crate::job::{Job, JobId, Signal, Spec};

/// Who asks, such as `token:default` or `uid:1000`; recorded with what was asked.
pub type Actor = String;

/// A job that a client wants.
#[derive(Debug)]
pub struct Submission {
    /// A name for people.
    pub name: Option<String>,
    /// Labels.
    pub labels: std::collections::BTreeMap<String, String>,
    /// What to run; its `secret_env` holds the real values.
    pub spec: Spec,
    /// Who asks.
    pub actor: Actor,
    /// Against doubled requests.
    pub idempotency: Option<Idempotency>,
}

/// A key that makes a repeated submission the same submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// The client's key; scoped to the actor.
    pub key: String,
    /// SHA-256 of the normalised body.
    pub fingerprint: [u8; 32],
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
    /// The service accepts no new jobs any more.
    #[error("the service is draining")]
    Draining,
    /// The key was used with another body.
    #[error("the idempotency key was used with another body")]
    KeyReused,
    /// The spec asks for something this host or this service's privileges cannot give.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The state directory has less free space than is kept free.
    #[error("no room for output")]
    NoRoom,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
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
    /// cgroup v2 or one of its controllers is missing.
    #[error("{why}")]
    Containment {
        /// `/limits/memory_bytes` and so on.
        pointer: String,
        /// What is missing.
        why: String,
    },
}

/// Why a request on a job was not granted.
#[derive(Debug, thiserror::Error)]
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
    /// The job's monitor does not answer any more.
    #[error("the job's monitor is gone")]
    MonitorGone,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
}

/// What a wait waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// A terminal state.
    Finished,
    /// Any state but queued and starting.
    Started,
    /// A version greater than this one.
    VersionAfter(u64),
}

/// One page of jobs.
#[derive(Debug)]
pub struct Page {
    /// The jobs.
    pub jobs: Vec<Arc<Job>>,
    /// There are more after the last one.
    pub more: bool,
}

/// A live process of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessInfo {
    /// Process id.
    pub pid: i32,
    /// Parent.
    pub ppid: i32,
    /// Process group.
    pub pgid: i32,
    /// Session.
    pub sid: i32,
    /// State letter of proc_pid_stat(5).
    pub state: char,
    /// Effective uid.
    pub uid: u32,
    /// Arguments; the command name in brackets where there are none.
    pub command: Vec<String>,
    /// CPU time in user mode.
    pub user_cpu_seconds: f64,
    /// CPU time in the kernel.
    pub system_cpu_seconds: f64,
    /// Resident set.
    pub rss_bytes: u64,
    /// When it started.
    pub started_at: Timestamp,
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
}

/// A handle to the job manager; clones are the same manager.
#[derive(Clone, Debug)]
pub struct Manager {}

#[expect(unused_variables, clippy::unused_async, reason = "signatures first")]
impl Manager {
    /// Accepts a job: durable when this returns, started where a slot was free. Dropping the future
    /// after the job is durable takes nothing back.
    pub async fn submit(&self, submission: Submission) -> Result<Submitted, SubmitError> {
        todo!()
    }

    /// Checks what [`Manager::submit`] would check, and does nothing.
    pub async fn validate(&self, spec: &Spec) -> Result<(), SubmitError> {
        todo!()
    }

    /// The job as it is now.
    pub async fn get(&self, id: JobId) -> Result<Arc<Job>, RequestError> {
        todo!()
    }

    /// The job once it is as wanted, or as it is when `limit` has passed.
    pub async fn wait(
        &self,
        id: JobId,
        until: Until,
        limit: Duration,
    ) -> Result<Arc<Job>, RequestError> {
        todo!()
    }

    /// One page of jobs, live and finished.
    pub async fn list(&self, query: Query) -> Result<Page, RequestError> {
        todo!()
    }

    /// Asks for the job's end; idempotent. Returns the job as it is after the request was taken in.
    pub async fn stop(&self, id: JobId, stop: Stop) -> Result<Arc<Job>, RequestError> {
        todo!()
    }

    /// Stops the job, waits for its end, then removes record and output.
    pub async fn purge(&self, id: JobId, stop: Stop) -> Result<(), RequestError> {
        todo!()
    }

    /// Sends a signal; returns how many processes it was delivered to.
    pub async fn signal(
        &self,
        id: JobId,
        signal: Signal,
        scope: Scope,
    ) -> Result<u32, RequestError> {
        todo!()
    }

    /// The job's live processes.
    pub async fn processes(&self, id: JobId) -> Result<Vec<ProcessInfo>, RequestError> {
        todo!()
    }

    /// A reader of the job's output as kept now.
    pub async fn output(&self, id: JobId) -> Result<crate::output::Reader, RequestError> {
        todo!()
    }

    /// What this instance is and can do.
    pub fn info(&self) -> Info {
        todo!()
    }

    /// May new jobs come? `Err` says why not.
    pub fn ready(&self) -> Result<(), &'static str> {
        todo!()
    }
}
