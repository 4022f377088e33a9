//! Routes on many jobs at once.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;

use axum::extract::{Request, State as State_};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::stream::{self, Stream, StreamExt};
use serde::Serialize;

use crate::api::Api;
use crate::extract::MAX_WAIT;
use crate::layers::auth::Caller;
use crate::problem::ApiError;
use crate::request::{
    self, ACTED_MAX, Body, BodyError, Chosen, FieldError, MAX_REASON_CHARACTERS, Which,
};
use crate::view::JobView;
use crate::{body, idempotency, jobs, trace};
use job::life::Stop;
use job::query::{Filter, Order, Query};
use job::{Cause, Job, JobId, State};
use manager::{Budget, LookupError, Purged, RequestError};

#[derive(Debug, Serialize)]
struct Waited<'a> {
    satisfied: bool,
    /// There are more jobs than an answer has place for.
    truncated: bool,
    jobs: Vec<JobView<'a>>,
}

/// `POST /jobs/wait`
pub(super) async fn wait(State_(api): State_<Api>, request: Request) -> Result<Response, ApiError> {
    let bytes = body::read_json(request, api.settings.max_body_bytes).await?;
    let body = request::parse_body(&bytes)?;
    let wish = request::parse_wait_many(&body, MAX_WAIT)
        .map_err(|errors| ApiError::from(BodyError::Invalid(errors)))?;
    let ids: Vec<JobId> = match wish.which {
        Which::Ids(ids) => {
            // What is not there cannot be waited for.
            for id in &ids {
                api.manager.get(*id).await?;
            }
            ids
        }
        Which::Matching(filter) => api.manager.unfinished(*filter).await?,
    };
    api.manager.wait_many(&ids, wish.all, wish.timeout).await;
    let (mut finished, mut jobs, mut budget) = (0, Vec::new(), Budget::default());
    for id in &ids {
        let job = api.manager.get(*id).await?;
        finished += usize::from(job.state.is_terminal());
        if budget.take(&job) {
            jobs.push(job);
        }
    }
    let satisfied = if wish.all || ids.is_empty() {
        finished == ids.len()
    } else {
        finished > 0
    };
    let views = jobs.iter().map(|job| JobView::of(job, &api.manager));
    let waited = Waited {
        satisfied,
        truncated: jobs.len() < ids.len(),
        jobs: views.collect(),
    };
    Ok(Json(waited).into_response())
}

/// How many of them are in work at a time.
const AT_ONCE: usize = 1024;
/// How many jobs that have ended are purged by one call of the manager, and how many lost ones at a time.
const ENDED_AT_ONCE: usize = 500;
const LOST_AT_ONCE: usize = 64;
/// How many jobs are made again at a time.
const AGAIN_AT_ONCE: usize = 64;

#[derive(Debug, Serialize)]
struct Acted<'a> {
    /// How many jobs were meant, at most [`ACTED_MAX`].
    matched: usize,
    /// There are more.
    truncated: bool,
    results: Vec<ActedOn<'a>>,
}

#[derive(Debug, Serialize)]
struct ActedOn<'a> {
    id: String,
    status: u16,
    job: Option<JobView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivered_to: Option<u64>,
    code: Option<&'static str>,
    detail: Option<String>,
}

/// What came of it for one job, and how that is now if the answer has place for it.
enum Done {
    /// Not all of what was asked for has happened yet.
    Begun(Option<Arc<Job>>),
    /// All of it has happened.
    Job(Option<Arc<Job>>),
    /// This new job does the same again.
    Again(Option<Arc<Job>>),
    /// So many processes got the signal.
    Delivered(u64),
    /// It is gone.
    Purged,
}

impl Done {
    /// Leaves the job out if the answer has no place for it.
    fn fit(&mut self, budget: &mut Budget) {
        match self {
            Self::Begun(job) | Self::Job(job) | Self::Again(job) => {
                *job = job.take().filter(|job| budget.take(job));
            }
            Self::Delivered(_) | Self::Purged => {}
        }
    }
}

/// Of which jobs a request means some.
#[derive(Clone, Copy)]
enum Of {
    Unfinished,
    Ended,
    All,
}

impl Of {
    fn has(self, state: State) -> bool {
        match self {
            Self::Unfinished => !state.is_terminal(),
            Self::Ended => state.is_terminal(),
            Self::All => true,
        }
    }
}

/// The jobs that a request means. From here on it is about these and no others.
#[derive(Default)]
struct Meant {
    jobs: Vec<(JobId, State)>,
    matched: usize,
    /// There are more.
    truncated: bool,
}

impl Meant {
    /// Those on which something is to be done: none if there are not as many as the client has counted, or if they
    /// were only to be counted.
    async fn of(api: &Api, chosen: &Chosen, of: Of) -> Result<Self, ApiError> {
        let (jobs, truncated) = matching(api, chosen, of).await?;
        let mut meant = Self {
            matched: jobs.len(),
            jobs,
            truncated,
        };
        if let Some(expected) = chosen.expect
            && (truncated || meant.matched != expected)
        {
            return Err(ApiError::CountDiffers {
                matched: meant.matched,
                expected,
                truncated,
            });
        }
        if chosen.dry_run {
            meant.jobs.clear();
        }
        Ok(meant)
    }
}

/// The jobs that match, oldest first, and whether there are more.
async fn matching(
    api: &Api,
    chosen: &Chosen,
    of: Of,
) -> Result<(Vec<(JobId, State)>, bool), ApiError> {
    let mut filter = chosen.filter.clone();
    let is_wanted = |state: &State| filter.states.is_empty() || filter.states.contains(state);
    let mut states = State::ALL.to_vec();
    states.retain(|state| of.has(*state) && is_wanted(state));
    if states.is_empty() {
        return Ok((Vec::new(), false));
    }
    filter.states = states;
    if let Some(ids) = &chosen.ids {
        return Ok((named(api, ids, &filter).await?, false));
    }
    let most = usize::from(ACTED_MAX);
    let mut jobs: Vec<(JobId, State)> = Vec::new();
    loop {
        let page = api.manager.list(Query {
            filter: filter.clone(),
            order: Order::CreatedAscending,
            after: jobs.last().map(|(id, _)| *id),
            limit: most - jobs.len(),
            is_brief: true,
        });
        let page = page.await?;
        jobs.extend(page.jobs.iter().map(|job| (job.id, job.state)));
        // It ends early if its jobs are large.
        if !page.more || page.jobs.is_empty() || jobs.len() >= most {
            return Ok((jobs, page.more));
        }
    }
}

/// Of the jobs of these ids, those that are there and match.
async fn named(api: &Api, ids: &[JobId], filter: &Filter) -> Result<Vec<(JobId, State)>, ApiError> {
    let filter = api.manager.with_own_node(filter.clone());
    let mut jobs = Vec::with_capacity(ids.len());
    for id in ids {
        match api.manager.get(*id).await {
            Ok(job) if filter.matches(&job) => jobs.push((job.id, job.state)),
            Ok(_) | Err(LookupError::NoSuchJob) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(jobs)
}

/// What came of it for one job.
type One = (JobId, Result<Done, ApiError>);

/// Does the same to each of these jobs, so many at a time.
fn each<F, E>(
    jobs: Vec<(JobId, State)>,
    at_once: usize,
    act: impl Fn(JobId) -> F,
) -> impl Stream<Item = One>
where
    F: Future<Output = Result<Done, E>>,
    ApiError: From<E>,
{
    let work = stream::iter(jobs).map(move |(id, _)| {
        let work = act(id);
        async move { (id, work.await.map_err(ApiError::from)) }
    });
    work.buffered(at_once)
}

/// Does the same to each of the jobs that are meant and have not ended, and says what came of it for each.
async fn act<F>(api: &Api, chosen: &Chosen, act: impl Fn(JobId) -> F) -> Result<Response, ApiError>
where
    F: Future<Output = Result<Done, RequestError>>,
{
    let meant = Meant::of(api, chosen, Of::Unfinished).await?;
    let work = each(meant.jobs, AT_ONCE, act);
    Ok(carry_out(api, meant.matched, meant.truncated, work).await)
}

/// Does the work, and says what came of it for each job.
async fn carry_out(
    api: &Api,
    matched: usize,
    truncated: bool,
    work: impl Stream<Item = One>,
) -> Response {
    let mut work = pin!(work);
    let mut budget = Budget::default();
    let mut done: Vec<One> = Vec::with_capacity(matched);
    while let Some((id, mut one)) = work.next().await {
        if let Ok(done) = &mut one {
            done.fit(&mut budget);
        }
        done.push((id, one));
    }
    done.sort_unstable_by_key(|(id, _)| *id);
    let results = done.iter().map(|(id, done)| acted_on(api, *id, done));
    let acted = Acted {
        matched,
        truncated,
        results: results.collect(),
    };
    (StatusCode::MULTI_STATUS, Json(acted)).into_response()
}

fn acted_on<'a>(api: &Api, id: JobId, done: &'a Result<Done, ApiError>) -> ActedOn<'a> {
    let mut on = ActedOn {
        id: id.to_string(),
        status: StatusCode::OK.as_u16(),
        job: None,
        delivered_to: None,
        code: None,
        detail: None,
    };
    match done {
        Ok(Done::Begun(job)) => {
            on.status = StatusCode::ACCEPTED.as_u16();
            on.job = job.as_ref().map(|job| JobView::of(job, &api.manager));
        }
        Ok(Done::Job(job)) => {
            on.job = job.as_ref().map(|job| JobView::of(job, &api.manager));
        }
        Ok(Done::Again(job)) => {
            on.status = StatusCode::CREATED.as_u16();
            on.job = job.as_ref().map(|job| JobView::of(job, &api.manager));
        }
        Ok(Done::Delivered(count)) => on.delivered_to = Some(*count),
        Ok(Done::Purged) => on.status = StatusCode::NO_CONTENT.as_u16(),
        Err(error) => {
            on.status = error.status().as_u16();
            on.code = Some(error.code());
            on.detail = Some(error.problem().detail.into_owned());
        }
    }
    on
}

async fn read(api: &Api, request: Request) -> Result<Body, ApiError> {
    let bytes = body::read_json(request, api.settings.max_body_bytes).await?;
    Ok(request::parse_body(&bytes)?)
}

fn invalid(errors: Vec<FieldError>) -> ApiError {
    BodyError::Invalid(errors).into()
}

/// `POST /jobs/stop`
pub(super) async fn stop(
    State_(api): State_<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    let wish = request::parse_stop_many(&read(&api, request).await?, MAX_REASON_CHARACTERS);
    let wish = wish.map_err(invalid)?;
    let stop = Stop {
        cause: Cause::Canceled,
        requested_by: Some(caller.actor.to_string()),
        reason: wish.reason,
        signal: wish.signal,
        grace: wish.grace,
        force: wish.force,
    };
    let stopped = act(&api, &wish.chosen, |id| {
        let (manager, stop) = (&api.manager, stop.clone());
        async move {
            let job = manager.stop(id, stop).await?;
            Ok(if job.state.is_terminal() {
                Done::Job(Some(job))
            } else {
                Done::Begun(Some(job))
            })
        }
    });
    stopped.await
}

/// `POST /jobs/signal`
pub(super) async fn signal(
    State_(api): State_<Api>,
    request: Request,
) -> Result<Response, ApiError> {
    let wish = request::parse_signal_many(&read(&api, request).await?).map_err(invalid)?;
    let signalled = act(&api, &wish.chosen, async |id| {
        let delivered = api.manager.signal(id, wish.signal, wish.scope).await;
        delivered.map(Done::Delivered)
    });
    signalled.await
}

/// `POST /jobs/pause`
pub(super) async fn pause(
    State_(api): State_<Api>,
    request: Request,
) -> Result<Response, ApiError> {
    let chosen = request::parse_chosen(&read(&api, request).await?).map_err(invalid)?;
    let paused = act(&api, &chosen, async |id| {
        let job = api.manager.pause(id).await?;
        Ok(Done::Job(Some(job)))
    });
    paused.await
}

/// `POST /jobs/resume`
pub(super) async fn resume(
    State_(api): State_<Api>,
    request: Request,
) -> Result<Response, ApiError> {
    let chosen = request::parse_chosen(&read(&api, request).await?).map_err(invalid)?;
    let resumed = act(&api, &chosen, async |id| {
        let job = api.manager.resume(id).await?;
        Ok(Done::Job(Some(job)))
    });
    resumed.await
}

/// `POST /jobs/rerun`
pub(super) async fn rerun(
    State_(api): State_<Api>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, ApiError> {
    let (key, trace) = (idempotency::key(&headers)?, trace::of(&headers));
    let chosen = request::parse_chosen(&read(&api, request).await?).map_err(invalid)?;
    let meant = Meant::of(&api, &chosen, Of::All).await?;
    let work = each(meant.jobs, AGAIN_AT_ONCE, async |id| {
        // A repeat of the whole finds what it has made of each.
        let key = key.as_ref().map(|key| format!("{key} {id}"));
        let again = jobs::again(&api, &caller, id, (key, trace.clone())).await?;
        Ok::<_, ApiError>(Done::Again(Some(again.job)))
    });
    Ok(carry_out(&api, meant.matched, meant.truncated, work).await)
}

/// `POST /jobs/purge`
pub(super) async fn purge(
    State_(api): State_<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    let chosen = request::parse_chosen(&read(&api, request).await?).map_err(invalid)?;
    let stop = Stop {
        cause: Cause::Canceled,
        requested_by: Some(caller.actor.to_string()),
        reason: None,
        signal: None,
        grace: None,
        force: false,
    };
    let meant = Meant::of(&api, &chosen, Of::Ended).await?;
    // What a lost job has left running has to end first.
    let is_lost = |(_, state): &(JobId, State)| *state == State::Lost;
    let (lost, ended): (Vec<_>, Vec<_>) = meant.jobs.into_iter().partition(is_lost);
    let ended: Vec<JobId> = ended.into_iter().map(|(id, _)| id).collect();
    let parts: Vec<Vec<JobId>> = ended.chunks(ENDED_AT_ONCE).map(<[_]>::to_vec).collect();
    let ended = stream::iter(parts).then(|some| purge_ended(&api, some));
    let lost = each(lost, LOST_AT_ONCE, |id| {
        let (manager, stop) = (&api.manager, stop.clone());
        async move {
            let purged = manager.purge(id, stop, MAX_WAIT).await?;
            Ok::<_, RequestError>(match purged {
                Purged::Gone => Done::Purged,
                Purged::StillThere(job) => Done::Begun(Some(job)),
            })
        }
    });
    let work = ended.flat_map(stream::iter).chain(lost);
    Ok(carry_out(&api, meant.matched, meant.truncated, work).await)
}

async fn purge_ended(api: &Api, some: Vec<JobId>) -> Vec<One> {
    let purged = api.manager.purge_ended(some.clone()).await;
    let purged = purged.map(HashMap::<_, _>::from_iter);
    let what = |id: &JobId| match &purged {
        Ok(stay) => match stay.get(id) {
            Some(why) => Err(why.clone().into()),
            None => Ok(Done::Purged),
        },
        Err(error) => Err(error.clone().into()),
    };
    some.iter().map(|id| (*id, what(id))).collect()
}
