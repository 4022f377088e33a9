//! Every route of `openapi.yaml` for every kind of caller, and answers that last longer than a token.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::reply::id;
use crate::server::{LONG, Server, run};
use crate::tokens::eventually;

/// Those that include the ones before them.
const LADDER: [&str; 4] = ["metrics", "read", "operate", "admin"];

/// That of a node of a cluster, which includes nothing and is in nothing.
const RUNNER: &str = "runner";

/// A token of this name and scope, once the service knows it.
fn token(server: &Server, name: &str, scope: &str, expires: &str) -> String {
    let state_dir = server.state_dir();
    let line = ["token", "create", "--name", name, "--scope", scope];
    let line = [&line[..], &["--expires", expires]].concat();
    let (code, token) = run(&line, &state_dir);
    assert_eq!(code, 0);
    token
}

/// Method, path and scope of every route; no scope where everyone may come.
fn routes() -> Vec<(String, String, Option<String>)> {
    let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.yaml"));
    let description: Value = serde_norway::from_str(text).unwrap();
    let mut routes = Vec::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if method != "parameters" {
                let scope = operation["security"][0]["bearer"][0].as_str();
                let path = path.replace("{id}", "0198c1d2-7b3a-7c4e-9f10-2a6b3c4d5e6f");
                routes.push((method.to_uppercase(), path, scope.map(str::to_owned)));
            }
        }
    }
    routes
}

#[test]
fn every_route_opens_to_those_whose_scope_reaches_and_to_nobody_else() {
    // A hub has every route that there is.
    let server = Server::with(&["--cluster=local"]);
    let mut callers: Vec<(&str, String)> = LADDER
        .into_iter()
        .chain([RUNNER])
        .map(|scope| (scope, token(&server, scope, scope, "1h")))
        .collect();
    let revoked = token(&server, "revoked", "admin", "1h");
    let expired = token(&server, "expired", "admin", "4s");
    for (_, token) in &callers[1..LADDER.len()] {
        eventually(&server, token, 200);
    }
    for late in [&revoked, &expired] {
        eventually(&server, late, 200);
    }
    assert_eq!(
        run(&["token", "revoke", "revoked"], &server.state_dir()).0,
        0
    );
    for late in [&revoked, &expired] {
        eventually(&server, late, 401);
    }
    callers.extend([
        ("nobody", String::new()),
        ("a stranger", "0".repeat(43)),
        ("revoked", revoked),
        ("expired", expired),
    ]);
    let rank = |scope: &str| LADDER.iter().position(|one| *one == scope);
    let routes = routes();
    let mut wrong = Vec::new();
    for (method, path, needed) in &routes {
        for (caller, token) in &callers {
            // Looked at right after the access: whoever gets that far is let in, and nothing happens.
            let target = format!("{path}?matrix=1");
            let answer = server.ask(token, method, &target, &server.canary_body());
            let expected = match (needed, rank(caller)) {
                (None, _) => (400, "invalid_query"),
                (Some(needed), _) if *caller == RUNNER && needed == RUNNER => {
                    (400, "invalid_query")
                }
                (Some(_), _) if *caller == RUNNER => (403, "forbidden"),
                (Some(needed), Some(_)) if needed == RUNNER => (403, "forbidden"),
                (Some(_), None) => (401, "unauthenticated"),
                (Some(needed), have) if have >= rank(needed) => (400, "invalid_query"),
                (Some(_), Some(_)) => (403, "forbidden"),
            };
            let found = answer.problem();
            if (found.0, found.1.as_str()) != expected {
                wrong.push(format!("{method} {path} as {caller}: {found:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    eprintln!("{} routes, {} callers", routes.len(), callers.len());
    server.assert_untouched();
}

/// Opens an answer that goes on, and reads until its first byte of a body.
fn follow(server: &Server, token: &str, path: &str, accept: &str) -> TcpStream {
    let mut stream = server.connect();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nAccept: {accept}\r\n\r\n"
    )
    .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
    stream
}

/// Each of them ends, without the mark of an answer that is complete.
fn assert_broken_off(streams: Vec<(String, TcpStream)>, begin: Instant) {
    for (name, mut stream) in streams {
        stream.set_read_timeout(Some(LONG)).unwrap();
        let mut rest = Vec::new();
        let mut piece = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut piece) {
            rest.extend_from_slice(&piece[..length]);
            let took = begin.elapsed();
            assert!(took < Duration::from_secs(5), "{name} goes on: {took:?}");
        }
        assert!(!rest.ends_with(b"\r\n0\r\n\r\n"), "{name} ended in order");
    }
}

#[test]
fn what_is_followed_ends_within_five_seconds_of_the_end_of_its_token() {
    let server = Server::start();
    let body = r#"{"script":"while echo tick; do sleep 0.1; done"}"#;
    let job = server.ask(&server.token, "POST", "/jobs", body);
    let job = id(&job.reply.json());
    let open = |token: &str| {
        let paths = [
            (format!("/jobs/{job}/output?follow"), "text/plain"),
            (format!("/jobs/{job}/output?follow"), "application/x-ndjson"),
            (format!("/jobs/{job}/output"), "text/event-stream"),
            (format!("/jobs/{job}/events"), "text/event-stream"),
            ("/events".to_owned(), "text/event-stream"),
        ];
        paths
            .map(|(path, accept)| {
                let stream = follow(&server, token, &path, accept);
                (format!("{path} as {accept}"), stream)
            })
            .into()
    };
    let revoked = token(&server, "eyes", "read", "1h");
    eventually(&server, &revoked, 200);
    let streams: Vec<(String, TcpStream)> = open(&revoked);
    let begin = Instant::now();
    assert_eq!(run(&["token", "revoke", "eyes"], &server.state_dir()).0, 0);
    assert_broken_off(streams, begin);
    let begin = Instant::now();
    let expiring = token(&server, "for-a-moment", "read", "4s");
    eventually(&server, &expiring, 200);
    let streams = open(&expiring);
    // From its creation: four seconds, and then the time to notice.
    assert_broken_off(streams, begin + Duration::from_secs(4));
    server.assert_unharmed();
}
