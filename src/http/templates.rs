//! `GET /templates`: what a service with a command policy runs.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::api::Api;
use crate::policy::Described;

#[derive(Debug, Serialize)]
struct Templates {
    only: bool,
    templates: Vec<Described>,
}

/// `GET /templates`
pub(super) async fn list(State(api): State<Api>) -> Response {
    let policy = api.settings.policy.as_deref();
    Json(Templates {
        only: policy.is_some(),
        templates: policy.map(|policy| policy.described()).unwrap_or_default(),
    })
    .into_response()
}
