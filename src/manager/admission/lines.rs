//! The jobs of one queue that wait for its turn, by their class: those of one that no node has room for keep none of
//! another from theirs. Without nodes there is one class. Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::fair::{Ready, Turn};
use super::ticket::Ticket;
use crate::nodes::Class;
use job::JobId;

#[derive(Debug, Default)]
pub(super) struct Lines(BTreeMap<Class, Ready>);

impl Lines {
    /// A job has come into the queue. A group that is new begins at the least of the others, so that it is neither
    /// behind them nor makes up for what it did not want.
    pub(super) fn join(&mut self, class: &Class, group: &mut Arc<str>) {
        let known = self.0.values().map(|ready| ready.used(group));
        let (mut had, mut least) = (None, None::<u64>);
        for (of_group, of_any) in known {
            had = had.or(of_group);
            least = least.min(of_any).or(least).or(of_any);
        }
        let ready = self.0.entry(class.clone()).or_default();
        ready.join(group, had.or(least).unwrap_or(0));
    }

    /// A job has left the queue.
    pub(super) fn part(&mut self, ticket: &Ticket) {
        if let Some(ready) = self.0.get_mut(&ticket.class) {
            ready.part(&ticket.group);
            if ready.is_empty() {
                self.0.remove(&ticket.class);
            }
        }
    }

    /// A job that has joined may start as far as it alone is concerned.
    pub(super) fn insert(&mut self, ticket: &Ticket) {
        if let Some(ready) = self.0.get_mut(&ticket.class) {
            ready.insert(&ticket.group, ticket.priority, ticket.job);
        }
    }

    /// The opposite.
    pub(super) fn remove(&mut self, ticket: &Ticket) {
        if let Some(ready) = self.0.get_mut(&ticket.class) {
            ready.remove(&ticket.group, ticket.priority, ticket.job);
        }
    }

    /// A job of the group has started.
    pub(super) fn charge(&mut self, group: &Arc<str>, weight: u32) {
        for ready in self.0.values_mut() {
            ready.charge(group, weight);
        }
    }

    /// The class after this one.
    pub(super) fn class_after(&self, last: Option<&Class>) -> Option<Class> {
        let after = last.map_or(Bound::Unbounded, Bound::Excluded);
        let mut classes = self.0.range((after, Bound::Unbounded));
        classes.next().map(|(class, _)| class.clone())
    }

    /// The job of this class whose turn it is.
    pub(super) fn first_of(&self, class: &Class) -> Option<JobId> {
        self.0.get(class)?.first()
    }

    /// The first of every class, in their order.
    pub(super) fn firsts(&self) -> Vec<JobId> {
        let mut firsts: Vec<(Reverse<i32>, &Turn, JobId)> =
            self.0.values().filter_map(Ready::front).collect();
        firsts.sort_unstable();
        firsts.into_iter().map(|(_, _, job)| job).collect()
    }

    /// The job whose turn it is.
    pub(super) fn first(&self) -> Option<JobId> {
        let fronts = self.0.values().filter_map(Ready::front);
        fronts.min().map(|(_, _, job)| job)
    }
}
