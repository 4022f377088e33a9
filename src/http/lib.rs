//! The HTTP API: routes, layers, JSON views and problems, connections.
//!
//! Only this module knows status codes, headers and JSON field names. It decides nothing about jobs:
//! it turns requests into calls of the manager and answers into JSON. Handlers may be dropped at any
//! await, so that none of them leaves anything half done.

mod accept;
mod access;
mod api;
mod attach;
mod audit_log;
mod batches;
mod body;
mod bulk;
mod cluster;
mod conditions;
pub mod connections;
#[cfg(test)]
mod contract;
mod docs;
pub mod doctor;
mod events;
mod extract;
mod files;
mod followed;
mod forward;
#[doc(hidden)]
pub mod fuzz;
mod headers;
mod idempotency;
mod jobs;
mod layers;
mod live;
mod mcp;
mod nodes;
mod output;
mod page;
pub mod policy;
mod problem;
mod query;
mod queues;
mod range;
mod recording;
pub mod relay;
pub mod request;
mod respond;
mod routes;
mod schedules;
mod service;
mod session;
mod standing;
mod stats;
mod stdin;
mod streams;
mod summary;
mod templates;
mod terminal;
#[cfg(test)]
mod tests;
pub mod tls;
pub mod tokens;
mod trace;
mod view;
mod web;

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

use api::Api;
pub use api::{AuthMode, Settings};
pub use layers::auth::{PeerAddress, PeerHub, PeerUid};
use layers::{audit, compression, guards, log, proxies, request_id};
use manager::Manager;
pub use problem::{ApiError, PROBLEM_JSON, Place, Violation};
pub use streams::Streams;
pub use tokens::Access;
pub use view::{JobView, etag};

/// The whole API as a service: routes inside, and around them, from the outside in, request ids, the log,
/// error bodies, the audit log, the panic catcher and the guards.
pub fn app(manager: Manager, settings: Settings) -> Router {
    let mut api = Api::new(manager, settings);
    if api.settings.mcp {
        // Of a clone, which has nothing inside: a circle would hold the manager for ever.
        api.inside = Some(mcp::inside(&api));
    }
    api.manager
        .schedules()
        .start(schedules::maker(api.settings.clone()));
    if let Some(hub) = api.manager.hub() {
        // Of its parts, not of the API: a circle would hold the manager for ever.
        let streams = api.streams().clone();
        hub.fetch_with(forward::fetch(api.offered.clone(), streams));
    }
    // All of it as one layer of the router: each would be a box of its own otherwise, and a request clones
    // every box that it has not passed yet.
    let around = ServiceBuilder::new()
        .layer(SetSensitiveRequestHeadersLayer::new([AUTHORIZATION]))
        .layer(middleware::from_fn(request_id::only_tame))
        .layer(SetRequestIdLayer::new(
            headers::REQUEST_ID,
            request_id::MakeId,
        ))
        .layer(PropagateRequestIdLayer::new(headers::REQUEST_ID))
        .layer(middleware::from_fn_with_state(api.clone(), log::line))
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
        .layer(compression::layer())
        .layer(middleware::from_fn(proxies::pass_on))
        .layer(middleware::from_fn(problem::render))
        .layer(middleware::from_fn_with_state(api.clone(), audit::record))
        .layer(CatchPanicLayer::custom(problem::panicked))
        .layer(middleware::from_fn_with_state(api.clone(), guards::guard));
    routes::router(&api).layer(around)
}
