//! Whatever is wrong with a request, the answer says what and where, in one form.

use std::io::{Read, Write};
use std::net::TcpStream;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{LONG, Reply, Server, eventually, id, unique_seconds};

/// Every field of a spec with wrong values: the pointer and code that the answer must have.
fn wrong_fields() -> Vec<(Value, &'static str, &'static str)> {
    let long = "x".repeat(131_072);
    vec![
        (json!({"command": []}), "/command", "invalid_value"),
        (json!({"command": "ls"}), "/command", "wrong_type"),
        (json!({"command": [""]}), "/command", "invalid_value"),
        (json!({"command": ["a", 1]}), "/command/1", "wrong_type"),
        (
            json!({"command": ["a", "b\0c"]}),
            "/command/1",
            "invalid_value",
        ),
        (json!({"command": ["a", long]}), "/command/1", "too_long"),
        (json!({"command": vec!["x"; 4097]}), "/command", "too_many"),
        (json!({"command": null}), "/command", "missing"),
        (
            json!({"script": 1, "command": null}),
            "/script",
            "wrong_type",
        ),
        (json!({"script": "true"}), "/script", "conflict"),
        (json!({"shell": ["/bin/sh"]}), "/shell", "conflict"),
        (json!({"cwd": "relative"}), "/cwd", "invalid_value"),
        (json!({"cwd": ""}), "/cwd", "invalid_value"),
        (json!({"cwd": "/a\0b"}), "/cwd", "invalid_value"),
        (json!({"cwd": 1}), "/cwd", "wrong_type"),
        (
            json!({"cwd": format!("/{}", "a".repeat(4095))}),
            "/cwd",
            "too_long",
        ),
        (json!({"env": []}), "/env", "wrong_type"),
        (json!({"env": {"A": 1}}), "/env/A", "wrong_type"),
        (json!({"env": {"A": "x\0"}}), "/env/A", "invalid_value"),
        (json!({"env": {"A=B": "x"}}), "/env/A=B", "invalid_value"),
        (json!({"env": {"": "x"}}), "/env/", "invalid_value"),
        (
            json!({"env": {"a/b~c\0": "x"}}),
            "/env/a~1b~0c\0",
            "invalid_value",
        ),
        (
            json!({"secret_env": {"A": 1}}),
            "/secret_env/A",
            "wrong_type",
        ),
        (
            json!({"env": {"A": "x"}, "secret_env": {"A": "y"}}),
            "/secret_env/A",
            "conflict",
        ),
        (
            json!({"env_inherit": "all"}),
            "/env_inherit",
            "invalid_value",
        ),
        (json!({"env_inherit": 3}), "/env_inherit", "wrong_type"),
        (
            json!({"env_inherit": ["A", 3]}),
            "/env_inherit/1",
            "wrong_type",
        ),
        (json!({"user": true}), "/user", "wrong_type"),
        (json!({"user": ""}), "/user", "invalid_value"),
        (json!({"user": -1}), "/user", "out_of_range"),
        (json!({"user": 4_294_967_295_u64}), "/user", "out_of_range"),
        (json!({"group": {}}), "/group", "wrong_type"),
        (
            json!({"supplementary_groups": "wheel"}),
            "/supplementary_groups",
            "wrong_type",
        ),
        (
            json!({"supplementary_groups": [1, []]}),
            "/supplementary_groups/1",
            "wrong_type",
        ),
        (json!({"umask": 22}), "/umask", "wrong_type"),
        (json!({"umask": "0999"}), "/umask", "invalid_value"),
        (json!({"umask": "7777"}), "/umask", "invalid_value"),
        (json!({"nice": 20}), "/nice", "out_of_range"),
        (json!({"nice": 1.5}), "/nice", "wrong_type"),
        (
            json!({"oom_score_adj": -1001}),
            "/oom_score_adj",
            "out_of_range",
        ),
        (json!({"cpu_affinity": 0}), "/cpu_affinity", "wrong_type"),
        (
            json!({"cpu_affinity": []}),
            "/cpu_affinity",
            "invalid_value",
        ),
        (
            json!({"cpu_affinity": [0, 1024]}),
            "/cpu_affinity/1",
            "out_of_range",
        ),
        (
            json!({"rlimits": {"files": 1}}),
            "/rlimits/files",
            "unknown_field",
        ),
        (
            json!({"rlimits": {"nofile": "many"}}),
            "/rlimits/nofile",
            "invalid_value",
        ),
        (
            json!({"rlimits": {"nofile": -1}}),
            "/rlimits/nofile",
            "out_of_range",
        ),
        (
            json!({"rlimits": {"nofile": {"soft": 1}}}),
            "/rlimits/nofile/hard",
            "missing",
        ),
        (
            json!({"rlimits": {"nofile": {"soft": 2, "hard": 1}}}),
            "/rlimits/nofile/soft",
            "out_of_range",
        ),
        (
            json!({"limits": {"memory_bytes": 1}}),
            "/limits/memory_bytes",
            "out_of_range",
        ),
        (json!({"limits": {"cpu": 0}}), "/limits/cpu", "out_of_range"),
        (json!({"limits": {"cpu": "1"}}), "/limits/cpu", "wrong_type"),
        (
            json!({"limits": {"pids": 0}}),
            "/limits/pids",
            "out_of_range",
        ),
        (json!({"limits": {"io": 0}}), "/limits/io", "unknown_field"),
        (
            json!({"no_new_privs": "yes"}),
            "/no_new_privs",
            "wrong_type",
        ),
        (json!({"stdin": "null"}), "/stdin", "wrong_type"),
        (json!({"stdin": {}}), "/stdin/mode", "missing"),
        (
            json!({"stdin": {"mode": "pipe"}}),
            "/stdin/mode",
            "invalid_value",
        ),
        (json!({"stdin": {"mode": "data"}}), "/stdin/text", "missing"),
        (
            json!({"stdin": {"mode": "data", "text": "a", "base64": "YQ=="}}),
            "/stdin/base64",
            "conflict",
        ),
        (
            json!({"stdin": {"mode": "data", "base64": "YQ="}}),
            "/stdin/base64",
            "invalid_value",
        ),
        (
            json!({"stdin": {"mode": "null", "text": "a"}}),
            "/stdin/text",
            "conflict",
        ),
        (json!({"pty": {"rows": 0}}), "/pty/rows", "out_of_range"),
        (json!({"pty": {"cols": 4097}}), "/pty/cols", "out_of_range"),
        (
            json!({"pty": {"term": "x y"}}),
            "/pty/term",
            "invalid_value",
        ),
        (
            json!({"output": {"max_bytes": 4095}}),
            "/output/max_bytes",
            "out_of_range",
        ),
        (
            json!({"output": {"max_bytes": "1M"}}),
            "/output/max_bytes",
            "wrong_type",
        ),
        (
            json!({"output": {"on_limit": "drop"}}),
            "/output/on_limit",
            "invalid_value",
        ),
        (
            json!({"output": {"merge": true}}),
            "/output/merge",
            "unknown_field",
        ),
        (
            json!({"output": {"merge_stderr": 1}}),
            "/output/merge_stderr",
            "wrong_type",
        ),
        (
            json!({"timeout_seconds": 0}),
            "/timeout_seconds",
            "out_of_range",
        ),
        (
            json!({"timeout_seconds": -1}),
            "/timeout_seconds",
            "out_of_range",
        ),
        (
            json!({"timeout_seconds": "1"}),
            "/timeout_seconds",
            "wrong_type",
        ),
        (
            json!({"timeout_seconds": 1e300}),
            "/timeout_seconds",
            "out_of_range",
        ),
        (
            json!({"stop": {"grace_seconds": -0.1}}),
            "/stop/grace_seconds",
            "out_of_range",
        ),
        (
            json!({"stop": {"grace_seconds": 86401}}),
            "/stop/grace_seconds",
            "out_of_range",
        ),
        (
            json!({"stop": {"signal": "SIGNOTHING"}}),
            "/stop/signal",
            "invalid_value",
        ),
        (
            json!({"stop": {"signal": 33}}),
            "/stop/signal",
            "invalid_value",
        ),
        (
            json!({"stop": {"scope": "session"}}),
            "/stop/scope",
            "invalid_value",
        ),
        (
            json!({"stop": {"timeout": 1}}),
            "/stop/timeout",
            "unknown_field",
        ),
        (json!({"wait_for": "none"}), "/wait_for", "invalid_value"),
        (
            json!({"success_exit_codes": 0}),
            "/success_exit_codes",
            "wrong_type",
        ),
        (
            json!({"success_exit_codes": [256]}),
            "/success_exit_codes/0",
            "out_of_range",
        ),
        (
            json!({"success_exit_codes": []}),
            "/success_exit_codes",
            "invalid_value",
        ),
        (
            json!({"success_exit_codes": [1, 2, 1]}),
            "/success_exit_codes",
            "invalid_value",
        ),
        (json!({"queue": ""}), "/queue", "invalid_value"),
        (json!({"queue": "a b"}), "/queue", "invalid_value"),
        (json!({"priority": 1_000_001}), "/priority", "out_of_range"),
        (json!({"priority": "high"}), "/priority", "wrong_type"),
        (
            json!({"start_deadline_seconds": 0}),
            "/start_deadline_seconds",
            "out_of_range",
        ),
        (
            json!({"ttl_seconds_after_finished": 59}),
            "/ttl_seconds_after_finished",
            "out_of_range",
        ),
        (json!({"name": ""}), "/name", "invalid_value"),
        (json!({"name": "a\nb"}), "/name", "invalid_value"),
        (json!({"name": "ä".repeat(129)}), "/name", "too_long"),
        (json!({"labels": ["a"]}), "/labels", "wrong_type"),
        (json!({"labels": {"a": 1}}), "/labels/a", "wrong_type"),
        (json!({"labels": {"a": "-"}}), "/labels/a", "invalid_value"),
        (
            json!({"labels": {"-a": "b"}}),
            "/labels/-a",
            "invalid_value",
        ),
        (
            json!({"labels": {"a/b/c": "b"}}),
            "/labels/a~1b~1c",
            "invalid_value",
        ),
        (
            json!({"labels": {"a": "x".repeat(64)}}),
            "/labels/a",
            "too_long",
        ),
        (json!({"comand": ["x"]}), "/comand", "unknown_field"),
        (json!({"timeout": 3}), "/timeout", "unknown_field"),
    ]
}

#[tokio::test]
async fn every_wrong_field_answers_422_with_its_pointer() {
    let server = Server::start().await;
    let mut wrong = Vec::new();
    for (fields, pointer, code) in wrong_fields() {
        let mut body = json!({"command": ["true"]});
        for (name, value) in fields.as_object().unwrap() {
            body[name] = value.clone();
        }
        for path in ["/jobs", "/jobs/validate"] {
            let reply = server.post(path, &body).await;
            let answer = reply.json();
            let errors: Vec<(&str, &str)> = answer["errors"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|error| Some((error["pointer"].as_str()?, error["code"].as_str()?)))
                .collect();
            let fits = (reply.status, reply.code().as_str()) == (422, "invalid_spec");
            if !fits || errors != [(pointer, code)] {
                let shown: String = fields.to_string().chars().take(100).collect();
                wrong.push(format!("{shown}: {} {errors:?}", reply.status));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(
        server.get("/jobs").await.json()["jobs"],
        json!([]),
        "none was accepted"
    );
}

#[tokio::test]
async fn all_mistakes_are_told_at_once_and_validating_creates_nothing() {
    let server = Server::start().await;
    let body = json!({"comand": ["x"], "nice": 99, "stop": {"grace_seconds": -1, "x": 1}});
    let reply = server.post("/jobs", &body).await;
    let mut pointers: Vec<String> = reply.json()["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["pointer"].as_str().unwrap().to_owned())
        .collect();
    pointers.sort();
    assert_eq!(
        pointers,
        [
            "/comand",
            "/command",
            "/nice",
            "/stop/grace_seconds",
            "/stop/x"
        ]
    );
    let good = server
        .post("/jobs/validate", &json!({"script": "exit 1", "name": "n"}))
        .await;
    assert_eq!(
        (good.status, &good.json()["valid"]),
        (200, &json!(true)),
        "{good}"
    );
    assert_eq!(
        good.json()["spec"]["shell"],
        json!(["/bin/sh", "-c"]),
        "{good}"
    );
    assert_eq!(server.get("/jobs").await.json()["jobs"], json!([]));
}

async fn post_raw(server: &Server, content_type: &str, body: impl Into<reqwest::Body>) -> Reply {
    let request = server.request(Method::POST, "/jobs").body(body);
    let request = match content_type {
        "" => request,
        some => request.header("content-type", some),
    };
    server.send(request).await
}

#[tokio::test]
async fn bodies_that_are_no_json_or_no_object_or_too_large_are_refused() {
    let server = Server::start().await;
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for body in [
        "",
        "{",
        "nonsense",
        "{\"command\": [\"a\",]}",
        "{'command': 1}",
        "{\"a\": 1} x",
        "\u{feff}{}",
        "{\"command\": [\"\\ud800\"]}",
        "{\"nice\": 01}",
        "{\"nice\": NaN}",
        &deep,
    ] {
        let reply = post_raw(&server, "application/json", body.to_owned()).await;
        let shown: String = body.chars().take(30).collect();
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (400, "invalid_json"),
            "{shown}"
        );
    }
    let reply = post_raw(
        &server,
        "application/json",
        b"{\"name\": \"\xff\"}".to_vec(),
    )
    .await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (400, "invalid_json"),
        "not UTF-8"
    );
    for (body, pointer) in [
        ("[]", ""),
        ("3", ""),
        ("null", ""),
        ("{\"nice\": 1, \"nice\": 2}", "/nice"),
    ] {
        let reply = post_raw(&server, "application/json", body).await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (422, "invalid_spec"),
            "{body}"
        );
        assert_eq!(
            reply.json()["errors"][0]["pointer"],
            pointer,
            "{body}: {reply}"
        );
    }
    for content_type in [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=latin1",
    ] {
        let reply = post_raw(&server, content_type, "{\"command\": [\"true\"]}").await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (415, "unsupported_media_type"),
            "{content_type}"
        );
    }
    for (coding, expected) in [("gzip", 415), ("gzip, identity", 415), ("identity", 201)] {
        let request = server.request(Method::POST, "/jobs");
        let request = request
            .header("Content-Type", "application/json")
            .header("Content-Encoding", coding);
        let reply = server.send(request.body("{\"command\": [\"true\"]}")).await;
        assert_eq!(reply.status, expected, "{coding}: {reply}");
        assert!(expected == 201 || reply.to_string().contains("Content-Encoding"));
    }
    let large = format!("{{\"script\": \"{}\"}}", "x".repeat(1 << 20));
    let reply = post_raw(&server, "application/json", large.clone()).await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (413, "body_too_large")
    );
    let pieces = large.into_bytes();
    let pieces = pieces
        .chunks(4096)
        .map(|piece| Ok::<_, std::io::Error>(piece.to_vec()));
    let stream = futures_util::stream::iter(pieces.collect::<Vec<_>>());
    let reply = post_raw(
        &server,
        "application/json",
        reqwest::Body::wrap_stream(stream),
    )
    .await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (413, "body_too_large"),
        "length not announced"
    );
}

#[tokio::test]
async fn unknown_jobs_paths_methods_and_parameters_are_told_apart() {
    let server = Server::start().await;
    let job = id(&server.run(&json!({"command": ["true"]})).await);
    for unknown in [
        "0198c1d2-7b3a-7c4e-9f10-2a6b3c4d5e6f",
        "1",
        "..",
        "%00",
        "a%2Fb",
        &"9".repeat(500),
    ] {
        for (method, below) in [
            (Method::GET, ""),
            (Method::DELETE, ""),
            (Method::GET, "/output"),
            (Method::GET, "/output/stdout"),
            (Method::GET, "/output/stderr"),
            (Method::GET, "/processes"),
        ] {
            // The client would take `..` for a step up.
            let unknown = if unknown == ".." {
                "%2e%2e%2f"
            } else {
                unknown
            };
            let path = format!("/jobs/{unknown}{below}");
            let reply = server.send(server.request(method.clone(), &path)).await;
            assert_eq!(
                (reply.status, reply.code().as_str()),
                (404, "job_not_found"),
                "{method} {path}"
            );
        }
    }
    let unknown = "/jobs/0198c1d2-7b3a-7c4e-9f10-2a6b3c4d5e6f/signal";
    let reply = server.post(unknown, &json!({"signal": "TERM"})).await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (404, "job_not_found")
    );
    for path in ["/job", "/jobs/", "/healthz/", "/metricsx", "/JOBS"] {
        let reply = server.get(path).await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (404, "not_found"),
            "{path}"
        );
    }
    for (method, path, allow) in [
        (Method::PUT, "/jobs".to_owned(), "GET, HEAD, POST"),
        (Method::DELETE, "/jobs".to_owned(), "GET, HEAD, POST"),
        (
            Method::POST,
            format!("/jobs/{job}"),
            "DELETE, GET, HEAD, PATCH",
        ),
        (Method::GET, format!("/jobs/{job}/signal"), "POST"),
        (Method::POST, format!("/jobs/{job}/output"), "GET, HEAD"),
        (Method::POST, "/healthz".to_owned(), "GET, HEAD"),
        (Method::DELETE, "/info".to_owned(), "GET, HEAD"),
    ] {
        let reply = server.send(server.request(method.clone(), &path)).await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (405, "method_not_allowed"),
            "{method} {path}"
        );
        let mut allowed: Vec<&str> = reply.header("allow").split(',').map(str::trim).collect();
        allowed.sort_unstable();
        assert_eq!(allowed.join(", "), allow, "{method} {path}");
    }
    for path in [
        "/jobs?sate=failed".to_owned(),
        "/jobs?state=done".to_owned(),
        "/jobs?page_size=0".to_owned(),
        "/jobs?page_size=x".to_owned(),
        "/jobs?page_size=1&page_size=2".to_owned(),
        "/jobs?order_by=name".to_owned(),
        "/jobs?idempotency_key=".to_owned(),
        format!("/jobs?idempotency_key={}", "x".repeat(256)),
        "/jobs?created_after=yesterday".to_owned(),
        "/jobs?label_selector=a%3D%3D%3Db".to_owned(),
        "/jobs?label_selector=in%20(".to_owned(),
        format!("/jobs/{job}?wiat=3"),
        format!("/jobs/{job}?wait=-1"),
        format!("/jobs/{job}?wait=inf"),
        format!("/jobs/{job}?until=done"),
        format!("/jobs/{job}?until=finished&after_version=1"),
        format!("/jobs/{job}/processes?x=1"),
        format!("/jobs/{job}/output/stdout?offset=1"),
        "/info?verbose".to_owned(),
        "/healthz?x".to_owned(),
    ] {
        let reply = server.get(&path).await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (400, "invalid_query"),
            "{path}"
        );
        assert!(
            reply.json()["errors"][0]["parameter"].is_string(),
            "{path}: {reply}"
        );
    }
    for query in [
        "grace_seconds=-1",
        "grace_seconds=86401",
        "signal=FOO",
        "force=maybe",
        "purge=2",
        "x=1",
    ] {
        let reply = server.delete(&job, query).await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (400, "invalid_query"),
            "{query}"
        );
    }
}

#[tokio::test]
async fn without_a_token_only_the_public_routes_answer() {
    let server = Server::start().await;
    let job = id(&server.run(&json!({"command": ["true"]})).await);
    let closed = [
        (Method::POST, "/jobs".to_owned()),
        (Method::GET, "/jobs".to_owned()),
        (Method::GET, format!("/jobs/{job}")),
        (Method::DELETE, format!("/jobs/{job}")),
        (Method::POST, format!("/jobs/{job}/signal")),
        (Method::GET, format!("/jobs/{job}/processes")),
        (Method::GET, format!("/jobs/{job}/output")),
        (Method::GET, format!("/jobs/{job}/output/stdout")),
        (Method::GET, format!("/jobs/{job}/output/stderr")),
        (Method::GET, "/info".to_owned()),
        // Whether a job exists is nobody's business either.
        (Method::GET, "/jobs/1".to_owned()),
    ];
    let almost = &server.token()[1..];
    for (method, path) in closed {
        for token in [
            "",
            "Bearer ",
            "Basic dXNlcjpwdw==",
            "Bearer wrong",
            &format!("Bearer {almost}"),
        ] {
            let mut request = server.anonymous(method.clone(), &path);
            if !token.is_empty() {
                request = request.header("authorization", token);
            }
            let reply = server.send(request).await;
            assert_eq!(
                (reply.status, reply.code().as_str()),
                (401, "unauthenticated"),
                "{method} {path}"
            );
        }
    }
    for path in ["/healthz", "/readyz", "/openapi.yaml"] {
        let reply = server.send(server.anonymous(Method::GET, path)).await;
        assert_eq!(reply.status, 200, "{path}");
    }
    let served = server.get("/openapi.yaml").await;
    assert_eq!(
        served.body,
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.yaml"))
    );
}

#[tokio::test]
async fn web_pages_and_foreign_hosts_are_kept_out() {
    let server = Server::start().await;
    let foreign = server
        .request(Method::GET, "/jobs")
        .header("host", "evil.example");
    let foreign = server.send(foreign).await;
    assert_eq!(
        (foreign.status, foreign.code().as_str()),
        (421, "host_not_allowed")
    );
    let page = server
        .request(Method::GET, "/healthz")
        .header("origin", "http://evil.example");
    let page = server.send(page).await;
    assert_eq!(
        (page.status, page.code().as_str()),
        (403, "origin_not_allowed")
    );
}

#[tokio::test]
async fn an_idempotency_key_must_be_visible_ascii() {
    let server = Server::start().await;
    for key in ["a b", "", &"k".repeat(256)] {
        let request = server
            .request(Method::POST, "/jobs")
            .header("idempotency-key", key)
            .json(&json!({"command": ["true"]}));
        let reply = server.send(request).await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (400, "invalid_header"),
            "{key:?}"
        );
    }
}

/// A client that shuts down its side of the connection is taken for gone, as one that was killed: what it asked for is
/// done, and it gets no answer.
#[tokio::test]
async fn a_client_that_half_closes_is_taken_for_gone_and_its_job_runs() {
    let server = Server::start().await;
    let body = json!({"command": ["sleep", unique_seconds()]}).to_string();
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    let head = format!(
        "POST /jobs?wait=600 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        server.token(),
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let job = eventually("its job runs", async || {
        let jobs = server.get("/jobs?state=running").await.json();
        jobs["jobs"].get(0).map(id)
    })
    .await;
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), "");
    assert_eq!(server.job(&job).await["state"], "running");
    server.stop(&job, "force").await;
}

/// Bytes that are no HTTP, or only half of it, must not disturb the service.
#[tokio::test]
async fn bytes_that_are_no_http_harm_nobody() {
    let server = Server::start().await;
    let token = server.token();
    for bytes in [
        "\0\0\0\0".to_owned(),
        "GET\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        format!(
            "GET /jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nX: {}\r\n\r\n",
            "x".repeat(64 << 10)
        ),
        format!(
            "POST /jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: -5\r\n\r\n"
        ),
        format!(
            "POST /jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n"
        ),
    ] {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let _ = stream.write_all(bytes.as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        let shown: String = bytes.chars().take(40).collect();
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{shown:?}: {answer}"
        );
    }
    let healthy = server.get("/healthz").await;
    assert_eq!(healthy.status, 200);
    assert_eq!(server.get("/jobs").await.json()["jobs"], json!([]));
    assert_eq!(server.get("/info").await.json()["server_restarts"], 0);
}
