//! Routes on many jobs at once.

use std::collections::HashSet;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::stream::{self, StreamExt};
use serde::Serialize;

use crate::api::Api;
use crate::extract::MAX_WAIT;
use crate::layers::auth::Caller;
use crate::problem::ApiError;
use crate::request::{
    self, BodyError, FieldError, MAX_REASON_CHARACTERS, Pick, Picked, Which, code,
};
use crate::view::JobView;
use crate::{body, idempotency, jobs};
use job::life::Stop;
use job::{Cause, Job, JobId, State as JobState};
use manager::{Purged, RequestError};

#[derive(Debug, Serialize)]
struct Waited<'a> {
    satisfied: bool,
    jobs: Vec<JobView<'a>>,
}

/// `POST /jobs/wait`
pub(super) async fn wait(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let bytes = body::read_json(request, api.settings.max_body_bytes).await?;
    let body = request::parse_body(&bytes)?;
    let wish = request::parse_wait_many(&body, MAX_WAIT)
        .map_err(|errors| ApiError::from(BodyError::Invalid(errors)))?;
    let ids: Vec<JobId> = match wish.which {
        Which::Ids(ids) => {
            // What is not there cannot be waited for.
            present(&api, &ids).await?;
            ids
        }
        Which::Selector(selector) => api.manager.unfinished(selector).await?,
    };
    api.manager.wait_many(&ids, wish.all, wish.timeout).await;
    let jobs = present(&api, &ids).await?;
    let finished = jobs.iter().filter(|job| job.state.is_terminal()).count();
    let satisfied = if wish.all || ids.is_empty() {
        finished == jobs.len()
    } else {
        finished > 0
    };
    let jobs = jobs
        .iter()
        .map(|job| JobView::of(job, &api.manager))
        .collect();
    Ok(Json(Waited { satisfied, jobs }).into_response())
}

async fn present(api: &Api, ids: &[JobId]) -> Result<Vec<Arc<Job>>, RequestError> {
    let mut jobs = Vec::with_capacity(ids.len());
    for id in ids {
        jobs.push(api.manager.get(*id).await?);
    }
    Ok(jobs)
}

/// The most jobs that one request does something to.
const MOST: usize = 10_000;

/// So many of them at a time.
const AT_ONCE: usize = 16;

#[derive(Debug, Serialize)]
struct Done<'a> {
    results: Vec<DoneTo<'a>>,
}

#[derive(Debug, Serialize)]
struct DoneTo<'a> {
    id: String,
    status: u16,
    job: Option<JobView<'a>>,
    code: Option<&'static str>,
    detail: Option<String>,
}

/// What became of a job: the status of the answer to it alone, and the job that is in that answer.
type Outcome = Result<(StatusCode, Option<Arc<Job>>), ApiError>;

/// The jobs that are meant. A filter without states means those in one of `usual`.
async fn pick(
    api: &Api,
    picked: Picked,
    usual: impl Fn(JobState) -> bool,
) -> Result<Vec<JobId>, ApiError> {
    let ids = match picked.which {
        Pick::Ids(mut ids) => {
            let mut seen = HashSet::new();
            ids.retain(|id| seen.insert(*id));
            ids
        }
        Pick::Filter(mut filter) => {
            if filter.states.is_empty() {
                filter.states = JobState::ALL
                    .into_iter()
                    .filter(|one| usual(*one))
                    .collect();
            }
            api.manager.select(filter, MOST + 1).await?
        }
    };
    let found = u64::try_from(ids.len()).unwrap_or(u64::MAX);
    if let Some(expected) = picked.expect
        && found > expected
    {
        return Err(ApiError::CountDiffers { expected, found });
    }
    if ids.len() > MOST {
        let error = FieldError {
            pointer: String::new(),
            code: code::TOO_MANY,
            detail: format!("more than {MOST} jobs match: narrow the filter down"),
        };
        return Err(BodyError::Invalid(vec![error]).into());
    }
    Ok(ids)
}

/// Does the same to each, a few at a time; tells of them in their order.
async fn each<F: Future<Output = Outcome>>(
    api: &Api,
    ids: Vec<JobId>,
    act: impl Fn(JobId) -> F,
) -> Response {
    let acts = ids.into_iter().map(|id| {
        let act = act(id);
        async move { (id, act.await) }
    });
    let outcomes: Vec<_> = stream::iter(acts).buffered(AT_ONCE).collect().await;
    let results = outcomes
        .iter()
        .map(|(id, outcome)| told(api, *id, outcome))
        .collect();
    (StatusCode::MULTI_STATUS, Json(Done { results })).into_response()
}

fn told<'a>(api: &Api, id: JobId, outcome: &'a Outcome) -> DoneTo<'a> {
    let (status, job, code, detail) = match outcome {
        Ok((status, job)) => (*status, job.as_ref(), None, None),
        Err(error) => (
            error.status(),
            None,
            Some(error.code()),
            Some(error.problem().detail.into_owned()),
        ),
    };
    DoneTo {
        id: id.to_string(),
        status: status.as_u16(),
        job: job.map(|job| JobView::of(job, &api.manager)),
        code,
        detail,
    }
}

/// The jobs that a body without further fields picks.
async fn picked(
    api: &Api,
    request: Request,
    usual: impl Fn(JobState) -> bool,
) -> Result<Vec<JobId>, ApiError> {
    let bytes = body::read_json(request, api.settings.max_body_bytes).await?;
    let body = request::parse_body(&bytes)?;
    let picked = request::parse_picked(&body)
        .map_err(|errors| ApiError::from(BodyError::Invalid(errors)))?;
    pick(api, picked, usual).await
}

/// `POST /jobs/stop`
pub(super) async fn stop(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    let bytes = body::read_json(request, api.settings.max_body_bytes).await?;
    let body = request::parse_body(&bytes)?;
    let wish = request::parse_stop_many(&body, MAX_REASON_CHARACTERS)
        .map_err(|errors| ApiError::from(BodyError::Invalid(errors)))?;
    let ids = pick(&api, wish.picked, |state| !state.is_terminal()).await?;
    let stop = Stop {
        cause: Cause::Canceled,
        requested_by: Some(caller.actor.to_string()),
        reason: wish.reason,
        signal: wish.signal,
        grace: wish.grace,
        force: wish.force,
    };
    let stopped = api.manager.stop_many(ids, &stop).await;
    let outcomes: Vec<(JobId, Outcome)> = stopped
        .into_iter()
        .map(|(id, stopped)| {
            let outcome = match stopped {
                Ok(job) if job.state.is_terminal() => Ok((StatusCode::OK, Some(job))),
                Ok(job) => Ok((StatusCode::ACCEPTED, Some(job))),
                Err(error) => Err(error.into()),
            };
            (id, outcome)
        })
        .collect();
    let results = outcomes
        .iter()
        .map(|(id, outcome)| told(&api, *id, outcome))
        .collect();
    Ok((StatusCode::MULTI_STATUS, Json(Done { results })).into_response())
}

/// `POST /jobs/pause`
pub(super) async fn pause(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let ids = picked(&api, request, |state| state == JobState::Running).await?;
    Ok(each(&api, ids, |id| {
        let manager = api.manager.clone();
        async move { Ok((StatusCode::OK, Some(manager.pause(id).await?))) }
    })
    .await)
}

/// `POST /jobs/resume`
pub(super) async fn resume(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let ids = picked(&api, request, |state| state == JobState::Paused).await?;
    Ok(each(&api, ids, |id| {
        let manager = api.manager.clone();
        async move { Ok((StatusCode::OK, Some(manager.resume(id).await?))) }
    })
    .await)
}

/// `POST /jobs/rerun`. With a key, a repeat makes no job that the first request has made.
pub(super) async fn rerun(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    let key = idempotency::key(request.headers())?;
    let ids = picked(&api, request, JobState::is_terminal).await?;
    Ok(each(&api, ids, |id| {
        let (api, caller) = (api.clone(), caller.clone());
        let key = key.as_ref().map(|key| format!("{key} {id}"));
        async move {
            let submitted = jobs::again(&api, &caller, id, key, &bytes::Bytes::new()).await?;
            Ok((StatusCode::CREATED, Some(submitted.job)))
        }
    })
    .await)
}

/// `POST /jobs/purge`
pub(super) async fn purge(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    let ids = picked(&api, request, JobState::is_terminal).await?;
    let stop = Stop {
        requested_by: Some(caller.actor.to_string()),
        ..Stop::for_cause(Cause::Canceled)
    };
    Ok(each(&api, ids, |id| {
        let (manager, stop) = (api.manager.clone(), stop.clone());
        async move {
            Ok(match manager.purge(id, stop, MAX_WAIT).await? {
                Purged::Gone => (StatusCode::NO_CONTENT, None),
                Purged::StillThere(job) => (StatusCode::ACCEPTED, Some(job)),
            })
        }
    })
    .await)
}
