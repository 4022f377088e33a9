//! What a store's transactions do, as text that does the same to a copy of the store; and that copy.
//!
//! With a [`Keeper`], a transaction counts once the keeper has its change. The change is the SQL that the writer has run, with
//! its values, as SQLite expands it: no statement depends on a clock, on chance or on an order that is not said, so that it has the same
//! effect on every copy that has taken the changes before it. The number of the last change is in the file itself.

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};

use rusqlite::trace::{TraceEvent, TraceEventCodes};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use crate::Fault;
use crate::schema::{self, OpenError};

/// The most changes that are kept beside the tables, for a keeper that has lost its last ones.
const TAIL: u64 = 2000;

/// Begins a change that brings the tables to a later version.
const SCHEMA: &str = "-- schema ";

/// Keeps each change of a store elsewhere, before it counts.
pub trait Keeper: Send + fmt::Debug {
    /// The name under which this process writes.
    fn claim(&self) -> &str;

    /// The timeline of the database that has the changes.
    fn timeline(&self) -> u32;

    /// The change as it is kept.
    ///
    /// # Errors
    /// In words.
    fn seal(&self, seq: u64, change: &str) -> Result<Vec<u8>, String>;

    /// Returns once it is kept as number `seq`, which follows the one before it.
    ///
    /// # Errors
    /// In words, if it is not kept, or that is not known: then the transaction does not count here.
    fn append(&mut self, seq: u64, body: &[u8]) -> Result<(), String>;
}

/// Which changes a file has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The cluster that it belongs to.
    pub cluster: String,
    /// The last change.
    pub seq: u64,
    /// Who made that change.
    pub claim: String,
    /// The timeline of the database that has it.
    pub timeline: u32,
}

/// A change, as it was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its number.
    pub seq: u64,
    /// Who made it.
    pub claim: String,
    /// What it is, sealed.
    pub body: Vec<u8>,
}

thread_local! {
    /// What the transaction of this thread has done so far.
    static CAPTURED: RefCell<Captured> = RefCell::default();
}

#[derive(Default)]
struct Captured {
    sql: String,
    is_open: bool,
    is_broken: bool,
}

fn note(event: TraceEvent<'_>) {
    let TraceEvent::Stmt(statement, text) = event else {
        return;
    };
    CAPTURED.with_borrow_mut(|captured| {
        if !captured.is_open || !is_change(text) {
            return;
        }
        match statement.expanded_sql() {
            Some(sql) => {
                captured.sql.push_str(&sql);
                captured.sql.push_str(";\n");
            }
            None => captured.is_broken = true,
        }
    });
}

/// Does the statement do something that a copy has to do?
fn is_change(text: &str) -> bool {
    const NONE: [&str; 8] = [
        "SELECT",
        "BEGIN",
        "COMMIT",
        "ROLLBACK",
        "SAVEPOINT",
        "RELEASE",
        "PRAGMA",
        "--",
    ];
    let text = text.trim_start();
    let begins = |word: &str| {
        let head = text.get(..word.len());
        head.is_some_and(|head| head.eq_ignore_ascii_case(word))
    };
    !NONE.into_iter().any(begins)
}

/// The log as the writer has it.
#[derive(Debug)]
pub(super) struct Log {
    keeper: Box<dyn Keeper>,
    seq: u64,
}

impl Log {
    /// Of a file that has a position.
    pub(super) fn open(
        connection: &Connection,
        keeper: Box<dyn Keeper>,
    ) -> Result<Self, OpenError> {
        let position = position(connection)?.ok_or_else(|| OpenError::Damaged {
            why: "it has no place in a log of changes".to_owned(),
        })?;
        connection.trace_v2(TraceEventCodes::SQLITE_TRACE_STMT, Some(note));
        // The keeper has what a loss of power takes from the file.
        connection.pragma_update(None, "synchronous", "normal")?;
        let seq = position.seq;
        Ok(Self { keeper, seq })
    }

    /// From here on what this thread does is a change.
    pub(super) fn begin() {
        CAPTURED.with_borrow_mut(|captured| {
            captured.sql.clear();
            (captured.is_open, captured.is_broken) = (true, false);
        });
    }

    /// A place that [`Log::rewind`] goes back to.
    pub(super) fn mark() -> usize {
        CAPTURED.with_borrow(|captured| captured.sql.len())
    }

    /// What was done since has been undone.
    pub(super) fn rewind(mark: usize) {
        CAPTURED.with_borrow_mut(|captured| captured.sql.truncate(mark));
    }

    /// The last step of a transaction: its change is kept, and the file knows it. Gives its number.
    pub(super) fn keep(&mut self, transaction: &Connection) -> Result<u64, Fault> {
        let (sql, is_broken) = CAPTURED.with_borrow_mut(|captured| {
            captured.is_open = false;
            (std::mem::take(&mut captured.sql), captured.is_broken)
        });
        if is_broken {
            return Err(Fault::Ledger("a change is too large".to_owned()));
        }
        if sql.is_empty() {
            return Ok(self.seq);
        }
        let kept = self.kept(&sql)?;
        advance(transaction, &kept, self.keeper.timeline())?;
        self.keeper
            .append(kept.seq, &kept.body)
            .map_err(Fault::Ledger)?;
        Ok(kept.seq)
    }

    fn kept(&self, sql: &str) -> Result<Kept, Fault> {
        let seq = self.seq + 1;
        Ok(Kept {
            seq,
            claim: self.keeper.claim().to_owned(),
            body: self.keeper.seal(seq, sql).map_err(Fault::Ledger)?,
        })
    }

    /// The transaction has been committed.
    pub(super) fn committed(&mut self, seq: u64) {
        self.seq = seq;
    }
}

/// Notes in the file that it has this change.
fn advance(connection: &Connection, kept: &Kept, timeline: u32) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE ledger SET seq = ?, claim = ?, timeline = max(timeline, ?)")?
        .execute(params![signed(kept.seq), kept.claim, timeline])?;
    connection
        .prepare_cached("INSERT OR REPLACE INTO ledger_tail (seq, claim, body) VALUES (?, ?, ?)")?
        .execute(params![signed(kept.seq), kept.claim, kept.body])?;
    connection
        .prepare_cached("DELETE FROM ledger_tail WHERE seq <= ?")?
        .execute([signed(kept.seq.saturating_sub(TAIL))])?;
    Ok(())
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

/// The place of a file in a log; nothing if it has none.
fn position(connection: &Connection) -> rusqlite::Result<Option<Position>> {
    let has_table = "SELECT count(*) FROM sqlite_schema WHERE name = 'ledger'";
    if connection.query_row(has_table, [], |row| row.get::<_, i64>(0))? == 0 {
        return Ok(None);
    }
    connection
        .query_row(
            "SELECT cluster, seq, claim, timeline FROM ledger",
            [],
            |row| {
                Ok(Position {
                    cluster: row.get(0)?,
                    seq: unsigned(row.get(1)?),
                    claim: row.get(2)?,
                    timeline: row.get(3)?,
                })
            },
        )
        .optional()
}

/// A store that is no more than a copy: it takes changes in their order, and nobody else writes to it.
#[derive(Debug)]
pub struct Replica {
    path: PathBuf,
    connection: Connection,
}

impl Replica {
    /// The file as it is; nothing if there is none.
    ///
    /// # Errors
    /// As [`Store::open`](crate::Store::open).
    pub fn open(path: &Path) -> Result<Option<Self>, OpenError> {
        if !std::fs::metadata(path).is_ok_and(|found| found.len() > 0) {
            return Ok(None);
        }
        let (path, connection) = schema::connect(path)?;
        connection.pragma_update(None, "synchronous", "normal")?;
        Ok(Some(Self { path, connection }))
    }

    /// A store of this version, made if there is none.
    ///
    /// # Errors
    /// As [`Store::open`](crate::Store::open).
    pub fn create(path: &Path) -> Result<Self, OpenError> {
        let (path, connection) = schema::open(path)?;
        Ok(Self { path, connection })
    }

    /// Removes the file, with what SQLite has beside it.
    ///
    /// # Errors
    /// If that fails.
    pub fn remove(path: &Path) -> std::io::Result<()> {
        for end in ["-wal", "-shm", ""] {
            let mut name = path.as_os_str().to_owned();
            name.push(end);
            match std::fs::remove_file(name) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// The version of the tables.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn schema(&self) -> Result<i64, OpenError> {
        schema::version(&self.connection)
    }

    /// The version that this program makes.
    #[must_use]
    pub fn newest_schema() -> i64 {
        schema::known()
    }

    /// Its place in a log; nothing if it has none.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn position(&self) -> Result<Option<Position>, OpenError> {
        Ok(position(&self.connection)?)
    }

    /// Gives the file a place in a log.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn place(&mut self, position: &Position) -> Result<(), OpenError> {
        let transaction = self.connection.transaction()?;
        transaction.execute_batch(
            "CREATE TABLE IF NOT EXISTS ledger (
                cluster TEXT NOT NULL, seq INTEGER NOT NULL, claim TEXT NOT NULL, timeline INTEGER NOT NULL
            ) STRICT;
            CREATE TABLE IF NOT EXISTS ledger_tail (
                seq INTEGER PRIMARY KEY, claim TEXT NOT NULL, body BLOB NOT NULL
            ) STRICT;
            CREATE TABLE IF NOT EXISTS ledger_files (
                name TEXT NOT NULL PRIMARY KEY, content TEXT NOT NULL
            ) STRICT, WITHOUT ROWID;
            DELETE FROM ledger;",
        )?;
        transaction.execute(
            "INSERT INTO ledger (cluster, seq, claim, timeline) VALUES (?, ?, ?, ?)",
            params![
                position.cluster,
                signed(position.seq),
                position.claim,
                position.timeline
            ],
        )?;
        Ok(transaction.commit()?)
    }

    /// Notes the timeline of the database that the changes come from.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn note_timeline(&self, timeline: u32) -> Result<(), OpenError> {
        self.connection
            .execute("UPDATE ledger SET timeline = ?", [timeline])?;
        Ok(())
    }

    /// Does the next change, whose text is `change`. `true`: files of the state directory may have changed with it.
    ///
    /// # Errors
    /// Nothing is done then.
    pub fn apply(&mut self, kept: &Kept, change: &str) -> Result<bool, OpenError> {
        let behavior = TransactionBehavior::Immediate;
        let transaction = self.connection.transaction_with_behavior(behavior)?;
        match change.strip_prefix(SCHEMA) {
            Some(version) => {
                let to = version.trim().parse().unwrap_or(i64::MAX);
                schema::step(&transaction, to)?;
            }
            None => transaction.execute_batch(change)?,
        }
        advance(&transaction, kept, 0)?;
        transaction.commit()?;
        Ok(change.contains("ledger_files"))
    }

    /// Brings the tables to the version of this program, step by step, each of them a change.
    ///
    /// # Errors
    /// If a step fails, or is not kept.
    pub fn migrate(&mut self, keeper: &mut dyn Keeper) -> Result<(), OpenError> {
        let failed = |why| OpenError::Sqlite { why };
        for to in schema::version(&self.connection)? + 1..=schema::known() {
            let behavior = TransactionBehavior::Immediate;
            let transaction = self.connection.transaction_with_behavior(behavior)?;
            schema::step(&transaction, to)?;
            let seq = position(&transaction)?.map_or(0, |it| it.seq) + 1;
            let body = keeper.seal(seq, &format!("{SCHEMA}{to}")).map_err(failed)?;
            let kept = Kept {
                seq,
                claim: keeper.claim().to_owned(),
                body,
            };
            advance(&transaction, &kept, keeper.timeline())?;
            keeper.append(kept.seq, &kept.body).map_err(failed)?;
            transaction.commit()?;
        }
        Ok(())
    }

    /// The last changes that came after this one, oldest first.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn tail(&self, after: u64) -> Result<Vec<Kept>, OpenError> {
        read_tail(&self.connection, after)
    }

    /// The files of the state directory that belong to the cluster, and their contents.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn files(&self) -> Result<Vec<(String, String)>, OpenError> {
        if self.position()?.is_none() {
            return Ok(Vec::new());
        }
        let mut statement = self
            .connection
            .prepare("SELECT name, content FROM ledger_files")?;
        let rows = statement.query_map([], |row| row.try_into())?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The file's own path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Writes a copy of the store, as of its last transaction, and gives its place in the log. It may be written to meanwhile.
///
/// # Errors
/// If there is no room, or the store cannot be read.
pub fn snapshot(path: &Path, to: &Path) -> Result<Position, OpenError> {
    match std::fs::remove_file(to) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    let source = schema::open_reader(path)?;
    let name = to.to_str().ok_or_else(|| OpenError::Sqlite {
        why: "the path of the state directory is no text".to_owned(),
    })?;
    source.execute("VACUUM INTO ?", [name])?;
    let copy = Connection::open(to)?;
    copy.pragma_update(None, "secure_delete", "on")?;
    copy.execute("DELETE FROM ledger_tail", [])?;
    position(&copy)?.ok_or_else(|| OpenError::Damaged {
        why: "it has no place in a log of changes".to_owned(),
    })
}

/// How large a store is, in bytes, without the last changes that it keeps.
///
/// # Errors
/// If the file cannot be read.
pub fn size(path: &Path) -> Result<u64, OpenError> {
    let connection = schema::open_reader(path)?;
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let pages = number("PRAGMA page_count")? - number("PRAGMA freelist_count")?;
    let tail = number("SELECT coalesce(sum(length(body)), 0) FROM ledger_tail")?;
    Ok(unsigned(pages * number("PRAGMA page_size")? - tail))
}

/// The last changes of a store that is being written to, that came after this one, oldest first.
///
/// # Errors
/// If the file cannot be read.
pub fn tail(path: &Path, after: u64) -> Result<Vec<Kept>, OpenError> {
    read_tail(&schema::open_reader(path)?, after)
}

fn read_tail(connection: &Connection, after: u64) -> Result<Vec<Kept>, OpenError> {
    let sql = "SELECT seq, claim, body FROM ledger_tail WHERE seq > ? ORDER BY seq";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([signed(after)], |row| {
        Ok(Kept {
            seq: unsigned(row.get(0)?),
            claim: row.get(1)?,
            body: row.get(2)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
