//! Waiting: always for something, never longer than a limit.

use std::future::Future;
use std::time::{Duration, Instant};

/// No wait in these tests is longer. Everything is expected to come at once; a loaded machine is slow.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// How often a wait looks for what nobody announces.
pub(super) const GLANCE: Duration = Duration::from_millis(10);

/// Waits until `attempt` gives a value: only for what nobody announces.
#[track_caller]
pub(crate) fn eventually<T>(
    what: &str,
    attempt: impl AsyncFnMut() -> Option<T>,
) -> impl Future<Output = T> {
    let place = std::panic::Location::caller();
    eventually_within(LONG, format!("{what} ({place})"), attempt)
}

/// The same with another limit, where the limit is what is tested.
#[expect(
    clippy::disallowed_methods,
    reason = "a pause between two looks, not a wait for something"
)]
pub(crate) async fn eventually_within<T>(
    limit: Duration,
    what: impl AsRef<str>,
    mut attempt: impl AsyncFnMut() -> Option<T>,
) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = attempt().await {
            return value;
        }
        assert!(
            Instant::now() < end,
            "not within {limit:?}: {}",
            what.as_ref()
        );
        tokio::time::sleep(GLANCE).await;
    }
}

/// The same for a `Drop`, which cannot await.
#[expect(
    clippy::disallowed_methods,
    reason = "a pause between two looks, not a wait for something"
)]
pub(crate) fn blocking_until(limit: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if is_so() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(GLANCE);
    }
}
