//! What a job waits with, what it waits for, and why it is not let in. Pure.

use std::sync::Arc;

use super::keys::{Claim, Lane};
use crate::nodes::Class;
use job::JobId;
use job::time::Timestamp;

/// A job that wants to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// The job; the order of ids is that of age.
    pub(crate) job: JobId,
    /// The queue it waits in.
    pub(crate) queue: Arc<str>,
    /// Higher starts first.
    pub(crate) priority: i32,
    /// How much of the limits it takes; 1 for an ordinary job.
    pub(crate) weight: u32,
    /// What no more than some may run under.
    pub(crate) claim: Option<Claim>,
    /// It waits for this moment.
    pub(crate) not_before: Option<Timestamp>,
    /// The moment is that of another attempt.
    pub(crate) is_retry: bool,
    /// It waits for somebody to release it.
    pub(crate) held: bool,
    /// How many other jobs it waits for.
    pub(crate) depends: u32,
    /// Whose turn it takes in a fair queue.
    pub(crate) group: Arc<str>,
    /// Which nodes could run it; nothing unless this is the hub of a cluster.
    pub(crate) class: Class,
}

/// The gate that is shut; where several are, the first of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Somebody has to release it.
    Held,
    /// So many other jobs have to end.
    Dependencies(u32),
    /// The time has not come.
    Time(Timestamp),
    /// The time of another attempt has not come.
    Retry(Timestamp),
    /// The key is taken, by this job among others.
    Key(Claim, Option<JobId>),
    /// It is heavier than what may run at all: in its queue, or in the service.
    NeverFits(u32),
    /// Its queue is paused, for this reason.
    QueuePaused(Option<String>),
    /// The rate of its queue lets the next job start then.
    Rate(Timestamp),
    /// Its queue has no room, or none for the job that is first there, if that is another one.
    Queue(Option<JobId>),
    /// No node of the cluster could run it, and why.
    NoNode(String),
    /// The service has no room.
    Slot,
}

/// Why a job is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The service has enough that waits.
    ServiceFull,
    /// Its queue has.
    QueueFull,
    /// It is heavier than the limit, which is this.
    TooHeavy(u32),
    /// This job has its key.
    Conflict(JobId),
}

impl Ticket {
    /// A plain job: no gate of its own.
    #[must_use]
    pub(crate) fn plain(job: JobId, queue: Arc<str>, priority: i32) -> Self {
        Self {
            job,
            queue,
            priority,
            weight: 1,
            claim: None,
            not_before: None,
            is_retry: false,
            held: false,
            depends: 0,
            group: Arc::default(),
            class: Class::default(),
        }
    }

    /// Does it wait for something before it comes into its queue?
    pub(super) fn waits_outside(&self) -> bool {
        self.held || self.depends > 0 || self.not_before.is_some()
    }

    pub(super) fn lane(&self, limit: u32) -> Lane {
        Lane {
            queue: self.queue.clone(),
            group: self.group.clone(),
            limit,
            class: self.class.clone(),
        }
    }
}
