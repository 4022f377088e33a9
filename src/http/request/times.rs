//! Fields that say when.

use super::fields::{At, code};
use job::time::Timestamp;

/// A moment in RFC 3339, with its offset from UTC.
pub(super) fn moment(at: &At<'_>) -> Option<Timestamp> {
    match at.text()?.parse() {
        Ok(moment) => Some(moment),
        Err(_) => at.refuse(
            code::INVALID_VALUE,
            "must be a time in RFC 3339, such as 2026-01-31T06:00:00+01:00",
        ),
    }
}
