//! `POST /jobs`, and what a rerun has in common with it.

use std::collections::BTreeMap;

use axum::extract::{Request, State};
use axum::http::header::LOCATION;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;

use super::multipart::{self, Form};
use crate::api::{Api, Settings};
use crate::extract::Wait;
use crate::headers::IDEMPOTENT_REPLAYED;
use crate::layers::auth::Caller;
use crate::output::Wanted;
use crate::policy::{Policies, TemplateError};
use crate::problem::{ApiError, Violation};
use crate::query::Params;
use crate::request::{self, Body, BodyError, FieldError, NewJob, SpecLimits};
use crate::view::ValidView;
use crate::{body, idempotency, respond, trace};
use job::trace::Trace;
use job::{Idempotency, JobId, Spec};
use manager::{Submission, Submitted};

/// The parameters of [`create`].
pub(crate) const CREATE: &[&str] = &[
    "wait",
    "until",
    "output_bytes",
    "output_stream",
    "output_ansi",
];

/// `POST /jobs`
pub(crate) async fn create(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    mut params: Params,
    request: Request,
) -> Result<Response, ApiError> {
    let wait = Wait::of(&mut params, request.headers()).until(&mut params);
    let shown = Wanted::of(&mut params);
    params.finish()?;
    let key = idempotency::key(request.headers())?;
    let trace = trace::of(request.headers());
    if multipart::is_form(request.headers()) {
        let submitted = create_from_form(&api, &caller, request, (key, trace), &wait).await?;
        return Ok(accepted(&api, submitted, &wait, shown).await);
    }
    let bytes = body::read_json(request, api.settings.max_body_bytes).await?;
    let request = idempotency::Request::of(&api, &caller, key, (&Method::POST, "/jobs"), &bytes);
    let submitted = match request.await? {
        idempotency::Request::Repeat(submitted) => submitted,
        idempotency::Request::New(claim) => {
            let new = wanted(&api.settings, &bytes, false).await?;
            wait.can_be_for(&new.spec)?;
            submit(&api, &caller, new, (None, trace), claim).await?
        }
    };
    Ok(accepted(&api, submitted, &wait, shown).await)
}

/// The same for a form: the job, and files that it begins with.
async fn create_from_form(
    api: &Api,
    caller: &Caller,
    request: Request,
    (key, trace): (Option<String>, Option<Trace>),
    wait: &Wait,
) -> Result<Submitted, ApiError> {
    let (form, bytes) = Form::begin(request, api).await?;
    let new = wanted(&api.settings, &bytes, true).await?;
    wait.can_be_for(&new.spec)?;
    // Before the files are taken: they may be large.
    judge(&api.settings, &new.spec).await?;
    let files = form.files(api, &new.spec.inputs).await?;
    let whole = files.fingerprint(&bytes);
    let request = idempotency::Request::of(api, caller, key, (&Method::POST, "/jobs"), &whole);
    match request.await? {
        idempotency::Request::Repeat(submitted) => Ok(submitted),
        idempotency::Request::New(claim) => {
            let actor = caller.actor.to_string();
            let mut submission = submission(new, actor, None, claim.idempotency.clone());
            submission.trace = trace;
            submission.parts = files.parts;
            Ok(api.manager.submit(submission).await?)
        }
    }
}

/// `POST /jobs/validate`
pub(crate) async fn validate(
    State(api): State<Api>,
    request: Request,
) -> Result<Response, ApiError> {
    let bytes = body::read_json(request, api.settings.max_body_bytes).await?;
    let new = judged(&api.settings, &bytes).await?;
    api.manager.validate(&new.spec).await?;
    let view = ValidView {
        valid: true,
        name: new.name.as_deref(),
        labels: &new.labels,
        spec: &new.spec,
    };
    Ok(Json(view).into_response())
}

/// Does the command policy, if there is one, admit this job? Every way to a job comes by here.
pub(crate) async fn judge(settings: &Settings, spec: &Spec) -> Result<(), ApiError> {
    let Some(policy) = settings.policy.as_ref().map(Policies::now) else {
        return Ok(());
    };
    let spec = spec.clone();
    // A parameter that is a path is looked up on disk.
    let admitted = tokio::task::spawn_blocking(move || policy.admits(&spec));
    match admitted.await {
        Ok(true) => Ok(()),
        Ok(false) => Err(ApiError::PolicyForbids(
            "this service runs templates only, with the parameters that they allow",
        )),
        Err(error) => Err(ApiError::Internal(error.to_string())),
    }
}

/// Hands a new job to the manager, with the job that it repeats and its caller's trace.
pub(super) async fn submit(
    api: &Api,
    caller: &Caller,
    new: NewJob,
    (rerun_of, trace): (Option<JobId>, Option<Trace>),
    claim: idempotency::Claim,
) -> Result<Submitted, ApiError> {
    judge(&api.settings, &new.spec).await?;
    let actor = caller.actor.to_string();
    let mut submission = submission(new, actor, rerun_of, claim.idempotency.clone());
    submission.trace = trace;
    // The claim ends when the job has been accepted, and a repeat finds it.
    Ok(api.manager.submit(submission).await?)
}

/// A new job as the manager takes it, of no trace.
pub(crate) fn submission(
    new: NewJob,
    actor: String,
    rerun_of: Option<JobId>,
    idempotency: Option<Idempotency>,
) -> Submission {
    Submission {
        name: new.name,
        labels: new.labels,
        spec: new.spec,
        actor,
        rerun_of,
        trace: None,
        run_at: new.run_at,
        hold: new.hold,
        idempotency,
        has_priority: new.has_priority,
        depends_on: new.depends_on,
        parts: BTreeMap::new(),
    }
}

/// The answer to a submission, once its job is as the client wants to wait for.
pub(crate) async fn accepted(
    api: &Api,
    submitted: Submitted,
    wait: &Wait,
    shown: Option<Wanted>,
) -> Response {
    let mut job = submitted.job;
    if !wait.limit.is_zero() {
        let waited = api.manager.wait(job.id, wait.until, wait.limit).await;
        // The job has been accepted, and the answer says so even if it is gone by now.
        if let Ok(later) = waited {
            job = later;
        }
    }
    let mut response = respond::job_showing(api, StatusCode::CREATED, &job, shown).await;
    let location = format!("/jobs/{}", job.id);
    respond::set(&mut response, LOCATION, &location);
    if submitted.replayed {
        respond::set(&mut response, IDEMPOTENT_REPLAYED, "true");
    }
    wait.mark(&mut response);
    response
}

/// The job that the body asks for, judged by the command policy.
pub(crate) async fn judged(settings: &Settings, bytes: &Bytes) -> Result<NewJob, ApiError> {
    let new = wanted(settings, bytes, false).await?;
    judge(settings, &new.spec).await?;
    Ok(new)
}

/// The job that the body asks for, where the command policy allows it.
async fn wanted(settings: &Settings, bytes: &Bytes, is_form: bool) -> Result<NewJob, ApiError> {
    let invalid = |errors: Vec<FieldError>| {
        ApiError::InvalidSpec(errors.into_iter().map(Violation::from).collect())
    };
    let body = request::parse_body(bytes).map_err(|error| match error {
        BodyError::Invalid(errors) => invalid(errors),
        BodyError::Syntax { .. } | BodyError::TooDeep => error.into(),
    })?;
    let limits = SpecLimits {
        parts: is_form,
        ..settings.spec_limits
    };
    made_within(settings, &body, &limits).await
}

/// The job that a body asks for which has been read.
pub(crate) async fn made(settings: &Settings, body: &Body) -> Result<NewJob, ApiError> {
    made_within(settings, body, &settings.spec_limits).await
}

async fn made_within(
    settings: &Settings,
    body: &Body,
    limits: &SpecLimits,
) -> Result<NewJob, ApiError> {
    let invalid = |errors: Vec<FieldError>| {
        ApiError::InvalidSpec(errors.into_iter().map(Violation::from).collect())
    };
    let Some(policy) = settings.policy.as_ref().map(Policies::now) else {
        return request::parse_submission(body, limits).map_err(invalid);
    };
    if policy.is_all() && body.has_program() {
        return Err(ApiError::PolicyForbids(
            "this service runs templates only: send template and params",
        ));
    }
    if !policy.is_all() && !body.has_template() {
        return request::parse_submission(body, limits).map_err(invalid);
    }
    let request = request::parse_template_request(body, limits).map_err(invalid)?;
    // A parameter that is a path is looked up on disk.
    let made = tokio::task::spawn_blocking(move || policy.job(request));
    let made = made
        .await
        .map_err(|error| ApiError::Internal(error.to_string()))?;
    made.map_err(|error| match error {
        TemplateError::NoSuchTemplate => ApiError::NoSuchTemplate,
        TemplateError::Invalid(errors) => invalid(errors),
    })
}
