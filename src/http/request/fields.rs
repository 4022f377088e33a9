//! Readers for the fields of a body: each takes a value with its place and gives back what it means,
//! or notes a [`FieldError`] and gives back nothing, so that every error of a body is found at once.
//!
//! Details name what is allowed and never repeat what was given: it may be a secret.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Serialize;

use super::json::{Number, Object, Value};

/// What is wrong with one field of a body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// A JSON pointer (RFC 6901) to the field; empty for the body itself.
    pub pointer: String,
    /// A stable word, one of [`code`].
    pub code: &'static str,
    /// What is allowed, for people.
    pub detail: String,
}

/// The codes of a [`FieldError`].
pub mod code {
    /// The body has no such field.
    pub const UNKNOWN_FIELD: &str = "unknown_field";
    /// An object has this key more than once.
    pub const DUPLICATE_FIELD: &str = "duplicate_field";
    /// A required field is absent.
    pub const MISSING: &str = "missing";
    /// Another JSON type is wanted.
    pub const WRONG_TYPE: &str = "wrong_type";
    /// A number is too small or too large.
    pub const OUT_OF_RANGE: &str = "out_of_range";
    /// A text has too many characters or bytes.
    pub const TOO_LONG: &str = "too_long";
    /// A list or map has too many items.
    pub const TOO_MANY: &str = "too_many";
    /// The right type, but a value that is not allowed.
    pub const INVALID_VALUE: &str = "invalid_value";
    /// No job or batch has this id.
    pub const NO_SUCH_JOB: &str = "no_such_job";
    /// Two fields exclude each other.
    pub const CONFLICT: &str = "conflict";

    /// Every code.
    pub const ALL: [&str; 10] = [
        UNKNOWN_FIELD,
        DUPLICATE_FIELD,
        MISSING,
        WRONG_TYPE,
        OUT_OF_RANGE,
        TOO_LONG,
        TOO_MANY,
        INVALID_VALUE,
        NO_SUCH_JOB,
        CONFLICT,
    ];
}

/// The most errors that are told about one body.
const ERRORS_MAX: usize = 100;
/// No further error is told once the pointers are this long together: a huge key repeated in each
/// would make the answer a hundred times as large as the request.
const POINTER_BYTES_MAX: usize = 64 << 10;

/// The errors found in a body so far.
#[derive(Default)]
pub(super) struct Errors(RefCell<Vec<FieldError>>);

impl Errors {
    /// Asked before a pointer is built: to build a long one for each of many errors takes seconds.
    fn is_full(&self) -> bool {
        let errors = self.0.borrow();
        let bytes: usize = errors.iter().map(|error| error.pointer.len()).sum();
        errors.len() >= ERRORS_MAX || bytes >= POINTER_BYTES_MAX
    }

    /// What was read, if nothing was wrong.
    pub(super) fn result<T>(self, value: Option<T>) -> Result<T, Vec<FieldError>> {
        let errors = self.0.into_inner();
        if errors.is_empty() {
            Ok(value.expect("a reader gives nothing only after it noted an error"))
        } else {
            Err(errors)
        }
    }
}

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
            self.errors.0.borrow_mut().push(error);
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

pub(super) fn boolean(at: &At<'_>) -> Option<bool> {
    let Value::Bool(value) = at.value else {
        return at.refuse(code::WRONG_TYPE, "must be true or false");
    };
    Some(*value)
}

/// Reads an integer in this range.
pub(super) fn integer<T>(range: RangeInclusive<T>) -> impl Fn(&At<'_>) -> Option<T>
where
    T: Copy + Display + Into<i128> + TryFrom<i128>,
{
    /// From here on a number cannot be told from an integer, and no field allows one.
    const HUGE: f64 = 9e18;
    move |at| {
        let detail = || {
            format!(
                "must be an integer from {} to {}",
                range.start(),
                range.end()
            )
        };
        let Value::Number(number) = *at.value else {
            return at.refuse(code::WRONG_TYPE, detail());
        };
        let value = match number {
            Number::Unsigned(value) => i128::from(value),
            Number::Negative(value) => i128::from(value),
            Number::Float(value) if value.abs() >= HUGE => {
                return at.refuse(code::OUT_OF_RANGE, detail());
            }
            Number::Float(_) => return at.refuse(code::WRONG_TYPE, detail()),
        };
        let allowed = (*range.start()).into()..=(*range.end()).into();
        match T::try_from(value) {
            Ok(narrow) if allowed.contains(&value) => Some(narrow),
            Ok(_) | Err(_) => at.refuse(code::OUT_OF_RANGE, detail()),
        }
    }
}

/// Reads a number of seconds in this range, fractions allowed. A least of one nanosecond stands for
/// "more than zero".
pub(super) fn seconds(range: RangeInclusive<Duration>) -> impl Fn(&At<'_>) -> Option<Duration> {
    move |at| {
        let least = if *range.start() == Duration::from_nanos(1) {
            "more than 0".to_owned()
        } else {
            format!("at least {}", range.start().as_secs())
        };
        let most = range.end().as_secs();
        let detail = format!("must be a number of seconds, {least} and at most {most}");
        let Value::Number(number) = *at.value else {
            return at.refuse(code::WRONG_TYPE, detail);
        };
        let value = match number {
            Number::Unsigned(value) => Some(Duration::from_secs(value)),
            // However little it is, it is more than nothing.
            Number::Float(value) if value > 0.0 => Duration::try_from_secs_f64(value)
                .ok()
                .map(|value| value.max(Duration::from_nanos(1))),
            Number::Float(value) => Duration::try_from_secs_f64(value).ok(),
            Number::Negative(_) => None,
        };
        match value {
            Some(value) if range.contains(&value) => Some(value),
            Some(_) | None => at.refuse(code::OUT_OF_RANGE, detail),
        }
    }
}

/// Reads a text without NUL of 1 to `most` bytes.
pub(super) fn filled_text(most: usize) -> impl Fn(&At<'_>) -> Option<String> {
    move |at| {
        let text = c_text(most)(at)?;
        if text.is_empty() {
            return at.refuse(code::INVALID_VALUE, "must not be empty");
        }
        Some(text)
    }
}

/// Reads a text without NUL of at most `most` bytes.
pub(super) fn c_text(most: usize) -> impl Fn(&At<'_>) -> Option<String> {
    move |at| {
        let text = at.text()?;
        if text.len() > most {
            return at.refuse(code::TOO_LONG, format!("must have at most {most} bytes"));
        }
        if text.contains('\0') {
            return at.refuse(code::INVALID_VALUE, "must not contain a NUL character");
        }
        Some(text.to_owned())
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

    /// The field; nothing where it is absent, `null` or wrong.
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

    /// Notes every field that nobody asked for.
    pub(super) fn finish(self) {
        let known = format!("known fields: {}", self.known.join(", "));
        for key in self.object.members.keys() {
            if !self.known.contains(&key.as_str()) {
                let detail = match nearest(key, &self.known) {
                    Some(near) => format!("did you mean {near}? {known}"),
                    None => known.clone(),
                };
                self.refuse(key, code::UNKNOWN_FIELD, detail);
            }
        }
    }
}

/// The known word that an unknown one most likely stands for. What nobody would type is not compared.
pub(crate) fn nearest(word: &str, known: &[&'static str]) -> Option<&'static str> {
    const ALIKE: f64 = 0.82;
    const LONGEST: usize = 64;
    if word.len() > LONGEST {
        return None;
    }
    let word = word.to_lowercase().replace('-', "_");
    let part = known.iter().find(|known| {
        // `timeout` for `timeout_seconds`, `argv` for nothing.
        word.len() >= 3
            && known
                .strip_prefix(word.as_str())
                .is_some_and(|rest| rest.starts_with('_'))
    });
    let alike = known
        .iter()
        .map(|known| (strsim::jaro_winkler(&word, known), known));
    let best = alike.max_by(|(one, _), (other, _)| one.total_cmp(other));
    part.or_else(|| {
        best.filter(|(score, _)| *score >= ALIKE)
            .map(|(_, known)| known)
    })
    .copied()
}
