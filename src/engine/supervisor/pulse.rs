//! Whether the server gives signs of life. PURE.
//!
//! Looks are counted and not time, so a machine that was suspended has missed one look and not many.

use std::time::Duration;

use job::time::BootInstant;

/// How many looks in a row may find nothing.
const MOST_MISSED: u32 = 3;

/// The signs of one server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pulse {
    every: Duration,
    look_at: BootInstant,
    was_heard: bool,
    missed: u32,
}

impl Pulse {
    /// Of a server that is to be given up after about `limit` without a sign.
    pub(super) fn new(limit: Duration, now: BootInstant) -> Self {
        let every = limit / MOST_MISSED;
        Self {
            every,
            look_at: now.after(every),
            was_heard: true,
            missed: 0,
        }
    }

    pub(super) fn due(&self) -> BootInstant {
        self.look_at
    }

    pub(super) fn heard(&mut self) {
        self.was_heard = true;
    }

    /// Looks, where it is time to; has the server been silent for too long?
    pub(super) fn is_gone(&mut self, now: BootInstant) -> bool {
        if now < self.look_at {
            return false;
        }
        self.look_at = now.after(self.every);
        self.missed = if self.was_heard { 0 } else { self.missed + 1 };
        self.was_heard = false;
        self.missed >= MOST_MISSED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootInstant {
        BootInstant::from_boot(Duration::from_secs(seconds))
    }

    #[test]
    fn a_server_is_gone_after_three_silent_looks_in_a_row() {
        let mut pulse = Pulse::new(Duration::from_secs(30), at(0));
        assert_eq!(pulse.due(), at(10));
        assert!(!pulse.is_gone(at(9)), "it is not time to look");
        assert!(!pulse.is_gone(at(10)), "it was new");
        assert!(!pulse.is_gone(at(20)) && !pulse.is_gone(at(30)));
        pulse.heard();
        assert!(!pulse.is_gone(at(40)), "it was heard");
        assert!(!pulse.is_gone(at(50)));
        // A suspended machine: much time, one look.
        assert!(!pulse.is_gone(at(5000)));
        assert!(pulse.is_gone(at(5010)));
    }
}
