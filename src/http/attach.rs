//! A job's streams over a WebSocket: output from any offset on, input, the size of its terminal, its end.
//!
//! Here is who may begin such a conversation; how it goes is in its session.

mod frames;
mod heartbeat;
mod session;

use std::io::{self, Read, Write};

use axum::Extension;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::http::HeaderValue;
use axum::response::Response;
use bytes::Bytes;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, WebSocket};

use crate::api::Api;
use crate::extract::InPath;
use crate::headers::FIRST_OFFSET;
use crate::layers::auth::Caller;
use crate::output::{self, Selection};
use crate::problem::{ApiError, Place, Violation};
use crate::query::Params;
use frames::{MESSAGE_BYTES, PROTOCOLS};
use session::{Log, Session};

/// The parameters of [`attach`].
pub(super) const ATTACH: &[&str] = &["stdin", "offset", "tail_bytes", "tail_lines", "ticket"];

/// What is larger is refused by its head alone, and whoever sends it may not see why.
const HARD_LIMIT: usize = 2 * MESSAGE_BYTES;

/// Of the buffers of a conversation; by default they are sixteen times as large.
const BUFFER: usize = 8 << 10;

/// `GET /jobs/{id}/attach`
pub(super) async fn attach(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    InPath(id): InPath,
    mut params: Params,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let selection = Selection::of(&mut params);
    let writes = params.flag("stdin");
    params.finish()?;
    let upgrade = upgrade.map_err(|_| ApiError::UpgradeRequired)?;
    let upgrade = upgrade.protocols(PROTOCOLS);
    let Some(protocol) = upgrade.selected_protocol() else {
        return Err(ApiError::InvalidHeader(Violation {
            place: Place::Header("Sec-WebSocket-Protocol"),
            code: "invalid_value",
            detail: format!("must offer {}", PROTOCOLS.join(" or ")),
        }));
    };
    let tells_closed_input = protocol.as_bytes() == PROTOCOLS[0].as_bytes();
    let follow = api.manager.follow(id).await?;
    let job = follow.state.borrow().clone();
    let takes_input = job.spec.takes_input();
    let writer = match writes {
        false => None,
        true if !takes_input => return Err(ApiError::StdinClosed),
        true => Some(api.streams().writer(id).ok_or(ApiError::StdinTaken)?),
    };
    let permit = api.streams().permit()?;
    let beginning = output::begin(&api, &job, selection).await?;
    let first = beginning.first;
    let streams = api.streams().clone();
    let session = Session {
        streams: streams.clone(),
        log: Log::new(api.manager.clone(), id, beginning),
        manager: api.manager.clone(),
        id,
        follow,
        caller,
        writer,
        tells_closed_input,
        permit,
    };
    let upgrade = upgrade
        .max_message_size(HARD_LIMIT)
        .max_frame_size(HARD_LIMIT)
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER);
    // The library's own task ends as soon as there is a socket; the conversation has an owner that joins it.
    let mut response = upgrade.on_upgrade(async move |socket| streams.begin(session.run(socket)));
    let first = HeaderValue::from(first);
    response.headers_mut().insert(FIRST_OFFSET, first);
    Ok(response)
}

/// For the fuzz targets: what a client sends, as all of its connection and as one message. The connection ends.
pub(super) fn fuzz_attach(bytes: &[u8]) {
    /// Says what is left to be said, and takes every answer.
    struct Client<'a>(&'a [u8]);
    impl Read for Client<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }
    impl Write for Client<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    frames::fuzz_read(Message::Binary(Bytes::copy_from_slice(bytes)));
    let limits = WebSocketConfig::default()
        .max_message_size(Some(HARD_LIMIT))
        .max_frame_size(Some(HARD_LIMIT))
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER);
    let mut socket = WebSocket::from_raw_socket(Client(bytes), Role::Server, Some(limits));
    // A frame has two bytes at least.
    for _ in 0..=bytes.len() / 2 {
        let message = match socket.read() {
            Ok(tungstenite::Message::Binary(bytes)) => Message::Binary(bytes),
            Ok(tungstenite::Message::Text(text)) => Message::Text(text.as_str().into()),
            Ok(tungstenite::Message::Ping(bytes)) => Message::Ping(bytes),
            Ok(tungstenite::Message::Pong(bytes)) => Message::Pong(bytes),
            // Frames are never read as such.
            Ok(tungstenite::Message::Close(_) | tungstenite::Message::Frame(_)) => {
                Message::Close(None)
            }
            Err(error) => {
                let _ = session::close_for(axum::Error::new(error));
                return;
            }
        };
        if !frames::fuzz_read(message) {
            return;
        }
    }
    panic!("there are more messages than frames");
}
