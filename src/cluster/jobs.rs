//! One job of the hub on this node, for as long as the link lasts: it is taken, reported as it changes, and asked about.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::fetch::Source;
use job::event::Cursor;
use job::{Job, JobId};
use manager::{Assigned, Listening, LookupError, NotTaken, Watching};
use protocol::wire::link::{Answered, Ask, Assignment, FromNode};

/// How soon a job is looked up again, after the store has failed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What the hub says about a job.
pub(crate) enum Told {
    Prepare(Box<Job>),
    Forget,
    Assign(Box<Assignment>),
    Follow(Cursor),
    Ack(Cursor),
    Ask(u64, Ask),
}

/// A job, and where its reports go.
pub(crate) struct Holding {
    assigned: Assigned,
    id: JobId,
    outgoing: mpsc::UnboundedSender<FromNode>,
    source: Arc<Source>,
    /// Its files have come, and it has not.
    is_prepared: bool,
    /// What was told while files were fetched.
    next: Option<Told>,
    /// What is reported of it.
    reporting: Option<Reporting>,
    /// What was asked and has been done. It is answered with the report that tells what came of it, so that the hub knows
    /// both before it answers.
    answers: Vec<Answered>,
}

/// How far a job has been reported.
struct Reporting {
    watching: Watching,
    /// The last event that the hub has.
    seen: Cursor,
    /// The report that the hub has not stored yet, if that is waited for: up to which event.
    sent: Option<Cursor>,
    /// The version that was reported last.
    version: u64,
    /// There may be something to report.
    is_due: bool,
}

/// What such a task is woken by.
enum Woken {
    Told(Option<Told>),
    Changed,
}

impl Holding {
    pub(crate) fn new(
        assigned: Assigned,
        id: JobId,
        outgoing: mpsc::UnboundedSender<FromNode>,
        source: Arc<Source>,
    ) -> Self {
        Self {
            assigned,
            id,
            outgoing,
            source,
            is_prepared: false,
            next: None,
            reporting: None,
            answers: Vec::new(),
        }
    }

    /// Runs until there is nothing to report, or the link ends. A job that is about to be taken is taken all the same.
    /// Gives the messages back that it has not read.
    pub(crate) async fn run(
        mut self,
        mut told: mpsc::UnboundedReceiver<Told>,
    ) -> (JobId, Vec<Told>) {
        loop {
            let was_reported = self.reporting.is_some();
            self.report().await;
            if was_reported && self.reporting.is_none() {
                return self.leave(told);
            }
            let woken = match self.next.take() {
                Some(next) => Woken::Told(Some(next)),
                None => self.wait(&mut told).await,
            };
            match woken {
                Woken::Told(None) => {
                    self.give_files_up().await;
                    return (self.id, Vec::new());
                }
                Woken::Told(Some(next)) => {
                    self.on_told(next, &mut told).await;
                    if self.reporting.is_none() && !self.is_prepared {
                        return self.leave(told);
                    }
                }
                Woken::Changed => {
                    if let Some(reporting) = &mut self.reporting {
                        reporting.is_due = true;
                    }
                }
            }
        }
    }

    /// There is nothing to report.
    fn leave(mut self, mut told: mpsc::UnboundedReceiver<Told>) -> (JobId, Vec<Told>) {
        told.close();
        let next = self.next.take();
        let left = std::iter::from_fn(|| told.try_recv().ok());
        (self.id, next.into_iter().chain(left).collect())
    }

    async fn wait(&mut self, told: &mut mpsc::UnboundedReceiver<Told>) -> Woken {
        let changed = async {
            match &mut self.reporting {
                Some(reporting) if !reporting.is_due => reporting.watching.changed().await,
                Some(_) | None => std::future::pending().await,
            }
        };
        tokio::select! {
            told = told.recv() => Woken::Told(told),
            () = changed => Woken::Changed,
        }
    }

    fn say(&self, message: FromNode) {
        // Without a link there is nobody to say it to, and the next one is asked anew.
        let _ = self.outgoing.send(message);
    }

    fn say_answers(&mut self) {
        for answered in std::mem::take(&mut self.answers) {
            let job = self.id;
            self.say(FromNode::Answer { job, answered });
        }
    }

    async fn on_told(&mut self, next: Told, told: &mut mpsc::UnboundedReceiver<Told>) {
        match next {
            Told::Assign(assignment) => {
                let claim = assignment.job.claim.as_ref();
                let fence = claim.map_or(0, |claim| claim.fence);
                // Before there is something to tell.
                let listening = self.assigned.listen(self.id);
                // A link that has ended is not held up by what does not: over the next one it is assigned again.
                let is_wanted = || !told.is_closed();
                match self.assigned.take(*assignment, is_wanted).await {
                    Ok(is_new) => {
                        self.is_prepared = false;
                        let listening = is_new.then_some(listening);
                        self.follow(0, listening, told).await;
                    }
                    Err(refusal) => {
                        self.give_files_up().await;
                        self.refuse(fence, refusal);
                    }
                }
            }
            Told::Prepare(job) => self.prepare(&job, told).await,
            Told::Forget => {
                self.give_files_up().await;
                self.assigned.forget(self.id).await;
            }
            Told::Follow(seen) => self.follow(seen, None, told).await,
            Told::Ack(seen) => self.on_ack(seen),
            Told::Ask(ticket, ask) => {
                let result = self.assigned.ask(self.id, ask).await;
                self.answers.push(Answered { ticket, result });
                match &mut self.reporting {
                    Some(reporting) => reporting.is_due = true,
                    None => self.say_answers(),
                }
            }
        }
    }

    fn refuse(&self, fence: u32, refusal: NotTaken) {
        self.say(FromNode::Refused {
            job: self.id,
            fence,
            why: refusal.why,
            is_final: refusal.is_final,
        });
    }

    /// Fetches the files of the job, unless the hub does not want it any more or the link ends.
    async fn prepare(&mut self, job: &Job, told: &mut mpsc::UnboundedReceiver<Told>) {
        self.give_files_up().await;
        let fetched = async {
            let Some(part) = self.assigned.expect_files(job).await? else {
                return Ok(None);
            };
            let fetched = self.source.fetch(self.id, part).await;
            fetched.map(Some).map_err(|why| NotTaken {
                why,
                is_final: false,
            })
        };
        let archive = tokio::select! {
            fetched = fetched => match fetched {
                Ok(Some(archive)) => archive,
                // It has the job: what it says of it comes with the assignment.
                Ok(None) => return self.say(FromNode::Prepared { job: self.id }),
                Err(refusal) => return self.refuse(0, refusal),
            },
            // The link has ended, or the hub wants something else.
            next = told.recv() => {
                self.next = next;
                return;
            }
        };
        match self.assigned.take_files(job, archive).await {
            Ok(()) => {
                self.is_prepared = true;
                self.say(FromNode::Prepared { job: self.id });
            }
            Err(refusal) => self.refuse(0, refusal),
        }
    }

    /// The job does not come after all.
    async fn give_files_up(&mut self) {
        if std::mem::take(&mut self.is_prepared) {
            self.assigned.give_files_up(self.id).await;
        }
    }

    /// Begins to report, unless the link ends before the store can be read. `listening`: all that is told of a new job.
    async fn follow(
        &mut self,
        seen: Cursor,
        mut listening: Option<Listening>,
        told: &mpsc::UnboundedReceiver<Told>,
    ) {
        self.reporting = None;
        let watching = loop {
            match self.assigned.watch(self.id, listening.take()).await {
                Ok(watching) => break watching,
                Err(LookupError::NoSuchJob) => {
                    return self.say(FromNode::NotHeld { job: self.id });
                }
                // It is there for all that is known: the hub would give it up.
                Err(LookupError::Store(error)) => {
                    tracing::error!(job.id = %self.id, %error, "job {} cannot be reported yet: {error}", self.id);
                }
            }
            if told.is_closed() {
                return;
            }
            tokio::time::sleep_until(Instant::now() + LOOK_AGAIN).await;
        };
        self.reporting = Some(Reporting {
            watching,
            seen,
            sent: None,
            version: 0,
            is_due: true,
        });
    }

    fn on_ack(&mut self, seen: Cursor) {
        let Some(reporting) = &mut self.reporting else {
            return;
        };
        if reporting.sent == Some(seen) {
            reporting.seen = seen;
            reporting.sent = None;
        }
    }

    /// Reports what there is to report. Of reports that are waited for, one at a time is on its way.
    async fn report(&mut self) {
        let Some(reporting) = &mut self.reporting else {
            return;
        };
        if !reporting.is_due || reporting.sent.is_some() {
            return;
        }
        reporting.is_due = false;
        // An answer tells of what is reported with it.
        let complete = !self.answers.is_empty();
        let (watching, seen) = (&mut reporting.watching, reporting.seen);
        match self.assigned.report(watching, seen, complete).await {
            Ok(mut report) => {
                let has_news = !report.events.is_empty() || report.job.version > reporting.version;
                if !has_news {
                    return self.say_answers();
                }
                // The hub asks over the next link for what it has not got over this one: the end of a job is said once. And
                // a start is not to hold up an end.
                let is_last = report.job.state.is_terminal();
                report.unconfirmed = is_last || reporting.version == 0 && report.events.is_empty();
                reporting.version = report.job.version;
                match report.unconfirmed {
                    true => reporting.seen = report.seen,
                    false => reporting.sent = Some(report.seen),
                }
                report.answers = std::mem::take(&mut self.answers);
                if is_last {
                    self.reporting = None;
                }
                self.say(FromNode::Report(Box::new(report)));
            }
            Err(LookupError::NoSuchJob) => {
                self.reporting = None;
                self.say_answers();
                self.say(FromNode::NotHeld { job: self.id });
            }
            // It is looked at again with the next change, or over the next link.
            Err(LookupError::Store(error)) => {
                tracing::error!(job.id = %self.id, %error, "job {} cannot be reported: {error}", self.id);
                self.say_answers();
            }
        }
    }
}
