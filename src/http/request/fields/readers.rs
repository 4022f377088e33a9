//! Readers of single values: booleans, numbers, seconds and texts within their limits.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{At, code};
use crate::request::json::{Number, Value};

pub(in crate::request) fn boolean(at: &At<'_>) -> Option<bool> {
    let Value::Bool(value) = at.value else {
        return at.refuse(code::WRONG_TYPE, "must be true or false");
    };
    Some(*value)
}

/// Reads an integer in this range.
pub(in crate::request) fn integer<T>(range: RangeInclusive<T>) -> impl Fn(&At<'_>) -> Option<T>
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
pub(in crate::request) fn seconds(
    range: RangeInclusive<Duration>,
) -> impl Fn(&At<'_>) -> Option<Duration> {
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
pub(in crate::request) fn filled_text(most: usize) -> impl Fn(&At<'_>) -> Option<String> {
    move |at| {
        let text = c_text(most)(at)?;
        if text.is_empty() {
            return at.refuse(code::INVALID_VALUE, "must not be empty");
        }
        Some(text)
    }
}

/// Reads a text without NUL of at most `most` bytes.
pub(in crate::request) fn c_text(most: usize) -> impl Fn(&At<'_>) -> Option<String> {
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
