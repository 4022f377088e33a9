//! `GET /templates`: what a service with a command policy can run by a name.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::api::Api;
use crate::policy::{Described, Policies};

#[derive(Debug, Serialize)]
struct Templates {
    only: bool,
    templates: Vec<Described>,
}

/// `GET /templates`
pub(super) async fn list(State(api): State<Api>) -> Response {
    let policy = api.settings.policy.as_ref().map(Policies::now);
    Json(Templates {
        only: policy.as_ref().is_some_and(|policy| policy.is_all()),
        templates: policy.map(|policy| policy.described()).unwrap_or_default(),
    })
    .into_response()
}
