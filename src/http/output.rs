//! Routes on the output of a job: the log of both streams, and each stream as a file.
//!
//! Bodies are read piece by piece as the client takes them, so that neither a large output nor a slow
//! reader costs memory. What a client needs to go on is in the head of the answer.

mod attempts;
mod excerpt;
mod follow;
mod kind;
mod place;
mod plain;
mod records;
mod search;
mod shared_tail;
mod stream;

use std::io;
use std::sync::Arc;

use attempts::Attempts;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::sync::watch;

use crate::api::Api;
use crate::extract::InPath;
use crate::headers::{FIRST_OFFSET, NEXT_OFFSET, OUTPUT_COMPLETE, OUTPUT_DROPPED};
use crate::problem::ApiError;
use crate::query::Params;
pub(super) use excerpt::{Wanted, excerpt};
use follow::follow_log;
pub(super) use follow::{Beginning, begin, last_event};
use job::retry::ATTEMPTS_MAX;
use job::{Job, JobId, OutputTotals};
use kind::Kind;
pub(super) use place::{PLACE, Places, place};
use protocol::output::{Piece, Reader, Stream};
use records::{Format, Records, forward};
pub(super) use search::{SEARCH, search};
pub(super) use shared_tail::SharedTails;
pub(super) use stream::{stderr, stdout};

/// The parameters of [`log`].
pub(super) const LOG: &[&str] = &[
    "stream",
    "offset",
    "tail_bytes",
    "tail_lines",
    "limit_bytes",
    "follow",
    "timestamps",
    "attempt",
    "download",
    "ticket",
];

/// The parameters of [`stdout`] and [`stderr`].
pub(super) const STREAM: &[&str] = &["download", "ticket"];

/// The media types that a log is offered as.
const LOG_TYPES: &[&str] = &[
    "text/plain",
    "application/octet-stream",
    NDJSON,
    EVENT_STREAM,
];

const NDJSON: &str = "application/x-ndjson";
const EVENT_STREAM: &str = "text/event-stream";

/// Bytes that are read at once.
const PIECE: usize = 256 << 10;

/// `GET /jobs/{id}/output`
pub(super) async fn log(
    State(api): State<Api>,
    InPath(id): InPath,
    mut params: Params,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let mut selection = Selection::of(&mut params);
    let timestamps = params.flag("timestamps");
    let follow = params.given_flag("follow");
    let attempt = attempt_of(&mut params, &selection, follow);
    let download = download_of(&mut params);
    params.finish()?;
    let kind = Kind::of(&headers, LOG_TYPES)?;
    let format = match kind.chosen {
        NDJSON => Format::Lines,
        EVENT_STREAM => Format::Events,
        _ if timestamps => Format::RawWithTimes,
        _ => Format::Raw,
    };
    let mut had_the_end = false;
    if format == Format::Events
        && let Some(last) = last_event(&headers)?
    {
        selection.begin = Begin::Offset(last.offset);
        had_the_end = last.is_end;
    }
    // An event stream that ends would be asked for again and again.
    if follow.unwrap_or(format == Format::Events && attempt.is_none()) {
        return follow_log(&api, id, selection, kind, format, had_the_end).await;
    }
    // Asked first: what is complete then is complete when the totals are read.
    let job = api.manager.get(id).await?;
    let mut complete = job.output.complete;
    if let Some(attempt) = attempt {
        let length = job.output.next_offset;
        let part = attempts::part_of(&job, attempt);
        let (from, to) = part.ok_or(ApiError::RangeNotSatisfiable { length })?;
        selection.begin = Begin::Offset(from);
        selection.end = to;
        complete |= to.is_some();
    }
    let reader = api.manager.output_of(&job).await?;
    complete &= !is_unknown(&job, &reader);
    let plan = off_thread(move || plan_log(reader, &selection, complete)).await??;
    let complete = plan.complete && !plan.is_cut;
    let mut response = raw(StatusCode::OK, kind.name(plan.is_text), Some(complete));
    set(&mut response, FIRST_OFFSET, plan.first);
    set(&mut response, NEXT_OFFSET, plan.next);
    plan.tell_losses(&mut response, id);
    if format == Format::Raw {
        if let Some(length) = plan.length {
            set(&mut response, CONTENT_LENGTH, length);
        }
        *response.body_mut() = plan.stretch.into_body();
        save_as(&mut response, download);
        return Ok(response);
    }
    let is_end = plan.complete && selection.end.is_none();
    // Asked again: an attempt is known before it writes.
    let (_, seen) = watch::channel(api.manager.get(id).await?);
    let records = plan.into_records(format, &selection, seen);
    *response.body_mut() = records.into_body(is_end.then_some(job));
    save_as(&mut response, download);
    Ok(response)
}

/// Does nobody know what the job has written? It was started, and came back from a backup without its record and log.
fn is_unknown(job: &Job, reader: &Reader) -> bool {
    job.state == job::State::Lost && job.process.is_none() && reader.has_nothing()
}

/// The head of an answer with output. Whether it is complete is not known while it is followed.
fn raw(status: StatusCode, kind: &'static str, complete: Option<bool>) -> Response {
    let mut response = (status, [(CONTENT_TYPE, kind)]).into_response();
    if let Some(complete) = complete {
        let value = HeaderValue::from_static(if complete { "true" } else { "false" });
        response.headers_mut().insert(OUTPUT_COMPLETE, value);
    }
    response
}

/// The name under which a browser is to save the answer: letters, digits and `-_.`, so that nothing of it means
/// anything to a header or a file system.
pub(super) fn download_of(params: &mut Params) -> Option<String> {
    params.parsed(
        "download",
        "1 to 160 letters, digits and -_. not beginning with a dot",
        |text| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            let good = (1..=160).contains(&text.len())
                && text.bytes().all(plain)
                && !text.starts_with('.');
            good.then(|| text.to_owned())
        },
    )
}

pub(super) fn save_as(response: &mut Response, name: Option<String>) {
    let value = name
        .and_then(|name| HeaderValue::try_from(format!("attachment; filename=\"{name}\"")).ok());
    if let Some(value) = value {
        response.headers_mut().insert(CONTENT_DISPOSITION, value);
    }
}

fn set(response: &mut Response, name: HeaderName, value: u64) {
    response
        .headers_mut()
        .insert(name, HeaderValue::from(value));
}

async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| ApiError::Internal(format!("reading output: {error}")))
}

/// The attempt of which the output is wanted; `None` for all.
fn attempt_of(params: &mut Params, selection: &Selection, follow: Option<bool>) -> Option<u32> {
    let attempt = params.parsed("attempt", "a number from 1 to 100", |text| {
        let number = text.parse().ok();
        number.filter(|number| (1..=ATTEMPTS_MAX).contains(number))
    })?;
    if selection.begin != Begin::Oldest {
        let detail = "goes with none of offset, tail_bytes and tail_lines";
        params.refuse("attempt", "conflict", detail);
    }
    if follow == Some(true) {
        params.refuse("attempt", "conflict", "one attempt cannot be followed");
    }
    Some(attempt)
}

/// The stream that is meant; `None` for both.
fn stream_of(params: &mut Params) -> Option<Stream> {
    stream_named(params, "stream")
}

fn stream_named(params: &mut Params, name: &str) -> Option<Stream> {
    params
        .parsed(name, "stdout, stderr or all", |text| match text {
            "stdout" => Some(Some(Stream::Stdout)),
            "stderr" => Some(Some(Stream::Stderr)),
            "all" => Some(None),
            _ => None,
        })
        .flatten()
}

/// Which part of the log a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Selection {
    filter: Option<Stream>,
    begin: Begin,
    limit: Option<u64>,
    /// Where it ends; nothing for the end of what there is.
    end: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begin {
    Oldest,
    Offset(u64),
    TailBytes(u64),
    TailLines(u64),
}

impl Selection {
    pub(super) fn of(params: &mut Params) -> Self {
        let filter = stream_of(params);
        let begins = [
            ("offset", params.integer("offset").map(Begin::Offset)),
            (
                "tail_bytes",
                params.integer("tail_bytes").map(Begin::TailBytes),
            ),
            (
                "tail_lines",
                params.integer("tail_lines").map(Begin::TailLines),
            ),
        ];
        let mut given = begins
            .into_iter()
            .filter_map(|(name, begin)| Some((name, begin?)));
        let begin = given.next().map_or(Begin::Oldest, |(_, begin)| begin);
        for (name, _) in given {
            let detail = "give one of offset, tail_bytes and tail_lines";
            params.refuse(name, "conflict", detail);
        }
        Self {
            filter,
            begin,
            limit: params.integer("limit_bytes"),
            end: None,
        }
    }
}

/// A body to come and what its head says.
struct Download {
    stretch: Stretch,
    first: u64,
    next: u64,
    complete: bool,
    length: Option<u64>,
    range: Option<String>,
    /// As what is kept begins.
    is_text: bool,
    /// How much of the job's output is not kept.
    dropped: u64,
    /// A part of it should be there and is not: the body must not look whole.
    is_cut: bool,
}

impl Download {
    fn tell_losses(&self, response: &mut Response, id: JobId) {
        tell_dropped(response, self.dropped);
        if self.is_cut {
            tracing::error!(job.id = %id, "output of job {id} is lost: its files do not have what its record has");
        }
    }

    /// The same part of the log as records.
    fn into_records(
        self,
        format: Format,
        selection: &Selection,
        job: watch::Receiver<Arc<Job>>,
    ) -> Records {
        let begin = match selection.begin {
            // What is no longer there is told as a gap.
            Begin::Oldest => 0,
            Begin::Offset(offset) => offset,
            Begin::TailBytes(_) | Begin::TailLines(_) => self.first,
        };
        let at = match format {
            Format::Lines | Format::Events => begin,
            // So that the body breaks off there.
            Format::Raw | Format::RawWithTimes if self.is_cut => begin,
            Format::Raw | Format::RawWithTimes => self.first,
        };
        Records {
            reader: Some(self.stretch.reader),
            filter: self.stretch.filter,
            format,
            at,
            end: Some(self.stretch.end),
            left: selection.limit,
            within_line: [false; 2],
            attempts: Attempts::from(job, at),
        }
    }
}

/// Where a selection begins, and what there is.
fn begin_of(reader: &mut Reader, selection: &Selection) -> Result<(u64, OutputTotals), ApiError> {
    let failed = |error: io::Error| ApiError::io("reading output", &error);
    let begin = match selection.begin {
        Begin::Oldest => 0,
        Begin::Offset(offset) => offset,
        Begin::TailBytes(count) => reader.tail_bytes(count, selection.filter).map_err(failed)?,
        Begin::TailLines(count) => reader.tail_lines(count, selection.filter).map_err(failed)?,
    };
    // Read after the beginning was found, so that a growing log ends after it.
    let totals = reader.totals().map_err(failed)?;
    if begin > totals.next_offset {
        return Err(ApiError::RangeNotSatisfiable {
            length: totals.next_offset,
        });
    }
    Ok((begin, totals))
}

fn plan_log(
    mut reader: Reader,
    selection: &Selection,
    complete: bool,
) -> Result<Download, ApiError> {
    let failed = |error: io::Error| ApiError::io("reading output", &error);
    let (begin, totals) = begin_of(&mut reader, selection)?;
    let end = totals.next_offset.min(selection.end.unwrap_or(u64::MAX));
    let first = begin.max(totals.first_offset);
    let mut stretch = Stretch {
        reader,
        filter: selection.filter,
        at: first,
        end,
        left: selection.limit.unwrap_or(u64::MAX),
        is_cut: false,
    };
    let next = match (selection.filter, selection.limit) {
        (_, None) => end,
        (None, Some(limit)) => {
            stretch.end = end.min(first.saturating_add(limit));
            stretch.end
        }
        // Only reading tells how far so many bytes of one stream reach.
        (Some(_), Some(limit)) => {
            while stretch.next().map_err(failed)?.is_some() {}
            let next = if stretch.left == 0 { stretch.at } else { end };
            stretch.at = first;
            stretch.left = limit;
            next
        }
    };
    let is_cut = stretch.reader.lost_within(begin, next).map_err(failed)?;
    let is_text = kind::is_text(&mut stretch.reader, selection.filter);
    stretch.is_cut = is_cut;
    // With a hole in it, the body is shorter than its ends tell.
    let whole =
        !is_cut && selection.filter.is_none() && totals.dropped_bytes <= totals.first_offset;
    Ok(Download {
        length: whole.then(|| stretch.end.saturating_sub(first)),
        stretch,
        first,
        next,
        complete: complete && next >= end,
        range: None,
        is_text,
        dropped: totals.dropped_bytes,
        is_cut,
    })
}

/// A part of a log that is being read.
struct Stretch {
    reader: Reader,
    filter: Option<Stream>,
    /// Where to read on.
    at: u64,
    /// Where to end.
    end: u64,
    /// How many bytes may still come.
    left: u64,
    /// What is lost lies within it: it must break off at its end.
    is_cut: bool,
}

impl Stretch {
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        while self.at < self.end && self.left > 0 {
            let max = usize::try_from(self.left).unwrap_or(PIECE).min(PIECE);
            match self.reader.next(self.at, self.filter, max)? {
                None => break,
                Some(Piece::Gap { to, .. }) => {
                    // What the output limit drops at the end is a plain hole. What it drops in front of
                    // a slow reader was promised in the head, and the body must not look whole.
                    if self.reader.lost_within(self.at, to)? {
                        return Err(lost());
                    }
                    if to <= self.reader.totals()?.first_offset {
                        return Err(io::Error::other("output was dropped before it was read"));
                    }
                    self.at = forward(self.at, to)?;
                }
                Some(Piece::Data {
                    offset,
                    mut bytes,
                    next,
                    ..
                }) => {
                    let room = self.end.saturating_sub(offset).min(self.left);
                    let room = usize::try_from(room).unwrap_or(usize::MAX);
                    let cut = room < bytes.len();
                    bytes.truncate(room);
                    let length = u64::try_from(bytes.len()).expect("usize has at most 64 bits");
                    let next = if cut { offset + length } else { next };
                    self.at = forward(self.at, next.max(self.at + u64::from(cut)))?;
                    self.left -= length;
                    if !bytes.is_empty() {
                        return Ok(Some(bytes.into()));
                    }
                }
            }
        }
        if self.is_cut {
            return Err(lost());
        }
        Ok(None)
    }

    fn into_body(self) -> Body {
        Body::from_stream(futures_util::stream::try_unfold(
            self,
            async |mut stretch: Self| {
                let read = tokio::task::spawn_blocking(move || {
                    let piece = stretch.next();
                    (stretch, piece)
                });
                let (stretch, piece) = read.await.map_err(io::Error::other)?;
                // The status is out: all that is left is to break off, which the client sees.
                let piece = piece.inspect_err(|error| {
                    tracing::warn!("broke off an answer with output: {error}");
                })?;
                Ok::<_, io::Error>(piece.map(|bytes| (bytes, stretch)))
            },
        ))
    }
}

fn lost() -> io::Error {
    io::Error::other("the files do not have what the job's record has")
}

/// Says that a body with output cannot be all that the job has written.
fn tell_dropped(response: &mut Response, dropped: u64) {
    if dropped > 0 {
        set(response, OUTPUT_DROPPED, dropped);
    }
}

#[cfg(test)]
mod tests;
