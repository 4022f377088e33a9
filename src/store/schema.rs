//! The database file: how it is made, recognised, opened and brought up to date.

mod migrations;

use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::OFlag;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use migrations::MIGRATIONS;

/// Says in the file's header whose database this is: "Pcsn" in ASCII.
const APPLICATION_ID: i64 = 0x5063_736e;

/// How long a connection waits for a predecessor that is still going down.
const BUSY: Duration = Duration::from_secs(2);

/// Why the store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A newer version of the program has written it.
    #[error(
        "store has schema {found}, this procession knows up to {known}: start the newer version"
    )]
    Newer {
        /// The version in the file.
        found: i64,
        /// The newest version that this program knows.
        known: i64,
    },
    /// The file is a database of another program.
    #[error("the store file is a database of another program: move it away")]
    Foreign,
    /// The file is not a database, or its structure is broken.
    #[error("the store file is damaged ({why}): restore a backup or move it away")]
    Damaged {
        /// What was found.
        why: String,
    },
    /// The file could not be made or read.
    #[error("cannot open the store file: {0}")]
    Io(#[from] io::Error),
    /// SQLite failed for another reason, such as a full disk or a lock that is held.
    #[error("cannot open the store: {why}")]
    Sqlite {
        /// SQLite's words.
        why: String,
    },
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        let why = error.to_string();
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged { why },
            _ => Self::Sqlite { why },
        }
    }
}

/// Opens the connection that writes; also gives the path for the connections that read.
pub(super) fn open(path: &Path) -> Result<(PathBuf, Connection), OpenError> {
    let (path, mut connection) = connect(path)?;
    migrate(&mut connection, MIGRATIONS)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    Ok((path, connection))
}

/// The same, and leaves the tables in the version that they have.
pub(super) fn connect(path: &Path) -> Result<(PathBuf, Connection), OpenError> {
    let path = prepare(path)?;
    let connection = Connection::open_with_flags(
        &path,
        OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_NOFOLLOW,
    )?;
    connection.busy_timeout(BUSY)?;
    // Until the file is known to be ours and sound, not even its log may be folded into it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    recognise(&connection, MIGRATIONS)?;
    examine(&connection)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "secure_delete", "on")?;
    // 8 MiB of log between checkpoints; a log that grew under a long reading shrinks to 16 MiB again.
    connection.pragma_update(None, "wal_autocheckpoint", 2048)?;
    connection.pragma_update(None, "journal_size_limit", 16 << 20)?;
    connection.pragma_update(None, "cache_size", -16_384)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok((path, connection))
}

/// Says whether this program understands the file, and changes nothing; a missing one will be made.
pub(super) fn check(path: &Path) -> Result<(), OpenError> {
    if !path.exists() {
        return Ok(());
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    recognise(&connection, MIGRATIONS)
}

/// Opens a connection that reads, by somebody else than the service.
pub(super) fn open_known(path: &Path) -> Result<Connection, OpenError> {
    let connection = open_reader(path)?;
    recognise(&connection, MIGRATIONS)?;
    Ok(connection)
}

/// Opens a connection that reads.
pub(super) fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_NOFOLLOW,
    )?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "cache_size", -8_192)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Makes the file if there is none, readable for its owner alone, and follows no link.
fn prepare(path: &Path) -> Result<PathBuf, OpenError> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // SQLite refuses links in any part of a path; links to the folder are the administrator's affair.
    let path = fs::canonicalize(folder)?.join(name);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        // O_NONBLOCK: a FIFO in this place must not hang the start.
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(&path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file").into());
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    if metadata.len() == 0 && has_log(&path) {
        // SQLite would take this for a new database and throw away the log with the jobs in it.
        return Err(OpenError::Damaged {
            why: "it is empty but has a log beside it".to_owned(),
        });
    }
    Ok(path)
}

fn has_log(path: &Path) -> bool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    fs::metadata(log).is_ok_and(|metadata| metadata.len() > 0)
}

/// Refuses what is not ours or too new; only reads.
fn recognise(connection: &Connection, migrations: &[&str]) -> Result<(), OpenError> {
    let application: i64 =
        connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let found = version(connection)?;
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let fresh = application == 0 && found == 0 && tables == 0;
    if application != APPLICATION_ID && !fresh {
        return Err(OpenError::Foreign);
    }
    let known = newest(migrations);
    if found > known {
        return Err(OpenError::Newer { found, known });
    }
    Ok(())
}

/// Reads a little of everything and all of what the start needs. A full check would read every page,
/// which takes minutes on a large file.
fn examine(connection: &Connection) -> Result<(), OpenError> {
    let tables = connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<Vec<String>, _>>()?;
    for table in &tables {
        let quoted = table.replace('"', "\"\"");
        let sql = if table == "live" || table == "secrets" {
            format!("SELECT * FROM \"{quoted}\"")
        } else {
            format!("SELECT * FROM \"{quoted}\" LIMIT 1")
        };
        let mut statement = connection.prepare(&sql)?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
    }
    if tables.iter().any(|table| table == "finished") {
        let _: Option<i64> =
            connection.query_row("SELECT max(seq) FROM finished", [], |row| row.get(0))?;
        let _: Option<Vec<u8>> =
            connection.query_row("SELECT max(id) FROM finished", [], |row| row.get(0))?;
    }
    Ok(())
}

/// Takes the steps that the file has not taken yet, each in a transaction of its own.
fn migrate(connection: &mut Connection, migrations: &[&str]) -> Result<(), OpenError> {
    for (to, step) in (1_i64..).zip(migrations) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if version(&transaction)? < to {
            take(&transaction, step, to)?;
            transaction.commit()?;
        }
    }
    Ok(())
}

fn take(transaction: &Connection, step: &str, to: i64) -> Result<(), OpenError> {
    transaction.execute_batch(step)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", to)?;
    Ok(())
}

/// The step that leads to this version, as part of somebody's transaction. Copies of a store take it as well, so it leaves
/// nothing to chance.
pub(super) fn step(transaction: &Connection, to: i64) -> Result<(), OpenError> {
    let index = usize::try_from(to - 1).ok();
    let step = index.and_then(|index| MIGRATIONS.get(index));
    let step = step.ok_or(OpenError::Newer {
        found: to,
        known: known(),
    })?;
    take(transaction, step, to)
}

/// The newest version that this program knows.
pub(super) fn known() -> i64 {
    newest(MIGRATIONS)
}

pub(super) fn version(connection: &Connection) -> Result<i64, OpenError> {
    Ok(connection.pragma_query_value(None, "user_version", |row| row.get(0))?)
}

fn newest(migrations: &[&str]) -> i64 {
    i64::try_from(migrations.len()).expect("a list in this file is short")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::Totals;

    const LATER: &[&str] = &[
        MIGRATIONS[0],
        "ALTER TABLE live ADD COLUMN colour TEXT; UPDATE live SET colour = 'red'",
        "CREATE TABLE broken (",
    ];

    #[test]
    fn an_older_store_takes_the_steps_it_has_not_taken() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, &LATER[..1]).unwrap();
        connection
            .execute(
                "INSERT INTO live VALUES (x'00', 0, NULL, 0, NULL, '{}')",
                [],
            )
            .unwrap();
        migrate(&mut connection, &LATER[..2]).unwrap();
        migrate(&mut connection, &LATER[..2]).unwrap();
        recognise(&connection, &LATER[..2]).unwrap();
        let colour: String = connection
            .query_row("SELECT colour FROM live", [], |row| row.get(0))
            .unwrap();
        assert_eq!((colour.as_str(), version(&connection).unwrap()), ("red", 2));
    }

    #[test]
    fn a_store_of_the_third_version_keeps_its_jobs_and_its_totals() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, &MIGRATIONS[..3]).unwrap();
        let large = "x".repeat(100_000);
        connection
            .execute_batch(&format!(
                "INSERT INTO live VALUES (x'02', 2, 'two', 3, NULL, '{large}'), (x'01', 0, NULL, 4, 5, '{{}}');
                 INSERT INTO events VALUES (8, x'02', 1, 0, '{{}}'), (9, x'02', 2, 1, '{{}}');
                 UPDATE totals SET finished = 7, last_event = 9, pruned_events = 2;"
            ))
            .unwrap();
        migrate(&mut connection, MIGRATIONS).unwrap();
        let mut statement = connection
            .prepare("SELECT hex(id), state, name, created_at, expires_at, length(job) FROM live ORDER BY id")
            .unwrap();
        type Live = (String, i64, Option<String>, i64, Option<i64>, i64);
        let rows: Vec<Live> = statement
            .query_map([], |row| row.try_into())
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(
            rows,
            [
                ("01".to_owned(), 0, None, 4, Some(5), 2),
                ("02".to_owned(), 2, Some("two".to_owned()), 3, None, 100_000)
            ]
        );
        let totals = Totals::read(&connection).unwrap();
        let before = Totals {
            finished: 7,
            output: 0,
            last_event: 9,
            pruned_events: 2,
        };
        assert_eq!(totals, before);
    }

    #[test]
    fn a_step_that_fails_leaves_the_version_before_it() {
        let mut connection = Connection::open_in_memory().unwrap();
        assert!(migrate(&mut connection, LATER).is_err());
        assert_eq!(version(&connection).unwrap(), 2);
        migrate(&mut connection, &LATER[..2]).unwrap();
    }
}
