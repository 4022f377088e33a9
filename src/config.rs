//! Every setting of the service with its default, in one table.
//!
//! Settings are read once, at the start, from flags, the environment and a file, and passed on as plain
//! values. Nothing here knows what a setting does.

mod args;
mod settings;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

pub(crate) use args::ServeArgs;
use http::connections::Auth;
use http::tls::Files as Tls;
use job::sandbox::Baseline;
use protocol::state_dir::Surroundings;
pub(crate) use settings::SETTINGS;
use settings::Settings;

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
    /// The work directory of jobs that name none; absolute.
    pub work_dir: PathBuf,
    /// Names that the `Host` header may have besides loopback names and addresses; in lower case.
    pub allowed_hosts: Vec<String>,
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

/// Why the service cannot start with these settings: one line that says the fix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConfigError {
    /// A setting has a value that is not allowed.
    #[error("{origin}: {fix}, not {given:?}")]
    Value {
        /// The flag, the variable, or the file and its key.
        origin: String,
        /// What is allowed.
        fix: String,
        /// What was given.
        given: String,
    },
    /// The file has a key that is no setting.
    #[error("{file:?}: unknown key {key:?}; known keys: {}", known_keys())]
    UnknownKey {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
    },
    /// The file cannot be read.
    #[error("cannot read the configuration file {file:?}: {why}")]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// The system's words.
        why: String,
    },
    /// The file is not TOML.
    #[error("{file:?}, line {line}: not valid TOML: {why}")]
    Syntax {
        /// The file.
        file: PathBuf,
        /// The first line is 1.
        line: usize,
        /// The parser's words.
        why: String,
    },
    /// Everybody on the network could run commands.
    #[error(
        "auth \"none\" is for loopback addresses only, and {listen} is none: use --auth token, or --listen 127.0.0.1:{}",
        .listen.port()
    )]
    OpenToNetwork {
        /// Where the service was to listen.
        listen: SocketAddr,
    },
    /// A certificate is of no use without its key.
    #[error(
        "--tls-cert and --tls-key go together, and --tls-client-ca goes with them: give {missing}"
    )]
    HalfOfTls {
        /// The flag that is missing.
        missing: &'static str,
    },
    /// There is no home to keep state in.
    #[error("no place for state: give --state-dir DIR, or set HOME")]
    NoStateDir,
}

fn known_keys() -> String {
    let keys: Vec<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
    keys.join(", ")
}

/// Reads the settings: a flag wins over the environment, that over the file, that over the default.
pub(crate) fn load(args: &ServeArgs, surroundings: &Surroundings) -> Result<Config, ConfigError> {
    let Some(file) = args.config_file() else {
        return resolve(args, None, surroundings);
    };
    let file = surroundings.current_dir.join(file);
    match std::fs::read_to_string(&file) {
        Ok(text) => resolve(args, Some((&file, &text)), surroundings),
        Err(error) => Err(ConfigError::Unreadable {
            file,
            why: error.to_string(),
        }),
    }
}

/// The same with the text of the file.
fn resolve(
    args: &ServeArgs,
    file: Option<(&Path, &str)>,
    surroundings: &Surroundings,
) -> Result<Config, ConfigError> {
    let s = Settings::new(args, file)?;
    let path = |text: &str| match text {
        "" => Err("must be a path".to_owned()),
        text => Ok(surroundings.current_dir.join(text)),
    };
    let state_dir = match s.optional("state_dir", path)? {
        Some(path) => path,
        None => surroundings.state_dir().ok_or(ConfigError::NoStateDir)?,
    };
    let files = (
        s.optional("tls_cert", path)?,
        s.optional("tls_key", path)?,
        s.optional("tls_client_ca", path)?,
    );
    let config = Config {
        listen: s.one("listen", address)?,
        auth: s.one(
            "auth",
            word(&[("token", Auth::Token), ("none", Auth::None)]),
        )?,
        tls: tls(files)?,
        policy: s.optional("policy", path)?,
        max_connections: s.one("max_connections", number(1, 100_000))?,
        max_streams: s.one("max_streams", number(1, 100_000))?,
        keep_alive: Duration::from_secs(s.one("keep_alive_seconds", number(1, 86_400))?),
        max_running: s.one("max_running", number(1, 100_000))?,
        max_queued: s.one("max_queued", number(0, 10_000_000))?,
        max_finished: s.one("max_finished", number(1, 1_000_000_000))?,
        max_events: s.one("max_events", number(100, 1_000_000_000))?,
        on_shutdown: s.optional(
            "on_shutdown",
            word(&[("stop", OnShutdown::Stop), ("leave", OnShutdown::Leave)]),
        )?,
        shutdown_grace: s.one("shutdown_grace_seconds", seconds)?,
        min_free_bytes: s.one("min_free_bytes", number(0, u64::MAX >> 1))?,
        max_body_bytes: s.one("max_body_bytes", number(1 << 10, 1 << 30))?,
        log_format: s.optional(
            "log_format",
            word(&[("text", LogFormat::Text), ("json", LogFormat::Json)]),
        )?,
        log_level: s.one("log_level", log_level)?,
        deny_root_jobs: s.one("deny_root_jobs", word(&[("true", true), ("false", false)]))?,
        sandbox: s.one(
            "sandbox",
            word(&[Baseline::Off, Baseline::Default, Baseline::Require].map(|b| (b.as_str(), b))),
        )?,
        webhook_allow_private: s.one(
            "webhook_allow_private",
            word(&[("true", true), ("false", false)]),
        )?,
        work_dir: s
            .optional("work_dir", path)?
            .unwrap_or_else(|| state_dir.join("work")),
        allowed_hosts: s.many("allowed_host", host)?,
        state_dir,
    };
    if config.auth == Auth::None && !config.listen.ip().is_loopback() {
        return Err(ConfigError::OpenToNetwork {
            listen: config.listen,
        });
    }
    Ok(config)
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

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "must be ADDRESS:PORT, such as 127.0.0.1:8080 or [::1]:8080".to_owned())
}

fn word<T: Copy>(words: &[(&str, T)]) -> impl Fn(&str) -> Result<T, String> {
    |text| match words.iter().find(|(word, _)| *word == text) {
        Some((_, value)) => Ok(*value),
        None => {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            Err(format!("must be {}", words.join(" or ")))
        }
    }
}

fn log_level(text: &str) -> Result<LogLevel, String> {
    let levels = [
        LogLevel::Error,
        LogLevel::Warn,
        LogLevel::Info,
        LogLevel::Debug,
        LogLevel::Trace,
    ];
    word(&levels.map(|level| (level.as_str(), level)))(text)
}

fn number<T>(least: T, most: T) -> impl Fn(&str) -> Result<T, String>
where
    T: Copy + PartialOrd + FromStr + fmt::Display,
{
    move |text| match text.parse() {
        Ok(number) if least <= number && number <= most => Ok(number),
        Ok(_) | Err(_) => Err(format!("must be an integer from {least} to {most}")),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let most = Duration::from_hours(24);
    let duration = text.parse().ok().map(Duration::try_from_secs_f64);
    match duration {
        Some(Ok(duration)) if duration <= most => Ok(duration),
        Some(Ok(_) | Err(_)) | None => Err(format!(
            "must be a number of seconds from 0 to {}",
            most.as_secs()
        )),
    }
}

fn host(text: &str) -> Result<String, String> {
    let is_name = !text.is_empty()
        && text.len() <= 253
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
    if is_name {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("must be a host name without scheme and port, such as jobs.example.org".to_owned())
    }
}

#[cfg(test)]
mod tests;
