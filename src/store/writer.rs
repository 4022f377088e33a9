//! The thread that writes: it takes all that has queued up, makes one transaction of it, and answers
//! once that is on disk. One sync of the disk serves many callers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use rusqlite::{Connection, OptionalExtension, ToSql, TransactionBehavior, params};
use tokio::sync::oneshot;

use crate::failpoint;
use crate::job::spec::Secrets;
use crate::job::{Job, JobId};
use crate::manager::Idempotency;
use crate::store::encoding::{self, Columns};
use crate::store::{Counts, Fault, Inserted, OpenError, StoreError};

/// The most commands in one transaction, so that the first does not wait long for the last.
const MAX_BATCH: usize = 512;

/// A job as it goes into a table.
#[derive(Debug)]
pub(super) struct Row {
    columns: Columns,
    queue: String,
    text: String,
}

impl Row {
    /// Done by the caller, so that the one writer has less to do.
    pub(super) fn of(job: &Job) -> Result<Self, Fault> {
        let (columns, text) = encoding::encode(job)?;
        Ok(Self {
            columns,
            queue: job.spec.queue.clone(),
            text,
        })
    }
}

/// A new job with what belongs to it.
#[derive(Debug)]
pub(super) struct Insertion {
    row: Row,
    terminal: bool,
    actor: String,
    secrets: Option<String>,
    idempotency: Option<Idempotency>,
}

impl Insertion {
    pub(super) fn of(
        job: &Job,
        secrets: &Secrets,
        idempotency: Option<Idempotency>,
    ) -> Result<Self, Fault> {
        let terminal = job.state.is_terminal();
        let secrets = if terminal || secrets.0.is_empty() {
            None
        } else {
            Some(encoding::encode_secrets(secrets)?)
        };
        Ok(Self {
            row: Row::of(job)?,
            terminal,
            actor: job.created_by.clone(),
            secrets,
            idempotency,
        })
    }
}

/// A change of jobs that are there.
#[derive(Debug)]
pub(super) enum Change {
    Update(Row),
    Finish(Row),
    Delete(Vec<JobId>),
}

#[derive(Debug)]
enum Command {
    Insert(
        Box<Insertion>,
        oneshot::Sender<Result<Inserted, StoreError>>,
    ),
    Change(Change, oneshot::Sender<Result<(), StoreError>>),
}

#[derive(Debug)]
enum Message {
    /// What to do, and the words for an error.
    Write(Command, &'static str),
    Stop,
}

/// How much the writer has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Commands that were carried out, or failed alone.
    pub commands: u64,
    /// Transactions that were committed for them.
    pub commits: u64,
}

#[derive(Debug, Default)]
struct Tally {
    commands: AtomicU64,
    commits: AtomicU64,
    finished: AtomicU64,
}

impl Tally {
    fn see_finished(&self, count: i64) {
        self.finished
            .store(u64::try_from(count).unwrap_or(0), Ordering::Relaxed);
    }
}

/// A handle to the writing thread.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    messages: Sender<Message>,
    tally: Arc<Tally>,
}

impl Writer {
    pub(super) fn start(connection: Connection) -> Result<(Self, JoinHandle<()>), OpenError> {
        let tally = Arc::new(Tally::default());
        let (messages, inbox) = mpsc::channel();
        let writer = Self {
            messages,
            tally: Arc::clone(&tally),
        };
        tally.see_finished(finished(&connection)?);
        let thread = thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || run(connection, &inbox, &tally))?;
        Ok((writer, thread))
    }

    pub(super) async fn insert(
        &self,
        insertion: Insertion,
        doing: &'static str,
    ) -> Result<Inserted, StoreError> {
        let (answer, wait) = oneshot::channel();
        self.send(Command::Insert(Box::new(insertion), answer), doing)?;
        wait.await
            .unwrap_or_else(|_| Err(StoreError::closed(doing)))
    }

    pub(super) async fn change(
        &self,
        change: Change,
        doing: &'static str,
    ) -> Result<(), StoreError> {
        let (answer, wait) = oneshot::channel();
        self.send(Command::Change(change, answer), doing)?;
        wait.await
            .unwrap_or_else(|_| Err(StoreError::closed(doing)))
    }

    fn send(&self, command: Command, doing: &'static str) -> Result<(), StoreError> {
        self.messages
            .send(Message::Write(command, doing))
            .map_err(|_| StoreError::closed(doing))
    }

    /// Ends the thread once all that was sent before is committed.
    pub(super) fn stop(&self) {
        // Fails only where the thread has ended already.
        let _ = self.messages.send(Message::Stop);
    }

    pub(super) fn stats(&self) -> Stats {
        Stats {
            commands: self.tally.commands.load(Ordering::Relaxed),
            commits: self.tally.commits.load(Ordering::Relaxed),
        }
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            finished: self.tally.finished.load(Ordering::Relaxed),
        }
    }
}

fn run(mut connection: Connection, inbox: &Receiver<Message>, tally: &Tally) {
    let mut stopping = false;
    while !stopping && let Ok(first) = inbox.recv() {
        let mut batch = Vec::new();
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Write(command, doing) => batch.push((command, doing)),
                Message::Stop => {
                    stopping = true;
                    break;
                }
            }
            next = if batch.len() < MAX_BATCH {
                inbox.try_recv().ok()
            } else {
                None
            };
        }
        write(&mut connection, batch, tally);
    }
    // Erased secrets leave the log here at the latest. A failure costs nothing: the next start reads the log.
    let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
}

/// Carries out a batch and answers.
fn write(connection: &mut Connection, batch: Vec<(Command, &'static str)>, tally: &Tally) {
    if batch.is_empty() {
        return;
    }
    match commit(connection, &batch, tally) {
        Ok(outcomes) => {
            for ((command, doing), outcome) in batch.into_iter().zip(outcomes) {
                answer(command, outcome.map_err(|fault| fault.doing(doing)));
            }
        }
        Err(fault) if batch.len() == 1 => {
            let (why, full) = (fault.to_string(), fault.is_full());
            for (command, doing) in batch {
                tally.commands.fetch_add(1, Ordering::Relaxed);
                let why = why.clone();
                answer(command, Err(StoreError { doing, why, full }));
            }
        }
        // The transaction as a whole failed: what is too large for the disk must not take the rest with it.
        Err(_) => {
            for command in batch {
                write(connection, vec![command], tally);
            }
        }
    }
}

/// `Err` where nothing of the batch was committed.
fn commit(
    connection: &mut Connection,
    batch: &[(Command, &'static str)],
    tally: &Tally,
) -> Result<Vec<Result<Inserted, Fault>>, Fault> {
    let mut transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let before = finished(&transaction)?;
    let mut now = before;
    let mut outcomes = Vec::with_capacity(batch.len());
    for (command, _) in batch {
        let savepoint = transaction.savepoint()?;
        let mut count = now;
        let outcome = apply(&savepoint, command, &mut count);
        match outcome {
            Ok(inserted) => {
                savepoint.commit()?;
                now = count;
                outcomes.push(Ok(inserted));
            }
            Err(fault) => {
                // After errors such as a full disk SQLite may have undone the whole transaction.
                if savepoint.is_autocommit() {
                    return Err(fault);
                }
                savepoint.finish()?;
                outcomes.push(Err(fault));
            }
        }
    }
    if now != before {
        transaction
            .prepare_cached("UPDATE totals SET finished = ?")?
            .execute([now])?;
    }
    failpoint::hit("store.committing");
    transaction.commit()?;
    failpoint::hit("store.committed");
    tally.see_finished(now);
    tally.commits.fetch_add(1, Ordering::Relaxed);
    tally.commands.fetch_add(
        u64::try_from(batch.len()).unwrap_or(u64::MAX),
        Ordering::Relaxed,
    );
    Ok(outcomes)
}

fn answer(command: Command, outcome: Result<Inserted, StoreError>) {
    // Who asked may be gone: the work is done all the same.
    match command {
        Command::Insert(_, answer) => drop(answer.send(outcome)),
        Command::Change(_, answer) => drop(answer.send(outcome.map(|_| ()))),
    }
}

fn finished(connection: &Connection) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("SELECT finished FROM totals")?
        .query_row([], |row| row.get(0))
}

fn apply(connection: &Connection, command: &Command, count: &mut i64) -> Result<Inserted, Fault> {
    match command {
        Command::Insert(insertion, _) => insert(connection, insertion, count),
        Command::Change(change, _) => {
            match change {
                Change::Update(row) => update(connection, row)?,
                Change::Finish(row) => finish(connection, row, count)?,
                Change::Delete(ids) => {
                    for id in ids {
                        delete(connection, *id, count)?;
                    }
                }
            }
            Ok(Inserted::New)
        }
    }
}

fn insert(
    connection: &Connection,
    insertion: &Insertion,
    count: &mut i64,
) -> Result<Inserted, Fault> {
    let id = insertion.row.columns.id;
    if let Some(idempotency) = &insertion.idempotency {
        let owner = connection
            .prepare_cached("SELECT fingerprint, id FROM idempotency WHERE actor = ? AND key = ?")?
            .query_row(params![insertion.actor, idempotency.key], |row| {
                Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, [u8; 16]>(1)?))
            })
            .optional()?;
        if let Some((fingerprint, id)) = owner {
            return Ok(if fingerprint == idempotency.fingerprint {
                Inserted::Replay(JobId::from_bytes(id))
            } else {
                Inserted::KeyReused
            });
        }
        connection
            .prepare_cached(
                "INSERT INTO idempotency (actor, key, fingerprint, id) VALUES (?, ?, ?, ?)",
            )?
            .execute(params![
                insertion.actor,
                idempotency.key,
                idempotency.fingerprint,
                id.as_bytes()
            ])?;
    }
    if insertion.terminal {
        insert_finished(connection, &insertion.row)?;
        *count = count.saturating_add(1);
    } else {
        let row = &insertion.row;
        connection
            .prepare_cached(
                "INSERT INTO live (id, state, name, created_at, expires_at, job)
                 VALUES (?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                id.as_bytes(),
                row.columns.state,
                row.columns.name,
                row.columns.created_at,
                row.columns.expires_at,
                row.text
            ])?;
    }
    if let Some(secrets) = &insertion.secrets {
        connection
            .prepare_cached("INSERT INTO secrets (id, secrets) VALUES (?, ?)")?
            .execute(params![id.as_bytes(), secrets])?;
    }
    Ok(Inserted::New)
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
    Ok(())
}

fn finish(connection: &Connection, row: &Row, count: &mut i64) -> Result<(), Fault> {
    let id = row.columns.id.as_bytes();
    let was_live = connection
        .prepare_cached("DELETE FROM live WHERE id = ?")?
        .execute([id])?;
    if was_live == 0 {
        return refinish(connection, row);
    }
    insert_finished(connection, row)?;
    connection
        .prepare_cached("DELETE FROM secrets WHERE id = ?")?
        .execute([id])?;
    *count = count.saturating_add(1);
    Ok(())
}

fn insert_finished(connection: &Connection, row: &Row) -> Result<(), Fault> {
    connection
        .prepare_cached(
            "INSERT INTO finished (id, state, name, queue, created_at, expires_at, job)
             VALUES (:id, :state, :name, :queue, :created_at, :expires_at, :job)",
        )?
        .execute(bound(row).as_slice())?;
    insert_labels(connection, row)
}

/// Stores the end of a job again. It keeps its place in the order of the ends.
fn refinish(connection: &Connection, row: &Row) -> Result<(), Fault> {
    if !delete_labels(connection, row.columns.id)? {
        return Err(Fault::NoSuchJob);
    }
    connection
        .prepare_cached(
            "UPDATE finished SET state = :state, name = :name, queue = :queue,
             created_at = :created_at, expires_at = :expires_at, job = :job WHERE id = :id",
        )?
        .execute(bound(row).as_slice())?;
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
    for (key, value) in encoding::labels(&row.text)? {
        insert.execute(params![
            key,
            value,
            row.columns.state,
            row.columns.id.as_bytes()
        ])?;
    }
    Ok(())
}

/// Removes a finished job's labels from the index; false where the job is not a finished one.
fn delete_labels(connection: &Connection, id: JobId) -> Result<bool, Fault> {
    let row = connection
        .prepare_cached("SELECT state, job FROM finished WHERE id = ?")?
        .query_row([id.as_bytes()], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
        })
        .optional()?;
    let Some((state, text)) = row else {
        return Ok(false);
    };
    let mut delete = connection.prepare_cached(
        "DELETE FROM labels WHERE key = ? AND value = ? AND state = ? AND id = ?",
    )?;
    for (key, value) in encoding::labels(&text)? {
        delete.execute(params![key, value, state, id.as_bytes()])?;
    }
    Ok(true)
}

fn delete(connection: &Connection, id: JobId, count: &mut i64) -> Result<(), Fault> {
    if delete_labels(connection, id)? {
        connection
            .prepare_cached("DELETE FROM finished WHERE id = ?")?
            .execute([id.as_bytes()])?;
        *count = count.saturating_sub(1);
    }
    for sql in [
        "DELETE FROM live WHERE id = ?",
        "DELETE FROM secrets WHERE id = ?",
        "DELETE FROM idempotency WHERE id = ?",
    ] {
        connection.prepare_cached(sql)?.execute([id.as_bytes()])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::State;
    use crate::store::{schema, tests};

    #[test]
    fn a_full_disk_refuses_what_is_too_large_and_nothing_else() {
        let folder = tempfile::TempDir::new().unwrap();
        let (_, mut connection) = schema::open(&folder.path().join("store.db")).unwrap();
        connection
            .pragma_update(None, "max_page_count", 40)
            .unwrap();
        let mut large = tests::job(State::Queued);
        large.message = Some("x".repeat(1 << 20));
        let jobs = [
            tests::job(State::Queued),
            large,
            tests::job(State::Succeeded),
        ];
        let (batch, answers): (Vec<_>, Vec<_>) = jobs
            .iter()
            .map(|job| {
                let (answer, wait) = oneshot::channel();
                let insertion = Insertion::of(job, &Secrets::default(), None).unwrap();
                (
                    (Command::Insert(Box::new(insertion), answer), "testing"),
                    wait,
                )
            })
            .unzip();
        let tally = Arc::new(Tally::default());
        write(&mut connection, batch, &tally);
        let answers: Vec<Result<Inserted, String>> = answers
            .into_iter()
            .map(|mut wait| wait.try_recv().unwrap().map_err(|it| it.to_string()))
            .collect();
        let full = Err("testing: database or disk is full".to_owned());
        assert_eq!(answers, [Ok(Inserted::New), full, Ok(Inserted::New)]);
        assert_eq!(tally.finished.load(Ordering::Relaxed), 1);
        assert_eq!(tally.commands.load(Ordering::Relaxed), 3);
    }
}
