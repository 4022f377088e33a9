//! How a tool asks the HTTP API.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use rmcp::model::MetaObject;
use serde_json::Value;
use url::form_urlencoded;

/// A method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Reads.
    Get,
    /// Creates, or does something.
    Post,
    /// Stops.
    Delete,
    /// Puts a file.
    Put,
}

/// What a request carries.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// Nothing.
    None,
    /// JSON.
    Json(Value),
    /// Bytes for a job's standard input, or of a file.
    Bytes(Vec<u8>),
}

/// A request to the API.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// Its method.
    pub verb: Verb,
    /// Its path, of the words of the API, ids and names that were looked at.
    pub path: String,
    /// Its parameters, not yet encoded.
    pub query: Vec<(&'static str, String)>,
    /// Its body.
    pub body: Body,
    /// Makes a repeat of it the same request.
    pub idempotency_key: Option<String>,
    /// Of a file, only the bytes from the first to the second of these.
    pub range: Option<(u64, u64)>,
    /// Headers with the trace that the call names: `traceparent`, `tracestate`, `baggage`, of visible ASCII and else as
    /// they came. Empty if the call names none.
    pub trace: Vec<(&'static str, String)>,
}

impl Ask {
    pub(crate) fn new(verb: Verb, path: impl Into<String>) -> Self {
        Self {
            verb,
            path: path.into(),
            query: Vec::new(),
            body: Body::None,
            idempotency_key: None,
            range: None,
            trace: Vec::new(),
        }
    }

    /// With this parameter.
    pub(crate) fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.query.push((name, value.to_string()));
        self
    }

    /// With this parameter, if there is a value.
    pub(crate) fn with_any(self, name: &'static str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    pub(crate) fn json(mut self, body: Value) -> Self {
        self.body = Body::Json(body);
        self
    }

    /// The header `Range`, if there is one.
    #[must_use]
    pub fn range_header(&self) -> Option<String> {
        let (first, last) = self.range?;
        Some(format!("bytes={first}-{last}"))
    }

    /// Path and query as a request has them.
    #[must_use]
    pub fn target(&self) -> String {
        if self.query.is_empty() {
            return self.path.clone();
        }
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(&self.query);
        format!("{}?{}", self.path, query.finish())
    }
}

/// The answer of the API.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// `Procession-Next-Offset`, of answers with output.
    pub next_offset: Option<u64>,
    /// Of how many bytes there is a part in the body, if a `range` was asked for.
    pub length: Option<u64>,
    /// The body.
    pub body: Vec<u8>,
}

/// The length of the whole, of the header `Content-Range` of a part.
#[must_use]
pub fn length_of(content_range: &str) -> Option<u64> {
    content_range.rsplit_once('/')?.1.parse().ok()
}

/// What a door is asked, until there is an answer; the error is one sentence.
pub type Asking<'door> = Pin<Box<dyn Future<Output = Result<Answer, String>> + Send + 'door>>;

/// A way to the API of one service, as one caller.
pub trait Door: Debug + Send + Sync {
    /// Sends a request once, or as often as it may be sent.
    fn ask(&self, ask: Ask) -> Asking<'_>;

    /// Has something done that nobody waits for.
    fn leave(&self, ask: Ask);
}

/// A door by which every request has the trace of one call.
#[derive(Debug)]
struct Traced {
    door: Arc<dyn Door>,
    trace: Vec<(&'static str, String)>,
}

/// The door for one call: its requests have the trace that `_meta` of the call names, if it names one.
pub(crate) fn traced(door: Arc<dyn Door>, meta: &MetaObject) -> Arc<dyn Door> {
    let named = [
        ("traceparent", meta.get_traceparent()),
        ("tracestate", meta.get_tracestate()),
        ("baggage", meta.get_baggage()),
    ];
    let is_visible = |text: &&str| text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let named = named.map(|(name, value)| Some((name, value.filter(is_visible)?.to_owned())));
    if named[0].is_none() {
        return door;
    }
    let trace = named.into_iter().flatten().collect();
    Arc::new(Traced { door, trace })
}

impl Traced {
    fn with_trace(&self, ask: Ask) -> Ask {
        let trace = self.trace.clone();
        Ask { trace, ..ask }
    }
}

impl Door for Traced {
    fn ask(&self, ask: Ask) -> Asking<'_> {
        self.door.ask(self.with_trace(ask))
    }

    fn leave(&self, ask: Ask) {
        self.door.leave(self.with_trace(ask));
    }
}
