//! A follower of server-sent events that checks every record and is cheap enough for two hundred of them.
//!
//! The job's lines all have the same length, so that an event's ids say how many bytes of it come: they are not
//! looked through, only what stands at their ends.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};

use nix::time::{ClockId, clock_gettime};

/// Digits of a line's stamp.
const STAMP: usize = 20;
/// What stands before the text of a record is shorter.
const LONGEST_HEAD: usize = 512;

/// The clock that the job's lines have, in nanoseconds.
pub(crate) fn now() -> io::Result<u64> {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    let seconds = u64::try_from(time.tv_sec()).map_err(io::Error::other)?;
    let rest = u64::try_from(time.tv_nsec()).map_err(io::Error::other)?;
    Ok(seconds * 1_000_000_000 + rest)
}

/// One connection that follows a job.
pub(crate) struct Follower {
    stream: TcpStream,
    /// The length of a line of the job.
    line: u64,
    /// Bytes of HTTP that have not been taken apart yet.
    raw: Vec<u8>,
    /// Bytes that are left of the present chunk; `None` before the head of the answer has ended.
    chunk: Option<usize>,
    /// Bytes of events that are not whole yet.
    events: Vec<u8>,
    /// Up to where every byte has come.
    pub(crate) at: u64,
    /// From the first stamp of each event to its arrival, in milliseconds.
    pub(crate) delays: Vec<f64>,
    /// The first and the last stamp seen.
    pub(crate) stamps: Option<(u64, u64)>,
    /// When the end was told.
    pub(crate) ended_at: Option<u64>,
}

impl AsFd for Follower {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn wrong(what: &str, bytes: &[u8]) -> io::Error {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
    io::Error::other(format!("{what}: {shown:?}"))
}

fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

/// The number behind a word.
fn number_after(bytes: &[u8], word: &[u8]) -> Option<u64> {
    number(&bytes[position(bytes, word)? + word.len()..])
}

/// The number that these bytes begin with.
fn number(bytes: &[u8]) -> Option<u64> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit());
    digits.copied().fold(None, |number: Option<u64>, digit| {
        Some(number.unwrap_or(0) * 10 + u64::from(digit - b'0'))
    })
}

impl Follower {
    /// Sends the request; `line` is the length of every line of the job.
    pub(crate) fn start(mut stream: TcpStream, request: &[u8], line: u64) -> io::Result<Self> {
        stream.write_all(request)?;
        Ok(Self {
            stream,
            line,
            raw: Vec::new(),
            chunk: None,
            events: Vec::new(),
            at: 0,
            delays: Vec::new(),
            stamps: None,
            ended_at: None,
        })
    }

    /// Has the head of the answer come?
    pub(crate) fn is_following(&self) -> bool {
        self.chunk.is_some()
    }

    /// Takes what has come; `buffer` is for anybody to read into.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let count = self.stream.read(buffer)?;
        let arrived = now()?;
        if count == 0 {
            return Err(io::Error::other("a follow was broken off"));
        }
        if self.raw.is_empty() && self.chunk.is_some() {
            let taken = self.unpack(&buffer[..count])?;
            self.raw.extend_from_slice(&buffer[taken..count]);
        } else {
            self.raw.extend_from_slice(&buffer[..count]);
            let raw = std::mem::take(&mut self.raw);
            let taken = self.unpack(&raw)?;
            self.raw.extend_from_slice(&raw[taken..]);
        }
        let events = std::mem::take(&mut self.events);
        let taken = self.take_events(&events, arrived)?;
        self.events = events;
        self.events.drain(..taken);
        Ok(())
    }

    /// Takes the chunks off; says how many bytes were used.
    fn unpack(&mut self, raw: &[u8]) -> io::Result<usize> {
        let mut at = 0;
        if self.chunk.is_none() {
            let Some(head) = position(raw, b"\r\n\r\n") else {
                return Ok(0);
            };
            if !raw.starts_with(b"HTTP/1.1 200") {
                return Err(wrong("a follow was refused", raw));
            }
            // As if a chunk had just ended: its line end is that of the head.
            at = head + 2;
            self.chunk = Some(0);
        }
        loop {
            let left = self.chunk.unwrap_or(0);
            if left > 0 {
                let take = left.min(raw.len() - at);
                self.events.extend_from_slice(&raw[at..at + take]);
                at += take;
                self.chunk = Some(left - take);
                if left > take {
                    return Ok(at);
                }
                continue;
            }
            let rest = &raw[at..];
            let Some(end) = position(&rest[rest.len().min(2)..], b"\r\n") else {
                return Ok(at);
            };
            let digits = String::from_utf8_lossy(&rest[2..2 + end]).into_owned();
            let size = usize::from_str_radix(&digits, 16)
                .map_err(|_| wrong("this is no length of a chunk", rest))?;
            at += 2 + end + 2;
            if size == 0 {
                return Ok(at);
            }
            self.chunk = Some(size);
        }
    }

    /// Checks the events that are whole; says how many bytes they have.
    fn take_events(&mut self, bytes: &[u8], arrived: u64) -> io::Result<usize> {
        let mut at = 0;
        loop {
            let rest = &bytes[at..];
            let head = &rest[..rest.len().min(LONGEST_HEAD)];
            if let Some(text) = position(head, b"\"text\":\"") {
                let text = text + b"\"text\":\"".len();
                match self.take_output(rest, text, arrived)? {
                    Some(taken) => at += taken,
                    None => return Ok(at),
                }
                continue;
            }
            let Some(end) = position(head, b"\n\n") else {
                return Ok(at);
            };
            let event = &rest[..end];
            if position(event, b"event: end").is_some() {
                if number_after(event, b"\"next_offset\":") != Some(self.at) {
                    return Err(wrong("the end is somewhere else", event));
                }
                self.ended_at = Some(arrived);
            } else if position(event, b"event: state").is_none()
                && !event.starts_with(b":")
                && !event.starts_with(b"retry")
            {
                return Err(wrong("what came is no output", event));
            }
            at += end + 2;
        }
    }

    /// An event with output, whose text begins at `text`; `None` while it is not whole.
    fn take_output(
        &mut self,
        bytes: &[u8],
        text: usize,
        arrived: u64,
    ) -> io::Result<Option<usize>> {
        let next = number_after(bytes, b"id: ").unwrap_or(0);
        let offset = number_after(bytes, b"\"offset\":");
        if offset != Some(self.at) || next <= self.at {
            return Err(wrong("a record is in the wrong place", bytes));
        }
        // A line end is two characters in JSON.
        let ends = next / self.line - self.at / self.line;
        let length = usize::try_from(next - self.at + ends).map_err(io::Error::other)?;
        let end = b"\"}\n\n";
        let Some(tail) = bytes.get(text + length..text + length + end.len()) else {
            return Ok(None);
        };
        if tail != end {
            return Err(wrong("a record has another length", bytes));
        }
        // The rest of a line that began in the record before has its line end too.
        let skip = match self.at % self.line {
            0 => 0,
            within => self.line - within + 1,
        };
        let first = text + usize::try_from(skip).map_err(io::Error::other)?;
        if first + STAMP <= text + length {
            let stamp = number(&bytes[first..first + STAMP])
                .ok_or_else(|| wrong("a line has no stamp", &bytes[first..]))?;
            self.delays
                .push(crate::stats::float64(arrived.saturating_sub(stamp)) / 1e6);
            let begin = self.stamps.map_or(stamp, |(begin, _)| begin);
            self.stamps = Some((begin, stamp));
        }
        self.at = next;
        Ok(Some(text + length + end.len()))
    }
}
