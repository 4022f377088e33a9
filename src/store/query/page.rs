//! The statement for a page of finished jobs: which index leads, and what is checked besides.
//!
//! A page is a merge of ranges of an index, one range for each state (and label value), each of which
//! gives ids in order. So the database stops reading when the page is full, however many jobs match. Only if few names
//! begin with the prefix, all of these are sorted.

use rusqlite::{Connection, params_from_iter};

use super::sql::{Sql, blob, count, direction, named, question_marks, text, within};
use crate::Fault;
use crate::encoding;
use crate::tables::{
    BATCH_LABEL, CREATOR_LABEL, DEFAULT_QUEUE, NAME_LABEL, NODE_LABEL, QUEUE_LABEL, SCHEDULE_LABEL,
    is_indexed,
};
use job::State;
use job::query::{Filter, OnNode, Query};
use job::selector::Requirement;

/// The most ranges that are merged; SQLite takes 500. Beyond it a label is checked job by job.
const MAX_RANGES: usize = 100;

/// How far the jobs with a label are counted to find the rarest label.
const MAX_COUNTED: i64 = 2_000;

/// The most names of which the first by age are looked for in the index alone.
const MAX_NAMES: i64 = 20_000;

/// A part of an index, in the order of ids.
enum Range<'a> {
    /// Jobs in this state with this label.
    Labelled(i64, &'a str, &'a str),
    /// Jobs in this state.
    State(i64),
    All,
}

/// The statement for a page; `None` if no finished job can match.
pub(crate) fn page(connection: &Connection, query: &Query) -> Result<Option<Sql>, Fault> {
    let filter = &query.filter;
    let states: Vec<i64> = State::ALL
        .into_iter()
        .filter(|state| state.is_terminal())
        .filter(|state| filter.states.is_empty() || filter.states.contains(state))
        .map(encoding::number_of)
        .collect();
    if states.is_empty() || query.limit == 0 {
        return Ok(None);
    }
    let (descending, beyond) = direction(query.order);
    let batch = filter.batch.map(|id| id.to_string());
    let label = match &batch {
        Some(id) => Some((BATCH_LABEL, vec![id.as_str()])),
        None => leading_label(connection, filter, MAX_RANGES / states.len())?,
    };
    if label.is_none()
        && let Some(sql) = by_name(connection, query, &states)?
    {
        return Ok(Some(sql));
    }
    let is_any_state = State::ALL.into_iter().filter(|it| it.is_terminal()).count() == states.len();
    let ranges: Vec<Range<'_>> = match &label {
        Some((key, values)) => states
            .iter()
            .flat_map(|state| {
                values
                    .iter()
                    .map(|value| Range::Labelled(*state, key, value))
            })
            .collect(),
        // A range of which nothing else matches would be read to its end before the first row of the others.
        None if is_any_state => vec![Range::All],
        None => states.iter().map(|state| Range::State(*state)).collect(),
    };
    let mut sql = Sql::default();
    let mut separator = "";
    for range in ranges {
        sql.push(separator, []);
        separator = " UNION ALL ";
        let ordered = match range {
            Range::Labelled(state, key, value) => {
                // CROSS JOIN: the labels lead, whatever the statistics say.
                sql.push(
                    "SELECT l.id, f.state, f.name, f.created_at, f.expires_at, f.job FROM labels l \
                     CROSS JOIN finished f ON f.id = l.id \
                     WHERE l.key = ? AND l.value = ? AND l.state = ?",
                    [text(key), text(value), state.into()],
                );
                "l.id"
            }
            Range::State(state) => {
                sql.push(
                    "SELECT f.id, f.state, f.name, f.created_at, f.expires_at, f.job \
                     FROM finished f INDEXED BY finished_by_state WHERE f.state = ?",
                    [state.into()],
                );
                "f.id"
            }
            Range::All => {
                sql.push(
                    "SELECT f.id, f.state, f.name, f.created_at, f.expires_at, f.job \
                     FROM finished f WHERE true",
                    [],
                );
                "f.id"
            }
        };
        if let Some(after) = query.after {
            sql.push(&format!(" AND {ordered} {beyond} ?"), [blob(after)]);
        }
        within(&mut sql, ordered, filter);
        conditions(&mut sql, filter);
    }
    sql.push(
        &format!(" ORDER BY 1{descending} LIMIT ?"),
        [count(query.limit).into()],
    );
    Ok(Some(sql))
}

/// The statement for a page by the beginning of a name, led by the names; `None` if so many begin with it that a
/// page is soon found in the order of ids.
fn by_name(connection: &Connection, query: &Query, states: &[i64]) -> Result<Option<Sql>, Fault> {
    let filter = &query.filter;
    let Some(prefix) = filter.name_prefix.as_deref().filter(|it| !it.is_empty()) else {
        return Ok(None);
    };
    let mut names = Sql::default();
    names.push("labels WHERE key = ?", [text(NAME_LABEL)]);
    named(&mut names, "value", prefix);
    // Nothing else has to be known of a job: then its row is read only if it is on the page.
    let is_alone = *filter
        == Filter {
            states: filter.states.clone(),
            name_prefix: filter.name_prefix.clone(),
            ..Filter::default()
        };
    let most = if is_alone { MAX_NAMES } else { MAX_COUNTED };
    let few: i64 = connection
        .prepare_cached(&format!(
            "SELECT count(*) FROM (SELECT 1 FROM {} LIMIT {most})",
            names.text
        ))?
        .query_row(params_from_iter(&names.values), |row| row.get(0))?;
    if few >= most {
        return Ok(None);
    }
    // Not counted above, as those of other states are passed over one by one.
    names.push(
        &format!(" AND state IN ({})", question_marks(states.len())),
        states.iter().map(|state| (*state).into()),
    );
    let (descending, beyond) = direction(query.order);
    if let Some(after) = query.after {
        names.push(&format!(" AND id {beyond} ?"), [blob(after)]);
    }
    within(&mut names, "id", filter);
    if is_alone {
        names.push(
            &format!(" ORDER BY id{descending} LIMIT ?"),
            [count(query.limit).into()],
        );
    }
    let mut sql = Sql::default();
    sql.push(
        &format!(
            "SELECT l.id, f.state, f.name, f.created_at, f.expires_at, f.job \
             FROM (SELECT id FROM {}) l CROSS JOIN finished f ON f.id = l.id WHERE true",
            names.text
        ),
        names.values,
    );
    conditions(&mut sql, filter);
    sql.push(
        &format!(" ORDER BY 1{descending} LIMIT ?"),
        [count(query.limit).into()],
    );
    Ok(Some(sql))
}

/// The rarest of the labels, name, queue, schedule, node and creator among them, that have to be there with one of a few values.
fn leading_label<'a>(
    connection: &Connection,
    filter: &'a Filter,
    max_values: usize,
) -> Result<Option<(&'a str, Vec<&'a str>)>, Fault> {
    let queue = filter.queue.as_deref().filter(|it| *it != DEFAULT_QUEUE);
    let schedule = filter.schedule.as_deref();
    let name = filter.name.as_deref();
    let node = filter.node.as_ref().and_then(|it| match it {
        OnNode::Named(name) => Some(name.as_str()),
        OnNode::Hub => None,
    });
    let creator = filter.created_by.as_deref().filter(|it| is_indexed(it));
    let marks = [
        name.map(|it| (NAME_LABEL, vec![it])),
        queue.map(|it| (QUEUE_LABEL, vec![it])),
        schedule.map(|it| (SCHEDULE_LABEL, vec![it])),
        node.map(|it| (NODE_LABEL, vec![it])),
        creator.map(|it| (CREATOR_LABEL, vec![it])),
    ];
    let mut candidates: Vec<(&str, Vec<&str>)> = marks.into_iter().flatten().collect();
    for requirement in &filter.selector.requirements {
        match requirement {
            Requirement::In(key, values) => {
                let mut values: Vec<&str> = values.iter().map(String::as_str).collect();
                values.sort_unstable();
                // A value given twice must not show its jobs twice.
                values.dedup();
                if (1..=max_values).contains(&values.len()) {
                    candidates.push((key.as_str(), values));
                }
            }
            Requirement::NotIn(..) | Requirement::Exists(_) | Requirement::NotExists(_) => {}
        }
    }
    if candidates.len() < 2 {
        return Ok(candidates.pop());
    }
    let mut rarest: Option<(i64, (&str, Vec<&str>))> = None;
    for (key, values) in candidates {
        let sql = format!(
            "SELECT count(*) FROM (SELECT 1 FROM labels WHERE key = ? AND value IN ({}) LIMIT {MAX_COUNTED})",
            question_marks(values.len())
        );
        let jobs: i64 = connection
            .prepare_cached(&sql)?
            .query_row(params_from_iter([key].iter().chain(&values)), |row| {
                row.get(0)
            })?;
        if rarest.as_ref().is_none_or(|(fewest, _)| jobs < *fewest) {
            rarest = Some((jobs, (key, values)));
        }
    }
    Ok(rarest.map(|(_, label)| label))
}

/// Everything but the states. The leading label is checked once more, which costs one look-up.
fn conditions(sql: &mut Sql, filter: &Filter) {
    let labelled =
        "EXISTS (SELECT 1 FROM labels x WHERE x.key = ? AND x.state = f.state AND x.id = f.id";
    let has_key = "EXISTS (SELECT 1 FROM json_each(f.job, '$.labels') x WHERE x.key = ?)";
    for requirement in &filter.selector.requirements {
        match requirement {
            Requirement::In(key, values) => sql.push(
                &format!(
                    " AND {labelled} AND x.value IN ({}))",
                    question_marks(values.len())
                ),
                [key].into_iter().chain(values).map(|it| text(it)),
            ),
            Requirement::NotIn(key, values) => sql.push(
                &format!(
                    " AND NOT {labelled} AND x.value IN ({}))",
                    question_marks(values.len())
                ),
                [key].into_iter().chain(values).map(|it| text(it)),
            ),
            // The index of labels has the value before the job, so a key alone is looked up in the row.
            Requirement::Exists(key) => sql.push(&format!(" AND {has_key}"), [text(key)]),
            Requirement::NotExists(key) => sql.push(&format!(" AND NOT {has_key}"), [text(key)]),
        }
    }
    if let Some(name) = &filter.name {
        sql.push(" AND f.name = ?", [text(name)]);
    }
    if let Some(prefix) = &filter.name_prefix {
        named(sql, "f.name", prefix);
    }
    if let Some(queue) = &filter.queue {
        sql.push(" AND f.queue = ?", [text(queue)]);
    }
    if let Some(schedule) = &filter.schedule {
        sql.push(
            &format!(" AND {labelled} AND x.value = ?)"),
            [text(SCHEDULE_LABEL), text(schedule)],
        );
    }
    match &filter.node {
        Some(OnNode::Named(node)) => sql.push(
            &format!(" AND {labelled} AND x.value = ?)"),
            [text(NODE_LABEL), text(node)],
        ),
        // Most jobs of a hub that runs some itself: they need no index.
        Some(OnNode::Hub) => sql.push(
            " AND json_extract(f.job, '$.claim') IS NULL AND json_extract(f.job, '$.process') IS NOT NULL",
            [],
        ),
        None => {}
    }
    if let Some(creator) = &filter.created_by {
        sql.push(
            " AND json_extract(f.job, '$.created_by') = ?",
            [text(creator)],
        );
    }
    if let Some(moment) = filter.created_after {
        sql.push(" AND f.created_at >= ?", [moment.as_micros().into()]);
    }
    if let Some(moment) = filter.created_before {
        sql.push(" AND f.created_at < ?", [moment.as_micros().into()]);
    }
}
