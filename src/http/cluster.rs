//! Where nodes dial in: the link with its messages, and the streams that requests are sent through.

use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::api::Api;
use crate::files::archive;
use crate::layers::auth::Caller;
use crate::problem::{ApiError, Place, Violation};
use crate::query::Params;
use cluster::socket::{self, PING, SILENCE};
use job::{JobId, NodeName};
use manager::{Hub, Joined};
use protocol::wire::link::{FromNode, ToNode};

/// The parameters of [`files`].
pub(super) const FILES: &[&str] = &["node", "epoch", "job"];

/// The parameters of [`stream`].
pub(super) const STREAM: &[&str] = &["node", "epoch"];

/// How long a connection may take to become a WebSocket, which only waits for the answer to be sent.
const UPGRADED: Duration = Duration::from_secs(10);

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// `GET /cluster/link`
pub(super) async fn link(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    mut request: Request,
) -> Result<Response, ApiError> {
    let hub = api.manager.hub().ok_or(ApiError::NotFound)?;
    let (response, upgrade) = upgrade(&mut request)?;
    let streams = api.streams().clone();
    let begin = streams.clone();
    begin.begin(async move {
        let Some(upgraded) = upgraded(upgrade).await else {
            return;
        };
        let mut socket = socket::over(upgraded, Role::Server).await;
        tokio::select! {
            () = converse(&api, &hub, &caller, &mut socket) => {}
            () = streams.ended() => {}
        }
    });
    Ok(response)
}

/// `GET /cluster/stream`: bytes, on which this side sends requests and the node answers.
pub(super) async fn stream(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    mut params: Params,
    mut request: Request,
) -> Result<Response, ApiError> {
    let hub = api.manager.hub().ok_or(ApiError::NotFound)?;
    let node = params.parsed("node", "the name of a node", |text| text.parse().ok());
    let epoch = params.integer("epoch");
    params.finish()?;
    let (node, epoch): (NodeName, u64) = node.zip(epoch).ok_or(ApiError::NodeNotFound)?;
    // The link has shown who it is.
    if !hub.has_link(&node, epoch, &caller.actor) {
        return Err(ApiError::NodeNotFound);
    }
    let (response, upgrade) = upgrade(&mut request)?;
    let streams = api.streams().clone();
    let begin = streams.clone();
    begin.begin(async move {
        let Some(upgraded) = upgraded(upgrade).await else {
            return;
        };
        let (near, carry) = socket::bytes(upgraded, Role::Server);
        api.offered.put(&node, epoch, near);
        tokio::select! {
            () = carry => {}
            () = caller.ended() => {}
            () = streams.ended() => {}
        }
    });
    Ok(response)
}

/// `GET /cluster/files`: all that is in the workspace of a job that the node is about to get, as a tar archive.
pub(super) async fn files(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    mut params: Params,
) -> Result<Response, ApiError> {
    let hub = api.manager.hub().ok_or(ApiError::NotFound)?;
    let node = params.parsed("node", "the name of a node", |text| text.parse().ok());
    let epoch = params.integer("epoch");
    let job = params.parsed("job", "the id of a job", |text| text.parse().ok());
    params.finish()?;
    let (node, epoch): (NodeName, u64) = node.zip(epoch).ok_or(ApiError::NodeNotFound)?;
    let job: JobId = job.ok_or(ApiError::JobNotFound)?;
    if !hub.has_link(&node, epoch, &caller.actor) {
        return Err(ApiError::NodeNotFound);
    }
    // Of no other job: a token of a node reads nothing.
    if !hub.is_given(&node, job) {
        return Err(ApiError::JobNotFound);
    }
    let bundle = api.manager.files().bundle(job).await?;
    Ok(archive::bundled(bundle, job))
}

/// The answer to a request for a WebSocket, and what becomes of the connection.
fn upgrade(request: &mut Request) -> Result<(Response, OnUpgrade), ApiError> {
    let headers = request.headers();
    let has = |name, wanted: &str| {
        let value = |it: &HeaderValue| it.to_str().unwrap_or_default().to_ascii_lowercase();
        headers
            .get(name)
            .map(value)
            .is_some_and(|it| it.contains(wanted))
    };
    if !has(UPGRADE, "websocket") || !has(CONNECTION, "upgrade") {
        return Err(ApiError::UpgradeRequired);
    }
    let key = headers.get(SEC_WEBSOCKET_KEY);
    let Some(key) = key.filter(|_| has(SEC_WEBSOCKET_VERSION, "13")) else {
        return Err(ApiError::InvalidHeader(Violation {
            place: Place::Header("Sec-WebSocket-Key"),
            code: "invalid_value",
            detail: "must be there, with Sec-WebSocket-Version: 13".to_owned(),
        }));
    };
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes()));
    let accept = accept.map_err(|error| ApiError::Internal(error.to_string()))?;
    let upgrade = hyper::upgrade::on(request);
    let mut response = (StatusCode::SWITCHING_PROTOCOLS, Body::empty()).into_response();
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    Ok((response, upgrade))
}

async fn upgraded(upgrade: OnUpgrade) -> Option<TokioIo<Upgraded>> {
    let upgraded = timeout(UPGRADED, upgrade).await.ok()?.ok()?;
    Some(TokioIo::new(upgraded))
}

/// A link, from the hello of the node to its end.
async fn converse(api: &Api, hub: &Hub, caller: &Caller, socket: &mut Socket) {
    let hello = timeout(SILENCE, socket::receive(socket)).await;
    let Ok(Ok(Some(FromNode::Hello(hello)))) = hello else {
        tracing::warn!("a node said no hello, with {}", caller.actor);
        return;
    };
    let name = hello.node.clone();
    let joined = match hub.join(hello, &caller.actor).await {
        Ok(joined) => joined,
        Err(why) => {
            tracing::warn!(node = %name, "node {name} may not join: {why}");
            // It may be gone by now.
            let _ = socket::send(socket, &ToNode::Refused { why }).await;
            return;
        }
    };
    tracing::info!(node = %name, "node {name} has joined");
    let (node, epoch) = (joined.node.clone(), joined.epoch);
    let parting = Parting {
        api,
        hub,
        node,
        epoch,
    };
    let why = exchange(hub, joined, caller, socket).await;
    tracing::warn!(node = %name, "node {name} is not connected any more: {why}");
    drop(parting);
}

/// Notes the end of a link, however it comes.
struct Parting<'a> {
    api: &'a Api,
    hub: &'a Hub,
    node: NodeName,
    epoch: u64,
}

impl Drop for Parting<'_> {
    fn drop(&mut self) {
        self.hub.part(&self.node, self.epoch);
        self.api.offered.end(&self.node, self.epoch);
    }
}

/// Passes messages on until the link ends; says why it did.
async fn exchange(hub: &Hub, joined: Joined, caller: &Caller, socket: &mut Socket) -> String {
    let Joined {
        node,
        epoch,
        mut outgoing,
    } = joined;
    let mut pings = interval(PING);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard_at = Instant::now();
    let mut ended = std::pin::pin!(caller.ended());
    loop {
        let message = tokio::select! {
            heard = socket::receive(socket) => match heard {
                Ok(Some(message)) => {
                    heard_at = Instant::now();
                    if !hub.hear(&node, epoch, message) {
                        return "it has connected again".to_owned();
                    }
                    continue;
                }
                Ok(None) => return "it has ended".to_owned(),
                Err(error) => return error.to_string(),
            },
            message = outgoing.recv() => match message {
                Some(message) => message,
                None => return "it has connected again, or was forgotten".to_owned(),
            },
            _ = pings.tick() => ToNode::Ping,
            // Not with the next ping: that is up to three seconds later.
            () = sleep_until(heard_at + SILENCE) => {
                let seconds = SILENCE.as_secs();
                return format!("it has said nothing for {seconds} seconds");
            }
            () = &mut ended => return "its token has ended".to_owned(),
        };
        if let Err(error) = socket::send(socket, &message).await {
            return error.to_string();
        }
    }
}
