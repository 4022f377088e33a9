//! Moments on tokio's clock, and chance for pauses.

use std::time::Duration;

use job::time::{BootInstant, Timestamp};
use linux::clock;
use tokio::time::Instant;

/// How long it is slept at most before the wall clock is looked at again: it may be set meanwhile.
const LONGEST: Duration = Duration::from_secs(60);

/// How long to sleep until this moment of the wall clock, as far as that is known now.
pub(super) fn pause_until(at: Option<Timestamp>, now: Timestamp) -> Duration {
    at.map_or(LONGEST, |at| at.since(now)).min(LONGEST)
}

/// Ends at `at`; never if there is none.
pub(super) async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The tokio instant of a moment on the boot clock.
pub(super) fn instant_of(at: BootInstant) -> Instant {
    Instant::now() + at.remaining(clock::now().boot)
}

/// From 0 to 1, for a pause that shall not be that of others too. Without chance it is the longest.
pub(super) fn chance() -> f64 {
    getrandom::u32().map_or(1.0, |number| f64::from(number) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_waited_for_the_clock_is_looked_at_within_a_minute() {
        let now = Timestamp::from_micros(1_800_000_000_000_000);
        let pause = |ahead: u64| pause_until(Some(now.after(Duration::from_secs(ahead))), now);
        assert_eq!(pause(7), Duration::from_secs(7));
        for far in [60, 61, 3600, 315_360_000] {
            assert_eq!(pause(far), Duration::from_mins(1), "{far}");
        }
        assert_eq!(pause_until(None, now), Duration::from_mins(1));
        // What is overdue, by however much, is not waited for.
        for past in [now, Timestamp::from_micros(0)] {
            assert_eq!(pause_until(Some(past), now), Duration::ZERO);
        }
    }
}
