//! The table of events: what is written to it, read from it and removed from it, and who is woken by it.
//!
//! What an event means is not known here. A cursor is a row's number: it grows, and no number is given
//! twice, even where the newest rows are removed along with their job.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use crate::Fault;
use crate::outbox;
use crate::tables::Totals;
use crate::tellings::Telling;
use job::event::{Cursor, Event, Kind, Place, What};
use job::time::Timestamp;
use job::{JobId, State};

/// The most rows that one transaction removes to make room, so that a lowered limit blocks nobody.
const PRUNED_AT_ONCE: i64 = 4096;

/// An event as it goes into the table.
#[derive(Debug)]
pub(super) struct EventRow {
    pub(super) job: JobId,
    pub(super) at: i64,
    kind: i64,
    pub(super) text: String,
    webhooks: Vec<usize>,
    /// Its cursor, once it is written.
    pub(super) cursor: Cell<Cursor>,
}

/// What has no column of its own.
#[derive(Serialize, Deserialize)]
struct Record {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    batch: Option<JobId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    place: Option<Place>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state: Option<State>,
    version: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    what: What,
}

impl EventRow {
    /// Done by the caller, so that the one writer has less to do.
    pub(super) fn of(event: Event) -> Result<Self, Fault> {
        let kind = number_of(event.what.kind());
        let webhooks = event.webhooks;
        let record = Record {
            name: event.name,
            labels: event.labels,
            batch: event.batch,
            place: event.place,
            state: event.state,
            version: event.version,
            attempt: event.attempt,
            traceparent: event.traceparent,
            what: event.what,
        };
        Ok(Self {
            job: event.job,
            at: event.at.as_micros(),
            kind,
            text: serde_json::to_string(&record)?,
            webhooks,
            cursor: Cell::default(),
        })
    }

    /// Somebody else has to be told of it.
    pub(super) fn is_outgoing(&self) -> bool {
        !self.webhooks.is_empty()
    }

    pub(super) fn all(events: Vec<Event>) -> Result<Vec<Self>, Fault> {
        events.into_iter().map(Self::of).collect()
    }
}

/// The number of a kind in the database. Rows hold it, so a number is never given to another kind.
fn number_of(kind: Kind) -> i64 {
    match kind {
        Kind::Created => 0,
        Kind::Started => 1,
        Kind::Paused => 2,
        Kind::Resumed => 3,
        Kind::Stopping => 4,
        Kind::Signaled => 5,
        Kind::Changed => 6,
        Kind::Finished => 7,
        Kind::ReportedLate => 21,
        Kind::WebhookDelivered => 8,
        Kind::WebhookFailed => 9,
        Kind::AttemptFinished => 10,
        Kind::BatchCreated => 11,
        Kind::BatchFinished => 12,
        Kind::Artifacts => 13,
        Kind::ScheduleStarted => 14,
        Kind::ScheduleSkipped => 15,
        Kind::ScheduleChanged => 16,
        Kind::QueueChanged => 17,
        Kind::Ready => 18,
        Kind::NotReady => 19,
        Kind::Warned => 20,
    }
}

/// Adds events at the end.
pub(super) fn insert(
    connection: &Connection,
    rows: &[EventRow],
    totals: &mut Totals,
) -> Result<(), Fault> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut insert = connection.prepare_cached(
        "INSERT INTO events (seq, job, at, kind, event, finished, output) VALUES (?, ?, ?, ?, ?, ?, ?)",
    )?;
    for row in rows {
        totals.last_event += 1;
        row.cursor
            .set(Cursor::try_from(totals.last_event).unwrap_or_default());
        insert.execute(params![
            totals.last_event,
            row.job.as_bytes(),
            row.at,
            row.kind,
            row.text,
            totals.finished,
            totals.output
        ])?;
        for webhook in &row.webhooks {
            outbox::put(
                connection,
                &outbox::OutboxRow {
                    seq: totals.last_event,
                    job: row.job,
                    webhook: *webhook,
                    at: row.at,
                    text: &row.text,
                },
            )?;
        }
    }
    Ok(())
}

/// Removes the oldest events where there may be more than `keep`. Some room is made at a time, so that
/// not every transaction removes something.
pub(super) fn prune(connection: &Connection, keep: u64, totals: &mut Totals) -> Result<(), Fault> {
    let keep = i64::try_from(keep).unwrap_or(i64::MAX);
    if totals.last_event.saturating_sub(totals.pruned_events) <= keep {
        return Ok(());
    }
    let room = keep / 64;
    let to = totals.last_event - (keep - room);
    let from = totals.pruned_events;
    totals.pruned_events = to.min(from + PRUNED_AT_ONCE);
    // What says that an unfinished job has been started stays until that job is removed: nobody is shown it, and
    // the next server must know.
    connection
        .prepare_cached(&format!(
            "DELETE FROM events WHERE seq > ? AND seq <= ?
             AND NOT (kind IN ({}) AND job IN (SELECT id FROM live))",
            numbers_of(|kind| kind != Kind::Created && kind.told().is_some())
        ))?
        .execute([from, totals.pruned_events])?;
    Ok(())
}

/// The numbers of these kinds, for a list in SQL.
fn numbers_of(is_wanted: impl Fn(Kind) -> bool) -> String {
    let kinds = Kind::ALL.into_iter().filter(|kind| is_wanted(*kind));
    let numbers: Vec<String> = kinds.map(|kind| number_of(kind).to_string()).collect();
    numbers.join(", ")
}

/// Removes the events of a job.
pub(super) fn delete(connection: &Connection, job: JobId) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM events WHERE job = ?")?
        .execute([job.as_bytes()])?;
    Ok(())
}

/// Which events are wanted.
#[derive(Clone, Copy, Debug)]
pub struct EventQuery {
    /// Those of this job alone.
    pub job: Option<JobId>,
    /// Only those after this one; from the oldest kept one without it.
    pub after: Option<Cursor>,
    /// At most so many.
    pub limit: usize,
}

/// Events in their order, and where the table was when they were read.
#[derive(Clone, Debug)]
pub struct EventPage {
    /// The events with their cursors.
    pub events: Vec<(Cursor, Event)>,
    /// Where to go on: there is nothing between the last event and this.
    pub next: Cursor,
    /// There may be more already.
    pub more: bool,
    /// Events after the one that was asked from have been removed, or there never was such a one.
    pub expired: bool,
    /// The job's end is in the store, so that all that led to it has been told.
    pub over: bool,
}

/// Reads one page, all of it as of one moment.
pub(super) fn page(connection: &Connection, query: EventQuery) -> Result<EventPage, Fault> {
    let snapshot = connection.unchecked_transaction()?;
    let totals = Totals::read(&snapshot)?;
    let cursor = |number: i64| Cursor::try_from(number).unwrap_or_default();
    let (last, pruned) = (cursor(totals.last_event), cursor(totals.pruned_events));
    let over = match query.job {
        Some(job) => snapshot
            .prepare_cached("SELECT 1 FROM finished WHERE id = ?")?
            .exists([job.as_bytes()])?,
        None => false,
    };
    let expired = query
        .after
        .is_some_and(|after| after < pruned || after > last);
    if expired {
        return Ok(EventPage {
            events: Vec::new(),
            next: last,
            more: false,
            expired,
            over,
        });
    }
    let after = i64::try_from(query.after.unwrap_or(pruned)).unwrap_or(i64::MAX);
    let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
    let read = |row: &rusqlite::Row<'_>| {
        Ok((
            row.get::<_, i64>(0)?,
            row.get::<_, [u8; 16]>(1)?,
            row.get::<_, i64>(2)?,
            row.get::<_, String>(3)?,
        ))
    };
    let rows: Vec<_> = match query.job {
        None => snapshot
            .prepare_cached(
                "SELECT seq, job, at, event FROM events WHERE seq > ? ORDER BY seq LIMIT ?",
            )?
            .query_map([after, limit], read)?
            .collect::<Result<_, _>>()?,
        Some(job) => snapshot
            .prepare_cached(
                "SELECT seq, job, at, event FROM events INDEXED BY events_by_job
                 WHERE job = ? AND seq > ? ORDER BY seq LIMIT ?",
            )?
            .query_map(params![job.as_bytes(), after, limit], read)?
            .collect::<Result<_, _>>()?,
    };
    let more = rows.len() >= query.limit;
    let events: Vec<(Cursor, Event)> = rows
        .into_iter()
        .map(|(seq, job, at, text)| {
            let event = decode(JobId::from_bytes(job), at, &text)?;
            Ok::<_, Fault>((cursor(seq), event))
        })
        .collect::<Result<_, _>>()?;
    let next = match events.last() {
        Some((seq, _)) if more => *seq,
        Some(_) | None => last,
    };
    Ok(EventPage {
        events,
        next,
        more,
        expired,
        over,
    })
}

/// The event of a row.
pub(super) fn decode(job: JobId, at: i64, text: &str) -> Result<Event, Fault> {
    let record: Record = serde_json::from_str(text)?;
    Ok(Event {
        job,
        batch: record.batch,
        place: record.place,
        at: Timestamp::from_micros(at),
        name: record.name,
        labels: record.labels,
        state: record.state,
        version: record.version,
        attempt: record.attempt,
        traceparent: record.traceparent,
        what: record.what,
        webhooks: Vec::new(),
    })
}

/// The state in which each unfinished job was when it was last told of.
pub(super) fn told(connection: &Connection) -> Result<HashMap<JobId, State>, Fault> {
    let kinds: Vec<(i64, State)> = Kind::ALL
        .into_iter()
        .filter_map(|kind| Some((number_of(kind), kind.told()?)))
        .collect();
    let sql = format!(
        "SELECT l.id, (SELECT e.kind FROM events e WHERE e.job = l.id AND e.kind IN ({})
                       ORDER BY e.seq DESC LIMIT 1)
         FROM live l",
        numbers_of(|kind| kind.told().is_some())
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map([], |row| {
        Ok((row.get::<_, [u8; 16]>(0)?, row.get::<_, Option<i64>>(1)?))
    })?;
    let mut told = HashMap::new();
    for row in rows {
        let (id, kind) = row?;
        let state = kinds.iter().find(|(number, _)| Some(*number) == kind);
        if let Some((_, state)) = state {
            told.insert(JobId::from_bytes(id), *state);
        }
    }
    Ok(told)
}

/// What identifies this store among all others: random, made with the table.
pub(super) fn source(connection: &Connection) -> rusqlite::Result<String> {
    let hex: String = connection.query_row("SELECT source FROM totals", [], |row| row.get(0))?;
    let uuid = uuid::Uuid::try_parse(&hex).unwrap_or_default();
    Ok(format!("urn:uuid:{}", uuid.hyphenated()))
}

/// Wakes those that follow the events, once what is new can be read.
#[derive(Debug)]
pub(super) struct Feed(Mutex<Followers>);

/// What is sent is the newest cursor; a hint to look.
#[derive(Debug)]
struct Followers {
    /// None once the service ends.
    all: Option<watch::Sender<Cursor>>,
    /// There are new deliveries.
    outbox: watch::Sender<()>,
    /// Of single jobs, as long as somebody follows them.
    jobs: HashMap<JobId, watch::Sender<Cursor>>,
    /// The same with what is told.
    listeners: HashMap<JobId, mpsc::UnboundedSender<Telling>>,
}

impl Feed {
    pub(super) fn new(last: Cursor) -> Self {
        Self(Mutex::new(Followers {
            all: Some(watch::Sender::new(last)),
            outbox: watch::Sender::new(()),
            jobs: HashMap::new(),
            listeners: HashMap::new(),
        }))
    }

    fn followers(&self) -> MutexGuard<'_, Followers> {
        // Held for a look-up or an insertion, and never over an await.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is told of all jobs, or of one; closed when there will be no more.
    pub(super) fn subscribe(&self, job: Option<JobId>) -> watch::Receiver<Cursor> {
        let mut followers = self.followers();
        let Some(all) = &followers.all else {
            return watch::channel(0).1;
        };
        let Some(job) = job else {
            return all.subscribe();
        };
        let last = *all.borrow();
        followers.jobs.retain(|_, feed| feed.receiver_count() > 0);
        let feed = followers.jobs.entry(job);
        feed.or_insert_with(|| watch::Sender::new(last)).subscribe()
    }

    /// What is told of a job from now on, once it is durable. There is one who listens: the last one that has asked.
    pub(super) fn listen(&self, job: JobId) -> mpsc::UnboundedReceiver<Telling> {
        let mut followers = self.followers();
        let (sender, receiver) = mpsc::unbounded_channel();
        if followers.all.is_some() {
            followers.listeners.retain(|_, it| !it.is_closed());
            followers.listeners.insert(job, sender);
        }
        receiver
    }

    /// Tells what has been committed to those who listen.
    pub(super) fn say<'a>(&self, rows: impl IntoIterator<Item = &'a EventRow>) {
        let followers = self.followers();
        if followers.listeners.is_empty() {
            return;
        }
        for row in rows {
            if let Some(listener) = followers.listeners.get(&row.job) {
                let _ = listener.send(Telling::of(row));
            }
        }
    }

    /// Told when there are new deliveries.
    pub(super) fn outbox(&self) -> watch::Receiver<()> {
        self.followers().outbox.subscribe()
    }

    /// Tells that there are new deliveries.
    pub(super) fn tell_outbox(&self) {
        self.followers().outbox.send_replace(());
    }

    /// Tells that events of these jobs have been committed, up to `last`.
    pub(super) fn tell(&self, last: Cursor, jobs: impl IntoIterator<Item = JobId>) {
        let followers = self.followers();
        if let Some(all) = &followers.all {
            all.send_replace(last);
        }
        if followers.jobs.is_empty() {
            return;
        }
        for job in jobs {
            if let Some(feed) = followers.jobs.get(&job) {
                feed.send_replace(last);
            }
        }
    }

    /// Ends what is told of these jobs: they are gone.
    pub(super) fn forget(&self, jobs: &[JobId]) {
        let mut followers = self.followers();
        for job in jobs {
            followers.jobs.remove(job);
            followers.listeners.remove(job);
        }
    }

    /// Ends every subscription.
    pub(super) fn close(&self) {
        let mut followers = self.followers();
        followers.all = None;
        followers.jobs.clear();
        followers.listeners.clear();
    }
}

#[cfg(test)]
mod tests;
