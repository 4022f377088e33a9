//! One line in the log for each request: who asked, about which job, and what came of it; without bodies, query and
//! headers. And what is counted of it.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use tracing::{Instrument, Level};

use super::audit::{created, job_of};
use super::auth::ActorSlot;
use super::request_id;
use crate::api::Api;
use crate::headers::IDEMPOTENT_REPLAYED;
use crate::problem::ApiError;
use crate::{routes, trace};
use linux::clock;
use manager::metrics::Answered;
use manager::spans::Asked;

/// Middleware that writes the line, and puts the request's id on every other line written meanwhile.
pub(crate) async fn line(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let id = request_id::of(&request);
    let method = request.method().clone();
    let matched = request.extensions().get::<MatchedPath>();
    // What matched no route is the client's own text and is not repeated.
    let path = matched.and_then(|path| routes::path(path.as_str()));
    let is_logged = !method.is_safe() || tracing::enabled!(Level::DEBUG);
    let uri = is_logged.then(|| request.uri().clone());
    let asked_by = ActorSlot::default();
    request.extensions_mut().insert(asked_by.clone());
    let span = tracing::info_span!("request", request.id = %id);
    let spans = api.manager.spans();
    let trace = trace::of(request.headers());
    let from = clock::wall();
    let begin = Instant::now();
    let response = next.run(request).instrument(span).await;
    let status = response.status().as_u16();
    let took = begin.elapsed();
    let shown = path.unwrap_or("-");
    // Milliseconds with three digits: more of them are noise.
    let latency_ms = (took.as_secs_f64() * 1_000_000.0).round() / 1000.0;
    let error = response.extensions().get::<Arc<ApiError>>();
    if let Some(uri) = uri {
        let job_id = job_of(uri.path(), &response).map(tracing::field::display);
        let (actor, code) = (asked_by.actor(), error.map(|error| error.code()));
        let trace_id = trace.as_ref().map(|trace| trace.trace_id.as_str());
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(request.id = %id, actor, job.id = job_id, trace_id, %method, path = shown, status, code, latency_ms, "{method} {shown} answered {status}")
            };
        }
        if method.is_safe() {
            line!(debug);
        } else {
            line!(info);
        }
    }
    let exported = spans.and_then(|spans| {
        let is_replay = response.headers().contains_key(IDEMPOTENT_REPLAYED);
        spans.answered(&Asked {
            id: &id,
            trace: trace.as_ref(),
            created: created(&response).filter(|_| !is_replay),
            method: word(&method),
            route: shown,
            status,
            from,
            to: from.after(took),
        })
    });
    let metrics = api.manager.metrics();
    let answered = Answered {
        method: word(&method),
        route: shown,
        status,
        took,
    };
    let recorded = exported.or_else(|| trace.as_ref()?.recorded());
    metrics.answered(&answered, recorded);
    if method == Method::POST
        && matches!(shown, "/jobs" | "/jobs/{id}/rerun")
        && let Some(error) = error
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
