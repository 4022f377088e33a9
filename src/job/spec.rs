//! The validated description of a job: what to run, as whom, within which limits.
//!
//! `parse.rs` makes one from a request; nothing else does, save for reading back what was stored.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Signal;
use crate::pty::Pty;
use crate::queue::Concurrency;
use crate::retry::Retry;
use crate::sandbox::Sandbox;
use crate::webhook::Webhook;
use crate::workspace::{ArtifactRules, Input, Workspace};

/// What to run. Exactly one of the two forms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Program {
    /// An argument vector, executed without a shell.
    Command {
        /// `argv`; the first item is looked up in the job's `PATH` where it has no slash.
        command: Vec<String>,
    },
    /// A text for a shell.
    Script {
        /// The text, appended to `shell` as its last argument.
        script: String,
        /// The shell and its options.
        shell: Vec<String>,
    },
}

impl Program {
    /// The argument vector that will be executed.
    #[must_use]
    pub fn argv(&self) -> Vec<String> {
        match self {
            Self::Command { command } => command.clone(),
            Self::Script { script, shell } => shell.iter().chain([script]).cloned().collect(),
        }
    }
}

/// Environment values that are never shown again: `Debug` and `Serialize` give the names only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets(pub BTreeMap<String, String>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Serialize for Secrets {
    /// `{"NAME": null}`: the names, so that a reader sees that there is a secret, and no value.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.keys().map(|name| (name, ())))
    }
}

impl<'de> Deserialize<'de> for Secrets {
    /// Reads back names (values `null`, as the store keeps them beside the job) as empty values.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = BTreeMap::<String, Option<String>>::deserialize(deserializer)?;
        Ok(Self(
            names
                .into_iter()
                .map(|(name, value)| (name, value.unwrap_or_default()))
                .collect(),
        ))
    }
}

/// Which variables of the service's environment a job gets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnvInherit {
    /// PATH HOME USER LOGNAME SHELL LANG LC_* TZ TMPDIR.
    #[default]
    Default,
    /// Nothing.
    None,
    /// These, where they are set.
    #[serde(untagged)]
    Names(Vec<String>),
}

/// A user or group as the client named it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum NameOrId {
    /// A uid or gid.
    Id(u32),
    /// A name to look up on this machine.
    Name(String),
}

/// A file mode creation mask; octal text such as `"0022"` in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Umask(u32);

impl Umask {
    /// The mask with these permission bits, where they are within 0777.
    #[must_use]
    pub fn from_bits(bits: u32) -> Option<Self> {
        (bits <= 0o777).then_some(Self(bits))
    }

    /// The permission bits.
    #[must_use]
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl From<Umask> for String {
    fn from(umask: Umask) -> Self {
        format!("{:04o}", umask.0)
    }
}

impl TryFrom<String> for Umask {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let octal = !text.is_empty()
            && text.len() <= 4
            && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
        let bits = if octal {
            u32::from_str_radix(&text, 8).ok()
        } else {
            None
        };
        bits.and_then(Self::from_bits)
            .ok_or("an octal number from 0000 to 0777")
    }
}

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

/// What the job reads on its standard input.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum Stdin {
    /// `/dev/null`.
    #[default]
    Null,
    /// A pipe that clients write to.
    Open,
    /// These bytes, then the end.
    Data(StdinData),
}

/// The bytes for a job's standard input, in the form in which the client gave them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StdinData {
    /// UTF-8 text.
    Text(String),
    /// Standard base64 with padding; `parse.rs` has checked that it decodes.
    Base64(String),
}

/// What happens when the kept output reaches `max_bytes`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnLimit {
    /// The oldest output makes room.
    #[default]
    DropOldest,
    /// What comes later is dropped.
    DropNewest,
    /// The job is stopped with the cause `output_limit`.
    StopJob,
    /// The job waits, as for the reader of a pipe, until those who follow its output have read some of it.
    Wait,
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
}

/// What is kept of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OutputPolicy {
    /// Standard error goes into standard output: the only way to an exact order between the two.
    pub merge_stderr: bool,
    /// The most that is kept on disk.
    pub max_bytes: u64,
    /// What happens then.
    pub on_limit: OnLimit,
}

impl Default for OutputPolicy {
    fn default() -> Self {
        Self {
            merge_stderr: false,
            max_bytes: 64 << 20,
            on_limit: OnLimit::default(),
        }
    }
}

/// Which processes of the job a signal goes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// The leader's process group.
    #[default]
    Group,
    /// The leader alone.
    Leader,
    /// Every process of the job.
    All,
}

/// What a stop does before the final kill, which always takes every process of the job.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StopPolicy {
    /// What is sent first.
    pub signal: Signal,
    /// How long the job may take to end after it.
    #[serde(rename = "grace_seconds", with = "seconds")]
    pub grace: Duration,
    /// Whom it is sent to.
    pub scope: Scope,
}

impl Default for StopPolicy {
    fn default() -> Self {
        Self {
            signal: Signal::TERM,
            grace: Duration::from_secs(10),
            scope: Scope::default(),
        }
    }
}

/// When a job counts as over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitFor {
    /// The leader's exit ends the job; what is left of it is stopped.
    #[default]
    Leader,
    /// The job runs until its last process has ended.
    All,
}

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
    #[serde(rename = "timeout_seconds", with = "optional_seconds")]
    pub timeout: Option<Duration>,
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
    #[serde(rename = "start_deadline_seconds", with = "optional_seconds")]
    pub start_deadline: Option<Duration>,
    /// How long the record stays readable after the end.
    #[serde(rename = "ttl_seconds_after_finished", with = "seconds")]
    pub ttl_after_finished: Duration,
    /// Who is told of what happens to it.
    pub webhooks: Vec<Webhook>,
    /// Whether it is tried again if it fails.
    pub retry: Option<Retry>,
    /// It has a directory of its own.
    pub workspace: Option<Workspace>,
    /// What is in it before the job starts.
    pub inputs: Vec<Input>,
    /// What is kept of it at the end.
    pub artifacts: Option<ArtifactRules>,
}

impl Spec {
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
            umask: Umask(0o022),
            nice: None,
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
            workspace: None,
            inputs: Vec::new(),
            artifacts: None,
        }
    }
}

/// A [`Duration`] as a JSON number of seconds, fractions allowed.
pub(crate) mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(
        value: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        if value.subsec_nanos() == 0 {
            serializer.serialize_u64(value.as_secs())
        } else {
            serializer.serialize_f64(value.as_secs_f64())
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// The same for `null` or a number.
pub(crate) mod optional_seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => super::seconds::serialize(value, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let value = Option::<f64>::deserialize(deserializer)?;
        value
            .map(Duration::try_from_secs_f64)
            .transpose()
            .map_err(de::Error::custom)
    }
}
