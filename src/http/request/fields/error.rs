//! The errors of a body: their codes, and how many of them are reported.

use std::cell::RefCell;

use serde::Serialize;

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
pub(in crate::request) struct Errors(RefCell<Vec<FieldError>>);

impl Errors {
    /// Asked before a pointer is built: to build a long one for each of many errors takes seconds.
    pub(super) fn is_full(&self) -> bool {
        let errors = self.0.borrow();
        let bytes: usize = errors.iter().map(|error| error.pointer.len()).sum();
        errors.len() >= ERRORS_MAX || bytes >= POINTER_BYTES_MAX
    }

    pub(super) fn note(&self, error: FieldError) {
        self.0.borrow_mut().push(error);
    }

    /// What was read, if nothing was wrong.
    pub(in crate::request) fn result<T>(self, value: Option<T>) -> Result<T, Vec<FieldError>> {
        let errors = self.0.into_inner();
        if errors.is_empty() {
            Ok(value.expect("a reader gives nothing only after it noted an error"))
        } else {
            Err(errors)
        }
    }
}
