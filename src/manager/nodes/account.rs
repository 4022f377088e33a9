//! PURE: which node gets a job, and how many jobs all of them run together.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use job::placement::Placement;
use job::{Cause, Job, JobId, NodeName};

/// Jobs that the same nodes could run, and with the same room. Those of one wait in their order; none of another waits
/// for them, but that they have a node held back that has too little room for them.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Class {
    /// Only the hub itself can run it.
    pub(crate) must_be_here: bool,
    /// It has files, which not every node takes.
    pub(crate) has_files: bool,
    pub(crate) weight: u32,
    pub(crate) placement: Option<Arc<Placement>>,
    /// This node has just refused it: another one gets it, if there is any.
    pub(crate) avoids: Option<Box<NodeName>>,
}

impl Class {
    /// That of a job of a hub.
    pub(crate) fn of(job: &Job) -> Self {
        // What an attempt on the hub has left is there; one that has executed nothing has left nothing.
        let attempts = job.attempts.iter().rev();
        let mut since_loss = attempts.take_while(|it| it.lost_with.is_none());
        let was_here = job.claim.is_none() && since_loss.any(|it| it.cause != Cause::SpawnFailed);
        Self {
            must_be_here: was_here,
            has_files: job.spec.workspace.is_some(),
            weight: job.spec.weight,
            placement: job.spec.placement.clone().map(Arc::new),
            avoids: (job.attempts.last()).and_then(|last| last.refused_by.clone()),
        }
    }

    fn allows(&self, name: &NodeName, slots: &Slots) -> bool {
        let placement = self.placement.as_ref();
        (slots.is_here || !self.must_be_here)
            && (slots.takes_files || !self.has_files)
            && placement.is_none_or(|it| it.allows(name, &slots.labels))
    }
}

/// What the account knows of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slots {
    /// The most that it runs, by weight.
    pub(super) most: u32,
    /// It can be given jobs now.
    pub(super) is_open: bool,
    /// It is this service itself.
    pub(super) is_here: bool,
    /// It takes jobs with files.
    pub(super) takes_files: bool,
    pub(super) labels: Arc<BTreeMap<String, String>>,
}

/// Jobs that were given up for lost and still run, with their weights.
pub(crate) type Left = HashMap<JobId, u32>;

/// Which jobs are where.
#[derive(Debug, Default)]
pub(crate) struct Account {
    nodes: BTreeMap<NodeName, Slots>,
    used: BTreeMap<NodeName, u64>,
    held: HashMap<JobId, (NodeName, u32)>,
    /// On nodes that are connected.
    left: HashMap<NodeName, Left>,
    /// Nodes are filled one after the other, and not evenly.
    pub(super) packs: bool,
}

impl Account {
    /// Sets what is known of a node; `None` forgets it.
    pub(super) fn set(&mut self, name: &NodeName, slots: Option<Slots>) {
        match slots {
            Some(slots) => drop(self.nodes.insert(name.clone(), slots)),
            None => drop(self.nodes.remove(name)),
        }
    }

    #[cfg(test)]
    pub(crate) fn set_for_test(&mut self, name: &str, most: u32, is_open: bool, gpu: bool) {
        let slots = Slots {
            most,
            is_open,
            is_here: false,
            takes_files: true,
            labels: Arc::new([("gpu".to_owned(), gpu.to_string())].into()),
        };
        self.set(&name.parse().expect("it is a name"), Some(slots));
    }

    fn free(&self, name: &NodeName, slots: &Slots) -> u64 {
        u64::from(slots.most).saturating_sub(self.used(name))
    }

    /// The nodes that a job of this class may be given now, were they empty.
    fn open<'a>(&'a self, class: &'a Class) -> impl Iterator<Item = (&'a NodeName, &'a Slots)> {
        let open = self.nodes.iter().filter(|(_, slots)| slots.is_open);
        let open = open.filter(|(name, slots)| class.allows(name, slots));
        let avoided = class.avoids.as_deref();
        let is_other = |(name, slots): (&NodeName, &Slots)| {
            Some(name) != avoided && slots.most >= class.weight
        };
        let has_other = avoided.is_some() && open.clone().any(is_other);
        open.filter(move |(name, _)| !has_other || Some(*name) != avoided)
    }

    /// Gives a job a place on none of those that are held back: where the greatest share is free, or the least.
    pub(crate) fn claim(&mut self, job: JobId, class: &Class, back: &[NodeName]) -> bool {
        let weight = u64::from(class.weight);
        let fitting = self
            .open(class)
            .filter(|(name, slots)| self.free(name, slots) >= weight && !back.contains(name));
        // Of equal shares the first name; a share is compared without a division.
        let best = fitting.reduce(|best, other| {
            let left = u128::from(self.free(best.0, best.1)) * u128::from(other.1.most);
            let right = u128::from(self.free(other.0, other.1)) * u128::from(best.1.most);
            let is_better = match self.packs {
                true => right < left,
                false => right > left,
            };
            if is_better { other } else { best }
        });
        let Some(name) = best.map(|(name, _)| name.clone()) else {
            return false;
        };
        self.hold(job, &name, class.weight);
        true
    }

    /// The node to hold back for a job that has no room: the one that has the most of those that could ever run it. So what
    /// is free there only grows until it is enough, whatever else waits.
    pub(crate) fn hold_back(&self, class: &Class, back: &[NodeName]) -> Option<NodeName> {
        let could = self
            .open(class)
            .filter(|(name, slots)| slots.most >= class.weight && !back.contains(name));
        let best = could.reduce(|best, other| {
            match self.free(other.0, other.1) > self.free(best.0, best.1) {
                true => other,
                false => best,
            }
        });
        best.map(|(name, _)| name.clone())
    }

    /// Why no node could be given a job of this class, however little the nodes had to do; `None` if one could.
    pub(crate) fn why_none(&self, class: &Class) -> Option<String> {
        if self
            .open(class)
            .any(|(_, slots)| slots.most >= class.weight)
        {
            return None;
        }
        let without_files = Class {
            has_files: false,
            ..class.clone()
        };
        Some(match &class.placement {
            _ if class.must_be_here => {
                "the hub, which has what an attempt has left, takes no jobs".to_owned()
            }
            _ if class.has_files && self.open(&without_files).next().is_some() => {
                "no node that it may run on takes jobs with files: upgrade the nodes".to_owned()
            }
            _ if self.open(class).next().is_some() => {
                let weight = class.weight;
                format!("no node that it may run on is large enough for its weight of {weight}")
            }
            Some(wanted) => match wanted.nodes.is_empty() {
                true => format!("no node with {wanted} is connected and takes jobs"),
                false => format!("{wanted} is not connected, or takes no jobs"),
            },
            None => "no node is connected that takes jobs".to_owned(),
        })
    }

    /// Where a job has its place.
    pub(super) fn place_of(&self, job: JobId) -> Option<&NodeName> {
        self.held.get(&job).map(|(name, _)| name)
    }

    /// Notes a job that has its place already.
    pub(super) fn hold(&mut self, job: JobId, name: &NodeName, weight: u32) {
        self.release(job);
        self.held.insert(job, (name.clone(), weight));
        *self.used.entry(name.clone()).or_default() += u64::from(weight);
    }

    /// Takes its place back.
    pub(crate) fn release(&mut self, job: JobId) {
        if let Some((name, weight)) = self.held.remove(&job)
            && let Some(used) = self.used.get_mut(&name)
        {
            *used = used.saturating_sub(u64::from(weight));
            if *used == 0 {
                self.used.remove(&name);
            }
        }
    }

    /// Sets which jobs that were given up for lost a node still has, with their weights.
    pub(super) fn set_left(&mut self, name: &NodeName, jobs: Left) {
        match jobs.is_empty() {
            true => drop(self.left.remove(name)),
            false => drop(self.left.insert(name.clone(), jobs)),
        }
    }

    /// A job that was given up for lost runs on a node; `true` if it took no room there until now.
    pub(super) fn is_left(&mut self, name: &NodeName, job: JobId, weight: u32) -> bool {
        let jobs = self.left.entry(name.clone()).or_default();
        jobs.insert(job, weight).is_none()
    }

    /// Such a job is gone from a node; `true` if it took room there until now.
    pub(super) fn is_left_no_more(&mut self, name: &NodeName, job: JobId) -> bool {
        let jobs = self.left.get_mut(name);
        jobs.is_some_and(|jobs| jobs.remove(&job).is_some())
    }

    fn left_weight(&self, name: &NodeName) -> u64 {
        let jobs = self.left.get(name).into_iter().flatten();
        jobs.map(|(_, weight)| u64::from(*weight)).sum()
    }

    /// The weight of the jobs whose place is on a node.
    pub(super) fn held_weight(&self, name: &NodeName) -> u64 {
        self.used.get(name).copied().unwrap_or_default()
    }

    /// The weight of the jobs that a node has.
    pub(super) fn used(&self, name: &NodeName) -> u64 {
        self.held_weight(name) + self.left_weight(name)
    }

    /// How many jobs a node has.
    pub(super) fn count(&self, name: &NodeName) -> usize {
        let held = self.held.values().filter(|(node, _)| node == name);
        held.count() + self.left.get(name).map_or(0, HashMap::len)
    }

    /// The weight that may run: what nodes can be given, and what the others have.
    pub(super) fn most(&self) -> u32 {
        let open = self.nodes.iter().filter(|(_, slots)| slots.is_open);
        let (mut most, mut open_used) = (0_u64, 0_u64);
        for (name, slots) in open {
            let held = self.held_weight(name);
            let room = u64::from(slots.most).saturating_sub(self.left_weight(name));
            most += room.max(held);
            open_used += held;
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

    fn set(account: &mut Account, node: &str, most: u32, is_open: bool) {
        let gpu = ["b", "c"].contains(&node).to_string();
        let slots = Slots {
            most,
            is_open,
            is_here: false,
            takes_files: node != "a",
            labels: Arc::new([("gpu".to_owned(), gpu)].into()),
        };
        account.set(&name(node), Some(slots));
    }

    fn class(weight: u32, selector: &str) -> Class {
        let placement = Placement {
            node_selector: selector.parse().unwrap(),
            ..Placement::default()
        };
        Class {
            weight,
            placement: (!selector.is_empty()).then(|| placement.into()),
            ..Class::default()
        }
    }

    fn claimed(account: &mut Account, job: u8, class: &Class) -> Option<String> {
        let claimed = account.claim(id(job), class, &[]);
        claimed.then(|| account.place_of(id(job)).unwrap().to_string())
    }

    #[test]
    fn jobs_spread_by_free_share_and_none_goes_to_a_node_that_is_shut() {
        let mut account = Account::default();
        set(&mut account, "a", 2, true);
        set(&mut account, "b", 4, true);
        set(&mut account, "c", 100, false);
        let places: Vec<String> = (1..=7)
            .map(|it| claimed(&mut account, it, &class(1, "")).unwrap_or("-".to_owned()))
            .collect();
        assert_eq!(places, ["a", "b", "b", "a", "b", "b", "-"]);
        assert_eq!((account.most(), account.heaviest()), (6, 100));
        account.release(id(1));
        assert_eq!(
            claimed(&mut account, 7, &class(1, "")).as_deref(),
            Some("a")
        );
    }

    #[test]
    fn a_node_that_has_refused_a_job_gets_it_again_only_if_no_other_can_run_it() {
        let mut account = Account::default();
        set(&mut account, "a", 4, true);
        let again = Class {
            avoids: Some(Box::new(name("a"))),
            ..class(2, "")
        };
        assert_eq!(claimed(&mut account, 1, &again).as_deref(), Some("a"));
        // This one has no room for it, whatever else it has.
        set(&mut account, "b", 1, true);
        assert_eq!(claimed(&mut account, 2, &again).as_deref(), Some("a"));
        account.release(id(2));
        set(&mut account, "c", 2, true);
        assert_eq!(claimed(&mut account, 2, &again).as_deref(), Some("c"));
        // It waits for that one.
        assert_eq!(claimed(&mut account, 3, &again), None);
        assert_eq!(account.hold_back(&again, &[]), Some(name("c")));
    }

    #[test]
    fn packed_jobs_fill_one_node_after_the_other() {
        let mut account = Account {
            packs: true,
            ..Account::default()
        };
        for node in ["a", "b"] {
            set(&mut account, node, 2, true);
        }
        let places: Vec<String> = (1..=4)
            .map(|it| claimed(&mut account, it, &class(1, "")).unwrap())
            .collect();
        assert_eq!(places, ["a", "a", "b", "b"]);
    }

    #[test]
    fn a_job_goes_to_nodes_that_it_may_run_on_and_it_is_said_why_there_is_none() {
        let mut account = Account::default();
        set(&mut account, "a", 9, true);
        set(&mut account, "b", 2, true);
        let gpu = class(1, "gpu=true");
        for job in [1, 2] {
            assert_eq!(claimed(&mut account, job, &gpu).as_deref(), Some("b"));
        }
        assert_eq!(claimed(&mut account, 3, &gpu), None);
        // It will.
        assert_eq!(account.why_none(&gpu), None);
        let why = account.why_none(&class(3, "gpu=true")).unwrap();
        assert!(why.contains("weight of 3"), "{why}");
        set(&mut account, "b", 2, false);
        let why = account.why_none(&gpu).unwrap();
        assert_eq!(why, "no node with gpu=true is connected and takes jobs");
        let here = Class {
            must_be_here: true,
            ..class(1, "")
        };
        assert!(!account.claim(id(9), &here, &[]));
        // An older node takes no files.
        let files = Class {
            has_files: true,
            ..class(1, "")
        };
        let why = account.why_none(&files).unwrap();
        assert!(why.contains("upgrade"), "{why}");
        set(&mut account, "c", 2, true);
        assert_eq!(claimed(&mut account, 4, &files).as_deref(), Some("c"));
    }

    #[test]
    fn the_node_that_is_held_back_is_the_one_that_has_room_first() {
        let mut account = Account::default();
        for node in ["a", "b", "c"] {
            set(&mut account, node, 4, true);
        }
        for job in [1, 2, 3, 4] {
            claimed(&mut account, job, &class(1, "")).unwrap();
        }
        // a has two of them, and b is the first of the others.
        let back = account.hold_back(&class(4, ""), &[]).unwrap();
        assert_eq!(back, name("b"));
        let second = account.hold_back(&class(4, ""), std::slice::from_ref(&back));
        assert_eq!(second, Some(name("c")));
        assert_eq!(account.hold_back(&class(5, ""), &[]), None);
        assert!(!account.claim(id(5), &class(3, ""), &[name("b"), name("c")]));
    }

    #[test]
    fn what_a_node_that_is_gone_has_takes_no_room_of_the_others() {
        let mut account = Account::default();
        set(&mut account, "a", 3, true);
        set(&mut account, "b", 3, true);
        claimed(&mut account, 1, &class(1, "")).unwrap();
        assert_eq!(account.most(), 6);
        set(&mut account, "a", 3, false);
        assert_eq!(account.most(), 4);
        account.set(&name("a"), None);
        assert_eq!(account.most(), 4);
        account.release(id(1));
        assert_eq!(account.most(), 3);
    }

    #[test]
    fn a_lost_job_that_still_runs_takes_room_until_it_is_gone() {
        let mut account = Account::default();
        set(&mut account, "a", 2, true);
        account.set_left(&name("a"), [(id(1), 1)].into());
        assert_eq!(claimed(&mut account, 2, &class(2, "")), None);
        assert_eq!(
            claimed(&mut account, 2, &class(1, "")).as_deref(),
            Some("a")
        );
        assert_eq!(claimed(&mut account, 3, &class(1, "")), None);
        let (used, count) = (account.used(&name("a")), account.count(&name("a")));
        assert_eq!((used, count, account.most()), (2, 2, 1));
        assert!(account.is_left_no_more(&name("a"), id(1)));
        assert!(!account.is_left_no_more(&name("a"), id(1)));
        assert_eq!(
            claimed(&mut account, 3, &class(1, "")).as_deref(),
            Some("a")
        );
        // A place that a job was given stays, whatever was left there.
        account.set_left(&name("a"), [(id(4), 9)].into());
        assert_eq!(account.most(), 2);
        account.set_left(&name("a"), HashMap::new());
        assert_eq!((account.most(), account.count(&name("a"))), (2, 2));
    }

    proptest! {
        #[test]
        fn no_node_has_more_than_its_slots_whatever_happens(steps in prop::collection::vec((0..5_u8, 0..12_u8, 1..4_u32, any::<bool>()), 1..80), packs: bool) {
            let mut account = Account { packs, ..Account::default() };
            let names = ["a", "b", "c"];
            for (step, job, weight, has_gpu) in steps {
                let node = names[usize::from(job) % names.len()];
                match step {
                    0 => set(&mut account, node, 4, true),
                    1 => set(&mut account, node, 4, false),
                    2 => account.release(id(job)),
                    _ if account.held.contains_key(&id(job)) => {}
                    _ => {
                        let selector = if has_gpu { "gpu=true" } else { "" };
                        let claimed = claimed(&mut account, job, &class(weight, selector));
                        prop_assert!(!has_gpu || claimed.as_deref() != Some("a"));
                    }
                }
                for node in names {
                    prop_assert!(account.used(&name(node)) <= 4);
                }
                let held: u64 = account.held.values().map(|(_, weight)| u64::from(*weight)).sum();
                prop_assert!(u64::from(account.most()) >= held);
            }
        }
    }
}
