//! The flags of `procession run` that few need: with those in `spec`, every field of a job has one.

use serde_json::{Map, Value, json};

use super::spec::{name_or_id, number, put};
use crate::failure::Failure;
use crate::values::seconds;

/// How to run it, further.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Job")]
pub(crate) struct MoreArgs {
    /// Shell for --script, with its arguments, such as "/bin/bash -ec" [default: /bin/sh -c]
    #[arg(long, value_name = "COMMAND", requires = "script")]
    shell: Option<String>,
    /// Inherit only this variable from the service's environment; can be repeated
    #[arg(
        long = "env-inherit",
        value_name = "NAME",
        conflicts_with = "clean_env"
    )]
    env_inherit: Vec<String>,
    /// Supplementary group of the job's processes; can be repeated
    #[arg(long = "supplementary-group", value_name = "GROUP")]
    supplementary_groups: Vec<String>,
    /// How readily the kernel ends the job when memory is short, -1000 to 1000 [default: 0]
    #[arg(long, allow_hyphen_values = true, value_name = "N")]
    oom_score_adj: Option<i64>,
    /// Processors that the job may run on, such as 0,2-3 [default: the service's]
    #[arg(long, value_name = "LIST")]
    cpu_affinity: Option<String>,
    /// Let programs of the job gain privileges, such as by sudo
    #[arg(long)]
    allow_new_privs: bool,
    /// Sandbox: off, default, or require, which fails if the kernel lacks a part of it [default: the service's]
    #[arg(long, value_enum, value_name = "WHAT")]
    sandbox: Option<Sandbox>,
    /// Give the job no network; unix sockets still work
    #[arg(long)]
    no_network: bool,
    /// Class of its reads and writes, and level from 0 to 7, such as idle or best-effort:7 [default: the service's]
    #[arg(long, value_name = "CLASS[:LEVEL]")]
    io_priority: Option<String>,
    /// Announce the timeout this long before it, by an event and --warn-signal [default: no warning]
    #[arg(long, value_name = "TIME", value_parser = seconds, requires = "timeout")]
    timeout_warning: Option<f64>,
    /// Signal to send with --timeout-warning [default: none]
    #[arg(long, value_name = "SIGNAL", requires = "timeout_warning")]
    warn_signal: Option<String>,
    /// Which processes get --warn-signal [default: leader]
    #[arg(long, value_enum, value_name = "WHICH", requires = "warn_signal")]
    warn_scope: Option<Scope>,
    /// Which processes get the first signal of a stop [default: group]
    #[arg(long, value_enum, value_name = "WHICH")]
    stop_scope: Option<Scope>,
    /// What happens when --max-output is reached [default: drop-oldest]
    #[arg(long, value_enum, value_name = "WHAT")]
    on_limit: Option<OnLimit>,
    /// URL to notify of what happens to the job; can be repeated
    #[arg(long = "webhook", value_name = "URL")]
    webhooks: Vec<String>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Sandbox {
    Off,
    Default,
    Require,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Scope {
    Group,
    Leader,
    All,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum OnLimit {
    DropOldest,
    DropNewest,
    StopJob,
    Wait,
}

impl MoreArgs {
    /// Puts its fields into the body of the request.
    pub(crate) fn put_into(&self, body: &mut Map<String, Value>) -> Result<(), Failure> {
        if let Some(shell) = &self.shell {
            let words = shlex::split(shell).filter(|words| !words.is_empty());
            let words =
                words.ok_or_else(|| Failure::Usage("--shell takes a command".to_owned()))?;
            put(body, &["shell"], json!(words));
        }
        if !self.env_inherit.is_empty() {
            put(body, &["env_inherit"], json!(self.env_inherit));
        }
        if !self.supplementary_groups.is_empty() {
            let groups = self.supplementary_groups.iter();
            let groups: Vec<Value> = groups.map(|group| name_or_id(group)).collect();
            put(body, &["supplementary_groups"], json!(groups));
        }
        if let Some(score) = self.oom_score_adj {
            put(body, &["oom_score_adj"], json!(score));
        }
        if let Some(list) = &self.cpu_affinity {
            put(body, &["cpu_affinity"], json!(processors(list)?));
        }
        if self.allow_new_privs {
            put(body, &["no_new_privs"], json!(false));
        }
        if let Some(sandbox) = self.sandbox {
            put(body, &["sandbox"], sandbox.value());
        }
        if self.no_network {
            put(body, &["sandbox", "network"], json!("off"));
        }
        if let Some(priority) = &self.io_priority {
            put(body, &["io_priority"], io_priority(priority)?);
        }
        if let Some(before) = self.timeout_warning {
            put(body, &["timeout_warning", "before_seconds"], number(before));
        }
        if let Some(signal) = &self.warn_signal {
            put(body, &["timeout_warning", "signal"], json!(signal));
        }
        if let Some(scope) = self.warn_scope {
            put(body, &["timeout_warning", "scope"], json!(scope.word()));
        }
        if let Some(scope) = self.stop_scope {
            put(body, &["stop", "scope"], json!(scope.word()));
        }
        if let Some(on_limit) = self.on_limit {
            let word = match on_limit {
                OnLimit::DropOldest => "drop_oldest",
                OnLimit::DropNewest => "drop_newest",
                OnLimit::StopJob => "stop_job",
                OnLimit::Wait => "wait",
            };
            put(body, &["output", "on_limit"], json!(word));
        }
        if !self.webhooks.is_empty() {
            let hooks: Vec<Value> = self
                .webhooks
                .iter()
                .map(|url| json!({"url": url}))
                .collect();
            put(body, &["webhooks"], json!(hooks));
        }
        Ok(())
    }
}

impl Scope {
    fn word(self) -> &'static str {
        match self {
            Self::Group => "group",
            Self::Leader => "leader",
            Self::All => "all",
        }
    }
}

impl Sandbox {
    fn value(self) -> Value {
        match self {
            Self::Off => json!({"landlock": "off", "seccomp": "off"}),
            Self::Default => json!({"landlock": "default", "seccomp": "default"}),
            Self::Require => {
                json!({"landlock": "default", "seccomp": "default", "require": true})
            }
        }
    }
}

/// A class, and a level in it.
fn io_priority(text: &str) -> Result<Value, Failure> {
    let (class, level) = match text.split_once(':') {
        Some((class, level)) => (class, Some(level)),
        None => (text, None),
    };
    let mut value = json!({"class": class.replace('-', "_")});
    if let Some(level) = level {
        let level: u8 = level
            .parse()
            .map_err(|_| Failure::Usage("a level of --io-priority is 0 to 7".to_owned()))?;
        value["level"] = level.into();
    }
    Ok(value)
}

/// The processors of a list such as `0,2-3`.
fn processors(list: &str) -> Result<Vec<u16>, Failure> {
    let wrong = || {
        Failure::Usage(format!(
            "--cpu-affinity takes a list such as 0,2-3, not {list:?}"
        ))
    };
    let number = |text: &str| text.parse::<u16>().ok().filter(|number| *number < 1024);
    let mut found = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Some(first), Some(last)) = (number(first), number(last)) else {
            return Err(wrong());
        };
        found.extend(first..=last);
    }
    found.sort_unstable();
    found.dedup();
    if found.is_empty() {
        Err(wrong())
    } else {
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Run {
        #[command(flatten)]
        more: MoreArgs,
        #[arg(long)]
        script: Option<String>,
        #[arg(long)]
        clean_env: bool,
        #[arg(long)]
        timeout: Option<String>,
    }

    fn body(line: &str) -> Result<Value, Failure> {
        let words = shlex::split(line).unwrap_or_default();
        let args = Run::try_parse_from(["run".to_owned()].into_iter().chain(words));
        let args = args.map_err(|error| Failure::Usage(error.to_string()))?;
        let mut body = Map::new();
        args.more.put_into(&mut body).map(|()| Value::Object(body))
    }

    #[test]
    fn every_flag_becomes_its_field() {
        let line = "--script x --shell '/bin/bash -ec' --env-inherit HOME --env-inherit LANG \
            --supplementary-group adm --supplementary-group 7 --oom-score-adj -5 --cpu-affinity 3,0-1 --allow-new-privs \
            --sandbox require --no-network --io-priority best-effort:7 --timeout 5m \
            --timeout-warning 1m --warn-signal USR1 --warn-scope all --stop-scope all --on-limit stop-job --webhook https://example.org/a";
        let expected = json!({
            "shell": ["/bin/bash", "-ec"], "env_inherit": ["HOME", "LANG"], "supplementary_groups": ["adm", 7],
            "oom_score_adj": -5, "cpu_affinity": [0, 1, 3], "no_new_privs": false,
            "sandbox": {"landlock": "default", "seccomp": "default", "require": true, "network": "off"},
            "io_priority": {"class": "best_effort", "level": 7},
            "timeout_warning": {"before_seconds": 60, "signal": "USR1", "scope": "all"},
            "stop": {"scope": "all"}, "output": {"on_limit": "stop_job"},
            "webhooks": [{"url": "https://example.org/a"}],
        });
        assert!(
            matches!(body(line), Ok(made) if made == expected),
            "{:?}",
            body(line)
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused_here() {
        for line in [
            "--shell sh",
            "--script x --shell ''",
            "--cpu-affinity ,",
            "--cpu-affinity 3-1",
            "--cpu-affinity 1024",
            "--sandbox some",
            "--io-priority idle:x",
            "--timeout-warning 1m",
            "--timeout 5m --warn-signal USR1",
            "--clean-env --env-inherit HOME",
        ] {
            assert!(matches!(body(line), Err(Failure::Usage(_))), "{line}");
        }
    }
}
