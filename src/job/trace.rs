//! The trace that a job belongs to, as W3C Trace Context has it: who asked for the job names the trace, and the job's
//! program is told of it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// More of a `tracestate` is not passed on.
const STATE_BYTES: usize = 512;

/// More of a `baggage` is not passed on.
const BAGGAGE_BYTES: usize = 8192;

/// The place of a job in its caller's trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// 32 hexadecimal digits, not all of them 0.
    pub trace_id: String,
    /// The caller's span: 16 hexadecimal digits, not all of them 0.
    pub span_id: String,
    /// The caller records the trace.
    pub sampled: bool,
    /// What vendors add, as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// What the caller wants all that follow to know, as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baggage: Option<String>,
}

impl Trace {
    /// Reads the headers `traceparent`, `tracestate` and `baggage`. `None` without a valid `traceparent`: a wrong one is
    /// ignored, and so are its companions where they are too long or no visible ASCII.
    #[must_use]
    pub fn of_headers(
        parent: Option<&str>,
        state: Option<String>,
        baggage: Option<String>,
    ) -> Option<Self> {
        let parent = parent?;
        let mut parts = parent.split('-');
        let (version, trace_id, span_id, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        // A later version may have more parts, which are not for us; the first has none.
        let is_whole = match version {
            "ff" => false,
            "00" => parts.next().is_none(),
            version => is_hexadecimal(version, 2),
        };
        let is_valid = is_whole
            && is_hexadecimal(trace_id, 32)
            && is_hexadecimal(span_id, 16)
            && is_hexadecimal(flags, 2)
            && [trace_id, span_id]
                .iter()
                .all(|id| id.bytes().any(|digit| digit != b'0'));
        if !is_valid {
            return None;
        }
        let flags = u8::from_str_radix(flags, 16).ok()?;
        let fits = |text: &String, most: usize| {
            (1..=most).contains(&text.len())
                && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        };
        Some(Self {
            trace_id: trace_id.to_owned(),
            span_id: span_id.to_owned(),
            sampled: flags & 1 == 1,
            state: state.filter(|text| fits(text, STATE_BYTES)),
            baggage: baggage.filter(|text| fits(text, BAGGAGE_BYTES)),
        })
    }

    /// The id, if the caller records the trace.
    #[must_use]
    pub fn recorded(&self) -> Option<String> {
        self.sampled.then(|| self.trace_id.clone())
    }

    /// The variables that tell a program of it.
    pub fn variables(&self) -> impl Iterator<Item = (&'static str, String)> {
        let others = [("TRACESTATE", &self.state), ("BAGGAGE", &self.baggage)];
        let others = others.map(|(name, value)| Some((name, value.clone()?)));
        std::iter::once(("TRACEPARENT", self.to_string())).chain(others.into_iter().flatten())
    }
}

/// As `traceparent` has it.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = u8::from(self.sampled);
        write!(f, "00-{}-{}-{flags:02x}", self.trace_id, self.span_id)
    }
}

/// Lower-case digits, and so many of them.
fn is_hexadecimal(text: &str, length: usize) -> bool {
    text.len() == length
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn of(parent: &str) -> Option<Trace> {
        Trace::of_headers(Some(parent), None, None)
    }

    #[test]
    fn a_valid_parent_comes_back_as_it_was() {
        let trace = of(PARENT).unwrap();
        assert!(trace.sampled);
        assert_eq!(trace.to_string(), PARENT);
        let unsampled = PARENT.replace("-01", "-00");
        assert_eq!(of(&unsampled).unwrap().to_string(), unsampled);
        // A later version is read as far as it is known, and passed on as version 00.
        let later = format!("{}-what-comes", PARENT.replacen("00", "cc", 1));
        assert_eq!(of(&later).unwrap().to_string(), PARENT);
    }

    #[test]
    fn whatever_is_not_valid_is_ignored() {
        for wrong in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0g",
        ] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
        assert_eq!(Trace::of_headers(None, Some("a=b".to_owned()), None), None);
    }

    #[test]
    fn companions_are_passed_on_within_their_bounds() {
        let with = |state: &str, baggage: &str| {
            let (state, baggage) = (Some(state.to_owned()), Some(baggage.to_owned()));
            Trace::of_headers(Some(PARENT), state, baggage).unwrap()
        };
        let names = |trace: &Trace| trace.variables().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(
            names(&with("a=b", "user=1")),
            ["TRACEPARENT", "TRACESTATE", "BAGGAGE"]
        );
        assert_eq!(names(&with(&"x".repeat(513), "a\nb")), ["TRACEPARENT"]);
    }
}
