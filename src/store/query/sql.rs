//! SQL text with its values, and the conditions that more than one statement has.

use rusqlite::types::Value;

use job::JobId;
use job::query::{Filter, Order};

/// A statement under construction: the values follow the question marks.
#[derive(Debug, Default)]
pub(crate) struct Sql {
    pub(crate) text: String,
    pub(crate) values: Vec<Value>,
}

impl Sql {
    pub(super) fn push(&mut self, text: &str, values: impl IntoIterator<Item = Value>) {
        self.text.push_str(text);
        self.values.extend(values);
    }
}

/// The ids that jobs of the time can have; the exact time is checked besides.
pub(super) fn within(sql: &mut Sql, id: &str, filter: &Filter) {
    if let Some(moment) = filter.created_after {
        sql.push(&format!(" AND {id} >= ?"), [blob(JobId::below(moment))]);
    }
    if let Some(moment) = filter.created_before {
        sql.push(&format!(" AND {id} < ?"), [blob(JobId::above(moment))]);
    }
}

pub(super) fn named(sql: &mut Sql, column: &str, prefix: &str) {
    sql.push(&format!(" AND {column} IS NOT NULL"), []);
    // SQLite's substr() makes NULL of what is empty.
    if !prefix.is_empty() {
        // Bytes, as a prefix of characters is one of bytes, and LIKE folds the case.
        let prefix = Value::Blob(prefix.as_bytes().to_vec());
        sql.push(
            &format!(" AND substr(CAST({column} AS BLOB), 1, length(?)) = ?"),
            [prefix.clone(), prefix],
        );
    }
}

pub(super) fn blob(id: JobId) -> Value {
    Value::Blob(id.as_bytes().to_vec())
}

pub(super) fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

pub(super) fn question_marks(count: usize) -> String {
    vec!["?"; count].join(", ")
}

pub(super) fn count(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// How rows are sorted by id, and how the id of one further on compares with that of one before.
pub(super) fn direction(order: Order) -> (&'static str, &'static str) {
    match order {
        Order::CreatedDescending => (" DESC", "<"),
        Order::CreatedAscending => ("", ">"),
    }
}
