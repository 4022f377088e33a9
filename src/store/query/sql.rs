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

/// The names that begin with a text: SQLite compares texts as bytes, and LIKE would fold the case.
pub(super) fn named(sql: &mut Sql, column: &str, prefix: &str) {
    sql.push(&format!(" AND {column} >= ?"), [text(prefix)]);
    if let Some(end) = end_of(prefix) {
        sql.push(&format!(" AND {column} < ?"), [text(&end)]);
    }
}

/// The least text that is greater than all that begin with this.
fn end_of(prefix: &str) -> Option<String> {
    let mut end = prefix.to_owned();
    while let Some(last) = end.pop() {
        let next = match last {
            // Between the two are no characters.
            '\u{d7ff}' => Some('\u{e000}'),
            other => char::from_u32(u32::from(other) + 1),
        };
        if let Some(next) = next {
            end.push(next);
            return Some(end);
        }
    }
    None
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_with_a_text_lies_before_its_end() {
        for (prefix, end) in [
            ("a", Some("b")),
            ("a\u{10ffff}", Some("b")),
            ("\u{d7ff}", Some("\u{e000}")),
            ("\u{10ffff}", None),
        ] {
            assert_eq!(end_of(prefix).as_deref(), end, "{prefix:?}");
            let longer = format!("{prefix}\u{10ffff}");
            assert!(end.is_none_or(|end| longer.as_str() < end && prefix < end));
        }
    }
}
