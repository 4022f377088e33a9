//! A span as the JSON of OTLP has it. What waits for a collector is kept in this form: a few hundred bytes each.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use job::time::Timestamp;

/// A span that has ended.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Span {
    /// 32 hexadecimal digits; the spans of a job share them.
    pub(super) trace_id: Arc<str>,
    /// 16 hexadecimal digits.
    pub(super) span_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) parent_span_id: Option<String>,
    pub(super) name: Cow<'static, str>,
    pub(super) kind: Kind,
    #[serde(rename = "startTimeUnixNano", serialize_with = "as_nanos")]
    pub(super) from: Timestamp,
    #[serde(rename = "endTimeUnixNano", serialize_with = "as_nanos")]
    pub(super) to: Timestamp,
    /// The spans of a job share them.
    pub(super) attributes: Arc<[Attribute]>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) links: Vec<Link>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<Status>,
}

/// What a span is about; numbers in JSON.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Internal,
    Server,
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(match self {
            Self::Internal => 1,
            Self::Server => 2,
        })
    }
}

/// A fact of a span, or of all.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Attribute {
    key: Cow<'static, str>,
    value: Value,
}

/// Numbers are texts: JSON has none of 64 bits.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
enum Value {
    StringValue(String),
    IntValue(String),
}

impl Attribute {
    pub(super) fn text(key: impl Into<Cow<'static, str>>, value: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            value: Value::StringValue(value.into()),
        }
    }

    pub(super) fn number(key: &'static str, value: impl Into<i64>) -> Self {
        Self {
            key: key.into(),
            value: Value::IntValue(value.into().to_string()),
        }
    }
}

/// Another span that this one has to do with.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Link {
    pub(super) trace_id: String,
    pub(super) span_id: String,
}

/// How it ended, if not well.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Status {
    code: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'static str>,
}

impl Status {
    pub(super) fn error(message: Option<&'static str>) -> Self {
        Self { code: 2, message }
    }
}

/// An `ExportTraceServiceRequest` with these spans of one resource, as JSON.
pub(super) fn request(
    resource: &[Attribute],
    spans: &[Span],
) -> Result<Vec<u8>, serde_json::Error> {
    let scope = Scope {
        name: "procession",
        version: env!("CARGO_PKG_VERSION"),
    };
    serde_json::to_vec(&Export {
        resource_spans: [ResourceSpans {
            resource: Resource {
                attributes: resource,
            },
            scope_spans: [ScopeSpans { scope, spans }],
        }],
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Export<'a> {
    resource_spans: [ResourceSpans<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans<'a> {
    resource: Resource<'a>,
    scope_spans: [ScopeSpans<'a>; 1],
}

#[derive(Serialize)]
struct Resource<'a> {
    attributes: &'a [Attribute],
}

#[derive(Serialize)]
struct ScopeSpans<'a> {
    scope: Scope,
    spans: &'a [Span],
}

#[derive(Serialize)]
struct Scope {
    name: &'static str,
    version: &'static str,
}

/// 64-bit numbers are texts in the JSON of OTLP.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn as_nanos<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{}000", at.as_micros()))
}
