//! How often jobs of a queue may start. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use job::queue::{Rate, STARTS_MAX};
use job::time::Timestamp;

/// What is so far ahead comes from a clock that was set back.
const SET_BACK: Duration = Duration::from_secs(1);

/// The last starts of a queue, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Starts(VecDeque<Timestamp>);

impl Starts {
    /// When the next start is allowed; `None` if it is now.
    pub(super) fn opens_at(&mut self, rate: Rate, now: Timestamp) -> Option<Timestamp> {
        // A clock that was set back must not keep the queue shut for longer than a window. A moment that is only a
        // little ahead was read later by another thread.
        let set_back = now.after(SET_BACK);
        for start in self.0.iter_mut().rev().take_while(|it| **it > set_back) {
            *start = now;
        }
        let allowed = usize::try_from(rate.starts).unwrap_or(usize::MAX);
        let last = self.0.len().checked_sub(allowed)?;
        let at = self.0.get(last)?.after(rate.per);
        (at > now).then_some(at)
    }

    /// Notes a start; the order in which they are noted does not matter.
    pub(super) fn add(&mut self, at: Timestamp) {
        let place = self.0.partition_point(|other| *other <= at);
        self.0.insert(place, at);
        if self.0.len() > usize::try_from(STARTS_MAX).unwrap_or(usize::MAX) {
            self.0.pop_front();
        }
    }

    /// Moves a start from the moment of the grant to that of the start itself.
    pub(super) fn correct(&mut self, granted: Timestamp, started: Timestamp) {
        if let Ok(place) = self.0.binary_search(&granted) {
            self.0.remove(place);
            self.add(started.max(granted));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    const RATE: Rate = Rate {
        starts: 2,
        per: Duration::from_secs(10),
    };

    #[test]
    fn the_next_start_waits_until_the_window_has_room() {
        let mut starts = Starts::default();
        assert_eq!(starts.opens_at(RATE, at(0)), None);
        starts.add(at(0));
        assert_eq!(starts.opens_at(RATE, at(3)), None);
        starts.add(at(3));
        assert_eq!(starts.opens_at(RATE, at(4)), Some(at(10)));
        assert_eq!(starts.opens_at(RATE, at(10)), None);
        starts.add(at(10));
        assert_eq!(starts.opens_at(RATE, at(10)), Some(at(13)));
    }

    #[test]
    fn a_clock_that_is_set_back_shuts_the_queue_for_one_window_at_most() {
        let mut starts = Starts::default();
        starts.add(at(1_000_000));
        starts.add(at(1_000_001));
        assert_eq!(starts.opens_at(RATE, at(0)), Some(at(10)));
        assert_eq!(starts.opens_at(RATE, at(10)), None);
    }

    #[test]
    fn a_look_with_an_older_moment_moves_no_start() {
        let mut starts = Starts::default();
        let granted = at(10);
        starts.add(granted);
        starts.add(granted);
        let older = Timestamp::from_micros(granted.as_micros() - 1);
        assert_eq!(starts.opens_at(RATE, older), Some(at(20)));
        starts.correct(granted, at(11));
        starts.correct(granted, at(12));
        assert_eq!(starts.opens_at(RATE, at(12)), Some(at(21)));
    }

    #[test]
    fn a_start_counts_from_when_it_was() {
        let mut starts = Starts::default();
        starts.add(at(0));
        starts.add(at(1));
        starts.correct(at(0), at(2));
        assert_eq!(starts.opens_at(RATE, at(3)), Some(at(11)));
    }

    proptest! {
        #[test]
        fn no_window_has_more_starts_than_allowed(
            steps in prop::collection::vec(0_i64..5, 1..200), allowed in 1_u32..5, per in 1_u64..12,
        ) {
            let rate = Rate { starts: allowed, per: Duration::from_secs(per) };
            let mut starts = Starts::default();
            let (mut now, mut done) = (0, Vec::new());
            for step in steps {
                now += step;
                match starts.opens_at(rate, at(now)) {
                    None => { starts.add(at(now)); done.push(at(now)); }
                    Some(when) => prop_assert!(when > at(now)),
                }
            }
            for first in &done {
                let window = done.iter().filter(|it| *it >= first && **it < first.after(rate.per));
                prop_assert!(window.count() <= usize::try_from(allowed).unwrap());
            }
        }
    }
}
