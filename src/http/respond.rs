//! Answers that several routes give.

use axum::Json;
use axum::http::header::ETAG;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::api::Api;
use crate::view::{self, JobView};
use job::Job;

/// A job as the body, with its tag.
pub(super) fn job(api: &Api, status: StatusCode, job: &Job) -> Response {
    let mut response = (status, Json(JobView::of(job, &api.manager))).into_response();
    set(&mut response, ETAG, &view::etag(job));
    response
}

/// Sets a header to a value made of ids, numbers and fixed words.
pub(super) fn set(response: &mut Response, name: HeaderName, value: &str) {
    let value = HeaderValue::from_str(value).expect("made of ids, numbers and fixed words");
    response.headers_mut().insert(name, value);
}
