//! How much a test does, and how exactly it measures: `make soak` asks for more of both.

use std::time::Duration;

/// So much, unless this variable says otherwise.
pub(crate) fn amount(name: &str, default: u32) -> u32 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// A bound that holds on a machine with nothing else to do, which `PROCESSION_EXACT` promises. Without it a hundred times as
/// much.
pub(crate) fn bound(limit: Duration) -> Duration {
    if std::env::var_os("PROCESSION_EXACT").is_some() {
        limit
    } else {
        limit * 100
    }
}
