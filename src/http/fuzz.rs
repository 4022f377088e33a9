//! What the fuzz targets reach of this crate.

use axum::http::{HeaderMap, Uri};

use crate::{accept, attach, events, idempotency, output, page, query, range};
use job::JobId;

/// Reads the query of a list of jobs.
pub fn query(text: &str) {
    if let Ok(uri) = Uri::builder()
        .path_and_query(format!("/jobs?{text}"))
        .build()
    {
        drop(page::parse(query::Params::of(&uri)));
    }
}

/// A cursor leads back to where it came from.
pub fn cursor(text: &str, last: JobId) {
    if let Ok(uri) = Uri::builder()
        .path_and_query(format!("/jobs?{text}"))
        .build()
    {
        page::fuzz_cursor(query::Params::of(&uri), last);
    }
}

/// Headers with their own grammar.
pub fn headers(headers: &HeaderMap) {
    drop(accept::choose(
        headers,
        &["text/plain", "text/event-stream"],
    ));
    drop(accept::preferred_wait(headers));
    drop(idempotency::key(headers));
    drop(events::last_event(headers));
    drop(output::last_event(headers));
}

/// What a range means, which must exist.
pub fn range(headers: &HeaderMap, kept_from: u64, length: u64) {
    match range::wanted(headers, kept_from, length) {
        range::Wanted::Part { first, last } => {
            assert!(kept_from <= first && first <= last && last < length);
        }
        range::Wanted::Everything | range::Wanted::Nothing => {}
    }
}

/// What a client of a job's WebSocket sends.
pub fn attach(bytes: &[u8]) {
    attach::fuzz_attach(bytes);
}
