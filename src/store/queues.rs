//! The table of queues of which something is set, and that of their last starts.

use std::time::Duration;

use rusqlite::{Connection, params};

use crate::events::EventRow;
use crate::tables::Change;
use crate::{Fault, Store, StoreError};
use job::event::{Event, What};
use job::queue::{Queue, Settings};
use job::time::Timestamp;

/// A queue as it goes into its table.
#[derive(Debug)]
pub(super) struct QueueRow {
    queue: Queue,
    settings: String,
    pub(super) event: EventRow,
}

impl QueueRow {
    /// Done by the caller, so that the one writer has less to do.
    pub(super) fn of(queue: Queue) -> Result<Self, Fault> {
        let settings = serde_json::to_string(&queue.settings)?;
        let event = EventRow::of(Event::of_queue(&queue))?;
        Ok(Self {
            queue,
            settings,
            event,
        })
    }
}

/// A start in a queue that has a rate.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) queue: String,
    pub(super) at: Timestamp,
    /// How long it matters.
    pub(super) window: Duration,
}

/// The queues of a [`Store`].
#[derive(Clone, Copy, Debug)]
pub struct Queues<'a>(pub(super) &'a Store);

impl Queues<'_> {
    /// The queues of which something is set, and the last starts in those that have a rate, oldest first.
    ///
    /// # Errors
    /// If a row cannot be read.
    pub async fn all(self) -> Result<(Vec<Queue>, Vec<(String, Timestamp)>), StoreError> {
        self.0.readers.read("cannot read the queues", all).await
    }

    /// Makes what is set of a queue durable and an event.
    ///
    /// # Errors
    /// What was set before is still set then.
    pub async fn put(self, queue: Queue) -> Result<(), StoreError> {
        let doing = "cannot store a queue";
        let row = QueueRow::of(queue).map_err(|it| it.doing(doing))?;
        self.0
            .writer
            .change(Change::PutQueue(Box::new(row)), doing)
            .await
    }

    /// Forgets what is set of a queue.
    ///
    /// # Errors
    /// It is still set then.
    pub async fn delete(self, name: String, at: Timestamp) -> Result<(), StoreError> {
        let doing = "cannot remove a queue";
        let event = Event::of_name(&name, at, What::QueueChanged);
        let event = EventRow::of(event).map_err(|it| it.doing(doing))?;
        let change = Change::DeleteQueue(name, event);
        self.0.writer.change(change, doing).await
    }

    /// Tells of a start in a queue whose rate counts it for so long. It becomes durable as what is told of jobs does.
    pub fn tell_start(self, queue: String, at: Timestamp, window: Duration) {
        self.0.writer.tell_start(Start { queue, at, window });
    }
}

pub(super) fn put(connection: &Connection, row: &QueueRow) -> Result<(), Fault> {
    let queue = &row.queue;
    let version = i64::try_from(queue.version).unwrap_or(i64::MAX);
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO queues (name, settings, version, created_at, changed_at)
             VALUES (?, ?, ?, ?, ?)",
        )?
        .execute(params![
            queue.name,
            row.settings,
            version,
            queue.created_at.as_micros(),
            queue.changed_at.as_micros()
        ])?;
    Ok(())
}

pub(super) fn delete(connection: &Connection, name: &str) -> Result<(), Fault> {
    for sql in [
        "DELETE FROM queues WHERE name = ?",
        "DELETE FROM queue_starts WHERE queue = ?",
    ] {
        connection.prepare_cached(sql)?.execute([name])?;
    }
    Ok(())
}

/// Adds a start, and removes those that do not matter any more.
pub(super) fn start(connection: &Connection, start: &Start) -> Result<(), Fault> {
    let at = start.at.as_micros();
    let window = i64::try_from(start.window.as_micros()).unwrap_or(i64::MAX);
    connection
        .prepare_cached("DELETE FROM queue_starts WHERE queue = ? AND at < ?")?
        .execute(params![start.queue, at.saturating_sub(window)])?;
    connection
        .prepare_cached("INSERT INTO queue_starts (queue, at) VALUES (?, ?)")?
        .execute(params![start.queue, at])?;
    Ok(())
}

pub(super) type QueuesAndStarts = (Vec<Queue>, Vec<(String, Timestamp)>);

pub(super) fn all(connection: &Connection) -> Result<QueuesAndStarts, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT name, settings, version, created_at, changed_at FROM queues ORDER BY name",
    )?;
    let rows = statement.query_map([], |row| {
        Ok((
            row.get::<_, String>(0)?,
            row.get::<_, String>(1)?,
            row.get::<_, i64>(2)?,
            row.get::<_, i64>(3)?,
            row.get::<_, i64>(4)?,
        ))
    })?;
    let queues = rows.map(|row| {
        let (name, settings, version, created_at, changed_at) = row?;
        Ok(Queue {
            name,
            settings: serde_json::from_str::<Settings>(&settings)?,
            version: u64::try_from(version).unwrap_or_default(),
            created_at: Timestamp::from_micros(created_at),
            changed_at: Timestamp::from_micros(changed_at),
        })
    });
    let queues = queues.collect::<Result<Vec<Queue>, Fault>>()?;
    let mut statement =
        connection.prepare_cached("SELECT queue, at FROM queue_starts ORDER BY at")?;
    let starts = statement.query_map([], |row| {
        Ok((row.get(0)?, Timestamp::from_micros(row.get(1)?)))
    })?;
    Ok((queues, starts.collect::<Result<_, _>>()?))
}
