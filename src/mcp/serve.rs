//! The two ways in which the tools are served. What the library makes of them is made here once.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use http_body_util::combinators::BoxBody;
use hyper::{Request, Response};
use rmcp::ServiceExt;
use rmcp::transport::stdio;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};

use crate::Tools;

/// Tools that are being served.
pub type Served<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Answers one request to `/mcp`, whose body has at most `max_body_bytes`.
#[must_use]
pub fn answer(
    tools: Tools,
    request: Request<Full<Bytes>>,
    max_body_bytes: usize,
) -> Served<Response<BoxBody<Bytes, Infallible>>> {
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        // The guards in front of every route look at `Host` and `Origin`.
        .disable_allowed_hosts()
        .with_max_request_body_bytes(max_body_bytes);
    let sessions = Arc::new(NeverSessionManager::default());
    let service = StreamableHttpService::new(move || Ok(tools.clone()), sessions, config);
    Box::pin(async move { service.handle(request).await })
}

/// Talks over standard input and output until the client ends.
///
/// # Errors
/// The client said something else first; what it was, in one sentence.
#[must_use]
pub fn converse(tools: Tools) -> Served<Result<(), String>> {
    Box::pin(async move {
        let running = tools.serve(stdio()).await;
        let running = running.map_err(|error| error.to_string())?;
        drop(running.waiting().await);
        Ok(())
    })
}
