//! What the page needs: its shell, sessions of browsers, tickets, hints, and many jobs in few numbers.

use futures_util::{SinkExt, StreamExt};
use reqwest::Method;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::harness::{LONG, Reply, Server, eventually, id, is_root, kill_now};

async fn with(server: &Server, method: Method, path: &str, token: &str, body: Value) -> Reply {
    let request = server.anonymous(method, path).bearer_auth(token);
    server.send(request.json(&body)).await
}

/// A code of `procession open`, with these arguments.
fn code(server: &Server, args: &[&str]) -> String {
    let mut command = server.client();
    let output = command.args(["open", "--print"]).args(args).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
    let address = String::from_utf8(output.stdout).unwrap();
    let (page, code) = address.trim().split_once("ui/signin#code=").unwrap();
    assert_eq!(page, format!("http://{}/", server.address()));
    code.to_owned()
}

async fn enter(server: &Server, body: &Value) -> Reply {
    let request = server.anonymous(Method::POST, "/session");
    server.send(request.json(body)).await
}

#[tokio::test]
async fn a_session_of_a_code_does_what_its_scope_says_and_ends() {
    let server = Server::start().await;
    let one = code(&server, &["--scope", "read"]);
    let made = enter(&server, &json!({"code": one, "browser": "a browser"})).await;
    assert_eq!(made.status, 201, "{made}");
    let token = made.json()["token"].as_str().unwrap().to_owned();
    assert_eq!(made.json()["scope"], "read");
    let again = enter(&server, &json!({"code": one})).await;
    assert_eq!(
        (again.status, again.code().as_str()),
        (401, "unauthenticated")
    );

    let who = with(&server, Method::GET, "/session", &token, json!({})).await;
    assert_eq!(who.json()["by"], "session", "{who}");
    let refused = with(
        &server,
        Method::POST,
        "/jobs",
        &token,
        json!({"command": ["true"]}),
    )
    .await;
    assert_eq!(refused.status, 403, "{refused}");
    // A session makes none: it would outlive its own end.
    let more = with(&server, Method::POST, "/session/codes", &token, json!({})).await;
    assert_eq!(more.status, 403, "{more}");
    let more = enter(&server, &json!({"token": token})).await;
    assert_eq!(more.status, 401, "{more}");

    let list = with(&server, Method::GET, "/sessions", &token, json!({})).await;
    assert_eq!(list.json()["sessions"][0]["browser"], "a browser", "{list}");
    assert_eq!(list.json()["sessions"][0]["current"], true);

    let out = with(&server, Method::DELETE, "/session", &token, json!({})).await;
    assert_eq!(out.status, 204, "{out}");
    let gone = with(&server, Method::GET, "/session", &token, json!({})).await;
    assert_eq!(gone.status, 401, "{gone}");
}

#[tokio::test]
async fn a_session_outlives_the_server_and_ends_with_its_token() {
    let server = Server::start().await;
    let mut command = server.client();
    command.args(["token", "create", "--name", "parent", "--scope", "operate"]);
    let output = command.output().unwrap();
    let parent = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    // A new token is noticed within a second.
    let session = eventually("the new token", async || {
        let made = enter(&server, &json!({"token": parent})).await;
        made.json()["token"].as_str().map(str::to_owned)
    })
    .await;
    kill_now(server.server_process().unwrap());
    eventually("the next server", async || {
        let request = server
            .anonymous(Method::GET, "/session")
            .bearer_auth(&session);
        let answer = server.try_send(request).await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await;
    let mut command = server.client();
    let revoked = command
        .args(["token", "revoke", "parent"])
        .output()
        .unwrap();
    assert!(revoked.status.success(), "{revoked:?}");
    eventually("the end of the session", async || {
        let request = server
            .anonymous(Method::GET, "/session")
            .bearer_auth(&session);
        (server.send(request).await.status == 401).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_ticket_is_good_once_for_one_path_and_saves_a_file() {
    let server = Server::start().await;
    let job = server.run_script("echo hello").await;
    let path = format!("/jobs/{}/output", id(&job));
    let issue = async || {
        let made = server
            .post("/session/tickets", &json!({"path": path}))
            .await;
        assert_eq!(made.status, 201, "{made}");
        made.json()["ticket"].as_str().unwrap().to_owned()
    };
    let ask = async |path: &str, ticket: &str, method: Method| {
        let request = server.anonymous(method, path);
        server
            .send(request.query(&[("ticket", ticket), ("download", "a.log")]))
            .await
    };
    let ticket = issue().await;
    let saved = ask(&path, &ticket, Method::GET).await;
    assert_eq!(
        (saved.status, saved.body.as_slice()),
        (200, b"hello\n".as_slice())
    );
    assert_eq!(
        saved.header("content-disposition"),
        "attachment; filename=\"a.log\""
    );
    assert_eq!(ask(&path, &ticket, Method::GET).await.status, 401);
    let other = issue().await;
    let stdout = format!("{path}/stdout");
    assert_eq!(ask(&stdout, &other, Method::GET).await.status, 401);
    let bad = server
        .post("/session/tickets", &json!({"path": "/jobs"}))
        .await;
    assert_eq!(bad.status, 422, "{bad}");
    for name in ["a/b", ".x", "a\"b", ""] {
        let request = server
            .request(Method::GET, &path)
            .query(&[("download", name)]);
        assert_eq!(server.send(request).await.status, 400, "{name}");
    }
}

#[tokio::test]
async fn the_shell_is_for_everybody_and_for_no_frame() {
    let server = Server::start().await;
    // The page has no nodes to show.
    let features = server.get("/info").await.json()["features"].clone();
    assert!(!features.to_string().contains("\"nodes\""), "{features}");
    for (path, base) in [
        ("/ui/", "./"),
        ("/ui/jobs", "./"),
        ("/ui/jobs/x", "../"),
        ("/ui/batches", "./"),
        ("/ui/batches/x", "../"),
        ("/ui/schedules", "./"),
        ("/ui/schedules/x", "../"),
        ("/ui/nodes", "./"),
        // The filters of the list are in its address.
        (
            "/ui/jobs?state=failed&label=a&name=b&queue=c&batch=d&schedule=e&after=f&before=g&order=asc",
            "./",
        ),
        ("/ui/run", "./"),
    ] {
        let shell = server.send(server.anonymous(Method::GET, path)).await;
        assert_eq!(
            (shell.status, shell.content_type()),
            (200, "text/html"),
            "{path}"
        );
        let policy = shell.header("content-security-policy").to_owned();
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self'; "),
            "{policy}"
        );
        for word in ["unsafe", "http:", "*"] {
            assert!(!policy.contains(word), "{policy}");
        }
        assert!(
            policy.contains("require-trusted-types-for 'script'"),
            "{policy}"
        );
        assert_eq!(shell.header("x-frame-options"), "DENY");
        let body = String::from_utf8(shell.body).unwrap();
        assert!(body.contains(&format!("<base href=\"{base}\">")), "{body}");
        let nonce = policy
            .split("'nonce-")
            .nth(1)
            .unwrap()
            .split('\'')
            .next()
            .unwrap();
        assert!(body.contains(nonce), "{body}");
    }
    let from_elsewhere = async |path: &str, dest: &str, mode: &str, method: Method| {
        let request = server.anonymous(method, path);
        let request = request.header("Sec-Fetch-Site", "cross-site");
        let request = request
            .header("Sec-Fetch-Mode", mode)
            .header("Sec-Fetch-Dest", dest);
        server.send(request).await.status
    };
    assert_eq!(
        from_elsewhere("/ui/jobs", "document", "navigate", Method::GET).await,
        200
    );
    let shell = server.send(server.anonymous(Method::GET, "/ui/")).await;
    let shell = String::from_utf8(shell.body.to_vec()).unwrap();
    let (_, icon) = shell.split_once("href=\"assets/favicon").unwrap();
    let (icon, _) = icon.split_once('"').unwrap();
    let icon = format!("/ui/assets/favicon{icon}");
    for (path, dest, mode, method) in [
        ("/ui/jobs", "iframe", "navigate", Method::GET),
        ("/ui/jobs", "document", "no-cors", Method::GET),
        ("/ui/jobs", "empty", "cors", Method::GET),
        (icon.as_str(), "document", "navigate", Method::GET),
        ("/healthz", "document", "navigate", Method::GET),
        ("/jobs", "document", "navigate", Method::GET),
        ("/session", "document", "navigate", Method::POST),
    ] {
        assert_eq!(
            from_elsewhere(path, dest, mode, method).await,
            403,
            "{path} {dest} {mode}"
        );
    }
    let icon = server.anonymous(Method::GET, &icon);
    let icon = server.send(icon).await;
    assert_eq!((icon.status, icon.content_type()), (200, "image/svg+xml"));
    let none = server
        .send(server.anonymous(Method::GET, "/ui/assets/..%2f"))
        .await;
    assert_eq!(none.status, 404);
}

#[tokio::test]
async fn jobs_are_listed_without_specs_and_counted() {
    let server = Server::start().await;
    let script = "x".repeat(100_000);
    let job = json!({"script": format!("exit 0\n{script}"), "name": "an-ordinary-name", "labels": {"a": "b"}});
    server.run(&job).await;
    server
        .run(&json!({"command": ["false"], "labels": {"a": "b"}}))
        .await;
    server.run(&json!({"command": ["false"]})).await;
    let running = server.submit(&json!({"command": ["sleep", "60"]})).await;
    let list = server.get("/jobs?view=basic").await;
    assert!(list.body.len() < 8000, "{}", list.body.len());
    let jobs = list.json()["jobs"].as_array().unwrap().clone();
    assert_eq!(jobs.len(), 4);
    assert_eq!(jobs[3]["command"].as_str().unwrap().chars().count(), 200);
    for job in &jobs {
        assert!(job.to_string().len() < 1000, "{job:#}");
    }
    assert_eq!(server.get("/jobs?view=x").await.code(), "invalid_query");
    let count = async |query: &str, state: &str| {
        let counts = server.get(&format!("/jobs/counts{query}")).await.json();
        let found = counts["counts"]
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["state"] == state);
        found.unwrap()["count"].as_u64().unwrap()
    };
    assert_eq!(count("", "failed").await, 2);
    assert_eq!(count("", "running").await, 1);
    assert_eq!(count("?label_selector=a%3Db", "failed").await, 1);
    assert_eq!(
        count("?limit=1", "failed").await,
        2,
        "without a filter it costs nothing"
    );
    let usage = server
        .get(&format!("/jobs/usage?job_ids={}", id(&running)))
        .await
        .json();
    assert_eq!(usage["usage"][0]["processes"], 1, "{usage:#}");
    assert_eq!(server.get("/jobs/usage").await.status, 400);
    server.stop(&id(&running), "force").await;
}

#[tokio::test]
async fn a_log_is_searched_and_its_lines_are_found() {
    let server = Server::start().await;
    let script = "seq 1 200000; echo Needle in a haystack >&2";
    let job = server
        .run(&json!({"script": script, "output": {"merge_stderr": true}}))
        .await;
    let path = format!("/jobs/{}/output", id(&job));
    let search = async |query: &str| {
        let answer = server.get(&format!("{path}/search?{query}")).await;
        assert_eq!(answer.status, 200, "{answer}");
        let text = String::from_utf8(answer.body).unwrap();
        let records: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let matches = records.iter().filter(|one| one["type"] == "match").count();
        assert_eq!(records.last().unwrap()["matches"], matches);
        records
    };
    let found = search("q=needle").await;
    let output = server.output(&id(&job)).await;
    let at = output
        .windows(6)
        .position(|bytes| bytes == b"Needle")
        .unwrap();
    assert_eq!(
        found[0],
        json!({"type": "match", "offset": at, "length": 6})
    );
    assert_eq!(search("q=needle&case").await.len(), 1);
    assert_eq!(
        search("q=%5E1%2B%24&regex").await.len(),
        7,
        "1 to 111111, and the end"
    );
    assert_eq!(search("q=1&limit=3").await.len(), 4);
    assert_eq!(
        server.get(&format!("{path}/search?q=(&regex")).await.code(),
        "invalid_query"
    );
    assert_eq!(
        server.get(&format!("{path}/search")).await.code(),
        "invalid_query"
    );
    let place = async |query: &str| server.get(&format!("{path}/place?{query}")).await.json();
    let line = place("line=123456").await;
    let offset = usize::try_from(line["offset"].as_u64().unwrap()).unwrap();
    assert!(output[offset..].starts_with(b"123456\n"), "{line}");
    assert_eq!(place(&format!("offset={offset}")).await["line"], 123_456);
    assert_eq!(place("line=1").await, json!({"line": 1, "offset": 0}));
    assert_eq!(place("at=2020-01-01T00:00:00Z").await["offset"], 0);
    assert_eq!(server.get(&format!("{path}/place")).await.status, 400);
}

#[tokio::test]
async fn hints_tell_what_is_newer() {
    let server = Server::start().await;
    let job = server
        .submit(&json!({"script": "read x; echo hello", "stdin": {"mode": "open"}}))
        .await;
    let id = id(&job);
    let made = server
        .post("/session/tickets", &json!({"path": "/live"}))
        .await;
    let ticket = made.json()["ticket"].as_str().unwrap().to_owned();
    let address = format!("ws://{}/live?ticket={ticket}", server.address());
    let mut request = address.into_client_request().unwrap();
    let protocol = "procession.hints.v1".parse().unwrap();
    request
        .headers_mut()
        .insert("Sec-WebSocket-Protocol", protocol);
    let stream = tokio::net::TcpStream::connect(server.address())
        .await
        .unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async(request, stream)
        .await
        .unwrap();
    let watch = json!({"watch": ["events", format!("job:{id}"), format!("output:{id}")]});
    socket.send(Message::text(watch.to_string())).await.unwrap();
    let mut hear = async |wanted: &dyn Fn(&Value) -> bool| {
        tokio::time::timeout(LONG, async {
            loop {
                let message = socket.next().await.unwrap().unwrap();
                if let Message::Text(text) = message {
                    let hint: Value = serde_json::from_str(&text).unwrap();
                    if wanted(&hint) {
                        return hint;
                    }
                }
            }
        })
        .await
        .unwrap()
    };
    let first = hear(&|hint| hint["job"] == id.as_str()).await;
    // Who reads what is told of the job after each hint has all of it after the last.
    for (act, kind) in [("pause", "job.paused"), ("resume", "job.resumed")] {
        server.post(&format!("/jobs/{id}/{act}"), &json!({})).await;
        loop {
            hear(&|hint| hint["job"] == id.as_str()).await;
            let told = server.get(&format!("/jobs/{id}/events?follow=false")).await;
            if told.to_string().contains(kind) {
                break;
            }
        }
    }
    let request = server.request(Method::POST, &format!("/jobs/{id}/stdin?eof"));
    server.send(request.body("x\n")).await;
    hear(&|hint| {
        hint["output"] == id.as_str() && hint["next_offset"] == 6 && hint["complete"] == true
    })
    .await;
    let version = first["version"].as_u64().unwrap();
    assert!(server.finished(&id).await["version"].as_u64().unwrap() > version);
    server.run(&json!({"command": ["true"]})).await;
    let mut last = 0;
    for _ in 0..2 {
        let hint = hear(&|hint| hint["events"].is_string()).await;
        let cursor: u64 = hint["events"].as_str().unwrap().parse().unwrap();
        assert!(cursor > last);
        last = cursor;
        server.run(&json!({"command": ["true"]})).await;
    }
}

#[tokio::test]
async fn info_says_what_whoever_operates_the_service_should_know() {
    let root: &[&str] = if is_root() { &["root_jobs"] } else { &[] };
    let server = Server::start().await;
    let notices = |info: Value| info["notices"].clone();
    assert_eq!(notices(server.get("/info").await.json()), json!(root));
    let most = i64::MAX.to_string();
    let server = Server::builder()
        .args(["--deny-root-jobs", "--min-free-bytes", &most])
        .start()
        .await;
    let info = server.get("/info").await.json();
    assert_eq!(notices(info), json!(["no_room"]));
}

#[tokio::test]
async fn a_ticket_saves_a_file_of_a_workspace_and_all_of_them() {
    let server = Server::start().await;
    let job =
        json!({"script": "mkdir out; echo hello >'out/a b.txt'", "workspace": {"keep": "all"}});
    let job = server.run(&job).await;
    let files = format!("/jobs/{}/files", id(&job));
    for (tail, kind) in [
        ("/out/a%20b.txt", "application/octet-stream"),
        (".tar", "application/x-tar"),
        (".tar.gz", "application/gzip"),
        (".zip", "application/zip"),
    ] {
        let path = format!("{files}{tail}");
        let made = server
            .post("/session/tickets", &json!({"path": path}))
            .await;
        assert_eq!(made.status, 201, "{made}");
        let ticket = made.json()["ticket"].as_str().unwrap().to_owned();
        let ask = async || {
            let request = server.anonymous(Method::GET, &path);
            server.send(request.query(&[("ticket", &ticket)])).await
        };
        let saved = ask().await;
        assert_eq!((saved.status, saved.content_type()), (200, kind), "{saved}");
        assert!(
            saved
                .header("content-disposition")
                .starts_with("attachment")
        );
        assert_eq!(ask().await.status, 401, "{path}");
    }
    let list = server
        .post("/session/tickets", &json!({"path": files}))
        .await;
    assert_eq!(list.status, 422, "{list}");
}
