//! Routes on tokens: what `procession token` does on the machine.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

use crate::api::{Api, AuthMode};
use crate::body;
use crate::problem::ApiError;
use crate::request::{self, BodyError};
use crate::tokens::{AuthError, DEFAULT, Entry, TokenName, Tokens};
use job::time::Timestamp;
use linux::clock;

/// The most bytes of a body here.
const BODY_BYTES: usize = 16 << 10;

#[derive(Debug, Serialize)]
struct TokenView {
    name: String,
    scope: &'static str,
    /// Unknown of the first start's.
    created_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

impl From<Entry> for TokenView {
    fn from(entry: Entry) -> Self {
        Self {
            name: entry.name.to_string(),
            scope: entry.scope().as_str(),
            created_at: Some(entry.created_at),
            expires_at: entry.expires_at,
            token: None,
        }
    }
}

/// The tokens; without authentication there are none.
fn tokens(api: &Api) -> Result<Tokens, ApiError> {
    match &api.settings.auth {
        AuthMode::Token { tokens } => Ok(tokens.clone()),
        AuthMode::None => Err(ApiError::NoTokens),
    }
}

/// Reads or writes the files of tokens.
async fn with_files<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, AuthError> + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(|error| ApiError::Internal(error.to_string()))?;
    done.map_err(|error| match error {
        AuthError::Exists(name) => ApiError::TokenExists(name.to_string()),
        AuthError::Unknown(_) => ApiError::TokenNotFound,
        AuthError::TooMany => ApiError::TooManyTokens,
        error @ (AuthError::StateDir(_) | AuthError::File { .. }) => {
            ApiError::Internal(error.to_string())
        }
    })
}

/// `GET /tokens`
pub(super) async fn list(State(api): State<Api>) -> Result<Response, ApiError> {
    let tokens = tokens(&api)?;
    let (has_default, entries) =
        with_files(move || Ok((tokens.has_default(), tokens.entries()?))).await?;
    let default = TokenView {
        name: DEFAULT.to_owned(),
        scope: "admin",
        created_at: None,
        expires_at: None,
        token: None,
    };
    let all: Vec<TokenView> = has_default
        .then_some(default)
        .into_iter()
        .chain(entries.into_iter().map(TokenView::from))
        .collect();
    Ok(Json(json!({"tokens": all})).into_response())
}

/// `POST /tokens`: the token is in this answer and in no other.
pub(super) async fn create(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let tokens = tokens(&api)?;
    let bytes = body::read_json(request, BODY_BYTES).await?;
    let body = request::parse_body(&bytes)?;
    let wanted =
        request::parse_token(&body).map_err(|errors| ApiError::from(BodyError::Invalid(errors)))?;
    let expires_at = wanted.expires.map(|after| clock::wall().after(after));
    let (entry, token) =
        with_files(move || tokens.create(&wanted.name, wanted.scope, expires_at)).await?;
    carry(&api).await?;
    let view = TokenView {
        token: Some(token),
        ..TokenView::from(entry)
    };
    Ok((StatusCode::CREATED, Json(view)).into_response())
}

/// `DELETE /tokens/{name}`: sessions and open answers of the token end with it, and its schedules continue.
pub(super) async fn revoke(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let tokens = tokens(&api)?;
    let name: TokenName = name.parse().map_err(|_| ApiError::TokenNotFound)?;
    let made_with = format!("token:{name}");
    let shown = name.to_string();
    with_files(move || tokens.revoke(&name)).await?;
    carry(&api).await?;
    let schedules = api.manager.schedules().made_by(&made_with);
    Ok(Json(json!({"name": shown, "schedules": schedules})).into_response())
}

/// Lets the other API nodes know the tokens, if there are any.
async fn carry(api: &Api) -> Result<(), ApiError> {
    let store = api.manager.store();
    for name in ["token", "tokens.json"] {
        store::SharedFiles(&store).carry(name).await?;
    }
    Ok(())
}
