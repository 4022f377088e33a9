//! Moments on tokio's clock.

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
