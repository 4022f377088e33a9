//! Query parameters: unknown ones are refused, and all mistakes are told at once.

use std::time::Duration;

use axum::extract::Query;
use axum::http::Uri;

use crate::problem::{ApiError, Place, Violation};
use crate::request::nearest;

/// Refuses parameters that are not among `known`.
pub(super) fn check_known(uri: &Uri, known: &[&'static str]) -> Result<(), ApiError> {
    let mut errors: Vec<Violation> = Vec::new();
    for (name, _) in pairs(uri) {
        if known.contains(&name.as_str()) {
            continue;
        }
        let detail = if known.is_empty() {
            "unknown; this route takes no parameters".to_owned()
        } else {
            let near = nearest(&name, known).map(|near| format!("did you mean {near}? "));
            let near = near.unwrap_or_default();
            format!("unknown; {near}known here: {}", known.join(", "))
        };
        errors.push(violation(&name, "unknown_parameter", detail));
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(ApiError::InvalidQuery(errors))
    }
}

fn pairs(uri: &Uri) -> Vec<(String, String)> {
    // Every text is a list of pairs in this encoding, so that there is nothing to be reported.
    Query::try_from_uri(uri).map_or_else(|_| Vec::new(), |Query(pairs)| pairs)
}

fn violation(name: &str, code: &'static str, detail: impl Into<String>) -> Violation {
    Violation {
        place: Place::Parameter(name.to_owned()),
        code,
        detail: detail.into(),
    }
}

/// The parameters of one request and the mistakes found in them so far.
#[derive(Debug)]
pub(super) struct Params {
    pairs: Vec<(String, String)>,
    errors: Vec<Violation>,
}

impl Params {
    /// The parameters in the query of `uri`.
    pub(super) fn of(uri: &Uri) -> Self {
        Self {
            pairs: pairs(uri),
            errors: Vec::new(),
        }
    }

    /// Every value of a parameter that may be repeated.
    pub(super) fn all(&self, name: &str) -> Vec<String> {
        self.pairs
            .iter()
            .filter(|(given, _)| given == name)
            .map(|(_, value)| value.clone())
            .collect()
    }

    /// The value of a parameter that may come once.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        let mut values = self.all(name);
        if values.len() > 1 {
            self.refuse(name, "repeated", "give it once");
        }
        values.pop()
    }

    /// The value as `parse` understands it; `wanted` says what it should have been.
    pub(super) fn parsed<T>(
        &mut self,
        name: &str,
        wanted: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(name)?;
        let value = parse(&text);
        if value.is_none() {
            self.refuse(name, "invalid_value", format!("must be {wanted}"));
        }
        value
    }

    /// A whole number.
    pub(super) fn integer(&mut self, name: &str) -> Option<u64> {
        self.parsed(
            name,
            "a whole number from 0 to 18446744073709551615",
            |text| {
                text.bytes()
                    .all(|byte| byte.is_ascii_digit())
                    .then(|| text.parse().ok())?
            },
        )
    }

    /// `true` or `false`; a parameter without a value is `true`.
    pub(super) fn flag(&mut self, name: &str) -> bool {
        self.given_flag(name).unwrap_or(false)
    }

    /// The same where the default depends on something else.
    pub(super) fn given_flag(&mut self, name: &str) -> Option<bool> {
        self.parsed(name, "true or false", |text| {
            match text.to_ascii_lowercase().as_str() {
                "" | "true" | "1" => Some(true),
                "false" | "0" => Some(false),
                _ => None,
            }
        })
    }

    /// Seconds, fractions allowed.
    pub(super) fn seconds(&mut self, name: &str) -> Option<Duration> {
        self.parsed(name, "a number of seconds, 0 or more", seconds)
    }

    /// Adds a parameter, as if the client had.
    pub(super) fn add(&mut self, name: &str, value: String) {
        self.pairs.push((name.to_owned(), value));
    }

    /// Notes a mistake.
    pub(super) fn refuse(&mut self, name: &str, code: &'static str, detail: impl Into<String>) {
        self.errors.push(violation(name, code, detail));
    }

    /// Tells the mistakes, if there are any.
    pub(super) fn finish(self) -> Result<(), ApiError> {
        if self.errors.is_empty() {
            Ok(())
        } else {
            Err(ApiError::InvalidQuery(self.errors))
        }
    }
}

/// A number of seconds that is finite and not negative.
pub(super) fn seconds(text: &str) -> Option<Duration> {
    // Rust also reads `inf`, `nan` and `+1`; the contract does not.
    let plain = text.starts_with(|first: char| first.is_ascii_digit() || first == '.');
    let number = plain.then(|| text.parse::<f64>().ok())??;
    Duration::try_from_secs_f64(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn params(query: &str) -> Params {
        Params::of(&format!("/jobs?{query}").parse().unwrap())
    }

    #[test]
    fn unknown_parameters_are_named_and_the_known_ones_listed() {
        let uri: Uri = "/jobs?wiat=3&wait=4&x=".parse().unwrap();
        let Err(ApiError::InvalidQuery(errors)) = check_known(&uri, &["wait", "until"]) else {
            panic!("accepted");
        };
        let places: Vec<_> = errors.iter().map(|error| error.place.clone()).collect();
        assert_eq!(
            places,
            [
                Place::Parameter("wiat".into()),
                Place::Parameter("x".into())
            ]
        );
        assert_eq!(
            errors[0].detail,
            "unknown; did you mean wait? known here: wait, until"
        );
        check_known(&uri, &["wait", "wiat", "x"]).unwrap();
    }

    #[test]
    fn values_are_decoded_and_repeats_refused() {
        let mut once = params("reason=a%20b%26c+d");
        assert_eq!(once.text("reason").as_deref(), Some("a b&c d"));
        once.finish().unwrap();
        let mut twice = params("reason=a&reason=b");
        twice.text("reason");
        twice.finish().unwrap_err();
    }

    #[test]
    fn flags_need_no_value() {
        for (query, expected) in [
            ("force", Ok(true)),
            ("force=true", Ok(true)),
            ("force=0", Ok(false)),
            ("force=True", Ok(true)),
            ("force=FALSE", Ok(false)),
            ("", Ok(false)),
            ("force=yes", Err(())),
        ] {
            let mut params = params(query);
            let value = params.flag("force");
            assert_eq!(
                params.finish().map(|()| value).map_err(|_| ()),
                expected,
                "{query}"
            );
        }
    }

    #[test]
    fn seconds_are_finite_and_not_negative() {
        assert_eq!(seconds("1.5"), Some(Duration::from_millis(1500)));
        assert_eq!(seconds("0"), Some(Duration::ZERO));
        for text in [
            "", "-1", "inf", "nan", "1e400", "1e30", "+1", "1s", " 1", "infinity",
        ] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_query_panics(query in "[!-~]{0,64}") {
            if let Ok(uri) = format!("/?{query}").parse::<Uri>() {
                let mut params = Params::of(&uri);
                params.integer("a");
                params.seconds("b");
                let _ = params.finish();
            }
        }
    }
}
