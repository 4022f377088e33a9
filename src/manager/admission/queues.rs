//! The queues: what may run of each, and which of its jobs is the next. Pure.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::lines::Lines;
use super::rate::Starts;
use crate::nodes::Class;
use job::JobId;
use job::queue::Settings;
use job::time::Timestamp;

/// What is in a queue at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Jobs that run.
    pub running: usize,
    /// Their weight.
    pub running_weight: u64,
    /// Jobs that wait for the queue; those that wait for a time, a hold or other jobs are not in it yet.
    pub queued: usize,
    /// The oldest of them.
    pub oldest: Option<JobId>,
    /// When the rate lets the next one start, if it is the rate that they wait for.
    pub next_start_at: Option<Timestamp>,
}

/// The next job of a queue, in the order in which queues get the service's slots: the highest priority, then the
/// least loaded queue, then the oldest job.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate {
    pub(super) priority: Reverse<i32>,
    pub(super) load: u64,
    pub(super) job: JobId,
    pub(super) queue: Arc<str>,
    pub(super) class: Class,
}

/// One queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) settings: Settings,
    pub(super) is_set: bool,
    pub(super) running: usize,
    pub(super) running_weight: u64,
    /// Jobs that are being made durable.
    pub(super) promised: usize,
    /// All that wait for the queue or for a key.
    pub(super) members: BTreeSet<JobId>,
    /// Those of them that wait for the queue alone.
    pub(super) ready: Lines,
    /// Those of them that are heavier than the limit is.
    pub(super) heavy: BTreeSet<JobId>,
    pub(super) starts: Starts,
    /// What stands for it among the queues that could start a job, one a class.
    pub(super) candidates: Vec<Candidate>,
    /// The keys of those.
    pub(super) fronts: Vec<Arc<str>>,
    /// When its rate opens.
    pub(super) opens_at: Option<Timestamp>,
}

impl Queue {
    /// Is there nothing that has to be remembered of it?
    pub(super) fn is_idle(&self) -> bool {
        !self.is_set && self.running == 0 && self.promised == 0 && self.members.is_empty()
    }

    /// Can a job of this weight ever run in it?
    pub(super) fn could_hold(&self, weight: u32) -> bool {
        self.settings.max_running.is_none_or(|most| weight <= most)
    }

    /// Is there room for a job of this weight now?
    pub(super) fn has_room(&self, weight: u32) -> bool {
        let needed = self.running_weight + u64::from(weight);
        let most = self.settings.max_running;
        most.is_none_or(|most| needed <= u64::from(most))
    }

    /// Does a job more find a place to wait in, or one that it need not wait for, of those that are free in the
    /// service?
    pub(super) fn takes_more(&self, free: u64) -> bool {
        let Some(most) = self.settings.max_queued else {
            return true;
        };
        let free = match self.settings.max_running {
            _ if self.settings.paused || self.opens_at.is_some() => 0,
            Some(most) => free.min(u64::from(most).saturating_sub(self.running_weight)),
            None => free,
        };
        let free = usize::try_from(free).unwrap_or(usize::MAX);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        self.members.len() + self.promised < most.saturating_add(free)
    }

    /// How full it is, of `u32::MAX`.
    pub(super) fn load(&self, service: u32) -> u64 {
        let most = self.settings.max_running.unwrap_or(service).max(1);
        self.running_weight.saturating_mul(u64::from(u32::MAX)) / u64::from(most)
    }

    pub(super) fn contents(&self) -> Contents {
        Contents {
            running: self.running,
            running_weight: self.running_weight,
            queued: self.members.len(),
            oldest: self.members.first().copied(),
            next_start_at: self.opens_at,
        }
    }
}
