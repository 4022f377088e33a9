//! Times, sizes and command lines in few characters, and names in paths.

use std::time::Duration;

use bytesize::ByteSize;
use jiff::fmt::friendly::{Spacing, SpanPrinter};
use jiff::{RoundMode, SignedDuration, SpanRound, Unit};

/// The path of what has this name below `root`. What is no name must not become another path.
pub(super) fn named(root: &str, name: &str) -> String {
    let escaped = name.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
        b'.' if name.contains(|c: char| c.is_ascii_alphanumeric()) => ".".to_owned(),
        _ => format!("%{byte:02X}"),
    });
    format!("{root}/{}", escaped.collect::<String>())
}

/// A span in its two largest units, such as `3m12s` or `2d4h`; below ten seconds with a decimal.
pub(super) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    if seconds < 10 {
        return format!("{seconds}.{}s", span.subsec_millis() / 100);
    }
    let smallest = match seconds {
        0..3600 => Unit::Second,
        3600..86_400 => Unit::Minute,
        _ => Unit::Hour,
    };
    let round = SpanRound::new()
        .largest(Unit::Day)
        .smallest(smallest)
        .mode(RoundMode::Trunc)
        .days_are_24_hours();
    let whole = SignedDuration::try_from(Duration::from_secs(seconds));
    let whole = whole
        .ok()
        .and_then(|whole| jiff::Span::try_from(whole).ok());
    match whole.and_then(|whole| whole.round(round).ok()) {
        Some(span) => SpanPrinter::new()
            .spacing(Spacing::None)
            .span_to_string(&span),
        // Longer than the calendar.
        None => format!("{seconds}s"),
    }
}

/// A size with one decimal, in powers of 1024.
pub(super) fn size(bytes: u64) -> String {
    ByteSize(bytes).display().iec_short().to_string()
}

/// The note below a list of jobs that is not all of them.
pub(super) fn only_the_newest(jobs: usize) -> String {
    let which = match jobs {
        1 => "job is".to_owned(),
        jobs => format!("{jobs} jobs are"),
    };
    format!("only the newest {which} shown; --limit 0 shows all")
}

/// Arguments as one would type them to a shell.
pub(super) fn command_line<'a>(arguments: impl IntoIterator<Item = &'a str>) -> String {
    // No argument of a program has a NUL byte.
    shlex::Quoter::new()
        .allow_nul(true)
        .join(arguments)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_are_short() {
        let of = |millis| span(Duration::from_millis(millis));
        assert_eq!(of(0), "0.0s");
        assert_eq!(of(1_250), "1.2s");
        assert_eq!(of(59_999), "59s");
        assert_eq!(of(3 * 60_000 + 7_000), "3m7s");
        assert_eq!(of(2 * 3_600_000 + 59_999), "2h");
        assert_eq!(of(90_000_000), "1d1h");
        assert_eq!(span(Duration::MAX), format!("{}s", u64::MAX));
        assert_eq!(size(0), "0B");
        assert_eq!(size(1023), "1023B");
        assert_eq!(size(1536), "1.5K");
        assert_eq!(size(64 << 20), "64.0M");
        assert_eq!(size(u64::MAX), "16.0E");
    }

    #[test]
    fn one_job_is_no_number_of_jobs() {
        assert_eq!(
            [1, 2].map(only_the_newest),
            [
                "only the newest job is shown; --limit 0 shows all",
                "only the newest 2 jobs are shown; --limit 0 shows all"
            ]
        );
    }

    #[test]
    fn a_command_line_can_be_typed_again() {
        for arguments in [
            &["sh", "-c", "echo 'a' $b", "", "/x=1"][..],
            &["printf", "\x1b]0;x\x07", "ä b", "*", "~"],
        ] {
            let line = command_line(arguments.iter().copied());
            assert_eq!(shlex::split(&line).unwrap(), arguments, "{line}");
        }
        assert_eq!(command_line(["ls", "-l", "/tmp/x"]), "ls -l /tmp/x");
    }
}
