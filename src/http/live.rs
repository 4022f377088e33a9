//! Hints for a page: which subject is newer than what it shows. All data is fetched by ordinary requests.
//!
//! The newest value of a subject is sent, at most ten times a second, and nothing is kept for a slow reader.

use std::collections::HashMap;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::problem::{ApiError, Place, Violation};
use crate::api::Api;
use crate::layers::auth::{Caller, TICKET};
use crate::streams::Permit;
use job::JobId;
use manager::{Follow, Manager};

/// The parameters of [`live`].
pub(super) const LIVE: &[&str] = &[TICKET];

const PROTOCOL: &str = "procession.hints.v1";

/// The most subjects of one page, and the most bytes of a message that names them.
const SUBJECTS: usize = 256;
const MESSAGE_BYTES: usize = 64 << 10;

/// How often what has changed is told.
const BEAT: Duration = Duration::from_millis(100);

/// How often a client is asked for a sign of life; who has given none by the next time is gone.
const PING: Duration = Duration::from_secs(15);

/// How long a client may take for one message.
const SEND: Duration = Duration::from_secs(30);

/// How long the closing handshake may take.
const GOODBYE: Duration = Duration::from_millis(500);

/// `GET /live`
pub(super) async fn live(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let upgrade = upgrade.map_err(|_| ApiError::UpgradeRequired)?;
    let upgrade = upgrade.protocols([PROTOCOL]);
    if upgrade.selected_protocol().is_none() {
        return Err(ApiError::InvalidHeader(Violation {
            place: Place::Header("Sec-WebSocket-Protocol"),
            code: "invalid_value",
            detail: format!("must offer {PROTOCOL}"),
        }));
    }
    let place = api.streams().permit()?;
    let streams = api.streams().clone();
    let upgrade = upgrade
        .max_message_size(MESSAGE_BYTES)
        .max_frame_size(MESSAGE_BYTES)
        .read_buffer_size(4 << 10)
        .write_buffer_size(4 << 10);
    Ok(upgrade.on_upgrade(async move |socket| {
        let conversation = streams.clone();
        streams.begin(async move {
            let ended = async {
                tokio::select! {
                    () = caller.ended() => (1008, "the token has ended"),
                    () = conversation.ended() => (1001, "the service ends"),
                }
            };
            run(socket, api.manager.clone(), ended, place).await;
        });
    }))
}

/// What a page says: all that it watches, instead of what it said before.
#[derive(Debug, Deserialize)]
struct Wish {
    watch: Vec<String>,
}

/// What is watched, and what was told of it last.
struct Watched {
    events: Option<(watch::Receiver<u64>, Option<u64>)>,
    jobs: HashMap<JobId, Watch>,
}

struct Watch {
    follow: Follow,
    /// What is told of the job is durable a moment after the job has changed, and cannot be read before.
    events: watch::Receiver<u64>,
    wants_job: bool,
    wants_output: bool,
    version: Option<u64>,
    next_offset: Option<u64>,
    complete: bool,
}

impl Watched {
    async fn set(&mut self, manager: &Manager, wish: &Wish) {
        if !wish.watch.iter().any(|subject| subject == "events") {
            self.events = None;
        } else if self.events.is_none() {
            self.events = Some((manager.news(None), None));
        }
        let mut wanted: HashMap<JobId, (bool, bool)> = HashMap::new();
        for subject in wish.watch.iter().take(SUBJECTS) {
            // What is not understood is of a later page, or names no job.
            match subject.split_once(':') {
                Some(("job", id)) => {
                    if let Ok(id) = id.parse() {
                        wanted.entry(id).or_default().0 = true;
                    }
                }
                Some(("output", id)) => {
                    if let Ok(id) = id.parse() {
                        wanted.entry(id).or_default().1 = true;
                    }
                }
                Some(_) | None => {}
            }
        }
        self.jobs.retain(|id, _| wanted.contains_key(id));
        for (id, (wants_job, wants_output)) in wanted {
            if let Some(watch) = self.jobs.get_mut(&id) {
                watch.wants_job = wants_job;
                watch.wants_output = wants_output;
            } else if let Ok(follow) = manager.follow(id).await {
                let watch = Watch {
                    follow,
                    events: manager.news(Some(id)),
                    wants_job,
                    wants_output,
                    version: None,
                    next_offset: None,
                    complete: false,
                };
                self.jobs.insert(id, watch);
            }
        }
    }

    /// What has changed since it was asked last.
    fn news(&mut self) -> Vec<String> {
        let mut out = Vec::new();
        if let Some((news, told)) = &mut self.events {
            let newest = *news.borrow_and_update();
            if *told != Some(newest) {
                *told = Some(newest);
                out.push(json!({"events": newest.to_string()}).to_string());
            }
        }
        for (id, watch) in &mut self.jobs {
            watch.news(*id, &mut out);
        }
        out
    }
}

impl Watch {
    fn news(&mut self, id: JobId, out: &mut Vec<String>) {
        let job = self.follow.state.borrow_and_update().clone();
        let id = id.to_string();
        let is_told = self.events.has_changed().unwrap_or_default();
        self.events.mark_unchanged();
        if self.wants_job && (is_told || self.version != Some(job.version)) {
            self.version = Some(job.version);
            out.push(json!({"job": id, "version": job.version}).to_string());
        }
        if !self.wants_output || self.complete {
            return;
        }
        let complete = job.state.is_terminal();
        let told = self.follow.output.as_mut();
        let next = told.map_or(0, |output| *output.borrow_and_update());
        let next = next.max(job.output.next_offset);
        if self.next_offset != Some(next) || complete {
            self.next_offset = Some(next);
            self.complete = complete;
            out.push(json!({"output": id, "next_offset": next, "complete": complete}).to_string());
        }
    }
}

async fn run(
    socket: WebSocket,
    manager: Manager,
    ended: impl Future<Output = (u16, &'static str)>,
    place: Permit,
) {
    let (mut sink, mut source) = socket.split();
    let talk = async {
        let mut watched = Watched {
            events: None,
            jobs: HashMap::new(),
        };
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ping_at = Instant::now() + PING;
        let mut heard = true;
        loop {
            let quiet = watched.events.is_none() && watched.jobs.is_empty();
            tokio::select! {
                message = source.next() => match message {
                    Some(Ok(Message::Text(text))) => {
                        heard = true;
                        let Ok(wish) = serde_json::from_str::<Wish>(&text) else {
                            return Some((1003, "not understood"));
                        };
                        watched.set(&manager, &wish).await;
                    }
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => heard = true,
                    Some(Ok(Message::Binary(_))) => return Some((1003, "not understood")),
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                },
                _ = beat.tick(), if !quiet => {
                    for text in watched.news() {
                        if !send(&mut sink, Message::Text(text.into())).await {
                            return None;
                        }
                    }
                }
                () = tokio::time::sleep_until(ping_at) => {
                    ping_at = Instant::now() + PING;
                    if !std::mem::take(&mut heard) || !send(&mut sink, Message::Ping(Bytes::new())).await {
                        return None;
                    }
                }
            }
        }
    };
    let said = tokio::select! {
        biased;
        said = ended => Some(said),
        said = talk => said,
    };
    drop(place);
    let closing = match said {
        Some((code, reason)) => Message::Close(Some(CloseFrame {
            code,
            reason: reason.into(),
        })),
        None => Message::Close(None),
    };
    if let Ok(Ok(())) = timeout(GOODBYE, sink.send(closing)).await {
        let _ = timeout(GOODBYE, async {
            while let Some(Ok(_)) = source.next().await {}
        })
        .await;
    }
}

async fn send<S: SinkExt<Message> + Unpin>(sink: &mut S, message: Message) -> bool {
    matches!(timeout(SEND, sink.send(message)).await, Ok(Ok(())))
}
