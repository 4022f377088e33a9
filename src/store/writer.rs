//! The thread that writes: it takes all that has queued up, makes one transaction of it, and answers
//! once that is on disk. One sync of the disk serves many callers.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::oneshot;

use crate::batches;
use crate::events::{self, EventRow, Feed};
use crate::inbox::{self, Inbox, Sender, Urgency, Woken};
use crate::insertion::{self, Insertion};
use crate::log::Log;
use crate::outbox::{self, Settlement};
use crate::queues::{self, Start};
use crate::tables::{self, Change, Totals};
use crate::{Counts, Fault, Inserted, OpenError, StoreError};
use job::JobId;
use job::event::Cursor;
use linux::failpoint;
use linux::sys::give_back_heap;

/// The most commands in one transaction, so that the first does not wait long for the last.
const MAX_BATCH: usize = 512;

/// How long events that belong to no change wait for a transaction that is made anyway. So a job that is
/// over by then costs no sync of its own for them.
const HELD: Duration = Duration::from_millis(50);

/// How soon events are tried again that found no room, or no store that can be written to.
const ROOM_RETRY: Duration = Duration::from_secs(1);

/// After so many rows, and when nothing has been written for so long, memory is given back. So the next large batch does
/// not wait for it, and jobs that come one at a time keep the pages that they share.
const MANY: usize = 1000;
const QUIET: Duration = Duration::from_millis(500);

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
        let desk = WriterThread {
            connection,
            tally,
            feed,
            keep,
            log,
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

type Entry = (Command, &'static str);

/// What has been written since memory was given back last.
#[derive(Default)]
struct Used {
    rows: usize,
    /// When it is given back, if nothing is written until then. Seldom: what follows has to be read again.
    give_back_at: Option<Instant>,
}

impl Used {
    fn note(&mut self, batch: &[Entry]) {
        let rows = batch.iter().map(|(command, _)| command.rows());
        self.rows = self.rows.saturating_add(rows.sum());
        self.give_back_at = (self.rows >= MANY).then(|| Instant::now() + QUIET);
    }
}

/// What an error undoes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guard {
    /// The whole batch.
    Whole,
    /// The command that it came from.
    Each,
}

/// What the thread works with.
struct WriterThread {
    connection: Connection,
    tally: Arc<Tally>,
    feed: Arc<Feed>,
    /// How many events are kept.
    keep: u64,
    /// Where each change goes before it counts, if anywhere.
    log: Option<Log>,
}

impl WriterThread {
    fn run(mut self, inbox: &Inbox<Message>) {
        let mut held: Vec<Entry> = Vec::new();
        // Until when what can wait waits. After a commit as well, as what is told next is mostly of a job that
        // has just been accepted and will soon be over.
        let mut rest_until = None;
        let mut used = Used::default();
        let mut stopping = false;
        while !stopping {
            let woken = match rest_until {
                Some(until) => inbox.wait(until),
                None => inbox.wait_for_any(used.give_back_at),
            };
            if woken == Woken::Told {
                rest_until = Some(Instant::now() + HELD);
                continue;
            }
            stopping = woken == Woken::Closed;
            let mut batch = std::mem::take(&mut held);
            let room = MAX_BATCH.saturating_sub(batch.len()).max(1);
            for message in inbox.take(if stopping { usize::MAX } else { room }) {
                match message {
                    Message::Write(command, doing) => batch.push((command, doing)),
                    // Nobody is answered who comes after it.
                    Message::Stop => {
                        stopping = true;
                        break;
                    }
                }
            }
            if woken == Woken::Rested && batch.is_empty() {
                if rest_until.take().is_none() {
                    self.give_back();
                    used = Used::default();
                }
                continue;
            }
            used.note(&batch);
            held = self.write(batch);
            let rest = if held.is_empty() { HELD } else { ROOM_RETRY };
            rest_until = Some(Instant::now() + rest);
        }
        // Erased secrets leave the log here at the latest. A failure costs nothing: the next start reads
        // the log.
        let _ = self
            .connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    }

    /// Lets go of the pages that SQLite keeps for what is written next, and of the free pieces of the heap between them.
    fn give_back(&self) {
        // A failure costs memory and nothing else.
        let _ = self.connection.execute_batch("PRAGMA shrink_memory");
        give_back_heap();
    }

    /// Carries out a batch and answers. Gives back the events that found no room.
    fn write(&mut self, batch: Vec<Entry>) -> Vec<Entry> {
        if batch.is_empty() {
            return batch;
        }
        // Errors of single commands are rare, and guarding each from the others is not free.
        let committed = match self.commit(&batch, Guard::Whole) {
            // Each by itself would fail as well, and take as long.
            Err(fault) if fault.is_failing() => Err(fault),
            Err(_) if batch.len() > 1 => self.commit(&batch, Guard::Each),
            committed => committed,
        };
        match committed {
            Ok(outcomes) => batch
                .into_iter()
                .zip(&outcomes)
                .filter_map(|(entry, outcome)| answer(entry, outcome.as_ref().copied()))
                .collect(),
            Err(fault) if batch.len() == 1 || fault.is_failing() => {
                let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
                self.tally.commands.fetch_add(count, Ordering::Relaxed);
                batch
                    .into_iter()
                    .filter_map(|entry| answer(entry, Err(&fault)))
                    .collect()
            }
            // The transaction as a whole failed: what is too large for the disk must not take the rest
            // with it.
            Err(_) => batch
                .into_iter()
                .flat_map(|entry| self.write(vec![entry]))
                .collect(),
        }
    }

    /// `Err` if nothing of the batch was committed.
    fn commit(
        &mut self,
        batch: &[Entry],
        guard: Guard,
    ) -> Result<Vec<Result<Inserted, Fault>>, Fault> {
        let begun = Instant::now();
        let mut transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let before = Totals::read(&transaction)?;
        let mut now = before;
        if self.log.is_some() {
            Log::begin();
        }
        let mut outcomes = Vec::with_capacity(batch.len());
        for (command, _) in batch {
            if guard == Guard::Whole {
                outcomes.push(Ok(apply(&transaction, command, &mut now)?));
                continue;
            }
            let savepoint = transaction.savepoint()?;
            let mark = Log::mark();
            let mut totals = now;
            let outcome = apply(&savepoint, command, &mut totals);
            match outcome {
                Ok(inserted) => {
                    savepoint.commit()?;
                    now = totals;
                    outcomes.push(Ok(inserted));
                }
                Err(fault) => {
                    // After errors such as a full disk SQLite may have undone the whole transaction.
                    if savepoint.is_autocommit() {
                        return Err(fault);
                    }
                    savepoint.finish()?;
                    Log::rewind(mark);
                    outcomes.push(Err(fault));
                }
            }
        }
        if now != before {
            events::prune(&transaction, self.keep, &mut now)?;
        }
        // Also if no number has changed: the event that had them may have gone.
        now.write(&transaction)?;
        failpoint::hit("store.committing");
        failpoint::fail("store.writing").map_err(|_| {
            let failure = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR);
            rusqlite::Error::SqliteFailure(failure, None)
        })?;
        let kept = self.log.as_mut().map(|log| log.keep(&transaction));
        let kept = kept.transpose()?;
        transaction.commit()?;
        if let (Some(log), Some(seq)) = (&mut self.log, kept) {
            log.committed(seq);
        }
        failpoint::hit("store.committed");
        if let Some(tell) = self.tally.on_commit.get() {
            tell(begun.elapsed());
        }
        self.tally.see(now);
        self.tally.commits.fetch_add(1, Ordering::Relaxed);
        self.tally.commands.fetch_add(
            u64::try_from(batch.len()).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
        self.tell_of(batch, before, now);
        Ok(outcomes)
    }

    fn tell_of(&self, batch: &[Entry], before: Totals, now: Totals) {
        if now.last_event != before.last_event {
            let events = batch.iter().flat_map(|(command, _)| command.events());
            let batches = batch.iter().filter_map(|(command, _)| command.batch());
            let told = events.map(|event| event.job).chain(batches);
            self.feed.tell(cursor(now), told);
            let mut events = batch.iter().flat_map(|(command, _)| command.events());
            let mut batches = batch.iter().filter_map(|(command, _)| command.batch());
            // A batch that has ended may have webhooks.
            if events.any(EventRow::is_outgoing) || batches.next().is_some() {
                self.feed.tell_outbox();
            }
        }
        for (command, _) in batch {
            if let Command::Change(Change::Delete(ids), _) = command {
                self.feed.forget(ids);
            }
        }
    }
}

fn cursor(totals: Totals) -> Cursor {
    Cursor::try_from(totals.last_event).unwrap_or_default()
}

/// Tells who waits; gives back what has to be tried again.
fn answer(entry: Entry, outcome: Result<Inserted, &Fault>) -> Option<Entry> {
    let (command, doing) = entry;
    // Who asked may be gone: the work is done all the same.
    match (command, outcome) {
        (Command::Insert(_, answer), outcome) => {
            let _ = answer.send(outcome.map_err(|fault| fault.doing(doing)));
        }
        (Command::Change(_, answer), outcome) => {
            let _ = answer.send(outcome.map(|_| ()).map_err(|fault| fault.doing(doing)));
        }
        (Command::Tell(_) | Command::Start(_), Ok(_)) => {}
        (Command::Tell(events), Err(fault)) if fault.is_full() || fault.is_failing() => {
            return Some((Command::Tell(events), doing));
        }
        (Command::Start(start), Err(fault)) if fault.is_full() || fault.is_failing() => {
            return Some((Command::Start(start), doing));
        }
        (Command::Tell(_) | Command::Start(_), Err(fault)) => {
            let error = fault.doing(doing);
            tracing::error!(%error, "the store failed: {error}");
        }
    }
    None
}

fn apply(
    connection: &Connection,
    command: &Command,
    totals: &mut Totals,
) -> Result<Inserted, Fault> {
    match command {
        Command::Insert(insertion, _) => {
            let inserted = insertion::insert(connection, insertion, totals)?;
            if inserted == Inserted::New {
                events::insert(connection, &insertion.events, totals)?;
            }
            return Ok(inserted);
        }
        Command::Change(Change::Finish(row, events), _) => {
            let is_first = tables::finish(connection, row, totals)?;
            events::insert(connection, events, totals)?;
            if row.has_webhooks() {
                outbox::tidy(connection, row.id())?;
            }
            if is_first {
                batches::end_one(connection, row, totals)?;
            }
        }
        Command::Change(change, _) => {
            tables::change(connection, change, totals)?;
            // What is told of a delivery depends on whether it is still there.
            if !matches!(change, Change::Settle(..)) {
                events::insert(connection, command.events(), totals)?;
            }
        }
        Command::Tell(events) => events::insert(connection, events, totals)?,
        Command::Start(start) => queues::start(connection, start)?,
    }
    Ok(Inserted::New)
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
        let mut desk = WriterThread {
            connection,
            tally: Arc::default(),
            feed: Arc::new(Feed::new(0)),
            keep: 1000,
            log: None,
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
        let mut desk = WriterThread {
            connection,
            tally: Arc::default(),
            feed: Arc::new(Feed::new(0)),
            keep: 1000,
            log: None,
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
