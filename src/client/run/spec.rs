//! From the flags of `procession run` to the body of `POST /jobs`.
//!
//! PURE except for the files that are named: the service judges what is allowed. Flags win over the file.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::files::{Brought, FilesArgs, has_workspace};
use super::more::MoreArgs;
use super::ready::ReadyArgs;
use crate::failure::Failure;
use crate::values::{bytes, json_object, moment, seconds};
use job::time::Timestamp;

/// What to run, and how.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Job")]
pub(crate) struct SpecArgs {
    /// JSON file with fields of POST /jobs, or - for standard input; flags override it
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    file: Option<PathBuf>,
    /// Name to show and to refer to the job by
    #[arg(long)]
    name: Option<String>,
    /// Set a label; can be repeated
    #[arg(short, long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// Set an environment variable; without a value, copy it from here; can be repeated
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file of NAME=VALUE lines; can be repeated
    #[arg(long = "env-file", value_name = "FILE")]
    env_files: Vec<PathBuf>,
    /// Pass an environment variable from here and never show its value; can be repeated
    #[arg(long = "secret-env", value_name = "NAME")]
    secret_env: Vec<String>,
    /// Inherit nothing from the service's environment
    #[arg(long)]
    clean_env: bool,
    /// Working directory, relative to the current one, or to the job's workspace if it has one [default: the current one, if the service sees it and
    /// --user is not given; else the service's work directory]
    #[arg(
        short = 'C',
        long,
        value_name = "DIR",
        visible_short_alias = 'w',
        visible_alias = "workdir"
    )]
    cwd: Option<PathBuf>,
    /// Run as another user and group; the service must run as root [default: the service's user]
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Stop the job after TIME, such as 90s, 5min, 1h30m or 7d; a bare number is seconds [default: never]
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    timeout: Option<f64>,
    /// Signal that a stop sends first [default: SIGTERM; with --tty SIGHUP]
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Time a stop waits before SIGKILL [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    grace: Option<f64>,
    /// Queue to wait in [default: default]
    #[arg(long)]
    queue: Option<String>,
    /// Priority; higher starts first [default: that of the queue, usually 0]
    #[arg(long, allow_hyphen_values = true, value_name = "N")]
    priority: Option<i64>,
    /// How much the job counts for in the limits of its queue and of the service [default: 1]
    #[arg(long, value_name = "N")]
    weight: Option<u32>,
    /// Key under which only one job runs at a time, or --key-limit jobs
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// How many jobs may run under the key [default: 1]
    #[arg(long, value_name = "N", requires = "key")]
    key_limit: Option<u32>,
    /// What to do if the key is taken [default: queue]
    #[arg(long, value_enum, requires = "key", value_name = "WHAT")]
    on_conflict: Option<OnConflict>,
    /// Fail if a job with the same name is running or queued, and was started with this flag or --replace
    #[arg(long, requires = "name", conflicts_with_all = ["key", "key_limit", "on_conflict", "replace"])]
    if_not_running: bool,
    /// First stop the job with the same name that was started with this flag or --if-not-running
    #[arg(long, requires = "name", conflicts_with_all = ["key", "key_limit", "on_conflict"])]
    replace: bool,
    /// Try the job again if it fails, up to N attempts in all [default: 1]
    #[arg(long, value_name = "N")]
    retry: Option<u32>,
    /// Exit codes that are tried again, such as 75,100-110 [default: every code that is not a success]
    #[arg(long, value_name = "CODES", value_delimiter = ',', value_parser = exit_codes, requires = "retry")]
    retry_on_exit: Vec<Value>,
    /// Pause before the second attempt, and the longest pause; each is twice the one before [default: 1s..5m]
    #[arg(long, value_name = "TIME[..TIME]", value_parser = backoff, requires = "retry")]
    backoff: Option<Value>,
    /// Fail if the job has not started after TIME [default: never]
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    start_deadline: Option<f64>,
    /// Start at MOMENT: 06:00, 'tomorrow 06:00', '2026-12-24 18:00' in local time, RFC 3339, or 'in 2h' [default: now]
    #[arg(long, value_name = "MOMENT", value_parser = moment)]
    at: Option<Timestamp>,
    /// Start only once released: procession release JOB
    #[arg(long)]
    hold: bool,
    /// Start only after another job has succeeded, or ended as given; can be repeated
    #[arg(long, value_name = "JOB[:succeeded|failed|finished]")]
    after: Vec<String>,
    /// Memory limit for all processes of the job, such as 512M [default: none]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    memory: Option<u64>,
    /// Processor limit for all processes of the job, such as 1.5 [default: none]
    #[arg(long, value_name = "CORES")]
    cpus: Option<f64>,
    /// Maximum number of processes at a time [default: none]
    #[arg(long, value_name = "N")]
    pids: Option<u64>,
    /// Resource limit of each process, such as nofile=1024 or core=0:unlimited; can be repeated
    #[arg(long = "rlimit", value_name = "NAME=SOFT[:HARD]")]
    rlimits: Vec<String>,
    /// Nice value, -20 to 19 [default: the service's]
    #[arg(long, allow_hyphen_values = true, value_name = "N")]
    nice: Option<i64>,
    /// File mode creation mask, in octal [default: 0022]
    #[arg(long, value_name = "MASK")]
    umask: Option<String>,
    /// How much output to keep; see --on-limit [default: 64MiB]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    max_output: Option<u64>,
    /// Merge standard error into standard output, in exact order
    #[arg(long)]
    merge_stderr: bool,
    /// Keep the job running until its last process ends, not just the first
    #[arg(long)]
    wait_for_all: bool,
    /// Exit code that means success; can be repeated [default: 0]
    #[arg(long = "success-code", value_name = "CODE")]
    success_codes: Vec<u8>,
    /// How long to keep the record and output after the end [default: 7d]
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    ttl: Option<f64>,
    /// Script for /bin/sh instead of a command
    #[arg(long, value_name = "TEXT", conflicts_with = "command")]
    script: Option<String>,
    /// Template of the service's command policy instead of a command
    #[arg(long, value_name = "NAME", conflicts_with_all = ["command", "script"])]
    template: Option<String>,
    /// Template parameter; can be repeated
    #[arg(long = "param", value_name = "NAME=VALUE")]
    params: Vec<String>,
    #[command(flatten)]
    more: MoreArgs,
    #[command(flatten)]
    ready: ReadyArgs,
    #[command(flatten)]
    files: FilesArgs,
    /// Command and arguments; no shell is involved
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum OnConflict {
    /// Wait
    Queue,
    /// Fail
    Reject,
    /// Wait, and cancel waiting jobs with the key
    Newest,
    /// Likewise, and stop running jobs with the key
    Replace,
}

impl OnConflict {
    fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Reject => "reject",
            Self::Newest => "newest",
            Self::Replace => "replace",
        }
    }
}

/// What flags may refer to.
#[derive(Debug)]
pub(crate) struct Here<'a> {
    pub(crate) directory: &'a Path,
    /// The value of a variable.
    pub(crate) variable: fn(&str) -> Option<String>,
}

impl SpecArgs {
    /// Does the file of the spec take standard input?
    pub(crate) fn reads_stdin(&self) -> bool {
        self.file.as_deref() == Some(Path::new("-"))
    }

    /// What the request cannot hold, and is put into the job once it is there.
    pub(crate) fn apart(&self, directory: &Path) -> Result<Vec<Brought>, Failure> {
        self.files.apart(directory)
    }

    /// The body of the request.
    pub(crate) fn body(&self, here: &Here<'_>) -> Result<Map<String, Value>, Failure> {
        let mut body = match &self.file {
            Some(path) => json_object(path)?,
            None => Map::new(),
        };
        if !self.command.is_empty() {
            // One of the two: a command replaces the script of a file.
            body.remove("script");
            body.remove("shell");
            body.insert("command".to_owned(), json!(self.command));
        }
        if let Some(script) = &self.script {
            body.remove("command");
            body.insert("script".to_owned(), json!(script));
        }
        if let Some(template) = &self.template {
            body.insert("template".to_owned(), json!(template));
        }
        if !self.params.is_empty() && !body.contains_key("template") {
            return Err(Failure::Usage("--param needs --template".to_owned()));
        }
        for param in &self.params {
            let (name, value) = pair(param, "--param")?;
            // The policy tells texts and integers apart, and a number is what it looks like.
            let value = value
                .parse::<i64>()
                .map_or_else(|_| json!(value), Value::from);
            put(&mut body, &["params", name], value);
        }
        self.text_and_numbers(&mut body);
        self.labels_and_variables(&mut body, here)?;
        self.more.put_into(&mut body)?;
        self.ready.put_into(&mut body);
        self.files.put_into(&mut body, here.directory)?;
        for limit in &self.rlimits {
            let (name, value) = pair(limit, "--rlimit")?;
            let value = match value.split_once(':') {
                Some((soft, hard)) => json!({"soft": rlimit(soft)?, "hard": rlimit(hard)?}),
                None => rlimit(value)?,
            };
            put(&mut body, &["rlimits", name], value);
        }
        if let Some(user) = &self.user {
            let (user, group) = match user.split_once(':') {
                Some((user, group)) => (user, Some(group)),
                None => (user.as_str(), None),
            };
            if !user.is_empty() {
                body.insert("user".to_owned(), name_or_id(user));
            }
            if let Some(group) = group {
                body.insert("group".to_owned(), name_or_id(group));
            }
        }
        if let Some(cwd) = &self.cwd {
            let cwd = match has_workspace(&body) {
                true => cwd.clone(),
                false => here.directory.join(cwd),
            };
            let Some(cwd) = cwd.to_str() else {
                return Err(Failure::Usage("--cwd is not UTF-8".to_owned()));
            };
            body.insert("cwd".to_owned(), json!(cwd));
        }
        let is_something = ["command", "script", "template"];
        if !is_something.iter().any(|field| body.contains_key(*field)) {
            return Err(Failure::Usage(
                "nothing to run: give a command, --script, --template or --file".to_owned(),
            ));
        }
        Ok(body)
    }

    /// The jobs that have to end first, as they were given.
    pub(crate) fn after(&self) -> &[String] {
        &self.after
    }

    fn labels_and_variables(
        &self,
        body: &mut Map<String, Value>,
        here: &Here<'_>,
    ) -> Result<(), Failure> {
        for label in &self.labels {
            let (key, value) = pair(label, "--label")?;
            put(body, &["labels", key], json!(value));
        }
        for file in &self.env_files {
            for (name, value) in variables(file, here)? {
                put(body, &["env", &name], json!(value));
            }
        }
        for variable in &self.env {
            let (name, value) = match variable.split_once('=') {
                Some((name, value)) => (name, value.to_owned()),
                None => (variable.as_str(), here.value(variable, "--env")?),
            };
            put(body, &["env", name], json!(value));
        }
        for name in &self.secret_env {
            if name.contains('=') {
                return Err(Failure::Usage(format!(
                    "--secret-env takes only a name, since other users can see arguments: \
                     export the variable and write --secret-env {}",
                    name.split('=').next().unwrap_or_default()
                )));
            }
            put(
                body,
                &["secret_env", name],
                json!(here.value(name, "--secret-env")?),
            );
        }
        Ok(())
    }

    fn text_and_numbers(&self, body: &mut Map<String, Value>) {
        let mut set = |place: &[&str], value: Option<Value>| {
            if let Some(value) = value {
                put(body, place, value);
            }
        };
        let flag = |given: bool, value: Value| given.then_some(value);
        set(&["name"], self.name.as_ref().map(|name| json!(name)));
        set(&["env_inherit"], flag(self.clean_env, json!("none")));
        set(&["timeout_seconds"], self.timeout.map(number));
        set(
            &["stop", "signal"],
            self.stop_signal.as_ref().map(|signal| json!(signal)),
        );
        set(&["stop", "grace_seconds"], self.grace.map(number));
        set(&["queue"], self.queue.as_ref().map(|queue| json!(queue)));
        set(&["priority"], self.priority.map(Value::from));
        set(&["weight"], self.weight.map(Value::from));
        let by_name = match (self.if_not_running, self.replace) {
            (true, _) => Some(OnConflict::Reject),
            (_, true) => Some(OnConflict::Replace),
            (false, false) => None,
        };
        let key = match by_name {
            Some(_) => &self.name,
            None => &self.key,
        };
        set(&["concurrency", "key"], key.as_ref().map(|key| json!(key)));
        set(&["concurrency", "limit"], self.key_limit.map(Value::from));
        set(
            &["concurrency", "policy"],
            by_name
                .or(self.on_conflict)
                .map(|what| json!(what.as_str())),
        );
        set(&["retry", "max_attempts"], self.retry.map(Value::from));
        set(
            &["retry", "exit_codes"],
            flag(!self.retry_on_exit.is_empty(), json!(self.retry_on_exit)),
        );
        set(&["retry", "backoff"], self.backoff.clone());
        set(&["start_deadline_seconds"], self.start_deadline.map(number));
        set(&["run_at"], self.at.map(|at| json!(at)));
        set(&["hold"], flag(self.hold, json!(true)));
        set(&["limits", "memory_bytes"], self.memory.map(Value::from));
        set(&["limits", "cpu"], self.cpus.map(number));
        set(&["limits", "pids"], self.pids.map(Value::from));
        set(&["nice"], self.nice.map(Value::from));
        set(&["umask"], self.umask.as_ref().map(|umask| json!(umask)));
        set(&["output", "max_bytes"], self.max_output.map(Value::from));
        set(
            &["output", "merge_stderr"],
            flag(self.merge_stderr, json!(true)),
        );
        set(&["wait_for"], flag(self.wait_for_all, json!("all")));
        set(
            &["success_exit_codes"],
            flag(!self.success_codes.is_empty(), json!(self.success_codes)),
        );
        set(&["ttl_seconds_after_finished"], self.ttl.map(number));
    }
}

impl Here<'_> {
    fn value(&self, name: &str, flag: &str) -> Result<String, Failure> {
        (self.variable)(name).ok_or_else(|| {
            Failure::Usage(format!(
                "{flag} {name}: the variable is not set, or is not UTF-8"
            ))
        })
    }
}

/// One exit code, or a range of them.
fn exit_codes(text: &str) -> Result<Value, String> {
    let wrong = || "an exit code is a number from 0 to 255, and a range is 100-110".to_owned();
    let code = |text: &str| text.trim().parse::<u8>().map_err(|_| wrong());
    match text.split_once('-') {
        Some((first, last)) => Ok(json!([code(first)?, code(last)?])),
        None => Ok(json!(code(text)?)),
    }
}

/// The first pause, and the longest one.
fn backoff(text: &str) -> Result<Value, String> {
    match text.split_once("..") {
        Some((first, most)) => Ok(json!({
            "initial_seconds": number(seconds(first)?), "max_seconds": number(seconds(most)?),
        })),
        None => Ok(json!({"initial_seconds": number(seconds(text)?)})),
    }
}

/// Sets a field, and makes missing objects around it.
pub(crate) fn put(body: &mut Map<String, Value>, place: &[&str], value: Value) {
    let Some((first, rest)) = place.split_first() else {
        return;
    };
    if rest.is_empty() {
        body.insert((*first).to_owned(), value);
        return;
    }
    let inner = body.entry(*first).or_insert_with(|| json!({}));
    if !inner.is_object() {
        // The service would refuse what is there, and a flag wins over it anyway.
        *inner = json!({});
    }
    put(inner.as_object_mut().expect("it was made one"), rest, value);
}

/// A whole number goes without a fraction.
pub(super) fn number(value: f64) -> Value {
    let text = value.to_string();
    serde_json::from_str(&text).unwrap_or_else(|_| json!(value))
}

pub(super) fn name_or_id(text: &str) -> Value {
    text.parse::<u32>()
        .map_or_else(|_| json!(text), Value::from)
}

/// The variables in a file: a line each, as `NAME=VALUE`, or `NAME` for the value that it has here. Empty lines and
/// those that start with `#` are skipped; nothing is unquoted, as `docker run --env-file` has it.
fn variables(file: &Path, here: &Here<'_>) -> Result<Vec<(String, String)>, Failure> {
    let shown = file.display();
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::Local(format!("cannot read {shown}: {error}")))?;
    let mut variables = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => (line, here.value(line, "--env-file")?),
        };
        if name.is_empty() || name.contains(char::is_whitespace) {
            let line = at + 1;
            return Err(Failure::Usage(format!(
                "{shown}, line {line}: no NAME=VALUE"
            )));
        }
        variables.push((name.to_owned(), value));
    }
    Ok(variables)
}

fn rlimit(text: &str) -> Result<Value, Failure> {
    if text == "unlimited" {
        return Ok(json!(text));
    }
    bytes(text)
        .map(Value::from)
        .map_err(|why| Failure::Usage(format!("--rlimit: {why}, or unlimited")))
}

fn pair<'a>(text: &'a str, flag: &str) -> Result<(&'a str, &'a str), Failure> {
    text.split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| Failure::Usage(format!("{flag} takes NAME=VALUE, not {text:?}")))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Run {
        #[command(flatten)]
        spec: SpecArgs,
    }

    fn body(line: &[&str]) -> Result<Value, Failure> {
        let line = ["run"].iter().chain(line);
        let here = Here {
            directory: Path::new("/here"),
            variable: |name| (name == "HAVE").then(|| "it".to_owned()),
        };
        let args = Run::try_parse_from(line).map_err(|error| Failure::Usage(error.to_string()))?;
        args.spec.body(&here).map(Value::Object)
    }

    #[test]
    fn a_command_is_all_there_is_by_default() {
        assert_eq!(
            body(&["--", "sh", "-c", "x"]).unwrap(),
            json!({"command": ["sh", "-c", "x"]})
        );
        // Without the dashes, too, flags behind the command are the command's.
        assert_eq!(
            body(&["ls", "-l", "--name"]).unwrap(),
            json!({"command": ["ls", "-l", "--name"]})
        );
    }

    #[test]
    fn every_flag_becomes_its_field() {
        let line = "--name n -l a=b --label=c= -e X=1=2 -e HAVE --secret-env HAVE --clean-env -C sub -u root:7 \
            --timeout 1.5m --stop-signal INT --grace 2 --queue q --priority -3 --start-deadline 1h --memory 512M \
            --cpus 1.5 --pids 9 --rlimit nofile=1K --rlimit core=0:unlimited --nice -5 --umask 0077 \
            --max-output 1M --merge-stderr --wait-for-all --success-code 0 --success-code 3 --ttl 2d true";
        let line: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(
            body(&line).unwrap(),
            json!({
                "command": ["true"], "name": "n", "labels": {"a": "b", "c": ""},
                "env": {"X": "1=2", "HAVE": "it"}, "secret_env": {"HAVE": "it"}, "env_inherit": "none",
                "cwd": "/here/sub", "user": "root", "group": 7, "timeout_seconds": 90,
                "stop": {"signal": "INT", "grace_seconds": 2}, "queue": "q", "priority": -3,
                "start_deadline_seconds": 3600, "limits": {"memory_bytes": 536_870_912, "cpu": 1.5, "pids": 9},
                "rlimits": {"nofile": 1024, "core": {"soft": 0, "hard": "unlimited"}}, "nice": -5,
                "umask": "0077", "output": {"max_bytes": 1_048_576, "merge_stderr": true}, "wait_for": "all",
                "success_exit_codes": [0, 3], "ttl_seconds_after_finished": 172_800,
            })
        );
    }

    #[test]
    fn flags_win_over_the_file() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let text = r#"{"script": "x", "name": "file", "stop": {"signal": "HUP", "grace_seconds": 1}, "odd": 1}"#;
        file.write_all(text.as_bytes()).unwrap();
        let path = file.path().to_str().unwrap();
        assert_eq!(
            body(&["-f", path, "--name", "flag", "--grace", "9", "true"]).unwrap(),
            json!({"command": ["true"], "name": "flag", "stop": {"signal": "HUP", "grace_seconds": 9}, "odd": 1})
        );
        assert_eq!(body(&["-f", path]).unwrap()["script"], "x");
        assert!(matches!(body(&["-f", "/nowhere"]), Err(Failure::Local(_))));
    }

    #[test]
    fn variables_come_from_files_and_flags_win() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"# comment\n\nA=1\nB=x = \"y\"\nHAVE\nC=\n")
            .unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        assert_eq!(
            body(&["--env-file", &path, "-e", "A=2", "true"]).unwrap()["env"],
            json!({"A": "2", "B": "x = \"y\"", "HAVE": "it", "C": ""})
        );
        file.write_all(b"=x\n").unwrap();
        let failure = body(&["--env-file", &path, "true"]).unwrap_err();
        assert!(
            failure.to_string().ends_with(", line 7: no NAME=VALUE"),
            "{failure}"
        );
    }

    #[test]
    fn a_template_has_parameters_of_two_kinds() {
        assert_eq!(
            body(&[
                "--template",
                "t",
                "--param",
                "level=3",
                "--param",
                "to=/srv/x"
            ])
            .unwrap(),
            json!({"template": "t", "params": {"level": 3, "to": "/srv/x"}})
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused_here() {
        for line in [
            &[][..],
            &["-e", "LACK", "x"],
            &["--secret-env", "A=b", "x"],
            &["-l", "novalue", "x"],
            &["-l", "=v", "x"],
            &["--timeout", "soon", "x"],
            &["--timeout", "-1", "x"],
            &["--timeout", "inf", "x"],
            &["--memory", "1.5Q", "x"],
            &["--memory", "99999999999T", "x"],
            &["--rlimit", "core=x", "x"],
            &["--script", "a", "b"],
            &["--param", "a=b", "x"],
        ] {
            assert!(
                matches!(body(line), Err(Failure::Usage(_))),
                "{line:?}: {:?}",
                body(line)
            );
        }
    }
}
