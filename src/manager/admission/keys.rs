//! Mutual exclusion that jobs bring with them: no more than so many of one key run at once. Pure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::nodes::Class;
use job::{Job, JobId};

/// What a key begins with that stands for a batch. No client can choose such a key.
const BATCH: char = '\0';

/// A key that a job runs under.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The key; each is a world of its own.
    pub key: Arc<str>,
    /// How many jobs of it may run while this one does.
    pub limit: u32,
}

impl Claim {
    /// What a job runs under: its own key, or its batch if that lets only some run.
    #[must_use]
    pub(crate) fn of(job: &Job) -> Option<Self> {
        let own = job.spec.concurrency.as_ref();
        let own = own.map(|it| (it.key.as_str().into(), it.limit));
        let batch = job.batch.as_ref();
        let batch =
            batch.and_then(|it| Some((format!("{BATCH}{}", it.id).into(), it.max_running?)));
        let (key, limit) = batch.or(own)?;
        Some(Self { key, limit })
    }

    /// Is it the limit of a batch?
    #[must_use]
    pub fn is_of_batch(&self) -> bool {
        self.key.starts_with(BATCH)
    }

    fn allows(&self, running: usize) -> bool {
        running < usize::try_from(self.limit).unwrap_or(usize::MAX)
    }
}

/// Where jobs go that differ only by priority and age: the queue, the group in it, the limit that they bring, and the nodes
/// that could run them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lane {
    pub(super) queue: Arc<str>,
    pub(super) group: Arc<str>,
    pub(super) limit: u32,
    pub(super) class: Class,
}

type Place = (Reverse<i32>, JobId);

#[derive(Debug, Default)]
pub(super) struct Keys(HashMap<Arc<str>, Key>);

#[derive(Debug, Default)]
struct Key {
    running: BTreeSet<JobId>,
    /// All that wait and have the key, for whatever they wait.
    waiting: BTreeSet<JobId>,
    /// Those that are being made durable.
    promised: BTreeSet<JobId>,
    /// Those that were found to wait for the key.
    parked: BTreeMap<Lane, BTreeSet<Place>>,
    /// The queues whose next job has the key.
    fronts: BTreeSet<Arc<str>>,
}

impl Keys {
    fn change<R>(&mut self, key: &Arc<str>, change: impl FnOnce(&mut Key) -> R) -> R {
        let found = self.0.entry(key.clone()).or_default();
        let result = change(found);
        let is_idle = found.running.is_empty() && found.waiting.is_empty();
        if is_idle && found.promised.is_empty() && found.fronts.is_empty() {
            self.0.remove(key);
        }
        result
    }

    pub(super) fn promise(&mut self, key: &Arc<str>, job: JobId) {
        self.change(key, |it| it.promised.insert(job));
    }

    pub(super) fn take_back(&mut self, key: &Arc<str>, job: JobId) {
        self.change(key, |it| it.promised.remove(&job));
    }

    pub(super) fn wait(&mut self, key: &Arc<str>, job: JobId) {
        self.change(key, |it| it.waiting.insert(job));
    }

    pub(super) fn withdraw(&mut self, key: &Arc<str>, job: JobId) {
        self.change(key, |it| it.waiting.remove(&job));
    }

    pub(super) fn start(&mut self, key: &Arc<str>, job: JobId) {
        self.change(key, |it| it.running.insert(job));
    }

    pub(super) fn end(&mut self, key: &Arc<str>, job: JobId) {
        self.change(key, |it| it.running.remove(&job));
    }

    /// May a job with this claim run now?
    pub(super) fn is_free(&self, claim: &Claim) -> bool {
        let running = self.0.get(&claim.key).map_or(0, |it| it.running.len());
        claim.allows(running)
    }

    /// Who has the key, those that run first, each oldest first.
    pub(super) fn holders(&self, key: &Arc<str>) -> (Vec<JobId>, Vec<JobId>) {
        let of = |jobs: &BTreeSet<JobId>| jobs.iter().copied().collect();
        let found = self.0.get(key);
        found.map_or_else(Default::default, |it| (of(&it.running), of(&it.waiting)))
    }

    /// The first of those that run.
    pub(super) fn first_running(&self, key: &Arc<str>) -> Option<JobId> {
        self.0.get(key)?.running.first().copied()
    }

    /// Who stands in the way of one more that will not wait, if anybody.
    pub(super) fn conflict(&self, claim: &Claim) -> Option<JobId> {
        let found = self.0.get(&claim.key)?;
        let present = found.running.len() + found.waiting.len() + found.promised.len();
        let all = [&found.running, &found.waiting, &found.promised];
        let first = all.into_iter().find_map(|it| it.first().copied())?;
        (!claim.allows(present)).then_some(first)
    }

    pub(super) fn fronts(&self, key: &Arc<str>) -> Vec<Arc<str>> {
        let found = self.0.get(key);
        found.map_or_else(Vec::new, |it| it.fronts.iter().cloned().collect())
    }

    pub(super) fn step_up(&mut self, key: &Arc<str>, queue: &Arc<str>) {
        self.change(key, |it| it.fronts.insert(queue.clone()));
    }

    pub(super) fn step_back(&mut self, key: &Arc<str>, queue: &Arc<str>) {
        self.change(key, |it| it.fronts.remove(queue));
    }

    pub(super) fn park(&mut self, key: &Arc<str>, lane: Lane, priority: i32, job: JobId) {
        let place = (Reverse(priority), job);
        self.change(key, |it| it.parked.entry(lane).or_default().insert(place));
    }

    pub(super) fn unpark(&mut self, key: &Arc<str>, lane: &Lane, priority: i32, job: JobId) {
        self.change(key, |it| {
            if let Some(jobs) = it.parked.get_mut(lane) {
                jobs.remove(&(Reverse(priority), job));
                if jobs.is_empty() {
                    it.parked.remove(lane);
                }
            }
        });
    }

    /// Those that need not wait for the key any more, as many of each lane as could start at once. They hold nothing
    /// of it, so those of several lanes may be more than can start.
    pub(super) fn promote(&mut self, key: &Arc<str>) -> Vec<JobId> {
        let Some(found) = self.0.get_mut(key) else {
            return Vec::new();
        };
        let running = found.running.len();
        let mut promoted = Vec::new();
        found.parked.retain(|lane, jobs| {
            let limit = usize::try_from(lane.limit).unwrap_or(usize::MAX);
            for _ in running..limit {
                match jobs.pop_first() {
                    Some((_, job)) => promoted.push(job),
                    None => break,
                }
            }
            !jobs.is_empty()
        });
        promoted
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
