//! `PATCH /jobs/{id}`

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::IF_MATCH;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use crate::api::Api;
use crate::extract::InPath;
use crate::problem::ApiError;
use crate::{body, conditions, request, respond, view};
use manager::{RequestError, Until};

/// How often a patch without `If-Match` is tried on a job that changes at the same time, and how long it
/// waits for the change in between.
const ATTEMPTS: usize = 8;
const BETWEEN: Duration = Duration::from_millis(50);

/// `PATCH /jobs/{id}`
pub(crate) async fn patch(
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
        if is_bound && !conditions::match_has(&headers, &view::etag(&job)) {
            break;
        }
        match api.manager.amend(id, job.version, amendment).await {
            Ok(job) => return Ok(respond::job(&api, StatusCode::OK, &job)),
            Err(RequestError::Changed) if !is_bound => {
                let next = Until::VersionAfter(job.version);
                let _ = api.manager.wait(id, next, BETWEEN).await?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::PreconditionFailed)
}
