//! One job of the hub on this node, for as long as the link lasts: it is taken, reported as it changes, and asked about.

use tokio::sync::mpsc;

use job::JobId;
use job::event::Cursor;
use manager::{Assigned, LookupError, Watching};
use protocol::wire::link::{Answered, Ask, Assignment, FromNode};

/// What the hub says about a job.
pub(crate) enum Told {
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
    /// The report that the hub has not stored yet: up to which event, and whether it is the last one.
    sent: Option<(Cursor, bool)>,
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
    ) -> Self {
        Self {
            assigned,
            id,
            outgoing,
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
            self.report().await;
            let changed = async {
                match &mut self.reporting {
                    Some(reporting) if !reporting.is_due => reporting.watching.changed().await,
                    Some(_) | None => std::future::pending().await,
                }
            };
            let woken = tokio::select! {
                told = told.recv() => Woken::Told(told),
                () = changed => Woken::Changed,
            };
            match woken {
                Woken::Told(None) => return (self.id, Vec::new()),
                Woken::Told(Some(next)) => {
                    self.on_told(next).await;
                    if self.reporting.is_none() {
                        told.close();
                        let left = std::iter::from_fn(|| told.try_recv().ok());
                        return (self.id, left.collect());
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

    async fn on_told(&mut self, told: Told) {
        match told {
            Told::Assign(assignment) => {
                let claim = assignment.job.claim.as_ref();
                let fence = claim.map_or(0, |claim| claim.fence);
                match self.assigned.take(*assignment).await {
                    Ok(()) => self.follow(0).await,
                    Err(refusal) => self.say(FromNode::Refused {
                        job: self.id,
                        fence,
                        why: refusal.why,
                        is_final: refusal.is_final,
                    }),
                }
            }
            Told::Follow(seen) => self.follow(seen).await,
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

    async fn follow(&mut self, seen: Cursor) {
        self.reporting = self
            .assigned
            .watch(self.id)
            .await
            .map(|watching| Reporting {
                watching,
                seen,
                sent: None,
                version: 0,
                is_due: true,
            });
        if self.reporting.is_none() {
            self.say(FromNode::NotHeld { job: self.id });
        }
    }

    fn on_ack(&mut self, seen: Cursor) {
        let Some(reporting) = &mut self.reporting else {
            return;
        };
        if let Some((sent, is_last)) = reporting.sent
            && sent == seen
        {
            reporting.seen = seen;
            reporting.sent = None;
            if is_last {
                self.reporting = None;
            }
        }
    }

    /// Reports what there is to report. One report at a time is on its way.
    async fn report(&mut self) {
        let Some(reporting) = &mut self.reporting else {
            return;
        };
        if !reporting.is_due || reporting.sent.is_some() {
            return;
        }
        reporting.is_due = false;
        match self.assigned.report(self.id, reporting.seen).await {
            Ok(mut report) => {
                let has_news = !report.events.is_empty() || report.job.version > reporting.version;
                if !has_news {
                    return self.say_answers();
                }
                reporting.version = report.job.version;
                reporting.sent = Some((report.seen, report.job.state.is_terminal()));
                report.answers = std::mem::take(&mut self.answers);
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
