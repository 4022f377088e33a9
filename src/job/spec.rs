//! The validated description of a job: what to run, as whom, within which limits.
//!
//! `http/request` makes one from a request; nothing else does, except for reading back what was stored.

mod identity;
mod io;
mod limits;
mod output;
mod program;
mod stop;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::placement::{OnNodeLoss, Placement};
use crate::pty::Pty;
use crate::queue::Concurrency;
use crate::ready::Ready;
use crate::retry::Retry;
use crate::sandbox::Sandbox;
use crate::seconds;
use crate::webhook::Webhook;
use crate::workspace::{ArtifactRules, Input, Workspace};
pub use identity::{NameOrId, Umask};
pub use io::{IoClass, IoPriority};
pub use limits::{Limits, Rlimit, RlimitResource, RlimitValue};
pub use output::{OnLimit, OutputPolicy};
pub use program::{EnvInherit, Program, Secrets, Stdin, StdinData};
pub use stop::{Scope, StopPolicy, TimeoutWarning, WaitFor};

/// The validated description of a job, with every default filled in.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Spec {
    /// What to run.
    #[serde(flatten)]
    pub program: Program,
    /// Absolute path, or relative to the workspace; `None` stands for the workspace, or the server's default work directory.
    pub cwd: Option<String>,
    /// Variables set for the job.
    pub env: BTreeMap<String, String>,
    /// The same, never shown again.
    pub secret_env: Secrets,
    /// What comes from the service's own environment.
    pub env_inherit: EnvInherit,
    /// Run as this user.
    pub user: Option<NameOrId>,
    /// Run with this group; the user's own by default.
    pub group: Option<NameOrId>,
    /// Further groups; the user's own by default.
    pub supplementary_groups: Option<Vec<NameOrId>>,
    /// File mode creation mask.
    pub umask: Umask,
    /// Nice value, −20 to 19.
    pub nice: Option<i32>,
    /// How its reads and writes are scheduled.
    pub io_priority: Option<IoPriority>,
    /// −1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// CPU numbers the job may run on.
    pub cpu_affinity: Option<Vec<usize>>,
    /// Per-process limits.
    pub rlimits: BTreeMap<RlimitResource, Rlimit>,
    /// Limits over the whole job.
    pub limits: Limits,
    /// No program of the job can gain privileges by execve(2).
    pub no_new_privs: bool,
    /// What it is kept from besides; `None`: what the service does by default.
    pub sandbox: Option<Sandbox>,
    /// Standard input.
    pub stdin: Stdin,
    /// A terminal in the place of standard input, output and error.
    pub pty: Option<Pty>,
    /// What is kept of the output.
    pub output: OutputPolicy,
    /// How long the job may run; time spent paused does not count.
    #[serde(rename = "timeout_seconds", with = "seconds::optional")]
    pub timeout: Option<Duration>,
    /// What it hears before that.
    pub timeout_warning: Option<TimeoutWarning>,
    /// How a stop goes.
    pub stop: StopPolicy,
    /// When the job counts as over.
    pub wait_for: WaitFor,
    /// Exit codes that count as success.
    pub success_exit_codes: Vec<u8>,
    /// The queue it waits in.
    pub queue: String,
    /// Higher starts first.
    pub priority: i32,
    /// How much of the limits it takes while it runs.
    pub weight: u32,
    /// The key that it runs under.
    pub concurrency: Option<Concurrency>,
    /// How long it may stay queued.
    #[serde(rename = "start_deadline_seconds", with = "seconds::optional")]
    pub start_deadline: Option<Duration>,
    /// How long the record stays readable after the end.
    #[serde(rename = "ttl_seconds_after_finished", with = "seconds")]
    pub ttl_after_finished: Duration,
    /// Who is told of what happens to it.
    pub webhooks: Vec<Webhook>,
    /// Whether it is tried again if it fails.
    pub retry: Option<Retry>,
    /// When it counts as ready.
    pub ready: Option<Ready>,
    /// It has a directory of its own.
    pub workspace: Option<Workspace>,
    /// What is in it before the job starts.
    pub inputs: Vec<Input>,
    /// What is kept of it at the end.
    pub artifacts: Option<ArtifactRules>,
    /// Which nodes of a cluster it may run on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// What becomes of it if its node is lost.
    #[serde(skip_serializing_if = "OnNodeLoss::is_usual")]
    pub on_node_loss: OnNodeLoss,
}

impl Spec {
    /// About how many bytes a client may have put into it: arguments, variables, input.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        let of_argv = |argv: &[String]| argv.iter().map(String::len).sum::<usize>();
        let program = match &self.program {
            Program::Command { command } => of_argv(command),
            Program::Script { script, shell } => script.len() + of_argv(shell),
        };
        let env = self
            .env
            .iter()
            .map(|(name, value)| name.len() + value.len());
        let stdin = match &self.stdin {
            Stdin::Data(StdinData::Text(text) | StdinData::Base64(text)) => text.len(),
            Stdin::Null | Stdin::Open => 0,
        };
        let inputs = self.inputs.iter().map(|input| input.content.text_bytes());
        program + env.sum::<usize>() + stdin + inputs.sum::<usize>()
    }

    /// Can clients write to its standard input? A terminal always takes what is typed.
    #[must_use]
    pub fn takes_input(&self) -> bool {
        self.stdin == Stdin::Open || self.pty.is_some()
    }

    /// Do both streams come as one?
    #[must_use]
    pub fn has_one_stream(&self) -> bool {
        self.output.merge_stderr || self.pty.is_some()
    }
}

impl fmt::Debug for Spec {
    /// Arguments, environment and standard input may hold secrets: they stay out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spec")
            .field("cwd", &self.cwd)
            .field("env", &self.env.keys())
            .field("user", &self.user)
            .field("timeout", &self.timeout)
            .field("stop", &self.stop)
            .finish_non_exhaustive()
    }
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            program: Program::Command {
                command: Vec::new(),
            },
            cwd: None,
            env: BTreeMap::new(),
            secret_env: Secrets::default(),
            env_inherit: EnvInherit::default(),
            user: None,
            group: None,
            supplementary_groups: None,
            umask: Umask::default(),
            nice: None,
            io_priority: None,
            oom_score_adj: None,
            cpu_affinity: None,
            rlimits: BTreeMap::new(),
            limits: Limits::default(),
            no_new_privs: true,
            sandbox: None,
            stdin: Stdin::default(),
            pty: None,
            output: OutputPolicy::default(),
            timeout: None,
            timeout_warning: None,
            stop: StopPolicy::default(),
            wait_for: WaitFor::default(),
            success_exit_codes: vec![0],
            queue: "default".to_owned(),
            priority: 0,
            weight: 1,
            concurrency: None,
            start_deadline: None,
            ttl_after_finished: Duration::from_hours(168),
            webhooks: Vec::new(),
            retry: None,
            ready: None,
            workspace: None,
            inputs: Vec::new(),
            artifacts: None,
            placement: None,
            on_node_loss: OnNodeLoss::Lost,
        }
    }
}
