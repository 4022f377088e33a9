//! A client of `/jobs/{id}/attach`, as other programs would write it.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::harness::{LONG, Server};

/// A connection of either kind.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin + std::fmt::Debug {}

impl Stream for TcpStream {}
impl Stream for UnixStream {}

/// An answer that is no WebSocket.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) status: u16,
    pub(super) body: Value,
}

/// How the other side closed.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) code: u16,
}

/// A client that is attached, and everything that it was told.
#[derive(Debug)]
pub(super) struct Attached {
    socket: WebSocketStream<Box<dyn Stream>>,
    pub(super) first_offset: usize,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
    pub(super) status: Option<Value>,
    pub(super) gaps: Vec<Value>,
    input_closed: bool,
    pings: usize,
    pongs: Vec<String>,
}

/// Attaches with the token and the right protocol.
pub(super) async fn attach(server: &Server, job: &str, query: &str) -> Result<Attached, Refused> {
    attach_as(server, job, query, "v5.channel.k8s.io").await
}

/// Attaches with the token and this protocol.
pub(super) async fn attach_as(
    server: &Server,
    job: &str,
    query: &str,
    protocol: &str,
) -> Result<Attached, Refused> {
    let path = format!("/jobs/{job}/attach?{query}");
    let bearer = format!("Bearer {}", server.token());
    let headers = [
        ("authorization", bearer.as_str()),
        ("sec-websocket-protocol", protocol),
    ];
    attach_with(server, &path, &headers).await
}

/// Attaches with these headers only.
pub(super) async fn attach_with(
    server: &Server,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Attached, Refused> {
    let no_answer = |error: std::io::Error| Refused {
        status: 0,
        body: Value::from(error.to_string()),
    };
    let stream = TcpStream::connect(server.address())
        .await
        .map_err(no_answer)?;
    let host = server.address().to_string();
    handshake(Box::new(stream), &host, path, headers).await
}

/// Attaches over the unix socket, which asks for no token.
pub(super) async fn over_unix(
    server: &Server,
    job: &str,
    query: &str,
) -> Result<Attached, Refused> {
    let socket = server.state_dir().join("procession.sock");
    let stream = UnixStream::connect(socket).await.unwrap();
    let path = format!("/jobs/{job}/attach?{query}");
    let headers = [("sec-websocket-protocol", "v5.channel.k8s.io")];
    handshake(Box::new(stream), "localhost", &path, &headers).await
}

async fn handshake(
    stream: Box<dyn Stream>,
    host: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Attached, Refused> {
    let mut request = format!("ws://{host}{path}").into_client_request().unwrap();
    for (name, value) in headers {
        let name: reqwest::header::HeaderName = name.parse().unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let connected = timeout(LONG, client_async(request, stream)).await.unwrap();
    let (socket, response) = match connected {
        Ok(connected) => connected,
        Err(Error::Http(response)) => {
            let status = response.status().as_u16();
            let body = response.into_body().unwrap_or_default();
            let body = serde_json::from_slice(&body).unwrap_or_default();
            return Err(Refused { status, body });
        }
        Err(error) => {
            let body = Value::from(error.to_string());
            return Err(Refused { status: 0, body });
        }
    };
    let first = response.headers()["procession-first-offset"].to_str();
    assert!(response.headers().contains_key("request-id"));
    Ok(Attached {
        socket,
        first_offset: first.unwrap().parse().unwrap(),
        stdout: Vec::new(),
        stderr: Vec::new(),
        status: None,
        gaps: Vec::new(),
        input_closed: false,
        pings: 0,
        pongs: Vec::new(),
    })
}

/// What came.
enum Came {
    Something,
    Closed(Option<CloseFrame>),
    Broken,
}

impl Attached {
    pub(super) async fn send(&mut self, message: Message) {
        // The other side may have closed by now; what it said is looked at later.
        let _ = self.socket.send(message).await;
    }

    pub(super) async fn channel(&mut self, channel: u8, bytes: &[u8]) {
        let message = [&[channel], bytes].concat();
        self.send(Message::binary(message)).await;
    }

    pub(super) async fn input(&mut self, bytes: &[u8]) {
        self.channel(0, bytes).await;
    }

    /// Closes as a client should.
    pub(super) async fn say_goodbye(mut self) {
        self.socket.close(None).await.unwrap();
        while let Some(Ok(_)) = self.socket.next().await {}
    }

    async fn next(&mut self, limit: Duration) -> Came {
        let message = timeout(limit, self.socket.next()).await;
        let message = message.unwrap_or_else(|_| panic!("nothing came within {limit:?}: {self:?}"));
        match message {
            None | Some(Err(_)) => return Came::Broken,
            Some(Ok(Message::Close(frame))) => return Came::Closed(frame),
            Some(Ok(Message::Ping(_))) => self.pings += 1,
            Some(Ok(Message::Text(text))) => {
                self.gaps.push(serde_json::from_str(text.as_str()).unwrap());
            }
            Some(Ok(Message::Binary(bytes))) => match bytes.split_first().unwrap() {
                (1, output) => self.stdout.extend_from_slice(output),
                (2, output) => self.stderr.extend_from_slice(output),
                (3, status) => self.status = Some(serde_json::from_slice(status).unwrap()),
                (255, [0]) => self.input_closed = true,
                (channel, _) => panic!("channel {channel}"),
            },
            Some(Ok(Message::Pong(bytes))) => {
                self.pongs
                    .push(String::from_utf8_lossy(&bytes).into_owned());
            }
            Some(Ok(Message::Frame(_))) => {}
        }
        Came::Something
    }

    async fn until_so(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        while !is_so(self) {
            match self.next(LONG).await {
                Came::Something => {}
                Came::Closed(frame) => panic!("closed before {what}: {frame:?} {self:?}"),
                Came::Broken => panic!("broken off before {what}: {self:?}"),
            }
        }
    }

    /// Reads on until this text is in the output.
    pub(super) async fn until(&mut self, text: &str) {
        self.until_so(text, |this| {
            String::from_utf8_lossy(&this.stdout).contains(text)
        })
        .await;
    }

    pub(super) async fn until_input_closed(&mut self) {
        self.until_so("channel 0 is closed", |this| this.input_closed)
            .await;
    }

    pub(super) async fn until_ping(&mut self) {
        self.until_so("a ping", |this| this.pings > 0).await;
    }

    pub(super) async fn until_pong(&mut self, text: &str) {
        self.until_so("a pong", |this| this.pongs.iter().any(|pong| pong == text))
            .await;
    }

    /// Reads on to the close frame.
    pub(super) async fn end(&mut self) -> Closed {
        let end = tokio::time::Instant::now() + LONG;
        loop {
            // Pings come for as long as nothing else does.
            let left = end.saturating_duration_since(tokio::time::Instant::now());
            match self.next(left).await {
                Came::Something => {}
                Came::Closed(frame) => {
                    let code = frame.map_or(1005, |frame| frame.code.into());
                    return Closed { code };
                }
                Came::Broken => panic!("broken off: {self:?}"),
            }
        }
    }

    /// Reads on until there are so many bytes of output, or to the close frame.
    pub(super) async fn some_or_end(&mut self, bytes: usize) -> Option<Closed> {
        while self.stdout.len() < bytes {
            match self.next(LONG).await {
                Came::Something => {}
                Came::Closed(frame) => {
                    let code = frame.map_or(1005, |frame| frame.code.into());
                    return Some(Closed { code });
                }
                Came::Broken => return None,
            }
        }
        None
    }

    /// What still comes over a connection whose other side was killed.
    pub(super) async fn rest(mut self) -> String {
        let before = self.stdout.len();
        while let Came::Something = self.next(LONG).await {}
        String::from_utf8_lossy(&self.stdout[before..]).into_owned()
    }
}
