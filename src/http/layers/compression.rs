//! Which answers are compressed for clients that ask for it: large ones that are whole and that nothing refers to by its bytes.

use axum::body::HttpBody;
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_RANGE, CONTENT_TYPE, ETAG, SET_COOKIE,
};
use axum::http::{Response, StatusCode};
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::Predicate;

/// Below this nothing is gained. Answers with a secret (tokens, sessions, tickets) are far smaller.
const SMALLEST: u64 = 4096;

/// Whole documents. Output is none of them: it is followed, read in ranges and counted.
const KINDS: [&str; 5] = [
    "application/json",
    "application/yaml",
    "application/openmetrics-text",
    "text/html",
    "text/plain; version=",
];

/// The layer.
pub(crate) fn layer() -> CompressionLayer<Large> {
    CompressionLayer::new()
        .quality(CompressionLevel::Fastest)
        .compress_when(Large)
}

/// Decides by the answer; whether the client asks for it the layer looks at itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Large;

impl Predicate for Large {
    fn should_compress<B: HttpBody>(&self, response: &Response<B>) -> bool {
        let headers = response.headers();
        let size = response.body().size_hint().exact();
        let kind = headers.get(CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        // A strong ETag and a range are of these bytes; a cookie is a secret.
        let is_bound = [
            ETAG,
            ACCEPT_RANGES,
            CONTENT_RANGE,
            CONTENT_DISPOSITION,
            SET_COOKIE,
        ]
        .iter()
        .any(|name| headers.contains_key(name));
        response.status() == StatusCode::OK
            && size.is_some_and(|size| size >= SMALLEST)
            && KINDS.iter().any(|known| kind.starts_with(known))
            && !is_bound
    }
}
