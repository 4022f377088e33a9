//! Output as records: one line of NDJSON or one server-sent event each, or raw lines with their times.
//!
//! It reads from where it stands, as much as is there, and remembers nothing but its place: the same
//! offset gives the same bytes to whoever comes back with it.
//!
//! Bytes become `text` where they are UTF-8. A record ends before a character whose last bytes have not
//! come yet; that character is the next record once it is whole. Where it will not be whole (the other
//! stream's bytes, a gap or the end come first, or nothing comes for a moment), its bytes go as `base64`,
//! and so do the bytes of its other half, and so does every piece with bytes that are no UTF-8 at all.

use std::io::{self, Write};
use std::sync::Arc;

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;

use super::attempts::Attempts;
use super::lost;
use job::time::Timestamp;
use job::{Job, OutputTotals, State};
use manager::cloud_event::ExitView;
use protocol::output::{Piece, Reader, Stream};

/// The most payload bytes of one record.
const RECORD: usize = 32 << 10;

/// After so many bytes a chunk is handed on.
const CHUNK: usize = 64 << 10;

/// The longest character has four bytes.
const CHARACTER: usize = 4;

/// How records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// The bytes as they are.
    Raw,
    /// The bytes as they are, each line behind its time.
    RawWithTimes,
    /// One JSON object a line.
    Lines,
    /// Server-sent events.
    Events,
}

/// What a client is sent, as JSON.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Message<'a> {
    Output {
        offset: u64,
        stream: &'static str,
        at: Timestamp,
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        base64: Option<String>,
    },
    Gap {
        from: u64,
        to: u64,
    },
    Attempt {
        attempt: u32,
        offset: u64,
    },
    State {
        state: State,
        version: u64,
    },
    End {
        state: State,
        exit: Option<ExitView>,
        next_offset: u64,
    },
}

/// What reading from the present place gave.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) bytes: Bytes,
    pub(super) then: Then,
}

/// What is to be done after a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// There may be more at once.
    ReadOn,
    /// Nothing more for now.
    Wait,
    /// Nothing more for now but a character of which the rest is missing.
    WaitForRest,
    /// As much as was asked for has been read.
    Stop,
}

/// A place in a log, and how what follows it is to be written.
#[derive(Debug)]
pub(super) struct Records {
    /// `None` as long as the job has no directory.
    pub(super) reader: Option<Reader>,
    pub(super) filter: Option<Stream>,
    pub(super) format: Format,
    /// Where to read on.
    pub(super) at: u64,
    /// Where to end; follows have no such place.
    pub(super) end: Option<u64>,
    /// How many bytes may still come; `None` if there is no limit.
    pub(super) left: Option<u64>,
    /// For [`Format::RawWithTimes`]: is the place within a line of this stream?
    pub(super) within_line: [bool; 2],
    /// Where the output of each attempt begins.
    pub(super) attempts: Attempts,
}

/// A run of bytes of one stream that goes into one record.
struct Run {
    offset: u64,
    stream: Stream,
    at: Timestamp,
    bytes: Vec<u8>,
    next: u64,
}

/// Where the rest of a character is.
enum Rest {
    /// Right behind; this is the whole character.
    There(Vec<u8>),
    /// It may yet be written.
    MayCome,
    /// Something else is in its place.
    Elsewhere,
}

enum Found {
    Run(Run),
    Gap { from: u64, to: u64 },
    Nothing(Then),
}

impl Records {
    /// Reads and writes what there is, up to about 64 KiB. With `flush`, the missing rest of a character
    /// is not waited for.
    pub(super) fn chunk(&mut self, flush: bool) -> io::Result<Chunk> {
        let mut out = Vec::new();
        let then = loop {
            if out.len() >= CHUNK {
                break Then::ReadOn;
            }
            // Looked at first: all output of the attempts that have ended by now can be read.
            let begun = self.attempts.begun(u64::MAX);
            match self.find(flush)? {
                Found::Nothing(then) => {
                    if then == Then::Wait {
                        self.write_attempts(&mut out, begun)?;
                    }
                    break then;
                }
                Found::Gap { from, to } => {
                    self.write_attempts(&mut out, self.attempts.begun(from))?;
                    if let Err(error) = self.write_gap(&mut out, from, to) {
                        // What was read before is sent before it breaks off.
                        if out.is_empty() {
                            return Err(error);
                        }
                        break Then::ReadOn;
                    }
                    self.at = forward(self.at, to)?;
                }
                Found::Run(run) => {
                    // An attempt is known before it writes.
                    self.write_attempts(&mut out, self.attempts.begun(run.offset))?;
                    self.write_run(&mut out, &run)?;
                    self.left = self
                        .left
                        .map(|left| left.saturating_sub(length(&run.bytes)));
                    self.at = forward(self.at, run.next)?;
                }
            }
        };
        Ok(Chunk {
            bytes: out.into(),
            then,
        })
    }

    fn find(&mut self, flush: bool) -> io::Result<Found> {
        if self.left == Some(0) || self.end.is_some_and(|end| self.at >= end) {
            return Ok(Found::Nothing(Then::Stop));
        }
        let Some(reader) = &mut self.reader else {
            return Ok(Found::Nothing(Then::Wait));
        };
        let left = self.left.and_then(|left| usize::try_from(left).ok());
        let max = left.unwrap_or(RECORD).min(RECORD);
        let piece = reader.next(self.at, self.filter, max)?;
        let (offset, stream, at, mut bytes) = match piece {
            None => return Ok(Found::Nothing(Then::Wait)),
            Some(Piece::Gap { from, to }) => return Ok(Found::Gap { from, to }),
            Some(Piece::Data {
                offset,
                stream,
                at,
                bytes,
                ..
            }) => (offset, stream, at, bytes),
        };
        let room = self.end.map_or(u64::MAX, |end| end.saturating_sub(offset));
        if room == 0 {
            return Ok(Found::Nothing(Then::Stop));
        }
        bytes.truncate(usize::try_from(room).unwrap_or(usize::MAX));
        match self.format {
            Format::Raw | Format::RawWithTimes => {}
            Format::Lines | Format::Events => match shape(&bytes) {
                Shape::Text(whole) | Shape::Binary(whole) => bytes.truncate(whole),
                Shape::Beginning => match self.rest_of_character(&bytes, offset, stream)? {
                    Rest::There(whole) => bytes = whole,
                    Rest::MayCome if !flush => {
                        return Ok(Found::Nothing(Then::WaitForRest));
                    }
                    Rest::MayCome | Rest::Elsewhere => {}
                },
            },
        }
        Ok(Found::Run(Run {
            offset,
            stream,
            at,
            next: offset + length(&bytes),
            bytes,
        }))
    }

    /// Looks for the rest of the character that these bytes begin, in the bytes that directly follow.
    fn rest_of_character(&mut self, begun: &[u8], offset: u64, stream: Stream) -> io::Result<Rest> {
        let mut whole = begun.to_vec();
        loop {
            let next = offset + length(&whole);
            let is_outside = self.left.is_some_and(|left| length(&whole) >= left)
                || self.end.is_some_and(|end| next >= end);
            let Some(reader) = self.reader.as_mut().filter(|_| !is_outside) else {
                return Ok(Rest::Elsewhere);
            };
            match reader.next(next, self.filter, 1)? {
                None => return Ok(Rest::MayCome),
                Some(Piece::Data {
                    offset: at,
                    stream: of,
                    bytes,
                    ..
                }) if at == next && of == stream => whole.extend_from_slice(&bytes),
                Some(Piece::Data { .. } | Piece::Gap { .. }) => return Ok(Rest::Elsewhere),
            }
            match shape(&whole) {
                Shape::Text(_) => return Ok(Rest::There(whole)),
                Shape::Beginning => {}
                Shape::Binary(_) => return Ok(Rest::Elsewhere),
            }
        }
    }

    /// Has an attempt begun that has not been written?
    pub(super) fn has_attempt_news(&self) -> bool {
        self.attempts.begun(u64::MAX) > self.attempts.said
    }

    /// Says which attempts have begun, up to this one.
    fn write_attempts(&mut self, out: &mut Vec<u8>, up_to: u32) -> io::Result<()> {
        while self.attempts.said < up_to {
            self.attempts.said += 1;
            let attempt = self.attempts.said;
            let offset = self.attempts.offset_of(attempt).unwrap_or(self.at);
            match self.format {
                Format::Raw | Format::RawWithTimes => {}
                Format::Lines | Format::Events => {
                    let message = Message::Attempt { attempt, offset };
                    self.write(out, "attempt", Some(self.at.max(offset)), &message)?;
                }
            }
        }
        Ok(())
    }

    fn write_gap(&mut self, out: &mut Vec<u8>, from: u64, to: u64) -> io::Result<()> {
        match self.format {
            Format::Raw | Format::RawWithTimes => {
                let oldest = match &mut self.reader {
                    Some(reader) => {
                        if reader.lost_within(from, to)? {
                            return Err(lost());
                        }
                        reader.totals()?.first_offset
                    }
                    None => 0,
                };
                // What the output limit drops at the end is a plain hole. Raw bytes have no other way to
                // tell of a gap in front of them than to break off.
                if to <= oldest {
                    return Err(io::Error::other("output was dropped before it was read"));
                }
                Ok(())
            }
            Format::Lines | Format::Events => {
                self.write(out, "gap", Some(to), &Message::Gap { from, to })
            }
        }
    }

    fn write_run(&mut self, out: &mut Vec<u8>, run: &Run) -> io::Result<()> {
        match self.format {
            Format::Raw => out.extend_from_slice(&run.bytes),
            Format::RawWithTimes => {
                let within = match run.stream {
                    Stream::Stdout => &mut self.within_line[0],
                    Stream::Stderr => &mut self.within_line[1],
                };
                for line in run.bytes.split_inclusive(|byte| *byte == b'\n') {
                    if !*within {
                        write!(out, "{} ", run.at)?;
                    }
                    out.extend_from_slice(line);
                    *within = !line.ends_with(b"\n");
                }
            }
            Format::Lines | Format::Events => {
                let text = std::str::from_utf8(&run.bytes).ok();
                let message = Message::Output {
                    offset: run.offset,
                    stream: run.stream.as_str(),
                    at: run.at,
                    text,
                    base64: text.is_none().then(|| STANDARD.encode(&run.bytes)),
                };
                self.write(out, "output", Some(run.next), &message)?;
            }
        }
        Ok(())
    }

    /// Tells what is known of the output of a job that is over.
    pub(super) fn expect(&mut self, recorded: OutputTotals) {
        let reader = self.reader.get_or_insert_with(Reader::empty);
        reader.expect(recorded);
    }

    /// A body with what there is by now; with the end of the job, if that is known and nothing of
    /// its output lies after it.
    pub(super) fn into_body(self, end: Option<Arc<Job>>) -> Body {
        let first = Some((self, end));
        Body::from_stream(stream::try_unfold(first, async |place| {
            let Some((mut records, end)) = place else {
                return Ok(None);
            };
            let read = tokio::task::spawn_blocking(move || {
                let chunk = records.chunk(true)?;
                let is_last = chunk.then != Then::ReadOn;
                let mut bytes = Vec::from(chunk.bytes);
                if let (true, Some(job)) = (is_last, &end) {
                    records.write_end(&mut bytes, job)?;
                }
                let rest = (!is_last).then_some((records, end));
                Ok::<_, io::Error>(Some((Bytes::from(bytes), rest)))
            });
            let read = read.await.map_err(io::Error::other)?;
            read.inspect_err(|error| {
                tracing::warn!("broke off an answer with output: {error}");
            })
        }))
    }

    /// The state that a job is in, for those that are told of more than output.
    pub(super) fn write_state(&self, out: &mut Vec<u8>, job: &Job) -> io::Result<()> {
        match self.format {
            Format::Raw | Format::RawWithTimes | Format::Lines => Ok(()),
            Format::Events => {
                let message = Message::State {
                    state: job.state,
                    version: job.version,
                };
                self.write(out, "state", None, &message)
            }
        }
    }

    /// The last record: the job has ended, and this was all of its output.
    pub(super) fn write_end(&mut self, out: &mut Vec<u8>, job: &Job) -> io::Result<()> {
        let next_offset = match &mut self.reader {
            Some(reader) => reader.totals()?.next_offset.max(self.at),
            None => self.at,
        };
        let begun = self.attempts.begun(u64::MAX);
        self.write_attempts(out, begun)?;
        match self.format {
            Format::Raw | Format::RawWithTimes => Ok(()),
            Format::Lines | Format::Events => {
                let message = Message::End {
                    state: job.state,
                    exit: job.exit.as_ref().map(ExitView::from),
                    next_offset,
                };
                self.write(out, "end", Some(next_offset), &message)
            }
        }
    }

    fn write(
        &self,
        out: &mut Vec<u8>,
        event: &str,
        id: Option<u64>,
        message: &Message<'_>,
    ) -> io::Result<()> {
        if self.format != Format::Events {
            serde_json::to_writer(&mut *out, message)?;
            out.push(b'\n');
            return Ok(());
        }
        if let Some(id) = id {
            // Whoever comes back with the id of the end has had everything.
            let mark = if event == "end" { END_MARK } else { "" };
            writeln!(out, "id: {id}{mark}")?;
        }
        write!(out, "event: {event}\ndata: ")?;
        serde_json::to_writer(&mut *out, message)?;
        out.extend_from_slice(b"\n\n");
        Ok(())
    }
}

/// Behind the offset in the event id of `end`.
pub(super) const END_MARK: &str = "-end";

/// How the beginning of a run of bytes can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// So many bytes are whole characters.
    Text(usize),
    /// So many bytes go as they are.
    Binary(usize),
    /// The first bytes of one character, and nothing else.
    Beginning,
}

fn shape(bytes: &[u8]) -> Shape {
    let Err(error) = std::str::from_utf8(bytes) else {
        return Shape::Text(bytes.len());
    };
    match (error.valid_up_to(), error.error_len()) {
        (0, None) => Shape::Beginning,
        (valid, None) => Shape::Text(valid),
        (_, Some(_)) => {
            // The other half of a character that was split stands apart from the text after it.
            let half = bytes
                .iter()
                .take(CHARACTER - 1)
                .take_while(|byte| (0x80..0xc0).contains(*byte))
                .count();
            let rest = bytes.get(half..).unwrap_or_default();
            let is_text = match std::str::from_utf8(rest) {
                Ok(_) => true,
                Err(error) => error.error_len().is_none(),
            };
            if half > 0 && is_text {
                Shape::Binary(half)
            } else {
                Shape::Binary(bytes.len())
            }
        }
    }
}

/// A reader that stood still would never end.
pub(super) fn forward(at: u64, next: u64) -> io::Result<u64> {
    if next > at {
        Ok(next)
    } else {
        Err(io::Error::other("the output index does not go forward"))
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).expect("usize has at most 64 bits")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_are_text_up_to_a_character_that_is_not_whole() {
        for (bytes, expected) in [
            (&b"plain"[..], Shape::Text(5)),
            ("gr\u{fc}n".as_bytes(), Shape::Text(5)),
            (b"gr\xc3", Shape::Text(2)),
            (b"\xc3", Shape::Beginning),
            (b"\xf0\x9f\x98", Shape::Beginning),
            (b"\xbcn", Shape::Binary(1)),
            (b"\x9f\x98\x80 text", Shape::Binary(3)),
            (b"\xbcn\xc3", Shape::Binary(1)),
            (b"\xff\xfe", Shape::Binary(2)),
            (b"text \xff text", Shape::Binary(11)),
        ] {
            assert_eq!(shape(bytes), expected, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn some_of_any_bytes_can_be_sent(bytes in prop::collection::vec(any::<u8>(), 1..64)) {
            match shape(&bytes) {
                Shape::Text(length) => {
                    prop_assert!(length > 0);
                    prop_assert!(std::str::from_utf8(&bytes[..length]).is_ok());
                }
                Shape::Binary(length) => prop_assert!(length > 0 && length <= bytes.len()),
                Shape::Beginning => prop_assert!(bytes.len() < CHARACTER),
            }
        }
    }
}
