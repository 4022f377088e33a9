//! PURE: which node gets the next job, and how many jobs all of them run together.

use std::collections::{BTreeMap, HashMap, VecDeque};

use job::{JobId, NodeName};

/// What the account knows of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slots {
    /// The most that it runs, by weight.
    pub(super) most: u32,
    /// It can be given jobs now.
    pub(super) is_open: bool,
    /// It is this service itself.
    pub(super) is_here: bool,
}

/// Which jobs are where, and which wait for a node.
#[derive(Debug, Default)]
pub(super) struct Account {
    nodes: BTreeMap<NodeName, Slots>,
    used: BTreeMap<NodeName, u64>,
    held: HashMap<JobId, (NodeName, u32)>,
    /// Those that have a slot of the service and fit on no node, in their order. Nobody passes the first, so that lighter
    /// ones do not keep it from its room for ever.
    line: VecDeque<JobId>,
}

impl Account {
    /// Sets what is known of a node; `None` forgets it.
    pub(super) fn set(&mut self, name: &NodeName, slots: Option<Slots>) {
        match slots {
            Some(slots) => drop(self.nodes.insert(name.clone(), slots)),
            None => drop(self.nodes.remove(name)),
        }
    }

    /// Gives a job a place: on the node that has the greatest free share, or on this one.
    pub(super) fn claim(
        &mut self,
        job: JobId,
        weight: u32,
        must_be_here: bool,
    ) -> Option<(NodeName, bool)> {
        let free =
            |name: &NodeName, slots: &Slots| u64::from(slots.most).saturating_sub(self.used(name));
        let is_first = must_be_here || self.line.front().is_none_or(|first| *first == job);
        let fitting = self.nodes.iter().filter(|(name, slots)| {
            slots.is_open
                && (slots.is_here || !must_be_here)
                && free(name, slots) >= u64::from(weight)
        });
        // Of equal shares the first name; a share is compared without a division.
        let best = fitting.reduce(|best, other| {
            let left = u128::from(free(best.0, best.1)) * u128::from(other.1.most);
            let right = u128::from(free(other.0, other.1)) * u128::from(best.1.most);
            if right > left { other } else { best }
        });
        let Some((name, slots)) = best.filter(|_| is_first) else {
            if !must_be_here && !self.line.contains(&job) {
                self.line.push_back(job);
            }
            return None;
        };
        let (name, is_here) = (name.clone(), slots.is_here);
        self.line.retain(|it| *it != job);
        self.hold(job, &name, weight);
        Some((name, is_here))
    }

    /// Notes a job that has its place already.
    pub(super) fn hold(&mut self, job: JobId, name: &NodeName, weight: u32) {
        self.release(job);
        self.held.insert(job, (name.clone(), weight));
        *self.used.entry(name.clone()).or_default() += u64::from(weight);
    }

    /// Takes its place back, or its place in the line.
    pub(super) fn release(&mut self, job: JobId) {
        self.line.retain(|it| *it != job);
        if let Some((name, weight)) = self.held.remove(&job)
            && let Some(used) = self.used.get_mut(&name)
        {
            *used = used.saturating_sub(u64::from(weight));
            if *used == 0 {
                self.used.remove(&name);
            }
        }
    }

    /// The weight of the jobs that a node has.
    pub(super) fn used(&self, name: &NodeName) -> u64 {
        self.used.get(name).copied().unwrap_or_default()
    }

    /// How many jobs a node has.
    pub(super) fn count(&self, name: &NodeName) -> usize {
        self.held.values().filter(|(node, _)| node == name).count()
    }

    /// The weight that may run: what nodes can be given, and what the others have.
    pub(super) fn most(&self) -> u32 {
        let open = self.nodes.iter().filter(|(_, slots)| slots.is_open);
        let (mut most, mut open_used) = (0_u64, 0_u64);
        for (name, slots) in open {
            let used = self.used(name);
            most += u64::from(slots.most).max(used);
            open_used += used;
        }
        let all_used: u64 = self.used.values().sum();
        u32::try_from(most + (all_used - open_used)).unwrap_or(u32::MAX)
    }

    /// The heaviest job that some node could run, if it had nothing else.
    pub(super) fn heaviest(&self) -> u32 {
        let most = self.nodes.values().map(|slots| slots.most);
        most.max().unwrap_or(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> NodeName {
        text.parse().unwrap()
    }

    fn id(number: u8) -> JobId {
        JobId::from_bytes([number; 16])
    }

    fn shut(account: &mut Account, name: &NodeName, most: u32) {
        let slots = slots(most).map(|slots| Slots {
            is_open: false,
            ..slots
        });
        account.set(name, slots);
    }

    fn slots(most: u32) -> Option<Slots> {
        Some(Slots {
            most,
            is_open: true,
            is_here: false,
        })
    }

    fn claimed(account: &mut Account, job: u8, weight: u32) -> Option<String> {
        let claimed = account.claim(id(job), weight, false);
        claimed.map(|(node, _)| node.to_string())
    }

    #[test]
    fn jobs_spread_by_free_share_and_none_goes_to_a_node_that_is_shut() {
        let mut account = Account::default();
        account.set(&name("a"), slots(2));
        account.set(&name("b"), slots(4));
        account.set(&name("c"), slots(100));
        shut(&mut account, &name("c"), 100);
        let places: Vec<_> = (1..=7).map(|it| claimed(&mut account, it, 1)).collect();
        let places: Vec<&str> = places
            .iter()
            .map(|it| it.as_deref().unwrap_or("-"))
            .collect();
        assert_eq!(places, ["a", "b", "b", "a", "b", "b", "-"]);
        assert_eq!((account.most(), account.heaviest()), (6, 100));
        account.release(id(1));
        assert_eq!(claimed(&mut account, 7, 1).as_deref(), Some("a"));
    }

    #[test]
    fn a_heavy_job_is_not_passed_by_lighter_ones() {
        let mut account = Account::default();
        account.set(&name("a"), slots(2));
        account.set(&name("b"), slots(2));
        for job in [1, 2] {
            claimed(&mut account, job, 1).unwrap();
        }
        assert_eq!(claimed(&mut account, 3, 2), None);
        assert_eq!(claimed(&mut account, 4, 1), None);
        account.release(id(1));
        assert_eq!(claimed(&mut account, 4, 1), None);
        assert_eq!(claimed(&mut account, 3, 2).as_deref(), Some("a"));
        assert_eq!(claimed(&mut account, 4, 1).as_deref(), Some("b"));
    }

    #[test]
    fn what_a_node_that_is_gone_has_takes_no_room_of_the_others() {
        let mut account = Account::default();
        account.set(&name("a"), slots(3));
        account.set(&name("b"), slots(3));
        claimed(&mut account, 1, 1).unwrap();
        assert_eq!(account.most(), 6);
        shut(&mut account, &name("a"), 3);
        assert_eq!(account.most(), 4);
        account.set(&name("a"), None);
        assert_eq!(account.most(), 4);
        account.release(id(1));
        assert_eq!(account.most(), 3);
    }

    proptest! {
        #[test]
        fn no_node_has_more_than_its_slots_whatever_happens(steps in prop::collection::vec((0..5_u8, 0..12_u8, 1..4_u32), 1..80)) {
            let mut account = Account::default();
            let names = [name("a"), name("b"), name("c")];
            for (step, job, weight) in steps {
                let node = &names[usize::from(job) % names.len()];
                match step {
                    0 => account.set(node, slots(4)),
                    1 => shut(&mut account, node, 4),
                    2 => account.release(id(job)),
                    _ if account.held.contains_key(&id(job)) => {}
                    _ => drop(account.claim(id(job), weight, false)),
                }
                for node in &names {
                    prop_assert!(account.used(node) <= 4);
                }
                let held: u64 = account.held.values().map(|(_, weight)| u64::from(*weight)).sum();
                prop_assert!(u64::from(account.most()) >= held);
            }
        }
    }
}
