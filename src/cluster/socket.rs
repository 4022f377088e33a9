//! WebSockets as both sides use them: one carries messages, the other bytes.

use std::io;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Message};

/// A hub asks after its nodes so often.
pub const PING: Duration = Duration::from_secs(3);

/// Nothing was heard for so long: the other side is gone, or might as well be.
pub const SILENCE: Duration = Duration::from_secs(8);

/// A job may have a spec of the largest body that a service takes, which may have been raised.
const MESSAGE_BYTES: usize = 64 << 20;

/// How many bytes wait on their way through a stream, and go in one message.
const PIECE: usize = 64 << 10;

/// What is read at once of messages, which are mostly smaller. Each link has such a buffer for as long as it lasts.
const MESSAGE_READ: usize = 4 << 10;

/// The first bytes of a stream. Most streams only wait, and have no larger buffer until then.
const FIRST: usize = 1 << 10;

/// A WebSocket for messages, over a connection that has become one.
pub async fn over<S: AsyncRead + AsyncWrite + Unpin>(stream: S, role: Role) -> WebSocketStream<S> {
    WebSocketStream::from_raw_socket(stream, role, Some(limits(MESSAGE_READ))).await
}

fn limits(read_at_once: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES))
        .max_frame_size(Some(MESSAGE_BYTES))
        .read_buffer_size(read_at_once)
        .write_buffer_size(0)
}

/// Sends a message.
///
/// # Errors
/// If the other side does not take it in [`SILENCE`]; the socket is of no use then.
pub async fn send<S, T>(socket: &mut WebSocketStream<S>, message: &T) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: Serialize,
{
    let text = serde_json::to_string(message)?;
    let sent = tokio::time::timeout(SILENCE, socket.send(Message::text(text))).await;
    sent.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
        .map_err(io::Error::other)
}

/// The next message; `None` at the end of the conversation. Dropping the future loses nothing.
///
/// # Errors
/// If the connection breaks, or the message is not understood.
pub async fn receive<S, T>(socket: &mut WebSocketStream<S>) -> io::Result<Option<T>>
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: DeserializeOwned,
{
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => return Ok(Some(serde_json::from_str(&text)?)),
            Some(Ok(Message::Binary(_))) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a message is text",
                ));
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            Some(Ok(Message::Close(_))) | None => return Ok(None),
            Some(Err(error)) => return Err(io::Error::other(error)),
        }
    }
}

/// The bytes that a connection carries which has become a WebSocket, and what moves them for as long as it is polled.
pub fn bytes<S>(stream: S, role: Role) -> (DuplexStream, impl Future<Output = ()> + Send)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (near, far) = tokio::io::duplex(PIECE);
    (near, wait_and_carry(stream, role, far))
}

/// What the first bytes of a stream are.
enum First {
    ToSend(usize),
    Came(usize),
}

async fn wait_and_carry<S>(mut stream: S, role: Role, mut far: DuplexStream)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut to_send, mut came) = ([0; FIRST], [0; FIRST]);
    let first = tokio::select! {
        read = far.read(&mut to_send) => read.map(First::ToSend),
        read = stream.read(&mut came) => read.map(First::Came),
    };
    let limits = Some(limits(PIECE));
    match first {
        Ok(First::ToSend(length @ 1..)) => {
            let mut socket = WebSocketStream::from_raw_socket(stream, role, limits).await;
            let message = Message::Binary(Bytes::copy_from_slice(&to_send[..length]));
            if socket.send(message).await.is_ok() {
                carry(socket, far).await;
            }
        }
        Ok(First::Came(length @ 1..)) => {
            let part = came[..length].to_vec();
            let socket = WebSocketStream::from_partially_read(stream, part, role, limits).await;
            carry(socket, far).await;
        }
        // Either side has ended without a word.
        Ok(First::ToSend(0) | First::Came(0)) | Err(_) => {}
    }
}

async fn carry<S>(socket: WebSocketStream<S>, stream: DuplexStream)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sink, mut source) = socket.split();
    let (mut read, mut write) = tokio::io::split(stream);
    let outward = async {
        let mut piece = vec![0; PIECE];
        while let Ok(length @ 1..) = read.read(&mut piece).await {
            let message = Message::Binary(Bytes::copy_from_slice(&piece[..length]));
            if sink.send(message).await.is_err() {
                return;
            }
        }
        let _ = sink.close().await;
    };
    let inward = async {
        while let Some(Ok(message)) = source.next().await {
            match message {
                Message::Binary(bytes) => {
                    if write.write_all(&bytes).await.is_err() {
                        break;
                    }
                }
                Message::Close(_) => break,
                Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
        let _ = write.shutdown().await;
    };
    // HTTP has said its last word on a side that ends: the other one then ends by itself or is broken off.
    tokio::select! {
        () = outward => {}
        () = inward => {}
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test]
    async fn bytes_come_out_as_they_went_in_on_both_ways_and_an_end_is_an_end() {
        let (one, other) = tokio::io::duplex(100);
        let (mut one, carry_one) = bytes(one, Role::Client);
        let (mut other, carry_other) = bytes(other, Role::Server);
        let mut tasks = JoinSet::new();
        tasks.spawn(carry_one);
        tasks.spawn(carry_other);
        let large: Vec<u8> = (0..300_000_u32).map(|it| it.to_le_bytes()[0]).collect();
        let sent = large.clone();
        let mut sender = JoinSet::new();
        sender.spawn(async move {
            one.write_all(&sent).await.unwrap();
            let mut answer = [0; 2];
            one.read_exact(&mut answer).await.unwrap();
            answer
        });
        let mut got = vec![0; large.len()];
        other.read_exact(&mut got).await.unwrap();
        assert_eq!(got, large);
        other.write_all(b"ok").await.unwrap();
        assert_eq!(&sender.join_next().await.unwrap().unwrap(), b"ok");
        // The other side is gone with its task.
        assert_eq!(other.read(&mut [0; 1]).await.unwrap(), 0);
    }
}
