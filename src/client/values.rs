//! Values on the command line: spans of time, sizes, and files of JSON.

use std::path::Path;
use std::time::Duration;

use bytesize::ByteSize;
use jiff::{Span, SpanRelativeTo, Unit};
use serde_json::{Map, Value};

use crate::failure::Failure;
use crate::stdio::read_stdin;
use job::time::Timestamp;
use linux::clock;

/// A span of time in seconds: a number of them, or a text such as `1h30m`, `5min`, `500ms` or `7d`.
pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    let wrong =
        || "a time is a number of seconds or a text such as 90s, 5min, 1h30m or 7d".to_owned();
    let bare = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    let seconds = if bare {
        text.parse().map_err(|_| wrong())?
    } else {
        let span: Span = text.parse().map_err(|_| wrong())?;
        let days = SpanRelativeTo::days_are_24_hours();
        span.total((Unit::Second, days)).map_err(|_| wrong())?
    };
    if seconds < 0.0 {
        return Err("a time cannot be negative".to_owned());
    }
    Ok(seconds)
}

/// A moment: a time with its zone, or a span of time that is subtracted from now.
pub(crate) fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(moment) = text.parse() {
        return Ok(moment);
    }
    let wrong =
        || "a moment is a time such as 2026-01-31T12:00:00Z or a span such as 10m".to_owned();
    let ago = text.trim_end_matches("ago").trim_end();
    let ago = seconds(ago).map_err(|_| wrong())?;
    let ago = Duration::try_from_secs_f64(ago).map_err(|_| wrong())?;
    let micros = i64::try_from(ago.as_micros()).map_err(|_| wrong())?;
    Ok(Timestamp::from_micros(
        clock::wall().as_micros().saturating_sub(micros),
    ))
}

/// A size: a number of bytes, or one with a unit. As elsewhere for limits, `K`, `M`, `G` and `T` are powers of
/// 1024, and so are `KiB` and its like; `kB` and its like are powers of 1000.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || "a size is a number of bytes or a text such as 512M, 1.5G or 64KiB".to_owned();
    if let Ok(bytes) = text.parse() {
        return Ok(bytes);
    }
    let short = text.ends_with(|last: char| "kKmMgGtT".contains(last));
    let size = if short {
        format!("{text}iB").parse::<ByteSize>()
    } else {
        text.parse()
    };
    match size {
        // It saturates.
        Ok(ByteSize(bytes))
            if bytes < u64::MAX && text.starts_with(|first: char| first.is_ascii_digit()) =>
        {
            Ok(bytes)
        }
        Ok(_) | Err(_) => Err(wrong()),
    }
}

/// A JSON object from a file, or from standard input if the path is `-`.
pub(crate) fn json_object(path: &Path) -> Result<Map<String, Value>, Failure> {
    let (text, shown) = if path == Path::new("-") {
        let text = read_stdin().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        (text, "standard input".to_owned())
    } else {
        (std::fs::read_to_string(path), path.display().to_string())
    };
    let text = text.map_err(|error| Failure::Local(format!("cannot read {shown}: {error}")))?;
    serde_json::from_str(&text)
        .map_err(|error| Failure::Local(format!("{shown} is not a JSON object: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_or_what_people_write() {
        for (text, expected) in [
            ("90", 90.0),
            ("0.5", 0.5),
            ("90s", 90.0),
            ("1.5m", 90.0),
            ("5min", 300.0),
            ("1h30m", 5400.0),
            ("1h 30m", 5400.0),
            ("500ms", 0.5),
            ("7d", 604_800.0),
            ("PT2H", 7200.0),
        ] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for text in [
            "", "soon", "-1", "-1h", "1h ago", "inf", "NaN", "1.2.3", "1 month", "1e3", "5x",
        ] {
            assert!(seconds(text).is_err(), "{text}: {:?}", seconds(text));
        }
    }

    #[test]
    fn a_moment_is_a_time_or_so_long_ago() {
        let moment = since("2026-01-31T12:00:00Z").unwrap();
        assert_eq!(moment.to_string(), "2026-01-31T12:00:00.000000Z");
        for text in ["10m", "10m ago", "600"] {
            let ago = clock::wall().since(since(text).unwrap());
            assert!((599..660).contains(&ago.as_secs()), "{text}: {ago:?}");
        }
        assert!(since("yesterday").is_err() && since("").is_err() && since("ago").is_err());
    }

    #[test]
    fn sizes_are_bytes_or_what_people_write() {
        for (text, expected) in [
            ("0", 0),
            ("1023", 1023),
            ("1K", 1024),
            ("512m", 512 << 20),
            ("1.5G", 3 << 29),
            ("64KiB", 64 << 10),
            ("2 MiB", 2 << 20),
            ("1MB", 1_000_000),
            ("1T", 1 << 40),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for text in ["", "x", "-1", "-1M", "M", "99999999999T", "1Q"] {
            assert!(bytes(text).is_err(), "{text}: {:?}", bytes(text));
        }
    }
}
