//! The thread that writes: it takes all that has queued up, makes one transaction of it, and answers
//! once that is on disk. One sync of the disk serves many callers.

mod desk;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::events::{EventRow, Feed};
use crate::inbox::{self, Sender, Urgency};
use crate::insertion::Insertion;
use crate::log::Log;
use crate::outbox::Settlement;
use crate::queues::Start;
use crate::tables::{Change, Totals};
use crate::{Counts, Inserted, OpenError, StoreError};
use desk::Desk;
use job::JobId;
use job::event::Cursor;

/// The most commands in one transaction, so that the first does not wait long for the last.
const MAX_BATCH: usize = 512;

#[derive(Debug)]
enum Command {
    Insert(
        Box<Insertion>,
        oneshot::Sender<Result<Inserted, StoreError>>,
    ),
    Change(Change, oneshot::Sender<Result<(), StoreError>>),
    /// Events of no change of a row. Nobody waits for them.
    Tell(Vec<EventRow>),
    /// A start in a queue that has a rate. Nobody waits for it.
    Start(Start),
}

impl Command {
    /// The batch of which a job has ended.
    fn batch(&self) -> Option<JobId> {
        match self {
            Self::Change(Change::Finish(row, _), _) => Some(row.place()?.batch),
            Self::Insert(..) | Self::Change(..) | Self::Tell(_) | Self::Start(_) => None,
        }
    }

    /// How much there is to be written, roughly.
    fn rows(&self) -> usize {
        match self {
            Self::Insert(insertion, _) => insertion.rows(),
            Self::Change(..) | Self::Tell(_) | Self::Start(_) => 1 + self.events().len(),
        }
    }

    fn events(&self) -> &[EventRow] {
        match self {
            Self::Insert(insertion, _) => &insertion.events,
            Self::Change(Change::Update(_, events) | Change::Finish(_, events), _)
            | Self::Tell(events) => events,
            Self::Change(Change::Settle(_, _, Settlement::Done(events)), _) => events,
            Self::Change(Change::PutSchedule(row) | Change::StepSchedule(row), _) => &row.events,
            Self::Change(Change::PutQueue(row), _) => std::slice::from_ref(&row.event),
            Self::Change(Change::DeleteQueue(_, event) | Change::DeleteSchedule(_, event), _) => {
                std::slice::from_ref(event)
            }
            Self::Change(
                Change::Delete(_)
                | Change::PutBatch(_)
                | Change::DeleteBatch(_)
                | Change::StopBatch(..)
                | Change::Settle(..)
                | Change::KeepFile(..),
                _,
            )
            | Self::Start(_) => &[],
        }
    }
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

#[derive(Default)]
struct Tally {
    commands: AtomicU64,
    commits: AtomicU64,
    finished: AtomicU64,
    output: AtomicU64,
    /// What could not be written is tried again.
    owes: AtomicBool,
    on_commit: OnceLock<OnCommit>,
}

/// Who is told how long a transaction took.
pub(super) type OnCommit = Box<dyn Fn(Duration) + Send + Sync>;

impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tally").finish_non_exhaustive()
    }
}

impl Tally {
    fn see(&self, totals: Totals) {
        let number = |count: i64| u64::try_from(count).unwrap_or(0);
        self.finished
            .store(number(totals.finished), Ordering::Relaxed);
        self.output.store(number(totals.output), Ordering::Relaxed);
    }
}

/// A handle to the writing thread.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    messages: Sender<Message>,
    tally: Arc<Tally>,
    feed: Arc<Feed>,
}

impl Writer {
    /// Starts the thread; of the events, `keep` are kept at most.
    pub(super) fn start(
        connection: Connection,
        keep: u64,
        log: Option<Log>,
    ) -> Result<(Self, JoinHandle<()>), OpenError> {
        let tally = Arc::new(Tally::default());
        let totals = Totals::read(&connection)?;
        let feed = Arc::new(Feed::new(cursor(totals)));
        let (messages, inbox) = inbox::channel(MAX_BATCH);
        let writer = Self {
            messages,
            tally: Arc::clone(&tally),
            feed: Arc::clone(&feed),
        };
        tally.see(totals);
        let desk = Desk {
            connection,
            tally,
            feed,
            keep,
            log,
            unkept: None,
        };
        let thread = thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || desk.run(&inbox))?;
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

    pub(super) fn tell(&self, events: Vec<EventRow>, doing: &'static str) {
        // After the end of the store a new server finds out what was not told.
        let _ = self.send(Command::Tell(events), doing);
    }

    pub(super) fn tell_start(&self, start: Start) {
        // The same.
        let _ = self.send(Command::Start(start), "cannot store a start");
    }

    fn send(&self, command: Command, doing: &'static str) -> Result<(), StoreError> {
        let urgency = match &command {
            Command::Insert(..) | Command::Change(..) => Urgency::Now,
            Command::Tell(_) | Command::Start(_) => Urgency::Later,
        };
        self.messages
            .send(Message::Write(command, doing), urgency)
            .map_err(|_| StoreError::closed(doing))
    }

    /// Ends the thread once all that was sent before is committed.
    pub(super) fn stop(&self) {
        // Fails only where the thread has ended already.
        let _ = self.messages.send(Message::Stop, Urgency::Now);
    }

    pub(super) fn owes(&self) -> bool {
        self.tally.owes.load(Ordering::Relaxed)
    }

    pub(super) fn feed(&self) -> &Feed {
        &self.feed
    }

    pub(super) fn on_commit(&self, tell: OnCommit) {
        let _ = self.tally.on_commit.set(tell);
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
            output_bytes: self.tally.output.load(Ordering::Relaxed),
        }
    }
}

fn cursor(totals: Totals) -> Cursor {
    Cursor::try_from(totals.last_event).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::Row;
    use crate::{schema, tests};
    use job::spec::Secrets;
    use job::{Job, State};

    fn insertion(job: &Job) -> Insertion {
        let mut insertion = Insertion::default();
        insertion.add(job, &Secrets::default(), Vec::new()).unwrap();
        insertion
    }

    #[test]
    fn a_full_disk_refuses_what_is_too_large_and_nothing_else() {
        let folder = tempfile::TempDir::new().unwrap();
        let (_, connection) = schema::open(&folder.path().join("store.db")).unwrap();
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
                let insertion = insertion(job);
                (
                    (Command::Insert(Box::new(insertion), answer), "testing"),
                    wait,
                )
            })
            .unzip();
        let mut desk = Desk {
            connection,
            tally: Arc::default(),
            feed: Arc::new(Feed::new(0)),
            keep: 1000,
            log: None,
            unkept: None,
        };
        assert!(desk.write(batch).is_empty());
        let answers: Vec<Result<Inserted, String>> = answers
            .into_iter()
            .map(|mut wait| wait.try_recv().unwrap().map_err(|it| it.to_string()))
            .collect();
        let full = Err("testing: database or disk is full".to_owned());
        assert_eq!(answers, [Ok(Inserted::New), full, Ok(Inserted::New)]);
        assert_eq!(desk.tally.finished.load(Ordering::Relaxed), 1);
        assert_eq!(desk.tally.commands.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn a_command_that_fails_undoes_itself_and_costs_the_others_no_commit() {
        let folder = tempfile::TempDir::new().unwrap();
        let (_, connection) = schema::open(&folder.path().join("store.db")).unwrap();
        let mut desk = Desk {
            connection,
            tally: Arc::default(),
            feed: Arc::new(Feed::new(0)),
            keep: 1000,
            log: None,
            unkept: None,
        };
        let job = tests::job(State::Succeeded);
        let insertion = insertion(&job);
        let (inserting, mut inserted) = oneshot::channel();
        let stranger = Row::of(&tests::job(State::Queued)).unwrap();
        let (changing, mut changed) = oneshot::channel();
        let batch = vec![
            (Command::Insert(Box::new(insertion), inserting), "testing"),
            (
                Command::Change(Change::Update(stranger, Vec::new()), changing),
                "testing",
            ),
        ];
        assert!(desk.write(batch).is_empty());
        assert_eq!(inserted.try_recv().unwrap().unwrap(), Inserted::New);
        let error = changed.try_recv().unwrap().unwrap_err();
        assert_eq!(error.why, "no such unfinished job");
        assert_eq!(desk.tally.finished.load(Ordering::Relaxed), 1);
        assert_eq!(desk.tally.commits.load(Ordering::Relaxed), 1);
    }
}
