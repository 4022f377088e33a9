//! Where in a log a line or a moment is, and which line is at an offset.
//!
//! Line feeds are counted once, a number for each MiB, and kept for the logs that were looked at last. Requests about one
//! log take turns, so that what is near the beginning does not wait until somebody knows the last line, and a request that
//! nobody waits for counts no further.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use memchr::memchr_iter;

use super::off_thread;
use crate::api::Api;
use crate::extract::InPath;
use crate::problem::ApiError;
use crate::query::Params;
use job::JobId;
use job::time::Timestamp;
use protocol::output::{Piece, RawPiece, Reader};

/// The parameters of [`place`].
pub(crate) const PLACE: &[&str] = &["line", "offset", "at"];

/// How far apart the counted places are.
const STEP: u64 = 1 << 20;

/// So many places are counted in one turn.
const TURN: usize = 16;

/// So many logs are remembered.
const LOGS: usize = 16;

/// Counted line feeds of the logs that were looked at last.
#[derive(Debug, Default)]
pub(crate) struct Places(Mutex<VecDeque<(JobId, Arc<Mutex<Index>>)>>);

impl Places {
    fn of(&self, id: JobId) -> Arc<Mutex<Index>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let index = match known.iter().position(|(other, _)| *other == id) {
            Some(at) => known.remove(at).map(|(_, index)| index).unwrap_or_default(),
            None => Arc::default(),
        };
        known.push_front((id, index.clone()));
        known.truncate(LOGS);
        index
    }
}

/// Line feeds before each counted place.
#[derive(Debug, Default)]
struct Index {
    first: u64,
    /// At `first + n * STEP`.
    feeds: Vec<u64>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Found {
    /// From 1; counted from the first line that is kept.
    line: u64,
    /// Of its first byte, or the one asked for.
    offset: u64,
}

enum Wanted {
    Line(u64),
    Offset(u64),
    At(Timestamp),
}

/// `GET /jobs/{id}/output/place`
pub(crate) async fn place(
    State(api): State<Api>,
    InPath(id): InPath,
    mut params: Params,
) -> Result<Response, ApiError> {
    let line = params.integer("line");
    let offset = params.integer("offset");
    let at = params.parsed("at", "a time in RFC 3339", |text| text.parse().ok());
    let given = [line.is_some(), offset.is_some(), at.is_some()];
    if given.iter().filter(|given| **given).count() > 1 {
        params.refuse("line", "conflict", "give one of line, offset and at");
    }
    if line == Some(0) {
        params.refuse("line", "out_of_range", "must be 1 or more");
    }
    let wanted = match (line, offset, at) {
        (Some(line), _, _) => Some(Wanted::Line(line)),
        (_, Some(offset), _) => Some(Wanted::Offset(offset)),
        (_, _, Some(at)) => Some(Wanted::At(at)),
        (None, None, None) => None,
    };
    if wanted.is_none() {
        params.refuse("line", "missing", "give one of line, offset and at");
    }
    params.finish()?;
    let wanted = wanted.ok_or(ApiError::Internal("a place was refused in silence".into()))?;
    let reader = api.manager.output(id).await?;
    let permit = api.searches.acquire().await;
    let _permit = permit.map_err(|error| ApiError::Internal(error.to_string()))?;
    let mut look = Look {
        reader,
        index: api.places.of(id),
        wanted,
    };
    loop {
        let turn = off_thread(move || {
            let found = look.turn();
            (look, found)
        });
        let (next, found) = turn.await?;
        look = next;
        if let Some(found) = found.map_err(|error| ApiError::io("reading output", &error))? {
            return Ok(Json(found).into_response());
        }
    }
}

/// A place that is looked for, a turn after the other.
struct Look {
    reader: Reader,
    index: Arc<Mutex<Index>>,
    wanted: Wanted,
}

impl Look {
    /// `None`: not found yet.
    fn turn(&mut self) -> io::Result<Option<Found>> {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        index.find(&mut self.reader, &self.wanted)
    }
}

impl Index {
    fn find(&mut self, reader: &mut Reader, wanted: &Wanted) -> io::Result<Option<Found>> {
        let totals = reader.totals()?;
        if self.first != totals.first_offset || self.feeds.is_empty() {
            // The oldest lines are gone: they count from another one now.
            self.first = totals.first_offset;
            self.feeds = vec![0];
        }
        let end = totals.next_offset;
        let offset = match wanted {
            Wanted::Line(line) => return self.line(reader, *line, end),
            Wanted::Offset(offset) => (*offset).clamp(self.first, end.max(self.first)),
            Wanted::At(at) => moment(reader, self.first, end, *at)?,
        };
        let steps = (offset - self.first) / STEP;
        let step = usize::try_from(steps).map_err(io::Error::other)?;
        if !self.extend(reader, |index| index.feeds.len() > step)? {
            return Ok(None);
        }
        let from = self.first + steps * STEP;
        let line = self.feeds[step] + count(reader, from, offset)? + 1;
        Ok(Some(Found { line, offset }))
    }

    /// Counts until it is enough, one turn at most. Is it enough?
    fn extend(
        &mut self,
        reader: &mut Reader,
        is_enough: impl Fn(&Self) -> bool,
    ) -> io::Result<bool> {
        for _ in 0..TURN {
            if is_enough(self) {
                return Ok(true);
            }
            let last = self.feeds.last().copied().unwrap_or(0);
            let done = u64::try_from(self.feeds.len() - 1).map_err(io::Error::other)?;
            let from = self.first + done * STEP;
            self.feeds.push(last + count(reader, from, from + STEP)?);
        }
        Ok(is_enough(self))
    }

    /// Where this line begins; the last one if there are not so many.
    fn line(&mut self, reader: &mut Reader, line: u64, end: u64) -> io::Result<Option<Found>> {
        let before = line - 1;
        let place = |index: usize| u64::try_from(index).map_err(io::Error::other);
        // The whole steps of what there is.
        let all = usize::try_from((end - self.first) / STEP).map_err(io::Error::other)?;
        let is_known = |index: &Self| {
            index.feeds.last().copied().unwrap_or(0) >= before || index.feeds.len() > all
        };
        if !self.extend(reader, is_known)? {
            return Ok(None);
        }
        let index = self.feeds.partition_point(|feeds| *feeds < before).max(1) - 1;
        let mut left = before - self.feeds[index].min(before);
        let mut at = self.first + place(index)? * STEP;
        let (mut found, mut passed) = (at, 0);
        while left > 0 && at < end {
            let bytes = match reader.next_raw(at, 64 << 10)? {
                None => break,
                Some(RawPiece::Gap { to }) => {
                    at = to;
                    continue;
                }
                Some(RawPiece::Data(bytes)) => bytes,
            };
            let most = usize::try_from(left).unwrap_or(usize::MAX);
            for feed in memchr_iter(b'\n', &bytes).take(most) {
                left -= 1;
                passed += 1;
                found = at + u64::try_from(feed).map_err(io::Error::other)? + 1;
            }
            at += u64::try_from(bytes.len()).map_err(io::Error::other)?;
        }
        if before == 0 {
            found = self.first;
        }
        Ok(Some(Found {
            line: self.feeds[index].min(before) + passed + 1,
            offset: found,
        }))
    }
}

/// Line feeds of what is kept from one offset to another.
fn count(reader: &mut Reader, from: u64, to: u64) -> io::Result<u64> {
    let (mut at, mut feeds) = (from, 0);
    while at < to {
        let max = usize::try_from(to - at).unwrap_or(usize::MAX);
        match reader.next_raw(at, max)? {
            None => break,
            Some(RawPiece::Gap { to }) => at = to,
            Some(RawPiece::Data(bytes)) => {
                let more = memchr_iter(b'\n', &bytes).count();
                feeds += u64::try_from(more).map_err(io::Error::other)?;
                at += u64::try_from(bytes.len()).map_err(io::Error::other)?;
            }
        }
    }
    Ok(feeds)
}

/// The first output that came at this moment or later.
fn moment(reader: &mut Reader, first: u64, end: u64, at: Timestamp) -> io::Result<u64> {
    let (mut low, mut high) = (first, end);
    while low < high {
        let middle = low + (high - low) / 2;
        let mut from = middle;
        let later = loop {
            match reader.next(from, None, 1)? {
                None => break true,
                Some(Piece::Gap { to, .. }) => from = to,
                Some(Piece::Data { at: came, .. }) => break came >= at,
            }
        };
        if later {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    use super::super::tests::Log;
    use super::*;
    use job::spec::OnLimit;
    use protocol::output::Stream;

    const LINE: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\n";

    fn log(mebibytes: usize) -> Log {
        let mut log = Log::new(1 << 30, OnLimit::DropOldest);
        let text = LINE.repeat((1 << 20) / LINE.len());
        for _ in 0..mebibytes {
            log.write(Stream::Stdout, &text);
        }
        log
    }

    fn found(look: &mut Look) -> (Found, usize) {
        let mut turns = 1;
        loop {
            match look.turn().unwrap() {
                Some(found) => return (found, turns),
                None => turns += 1,
            }
        }
    }

    #[test]
    fn a_place_near_the_beginning_does_not_wait_for_one_near_the_end() {
        let log = log(3 * TURN);
        let index = Arc::new(Mutex::new(Index::default()));
        let look = |wanted| Look {
            reader: log.reader(),
            index: index.clone(),
            wanted,
        };
        let mut far = look(Wanted::Offset(u64::MAX));
        assert_eq!(far.turn().unwrap(), None);
        let per_step = STEP / 64;
        let near = found(&mut look(Wanted::Line(per_step + 3)));
        let there = Found {
            line: per_step + 3,
            offset: STEP + 128,
        };
        assert_eq!(near, (there, 1));
        let steps = u64::try_from(3 * TURN).unwrap();
        let (last, turns) = found(&mut far);
        assert_eq!(last.line, steps * per_step + 1);
        assert!(turns > 1, "{turns}");
        // What was counted is known.
        let behind = found(&mut look(Wanted::Line(u64::MAX)));
        assert_eq!(behind, (last, 1));
    }

    #[test]
    fn lines_begin_behind_line_feeds() {
        let mut log = Log::new(1 << 20, OnLimit::DropOldest);
        log.write(Stream::Stdout, "one\n\nthree");
        for (line, at, offset) in [(1, 1, 0), (2, 2, 4), (3, 3, 5), (4, 3, 5)] {
            let mut look = Look {
                reader: log.reader(),
                index: Arc::default(),
                wanted: Wanted::Line(line),
            };
            assert_eq!(found(&mut look).0, Found { line: at, offset }, "{line}");
        }
    }
}
