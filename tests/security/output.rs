//! What a job writes, and what a client names, is data to everybody who is shown it.

use serde_json::{Value, json};

use crate::reply::id;
use crate::server::{Answer, Server};

const PAGE: &str = "<html><script>alert(1)</script>";

fn job(server: &Server, body: &Value) -> Answer {
    let made = server.ask(&server.token, "POST", "/jobs?wait=30", &body.to_string());
    assert_eq!(made.status, 201, "{made:?}");
    made
}

/// A browser that is shown an answer runs nothing of it, and nobody keeps it.
fn assert_inert(answer: &Answer) {
    let header = |name: &str| answer.reply.header(name).to_owned();
    assert_eq!(header("x-content-type-options"), "nosniff", "{answer:?}");
    assert!(
        header("cache-control").starts_with("no-store"),
        "{answer:?}"
    );
    let policy = header("content-security-policy");
    assert!(
        policy.contains("default-src 'none'") && policy.contains("sandbox"),
        "{answer:?}"
    );
    assert!(!header("content-type").contains("html"), "{answer:?}");
    assert!(header("access-control-allow-origin").is_empty());
}

#[test]
fn output_that_looks_like_a_page_is_none() {
    let server = Server::start();
    let made = job(
        &server,
        &json!({"command": ["/bin/echo", PAGE], "name": PAGE}),
    );
    assert_inert(&made);
    let job = id(&made.reply.json());
    for path in ["output", "output/stdout", "output/stderr", "processes", ""] {
        let path = format!("/jobs/{job}/{path}");
        let answer = server.ask(&server.token, "GET", path.trim_end_matches('/'), "");
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_inert(&answer);
    }
    assert_inert(&server.ask("", "GET", "/openapi.yaml", ""));
    assert_inert(&server.ask("", "GET", &format!("/{}", "%3Cscript%3E"), ""));
    server.assert_unharmed();
}

#[test]
fn output_that_looks_like_a_record_is_none() {
    let server = Server::start();
    let lies = "{\"type\":\"end\",\"state\":\"succeeded\"}\nevent: end\ndata: {}\n\nid: 0-end\r\rdata: x\u{2028}\u{1b}[2J";
    let made = job(
        &server,
        &json!({"command": ["/usr/bin/printf", "%s", lies]}),
    );
    let job = id(&made.reply.json());
    let ask = |accept: &str| {
        let request = format!(
            "GET /jobs/{job}/output?follow HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nAccept: {accept}\r\n\r\n",
            server.token
        );
        let answer = server.raw(request.as_bytes()).remove(0);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_inert(&answer);
        answer.body
    };
    let texts = |lines: Vec<&str>| -> (String, usize) {
        let records = lines.iter().map(|line| serde_json::from_str(line).unwrap());
        let records: Vec<Value> = records.collect();
        let ends = records.iter().filter(|record| record["type"] == "end");
        let ends = ends.count();
        let texts = records.iter().filter_map(|record| record["text"].as_str());
        (texts.collect(), ends)
    };
    let lines = ask("application/x-ndjson");
    assert_eq!(texts(lines.lines().collect()), (lies.to_owned(), 1));
    let events = ask("text/event-stream");
    let data: Vec<&str> = events
        .split(['\n', '\r'])
        .filter_map(|line| line.strip_prefix("data: "))
        .collect();
    assert_eq!(texts(data), (lies.to_owned(), 1), "{events}");
}

#[test]
fn nothing_that_a_client_names_disturbs_a_log() {
    let server = Server::start();
    for id in ["a\"b", "a b", "\u{1b}[2J", &"x".repeat(129)] {
        let request = format!(
            "DELETE /jobs/x HTTP/1.1\r\nHost: localhost\r\nRequest-Id: {id}\r\nConnection: close\r\n\r\n"
        );
        let answer = server.raw(request.as_bytes()).remove(0);
        if answer.status != 400 {
            assert_ne!(answer.reply.header("request-id"), id);
        }
    }
    let path = "/jobs/%22%0a%7b%22actor%22:%22root%22%7d%0a";
    assert_eq!(server.ask("", "DELETE", path, "").status, 401);
    let audit = std::fs::read_to_string(server.state_dir().join("audit.jsonl")).unwrap();
    for line in audit.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_ne!(line["actor"], "root");
    }
    assert!(!audit.contains('\u{1b}') && !server.log().contains("[2J"));
    server.assert_untouched();
}
