//! A search over all of a log: hits come while it is read, and it ends with the request.
//!
//! Lines are matched one at a time; of a longer line than [`LONGEST`] a part after the other is.

use std::io;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use regex::bytes::{Regex, RegexBuilder};
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;

use super::{NDJSON, forward};
use crate::api::Api;
use crate::extract::InPath;
use crate::problem::ApiError;
use crate::query::Params;
use protocol::output::{Piece, RawPiece, Reader, Stream};

/// The parameters of [`search`].
pub(crate) const SEARCH: &[&str] = &["q", "regex", "case", "stream", "offset", "limit", "text"];

/// So much is read between two signs of progress, and at once.
const STEP: u64 = 4 << 20;
const PIECE: usize = 1 << 20;

/// The longest part of a line that is matched as one, and how much of it is looked at again with the next part.
const LONGEST: usize = 64 << 10;
const OVERLAP: usize = 4 << 10;

/// The longest pattern, and the most memory that it may take.
const PATTERN_MAX: usize = 4096;
const PROGRAM_MAX: usize = 4 << 20;

/// The most hits of one answer.
const HITS: u64 = 1_000_000;

/// `GET /jobs/{id}/output/search`
pub(crate) async fn search(
    State(api): State<Api>,
    InPath(id): InPath,
    mut params: Params,
) -> Result<Response, ApiError> {
    let pattern = pattern(&mut params);
    let filter = super::stream_of(&mut params);
    let offset = params.integer("offset").unwrap_or(0);
    let limit = params.integer("limit").unwrap_or(HITS).min(HITS);
    let with_text = params.flag("text");
    params.finish()?;
    let pattern = pattern.ok_or(ApiError::Internal(
        "a pattern was refused in silence".into(),
    ))?;
    let reader = api.manager.output(id).await?;
    let permit = api.searches.clone().acquire_owned().await;
    let permit = permit.map_err(|error| ApiError::Internal(error.to_string()))?;
    let search = Search {
        reader,
        filter,
        pattern,
        at: offset,
        end: None,
        left: limit,
        matches: 0,
        held: Held {
            with_text,
            ..Held::default()
        },
        over: false,
        _permit: permit,
    };
    Ok(([(CONTENT_TYPE, NDJSON)], search.into_body()).into_response())
}

fn pattern(params: &mut Params) -> Option<Regex> {
    let text = params.text("q");
    let is_regex = params.flag("regex");
    let same_case = params.flag("case");
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        params.refuse("q", "missing", "what to search for");
        return None;
    };
    if text.len() > PATTERN_MAX {
        params.refuse("q", "too_long", "at most 4096 bytes");
        return None;
    }
    let source = if is_regex { text } else { regex::escape(&text) };
    let built = RegexBuilder::new(&source)
        .case_insensitive(!same_case)
        .multi_line(true)
        .size_limit(PROGRAM_MAX)
        .build();
    match built {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            let words = error.to_string();
            let last = words.lines().last().unwrap_or("not a regular expression");
            params.refuse("q", "invalid_value", last.trim_start_matches("error: "));
            None
        }
    }
}

/// A search that continues.
struct Search {
    reader: Reader,
    filter: Option<Stream>,
    pattern: Regex,
    at: u64,
    /// Where it ends: what is there when it begins.
    end: Option<u64>,
    left: u64,
    matches: u64,
    held: Held,
    over: bool,
    _permit: OwnedSemaphorePermit,
}

impl Search {
    fn into_body(self) -> Body {
        Body::from_stream(stream::try_unfold(self, async |mut search: Self| {
            if search.over {
                return Ok::<_, io::Error>(None);
            }
            let step = tokio::task::spawn_blocking(move || {
                let lines = search.step();
                (search, lines)
            });
            let (search, lines) = step.await.map_err(io::Error::other)?;
            Ok(Some((Bytes::from(lines?), search)))
        }))
    }

    /// Reads on for a while; what was found, as lines.
    fn step(&mut self) -> io::Result<String> {
        let totals = self.reader.totals()?;
        let end = *self.end.get_or_insert(totals.next_offset);
        self.at = self.at.max(totals.first_offset);
        let pause = self.at.saturating_add(STEP);
        let mut found = Vec::new();
        while self.at < end.min(pause) && self.left > 0 {
            if !self.read(&mut found)? {
                self.at = end;
            }
        }
        if self.at >= end && self.left > 0 {
            self.held.take(&self.pattern, true, &mut found);
        }
        let mut out = String::new();
        for hit in found {
            if self.left == 0 {
                break;
            }
            self.left -= 1;
            self.matches += 1;
            let mut line = json!({"type": "match", "offset": hit.offset, "length": hit.length});
            if let Some((offset, text)) = hit.line {
                line["line_offset"] = offset.into();
                line["text"] = text.into();
            }
            out.push_str(&line.to_string());
            out.push('\n');
        }
        self.over = self.at >= end || self.left == 0;
        let last = if self.over {
            json!({"type": "end", "matches": self.matches})
        } else {
            json!({"type": "progress", "scanned_to": self.at})
        };
        out.push_str(&last.to_string());
        out.push('\n');
        Ok(out)
    }

    /// Takes one piece in; `false` if there is none.
    fn read(&mut self, found: &mut Vec<Hit>) -> io::Result<bool> {
        let (offset, bytes, next) = match self.filter {
            None => match self.reader.next_raw(self.at, PIECE)? {
                None => return Ok(false),
                Some(RawPiece::Data(bytes)) => {
                    let length = u64::try_from(bytes.len()).map_err(io::Error::other)?;
                    (self.at, bytes, self.at + length)
                }
                Some(RawPiece::Gap { to }) => (self.at, Vec::new(), to),
            },
            Some(_) => match self.reader.next(self.at, self.filter, PIECE)? {
                None => return Ok(false),
                Some(Piece::Data {
                    offset,
                    bytes,
                    next,
                    ..
                }) => (offset, bytes, next),
                Some(Piece::Gap { to, .. }) => (self.at, Vec::new(), to),
            },
        };
        if bytes.is_empty() {
            // A line does not continue behind a gap.
            self.held.take(&self.pattern, true, found);
        } else {
            self.held.push(offset, &bytes);
            self.held.take(&self.pattern, false, found);
        }
        self.at = forward(self.at, next)?;
        Ok(true)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Hit {
    offset: u64,
    length: u64,
    /// Where its line begins and what it says, as far as it was looked at.
    line: Option<(u64, String)>,
}

/// What has been read and not yet been matched.
#[derive(Debug, Default)]
struct Held {
    bytes: Vec<u8>,
    /// From which place in `bytes` on which offsets are meant.
    places: Vec<(usize, u64)>,
    /// Hits before this place in `bytes` have been told.
    told: usize,
    /// Hits tell their lines.
    with_text: bool,
}

impl Held {
    fn push(&mut self, offset: u64, bytes: &[u8]) {
        self.places.push((self.bytes.len(), offset));
        self.bytes.extend_from_slice(bytes);
    }

    fn offset(&self, place: usize) -> u64 {
        let index = self.places.partition_point(|(from, _)| *from <= place);
        let (from, offset) = self.places[index.saturating_sub(1)];
        offset + u64::try_from(place - from).unwrap_or(0)
    }

    /// Matches the lines that are whole, and of the last one as much as need not be held.
    fn take(&mut self, pattern: &Regex, all: bool, found: &mut Vec<Hit>) {
        let feed = self.bytes.iter().rposition(|byte| *byte == b'\n');
        let lines = if all {
            self.bytes.len()
        } else {
            feed.map_or(0, |feed| feed + 1)
        };
        if lines > 0 {
            self.find(pattern, lines, lines, found);
            self.drop_before(lines);
        }
        if !all && self.bytes.len() > LONGEST {
            let keep = self.bytes.len() - OVERLAP;
            self.find(pattern, self.bytes.len(), keep, found);
            self.drop_before(keep);
        }
    }

    /// Tells the hits that begin before `until`, in what is before `end`.
    fn find(&mut self, pattern: &Regex, end: usize, until: usize, found: &mut Vec<Hit>) {
        let mut from = self.told;
        while from < end {
            let Some(near) = pattern.find_at(&self.bytes[..end], from) else {
                break;
            };
            // The search goes over many lines at once; what counts is what is found in one.
            let line = self.bytes[..near.start()]
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |feed| feed + 1);
            let line_end = self.bytes[near.start()..end]
                .iter()
                .position(|byte| *byte == b'\n')
                .map_or(end, |feed| near.start() + feed);
            let mut at = from.max(line);
            while let Some(hit) = pattern.find_at(&self.bytes[..line_end], at) {
                if hit.start() >= until {
                    break;
                }
                if !hit.is_empty() {
                    let text = || {
                        let text = String::from_utf8_lossy(&self.bytes[line..line_end]);
                        (self.offset(line), text.into_owned())
                    };
                    found.push(Hit {
                        offset: self.offset(hit.start()),
                        length: self.offset(hit.end() - 1) + 1 - self.offset(hit.start()),
                        line: self.with_text.then(text),
                    });
                    self.told = hit.end();
                }
                at = hit.end().max(hit.start() + 1);
                if at > line_end {
                    break;
                }
            }
            from = (line_end + 1).max(from + 1);
        }
    }

    fn drop_before(&mut self, place: usize) {
        let index = self.places.partition_point(|(from, _)| *from <= place);
        let mut places: Vec<(usize, u64)> = Vec::new();
        if let Some((from, offset)) = index.checked_sub(1).map(|index| self.places[index]) {
            places.push((0, offset + u64::try_from(place - from).unwrap_or(0)));
        }
        places.extend(
            self.places[index..]
                .iter()
                .map(|(from, offset)| (from - place, *offset)),
        );
        self.places = places;
        self.bytes.drain(..place);
        self.told = self.told.saturating_sub(place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn regex(source: &str) -> Regex {
        RegexBuilder::new(source).multi_line(true).build().unwrap()
    }

    fn hits(source: &str, pieces: &[(u64, &[u8])]) -> Vec<(u64, u64)> {
        let (pattern, mut held, mut found) = (regex(source), Held::default(), Vec::new());
        for (offset, bytes) in pieces {
            held.push(*offset, bytes);
            held.take(&pattern, false, &mut found);
        }
        held.take(&pattern, true, &mut found);
        found.iter().map(|hit| (hit.offset, hit.length)).collect()
    }

    #[test]
    fn hits_have_offsets_and_stay_in_a_line() {
        assert_eq!(hits("b+", &[(10, b"abba\nb\n")]), [(11, 2), (15, 1)]);
        assert_eq!(hits(r"a\s+b", &[(0, b"a\nb\na b\n")]), [(4, 3)]);
        assert_eq!(hits("^b$", &[(0, b"ab\nb\nbb")]), [(3, 1)]);
        assert_eq!(hits("x*", &[(0, b"axxb\n")]), [(1, 2)]);
        assert_eq!(hits("a", &[(0, b"")]), []);
    }

    #[test]
    fn a_hit_tells_its_line_where_that_is_wanted() {
        let (pattern, mut found) = (regex("b"), Vec::new());
        let mut held = Held {
            with_text: true,
            ..Held::default()
        };
        held.push(10, b"abba\nno\nb\xff");
        held.take(&pattern, true, &mut found);
        let lines: Vec<_> = found.into_iter().filter_map(|hit| hit.line).collect();
        let first = (10, "abba".to_owned());
        assert_eq!(lines, [first.clone(), first, (18, "b\u{fffd}".to_owned())]);
    }

    #[test]
    fn a_hit_reaches_over_pieces_and_over_what_another_stream_wrote_between() {
        assert_eq!(hits("needle", &[(0, b"xnee"), (4, b"dle\n")]), [(1, 6)]);
        assert_eq!(hits("needle", &[(0, b"nee"), (100, b"dle\n")]), [(0, 103)]);
    }

    #[test]
    fn hits_in_a_line_of_100_kb_are_found_once() {
        let mut line = vec![b'a'; 300_000];
        let mut wanted = Vec::new();
        for place in [0, 65_530, 65_536 - 2, 70_000, 131_070, 200_000, 299_994] {
            line[place..place + 6].copy_from_slice(b"needle");
            wanted.push((u64::try_from(place).unwrap(), 6));
        }
        wanted.dedup_by_key(|(offset, _)| *offset);
        line[65_530..65_536].copy_from_slice(b"aaaaaa");
        line[65_534..65_540].copy_from_slice(b"needle");
        wanted.retain(|(offset, _)| *offset != 65_530);
        let pieces: Vec<(u64, &[u8])> = line
            .chunks(50_000)
            .enumerate()
            .map(|(i, chunk)| (u64::try_from(i * 50_000).unwrap(), chunk))
            .collect();
        assert_eq!(hits("needle", &pieces), wanted);
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_hits_are_those_of_each_line(
            text in "[ab\n]{0,200}", cuts in proptest::collection::vec(1_usize..20, 0..40),
        ) {
            let pattern = regex("ab+a?");
            let mut wanted = Vec::new();
            let mut start = 0;
            for line in text.split_inclusive('\n') {
                let bare = line.trim_end_matches('\n');
                wanted.extend(pattern.find_iter(bare.as_bytes()).map(|hit| {
                    (u64::try_from(start + hit.start()).unwrap(), u64::try_from(hit.len()).unwrap())
                }));
                start += line.len();
            }
            let mut pieces: Vec<(u64, &[u8])> = Vec::new();
            let (mut rest, mut at) = (text.as_bytes(), 0);
            for cut in cuts {
                let (piece, more) = rest.split_at(cut.min(rest.len()));
                pieces.push((at, piece));
                at += u64::try_from(piece.len()).unwrap();
                rest = more;
            }
            pieces.push((at, rest));
            prop_assert_eq!(hits("ab+a?", &pieces), wanted);
        }
    }
}
