//! When jobs that wait without a task have to have started.

use std::collections::{BTreeSet, HashMap};

use job::JobId;
use job::time::Timestamp;

/// When those that wait without a task have to have started.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    in_order: BTreeSet<(Timestamp, JobId)>,
    of: HashMap<JobId, Timestamp>,
}

impl Deadlines {
    pub(super) fn set(&mut self, job: JobId, deadline: Option<Timestamp>) {
        self.take(job);
        if let Some(at) = deadline {
            self.in_order.insert((at, job));
            self.of.insert(job, at);
        }
    }

    pub(super) fn take(&mut self, job: JobId) -> Option<Timestamp> {
        let at = self.of.remove(&job)?;
        self.in_order.remove(&(at, job));
        Some(at)
    }

    pub(super) fn first(&self) -> Option<(Timestamp, JobId)> {
        self.in_order.first().copied()
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        assert_eq!(self.in_order.len(), self.of.len());
        self.of.len()
    }
}
