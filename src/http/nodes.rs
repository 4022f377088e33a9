//! Routes on the nodes of a cluster: who has joined, drain, forget.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

use crate::api::Api;
use crate::problem::ApiError;
use crate::relay;
use job::NodeName;
use job::time::Timestamp;
use manager::{Hub, NodeState};

#[derive(Debug, Serialize)]
struct NodeView {
    name: String,
    state: &'static str,
    hub: bool,
    draining: bool,
    accepting: bool,
    labels: Arc<BTreeMap<String, String>>,
    slots: u32,
    jobs: usize,
    weight: u64,
    version: Option<String>,
    since: Timestamp,
    lost_at: Option<Timestamp>,
}

impl From<NodeState> for NodeView {
    fn from(node: NodeState) -> Self {
        Self {
            name: node.name.to_string(),
            state: if node.is_connected {
                "connected"
            } else {
                "unreachable"
            },
            hub: node.is_here,
            draining: node.is_draining,
            accepting: node.is_connected && !node.is_draining && !node.is_shut,
            labels: node.labels,
            slots: node.slots,
            jobs: node.jobs,
            weight: node.weight,
            version: match node.is_here {
                true => Some(env!("CARGO_PKG_VERSION").to_owned()),
                false => node.version,
            },
            since: node.since,
            lost_at: node.lost_at,
        }
    }
}

fn hub(api: &Api) -> Result<Hub, ApiError> {
    api.manager.hub().ok_or(ApiError::NotFound)
}

fn name(text: &str) -> Result<NodeName, ApiError> {
    text.parse().map_err(|_| ApiError::NodeNotFound)
}

fn view(hub: &Hub, name: &NodeName) -> Result<NodeView, ApiError> {
    let mut nodes = hub.nodes().into_iter();
    let node = nodes.find(|node| node.name == *name);
    node.map(NodeView::from).ok_or(ApiError::NodeNotFound)
}

/// `GET /nodes`
pub(super) async fn list(State(api): State<Api>) -> Result<Response, ApiError> {
    let nodes = hub(&api)?.nodes();
    let nodes: Vec<NodeView> = nodes.into_iter().map(NodeView::from).collect();
    let mut answer = json!({"nodes": nodes});
    if let Some(standing) = &api.settings.ledger {
        // The API nodes, who run no jobs.
        answer["ledger"] = relay::seen(&standing.status().view());
    }
    Ok(Json(answer).into_response())
}

/// `GET /nodes/{name}`
pub(super) async fn get(
    State(api): State<Api>,
    Path(text): Path<String>,
) -> Result<Response, ApiError> {
    Ok(Json(view(&hub(&api)?, &name(&text)?)?).into_response())
}

/// `POST /nodes/{name}/drain`: no new jobs for it.
pub(super) async fn drain(
    State(api): State<Api>,
    Path(text): Path<String>,
) -> Result<Response, ApiError> {
    let (hub, name) = (hub(&api)?, name(&text)?);
    hub.drain(&name, true).await?;
    Ok(Json(view(&hub, &name)?).into_response())
}

/// `DELETE /nodes/{name}/drain`: new jobs again.
pub(super) async fn end_drain(
    State(api): State<Api>,
    Path(text): Path<String>,
) -> Result<Response, ApiError> {
    let (hub, name) = (hub(&api)?, name(&text)?);
    hub.drain(&name, false).await?;
    Ok(Json(view(&hub, &name)?).into_response())
}

/// `DELETE /nodes/{name}`: it will not come back, and its jobs are lost.
pub(super) async fn forget(
    State(api): State<Api>,
    Path(text): Path<String>,
) -> Result<Response, ApiError> {
    let (hub, name) = (hub(&api)?, name(&text)?);
    hub.forget(&name).await?;
    api.offered.clear(&name);
    Ok(StatusCode::NO_CONTENT.into_response())
}
