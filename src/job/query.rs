//! Which jobs a list shows, and in which order.

use crate::selector::Selector;
use crate::time::Timestamp;
use crate::{Job, JobId, State};

/// A node as a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnNode {
    /// The one of this name, to which a hub has given the job.
    Named(String),
    /// The hub itself, which has started the job.
    Hub,
}

impl OnNode {
    /// Is it the node of this job, or was it at the job's end?
    #[must_use]
    pub fn has(&self, job: &Job) -> bool {
        match (self, &job.claim) {
            (Self::Named(name), Some(claim)) => claim.node.as_str() == name,
            (Self::Hub, None) => job.process.is_some(),
            (Self::Named(_), None) | (Self::Hub, Some(_)) => false,
        }
    }
}

/// Conditions on jobs; the default lets every job pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// One of these states; empty for any.
    pub states: Vec<State>,
    /// Labels.
    pub selector: Selector,
    /// Exactly this name.
    pub name: Option<String>,
    /// The name begins with this.
    pub name_prefix: Option<String>,
    /// Exactly this queue.
    pub queue: Option<String>,
    /// Of this batch.
    pub batch: Option<JobId>,
    /// Of this schedule.
    pub schedule: Option<String>,
    /// Of this node of the cluster.
    pub node: Option<OnNode>,
    /// Created by exactly this actor.
    pub created_by: Option<String>,
    /// Created at or after.
    pub created_after: Option<Timestamp>,
    /// Created before.
    pub created_before: Option<Timestamp>,
}

impl Filter {
    /// Does this job pass?
    #[must_use]
    pub fn matches(&self, job: &Job) -> bool {
        (self.states.is_empty() || self.states.contains(&job.state))
            && self.selector.matches(&job.labels)
            && self
                .name
                .as_deref()
                .is_none_or(|name| job.name.as_deref() == Some(name))
            && self.name_prefix.as_deref().is_none_or(|prefix| {
                job.name
                    .as_deref()
                    .is_some_and(|name| name.starts_with(prefix))
            })
            && self
                .queue
                .as_deref()
                .is_none_or(|queue| job.spec.queue == queue)
            && self.schedule.as_deref().is_none_or(|name| {
                let of = job.schedule.as_ref();
                of.is_some_and(|it| it.name == name)
            })
            && self.node.as_ref().is_none_or(|node| node.has(job))
            && self
                .created_by
                .as_deref()
                .is_none_or(|actor| job.created_by == actor)
            && self
                .batch
                .is_none_or(|batch| job.batch.as_ref().is_some_and(|it| it.id == batch))
            && self
                .created_after
                .is_none_or(|moment| job.created_at >= moment)
            && self
                .created_before
                .is_none_or(|moment| job.created_at < moment)
    }
}

/// The order of a list. Ids ascend with the creation time, so the id is the sort key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Newest first.
    #[default]
    CreatedDescending,
    /// Oldest first.
    CreatedAscending,
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Which jobs.
    pub filter: Filter,
    /// In which order.
    pub order: Order,
    /// Only jobs that come strictly after this one in that order.
    pub after: Option<JobId>,
    /// At most so many.
    pub limit: usize,
    /// The large parts of their specs need not be there: arguments, script, variables, standard input, inputs.
    pub is_brief: bool,
}

impl Query {
    /// Does a job with this id come after where the page before ended?
    #[must_use]
    pub fn is_after(&self, id: JobId) -> bool {
        self.after.is_none_or(|after| match self.order {
            Order::CreatedAscending => id > after,
            Order::CreatedDescending => id < after,
        })
    }
}
