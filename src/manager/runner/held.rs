//! The job of a task, in one piece with what it shows to others.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use job::Job;

/// A job that is shared with whoever has been shown it, and copied when it changes after that.
#[derive(Clone)]
pub(crate) struct Held(Arc<Job>);

impl Held {
    pub(crate) fn new(job: Job) -> Self {
        Self(Arc::new(job))
    }

    /// As it is now, for others.
    pub(crate) fn shown(&self) -> Arc<Job> {
        self.0.clone()
    }
}

impl Deref for Held {
    type Target = Job;

    fn deref(&self) -> &Job {
        &self.0
    }
}

impl DerefMut for Held {
    fn deref_mut(&mut self) -> &mut Job {
        Arc::make_mut(&mut self.0)
    }
}
