//! Every setting of the service with its default, in one table.
//!
//! Settings are read once, at the start, from flags, the environment and a file, and passed on as plain
//! values. Nothing here knows what a setting does.

mod args;
mod file;
mod otlp;
mod settings;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

pub(crate) use args::ServeArgs;
pub(crate) use file::{LogForm, log_form, state_dir};
use http::connections::Auth;
use http::tls::Files as Tls;
use job::sandbox::Baseline;
use manager::metrics::label_name;
use manager::spans::Otlp;
use protocol::state_dir::Surroundings;
pub(crate) use settings::SETTINGS;
use settings::{CONFIG_FILE, Settings};

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

/// Everything that is wrong with the settings, so that it can be mended at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfigErrors(Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.0.as_slice() {
            return write!(f, "{only}");
        }
        write!(f, "{} settings are wrong", self.0.len())?;
        for error in &self.0 {
            write!(f, "\n  {error}")?;
        }
        Ok(())
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

/// What is wrong with a setting: one line that says the fix.
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
    #[error("{file:?}, line {line}: unknown key {key:?}{}", did_you_mean(key, SETTINGS.iter().map(|setting| setting.key)))]
    UnknownKey {
        /// The file.
        file: PathBuf,
        /// The first line is 1.
        line: usize,
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

/// The known word that is most like this one, as the end of a message; empty if none is.
fn did_you_mean<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    let mut likely: Vec<(f64, &str)> = known
        .map(|known| (strsim::jaro_winkler(word, known), known))
        .filter(|(likeness, _)| *likeness > 0.8)
        .collect();
    likely.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    likely
        .first()
        .map_or_else(String::new, |(_, known)| format!("; did you mean {known}?"))
}

/// Variables that something other than the settings of the service gives a meaning: the client commands, the
/// image and the service itself.
const OTHER_VARIABLES: [&str; 13] = [
    "PROCESSION_URL",
    "PROCESSION_TOKEN",
    "PROCESSION_TOKEN_FILE",
    "PROCESSION_CA",
    "PROCESSION_CLIENT_CERT",
    "PROCESSION_RETRY_SECONDS",
    "PROCESSION_JOB_ID",
    "PROCESSION_SCHEDULE",
    "PROCESSION_DUE_AT",
    "PROCESSION_HANDOVER",
    "PROCESSION_HANDOVER_VERSION",
    "PROCESSION_FAILPOINTS",
    "PROCESSION_BOOT_ID",
];

/// A remark on each variable that looks like a setting and is none. It is no error: Kubernetes makes variables such
/// as `PROCESSION_SERVICE_HOST` of a service's name, and those are not even worth a remark.
pub(crate) fn unknown_variables(names: impl Iterator<Item = OsString>) -> Vec<String> {
    let known = || {
        let settings = SETTINGS.iter().chain([&CONFIG_FILE]);
        settings.map(|setting| setting.env).chain(OTHER_VARIABLES)
    };
    let names = names.filter_map(|name| name.into_string().ok());
    let mut unknown: Vec<String> = names
        .filter(|name| name.starts_with("PROCESSION_") && !known().any(|known| known == name))
        .filter(|name| {
            let of_kubernetes = ["PROCESSION_SERVICE_", "PROCESSION_PORT"];
            !of_kubernetes.iter().any(|prefix| name.starts_with(prefix))
        })
        .collect();
    unknown.sort();
    let remark = |name: &String| {
        let meant = did_you_mean(name, known());
        format!("the variable {name} is ignored: there is no such setting{meant}")
    };
    unknown.iter().map(remark).collect()
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
    let (s, mut errors) = Settings::new(args, file)?;
    match read_all(&s, surroundings, &mut errors) {
        Some(config) if errors.is_empty() => Ok(config),
        Some(_) | None => Err(ConfigErrors(errors)),
    }
}

/// The value of every setting; each that is wrong adds an error.
fn read_all(
    s: &Settings,
    surroundings: &Surroundings,
    errors: &mut Vec<ConfigError>,
) -> Option<Config> {
    let path = |text: &str| match text {
        "" => Err("must be a path".to_owned()),
        text => Ok(surroundings.current_dir.join(text)),
    };
    let switch = word(&[("true", true), ("false", false)]);
    let e = RefCell::new(errors);
    let state_dir = keep(&e, s.optional("state_dir", path)).flatten();
    let state_dir = state_dir.or_else(|| {
        let found = surroundings.state_dir();
        if found.is_none() {
            e.borrow_mut().push(ConfigError::NoStateDir);
        }
        found
    });
    let files = (
        keep(&e, s.optional("tls_cert", path)).flatten(),
        keep(&e, s.optional("tls_key", path)).flatten(),
        keep(&e, s.optional("tls_client_ca", path)).flatten(),
    );
    // Each is read before the first that is missing ends it.
    let listen = keep(&e, s.one("listen", address));
    let auth = word(&[("token", Auth::Token), ("none", Auth::None)]);
    let auth = keep(&e, s.one("auth", auth));
    let tls = keep(&e, tls(files));
    let policy = keep(&e, s.optional("policy", path));
    let max_connections = keep(&e, s.one("max_connections", number(1, 100_000)));
    let max_streams = keep(&e, s.one("max_streams", number(1, 100_000)));
    let mcp = keep(&e, s.one("mcp", word(&[("on", true), ("off", false)])));
    let keep_alive = keep(&e, s.one("keep_alive_seconds", number(1, 86_400)));
    let max_running = keep(&e, s.one("max_running", number(1, 100_000)));
    let max_queued = keep(&e, s.one("max_queued", number(0, 10_000_000)));
    let max_finished = keep(&e, s.one("max_finished", number(1, 1_000_000_000)));
    let max_events = keep(&e, s.one("max_events", number(100, 1_000_000_000)));
    let on_shutdown = word(&[("stop", OnShutdown::Stop), ("leave", OnShutdown::Leave)]);
    let on_shutdown = keep(&e, s.optional("on_shutdown", on_shutdown));
    let shutdown_grace = keep(&e, s.one("shutdown_grace_seconds", seconds));
    let min_free_bytes = keep(&e, s.one("min_free_bytes", number(0, u64::MAX >> 1)));
    let max_body_bytes = keep(&e, s.one("max_body_bytes", number(1 << 10, 1 << 30)));
    let log_format = keep(&e, s.optional("log_format", log_format));
    let log_level = keep(&e, s.one("log_level", log_level));
    let deny_root_jobs = keep(&e, s.one("deny_root_jobs", &switch));
    let baselines = [Baseline::Off, Baseline::Default, Baseline::Require];
    let baselines = baselines.map(|baseline| (baseline.as_str(), baseline));
    let sandbox = keep(&e, s.one("sandbox", word(&baselines)));
    let webhook_allow_private = keep(&e, s.one("webhook_allow_private", &switch));
    let otlp_endpoint = keep(&e, s.optional("otlp_endpoint", url));
    let otlp_labels = keep(&e, s.many("otlp_label", label)).unwrap_or_default();
    let otlp = otlp::read(otlp_endpoint.flatten(), otlp_labels, &surroundings.otel);
    let otlp = otlp.map_err(|(name, fix, given)| ConfigError::Value {
        origin: name.to_owned(),
        fix,
        given,
    });
    let otlp = keep(&e, otlp);
    let metrics_labels = keep(&e, s.many("metrics_label", label));
    let metrics_labels = metrics_labels.and_then(|keys| keep(&e, few(keys)));
    let work_dir = keep(&e, s.optional("work_dir", path));
    let workspaces_dir = keep(&e, s.optional("workspaces_dir", path));
    let allowed_hosts = keep(&e, s.many("allowed_host", host));
    if let (Some(Auth::None), Some(listen)) = (auth, listen)
        && !listen.ip().is_loopback()
    {
        e.borrow_mut().push(ConfigError::OpenToNetwork { listen });
    }
    let state_dir = state_dir?;
    Some(Config {
        listen: listen?,
        auth: auth?,
        tls: tls?,
        policy: policy?,
        max_connections: max_connections?,
        max_streams: max_streams?,
        mcp: mcp?,
        keep_alive: Duration::from_secs(keep_alive?),
        max_running: max_running?,
        max_queued: max_queued?,
        max_finished: max_finished?,
        max_events: max_events?,
        on_shutdown: on_shutdown?,
        shutdown_grace: shutdown_grace?,
        min_free_bytes: min_free_bytes?,
        max_body_bytes: max_body_bytes?,
        log_format: log_format?,
        log_level: log_level?,
        deny_root_jobs: deny_root_jobs?,
        sandbox: sandbox?,
        webhook_allow_private: webhook_allow_private?,
        otlp: otlp?,
        metrics_labels: metrics_labels?,
        work_dir: work_dir?.unwrap_or_else(|| state_dir.join("work")),
        workspaces_dir: workspaces_dir?.unwrap_or_else(|| state_dir.join("workspaces")),
        allowed_hosts: allowed_hosts?,
        state_dir,
    })
}

/// The value, or nothing and one error more.
fn keep<T>(errors: &RefCell<&mut Vec<ConfigError>>, read: Result<T, ConfigError>) -> Option<T> {
    read.map_err(|error| errors.borrow_mut().push(error)).ok()
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

fn log_format(text: &str) -> Result<LogFormat, String> {
    word(&[("text", LogFormat::Text), ("json", LogFormat::Json)])(text)
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

fn url(text: &str) -> Result<String, String> {
    if text.starts_with("http://") || text.starts_with("https://") {
        Ok(text.to_owned())
    } else {
        Err("must be a URL, such as http://127.0.0.1:4318".to_owned())
    }
}

fn label(text: &str) -> Result<String, String> {
    job::label::check_key(text)
        .map(|()| text.to_owned())
        .map_err(|error| format!("must be the key of a label: {error}"))
}

/// The most labels of jobs that are labels of series: their values multiply.
const METRICS_LABELS_MAX: usize = 3;

/// No more than there may be, and none that would be the same label of a series as another.
fn few(keys: Vec<String>) -> Result<Vec<String>, ConfigError> {
    let names: BTreeSet<String> = keys.iter().map(|key| label_name(key)).collect();
    let fix = if keys.len() > METRICS_LABELS_MAX {
        format!("may be given {METRICS_LABELS_MAX} times at most")
    } else if names.len() < keys.len() {
        "must be keys that differ in letters and digits".to_owned()
    } else {
        return Ok(keys);
    };
    Err(ConfigError::Value {
        origin: "--metrics-label".to_owned(),
        fix,
        given: keys.join(","),
    })
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
