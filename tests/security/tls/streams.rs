//! What goes on for long over TLS: server-sent events and WebSockets.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio_rustls::rustls::{ClientConnection, StreamOwned};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket, client};

use super::{Answer, Authority, Server, answers, connect, start};
use crate::reply::id;
use crate::server::run;
use crate::tokens::eventually_by;

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// One request over TLS.
fn ask(server: &Server, authority: &Authority, token: &str, head: &str, body: &str) -> Answer {
    let mut stream = connect(server, authority, None);
    let length = body.len();
    let request = format!(
        "{head} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    answers(&mut stream).remove(0)
}

fn submit(server: &Server, authority: &Authority, body: &str) -> String {
    let made = ask(server, authority, &server.token, "POST /jobs", body);
    assert_eq!(made.status, 201, "{made:?}");
    id(&made.reply.json())
}

/// A token that the service knows.
fn token(server: &Server, authority: &Authority, scope: &str) -> String {
    let line = ["token", "create", "--name", "eyes", "--scope", scope];
    let (code, token) = run(&line, &server.state_dir());
    assert_eq!(code, 0);
    eventually_by(|| ask(server, authority, &token, "GET /jobs", "").status == 200);
    token
}

/// Reads until this text has come; gives all that has.
fn until(stream: &mut Tls, text: &str) -> String {
    let mut come = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let so_far = String::from_utf8_lossy(&come).into_owned();
        if so_far.contains(text) {
            return so_far;
        }
        let length = stream.read(&mut piece).unwrap();
        assert_ne!(length, 0, "the end came before {text:?}: {so_far}");
        come.extend_from_slice(&piece[..length]);
    }
}

fn follow(server: &Server, authority: &Authority, token: &str, job: &str) -> Tls {
    let mut stream = connect(server, authority, None);
    write!(
        stream,
        "GET /jobs/{job}/output HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
         Accept: text/event-stream\r\n\r\n"
    )
    .unwrap();
    stream
}

#[test]
fn events_come_one_by_one_and_end_with_their_token() {
    let authority = Authority::new();
    let server = start(&authority, &[]);
    let body = r#"{"script":"echo one; read line; echo $line; read line","stdin":{"mode":"open"}}"#;
    let job = submit(&server, &authority, body);
    let stranger = ask(
        &server,
        &authority,
        "0",
        &format!("GET /jobs/{job}/output"),
        "",
    );
    assert_eq!(stranger.problem(), (401, "unauthenticated".to_owned()));

    let eyes = token(&server, &authority, "read");
    let mut admin = follow(&server, &authority, &server.token, &job);
    let mut reader = follow(&server, &authority, &eyes, &job);
    // Each is there before the next one can be.
    for stream in [&mut admin, &mut reader] {
        let head = until(stream, "one\\n");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(head.contains("text/event-stream"), "{head}");
    }
    let line = format!("POST /jobs/{job}/stdin");
    let write = |text: &str| ask(&server, &authority, &server.token, &line, text).status;
    assert_eq!(write("two\n"), 204);
    for stream in [&mut admin, &mut reader] {
        until(stream, "two\\n");
    }
    let begin = Instant::now();
    assert_eq!(run(&["token", "revoke", "eyes"], &server.state_dir()).0, 0);
    let mut rest = Vec::new();
    let _ = reader.read_to_end(&mut rest);
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert!(!rest.ends_with(b"\r\n0\r\n\r\n"), "it ended in order");
    assert_eq!(write("three\n"), 204);
    let end = until(&mut admin, "\r\n0\r\n\r\n");
    assert!(end.contains("event: end"), "{end}");
    assert!(end.contains(r#""state":"succeeded""#), "{end}");
}

/// Attaches with these headers; the status and the code of a problem where it is refused.
fn attach(
    server: &Server,
    authority: &Authority,
    job: &str,
    headers: &[(&str, &str)],
) -> Result<WebSocket<Tls>, (u16, String)> {
    let url = format!("wss://localhost/jobs/{job}/attach?stdin");
    let mut request = url.into_client_request().unwrap();
    let protocol = ("sec-websocket-protocol", "v5.channel.k8s.io");
    for (name, value) in [&[protocol], headers].concat() {
        let name: reqwest::header::HeaderName = name.parse().unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    match client(request, connect(server, authority, None)) {
        Ok((socket, response)) => {
            assert_eq!(response.status().as_u16(), 101);
            Ok(socket)
        }
        Err(tokio_tungstenite::tungstenite::HandshakeError::Failure(Error::Http(response))) => {
            let body = response.body().clone().unwrap_or_default();
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            let code = body["code"].as_str().unwrap_or_default();
            Err((response.status().as_u16(), code.to_owned()))
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a_terminal_session_is_as_safe_as_a_request() {
    let authority = Authority::new();
    let server = start(&authority, &[]);
    let job = submit(
        &server,
        &authority,
        r#"{"script":"cat; exit 7","stdin":{"mode":"open"}}"#,
    );
    let bearer = format!("Bearer {}", server.token);
    let shown = ("authorization", bearer.as_str());
    for (headers, status, code) in [
        (&[][..], 401, "unauthenticated"),
        (&[("authorization", "Bearer 0")], 401, "unauthenticated"),
        (
            &[shown, ("origin", "https://evil.example")],
            403,
            "origin_not_allowed",
        ),
        (
            &[shown, ("sec-fetch-site", "cross-site")],
            403,
            "origin_not_allowed",
        ),
        (&[shown, ("host", "evil.example")], 421, "host_not_allowed"),
    ] {
        let refused = attach(&server, &authority, &job, headers).err();
        assert_eq!(refused, Some((status, code.to_owned())), "{headers:?}");
    }
    let mut socket = attach(&server, &authority, &job, &[shown]).unwrap();
    socket.send(Message::binary(b"\0hello\n".to_vec())).unwrap();
    let mut stdout = Vec::new();
    let mut status = None;
    let mut is_closed = false;
    let code = loop {
        match socket.read().unwrap() {
            Message::Binary(bytes) => match bytes.split_first().unwrap() {
                (1, output) => stdout.extend_from_slice(output),
                (3, told) => status = Some(serde_json::from_slice::<Value>(told).unwrap()),
                (_, _) => {}
            },
            Message::Close(frame) => break frame.map(|frame| u16::from(frame.code)),
            Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
        if stdout == b"hello\n" && !is_closed {
            is_closed = true;
            socket.send(Message::binary(vec![255, 0])).unwrap();
        }
    };
    assert_eq!((stdout.as_slice(), code), (&b"hello\n"[..], Some(1000)));
    let status = status.unwrap();
    assert_eq!(status["details"]["causes"][0]["message"], "7", "{status}");
    server_is_unharmed(&server, &authority);
}

#[test]
fn a_terminal_session_ends_with_its_token() {
    let authority = Authority::new();
    let server = start(&authority, &[]);
    let job = submit(
        &server,
        &authority,
        r#"{"command":["cat"],"stdin":{"mode":"open"}}"#,
    );
    let hands = token(&server, &authority, "operate");
    let bearer = format!("Bearer {hands}");
    let shown = [("authorization", bearer.as_str())];
    let mut socket = attach(&server, &authority, &job, &shown).unwrap();
    let begin = Instant::now();
    assert_eq!(run(&["token", "revoke", "eyes"], &server.state_dir()).0, 0);
    let code = loop {
        if let Message::Close(frame) = socket.read().unwrap() {
            break frame.map(|frame| u16::from(frame.code));
        }
        assert!(begin.elapsed() < Duration::from_secs(5));
    };
    assert_eq!(code, Some(1008));
    assert!(begin.elapsed() < Duration::from_secs(5));
}

fn server_is_unharmed(server: &Server, authority: &Authority) {
    let info = ask(server, authority, &server.token, "GET /info", "");
    assert_eq!(info.reply.json()["server_restarts"], 0, "{}", server.log());
    assert!(!server.log().contains("panic"), "{}", server.log());
}
