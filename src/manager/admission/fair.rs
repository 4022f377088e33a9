//! The jobs of one queue that only wait for its turn: by priority, then by the turns of groups, then by age. Pure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use job::JobId;

/// A turn comes to the group that has had the least.
pub(super) type Turn = (u64, Arc<str>);

#[derive(Debug, Default)]
pub(super) struct Ready {
    levels: BTreeMap<Reverse<i32>, BTreeMap<Turn, BTreeSet<JobId>>>,
    groups: HashMap<Arc<str>, Group>,
}

#[derive(Debug, Default)]
struct Group {
    /// The weight that it has started, as far as others have to catch up.
    used: u64,
    /// How many of its jobs wait in the queue, ready or not; without one it is forgotten.
    members: usize,
    /// Where it has ready jobs.
    levels: BTreeSet<Reverse<i32>>,
}

impl Ready {
    /// A job of the group has come into the queue. A new group begins at `at`.
    ///
    /// Its name is kept once, not once a job.
    pub(super) fn join(&mut self, group: &mut Arc<str>, at: u64) {
        if let Some((name, _)) = self.groups.get_key_value(group) {
            *group = name.clone();
        } else {
            let used = at;
            let fresh = Group {
                used,
                ..Group::default()
            };
            self.groups.insert(group.clone(), fresh);
        }
        if let Some(found) = self.groups.get_mut(group) {
            found.members += 1;
        }
    }

    /// What a group has had, and the least that any has.
    pub(super) fn used(&self, group: &Arc<str>) -> (Option<u64>, Option<u64>) {
        let least = self.groups.values().map(|it| it.used).min();
        (self.groups.get(group).map(|it| it.used), least)
    }

    /// Nothing waits here.
    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// A job of the group has left the queue.
    pub(super) fn part(&mut self, group: &Arc<str>) {
        if let Some(found) = self.groups.get_mut(group) {
            found.members -= 1;
            if found.members == 0 {
                self.groups.remove(group);
            }
        }
    }

    /// A job that has joined may start as far as it alone is concerned.
    pub(super) fn insert(&mut self, group: &Arc<str>, priority: i32, job: JobId) {
        let Some(found) = self.groups.get_mut(group) else {
            return;
        };
        let level = Reverse(priority);
        found.levels.insert(level);
        let turn = (found.used, group.clone());
        let turns = self.levels.entry(level).or_default();
        turns.entry(turn).or_default().insert(job);
    }

    /// The opposite; a job that is not ready changes nothing.
    pub(super) fn remove(&mut self, group: &Arc<str>, priority: i32, job: JobId) {
        let Some(found) = self.groups.get_mut(group) else {
            return;
        };
        let (level, turn) = (Reverse(priority), (found.used, group.clone()));
        let Some(turns) = self.levels.get_mut(&level) else {
            return;
        };
        if let Some(jobs) = turns.get_mut(&turn) {
            jobs.remove(&job);
            if jobs.is_empty() {
                turns.remove(&turn);
                found.levels.remove(&level);
            }
        }
        if turns.is_empty() {
            self.levels.remove(&level);
        }
    }

    /// The job whose turn it is, after what puts it in order.
    pub(super) fn front(&self) -> Option<(Reverse<i32>, &Turn, JobId)> {
        let (level, turns) = self.levels.first_key_value()?;
        let (turn, jobs) = turns.first_key_value()?;
        Some((*level, turn, jobs.first().copied()?))
    }

    /// The job whose turn it is.
    pub(super) fn first(&self) -> Option<JobId> {
        self.front().map(|(_, _, job)| job)
    }

    /// A job of the group has started: the others have their turns first.
    pub(super) fn charge(&mut self, group: &Arc<str>, weight: u32) {
        let Some(found) = self.groups.get_mut(group) else {
            return;
        };
        let before = (found.used, group.clone());
        found.used = found.used.saturating_add(u64::from(weight));
        let after = (found.used, group.clone());
        for level in &found.levels {
            if let Some(turns) = self.levels.get_mut(level)
                && let Some(jobs) = turns.remove(&before)
            {
                turns.insert(after.clone(), jobs);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(ready: &mut Ready, group: &str, priority: i32, count: usize) -> Vec<JobId> {
        let mut group: Arc<str> = group.into();
        let jobs: Vec<JobId> = (0..count).map(|_| JobId::generate()).collect();
        for job in &jobs {
            let (had, least) = ready.used(&group);
            ready.join(&mut group, had.or(least).unwrap_or(0));
            ready.insert(&group, priority, *job);
        }
        jobs
    }

    fn start(ready: &mut Ready, group: &str, priority: i32, weight: u32) {
        let (job, group) = (ready.first().unwrap(), group.into());
        ready.remove(&group, priority, job);
        ready.charge(&group, weight);
        ready.part(&group);
    }

    #[test]
    fn groups_take_turns_by_weight_and_a_new_one_is_soon_served() {
        let mut ready = Ready::default();
        let many = fill(&mut ready, "a", 0, 10);
        for job in &many[..5] {
            assert_eq!(ready.first(), Some(*job));
            start(&mut ready, "a", 0, 1);
        }
        let few = fill(&mut ready, "b", 0, 3);
        assert_eq!(ready.first(), Some(many[5]));
        start(&mut ready, "a", 0, 1);
        assert_eq!(ready.first(), Some(few[0]));
        start(&mut ready, "b", 0, 3);
        for job in &many[6..9] {
            assert_eq!(ready.first(), Some(*job));
            start(&mut ready, "a", 0, 1);
        }
        assert_eq!(ready.first(), Some(few[1]));
    }

    #[test]
    fn priority_comes_before_turns() {
        let mut ready = Ready::default();
        let low = fill(&mut ready, "a", 0, 1);
        let high = fill(&mut ready, "b", 5, 2);
        assert_eq!(ready.first(), Some(high[0]));
        start(&mut ready, "b", 5, 100);
        assert_eq!(ready.first(), Some(high[1]));
        start(&mut ready, "b", 5, 100);
        assert_eq!(ready.first(), Some(low[0]));
        start(&mut ready, "a", 0, 1);
        assert_eq!(ready.first(), None);
        assert!(ready.groups.is_empty() && ready.levels.is_empty());
    }
}
