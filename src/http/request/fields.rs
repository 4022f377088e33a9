//! Readers for the fields of a body: each takes a value with its place and gives back what it means,
//! or notes a [`FieldError`] and gives back nothing, so that every error of a body is found at once.
//!
//! Details name what is allowed and never repeat what was given: it may be a secret.

mod error;
mod nearest;
mod readers;

use std::collections::BTreeMap;

use super::json::{Object, Value};
pub(super) use error::Errors;
pub use error::{FieldError, code};
pub(crate) use nearest::nearest;
pub(super) use readers::{boolean, c_text, filled_text, integer, seconds};

/// A value of the body and where it is.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) value: &'a Value,
    step: Step<'a>,
    errors: &'a Errors,
}

/// The last step of the way to a value.
#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Key(&'a At<'a>, &'a str),
    Index(&'a At<'a>, usize),
}

static ABSENT: Value = Value::Null;

impl<'a> At<'a> {
    pub(super) fn root(value: &'a Value, errors: &'a Errors) -> Self {
        Self {
            value,
            step: Step::Root,
            errors,
        }
    }

    fn member<'b>(&'b self, key: &'b str, value: &'b Value) -> At<'b> {
        At {
            value,
            step: Step::Key(self, key),
            errors: self.errors,
        }
    }

    fn item<'b>(&'b self, index: usize, value: &'b Value) -> At<'b> {
        At {
            value,
            step: Step::Index(self, index),
            errors: self.errors,
        }
    }

    fn pointer(&self) -> String {
        match self.step {
            Step::Root => String::new(),
            Step::Key(parent, key) => {
                let key = key.replace('~', "~0").replace('/', "~1");
                format!("{}/{key}", parent.pointer())
            }
            Step::Index(parent, index) => format!("{}/{index}", parent.pointer()),
        }
    }

    /// Notes an error here; the `None` is what a reader then returns.
    pub(super) fn refuse<T>(&self, code: &'static str, detail: impl Into<String>) -> Option<T> {
        if !self.errors.is_full() {
            let error = FieldError {
                pointer: self.pointer(),
                code,
                detail: detail.into(),
            };
            self.errors.note(error);
        }
        None
    }

    /// Notes every repeated key here and below.
    pub(super) fn refuse_duplicates(&self) {
        match self.value {
            Value::Object(object) => {
                for key in &object.repeated {
                    self.member(key, &ABSENT)
                        .refuse::<()>(code::DUPLICATE_FIELD, "give this key once");
                }
                for (key, value) in &object.members {
                    self.member(key, value).refuse_duplicates();
                }
            }
            Value::List(items) => {
                for (index, value) in items.iter().enumerate() {
                    self.item(index, value).refuse_duplicates();
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) => {}
        }
    }

    pub(super) fn is_text(&self) -> bool {
        matches!(self.value, Value::Text(_))
    }

    pub(super) fn text(&self) -> Option<&'a str> {
        let Value::Text(text) = self.value else {
            return self.refuse(code::WRONG_TYPE, "must be a string");
        };
        Some(text)
    }

    fn object(&self) -> Option<&'a Object> {
        let Value::Object(object) = self.value else {
            return self.refuse(code::WRONG_TYPE, "must be an object");
        };
        Some(object)
    }

    /// A list of at most `most` items, or nothing if one of them is wrong.
    pub(super) fn list<T>(
        &self,
        most: usize,
        read: impl Fn(&At<'_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let Value::List(items) = self.value else {
            return self.refuse(code::WRONG_TYPE, "must be an array");
        };
        if items.len() > most {
            return self.refuse(code::TOO_MANY, format!("must have at most {most} items"));
        }
        // Every item is read, so that the errors of all of them are noted.
        let read: Vec<Option<T>> = items
            .iter()
            .enumerate()
            .map(|(index, value)| read(&self.item(index, value)))
            .collect();
        read.into_iter().collect()
    }

    /// The same for at least one item.
    pub(super) fn filled_list<T>(
        &self,
        most: usize,
        read: impl Fn(&At<'_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let items = self.list(most, read)?;
        if items.is_empty() {
            return self.refuse(code::INVALID_VALUE, "must have at least one item");
        }
        Some(items)
    }

    /// A set, sorted: at least one item, none of them twice.
    pub(super) fn set<T: Ord>(
        &self,
        most: usize,
        read: impl Fn(&At<'_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let mut items = self.filled_list(most, read)?;
        items.sort_unstable();
        if items.windows(2).any(|pair| pair[0] == pair[1]) {
            return self.refuse(code::INVALID_VALUE, "must have no item twice");
        }
        Some(items)
    }

    /// A map of at most `most` pairs; `read` gets the key too.
    pub(super) fn map<K: Ord, V>(
        &self,
        most: usize,
        read: impl Fn(&str, &At<'_>) -> Option<(K, V)>,
    ) -> Option<BTreeMap<K, V>> {
        let members = &self.object()?.members;
        if members.len() > most {
            return self.refuse(code::TOO_MANY, format!("must have at most {most} pairs"));
        }
        let read: Vec<Option<(K, V)>> = members
            .iter()
            .map(|(key, value)| read(key, &self.member(key, value)))
            .collect();
        read.into_iter().collect()
    }

    /// One of these words.
    pub(super) fn choice<T: Clone>(&self, words: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => Some(value.clone()),
            None => {
                let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                self.refuse(
                    code::INVALID_VALUE,
                    format!("must be one of: {}", words.join(", ")),
                )
            }
        }
    }
}

/// The fields of an object. Every field is asked for by name; what was never asked for is unknown.
pub(super) struct Fields<'a> {
    at: At<'a>,
    object: &'a Object,
    known: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    pub(super) fn of(at: &At<'a>) -> Option<Self> {
        Some(Self {
            at: *at,
            object: at.object()?,
            known: Vec::new(),
        })
    }

    /// The field; nothing if it is absent, `null` or wrong.
    pub(super) fn optional<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&At<'_>) -> Option<T>,
    ) -> Option<T> {
        self.known.push(name);
        match self.object.members.get(name) {
            None | Some(Value::Null) => None,
            Some(value) => read(&self.at.member(name, value)),
        }
    }

    /// The same with a default.
    pub(super) fn or<T>(
        &mut self,
        default: T,
        name: &'static str,
        read: impl FnOnce(&At<'_>) -> Option<T>,
    ) -> T {
        self.optional(name, read).unwrap_or(default)
    }

    /// The same with the default of its type.
    pub(super) fn or_default<T: Default>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&At<'_>) -> Option<T>,
    ) -> T {
        self.optional(name, read).unwrap_or_default()
    }

    /// The same for a field that must be there.
    pub(super) fn required<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&At<'_>) -> Option<T>,
    ) -> Option<T> {
        if !self.has(name) {
            self.refuse(name, code::MISSING, "must be given");
        }
        self.optional(name, read)
    }

    /// Is the field there and not `null`?
    pub(super) fn has(&self, name: &str) -> bool {
        match self.object.members.get(name) {
            None | Some(Value::Null) => false,
            Some(_) => true,
        }
    }

    /// Notes an error at the field, be it there or not.
    pub(super) fn refuse(&self, name: &str, code: &'static str, detail: impl Into<String>) {
        self.at.member(name, &ABSENT).refuse::<()>(code, detail);
    }

    /// Notes an error at a member of the field.
    pub(super) fn refuse_below(
        &self,
        name: &str,
        key: &str,
        code: &'static str,
        detail: impl Into<String>,
    ) {
        let field = self.at.member(name, &ABSENT);
        field.member(key, &ABSENT).refuse::<()>(code, detail);
    }

    /// Notes every field that nobody asked for. The known ones are listed once, and only if no name is near.
    pub(super) fn finish(self) {
        let mut is_listed = false;
        for key in self.object.members.keys() {
            if !self.known.contains(&key.as_str()) {
                let detail = match nearest(key, &self.known) {
                    Some(near) => format!("did you mean {near}?"),
                    None if is_listed => "an unknown field".to_owned(),
                    None => {
                        is_listed = true;
                        format!("an unknown field; known fields: {}", self.known.join(", "))
                    }
                };
                self.refuse(key, code::UNKNOWN_FIELD, detail);
            }
        }
    }
}
