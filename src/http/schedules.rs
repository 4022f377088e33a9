//! Routes on schedules: what is set of them, when they are due, and a run by hand.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::{CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH, LOCATION};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use futures_util::FutureExt;
use serde_json::{Map, Value, json};

use crate::api::{Api, Settings};
use crate::extract::{self, Wait};
use crate::jobs::{accepted, judged, submission};
use crate::layers::auth::Caller;
use crate::problem::{ApiError, Place};
use crate::query::Params;
use crate::request::{self, BodyError};
use crate::{body, conditions, respond};
use job::schedule::{Definition, Record};
use job::time::Timestamp;
use linux::clock;
use manager::{Expected, Maker, ScheduleError, ScheduleState, Unmakeable};

/// The parameters of [`put`].
pub(super) const PUT: &[&str] = &["validate_only"];

/// The parameters of [`run`].
pub(super) const RUN: &[&str] = &["wait"];

/// The parameters of [`times`].
pub(super) const TIMES: &[&str] = &["after", "count"];

/// The most times in one answer.
const MOST_TIMES: u64 = 1000;

/// The schedule that the path names.
#[derive(Clone, Debug)]
pub(super) struct InPath(String);

impl<S: Send + Sync> FromRequestParts<S> for InPath {
    type Rejection = ApiError;

    /// What cannot be the name of a schedule names none.
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let name = extract::name_in_path(parts, state).await;
        name.map(Self).ok_or(ApiError::ScheduleNotFound)
    }
}

/// What makes the jobs of schedules, by the rules of these settings.
pub(super) fn maker(settings: Arc<Settings>) -> Maker {
    Arc::new(move |job: String| {
        let settings = settings.clone();
        async move {
            let new = judged(&settings, &Bytes::from(job)).await;
            let new = new.map_err(|error| Unmakeable(detail(&error)))?;
            Ok(submission(new, String::new(), None, None))
        }
        .boxed()
    })
}

fn detail(error: &ApiError) -> String {
    let problem = error.problem();
    match problem.errors.first() {
        Some(first) => format!("{}: {}", problem.detail, first.detail),
        None => problem.detail.into_owned(),
    }
}

/// What a client sees of a schedule: nothing of the values of secrets.
fn view(state: &ScheduleState) -> Value {
    let ScheduleState {
        record,
        next_due_at,
        last_success_at,
    } = state;
    let mut members = request::schedule_members(&record.definition);
    for when in ["cron", "every_seconds", "at"] {
        members.entry(when).or_insert(Value::Null);
    }
    if let Some(job) = members.get_mut("job") {
        hide_secrets(job);
    }
    let last = record.progress.last.as_ref().map(|last| {
        json!({
            "due_at": last.due_at,
            "outcome": if last.skipped.is_some() { "skipped" } else { "started" },
            "job_id": last.job_id,
            "reason": last.skipped,
        })
    });
    let live = json!({
        "name": record.name,
        "created_by": record.created_by,
        "created_at": record.created_at,
        "changed_at": record.changed_at,
        "version": record.version,
        "next_due_at": next_due_at,
        "last": last,
        "last_success_at": last_success_at,
        "runs": record.progress.runs,
        "skipped": record.progress.skipped,
    });
    if let Value::Object(live) = live {
        members.extend(live);
    }
    Value::Object(members)
}

fn hide_secrets(job: &mut Value) {
    let hide = |members: &mut Map<String, Value>| {
        for value in members.values_mut() {
            *value = Value::Null;
        }
    };
    if let Some(Value::Object(secrets)) = job.get_mut("secret_env") {
        hide(secrets);
    }
    let webhooks = job.get_mut("webhooks").and_then(Value::as_array_mut);
    for webhook in webhooks.into_iter().flatten() {
        if let Some(secret) = webhook.get_mut("secret") {
            *secret = Value::Null;
        }
    }
}

/// `GET /schedules`
pub(super) async fn list(State(api): State<Api>) -> Result<Response, ApiError> {
    let schedules = api.manager.schedules().list().await?;
    let schedules: Vec<Value> = schedules.iter().map(view).collect();
    Ok(Json(json!({"schedules": schedules})).into_response())
}

/// `GET /schedules/{name}`
pub(super) async fn get(
    State(api): State<Api>,
    InPath(name): InPath,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let state = api.manager.schedules().get(&name).await?;
    let etag = etag(&state.record);
    if conditions::none_match_has(&headers, &etag) {
        let mut response = StatusCode::NOT_MODIFIED.into_response();
        respond::set(&mut response, ETAG, &etag);
        return Ok(response);
    }
    Ok(response(StatusCode::OK, &state))
}

/// `PUT /schedules/{name}`
pub(super) async fn put(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    InPath(name): InPath,
    mut params: Params,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, ApiError> {
    let validate_only = params.flag("validate_only");
    params.finish()?;
    let bytes = body::read_json(request, api.settings.max_body_bytes).await?;
    let body = request::parse_body(&bytes)?;
    let definition = request::parse_schedule(&body, &bytes, &api.settings.spec_limits)
        .map_err(|errors| ApiError::from(BodyError::Invalid(errors)))?;
    check_job(&api, &definition).await?;
    if validate_only {
        let times = times_of(&definition, &name, clock::wall(), clock::wall(), 10)?;
        return Ok(Json(json!({"valid": true, "times": times})).into_response());
    }
    let schedules = api.manager.schedules();
    let present = match schedules.get(&name).await {
        Ok(state) => Some(state),
        Err(ScheduleError::NoSuchSchedule) => None,
        Err(error) => return Err(error.into()),
    };
    let expected = expected(&headers, present.as_ref())?;
    let actor = caller.actor.to_string();
    let (state, is_new) = schedules.put(&name, definition, &actor, expected).await?;
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let mut response = response(status, &state);
    if is_new {
        respond::set(&mut response, LOCATION, &format!("/schedules/{name}"));
    }
    Ok(response)
}

/// `PATCH /schedules/{name}`
pub(super) async fn patch(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    InPath(name): InPath,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, ApiError> {
    let patch = body::read_patch(request, api.settings.max_body_bytes).await?;
    let schedules = api.manager.schedules();
    let state = conditions::change(&headers, async || {
        let present = schedules.get(&name).await?;
        let before = &present.record.definition;
        let definition = request::parse_schedule_patch(before, &patch, &api.settings.spec_limits)?;
        // What has been judged when it was set is judged again when it runs.
        if definition.job != before.job {
            check_job(&api, &definition).await?;
        }
        expected(&headers, Some(&present))?;
        let version = Expected::Version(present.record.version);
        let actor = caller.actor.to_string();
        match schedules.put(&name, definition, &actor, version).await {
            Ok((state, _)) => Ok(Some(state)),
            Err(ScheduleError::Changed) => Ok(None),
            Err(error) => Err(error.into()),
        }
    });
    Ok(response(StatusCode::OK, &state.await?))
}

/// `DELETE /schedules/{name}`
pub(super) async fn remove(
    State(api): State<Api>,
    InPath(name): InPath,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let schedules = api.manager.schedules();
    let present = schedules.get(&name).await?;
    let expected = expected(&headers, Some(&present))?;
    schedules.remove(&name, expected).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /schedules/{name}/run`
pub(super) async fn run(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    InPath(name): InPath,
    mut params: Params,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, ApiError> {
    let wait = Wait::of(&mut params, &headers);
    params.finish()?;
    let record = api.manager.schedules().get(&name).await?.record;
    let mut definition = record.definition.clone();
    // Without a body it is the job as it is.
    if headers.contains_key(CONTENT_TYPE) {
        let patch = body::read_patch(request, api.settings.max_body_bytes).await?;
        let _ = request::parse_body(&patch)?;
        let patch: Value = serde_json::from_slice(&patch).unwrap_or_default();
        let patch = json!({"job": patch}).to_string();
        let limits = &api.settings.spec_limits;
        definition = request::parse_schedule_patch(&definition, patch.as_bytes(), limits)?;
    }
    let new = judged(&api.settings, &Bytes::from(definition.job)).await?;
    let submission = submission(new, caller.actor.to_string(), None, None);
    let submitted = api.manager.schedules().run(record, submission).await?;
    Ok(accepted(&api, submitted, &wait, None).await)
}

/// `GET /schedules/{name}/times`
pub(super) async fn times(
    State(api): State<Api>,
    InPath(name): InPath,
    mut params: Params,
) -> Result<Response, ApiError> {
    let after = params.parsed(
        "after",
        "a time in RFC 3339, such as 2026-01-31T12:00:00Z; a + in it is written %2B",
        |text| text.parse::<Timestamp>().ok(),
    );
    let count = params.integer("count").unwrap_or(10);
    if !(1..=MOST_TIMES).contains(&count) {
        params.refuse("count", "out_of_range", "must be from 1 to 1000");
    }
    params.finish()?;
    let record = api.manager.schedules().get(&name).await?.record;
    let after = after.unwrap_or_else(clock::wall);
    let times = times_of(&record.definition, &name, record.created_at, after, count)?;
    Ok(Json(json!({"times": times})).into_response())
}

/// `POST /schedules/times`
pub(super) async fn preview(
    State(api): State<Api>,
    request: Request,
) -> Result<Response, ApiError> {
    let bytes = body::read_json(request, api.settings.max_body_bytes).await?;
    let body = request::parse_body(&bytes)?;
    let (definition, after, count) = request::parse_times(&body, MOST_TIMES)
        .map_err(|errors| ApiError::from(BodyError::Invalid(errors)))?;
    let now = clock::wall();
    let times = times_of(&definition, "", now, after.unwrap_or(now), count)?;
    Ok(Json(json!({"times": times})).into_response())
}

fn times_of(
    definition: &Definition,
    name: &str,
    made_at: Timestamp,
    after: Timestamp,
    count: u64,
) -> Result<Vec<String>, ApiError> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let times = manager::due_times(definition, name, made_at, after, count);
    times.map_err(ApiError::Internal)
}

/// Would its job be taken now? What is wrong with it is told by where it is in the body.
async fn check_job(api: &Api, definition: &Definition) -> Result<(), ApiError> {
    let checked = async {
        let new = judged(&api.settings, &Bytes::from(definition.job.clone())).await?;
        api.manager.validate(&new.spec).await?;
        Ok(())
    };
    checked.await.map_err(|error| {
        let ApiError::InvalidSpec(mut errors) = error else {
            return error;
        };
        for error in &mut errors {
            if let Place::Pointer(pointer) = &mut error.place {
                pointer.insert_str(0, "/job");
            }
        }
        ApiError::InvalidBody(errors)
    })
}

/// The version that a request means, where it says one; what is not met is refused at once.
fn expected(headers: &HeaderMap, present: Option<&ScheduleState>) -> Result<Expected, ApiError> {
    let etag = present.map(|it| etag(&it.record));
    if headers.contains_key(IF_NONE_MATCH) {
        return match &etag {
            Some(etag) if conditions::none_match_has(headers, etag) => {
                Err(ApiError::PreconditionFailed)
            }
            Some(_) => Ok(Expected::Anything),
            None => Ok(Expected::Nothing),
        };
    }
    if !headers.contains_key(IF_MATCH) {
        return Ok(Expected::Anything);
    }
    match (present, &etag) {
        (Some(present), Some(etag)) if conditions::match_has(headers, etag) => {
            Ok(Expected::Version(present.record.version))
        }
        _ => Err(ApiError::PreconditionFailed),
    }
}

fn etag(record: &Record) -> String {
    format!("\"{}\"", record.version)
}

fn response(status: StatusCode, state: &ScheduleState) -> Response {
    let mut response = (status, Json(view(state))).into_response();
    respond::set(&mut response, ETAG, &etag(&state.record));
    response
}
