//! The route on how safe the service is with its settings. The examination is made by whoever knows all of them.

use std::fmt;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

use crate::api::Api;
use crate::problem::ApiError;

/// How one part of the service does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    #[serde(rename = "ok")]
    Good,
    /// To know, and to decide about.
    Note,
    /// Somebody could do what they should not.
    Insecure,
    /// It does not work, or soon will not.
    Problem,
}

/// What was found of one part of the service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The part, in one word.
    pub about: &'static str,
    /// How it does.
    pub verdict: Verdict,
    /// What was found, and the fix, in one line.
    pub text: String,
}

/// Examines the service when it is asked; reads files, and changes nothing.
#[derive(Clone)]
pub struct Doctor(Arc<dyn Fn() -> Vec<Finding> + Send + Sync>);

impl Doctor {
    /// One that examines in this way.
    #[must_use]
    pub fn new(examine: impl Fn() -> Vec<Finding> + Send + Sync + 'static) -> Self {
        Self(Arc::new(examine))
    }
}

impl fmt::Debug for Doctor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Doctor")
    }
}

/// `GET /doctor`
pub(super) async fn findings(State(api): State<Api>) -> Result<Response, ApiError> {
    let Doctor(examine) = api.settings.doctor.clone();
    let findings = tokio::task::spawn_blocking(move || examine()).await;
    let findings = findings.map_err(|error| ApiError::Internal(error.to_string()))?;
    Ok(Json(json!({"findings": findings})).into_response())
}
