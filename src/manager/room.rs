//! Which jobs have a task, and which only wait.
//!
//! A job that waits has no task: a ticket with the admission is all that is kept of it, and the rest is in the store. Who
//! wants more of it than to look wakes it: it then has a task, which owns it and which goes when nobody looks any more.
//! A job that is granted has one until its end.
//!
//! One lock, held for a look-up or a change, and never over an await.

mod ahead;
mod deadlines;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc, oneshot, watch};

use deadlines::Deadlines;

use super::admission::{Admission, Claim, Reason, Rejection, Ticket};
use super::nodes::{Class, NodeBook};
use super::readers::Readers;
use super::runner::JobRequest;
use job::queue::{Concurrency, OnConflict, Settings};
use job::time::Timestamp;
use job::{Job, JobId};
use linux::clock;
use store::StoreError;

/// What others hold of a job that has a task.
#[derive(Clone, Debug)]
pub(super) struct Awake {
    pub(super) state: watch::Receiver<Arc<Job>>,
    /// Where the output ends. The task asks the monitor only while there are receivers.
    pub(super) feed: Arc<watch::Sender<u64>>,
    /// Who reads the output, of a job that waits for that.
    pub(super) readers: Option<Arc<Readers>>,
    /// Boxed, since the channel has room for 32 from the first on.
    pub(super) requests: mpsc::Sender<Box<JobRequest>>,
}

/// How the waking of a job ended: it has a task now, is not in the store, or could not be read. Who looks at this holds
/// the task, which does not go before.
pub(super) type Woken = Option<Result<Option<Awake>, StoreError>>;

/// Where a job is.
#[derive(Debug)]
pub(super) enum Place {
    /// It has a task.
    Awake(Awake),
    /// It is about to have one.
    Waking(watch::Receiver<Woken>),
    /// It waits, and whoever asked has to wake it: by this.
    Asleep(Waker),
    /// Neither: it has ended, or never was.
    Nowhere,
}

/// Whom a job puts an end to, of those with its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Superseded {
    /// All others: it is the last that has come.
    Others,
    /// Those that came before it.
    Older,
}

/// The right and the duty to wake a job.
#[derive(Debug)]
pub(super) struct Waker {
    pub(super) job: JobId,
    pub(super) done: watch::Sender<Woken>,
}

#[derive(Debug)]
struct Task {
    awake: Awake,
    /// It is durable: clients may see it.
    visible: bool,
    /// It waits to be granted by this.
    slot: Option<oneshot::Sender<()>>,
}

#[derive(Debug)]
enum Entry {
    Task(Task),
    Waking {
        done: watch::Receiver<Woken>,
        granted: bool,
        /// When it has to have started; known to its task as soon as it has one.
        deadline: Option<Timestamp>,
    },
}

#[derive(Debug)]
struct Books {
    entries: HashMap<JobId, Entry>,
    admission: Admission,
    deadlines: Deadlines,
    /// When the clock looks again.
    wakes_at: Option<Timestamp>,
}

/// Jobs with tasks and jobs that wait.
#[derive(Debug)]
pub(super) struct Room {
    books: Mutex<Books>,
    /// The nodes that run the jobs, on the hub of a cluster. They are locked after the books.
    nodes: Option<Arc<NodeBook>>,
    /// Time opens a gate earlier than it would have.
    pub(super) changed: Notify,
}

impl Room {
    pub(super) fn new(admission: Admission, nodes: Option<Arc<NodeBook>>) -> Self {
        let books = Books {
            entries: HashMap::new(),
            admission,
            deadlines: Deadlines::default(),
            wakes_at: None,
        };
        Self {
            books: Mutex::new(books),
            nodes,
            changed: Notify::new(),
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the admission.
    pub(super) fn look<R>(&self, look: impl FnOnce(&Admission) -> R) -> R {
        look(&self.books().admission)
    }

    /// What a job waits with at this moment.
    pub(super) fn ticket_of(&self, job: &Job) -> Ticket {
        let spec = &job.spec;
        let now = clock::wall();
        let group = self.look(|it| {
            let fair_by = it.settings(&spec.queue).fair_by;
            fair_by.map(|it| Arc::from(it.group_of(job)))
        });
        Ticket {
            weight: spec.weight,
            claim: Claim::of(job),
            depends: u32::try_from(job.depends_on.len()).unwrap_or(u32::MAX),
            // A time that has come is no gate.
            not_before: job.next_attempt_at.or(job.run_at).filter(|at| *at > now),
            is_retry: job.next_attempt_at.is_some(),
            held: job.hold,
            group: group.unwrap_or_default(),
            class: (self.nodes.as_ref()).map_or_else(Class::default, |_| Class::of(job)),
            ..Ticket::plain(job.id, spec.queue.as_str().into(), spec.priority)
        }
    }

    /// Lets jobs run up to this weight, each up to that one.
    pub(super) fn set_most(&self, max_running: u32, heaviest: u32) {
        self.books().admission.set_most(max_running, heaviest);
    }

    /// Sets a queue up; `None` forgets what was set.
    pub(super) fn set_queue(&self, name: &str, settings: Option<Settings>) {
        let now = clock::wall();
        self.books().admission.set_queue(name, settings, now);
    }

    /// Tells of a start that an earlier server saw.
    pub(super) fn recall_start(&self, queue: &str, at: Timestamp) {
        self.books().admission.recall_start(queue, at);
    }

    /// Those that this job puts an end to, as its key says. Of them, those that wait do not start any more.
    pub(super) fn supersede(&self, by: JobId, key: &Concurrency, age: Superseded) -> Vec<JobId> {
        let with_running = match key.policy {
            OnConflict::Queue | OnConflict::Reject => return Vec::new(),
            OnConflict::Newest => false,
            OnConflict::Replace => true,
        };
        let is_meant = |other: &JobId| match age {
            Superseded::Others => *other != by,
            Superseded::Older => *other < by,
        };
        let mut books = self.books();
        let (mut running, mut waiting) = books.admission.holders(&key.key.as_str().into());
        running.retain(is_meant);
        waiting.retain(is_meant);
        for other in &waiting {
            books.admission.amend(*other, |ticket| ticket.held = true);
        }
        if with_running {
            let beside = usize::try_from(key.limit.saturating_sub(1)).unwrap_or(usize::MAX);
            running.truncate(running.len().saturating_sub(beside));
            waiting.extend(running);
        }
        waiting
    }

    /// Promises a place to a job that is about to be made durable.
    pub(super) fn promise(&self, ticket: Ticket, alone: bool) -> Result<(), Rejection> {
        self.books().admission.promise(ticket, alone)
    }

    /// Promises places to all of these jobs, or says for which of them there is none.
    pub(super) fn promise_all(
        &self,
        tickets: Vec<(Ticket, bool)>,
    ) -> Result<(), (usize, Rejection)> {
        let mut books = self.books();
        let mut promised = Vec::with_capacity(tickets.len());
        for (place, (ticket, alone)) in tickets.into_iter().enumerate() {
            let job = ticket.job;
            if let Err(why) = books.admission.promise(ticket, alone) {
                for job in promised {
                    books.admission.take_back(job);
                }
                return Err((place, why));
            }
            promised.push(job);
        }
        Ok(())
    }

    /// Forgets a job that was not accepted after all.
    pub(super) fn take_back(&self, id: JobId) {
        let mut books = self.books();
        books.entries.remove(&id);
        books.admission.take_back(id);
    }

    /// Notes a job's task. `visible`: it is durable. One that has been granted while it was woken is told so at once.
    pub(super) fn enlist(
        &self,
        id: JobId,
        awake: Awake,
        visible: bool,
        slot: Option<oneshot::Sender<()>>,
    ) {
        let mut books = self.books();
        let mut task = Task {
            awake,
            visible,
            slot,
        };
        if let Some(Entry::Waking { granted: true, .. }) = books.entries.get(&id)
            && let Some(slot) = task.slot.take()
        {
            let _ = slot.send(());
        }
        books.entries.insert(id, Entry::Task(task));
    }

    /// A durable job that has a task waits from now on, to be granted by its slot.
    pub(super) fn enter(&self, ticket: Ticket, slot: Option<oneshot::Sender<()>>) {
        let mut books = self.books();
        let id = ticket.job;
        books.admission.enter(ticket);
        if let Some(Entry::Task(task)) = books.entries.get_mut(&id) {
            task.visible = true;
            task.slot = slot;
        }
    }

    /// A job without a task waits from now on; it is woken when it is granted, or for its start deadline.
    pub(super) fn enter_asleep(&self, ticket: Ticket, deadline: Option<Timestamp>) {
        let mut books = self.books();
        books.deadlines.set(ticket.job, deadline);
        books.admission.enter(ticket);
    }

    /// Counts a job that runs already. `start`: its start, if the rate of its queue does not know of that yet.
    pub(super) fn adopt(&self, ticket: Ticket, start: Option<Timestamp>) {
        self.books().admission.adopt(ticket, start);
    }

    /// Lets all start that may. Those are given back that have to be woken for it.
    pub(super) fn grant(&self, now: Timestamp) -> Vec<Waker> {
        let mut wakers = Vec::new();
        let mut books = self.books();
        let granted = match &self.nodes {
            None => books.admission.grant(now, None),
            Some(nodes) => nodes.account(|it| books.admission.grant(now, Some(it))),
        };
        for job in granted {
            match books.entries.get_mut(&job) {
                Some(Entry::Task(task)) => {
                    if let Some(slot) = task.slot.take() {
                        let _ = slot.send(());
                    }
                }
                Some(Entry::Waking { granted, .. }) => *granted = true,
                None => wakers.push(books.waker(job, true)),
            }
        }
        if books.wakes_at.is_some_and(|at| at <= now) {
            // The clock that sleeps until then was set meanwhile, and does not know.
            self.changed.notify_one();
        }
        self.tell_clock(&books);
        wakers
    }

    fn tell_clock(&self, books: &Books) {
        let next = books.next();
        if next.is_some_and(|at| books.wakes_at.is_none_or(|then| at < then)) {
            self.changed.notify_one();
        }
    }

    /// Gives back what the job took.
    pub(super) fn leave(&self, id: JobId) {
        self.books().admission.leave(id);
    }

    /// A job that was granted has started.
    pub(super) fn started(&self, id: JobId, now: Timestamp) {
        self.books().admission.started(id, now);
    }

    /// Gives a waiting job another ticket, but for what it depends on; `false` if it does not wait (any more).
    pub(super) fn replace(&self, ticket: Ticket) -> bool {
        self.amend(ticket.job, |it| {
            let depends = it.depends;
            *it = Ticket { depends, ..ticket };
        })
    }

    /// Changes a waiting job; `false` if it does not wait (any more).
    pub(super) fn amend(&self, id: JobId, change: impl FnOnce(&mut Ticket)) -> bool {
        self.books().admission.amend(id, change)
    }

    /// Takes a waiting job out; `false` if it does not wait (it is granted by now).
    pub(super) fn withdraw(&self, id: JobId) -> bool {
        self.books().admission.withdraw(id)
    }

    /// When time opens a gate or a deadline passes; for the clock, which looks again then.
    pub(super) fn wake_at(&self) -> Option<Timestamp> {
        let mut books = self.books();
        books.wakes_at = books.next();
        books.wakes_at
    }

    /// Those that have to be woken since their start deadline has passed.
    pub(super) fn overdue(&self, now: Timestamp) -> Vec<Waker> {
        let mut wakers = Vec::new();
        let mut books = self.books();
        while let Some((at, job)) = books.deadlines.first()
            && at <= now
        {
            books.deadlines.take(job);
            // One that is awake sees to it by itself.
            if books.admission.waits(job) && !books.entries.contains_key(&job) {
                wakers.push(books.waker(job, false));
            }
        }
        wakers
    }

    /// Where is the job? One that is asleep has to be woken by whoever asked.
    pub(super) fn find(&self, id: JobId) -> Place {
        let mut books = self.books();
        match books.entries.get(&id) {
            Some(Entry::Task(task)) if task.visible => Place::Awake(task.awake.clone()),
            Some(Entry::Task(_)) => Place::Nowhere,
            Some(Entry::Waking { done, .. }) => Place::Waking(done.clone()),
            None if books.admission.waits(id) => Place::Asleep(books.waker(id, false)),
            None => Place::Nowhere,
        }
    }

    /// What is to be held of a job that has a task.
    pub(super) fn task(&self, id: JobId) -> Option<Awake> {
        match self.books().entries.get(&id) {
            Some(Entry::Task(task)) => Some(task.awake.clone()),
            Some(Entry::Waking { .. }) | None => None,
        }
    }

    /// The job as its task has it, visible or not.
    pub(super) fn any_state(&self, id: JobId) -> Option<Arc<Job>> {
        let task = self.task(id)?;
        Some(task.state.borrow().clone())
    }

    /// The job as its task has it.
    pub(super) fn state(&self, id: JobId) -> Option<Arc<Job>> {
        match self.books().entries.get(&id) {
            Some(Entry::Task(task)) if task.visible => Some(task.awake.state.borrow().clone()),
            Some(Entry::Task(_) | Entry::Waking { .. }) | None => None,
        }
    }

    /// All that have tasks, as these have them.
    pub(super) fn states(&self) -> Vec<Arc<Job>> {
        let books = self.books();
        let visible = books.entries.values().filter_map(|entry| match entry {
            Entry::Task(task) if task.visible => Some(task.awake.state.borrow().clone()),
            Entry::Task(_) | Entry::Waking { .. } => None,
        });
        visible.collect()
    }

    /// Those that run and have a workspace.
    pub(super) fn running_with_workspace(&self) -> Vec<JobId> {
        let states = self.states();
        let running = states.iter().filter(|job| {
            job.spec.workspace.is_some() && job.process.is_some() && !job.state.is_terminal()
        });
        running.map(|job| job.id).collect()
    }

    /// Forgets the task of a waiting job, if nobody holds anything of it and it has not been granted. The caller is that
    /// task, and ends then; `deadline` is when it has to be woken at the latest.
    pub(super) fn sleep(
        &self,
        id: JobId,
        publish: &watch::Sender<Arc<Job>>,
        requests: &mpsc::Receiver<Box<JobRequest>>,
        deadline: Option<Timestamp>,
    ) -> bool {
        let mut books = self.books();
        let Some(Entry::Task(task)) = books.entries.get(&id) else {
            return false;
        };
        // What is held here is one of each.
        let is_held = task.awake.feed.receiver_count() > 0
            || publish.receiver_count() > 1
            || requests.sender_strong_count() > 1;
        if is_held || !requests.is_empty() || task.slot.is_none() || !books.admission.waits(id) {
            return false;
        }
        books.entries.remove(&id);
        books.deadlines.set(id, deadline);
        self.tell_clock(&books);
        true
    }

    /// A job could not be woken; `true` if that has to be tried again, since it has been granted.
    pub(super) fn stay_asleep(&self, id: JobId) -> bool {
        let mut books = self.books();
        match books.entries.get(&id) {
            Some(Entry::Waking { granted: true, .. }) => true,
            Some(Entry::Waking { deadline, .. }) => {
                let deadline = *deadline;
                books.entries.remove(&id);
                books.deadlines.set(id, deadline);
                false
            }
            Some(Entry::Task(_)) | None => false,
        }
    }

    /// Forgets a job that is over.
    pub(super) fn forget(&self, id: JobId) {
        self.books().entries.remove(&id);
    }

    /// What a waiting job waits for.
    pub(super) fn why(&self, id: JobId) -> Option<Reason> {
        let books = self.books();
        let why = books.admission.why(id)?;
        let class = books.admission.class_of(id);
        let (Reason::Slot, Some(nodes), Some(class)) = (&why, &self.nodes, class) else {
            return Some(why);
        };
        let none = nodes.account(|it| it.why_none(class));
        Some(none.map_or(why, Reason::NoNode))
    }
}

impl Books {
    fn next(&self) -> Option<Timestamp> {
        let deadline = self.deadlines.first().map(|(at, _)| at);
        let gate = self.admission.wake_at();
        [gate, deadline].into_iter().flatten().min()
    }

    fn waker(&mut self, job: JobId, granted: bool) -> Waker {
        let (done, waking) = watch::channel(None);
        let entry = Entry::Waking {
            done: waking,
            granted,
            deadline: self.deadlines.take(job),
        };
        self.entries.insert(job, entry);
        Waker { job, done }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_deadline_is_kept_only_while_a_job_waits_without_a_task() {
        let room = Room::new(Admission::new(1, 10), None);
        let deadline = Timestamp::from_micros(9);
        let jobs: Vec<JobId> = (1..=4).map(|it| JobId::from_bytes([it; 16])).collect();
        for job in &jobs {
            let ticket = Ticket::plain(*job, "default".into(), 0);
            room.enter_asleep(ticket, Some(deadline));
        }
        let count = || {
            let deadlines = &room.books().deadlines;
            deadlines.count()
        };
        assert_eq!((count(), room.wake_at()), (4, Some(deadline)));
        // One is granted, one is woken by somebody who asks.
        let granted = room.grant(Timestamp::from_micros(1));
        assert_eq!((granted.len(), count()), (1, 3));
        assert!(matches!(room.find(jobs[1]), Place::Asleep(_)));
        assert_eq!(count(), 2);
        // That could not be read, and waits again.
        assert!(!room.stay_asleep(jobs[1]));
        assert_eq!(count(), 3);
        let overdue = room.overdue(deadline);
        assert_eq!((overdue.len(), count(), room.wake_at()), (3, 0, None));
    }
}
