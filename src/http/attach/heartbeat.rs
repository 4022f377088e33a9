//! Is the other side still there? PURE: what it is told, and what follows at the next beat.

use std::sync::atomic::{AtomicBool, Ordering};

/// The signs of life of one client. Those that read from it and those that write to it share one.
#[derive(Debug)]
pub(super) struct Heartbeat {
    heard: AtomicBool,
    held_up: AtomicBool,
}

/// What to do at a beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beat {
    /// Ask for a sign of life.
    Ping,
    /// Nothing has come since the last one: nobody is there.
    Dead,
}

impl Heartbeat {
    pub(super) fn new() -> Self {
        Self {
            heard: AtomicBool::new(true),
            held_up: AtomicBool::new(false),
        }
    }

    /// Something came.
    pub(super) fn hear(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    /// Nothing can come now, since the job does not take what came before; or it can again.
    pub(super) fn hold_up(&self, held_up: bool) {
        self.held_up.store(held_up, Ordering::Relaxed);
    }

    pub(super) fn beat(&self) -> Beat {
        let heard = self.heard.swap(false, Ordering::Relaxed);
        if heard || self.held_up.load(Ordering::Relaxed) {
            Beat::Ping
        } else {
            Beat::Dead
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_answers_no_ping_is_dead_at_the_next_beat() {
        let heartbeat = Heartbeat::new();
        assert_eq!(heartbeat.beat(), Beat::Ping, "it has just come");
        heartbeat.hear();
        assert_eq!(heartbeat.beat(), Beat::Ping);
        assert_eq!(heartbeat.beat(), Beat::Dead);
    }

    #[test]
    fn who_is_held_up_cannot_answer() {
        let heartbeat = Heartbeat::new();
        heartbeat.hold_up(true);
        assert_eq!(
            [heartbeat.beat(), heartbeat.beat(), heartbeat.beat()],
            [Beat::Ping; 3]
        );
        heartbeat.hold_up(false);
        assert_eq!(heartbeat.beat(), Beat::Dead);
    }
}
