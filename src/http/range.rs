//! One byte range of the header `Range` (RFC 9110, 14.2).

use axum::http::HeaderMap;
use axum::http::header::{IF_RANGE, RANGE};

/// Which bytes a client wants; both ends are counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of them.
    Everything,
    /// These; the last one exists.
    Part {
        /// The first.
        first: u64,
        /// The last.
        last: u64,
    },
    /// None that exists.
    Nothing,
}

/// What `headers` want of a representation of `length` bytes of which those before `kept_from` are gone.
/// What is no single byte range is ignored, as the RFC allows.
pub(super) fn wanted(headers: &HeaderMap, kept_from: u64, length: u64) -> Wanted {
    // There is no strong validator, so that If-Range can never match.
    if headers.contains_key(IF_RANGE) {
        return Wanted::Everything;
    }
    let mut values = headers.get_all(RANGE).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value
            .to_str()
            .ok()
            .and_then(parse)
            .map_or(Wanted::Everything, |range| range.of(kept_from, length)),
        (None | Some(_), _) => Wanted::Everything,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Range {
    From(u64),
    Between(u64, u64),
    Last(u64),
}

impl Range {
    fn of(self, kept_from: u64, length: u64) -> Wanted {
        let Some(end) = length.checked_sub(1) else {
            return Wanted::Nothing;
        };
        let (first, last) = match self {
            Self::From(first) => (first, end),
            Self::Between(first, last) => (first, last.min(end)),
            Self::Last(0) => return Wanted::Nothing,
            Self::Last(count) => (length.saturating_sub(count), end),
        };
        let first = first.max(kept_from);
        if first > last {
            Wanted::Nothing
        } else {
            Wanted::Part { first, last }
        }
    }
}

fn parse(text: &str) -> Option<Range> {
    let (unit, set) = text.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = set.trim().split_once('-')?;
    match (number(first), number(last)) {
        (Some(first), Some(last)) => (first <= last).then_some(Range::Between(first, last)),
        (Some(first), None) if last.is_empty() => Some(Range::From(first)),
        (None, Some(count)) if first.is_empty() => Some(Range::Last(count)),
        (Some(_) | None, Some(_) | None) => None,
    }
}

/// A number in digits; one too large to count with is as good as the largest.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(range: &str, kept_from: u64, length: u64) -> Wanted {
        let headers = HeaderMap::from_iter([(RANGE, range.parse().unwrap())]);
        wanted(&headers, kept_from, length)
    }

    #[test]
    fn single_ranges_are_understood() {
        for (range, first, last) in [
            ("bytes=0-0", 0, 0),
            ("bytes=2-5", 2, 5),
            ("bytes=2-", 2, 9),
            ("bytes=2-99999999999999999999999", 2, 9),
            ("bytes=-3", 7, 9),
            ("bytes=-300", 0, 9),
            ("Bytes=9-", 9, 9),
        ] {
            assert_eq!(of(range, 0, 10), Wanted::Part { first, last }, "{range}");
        }
    }

    #[test]
    fn what_lies_beyond_the_end_is_nothing() {
        for range in ["bytes=10-", "bytes=10-20", "bytes=-0"] {
            assert_eq!(of(range, 0, 10), Wanted::Nothing, "{range}");
        }
        assert_eq!(of("bytes=0-", 0, 0), Wanted::Nothing);
    }

    #[test]
    fn what_was_dropped_is_cut_off() {
        assert_eq!(of("bytes=0-", 4, 10), Wanted::Part { first: 4, last: 9 });
        assert_eq!(of("bytes=0-3", 4, 10), Wanted::Nothing);
    }

    #[test]
    fn what_is_no_single_range_is_ignored() {
        for range in [
            "bytes=0-1,3-4",
            "lines=0-1",
            "bytes=5-2",
            "bytes=-",
            "bytes=a-b",
            "bytes",
            "",
        ] {
            assert_eq!(of(range, 0, 10), Wanted::Everything, "{range}");
        }
        let mut headers = HeaderMap::from_iter([(RANGE, "bytes=0-1".parse().unwrap())]);
        headers.insert(IF_RANGE, "\"1\"".parse().unwrap());
        assert_eq!(wanted(&headers, 0, 10), Wanted::Everything);
    }

    proptest! {
        #[test]
        fn a_part_always_lies_within(range in "bytes=[0-9]{0,3}-[0-9]{0,3}", kept in 0_u64..50, more in 0_u64..50) {
            let length = kept + more;
            if let Wanted::Part { first, last } = of(&range, kept, length) {
                prop_assert!(kept <= first && first <= last && last < length);
            }
        }
    }
}
