//! What is wrong with settings, in lines that say the fix.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::settings::SETTINGS;

/// Everything that is wrong with the settings, so that it can be mended at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfigErrors(pub(super) Vec<ConfigError>);

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
    /// Settings that do not go together, or not alone.
    #[error("{flags} {why}")]
    Together {
        /// Which.
        flags: &'static str,
        /// What is wrong with them.
        why: &'static str,
    },
    /// The same of a setting that must not be shown.
    #[error("{flags} {why}")]
    Hidden {
        /// Which.
        flags: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// There is no home to keep state in.
    #[error("no place for state: give --state-dir DIR, or set HOME")]
    NoStateDir,
}

/// The known word that is most like this one, as the end of a message; empty if none is.
pub(super) fn did_you_mean<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    let mut likely: Vec<(f64, &str)> = known
        .map(|known| (strsim::jaro_winkler(word, known), known))
        .filter(|(likeness, _)| *likeness > 0.8)
        .collect();
    likely.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    likely
        .first()
        .map_or_else(String::new, |(_, known)| format!("; did you mean {known}?"))
}
