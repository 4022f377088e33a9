//! `POST /mcp`: the tools of [`mcp`] over HTTP, without sessions.
//!
//! A tool asks this same API, without a connection in between: each request of it passes the gate of its route with
//! the caller's own token, and has its own line in the audit log.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::middleware;
use axum::response::Response;
use http_body_util::{BodyExt, Full};
use tower::{ServiceBuilder, ServiceExt};

use crate::api::Api;
use crate::headers::{IDEMPOTENCY_KEY, NEXT_OFFSET, REQUEST_ID};
use crate::layers::auth::{PeerAddress, PeerUid};
use crate::layers::{audit, log};
use crate::problem::{self, AsItIs};
use crate::streams::{Permit, Streams};
use crate::{ApiError, body, routes, trace};
use mcp::{Answer, Ask, Asking, Door, Options, Tools, Verb};

/// `POST /mcp`
pub(super) async fn mcp(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let Some(router) = api.inside.clone() else {
        return Err(ApiError::NotFound);
    };
    let door = Inside {
        router,
        headers: passed_on(request.headers()),
        uid: request.extensions().get::<PeerUid>().copied(),
        address: request.extensions().get::<PeerAddress>().copied(),
        streams: api.streams().clone(),
        _permit: Arc::new(api.streams().permit()?),
    };
    let (parts, content) = request.into_parts();
    let whole = Request::from_parts(parts.clone(), content);
    let bytes = body::read_json(whole, api.settings.max_body_bytes).await?;
    let tools = Tools::new(Arc::new(door), Options::default(), api.settings.version);
    let request = Request::from_parts(parts, Full::new(bytes));
    let answer = mcp::answer(tools, request, api.settings.max_body_bytes);
    let mut response = answer.await.map(Body::new);
    response.extensions_mut().insert(AsItIs);
    Ok(response)
}

/// The API as tools reach it: the routes, with what writes problems and lines about each request.
pub(super) fn inside(api: &Api) -> Router {
    let around = ServiceBuilder::new()
        .layer(middleware::from_fn_with_state(api.clone(), log::line))
        .layer(middleware::from_fn(problem::render))
        .layer(middleware::from_fn_with_state(api.clone(), audit::record));
    routes::router(api).layer(around)
}

const OF_TRACE: [HeaderName; 3] = [
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("baggage"),
];

/// Who asks, under which id it is told, and in which trace.
fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let mut passed = HeaderMap::new();
    for name in [AUTHORIZATION, REQUEST_ID].into_iter().chain(OF_TRACE) {
        for value in headers.get_all(&name) {
            passed.append(&name, value.clone());
        }
    }
    passed
}

/// A call knows its trace better than the request around it, if what it says is valid.
fn prefer_trace(headers: &mut HeaderMap, of_call: &[(&'static str, String)]) {
    let of_call: HeaderMap = of_call
        .iter()
        .filter_map(|(name, value)| {
            let value = HeaderValue::from_str(value).ok()?;
            Some((HeaderName::from_static(name), value))
        })
        .collect();
    if trace::of(&of_call).is_some() {
        for name in OF_TRACE {
            headers.remove(name);
        }
        headers.extend(of_call);
    }
}

/// The door of tools that run inside the server.
#[derive(Clone, Debug)]
struct Inside {
    router: Router,
    headers: HeaderMap,
    uid: Option<PeerUid>,
    address: Option<PeerAddress>,
    streams: Streams,
    /// A call may last, as a stream does.
    _permit: Arc<Permit>,
}

impl Inside {
    fn request(&self, ask: Ask) -> Result<Request, String> {
        let method = match ask.verb {
            Verb::Get => Method::GET,
            Verb::Post => Method::POST,
            Verb::Delete => Method::DELETE,
            Verb::Put => Method::PUT,
        };
        let mut headers = self.headers.clone();
        if let Some(key) = &ask.idempotency_key {
            let key = HeaderValue::from_str(key);
            let key = key.map_err(|_| "idempotency_key: 1 to 255 visible characters".to_owned())?;
            headers.insert(IDEMPOTENCY_KEY, key);
        }
        if let Some(range) = ask.range_header() {
            let range = HeaderValue::from_str(&range).map_err(|error| error.to_string())?;
            headers.insert(RANGE, range);
        }
        prefer_trace(&mut headers, &ask.trace);
        let target = ask.target();
        let body = match ask.body {
            mcp::Body::None => Body::empty(),
            mcp::Body::Bytes(bytes) => Body::from(bytes),
            mcp::Body::Json(value) => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                Body::from(value.to_string())
            }
        };
        let request = Request::builder().method(method).uri(target).body(body);
        let mut request = request.map_err(|error| error.to_string())?;
        *request.headers_mut() = headers;
        if let Some(uid) = self.uid {
            request.extensions_mut().insert(uid);
        }
        if let Some(address) = self.address {
            request.extensions_mut().insert(address);
        }
        Ok(request)
    }

    async fn send(&self, ask: Ask) -> Result<Answer, String> {
        let request = self.request(ask)?;
        let response = match self.router.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let next_offset = response.headers().get(NEXT_OFFSET);
        let next_offset = next_offset.and_then(|value| value.to_str().ok()?.parse().ok());
        let length = response.headers().get(CONTENT_RANGE);
        let length = length.and_then(|value| mcp::length_of(value.to_str().ok()?));
        let status = response.status().as_u16();
        let body = response.into_body().collect().await;
        let body = body.map_err(|error| format!("the answer broke off: {error}"))?;
        Ok(Answer {
            status,
            next_offset,
            length,
            body: body.to_bytes().into(),
        })
    }
}

impl Door for Inside {
    fn ask(&self, ask: Ask) -> Asking<'_> {
        Box::pin(self.send(ask))
    }

    fn leave(&self, ask: Ask) {
        let door = self.clone();
        self.streams.begin(async move {
            if let Err(why) = door.ask(ask).await {
                tracing::warn!("a tool could not finish: {why}");
            }
        });
    }
}
