//! Who waits for whose end: a pure account of jobs that depend on others, and of the batches they belong to.
//!
//! A job is free once everything it depends on has ended as it needs. As soon as one of these cannot end that way any
//! more, the job is doomed, and with it all that need a good or a bad end of it, down the whole chain at once. Who waits
//! for any end of it waits until it has ended. Where jobs are kept, and who starts or ends them, is not known here.

use std::collections::{BTreeSet, HashMap, HashSet};

use job::batch::{End, On, OnFailure};
use job::dependency::{Awaited, Dependency, Ended, named};
use job::{JobId, State};

/// Whose end is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    Job(JobId),
    /// All jobs of one entry of a batch.
    Group(JobId, u32),
    Batch(JobId),
}

/// A job that has not ended, as far as it matters to others.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) job: JobId,
    /// For people.
    pub(crate) name: Option<String>,
    /// The batch and the entry that it belongs to.
    pub(crate) group: Option<(JobId, u32)>,
}

#[derive(Debug)]
struct Waiter {
    name: Option<String>,
    group: Option<(JobId, u32)>,
    /// Everything that it depends on, ended or not.
    targets: Vec<Target>,
    unmet: u32,
    doom: Option<String>,
}

/// Those that wait for one target, by the end that they need.
#[derive(Debug, Default)]
struct Waiters {
    succeeded: BTreeSet<JobId>,
    failed: BTreeSet<JobId>,
    finished: BTreeSet<JobId>,
}

impl Waiters {
    fn of(&mut self, on: On) -> &mut BTreeSet<JobId> {
        match on {
            On::Succeeded => &mut self.succeeded,
            On::Failed => &mut self.failed,
            On::Finished => &mut self.finished,
        }
    }

    /// Those that this end does not do for.
    fn disappointed(&self, end: End) -> Vec<JobId> {
        let all = [
            (On::Succeeded, &self.succeeded),
            (On::Failed, &self.failed),
            (On::Finished, &self.finished),
        ];
        let those = all.into_iter().filter(|(on, _)| !on.holds(end));
        those.flat_map(|(_, jobs)| jobs.iter().copied()).collect()
    }
}

/// How many jobs have ended in each way, and how many have not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) left: u32,
    pub(crate) succeeded: u32,
    pub(crate) failed: u32,
    pub(crate) canceled: u32,
}

impl Tally {
    fn end_one(&mut self, end: End) {
        self.left = self.left.saturating_sub(1);
        match end {
            End::Succeeded => self.succeeded += 1,
            End::Failed => self.failed += 1,
            End::Canceled => self.canceled += 1,
        }
    }

    /// How the whole has ended: well if all have, badly if one has.
    fn state(self) -> State {
        if self.failed > 0 {
            State::Failed
        } else if self.canceled > 0 {
            State::Canceled
        } else {
            State::Succeeded
        }
    }

    /// The ends that there are.
    fn ends(self) -> impl Iterator<Item = (End, State)> {
        let all = [
            (End::Succeeded, State::Succeeded, self.succeeded),
            (End::Failed, State::Failed, self.failed),
            (End::Canceled, State::Canceled, self.canceled),
        ];
        let some = all.into_iter().filter(|(.., count)| *count > 0);
        some.map(|(end, state, _)| (end, state))
    }
}

#[derive(Debug)]
struct Batch {
    whole: Tally,
    groups: Vec<Tally>,
    numbers: HashMap<String, u32>,
    on_failure: OnFailure,
}

/// What follows from something.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Effects {
    /// Those that wait for fewer ends now, and for how many.
    pub(crate) nearer: Vec<(JobId, u32)>,
    /// Those that can never start, and why.
    pub(crate) doomed: Vec<(JobId, String)>,
    /// The batch that has failed with this, what it says about its other jobs, and why.
    pub(crate) failing: Option<(JobId, OnFailure, String)>,
}

#[derive(Debug, Default)]
pub(crate) struct Account {
    waiters: HashMap<JobId, Waiter>,
    targets: HashMap<Target, Waiters>,
    batches: HashMap<JobId, Batch>,
    /// How many jobs that have not ended name this target.
    wanted: HashMap<Target, u32>,
    /// What is being removed for good.
    leaving: HashSet<Target>,
}

impl Account {
    /// A batch with these entries, in their order.
    pub(crate) fn add_batch(
        &mut self,
        id: JobId,
        on_failure: OnFailure,
        entries: Vec<(String, Tally)>,
    ) {
        let mut batch = Batch {
            whole: Tally::default(),
            groups: Vec::with_capacity(entries.len()),
            numbers: HashMap::new(),
            on_failure,
        };
        for (number, (key, group)) in (0_u32..).zip(entries) {
            batch.whole.left += group.left;
            batch.whole.succeeded += group.succeeded;
            batch.whole.failed += group.failed;
            batch.whole.canceled += group.canceled;
            batch.groups.push(group);
            batch.numbers.insert(key, number);
        }
        self.batches.insert(id, batch);
    }

    /// What a job needs, in the order of its dependencies; each once.
    pub(crate) fn needs(&self, dependencies: &[Dependency]) -> Vec<(Target, On)> {
        let mut needs = Vec::with_capacity(dependencies.len());
        for Dependency { awaited, on } in dependencies {
            let target = match awaited {
                Awaited::Job { job } => Target::Job(*job),
                Awaited::Batch { batch } => Target::Batch(*batch),
                Awaited::Group { batch, key } => {
                    let found = self.batches.get(batch);
                    let number = found.and_then(|it| it.numbers.get(key)).copied();
                    Target::Group(*batch, number.unwrap_or(u32::MAX))
                }
            };
            if !needs.contains(&(target, *on)) {
                needs.push((target, *on));
            }
        }
        needs
    }

    /// All that is waited for.
    pub(crate) fn targets(&self) -> Vec<Target> {
        self.targets.keys().copied().collect()
    }

    /// All that depend on something.
    pub(crate) fn waiters(&self) -> Vec<JobId> {
        self.waiters.keys().copied().collect()
    }

    /// Is the batch known, with an entry of this number?
    pub(crate) fn has_group(&self, id: JobId, number: u32) -> bool {
        let place = usize::try_from(number).unwrap_or(usize::MAX);
        let found = self.batches.get(&id);
        found.is_some_and(|it| place < it.groups.len())
    }

    /// The batches of which jobs have failed and that say something about the others.
    pub(crate) fn failing(&self) -> Vec<(JobId, OnFailure)> {
        let all = self.batches.iter();
        let failing = all.filter(|(_, it)| it.whole.failed > 0);
        let failing = failing.filter(|(_, it)| it.on_failure != OnFailure::Continue);
        failing.map(|(id, it)| (*id, it.on_failure)).collect()
    }

    /// Forgets a batch that was not accepted after all.
    pub(crate) fn remove_batch(&mut self, id: JobId) {
        self.batches.remove(&id);
    }

    /// Notes what a job depends on. `Err`: the first that is being removed.
    pub(crate) fn add(&mut self, member: Member, needs: &[(Target, On)]) -> Result<(), usize> {
        let gone = |(target, _): &(Target, On)| self.leaving.contains(target);
        if let Some(place) = needs.iter().position(gone) {
            return Err(place);
        }
        if needs.is_empty() {
            return Ok(());
        }
        for (target, on) in needs {
            *self.wanted.entry(*target).or_default() += 1;
            let waiters = self.targets.entry(*target).or_default();
            waiters.of(*on).insert(member.job);
        }
        let waiter = Waiter {
            name: member.name,
            group: member.group,
            targets: needs.iter().map(|(target, _)| *target).collect(),
            unmet: u32::try_from(needs.len()).unwrap_or(u32::MAX),
            doom: None,
        };
        self.waiters.insert(member.job, waiter);
        Ok(())
    }

    /// Forgets a job that was not accepted after all, or has ended.
    pub(crate) fn remove(&mut self, job: JobId) {
        let Some(waiter) = self.waiters.remove(&job) else {
            return;
        };
        for target in waiter.targets {
            if let Some(count) = self.wanted.get_mut(&target) {
                *count -= 1;
                if *count == 0 {
                    self.wanted.remove(&target);
                    self.targets.remove(&target);
                    continue;
                }
            }
            if waiter.unmet > 0
                && let Some(waiters) = self.targets.get_mut(&target)
            {
                for on in [On::Succeeded, On::Failed, On::Finished] {
                    waiters.of(on).remove(&job);
                }
            }
        }
    }

    /// How many ends a job waits for, and why it can never start, if it cannot.
    pub(crate) fn standing(&self, job: JobId) -> (u32, Option<&str>) {
        let found = self.waiters.get(&job);
        found.map_or((0, None), |it| (it.unmet, it.doom.as_deref()))
    }

    /// Does a job that has not ended name this?
    pub(crate) fn is_wanted(&self, target: Target) -> bool {
        self.wanted.contains_key(&target)
    }

    /// How many targets jobs name that have not ended.
    pub(crate) fn wanted(&self) -> usize {
        self.wanted.len()
    }

    /// Begins to remove something for good; `false` if somebody wants it.
    pub(crate) fn leave(&mut self, target: Target) -> bool {
        !self.is_wanted(target) && {
            self.leaving.insert(target);
            true
        }
    }

    /// Is it being removed?
    pub(crate) fn is_leaving(&self, target: Target) -> bool {
        self.leaving.contains(&target)
    }

    /// It is gone.
    pub(crate) fn gone(&mut self, target: Target) {
        self.leaving.remove(&target);
    }

    /// A job has ended for good.
    pub(crate) fn ended(&mut self, member: &Member, state: State) -> Effects {
        let mut effects = Effects::default();
        let Some(end) = End::of(state) else {
            return effects;
        };
        self.remove(member.job);
        let who = named(member.job, member.name.as_deref());
        let words = Ended { who, state };
        self.settle(Target::Job(member.job), &words, &mut effects);
        let Some((id, number)) = member.group else {
            return effects;
        };
        let place = usize::try_from(number).unwrap_or(usize::MAX);
        let Some(batch) = self.batches.get_mut(&id) else {
            return effects;
        };
        let Some(group) = batch.groups.get_mut(place) else {
            return effects;
        };
        group.end_one(end);
        batch.whole.end_one(end);
        let (group_left, whole) = (group.left, batch.whole);
        if end == End::Failed && whole.failed == 1 && batch.on_failure != OnFailure::Continue {
            effects.failing = Some((id, batch.on_failure, words.to_string()));
        }
        let target = Target::Group(id, number);
        self.disappoint(target, end, &words.to_string(), &mut effects);
        if group_left == 0 {
            self.meet(target, &mut effects);
        }
        if whole.left == 0 {
            self.batches.remove(&id);
            let who = format!("batch {id}");
            let state = whole.state();
            self.settle(Target::Batch(id), &Ended { who, state }, &mut effects);
        }
        effects
    }

    /// Something that is not in this account has ended.
    pub(crate) fn settle(&mut self, target: Target, ended: &Ended, effects: &mut Effects) {
        if let Some(end) = End::of(ended.state) {
            self.disappoint(target, end, &ended.to_string(), effects);
            self.meet(target, effects);
        }
    }

    /// The same for an entry of a batch of which some have ended before.
    pub(crate) fn settle_group(&mut self, id: JobId, number: u32, effects: &mut Effects) {
        let place = usize::try_from(number).unwrap_or(usize::MAX);
        let found = self.batches.get(&id).and_then(|it| it.groups.get(place));
        let Some(tally) = found.copied() else {
            return;
        };
        let target = Target::Group(id, number);
        for (end, state) in tally.ends() {
            let who = "a job that it depends on".to_owned();
            let words = Ended { who, state }.to_string();
            self.disappoint(target, end, &words, effects);
        }
        if tally.left == 0 {
            self.meet(target, effects);
        }
    }

    /// This is not there any more, and nobody knows how it has ended.
    pub(crate) fn lost(&mut self, target: Target, words: &str, effects: &mut Effects) {
        let Some(waiters) = self.targets.get(&target) else {
            return;
        };
        let all = [&waiters.succeeded, &waiters.failed, &waiters.finished];
        let all = all.into_iter().flatten();
        let doomed = all.map(|job| (*job, words.to_owned())).collect();
        self.doom(doomed, effects);
    }

    /// Dooms those that need another end of this, and all that need them.
    fn disappoint(&mut self, target: Target, end: End, words: &str, effects: &mut Effects) {
        let Some(waiters) = self.targets.get(&target) else {
            return;
        };
        let those = waiters.disappointed(end).into_iter();
        let doomed = those.map(|job| (job, words.to_owned())).collect();
        self.doom(doomed, effects);
    }

    /// Notes that these can never start, and all that need them.
    fn doom(&mut self, mut doomed: Vec<(JobId, String)>, effects: &mut Effects) {
        // No recursion: a chain may be as long as a batch.
        while let Some((job, words)) = doomed.pop() {
            let Some(waiter) = self.waiters.get_mut(&job) else {
                continue;
            };
            if waiter.doom.is_some() {
                continue;
            }
            waiter.doom = Some(words.clone());
            effects.doomed.push((job, words));
            let who = named(job, waiter.name.as_deref());
            let state = State::Canceled;
            let words = Ended { who, state }.to_string();
            let group = waiter.group.map(|(id, number)| Target::Group(id, number));
            for target in [Some(Target::Job(job)), group].into_iter().flatten() {
                if let Some(waiters) = self.targets.get(&target) {
                    let those = waiters.disappointed(End::Canceled).into_iter();
                    doomed.extend(those.map(|job| (job, words.clone())));
                }
            }
        }
    }

    /// This has ended: those that wait for it wait for one end less. The doomed never do.
    fn meet(&mut self, target: Target, effects: &mut Effects) {
        let Some(waiters) = self.targets.remove(&target) else {
            return;
        };
        let Waiters {
            succeeded,
            failed,
            finished,
        } = waiters;
        for job in succeeded.into_iter().chain(failed).chain(finished) {
            if let Some(waiter) = self.waiters.get_mut(&job)
                && waiter.doom.is_none()
            {
                waiter.unmet = waiter.unmet.saturating_sub(1);
                effects.nearer.push((job, waiter.unmet));
            }
        }
    }
}

#[cfg(test)]
mod tests;
