//! A request about a job that another node has goes to that node, and its answer comes back.
//!
//! It goes as it came, over a stream that the node has opened, with the name and the scope of who asks. What a route means
//! is not known here.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderName, IF_MATCH, ORIGIN,
    TRANSFER_ENCODING, UPGRADE,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::DuplexStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use crate::api::Api;
use crate::headers::{ACTOR, SCOPE, SEC_FETCH_DEST, SEC_FETCH_MODE, SEC_FETCH_SITE};
use crate::layers::auth::Caller;
use crate::output::Wanted;
use crate::problem::{ApiError, AsItIs};
use crate::streams::Streams;
use job::workspace::InnerPath;
use job::{Job, JobId, NodeName};
use manager::{Fetch, FilesError, Part};
use protocol::output::Stream;

/// How long a request waits for a stream: the server of the node may have been started again.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often a request without a body is sent: a stream may have ended without a word.
const ATTEMPTS: usize = 4;

/// The largest answer that is read here and not passed on.
const ANSWER_BYTES: usize = 16 << 20;

/// So much of a file is gathered before it is written.
const PIECE: usize = 256 << 10;

/// Is this a route that the node of a job answers?
pub(super) fn is_forwarded(path: &str) -> bool {
    let Some(rest) = path.strip_prefix("/jobs/{id}/") else {
        return false;
    };
    matches!(
        rest,
        "attach"
            | "stdin"
            | "pty"
            | "processes"
            | "ports"
            | "recording.cast"
            | "output"
            | "files"
            | "files.tar"
            | "files.tar.gz"
            | "files.zip"
    ) || rest.starts_with("output/")
        || rest.starts_with("files/")
}

/// Streams that wait for requests, of the present link of each node.
#[derive(Debug)]
pub(super) struct Offered {
    streams: Mutex<HashMap<NodeName, (u64, VecDeque<DuplexStream>)>>,
    news: watch::Sender<()>,
}

impl Default for Offered {
    fn default() -> Self {
        Self {
            streams: Mutex::default(),
            news: watch::Sender::new(()),
        }
    }
}

impl Offered {
    fn streams(&self) -> MutexGuard<'_, HashMap<NodeName, (u64, VecDeque<DuplexStream>)>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node offers a stream; those of earlier links are of no use any more.
    pub(super) fn put(&self, node: &NodeName, epoch: u64, stream: DuplexStream) {
        {
            let mut streams = self.streams();
            let (known, waiting) = streams.entry(node.clone()).or_default();
            if *known < epoch {
                (*known, *waiting) = (epoch, VecDeque::new());
            }
            if *known == epoch {
                waiting.push_back(stream);
            }
        }
        self.news.send_replace(());
    }

    /// A link has ended, and its streams with it.
    pub(super) fn end(&self, node: &NodeName, epoch: u64) {
        let mut streams = self.streams();
        if streams.get(node).is_some_and(|(known, _)| *known <= epoch) {
            streams.remove(node);
        }
    }

    /// A node has been forgotten.
    pub(super) fn clear(&self, node: &NodeName) {
        self.streams().remove(node);
    }

    async fn take(&self, node: &NodeName, until: Instant) -> Result<DuplexStream, ApiError> {
        let mut news = self.news.subscribe();
        loop {
            news.borrow_and_update();
            let found = self
                .streams()
                .get_mut(node)
                .and_then(|(_, it)| it.pop_front());
            if let Some(stream) = found {
                return Ok(stream);
            }
            let came = timeout_at(until, news.changed()).await;
            came.map_err(|_| ApiError::NodeUnreachable)?
                .map_err(|_| ApiError::NodeUnreachable)?;
        }
    }
}

/// The answer of this node to a request.
pub(super) async fn to(api: &Api, node: NodeName, request: Request) -> Response {
    match send((&api.offered, api.streams()), &node, request).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

/// What a request goes through: streams of nodes, and what runs connections.
type Door<'a> = (&'a Offered, &'a Streams);

async fn send(
    (offered, streams): Door<'_>,
    node: &NodeName,
    mut request: Request,
) -> Result<Response, ApiError> {
    let caller = request.extensions().get::<Caller>().cloned();
    let caller = caller.ok_or(ApiError::Unauthenticated)?;
    let is_upgrade = request.headers().contains_key(UPGRADE);
    let client_side = is_upgrade.then(|| hyper::upgrade::on(&mut request));
    let head = head(&request, &caller)?;
    let is_repeatable = request.method().is_safe();
    let mut body = Some(request.into_body());
    let until = Instant::now() + PATIENCE;
    for _ in 0..ATTEMPTS {
        let body = match is_repeatable {
            true => Body::empty(),
            false => body.take().unwrap_or_default(),
        };
        let stream = offered.take(node, until).await?;
        match exchange(streams, stream, head.clone().map(|()| body)).await {
            Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                return Ok(joined(streams, caller, response, client_side));
            }
            Ok(mut response) => {
                strip(response.headers_mut());
                response.extensions_mut().insert(AsItIs);
                return Ok(response);
            }
            Err(error) if is_repeatable => {
                tracing::debug!(%node, %error, "a stream of node {node} was of no use: {error}");
            }
            // What came of it is not known.
            Err(_) => return Err(ApiError::NodeUnreachable),
        }
    }
    Err(ApiError::NodeUnreachable)
}

/// What belongs to a connection, and not to what is sent over it.
pub(super) fn strip(headers: &mut HeaderMap) {
    headers.remove(CONNECTION);
    headers.remove(TRANSFER_ENCODING);
    headers.remove(HeaderName::from_static("keep-alive"));
}

/// The request without its body, as the node gets it.
fn head(request: &Request, caller: &Caller) -> Result<axum::http::Request<()>, ApiError> {
    let invalid = |_| ApiError::InvalidRequest("the request cannot be passed on");
    let mut headers = request.headers().clone();
    let is_upgrade = headers.contains_key(UPGRADE);
    strip(&mut headers);
    for name in [
        AUTHORIZATION,
        COOKIE,
        ORIGIN,
        // It was held against the hub's version.
        IF_MATCH,
        SEC_FETCH_DEST,
        SEC_FETCH_MODE,
        SEC_FETCH_SITE,
    ] {
        headers.remove(name);
    }
    if is_upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    headers.insert(HOST, HeaderValue::from_static("localhost"));
    let actor = HeaderValue::try_from(&*caller.actor);
    let actor = actor.map_err(|_| ApiError::InvalidRequest("the request cannot be passed on"))?;
    headers.insert(ACTOR, actor);
    headers.insert(SCOPE, HeaderValue::from_static(caller.scope.as_str()));
    if request.method().is_safe() {
        headers.remove(CONTENT_LENGTH);
    }
    let target = request.uri().path_and_query().map_or("/", |it| it.as_str());
    let mut head = axum::http::Request::new(());
    *head.method_mut() = request.method().clone();
    *head.uri_mut() = target.parse::<Uri>().map_err(invalid)?;
    *head.headers_mut() = headers;
    Ok(head)
}

async fn exchange(
    streams: &Streams,
    stream: DuplexStream,
    request: axum::http::Request<Body>,
) -> hyper::Result<Response> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    streams.begin(async move {
        // Its end is seen by whoever waits for the answer.
        let _ = connection.with_upgrades().await;
    });
    let response = sender.send_request(request).await?;
    Ok(response.map(Body::new))
}

/// Both sides speak another protocol from here on: what one says the other gets.
fn joined(
    streams: &Streams,
    caller: Caller,
    mut response: Response,
    client_side: Option<hyper::upgrade::OnUpgrade>,
) -> Response {
    let node_side = hyper::upgrade::on(&mut response);
    let is_over = streams.clone();
    if let Some(client_side) = client_side {
        streams.begin(async move {
            let (Ok(client), Ok(node)) = tokio::join!(client_side, node_side) else {
                return;
            };
            let (mut client, mut node) = (TokioIo::new(client), TokioIo::new(node));
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut client, &mut node) => {}
                () = caller.ended() => {}
                () = is_over.ended() => {}
            }
        });
    }
    response
}

/// The output in the answer about a job, as its node gives it.
pub(super) async fn excerpt(api: &Api, job: &Job, wanted: Wanted) -> Result<Value, ApiError> {
    let claim = job.claim.as_ref().ok_or(ApiError::NodeUnreachable)?;
    let stream = match wanted.stream {
        None => "",
        Some(Stream::Stdout) => "&output_stream=stdout",
        Some(Stream::Stderr) => "&output_stream=stderr",
    };
    let ansi = if wanted.is_plain { "strip" } else { "keep" };
    let target = format!(
        "/jobs/{}?output_bytes={}&output_ansi={ansi}{stream}",
        job.id, wanted.bytes
    );
    let mut request = Request::new(Body::empty());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = target.parse().map_err(|_| ApiError::NodeUnreachable)?;
    request.extensions_mut().insert(Caller::reader("hub"));
    let response = send((&api.offered, api.streams()), &claim.node, request).await?;
    if response.status() != StatusCode::OK {
        return Err(ApiError::NodeUnreachable);
    }
    let body = http_body_util::Limited::new(response.into_body(), ANSWER_BYTES);
    let body = body
        .collect()
        .await
        .map_err(|_| ApiError::NodeUnreachable)?;
    let view: Value = serde_json::from_slice(&body.to_bytes())
        .map_err(|error| ApiError::Internal(format!("an answer of a node: {error}")))?;
    Ok(view["output"]["excerpt"].clone())
}

/// Copies a file of a job that a node has.
pub(super) fn fetch(offered: Arc<Offered>, streams: Streams) -> Fetch {
    Fetch(Arc::new(move |node, job, path, part| {
        let (offered, streams) = (offered.clone(), streams.clone());
        Box::pin(async move { copy((&offered, &streams), &node, (job, path), part).await })
    }))
}

async fn copy(
    door: Door<'_>,
    node: &NodeName,
    (job, path): (JobId, InnerPath),
    mut part: Part,
) -> Result<Part, FilesError> {
    let gone = |_| FilesError::NodeUnreachable;
    let path: Vec<String> = path.as_str().split('/').map(encoded).collect();
    let mut request = Request::new(Body::empty());
    let target = format!("/jobs/{job}/files/{}", path.join("/"));
    *request.uri_mut() = target.parse().map_err(|_| FilesError::NotFound)?;
    request.extensions_mut().insert(Caller::reader("hub"));
    let response = send(door, node, request).await.map_err(gone)?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => return Err(FilesError::NotFound),
        StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY => {
            return Err(FilesError::NotAFile);
        }
        _ => return Err(FilesError::NodeUnreachable),
    }
    let mut body = response.into_body();
    let mut gathered = Vec::new();
    loop {
        let frame = timeout(PATIENCE * 2, body.frame()).await;
        let frame = frame.map_err(|_| FilesError::NodeUnreachable)?;
        let is_over = frame.is_none();
        if let Some(frame) = frame {
            let frame = frame.map_err(|_| FilesError::NodeUnreachable)?;
            gathered.extend_from_slice(&frame.into_data().unwrap_or_default());
        }
        if is_over || gathered.len() >= PIECE {
            part = part.write(std::mem::take(&mut gathered)).await?;
        }
        if is_over {
            return Ok(part);
        }
    }
}

/// A name as a part of a path.
fn encoded(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let bytes = name.bytes().map(|byte| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    });
    bytes.collect()
}
