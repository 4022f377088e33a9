//! The table of batches, and that of their entries.
//!
//! Each end of a job is counted by its own transaction, and the one that counts the last writes the end of the batch and
//! what is told of it. So the numbers hold, whatever becomes of the jobs' own rows.

use std::collections::BTreeMap;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row as SqlRow, params};
use serde::{Deserialize, Serialize};

use crate::encoding::{number_of, state_of};
use crate::events::{self, EventRow};
use crate::insertion::Insertion;
use crate::outbox::{self, WebhookRow};
use crate::tables::{Change, Row, Totals};
use crate::{Fault, Inserted, Store, StoreError};
use job::batch::{Batch, End, Ends, Group, OnFailure};
use job::event::{Event, What};
use job::life::Stop;
use job::time::Timestamp;
use job::webhook::Webhook;
use job::{Idempotency, JobId, State};

/// A new batch as it goes into its tables.
#[derive(Debug)]
pub(super) struct BatchRow {
    id: JobId,
    total: u32,
    created_at: i64,
    text: String,
    groups: Vec<Group>,
    webhooks: Vec<WebhookRow>,
}

/// What has no column of its own.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    created_by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rerun_of: Option<JobId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_running: Option<u32>,
    #[serde(default)]
    on_failure: OnFailure,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    webhooks: Vec<Webhook>,
    ttl_seconds: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stop: Option<Stop>,
}

/// How the jobs of one entry stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupState {
    /// The entry.
    pub group: Group,
    /// How many have ended well.
    pub succeeded: u32,
    /// How many have ended badly.
    pub failed: u32,
    /// How many were canceled.
    pub canceled: u32,
}

impl BatchRow {
    fn of(batch: &Batch, groups: Vec<Group>) -> Result<Self, Fault> {
        let record = Record {
            name: batch.name.clone(),
            labels: batch.labels.clone(),
            created_by: batch.created_by.clone(),
            rerun_of: batch.rerun_of,
            max_running: batch.max_running,
            on_failure: batch.on_failure,
            webhooks: batch.webhooks.clone(),
            ttl_seconds: batch.ttl_after_finished.as_secs(),
            stop: batch.stop.clone(),
        };
        Ok(Self {
            id: batch.id,
            total: batch.total,
            created_at: batch.created_at.as_micros(),
            text: serde_json::to_string(&record)?,
            groups,
            webhooks: outbox::webhook_rows(&batch.webhooks),
        })
    }
}

/// The batches of a [`Store`]; [`Store::delete`] removes their jobs.
#[derive(Clone, Copy, Debug)]
pub struct Batches<'a>(pub(super) &'a Store);

impl Batches<'_> {
    /// Stores a batch with its jobs, which are in the insertion.
    ///
    /// # Errors
    /// Nothing is stored then.
    pub async fn insert(
        self,
        batch: &Batch,
        groups: Vec<Group>,
        idempotency: Option<Idempotency>,
        mut insertion: Insertion,
    ) -> Result<Inserted, StoreError> {
        let doing = "cannot store a new batch";
        let row = BatchRow::of(batch, groups).map_err(|it| it.doing(doing))?;
        if let Some(idempotency) = idempotency {
            insertion.keyed(&batch.created_by, idempotency, batch.id);
        }
        let created = What::BatchCreated {
            by: batch.created_by.clone(),
            rerun_of: batch.rerun_of,
            total: batch.total,
        };
        let created = Event::of_batch(batch, batch.created_at, created);
        let created = EventRow::of(created).map_err(|it| it.doing(doing))?;
        insertion.events.insert(0, created);
        insertion.also(Change::PutBatch(Box::new(row)));
        self.0.insert_all(insertion).await
    }

    /// A batch as it stands.
    ///
    /// # Errors
    /// If the row cannot be read.
    pub async fn get(self, id: JobId) -> Result<Option<Batch>, StoreError> {
        self.0
            .readers
            .read("cannot read a batch", move |connection| get(connection, id))
            .await
    }

    /// The entries of a batch, in their order.
    ///
    /// # Errors
    /// If a row cannot be read.
    pub async fn groups(self, id: JobId) -> Result<Vec<GroupState>, StoreError> {
        self.0
            .readers
            .read("cannot read a batch", move |connection| {
                groups(connection, id)
            })
            .await
    }

    /// Batches after this one, newest first.
    ///
    /// # Errors
    /// If a row cannot be read.
    pub async fn list(self, after: Option<JobId>, limit: usize) -> Result<Vec<Batch>, StoreError> {
        self.0
            .readers
            .read("cannot read the batches", move |connection| {
                let before = after.map_or([0xff; 16], |id| *id.as_bytes());
                let limit = i64::try_from(limit).unwrap_or(i64::MAX);
                let sql = format!("{SELECT} WHERE id < ? ORDER BY id DESC LIMIT ?");
                all(connection, &sql, params![before, limit])
            })
            .await
    }

    /// The batches that have not ended.
    ///
    /// # Errors
    /// If a row cannot be read.
    pub async fn running(self) -> Result<Vec<Batch>, StoreError> {
        self.0
            .readers
            .read("cannot read the batches", move |connection| {
                let sql = format!("{SELECT} WHERE finished_at IS NULL ORDER BY id");
                all(connection, &sql, [])
            })
            .await
    }

    /// Batches whose time is up, those first whose time was up first.
    ///
    /// # Errors
    /// If the index cannot be read.
    pub async fn expired(self, now: Timestamp, limit: usize) -> Result<Vec<JobId>, StoreError> {
        self.0
            .readers
            .read("cannot read the expired batches", move |connection| {
                let limit = i64::try_from(limit).unwrap_or(i64::MAX);
                let mut statement = connection.prepare_cached(
                    "SELECT id FROM batches WHERE expires_at <= ? ORDER BY expires_at LIMIT ?",
                )?;
                let rows = statement.query_map([now.as_micros(), limit], |row| {
                    row.get(0).map(JobId::from_bytes)
                })?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// Notes that a batch is to end, for a server that finds it with jobs that have not. The last such wish holds.
    ///
    /// # Errors
    /// It is not noted then.
    pub async fn stop(self, id: JobId, stop: &Stop) -> Result<(), StoreError> {
        let doing = "cannot note the stop of a batch";
        let text = serde_json::to_string(stop).map_err(|error| Fault::from(error).doing(doing))?;
        self.0
            .writer
            .change(Change::StopBatch(id, text), doing)
            .await
    }

    /// Removes a batch, but not its jobs.
    ///
    /// # Errors
    /// It is still there then.
    pub async fn delete(self, id: JobId) -> Result<(), StoreError> {
        let doing = "cannot remove a batch";
        self.0.writer.change(Change::DeleteBatch(id), doing).await
    }
}

pub(super) fn put(connection: &Connection, row: &BatchRow) -> Result<(), Fault> {
    connection
        .prepare_cached(
            "INSERT INTO batches (id, state, total, succeeded, failed, canceled, timed_out, lost, created_at, batch)
             VALUES (?, ?, ?, 0, 0, 0, 0, 0, ?, ?)",
        )?
        .execute(params![
            row.id.as_bytes(),
            number_of(State::Running),
            row.total,
            row.created_at,
            row.text
        ])?;
    let mut insert = connection.prepare_cached(
        "INSERT INTO batch_groups (batch, number, key, first, count, succeeded, failed, canceled)
         VALUES (?, ?, ?, ?, ?, 0, 0, 0)",
    )?;
    for (number, group) in (0_i64..).zip(&row.groups) {
        insert.execute(params![
            row.id.as_bytes(),
            number,
            group.key,
            group.first.as_bytes(),
            group.count
        ])?;
    }
    outbox::insert(connection, row.id, &row.webhooks)
}

pub(super) fn stop(connection: &Connection, id: JobId, stop: &str) -> Result<(), Fault> {
    connection
        .prepare_cached(
            "UPDATE batches SET batch = json_set(batch, '$.stop', json(?))
             WHERE id = ? AND finished_at IS NULL",
        )?
        .execute(params![stop, id.as_bytes()])?;
    Ok(())
}

pub(super) fn delete(connection: &Connection, id: JobId) -> Result<(), Fault> {
    for sql in [
        "DELETE FROM batches WHERE id = ?",
        "DELETE FROM batch_groups WHERE batch = ?",
        "DELETE FROM idempotency WHERE id = ?",
    ] {
        connection.prepare_cached(sql)?.execute([id.as_bytes()])?;
    }
    events::delete(connection, id)?;
    outbox::delete(connection, id)?;
    Ok(())
}

/// Counts a job that has just ended; with the last one, the batch has ended.
pub(super) fn end_one(
    connection: &Connection,
    row: &Row,
    totals: &mut Totals,
) -> Result<(), Fault> {
    let Some(place) = row.place() else {
        return Ok(());
    };
    let id = place.batch;
    let state = state_of(row.state()).ok_or(Fault::UnknownState(row.state()))?;
    let Some(end) = End::of(state) else {
        return Ok(());
    };
    let column = match end {
        End::Succeeded => "succeeded",
        End::Failed => "failed",
        End::Canceled => "canceled",
    };
    connection
        .prepare_cached(&format!(
            "UPDATE batch_groups SET {column} = {column} + 1 WHERE batch = ? AND number = ?"
        ))?
        .execute(params![id.as_bytes(), place.group])?;
    let column = state.as_str();
    connection
        .prepare_cached(&format!(
            "UPDATE batches SET {column} = {column} + 1 WHERE id = ?"
        ))?
        .execute([id.as_bytes()])?;
    let Some(mut batch) = get(connection, id)? else {
        return Ok(());
    };
    if batch.ends.all() < batch.total {
        return Ok(());
    }
    let at = place.finished_at;
    batch.state = batch.ends.state(batch.total);
    batch.finished_at = Some(at);
    let expires_at = at.after(batch.ttl_after_finished);
    connection
        .prepare_cached(
            "UPDATE batches SET state = ?, finished_at = ?, expires_at = ? WHERE id = ?",
        )?
        .execute(params![
            number_of(batch.state),
            at.as_micros(),
            expires_at.as_micros(),
            id.as_bytes()
        ])?;
    let finished = What::BatchFinished {
        total: batch.total,
        ends: batch.ends,
    };
    let event = EventRow::of(Event::of_batch(&batch, at, finished))?;
    events::insert(connection, &[event], totals)
}

const SELECT: &str = "SELECT id, state, total, succeeded, failed, canceled, timed_out, lost, created_at, \
                      finished_at, expires_at, batch FROM batches";

fn get(connection: &Connection, id: JobId) -> Result<Option<Batch>, Fault> {
    let found = connection
        .prepare_cached(&format!("{SELECT} WHERE id = ?"))?
        .query_row([id.as_bytes()], read)
        .optional()?;
    found.map(decode).transpose()
}

fn all(
    connection: &Connection,
    sql: &str,
    values: impl rusqlite::Params,
) -> Result<Vec<Batch>, Fault> {
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(values, read)?;
    rows.map(|row| decode(row?)).collect()
}

/// The columns of a batch: its id, state, total, times and text.
struct Columns {
    id: JobId,
    state: i64,
    total: u32,
    ends: Ends,
    created_at: i64,
    finished_at: Option<i64>,
    expires_at: Option<i64>,
    text: String,
}

fn read(row: &SqlRow<'_>) -> rusqlite::Result<Columns> {
    Ok(Columns {
        id: JobId::from_bytes(row.get(0)?),
        state: row.get(1)?,
        total: row.get(2)?,
        ends: Ends {
            succeeded: row.get(3)?,
            failed: row.get(4)?,
            canceled: row.get(5)?,
            timed_out: row.get(6)?,
            lost: row.get(7)?,
        },
        created_at: row.get(8)?,
        finished_at: row.get(9)?,
        expires_at: row.get(10)?,
        text: row.get(11)?,
    })
}

fn decode(columns: Columns) -> Result<Batch, Fault> {
    let record: Record = serde_json::from_str(&columns.text)?;
    let state = state_of(columns.state).ok_or(Fault::UnknownState(columns.state))?;
    Ok(Batch {
        id: columns.id,
        name: record.name,
        labels: record.labels,
        created_by: record.created_by,
        rerun_of: record.rerun_of,
        max_running: record.max_running,
        on_failure: record.on_failure,
        webhooks: record.webhooks,
        ttl_after_finished: Duration::from_secs(record.ttl_seconds),
        stop: record.stop,
        created_at: Timestamp::from_micros(columns.created_at),
        state,
        finished_at: columns.finished_at.map(Timestamp::from_micros),
        expires_at: columns.expires_at.map(Timestamp::from_micros),
        total: columns.total,
        ends: columns.ends,
    })
}

fn groups(connection: &Connection, id: JobId) -> Result<Vec<GroupState>, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT key, first, count, succeeded, failed, canceled FROM batch_groups
         WHERE batch = ? ORDER BY number",
    )?;
    let rows = statement.query_map([id.as_bytes()], |row| {
        Ok(GroupState {
            group: Group {
                key: row.get(0)?,
                first: JobId::from_bytes(row.get(1)?),
                count: row.get(2)?,
            },
            succeeded: row.get(3)?,
            failed: row.get(4)?,
            canceled: row.get(5)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
