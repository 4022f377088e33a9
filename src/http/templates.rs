//! The route on the templates of the command policy.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::api::Api;

/// `GET /templates`: what can be run where a command policy holds.
pub(super) async fn list(State(api): State<Api>) -> Response {
    let policy = api.settings.policy.as_deref();
    let templates = policy.map_or_else(Vec::new, |policy| policy.describe());
    Json(json!({"only_templates": policy.is_some(), "templates": templates})).into_response()
}
