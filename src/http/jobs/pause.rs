//! `POST /jobs/{id}/pause` and `/resume`

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use crate::api::Api;
use crate::extract::InPath;
use crate::problem::ApiError;
use crate::respond;

/// `POST /jobs/{id}/pause`
pub(crate) async fn pause(
    State(api): State<Api>,
    InPath(id): InPath,
) -> Result<Response, ApiError> {
    let job = api.manager.pause(id).await?;
    Ok(respond::job(&api, StatusCode::OK, &job))
}

/// `POST /jobs/{id}/resume`
pub(crate) async fn resume(
    State(api): State<Api>,
    InPath(id): InPath,
) -> Result<Response, ApiError> {
    let job = api.manager.resume(id).await?;
    Ok(respond::job(&api, StatusCode::OK, &job))
}
