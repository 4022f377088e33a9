//! Routes about the service itself.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

use crate::api::Api;
use crate::problem::ApiError;
use job::time::Timestamp;

/// The description of this API.
pub(super) const OPENAPI: &str = include_str!("../../openapi.yaml");

/// The process answers.
pub(super) async fn healthz() -> Response {
    Json(json!({"live": true})).into_response()
}

/// New jobs may come.
pub(super) async fn readyz(State(api): State<Api>) -> Result<Response, ApiError> {
    match api.manager.ready() {
        Ok(()) => Ok(Json(json!({"ready": true})).into_response()),
        Err(why) => Err(ApiError::NotReady(why.as_str())),
    }
}

/// No new jobs from now on.
pub(super) async fn drain(State(api): State<Api>) -> Response {
    let draining = api.manager.drain(true).await;
    (StatusCode::ACCEPTED, Json(json!({"draining": draining}))).into_response()
}

/// New jobs again.
pub(super) async fn end_drain(State(api): State<Api>) -> Response {
    let draining = api.manager.drain(false).await;
    Json(json!({"draining": draining})).into_response()
}

/// The description of this API.
pub(super) async fn openapi() -> Response {
    ([(CONTENT_TYPE, "application/yaml")], OPENAPI).into_response()
}

#[derive(Debug, Serialize)]
struct InfoView {
    name: &'static str,
    version: &'static str,
    commit: Option<&'static str>,
    started_at: Timestamp,
    server_pid: u32,
    supervisor_pid: i32,
    server_restarts: u32,
    damaged_records: u64,
    draining: bool,
    containment: ContainmentView,
    sandbox: SandboxView,
    jobs: JobCounts,
    max_body_bytes: usize,
}

#[derive(Debug, Serialize)]
struct ContainmentView {
    kind: &'static str,
    cgroup: Option<String>,
    cgroup_unavailable: Option<String>,
    controllers: Vec<String>,
}

#[derive(Debug, Serialize)]
struct SandboxView {
    default: &'static str,
    landlock_abi: Option<u32>,
    seccomp: bool,
}

#[derive(Debug, Serialize)]
struct JobCounts {
    running: usize,
    max_running: usize,
    queued: usize,
    max_queued: usize,
}

/// What this instance is and can do.
pub(super) async fn info(State(api): State<Api>) -> Response {
    let info = api.manager.info();
    let (cgroup, cgroup_unavailable) = match info.cgroup {
        Ok(path) => (Some(path), None),
        Err(why) => (None, Some(why)),
    };
    let view = InfoView {
        name: "procession",
        version: api.settings.version,
        commit: api.settings.commit,
        started_at: info.started_at,
        server_pid: std::process::id(),
        supervisor_pid: info.supervisor_pid,
        server_restarts: info.server_restarts,
        damaged_records: info.damaged_records,
        draining: info.draining,
        containment: ContainmentView {
            kind: info.containment,
            cgroup,
            cgroup_unavailable,
            controllers: info.controllers,
        },
        sandbox: SandboxView {
            default: info.sandbox.as_str(),
            landlock_abi: info.features.landlock_abi,
            seccomp: info.features.seccomp,
        },
        jobs: JobCounts {
            running: info.running,
            max_running: info.max_running,
            queued: info.queued,
            max_queued: info.max_queued,
        },
        max_body_bytes: api.settings.max_body_bytes,
    };
    Json(view).into_response()
}
