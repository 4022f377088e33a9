//! The API as a whole, without a network.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

use super::{AuthMode, PeerUid, Settings, Verifier, app, routes};
use crate::manager::{Manager, Setup};
use crate::store::Store;

const TOKEN: &str = "a-token";

/// Settings with a token and one more host name.
pub(super) fn settings() -> Settings {
    Settings {
        auth: AuthMode::Token {
            verifier: Verifier::of(TOKEN),
        },
        allowed_hosts: vec!["jobs.example".to_owned()],
        max_body_bytes: 1 << 20,
        spec_limits: crate::job::parse::SpecLimits::default(),
        uid: 1000,
        version: "0.0.0",
        commit: None,
    }
}

/// Settings without a token.
pub(super) fn open_settings() -> Settings {
    Settings {
        auth: AuthMode::None,
        ..settings()
    }
}

/// A manager with an empty store and a supervisor that never answers.
async fn manager() -> Manager {
    // Open files outlive their names, so nothing is left behind.
    let state = tempfile::tempdir().unwrap();
    let (supervisor, silent) = std::os::unix::net::UnixStream::pair().unwrap();
    std::mem::forget(silent);
    let setup = Setup {
        store: Store::open(&state.path().join("db")).unwrap(),
        supervisor: supervisor.into(),
        supervisor_pid: 2,
        jobs: std::fs::File::open(state.path()).unwrap().into(),
        boot_id: "boot".to_owned(),
        cgroup: None,
        no_cgroup: Some("no cgroup in this test".to_owned()),
        restarts: 0,
        max_running: 1,
        max_queued: 1,
        min_free_bytes: 0,
        deny_root_jobs: false,
        work_dir: state.path().to_owned(),
    };
    Manager::start(setup).await.unwrap().0
}

fn request(method: &str, path: &str) -> axum::http::request::Builder {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost:8080")
}

fn allowed(method: &str, path: &str) -> axum::http::request::Builder {
    request(method, path).header("authorization", format!("Bearer {TOKEN}"))
}

async fn send(request: Request<Body>) -> Response {
    app(manager().await, settings())
        .oneshot(request)
        .await
        .unwrap()
}

async fn text_of(response: Response) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Checks the form of a problem and gives its status and code.
async fn problem(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], super::PROBLEM_JSON);
    let request_id = response.headers()["request-id"]
        .to_str()
        .unwrap()
        .to_owned();
    let body: Value = serde_json::from_str(&text_of(response).await).unwrap();
    assert_eq!(body["status"], status);
    assert_eq!(body["request_id"], request_id);
    let code = body["code"].as_str().unwrap().to_owned();
    assert_eq!(body["type"], format!("urn:procession:problem:{code}"));
    assert!(super::ALL_CODES.contains(&code.as_str()), "{code}");
    (status, code)
}

/// A body that must not be read.
fn untouchable() -> Body {
    let touched = || -> Result<bytes::Bytes, std::io::Error> { panic!("the body was read") };
    Body::from_stream(futures_util::stream::once(async move { touched() }))
}

fn example(path: &str) -> String {
    path.replace("{id}", "0198c1d2-7b3a-7c4e-9f10-2a6b3c4d5e6f")
}

#[tokio::test]
async fn every_route_but_the_public_ones_asks_for_a_token_before_it_reads_a_body() {
    for route in routes::table() {
        for token in [None, Some("Bearer wrong"), Some("Basic YTpi")] {
            let mut request = request(route.method.as_str(), &example(route.path));
            if let Some(token) = token {
                request = request.header("authorization", token);
            }
            let response = send(request.body(untouchable()).unwrap()).await;
            let public = route.access == super::Access::Public;
            assert_eq!(
                response.status() == StatusCode::UNAUTHORIZED,
                !public,
                "{} {}",
                route.method,
                route.path
            );
            if !public {
                assert_eq!(response.headers()["www-authenticate"], "Bearer");
                assert_eq!(problem(response).await, (401, "unauthenticated".into()));
            }
        }
    }
}

#[tokio::test]
async fn guards_stand_before_every_method_of_every_route() {
    for route in routes::table() {
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let path = example(route.path);
            for (header, value, status) in [
                ("origin", "http://evil.example", 403),
                ("sec-fetch-site", "cross-site", 403),
                ("host", "evil.example", 421),
            ] {
                let mut request = allowed(method, &path).body(untouchable()).unwrap();
                request.headers_mut().insert(header, value.parse().unwrap());
                let response = send(request).await;
                assert_eq!(
                    response.status().as_u16(),
                    status,
                    "{method} {path} {header}"
                );
                if method != "HEAD" {
                    problem(response).await;
                }
            }
        }
    }
}

#[tokio::test]
async fn the_unix_socket_is_for_the_own_user_and_root() {
    let as_uid = |uid: u32| {
        let mut request = Request::get("/jobs/x").body(Body::empty()).unwrap();
        request.extensions_mut().insert(PeerUid(uid));
        request
    };
    for uid in [0, 1000] {
        let found = problem(send(as_uid(uid)).await).await;
        assert_eq!(found, (404, "job_not_found".into()), "{uid}");
    }
    let found = problem(send(as_uid(1001)).await).await;
    assert_eq!(found, (403, "peer_not_allowed".into()));
}

#[tokio::test]
async fn a_path_without_a_route_is_a_problem_and_no_hint_to_strangers() {
    let known = send(allowed("GET", "/nothing").body(Body::empty()).unwrap()).await;
    assert_eq!(problem(known).await, (404, "not_found".into()));
    let stranger = send(request("GET", "/nothing").body(Body::empty()).unwrap()).await;
    assert_eq!(problem(stranger).await, (401, "unauthenticated".into()));
}

#[tokio::test]
async fn another_method_is_told_which_ones_there_are() {
    for (path, allow) in [
        ("/jobs", "GET, HEAD, POST"),
        ("/jobs/x", "DELETE, GET, HEAD, PATCH"),
        ("/healthz", "GET, HEAD"),
    ] {
        let response = send(allowed("PUT", path).body(Body::empty()).unwrap()).await;
        assert_eq!(response.headers()["allow"], allow);
        assert_eq!(problem(response).await, (405, "method_not_allowed".into()));
    }
    let stranger = send(request("PUT", "/jobs").body(Body::empty()).unwrap()).await;
    assert_eq!(problem(stranger).await, (401, "unauthenticated".into()));
}

#[tokio::test]
async fn an_unknown_parameter_is_refused_on_every_route() {
    for route in routes::table() {
        let path = format!("{}?surprise=1", example(route.path));
        let request = allowed(route.method.as_str(), &path);
        let response = send(request.body(untouchable()).unwrap()).await;
        assert_eq!(
            problem(response).await,
            (400, "invalid_query".into()),
            "{path}"
        );
    }
}

#[tokio::test]
async fn bad_values_in_a_query_are_refused() {
    let id = example("{id}");
    for (method, path) in [
        ("GET", "/jobs?page_size=0".to_owned()),
        ("GET", "/jobs?state=done".to_owned()),
        ("POST", "/jobs?wait=-1".to_owned()),
        ("GET", format!("/jobs/{id}?wait=inf")),
        ("GET", format!("/jobs/{id}?until=never")),
        ("GET", format!("/jobs/{id}?until=finished&after_version=3")),
        ("DELETE", format!("/jobs/{id}?grace_seconds=86401")),
        ("DELETE", format!("/jobs/{id}?signal=SIGFOO")),
        ("DELETE", format!("/jobs/{id}?reason={}", "r".repeat(1025))),
        ("DELETE", format!("/jobs/{id}?force=perhaps")),
        ("GET", format!("/jobs/{id}/output?offset=1&tail_lines=1")),
        ("GET", format!("/jobs/{id}/output?stream=both")),
    ] {
        let response = send(allowed(method, &path).body(untouchable()).unwrap()).await;
        assert_eq!(
            problem(response).await,
            (400, "invalid_query".into()),
            "{path}"
        );
    }
    let response = send(
        allowed("GET", "/jobs?page_token=xyz")
            .body(Body::empty())
            .unwrap(),
    )
    .await;
    assert_eq!(problem(response).await, (400, "invalid_page_token".into()));
}

#[tokio::test]
async fn a_body_has_to_be_json_and_small() {
    let post = |kind: &'static str, body: Body| {
        allowed("POST", "/jobs")
            .header("content-type", kind)
            .body(body)
            .unwrap()
    };
    let form = send(post("application/x-www-form-urlencoded", untouchable())).await;
    assert_eq!(problem(form).await, (415, "unsupported_media_type".into()));
    let large = send(post(
        "application/json",
        Body::from(vec![b' '; (1 << 20) + 1]),
    ))
    .await;
    assert_eq!(problem(large).await, (413, "body_too_large".into()));
    let broken = send(post("application/json", Body::from("{"))).await;
    assert_eq!(problem(broken).await, (400, "invalid_json".into()));
}

#[tokio::test]
async fn what_everyone_may_see_needs_no_token() {
    let health = send(request("GET", "/healthz").body(Body::empty()).unwrap()).await;
    assert_eq!(health.status(), StatusCode::OK);
    assert_eq!(health.headers()["cache-control"], "no-store");
    assert_eq!(text_of(health).await, r#"{"live":true}"#);
    let description = send(request("GET", "/openapi.yaml").body(Body::empty()).unwrap()).await;
    assert_eq!(text_of(description).await, super::service::OPENAPI);
    let head = send(request("HEAD", "/healthz").body(Body::empty()).unwrap()).await;
    assert_eq!(head.status(), StatusCode::OK);
    assert_eq!(text_of(head).await, "");
}

#[tokio::test]
async fn a_tame_request_id_is_kept_and_a_wild_one_replaced() {
    for (id, kept) in [("trace-7", true), ("a b", false)] {
        let request = request("GET", "/healthz").header("request-id", id);
        let response = send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.headers()["request-id"] == id, kept, "{id}");
    }
}
