//! Label selectors in the syntax of Kubernetes: `a=b,c!=d,e in (x,y),f notin (z),g,!h`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::label;

/// One condition on a job's labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Requirement {
    /// The label exists and has one of these values (`a=b`, `a==b`, `a in (b,c)`).
    In(String, Vec<String>),
    /// The label is absent or has none of these values (`a!=b`, `a notin (b,c)`).
    NotIn(String, Vec<String>),
    /// The label exists (`a`).
    Exists(String),
    /// The label is absent (`!a`).
    NotExists(String),
}

/// Conditions that must all hold. An empty selector matches every job.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Selector {
    /// The conditions.
    pub requirements: Vec<Requirement>,
}

impl Selector {
    /// Has it no condition?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Do these labels fulfil every condition?
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.requirements
            .iter()
            .all(|requirement| match requirement {
                Requirement::In(key, values) => {
                    labels.get(key).is_some_and(|value| values.contains(value))
                }
                Requirement::NotIn(key, values) => {
                    labels.get(key).is_none_or(|value| !values.contains(value))
                }
                Requirement::Exists(key) => labels.contains_key(key),
                Requirement::NotExists(key) => !labels.contains_key(key),
            })
    }
}

/// The longest selector, in bytes.
const BYTES_MAX: usize = 4096;
/// The most conditions of a selector.
const REQUIREMENTS_MAX: usize = 64;

/// A text is no label selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("character {position}: {fix}")]
pub struct SelectorError {
    /// Where it is wrong; the first character is 1.
    pub position: usize,
    /// What is allowed there.
    pub fix: &'static str,
}

impl TryFrom<String> for Selector {
    type Error = SelectorError;

    fn try_from(text: String) -> Result<Self, SelectorError> {
        text.parse()
    }
}

impl From<Selector> for String {
    fn from(selector: Selector) -> Self {
        selector.to_string()
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let mut parser = Parser { text, at: 0 };
        if text.len() > BYTES_MAX {
            return Err(parser.error(BYTES_MAX, "a selector has at most 4096 bytes"));
        }
        let mut selector = Self::default();
        if parser.peek().is_none() {
            return Ok(selector);
        }
        loop {
            let start = parser.at;
            selector.requirements.push(parser.requirement()?);
            if selector.requirements.len() > REQUIREMENTS_MAX {
                return Err(parser.error(start, "a selector has at most 64 conditions"));
            }
            if parser.peek().is_none() {
                return Ok(selector);
            }
            if !parser.take(",") {
                return Err(parser.error(parser.at, "expected ',' or the end"));
            }
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    /// In bytes; always at the start of a character.
    at: usize,
}

impl<'a> Parser<'a> {
    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        if self.take("!") {
            return Ok(Requirement::NotExists(self.key()?));
        }
        let key = self.key()?;
        if self.take("==") || self.take("=") {
            return Ok(Requirement::In(key, vec![self.value()?]));
        }
        if self.take("!=") {
            return Ok(Requirement::NotIn(key, vec![self.value()?]));
        }
        let start = self.at;
        match self.word() {
            "in" => Ok(Requirement::In(key, self.values()?)),
            "notin" => Ok(Requirement::NotIn(key, self.values()?)),
            "" => match self.peek() {
                None | Some(',') => Ok(Requirement::Exists(key)),
                Some(_) => Err(self.error(start, OPERATORS)),
            },
            _ => Err(self.error(start, OPERATORS)),
        }
    }

    fn key(&mut self) -> Result<String, SelectorError> {
        self.peek();
        let start = self.at;
        let key = self.word();
        match label::check_key(key) {
            Ok(()) => Ok(key.to_owned()),
            Err(_) if key.is_empty() => Err(self.error(start, "expected a label key")),
            Err(label::LabelError::TooLong(fix) | label::LabelError::Malformed(fix)) => {
                Err(self.error(start, fix))
            }
        }
    }

    fn value(&mut self) -> Result<String, SelectorError> {
        self.peek();
        let start = self.at;
        let value = self.word();
        match label::check_value(value) {
            Ok(()) => Ok(value.to_owned()),
            Err(label::LabelError::TooLong(fix) | label::LabelError::Malformed(fix)) => {
                Err(self.error(start, fix))
            }
        }
    }

    /// `(a,b)` as a sorted set. As in Kubernetes, an empty place is the empty value.
    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        if !self.take("(") {
            return Err(self.error(self.at, "expected '(' and values, such as (x,y)"));
        }
        let mut values = Vec::new();
        loop {
            values.push(self.value()?);
            if self.take(")") {
                values.sort_unstable();
                values.dedup();
                return Ok(values);
            }
            if !self.take(",") {
                return Err(self.error(self.at, "expected ',' or ')'"));
            }
        }
    }

    /// Skips white space and looks at the next character.
    fn peek(&mut self) -> Option<char> {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_ascii_start().len();
        self.text[self.at..].chars().next()
    }

    fn take(&mut self, token: &str) -> bool {
        self.peek();
        let found = self.text[self.at..].starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    /// The longest run of characters that can stand in a key, a value or an operator word.
    fn word(&mut self) -> &'a str {
        self.peek();
        let rest = &self.text[self.at..];
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/')))
            .unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn error(&self, at: usize, fix: &'static str) -> SelectorError {
        let characters = self
            .text
            .char_indices()
            .take_while(|(index, _)| *index < at);
        SelectorError {
            position: characters.count() + 1,
            fix,
        }
    }
}

const OPERATORS: &str = "expected one of = == != in notin after the key, ',' or the end";

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::In(key, values) => match values.as_slice() {
                [value] => write!(f, "{key}={value}"),
                values => write!(f, "{key} in ({})", values.join(",")),
            },
            Self::NotIn(key, values) => match values.as_slice() {
                [value] => write!(f, "{key}!={value}"),
                values => write!(f, "{key} notin ({})", values.join(",")),
            },
            Self::Exists(key) => f.write_str(key),
            Self::NotExists(key) => write!(f, "!{key}"),
        }
    }
}

impl fmt::Display for Selector {
    /// The same conditions in one spelling, which parses back to this selector.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{requirement}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Vec<Requirement>, SelectorError> {
        text.parse::<Selector>()
            .map(|selector| selector.requirements)
    }

    fn owned(values: &[&str]) -> Vec<String> {
        values.iter().map(|value| (*value).to_owned()).collect()
    }

    #[test]
    fn every_form_is_read() {
        use Requirement::{Exists, In, NotExists, NotIn};
        let key = String::from;
        for (text, expected) in [
            ("", vec![]),
            (" \t ", vec![]),
            ("a=b", vec![In(key("a"), owned(&["b"]))]),
            ("a == b", vec![In(key("a"), owned(&["b"]))]),
            ("a=", vec![In(key("a"), owned(&[""]))]),
            ("a=,b", vec![In(key("a"), owned(&[""])), Exists(key("b"))]),
            ("a!=b", vec![NotIn(key("a"), owned(&["b"]))]),
            ("a in (y, x,y)", vec![In(key("a"), owned(&["x", "y"]))]),
            ("a in(x)", vec![In(key("a"), owned(&["x"]))]),
            ("a in ()", vec![In(key("a"), owned(&[""]))]),
            ("a notin ( x )", vec![NotIn(key("a"), owned(&["x"]))]),
            ("a", vec![Exists(key("a"))]),
            ("! x.io/a", vec![NotExists(key("x.io/a"))]),
            ("in in (in)", vec![In(key("in"), owned(&["in"]))]),
            (
                " a , !b,c=d ",
                vec![
                    Exists(key("a")),
                    NotExists(key("b")),
                    In(key("c"), owned(&["d"])),
                ],
            ),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn errors_say_where() {
        for (text, position) in [
            ("a,", 3),
            (",a", 1),
            ("a=b c", 5),
            ("a b", 3),
            ("a>1", 2),
            ("!a=b", 3),
            ("a in x", 6),
            ("a in (x", 8),
            ("a in (x y)", 9),
            ("a in (x,-)", 9),
            ("a=é", 3),
            ("é=a", 1),
            ("a=-", 3),
            ("a/b/c", 1),
            ("=a", 1),
            ("a===b", 4),
        ] {
            assert_eq!(parse(text).unwrap_err().position, position, "{text:?}");
        }
        assert_eq!(
            parse("a=/").unwrap_err().to_string().split(':').next(),
            Some("character 3")
        );
    }

    #[test]
    fn a_selector_has_a_most() {
        assert!(parse(&["a"; 64].join(",")).is_ok());
        assert_eq!(parse(&["a"; 65].join(",")).unwrap_err().position, 129);
        assert!(parse(&" ".repeat(4096)).is_ok());
        assert!(parse(&" ".repeat(4097)).is_err());
    }

    fn requirement() -> impl Strategy<Value = Requirement> {
        let key = "([a-z]{1,3}\\.io/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,4}[A-Za-z0-9])?";
        let value = "([A-Za-z0-9]([A-Za-z0-9._-]{0,4}[A-Za-z0-9])?)?";
        let values = prop::collection::btree_set(value, 1..4)
            .prop_map(|set| set.into_iter().collect::<Vec<String>>());
        (key, values, 0..4).prop_map(|(key, values, form)| match form {
            0 => Requirement::In(key, values),
            1 => Requirement::NotIn(key, values),
            2 => Requirement::Exists(key),
            _ => Requirement::NotExists(key),
        })
    }

    proptest! {
        #[test]
        fn what_is_shown_parses_back(requirements in prop::collection::vec(requirement(), 0..8)) {
            let selector = Selector { requirements };
            prop_assert_eq!(selector.to_string().parse::<Selector>(), Ok(selector));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[a-z=!,() é/.-]{0,24}") {
            if let Ok(selector) = text.parse::<Selector>() {
                prop_assert_eq!(selector.to_string().parse::<Selector>(), Ok(selector));
            }
        }
    }
}
