//! Routes on many jobs at once.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;

use crate::api::Api;
use crate::body;
use crate::extract::MAX_WAIT;
use crate::layers::auth::Caller;
use crate::problem::ApiError;
use crate::request::{self, BodyError, MAX_REASON_CHARACTERS, Which};
use crate::view::JobView;
use job::life::Stop;
use job::{Cause, Job, JobId};
use manager::RequestError;

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
        Which::Matching(filter) => api.manager.unfinished(filter).await?,
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

#[derive(Debug, Serialize)]
struct Stopped<'a> {
    results: Vec<StopResult<'a>>,
}

#[derive(Debug, Serialize)]
struct StopResult<'a> {
    id: String,
    status: u16,
    job: Option<JobView<'a>>,
    code: Option<&'static str>,
    detail: Option<String>,
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
    let ids = api.manager.unfinished(wish.filter).await?;
    let stop = Stop {
        cause: Cause::Canceled,
        requested_by: Some(caller.actor.to_string()),
        reason: wish.reason,
        signal: wish.signal,
        grace: wish.grace,
        force: wish.force,
    };
    let stopped: Vec<_> = api.manager.stop_many(ids, &stop).await;
    let stopped: Vec<(JobId, Result<Arc<Job>, ApiError>)> = stopped
        .into_iter()
        .map(|(id, result)| (id, result.map_err(ApiError::from)))
        .collect();
    let results = stopped
        .iter()
        .map(|(id, result)| result_of(&api, *id, result))
        .collect();
    Ok((StatusCode::MULTI_STATUS, Json(Stopped { results })).into_response())
}

fn result_of<'a>(api: &Api, id: JobId, result: &'a Result<Arc<Job>, ApiError>) -> StopResult<'a> {
    let (status, job, code, detail) = match result {
        Ok(job) if job.state.is_terminal() => (StatusCode::OK, Some(job), None, None),
        Ok(job) => (StatusCode::ACCEPTED, Some(job), None, None),
        Err(error) => (
            error.status(),
            None,
            Some(error.code()),
            Some(error.problem().detail.into_owned()),
        ),
    };
    StopResult {
        id: id.to_string(),
        status: status.as_u16(),
        job: job.map(|job| JobView::of(job, &api.manager)),
        code,
        detail,
    }
}
