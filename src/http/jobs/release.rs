//! `POST /jobs/{id}/release`

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use crate::api::Api;
use crate::extract::InPath;
use crate::problem::ApiError;
use crate::respond;

/// `POST /jobs/{id}/release`
pub(crate) async fn release(
    State(api): State<Api>,
    InPath(id): InPath,
) -> Result<Response, ApiError> {
    let job = api.manager.release(id).await?;
    Ok(respond::job(&api, StatusCode::OK, &job))
}
