//! The embedded store: jobs, their secrets, idempotency keys, and the durability of all of them.
//!
//! One thread writes and commits what has queued up as one transaction; a few threads read. Nothing of
//! SQLite blocks a worker of the async runtime, and nothing of it is seen outside. The store decides
//! nothing about a job: it must not know the rules of a job's life, HTTP or processes.

mod encoding;
mod query;
mod reader;
mod schema;
#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::Connection;

use crate::clock::Timestamp;
use crate::job::query::Query;
use crate::job::spec::Secrets;
use crate::job::{Job, JobId};
use crate::manager::Idempotency;
use reader::Readers;
pub use schema::OpenError;
pub use writer::Stats;
use writer::{Change, Insertion, Row, Writer};

/// The store failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{doing}: {why}")]
pub struct StoreError {
    /// What was being done.
    pub doing: &'static str,
    /// SQLite's words.
    pub why: String,
    /// There was no room: it may work when there is.
    pub full: bool,
}

impl StoreError {
    /// The answer to those who come after [`Store::close`].
    fn closed(doing: &'static str) -> Self {
        Self {
            doing,
            why: "the store is closed".to_owned(),
            full: false,
        }
    }
}

/// Why one statement or one row failed; a [`StoreError`] once it is known what was being done.
#[derive(Debug, thiserror::Error)]
enum Fault {
    /// SQLite said no.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// A row does not hold what this version reads, or a job cannot be written.
    #[error("unreadable row: {0}")]
    Encoding(#[from] serde_json::Error),
    /// The row has a state that this version does not know.
    #[error("unreadable row: no state has the number {0}")]
    UnknownState(i64),
    /// A change came for a job that is not there or is over.
    #[error("no such unfinished job")]
    NoSuchJob,
}

impl Fault {
    fn is_full(&self) -> bool {
        match self {
            Self::Sqlite(error) => error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull),
            Self::Encoding(_) | Self::UnknownState(_) | Self::NoSuchJob => false,
        }
    }

    fn doing(self, doing: &'static str) -> StoreError {
        StoreError {
            doing,
            why: self.to_string(),
            full: self.is_full(),
        }
    }
}

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The database file; it is made where there is none, and SQLite keeps two more beside it.
    pub path: PathBuf,
    /// How many threads read, at least one.
    pub readers: usize,
}

/// What became of an [`Store::insert`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// The job is stored.
    New,
    /// Nothing is stored: the same submission had made this job.
    Replay(JobId),
    /// Nothing is stored: the key belongs to a submission with another body.
    KeyReused,
}

/// How many rows there are; kept by the writer, so asking costs nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Jobs in a terminal state.
    pub finished: u64,
}

/// A handle to the store; clones share one writer and one set of readers.
///
/// Whatever has been handed to the writer is committed even when the future that waits for it is
/// dropped. Once the last handle is gone the threads finish what is queued and end;
/// [`Store::close`] also waits for that.
#[derive(Clone, Debug)]
pub struct Store {
    writer: Writer,
    readers: Readers,
    threads: Arc<Mutex<Threads>>,
}

#[derive(Debug, Default)]
struct Threads {
    writer: Option<JoinHandle<()>>,
    readers: Vec<JoinHandle<()>>,
}

impl Store {
    /// Says whether this program understands the store at `path`, and changes nothing.
    ///
    /// # Errors
    ///
    /// As [`Store::open`].
    pub fn check(path: &Path) -> Result<(), OpenError> {
        schema::check(path)
    }

    /// Opens the store in the file `path`, with the default number of readers.
    ///
    /// # Errors
    /// See [`OpenError`]; a file that is refused keeps its content.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::open_with(&Settings {
            path: path.to_owned(),
            readers: 2,
        })
    }

    /// Opens the store, makes it where there is none, and brings an older one up to this version.
    ///
    /// # Errors
    /// See [`OpenError`]; a file that is refused keeps its content.
    pub fn open_with(settings: &Settings) -> Result<Self, OpenError> {
        let (path, connection) = schema::open(&settings.path)?;
        let connections = (0..settings.readers.max(1))
            .map(|_| schema::open_reader(&path))
            .collect::<Result<Vec<Connection>, OpenError>>()?;
        let (readers, reader_threads) = Readers::start(connections)?;
        let (writer, writer_thread) = Writer::start(connection)?;
        Ok(Self {
            writer,
            readers,
            threads: Arc::new(Mutex::new(Threads {
                writer: Some(writer_thread),
                readers: reader_threads,
            })),
        })
    }

    /// Stores a new job and the values of its secrets. The key is scoped to the job's creator.
    ///
    /// # Errors
    /// Nothing is stored then.
    pub async fn insert(
        &self,
        job: Arc<Job>,
        secrets: Secrets,
        idempotency: Option<Idempotency>,
    ) -> Result<Inserted, StoreError> {
        let doing = "cannot store a new job";
        let insertion = Insertion::of(&job, &secrets, idempotency).map_err(|it| it.doing(doing))?;
        self.writer.insert(insertion, doing).await
    }

    /// Makes a change of an unfinished job durable.
    ///
    /// # Errors
    /// Also where the job has been finished or was never inserted.
    pub async fn update(&self, job: Arc<Job>) -> Result<(), StoreError> {
        let doing = "cannot store a change of a job";
        if job.state.is_terminal() {
            return Err(Fault::NoSuchJob.doing(doing));
        }
        let row = Row::of(&job).map_err(|it| it.doing(doing))?;
        self.writer.change(Change::Update(row), doing).await
    }

    /// Stores a job in its terminal state and erases the values of its secrets. Doing it again is allowed.
    ///
    /// # Errors
    /// Also where the job is not stored or its state is not terminal.
    pub async fn finish(&self, job: Arc<Job>) -> Result<(), StoreError> {
        let doing = "cannot store the end of a job";
        if !job.state.is_terminal() {
            return Err(Fault::NoSuchJob.doing(doing));
        }
        let row = Row::of(&job).map_err(|it| it.doing(doing))?;
        self.writer.change(Change::Finish(row), doing).await
    }

    /// Removes jobs and all that belongs to them. Ids of no job are passed over.
    ///
    /// # Errors
    /// All of the jobs are still there then.
    pub async fn delete(&self, ids: Vec<JobId>) -> Result<(), StoreError> {
        let doing = "cannot remove jobs";
        self.writer.change(Change::Delete(ids), doing).await
    }

    /// The job as last stored; its secrets have names and no values.
    ///
    /// # Errors
    /// Where the row cannot be read.
    pub async fn get(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        self.readers
            .read("cannot read a job", move |connection| {
                query::get(connection, id)
            })
            .await
    }

    /// All jobs without a terminal state, oldest first, with the values of their secrets beside them.
    ///
    /// # Errors
    /// Where a row cannot be read.
    pub async fn unfinished(&self) -> Result<Vec<(Job, Secrets)>, StoreError> {
        self.readers
            .read("cannot read the unfinished jobs", query::unfinished)
            .await
    }

    /// One page of the jobs in a terminal state.
    ///
    /// # Errors
    /// Where a row cannot be read.
    pub async fn list(&self, query: Query) -> Result<Vec<Job>, StoreError> {
        self.readers
            .read("cannot list jobs", move |connection| {
                query::list(connection, &query)
            })
            .await
    }

    /// Finished jobs whose time is up, those first whose time was up first.
    ///
    /// # Errors
    /// Where the index cannot be read.
    pub async fn expired(&self, now: Timestamp, limit: usize) -> Result<Vec<JobId>, StoreError> {
        self.readers
            .read("cannot read the expired jobs", move |connection| {
                query::expired(connection, now, limit)
            })
            .await
    }

    /// The jobs that finished before the last `keep` finished ones, in the order in which their ends
    /// were stored.
    ///
    /// # Errors
    /// Where the table cannot be read.
    pub async fn oldest_finished_beyond(
        &self,
        keep: u64,
        limit: usize,
    ) -> Result<Vec<JobId>, StoreError> {
        self.readers
            .read("cannot read the oldest jobs", move |connection| {
                query::oldest_finished_beyond(connection, keep, limit)
            })
            .await
    }

    /// How many rows there are as of the last commit.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.writer.counts()
    }

    /// How much the writer has done since the store was opened.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.writer.stats()
    }

    /// Commits what is queued, folds the log into the database file and waits for the threads. It
    /// blocks; every later call on a clone fails.
    pub fn close(self) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        // The readers go first: the log can be emptied only while nobody reads from it.
        self.readers.stop(threads.readers.len());
        for thread in threads.readers.drain(..) {
            // A reader that panicked has nothing left to tell.
            let _ = thread.join();
        }
        self.writer.stop();
        if let Some(thread) = threads.writer.take() {
            let _ = thread.join();
        }
    }
}
