//! The table of schedules. A due time and the job that it makes are stored together, so that there is one for each.

use std::path::Path;

use rusqlite::{Connection, params};

use crate::events::EventRow;
use crate::tables::Change;
use crate::{Fault, OpenError, Store, StoreError, schema};
use job::event::{Event, What};
use job::schedule::Record;
use job::time::Timestamp;

/// A schedule as it goes into its table.
#[derive(Debug)]
pub(super) struct ScheduleRow {
    record: Record,
    definition: String,
    progress: String,
    /// What is told of it.
    pub(super) events: Vec<EventRow>,
}

impl ScheduleRow {
    /// Done by the caller, so that the one writer has less to do.
    pub(super) fn of(record: &Record, events: Vec<Event>) -> Result<Self, Fault> {
        Ok(Self {
            events: EventRow::all(events)?,
            definition: serde_json::to_string(&record.definition)?,
            progress: serde_json::to_string(&record.progress)?,
            record: record.clone(),
        })
    }
}

/// The schedules of a [`Store`].
#[derive(Clone, Copy, Debug)]
pub struct Schedules<'a>(pub(super) &'a Store);

impl Schedules<'_> {
    /// The schedules, by name.
    ///
    /// # Errors
    /// If a row cannot be read.
    pub async fn all(self) -> Result<Vec<Record>, StoreError> {
        self.0.readers.read("cannot read the schedules", all).await
    }

    /// Makes a schedule, or what is newly set of it, durable and an event.
    ///
    /// # Errors
    /// It is as it was then.
    pub async fn put(self, record: &Record) -> Result<(), StoreError> {
        let doing = "cannot store a schedule";
        let event = Event::of_schedule(record, record.changed_at, What::ScheduleChanged);
        let row = ScheduleRow::of(record, vec![event]).map_err(|it| it.doing(doing))?;
        self.0
            .writer
            .change(Change::PutSchedule(Box::new(row)), doing)
            .await
    }

    /// Makes a step of a schedule durable that makes no job, with what is told of it.
    ///
    /// # Errors
    /// Also if this step has been made already, or the schedule is another one by now.
    pub async fn step(self, next: &Record, events: Vec<Event>) -> Result<(), StoreError> {
        let doing = "cannot store a step of a schedule";
        let row = ScheduleRow::of(next, events).map_err(|it| it.doing(doing))?;
        self.0
            .writer
            .change(Change::StepSchedule(Box::new(row)), doing)
            .await
    }

    /// Removes a schedule; its jobs stay.
    ///
    /// # Errors
    /// It is still there then.
    pub async fn delete(self, name: String, at: Timestamp) -> Result<(), StoreError> {
        let doing = "cannot remove a schedule";
        let event = Event::of_name(&name, at, What::ScheduleChanged);
        let event = EventRow::of(event).map_err(|it| it.doing(doing))?;
        self.0
            .writer
            .change(Change::DeleteSchedule(name, event), doing)
            .await
    }
}

/// The names of the schedules that this actor has made, in a store that may be in use.
///
/// # Errors
/// If the file cannot be read, or is no store of this program; none if there is no file.
pub fn schedules_made_by(path: &Path, actor: &str) -> Result<Vec<String>, OpenError> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let connection = schema::open_known(path)?;
    let mut statement =
        connection.prepare("SELECT name FROM schedules WHERE created_by = ? ORDER BY name")?;
    let names = statement.query_map([actor], |row| row.get(0))?;
    Ok(names.collect::<Result<_, _>>()?)
}

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

pub(super) fn put(connection: &Connection, row: &ScheduleRow) -> Result<(), Fault> {
    let record = &row.record;
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO schedules
             (name, created_by, created_at, changed_at, version, definition, seen, turn, progress)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            record.name,
            record.created_by,
            record.created_at.as_micros(),
            record.changed_at.as_micros(),
            number(record.version),
            row.definition,
            record.seen.as_micros(),
            number(record.turn),
            row.progress
        ])?;
    Ok(())
}

/// Makes the step after which the schedule is in this turn, once.
pub(super) fn step(connection: &Connection, row: &ScheduleRow) -> Result<(), Fault> {
    let record = &row.record;
    let stepped = connection
        .prepare_cached(
            "UPDATE schedules SET seen = ?, turn = ?, progress = ?
             WHERE name = ? AND created_at = ? AND turn = ?",
        )?
        .execute(params![
            record.seen.as_micros(),
            number(record.turn),
            row.progress,
            record.name,
            record.created_at.as_micros(),
            number(record.turn) - 1
        ])?;
    if stepped == 0 {
        return Err(Fault::NoSuchTurn);
    }
    Ok(())
}

pub(super) fn delete(connection: &Connection, name: &str) -> Result<(), Fault> {
    connection
        .prepare_cached("DELETE FROM schedules WHERE name = ?")?
        .execute([name])?;
    Ok(())
}

fn all(connection: &Connection) -> Result<Vec<Record>, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT name, created_by, created_at, changed_at, version, definition, seen, turn, progress
         FROM schedules ORDER BY name",
    )?;
    let rows = statement.query_map([], |row| {
        let moment = |column: usize| row.get(column).map(Timestamp::from_micros);
        let number = |column: usize| {
            let count: i64 = row.get(column)?;
            Ok::<_, rusqlite::Error>(u64::try_from(count).unwrap_or_default())
        };
        Ok((
            (
                row.get::<_, String>(0)?,
                row.get::<_, String>(1)?,
                moment(2)?,
                moment(3)?,
                number(4)?,
            ),
            row.get::<_, String>(5)?,
            (moment(6)?, number(7)?),
            row.get::<_, String>(8)?,
        ))
    })?;
    rows.map(|row| {
        let ((name, created_by, created_at, changed_at, version), definition, (seen, turn), text) =
            row?;
        Ok(Record {
            name,
            created_by,
            created_at,
            changed_at,
            version,
            definition: serde_json::from_str(&definition)?,
            seen,
            turn,
            progress: serde_json::from_str(&text)?,
        })
    })
    .collect()
}
