//! Where in a log a line or a moment is, and which line is at an offset.
//!
//! Line feeds are counted once, a number for each MiB, and kept for the logs that were looked at last.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

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

#[derive(Debug, Serialize)]
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
    let mut reader = api.manager.output(id).await?;
    let permit = api.searches.clone().acquire_owned().await;
    let permit = permit.map_err(|error| ApiError::Internal(error.to_string()))?;
    let index = api.places.of(id);
    let found = off_thread(move || {
        let _permit = permit;
        let mut index = index.lock().unwrap_or_else(PoisonError::into_inner);
        index.find(&mut reader, &wanted)
    });
    let found = found
        .await?
        .map_err(|error| ApiError::io("reading output", &error))?;
    Ok(Json(found).into_response())
}

impl Index {
    fn find(&mut self, reader: &mut Reader, wanted: &Wanted) -> io::Result<Found> {
        let totals = reader.totals()?;
        if self.first != totals.first_offset || self.feeds.is_empty() {
            // The oldest lines are gone: they count from another one now.
            self.first = totals.first_offset;
            self.feeds = vec![0];
        }
        let end = totals.next_offset;
        match wanted {
            Wanted::Offset(offset) => {
                let offset = (*offset).clamp(self.first, end.max(self.first));
                let line = self.feeds_before(reader, offset)? + 1;
                Ok(Found { line, offset })
            }
            Wanted::At(at) => {
                let offset = moment(reader, self.first, end, *at)?;
                let line = self.feeds_before(reader, offset)? + 1;
                Ok(Found { line, offset })
            }
            Wanted::Line(line) => self.line(reader, *line, end),
        }
    }

    fn feeds_before(&mut self, reader: &mut Reader, offset: u64) -> io::Result<u64> {
        let steps = (offset - self.first) / STEP;
        let step = usize::try_from(steps).map_err(io::Error::other)?;
        while self.feeds.len() <= step {
            self.extend(reader)?;
        }
        let from = self.first + steps * STEP;
        Ok(self.feeds[step] + count(reader, from, offset)?)
    }

    fn extend(&mut self, reader: &mut Reader) -> io::Result<()> {
        let last = self.feeds.last().copied().unwrap_or(0);
        let done = u64::try_from(self.feeds.len() - 1).map_err(io::Error::other)?;
        let from = self.first + done * STEP;
        self.feeds.push(last + count(reader, from, from + STEP)?);
        Ok(())
    }

    /// Where this line begins; the last one if there are not so many.
    fn line(&mut self, reader: &mut Reader, line: u64, end: u64) -> io::Result<Found> {
        let before = line - 1;
        let place = |index: usize| u64::try_from(index).map_err(io::Error::other);
        while self.feeds.last().copied().unwrap_or(0) < before
            && self.first + place(self.feeds.len())? * STEP <= end
        {
            self.extend(reader)?;
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
            for (byte, place) in bytes.iter().zip(at..) {
                if left > 0 && *byte == b'\n' {
                    left -= 1;
                    passed += 1;
                    found = place + 1;
                }
            }
            at += u64::try_from(bytes.len()).map_err(io::Error::other)?;
        }
        if before == 0 {
            found = self.first;
        }
        Ok(Found {
            line: self.feeds[index].min(before) + passed + 1,
            offset: found,
        })
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
                let more = bytes.iter().filter(|byte| **byte == b'\n').count();
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
