//! What the writing thread does: one transaction of all that has queued up, and then the answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior};

use super::{Command, MAX_BATCH, Message, Tally, cursor};
use crate::batches;
use crate::events::{self, EventRow, Feed};
use crate::inbox::{Inbox, Woken};
use crate::insertion;
use crate::log::Log;
use crate::outbox;
use crate::queues;
use crate::tables::{self, Change, Totals};
use crate::{Fault, Inserted};
use linux::failpoint;
use linux::sys::give_back_heap;

/// How long events that belong to no change wait for a transaction that is made anyway. So a job that is
/// over by then costs no sync of its own for them.
const HELD: Duration = Duration::from_millis(50);

/// How soon events are tried again that found no room, or no store that can be written to.
const ROOM_RETRY: Duration = Duration::from_secs(1);

/// After so many rows, and when nothing has been written for so long, memory is given back. So the next large batch does
/// not wait for it, and jobs that come one at a time keep the pages that they share.
const MANY: usize = 1000;
const QUIET: Duration = Duration::from_millis(500);

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

/// What the writing thread works with.
pub(super) struct Desk {
    pub(super) connection: Connection,
    pub(super) tally: Arc<Tally>,
    pub(super) feed: Arc<Feed>,
    /// How many events are kept.
    pub(super) keep: u64,
    /// Where each change goes before it counts, if anywhere.
    pub(super) log: Option<Log>,
    /// What was not kept there, and is answered with what has come meanwhile.
    pub(super) unkept: Option<(Fault, Vec<Entry>)>,
}

impl Desk {
    pub(super) fn run(mut self, inbox: &Inbox<Message>) {
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
            if let Some((fault, mut refused)) = self.unkept.take() {
                // What has come meanwhile would wait as long again, and has waited. What comes after an answer has not.
                for message in inbox.take(usize::MAX) {
                    match message {
                        Message::Write(command, doing) => refused.push((command, doing)),
                        Message::Stop => {
                            stopping = true;
                            break;
                        }
                    }
                }
                let answered = refused.into_iter();
                held.extend(answered.filter_map(|entry| self.answer(entry, Err(&fault))));
            }
            self.tally.owes.store(!held.is_empty(), Ordering::Relaxed);
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

    /// Carries out a batch and answers, unless it was not kept. Gives back the events that found no room.
    pub(super) fn write(&mut self, batch: Vec<Entry>) -> Vec<Entry> {
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
                .filter_map(|(entry, outcome)| self.answer(entry, outcome.as_ref().copied()))
                .collect(),
            Err(fault) if batch.len() == 1 || fault.is_failing() => {
                let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
                self.tally.commands.fetch_add(count, Ordering::Relaxed);
                if let Fault::Ledger(_) = fault {
                    let unkept = self.unkept.get_or_insert((fault, Vec::new()));
                    unkept.1.extend(batch);
                    return Vec::new();
                }
                batch
                    .into_iter()
                    .filter_map(|entry| self.answer(entry, Err(&fault)))
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

    /// Tells who waits; gives back what has to be tried again, which others know before what came later is answered.
    fn answer(&self, entry: Entry, outcome: Result<Inserted, &Fault>) -> Option<Entry> {
        let left = answer(entry, outcome);
        if left.is_some() {
            self.tally.owes.store(true, Ordering::Relaxed);
        }
        left
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
        self.tell_of(batch, &outcomes, before, now);
        Ok(outcomes)
    }

    fn tell_of(
        &self,
        batch: &[Entry],
        outcomes: &[Result<Inserted, Fault>],
        before: Totals,
        now: Totals,
    ) {
        if now.last_event != before.last_event {
            let written = batch.iter().zip(outcomes);
            let written = written.filter(|(_, it)| matches!(it, Ok(Inserted::New)));
            let rows = written.flat_map(|((command, _), _)| command.events());
            self.feed.say(rows);
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
