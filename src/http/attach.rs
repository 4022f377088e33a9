//! A job's streams over a WebSocket: output from any offset on, input, the size of its terminal, its end.
//!
//! Here is who may begin such a conversation; how it goes is in its session.

mod frames;
mod pulse;
mod session;

use axum::Extension;
use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::HeaderValue;
use axum::response::Response;

use super::Api;
use super::auth::Caller;
use super::jobs::InPath;
use super::output::{self, FIRST_OFFSET, Wish};
use super::problem::{ApiError, Place, Violation};
use super::query::Params;
use frames::{MESSAGE_BYTES, PROTOCOL};
use session::{Log, Session};

/// The parameters of [`attach`].
pub(super) const ATTACH: &[&str] = &["stdin", "offset", "tail_bytes", "tail_lines"];

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
    let wish = Wish::of(&mut params);
    let writes = params.flag("stdin");
    params.finish()?;
    let upgrade = upgrade.map_err(|_| ApiError::UpgradeRequired)?;
    let upgrade = upgrade.protocols([PROTOCOL]);
    if upgrade.selected_protocol().is_none() {
        return Err(ApiError::InvalidHeader(Violation {
            place: Place::Header("Sec-WebSocket-Protocol"),
            code: "invalid_value",
            detail: format!("must offer {PROTOCOL}"),
        }));
    }
    let follow = api.manager.follow(id).await?;
    let takes_input = follow.state.borrow().spec.takes_input();
    let writer = match writes {
        false => None,
        true if !takes_input => return Err(ApiError::StdinClosed),
        true => Some(api.streams().writer(id).ok_or(ApiError::StdinTaken)?),
    };
    let place = api.streams().place()?;
    let beginning = output::begin(&api, id, wish).await?;
    let first = beginning.first;
    let streams = api.streams().clone();
    let session = Session {
        streams: streams.clone(),
        log: Log::new(api.manager.clone(), id, beginning),
        manager: api.manager,
        id,
        follow,
        caller,
        writer,
        place,
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
