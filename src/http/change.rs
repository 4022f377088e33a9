//! Routes that change a job or repeat it: pause, resume, patch, rerun.

use std::time::Duration;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, IF_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use super::auth::Caller;
use super::jobs::{self, InPath, Wait};
use super::problem::ApiError;
use super::query::Params;
use super::{Api, body, view};
use crate::request::{self, BodyError, FieldError};
use manager::{RequestError, Until};

/// The parameters of [`rerun`].
pub(super) const RERUN: &[&str] = &["wait"];

/// How often a patch without `If-Match` is tried on a job that changes at the same time, and how long it
/// waits for the change in between.
const ATTEMPTS: usize = 8;
const BETWEEN: Duration = Duration::from_millis(50);

/// `POST /jobs/{id}/pause`
pub(super) async fn pause(
    State(api): State<Api>,
    InPath(id): InPath,
) -> Result<Response, ApiError> {
    let job = api.manager.pause(id).await?;
    Ok(jobs::job_response(&api, StatusCode::OK, &job))
}

/// `POST /jobs/{id}/resume`
pub(super) async fn resume(
    State(api): State<Api>,
    InPath(id): InPath,
) -> Result<Response, ApiError> {
    let job = api.manager.resume(id).await?;
    Ok(jobs::job_response(&api, StatusCode::OK, &job))
}

/// `PATCH /jobs/{id}`
pub(super) async fn patch(
    State(api): State<Api>,
    InPath(id): InPath,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, ApiError> {
    let patch = body::read_patch(request, api.settings.max_body_bytes).await?;
    let is_bound = headers.contains_key(IF_MATCH);
    for _ in 0..ATTEMPTS {
        let job = api.manager.get(id).await?;
        // What would be refused anyway is told first (RFC 9110, 13.2.1).
        let amendment = request::parse_amendment(&job, &patch, &api.settings.spec_limits)?;
        if is_bound && !match_has(&headers, &view::etag(&job)) {
            break;
        }
        match api.manager.amend(id, job.version, amendment).await {
            Ok(job) => return Ok(jobs::job_response(&api, StatusCode::OK, &job)),
            Err(RequestError::Changed) if !is_bound => {
                let next = Until::VersionAfter(job.version);
                let _ = api.manager.wait(id, next, BETWEEN).await?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::PreconditionFailed)
}

/// Does `If-Match` name this tag? Only strong tags match (RFC 9110, 13.1.1).
pub(super) fn match_has(headers: &HeaderMap, etag: &str) -> bool {
    headers
        .get_all(IF_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|tag| tag == "*" || tag == etag)
}

/// `POST /jobs/{id}/rerun`
pub(super) async fn rerun(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    InPath(id): InPath,
    mut params: Params,
    request: Request,
) -> Result<Response, ApiError> {
    let wait = Wait::of(&mut params, request.headers());
    params.finish()?;
    let key = jobs::idempotency_key(request.headers())?;
    let job = api.manager.get(id).await?;
    // Without a body it is the same again.
    let patch = if request.headers().contains_key(CONTENT_TYPE) {
        body::read_patch(request, api.settings.max_body_bytes).await?
    } else {
        bytes::Bytes::new()
    };
    let invalid = |errors: Vec<FieldError>| {
        ApiError::InvalidSpec(errors.into_iter().map(Into::into).collect())
    };
    let new =
        request::parse_rerun(&job, &patch, &api.settings.spec_limits).map_err(
            |error| match error {
                BodyError::Invalid(errors) => invalid(errors),
                BodyError::Syntax { .. } | BodyError::TooDeep => error.into(),
            },
        )?;
    let submission = jobs::submission(new, &caller, Some(id), key);
    jobs::submit(&api, submission, &wait).await
}
