//! `POST /jobs/{id}/rerun`

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;

use super::create::{accepted, submit};
use crate::api::Api;
use crate::extract::{InPath, Wait};
use crate::layers::auth::Caller;
use crate::output::Wanted;
use crate::problem::ApiError;
use crate::query::Params;
use crate::request::{self, BodyError, FieldError, NewJob};
use crate::{body, idempotency, trace};
use job::trace::Trace;
use job::{JobId, Spec};
use manager::Submitted;

/// The parameters of [`rerun`].
pub(crate) const RERUN: &[&str] = super::CREATE;

/// `POST /jobs/{id}/rerun`
pub(crate) async fn rerun(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    InPath(id): InPath,
    mut params: Params,
    request: Request,
) -> Result<Response, ApiError> {
    let wait = Wait::of(&mut params, request.headers()).until(&mut params);
    let shown = Wanted::of(&mut params);
    params.finish()?;
    let key = idempotency::key(request.headers())?;
    let trace = trace::of(request.headers());
    // Without a body it is the same again.
    let patch = if request.headers().contains_key(CONTENT_TYPE) {
        body::read_patch(request, api.settings.max_body_bytes).await?
    } else {
        bytes::Bytes::new()
    };
    let by = (key, trace);
    let submitted = repeated(&api, &caller, id, &patch, by, |spec| wait.can_be_for(spec)).await?;
    Ok(accepted(&api, submitted, &wait, shown).await)
}

/// The same job again, by this key of the caller if it has one.
pub(crate) async fn again(
    api: &Api,
    caller: &Caller,
    id: JobId,
    by: (Option<String>, Option<Trace>),
) -> Result<Submitted, ApiError> {
    repeated(api, caller, id, &[], by, |_| Ok(())).await
}

async fn repeated(
    api: &Api,
    caller: &Caller,
    id: JobId,
    patch: &[u8],
    (key, trace): (Option<String>, Option<Trace>),
    check: impl FnOnce(&Spec) -> Result<(), ApiError>,
) -> Result<Submitted, ApiError> {
    let path = format!("/jobs/{id}/rerun");
    let request = idempotency::Request::of(api, caller, key, (&Method::POST, &path), patch);
    match request.await? {
        idempotency::Request::Repeat(submitted) => Ok(submitted),
        idempotency::Request::New(claim) => {
            let new = changed(api, id, patch).await?;
            check(&new.spec)?;
            submit(api, caller, new, (Some(id), trace), claim).await
        }
    }
}

/// The job as the patch changes it.
async fn changed(api: &Api, id: JobId, patch: &[u8]) -> Result<NewJob, ApiError> {
    let job = api.manager.get(id).await?;
    let invalid = |errors: Vec<FieldError>| {
        ApiError::InvalidSpec(errors.into_iter().map(Into::into).collect())
    };
    request::parse_rerun(&job, patch, &api.settings.spec_limits).map_err(|error| match error {
        BodyError::Invalid(errors) => invalid(errors),
        BodyError::Syntax { .. } | BodyError::TooDeep => error.into(),
    })
}
