//! Requests that two readers could understand differently, or that nobody should send.

use crate::server::Server;

/// What it is, the bytes, and status and code of every answer.
type Case<'a> = (&'a str, String, &'a [(u16, &'a str)]);

#[test]
fn odd_requests_are_refused_and_nothing_runs() {
    let server = Server::start();
    let auth = format!(
        "Authorization: Bearer {}\r\nContent-Type: application/json\r\nConnection: close\r\n",
        server.token
    );
    let body = server.canary_body();
    let length = body.len();
    let post = |head: &str, tail: &str| format!("POST /jobs HTTP/1.1\r\n{head}{auth}\r\n{tail}");
    let table: &[Case<'_>] = &[
        (
            "no Host",
            post(&format!("Content-Length: {length}\r\n"), &body),
            &[(421, "host_not_allowed")],
        ),
        (
            "two Hosts",
            post(
                &format!("Host: localhost\r\nHost: localhost\r\nContent-Length: {length}\r\n"),
                &body,
            ),
            &[(421, "host_not_allowed")],
        ),
        (
            "two Hosts, one foreign",
            post(
                &format!("Host: localhost\r\nHost: evil.example\r\nContent-Length: {length}\r\n"),
                &body,
            ),
            &[(421, "host_not_allowed")],
        ),
        (
            "a foreign Host",
            post(
                &format!("Host: evil.example\r\nContent-Length: {length}\r\n"),
                &body,
            ),
            &[(421, "host_not_allowed")],
        ),
        (
            "a target that contradicts Host",
            format!(
                "POST http://evil.example/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{auth}\r\n{body}"
            ),
            &[(421, "host_not_allowed")],
        ),
        (
            "two lengths",
            post(
                &format!("Host: localhost\r\nContent-Length: {length}\r\nContent-Length: 1\r\n"),
                &body,
            ),
            &[(400, "")],
        ),
        (
            "a signed length",
            post(
                &format!("Host: localhost\r\nContent-Length: +{length}\r\n"),
                &body,
            ),
            &[(400, "")],
        ),
        (
            "two lengths in one header",
            post(
                &format!("Host: localhost\r\nContent-Length: {length}, {length}\r\n"),
                &body,
            ),
            &[(400, "")],
        ),
        (
            "an unknown transfer coding",
            post(
                &format!(
                    "Host: localhost\r\nTransfer-Encoding: identity\r\nContent-Length: {length}\r\n"
                ),
                &body,
            ),
            &[(400, "")],
        ),
        (
            "chunked that is not last",
            post(
                "Host: localhost\r\nTransfer-Encoding: chunked, gzip\r\n",
                "0\r\n\r\n",
            ),
            &[(400, "")],
        ),
        (
            "a line feed in a header's name",
            post(
                &format!("Host: localhost\r\nX-A\nB: c\r\nContent-Length: {length}\r\n"),
                &body,
            ),
            &[(400, "")],
        ),
        (
            "a space before the colon",
            post(
                &format!("Host: localhost\r\nContent-Length : {length}\r\n"),
                &body,
            ),
            &[(400, "")],
        ),
        (
            "no HTTP",
            "\u{16}\u{3}\u{1}\u{2}\r\n\r\n".to_owned(),
            &[(400, "")],
        ),
        (
            "a wrong version",
            format!("POST /jobs HTTP/3.0\r\nHost: localhost\r\n{auth}\r\n"),
            &[(400, "")],
        ),
        (
            "two Authorization headers",
            post(
                &format!(
                    "Host: localhost\r\nAuthorization: Bearer x\r\nContent-Length: {length}\r\n"
                ),
                &body,
            ),
            &[(401, "unauthenticated")],
        ),
        (
            "an upgrade that hides a request",
            "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close, Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n".to_owned(),
            &[(200, "")],
        ),
        (
            "h2c",
            "GET /jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close, Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n".to_owned(),
            &[(401, "unauthenticated")],
        ),
        (
            "CONNECT",
            "CONNECT localhost:22 HTTP/1.1\r\nHost: localhost:22\r\nConnection: close\r\n\r\n"
                .to_owned(),
            &[(401, "unauthenticated")],
        ),
        (
            "a path out of the root",
            format!("GET /jobs/..%2f..%2fetc%2fpasswd HTTP/1.1\r\nHost: localhost\r\n{auth}\r\n"),
            &[(404, "job_not_found")],
        ),
    ];
    for (name, request, expected) in table {
        let answers = server.raw(request.as_bytes());
        let found: Vec<_> = answers.iter().map(crate::server::Answer::problem).collect();
        let found: Vec<_> = found.iter().map(|(s, c)| (*s, c.as_str())).collect();
        assert_eq!(found, *expected, "{name}\n{answers:?}");
    }
    server.assert_unharmed();
}

#[test]
fn a_request_within_a_body_is_no_request() {
    let server = Server::start();
    let body = server.canary_body();
    let inner = format!(
        "POST /jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        server.token,
        body.len()
    );
    let outer = format!(
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{inner}",
        inner.len()
    );
    let answers = server.raw(outer.as_bytes());
    assert_eq!(answers.iter().map(|a| a.status).collect::<Vec<_>>(), [200]);
    server.assert_unharmed();
}

#[test]
fn with_length_and_chunks_nothing_after_the_first_request_is_read() {
    let server = Server::start();
    let body = server.canary_body();
    let hidden = format!(
        "POST /jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        server.token,
        body.len()
    );
    for lengths in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
    ] {
        let request =
            format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{lengths}\r\n0\r\n\r\n{hidden}");
        let answers = server.raw(request.as_bytes());
        assert_eq!(answers.len(), 1, "{answers:?}");
        assert!(matches!(answers[0].status, 200 | 400), "{answers:?}");
        server.assert_unharmed();
    }
}
