//! Routes on batches: many jobs that are submitted, watched and stopped together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::header::{ETAG, LOCATION};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::api::Api;
use crate::extract::Wait;
use crate::headers::IDEMPOTENT_REPLAYED;
use crate::idempotency::Claim;
use crate::jobs::{End, judge, made};
use crate::layers::auth::Caller;
use crate::problem::{ApiError, Place, Violation};
use crate::query::Params;
use crate::request::{self, BodyError, NewBatch, Only, code};
use crate::{body, idempotency, respond};
use job::batch::{Batch, Group, OnFailure, Target};
use job::dependency::{Awaited, Dependency};
use job::time::Timestamp;
use job::webhook::Webhook;
use job::{JobId, State as JobState};
use manager::{BatchError, BatchJob, BatchState, BatchSubmission, BatchUntil};

/// The parameters of [`create`].
pub(super) const CREATE: &[&str] = &["wait", "validate_only"];

/// The parameters of [`list`].
pub(super) const LIST: &[&str] = &["page_size", "page_token"];

/// The parameters of [`get`].
pub(super) const GET: &[&str] = &["wait", "until", "after_version"];

/// The parameters of [`rerun`].
pub(super) const RERUN: &[&str] = &["wait"];

const DEFAULT_SIZE: usize = 50;
const MAX_SIZE: usize = 1000;

/// The batch that the path names.
#[derive(Clone, Copy, Debug)]
pub(super) struct InPath(JobId);

impl<S: Send + Sync> FromRequestParts<S> for InPath {
    type Rejection = ApiError;

    /// What does not parse names no batch.
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let id = Path::<String>::from_request_parts(parts, state).await;
        let id = id.ok().and_then(|Path(text)| text.parse().ok());
        id.map(Self).ok_or(ApiError::BatchNotFound)
    }
}

#[derive(Debug, Serialize)]
struct BatchView<'a> {
    id: String,
    name: Option<&'a str>,
    labels: &'a BTreeMap<String, String>,
    state: JobState,
    total: u32,
    counts: BTreeMap<&'static str, u32>,
    max_running: Option<u32>,
    on_failure: OnFailure,
    webhooks: &'a [Webhook],
    created_by: &'a str,
    rerun_of: Option<String>,
    created_at: Timestamp,
    finished_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
    version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    jobs: Option<Map<String, Value>>,
}

impl<'a> BatchView<'a> {
    fn of(state: &'a BatchState, groups: Option<&[Group]>) -> Self {
        let batch = &state.batch;
        let none = JobState::ALL.iter().map(|state| (state.as_str(), 0));
        let mut counts: BTreeMap<&'static str, u32> = none.collect();
        for (state, count) in &state.counts {
            *counts.entry(state.as_str()).or_default() += count;
        }
        Self {
            id: batch.id.to_string(),
            name: batch.name.as_deref(),
            labels: &batch.labels,
            state: batch.state,
            total: batch.total,
            counts,
            max_running: batch.max_running,
            on_failure: batch.on_failure,
            webhooks: &batch.webhooks,
            created_by: &batch.created_by,
            rerun_of: batch.rerun_of.map(|id| id.to_string()),
            created_at: batch.created_at,
            finished_at: batch.finished_at,
            expires_at: batch.expires_at,
            version: batch.version(),
            jobs: groups.map(|groups| groups.iter().map(entry).collect()),
        }
    }
}

/// The jobs of an entry: the one, or the first of so many.
fn entry(group: &Group) -> (String, Value) {
    let first = group.first.to_string();
    let jobs = match group.count {
        1 => first.into(),
        count => json!({"first": first, "count": count}),
    };
    (group.key.clone(), jobs)
}

async fn response(api: &Api, status: StatusCode, state: &BatchState) -> Result<Response, ApiError> {
    let groups = api.manager.batches().groups(state.batch.id).await?;
    let view = BatchView::of(state, Some(&groups));
    let mut response = (status, Json(view)).into_response();
    let etag = format!("\"{}\"", state.batch.version());
    respond::set(&mut response, ETAG, &etag);
    Ok(response)
}

/// `POST /batches`
pub(super) async fn create(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    mut params: Params,
    request: Request,
) -> Result<Response, ApiError> {
    let wait = Wait::of(&mut params, request.headers());
    let validate_only = params.flag("validate_only");
    params.finish()?;
    let key = idempotency::key(request.headers())?;
    let bytes = body::read_json(request, api.settings.max_body_bytes).await?;
    if validate_only {
        let submission = wanted(&api, &caller, &bytes).await?;
        let valid = api.manager.batches().validate(&submission).await;
        let total = submission.jobs.len();
        valid.map_err(|error| placed(&submission, error))?;
        return Ok(Json(json!({"valid": true, "total": total})).into_response());
    }
    let claim = Claim::of(&api, &caller, key, (&Method::POST, "/batches"), &bytes).await;
    if let Some(earlier) = earlier(&api, &caller, &claim).await? {
        return accepted(&api, earlier, true, &wait).await;
    }
    let submission = wanted(&api, &caller, &bytes).await?;
    submit(&api, submission, claim, &wait).await
}

async fn earlier(api: &Api, caller: &Caller, claim: &Claim) -> Result<Option<Batch>, ApiError> {
    let Some(idempotency) = &claim.idempotency else {
        return Ok(None);
    };
    let batches = api.manager.batches();
    Ok(batches.submitted(&caller.actor, idempotency).await?)
}

/// Hands a batch to the manager. The claim ends when it has been accepted, and a repeat finds it.
async fn submit(
    api: &Api,
    mut submission: BatchSubmission,
    claim: Claim,
    wait: &Wait,
) -> Result<Response, ApiError> {
    submission.idempotency = claim.idempotency.clone();
    let groups: Vec<u32> = submission.jobs.iter().map(|job| job.group).collect();
    let submitted = api.manager.batches().submit(submission).await;
    let (batch, replayed) = submitted.map_err(|error| of_group(&groups, error))?;
    accepted(api, batch, replayed, wait).await
}

/// The answer to a submission, once its jobs are as the client wants to wait for.
async fn accepted(
    api: &Api,
    batch: Batch,
    replayed: bool,
    wait: &Wait,
) -> Result<Response, ApiError> {
    let batches = api.manager.batches();
    let state = if wait.limit.is_zero() {
        batches.get(batch.id).await?
    } else {
        let until = BatchUntil::Finished;
        batches.wait(batch.id, until, wait.limit).await?
    };
    let mut response = response(api, StatusCode::CREATED, &state).await?;
    let location = format!("/batches/{}", batch.id);
    respond::set(&mut response, LOCATION, &location);
    if replayed {
        respond::set(&mut response, IDEMPOTENT_REPLAYED, "true");
    }
    wait.mark(&mut response);
    Ok(response)
}

/// The batch that the body asks for, where the command policy allows all of it.
async fn wanted(api: &Api, caller: &Caller, bytes: &[u8]) -> Result<BatchSubmission, ApiError> {
    let new =
        request::parse_batch(bytes, &api.settings.spec_limits).map_err(|error| match error {
            BodyError::Invalid(errors) => {
                ApiError::InvalidSpec(errors.into_iter().map(Violation::from).collect())
            }
            BodyError::Syntax { .. } | BodyError::TooDeep => error.into(),
        })?;
    let mut jobs = Vec::new();
    for (number, entry) in new.entries.iter().enumerate() {
        let group = u32::try_from(number).unwrap_or(u32::MAX);
        let bodies = u32::try_from(entry.bodies.len()).unwrap_or(u32::MAX);
        let count = bodies.saturating_mul(entry.repeat);
        let mut index = 0;
        for place in 0..entry.bodies.len() {
            let job = one(api, &new, number, place).await?;
            for _ in 0..entry.repeat {
                jobs.push(BatchJob {
                    group,
                    index,
                    count,
                    ..job.clone()
                });
                index += 1;
            }
        }
    }
    Ok(BatchSubmission {
        name: new.name,
        labels: new.labels,
        actor: caller.actor.to_string(),
        rerun_of: None,
        max_running: new.max_running,
        on_failure: new.on_failure,
        webhooks: new.webhooks,
        ttl_after_finished: new.ttl_after_finished,
        idempotency: None,
        keys: new.entries.into_iter().map(|entry| entry.key).collect(),
        jobs,
    })
}

/// One job of an entry, without its place in the batch.
async fn one(api: &Api, new: &NewBatch, number: usize, place: usize) -> Result<BatchJob, ApiError> {
    let at = |error: ApiError| moved(error, |pointer| new.place(number, place, pointer));
    let entry = &new.entries[number];
    let made = made(&api.settings, &entry.bodies[place])
        .await
        .map_err(at)?;
    judge(&api.settings, &made.spec).await?;
    if new.max_running.is_some() && made.spec.concurrency.is_some() {
        return Err(ApiError::InvalidSpec(vec![Violation {
            place: Place::Pointer(new.place(number, place, "/concurrency")),
            code: code::CONFLICT,
            detail: "a job of a batch with max_running has no key of its own".to_owned(),
        }]));
    }
    let mut depends_on = entry.depends_on.clone();
    depends_on.extend(made.depends_on.into_iter().map(outside));
    Ok(BatchJob {
        group: 0,
        index: 0,
        count: 1,
        name: made.name,
        labels: made.labels,
        spec: Arc::new(made.spec),
        has_priority: made.has_priority,
        depends_on: depends_on.into(),
        run_at: made.run_at,
        hold: made.hold,
        rerun_of: None,
    })
}

/// A dependency that the defaults bring.
fn outside(dependency: Dependency) -> (Target, job::batch::On) {
    let target = match dependency.awaited {
        Awaited::Job { job } => Target::Job(job),
        Awaited::Batch { batch } | Awaited::Group { batch, .. } => Target::Batch(batch),
    };
    (target, dependency.on)
}

/// The error with the pointers of the whole request instead of those of one job.
fn moved(mut error: ApiError, place: impl Fn(&str) -> String) -> ApiError {
    if let ApiError::InvalidSpec(violations) = &mut error {
        for violation in violations {
            if let Place::Pointer(pointer) = &mut violation.place {
                *pointer = place(pointer);
            }
        }
    } else if let ApiError::PrivilegeRequired { pointer, .. }
    | ApiError::NoSuchUser { pointer, .. }
    | ApiError::ContainmentUnavailable { pointer, .. }
    | ApiError::SandboxUnavailable { pointer, .. }
    | ApiError::SandboxRequired { pointer, .. } = &mut error
    {
        *pointer = place(pointer);
    }
    error
}

fn placed(submission: &BatchSubmission, error: BatchError) -> ApiError {
    let groups: Vec<u32> = submission.jobs.iter().map(|job| job.group).collect();
    of_group(&groups, error)
}

/// The error with a pointer to the entry whose job it is about.
fn of_group(groups: &[u32], error: BatchError) -> ApiError {
    let group = match &error {
        BatchError::Job(place, _) => groups.get(*place).copied(),
        BatchError::NoSuchBatch
        | BatchError::NotFinished
        | BatchError::Expired
        | BatchError::Secrets
        | BatchError::DependedOn
        | BatchError::Submit(_)
        | BatchError::Store(_) => None,
    };
    match group {
        Some(group) => moved(error.into(), |pointer| format!("/jobs/{group}{pointer}")),
        None => error.into(),
    }
}

/// `GET /batches`
pub(super) async fn list(State(api): State<Api>, mut params: Params) -> Result<Response, ApiError> {
    let size = params.integer("page_size");
    if size == Some(0) {
        params.refuse("page_size", "out_of_range", "must be 1 or more");
    }
    let limit = size.map_or(DEFAULT_SIZE, |size| {
        usize::try_from(size).unwrap_or(MAX_SIZE).min(MAX_SIZE)
    });
    let token = params.text("page_token").filter(|token| !token.is_empty());
    params.finish()?;
    let after = token.map(|token| last_of(&token).ok_or(ApiError::InvalidPageToken));
    let (batches, more) = api
        .manager
        .batches()
        .list(after.transpose()?, limit)
        .await?;
    let last = batches.last().filter(|_| more);
    let next = last.map(|it| URL_SAFE_NO_PAD.encode(it.batch.id.as_bytes()));
    let batches: Vec<BatchView<'_>> = batches.iter().map(|it| BatchView::of(it, None)).collect();
    Ok(Json(json!({"batches": batches, "next_page_token": next})).into_response())
}

fn last_of(token: &str) -> Option<JobId> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    Some(JobId::from_bytes(bytes.try_into().ok()?))
}

/// `GET /batches/{id}`
pub(super) async fn get(
    State(api): State<Api>,
    InPath(id): InPath,
    mut params: Params,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let wait = Wait::of(&mut params, &headers);
    let after_version = params.integer("after_version");
    let is_change = params.parsed("until", "finished or change", |text| match text {
        "finished" => Some(false),
        "change" => Some(true),
        _ => None,
    });
    if is_change == Some(false) && after_version.is_some() {
        params.refuse("after_version", "conflict", "goes with until=change");
    }
    params.finish()?;
    let batches = api.manager.batches();
    let mut state = batches.get(id).await?;
    if !wait.limit.is_zero() {
        let until = match (is_change, after_version) {
            (_, Some(version)) => BatchUntil::VersionAfter(version),
            (Some(true), None) => BatchUntil::VersionAfter(state.batch.version()),
            (Some(false) | None, None) => BatchUntil::Finished,
        };
        state = batches.wait(id, until, wait.limit).await?;
    }
    let mut response = response(&api, StatusCode::OK, &state).await?;
    wait.mark(&mut response);
    Ok(response)
}

/// `DELETE /batches/{id}`
pub(super) async fn stop(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    InPath(id): InPath,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let End { stop, purge, wait } = End::of(params, &caller, &headers)?;
    let batches = api.manager.batches();
    let limit = if purge { wait.patience() } else { wait.limit };
    let end = Instant::now() + limit;
    let mut state = batches.stop(id, stop.clone()).await?;
    if !state.batch.state.is_terminal() && !limit.is_zero() {
        state = batches.wait(id, BatchUntil::Finished, limit).await?;
    }
    let left = end.saturating_duration_since(Instant::now());
    let is_over =
        state.batch.state.is_terminal() && batches.survivors_ended(id, &stop, left).await?;
    let mut response = if purge && is_over {
        batches.purge(id).await?;
        StatusCode::NO_CONTENT.into_response()
    } else if is_over {
        response(&api, StatusCode::OK, &state).await?
    } else {
        response(&api, StatusCode::ACCEPTED, &state).await?
    };
    wait.mark(&mut response);
    Ok(response)
}

/// `POST /batches/{id}/rerun`
pub(super) async fn rerun(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    InPath(id): InPath,
    mut params: Params,
    request: Request,
) -> Result<Response, ApiError> {
    let wait = Wait::of(&mut params, request.headers());
    params.finish()?;
    let key = idempotency::key(request.headers())?;
    // Without a body, what has not succeeded.
    let bytes = body::read_json_or(request, api.settings.max_body_bytes, "{}").await?;
    let only = request::parse_batch_rerun(&request::parse_body(&bytes)?);
    let only = only.map_err(|errors| ApiError::from(BodyError::Invalid(errors)))?;
    let path = format!("/batches/{id}/rerun");
    let claim = Claim::of(&api, &caller, key, (&Method::POST, &path), &bytes).await;
    if let Some(earlier) = earlier(&api, &caller, &claim).await? {
        return accepted(&api, earlier, true, &wait).await;
    }
    let batches = api.manager.batches();
    let actor = caller.actor.to_string();
    let submission = batches.again(id, only == Only::Failed, actor).await?;
    if submission.jobs.is_empty() {
        return Err(ApiError::NothingToRerun);
    }
    for job in &submission.jobs {
        judge(&api.settings, &job.spec).await?;
    }
    submit(&api, submission, claim, &wait).await
}
