//! The headers of W3C Trace Context and W3C Baggage.

use axum::http::HeaderMap;

use job::trace::Trace;

/// The caller's place in a trace; `None` if the headers have none that is valid.
pub(crate) fn of(headers: &HeaderMap) -> Option<Trace> {
    let mut parents = headers.get_all("traceparent").iter();
    let parent = parents.next()?.to_str().ok()?;
    // Two of them are as good as none.
    if parents.next().is_some() {
        return None;
    }
    Trace::of_headers(
        Some(parent.trim()),
        joined(headers, "tracestate"),
        joined(headers, "baggage"),
    )
}

/// A list may come in several headers.
fn joined(headers: &HeaderMap, name: &str) -> Option<String> {
    let parts: Result<Vec<&str>, _> = headers
        .get_all(name)
        .iter()
        .map(|part| part.to_str())
        .collect();
    parts
        .ok()
        .filter(|parts| !parts.is_empty())
        .map(|parts| parts.join(","))
}
