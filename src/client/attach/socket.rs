//! The client's side of `/jobs/{id}/attach`: the handshake over the same connection as everything else, and
//! the messages.

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use reqwest::Upgraded;
use reqwest::header::{CONNECTION, HeaderMap, UPGRADE};
use serde::Deserialize;
use serde_json::json;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::connection::Client;
use crate::failure::Failure;
use crate::follow::Stream;

const PROTOCOL: &str = "v5.channel.k8s.io";

/// A message has at most 64 KiB.
pub(super) const INPUT_BYTES: usize = 32 << 10;

/// Where the output is to begin.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Begin {
    Offset(u64),
    TailLines(u64),
}

/// The direction to the job.
#[derive(Debug)]
pub(super) struct ToJob(SplitSink<WebSocketStream<Upgraded>, Message>);

/// The direction from the job.
#[derive(Debug)]
pub(super) struct FromJob(SplitStream<WebSocketStream<Upgraded>>);

/// A message of the service.
#[derive(Debug)]
pub(super) enum Said {
    Output(Stream, Vec<u8>),
    /// Output that is not kept any more.
    Gap {
        from: u64,
        to: u64,
    },
    InputClosed,
    /// The exit code of the job, if it has one.
    Status(Option<u8>),
    /// The job has ended, and everything was sent.
    Done,
    /// Broken off, or asked to come back.
    Broken,
    /// Refused for good, and why.
    Refused(String),
    Nothing,
}

/// The exit code in a `Status` of Kubernetes.
fn exit_code(status: &[u8]) -> Option<u8> {
    let status: serde_json::Value = serde_json::from_slice(status).ok()?;
    if status["status"] == "Success" {
        return Some(0);
    }
    let cause = &status["details"]["causes"][0];
    let message = cause["message"].as_str()?;
    match cause["reason"].as_str()? {
        "ExitCode" => message.parse().ok(),
        "ExitSignal" => {
            let signal: job::Signal = message.parse().ok()?;
            u8::try_from(128 + signal.number()).ok()
        }
        _ => None,
    }
}

#[derive(Deserialize)]
struct Gap {
    from: u64,
    to: u64,
}

/// Attaches; gives the offset of the first byte as well.
pub(super) async fn connect(
    client: &Client,
    id: &str,
    writes: bool,
    begin: Begin,
) -> Result<(ToJob, FromJob, u64), Failure> {
    let key = generate_key();
    let begin = match begin {
        Begin::Offset(offset) => ("offset", offset),
        Begin::TailLines(lines) => ("tail_lines", lines),
    };
    let request = client
        .get(&format!("/jobs/{id}/attach"))
        .query(&[begin])
        .query(&[("stdin", writes)])
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", &key)
        .header("Sec-WebSocket-Protocol", PROTOCOL);
    let (connection, headers) = client.upgrade(request).await?;
    let value = |name: &str| text(&headers, name);
    if value("sec-websocket-accept") != Some(&derive_accept_key(key.as_bytes())) {
        return Err(Failure::NotUnderstood("no WebSocket".to_owned()));
    }
    let first = value("procession-first-offset").and_then(|first| first.parse().ok());
    let first = first.ok_or_else(|| Failure::NotUnderstood("no offset".to_owned()))?;
    let socket = WebSocketStream::from_raw_socket(connection, Role::Client, None).await;
    let (sink, stream) = socket.split();
    Ok((ToJob(sink), FromJob(stream), first))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

impl ToJob {
    /// Was it sent? A message that fails on the way has not reached the service whole.
    async fn send(&mut self, channel: u8, bytes: &[u8]) -> bool {
        let message = [&[channel], bytes].concat();
        self.0.send(Message::binary(message)).await.is_ok()
    }

    /// At most [`INPUT_BYTES`].
    pub(super) async fn input(&mut self, bytes: &[u8]) -> bool {
        self.send(0, bytes).await
    }

    pub(super) async fn end_of_input(&mut self) -> bool {
        self.send(255, &[0]).await
    }

    pub(super) async fn size(&mut self, (rows, cols): (u16, u16)) {
        let size = json!({"Width": cols, "Height": rows}).to_string();
        let _ = self.send(4, size.as_bytes()).await;
    }

    /// Announces that nothing follows.
    pub(super) async fn close(&mut self) {
        let _ = self.0.close().await;
    }
}

impl FromJob {
    /// Reads what still comes, for nobody.
    pub(super) async fn drain(&mut self) {
        while let Some(Ok(_)) = self.0.next().await {}
    }

    pub(super) async fn next(&mut self) -> Said {
        match self.0.next().await {
            None | Some(Err(_)) => Said::Broken,
            Some(Ok(Message::Binary(bytes))) => match bytes.split_first() {
                Some((1, output)) => Said::Output(Stream::Stdout, output.to_vec()),
                Some((2, output)) => Said::Output(Stream::Stderr, output.to_vec()),
                Some((255, [0])) => Said::InputClosed,
                Some((3, status)) => Said::Status(exit_code(status)),
                Some(_) | None => Said::Nothing,
            },
            Some(Ok(Message::Text(text))) => match serde_json::from_str::<Gap>(text.as_str()) {
                Ok(Gap { from, to }) => Said::Gap { from, to },
                Err(_) => Said::Nothing,
            },
            Some(Ok(Message::Close(None))) => Said::Broken,
            Some(Ok(Message::Close(Some(frame)))) => match u16::from(frame.code) {
                1000 => Said::Done,
                // The server ends, or could not continue: the next one can.
                1001 | 1011 => Said::Broken,
                _ => Said::Refused(frame.reason.to_string()),
            },
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Said::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_the_job_is_an_exit_code() {
        let failure = |reason: &str, message: &str| {
            let causes = json!([{"reason": reason, "message": message}]);
            json!({"status": "Failure", "details": {"causes": causes}})
        };
        for (status, code) in [
            (json!({"status": "Success"}), Some(0)),
            (failure("ExitCode", "7"), Some(7)),
            (failure("ExitSignal", "SIGKILL"), Some(137)),
            (failure("Other", "x"), None),
            (json!({"status": "Failure"}), None),
        ] {
            assert_eq!(exit_code(status.to_string().as_bytes()), code, "{status}");
        }
    }
}
