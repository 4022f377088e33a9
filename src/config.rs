//! Every setting of the service with its default, in one table.
//!
//! Settings are read once, at the start, from flags, the environment and a file, and passed on as plain
//! values. Nothing here knows what a setting does.

mod args;
mod cluster;
mod error;
mod file;
mod otlp;
mod reading;
mod settings;
mod values;
mod variables;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use args::ServeArgs;
pub(crate) use cluster::Part;
pub(crate) use error::{ConfigError, ConfigErrors};
pub(crate) use file::{LogForm, log_form, state_dir};
use http::connections::Auth;
use http::tls::Files as Tls;
use job::sandbox::Baseline;
use manager::spans::Otlp;
use protocol::state_dir::Surroundings;
use reading::Reading;
#[cfg(test)]
use settings::SETTINGS;
use settings::Settings;
use values::{
    DAY, address, bytes, few, host, label, log_format, log_level, number, seconds, span, url, word,
};
pub(crate) use variables::unknown_variables;

/// What becomes of running jobs when the service ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnShutdown {
    /// They are stopped.
    Stop,
    /// They go on, for a later start to find.
    Leave,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The least important log lines that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogLevel {
    /// Somebody should look.
    Error,
    /// Something may need attention.
    Warn,
    /// What happened to which job.
    Info,
    /// Steps in between.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The word in the settings, which is also the one of `tracing`.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// The settings of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// The address to listen on.
    pub listen: SocketAddr,
    /// Where everything is kept; absolute.
    pub state_dir: PathBuf,
    /// How clients prove who they are.
    pub auth: Auth,
    /// TLS on that address.
    pub tls: Option<Tls>,
    /// The command policy; absolute.
    pub policy: Option<PathBuf>,
    /// The most connections over TCP, and as many again over the unix socket.
    pub max_connections: usize,
    /// The most answers that follow a job, and WebSockets, at the same time.
    pub max_streams: usize,
    /// `POST /mcp` is there.
    pub mcp: bool,
    /// How long a connection is kept between two requests.
    pub keep_alive: Duration,
    /// The most jobs with a process.
    pub max_running: usize,
    /// The most jobs that wait.
    pub max_queued: usize,
    /// The most finished jobs that are kept.
    pub max_finished: u64,
    /// The most events that are kept.
    pub max_events: u64,
    /// What was said about running jobs; see [`Config::on_shutdown`].
    pub on_shutdown: Option<OnShutdown>,
    /// The most time a stopping service gives its jobs.
    pub shutdown_grace: Duration,
    /// With less free space than this in the state directory no job is accepted.
    pub min_free_bytes: u64,
    /// The largest request body.
    pub max_body_bytes: usize,
    /// The largest file, or form with files, that is taken.
    pub max_upload_bytes: u64,
    /// The most in the workspace of one job.
    pub max_workspace_bytes: u64,
    /// The most in all of them.
    pub max_workspaces_bytes: u64,
    /// The form of log lines; by default it depends on where they go.
    pub log_format: Option<LogFormat>,
    /// Which log lines are written.
    pub log_level: LogLevel,
    /// No job may run as root.
    pub deny_root_jobs: bool,
    /// What the service does about sandboxes.
    pub sandbox: Baseline,
    /// Webhooks may go to private, loopback and link-local addresses.
    pub webhook_allow_private: bool,
    /// Labels of jobs that are also labels of series.
    pub metrics_labels: Vec<String>,
    /// Where spans go, if they go anywhere.
    pub otlp: Option<Otlp>,
    /// The work directory of jobs that name none; absolute.
    pub work_dir: PathBuf,
    /// The directory of the jobs' workspaces; absolute.
    pub workspaces_dir: PathBuf,
    /// Names that the `Host` header may have besides loopback names and addresses; in lower case.
    pub allowed_hosts: Vec<String>,
    /// What this is in a cluster.
    pub part: Part,
    /// The ledger that a hub shares with other API nodes.
    pub ledger: Option<ledger::Setup>,
}

impl Config {
    /// What becomes of running jobs. The end of PID 1 is the end of its container, so that nothing can
    /// be left running there.
    #[must_use]
    pub(crate) fn on_shutdown(&self, is_pid1: bool) -> OnShutdown {
        match (self.on_shutdown, is_pid1) {
            (Some(choice), _) => choice,
            (None, true) => OnShutdown::Stop,
            (None, false) => OnShutdown::Leave,
        }
    }
}

/// Reads the settings: a flag wins over the environment, that over the file, that over the default.
pub(crate) fn load(args: &ServeArgs, surroundings: &Surroundings) -> Result<Config, ConfigErrors> {
    match file::text(args, surroundings)? {
        Some((path, text)) => resolve(args, Some((&path, &text)), surroundings),
        None => resolve(args, None, surroundings),
    }
}

/// The same with the text of the file.
fn resolve(
    args: &ServeArgs,
    file: Option<(&Path, &str)>,
    surroundings: &Surroundings,
) -> Result<Config, ConfigErrors> {
    let (settings, errors) = Settings::new(args, file)?;
    let reading = Reading::new(&settings, errors);
    let config = read_all(&reading, surroundings);
    let errors = reading.into_errors();
    if errors.is_empty() {
        Ok(config)
    } else {
        Err(ConfigErrors(errors))
    }
}

/// The value of every setting; each that is wrong adds an error and has a value that nobody sees.
fn read_all(s: &Reading<'_>, surroundings: &Surroundings) -> Config {
    let path = |text: &str| match text {
        "" => Err("must be a path".to_owned()),
        text => Ok(surroundings.current_dir.join(text)),
    };
    let switch = word(&[("true", true), ("false", false)]);
    let auth = word(&[("token", Auth::Token), ("none", Auth::None)]);
    let on_shutdown = word(&[("stop", OnShutdown::Stop), ("leave", OnShutdown::Leave)]);
    let baselines = [Baseline::Off, Baseline::Default, Baseline::Require];
    let baselines = baselines.map(|baseline| (baseline.as_str(), baseline));
    let state_dir = s.optional("state_dir", path);
    let state_dir = state_dir.or_else(|| surroundings.state_dir());
    let state_dir = s.keep(state_dir.ok_or(ConfigError::NoStateDir));
    let state_dir = state_dir.unwrap_or_default();
    let tls = tls((
        s.optional("tls_cert", path),
        s.optional("tls_key", path),
        s.optional("tls_client_ca", path),
    ));
    let auth = s.one("auth", auth);
    let (part, ledger) = cluster::read(s, path, auth, &state_dir);
    let config = Config {
        part,
        ledger,
        listen: s.one("listen", address),
        auth,
        tls: s.keep(tls).flatten(),
        policy: s.optional("policy", path),
        max_connections: s.one("max_connections", number(1, 100_000)),
        max_streams: s.one("max_streams", number(1, 100_000)),
        mcp: s.one("mcp", word(&[("on", true), ("off", false)])),
        keep_alive: s.one("keep_alive_seconds", span(Duration::from_secs(1), DAY)),
        max_running: s.one("max_running", number(1, 100_000)),
        max_queued: s.one("max_queued", number(0, 10_000_000)),
        max_finished: s.one("max_finished", number(1, 1_000_000_000)),
        max_events: s.one("max_events", number(100, 1_000_000_000)),
        on_shutdown: s.optional("on_shutdown", on_shutdown),
        shutdown_grace: s.one("shutdown_grace_seconds", seconds),
        min_free_bytes: s.one("min_free_bytes", bytes(0, u64::MAX >> 1)),
        max_body_bytes: s.one("max_body_bytes", |text| {
            bytes(1 << 10, 1 << 30)(text).map(|most| usize::try_from(most).unwrap_or(usize::MAX))
        }),
        max_upload_bytes: s.one("max_upload_bytes", bytes(1 << 10, u64::MAX >> 1)),
        max_workspace_bytes: s.one("max_workspace_bytes", bytes(1 << 12, u64::MAX >> 1)),
        max_workspaces_bytes: s
            .optional("max_workspaces_bytes", bytes(1 << 12, u64::MAX >> 1))
            .unwrap_or(u64::MAX),
        log_format: s.optional("log_format", log_format),
        log_level: s.one("log_level", log_level),
        deny_root_jobs: s.one("deny_root_jobs", &switch),
        sandbox: s.one("sandbox", word(&baselines)),
        webhook_allow_private: s.one("webhook_allow_private", &switch),
        otlp: spans(s, surroundings),
        metrics_labels: s
            .keep(few(s.many("metrics_label", label)))
            .unwrap_or_default(),
        work_dir: s
            .optional("work_dir", path)
            .unwrap_or_else(|| state_dir.join("work")),
        workspaces_dir: s
            .optional("workspaces_dir", path)
            .unwrap_or_else(|| state_dir.join("workspaces")),
        allowed_hosts: s.many("allowed_host", host),
        state_dir,
    };
    if config.auth == Auth::None && !config.listen.ip().is_loopback() {
        let listen = config.listen;
        s.keep::<()>(Err(ConfigError::OpenToNetwork { listen }));
    }
    config
}

/// Where spans go, as the setting and the variables say.
fn spans(s: &Reading<'_>, surroundings: &Surroundings) -> Option<Otlp> {
    let otlp = otlp::read(
        s.optional("otlp_endpoint", url),
        s.many("otlp_label", label),
        &surroundings.otel,
    );
    let otlp = otlp.map_err(|(name, fix, given)| ConfigError::Value {
        origin: name.to_owned(),
        fix,
        given,
    });
    s.keep(otlp).flatten()
}

fn tls(
    files: (Option<PathBuf>, Option<PathBuf>, Option<PathBuf>),
) -> Result<Option<Tls>, ConfigError> {
    let missing = match files {
        (Some(cert), Some(key), client_ca) => {
            return Ok(Some(Tls {
                cert,
                key,
                client_ca,
            }));
        }
        (None, None, None) => return Ok(None),
        (None, Some(_) | None, _) => "--tls-cert",
        (Some(_), None, _) => "--tls-key",
    };
    Err(ConfigError::HalfOfTls { missing })
}

#[cfg(test)]
mod tests;
