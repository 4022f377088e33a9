//! What an API node does that does not lead: it passes every request on to the one that leads, and the answer back.
//!
//! A request goes as it came, so that only the leader says who asks and what they may. What a route means is not known here.

mod shown;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, HeaderName, UPGRADE,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router, middleware};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Frame;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use reqwest::{Certificate, Client, Url, redirect};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tower_http::request_id::{PropagateRequestIdLayer, SetRequestIdLayer};
use tower_http::set_header::SetResponseHeaderLayer;

use crate::connections::{self, LAST_WORDS, Options, Places, Sockets};
use crate::forward::strip;
use crate::headers::{self, IDEMPOTENCY_KEY};
use crate::layers::auth::{Bounded, PeerUid};
use crate::layers::{request_id, rest};
use crate::problem::{self, ApiError};
use crate::service;
use crate::streams::Streams;
use crate::tls::Certificates;
use ledger::{Status, View};
use protocol::listeners::Listeners;
use protocol::state_dir;
pub(super) use shown::{seen, with_series};

/// How long a request waits for somebody who leads, besides the time that it takes to take the lead.
const PATIENCE: Duration = Duration::from_secs(10);

/// The pause between two attempts at the same leader.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a connection to the leader may take, and an answer to whether it is there.
const CONNECT: Duration = Duration::from_secs(2);

/// How often it is looked whether the leader is reached, and after how many failures it is not.
const LOOK: Duration = Duration::from_secs(1);
const FAILURES: u32 = 3;

/// A body of this size is kept until it is answered, so that it can be sent to the next leader.
const KEPT: u64 = 1 << 20;

/// Says that a request has come from another API node, and that this one does not lead either.
const RELAYED: HeaderName = HeaderName::from_static("procession-relayed");

/// How an API node reaches the others.
#[derive(Clone, Debug)]
pub struct Peers {
    /// Where they reach this one.
    pub own: String,
    /// The authority of their certificates; without it, those that the system trusts.
    pub ca: Option<PathBuf>,
    /// How long it takes until somebody else leads.
    pub takeover: Duration,
    /// Who leads.
    pub status: Status,
}

#[derive(Clone)]
struct Relay(Arc<Inner>);

struct Inner {
    peers: Peers,
    client: Client,
    state_dir: PathBuf,
    uid: u32,
    streams: Streams,
    /// Does the leader answer this one?
    reached: watch::Sender<bool>,
}

/// Everything that is being passed on.
#[derive(Debug)]
pub struct Relaying {
    accepting: JoinSet<()>,
    conversing: JoinSet<()>,
    closing: watch::Sender<bool>,
}

impl Relaying {
    /// Begins to accept; the error is one line that says the fix.
    pub fn start(options: &Options, peers: Peers, listeners: Listeners) -> Result<Self, String> {
        let mut accepting = JoinSet::new();
        let tls = options.tls.as_ref().map(Certificates::open).transpose()?;
        if let (Some(certificates), Some(files)) = (tls.clone(), options.tls.clone()) {
            accepting.spawn(async move { certificates.follow(&files).await });
        }
        let (streams, conversations) = Streams::new(options.max_streams);
        let relay = Relay(Arc::new(Inner {
            client: client(&peers)?,
            peers,
            state_dir: options.state_dir.clone(),
            uid: nix::unistd::geteuid().as_raw(),
            streams,
            reached: watch::Sender::new(true),
        }));
        accepting.spawn(relay.clone().look());
        let app = Router::new()
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .fallback(pass)
            .with_state(relay)
            .layer(middleware::from_fn(problem::render))
            .layer(SetResponseHeaderLayer::if_not_present(
                CACHE_CONTROL,
                HeaderValue::from_static("no-store"),
            ))
            .layer(PropagateRequestIdLayer::new(headers::REQUEST_ID))
            .layer(SetRequestIdLayer::new(
                headers::REQUEST_ID,
                request_id::MakeId,
            ))
            .layer(middleware::from_fn(request_id::only_tame))
            .layer(middleware::from_fn(rest::take));
        let (closing, watched) = watch::channel(false);
        let (tcp, unix) = connections::adopt(listeners)
            .map_err(|error| format!("cannot use the listening sockets: {error}"))?;
        let sockets = Sockets {
            tcp,
            unix,
            tls,
            keep_alive: options.keep_alive,
            places: Places::new(options.max_connections),
        };
        let mut conversing = JoinSet::new();
        conversing.spawn(conversations.run(watched.clone(), LAST_WORDS));
        accepting.spawn(connections::accept_all(app, sockets, watched));
        Ok(Self {
            accepting,
            conversing,
            closing,
        })
    }

    /// Lets open connections finish what they are at, for a moment.
    pub async fn finish(mut self) {
        self.closing.send_replace(true);
        tokio::join!(self.accepting.join_next(), self.conversing.join_next());
        self.accepting.shutdown().await;
    }
}

/// Reads the file of the authority, and holds the rule that nothing secret goes over a network in the clear.
pub(crate) fn client(peers: &Peers) -> Result<Client, String> {
    let mut builder = Client::builder()
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT)
        .http1_only()
        .no_proxy()
        .tcp_nodelay(true)
        .tls_built_in_root_certs(peers.ca.is_none());
    if let Some(path) = &peers.ca {
        let wrong = |why: String| format!("--join-ca {}: {why}", path.display());
        let text = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
        let bundle = Certificate::from_pem_bundle(&text).unwrap_or_default();
        if bundle.is_empty() {
            return Err(wrong("no certificate in PEM".to_owned()));
        }
        builder = bundle
            .into_iter()
            .fold(builder, |builder, ca| builder.add_root_certificate(ca));
    }
    builder
        .build()
        .map_err(|error| format!("TLS to the other API nodes cannot be set up: {error}"))
}

/// Says what is wrong with an address that API nodes reach each other at.
pub fn check_advertised(text: &str) -> Result<(), String> {
    let url = Url::parse(text).map_err(|error| format!("--advertise {text}: {error}"))?;
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_matches(['[', ']']);
    let address = bare.parse::<std::net::IpAddr>();
    let is_loopback = host == "localhost" || address.is_ok_and(|it| it.is_loopback());
    match url.scheme() {
        "https" => Ok(()),
        "http" if is_loopback => Ok(()),
        _ => Err(format!(
            "--advertise {text}: plain HTTP would show tokens to the network: use https://"
        )),
    }
}

/// `GET /healthz` of an API node that follows.
async fn healthz(State(relay): State<Relay>) -> Response {
    service::live(Some(relay.0.peers.status.view().epoch))
}

/// `GET /readyz` of an API node that follows: it hears the database, and reaches who leads.
async fn readyz(State(relay): State<Relay>) -> Result<Response, ApiError> {
    let view = relay.0.peers.status.view();
    if !view.is_heard() {
        return Err(ApiError::NotReady("PostgreSQL is not heard"));
    }
    let leader = relay.leader_of(&view);
    let leader = leader.ok_or(ApiError::NotReady("no API node leads"))?;
    if !relay.answers(&leader).await {
        return Err(ApiError::NotReady("the API node that leads is not reached"));
    }
    Ok(Json(json!({"ready": true, "ledger": seen(&view)})).into_response())
}

/// A body, as often as it is needed.
enum Sent {
    Kept(Bytes),
    Once(Option<Body>),
}

impl Relay {
    /// Where the one that leads is reached; nothing if there is none.
    fn leader_of(&self, view: &View) -> Option<String> {
        let url = view.leader.trim_end_matches('/');
        let is_other = !url.is_empty() && url != self.0.peers.own.trim_end_matches('/');
        is_other.then(|| url.to_owned())
    }

    async fn leader(&self, until: Instant) -> Option<String> {
        let mut changes = self.0.peers.status.changes();
        loop {
            let view = changes.borrow_and_update().clone();
            if let Some(leader) = self.leader_of(&view) {
                return Some(leader);
            }
            timeout_at(until, changes.changed()).await.ok()?.ok()?;
        }
    }

    /// Does the leader answer in time?
    async fn answers(&self, leader: &str) -> bool {
        let asked = self.0.client.get(format!("{leader}/healthz")).send();
        let answer = timeout(CONNECT, asked).await;
        answer.is_ok_and(|it| it.is_ok_and(|it| it.status() == StatusCode::OK))
    }

    /// Notes whether the leader is reached, for as long as it is polled: a network may swallow what is sent.
    async fn look(self) {
        let mut failures = 0;
        loop {
            sleep_until(Instant::now() + LOOK).await;
            let leader = self.leader_of(&self.0.peers.status.view());
            failures = match leader {
                Some(leader) if !self.answers(&leader).await => failures + 1,
                Some(_) | None => 0,
            };
            let is_reached = failures < FAILURES;
            (self.0.reached).send_if_modified(|it| std::mem::replace(it, is_reached) != is_reached);
        }
    }

    /// Resolves when this one does not lead any more, or is not reached.
    async fn gone(self, leader: String) {
        let (mut changes, mut reached) =
            (self.0.peers.status.changes(), self.0.reached.subscribe());
        let other = |view: &View| {
            let url = view.leader.trim_end_matches('/');
            !url.is_empty() && url != leader
        };
        // Neither sender goes before this does.
        tokio::select! {
            _ = changes.wait_for(other) => {}
            _ = reached.wait_for(|it| !it) => {}
        }
    }

    /// The headers for the leader. Users of the unix socket have no token there: they may use the one of this directory.
    fn headers(&self, request: &Request) -> Result<HeaderMap, ApiError> {
        let mut headers = request.headers().clone();
        let is_upgrade = headers.contains_key(UPGRADE);
        strip(&mut headers);
        if is_upgrade {
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        }
        headers.insert(RELAYED, HeaderValue::from_static("1"));
        if let Some(PeerUid(uid)) = request.extensions().get() {
            if *uid != 0 && *uid != self.0.uid {
                return Err(ApiError::PeerNotAllowed);
            }
            let token = state_dir::token(&self.0.state_dir);
            let token = token.map_err(|error| ApiError::Internal(error.to_string()))?;
            let value = HeaderValue::try_from(format!("Bearer {token}"));
            let mut value = value.map_err(|error| ApiError::Internal(error.to_string()))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(headers)
    }

    async fn ask(
        &self,
        leader: &str,
        head: (&Method, &Uri, &HeaderMap),
        body: Option<reqwest::Body>,
    ) -> Result<reqwest::Response, reqwest::Error> {
        let (method, uri, headers) = head;
        let target = uri.path_and_query().map_or("/", |it| it.as_str());
        let mut request = self
            .0
            .client
            .request(method.clone(), format!("{leader}{target}"))
            .headers(headers.clone());
        if let Some(body) = body {
            request = request.body(body);
        }
        request.send().await
    }
}

/// Is it the same whether it is done once or twice?
fn is_repeatable(method: &Method, headers: &HeaderMap) -> bool {
    method.is_safe() || method.is_idempotent() || headers.contains_key(IDEMPOTENCY_KEY)
}

async fn pass(State(relay): State<Relay>, request: Request) -> Response {
    if request.headers().contains_key(RELAYED) {
        let mut response = ApiError::LedgerUnavailable.into_response();
        let headers = response.headers_mut();
        headers.insert(RELAYED, HeaderValue::from_static("1"));
        return response;
    }
    match relay.pass(request).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

impl Relay {
    async fn pass(&self, mut request: Request) -> Result<Response, ApiError> {
        let headers = self.headers(&request)?;
        let is_upgrade = headers.contains_key(UPGRADE);
        let client_side = is_upgrade.then(|| hyper::upgrade::on(&mut request));
        let (parts, body) = request.into_parts();
        let (method, uri) = (parts.method, parts.uri);
        let mut body = kept(body, &headers).await?;
        let is_repeatable = is_repeatable(&method, &headers);
        let until = Instant::now() + PATIENCE + self.0.peers.takeover;
        loop {
            let leader = self.leader(until).await;
            let leader = leader.ok_or(ApiError::LedgerUnavailable)?;
            let (this, is_kept) = match &mut body {
                Sent::Kept(bytes) if bytes.is_empty() => (None, true),
                Sent::Kept(bytes) => (Some(reqwest::Body::from(bytes.clone())), true),
                Sent::Once(body) => (body.take().map(shared), false),
            };
            let asked = self.ask(&leader, (&method, &uri, &headers), this);
            let answer = tokio::select! {
                answer = asked => answer.map_err(|error| error.is_connect()),
                () = self.clone().gone(leader.clone()) => Err(false),
            };
            let is_undone = match answer {
                Ok(response) if response.headers().contains_key(RELAYED) => true,
                Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                    return self.joined(leader, response, client_side).await;
                }
                Ok(response) => return Ok(self.answered(leader, response)),
                Err(is_undone) => is_undone,
            };
            if !is_kept || !(is_repeatable || is_undone) || Instant::now() >= until {
                return Err(ApiError::LedgerUnavailable);
            }
            sleep_until(Instant::now() + PAUSE).await;
        }
    }

    /// The answer, which breaks off if the leader is gone before it is whole.
    fn answered(&self, leader: String, response: reqwest::Response) -> Response {
        let response: axum::http::Response<reqwest::Body> = response.into();
        let mut response = response.map(Body::new);
        strip(response.headers_mut());
        response.extensions_mut().insert(problem::AsItIs);
        let is_whole = response
            .body()
            .size_hint()
            .exact()
            .is_some_and(|it| it < KEPT);
        if is_whole {
            return response;
        }
        let end = self.clone().gone(leader);
        response.map(|body| {
            Body::new(Bounded {
                body,
                end: Box::pin(end),
            })
        })
    }

    /// Both sides speak another protocol from here on.
    async fn joined(
        &self,
        leader: String,
        response: reqwest::Response,
        client_side: Option<OnUpgrade>,
    ) -> Result<Response, ApiError> {
        let mut answer = (StatusCode::SWITCHING_PROTOCOLS, Body::empty()).into_response();
        *answer.headers_mut() = response.headers().clone();
        let leader_side = response.upgrade().await;
        let mut leader_side = leader_side.map_err(|_| ApiError::LedgerUnavailable)?;
        let client_side = client_side.ok_or(ApiError::UpgradeRequired)?;
        let streams = self.0.streams.clone();
        let gone = self.clone().gone(leader);
        self.0.streams.begin(async move {
            let Ok(client) = client_side.await else {
                return;
            };
            let mut client = TokioIo::new(client);
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut client, &mut leader_side) => {}
                () = gone => {}
                () = streams.ended() => {}
            }
        });
        Ok(answer)
    }
}

/// A body for the client, which wants to share it.
fn shared(body: Body) -> reqwest::Body {
    reqwest::Body::wrap(Shared(Mutex::new(body)))
}

struct Shared(Mutex<Body>);

impl HttpBody for Shared {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let body = self.get_mut().0.get_mut();
        Pin::new(body.unwrap_or_else(PoisonError::into_inner)).poll_frame(context)
    }
}

/// Reads a body that is small and whole; another one can be sent once.
async fn kept(body: Body, headers: &HeaderMap) -> Result<Sent, ApiError> {
    if body.is_end_stream() {
        return Ok(Sent::Kept(Bytes::new()));
    }
    let length = headers.get(CONTENT_LENGTH).and_then(|it| it.to_str().ok());
    let length = length.and_then(|it| it.parse::<u64>().ok());
    if length.is_none_or(|length| length > KEPT) {
        return Ok(Sent::Once(Some(body)));
    }
    let collected = body.collect().await;
    let collected = collected.map_err(|_| ApiError::InvalidRequest("the body breaks off"))?;
    Ok(Sent::Kept(collected.to_bytes()))
}
