//! New jobs, one or many, stored together or not at all.

use std::sync::Arc;

use rusqlite::{Connection, params};

use crate::encoding;
use crate::events::EventRow;
use crate::outbox::{self, WebhookRow};
use crate::schedules::{self, ScheduleRow};
use crate::tables::{self, Change, Row, Totals};
use crate::{Fault, Inserted, Store, StoreError};
use job::event::Event;
use job::schedule::Record;
use job::spec::Secrets;
use job::{Idempotency, Job, JobId};

const DOING: &str = "cannot store a new job";

/// New jobs with what belongs to them, encoded by the caller so that the one writer has less to do.
#[derive(Debug, Default)]
pub struct Insertion {
    key: Option<Key>,
    jobs: Vec<NewRow>,
    changes: Vec<Change>,
    pub(super) events: Vec<EventRow>,
    step: Option<ScheduleRow>,
}

/// What a repeat of the submission is recognised by.
#[derive(Debug)]
struct Key {
    actor: String,
    idempotency: Idempotency,
    /// What the submission has made.
    made: JobId,
}

#[derive(Debug)]
struct NewRow {
    row: Row,
    is_terminal: bool,
    secrets: Option<String>,
    webhooks: Vec<WebhookRow>,
}

impl Insertion {
    /// How many rows it writes.
    pub(super) fn rows(&self) -> usize {
        self.jobs.len() + self.changes.len() + self.events.len()
    }

    /// Adds a job, the values of its secrets and what is told of it.
    ///
    /// # Errors
    /// If the job cannot be written as text; the insertion is as before then.
    pub fn add(
        &mut self,
        job: &Job,
        secrets: &Secrets,
        events: Vec<Event>,
    ) -> Result<(), StoreError> {
        self.add_row(job, secrets, events)
            .map_err(|it| it.doing(DOING))
    }

    fn add_row(&mut self, job: &Job, secrets: &Secrets, events: Vec<Event>) -> Result<(), Fault> {
        let is_terminal = job.state.is_terminal();
        let has_secrets = !is_terminal && !secrets.0.is_empty();
        let secrets = has_secrets.then(|| encoding::encode_secrets(secrets));
        let row = NewRow {
            row: Row::of(job)?,
            is_terminal,
            secrets: secrets.transpose()?,
            webhooks: outbox::rows(job),
        };
        self.events.extend(EventRow::all(events)?);
        self.jobs.push(row);
        Ok(())
    }

    /// The jobs are what this step of a schedule makes: nothing is stored if the step has been made already.
    ///
    /// # Errors
    /// If the schedule cannot be written as text; the insertion is as before then.
    pub fn step(&mut self, next: &Record) -> Result<(), StoreError> {
        self.step = Some(ScheduleRow::of(next, Vec::new()).map_err(|it| it.doing(DOING))?);
        Ok(())
    }

    /// Adds what is told of something else than the jobs.
    ///
    /// # Errors
    /// If it cannot be written as text; the insertion is as before then.
    pub fn tell(&mut self, event: Event) -> Result<(), StoreError> {
        self.events
            .push(EventRow::of(event).map_err(|it| it.doing(DOING))?);
        Ok(())
    }

    /// A repeat by this actor with this key stores nothing and finds `made`, the job or whatever else the submission
    /// makes. The key goes when that is deleted.
    pub fn keyed(&mut self, actor: &str, idempotency: Idempotency, made: JobId) {
        self.key = Some(Key {
            actor: actor.to_owned(),
            idempotency,
            made,
        });
    }

    /// Makes a change in the same transaction, once the jobs are there.
    pub(super) fn also(&mut self, change: Change) {
        self.changes.push(change);
    }
}

impl Store {
    /// Stores a new job, the values of its secrets and what is told of it. The key is scoped to the job's
    /// creator.
    ///
    /// # Errors
    /// Nothing is stored then.
    pub async fn insert(
        &self,
        job: Arc<Job>,
        secrets: Secrets,
        idempotency: Option<Idempotency>,
        events: Vec<Event>,
    ) -> Result<Inserted, StoreError> {
        let mut insertion = Insertion::default();
        insertion.add(&job, &secrets, events)?;
        if let Some(idempotency) = idempotency {
            insertion.keyed(&job.created_by, idempotency, job.id);
        }
        self.insert_all(insertion).await
    }

    /// Stores new jobs and what belongs to them in one transaction: all of it, or nothing.
    ///
    /// # Errors
    /// Nothing is stored then.
    pub async fn insert_all(&self, insertion: Insertion) -> Result<Inserted, StoreError> {
        self.writer.insert(insertion, DOING).await
    }
}

/// Adds the jobs, unless the idempotency key says that they are there already. The events are somebody else's.
pub(super) fn insert(
    connection: &Connection,
    insertion: &Insertion,
    totals: &mut Totals,
) -> Result<Inserted, Fault> {
    if let Some(key) = &insertion.key {
        if let Some(earlier) = tables::submitted(connection, &key.actor, &key.idempotency)? {
            return Ok(earlier);
        }
        connection
            .prepare_cached(
                "INSERT INTO idempotency (actor, key, fingerprint, id) VALUES (?, ?, ?, ?)",
            )?
            .execute(params![
                key.actor,
                key.idempotency.key,
                key.idempotency.fingerprint,
                key.made.as_bytes()
            ])?;
    }
    if let Some(step) = &insertion.step {
        schedules::step(connection, step)?;
    }
    for job in &insertion.jobs {
        insert_job(connection, job, totals)?;
    }
    for change in &insertion.changes {
        tables::change(connection, change, totals)?;
    }
    Ok(Inserted::New)
}

fn insert_job(connection: &Connection, job: &NewRow, totals: &mut Totals) -> Result<(), Fault> {
    let id = job.row.id();
    if job.is_terminal {
        tables::insert_finished(connection, &job.row, totals)?;
    } else {
        tables::insert_live(connection, &job.row)?;
    }
    outbox::insert(connection, id, &job.webhooks)?;
    if let Some(secrets) = &job.secrets {
        connection
            .prepare_cached("INSERT INTO secrets (id, secrets) VALUES (?, ?)")?
            .execute(params![id.as_bytes(), secrets])?;
    }
    Ok(())
}
