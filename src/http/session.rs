//! Routes on sessions of browsers: one-time codes, signing in and out, tickets.

use std::net::SocketAddr;

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;

use super::problem::ApiError;
use crate::api::{Api, AuthMode};
use crate::body;
use crate::layers::auth::{ActorSlot, By, Caller, PeerAddress};
use crate::request::{self, BodyError};
use crate::tokens::Access;
use crate::tokens::sessions::{Proof, Session, Sessions};
use job::time::Timestamp;

/// The most bytes of a body here.
const BODY_BYTES: usize = 16 << 10;

/// The paths that a ticket can be for: what a browser asks for without headers.
const TICKETED: &[&str] = &["/live"];
const TICKETED_OF_JOB: &[&str] = &[
    "output",
    "output/stdout",
    "output/stderr",
    "attach",
    "recording.cast",
    "files.tar",
    "files.tar.gz",
    "files.zip",
];
const TICKETED_BENEATH: &str = "files/";

#[derive(Debug, Serialize)]
struct Made {
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    actor: String,
    scope: &'static str,
    expires_at: Option<Timestamp>,
    by: &'static str,
}

/// `POST /session/codes`
pub(super) async fn code(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    let bytes = body::read_json(request, BODY_BYTES).await?;
    let body = request::parse_body(&bytes)?;
    let scope = request::parse_code(&body).map_err(invalid)?;
    let maker = caller.maker().ok_or(ApiError::Forbidden {
        needed: Access::Admin.as_str(),
    })?;
    let code = api.settings.sessions.code(maker, scope);
    let code = code.ok_or_else(|| ApiError::Internal("no random bytes".to_owned()))?;
    Ok((
        StatusCode::CREATED,
        Json(
            serde_json::json!({"code": code, "url": api.settings.page, "expires_in_seconds": 600}),
        ),
    )
        .into_response())
}

/// `POST /session`: whoever has a code or a token gets a session.
pub(super) async fn enter(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let extensions = request.extensions().clone();
    let peer = extensions
        .get::<PeerAddress>()
        .map(|PeerAddress(address): &PeerAddress| SocketAddr::to_string(address));
    let bytes = body::read_json(request, BODY_BYTES).await?;
    let body = request::parse_body(&bytes)?;
    let entry = request::parse_entry(&body).map_err(invalid)?;
    let AuthMode::Token { tokens } = &api.settings.auth else {
        // There is nothing to prove.
        return Err(ApiError::Unauthenticated);
    };
    let (sessions, tokens) = (api.settings.sessions.clone(), tokens.clone());
    // It writes a file.
    let made = tokio::task::spawn_blocking(move || {
        let proof = match (&entry.code, &entry.token) {
            (Some(code), _) => Proof::Code(code),
            (None, Some(token)) => Proof::Token(token),
            (None, None) => return None,
        };
        sessions.enter(&proof, &tokens, &entry.browser, peer)
    });
    let made = made
        .await
        .map_err(|error| ApiError::Internal(error.to_string()))?;
    let (token, session) = made.ok_or(ApiError::Unauthenticated)?;
    if let Some(slot) = extensions.get::<ActorSlot>() {
        slot.note(&session.actor.as_str().into());
    }
    Ok((
        StatusCode::CREATED,
        Json(Made {
            token: Some(token),
            scope: session.scope().as_str(),
            actor: session.actor,
            expires_at: Some(session.expires_at),
            by: "session",
        }),
    )
        .into_response())
}

/// `GET /session`
pub(super) async fn present(Extension(caller): Extension<Caller>) -> Response {
    let (by, expires_at) = match &caller.by {
        By::Nothing | By::Hub => ("none", None),
        By::Socket(_) => ("socket", None),
        By::Token => ("token", None),
        By::Session { expires_at, .. } => ("session", Some(*expires_at)),
    };
    Json(Made {
        token: None,
        actor: caller.actor.to_string(),
        scope: caller.scope.as_str(),
        expires_at,
        by,
    })
    .into_response()
}

/// `DELETE /session`: the caller's own; without one nothing changes.
pub(super) async fn leave(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, ApiError> {
    if let By::Session { id, .. } = &caller.by {
        end(&api, id.to_string()).await?;
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// A session that is being taken out of the file, and is forgotten with this, also where nobody waits for that.
struct Ending {
    sessions: Sessions,
    id: String,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.sessions.forget(&self.id);
    }
}

/// Ends a session. Nothing is awaited after its end: the answer to whoever ends their own would be 401 otherwise.
async fn end(api: &Api, id: String) -> Result<bool, ApiError> {
    let sessions = api.settings.sessions.clone();
    let ending = Ending {
        sessions: sessions.clone(),
        id: id.clone(),
    };
    let struck = tokio::task::spawn_blocking(move || {
        sessions.strike(&id);
        linux::failpoint::hit("session.struck");
    });
    struck
        .await
        .map_err(|error| ApiError::Internal(error.to_string()))?;
    Ok(ending.sessions.forget(&ending.id))
}

/// `POST /session/tickets`
pub(super) async fn ticket(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    let bytes = body::read_json(request, BODY_BYTES).await?;
    let body = request::parse_body(&bytes)?;
    let path = request::parse_ticket(&body, is_ticketed).map_err(invalid)?;
    let ticket = api.tickets.issue(&path, caller);
    let ticket = ticket.ok_or(ApiError::TooManyStreams { most: 1000 })?;
    Ok((
        StatusCode::CREATED,
        Json(serde_json::json!({"ticket": ticket, "expires_in_seconds": 30})),
    )
        .into_response())
}

fn is_ticketed(path: &str) -> bool {
    let of_job = |rest: &str| {
        rest.split_once('/').is_some_and(|(_, tail)| {
            TICKETED_OF_JOB.contains(&tail)
                || tail
                    .strip_prefix(TICKETED_BENEATH)
                    .is_some_and(|it| !it.is_empty())
        })
    };
    TICKETED.contains(&path) || path.strip_prefix("/jobs/").is_some_and(of_job)
}

#[derive(Debug, Serialize)]
struct Listed {
    id: String,
    actor: String,
    scope: &'static str,
    created_at: Timestamp,
    used_at: Timestamp,
    expires_at: Timestamp,
    browser: String,
    current: bool,
}

/// Whose a session is: everybody's for an admin, else those of the same actor.
fn is_of(caller: &Caller, session: &Session) -> bool {
    caller.scope == Access::Admin || session.actor == *caller.actor
}

/// `GET /sessions`
pub(super) async fn list(State(api): State<Api>, Extension(caller): Extension<Caller>) -> Response {
    let current = match &caller.by {
        By::Session { id, .. } => Some(id.clone()),
        By::Nothing | By::Socket(_) | By::Hub | By::Token => None,
    };
    let sessions: Vec<Listed> = api
        .settings
        .sessions
        .list()
        .into_iter()
        .filter(|session| is_of(&caller, session))
        .map(|session| Listed {
            scope: session.scope().as_str(),
            current: current.as_deref() == Some(&*session.id),
            id: session.id,
            actor: session.actor,
            created_at: session.created_at,
            used_at: session.used_at,
            expires_at: session.expires_at,
            browser: session.browser,
        })
        .collect();
    Json(serde_json::json!({"sessions": sessions})).into_response()
}

/// `DELETE /sessions/{id}`
pub(super) async fn remove(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let sessions = api.settings.sessions.list();
    let found = sessions
        .iter()
        .any(|session| session.id == id && is_of(&caller, session));
    if !found || !end(&api, id).await? {
        return Err(ApiError::NotFound);
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn invalid(errors: Vec<request::FieldError>) -> ApiError {
    BodyError::Invalid(errors).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_are_for_what_a_browser_asks_without_headers() {
        for good in [
            "/live",
            "/jobs/x/output",
            "/jobs/x/output/stdout",
            "/jobs/x/attach",
            "/jobs/x/files.zip",
            "/jobs/x/files/out/a%20b.txt",
        ] {
            assert!(is_ticketed(good), "{good}");
        }
        for bad in [
            "/jobs",
            "/jobs/x",
            "/jobs/x/stdin",
            "/jobs/x/files",
            "/jobs/x/files/",
            "/session",
            "/jobs/x/output/",
            "live",
            "",
        ] {
            assert!(!is_ticketed(bad), "{bad}");
        }
    }
}
