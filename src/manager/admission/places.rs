//! Where the tickets are: under the time, the key or the queue that they wait for. Pure.

use std::cmp::Reverse;
use std::sync::Arc;

use super::queues::{Candidate, Queue};
use super::ticket::Ticket;
use super::{Admission, Holding, Place, Waiting};
use job::JobId;
use job::time::Timestamp;

impl Admission {
    /// Lets a job run that does not wait. `granted_at`: it is granted now.
    pub(super) fn hold(&mut self, ticket: Ticket, granted_at: Option<Timestamp>) {
        let queue = self.queues.entry(ticket.queue.clone()).or_default();
        queue.running += 1;
        queue.running_weight += u64::from(ticket.weight);
        self.running_weight += u64::from(ticket.weight);
        if let Some(claim) = &ticket.claim {
            self.keys.start(&claim.key, ticket.job);
            // Where a job with this key is the next one, it may not be any more.
            for queue in self.keys.fronts(&claim.key) {
                self.refresh(&queue, granted_at);
            }
        }
        self.refresh(&ticket.queue, granted_at);
        let holding = Holding { ticket, granted_at };
        self.running.insert(holding.ticket.job, holding);
    }

    pub(super) fn take_out(&mut self, job: JobId) -> Option<Ticket> {
        let ticket = self.remove(job)?;
        if let Some(claim) = &ticket.claim {
            // It may have stood for others of the key.
            self.promote(&claim.key);
        }
        self.refresh(&ticket.queue, None);
        Some(ticket)
    }

    pub(super) fn remove(&mut self, job: JobId) -> Option<Ticket> {
        let Waiting { ticket, place } = self.waiting.remove(&job)?;
        if let Place::Timed(at) = place {
            self.timed.remove((at, job));
        }
        if let Some(claim) = &ticket.claim {
            if place == Place::Parked {
                let lane = ticket.lane(claim.limit);
                self.keys.unpark(&claim.key, &lane, ticket.priority, job);
            }
            self.keys.withdraw(&claim.key, job);
        }
        if let Some(queue) = self.queues.get_mut(&ticket.queue)
            && queue.members.remove(&job)
        {
            queue.heavy.remove(&job);
            if place == Place::Ready {
                queue.ready.remove(&ticket);
            }
            queue.ready.part(&ticket);
        }
        Some(ticket)
    }

    /// Finds the place of a waiting job that is nowhere.
    pub(super) fn settle(&mut self, job: JobId) {
        let Some(found) = self.waiting.get_mut(&job) else {
            return;
        };
        let ticket = &mut found.ticket;
        if ticket.held || ticket.depends > 0 {
            found.place = Place::Aside;
            return;
        }
        if let Some(at) = ticket.not_before {
            found.place = Place::Timed(at);
            self.timed.insert((at, job));
            return;
        }
        let queue = self.queues.entry(ticket.queue.clone()).or_default();
        if queue.members.insert(job) {
            queue.ready.join(&ticket.class, &mut ticket.group);
        }
        if ticket.weight > self.heaviest || !queue.could_hold(ticket.weight) {
            found.place = Place::Heavy;
            queue.heavy.insert(job);
            return;
        }
        if let Some(claim) = &ticket.claim
            && !self.keys.is_free(claim)
        {
            found.place = Place::Parked;
            let lane = ticket.lane(claim.limit);
            self.keys.park(&claim.key, lane, ticket.priority, job);
            return;
        }
        found.place = Place::Ready;
        queue.ready.insert(ticket);
    }

    /// Makes those ready that waited for a key and need not any more.
    pub(super) fn promote(&mut self, key: &Arc<str>) {
        let mut promoted = self.keys.promote(key);
        while let Some(job) = promoted.pop() {
            self.settle(job);
            let Some(found) = self.waiting.get(&job) else {
                continue;
            };
            if found.place == Place::Heavy {
                // It stands for nobody.
                promoted.extend(self.keys.promote(key));
            }
            let queue = found.ticket.queue.clone();
            self.refresh(&queue, None);
        }
    }

    /// Opens what time alone opens.
    pub(super) fn open_gates(&mut self, now: Timestamp) {
        while let Some((at, job)) = self.timed.first()
            && at <= now
        {
            self.timed.remove((at, job));
            if let Some(found) = self.waiting.get_mut(&job) {
                found.ticket.not_before = None;
                let queue = found.ticket.queue.clone();
                self.settle(job);
                self.refresh(&queue, Some(now));
            }
        }
        while let Some((at, queue)) = self.rated.first().cloned()
            && at <= now
        {
            self.rated.remove(&(at, queue.clone()));
            self.refresh(&queue, Some(now));
        }
    }

    /// Looks again which jobs of the queue are the next, if any can be: one of each class. Without `now` a rate that is set
    /// is looked at in the next grant.
    pub(super) fn refresh(&mut self, name: &Arc<str>, now: Option<Timestamp>) {
        let Some(queue) = self.queues.get_mut(name) else {
            return;
        };
        for candidate in queue.candidates.drain(..) {
            if let Some(open) = self.open.get_mut(&candidate.class) {
                open.remove(&candidate);
                if open.is_empty() {
                    self.open.remove(&candidate.class);
                }
            }
        }
        if let Some(at) = queue.opens_at.take() {
            self.rated.remove(&(at, name.clone()));
        }
        for key in queue.fronts.drain(..) {
            self.keys.step_back(&key, name);
        }
        let stood_for = match queue.settings.paused {
            true => Vec::new(),
            false => self.put_aside(name),
        };
        self.stand(name, now);
        self.tidy(name);
        for key in stood_for {
            self.promote(&key);
        }
    }

    /// Puts those aside that come first and cannot be next. Gives the keys that they do not stand for any more.
    fn put_aside(&mut self, name: &Arc<str>) -> Vec<Arc<str>> {
        let mut stood_for = Vec::new();
        let Some(queue) = self.queues.get_mut(name) else {
            return stood_for;
        };
        let mut class = queue.ready.class_after(None);
        while let Some(present) = class {
            while let Some(job) = queue.ready.first_of(&present)
                && let Some(found) = self.waiting.get_mut(&job)
            {
                let ticket = &found.ticket;
                if let Some(claim) = &ticket.claim
                    && !self.keys.is_free(claim)
                {
                    queue.ready.remove(ticket);
                    found.place = Place::Parked;
                    let lane = ticket.lane(claim.limit);
                    self.keys.park(&claim.key, lane, ticket.priority, job);
                } else if !queue.could_hold(ticket.weight) {
                    queue.ready.remove(ticket);
                    found.place = Place::Heavy;
                    queue.heavy.insert(job);
                    // It does not stand for others of its key any more.
                    stood_for.extend(ticket.claim.as_ref().map(|it| it.key.clone()));
                } else {
                    break;
                }
            }
            class = queue.ready.class_after(Some(&present));
        }
        stood_for
    }

    /// Lets the first of each class stand for the queue, as far as the queue has room: none passes another there.
    fn stand(&mut self, name: &Arc<str>, now: Option<Timestamp>) {
        let Some(queue) = self.queues.get_mut(name) else {
            return;
        };
        if queue.settings.paused {
            return;
        }
        for job in queue.ready.firsts() {
            let Some(Waiting { ticket, .. }) = self.waiting.get(&job) else {
                continue;
            };
            if let Some(claim) = &ticket.claim {
                queue.fronts.push(claim.key.clone());
                self.keys.step_up(&claim.key, name);
            }
            let opens_at = queue.settings.rate.and_then(|rate| match now {
                Some(now) => queue.starts.opens_at(rate, now),
                // In the past: the next grant looks.
                None => Some(Timestamp::default()),
            });
            if let Some(at) = opens_at {
                queue.opens_at = Some(at);
                self.rated.insert((at, name.clone()));
                return;
            }
            if !queue.has_room(ticket.weight) {
                return;
            }
            let candidate = Candidate {
                priority: Reverse(ticket.priority),
                load: queue.load(self.max_running),
                job,
                queue: name.clone(),
                class: ticket.class.clone(),
            };
            queue.candidates.push(candidate.clone());
            let open = self.open.entry(ticket.class.clone()).or_default();
            open.insert(candidate);
        }
    }

    pub(super) fn tidy(&mut self, name: &Arc<str>) {
        if self.queues.get(name).is_some_and(Queue::is_idle) {
            self.queues.remove(name);
        }
    }
}
