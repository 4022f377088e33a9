//! Routes on queues: what is set of them, and what is in them.

use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::{ETAG, IF_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;

use crate::api::Api;
use crate::layers::auth::Caller;
use crate::problem::ApiError;
use crate::query::Params;
use crate::request::{self, BodyError, Changes};
use crate::tokens::Access;
use crate::{body, conditions, extract};
use job::queue::Settings;
use job::time::Timestamp;
use manager::{QueueError, QueueState};

/// The parameters of [`reset`].
pub(super) const RESET: &[&str] = &["force"];

/// The queue that the path names.
#[derive(Clone, Debug)]
pub(super) struct InPath(String);

impl<S: Send + Sync> FromRequestParts<S> for InPath {
    type Rejection = ApiError;

    /// What cannot be the name of a queue names none.
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let name = extract::name_in_path(parts, state).await;
        name.map(Self).ok_or(ApiError::QueueNotFound)
    }
}

#[derive(Debug, Serialize)]
struct QueueView<'a> {
    name: &'a str,
    #[serde(flatten)]
    settings: &'a Settings,
    version: u64,
    created_at: Option<Timestamp>,
    changed_at: Option<Timestamp>,
    running: usize,
    running_weight: u64,
    queued: usize,
    oldest_queued_at: Option<Timestamp>,
    next_start_at: Option<Timestamp>,
}

impl<'a> From<&'a QueueState> for QueueView<'a> {
    fn from(queue: &'a QueueState) -> Self {
        Self {
            name: &queue.name,
            settings: &queue.settings,
            version: queue.version,
            created_at: queue.set_at.map(|(created, _)| created),
            changed_at: queue.set_at.map(|(_, changed)| changed),
            running: queue.contents.running,
            running_weight: queue.contents.running_weight,
            queued: queue.contents.queued,
            oldest_queued_at: queue.contents.oldest.map(|job| job.made_at()),
            next_start_at: queue.contents.next_start_at,
        }
    }
}

#[derive(Debug, Serialize)]
struct QueueList<'a> {
    queues: Vec<QueueView<'a>>,
}

/// `GET /queues`
pub(super) async fn list(State(api): State<Api>) -> Response {
    let queues = api.manager.queues().list();
    let queues = queues.iter().map(QueueView::from).collect();
    Json(QueueList { queues }).into_response()
}

/// `GET /queues/{name}`
pub(super) async fn get(
    State(api): State<Api>,
    InPath(name): InPath,
) -> Result<Response, ApiError> {
    let queue = api.manager.queues().get(&name);
    let queue = queue.ok_or(ApiError::QueueNotFound)?;
    Ok(response(StatusCode::OK, &queue))
}

/// `PUT /queues/{name}`
pub(super) async fn put(
    State(api): State<Api>,
    InPath(name): InPath,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, ApiError> {
    let bytes = body::read_json(request, api.settings.max_body_bytes).await?;
    let body = request::parse_body(&bytes)?;
    let settings =
        request::parse_queue(&body).map_err(|errors| ApiError::from(BodyError::Invalid(errors)))?;
    let queues = api.manager.queues();
    let present = queues.get(&name);
    let expected = expected(&headers, present.as_ref())?;
    let (queue, is_new) = queues.set(&name, settings, expected).await?;
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok(response(status, &queue))
}

/// `PATCH /queues/{name}`
pub(super) async fn patch(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    InPath(name): InPath,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, ApiError> {
    let patch = body::read_patch(request, api.settings.max_body_bytes).await?;
    let queues = api.manager.queues();
    let queue = conditions::change(&headers, async || {
        let present = queues.get(&name);
        let settings = present.as_ref().map(|it| it.settings.clone());
        let (settings, changes) =
            request::parse_queue_patch(&settings.unwrap_or_default(), &patch)?;
        if changes == Changes::More && !caller.scope.reaches(Access::Admin) {
            let needed = Access::Admin.as_str();
            return Err(ApiError::Forbidden { needed });
        }
        expected(&headers, present.as_ref())?;
        let version = present.as_ref().map_or(0, |it| it.version);
        match queues.set(&name, settings, Some(version)).await {
            Ok((queue, _)) => Ok(Some(queue)),
            Err(QueueError::Changed) => Ok(None),
            Err(error) => Err(error.into()),
        }
    });
    Ok(response(StatusCode::OK, &queue.await?))
}

/// `DELETE /queues/{name}`
pub(super) async fn reset(
    State(api): State<Api>,
    InPath(name): InPath,
    mut params: Params,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let force = params.flag("force");
    params.finish()?;
    let queues = api.manager.queues();
    let present = queues.get(&name);
    let expected = expected(&headers, present.as_ref())?;
    queues.reset(&name, force, expected).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The version that the queue has to be in, if the request says so.
fn expected(headers: &HeaderMap, present: Option<&QueueState>) -> Result<Option<u64>, ApiError> {
    if !headers.contains_key(IF_MATCH) {
        return Ok(None);
    }
    let version = present.map(|it| it.version);
    match version {
        Some(version) if conditions::match_has(headers, &etag(version)) => Ok(Some(version)),
        Some(_) | None => Err(ApiError::PreconditionFailed),
    }
}

fn etag(version: u64) -> String {
    format!("\"{version}\"")
}

fn response(status: StatusCode, queue: &QueueState) -> Response {
    let mut response = (status, Json(QueueView::from(queue))).into_response();
    let etag = HeaderValue::from_str(&etag(queue.version)).expect("made of digits");
    response.headers_mut().insert(ETAG, etag);
    response
}
