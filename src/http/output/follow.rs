//! A body that continues as the job writes, until the job has ended and all of its output has been sent.
//!
//! Every follower reads the files at its own pace; between two readings it waits for a word of the
//! manager's. Where the service ends before the job does, the body is broken off: only `end`, or the
//! regular end of raw bytes, says that nothing is missing.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::watch;
use tokio::time::Instant;

use super::attempts::Attempts;
use super::kind::{self, Kind};
use super::records::{Chunk, END_MARK, Format, Records, Then};
use super::shared_tail::{Key, SharedPiece, SharedTail};
use super::{Begin, Selection, begin_of, off_thread, raw, set, tell_dropped};
use crate::api::Api;
use crate::headers::{FIRST_OFFSET, LAST_EVENT_ID};
use crate::problem::{ApiError, Place, Violation};
use crate::streams::Permit;
use job::{Job, JobId, State};
use manager::{Follow, Manager, Reading, RequestError};
use protocol::output::Reader;

/// How often something is sent to those that would else hear nothing.
const PING: Duration = Duration::from_secs(15);

/// How long the rest of a character is waited for.
const REST: Duration = Duration::from_millis(50);

/// The first field of the first event: when to come back after a broken connection, in milliseconds. Alone it would be
/// an event without a type to clients that count blank lines.
const GREETING: &[u8] = b"retry: 500\n";

/// The body of a job's log up to its end, whenever that will be.
pub(super) async fn follow_log(
    api: &Api,
    id: JobId,
    selection: Selection,
    kind: Kind,
    format: Format,
    had_the_end: bool,
) -> Result<Response, ApiError> {
    let follow = api.manager.follow(id).await?;
    if had_the_end && follow.state.borrow().state.is_terminal() {
        // To an event source: do not come back.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let permit = api.streams().permit()?;
    let job = follow.state.borrow().clone();
    let Beginning {
        reader,
        at,
        first,
        dropped,
        is_text,
        is_cut,
    } = begin(api, &job, selection).await?;
    let at = match format {
        // The gap in front is told in the head.
        Format::Raw | Format::RawWithTimes if !is_cut => first,
        // What is lost is told as a gap, or the body breaks off.
        Format::Raw | Format::RawWithTimes | Format::Lines | Format::Events => at,
    };
    let records = Records {
        reader,
        filter: selection.filter,
        format,
        at,
        end: None,
        left: selection.limit,
        within_line: [false; 2],
        attempts: Attempts::from(follow.state.clone(), at),
    };
    let mut response = raw(StatusCode::OK, kind.name(is_text), None);
    set(&mut response, FIRST_OFFSET, first);
    tell_dropped(&mut response, dropped);
    let tail = api.shared_tails.of(id);
    *response.body_mut() =
        Follower::new(api.manager.clone(), id, records, follow, tail, permit).into_body();
    Ok(response)
}

/// Where a follower begins.
pub(crate) struct Beginning {
    /// `None` while the job has written nothing.
    pub(crate) reader: Option<Reader>,
    /// Where the client wants to begin.
    pub(super) at: u64,
    /// The first offset from there on that is kept.
    pub(crate) first: u64,
    /// How much of the job's output is not kept.
    dropped: u64,
    /// As what is kept begins; true while nothing is.
    is_text: bool,
    /// A part of what follows should be there and is not.
    is_cut: bool,
}

/// Finds the beginning of what a client wants to follow.
pub(crate) async fn begin(
    api: &Api,
    job: &Job,
    selection: Selection,
) -> Result<Beginning, ApiError> {
    let reader = if job.state.is_terminal() {
        // It knows what there must be.
        Some(api.manager.output_of(job).await?)
    } else {
        let started = api.manager.started_output(job.id).await;
        started.map_err(RequestError::from)?
    };
    match reader {
        None if matches!(selection.begin, Begin::Offset(offset) if offset > 0) => {
            Err(ApiError::RangeNotSatisfiable { length: 0 })
        }
        None => Ok(Beginning {
            reader: None,
            at: 0,
            first: 0,
            dropped: 0,
            is_text: true,
            is_cut: false,
        }),
        Some(mut reader) => {
            off_thread(move || {
                let (at, totals) = begin_of(&mut reader, &selection)?;
                let is_cut = reader.lost_within(at, totals.next_offset);
                let is_text = kind::is_text(&mut reader, selection.filter);
                Ok(Beginning {
                    reader: Some(reader),
                    at,
                    first: at.max(totals.first_offset),
                    dropped: totals.dropped_bytes,
                    is_text,
                    is_cut: is_cut.map_err(|error| ApiError::io("reading output", &error))?,
                })
            })
            .await?
        }
    }
}

/// Where an event source was when its connection broke.
pub(crate) struct LastEvent {
    pub(super) offset: u64,
    pub(super) is_end: bool,
}

pub(crate) fn last_event(headers: &HeaderMap) -> Result<Option<LastEvent>, ApiError> {
    let Some(value) = headers.get(&LAST_EVENT_ID) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    // An event source that has had no id yet may say so with an empty one.
    if text.is_empty() {
        return Ok(None);
    }
    let number = text.strip_suffix(END_MARK);
    let is_end = number.is_some();
    let number = number.unwrap_or(text);
    let offset = number
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| number.parse().ok())
        .flatten();
    match offset {
        Some(offset) => Ok(Some(LastEvent { offset, is_end })),
        None => Err(ApiError::InvalidHeader(Violation {
            place: Place::Header("Last-Event-ID"),
            code: "invalid_value",
            detail: "must be the id of an event of this stream".to_owned(),
        })),
    }
}

/// One client that follows.
pub(super) struct Follower {
    manager: Manager,
    id: JobId,
    format: Format,
    /// `None` only while it is read from elsewhere.
    records: Option<Records>,
    state: watch::Receiver<Arc<Job>>,
    output: Option<watch::Receiver<u64>>,
    /// What a job waits for that has `on_limit: wait`.
    reading: Option<Reading>,
    tail: Arc<SharedTail>,
    said: Option<State>,
    /// Has it looked once at what there is?
    has_looked: bool,
    ping_at: Option<Instant>,
    is_over: bool,
    /// Held for as long as it lasts.
    _permit: Permit,
}

enum Woken {
    News,
    Ping,
    Rest,
}

impl Follower {
    pub(super) fn new(
        manager: Manager,
        id: JobId,
        records: Records,
        follow: Follow,
        tail: Arc<SharedTail>,
        permit: Permit,
    ) -> Self {
        Self {
            manager,
            id,
            format: records.format,
            ping_at: (records.format == Format::Events).then(|| Instant::now() + PING),
            reading: follow.reading(records.at),
            records: Some(records),
            state: follow.state,
            output: follow.output,
            tail,
            said: None,
            has_looked: false,
            is_over: false,
            _permit: permit,
        }
    }

    pub(super) fn into_body(self) -> Body {
        Body::from_stream(stream::try_unfold(
            self,
            async |mut follower: Self| match follower.next().await {
                Ok(bytes) => Ok(bytes.map(|bytes| (bytes, follower))),
                Err(error) => {
                    let id = follower.id;
                    tracing::warn!(job.id = %id, "broke off an answer with output of job {id}: {error}");
                    Err(error)
                }
            },
        ))
    }

    /// The next part of the body; `None` at its end.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let mut flush = false;
        // What came before was taken.
        if let (Some(reading), Some(records)) = (&self.reading, &self.records) {
            reading.up_to(records.at);
        }
        while !self.is_over {
            // Looked at before the output is read: what is over then has all of its output on disk.
            let job = self.state.borrow_and_update().clone();
            let ended = job.state.is_terminal();
            if ended {
                self.open().await?;
                if let Some(records) = &mut self.records {
                    records.expect(job.output);
                }
            }
            let told = match &mut self.output {
                _ if ended => Some(job.output.next_offset),
                Some(told) => Some(*told.borrow_and_update()),
                None => None,
            };
            let news = self.news_of(&job)?;
            let chunk = self.read(told, flush || ended).await?;
            let is_at_tip = match chunk.then {
                Then::Wait | Then::WaitForRest => true,
                Then::ReadOn | Then::Stop => false,
            };
            let mut last = Vec::new();
            if ended && is_at_tip {
                last = self
                    .off_thread(move |records| {
                        let mut last = Vec::new();
                        records.write_end(&mut last, &job).map(|()| last)
                    })
                    .await?;
            }
            self.is_over = chunk.then == Then::Stop || (ended && is_at_tip);
            let bytes = joined(news, chunk.bytes, last);
            if !bytes.is_empty() {
                self.ping_at = self.ping_at.map(|_| Instant::now() + PING);
                return Ok(Some(bytes));
            }
            if self.is_over || !is_at_tip {
                continue;
            }
            let rest_at = (chunk.then == Then::WaitForRest).then(|| Instant::now() + REST);
            match self.wait(rest_at).await? {
                Woken::News => {}
                Woken::Rest => flush = true,
                Woken::Ping => {
                    self.ping_at = Some(Instant::now() + PING);
                    return Ok(Some(Bytes::from_static(b":\n\n")));
                }
            }
        }
        Ok(None)
    }

    /// The greeting, and the state where it is another than the client knows. The last one comes with
    /// `end`.
    fn news_of(&mut self, job: &Job) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        let is_first = self.said.is_none();
        if self.format != Format::Events || self.said == Some(job.state) {
            return Ok(out);
        }
        if is_first {
            out.extend_from_slice(GREETING);
        }
        self.said = Some(job.state);
        if !job.state.is_terminal()
            && let Some(records) = &self.records
        {
            records.write_state(&mut out, job)?;
        }
        Ok(out)
    }

    /// The files of the job, once it has any.
    async fn open(&mut self) -> io::Result<()> {
        if let Some(records) = &mut self.records
            && records.reader.is_none()
        {
            let started = self.manager.started_output(self.id).await;
            records.reader = started.map_err(io::Error::other)?;
        }
        Ok(())
    }

    async fn read(&mut self, told: Option<u64>, flush: bool) -> io::Result<Chunk> {
        let records = self.records.as_ref().ok_or_else(broken)?;
        // What comes after this will be told. Each look costs a change of threads, for every follower and
        // every line of the job.
        let is_told_all = told.is_some_and(|told| told <= records.at) && records.left != Some(0);
        if is_told_all && self.has_looked && !flush && !records.has_attempt_news() {
            return Ok(Chunk {
                bytes: Bytes::new(),
                then: Then::Wait,
            });
        }
        self.has_looked = true;
        self.open().await?;
        let records = self.records.as_ref().ok_or_else(broken)?;
        let shared = told.and_then(|told| Key::of(records, told));
        if let Some(key) = shared.filter(|_| !is_told_all) {
            let chunk = self.read_for_all(key).await?;
            // What is left over is nobody else's.
            if !flush || !chunk.bytes.is_empty() {
                return Ok(chunk);
            }
        }
        self.off_thread(move |records| records.chunk(flush)).await
    }

    /// Reads what others may have read already.
    async fn read_for_all(&mut self, key: Key) -> io::Result<Chunk> {
        let tail = self.tail.clone();
        if let Some(chunk) = self.found(key) {
            return Ok(chunk);
        }
        let _turn = tail.turn().await;
        if let Some(chunk) = self.found(key) {
            return Ok(chunk);
        }
        let (chunk, at, attempt) = self
            .off_thread(move |records| {
                let chunk = records.chunk(false)?;
                Ok((chunk, records.at, records.attempts.said))
            })
            .await?;
        // Two: this one, and the follower's own.
        let is_alone = Arc::strong_count(&tail) <= 2;
        if !chunk.bytes.is_empty() && !is_alone {
            tail.keep(SharedPiece {
                key,
                bytes: chunk.bytes.clone(),
                at,
                attempt,
            });
        }
        Ok(chunk)
    }

    /// What another follower has read from the same place.
    fn found(&mut self, key: Key) -> Option<Chunk> {
        let piece = self.tail.find(key)?;
        let records = self.records.as_mut()?;
        records.at = piece.at;
        records.attempts.said = piece.attempt;
        Some(Chunk {
            bytes: piece.bytes,
            // There may be more by now.
            then: Then::ReadOn,
        })
    }

    /// Works with the records where blocking is allowed.
    async fn off_thread<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Records) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let mut records = self.records.take().ok_or_else(broken)?;
        let worked = tokio::task::spawn_blocking(move || {
            let result = work(&mut records);
            (records, result)
        });
        let (records, result) = worked.await.map_err(io::Error::other)?;
        self.records = Some(records);
        result
    }

    /// Waits until there may be something to send. An error where nothing more will be told.
    async fn wait(&mut self, rest_at: Option<Instant>) -> io::Result<Woken> {
        loop {
            tokio::select! {
                changed = changed(&mut self.output) => match changed {
                    Ok(()) => return Ok(Woken::News),
                    // The job's task is over: its last word is the state.
                    Err(_) => self.output = None,
                },
                changed = self.state.changed() => return match changed {
                    Ok(()) => Ok(Woken::News),
                    Err(_) => Err(io::Error::other("the service ends before the job does")),
                },
                () = until(rest_at) => return Ok(Woken::Rest),
                () = until(self.ping_at) => return Ok(Woken::Ping),
            }
        }
    }
}

fn joined(news: Vec<u8>, chunk: Bytes, last: Vec<u8>) -> Bytes {
    if news.is_empty() && last.is_empty() {
        return chunk;
    }
    [news.as_slice(), &chunk, &last].concat().into()
}

fn broken() -> io::Error {
    io::Error::other("reading output was given up in between")
}

async fn changed(output: &mut Option<watch::Receiver<u64>>) -> Result<(), watch::error::RecvError> {
    match output {
        Some(output) => output.changed().await,
        None => std::future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
