//! What is told of jobs: when it is durable, and what it is as soon as it is.

use tokio::sync::mpsc;

use crate::events::{self, EventRow};
use crate::tables::Change;
use crate::{Store, StoreError};
use job::JobId;
use job::event::{Cursor, Event};

/// What is told of jobs.
#[derive(Debug)]
pub struct Tellings<'a>(pub &'a Store);

impl Tellings<'_> {
    /// What is told of a job from now on, once it is durable and before it is known to be by who told it; closed when
    /// there will be no more. There is one who listens to a job: the last one that has asked.
    #[must_use]
    pub fn of(&self, job: JobId) -> mpsc::UnboundedReceiver<Telling> {
        self.0.writer.feed().listen(job)
    }

    /// Something that was told found no room, and is tried again: what was told after it may be durable before it.
    #[must_use]
    pub fn are_owed(&self) -> bool {
        self.0.writer.owes()
    }

    /// Returns once what was told before is durable.
    ///
    /// # Errors
    /// If the store failed; what was told is then made durable later.
    pub async fn are_durable(&self) -> Result<(), StoreError> {
        let nothing = Change::Delete(Vec::new());
        let doing = "cannot store what was told";
        self.0.writer.change(nothing, doing).await
    }
}

/// What has been told of a job and is durable.
#[derive(Debug)]
pub struct Telling {
    /// Its cursor.
    pub cursor: Cursor,
    job: JobId,
    at: i64,
    text: String,
}

impl Telling {
    pub(super) fn of(row: &EventRow) -> Self {
        Self {
            cursor: row.cursor.get(),
            job: row.job,
            at: row.at,
            text: row.text.clone(),
        }
    }

    /// What it is.
    ///
    /// # Errors
    /// If it is not as it was written.
    pub fn event(&self) -> Result<Event, StoreError> {
        events::decode(self.job, self.at, &self.text).map_err(|it| it.doing("cannot read an event"))
    }
}
