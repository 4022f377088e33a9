//! Routes about the service itself.

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

use crate::accept;
use crate::api::Api;
use crate::extract::Wait;
use crate::problem::ApiError;
use crate::query::Params;
use crate::relay;
use crate::web;
use job::time::Timestamp;
use manager::metrics::{Format, Present};

/// The description of this API.
#[cfg(test)]
pub(super) const OPENAPI: &str = include_str!("../../openapi.yaml");

static PACKED_OPENAPI: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/openapi.yaml.gz"));

/// The process answers.
pub(super) async fn healthz(State(api): State<Api>) -> Response {
    let ledger = api.settings.ledger.as_ref();
    live(ledger.map(|it| it.status().view().epoch))
}

/// The same; API nodes with a common ledger learn so who has led last.
pub(super) fn live(epoch: Option<u64>) -> Response {
    let body = match epoch {
        None => json!({"live": true}),
        Some(epoch) => json!({"live": true, "epoch": epoch}),
    };
    Json(body).into_response()
}

/// New jobs may come, or with `serving`: requests are answered.
pub(super) async fn readyz(State(api): State<Api>, uri: Uri) -> Result<Response, ApiError> {
    let mut params = Params::of(&uri);
    let is_serving = params.flag("serving");
    params.finish()?;
    let ready = if is_serving {
        api.manager.serving()
    } else {
        api.manager.ready()
    };
    match ready {
        Ok(()) => Ok(Json(json!({"ready": true})).into_response()),
        Err(why) => Err(ApiError::NotReady(why.as_str())),
    }
}

/// What operators count, for Prometheus and the like.
pub(super) async fn metrics(
    State(api): State<Api>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let kind = accept::choose(&headers, &["text/plain", "application/openmetrics-text"])?;
    let (format, kind) = match kind {
        "text/plain" => (Format::Text, "text/plain; version=0.0.4; charset=utf-8"),
        _ => (
            Format::OpenMetrics,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        ),
    };
    let process = tokio::task::spawn_blocking(Process::read)
        .await
        .unwrap_or_default();
    let settings = &api.settings;
    let present = Present {
        streams: u64::try_from(settings.streams.taken()).unwrap_or(u64::MAX),
        build: (
            settings.version.to_owned(),
            settings.commit.map(str::to_owned),
        ),
        connections: settings.places.taken(),
        audit_lines_lost: settings.audit.as_ref().map_or(0, |it| it.lines_lost()),
        resident_bytes: process.resident_bytes,
        open_files: process.open_files,
        ..api.manager.present().await?
    };
    let text = api.manager.metrics().encode(&present, format);
    let text = match &settings.ledger {
        Some(ledger) => relay::with_series(&text, &ledger.status().view()),
        None => text,
    };
    Ok(([(CONTENT_TYPE, kind)], text).into_response())
}

/// What the server's own process uses.
#[derive(Debug, Default)]
struct Process {
    resident_bytes: u64,
    open_files: u64,
}

impl Process {
    /// From proc_pid_status(5) and proc_pid_fd(5).
    fn read() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kib = status.lines().find_map(|line| {
            let text = line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?;
            text.parse::<u64>().ok()
        });
        let files = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        Self {
            resident_bytes: kib.unwrap_or_default().saturating_mul(1024),
            open_files: u64::try_from(files).unwrap_or(u64::MAX),
        }
    }
}

/// The parameters of [`drain`].
pub(super) const DRAIN: &[&str] = &["wait"];

/// No new jobs from now on.
pub(super) async fn drain(
    State(api): State<Api>,
    mut params: Params,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let wait = Wait::of(&mut params, &headers);
    params.finish()?;
    let draining = api.manager.drain(true).await;
    let (running, queued) = api.manager.drained(wait.limit).await;
    let body = json!({"draining": draining, "running": running, "queued": queued});
    let mut response = (StatusCode::ACCEPTED, Json(body)).into_response();
    wait.mark(&mut response);
    Ok(response)
}

/// New jobs again.
pub(super) async fn end_drain(State(api): State<Api>) -> Response {
    let draining = api.manager.drain(false).await;
    Json(json!({"draining": draining})).into_response()
}

/// The description of this API.
pub(super) async fn openapi(headers: HeaderMap) -> Result<Response, ApiError> {
    let mut response = web::unpacked(PACKED_OPENAPI, &headers)?;
    let kind = HeaderValue::from_static("application/yaml");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(response)
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
    hostname: Option<String>,
    cpus: Option<usize>,
    memory_bytes: Option<u64>,
    free_bytes: Option<u64>,
    disk_bytes: Option<u64>,
    /// Of the jobs that have ended.
    output_bytes: u64,
    /// Templates are all that can be run.
    policy: bool,
    /// What whoever operates it should know.
    notices: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ledger: Option<serde_json::Value>,
    features: Vec<&'static str>,
}

/// What this version can do and an earlier one could not, for clients that know several.
const FEATURES: &[&str] = &["queues", "recordings", "selections", "stats", "tokens"];

/// The same and, if it is the hub of a cluster, `nodes`.
fn features(is_hub: bool) -> Vec<&'static str> {
    let nodes = is_hub.then_some("nodes");
    FEATURES.iter().copied().chain(nodes).collect()
}

/// What whoever operates the service should know, without an examination as that of `procession doctor`.
fn notices(info: &manager::Info) -> Vec<&'static str> {
    [("no_room", !info.has_room), ("root_jobs", info.root_jobs)]
        .into_iter()
        .filter_map(|(notice, holds)| holds.then_some(notice))
        .collect()
}

/// The name of this machine.
fn hostname() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(text.trim().to_owned()).filter(|name| !name.is_empty())
}

/// The memory of this machine.
fn memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1024)
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
    let notices = notices(&info);
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
        hostname: hostname(),
        cpus: std::thread::available_parallelism().ok().map(Into::into),
        memory_bytes: memory_bytes(),
        free_bytes: info.disk.map(|(free, _)| free),
        disk_bytes: info.disk.map(|(_, all)| all),
        output_bytes: info.output_bytes,
        policy: api
            .settings
            .policy
            .as_ref()
            .is_some_and(|it| it.now().is_all()),
        notices,
        ledger: api
            .settings
            .ledger
            .as_ref()
            .map(|it| relay::seen(&it.status().view())),
        features: features(api.manager.hub().is_some()),
    };
    Json(view).into_response()
}
