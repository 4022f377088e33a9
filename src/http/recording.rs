//! The output of a terminal job as a recording that can be played: asciicast, version 2.
//!
//! The first line says how large the terminal was at the start, each further one what was written or which size it
//! got, and how many seconds after the start. It is made from the log as it is read.

use std::collections::VecDeque;
use std::io;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use serde_json::{Value, json};

use crate::api::Api;
use crate::extract::InPath;
use crate::layers::auth::TICKET;
use crate::output::{download_of, save_as};
use crate::problem::ApiError;
use crate::query::Params;
use job::Job;
use job::pty::Size;
use job::time::Timestamp;
use protocol::output::{Piece, Reader};

/// The parameters of [`cast`].
pub(super) const CAST: &[&str] = &["download", TICKET];

const MEDIA_TYPE: &str = "application/x-asciicast";

/// So much is read at once, and so much of the log for one piece of the body.
const PIECE: usize = 32 << 10;
const STEP: usize = 256 << 10;

/// `GET /jobs/{id}/recording.cast`: what there is by now.
pub(super) async fn cast(
    State(api): State<Api>,
    InPath(id): InPath,
    mut params: Params,
) -> Result<Response, ApiError> {
    let download = download_of(&mut params);
    params.finish()?;
    let job = api.manager.get(id).await?;
    let Some(pty) = &job.spec.pty else {
        return Err(ApiError::NoTerminal);
    };
    let failed = |error: io::Error| ApiError::io("reading the terminal's sizes", &error);
    let sizes = api.manager.sizes(id).await.map_err(failed)?;
    let began = job.started_at.unwrap_or(job.created_at);
    let recording = Recording {
        reader: api.manager.output(id).await?,
        head: Some(head(&job, pty.size(), &pty.term, began)),
        began,
        last: began,
        sizes: sizes.into(),
        at: 0,
        rest: Vec::new(),
        end: None,
    };
    let mut response = ([(CONTENT_TYPE, MEDIA_TYPE)], recording.into_body()).into_response();
    save_as(&mut response, download);
    Ok(response)
}

fn head(job: &Job, size: Size, term: &str, began: Timestamp) -> Value {
    json!({
        "version": 2,
        "width": size.cols,
        "height": size.rows,
        "timestamp": began.as_micros().div_euclid(1_000_000),
        "title": job.name,
        "env": {"TERM": term},
    })
}

/// A recording that is being made.
struct Recording {
    reader: Reader,
    head: Option<Value>,
    began: Timestamp,
    /// When the newest that was told of was written.
    last: Timestamp,
    /// Those that have not been told.
    sizes: VecDeque<(Timestamp, Size)>,
    /// Where the log is read on.
    at: u64,
    /// The beginning of a character whose end has not been read.
    rest: Vec<u8>,
    /// Where it ends: what is there when it begins.
    end: Option<u64>,
}

impl Recording {
    fn into_body(self) -> Body {
        Body::from_stream(stream::try_unfold(
            Some(self),
            async |recording: Option<Self>| {
                let Some(mut recording) = recording else {
                    return Ok::<_, io::Error>(None);
                };
                let step = tokio::task::spawn_blocking(move || {
                    let step = recording.step();
                    (recording, step)
                });
                let (recording, step) = step.await.map_err(io::Error::other)?;
                let (text, is_over) = step?;
                Ok(Some((Bytes::from(text), (!is_over).then_some(recording))))
            },
        ))
    }

    /// Some more lines, and whether they are the last.
    fn step(&mut self) -> io::Result<(String, bool)> {
        let mut out = String::new();
        if let Some(head) = self.head.take() {
            line(&mut out, &head);
        }
        let end = match self.end {
            Some(end) => end,
            None => self.reader.totals()?.next_offset,
        };
        self.end = Some(end);
        while out.len() < STEP {
            let piece = if self.at < end {
                self.reader.next(self.at, None, PIECE)?
            } else {
                None
            };
            match piece {
                None => {
                    self.cut_off(&mut out);
                    self.sizes_until(None, &mut out);
                    return Ok((out, true));
                }
                Some(Piece::Gap { from, to }) => {
                    self.cut_off(&mut out);
                    let text = format!("{} bytes are not kept", to.saturating_sub(from));
                    self.event(self.last, "m", &text, &mut out);
                    self.at = to.max(self.at + 1);
                }
                Some(Piece::Data {
                    at, bytes, next, ..
                }) => {
                    self.sizes_until(Some(at), &mut out);
                    self.last = at;
                    let text = self.text(&bytes);
                    if !text.is_empty() {
                        self.event(at, "o", &text, &mut out);
                    }
                    self.at = next.max(self.at + 1);
                }
            }
        }
        Ok((out, false))
    }

    /// Tells the sizes that the terminal got up to then, or all that are left.
    fn sizes_until(&mut self, until: Option<Timestamp>, out: &mut String) {
        while let Some((at, size)) = self.sizes.front().copied() {
            if until.is_some_and(|until| at > until) {
                return;
            }
            self.sizes.pop_front();
            self.event(at, "r", &format!("{}x{}", size.cols, size.rows), out);
        }
    }

    /// Tells a character that does not continue.
    fn cut_off(&mut self, out: &mut String) {
        let rest = std::mem::take(&mut self.rest);
        if !rest.is_empty() {
            self.event(self.last, "o", &String::from_utf8_lossy(&rest), out);
        }
    }

    fn event(&self, at: Timestamp, kind: &str, text: &str, out: &mut String) {
        let seconds = at.since(self.began).as_secs_f64();
        line(out, &json!([seconds, kind, text]));
    }

    /// The characters that are whole; the beginning of one is kept for the next piece.
    fn text(&mut self, bytes: &[u8]) -> String {
        let mut all = std::mem::take(&mut self.rest);
        all.extend_from_slice(bytes);
        let keep = unfinished(&all);
        self.rest = all.split_off(all.len() - keep);
        String::from_utf8_lossy(&all).into_owned()
    }
}

/// How many bytes at the end are the beginning of a character.
fn unfinished(bytes: &[u8]) -> usize {
    match std::str::from_utf8(&bytes[bytes.len().saturating_sub(3)..]) {
        Ok(_) => 0,
        Err(_) => (1..=bytes.len().min(3))
            .find(|count| {
                let tail = &bytes[bytes.len() - count..];
                std::str::from_utf8(tail)
                    .is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
            })
            .unwrap_or(0),
    }
}

fn line(out: &mut String, value: &Value) {
    out.push_str(&value.to_string());
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn recording() -> Recording {
        Recording {
            reader: Reader::empty(),
            head: None,
            began: Timestamp::from_micros(1_000_000),
            last: Timestamp::from_micros(1_000_000),
            sizes: VecDeque::new(),
            at: 0,
            rest: Vec::new(),
            end: None,
        }
    }

    #[test]
    fn sizes_come_in_their_order_and_before_what_was_written_later() {
        let size = |rows, cols| Size { rows, cols };
        let mut recording = recording();
        recording.sizes = [
            (Timestamp::from_micros(1_500_000), size(24, 80)),
            (Timestamp::from_micros(3_000_000), size(50, 120)),
        ]
        .into();
        let mut out = String::new();
        recording.sizes_until(Some(Timestamp::from_micros(2_000_000)), &mut out);
        assert_eq!(out, "[0.5,\"r\",\"80x24\"]\n");
        let (out, is_over) = recording.step().unwrap();
        assert_eq!((out.as_str(), is_over), ("[2.0,\"r\",\"120x50\"]\n", true));
    }

    proptest! {
        #[test]
        fn no_cut_breaks_a_character(text in "[aé€😀\\x1b]{0,20}", cut in 0_usize..100) {
            let mut recording = recording();
            let cut = cut.min(text.len());
            let (first, second) = text.as_bytes().split_at(cut);
            let read = recording.text(first) + &recording.text(second);
            prop_assert_eq!(read, text);
            prop_assert!(recording.rest.is_empty());
        }
    }

    #[test]
    fn what_is_no_character_is_replaced_and_never_kept_back_for_long() {
        let mut recording = recording();
        assert_eq!(recording.text(b"a\xff"), "a\u{fffd}");
        assert_eq!(recording.text(b"\xe2\x82"), "");
        assert_eq!(recording.text(b"b"), "\u{fffd}b");
    }
}
