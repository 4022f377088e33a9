//! Routes on jobs: list, look, signal; what creates, changes or ends one is in its own file.

mod create;
mod multipart;
mod patch;
mod pause;
mod release;
mod rerun;
mod stop;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::ETAG;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};

use crate::api::Api;
use crate::extract::{InPath, Wait};
use crate::layers::auth::Caller;
use crate::output::Wanted;
use crate::page::View;
use crate::problem::ApiError;
use crate::query::Params;
use crate::request::{self, BodyError};
use crate::view::{BasicView, Delivered, JobList, JobView, PortList, ProcessList};
use crate::{body, conditions, extract, idempotency, page, respond, view};
pub(super) use create::{CREATE, accepted, create, judge, judged, made, submission, validate};
use job::query::Query;
use job::{Job, JobId};
use manager::{LookupError, Manager, Page, Until};
pub(super) use patch::patch;
pub(super) use pause::{pause, resume};
pub(super) use release::release;
pub(super) use rerun::{RERUN, again, rerun};
pub(super) use stop::{End, STOP, stop};

/// The parameters of [`get`].
pub(super) const GET: &[&str] = &[
    "wait",
    "until",
    "after_version",
    "output_bytes",
    "output_stream",
    "output_ansi",
];

/// `GET /jobs`
pub(super) async fn list(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    mut params: Params,
) -> Result<Response, ApiError> {
    let how = page::view(&mut params);
    let keyed = keyed(&api, &caller, &mut params).await?;
    let query = Query {
        is_brief: how == View::Basic,
        ..page::parse(params)?
    };
    let (filter, order) = (query.filter.clone(), query.order);
    let page = match keyed {
        None => api.manager.list(query).await?,
        Some(jobs) => Page {
            jobs: jobs.filter(|job| filter.matches(job)).into_iter().collect(),
            more: false,
        },
    };
    let next_page_token = page
        .jobs
        .last()
        .filter(|_| page.more)
        .map(|last| page::encode(last.id, &filter, order));
    let jobs = page.jobs.iter().map(|job| &**job);
    Ok(match how {
        View::Full => Json(JobList {
            jobs: jobs.map(|job| JobView::of(job, &api.manager)).collect(),
            next_page_token,
        })
        .into_response(),
        View::Basic => Json(JobList {
            jobs: jobs.map(|job| BasicView::of(job, &api.manager)).collect(),
            next_page_token,
        })
        .into_response(),
    })
}

/// If the caller names an idempotency key: the job that was made with it, if there is one. A batch becomes a condition.
async fn keyed(
    api: &Api,
    caller: &Caller,
    params: &mut Params,
) -> Result<Option<Option<Arc<Job>>>, ApiError> {
    let key = params.parsed(
        "idempotency_key",
        "1 to 255 visible ASCII characters",
        |text| idempotency::is_key(text).then(|| text.to_owned()),
    );
    let Some(key) = key else {
        return Ok(None);
    };
    let Some(id) = api.manager.made(&caller.actor, &key).await? else {
        return Ok(Some(None));
    };
    match api.manager.get(id).await {
        Ok(job) => Ok(Some(Some(job))),
        Err(LookupError::NoSuchJob) => {
            params.add("batch", id.to_string());
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// `GET /jobs/{id}`
pub(super) async fn get(
    State(api): State<Api>,
    InPath(id): InPath,
    mut params: Params,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let wait = Wait::of(&mut params, &headers);
    let shown = Wanted::of(&mut params);
    let after_version = params.integer("after_version");
    let goal = params.parsed(
        "until",
        "finished, started, ready or change",
        |text| match text {
            "finished" => Some(Goal::Finished),
            "started" => Some(Goal::Started),
            "ready" => Some(Goal::Ready),
            "change" => Some(Goal::Change),
            _ => None,
        },
    );
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
    if goal == Goal::Ready {
        extract::can_be_ready(&api.manager.get(id).await?.spec)?;
    }
    let job = reach(&api.manager, id, goal, after_version, wait.limit).await?;
    let mut response = if conditions::none_match_has(&headers, &view::etag(&job)) {
        let mut response = StatusCode::NOT_MODIFIED.into_response();
        respond::set(&mut response, ETAG, &view::etag(&job));
        response
    } else {
        respond::job_as_it_is(&api, &job, shown).await
    };
    wait.mark(&mut response);
    Ok(response)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    Finished,
    Started,
    Ready,
    Change,
}

async fn reach(
    manager: &Manager,
    id: JobId,
    goal: Goal,
    after_version: Option<u64>,
    limit: Duration,
) -> Result<Arc<Job>, LookupError> {
    if limit.is_zero() {
        return manager.get(id).await;
    }
    let until = match (goal, after_version) {
        (Goal::Finished, _) => Until::Finished,
        (Goal::Started, _) => Until::Started,
        (Goal::Ready, _) => Until::Ready,
        (Goal::Change, Some(version)) => Until::VersionAfter(version),
        (Goal::Change, None) => Until::VersionAfter(manager.get(id).await?.version),
    };
    manager.wait(id, until, limit).await
}

/// The group of a job without a terminal is orphaned (setpgid(2)).
const DISCARDED: &str = "a job without a terminal discards SIGTSTP, SIGTTIN and SIGTTOU, unless its program handles them; to suspend it, pause it";

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
    let note = if delivered_to > 0 && signal.stops_from_a_terminal() {
        let job = api.manager.get(id).await?;
        job.spec.pty.is_none().then_some(DISCARDED)
    } else {
        None
    };
    Ok(Json(Delivered { delivered_to, note }).into_response())
}

/// `GET /jobs/{id}/processes`
pub(super) async fn processes(
    State(api): State<Api>,
    InPath(id): InPath,
) -> Result<Response, ApiError> {
    let processes = api.manager.processes(id).await?;
    Ok(Json(ProcessList::from(processes)).into_response())
}

/// `GET /jobs/{id}/ports`
pub(super) async fn ports(
    State(api): State<Api>,
    InPath(id): InPath,
) -> Result<Response, ApiError> {
    let ports = api.manager.ports(id).await?;
    Ok(Json(PortList::from(ports)).into_response())
}
