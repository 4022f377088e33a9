//! The embedded store: jobs, secrets, idempotency keys and events, and the durability of all of them.
//!
//! One thread writes and commits what has queued up as one transaction; a few threads read. Nothing of
//! SQLite blocks a worker of the async runtime, and nothing of it is seen outside. The store decides
//! nothing about a job: it must not know the rules of a job's life, HTTP or processes.

mod batches;
mod bulk;
mod encoding;
mod error;
mod events;
mod inbox;
mod insertion;
mod log;
mod outbox;
mod outputs;
mod query;
mod queues;
mod reader;
mod schedules;
mod schema;
mod shared_files;
mod tables;
mod tellings;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::watch;

pub use batches::{Batches, GroupState};
use error::Fault;
pub use error::StoreError;
use events::EventRow;
pub use events::{EventPage, EventQuery};
pub use insertion::Insertion;
use job::event::{Cursor, Event};
use job::query::{Filter, Query};
use job::spec::Secrets;
use job::time::Timestamp;
use job::{Idempotency, Job, JobId, State};
use log::Log;
pub use log::{Keeper, Kept, Position, Replica, size, snapshot, tail};
pub use outbox::{Deliveries, Delivery, Room};
pub use outputs::Outputs;
pub use queues::Queues;
use reader::Readers;
pub use schedules::{Schedules, schedules_made_by};
pub use schema::OpenError;
pub use shared_files::SharedFiles;
use tables::{Change, Row};
pub use tellings::{Telling, Tellings};
pub use writer::Stats;
use writer::Writer;

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The database file; it is made if there is none, and SQLite keeps two more beside it.
    pub path: PathBuf,
    /// How many threads read, at least one.
    pub readers: usize,
    /// The most events that are kept.
    pub max_events: u64,
}

impl Settings {
    /// A store in this file, as it is by default.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            readers: 2,
            max_events: 100_000,
        }
    }
}

/// What became of a [`Store::insert`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// All of it is stored.
    New,
    /// Nothing is stored: the same submission had made this.
    Replay(JobId),
    /// Nothing is stored: the key belongs to a submission with another body.
    KeyReused,
}

/// How many rows there are; kept by the writer, so asking costs nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Jobs in a terminal state.
    pub finished: u64,
    /// Bytes of their output that are kept on this machine.
    pub output_bytes: u64,
}

/// A handle to the store; clones share one writer and one set of readers.
///
/// Whatever has been handed to the writer is committed even when the future that waits for it is
/// dropped. Once the last handle is gone the threads finish what is queued and end;
/// [`Store::close`] also waits for that.
#[derive(Clone, Debug)]
pub struct Store {
    source: Arc<str>,
    path: Arc<Path>,
    writer: Writer,
    readers: Readers,
    is_kept: bool,
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

    /// Opens the store in the file `path` as it is by default.
    ///
    /// # Errors
    /// See [`OpenError`]; a file that is refused keeps its content.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::open_with(&Settings::new(path))
    }

    /// Opens the store, makes it if there is none, and brings an older one up to this version.
    ///
    /// # Errors
    /// See [`OpenError`]; a file that is refused keeps its content.
    pub fn open_with(settings: &Settings) -> Result<Self, OpenError> {
        Self::open_kept(settings, None)
    }

    /// The same, and each change counts once this keeper has it.
    ///
    /// # Errors
    /// As [`Store::open_with`]; also if the file has no place in a log.
    pub fn open_kept(
        settings: &Settings,
        keeper: Option<Box<dyn Keeper>>,
    ) -> Result<Self, OpenError> {
        let (path, connection) = schema::open(&settings.path)?;
        let connections = (0..settings.readers.max(1))
            .map(|_| schema::open_reader(&path))
            .collect::<Result<Vec<Connection>, OpenError>>()?;
        let source = events::source(&connection)?;
        let (readers, reader_threads) = Readers::start(connections)?;
        let log = keeper
            .map(|keeper| Log::open(&connection, keeper))
            .transpose()?;
        let is_kept = log.is_some();
        let (writer, writer_thread) = Writer::start(connection, settings.max_events, log)?;
        Ok(Self {
            source: source.into(),
            path: path.into(),
            writer,
            readers,
            is_kept,
            threads: Arc::new(Mutex::new(Threads {
                writer: Some(writer_thread),
                readers: reader_threads,
            })),
        })
    }

    /// What an earlier submission of this actor with this key makes of a later one; `None` if there was
    /// none.
    ///
    /// # Errors
    /// If the table cannot be read.
    pub async fn submitted(
        &self,
        actor: &str,
        idempotency: &Idempotency,
    ) -> Result<Option<Inserted>, StoreError> {
        let (actor, idempotency) = (actor.to_owned(), idempotency.clone());
        self.readers
            .read("cannot read an idempotency key", move |connection| {
                Ok(tables::submitted(connection, &actor, &idempotency)?)
            })
            .await
    }

    /// What a submission of this actor with this key has made: a job, or a batch.
    ///
    /// # Errors
    /// If the tables cannot be read.
    pub async fn made(&self, actor: &str, key: &str) -> Result<Option<JobId>, StoreError> {
        let (actor, key) = (actor.to_owned(), key.to_owned());
        self.readers
            .read("cannot read an idempotency key", move |connection| {
                Ok(tables::made(connection, &actor, &key)?)
            })
            .await
    }

    /// Makes a change of an unfinished job durable, and with it what is told of it.
    ///
    /// # Errors
    /// Also if the job has been finished or was never inserted.
    pub async fn update(&self, job: Arc<Job>, events: Vec<Event>) -> Result<(), StoreError> {
        let doing = "cannot store a change of a job";
        if job.state.is_terminal() {
            return Err(Fault::NoSuchJob.doing(doing));
        }
        let change = Row::of(&job)
            .and_then(|row| Ok(Change::Update(row, EventRow::all(events)?)))
            .map_err(|it| it.doing(doing))?;
        self.writer.change(change, doing).await
    }

    /// Tells what has happened to jobs without a change of what is stored of them. It becomes durable with
    /// the next transaction, or soon; what was told before other calls is before them.
    pub fn tell(&self, events: Vec<Event>) {
        let doing = "cannot store an event";
        match EventRow::all(events) {
            Ok(rows) if rows.is_empty() => {}
            Ok(rows) => self.writer.tell(rows, doing),
            Err(fault) => {
                let error = fault.doing(doing);
                tracing::error!(%error, "the store failed: {error}");
            }
        }
    }

    /// Stores a job in its terminal state, with what is told of it, and erases the values of its secrets.
    /// Doing it again is allowed.
    ///
    /// # Errors
    /// Also if the job is not stored or its state is not terminal.
    pub async fn finish(&self, job: Arc<Job>, events: Vec<Event>) -> Result<(), StoreError> {
        self.outputs().finish(job, events, None).await
    }

    /// Short output, beside the rows of jobs that are over.
    #[must_use]
    pub fn outputs(&self) -> Outputs<'_> {
        Outputs(self)
    }

    /// Removes finished jobs and all that belongs to them. All others are passed over.
    ///
    /// # Errors
    /// All of the jobs are still there then.
    pub async fn delete(&self, ids: Vec<JobId>) -> Result<(), StoreError> {
        let doing = "cannot remove jobs";
        self.writer.change(Change::Delete(ids), doing).await
    }

    /// The greatest id of all jobs; `None` while there is none.
    ///
    /// # Errors
    /// If the tables cannot be read.
    pub async fn newest(&self) -> Result<Option<JobId>, StoreError> {
        self.readers
            .read("cannot read the newest job", |connection| {
                query::newest(connection)
            })
            .await
    }

    /// The job as last stored; its secrets have names and no values.
    ///
    /// # Errors
    /// If the row cannot be read.
    pub async fn get(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        self.readers
            .read("cannot read a job", move |connection| {
                query::get(connection, id)
            })
            .await
    }

    /// What `keep` makes of the jobs without a terminal state, oldest first. They are handed over one by one, with the
    /// values of their secrets beside them, as there may be very many.
    ///
    /// # Errors
    /// If a row cannot be read.
    pub async fn unfinished<T: Send + 'static>(
        &self,
        keep: impl FnMut(Job, Secrets) -> T + Send + 'static,
    ) -> Result<Vec<T>, StoreError> {
        self.readers
            .read("cannot read the unfinished jobs", move |connection| {
                query::unfinished(connection, keep)
            })
            .await
    }

    /// One job without a terminal state, with the values of its secrets.
    ///
    /// # Errors
    /// If the row cannot be read.
    pub async fn unfinished_job(&self, id: JobId) -> Result<Option<(Job, Secrets)>, StoreError> {
        self.readers
            .read("cannot read a job", move |connection| {
                query::unfinished_job(connection, id)
            })
            .await
    }

    /// The state in which each unfinished job was when it was last told of; jobs of which nothing is told
    /// are left out.
    ///
    /// # Errors
    /// If a row cannot be read.
    pub async fn told(&self) -> Result<HashMap<JobId, State>, StoreError> {
        self.readers
            .read("cannot read what was told of jobs", events::told)
            .await
    }

    /// One page of events.
    ///
    /// # Errors
    /// If a row cannot be read.
    pub async fn events(&self, query: EventQuery) -> Result<EventPage, StoreError> {
        self.readers
            .read("cannot read events", move |connection| {
                events::page(connection, query)
            })
            .await
    }

    /// Tells the newest cursor as there are new events, of all jobs or of one. A hint to look; closed when
    /// the job is removed or there will be no more.
    #[must_use]
    pub fn news(&self, job: Option<JobId>) -> watch::Receiver<Cursor> {
        self.writer.feed().subscribe(job)
    }

    /// Ends every subscription to news.
    pub fn end_news(&self) {
        self.writer.feed().close();
    }

    /// What is to be delivered to webhooks.
    #[must_use]
    pub fn deliveries(&self) -> Deliveries<'_> {
        Deliveries(self)
    }

    /// What is stored of batches.
    #[must_use]
    pub fn batches(&self) -> Batches<'_> {
        Batches(self)
    }

    /// What is set of queues, and their last starts.
    #[must_use]
    pub fn queues(&self) -> Queues<'_> {
        Queues(self)
    }

    /// The schedules.
    #[must_use]
    pub fn schedules(&self) -> Schedules<'_> {
        Schedules(self)
    }

    /// What tells this store from all others, as a URI.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// One page of the jobs that have not ended, as their rows have them, with `more` in addition, and one of those in a
    /// terminal state, both of the same moment.
    ///
    /// # Errors
    /// If a row cannot be read.
    pub async fn list(
        &self,
        query: Query,
        more: usize,
    ) -> Result<(Vec<Job>, Vec<Job>), StoreError> {
        self.readers
            .read("cannot list jobs", move |connection| {
                let snapshot = connection.unchecked_transaction()?;
                let live = query::live(&snapshot, &query, more)?;
                Ok((live, query::list(&snapshot, &query)?))
            })
            .await
    }

    /// How many finished jobs of each state match, and whether that is all of them: beyond `limit` they are not
    /// counted where the filter has to look at each.
    ///
    /// # Errors
    /// If a table cannot be read.
    pub async fn count_by_state(
        &self,
        filter: Filter,
        limit: u64,
    ) -> Result<Vec<(State, u64, bool)>, StoreError> {
        self.readers
            .read("cannot count jobs", move |connection| {
                query::counts(connection, &filter, limit)
            })
            .await
    }

    /// Finished jobs whose time is up, those first whose time was up first.
    ///
    /// # Errors
    /// If the index cannot be read.
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
    /// If the table cannot be read.
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

    /// The size of the files on disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let size = |end: &str| {
            let mut name = self.path.as_os_str().to_owned();
            name.push(end);
            std::fs::metadata(name).map_or(0, |found| found.len())
        };
        size("") + size("-wal")
    }

    /// Tells how long each transaction takes, with its sync. The first who asks is told.
    pub fn on_commit(&self, tell: impl Fn(Duration) + Send + Sync + 'static) {
        self.writer.on_commit(Box::new(tell));
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
