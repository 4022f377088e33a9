//! The API as a whole, without a network.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

use super::{AuthMode, PeerUid, Settings, Streams, app, routes};
use crate::tokens::{self, Access, Tokens};
use job::sandbox::Baseline;
use manager::{Host, Limits, Manager, Setup};
use store::Store;

const TOKEN: &str = "a-token";

/// Settings with a token and one more host name.
pub(super) fn settings() -> Settings {
    Settings {
        auth: AuthMode::Token {
            tokens: Tokens::of(TOKEN),
        },
        allowed_hosts: vec!["jobs.example".to_owned()],
        max_body_bytes: 1 << 20,
        mcp: true,
        sessions: crate::tokens::sessions::Sessions::forgetful(),
        page: "http://127.0.0.1:8080/".to_owned(),
        streams: Streams::new(2).0,
        places: crate::connections::Places::new(2),
        spec_limits: crate::request::SpecLimits::default(),
        audit: None,
        policy: None,
        doctor: super::doctor::Doctor::new(Vec::new),
        ledger: None,
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
        jobs: std::fs::File::open(state.path()).unwrap().into(),
        beat_every: None,
        draining: false,
        host: Host {
            boot_id: "boot".to_owned(),
            cgroup: Err("no cgroup in this test".to_owned()),
            supervisor_pid: 2,
            restarts: 0,
        },
        limits: Limits {
            max_running: 1,
            max_queued: 1,
            max_finished: 1,
            min_free_bytes: 0,
            max_upload_bytes: 1 << 30,
            max_workspace_bytes: 1 << 30,
            max_workspaces_bytes: u64::MAX,
        },
        // With every route that there is.
        part: manager::Membership::Hub(manager::HubSetup {
            name: "hub".parse().unwrap(),
            is_node: true,
            lost_after: std::time::Duration::from_secs(1),
            labels: std::collections::BTreeMap::new(),
            packs: false,
        }),
        deny_root_jobs: false,
        webhook_allow_private: false,
        sandbox: Baseline::Off,
        metrics_labels: Vec::new(),
        otlp: None,
        state_dir: state.path().to_owned(),
        work_dir: state.path().to_owned(),
        workspaces: state.path().join("workspaces"),
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
    assert!(
        super::problem::examples()
            .iter()
            .any(|error| error.code() == code),
        "{code}"
    );
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
    let app = app(manager().await, settings());
    for route in routes::table() {
        for token in [None, Some("Bearer wrong"), Some("Basic YTpi")] {
            let mut request = request(route.method.as_str(), &example(route.path));
            if let Some(token) = token {
                request = request.header("authorization", token);
            }
            let request = request.body(untouchable()).unwrap();
            let response = app.clone().oneshot(request).await.unwrap();
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
async fn every_route_lets_in_exactly_the_scopes_that_reach_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut held = Vec::new();
    for scope in Access::SCOPES {
        let name = scope.as_str().parse().unwrap();
        let token = tokens::create(dir.path(), &name, scope, None).unwrap();
        held.push((scope, token));
    }
    let settings = Settings {
        auth: AuthMode::Token {
            tokens: Tokens::open(dir.path()).unwrap(),
        },
        ..settings()
    };
    let app = app(manager().await, settings);
    let mut cases = 0;
    for route in routes::table() {
        for (scope, token) in &held {
            // An unknown parameter ends every request right after the access check, before it has an effect.
            let path = format!("{}?surprise=1", example(route.path));
            let request = request(route.method.as_str(), &path)
                .header("authorization", format!("Bearer {token}"))
                .body(untouchable())
                .unwrap();
            let found = problem(app.clone().oneshot(request).await.unwrap()).await;
            let expected = if scope.reaches(route.access) {
                (400, "invalid_query")
            } else {
                (403, "forbidden")
            };
            assert_eq!(
                (found.0, found.1.as_str()),
                expected,
                "{} {} with {scope:?}",
                route.method,
                route.path
            );
            cases += 1;
        }
    }
    assert_eq!(cases, 5 * routes::table().len());
}

#[tokio::test]
async fn a_head_over_the_limit_is_a_problem() {
    let long = format!("/jobs?name_prefix={}", "a".repeat(33 << 10));
    let response = send(allowed("GET", &long).body(Body::empty()).unwrap()).await;
    assert_eq!(problem(response).await, (431, "head_too_large".into()));
}

#[tokio::test]
async fn after_a_chunked_body_the_connection_closes() {
    let request = allowed("POST", "/jobs").header("transfer-encoding", "chunked");
    let response = send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(response.headers()["connection"], "close");
}

const POLICY: &str = r#"
[template.backup]
command = ["/bin/echo", "{level}"]
params.level = { type = "integer", min = 0, max = 9 }
"#;

async fn post_under_policy(body: &'static str) -> Response {
    let settings = Settings {
        policy: Some(crate::policy::Policies::new(
            crate::policy::Policy::parse(POLICY).unwrap(),
        )),
        ..settings()
    };
    let request = allowed("POST", "/jobs/validate")
        .header("content-type", "application/json")
        .body(Body::from(body))
        .unwrap();
    app(manager().await, settings)
        .oneshot(request)
        .await
        .unwrap()
}

#[tokio::test]
async fn with_a_policy_only_templates_are_taken() {
    let good = post_under_policy(r#"{"template":"backup","params":{"level":3},"name":"n"}"#).await;
    assert_eq!(good.status(), StatusCode::OK);
    let view: Value = serde_json::from_str(&text_of(good).await).unwrap();
    assert_eq!(
        view["spec"]["command"],
        serde_json::json!(["/bin/echo", "3"])
    );
    for (body, expected) in [
        (r#"{"command":["/bin/echo","3"]}"#, (403, "policy_forbids")),
        (r#"{"script":"true"}"#, (403, "policy_forbids")),
        (
            r#"{"template":"backup","command":["/bin/sh"]}"#,
            (403, "policy_forbids"),
        ),
        (r#"{"template":"restore"}"#, (422, "no_such_template")),
        (r#"{"template":"backup"}"#, (422, "invalid_spec")),
        (
            r#"{"template":"backup","params":{"level":10}}"#,
            (422, "invalid_spec"),
        ),
        (
            r#"{"template":"backup","params":{"level":3},"user":"root"}"#,
            (422, "invalid_spec"),
        ),
        (r#"{}"#, (422, "invalid_spec")),
    ] {
        let found = problem(post_under_policy(body).await).await;
        assert_eq!((found.0, found.1.as_str()), expected, "{body}");
    }
}

#[tokio::test]
async fn every_write_request_has_a_line_in_the_audit_log() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        audit: Some(std::sync::Arc::new(
            crate::audit_log::Audit::open(dir.path()).unwrap(),
        )),
        ..settings()
    };
    let app = app(manager().await, settings);
    let id = example("{id}");
    let send = async |mut request: Request<Body>| {
        let peer = super::PeerAddress("192.0.2.7:1234".parse().unwrap());
        request.extensions_mut().insert(peer);
        app.clone().oneshot(request).await.unwrap();
    };
    let post = |body: &'static str| {
        let request = allowed("POST", "/jobs").header("content-type", "application/json");
        request
            .header("request-id", "r1")
            .body(Body::from(body))
            .unwrap()
    };
    send(allowed("GET", "/jobs").body(Body::empty()).unwrap()).await;
    send(post(
        r#"{"command":["hunter2"],"env":{"A":"hunter2"},"x":1}"#,
    ))
    .await;
    let path = format!("/jobs/{id}?reason=hunter2");
    send(allowed("DELETE", &path).body(Body::empty()).unwrap()).await;
    send(request("DELETE", &path).body(Body::empty()).unwrap()).await;
    let mut foreign = post("{}");
    foreign
        .headers_mut()
        .insert("origin", "http://evil.example".parse().unwrap());
    send(foreign).await;
    send(allowed("PUT", "/hunter2").body(Body::empty()).unwrap()).await;
    let text = std::fs::read_to_string(dir.path().join("audit.jsonl")).unwrap();
    assert!(!text.contains("hunter2") && !text.contains(TOKEN), "{text}");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let told: Vec<Value> = lines
        .iter()
        .map(|line| {
            [
                "actor", "method", "route", "job_id", "decision", "status", "code",
            ]
            .map(|key| line[key].clone())
            .into()
        })
        .collect();
    let actor = "token:default";
    assert_eq!(
        told,
        [
            serde_json::json!([actor, "POST", "/jobs", null, "allowed", 422, "invalid_spec"]),
            serde_json::json!([
                actor,
                "DELETE",
                "/jobs/{id}",
                id,
                "allowed",
                404,
                "job_not_found"
            ]),
            serde_json::json!([
                null,
                "DELETE",
                "/jobs/{id}",
                id,
                "refused",
                401,
                "unauthenticated"
            ]),
            serde_json::json!([
                null,
                "POST",
                "/jobs",
                null,
                "refused",
                403,
                "origin_not_allowed"
            ]),
            serde_json::json!([actor, "PUT", null, null, "allowed", 404, "not_found"]),
        ]
    );
    assert_eq!(lines[0]["peer"], "192.0.2.7:1234");
    assert_eq!(lines[0]["request_id"], "r1");
}

#[tokio::test]
async fn a_write_whose_client_went_away_has_a_line_too() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        audit: Some(std::sync::Arc::new(
            crate::audit_log::Audit::open(dir.path()).unwrap(),
        )),
        ..settings()
    };
    let never = Body::from_stream(futures_util::stream::pending::<
        Result<bytes::Bytes, std::io::Error>,
    >());
    let request = allowed("POST", "/jobs").header("content-type", "application/json");
    let answer = app(manager().await, settings).oneshot(request.body(never).unwrap());
    assert!(
        tokio::time::timeout(std::time::Duration::from_millis(50), answer)
            .await
            .is_err()
    );
    let text = std::fs::read_to_string(dir.path().join("audit.jsonl")).unwrap();
    assert!(
        text.contains(r#""decision":"unanswered","status":null"#),
        "{text}"
    );
}

#[tokio::test]
async fn guards_stand_before_every_method_of_every_route() {
    let app = app(manager().await, settings());
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
                let response = app.clone().oneshot(request).await.unwrap();
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
    let app = app(manager().await, settings());
    // Whoever has to show no token is no node.
    let of_all = |route: &routes::Route| route.access != Access::Runner;
    for route in routes::table().into_iter().filter(of_all) {
        let path = format!("{}?surprise=1", example(route.path));
        let request = allowed(route.method.as_str(), &path);
        let request = request.body(untouchable()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
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
    let docs = send(request("GET", "/docs").body(Body::empty()).unwrap()).await;
    assert_eq!(docs.status(), StatusCode::OK);
    let policy = docs.headers()["content-security-policy"]
        .to_str()
        .unwrap()
        .to_owned();
    let nonce = policy
        .split("'nonce-")
        .nth(1)
        .unwrap()
        .split('\'')
        .next()
        .unwrap();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    assert!(
        text_of(docs)
            .await
            .contains(&format!("<style nonce=\"{nonce}\">"))
    );
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
