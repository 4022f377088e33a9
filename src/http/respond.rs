//! Answers that several routes give.

use axum::Json;
use axum::http::header::ETAG;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::api::Api;
use crate::forward;
use crate::output::{self, Wanted};
use crate::problem::ApiError;
use crate::view::{self, JobView};
use job::Job;

/// A job as the body, with its tag.
pub(super) fn job(api: &Api, status: StatusCode, job: &Job) -> Response {
    with_tag(status, JobView::of(job, &api.manager), job)
}

/// The same with the output that is wanted, where it is wanted.
pub(super) async fn job_showing(
    api: &Api,
    status: StatusCode,
    job: &Job,
    wanted: Option<Wanted>,
) -> Response {
    let view = JobView::of(job, &api.manager);
    with_tag(status, showing(api, view, job, wanted).await, job)
}

/// The same of a job that is asked for: with what it uses at this moment, while it runs.
pub(super) async fn job_as_it_is(api: &Api, job: &Job, wanted: Option<Wanted>) -> Response {
    let mut view = JobView::of(job, &api.manager);
    if job.process.is_some() && !job.state.is_terminal() {
        // If it has gone meanwhile, what was known of it is told.
        if let Ok(used) = api.manager.used(job.id).await {
            view = view.using(job, &used);
        }
    }
    with_tag(StatusCode::OK, showing(api, view, job, wanted).await, job)
}

async fn showing<'a>(
    api: &Api,
    mut view: JobView<'a>,
    job: &'a Job,
    wanted: Option<Wanted>,
) -> JobView<'a> {
    if let Some(wanted) = wanted {
        // The job is there, and what is known of it is told without its output as well.
        let excerpt = if api.manager.is_there(job) {
            forward::excerpt(api, job, wanted).await
        } else {
            let excerpt = output::excerpt(api, job, wanted).await;
            excerpt.and_then(|it| {
                serde_json::to_value(it).map_err(|error| ApiError::Internal(error.to_string()))
            })
        };
        let excerpt = excerpt.inspect_err(|error| {
            tracing::warn!(job.id = %job.id, "left the output out of an answer: {}", error.code());
        });
        view = view.showing(excerpt.ok());
    }
    view
}

fn with_tag(status: StatusCode, view: JobView<'_>, job: &Job) -> Response {
    let mut response = (status, Json(view)).into_response();
    set(&mut response, ETAG, &view::etag(job));
    response
}

/// Sets a header to a value made of ids, numbers and fixed words.
pub(super) fn set(response: &mut Response, name: HeaderName, value: &str) {
    let value = HeaderValue::from_str(value).expect("made of ids, numbers and fixed words");
    response.headers_mut().insert(name, value);
}
