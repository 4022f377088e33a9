//! What the writer does to the tables: rows of jobs, their labels, secrets and keys, and the totals.
//!
//! Each function is part of a transaction that somebody else begins and commits. When that is, and who
//! waits for it, is not known here.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, ToSql, params};

use crate::batches::{self, BatchRow};
use crate::bulk::{self, Bulk};
use crate::encoding::{self, Columns, Encoded, Indexed};
use crate::events::{self, EventRow};
use crate::outbox::{self, Settlement};
use crate::outputs;
use crate::queues::{self, QueueRow};
use crate::schedules::{self, ScheduleRow};
use crate::shared_files;
use crate::{Fault, Inserted};
use job::time::Timestamp;
use job::{Idempotency, Job, JobId};

/// The queue of jobs that name none.
pub(super) const DEFAULT_QUEUE: &str = "default";

/// The key of the queue in the index of labels.
pub(super) const QUEUE_LABEL: &str = "#queue";

/// The key of the batch in it.
pub(super) const BATCH_LABEL: &str = "#batch";

/// The key of the job's name there.
pub(super) const NAME_LABEL: &str = "#name";

/// The key of the job's schedule there.
pub(super) const SCHEDULE_LABEL: &str = "#schedule";

/// The key of the job's node there.
pub(super) const NODE_LABEL: &str = "#node";

/// The key of who created the job there.
pub(super) const CREATOR_LABEL: &str = "#by";

/// Who creates all jobs of a service that asks nobody who they are. No index helps to find most of what there is.
const NOBODY: &str = "anonymous";

/// A job as it goes into a table.
#[derive(Debug)]
pub(super) struct Row {
    columns: Columns,
    queue: Box<str>,
    text: String,
    /// Boxed, as few have any.
    beside: Option<Box<Beside>>,
    has_webhooks: bool,
    /// Bytes of its output that are kept here.
    output: i64,
    /// Boxed, as few jobs have one.
    place: Option<Box<Place>>,
}

/// What is stored beside a row.
#[derive(Debug, Default)]
struct Beside {
    bulk: Option<Bulk>,
    /// Its output, if that is short.
    short: Option<Arc<[u8]>>,
}

/// The place of a job in its batch.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) batch: JobId,
    pub(super) group: u32,
    pub(super) finished_at: Timestamp,
}

impl Row {
    /// Done by the caller, so that the one writer has less to do.
    pub(super) fn of(job: &Job) -> Result<Self, Fault> {
        let Encoded {
            columns,
            text,
            bulk,
        } = encoding::encode(job)?;
        Ok(Self {
            columns,
            queue: job.spec.queue.as_str().into(),
            text,
            beside: bulk.map(|bulk| {
                Box::new(Beside {
                    bulk: Some(bulk),
                    short: None,
                })
            }),
            has_webhooks: !job.spec.webhooks.is_empty(),
            output: encoding::kept_output(job),
            place: job.batch.as_ref().map(|it| {
                Box::new(Place {
                    batch: it.id,
                    group: it.group,
                    finished_at: job.finished_at.unwrap_or_default(),
                })
            }),
        })
    }

    /// The same with the job's output beside it.
    pub(super) fn with_output(mut self, short: Option<Arc<[u8]>>) -> Self {
        if short.is_some() {
            self.beside.get_or_insert_default().short = short;
        }
        self
    }

    pub(super) fn id(&self) -> JobId {
        self.columns.id
    }

    /// The place of the job in its batch.
    pub(super) fn place(&self) -> Option<&Place> {
        self.place.as_deref()
    }

    pub(super) fn state(&self) -> i64 {
        self.columns.state
    }

    /// There may be rows in the tables of what is to be delivered.
    pub(super) fn has_webhooks(&self) -> bool {
        self.has_webhooks
    }
}

/// A change of jobs that are there, with what is to be told of it.
#[derive(Debug)]
pub(super) enum Change {
    Update(Row, Vec<EventRow>),
    Finish(Row, Vec<EventRow>),
    Delete(Vec<JobId>),
    /// Boxed, as they are rare and commands are moved often.
    PutQueue(Box<QueueRow>),
    DeleteQueue(String, EventRow),
    PutBatch(Box<BatchRow>),
    DeleteBatch(JobId),
    StopBatch(JobId, String),
    PutSchedule(Box<ScheduleRow>),
    StepSchedule(Box<ScheduleRow>),
    DeleteSchedule(String, EventRow),
    /// What became of an attempt to deliver an event of this job.
    Settle(i64, JobId, Settlement),
    /// The content of a file of the state directory, for the copies of a store with a log.
    KeepFile(String, String),
}

/// Numbers about the whole store.
///
/// They are in a row of their own, and in the row of each event as they were when it was written. Of that row and
/// the newest event the newer one counts, so that a transaction that adds an event and does nothing unusual
/// need not touch the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Totals {
    /// Jobs in a terminal state.
    pub(super) finished: i64,
    /// Bytes of their output that are kept here.
    pub(super) output: i64,
    /// The cursor of the newest event that there ever was.
    pub(super) last_event: i64,
    /// The newest cursor whose event has been removed to make room.
    pub(super) pruned_events: i64,
}

impl Totals {
    /// Both rows must be of one moment: read in a transaction, where others write.
    pub(super) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let mut totals = connection
            .prepare_cached("SELECT finished, output, last_event, pruned_events FROM totals")?
            .query_row([], |row| {
                Ok(Self {
                    finished: row.get(0)?,
                    output: row.get(1)?,
                    last_event: row.get(2)?,
                    pruned_events: row.get(3)?,
                })
            })?;
        let newest: Option<(i64, i64, i64)> = connection
            .prepare_cached("SELECT seq, finished, output FROM events ORDER BY seq DESC LIMIT 1")?
            .query_row([], |row| row.try_into())
            .optional()?;
        if let Some((seq, finished, output)) = newest
            && seq > totals.last_event
        {
            totals.last_event = seq;
            totals.finished = finished;
            totals.output = output;
        }
        Ok(totals)
    }

    /// Writes what the tables do not say already.
    pub(super) fn write(self, connection: &Connection) -> rusqlite::Result<()> {
        if Self::read(connection)? == self {
            return Ok(());
        }
        connection
            .prepare_cached(
                "UPDATE totals SET finished = ?, output = ?, last_event = ?, pruned_events = ?",
            )?
            .execute([
                self.finished,
                self.output,
                self.last_event,
                self.pruned_events,
            ])?;
        Ok(())
    }

    /// There are so many more finished jobs, with so much more output.
    fn add(&mut self, jobs: i64, output: i64) {
        self.finished = self.finished.saturating_add(jobs);
        self.output = self.output.saturating_add(output);
    }
}

/// What an earlier submission with this key made of a later one; `None` if there was none.
pub(super) fn submitted(
    connection: &Connection,
    actor: &str,
    idempotency: &Idempotency,
) -> rusqlite::Result<Option<Inserted>> {
    let owner = connection
        .prepare_cached("SELECT fingerprint, id FROM idempotency WHERE actor = ? AND key = ?")?
        .query_row(params![actor, idempotency.key], |row| {
            Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, [u8; 16]>(1)?))
        })
        .optional()?;
    Ok(owner.map(|(fingerprint, id)| {
        if fingerprint == idempotency.fingerprint {
            Inserted::Replay(JobId::from_bytes(id))
        } else {
            Inserted::KeyReused
        }
    }))
}

/// What a submission with this key has made.
pub(super) fn made(
    connection: &Connection,
    actor: &str,
    key: &str,
) -> rusqlite::Result<Option<JobId>> {
    connection
        .prepare_cached("SELECT id FROM idempotency WHERE actor = ? AND key = ?")?
        .query_row([actor, key], |row| row.get(0).map(JobId::from_bytes))
        .optional()
}

/// Adds a job that is not in a terminal state.
pub(super) fn insert_live(connection: &Connection, row: &Row) -> Result<(), Fault> {
    connection
        .prepare_cached(
            "INSERT INTO live (id, state, name, created_at, expires_at, job)
             VALUES (?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            row.columns.id.as_bytes(),
            row.columns.state,
            row.columns.name,
            row.columns.created_at,
            row.columns.expires_at,
            row.text
        ])?;
    put_beside(connection, row)
}

/// Makes a change; the events of it are somebody else's.
pub(super) fn change(
    connection: &Connection,
    change: &Change,
    totals: &mut Totals,
) -> Result<(), Fault> {
    match change {
        Change::Update(row, _) => update(connection, row),
        Change::Finish(row, _) => finish(connection, row, totals).map(drop),
        Change::Delete(ids) => {
            for id in ids {
                delete(connection, *id, totals)?;
            }
            Ok(())
        }
        Change::PutQueue(row) => queues::put(connection, row),
        Change::DeleteQueue(name, _) => queues::delete(connection, name),
        Change::PutBatch(row) => batches::put(connection, row),
        Change::StopBatch(id, stop) => batches::stop(connection, *id, stop),
        Change::DeleteBatch(id) => batches::delete(connection, *id),
        Change::PutSchedule(row) => schedules::put(connection, row),
        Change::StepSchedule(row) => schedules::step(connection, row),
        Change::DeleteSchedule(name, _) => schedules::delete(connection, name),
        Change::Settle(id, job, settlement) => {
            outbox::settle(connection, *id, *job, settlement, totals)
        }
        Change::KeepFile(name, content) => shared_files::keep_file(connection, name, content),
    }
}

fn update(connection: &Connection, row: &Row) -> Result<(), Fault> {
    let changed = connection
        .prepare_cached(
            "UPDATE live SET state = ?, name = ?, created_at = ?, expires_at = ?, job = ?
             WHERE id = ?",
        )?
        .execute(params![
            row.columns.state,
            row.columns.name,
            row.columns.created_at,
            row.columns.expires_at,
            row.text,
            row.columns.id.as_bytes()
        ])?;
    if changed == 0 {
        return Err(Fault::NoSuchJob);
    }
    put_beside(connection, row)
}

/// `true`: it had not finished before.
pub(super) fn finish(
    connection: &Connection,
    row: &Row,
    totals: &mut Totals,
) -> Result<bool, Fault> {
    let id = row.columns.id.as_bytes();
    let was_live = connection
        .prepare_cached("DELETE FROM live WHERE id = ?")?
        .execute([id])?;
    if was_live == 0 {
        refinish(connection, row, totals)?;
        return Ok(false);
    }
    insert_finished(connection, row, totals)?;
    connection
        .prepare_cached("DELETE FROM secrets WHERE id = ?")?
        .execute([id])?;
    Ok(true)
}

pub(super) fn insert_finished(
    connection: &Connection,
    row: &Row,
    totals: &mut Totals,
) -> Result<(), Fault> {
    totals.add(1, row.output);
    connection
        .prepare_cached(
            "INSERT INTO finished (id, state, name, queue, created_at, expires_at, job)
             VALUES (:id, :state, :name, :queue, :created_at, :expires_at, :job)",
        )?
        .execute(bound(row).as_slice())?;
    put_beside(connection, row)?;
    insert_labels(connection, row)
}

fn put_beside(connection: &Connection, row: &Row) -> Result<(), Fault> {
    let Some(beside) = &row.beside else {
        return Ok(());
    };
    bulk::put(connection, row.columns.id, beside.bulk.as_ref())?;
    outputs::put(connection, row.columns.id, beside.short.as_deref())
}

/// Stores the end of a job again. It keeps its place in the order of the ends.
fn refinish(connection: &Connection, row: &Row, totals: &mut Totals) -> Result<(), Fault> {
    let Some(before) = delete_labels(connection, row.columns.id)? else {
        return Err(Fault::NoSuchJob);
    };
    totals.add(0, row.output.saturating_sub(before));
    connection
        .prepare_cached(
            "UPDATE finished SET state = :state, name = :name, queue = :queue,
             created_at = :created_at, expires_at = :expires_at, job = :job WHERE id = :id",
        )?
        .execute(bound(row).as_slice())?;
    put_beside(connection, row)?;
    insert_labels(connection, row)
}

/// The row for a statement's `:name`s.
fn bound(row: &Row) -> [(&'static str, &dyn ToSql); 7] {
    [
        (":id", row.columns.id.as_bytes()),
        (":state", &row.columns.state),
        (":name", &row.columns.name),
        (":queue", &row.queue),
        (":created_at", &row.columns.created_at),
        (":expires_at", &row.columns.expires_at),
        (":job", &row.text),
    ]
}

fn insert_labels(connection: &Connection, row: &Row) -> Result<(), Fault> {
    let mut insert = connection
        .prepare_cached("INSERT INTO labels (key, value, state, id) VALUES (?, ?, ?, ?)")?;
    let indexed = encoding::indexed(&row.text)?;
    let batch = indexed.batch();
    let marks = marks(&row.queue, row.columns.name.as_deref(), &indexed)
        .chain(batch_label(batch.as_deref()));
    for (key, value) in indexed.labels.iter().map(pair).chain(marks) {
        insert.execute(params![
            key,
            value,
            row.columns.state,
            row.columns.id.as_bytes()
        ])?;
    }
    Ok(())
}

fn pair<'a>((key, value): (&'a String, &'a String)) -> (&'a str, &'a str) {
    (key, value)
}

/// Queue, name, schedule, node and creator as labels that no client can set, so that the index of labels finds jobs by them,
/// too. A job of nobody without a name, a schedule and a node in the default queue costs nothing.
fn marks<'a>(
    queue: &'a str,
    name: Option<&'a str>,
    indexed: &'a Indexed,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    let queue = (queue != DEFAULT_QUEUE).then_some((QUEUE_LABEL, queue));
    let schedule = indexed.schedule.as_ref();
    let schedule = schedule.map(|it| (SCHEDULE_LABEL, it.name.as_str()));
    let name = name.map(|it| (NAME_LABEL, it));
    let node = indexed.node().map(|it| (NODE_LABEL, it));
    let creator = is_indexed(&indexed.created_by).then_some((CREATOR_LABEL, &*indexed.created_by));
    [queue, name, schedule, node, creator].into_iter().flatten()
}

/// Are the jobs that this actor has created in the index of labels?
pub(super) fn is_indexed(creator: &str) -> bool {
    creator != NOBODY
}

/// The same for the batch.
fn batch_label(batch: Option<&str>) -> Option<(&'static str, &str)> {
    batch.map(|id| (BATCH_LABEL, id))
}

/// Removes a finished job's labels from the index. Gives back how much of its output was kept; nothing if the job is not a
/// finished one.
fn delete_labels(connection: &Connection, id: JobId) -> Result<Option<i64>, Fault> {
    let row = connection
        .prepare_cached("SELECT state, queue, job, name FROM finished WHERE id = ?")?
        .query_row([id.as_bytes()], |row| {
            Ok((
                row.get::<_, i64>(0)?,
                row.get::<_, String>(1)?,
                row.get::<_, String>(2)?,
                row.get::<_, Option<String>>(3)?,
            ))
        })
        .optional()?;
    let Some((state, queue, text, name)) = row else {
        return Ok(None);
    };
    let mut delete = connection.prepare_cached(
        "DELETE FROM labels WHERE key = ? AND value = ? AND state = ? AND id = ?",
    )?;
    let indexed = encoding::indexed(&text)?;
    let batch = indexed.batch();
    let marks = marks(&queue, name.as_deref(), &indexed).chain(batch_label(batch.as_deref()));
    for (key, value) in indexed.labels.iter().map(pair).chain(marks) {
        delete.execute(params![key, value, state, id.as_bytes()])?;
    }
    Ok(Some(indexed.kept_output()))
}

/// Removes a finished job; one that has not ended stays, with all that belongs to it.
fn delete(connection: &Connection, id: JobId, totals: &mut Totals) -> Result<(), Fault> {
    let Some(output) = delete_labels(connection, id)? else {
        return Ok(());
    };
    totals.add(-1, -output);
    outputs::delete(connection, id)?;
    for sql in [
        "DELETE FROM finished WHERE id = ?",
        "DELETE FROM bulk WHERE id = ?",
        "DELETE FROM secrets WHERE id = ?",
        "DELETE FROM idempotency WHERE id = ?",
    ] {
        connection.prepare_cached(sql)?.execute([id.as_bytes()])?;
    }
    events::delete(connection, id)?;
    outbox::delete(connection, id)?;
    Ok(())
}
