//! A line in the audit log for every write request, allowed or refused.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{Extensions, Uri, header::LOCATION};
use axum::middleware::Next;
use axum::response::Response;

use super::auth::{ActorSlot, PeerAddress, PeerUid};
use super::request_id;
use crate::api::Api;
use crate::audit_log::{Audit, Decision, Line};
use crate::problem::ApiError;
use crate::{routes, trace};
use job::JobId;
use job::time::Timestamp;
use job::trace::Trace;
use linux::clock;

/// Middleware that writes the line.
pub(crate) async fn record(State(api): State<Api>, request: Request, next: Next) -> Response {
    let matched = request.extensions().get::<MatchedPath>();
    let route = matched.and_then(|path| routes::path(path.as_str()));
    let Some(audit) = &api.settings.audit else {
        return next.run(request).await;
    };
    if !routes::is_write(request.method(), route) {
        return next.run(request).await;
    }
    let slot = request.extensions().get::<ActorSlot>().cloned();
    let mut entry = Entry {
        audit: audit.clone(),
        at: clock::wall(),
        request_id: request_id::of(&request),
        slot: slot.unwrap_or_default(),
        peer: peer(request.extensions()),
        method: request.method().to_string(),
        route,
        job_id: job_in(request.uri().path()),
        trace: trace::of(request.headers()),
        answer: None,
    };
    let response = next.run(request).await;
    entry.job_id = created(&response).or(entry.job_id);
    let error = response.extensions().get::<Arc<ApiError>>();
    entry.answer = Some(Answer {
        decision: decision(error.map(|error| &**error)),
        status: response.status().as_u16(),
        code: error.map(|error| error.code()),
    });
    response
}

/// What the line says when it is dropped: an answer, or that the client went away before there was one.
struct Entry {
    audit: Arc<Audit>,
    at: Timestamp,
    request_id: String,
    slot: ActorSlot,
    peer: Option<String>,
    method: String,
    route: Option<&'static str>,
    job_id: Option<JobId>,
    trace: Option<Trace>,
    answer: Option<Answer>,
}

struct Answer {
    decision: Decision,
    status: u16,
    code: Option<&'static str>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let job_id = self.job_id.map(|id| id.to_string());
        let (decision, status, code) = match &self.answer {
            Some(answer) => (answer.decision, Some(answer.status), answer.code),
            None => (Decision::Unanswered, None, None),
        };
        self.audit.write(&Line {
            at: self.at,
            request_id: &self.request_id,
            actor: self.slot.actor(),
            peer: self.peer.as_deref(),
            method: &self.method,
            route: self.route,
            job_id: job_id.as_deref(),
            trace_id: self.trace.as_ref().map(|trace| trace.trace_id.as_str()),
            decision,
            status,
            code,
        });
    }
}

fn decision(error: Option<&ApiError>) -> Decision {
    if error.is_some_and(ApiError::is_refusal) {
        Decision::Refused
    } else {
        Decision::Allowed
    }
}

fn peer(extensions: &Extensions) -> Option<String> {
    if let Some(PeerUid(uid)) = extensions.get() {
        return Some(format!("uid:{uid}"));
    }
    extensions
        .get::<PeerAddress>()
        .map(|PeerAddress(address)| address.to_string())
}

/// The job that an answer is about: the one that it says was created, else the one of its path.
pub(super) fn job_of(path: &str, response: &Response) -> Option<JobId> {
    created(response).or_else(|| job_in(path))
}

/// The job that an answer says was created.
pub(super) fn created(response: &Response) -> Option<JobId> {
    let location = response.headers().get(LOCATION)?;
    job_in(location.to_str().ok()?)
}

/// The job of a path `/jobs/{id}…`.
fn job_in(path: &str) -> Option<JobId> {
    let path = path.parse::<Uri>().ok()?.path().to_owned();
    let mut segments = path.strip_prefix("/jobs/")?.split('/');
    segments.next()?.parse().ok()
}
