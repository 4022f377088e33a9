//! Short output of jobs that are over: it needs no files, and is as durable as their end, with which it is stored.
//!
//! What is in it is not known here.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use crate::events::EventRow;
use crate::tables::{Change, Row};
use crate::{Fault, Store, StoreError};
use job::event::Event;
use job::{Job, JobId};

/// The short output of the store's jobs.
#[derive(Clone, Copy, Debug)]
pub struct Outputs<'a>(pub(super) &'a Store);

impl Outputs<'_> {
    /// [`Store::finish`], with the job's output.
    ///
    /// # Errors
    /// As there.
    pub async fn finish(
        &self,
        job: Arc<Job>,
        events: Vec<Event>,
        short: Option<Arc<[u8]>>,
    ) -> Result<(), StoreError> {
        let doing = "cannot store the end of a job";
        if !job.state.is_terminal() {
            return Err(Fault::NoSuchJob.doing(doing));
        }
        let change = Row::of(&job)
            .and_then(|row| {
                Ok(Change::Finish(
                    row.with_output(short),
                    EventRow::all(events)?,
                ))
            })
            .map_err(|it| it.doing(doing))?;
        self.0.writer.change(change, doing).await
    }

    /// The output of a job that is over, as it was stored; `None` if there is none.
    ///
    /// # Errors
    /// If the row cannot be read.
    pub async fn get(&self, id: JobId) -> Result<Option<Vec<u8>>, StoreError> {
        let doing = "cannot read the output of a job";
        let read = move |connection: &Connection| {
            let row = connection
                .prepare_cached(
                    "SELECT output FROM outputs WHERE seq = (SELECT seq FROM finished WHERE id = ?)",
                )?
                .query_row([id.as_bytes()], |row| row.get(0));
            Ok(row.optional()?)
        };
        self.0.readers.read(doing, read).await
    }
}

/// Writes the output of a job that is over, if it is short.
pub(super) fn put(connection: &Connection, id: JobId, short: Option<&[u8]>) -> Result<(), Fault> {
    if let Some(short) = short {
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO outputs (seq, output) SELECT seq, ? FROM finished WHERE id = ?",
            )?
            .execute(params![short, id.as_bytes()])?;
    }
    Ok(())
}

/// Removes a job's output, before its row.
pub(super) fn delete(connection: &Connection, id: JobId) -> Result<(), Fault> {
    connection
        .prepare_cached("DELETE FROM outputs WHERE seq = (SELECT seq FROM finished WHERE id = ?)")?
        .execute([id.as_bytes()])?;
    Ok(())
}
