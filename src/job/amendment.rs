//! What can be changed of a job after it was accepted. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::Job;
use crate::placement::Placement;
use crate::queue::Concurrency;
use crate::retry::Retry;
use crate::spec::StopPolicy;
use crate::time::Timestamp;
use crate::workspace::Uploads;

/// The changeable parts of a job, all of them as they are to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Amendment {
    /// A name for people.
    pub name: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// How long it may run, from its start.
    pub timeout: Option<Duration>,
    /// How a stop goes.
    pub stop: StopPolicy,
    /// How long the record stays readable after the end.
    pub ttl_after_finished: Duration,
    /// The queue it waits in.
    pub queue: String,
    /// Higher starts first.
    pub priority: i32,
    /// How much of the limits it takes while it runs.
    pub weight: u32,
    /// The key that it runs under.
    pub concurrency: Option<Concurrency>,
    /// Whether it is tried again if it fails.
    pub retry: Option<Retry>,
    /// Where in a cluster it may run.
    pub placement: Option<Placement>,
    /// It does not start before this moment.
    pub run_at: Option<Timestamp>,
    /// It does not start before it is released.
    pub hold: bool,
    /// Between two attempts, when the next one may begin.
    pub next_attempt_at: Option<Timestamp>,
    /// Where files are that were uploaded for it.
    pub uploads: Option<Box<Uploads>>,
}

impl Amendment {
    /// What leaves the job as it is.
    #[must_use]
    pub fn none(job: &Job) -> Self {
        let spec = &job.spec;
        Self {
            name: job.name.clone(),
            labels: job.labels.clone(),
            timeout: spec.timeout,
            stop: spec.stop,
            ttl_after_finished: spec.ttl_after_finished,
            queue: spec.queue.clone(),
            priority: spec.priority,
            weight: spec.weight,
            concurrency: spec.concurrency.clone(),
            retry: spec.retry.clone(),
            placement: spec.placement.clone(),
            run_at: job.run_at,
            hold: job.hold,
            next_attempt_at: job.next_attempt_at,
            uploads: job.uploads.clone(),
        }
    }

    /// Changes what its monitor has to know.
    #[must_use]
    pub fn changes_plan(&self, job: &Job) -> bool {
        self.timeout != job.spec.timeout || self.stop != job.spec.stop
    }

    /// Changes its place among the jobs that wait.
    #[must_use]
    pub fn changes_place(&self, job: &Job) -> bool {
        let spec = &job.spec;
        self.queue != spec.queue
            || self.priority != spec.priority
            || self.weight != spec.weight
            || self.concurrency != spec.concurrency
            || self.placement != spec.placement
            || self.run_at != job.run_at
            || self.hold != job.hold
            || self.next_attempt_at != job.next_attempt_at
    }

    /// Puts it into effect, as far as the job's own description goes.
    pub fn apply(self, job: &mut Job) {
        job.name = self.name;
        job.labels = self.labels;
        job.run_at = self.run_at;
        job.hold = self.hold;
        job.next_attempt_at = self.next_attempt_at;
        job.uploads = self.uploads;
        let spec = Arc::make_mut(&mut job.spec);
        spec.timeout = self.timeout;
        spec.stop = self.stop;
        spec.ttl_after_finished = self.ttl_after_finished;
        spec.queue = self.queue;
        spec.priority = self.priority;
        spec.weight = self.weight;
        spec.concurrency = self.concurrency;
        spec.retry = self.retry;
        spec.placement = self.placement;
        job.expires_at = job.finished_at.map(|at| at.after(self.ttl_after_finished));
    }
}
