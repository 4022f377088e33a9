//! `POST /jobs/{id}/rerun`

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;

use super::create::{submission, submit};
use crate::api::Api;
use crate::body;
use crate::extract::{self, InPath, Wait};
use crate::layers::auth::Caller;
use crate::problem::ApiError;
use crate::query::Params;
use crate::request::{self, BodyError, FieldError};

/// The parameters of [`rerun`].
pub(crate) const RERUN: &[&str] = &["wait"];

/// `POST /jobs/{id}/rerun`
pub(crate) async fn rerun(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    InPath(id): InPath,
    mut params: Params,
    request: Request,
) -> Result<Response, ApiError> {
    let wait = Wait::of(&mut params, request.headers());
    params.finish()?;
    let key = extract::idempotency_key(request.headers())?;
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
    let submission = submission(new, &caller, Some(id), key);
    submit(&api, submission, &wait).await
}
