//! Many jobs in one request: what they expand to, and who waits for whom. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::life::Stop;
use crate::time::Timestamp;
use crate::webhook::Webhook;
use crate::{JobId, State};

/// The most jobs of a batch.
pub const JOBS_MAX: usize = 10_000;

/// The most dependencies of one job.
pub const DEPENDENCIES_MAX: usize = 100;

/// The most dependencies in a batch, once for each job that has them.
pub const EDGES_MAX: usize = 100_000;

/// How the other has to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum On {
    /// Well.
    #[default]
    Succeeded,
    /// Badly: failed, timed out, or lost.
    Failed,
    /// In any way.
    Finished,
}

/// How something has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// Well.
    Succeeded,
    /// Badly by itself.
    Failed,
    /// Since somebody asked for it.
    Canceled,
}

impl On {
    /// Does this end do?
    #[must_use]
    pub fn holds(self, end: End) -> bool {
        match self {
            Self::Succeeded => end == End::Succeeded,
            Self::Failed => end == End::Failed,
            Self::Finished => true,
        }
    }
}

/// The place of a job in a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The batch.
    pub id: JobId,
    /// The key of its entry in the request.
    pub key: String,
    /// Which entry that is, from 0.
    pub group: u32,
    /// Which job of the entry it is, from 0.
    pub index: u32,
    /// How many jobs the entry stands for.
    pub count: u32,
    /// How many jobs of the batch may run at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_running: Option<u32>,
}

/// What happens to the others when a job of a batch has failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// Nothing.
    #[default]
    Continue,
    /// Those that wait are canceled.
    CancelQueued,
    /// All are stopped.
    StopAll,
}

/// How many jobs have ended in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ends {
    /// Well.
    pub succeeded: u32,
    /// Badly.
    pub failed: u32,
    /// Since somebody asked for it, or what they depend on failed.
    pub canceled: u32,
    /// By their timeouts.
    pub timed_out: u32,
    /// Unseen.
    pub lost: u32,
}

impl Ends {
    /// How many have ended.
    #[must_use]
    pub fn all(self) -> u32 {
        self.succeeded + self.failed + self.canceled + self.timed_out + self.lost
    }

    /// How many have ended badly by themselves.
    #[must_use]
    pub fn bad(self) -> u32 {
        self.failed + self.timed_out + self.lost
    }

    /// The state of a batch of so many jobs.
    #[must_use]
    pub fn state(self, total: u32) -> State {
        if self.all() < total {
            State::Running
        } else if self.bad() > 0 {
            State::Failed
        } else if self.canceled > 0 {
            State::Canceled
        } else {
            State::Succeeded
        }
    }
}

/// One entry of a batch that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its key.
    pub key: String,
    /// The first of its jobs.
    pub first: JobId,
    /// How many jobs it stands for.
    pub count: u32,
}

/// Jobs that were submitted together.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Its id.
    pub id: JobId,
    /// A name for people.
    pub name: Option<String>,
    /// Labels of the batch, not of its jobs.
    pub labels: BTreeMap<String, String>,
    /// Who created it.
    pub created_by: String,
    /// The batch that this one repeats.
    pub rerun_of: Option<JobId>,
    /// How many of its jobs may run at once.
    pub max_running: Option<u32>,
    /// What happens to the others when a job has failed.
    pub on_failure: OnFailure,
    /// Who is told of its end.
    pub webhooks: Vec<Webhook>,
    /// How long the record stays after the end.
    pub ttl_after_finished: Duration,
    /// A client has asked for its end, so that none of its jobs is to start any more.
    pub stop: Option<Stop>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// `Running`, or how it has ended.
    pub state: State,
    /// When the last job ended.
    pub finished_at: Option<Timestamp>,
    /// When its record will be removed.
    pub expires_at: Option<Timestamp>,
    /// How many jobs it has.
    pub total: u32,
    /// How many of them have ended.
    pub ends: Ends,
}

impl Batch {
    /// Grows with each end.
    #[must_use]
    pub fn version(&self) -> u64 {
        u64::from(self.ends.all()) + 1
    }
}

/// Who is waited for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// The jobs of this key in the same request.
    Key(String),
    /// A job that is there already.
    Job(JobId),
    /// A batch that is there already.
    Batch(JobId),
}

/// One line of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name within the request.
    pub key: String,
    /// How many jobs it stands for.
    pub count: usize,
    /// What they wait for; all of it has to hold.
    pub depends_on: Vec<(Target, On)>,
}

/// What is wrong with a request; numbers are places in it, from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// More than [`JOBS_MAX`] jobs, or none.
    Jobs(usize),
    /// More than [`EDGES_MAX`] dependencies.
    Edges(usize),
    /// More than [`DEPENDENCIES_MAX`] dependencies of this entry.
    Dependencies(usize),
    /// An entry stands for no job.
    Nothing(usize),
    /// This entry has the key of an earlier one.
    Doubled(usize),
    /// This dependency of this entry names no key of the request.
    Unknown(usize, usize),
    /// The keys wait for each other; the first is the last.
    Cycle(Vec<String>),
}

/// Checks who waits for whom; says how many jobs there are.
///
/// # Errors
/// The first fault in the order of [`Fault`].
pub fn check(entries: &[Entry]) -> Result<usize, Fault> {
    let jobs: usize = entries.iter().map(|it| it.count).sum();
    if jobs > JOBS_MAX || entries.is_empty() {
        return Err(Fault::Jobs(jobs));
    }
    let edges: usize = entries
        .iter()
        .map(|it| it.count * it.depends_on.len())
        .sum();
    if edges > EDGES_MAX {
        return Err(Fault::Edges(edges));
    }
    let mut places: HashMap<&str, usize> = HashMap::new();
    for (place, entry) in entries.iter().enumerate() {
        if entry.depends_on.len() > DEPENDENCIES_MAX {
            return Err(Fault::Dependencies(place));
        }
        if entry.count == 0 {
            return Err(Fault::Nothing(place));
        }
        if places.insert(&entry.key, place).is_some() {
            return Err(Fault::Doubled(place));
        }
    }
    let mut ahead: Vec<Vec<usize>> = Vec::with_capacity(entries.len());
    for (place, entry) in entries.iter().enumerate() {
        let mut targets = Vec::new();
        for (number, (target, _)) in entry.depends_on.iter().enumerate() {
            if let Target::Key(key) = target {
                let found = places.get(key.as_str()).copied();
                targets.push(found.ok_or(Fault::Unknown(place, number))?);
            }
        }
        ahead.push(targets);
    }
    match cycle(&ahead) {
        Some(path) => {
            let keys = path.into_iter().map(|it| entries[it].key.clone());
            Err(Fault::Cycle(keys.collect()))
        }
        None => Ok(jobs),
    }
}

/// A way from an entry over its dependencies back to itself.
fn cycle(ahead: &[Vec<usize>]) -> Option<Vec<usize>> {
    let mut done: HashSet<usize> = HashSet::new();
    for start in 0..ahead.len() {
        if done.contains(&start) {
            continue;
        }
        // The way to where the search is, and how far it has looked at each of its stations. No recursion: a chain
        // may be as long as a batch.
        let mut way = vec![(start, 0)];
        let mut on_way: HashSet<usize> = [start].into();
        while let Some((place, looked)) = way.last_mut() {
            match ahead[*place].get(*looked) {
                Some(next) => {
                    *looked += 1;
                    if on_way.contains(next) {
                        let from = way.iter().position(|(it, _)| it == next)?;
                        let path = way[from..].iter().map(|(it, _)| *it);
                        return Some(path.chain([*next]).collect());
                    }
                    if !done.contains(next) {
                        on_way.insert(*next);
                        way.push((*next, 0));
                    }
                }
                None => {
                    on_way.remove(place);
                    done.insert(*place);
                    way.pop();
                }
            }
        }
    }
    None
}

/// What stands in the order of the request for each job: its entry and its number within it.
pub fn expand(entries: &[Entry]) -> impl Iterator<Item = (usize, usize)> {
    let counts = entries.iter().map(|it| it.count).enumerate();
    counts.flat_map(|(place, count)| (0..count).map(move |index| (place, index)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(key: &str, count: usize, after: &[&str]) -> Entry {
        let depends_on = after
            .iter()
            .map(|it| (Target::Key((*it).into()), On::Succeeded));
        Entry {
            key: key.into(),
            count,
            depends_on: depends_on.collect(),
        }
    }

    #[test]
    fn a_request_expands_in_its_order() {
        let entries = [
            entry("a", 1, &[]),
            entry("b", 3, &["a"]),
            entry("c", 1, &["b"]),
        ];
        assert_eq!(check(&entries), Ok(5));
        let expanded: Vec<_> = expand(&entries).collect();
        assert_eq!(expanded, [(0, 0), (1, 0), (1, 1), (1, 2), (2, 0)]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(check(&[]), Err(Fault::Jobs(0)));
        assert_eq!(check(&[entry("a", 10_001, &[])]), Err(Fault::Jobs(10_001)));
        assert_eq!(check(&[entry("a", 0, &[])]), Err(Fault::Nothing(0)));
        let doubled = [entry("a", 1, &[]), entry("a", 1, &[])];
        assert_eq!(check(&doubled), Err(Fault::Doubled(1)));
        let unknown = [entry("a", 1, &[]), entry("b", 1, &["a", "x"])];
        assert_eq!(check(&unknown), Err(Fault::Unknown(1, 1)));
        let many = vec!["a"; 101];
        let crowded = [entry("a", 1, &[]), entry("b", 1, &many)];
        assert_eq!(check(&crowded), Err(Fault::Dependencies(1)));
        let wide = [entry("a", 1, &[]), entry("b", 9_999, &["a"; 11])];
        assert_eq!(check(&wide), Err(Fault::Edges(109_989)));
    }

    #[test]
    fn a_cycle_is_shown_as_a_way_back() {
        let path = |keys: &[&str]| Err(Fault::Cycle(keys.iter().map(|it| (*it).into()).collect()));
        assert_eq!(check(&[entry("a", 2, &["a"])]), path(&["a", "a"]));
        let entries = [
            entry("x", 1, &["a"]),
            entry("a", 1, &["d", "b"]),
            entry("b", 1, &["d", "c"]),
            entry("c", 1, &["a"]),
            entry("d", 1, &[]),
        ];
        assert_eq!(check(&entries), path(&["a", "b", "c", "a"]));
    }

    #[test]
    fn a_chain_as_long_as_a_batch_is_no_cycle() {
        let keys: Vec<String> = (0..JOBS_MAX).map(|it| it.to_string()).collect();
        let chained = |place: usize| match place.checked_sub(1) {
            Some(before) => entry(&keys[place], 1, &[keys[before].as_str()]),
            None => entry(&keys[place], 1, &[]),
        };
        let mut entries: Vec<Entry> = (0..JOBS_MAX).map(chained).collect();
        assert_eq!(check(&entries), Ok(JOBS_MAX));
        entries[0] = entry("0", 1, &[keys[JOBS_MAX - 1].as_str()]);
        assert!(matches!(check(&entries), Err(Fault::Cycle(way)) if way.len() == JOBS_MAX + 1));
    }

    proptest! {
        #[test]
        fn a_cycle_is_found_if_and_only_if_there_is_no_order(
            edges in prop::collection::vec((0_usize..8, 0_usize..8), 0..14),
        ) {
            let mut entries: Vec<Entry> = (0..8).map(|it| entry(&it.to_string(), 1, &[])).collect();
            for (from, to) in &edges {
                entries[*from].depends_on.push((Target::Key(to.to_string()), On::Finished));
            }
            // Takes away what waits for nobody that is left; a cycle is what stays.
            let mut left: HashSet<usize> = (0..8).collect();
            let waits = |left: &HashSet<usize>, it: usize| edges.iter().any(|(from, to)| *from == it && left.contains(to));
            while let Some(free) = left.iter().copied().find(|it| !waits(&left, *it)) {
                left.remove(&free);
            }
            match check(&entries) {
                Ok(_) => prop_assert!(left.is_empty()),
                Err(Fault::Cycle(way)) => {
                    prop_assert_eq!(way.first(), way.last());
                    for pair in way.windows(2) {
                        let edge = (pair[0].parse().unwrap(), pair[1].parse().unwrap());
                        prop_assert!(edges.contains(&edge));
                    }
                }
                Err(fault) => prop_assert!(false, "{fault:?}"),
            }
        }
    }
}
