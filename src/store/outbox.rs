//! The tables of what is to be delivered: webhooks with their secrets, and the deliveries that are not done.
//!
//! A delivery is put in by the transaction that writes its event, and leaves when it was taken or given up;
//! secrets leave with the last delivery of a job that has ended. Who delivers, and how, is not known here.

use std::collections::HashMap;

use rusqlite::{Connection, Row, params};
use tokio::sync::watch;

use crate::events::{self, EventRow};
use crate::tables::{Change, Totals};
use crate::{Fault, Store, StoreError};
use job::event::{About, Cursor, Event};
use job::time::Timestamp;
use job::webhook::{self, LONGEST_PAUSE, Webhook, WebhookSecret};
use job::{Job, JobId};

/// The webhooks of a job as they go into their table.
#[derive(Debug)]
pub(super) struct WebhookRow {
    number: i64,
    url: String,
    secret: Option<String>,
}

pub(super) fn rows(job: &Job) -> Vec<WebhookRow> {
    webhook_rows(&job.spec.webhooks)
}

pub(super) fn webhook_rows(webhooks: &[Webhook]) -> Vec<WebhookRow> {
    let webhooks = (0_i64..).zip(webhooks);
    webhooks
        .map(|(number, Webhook { url, secret, .. })| WebhookRow {
            number,
            url: url.clone(),
            secret: secret.as_ref().map(|WebhookSecret(secret)| secret.clone()),
        })
        .collect()
}

/// The deliveries of a [`Store`].
#[derive(Clone, Copy, Debug)]
pub struct Deliveries<'a>(pub(super) &'a Store);

impl Deliveries<'_> {
    /// Deliveries that are due and for which there is room, and when the next one will be.
    ///
    /// # Errors
    /// If a row cannot be read.
    pub async fn due(
        self,
        now: Timestamp,
        room: Room,
    ) -> Result<(Vec<Delivery>, Option<Timestamp>), StoreError> {
        self.0
            .readers
            .read("cannot read the deliveries", move |connection| {
                due(connection, now, &room)
            })
            .await
    }

    /// How many deliveries are not done.
    ///
    /// # Errors
    /// If they cannot be counted.
    pub async fn pending(self) -> Result<u64, StoreError> {
        self.0
            .readers
            .read("cannot count the deliveries", pending)
            .await
    }

    /// Tells when there are new deliveries.
    #[must_use]
    pub fn news(self) -> watch::Receiver<()> {
        self.0.writer.feed().outbox()
    }

    /// Removes a delivery that was taken or given up, with what is told of it; nothing is told where its
    /// job has been removed meanwhile.
    ///
    /// # Errors
    /// It is still there then.
    pub async fn settle(self, delivery: &Delivery, event: Event) -> Result<(), StoreError> {
        let doing = "cannot store a delivery";
        // The words for it are those of a job.
        let told = match delivery.event.what.kind().about() {
            About::Job => vec![event],
            About::Batch | About::Schedule | About::Queue => Vec::new(),
        };
        let rows = EventRow::all(told).map_err(|it| it.doing(doing))?;
        let change = Change::Settle(delivery.id, delivery.event.job, Settlement::Done(rows));
        self.0.writer.change(change, doing).await
    }

    /// Puts a delivery off after an attempt that failed.
    ///
    /// # Errors
    /// It is still due then.
    pub async fn put_off(self, delivery: &Delivery, due_at: Timestamp) -> Result<(), StoreError> {
        let again = Settlement::Again(delivery.attempts.saturating_add(1), due_at);
        let change = Change::Settle(delivery.id, delivery.event.job, again);
        self.0
            .writer
            .change(change, "cannot store a delivery")
            .await
    }
}

/// Adds the webhooks of a new job.
pub(super) fn insert(
    connection: &Connection,
    job: JobId,
    rows: &[WebhookRow],
) -> Result<(), Fault> {
    for row in rows {
        connection
            .prepare_cached("INSERT INTO webhooks (job, number, url, secret) VALUES (?, ?, ?, ?)")?
            .execute(params![job.as_bytes(), row.number, row.url, row.secret])?;
    }
    Ok(())
}

/// One event for one webhook.
pub(super) struct OutboxRow<'a> {
    pub(super) seq: i64,
    pub(super) job: JobId,
    pub(super) webhook: usize,
    pub(super) at: i64,
    pub(super) text: &'a str,
}

pub(super) fn put(connection: &Connection, row: &OutboxRow<'_>) -> Result<(), Fault> {
    let webhook = i64::try_from(row.webhook).unwrap_or(i64::MAX);
    connection
        .prepare_cached(
            "INSERT INTO outbox (seq, job, webhook, at, event, attempts, due_at)
             VALUES (?, ?, ?, ?, ?, 0, 0)",
        )?
        .execute(params![
            row.seq,
            row.job.as_bytes(),
            webhook,
            row.at,
            row.text
        ])?;
    Ok(())
}

/// A delivery that is to be made.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Its number in the outbox; never given twice.
    pub id: i64,
    /// The cursor of the event.
    pub cursor: Cursor,
    /// The event.
    pub event: Event,
    /// Which of the job's webhooks.
    pub webhook: usize,
    /// Where to.
    pub url: String,
    /// What it is signed with.
    pub secret: Option<WebhookSecret>,
    /// How often it has been tried.
    pub attempts: u32,
}

/// How much may be begun, so that a receiver that does not answer leaves room for the others.
#[derive(Clone, Debug)]
pub struct Room {
    /// The most deliveries that are under way.
    pub total: usize,
    /// The most of them to one receiver.
    pub each: usize,
    /// Those that are under way, by their numbers, with their receivers.
    pub under_way: HashMap<i64, String>,
}

/// The most rows that are looked at to find what there is room for.
const MOST_LOOKED_AT: usize = 50_000;

/// What is due and may be begun, those first that have been due for longest, and when the next one will be.
pub(super) fn due(
    connection: &Connection,
    now: Timestamp,
    room: &Room,
) -> Result<(Vec<Delivery>, Option<Timestamp>), Fault> {
    let mut busy: HashMap<String, usize> = HashMap::new();
    for receiver in room.under_way.values() {
        *busy.entry(receiver.clone()).or_default() += 1;
    }
    let mut left = room.total.saturating_sub(room.under_way.len());
    let mut deliveries = Vec::new();
    // What is put off further than ever was put off by a clock that has been set back since: it is due.
    let never = now.after(LONGEST_PAUSE);
    for (sql, at) in [("o.due_at <= ?", now), ("o.due_at > ?", never)] {
        let mut statement = connection.prepare_cached(&format!(
            "SELECT o.id, w.url, o.seq, o.job, o.webhook, o.at, o.event, o.attempts, w.secret
             FROM outbox o JOIN webhooks w ON w.job = o.job AND w.number = o.webhook
             WHERE {sql} ORDER BY o.due_at, o.id"
        ))?;
        let mut rows = statement.query([at.as_micros()])?;
        let mut looked_at = 0;
        while left > 0
            && looked_at < MOST_LOOKED_AT
            && let Some(row) = rows.next()?
        {
            looked_at += 1;
            let id = row.get(0)?;
            let url: String = row.get(1)?;
            let begun = busy.entry(webhook::receiver(&url).to_owned()).or_default();
            if *begun >= room.each || room.under_way.contains_key(&id) {
                continue;
            }
            *begun += 1;
            left -= 1;
            deliveries.push(delivery(id, url, row)?);
        }
    }
    let next: Option<i64> = connection
        .prepare_cached("SELECT min(due_at) FROM outbox WHERE due_at > ?")?
        .query_row([now.as_micros()], |row| row.get(0))?;
    Ok((deliveries, next.map(Timestamp::from_micros)))
}

fn delivery(id: i64, url: String, row: &Row<'_>) -> Result<Delivery, Fault> {
    let job = JobId::from_bytes(row.get(3)?);
    let text: String = row.get(6)?;
    Ok(Delivery {
        id,
        cursor: Cursor::try_from(row.get::<_, i64>(2)?).unwrap_or_default(),
        event: events::decode(job, row.get(5)?, &text)?,
        webhook: usize::try_from(row.get::<_, i64>(4)?).unwrap_or_default(),
        url,
        secret: row.get::<_, Option<String>>(8)?.map(WebhookSecret),
        attempts: u32::try_from(row.get::<_, i64>(7)?).unwrap_or(u32::MAX),
    })
}

/// What became of an attempt.
#[derive(Debug)]
pub(super) enum Settlement {
    /// It was taken, or is given up; the events tell which.
    Done(Vec<EventRow>),
    /// It is tried again at this moment, after so many attempts.
    Again(u32, Timestamp),
}

/// Notes what became of an attempt. A delivery whose job has been removed meanwhile is no more.
pub(super) fn settle(
    connection: &Connection,
    id: i64,
    job: JobId,
    settlement: &Settlement,
    totals: &mut Totals,
) -> Result<(), Fault> {
    match settlement {
        Settlement::Again(attempts, due_at) => {
            connection
                .prepare_cached("UPDATE outbox SET attempts = ?, due_at = ? WHERE id = ?")?
                .execute(params![attempts, due_at.as_micros(), id])?;
        }
        Settlement::Done(rows) => {
            let was_there = connection
                .prepare_cached("DELETE FROM outbox WHERE id = ?")?
                .execute([id])?;
            if was_there > 0 {
                events::insert(connection, rows, totals)?;
                tidy(connection, job)?;
            }
        }
    }
    Ok(())
}

/// How many deliveries are not done.
fn pending(connection: &Connection) -> Result<u64, Fault> {
    let count: i64 = connection
        .prepare_cached("SELECT count(*) FROM outbox")?
        .query_row([], |row| row.get(0))?;
    Ok(u64::try_from(count).unwrap_or_default())
}

/// Removes the webhooks of a job that has ended and has told all.
pub(super) fn tidy(connection: &Connection, job: JobId) -> Result<(), Fault> {
    connection
        .prepare_cached(
            "DELETE FROM webhooks WHERE job = ?1
             AND NOT EXISTS (SELECT 1 FROM outbox WHERE job = ?1)
             AND NOT EXISTS (SELECT 1 FROM live WHERE id = ?1)",
        )?
        .execute([job.as_bytes()])?;
    Ok(())
}

/// Removes everything of a job that is removed.
pub(super) fn delete(connection: &Connection, job: JobId) -> rusqlite::Result<()> {
    for sql in [
        "DELETE FROM outbox WHERE job = ?",
        "DELETE FROM webhooks WHERE job = ?",
    ] {
        connection.prepare_cached(sql)?.execute([job.as_bytes()])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
