//! Who may run: a pure account of slots and of the jobs that wait for one.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use job::JobId;

/// Slots and queue. Higher priority starts first, then the older job.
#[derive(Debug)]
pub(super) struct Admission<T> {
    max_running: usize,
    max_queued: usize,
    running: usize,
    /// Places promised to jobs that are being made durable.
    promised: usize,
    waiting: BTreeMap<(Reverse<i32>, JobId), T>,
}

/// What an arriving job gets.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// A slot.
    Runs,
    /// A place in the queue.
    Waits,
}

impl<T> Admission<T> {
    pub(super) fn new(max_running: usize, max_queued: usize) -> Self {
        Self {
            max_running,
            max_queued,
            running: 0,
            promised: 0,
            waiting: BTreeMap::new(),
        }
    }

    pub(super) fn running(&self) -> usize {
        self.running
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Promises a place to a job that is about to be made durable; `false` where there is none.
    pub(super) fn promise(&mut self) -> bool {
        let free = self.max_running.saturating_sub(self.running);
        if self.waiting.len() + self.promised >= self.max_queued + free {
            return false;
        }
        self.promised += 1;
        true
    }

    /// Takes a promise back: the job was not made durable.
    pub(super) fn withdraw(&mut self) {
        self.promised = self.promised.saturating_sub(1);
    }

    /// Turns a promise into a slot or a place in the queue.
    pub(super) fn arrive(&mut self, id: JobId, priority: i32, waiter: T) -> Arrival {
        self.withdraw();
        self.enter(id, priority, waiter)
    }

    /// Lets a job in that was accepted by an earlier server, whatever the limits say.
    pub(super) fn enter(&mut self, id: JobId, priority: i32, waiter: T) -> Arrival {
        if self.running < self.max_running && self.waiting.is_empty() {
            self.running += 1;
            return Arrival::Runs;
        }
        self.waiting.insert((Reverse(priority), id), waiter);
        Arrival::Waits
    }

    /// Counts a job that runs already.
    pub(super) fn adopt(&mut self) {
        self.running += 1;
    }

    /// Frees a slot.
    pub(super) fn leave(&mut self) {
        self.running = self.running.saturating_sub(1);
    }

    /// Gives a free slot to the first in the queue.
    pub(super) fn next(&mut self) -> Option<T> {
        if self.running >= self.max_running {
            return None;
        }
        let (_, waiter) = self.waiting.pop_first()?;
        self.running += 1;
        Some(waiter)
    }

    /// Gives a waiting job another priority; `false` where it does not wait (any more).
    pub(super) fn reprioritize(&mut self, id: JobId, from: i32, to: i32) -> bool {
        match self.waiting.remove(&(Reverse(from), id)) {
            Some(waiter) => {
                self.waiting.insert((Reverse(to), id), waiter);
                true
            }
            None => false,
        }
    }

    /// Takes a job out of the queue; `false` where it is not in it (it has a slot by now).
    pub(super) fn cancel(&mut self, id: JobId, priority: i32) -> bool {
        self.waiting.remove(&(Reverse(priority), id)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn priority_comes_before_age() {
        let mut admission = Admission::new(1, 10);
        let ids: Vec<JobId> = (0..4).map(|_| JobId::generate()).collect();
        assert!(admission.promise());
        assert_eq!(admission.arrive(ids[0], 0, 0), Arrival::Runs);
        for (index, priority) in [(1, 0), (2, 5), (3, 0)] {
            assert!(admission.promise());
            assert_eq!(
                admission.arrive(ids[index], priority, index),
                Arrival::Waits
            );
        }
        assert_eq!(admission.next(), None);
        let order: Vec<usize> = std::iter::from_fn(|| {
            admission.leave();
            admission.next()
        })
        .collect();
        assert_eq!(order, [2, 1, 3]);
    }

    #[test]
    fn the_queue_is_bounded_by_what_waits_and_what_is_promised() {
        let mut admission: Admission<()> = Admission::new(1, 1);
        assert!(admission.promise());
        assert!(admission.promise());
        assert!(!admission.promise());
        admission.withdraw();
        assert!(admission.promise());
    }

    proptest! {
        #[test]
        fn never_more_run_than_may(steps in prop::collection::vec((0_u8..4, -3_i32..3), 0..200)) {
            let mut admission = Admission::new(3, 5);
            let mut waiting: Vec<(i32, JobId)> = Vec::new();
            for (step, priority) in steps {
                match step {
                    0 if admission.promise() => {
                        let id = JobId::generate();
                        if admission.arrive(id, priority, (priority, id)) == Arrival::Waits {
                            waiting.push((priority, id));
                        }
                    }
                    1 => admission.leave(),
                    2 => if let Some((priority, id)) = waiting.pop() {
                        prop_assert!(admission.cancel(id, priority));
                    },
                    _ => {}
                }
                while let Some(next) = admission.next() {
                    waiting.retain(|entry| *entry != next);
                }
                prop_assert!(admission.running() <= 3);
                prop_assert!(admission.waiting() <= 8);
                prop_assert_eq!(admission.waiting(), waiting.len());
            }
        }
    }
}
