//! One line in the log for each request, without bodies, query and headers; and what is counted of it.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;

use super::request_id;
use crate::api::Api;
use crate::problem::ApiError;
use crate::routes;

/// Middleware that writes the line, and puts the request's id on every other line written meanwhile.
pub(crate) async fn line(State(api): State<Api>, request: Request, next: Next) -> Response {
    let id = request_id::of(&request);
    let method = request.method().clone();
    let matched = request.extensions().get::<MatchedPath>();
    // What matched no route is the client's own text and is not repeated.
    let path = matched.and_then(|path| routes::path(path.as_str()));
    let span = tracing::info_span!("request", request.id = %id);
    let begin = Instant::now();
    let response = next.run(request).instrument(span).await;
    let status = response.status().as_u16();
    let took = begin.elapsed();
    let shown = path.unwrap_or("-");
    // Milliseconds with three digits: more of them are noise.
    let latency_ms = (took.as_secs_f64() * 1_000_000.0).round() / 1000.0;
    if method.is_safe() {
        tracing::debug!(request.id = %id, %method, path = shown, status, latency_ms, "{method} {shown} answered {status}");
    } else {
        tracing::info!(request.id = %id, %method, path = shown, status, latency_ms, "{method} {shown} answered {status}");
    }
    let metrics = api.manager.metrics();
    metrics.answered(word(&method), shown, status, took);
    if method == Method::POST
        && matches!(shown, "/jobs" | "/jobs/{id}/rerun")
        && let Some(error) = response.extensions().get::<Arc<ApiError>>()
    {
        metrics.refused(error.code());
    }
    response
}

/// The method as a label: what is no method of this API is one of them.
fn word(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        _ => "other",
    }
}
