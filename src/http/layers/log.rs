//! One line in the log for each request: no bodies, no query, no headers.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;

use super::request_id;

/// Middleware that writes the line, and puts the request's id on every other line written meanwhile.
pub(crate) async fn line(request: Request, next: Next) -> Response {
    let id = request_id::of(&request);
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    // What matched no route is the client's own text and is not repeated.
    let path = route.as_ref().map_or("-", MatchedPath::as_str);
    let span = tracing::info_span!("request", request.id = %id);
    let begin = Instant::now();
    let response = next.run(request).instrument(span).await;
    let status = response.status().as_u16();
    let latency_ms = begin.elapsed().as_secs_f64() * 1000.0;
    if method.is_safe() {
        tracing::debug!(request.id = %id, %method, path, status, latency_ms, "{method} {path} answered {status}");
    } else {
        tracing::info!(request.id = %id, %method, path, status, latency_ms, "{method} {path} answered {status}");
    }
    response
}
