//! How long the supervisor waits before it starts the next server. Pure.
//!
//! A server that has been ready serves between two crashes, so it comes back nearly at once, however often
//! somebody kills it. One that cannot even start would burn the processor for nothing: it is given ever
//! more time.

use std::time::Duration;

/// The first pause.
const FIRST: Duration = Duration::from_millis(20);

/// The longest pause after a server that was ready.
const MOST_AFTER_READY: Duration = Duration::from_millis(250);

/// The longest pause after a server that never was.
const MOST: Duration = Duration::from_secs(5);

/// A server that was ready for this long starts the pauses afresh.
const CALM: Duration = Duration::from_secs(10);

/// The pause before the next server.
#[derive(Debug)]
pub(super) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Backoff {
    /// The pause after a server that ran for so long; the one after the next server's end is longer.
    pub(super) fn after(&mut self, was_ready: bool, ran: Duration) -> Duration {
        if was_ready && ran >= CALM {
            self.0 = FIRST;
        }
        let most = if was_ready { MOST_AFTER_READY } else { MOST };
        let pause = self.0.min(most);
        self.0 = pause * 2;
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_millis(100);

    #[test]
    fn a_server_that_was_ready_is_never_waited_for_long() {
        let mut backoff = Backoff::default();
        let pauses: Vec<Duration> = (0..50).map(|_| backoff.after(true, MOMENT)).collect();
        assert_eq!(pauses[0], FIRST);
        assert!(pauses.iter().all(|pause| *pause <= MOST_AFTER_READY));
        assert!(pauses.is_sorted());
    }

    #[test]
    fn a_server_that_cannot_start_is_given_ever_more_time() {
        let mut backoff = Backoff::default();
        let pauses: Vec<Duration> = (0..12).map(|_| backoff.after(false, MOMENT)).collect();
        assert_eq!(pauses[..3], [FIRST, FIRST * 2, FIRST * 4]);
        assert_eq!(pauses[11], MOST);
    }

    #[test]
    fn one_that_starts_at_last_is_trusted_again() {
        let mut backoff = Backoff::default();
        for _ in 0..12 {
            backoff.after(false, MOMENT);
        }
        assert_eq!(backoff.after(true, MOMENT), MOST_AFTER_READY);
        assert_eq!(backoff.after(true, CALM), FIRST);
    }
}
