//! Which monitors have no job and could take one, and for how long they are kept.

use std::collections::VecDeque;
use std::time::Duration;

use job::time::BootInstant;
use linux::sys::Pid;

/// The most that are kept: enough for a burst, and some megabytes.
const MOST: usize = 32;

/// How long one is kept that nobody needs.
const KEPT_FOR: Duration = Duration::from_secs(10);

/// The monitors without a job, the one that has waited longest first.
#[derive(Debug, Default)]
pub(super) struct IdleMonitors {
    waiting: VecDeque<(Pid, BootInstant)>,
}

impl IdleMonitors {
    /// Has one wait from `now` on; returns one that has to leave for it.
    pub(super) fn put(&mut self, monitor: Pid, now: BootInstant) -> Option<Pid> {
        self.waiting.push_back((monitor, now));
        let is_full = self.waiting.len() > MOST;
        is_full
            .then(|| self.waiting.pop_front())
            .flatten()
            .map(|(pid, _)| pid)
    }

    /// The one that had a job last: its memory is the warmest, and the others get old.
    pub(super) fn take(&mut self) -> Option<Pid> {
        self.waiting.pop_back().map(|(pid, _)| pid)
    }

    /// One that is dead.
    pub(super) fn forget(&mut self, monitor: Pid) {
        self.waiting.retain(|(pid, _)| *pid != monitor);
    }

    /// When [`IdleMonitors::overdue`] has something to say.
    pub(super) fn due(&self) -> Option<BootInstant> {
        self.waiting.front().map(|(_, since)| since.after(KEPT_FOR))
    }

    /// The next one that has waited for long enough.
    pub(super) fn overdue(&mut self, now: BootInstant) -> Option<Pid> {
        self.due().filter(|due| *due <= now)?;
        self.waiting.pop_front().map(|(pid, _)| pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pid(number: i32) -> Pid {
        Pid::new(number).unwrap()
    }

    #[test]
    fn the_last_one_works_again_and_the_first_one_leaves() {
        let start = BootInstant::from_boot(Duration::from_secs(1));
        let mut idle = IdleMonitors::default();
        assert_eq!((idle.take(), idle.due()), (None, None));
        for number in 2..5 {
            assert_eq!(idle.put(pid(number), start), None);
        }
        assert_eq!(idle.take(), Some(pid(4)));
        idle.forget(pid(2));
        assert_eq!(idle.overdue(start), None);
        let later = start.after(KEPT_FOR);
        assert_eq!(idle.due(), Some(later));
        assert_eq!(idle.overdue(later), Some(pid(3)));
        assert_eq!(idle.overdue(later), None);
    }

    #[test]
    fn there_are_never_too_many() {
        let start = BootInstant::from_boot(Duration::from_secs(1));
        let mut idle = IdleMonitors::default();
        let left: Vec<Pid> = (0..40)
            .filter_map(|number| idle.put(pid(100 + number), start))
            .collect();
        assert_eq!(
            left,
            (0..8).map(|number| pid(100 + number)).collect::<Vec<_>>()
        );
    }
}
