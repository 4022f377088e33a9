//! The HTTP API: routes, guards, authentication, JSON views and problems.
//!
//! Only this module knows status codes, headers and JSON field names. It decides nothing about jobs:
//! it turns requests into calls of the manager and answers into JSON. Handlers may be dropped at any
//! await, so that none of them leaves anything half done.

mod accept;
mod attach;
mod audit;
mod audit_log;
mod auth;
mod body;
mod change;
pub mod connections;
#[cfg(test)]
mod contract;
mod events;
#[doc(hidden)]
pub mod fuzz;
mod guards;
mod jobs;
mod log;
mod many;
mod output;
mod page;
pub mod policy;
mod problem;
mod query;
mod queues;
mod range;
pub mod request;
mod request_id;
mod routes;
mod service;
mod stdin;
mod streams;
mod terminal;
#[cfg(test)]
mod tests;
pub mod tls;
pub mod tokens;
mod view;

use std::sync::Arc;

use axum::Router;
use axum::http::HeaderValue;
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::middleware;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::request_id::{PropagateRequestIdLayer, SetRequestIdLayer};
use tower_http::sensitive_headers::SetSensitiveRequestHeadersLayer;
use tower_http::set_header::SetResponseHeaderLayer;

use crate::audit_log::Audit;
use crate::policy::Policy;
use crate::request::SpecLimits;
pub use crate::tokens::Access;
use crate::tokens::Tokens;
pub use auth::{PeerAddress, PeerUid};
pub(crate) use guards::{HEAD_BYTES, HEAD_FIELDS};
use manager::Manager;
pub use problem::{ALL_CODES, ApiError, PROBLEM_JSON, Place, Violation};
pub use streams::Streams;
pub use view::{JobView, etag};

/// How callers over TCP are recognised. The unix socket goes by [`PeerUid`] in both modes.
#[derive(Clone, Debug)]
pub enum AuthMode {
    /// By a bearer token.
    Token {
        /// Those that are recognised.
        tokens: Tokens,
    },
    /// Not at all; for literal loopback addresses only, which whoever binds has to make sure of.
    None,
}

/// What the API needs to know besides the manager.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How callers are recognised.
    pub auth: AuthMode,
    /// Names that `Host` may carry besides loopback names and addresses, without ports.
    pub allowed_hosts: Vec<String>,
    /// The most bytes of a JSON body that are read.
    pub max_body_bytes: usize,
    /// Answers and WebSockets that last.
    pub streams: Streams,
    /// Bounds on what a job may be.
    pub spec_limits: SpecLimits,
    /// Where write requests are recorded.
    pub audit: Option<Arc<Audit>>,
    /// With one, its templates are all that can be run.
    pub policy: Option<Arc<Policy>>,
    /// The uid of this process, which may use the unix socket.
    pub uid: u32,
    /// The program's version.
    pub version: &'static str,
    /// The commit it was built from, where that is known.
    pub commit: Option<&'static str>,
}

/// What every handler can reach.
#[derive(Clone, Debug)]
struct Api {
    manager: Manager,
    settings: Arc<Settings>,
    tips: Arc<output::Tips>,
}

impl Api {
    fn streams(&self) -> &Streams {
        &self.settings.streams
    }
}

/// The whole API as a service: routes inside, and around them, from the outside in, request ids, the log,
/// error bodies, the audit log, the panic catcher and the guards.
pub fn app(manager: Manager, settings: Settings) -> Router {
    let api = Api {
        manager,
        settings: Arc::new(settings),
        tips: Arc::default(),
    };
    // All of it as one layer of the router: each would be a box of its own otherwise, and a request clones
    // every box that it has not passed yet.
    let around = ServiceBuilder::new()
        .layer(SetSensitiveRequestHeadersLayer::new([AUTHORIZATION]))
        .layer(middleware::from_fn(request_id::only_tame))
        .layer(SetRequestIdLayer::new(
            request_id::HEADER,
            request_id::MakeId,
        ))
        .layer(PropagateRequestIdLayer::new(request_id::HEADER))
        .layer(middleware::from_fn(log::line))
        .layer(SetResponseHeaderLayer::if_not_present(
            CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'; sandbox"),
        ))
        // A browser that is shown a job's output must not take it for a page.
        .layer(SetResponseHeaderLayer::overriding(
            X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ))
        .layer(SetResponseHeaderLayer::if_not_present(
            CACHE_CONTROL,
            HeaderValue::from_static("no-store"),
        ))
        .layer(middleware::from_fn(problem::render))
        .layer(middleware::from_fn_with_state(api.clone(), audit::record))
        .layer(CatchPanicLayer::custom(problem::panicked))
        .layer(middleware::from_fn_with_state(api.clone(), guards::guard));
    routes::router(&api).layer(around)
}
