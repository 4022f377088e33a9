//! The table of settings, and the value that each has been given.

use std::collections::BTreeMap;
use std::path::Path;

use self::Kind::{Many, One, Switch};
use self::Preset::{Rule, Value};
use crate::config::{ConfigError, ServeArgs};

/// One setting: what it is called everywhere and what it does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    /// The key in the configuration file.
    pub key: &'static str,
    /// The flag of `procession serve`.
    pub flag: &'static str,
    /// The environment variable.
    pub env: &'static str,
    /// What stands for the value in help texts; empty for a switch.
    pub value: &'static str,
    /// How many values it takes.
    pub kind: Kind,
    /// Without any value.
    pub default: Preset,
    /// What it does, in one sentence.
    pub what: &'static str,
}

/// How many values a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Exactly one.
    One,
    /// Any number: a repeated flag, a list with commas in the environment, an array in the file.
    Many,
    /// `true` or `false`; the flag alone means `true`.
    Switch,
}

/// The default of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Preset {
    /// This value, written as one would give it.
    Value(&'static str),
    /// It depends; the text says on what.
    Rule(&'static str),
}

impl Preset {
    /// For people.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Value(text) | Self::Rule(text) => text,
        }
    }
}

/// Every setting that the configuration file can hold.
#[rustfmt::skip] // A table is read by its columns.
pub(crate) const SETTINGS: &[Setting] = &[
    row("listen", "--listen", "PROCESSION_LISTEN", "ADDR", One, Value("127.0.0.1:8080"),
        "Address and port to listen on; port 0 takes a free one."),
    row("state_dir", "--state-dir", "PROCESSION_STATE_DIR", "DIR", One,
        Rule("`/var/lib/procession` as root and as its owner, else `$XDG_STATE_HOME/procession` or `~/.local/state/procession`"),
        "Where jobs, their output and the token are kept."),
    row("auth", "--auth", "PROCESSION_AUTH", "token|none", One, Value("token"),
        "How clients authenticate; none is allowed on a loopback address only."),
    row("tls_cert", "--tls-cert", "PROCESSION_TLS_CERT", "FILE", One, Rule("none"),
        "Certificate chain for TLS, in PEM."),
    row("tls_key", "--tls-key", "PROCESSION_TLS_KEY", "FILE", One, Rule("none"),
        "Private key of the certificate, in PEM; other users must not be able to read it."),
    row("tls_client_ca", "--tls-client-ca", "PROCESSION_TLS_CLIENT_CA", "FILE", One, Rule("none"),
        "CA whose certificates clients over TLS must present, in addition to their token."),
    row("policy", "--policy", "PROCESSION_POLICY", "FILE", One, Rule("none"),
        "TOML file with command templates; with it, nothing else can be run."),
    row("mcp", "--mcp", "PROCESSION_MCP", "on|off", One, Value("on"),
        "Tools for agents at `POST /mcp` (Model Context Protocol)."),
    row("max_connections", "--max-connections", "PROCESSION_MAX_CONNECTIONS", "N", One, Value("1024"),
        "Maximum connections over TCP, and the same number over the unix socket; more are closed."),
    row("max_streams", "--max-streams", "PROCESSION_MAX_STREAMS", "N", One, Value("256"),
        "Maximum followed outputs, event streams and WebSockets at a time; more are refused with 429."),
    row("keep_alive_seconds", "--keep-alive-seconds", "PROCESSION_KEEP_ALIVE_SECONDS", "SECONDS", One, Value("75"),
        "How long to keep a connection between two requests; balancers in front must give up sooner."),
    row("max_running", "--max-running", "PROCESSION_MAX_RUNNING", "N", One, Value("256"),
        "Maximum jobs that run at a time, by their weights; more wait."),
    row("max_queued", "--max-queued", "PROCESSION_MAX_QUEUED", "N", One, Value("100000"),
        "Maximum jobs that wait; more are refused with 429."),
    row("max_finished", "--max-finished", "PROCESSION_MAX_FINISHED", "N", One, Value("1000000"),
        "Maximum finished jobs to keep; the oldest go first, whatever their ttl."),
    row("max_events", "--max-events", "PROCESSION_MAX_EVENTS", "N", One, Value("100000"),
        "Maximum events to keep, of all jobs together; the oldest go first. A short job has three."),
    row("on_shutdown", "--on-shutdown", "PROCESSION_ON_SHUTDOWN", "stop|leave", One,
        Rule("`stop` as PID 1, else `leave`"),
        "What happens to running jobs when the service ends."),
    row("shutdown_grace_seconds", "--shutdown-grace-seconds", "PROCESSION_SHUTDOWN_GRACE_SECONDS", "SECONDS", One, Value("8"),
        "Longest time that a stopping service gives its jobs to end."),
    row("min_free_bytes", "--min-free-bytes", "PROCESSION_MIN_FREE_BYTES", "BYTES", One, Value("1073741824"),
        "Refuse new jobs with 507 if less space than this is free for output."),
    row("max_body_bytes", "--max-body-bytes", "PROCESSION_MAX_BODY_BYTES", "BYTES", One, Value("1048576"),
        "Largest request body; a larger one is refused with 413."),
    row("max_upload_bytes", "--max-upload-bytes", "PROCESSION_MAX_UPLOAD_BYTES", "BYTES", One, Value("1073741824"),
        "Largest file, or form with files; a larger one is refused with 413."),
    row("max_workspace_bytes", "--max-workspace-bytes", "PROCESSION_MAX_WORKSPACE_BYTES", "BYTES", One, Value("10737418240"),
        "Most that may be in the workspace of a job; a job that puts more there is stopped."),
    row("max_workspaces_bytes", "--max-workspaces-bytes", "PROCESSION_MAX_WORKSPACES_BYTES", "BYTES", One, Rule("no limit"),
        "Most that may be in all workspaces; at that, new jobs with one, and files, are refused with 507."),
    row("log_format", "--log-format", "PROCESSION_LOG_FORMAT", "text|json", One,
        Rule("`text` on a terminal, else `json`"),
        "Format of log lines."),
    row("log_level", "--log-level", "PROCESSION_LOG_LEVEL", "LEVEL", One, Value("info"),
        "Least important log lines to write: error, warn, info, debug or trace."),
    row("deny_root_jobs", "--deny-root-jobs", "PROCESSION_DENY_ROOT_JOBS", "", Switch, Value("false"),
        "Refuse jobs that would run as root, with its group, or with a group that their user is not in."),
    row("sandbox", "--sandbox", "PROCESSION_SANDBOX", "off|default|require", One, Value("off"),
        "Sandbox of jobs that request none; with require, no job can have less."),
    row("webhook_allow_private", "--webhook-allow-private", "PROCESSION_WEBHOOK_ALLOW_PRIVATE", "", Switch, Value("false"),
        "Allow webhooks to private, loopback and link-local addresses."),
    row("otlp_endpoint", "--otlp-endpoint", "PROCESSION_OTLP_ENDPOINT", "URL", One,
        Rule("as the `OTEL_` variables say, else none"),
        "Collector of spans, by OTLP over HTTP; /v1/traces is added."),
    row("otlp_label", "--otlp-label", "PROCESSION_OTLP_LABEL", "KEY", Many, Rule("none"),
        "Label of jobs that is an attribute of their spans; can be repeated."),
    row("metrics_label", "--metrics-label", "PROCESSION_METRICS_LABEL", "KEY", Many, Rule("none"),
        "Label of jobs that is a label of the series of their ends, with 100 values; up to three."),
    row("work_dir", "--work-dir", "PROCESSION_WORK_DIR", "DIR", One, Rule("`work` in the state directory"),
        "Working directory of jobs that name none."),
    row("workspaces_dir", "--workspaces-dir", "PROCESSION_WORKSPACES_DIR", "DIR", One, Rule("`workspaces` in the state directory"),
        "Directory of the jobs' workspaces; used by this service alone, all of it on one file system."),
    row("allowed_host", "--allowed-host", "PROCESSION_ALLOWED_HOST", "NAME", Many, Rule("none"),
        "Name that the Host header may have besides loopback names and addresses; can be repeated."),
    row("cluster", "--cluster", "PROCESSION_CLUSTER", "local|URL|@FILE|off", One, Value("off"),
        "With local, be the hub of a cluster, whose ledger is in the state directory; other machines join it with --join. With the URL of a PostgreSQL database, or a file that holds it, be one of its API nodes."),
    row("cluster_key_file", "--cluster-key-file", "PROCESSION_CLUSTER_KEY_FILE", "FILE", One, Rule("none"),
        "Key that seals what is in PostgreSQL, made by `procession cluster-key`; the same for every API node."),
    row("advertise", "--advertise", "PROCESSION_ADVERTISE", "URL", One, Rule("none"),
        "Where the other API nodes reach this one."),
    row("api_takeover_seconds", "--api-takeover-seconds", "PROCESSION_API_TAKEOVER_SECONDS", "SECONDS", One, Value("5"),
        "How long nothing is heard of the API node that leads before another one takes the lead."),
    row("role", "--role", "PROCESSION_ROLE", "all|api", One, Value("all"),
        "Whether the hub runs jobs itself (all), or its nodes alone (api)."),
    row("join", "--join", "PROCESSION_JOIN", "URL[,URL]", One, Rule("none"),
        "Be a node of the cluster whose hub is at this URL, and take jobs from it alone; of several API nodes, all their URLs."),
    row("join_token_file", "--join-token-file", "PROCESSION_JOIN_TOKEN_FILE", "FILE", One, Rule("none"),
        "File with a token of the hub that has the scope runner; one for each node."),
    row("join_ca", "--join-ca", "PROCESSION_JOIN_CA", "FILE", One, Rule("the system's"),
        "CA certificate (PEM) that the certificate of the hub, or of the other API nodes, must be from."),
    row("node_name", "--node-name", "PROCESSION_NODE_NAME", "NAME", One, Rule("the host name"),
        "Name of this machine in the cluster."),
    row("node_lost_after_seconds", "--node-lost-after-seconds", "PROCESSION_NODE_LOST_AFTER_SECONDS", "SECONDS", One, Value("300"),
        "On a hub: how long a node that is not heard keeps its jobs; then they are lost."),
    row("node_label", "--node-label", "PROCESSION_NODE_LABEL", "KEY=VALUE", Many, Rule("none"),
        "Label of this machine in the cluster, for jobs to choose it by; can be repeated."),
    row("placement", "--placement", "PROCESSION_PLACEMENT", "spread|pack", One, Value("spread"),
        "On a hub: give jobs to the node with the greatest free share, or fill one node after the other."),
];

/// The one setting that the file cannot hold.
pub(crate) const CONFIG_FILE: Setting = row(
    "config",
    "--config",
    "PROCESSION_CONFIG",
    "FILE",
    One,
    Rule("`/etc/procession/config.toml` where it exists"),
    "TOML file with settings; its keys are the flags in snake_case. An empty name reads none.",
);

const fn row(
    key: &'static str,
    flag: &'static str,
    env: &'static str,
    value: &'static str,
    kind: Kind,
    default: Preset,
    what: &'static str,
) -> Setting {
    Setting {
        key,
        flag,
        env,
        value,
        kind,
        default,
        what,
    }
}

/// What a setting has been given, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) values: Vec<String>,
    /// The flag, the variable, or the file and its key; for messages.
    pub(super) origin: String,
}

/// The settings that were given, each from the source that wins.
pub(super) struct Settings(BTreeMap<&'static str, Given>);

impl Settings {
    /// Also gives what is wrong with single keys of the file.
    pub(super) fn new(
        args: &ServeArgs,
        file: Option<(&Path, &str)>,
    ) -> Result<(Self, Vec<ConfigError>), ConfigError> {
        let (mut given, errors) = match file {
            Some((file, text)) => read_file(file, text)?,
            None => (BTreeMap::new(), Vec::new()),
        };
        given.extend(args.given().map(|(key, given)| (key, given.clone())));
        Ok((Self(given), errors))
    }

    /// The value of a setting that has a [`Preset::Value`].
    pub(super) fn one<T>(
        &self,
        key: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        if let Some(value) = self.optional(key, &read)? {
            return Ok(value);
        }
        Ok(Self::default_of(key, read))
    }

    /// What a setting with a [`Preset::Value`] is if nobody sets it.
    pub(super) fn default_of<T>(key: &str, read: impl Fn(&str) -> Result<T, String>) -> T {
        let default = SETTINGS
            .iter()
            .find(|setting| setting.key == key)
            .expect("every setting that is read stands in the table")
            .default;
        read(default.as_str()).expect("a default is an allowed value")
    }

    /// The value of a setting, if it was given.
    pub(super) fn optional<T>(
        &self,
        key: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        let values = self.many(key, read)?;
        Ok(values.into_iter().next_back())
    }

    /// Every value of a setting.
    pub(super) fn many<T>(
        &self,
        key: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, ConfigError> {
        let Some(given) = self.0.get(key) else {
            return Ok(Vec::new());
        };
        let read = |text: &String| {
            read(text).map_err(|fix| ConfigError::Value {
                origin: given.origin.clone(),
                fix,
                given: text.clone(),
            })
        };
        given.values.iter().map(read).collect()
    }
}

/// What the file gives, and what is wrong with single keys of it.
type ReadFile = (BTreeMap<&'static str, Given>, Vec<ConfigError>);

fn read_file(file: &Path, text: &str) -> Result<ReadFile, ConfigError> {
    let table: BTreeMap<toml::Spanned<String>, toml::Value> =
        toml::from_str(text).map_err(|error| ConfigError::Syntax {
            file: file.to_owned(),
            line: line_of(text, error.span().map_or(0, |span| span.start)),
            why: error.message().lines().collect::<Vec<_>>().join(", "),
        })?;
    let (mut read, mut errors) = (BTreeMap::new(), Vec::new());
    for (key, value) in table {
        let line = line_of(text, key.span().start);
        let key = key.into_inner();
        let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) else {
            errors.push(ConfigError::UnknownKey {
                file: file.to_owned(),
                line,
                key,
            });
            continue;
        };
        let origin = format!("{file:?}, line {line}, {key}");
        let values = match (setting.kind, &value) {
            (Many, toml::Value::Array(items)) => items.iter().map(scalar).collect(),
            (One | Many | Switch, _) => scalar(&value).map(|value| vec![value]),
        };
        let Some(values) = values else {
            let fix = match setting.kind {
                One => "must be a string or a number",
                Many => "must be an array of strings",
                Switch => "must be true or false",
            };
            errors.push(ConfigError::Value {
                origin,
                fix: fix.to_owned(),
                given: value.to_string(),
            });
            continue;
        };
        read.insert(setting.key, Given { values, origin });
    }
    Ok((read, errors))
}

/// A value as one would write it for a flag.
fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(value) => Some(value.to_string()),
        toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => None,
    }
}

fn line_of(text: &str, at: usize) -> usize {
    let before = text.bytes().take(at);
    before.filter(|byte| *byte == b'\n').count() + 1
}
