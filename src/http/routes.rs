//! The table of contents: every route with its method, path, access word and query parameters.
//!
//! The router is built from it, and so are the access check, the check for unknown parameters and the
//! `Allow` header. A test holds `openapi.yaml` against it.

mod gate;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};

use axum::extract::{Request, State};
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware;
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, on};
use axum::{Router, http};

use gate::{Gate, enter};

use super::layers::auth;
use super::problem::ApiError;
use super::{
    Api, access, attach, batches, bulk, cluster, docs, doctor, events, files, forward, jobs, live,
    mcp, nodes, output, page, queues, recording, schedules, service, session, stats, stdin,
    summary, templates, terminal, web,
};
use crate::tokens::Access::{self, Admin, Metrics, Operate, Public, Read, Runner};

/// One method of one path.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) access: Access,
    pub(super) query: &'static [&'static str],
    handler: MethodRouter<Api>,
}

const GET: Method = Method::GET;
const POST: Method = Method::POST;
const PUT: Method = Method::PUT;
const PATCH: Method = Method::PATCH;
const DELETE: Method = Method::DELETE;

/// What the page keeps in its address. The shell reads nothing of it.
const SHELL: &[&str] = &[
    "after", "again", "batch", "before", "by", "label", "name", "node", "order", "page", "queue",
    "range", "schedule", "state", "tab", "template", "type",
];

/// Every route.
pub(super) fn table() -> Vec<Route> {
    vec![
        route(POST, "/jobs", Operate, jobs::CREATE, jobs::create),
        route(GET, "/jobs", Read, page::PARAMETERS, jobs::list),
        route(GET, "/jobs/{id}", Read, jobs::GET, jobs::get),
        route(DELETE, "/jobs/{id}", Operate, jobs::STOP, jobs::stop),
        route(PATCH, "/jobs/{id}", Operate, &[], jobs::patch),
        route(POST, "/jobs/validate", Operate, &[], jobs::validate),
        route(POST, "/jobs/wait", Read, &[], bulk::wait),
        route(POST, "/jobs/stop", Operate, &[], bulk::stop),
        route(POST, "/jobs/signal", Operate, &[], bulk::signal),
        route(POST, "/jobs/pause", Operate, &[], bulk::pause),
        route(POST, "/jobs/resume", Operate, &[], bulk::resume),
        route(POST, "/jobs/rerun", Operate, &[], bulk::rerun),
        route(POST, "/jobs/purge", Operate, &[], bulk::purge),
        route(POST, "/jobs/{id}/pause", Operate, &[], jobs::pause),
        route(POST, "/jobs/{id}/resume", Operate, &[], jobs::resume),
        route(POST, "/jobs/{id}/release", Operate, &[], jobs::release),
        route(POST, "/jobs/{id}/rerun", Operate, jobs::RERUN, jobs::rerun),
        route(POST, "/jobs/{id}/signal", Operate, &[], jobs::signal),
        route(
            POST,
            "/jobs/{id}/stdin",
            Operate,
            stdin::WRITE,
            stdin::write,
        ),
        route(
            GET,
            "/jobs/{id}/attach",
            Operate,
            attach::ATTACH,
            attach::attach,
        ),
        route(PUT, "/jobs/{id}/pty", Operate, &[], terminal::resize),
        route(GET, "/jobs/{id}/processes", Read, &[], jobs::processes),
        route(GET, "/jobs/{id}/ports", Read, &[], jobs::ports),
        route(GET, "/jobs/{id}/output", Read, output::LOG, output::log),
        route(
            GET,
            "/jobs/{id}/output/stdout",
            Read,
            output::STREAM,
            output::stdout,
        ),
        route(
            GET,
            "/jobs/{id}/output/stderr",
            Read,
            output::STREAM,
            output::stderr,
        ),
        route(
            GET,
            "/jobs/{id}/output/search",
            Read,
            output::SEARCH,
            output::search,
        ),
        route(
            GET,
            "/jobs/{id}/output/place",
            Read,
            output::PLACE,
            output::place,
        ),
        route(
            GET,
            "/jobs/{id}/recording.cast",
            Read,
            recording::CAST,
            recording::cast,
        ),
        route(GET, "/jobs/{id}/files", Read, files::LIST, files::list),
        route(
            GET,
            "/jobs/{id}/files.tar",
            Read,
            files::ARCHIVE,
            files::tar,
        ),
        route(
            GET,
            "/jobs/{id}/files.tar.gz",
            Read,
            files::ARCHIVE,
            files::tar_gz,
        ),
        route(
            GET,
            "/jobs/{id}/files.zip",
            Read,
            files::ARCHIVE,
            files::zip,
        ),
        route(
            GET,
            "/jobs/{id}/files/{path}",
            Read,
            files::FILE,
            files::get,
        ),
        route(
            PUT,
            "/jobs/{id}/files/{path}",
            Operate,
            files::PUT,
            files::put,
        ),
        route(
            DELETE,
            "/jobs/{id}/files/{path}",
            Operate,
            &[],
            files::remove,
        ),
        route(GET, "/jobs/counts", Read, summary::COUNTS, summary::counts),
        route(GET, "/jobs/usage", Read, summary::USAGE, summary::usage),
        route(GET, "/stats", Read, stats::STATS, stats::stats),
        route(GET, "/live", Read, live::LIVE, live::live),
        route(POST, "/session/codes", Read, &[], session::code),
        route(POST, "/session", Public, &[], session::enter),
        route(GET, "/session", Metrics, &[], session::present),
        route(DELETE, "/session", Metrics, &[], session::leave),
        route(POST, "/session/tickets", Read, &[], session::ticket),
        route(GET, "/sessions", Read, &[], session::list),
        route(DELETE, "/sessions/{id}", Read, &[], session::remove),
        route(GET, "/", Public, &[], web::lead),
        route(GET, "/ui", Public, &[], web::lead),
        route(GET, "/ui/", Public, SHELL, web::shell),
        route(GET, "/ui/jobs", Public, SHELL, web::shell),
        route(GET, "/ui/jobs/{job}", Public, SHELL, web::shell),
        route(GET, "/ui/run", Public, SHELL, web::shell),
        route(GET, "/ui/batches", Public, SHELL, web::shell),
        route(GET, "/ui/batches/{batch}", Public, SHELL, web::shell),
        route(GET, "/ui/queues", Public, SHELL, web::shell),
        route(GET, "/ui/schedules", Public, SHELL, web::shell),
        route(GET, "/ui/schedules/{schedule}", Public, SHELL, web::shell),
        route(GET, "/ui/nodes", Public, SHELL, web::shell),
        route(GET, "/ui/events", Public, SHELL, web::shell),
        route(GET, "/ui/access", Public, SHELL, web::shell),
        route(GET, "/ui/checkup", Public, SHELL, web::shell),
        route(GET, "/ui/settings", Public, SHELL, web::shell),
        route(GET, "/ui/signin", Public, SHELL, web::shell),
        route(GET, "/ui/assets/{name}", Public, &[], web::asset),
        route(
            GET,
            "/jobs/{id}/events",
            Read,
            events::OF_JOB,
            events::of_job,
        ),
        route(GET, "/events", Read, events::OF_ALL, events::of_all),
        route(POST, "/batches", Operate, batches::CREATE, batches::create),
        route(GET, "/batches", Read, batches::LIST, batches::list),
        route(GET, "/batches/{id}", Read, batches::GET, batches::get),
        route(DELETE, "/batches/{id}", Operate, jobs::STOP, batches::stop),
        route(
            POST,
            "/batches/{id}/rerun",
            Operate,
            batches::RERUN,
            batches::rerun,
        ),
        route(GET, "/queues", Read, &[], queues::list),
        route(GET, "/queues/{name}", Read, &[], queues::get),
        route(PUT, "/queues/{name}", Admin, &[], queues::put),
        route(PATCH, "/queues/{name}", Operate, &[], queues::patch),
        route(
            DELETE,
            "/queues/{name}",
            Admin,
            queues::RESET,
            queues::reset,
        ),
        route(GET, "/templates", Read, &[], templates::list),
        route(GET, "/tokens", Admin, &[], access::list),
        route(POST, "/tokens", Admin, &[], access::create),
        route(DELETE, "/tokens/{name}", Admin, &[], access::revoke),
        route(GET, "/doctor", Admin, &[], doctor::findings),
        route(POST, "/mcp", Read, &[], mcp::mcp),
        route(GET, "/schedules", Read, &[], schedules::list),
        route(POST, "/schedules/times", Read, &[], schedules::preview),
        route(GET, "/schedules/{name}", Read, &[], schedules::get),
        route(
            PUT,
            "/schedules/{name}",
            Operate,
            schedules::PUT,
            schedules::put,
        ),
        route(PATCH, "/schedules/{name}", Operate, &[], schedules::patch),
        route(DELETE, "/schedules/{name}", Operate, &[], schedules::remove),
        route(
            POST,
            "/schedules/{name}/run",
            Operate,
            schedules::RUN,
            schedules::run,
        ),
        route(
            GET,
            "/schedules/{name}/times",
            Read,
            schedules::TIMES,
            schedules::times,
        ),
        route(GET, "/nodes", Read, &[], nodes::list),
        route(GET, "/nodes/{name}", Read, &[], nodes::get),
        route(DELETE, "/nodes/{name}", Admin, &[], nodes::forget),
        route(POST, "/nodes/{name}/drain", Admin, &[], nodes::drain),
        route(DELETE, "/nodes/{name}/drain", Admin, &[], nodes::end_drain),
        route(GET, "/cluster/link", Runner, &[], cluster::link),
        route(
            GET,
            "/cluster/stream",
            Runner,
            cluster::STREAM,
            cluster::stream,
        ),
        route(
            GET,
            "/cluster/files",
            Runner,
            cluster::FILES,
            cluster::files,
        ),
        route(POST, "/drain", Admin, service::DRAIN, service::drain),
        route(DELETE, "/drain", Admin, &[], service::end_drain),
        route(GET, "/healthz", Public, &[], service::healthz),
        route(GET, "/readyz", Public, &["serving"], service::readyz),
        route(GET, "/metrics", Metrics, &[], service::metrics),
        route(GET, "/info", Read, &[], service::info),
        route(GET, "/openapi.yaml", Public, &[], service::openapi),
        route(GET, "/docs", Public, &[], docs::show),
    ]
}

fn route<H, T>(
    method: Method,
    path: &'static str,
    access: Access,
    query: &'static [&'static str],
    handler: H,
) -> Route
where
    H: Handler<T, Api, Future = Answering> + Sync,
{
    let filter = MethodFilter::try_from(method.clone()).expect("the table has standard methods");
    let any = Any(Arc::new(move |request, api| {
        handler.clone().call(request, api)
    }));
    Route {
        method,
        path,
        access,
        query,
        handler: on(filter, any),
    }
}

/// What every handler returns.
type Answering = Pin<Box<dyn Future<Output = Response> + Send>>;

/// Handlers of all kinds as one type, so that the program has one copy of what axum makes of a handler.
#[derive(Clone)]
struct Any(Arc<dyn Fn(Request, Api) -> Answering + Send + Sync>);

impl Handler<(), Api> for Any {
    type Future = Answering;

    fn call(self, request: Request, api: Api) -> Answering {
        (self.0)(request, api)
    }
}

/// Method, path and access word of every route: the table without its handlers.
static WORDS: LazyLock<Vec<(Method, &'static str, Access)>> = LazyLock::new(|| {
    table()
        .into_iter()
        .map(|route| (route.method, route.path, route.access))
        .collect()
});

/// The path of the table that reads like this one.
pub(super) fn path(matched: &str) -> Option<&'static str> {
    let mut paths = WORDS.iter().map(|(_, path, _)| *path);
    let matched = matched.replace("{*", "{");
    paths.find(|path| *path == matched)
}

/// Could this request change something? By its method, or because its route demands more than reading.
pub(super) fn is_write(method: &Method, path: Option<&'static str>) -> bool {
    // What comes by there is looked at where it goes.
    if path == Some("/mcp") || path.is_some_and(is_of_links) {
        return false;
    }
    !method.is_safe()
        || WORDS.iter().any(|(route_method, route_path, access)| {
            route_method == method && Some(*route_path) == path && !Read.reaches(*access)
        })
}

/// A route of the links between a hub and its nodes.
fn is_of_links(path: &str) -> bool {
    path.starts_with("/cluster/")
}

/// A route that is there in a hub alone.
fn is_of_hub(path: &str) -> bool {
    is_of_links(path) || path == "/nodes" || path.starts_with("/nodes/")
}

/// The methods of one path.
#[derive(Default)]
struct Methods {
    router: MethodRouter<Api>,
    allow: Vec<String>,
    private: bool,
}

/// The router that the table describes.
pub(super) fn router(api: &Api) -> Router {
    let mut paths: BTreeMap<&'static str, Methods> = BTreeMap::new();
    let is_hub = api.manager.hub().is_some();
    let there = |route: &Route| is_hub || !is_of_hub(route.path);
    for route in table().into_iter().filter(there) {
        let gate = Gate {
            api: api.clone(),
            is_forwarded: forward::is_forwarded(route.path),
            access: route.access,
            query: route.query,
            // A patch looks at it together with its change (RFC 9110, 13.2.1).
            is_conditional: route.path.starts_with("/jobs/{id}")
                && !route.method.is_safe()
                // They are about a file of it.
                && !route.path.contains("/files/")
                && route.method != PATCH,
            is_of_process: ["/healthz", "/readyz", "/metrics"].contains(&route.path),
        };
        let handler = route
            .handler
            .route_layer(middleware::from_fn_with_state(gate, enter));
        let methods = paths.entry(route.path).or_default();
        methods.router = std::mem::take(&mut methods.router).merge(handler);
        methods.private |= route.access != Public;
        if route.method == GET {
            methods.allow.push(http::Method::HEAD.to_string());
        }
        methods.allow.push(route.method.to_string());
    }
    let mut router = Router::new();
    for (path, mut methods) in paths {
        // Strangers learn nothing about what is where, save what everyone may know.
        let access = if methods.private { Metrics } else { Public };
        methods.allow.sort();
        let allow = methods.allow.join(", ");
        let fallback = async move |State(api): State<Api>, mut request: Request| {
            auth::check(&api, &mut request, access, false)
                .err()
                .unwrap_or(ApiError::MethodNotAllowed { allow })
        };
        // What it names may have directories.
        let path = path.replace("/files/{path}", "/files/{*path}");
        router = router.route(&path, methods.router.fallback(fallback));
    }
    router.fallback(nowhere).with_state(api.clone())
}

async fn nowhere(State(api): State<Api>, mut request: Request) -> ApiError {
    auth::check(&api, &mut request, Metrics, false)
        .err()
        .unwrap_or(ApiError::NotFound)
}
