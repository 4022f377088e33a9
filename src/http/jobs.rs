//! Routes on jobs: create, list, look, stop, signal.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::header::{ETAG, IF_NONE_MATCH, LOCATION};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;

use super::auth::Caller;
use super::problem::{ApiError, Place, Violation};
use super::query::Params;
use super::view::{Delivered, JobList, JobView, ProcessList, ValidView};
use super::{Api, accept, body, page, view};
use crate::policy::TemplateError;
use crate::request::{self, BodyError, FieldError, NewJob};
use job::life::Stop;
use job::{Cause, Idempotency, Job, JobId, Signal, Spec};
use manager::{Manager, RequestError, Submission, Until};

/// The parameters of [`create`].
pub(super) const CREATE: &[&str] = &["wait", "validate_only"];
/// The parameters of [`get`].
pub(super) const GET: &[&str] = &["wait", "until", "after_version"];
/// The parameters of [`stop`].
pub(super) const STOP: &[&str] = &[
    "grace_seconds",
    "signal",
    "force",
    "reason",
    "wait",
    "purge",
];

/// The longest that a request may wait; a longer wish is lowered.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(300);
/// The longest grace period that a stop may ask for.
const MAX_GRACE: Duration = Duration::from_hours(24);
/// The longest reason of a stop.
pub(super) const MAX_REASON_CHARACTERS: usize = 1024;
const MAX_KEY_CHARACTERS: usize = 255;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// The job that the path names.
#[derive(Clone, Copy, Debug)]
pub(super) struct InPath(pub(super) JobId);

impl<S: Send + Sync> FromRequestParts<S> for InPath {
    type Rejection = ApiError;

    /// What does not parse names no job.
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Path::<String>::from_request_parts(parts, state)
            .await
            .ok()
            .and_then(|Path(text)| text.parse().ok())
            .map(Self)
            .ok_or(ApiError::JobNotFound)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.uri))
    }
}

/// `POST /jobs`
pub(super) async fn create(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    mut params: Params,
    request: Request,
) -> Result<Response, ApiError> {
    let wait = Wait::of(&mut params, request.headers());
    let validate_only = params.flag("validate_only");
    params.finish()?;
    let key = idempotency_key(request.headers())?;
    let bytes = body::read_json(request, api.settings.max_body_bytes).await?;
    let new = wanted(&api, &bytes).await?;
    if validate_only {
        judge(&api, &new.spec).await?;
        api.manager.validate(&new.spec).await?;
        let view = ValidView {
            valid: true,
            name: new.name.as_deref(),
            labels: &new.labels,
            spec: &new.spec,
        };
        return Ok(Json(view).into_response());
    }
    let submission = submission(new, &caller, None, key);
    submit(&api, submission, &wait).await
}

/// Does the command policy, where there is one, admit this job? Every way to a job comes by here.
async fn judge(api: &Api, spec: &Spec) -> Result<(), ApiError> {
    let Some(policy) = api.settings.policy.clone() else {
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

/// Hands a submission to the manager and answers with its job.
pub(super) async fn submit(
    api: &Api,
    submission: Submission,
    wait: &Wait,
) -> Result<Response, ApiError> {
    judge(api, &submission.spec).await?;
    let submitted = api.manager.submit(submission).await?;
    let mut job = submitted.job;
    if !wait.limit.is_zero() {
        let waited = api.manager.wait(job.id, Until::Finished, wait.limit).await;
        // The job has been accepted, and the answer says so even if it is gone by now.
        if let Ok(later) = waited {
            job = later;
        }
    }
    let mut response = job_response(api, StatusCode::CREATED, &job);
    let location = format!("/jobs/{}", job.id);
    set(&mut response, LOCATION, &location);
    if submitted.replayed {
        set(&mut response, IDEMPOTENT_REPLAYED, "true");
    }
    wait.mark(&mut response);
    Ok(response)
}

/// The job that the body asks for, where the command policy allows it.
async fn wanted(api: &Api, bytes: &Bytes) -> Result<NewJob, ApiError> {
    let invalid = |errors: Vec<FieldError>| {
        ApiError::InvalidSpec(errors.into_iter().map(Violation::from).collect())
    };
    let body = request::parse_body(bytes).map_err(|error| match error {
        BodyError::Invalid(errors) => invalid(errors),
        BodyError::Syntax { .. } | BodyError::TooDeep => error.into(),
    })?;
    let limits = &api.settings.spec_limits;
    let Some(policy) = api.settings.policy.clone() else {
        return request::parse_submission(&body, limits).map_err(invalid);
    };
    if body.has_program() {
        return Err(ApiError::PolicyForbids(
            "this service runs templates only: send template and params",
        ));
    }
    let request = request::parse_template_request(&body, limits).map_err(invalid)?;
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

/// What is asked of the manager; without a key nobody compares what is meant.
pub(super) fn submission(
    new: NewJob,
    caller: &Caller,
    rerun_of: Option<JobId>,
    key: Option<String>,
) -> Submission {
    let idempotency = key.map(|key| Idempotency {
        key,
        fingerprint: request::fingerprint(&new),
    });
    Submission {
        name: new.name,
        labels: new.labels,
        spec: new.spec,
        actor: caller.actor.to_string(),
        rerun_of,
        idempotency,
        has_priority: new.has_priority,
    }
}

/// The key, with or without the quotes that the draft asks for and few clients send.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut values = headers.get_all(&IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let bytes = value.as_bytes();
    let bytes = bytes
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""))
        .unwrap_or(bytes);
    let key = std::str::from_utf8(bytes).unwrap_or_default();
    let good = (1..=MAX_KEY_CHARACTERS).contains(&key.len())
        && key.bytes().all(|byte| byte.is_ascii_graphic())
        && values.next().is_none();
    if good {
        return Ok(Some(key.to_owned()));
    }
    Err(ApiError::InvalidHeader(Violation {
        place: Place::Header("Idempotency-Key"),
        code: "invalid_value",
        detail: "must come once, with 1 to 255 visible ASCII characters".to_owned(),
    }))
}

/// `GET /jobs`
pub(super) async fn list(State(api): State<Api>, params: Params) -> Result<Response, ApiError> {
    let query = page::parse(params)?;
    let (filter, order) = (query.filter.clone(), query.order);
    let page = api.manager.list(query).await?;
    let next_page_token = page
        .jobs
        .last()
        .filter(|_| page.more)
        .map(|last| page::encode(last.id, &filter, order));
    let view = |job| JobView::of(job, &api.manager);
    let jobs = page.jobs.iter().map(|job| view(job)).collect();
    Ok(Json(JobList {
        jobs,
        next_page_token,
    })
    .into_response())
}

/// `GET /jobs/{id}`
pub(super) async fn get(
    State(api): State<Api>,
    InPath(id): InPath,
    mut params: Params,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let wait = Wait::of(&mut params, &headers);
    let after_version = params.integer("after_version");
    let goal = params.parsed("until", "finished, started or change", |text| match text {
        "finished" => Some(Goal::Finished),
        "started" => Some(Goal::Started),
        "change" => Some(Goal::Change),
        _ => None,
    });
    let goal = match (goal, after_version) {
        (None | Some(Goal::Change), Some(_)) => Goal::Change,
        (Some(goal), None) => goal,
        (None, None) => Goal::Finished,
        (Some(goal), Some(_)) => {
            params.refuse("after_version", "conflict", "goes with until=change");
            goal
        }
    };
    params.finish()?;
    let job = reach(&api.manager, id, goal, after_version, wait.limit).await?;
    let mut response = if none_match_has(&headers, &view::etag(&job)) {
        let mut response = StatusCode::NOT_MODIFIED.into_response();
        set(&mut response, ETAG, &view::etag(&job));
        response
    } else {
        job_response(&api, StatusCode::OK, &job)
    };
    wait.mark(&mut response);
    Ok(response)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    Finished,
    Started,
    Change,
}

async fn reach(
    manager: &Manager,
    id: JobId,
    goal: Goal,
    after_version: Option<u64>,
    limit: Duration,
) -> Result<Arc<Job>, RequestError> {
    if limit.is_zero() {
        return manager.get(id).await;
    }
    let until = match (goal, after_version) {
        (Goal::Finished, _) => Until::Finished,
        (Goal::Started, _) => Until::Started,
        (Goal::Change, Some(version)) => Until::VersionAfter(version),
        (Goal::Change, None) => Until::VersionAfter(manager.get(id).await?.version),
    };
    manager.wait(id, until, limit).await
}

/// Does `If-None-Match` name this tag? Weak and strong tags compare alike here (RFC 9110, 13.1.2).
fn none_match_has(headers: &HeaderMap, etag: &str) -> bool {
    headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

/// `DELETE /jobs/{id}`
pub(super) async fn stop(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    InPath(id): InPath,
    mut params: Params,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let wait = Wait::of(&mut params, &headers);
    let stop = stop_wanted(&mut params, &caller);
    let purge = params.flag("purge");
    params.finish()?;
    let manager = &api.manager;
    let job = if purge {
        // The manager goes on with a purge that nobody waits for any more.
        let limit = if wait.asked { wait.limit } else { MAX_WAIT };
        let present = match tokio::time::timeout(limit, manager.purge(id, stop)).await {
            Ok(purged) => purged.map(|()| None)?,
            Err(_) => match manager.get(id).await {
                Ok(job) => Some(job),
                Err(RequestError::NoSuchJob) => None,
                Err(
                    error @ (RequestError::Refused(_)
                    | RequestError::Errno(_)
                    | RequestError::Changed
                    | RequestError::NotQueued
                    | RequestError::StdinClosed
                    | RequestError::NoTerminal
                    | RequestError::StdinOffset { .. }
                    | RequestError::MonitorGone
                    | RequestError::Store(_)),
                ) => return Err(error.into()),
            },
        };
        let Some(job) = present else {
            let mut response = StatusCode::NO_CONTENT.into_response();
            wait.mark(&mut response);
            return Ok(response);
        };
        job
    } else {
        let job = manager.stop(id, stop).await?;
        if job.state.is_terminal() || wait.limit.is_zero() {
            job
        } else {
            manager.wait(id, Until::Finished, wait.limit).await?
        }
    };
    // What a lost job has left is ended like a job's processes.
    let is_over = job.state.is_terminal() && manager.survivors_ended(&job, wait.limit).await;
    let status = if is_over && !purge {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    let mut response = job_response(&api, status, &job);
    wait.mark(&mut response);
    Ok(response)
}

fn stop_wanted(params: &mut Params, caller: &Caller) -> Stop {
    let grace = params.parsed(
        "grace_seconds",
        "a number of seconds from 0 to 86400",
        |text| super::query::seconds(text).filter(|grace| *grace <= MAX_GRACE),
    );
    let reason = params.text("reason");
    if reason
        .as_ref()
        .is_some_and(|reason| reason.chars().count() > MAX_REASON_CHARACTERS)
    {
        params.refuse("reason", "too_long", "at most 1024 characters");
    }
    let signal = params.parsed("signal", "a signal such as SIGTERM, TERM or 15", |text| {
        text.parse::<Signal>().ok()
    });
    Stop {
        cause: Cause::Canceled,
        requested_by: Some(caller.actor.to_string()),
        reason,
        signal,
        grace,
        force: params.flag("force"),
    }
}

/// `POST /jobs/{id}/signal`
pub(super) async fn signal(
    State(api): State<Api>,
    InPath(id): InPath,
    request: Request,
) -> Result<Response, ApiError> {
    let bytes = body::read_json(request, api.settings.max_body_bytes).await?;
    let body = request::parse_body(&bytes)?;
    let (signal, scope) = request::parse_signal_body(&body)
        .map_err(|errors| ApiError::from(BodyError::Invalid(errors)))?;
    let delivered_to = api.manager.signal(id, signal, scope).await?;
    Ok(Json(Delivered { delivered_to }).into_response())
}

/// `GET /jobs/{id}/processes`
pub(super) async fn processes(
    State(api): State<Api>,
    InPath(id): InPath,
) -> Result<Response, ApiError> {
    let processes = api.manager.processes(id).await?;
    Ok(Json(ProcessList::from(processes)).into_response())
}

/// How long a client is ready to wait, by `?wait` or, where that is absent, by `Prefer: wait`.
#[derive(Debug)]
pub(super) struct Wait {
    limit: Duration,
    asked: bool,
    applied: Option<String>,
}

impl Wait {
    pub(super) fn of(params: &mut Params, headers: &HeaderMap) -> Self {
        let (wish, applied) = match (params.seconds("wait"), accept::preferred_wait(headers)) {
            (Some(wish), _) => (Some(wish), None),
            (None, Some((wish, _))) if wish > MAX_WAIT => {
                (Some(wish), Some(format!("wait={}", MAX_WAIT.as_secs())))
            }
            (None, Some((wish, text))) => (Some(wish), Some(text)),
            (None, None) => (None, None),
        };
        Self {
            limit: wish.unwrap_or_default().min(MAX_WAIT),
            asked: wish.is_some(),
            applied,
        }
    }

    fn mark(&self, response: &mut Response) {
        if let Some(applied) = &self.applied {
            set(response, PREFERENCE_APPLIED, applied);
        }
    }
}

/// A job as the body, with its tag.
pub(super) fn job_response(api: &Api, status: StatusCode, job: &Job) -> Response {
    let view = JobView::of(job, &api.manager);
    let mut response = (status, Json(view)).into_response();
    set(&mut response, ETAG, &view::etag(job));
    response
}

fn set(response: &mut Response, name: HeaderName, value: &str) {
    let value = HeaderValue::from_str(value).expect("made of ids, numbers and fixed words");
    response.headers_mut().insert(name, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name.clone(), value.parse().unwrap())])
    }

    #[test]
    fn a_key_is_visible_ascii_with_or_without_quotes() {
        let key = |value: &str| idempotency_key(&header(&IDEMPOTENCY_KEY, value)).map_err(|_| ());
        assert_eq!(key("a-1"), Ok(Some("a-1".into())));
        assert_eq!(key("\"a-1\""), Ok(Some("a-1".into())));
        assert_eq!(key(&"k".repeat(255)), Ok(Some("k".repeat(255))));
        for bad in ["", "\"\"", "a b", "ä", &"k".repeat(256)] {
            assert_eq!(key(bad), Err(()), "{bad}");
        }
        assert_eq!(idempotency_key(&HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn tags_compare_weakly() {
        let has = |value: &str| none_match_has(&header(&IF_NONE_MATCH, value), "\"7\"");
        for good in ["\"7\"", "W/\"7\"", "\"6\", \"7\"", "*"] {
            assert!(has(good), "{good}");
        }
        for bad in ["7", "\"6\"", "\"77\""] {
            assert!(!has(bad), "{bad}");
        }
    }

    #[test]
    fn a_wait_in_the_query_beats_a_preferred_one_and_both_are_lowered() {
        let prefer: HeaderName = HeaderName::from_static("prefer");
        let of = |uri: &str, value: &str| {
            let wait = Wait::of(
                &mut Params::of(&uri.parse().unwrap()),
                &header(&prefer, value),
            );
            (wait.limit.as_secs(), wait.applied)
        };
        assert_eq!(of("/jobs?wait=2", "wait=5"), (2, None));
        assert_eq!(of("/jobs", "wait=5"), (5, Some("wait=5".into())));
        assert_eq!(of("/jobs", "wait=5000"), (300, Some("wait=300".into())));
        assert_eq!(of("/jobs?wait=5000", ""), (300, None));
        assert_eq!(of("/jobs", "x"), (0, None));
    }
}
