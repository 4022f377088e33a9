//! What is read: single jobs, all unfinished ones, pages of those that wait and of finished ones.

mod page;
mod sql;

use rusqlite::{Connection, OptionalExtension, Row, params_from_iter};

use crate::Fault;
use crate::bulk::{self, Stored};
use crate::encoding::{self, Columns};
use crate::tables::{DEFAULT_QUEUE, Totals};
use job::query::{Filter, Order, Query};
use job::spec::Secrets;
use job::time::Timestamp;
use job::{Job, JobId, State};
pub(super) use page::page;
use sql::{Sql, blob, count, direction, named, text, within};

pub(super) fn get(connection: &Connection, id: JobId) -> Result<Option<Job>, Fault> {
    // In this order, as a job moves from the first table to the second and never back.
    for sql in [
        "SELECT id, state, name, created_at, expires_at, job FROM live WHERE id = ?",
        "SELECT id, state, name, created_at, expires_at, job FROM finished WHERE id = ?",
    ] {
        let row = connection
            .prepare_cached(sql)?
            .query_row([id.as_bytes()], read)
            .optional()?;
        if let Some((columns, text)) = row {
            return bulk::whole(connection, encoding::decode(columns, &text)?);
        }
    }
    Ok(None)
}

type WithSecrets = ((Columns, String), Option<String>);

fn read_with_secrets(row: &Row<'_>) -> rusqlite::Result<WithSecrets> {
    Ok((read(row)?, row.get(6)?))
}

fn decode_with_secrets(
    connection: &Connection,
    row: WithSecrets,
) -> Result<Option<(Job, Secrets)>, Fault> {
    let ((columns, text), secrets) = row;
    let secrets = match secrets {
        Some(secrets) => encoding::decode_secrets(&secrets)?,
        None => Secrets::default(),
    };
    let job = bulk::whole(connection, encoding::decode(columns, &text)?)?;
    Ok(job.map(|job| (job, secrets)))
}

pub(super) fn unfinished<T>(
    connection: &Connection,
    mut keep: impl FnMut(Job, Secrets) -> T,
) -> Result<Vec<T>, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT l.id, l.state, l.name, l.created_at, l.expires_at, l.job, s.secrets
         FROM live l LEFT JOIN secrets s ON s.id = l.id ORDER BY l.id",
    )?;
    let rows = statement.query_map([], read_with_secrets)?;
    let mut kept = Vec::new();
    for row in rows {
        let job = decode_with_secrets(connection, row?)?;
        kept.extend(job.map(|(job, secrets)| keep(job, secrets)));
    }
    Ok(kept)
}

pub(super) fn unfinished_job(
    connection: &Connection,
    id: JobId,
) -> Result<Option<(Job, Secrets)>, Fault> {
    let row = connection
        .prepare_cached(
            "SELECT l.id, l.state, l.name, l.created_at, l.expires_at, l.job, s.secrets
             FROM live l LEFT JOIN secrets s ON s.id = l.id WHERE l.id = ?",
        )?
        .query_row([id.as_bytes()], read_with_secrets)
        .optional()?;
    match row {
        Some(row) => decode_with_secrets(connection, row),
        None => Ok(None),
    }
}

/// A page of the jobs that have not ended, and `more` than a page.
pub(super) fn live(connection: &Connection, query: &Query, more: usize) -> Result<Vec<Job>, Fault> {
    let filter = &query.filter;
    let is_wanted =
        filter.states.is_empty() || filter.states.iter().any(|state| !state.is_terminal());
    if !is_wanted || query.limit == 0 {
        return Ok(Vec::new());
    }
    let (descending, beyond) = direction(query.order);
    let mut sql = Sql::default();
    sql.push(
        "SELECT id, state, name, created_at, expires_at, job FROM live WHERE true",
        [],
    );
    if let Some(after) = query.after {
        sql.push(&format!(" AND id {beyond} ?"), [blob(after)]);
    }
    within(&mut sql, "id", filter);
    if let Some(name) = &filter.name {
        sql.push(" AND name = ?", [text(name)]);
    }
    if let Some(prefix) = &filter.name_prefix {
        named(&mut sql, "name", prefix);
    }
    if let Some(queue) = &filter.queue {
        sql.push(
            " AND ifnull(json_extract(job, '$.spec.queue'), ?) = ?",
            [text(DEFAULT_QUEUE), text(queue)],
        );
    }
    if let Some(schedule) = &filter.schedule {
        sql.push(
            " AND json_extract(job, '$.schedule.name') = ?",
            [text(schedule)],
        );
    }
    if let Some(creator) = &filter.created_by {
        sql.push(
            " AND json_extract(job, '$.created_by') = ?",
            [text(creator)],
        );
    }
    sql.push(&format!(" ORDER BY id{descending}"), []);
    let mut statement = connection.prepare_cached(&sql.text)?;
    let mut rows = statement.query(params_from_iter(&sql.values))?;
    let most = query.limit.saturating_add(more);
    let mut jobs = Vec::new();
    while jobs.len() < most
        && let Some(row) = rows.next()?
    {
        let (columns, text) = read(row)?;
        let stored = encoding::decode(columns, &text)?;
        // There is no index of what comes and goes.
        if filter.matches(&stored.job) {
            jobs.extend(listed(connection, stored, query)?);
        }
    }
    Ok(jobs)
}

/// As much of a job as is wanted; nothing if it has gone meanwhile.
fn listed(connection: &Connection, stored: Stored, query: &Query) -> Result<Option<Job>, Fault> {
    if query.is_brief {
        return Ok(Some(bulk::brief(stored)));
    }
    bulk::whole(connection, stored)
}

/// The greatest id of all jobs.
pub(super) fn newest(connection: &Connection) -> Result<Option<JobId>, Fault> {
    let newest: Option<[u8; 16]> = connection.query_row(
        "SELECT max(id) FROM (SELECT max(id) AS id FROM live UNION ALL SELECT max(id) FROM finished)",
        [],
        |row| row.get(0),
    )?;
    Ok(newest.map(JobId::from_bytes))
}

pub(super) fn expired(
    connection: &Connection,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<JobId>, Fault> {
    ids(
        connection,
        "SELECT id FROM finished WHERE expires_at <= ? ORDER BY expires_at LIMIT ?",
        [now.as_micros(), count(limit)],
    )
}

pub(super) fn oldest_finished_beyond(
    connection: &Connection,
    keep: u64,
    limit: usize,
) -> Result<Vec<JobId>, Fault> {
    let snapshot = connection.unchecked_transaction()?;
    let keep = i64::try_from(keep).unwrap_or(i64::MAX);
    let surplus = Totals::read(&snapshot)?
        .finished
        .saturating_sub(keep)
        .max(0);
    ids(
        &snapshot,
        "SELECT id FROM finished ORDER BY seq LIMIT min(?, ?)",
        [count(limit), surplus],
    )
}

fn ids(connection: &Connection, sql: &str, values: [i64; 2]) -> Result<Vec<JobId>, Fault> {
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(values, |row| row.get(0).map(JobId::from_bytes))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn list(connection: &Connection, query: &Query) -> Result<Vec<Job>, Fault> {
    let Some(sql) = page(connection, query)? else {
        return Ok(Vec::new());
    };
    let mut statement = connection.prepare_cached(&sql.text)?;
    let rows = statement.query_map(params_from_iter(&sql.values), read)?;
    let mut jobs = Vec::new();
    for row in rows {
        let (columns, text) = row?;
        jobs.extend(listed(
            connection,
            encoding::decode(columns, &text)?,
            query,
        )?);
    }
    Ok(jobs)
}

pub(super) fn counts(
    connection: &Connection,
    filter: &Filter,
    limit: u64,
) -> Result<Vec<(State, u64, bool)>, Fault> {
    let states = State::ALL.into_iter().filter(|state| state.is_terminal());
    let all = *filter == Filter::default();
    let mut out = Vec::new();
    for state in states {
        let found: i64 = if all {
            // The index alone is read.
            connection
                .prepare_cached(
                    "SELECT count(*) FROM finished INDEXED BY finished_by_state WHERE state = ?",
                )?
                .query_row([encoding::number_of(state)], |row| row.get(0))?
        } else {
            let query = Query {
                filter: Filter {
                    states: vec![state],
                    ..filter.clone()
                },
                order: Order::CreatedDescending,
                after: None,
                is_brief: true,
                limit: usize::try_from(limit).unwrap_or(usize::MAX),
            };
            let Some(sql) = page(connection, &query)? else {
                continue;
            };
            connection
                .prepare_cached(&format!("SELECT count(*) FROM ({})", sql.text))?
                .query_row(params_from_iter(&sql.values), |row| row.get(0))?
        };
        let found = u64::try_from(found).unwrap_or(0);
        out.push((state, found, all || found < limit));
    }
    Ok(out)
}

fn read(row: &Row<'_>) -> rusqlite::Result<(Columns, String)> {
    let columns = Columns {
        id: JobId::from_bytes(row.get(0)?),
        state: row.get(1)?,
        name: row.get(2)?,
        created_at: row.get(3)?,
        expires_at: row.get(4)?,
    };
    Ok((columns, row.get(5)?))
}
