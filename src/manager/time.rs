//! Moments on tokio's clock, and chance for pauses.

use job::time::BootInstant;
use linux::clock;
use tokio::time::Instant;

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
