//! Who may start, and when: a pure account of what runs and of the jobs that wait.
//!
//! A job starts when all its gates are open at one moment; until then it holds nothing of any of them. Its own gates are
//! a hold, other jobs, a time and a key, and none of them stands in the way of another job. The gates of its queue are
//! a pause, a rate and a limit, and none of them stands in the way of another queue. The last gate is the service's
//! limit; on a hub it is the room of the nodes that the job may run on.
//!
//! What a ticket is not ready for it is found under: the time, the key, its queue. So a grant looks at the first
//! of each queue that could start something, and never at all that wait.

mod fair;
mod keys;
mod lines;
mod places;
mod queues;
mod rate;
#[cfg(test)]
mod tests;
mod ticket;
mod timed;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::nodes::{Account, Class};
use job::JobId;
use job::queue::Settings;
use job::time::Timestamp;
pub use keys::Claim;
use keys::Keys;
pub use queues::Contents;
use queues::{Candidate, Queue};
pub(crate) use ticket::Ticket;
pub use ticket::{Reason, Rejection};
use timed::Timed;

/// What a job that runs holds.
#[derive(Debug)]
struct Holding {
    ticket: Ticket,
    granted_at: Option<Timestamp>,
}

/// Where a waiting job is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Under nothing: others will change it.
    Aside,
    Timed(Timestamp),
    Parked,
    Ready,
    Heavy,
}

#[derive(Debug)]
struct Waiting {
    ticket: Ticket,
    place: Place,
}

/// The account.
#[derive(Debug)]
pub(super) struct Admission {
    max_running: u32,
    /// The weight of the heaviest job; less than may run where that is the sum of several machines.
    heaviest: u32,
    max_queued: usize,
    running_weight: u64,
    running: HashMap<JobId, Holding>,
    waiting: HashMap<JobId, Waiting>,
    promised: HashMap<JobId, Ticket>,
    timed: Timed,
    keys: Keys,
    queues: BTreeMap<Arc<str>, Queue>,
    /// The first job of each queue that could start one, by class.
    open: BTreeMap<Class, BTreeSet<Candidate>>,
    /// The queues that are shut by their rate.
    rated: BTreeSet<(Timestamp, Arc<str>)>,
}

impl Admission {
    /// A service that runs jobs up to this weight and lets so many wait.
    #[must_use]
    pub(super) fn new(max_running: u32, max_queued: usize) -> Self {
        Self {
            max_running,
            heaviest: max_running,
            max_queued,
            running_weight: 0,
            running: HashMap::new(),
            waiting: HashMap::new(),
            promised: HashMap::new(),
            timed: Timed::default(),
            keys: Keys::default(),
            queues: BTreeMap::new(),
            open: BTreeMap::new(),
            rated: BTreeSet::new(),
        }
    }

    /// Runs jobs up to this weight from now on, each up to that one.
    pub(super) fn set_most(&mut self, max_running: u32, heaviest: u32) {
        let is_light = self.heaviest < heaviest;
        (self.max_running, self.heaviest) = (max_running, heaviest);
        if is_light {
            let heavy = self.waiting.iter();
            let heavy = heavy.filter(|(_, it)| it.place == Place::Heavy);
            for job in heavy.map(|(job, _)| *job).collect::<Vec<_>>() {
                self.amend(job, |_| {});
            }
        }
    }

    /// The weight that may run.
    #[must_use]
    pub(super) fn max_running(&self) -> u32 {
        self.max_running
    }

    /// How many jobs run.
    #[must_use]
    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    /// How many jobs wait, for whatever it is.
    #[must_use]
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Does it wait?
    #[must_use]
    pub(super) fn waits(&self, job: JobId) -> bool {
        self.waiting.contains_key(&job)
    }

    /// Promises a place to a job that is about to be made durable. `alone`: it does not want to wait for its key.
    pub(super) fn promise(&mut self, ticket: Ticket, alone: bool) -> Result<(), Rejection> {
        let queue = self.queues.entry(ticket.queue.clone()).or_default();
        let refusal = if ticket.weight > self.heaviest {
            Some(Rejection::TooHeavy(self.heaviest))
        } else if !queue.could_hold(ticket.weight) {
            queue.settings.max_running.map(Rejection::TooHeavy)
        } else {
            let free = u64::from(self.max_running).saturating_sub(self.running_weight);
            let most =
                (self.max_queued).saturating_add(usize::try_from(free).unwrap_or(usize::MAX));
            let conflict = ticket.claim.as_ref().filter(|_| alone);
            let conflict = conflict.and_then(|it| self.keys.conflict(it));
            if let Some(holder) = conflict {
                Some(Rejection::Conflict(holder))
            } else if self.waiting.len() + self.promised.len() >= most {
                Some(Rejection::ServiceFull)
            } else if !ticket.waits_outside() && !queue.takes_more(free) {
                Some(Rejection::QueueFull)
            } else {
                None
            }
        };
        if let Some(refusal) = refusal {
            self.tidy(&ticket.queue);
            return Err(refusal);
        }
        if !ticket.waits_outside() {
            queue.promised += 1;
        }
        if let Some(claim) = &ticket.claim {
            self.keys.promise(&claim.key, ticket.job);
        }
        self.promised.insert(ticket.job, ticket);
        Ok(())
    }

    /// Takes a promise back, if there is one.
    pub(super) fn take_back(&mut self, job: JobId) {
        let Some(ticket) = self.promised.remove(&job) else {
            return;
        };
        if let Some(queue) = self.queues.get_mut(&ticket.queue)
            && !ticket.waits_outside()
        {
            queue.promised -= 1;
        }
        if let Some(claim) = &ticket.claim {
            self.keys.take_back(&claim.key, job);
        }
        self.tidy(&ticket.queue);
    }

    /// Lets a job wait, whatever the limits say; it grants nothing. A job that is known already stays as it is.
    pub(super) fn enter(&mut self, mut ticket: Ticket) {
        self.take_back(ticket.job);
        let job = ticket.job;
        if self.waiting.contains_key(&job) || self.running.contains_key(&job) {
            return;
        }
        self.queues.entry(ticket.queue.clone()).or_default();
        // Names are kept once, not once a job.
        if let Some((name, _)) = self.queues.get_key_value(&ticket.queue) {
            ticket.queue = name.clone();
        }
        if let Some(claim) = &ticket.claim {
            self.keys.wait(&claim.key, job);
        }
        let queue = ticket.queue.clone();
        let place = Place::Aside;
        self.waiting.insert(job, Waiting { ticket, place });
        self.settle(job);
        self.refresh(&queue, None);
    }

    /// Counts a job that runs already, whatever the limits say. `start`: its start, if the rate of its queue does not know
    /// of that yet.
    pub(super) fn adopt(&mut self, ticket: Ticket, start: Option<Timestamp>) {
        let job = ticket.job;
        self.take_back(job);
        self.withdraw(job);
        if self.running.contains_key(&job) {
            return;
        }
        if let Some(at) = start {
            self.recall_start(&ticket.queue, at);
        }
        self.hold(ticket, None);
        if let Some(holding) = self.running.get_mut(&job) {
            holding.granted_at = start;
        }
    }

    /// Changes a waiting job; its age stays. `false`: it does not wait (any more).
    pub(super) fn amend(&mut self, job: JobId, change: impl FnOnce(&mut Ticket)) -> bool {
        let Some(mut ticket) = self.take_out(job) else {
            return false;
        };
        change(&mut ticket);
        ticket.job = job;
        self.enter(ticket);
        true
    }

    /// Takes a waiting job out. `false`: it does not wait; it may have been granted in this moment.
    pub(super) fn withdraw(&mut self, job: JobId) -> bool {
        self.take_out(job).is_some()
    }

    /// Gives back exactly what this job took. `false`: it had nothing.
    pub(super) fn leave(&mut self, job: JobId) -> bool {
        let Some(Holding { ticket, .. }) = self.running.remove(&job) else {
            return false;
        };
        self.running_weight -= u64::from(ticket.weight);
        if let Some(queue) = self.queues.get_mut(&ticket.queue) {
            queue.running -= 1;
            queue.running_weight -= u64::from(ticket.weight);
        }
        if let Some(claim) = &ticket.claim {
            self.keys.end(&claim.key, job);
            self.promote(&claim.key);
        }
        self.refresh(&ticket.queue, None);
        true
    }

    /// Notes when a job that runs has started, once. The rate of its queue counts from there.
    pub(super) fn started(&mut self, job: JobId, at: Timestamp) {
        if let Some(holding) = self.running.get_mut(&job)
            && let Some(queue) = self.queues.get_mut(&holding.ticket.queue)
            && queue.settings.rate.is_some()
        {
            match holding.granted_at.take() {
                Some(granted) => queue.starts.correct(granted, at),
                None => queue.starts.add(at),
            }
        }
    }

    /// All that may start now, in order. They run from now on, as far as this account goes. On a hub each has a place on a
    /// node then.
    pub(super) fn grant(&mut self, now: Timestamp, mut nodes: Option<&mut Account>) -> Vec<JobId> {
        self.open_gates(now);
        let mut granted = Vec::new();
        // The classes that no node has room for, and the nodes that are held back for their first jobs.
        let (mut full, mut held_back) = (Vec::new(), Vec::new());
        while let Some(first) = self.first_but(&full) {
            let Some(found) = self.waiting.get(&first.job) else {
                self.refresh(&first.queue, Some(now));
                continue;
            };
            let ticket = found.ticket.clone();
            match &mut nodes {
                None => {
                    let needed = self.running_weight + u64::from(ticket.weight);
                    if needed > u64::from(self.max_running) {
                        // It keeps its place: otherwise lighter ones would pass it for ever.
                        break;
                    }
                }
                Some(nodes) => {
                    if !nodes.claim(first.job, &ticket.class, &held_back) {
                        held_back.extend(nodes.hold_back(&ticket.class, &held_back));
                        full.push(ticket.class);
                        continue;
                    }
                }
            }
            if let Some(queue) = self.queues.get_mut(&ticket.queue) {
                queue.ready.charge(&ticket.group, ticket.weight);
                if queue.settings.rate.is_some() {
                    queue.starts.add(now);
                }
            }
            self.remove(first.job);
            self.hold(ticket, Some(now));
            granted.push(first.job);
        }
        granted
    }

    /// The first job of all that could start, but for those of these classes.
    fn first_but(&self, full: &[Class]) -> Option<Candidate> {
        let open = self.open.iter().filter(|(class, _)| !full.contains(class));
        let firsts = open.filter_map(|(_, candidates)| candidates.first());
        firsts.min().cloned()
    }

    /// When time alone opens a gate.
    #[must_use]
    pub(super) fn wake_at(&self) -> Option<Timestamp> {
        let timed = self.timed.first().map(|(at, _)| at);
        let rated = self.rated.first().map(|(at, _)| *at);
        [timed, rated].into_iter().flatten().min()
    }

    /// What a waiting job waits for; `None` if it does not wait. Right after a grant.
    #[must_use]
    pub(super) fn why(&self, job: JobId) -> Option<Reason> {
        let Waiting { ticket, place } = self.waiting.get(&job)?;
        Some(match *place {
            Place::Aside if ticket.held => Reason::Held,
            Place::Aside => Reason::Dependencies(ticket.depends),
            Place::Timed(at) if ticket.is_retry => Reason::Retry(at),
            Place::Timed(at) => Reason::Time(at),
            Place::Heavy => Reason::NeverFits(ticket.weight),
            Place::Parked | Place::Ready => self.why_not_now(ticket),
        })
    }

    /// The class of a waiting job.
    pub(super) fn class_of(&self, job: JobId) -> Option<&Class> {
        self.waiting.get(&job).map(|it| &it.ticket.class)
    }

    fn why_not_now(&self, ticket: &Ticket) -> Reason {
        if let Some(claim) = &ticket.claim
            && !self.keys.is_free(claim)
        {
            return Reason::Key(claim.clone(), self.keys.first_running(&claim.key));
        }
        let Some(queue) = self.queues.get(&ticket.queue) else {
            return Reason::Slot;
        };
        if !queue.could_hold(ticket.weight) {
            return Reason::NeverFits(ticket.weight);
        }
        if queue.settings.paused {
            return Reason::QueuePaused(queue.settings.pause_reason.clone());
        }
        if let Some(at) = queue.opens_at {
            return Reason::Rate(at);
        }
        if (queue.candidates.iter()).any(|it| it.class == ticket.class) {
            return Reason::Slot;
        }
        let first = queue.ready.first();
        Reason::Queue(first.filter(|it| *it != ticket.job && queue.has_room(ticket.weight)))
    }

    /// Who has this key: those that run and those that wait, each oldest first.
    #[must_use]
    pub(super) fn holders(&self, key: &Arc<str>) -> (Vec<JobId>, Vec<JobId>) {
        self.keys.holders(key)
    }

    /// The settings of a queue; the default ones if nothing is set.
    #[must_use]
    pub(super) fn settings(&self, queue: &str) -> Settings {
        let found = self.queues.get(queue);
        found.map(|it| it.settings.clone()).unwrap_or_default()
    }

    /// Sets a queue up; `None` forgets what was set. Its jobs stay in their groups: whoever changes `fair_by` amends
    /// them.
    pub(super) fn set_queue(&mut self, name: &str, settings: Option<Settings>, now: Timestamp) {
        let name: Arc<str> = name.into();
        let queue = self.queues.entry(name.clone()).or_default();
        queue.is_set = settings.is_some();
        queue.settings = settings.unwrap_or_default();
        let heavy = std::mem::take(&mut queue.heavy);
        for job in heavy {
            self.settle(job);
        }
        self.refresh(&name, Some(now));
    }

    /// Tells a queue of a start that an earlier server granted.
    pub(super) fn recall_start(&mut self, name: &str, at: Timestamp) {
        let queue = self.queues.entry(name.into()).or_default();
        queue.starts.add(at);
    }

    /// What is in a queue; `None` if nothing is, and nothing is set.
    #[must_use]
    pub(super) fn contents(&self, queue: &str) -> Option<Contents> {
        self.queues.get(queue).map(Queue::contents)
    }

    /// The queues of which something is set or that have jobs, by name.
    pub(super) fn queues(&self) -> impl Iterator<Item = (&str, Contents)> {
        self.queues
            .iter()
            .map(|(name, it)| (&**name, it.contents()))
    }

    /// The jobs that wait for this queue, oldest first.
    #[must_use]
    pub(super) fn members(&self, queue: &str) -> Vec<JobId> {
        let found = self.queues.get(queue);
        found.map_or_else(Vec::new, |it| it.members.iter().copied().collect())
    }
}
