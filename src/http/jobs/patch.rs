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
use manager::{RequestError, SubmitError, Until};

/// How long a patch waits for a change that was made at the same time before it is tried again.
const BETWEEN: Duration = Duration::from_millis(50);

/// `PATCH /jobs/{id}`
pub(crate) async fn patch(
    State(api): State<Api>,
    InPath(id): InPath,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, ApiError> {
    let patch = body::read_patch(request, api.settings.max_body_bytes).await?;
    let job = conditions::change(&headers, async || {
        let job = api.manager.get(id).await?;
        // What would be refused anyway is told first (RFC 9110, 13.2.1).
        let amendment = request::parse_amendment(&job, &patch, &api.settings.spec_limits)?;
        if headers.contains_key(IF_MATCH) && !conditions::match_has(&headers, &view::etag(&job)) {
            return Err(ApiError::PreconditionFailed);
        }
        let places = amendment.placement != job.spec.placement;
        if places && amendment.placement.is_some() && api.manager.hub().is_none() {
            return Err(SubmitError::NoNodes.into());
        }
        match api.manager.amend(id, job.version, amendment).await {
            Ok(job) => Ok(Some(job)),
            Err(RequestError::Changed) => {
                if !headers.contains_key(IF_MATCH) {
                    let next = Until::VersionAfter(job.version);
                    let _ = api.manager.wait(id, next, BETWEEN).await?;
                }
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    })
    .await?;
    Ok(respond::job(&api, StatusCode::OK, &job))
}
