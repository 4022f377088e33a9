//! How an answer is written down: as text or as bytes, compressed or as it is.

use std::io::Read;

use flate2::read::GzDecoder;
use futures_util::StreamExt;
use reqwest::header::{HeaderMap, HeaderName};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::harness::{Server, id};

async fn asked(server: &Server, path: &str, headers: &[(&str, &str)]) -> Response {
    let mut request = server.request(Method::GET, path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap()
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
    headers
        .get(name)
        .map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn output_is_text_only_if_it_begins_so() {
    const TEXT: &str = "text/plain; charset=utf-8";
    const BYTES: &str = "application/octet-stream";
    let server = Server::start().await;
    let text = id(&server.run_script("printf 'caf\\303\\251\\n'").await);
    let bytes = id(&server.run_script("printf 'a\\000b'; echo text >&2").await);
    let latin = id(&server.run_script("printf 'caf\\351\\n'").await);
    let none = id(&server.run_script("true").await);
    for (job, path, accept, expected) in [
        (&text, "", "*/*", TEXT),
        (&text, "/stdout", "*/*", TEXT),
        (&text, "", BYTES, BYTES),
        (&none, "", "*/*", TEXT),
        (&none, "/stdout", "*/*", TEXT),
        (&bytes, "", "*/*", BYTES),
        (&bytes, "?tail_bytes=1", "*/*", BYTES),
        (&bytes, "?follow", "*/*", BYTES),
        (&bytes, "?timestamps", "*/*", BYTES),
        (&bytes, "/stdout", "*/*", BYTES),
        (&bytes, "/stdout", "text/plain, */*;q=0.5", BYTES),
        (&bytes, "/stderr", "*/*", TEXT),
        (&bytes, "?stream=stderr", "*/*", TEXT),
        // Nothing else is taken: no type, then, that says what these bytes are not.
        (&bytes, "/stdout", "text/plain", "text/plain"),
        (&latin, "/stdout", "*/*", BYTES),
    ] {
        let path = format!("/jobs/{job}/output{path}");
        let answer = asked(&server, &path, &[("accept", accept)]).await;
        let kind = header(answer.headers(), "content-type");
        assert_eq!(kind, expected, "{path} {accept}");
        assert_eq!(
            header(answer.headers(), "x-content-type-options"),
            "nosniff"
        );
    }
    // A part has the type of the whole.
    let path = format!("/jobs/{bytes}/output/stdout");
    let part = asked(&server, &path, &[("range", "bytes=0-0")]).await;
    assert_eq!(part.status(), 206);
    assert_eq!(header(part.headers(), "content-type"), BYTES);
    assert_eq!(&part.bytes().await.unwrap()[..], b"a");
}

const GZIP: (&str, &str) = ("accept-encoding", "gzip");

/// The answer to one who takes gzip, and whether that was used.
async fn compressed(server: &Server, path: &str) -> (bool, Vec<u8>) {
    let answer = asked(server, path, &[GZIP]).await;
    assert_eq!(answer.status(), 200, "{path}");
    let is_compressed = header(answer.headers(), "content-encoding") == "gzip";
    let bytes = answer.bytes().await.unwrap().to_vec();
    if !is_compressed {
        return (false, bytes);
    }
    let mut plain = Vec::new();
    GzDecoder::new(&bytes[..]).read_to_end(&mut plain).unwrap();
    assert!(bytes.len() < plain.len() / 2, "{path}: {}", bytes.len());
    (true, plain)
}

#[tokio::test]
async fn large_documents_are_compressed_and_what_is_followed_or_cut_never() {
    let server = Server::start().await;
    let words = "word ".repeat(2000);
    let body = json!({"script": format!("printf '{words}'"), "env": {"A": words}});
    let mut job = Value::Null;
    for _ in 0..5 {
        job = server.run(&body).await;
    }
    let job = id(&job);
    for path in [
        "/jobs",
        "/jobs?view=basic&page_size=5",
        "/openapi.yaml",
        "/metrics",
    ] {
        let whole = asked(&server, path, &[]).await;
        assert_eq!(header(whole.headers(), "content-encoding"), "", "{path}");
        let whole = whole.bytes().await.unwrap();
        let (is_compressed, plain) = compressed(&server, path).await;
        assert_eq!(
            is_compressed,
            whole.len() >= 4096,
            "{path}: {}",
            whole.len()
        );
        if path != "/metrics" {
            assert!(plain == whole, "{path}: is something else without gzip");
        }
    }
    let head = asked(&server, "/jobs", &[GZIP]).await;
    assert!(header(head.headers(), "vary").contains("accept-encoding"));
    // It has an ETag of its bytes; output is counted, cut and followed; a token is a secret.
    for path in [
        "",
        "/output",
        "/output/stdout",
        "/output?follow",
        "/output?timestamps",
    ] {
        let path = format!("/jobs/{job}{path}");
        let (is_compressed, plain) = compressed(&server, &path).await;
        assert!(!is_compressed && plain.len() > 9000, "{path}");
    }
    let path = format!("/jobs/{job}/output/stdout");
    let part = asked(&server, &path, &[GZIP, ("range", "bytes=0-8999")]).await;
    assert_eq!(part.status(), 206);
    assert_eq!(header(part.headers(), "content-encoding"), "");
    assert_eq!(header(part.headers(), "content-length"), "9000");
    for accept in ["text/event-stream", "application/x-ndjson"] {
        let path = format!("/jobs/{job}/output?follow");
        let answer = asked(&server, &path, &[GZIP, ("accept", accept)]).await;
        assert_eq!(header(answer.headers(), "content-encoding"), "", "{accept}");
    }
    let token = server
        .request(Method::POST, "/tokens")
        .header(GZIP.0, GZIP.1)
        .json(&json!({"name": "ci", "scope": "read"}));
    let token = token.send().await.unwrap();
    assert_eq!(token.status(), 201);
    assert_eq!(header(token.headers(), "content-encoding"), "");
}

#[tokio::test]
async fn who_follows_and_takes_gzip_has_each_line_at_once() {
    let server = Server::start().await;
    let script = "echo first; read line; echo second";
    let job = id(&server
        .submit(&json!({"script": script, "stdin": {"mode": "open"}}))
        .await);
    for accept in ["text/plain", "application/x-ndjson", "text/event-stream"] {
        let path = format!("/jobs/{job}/output?follow");
        let answer = asked(&server, &path, &[GZIP, ("accept", accept)]).await;
        assert_eq!(header(answer.headers(), "content-encoding"), "", "{accept}");
        let mut body = answer.bytes_stream();
        let mut seen = Vec::new();
        // The job waits for us: what does not come by itself would never come.
        while !String::from_utf8_lossy(&seen).contains("first") {
            seen.extend_from_slice(&body.next().await.unwrap().unwrap());
        }
    }
    server.stop(&job, "force").await;
}
