//! Values on the command line: spans of time, sizes, and files of JSON.

use std::path::Path;
use std::time::Duration;

use bytesize::ByteSize;
use jiff::civil::{Date, Time};
use jiff::{Span, SpanRelativeTo, Unit, Zoned};
use serde_json::{Map, Value};

use crate::failure::Failure;
use crate::stdio::read_stdin;
use job::time::Timestamp;
use linux::clock;

/// A span of time in seconds: a number of them, or a text such as `1h30m`, `5min`, `500ms` or `7d`.
pub fn seconds(text: &str) -> Result<f64, String> {
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

/// A moment to come: a time with its zone, a time of day, a day with one, both on the clock here, or `in` a span of
/// time.
pub(crate) fn moment(text: &str) -> Result<Timestamp, String> {
    moment_from(text, &Zoned::now())
}

fn moment_from(text: &str, now: &Zoned) -> Result<Timestamp, String> {
    let text = text.trim();
    if let Ok(moment) = text.parse() {
        return Ok(moment);
    }
    let wrong = || {
        "a moment is a time such as 06:00, 'tomorrow 06:00', '2026-12-24 18:00' or \
         2026-12-24T18:00:00+01:00, or a span such as 'in 2h'"
            .to_owned()
    };
    let micros = |at: &Zoned| Timestamp::from_micros(at.timestamp().as_microsecond());
    if let Some(span) = text.strip_prefix("in ") {
        let span = seconds(span.trim()).map_err(|_| wrong())?;
        let span = Duration::try_from_secs_f64(span).map_err(|_| wrong())?;
        return Ok(micros(now).after(span));
    }
    let today = now.date();
    let (day, clock) = match text.split_once([' ', 'T']) {
        None => (None, text),
        Some((day, clock)) => {
            let day = match day {
                "today" => today,
                "tomorrow" => today.tomorrow().map_err(|_| wrong())?,
                date => date.parse::<Date>().map_err(|_| wrong())?,
            };
            (Some(day), clock.trim())
        }
    };
    let clock: Time = clock.parse().map_err(|_| wrong())?;
    let on = |day: Date| {
        let at = day.to_datetime(clock).to_zoned(now.time_zone().clone());
        at.map_err(|_| wrong())
    };
    let mut at = on(day.unwrap_or(today))?;
    // A time of day alone is the next one.
    if day.is_none() && at <= *now {
        at = on(today.tomorrow().map_err(|_| wrong())?)?;
    }
    Ok(micros(&at))
}

/// A size: a number of bytes, or one with a unit. As elsewhere for limits, `K`, `M`, `G` and `T` are powers of
/// 1024, and so are `KiB` and its like; `kB` and its like are powers of 1000.
pub fn bytes(text: &str) -> Result<u64, String> {
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
    fn a_moment_to_come_is_on_the_clock_here_or_so_far_away() {
        let now: Zoned = "2027-03-27T12:30:00+01:00[Europe/Berlin]".parse().unwrap();
        for (text, expected) in [
            ("2027-05-01T06:00:00Z", "2027-05-01T06:00:00Z"),
            ("2027-05-01T06:00:00+02:00", "2027-05-01T04:00:00Z"),
            ("13:00", "2027-03-27T12:00:00Z"),
            // It has passed today, and the clocks go forward in the night.
            ("06:00", "2027-03-28T04:00:00Z"),
            ("12:30", "2027-03-28T10:30:00Z"),
            ("today 06:00", "2027-03-27T05:00:00Z"),
            ("tomorrow 06:00", "2027-03-28T04:00:00Z"),
            ("tomorrow 06:00:30", "2027-03-28T04:00:30Z"),
            ("2027-12-24 18:00", "2027-12-24T17:00:00Z"),
            ("2027-12-24T18:00", "2027-12-24T17:00:00Z"),
            ("in 2h", "2027-03-27T13:30:00Z"),
            ("in 90", "2027-03-27T11:31:30Z"),
        ] {
            let expected: Timestamp = expected.parse().unwrap();
            assert_eq!(moment_from(text, &now), Ok(expected), "{text}");
        }
        for text in [
            "",
            "soon",
            "25:00",
            "tomorrow",
            "2027-02-30 06:00",
            "in",
            "in -1",
            "2h",
        ] {
            assert!(moment_from(text, &now).is_err(), "{text}");
        }
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
