//! From the text of a setting to its value; the error says what is allowed.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use super::{ConfigError, LogFormat, LogLevel};
use manager::metrics::label_name;

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "must be ADDRESS:PORT, such as 127.0.0.1:8080 or [::1]:8080".to_owned())
}

pub(super) fn word<T: Copy>(words: &[(&str, T)]) -> impl Fn(&str) -> Result<T, String> {
    |text| match words.iter().find(|(word, _)| *word == text) {
        Some((_, value)) => Ok(*value),
        None => {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            Err(format!("must be {}", words.join(" or ")))
        }
    }
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    word(&[("text", LogFormat::Text), ("json", LogFormat::Json)])(text)
}

pub(super) fn log_level(text: &str) -> Result<LogLevel, String> {
    let levels = [
        LogLevel::Error,
        LogLevel::Warn,
        LogLevel::Info,
        LogLevel::Debug,
        LogLevel::Trace,
    ];
    word(&levels.map(|level| (level.as_str(), level)))(text)
}

pub(super) fn number<T>(least: T, most: T) -> impl Fn(&str) -> Result<T, String>
where
    T: Copy + PartialOrd + FromStr + fmt::Display,
{
    move |text| match text.parse() {
        Ok(number) if least <= number && number <= most => Ok(number),
        Ok(_) | Err(_) => Err(format!("must be an integer from {least} to {most}")),
    }
}

/// A number of bytes, or a size as the commands take it.
pub(super) fn bytes(least: u64, most: u64) -> impl Fn(&str) -> Result<u64, String> {
    move |text| match client::values::bytes(text) {
        Ok(bytes) if least <= bytes && bytes <= most => Ok(bytes),
        Ok(_) | Err(_) => Err(format!(
            "must be a number of bytes from {least} to {most}, or a size such as 512M"
        )),
    }
}

pub(super) const DAY: Duration = Duration::from_hours(24);

/// A span of time up to a day: a number of seconds, or a span as the commands take it.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    span(Duration::ZERO, DAY)(text)
}

/// The same within other bounds.
pub(super) fn span(least: Duration, most: Duration) -> impl Fn(&str) -> Result<Duration, String> {
    move |text| {
        let duration = client::values::seconds(text).map(Duration::try_from_secs_f64);
        match duration {
            Ok(Ok(duration)) if least <= duration && duration <= most => Ok(duration),
            Ok(_) | Err(_) => Err(format!(
                "must be a number of seconds from {} to {}, or a time such as 90s or 1h30m",
                least.as_secs(),
                most.as_secs()
            )),
        }
    }
}

pub(super) fn url(text: &str) -> Result<String, String> {
    if text.starts_with("http://") || text.starts_with("https://") {
        Ok(text.to_owned())
    } else {
        Err("must be a URL, such as http://127.0.0.1:4318".to_owned())
    }
}

pub(super) fn host(text: &str) -> Result<String, String> {
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

pub(super) fn label(text: &str) -> Result<String, String> {
    job::label::check_key(text)
        .map(|()| text.to_owned())
        .map_err(|error| format!("must be the key of a label: {error}"))
}

/// The most labels of jobs that are labels of series: their values multiply.
const METRICS_LABELS_MAX: usize = 3;

/// No more than there may be, and none that would be the same label of a series as another.
pub(super) fn few(keys: Vec<String>) -> Result<Vec<String>, ConfigError> {
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
