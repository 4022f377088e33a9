//! The route on a job's terminal.

use axum::extract::{Request, State};
use axum::http::StatusCode;

use crate::api::Api;
use crate::body;
use crate::extract::InPath;
use crate::problem::ApiError;
use crate::request::{self, BodyError};

/// `PUT /jobs/{id}/pty`
pub(super) async fn resize(
    State(api): State<Api>,
    InPath(id): InPath,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let bytes = body::read_json(request, api.settings.max_body_bytes).await?;
    let body = request::parse_body(&bytes)?;
    let size =
        request::parse_size(&body).map_err(|errors| ApiError::from(BodyError::Invalid(errors)))?;
    api.manager.resize(id, size).await?;
    Ok(StatusCode::NO_CONTENT)
}
