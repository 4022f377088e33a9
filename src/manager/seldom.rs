//! What is true for a while is said once a minute, not each time that it is found out.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_secs(60);

/// What was said last, and when.
#[derive(Debug, Default)]
pub(super) struct Seldom(Mutex<Option<(String, Instant)>>);

impl Seldom {
    /// Is this to be said now? It counts as said then.
    pub(super) fn is_due(&self, what: &str, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let was_said = last
            .as_ref()
            .is_some_and(|(said, at)| said == what && now.duration_since(*at) < PAUSE);
        if !was_said {
            *last = Some((what.to_owned(), now));
        }
        !was_said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeat_is_said_once_a_minute_and_something_else_at_once() {
        let (seldom, now) = (Seldom::default(), Instant::now());
        assert!(seldom.is_due("a", now));
        assert!(!seldom.is_due("a", now + PAUSE / 2));
        assert!(seldom.is_due("b", now + PAUSE / 2));
        assert!(!seldom.is_due("b", now + PAUSE));
        assert!(seldom.is_due("b", now + PAUSE * 2));
    }
}
