//! What a job is: its id, its spec, its state and how it ends.
//!
//! PURE: nothing here waits, reads a clock or touches the operating system, and nothing can fail for a
//! reason outside the arguments. The processes are the monitor's, the store is the manager's, and
//! status codes and JSON of the API are known to `http` alone.

pub mod amendment;
mod attempt;
pub mod batch;
mod claim;
pub mod dependency;
pub mod event;
pub mod id;
mod idempotency;
pub mod label;
pub mod life;
pub mod outcome;
pub mod placement;
pub mod pty;
pub mod query;
pub mod queue;
pub mod ready;
pub mod retry;
pub mod sandbox;
pub mod schedule;
mod seconds;
pub mod selector;
pub mod signal;
pub mod spec;
pub mod time;
pub mod trace;
pub mod webhook;
pub mod workspace;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::batch::Membership;
use crate::dependency::Dependency;
use crate::placement::Late;
use crate::time::Timestamp;
pub use attempt::Attempt;
pub use claim::{Claim, NodeName};
pub use id::JobId;
pub use idempotency::Idempotency;
pub use outcome::{Cause, Exit, ExitStatus, OutputTotals, SpawnFailure, Termination, Usage};
use sandbox::InForce;
use schedule::Occurrence;
pub use signal::Signal;
pub use spec::Spec;
use workspace::{Artifacts, Uploads};

/// Where a job is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Accepted and durable; waits for a free slot.
    Queued,
    /// Its process is being made.
    Starting,
    /// Its program runs.
    Running,
    /// Every process of it is stopped until a resume.
    Paused,
    /// It was asked to end, and something of it is still there.
    Stopping,
    /// Ended by itself with a success exit code.
    Succeeded,
    /// Ended badly by itself, or could not start.
    Failed,
    /// Ended because a client or a shutdown asked for it.
    Canceled,
    /// Ended because its timeout passed.
    TimedOut,
    /// Its end could not be observed; the cause says why.
    Lost,
}

impl State {
    /// Every state, in the order of a life.
    pub const ALL: [Self; 10] = [
        Self::Queued,
        Self::Starting,
        Self::Running,
        Self::Paused,
        Self::Stopping,
        Self::Succeeded,
        Self::Failed,
        Self::Canceled,
        Self::TimedOut,
        Self::Lost,
    ];

    /// A terminal state never changes.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        match self {
            Self::Queued | Self::Starting | Self::Running | Self::Paused | Self::Stopping => false,
            Self::Succeeded | Self::Failed | Self::Canceled | Self::TimedOut | Self::Lost => true,
        }
    }

    /// The word in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
            Self::TimedOut => "timed_out",
            Self::Lost => "lost",
        }
    }

    /// The terminal state of a job that ended for `cause`, with this exit of its leader.
    #[must_use]
    pub fn of_ended(cause: Cause, exit: Option<&Exit>, success_exit_codes: &[u8]) -> Self {
        match cause {
            Cause::Exited => match exit.map(|exit| exit.status) {
                Some(ExitStatus::Code(code)) if success_exit_codes.contains(&code) => {
                    Self::Succeeded
                }
                Some(ExitStatus::Code(_) | ExitStatus::Signal { .. }) => Self::Failed,
                None => Self::Lost,
            },
            Cause::Signaled
            | Cause::SpawnFailed
            | Cause::OomKilled
            | Cause::OutputLimit
            | Cause::NotReady
            | Cause::WorkspaceLimit
            | Cause::StartDeadline => Self::Failed,
            Cause::Timeout => Self::TimedOut,
            Cause::Canceled | Cause::Superseded | Cause::DependencyFailed | Cause::Shutdown => {
                Self::Canceled
            }
            Cause::MonitorLost | Cause::SupervisorLost | Cause::HostRebooted | Cause::NodeLost => {
                Self::Lost
            }
        }
    }
}

/// The processes of a job as the operating system numbers them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The leader's PID; also its PGID and its SID, since it made a session of its own.
    pub pid: i32,
    /// When the leader was about to execute the program.
    pub started_at: Timestamp,
    /// The leader's start time in clock ticks since boot (proc_pid_stat(5), field 22): with the boot id
    /// and the PID it names one process for ever.
    pub start_ticks: u64,
    /// The PID of the job's monitor.
    pub monitor_pid: i32,
    /// What other jobs had used that the same monitor had before, in user mode and in the kernel, in microseconds.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub used_before: (u64, u64),
    /// The file that was executed.
    pub executable: Option<String>,
    /// The job's cgroup, where it has one, as a path beneath the cgroup mount.
    pub cgroup: Option<String>,
    /// The sandbox that it is in.
    #[serde(default)]
    pub sandbox: Option<InForce>,
    /// What finds them where they are not beneath their monitor; of an ended job only where it is lost and
    /// has left some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unwatched: Option<Unwatched>,
}

fn is_nothing(used: &(u64, u64)) -> bool {
    *used == (0, 0)
}

/// What finds the processes of a job whose monitor was killed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unwatched {
    /// The life of the machine in which their numbers mean them.
    pub boot_id: String,
    /// The inodes of the pipes that they write their output to.
    pub pipes: Vec<u64>,
    /// Number and start time of those that nothing else would find.
    pub strays: Vec<(i32, u64)>,
}

/// A process that a stop has not been able to end yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survivor {
    /// Its PID.
    pub pid: i32,
    /// The state letter of proc_pid_stat(5).
    pub state: char,
    /// Its effective uid.
    pub uid: u32,
    /// Its command name.
    pub name: String,
}

/// A job as the manager knows it and the store keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// A name for people; not unique.
    pub name: Option<String>,
    /// Labels for selection.
    pub labels: BTreeMap<String, String>,
    /// Who created it, such as `token:default`.
    pub created_by: String,
    /// The job that this one repeats.
    #[serde(default)]
    pub rerun_of: Option<JobId>,
    /// The caller's trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<trace::Trace>,
    /// It does not start before this moment.
    #[serde(default)]
    pub run_at: Option<Timestamp>,
    /// It does not start before it is released.
    #[serde(default)]
    pub hold: bool,
    /// The schedule that it is of.
    #[serde(default)]
    pub schedule: Option<Occurrence>,
    /// What to run.
    pub spec: Arc<Spec>,
    /// What has to end before it may start.
    #[serde(default)]
    pub depends_on: Vec<Dependency>,
    /// Its place in a batch.
    #[serde(default)]
    pub batch: Option<Membership>,
    /// Grows on every visible change.
    pub version: u64,
    /// Where it is in its life.
    pub state: State,
    /// One sentence for people on why it is in this state.
    pub message: Option<String>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When its program was executed first.
    pub started_at: Option<Timestamp>,
    /// When it reached its terminal state.
    pub finished_at: Option<Timestamp>,
    /// When its record and output will be removed.
    pub expires_at: Option<Timestamp>,
    /// When its timeout will strike.
    pub deadline_at: Option<Timestamp>,
    /// When the present attempt was warned of that last.
    #[serde(default)]
    pub warned_at: Option<Timestamp>,
    /// When the present attempt was ready.
    #[serde(default)]
    pub ready_at: Option<Timestamp>,
    /// When it should have been and was not.
    #[serde(default)]
    pub not_ready_at: Option<Timestamp>,
    /// What showed it, or why it was not.
    #[serde(default)]
    pub ready_message: Option<String>,
    /// Its processes, once there are any.
    pub process: Option<Process>,
    /// One execution of the job, the present or the last one; starts at 1.
    pub attempt: u32,
    /// Those that have ended, if it may be tried again.
    #[serde(default)]
    pub attempts: Vec<Attempt>,
    /// The next attempt begins then or later; nothing unless it waits for one.
    #[serde(default)]
    pub next_attempt_at: Option<Timestamp>,
    /// How the leader ended.
    pub exit: Option<Exit>,
    /// How the job ended.
    pub termination: Option<Termination>,
    /// Why the program never ran.
    pub spawn_failure: Option<SpawnFailure>,
    /// What it used.
    pub usage: Option<Usage>,
    /// How much output there is.
    pub output: OutputTotals,
    /// What a stop has not been able to end yet; empty unless the job is `stopping`.
    pub survivors: Vec<Survivor>,
    /// What was found of its artifacts, once it has ended, if it has a workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifacts: Option<Artifacts>,
    /// Where files are that were uploaded for it before a node of a cluster had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uploads: Option<Box<Uploads>>,
    /// Which node of a cluster has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Box<Claim>>,
    /// What its node has reported after the job was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late: Option<Box<Late>>,
}

impl Job {
    /// A job as it is when it has been accepted, without a name and labels: queued, and nothing else.
    #[must_use]
    pub fn accepted(id: JobId, created_by: String, spec: Arc<Spec>, created_at: Timestamp) -> Self {
        Self {
            id,
            name: None,
            labels: BTreeMap::new(),
            created_by,
            rerun_of: None,
            trace: None,
            run_at: None,
            hold: false,
            schedule: None,
            spec,
            depends_on: Vec::new(),
            batch: None,
            version: 1,
            state: State::Queued,
            message: None,
            created_at,
            started_at: None,
            finished_at: None,
            expires_at: None,
            deadline_at: None,
            warned_at: None,
            ready_at: None,
            not_ready_at: None,
            ready_message: None,
            process: None,
            attempt: 1,
            attempts: Vec::new(),
            next_attempt_at: None,
            exit: None,
            termination: None,
            spawn_failure: None,
            usage: None,
            output: OutputTotals::default(),
            survivors: Vec::new(),
            artifacts: None,
            uploads: None,
            claim: None,
            late: None,
        }
    }

    /// It is to become ready, and is not yet.
    #[must_use]
    pub fn awaits_ready(&self) -> bool {
        self.spec.ready.is_some() && self.ready_at.is_none()
    }

    /// Is it known whether it is ready: it is, it was not in time, or it is over?
    #[must_use]
    pub fn knows_ready(&self) -> bool {
        self.ready_at.is_some() || self.not_ready_at.is_some() || self.state.is_terminal()
    }

    /// When its first attempt has to have started: so long after it could have, as far as its time is concerned.
    #[must_use]
    pub fn start_deadline_at(&self) -> Option<Timestamp> {
        let limit = self
            .spec
            .start_deadline
            .filter(|_| self.attempts.is_empty())?;
        let from = self
            .run_at
            .map_or(self.created_at, |at| at.max(self.created_at));
        Some(from.after(limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_api_are_those_of_the_encoding() {
        for state in State::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
    }

    #[test]
    fn a_stored_spec_comes_back_whole() {
        let mut spec = Spec {
            timeout: Some(std::time::Duration::from_millis(1500)),
            ..Spec::default()
        };
        spec.program = spec::Program::Script {
            script: "exit 3".into(),
            shell: vec!["/bin/sh".into(), "-c".into()],
        };
        spec.rlimits.insert(
            spec::RlimitResource::Core,
            spec::Rlimit {
                soft: spec::RlimitValue::Value(0),
                hard: spec::RlimitValue::Unlimited,
            },
        );
        spec.env_inherit = spec::EnvInherit::Names(vec!["A".into()]);
        spec.user = Some(spec::NameOrId::Id(7));
        spec.stdin = spec::Stdin::Data(spec::StdinData::Text("x".into()));
        let json = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<Spec>(&json).unwrap(), spec, "{json}");
    }

    #[test]
    fn a_start_deadline_counts_from_the_time_of_the_job_or_from_its_creation() {
        let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000);
        let spec = Spec {
            start_deadline: Some(std::time::Duration::from_secs(10)),
            ..Spec::default()
        };
        let id = JobId::from_bytes([1; 16]);
        let mut job = Job::accepted(id, String::new(), Arc::new(spec), at(100));
        assert_eq!(job.start_deadline_at(), Some(at(110)));
        job.run_at = Some(at(200));
        assert_eq!(job.start_deadline_at(), Some(at(210)));
        job.run_at = Some(at(5));
        assert_eq!(job.start_deadline_at(), Some(at(110)));
        job.spec = Arc::new(Spec::default());
        assert_eq!(job.start_deadline_at(), None);
    }

    #[test]
    fn a_secret_value_is_neither_shown_nor_encoded() {
        let spec = Spec {
            secret_env: spec::Secrets([("TOKEN".to_owned(), "hunter2".to_owned())].into()),
            ..Spec::default()
        };
        let secrets = &spec.secret_env;
        let shown = format!(
            "{secrets:?} {spec:?} {}",
            serde_json::to_string(&spec).unwrap()
        );
        assert!(
            shown.contains("TOKEN") && !shown.contains("hunter2"),
            "{shown}"
        );
    }

    #[test]
    fn what_may_be_a_secret_is_not_shown_either() {
        let spec = Spec {
            program: spec::Program::Command {
                command: vec!["login".into(), "hunter2".into()],
            },
            env: [("TOKEN".to_owned(), "hunter2".to_owned())].into(),
            stdin: spec::Stdin::Data(spec::StdinData::Text("hunter2".into())),
            ..Spec::default()
        };
        let shown = format!("{spec:?}");
        assert!(
            shown.contains("TOKEN") && !shown.contains("hunter2"),
            "{shown}"
        );
    }
}
