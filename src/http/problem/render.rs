//! The body of an error response, written once the request id is known, and the log line of internal errors.
//!
//! What an error says is in `catalogue`; which one it is matters here only for the log.

use std::any::Any;
use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::{ApiError, PROBLEM_JSON, Violation};
use crate::layers::request_id;

/// The body of RFC 9457.
#[derive(Serialize)]
struct RenderedProblem<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: Cow<'a, str>,
    code: &'static str,
    #[serde(skip_serializing_if = "is_empty")]
    errors: Cow<'a, [Violation]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    matched: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<usize>,
    request_id: &'a str,
}

/// An answer whose errors have their own form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AsItIs;

fn is_empty(errors: &[Violation]) -> bool {
    errors.is_empty()
}

/// Middleware that writes the body of every error response and logs the internal ones.
pub(crate) async fn render(request: Request, next: Next) -> Response {
    let request_id = request_id::of(&request);
    let head = request.method() == Method::HEAD;
    let mut response = next.run(request).await;
    let error = match response.extensions().get::<Arc<ApiError>>() {
        Some(error) => error.clone(),
        None if response.extensions().get::<AsItIs>().is_some() => return response,
        None if response.status().is_client_error() || response.status().is_server_error() => {
            // Every rejection of the framework has its own error here; one that has not is our bug.
            let status = response.status();
            let error = ApiError::Internal(format!("a rejection without a problem: {status}"));
            *response.status_mut() = error.status();
            Arc::new(error)
        }
        None => return response,
    };
    if let ApiError::Internal(cause) = &*error {
        tracing::error!(request.id = %request_id, cause, "request {request_id} failed: {cause}");
    }
    let problem = error.problem();
    let problem = RenderedProblem {
        kind: format!("urn:procession:problem:{}", problem.code),
        title: problem.title,
        status: problem.status.as_u16(),
        detail: problem.detail,
        code: problem.code,
        errors: problem.errors,
        matched: problem.counts.map(|(matched, _)| matched),
        expected: problem.counts.map(|(_, expected)| expected),
        request_id: &request_id,
    };
    let body = serde_json::to_vec(&problem).expect("strings and numbers");
    let content_type = HeaderValue::from_static(PROBLEM_JSON);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    *response.body_mut() = if head {
        Body::empty()
    } else {
        Body::from(body)
    };
    response.extensions_mut().insert(error);
    response
}

/// The answer to a request whose handler panicked. The panic hook has logged the place.
pub(crate) fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    ApiError::Internal(format!("panic: {text}")).into_response()
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use http_body_util::BodyExt;
    use tower::ServiceExt;
    use tower_http::catch_panic::CatchPanicLayer;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_problem_that_says_nothing_about_it() {
        let app = Router::new()
            .route("/", get(async || -> Response { panic!("secret words") }))
            .layer(CatchPanicLayer::custom(panicked))
            .layer(axum::middleware::from_fn(render));
        let request = Request::get("/").body(Body::empty()).unwrap();
        let response = app.oneshot(request).await.unwrap();
        assert_eq!(response.status(), 500);
        assert_eq!(response.headers()[CONTENT_TYPE], PROBLEM_JSON);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert!(
            text.contains("\"internal\"") && !text.contains("secret"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn a_rejection_that_nobody_foresaw_is_a_problem_too() {
        let app = Router::new()
            .route("/", get(async |_: axum::Extension<u8>| ()))
            .layer(axum::middleware::from_fn(render));
        let request = Request::get("/").body(Body::empty()).unwrap();
        let response = app.oneshot(request).await.unwrap();
        assert_eq!(response.status(), 500);
        assert_eq!(response.headers()[CONTENT_TYPE], PROBLEM_JSON);
    }
}
