//! The output in the answer about a job: its beginning and its end, within a number of bytes.
//!
//! It is read from the files when the answer is made, and is never a part of the job's version.

use std::borrow::Cow;
use std::io;
use std::ops::Range;
use std::str::Utf8Chunk;

use serde::Serialize;

use super::plain::plain;
use super::{forward, off_thread, stream_named};
use crate::api::Api;
use crate::problem::ApiError;
use crate::query::Params;
use job::Job;
use protocol::output::{Piece, RawPiece, Reader, Stream};

/// The most bytes of an excerpt.
pub(crate) const EXCERPT_MAX: u64 = 1 << 20;

/// So near to where a part must be cut, it is cut at the end of a line.
const NEAR: usize = 4 << 10;

/// Room for the line that says what was left out.
const MARK: usize = 112;

/// A budget below this has no room for a beginning, an end and the line between them: it gets an end alone.
const LEAST: usize = 3 * MARK;

/// Where escape sequences are taken out, so much more is read, so that the budget is filled.
const HIDDEN: usize = 1 << 20;

/// The bytes of U+FFFD, and the most that can be missing of a character.
const REPLACED: usize = 3;

/// Bytes that are read at once.
const PIECE: usize = 256 << 10;

/// How much of which output goes into an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The most bytes of the text.
    pub(crate) bytes: usize,
    /// `None` for both.
    pub(crate) stream: Option<Stream>,
    /// Without escape sequences and without what a progress line has overwritten.
    pub(crate) is_plain: bool,
}

impl Wanted {
    /// What the query asks for; `None` if it asks for nothing.
    pub(crate) fn of(params: &mut Params) -> Option<Self> {
        let bytes = params.parsed("output_bytes", "a whole number from 0 to 1048576", |text| {
            let plain = text.bytes().all(|byte| byte.is_ascii_digit());
            let number = plain.then(|| text.parse::<u64>().ok())??;
            usize::try_from(number)
                .ok()
                .filter(|_| number <= EXCERPT_MAX)
        });
        let stream = stream_named(params, "output_stream");
        let is_plain = params.parsed("output_ansi", "keep or strip", |text| match text {
            "keep" => Some(false),
            "strip" => Some(true),
            _ => None,
        });
        let bytes = bytes.filter(|bytes| *bytes > 0)?;
        Some(Self {
            bytes,
            stream,
            is_plain: is_plain.unwrap_or(false),
        })
    }
}

/// A part of a log, by offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Span {
    from: u64,
    /// The offset after its last byte.
    pub(crate) to: u64,
}

/// The beginning and the end of a job's output.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Excerpt {
    pub(crate) text: String,
    head: Span,
    pub(crate) tail: Span,
    pub(crate) omitted_bytes: u64,
    lossy: bool,
}

/// The excerpt of a job's output by now.
pub(crate) async fn excerpt(api: &Api, job: &Job, wanted: Wanted) -> Result<Excerpt, ApiError> {
    let reader = api.manager.output_of(job).await?;
    let is_over = job.state.is_terminal();
    let is_in_memory = reader.is_in_memory();
    let read = move || {
        let mut reader = reader;
        let excerpt = excerpt_of(&mut reader, wanted, is_over);
        excerpt.map_err(|error| ApiError::io("reading output", &error))
    };
    match is_in_memory {
        true => read(),
        false => off_thread(read).await?,
    }
}

/// Where bytes that are shown come from: those from `at` on in [`Part::bytes`] have the offsets from `offset` on,
/// and `read` bytes of what was selected come before them.
#[derive(Clone, Copy, Debug)]
struct Place {
    at: usize,
    offset: u64,
    read: u64,
}

/// A run of output without a gap.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) bytes: Vec<u8>,
    places: Vec<Place>,
    /// The offset after what was read, and how many bytes of what was selected that was.
    end: u64,
    read: u64,
}

/// Text that is shown, and what of the output it stands for.
#[derive(Debug, Default)]
struct Shown<'a> {
    bytes: &'a [u8],
    from: u64,
    to: u64,
    read: u64,
}

impl Part {
    /// These bytes, from the offset 0 on.
    #[cfg(test)]
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut part = Self::default();
        part.push(0, bytes, length(bytes.len()));
        part
    }

    fn push(&mut self, offset: u64, bytes: &[u8], next: u64) {
        self.places.push(Place {
            at: self.bytes.len(),
            offset,
            read: self.read,
        });
        self.bytes.extend_from_slice(bytes);
        self.read += length(bytes.len());
        self.end = next;
    }

    /// Offset of a place in the text, and how many bytes of what was selected come before it.
    fn place(&self, at: usize) -> (u64, u64) {
        let index = self.places.partition_point(|place| place.at <= at);
        match index
            .checked_sub(1)
            .and_then(|index| self.places.get(index))
        {
            Some(place) if at < self.bytes.len() => {
                let more = length(at - place.at);
                (place.offset + more, place.read + more)
            }
            Some(_) | None => (self.end, self.read),
        }
    }

    /// The same run with these parts of its text alone, which are in order.
    pub(super) fn with(&self, kept: impl IntoIterator<Item = Range<usize>>) -> Self {
        let mut part = Self {
            end: self.end,
            read: self.read,
            ..Self::default()
        };
        for range in kept.into_iter().filter(|range| !range.is_empty()) {
            let mut at = range.start;
            while at < range.end {
                let (offset, read) = self.place(at);
                let next = self.places.partition_point(|place| place.at <= at);
                let next = self.places.get(next).map_or(range.end, |place| place.at);
                let next = next.min(range.end);
                let place = part.bytes.len();
                part.places.push(Place {
                    at: place,
                    offset,
                    read,
                });
                part.bytes.extend_from_slice(&self.bytes[at..next]);
                at = next;
            }
        }
        part
    }

    /// Without what comes from this place on: that was not read.
    fn truncate(&mut self, at: usize) {
        (self.end, self.read) = self.place(at);
        self.bytes.truncate(at);
    }

    fn until(&self, cut: usize) -> Shown<'_> {
        let (to, read) = self.place(cut);
        Shown {
            bytes: &self.bytes[..cut],
            from: 0,
            to,
            read,
        }
    }

    fn since(&self, cut: usize) -> Shown<'_> {
        let (from, before) = self.place(cut);
        Shown {
            bytes: &self.bytes[cut..],
            from,
            to: self.end,
            read: self.read - before,
        }
    }

    /// Reads one piece from `end` on; `false` if a gap begins or there is nothing more.
    fn take(&mut self, reader: &mut Reader, most: usize, of: Option<Stream>) -> io::Result<Taken> {
        let at = self.end;
        let most = most.min(PIECE);
        let (offset, bytes, next) = match of {
            None => match reader.next_raw(at, most)? {
                None => return Ok(Taken::Nothing),
                Some(RawPiece::Gap { to }) => return Ok(Taken::Gap(to)),
                Some(RawPiece::Data(bytes)) => {
                    let next = at + length(bytes.len());
                    (at, bytes, next)
                }
            },
            Some(_) => match reader.next(at, of, most)? {
                None => return Ok(Taken::Nothing),
                Some(Piece::Gap { to, .. }) => return Ok(Taken::Gap(to)),
                Some(Piece::Data {
                    offset,
                    bytes,
                    next,
                    ..
                }) => (offset, bytes, next),
            },
        };
        self.push(offset, &bytes, forward(at, next)?);
        Ok(Taken::Bytes)
    }
}

enum Taken {
    Bytes,
    Gap(u64),
    Nothing,
}

/// The first bytes of the log.
fn head_of(reader: &mut Reader, most: usize, end: u64, of: Option<Stream>) -> io::Result<Part> {
    let mut part = Part::default();
    while part.end < end && part.bytes.len() < most {
        let room = most - part.bytes.len();
        let Taken::Bytes = part.take(reader, room, of)? else {
            break;
        };
    }
    Ok(part)
}

/// What is kept from `from` up to `end`, after the last gap in it.
fn tail_of(reader: &mut Reader, from: u64, end: u64, of: Option<Stream>) -> io::Result<Part> {
    let mut part = Part {
        end: from,
        ..Part::default()
    };
    while part.end < end {
        let room = usize::try_from(end - part.end).unwrap_or(PIECE);
        match part.take(reader, room, of)? {
            Taken::Bytes => {}
            Taken::Gap(to) if to < end => {
                part = Part {
                    end: forward(part.end, to)?,
                    ..Part::default()
                };
            }
            Taken::Gap(_) | Taken::Nothing => break,
        }
    }
    Ok(part)
}

fn excerpt_of(reader: &mut Reader, wanted: Wanted, is_over: bool) -> io::Result<Excerpt> {
    let (budget, of) = (wanted.bytes, wanted.stream);
    // What is hidden takes nothing of the budget.
    let reach = |bytes: usize| {
        bytes
            + if wanted.is_plain {
                HIDDEN.min(3 * bytes)
            } else {
                0
            }
    };
    let shown = |part: Part| if wanted.is_plain { plain(&part) } else { part };
    // With some more in front, which shows whether the cut is at the beginning of a line.
    let tail_at = reader.tail_bytes(length(reach(budget) + REPLACED + 1), of)?;
    let totals = reader.totals()?;
    let end = totals.next_offset;
    let mut selected = match of {
        None => end,
        Some(Stream::Stdout) => totals.stdout_bytes,
        Some(Stream::Stderr) => totals.stderr_bytes,
    };
    let mut tail = tail_of(reader, tail_at, end, of)?;
    if !is_over {
        // The rest of a character that is being written comes later.
        let before = tail.read;
        tail.truncate(whole_characters(&tail.bytes));
        selected -= before - tail.read;
    }
    let tail = shown(tail);
    if tail.read == selected && cost(&tail.bytes) <= budget {
        return Ok(assembled(Shown::default(), tail.since(0), selected, None));
    }
    if budget < LEAST {
        let cut = start_within(&tail.bytes, budget);
        return Ok(assembled(Shown::default(), tail.since(cut), selected, None));
    }
    let ends_with_gap = totals.dropped_bytes > totals.first_offset;
    let room = budget - if ends_with_gap { 2 * MARK } else { MARK };
    // What the output limit has dropped may have been the beginning: then there is none to show.
    let for_head = if totals.first_offset == 0 {
        room / 5
    } else {
        0
    };
    let head = shown(head_of(reader, reach(for_head), end, of)?);
    let head = head.until(end_within(&head.bytes, for_head));
    let mut cut = start_within(&tail.bytes, room - for_head);
    while cut < tail.bytes.len() && tail.place(cut).0 < head.to {
        cut += 1;
    }
    Ok(assembled(head, tail.since(cut), selected, Some((of, end))))
}

/// The text of both parts, and where `marks` has the stream and the end of the log, lines that say what is missing.
fn assembled(
    head: Shown<'_>,
    tail: Shown<'_>,
    selected: u64,
    marks: Option<(Option<Stream>, u64)>,
) -> Excerpt {
    let omitted = selected.saturating_sub(head.read + tail.read);
    let mut text = String::new();
    let mut lossy = append(&mut text, head.bytes);
    let (mut between, mut behind) = (0, 0);
    if let Some((of, end)) = marks {
        behind = match of {
            None => selected.min(end).saturating_sub(tail.to).min(omitted),
            // Of one stream nobody knows how much a gap has.
            Some(_) if tail.from <= head.to => omitted,
            Some(_) => 0,
        };
        between = omitted - behind;
    }
    if between > 0 {
        append_mark(&mut text, between, head.to, tail.from);
    }
    lossy |= append(&mut text, tail.bytes);
    if let Some((_, end)) = marks.filter(|_| behind > 0) {
        append_mark(&mut text, behind, tail.to, end);
    }
    Excerpt {
        text,
        head: Span {
            from: head.from,
            to: head.to,
        },
        tail: Span {
            from: tail.from,
            to: tail.to,
        },
        omitted_bytes: omitted,
        lossy,
    }
}

fn append(text: &mut String, bytes: &[u8]) -> bool {
    let more = String::from_utf8_lossy(bytes);
    text.push_str(&more);
    matches!(more, Cow::Owned(_))
}

fn append_mark(text: &mut String, bytes: u64, from: u64, to: u64) {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&format!(
        "[\u{2026} {bytes} bytes left out: offsets {from} to {to} \u{2026}]\n"
    ));
}

/// The bytes that this takes as text, in which each run of bytes that are none is a U+FFFD.
fn cost(bytes: &[u8]) -> usize {
    let chunks = bytes.utf8_chunks();
    chunks.map(|chunk| chunk_cost(&chunk)).sum()
}

fn chunk_cost(chunk: &Utf8Chunk<'_>) -> usize {
    let replaced = if chunk.invalid().is_empty() {
        0
    } else {
        REPLACED
    };
    chunk.valid().len() + replaced
}

/// How many of these bytes are whole characters, or none at all.
fn whole_characters(bytes: &[u8]) -> usize {
    let from = bytes.len().saturating_sub(REPLACED);
    let begun = (from..bytes.len()).find(|at| {
        let error = std::str::from_utf8(&bytes[*at..]).err();
        error.is_some_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
    });
    begun.unwrap_or(bytes.len())
}

/// Where a beginning of at most `budget` bytes of text ends: at the end of a line if one is near.
fn end_within(bytes: &[u8], budget: usize) -> usize {
    let (mut end, mut left) = (0, budget);
    for chunk in bytes[..whole_characters(bytes)].utf8_chunks() {
        let valid = chunk.valid();
        if chunk_cost(&chunk) > left {
            end += valid.floor_char_boundary(left);
            break;
        }
        left -= chunk_cost(&chunk);
        end += valid.len() + chunk.invalid().len();
    }
    let near = end - NEAR.min(end / 2);
    let feed = bytes[near..end].iter().rposition(|byte| *byte == b'\n');
    feed.map_or(end, |feed| near + feed + 1)
}

/// Where an end of at most `budget` bytes of text begins: at the beginning of a line if one is near.
fn start_within(bytes: &[u8], budget: usize) -> usize {
    let half = |byte: &u8| (0x80..0xc0).contains(byte);
    let mut start = bytes
        .iter()
        .take(REPLACED)
        .take_while(|at| half(at))
        .count();
    let mut excess = cost(&bytes[start..]).saturating_sub(budget);
    for chunk in bytes[start..].utf8_chunks() {
        if excess == 0 {
            break;
        }
        let valid = chunk.valid();
        if valid.len() >= excess {
            start += valid.ceil_char_boundary(excess);
            break;
        }
        excess = excess.saturating_sub(chunk_cost(&chunk));
        start += valid.len() + chunk.invalid().len();
    }
    if start == 0 || bytes[..start].ends_with(b"\n") {
        return start;
    }
    let near = start + NEAR.min((bytes.len() - start) / 2);
    let feed = bytes[start..near].iter().position(|byte| *byte == b'\n');
    feed.map_or(start, |feed| start + feed + 1)
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).expect("usize has at most 64 bits")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::output::tests::Log;
    use job::spec::OnLimit;

    fn get(log: &Log, bytes: usize, stream: Option<Stream>, is_over: bool) -> Excerpt {
        let wanted = Wanted {
            bytes,
            stream,
            is_plain: false,
        };
        excerpt_of(&mut log.reader(), wanted, is_over).unwrap()
    }

    fn log_of(text: &str) -> Log {
        let mut log = Log::new(16 << 20, OnLimit::DropOldest);
        log.write(Stream::Stdout, text);
        log
    }

    fn lines(count: usize) -> String {
        (1..=count).map(|line| format!("{line}\n")).collect()
    }

    fn parts(excerpt: &Excerpt) -> u64 {
        excerpt.head.to - excerpt.head.from + (excerpt.tail.to - excerpt.tail.from)
    }

    #[test]
    fn what_fits_is_whole_and_has_no_mark() {
        let text = lines(100);
        let log = log_of(&text);
        for budget in [text.len(), text.len() + 1, 1 << 20] {
            let excerpt = get(&log, budget, None, true);
            assert_eq!(excerpt.text, text);
            assert_eq!((excerpt.omitted_bytes, excerpt.lossy), (0, false));
            assert_eq!(
                excerpt.tail,
                Span {
                    from: 0,
                    to: length(text.len())
                }
            );
        }
        let none = get(&log_of(""), 100, None, true);
        assert_eq!((none.text.as_str(), none.omitted_bytes), ("", 0));
    }

    #[test]
    fn of_much_there_are_beginning_and_end_in_whole_lines() {
        let text = lines(100_000);
        let excerpt = get(&log_of(&text), 4096, None, true);
        assert!(excerpt.text.len() <= 4096, "{}", excerpt.text.len());
        assert!(excerpt.text.len() >= 3800, "{}", excerpt.text.len());
        assert!(excerpt.text.starts_with("1\n2\n"), "{}", excerpt.text);
        assert!(excerpt.text.ends_with("\n99999\n100000\n"));
        assert_eq!(excerpt.omitted_bytes, length(text.len()) - parts(&excerpt));
        let (head, tail) = (excerpt.head, excerpt.tail);
        let mark = format!(
            "[\u{2026} {} bytes left out: offsets {} to {} \u{2026}]\n",
            excerpt.omitted_bytes, head.to, tail.from
        );
        let (before, after) = excerpt.text.split_once(&mark).unwrap();
        assert_eq!(before, &text[..usize::try_from(head.to).unwrap()]);
        assert_eq!(after, &text[usize::try_from(tail.from).unwrap()..]);
        assert!(
            before.ends_with('\n') && text[..usize::try_from(tail.from).unwrap()].ends_with('\n')
        );
    }

    #[test]
    fn a_budget_without_room_for_two_parts_gets_the_end() {
        let log = log_of(&lines(1000));
        let excerpt = get(&log, 20, None, true);
        assert_eq!(excerpt.text, "997\n998\n999\n1000\n");
        assert_eq!(excerpt.head, Span { from: 0, to: 0 });
        assert_eq!(get(&log, 1, None, true).text, "\n");
    }

    #[test]
    fn one_stream_counts_its_own_bytes() {
        let mut log = Log::new(16 << 20, OnLimit::DropOldest);
        for line in 0..2000 {
            log.write(Stream::Stdout, &format!("out {line}\n"));
            log.write(Stream::Stderr, "error\n");
        }
        let bytes = 2000 * 6;
        let whole = get(&log, bytes, Some(Stream::Stderr), true);
        assert_eq!(whole.text, "error\n".repeat(2000));
        assert_eq!(whole.omitted_bytes, 0);
        let some = get(&log, 1000, Some(Stream::Stderr), true);
        let (errors, _) = some
            .text
            .matches("error\n")
            .fold((0, 0), |(n, _), _| (n + 1, 0));
        assert_eq!(
            some.omitted_bytes,
            length(bytes - errors * 6),
            "{}",
            some.text
        );
        assert!(
            some.text.len() <= 1000 && !some.text.contains("\nout "),
            "{}",
            some.text
        );
    }

    #[test]
    fn what_the_limit_dropped_counts_as_left_out() {
        for on_limit in [OnLimit::DropOldest, OnLimit::DropNewest] {
            let mut log = Log::new(16 << 10, on_limit);
            for line in 0..4000 {
                log.write(Stream::Stdout, &format!("line {line:05}\n"));
            }
            for budget in [1000, 12 << 10, 1 << 20] {
                let excerpt = get(&log, budget, None, true);
                let text = &excerpt.text;
                assert!(text.len() <= budget, "{on_limit:?} {budget}");
                assert_eq!(excerpt.omitted_bytes, 44_000 - parts(&excerpt), "{text}");
                let lines = text.split_inclusive('\n');
                let shown = lines.filter(|line| !line.starts_with("[\u{2026}"));
                let shown = length(shown.map(str::len).sum());
                // A line feed stands before a mark where what is kept ends within a line.
                assert!(shown - parts(&excerpt) <= 1, "{text}");
                match on_limit {
                    OnLimit::DropOldest | OnLimit::Wait => {
                        assert!(text.starts_with("[\u{2026} "), "{text}");
                        assert!(text.ends_with("line 03999\n"), "{text}");
                    }
                    OnLimit::DropNewest | OnLimit::StopJob => {
                        assert!(text.starts_with("line 00000\n"), "{text}");
                        assert!(text.ends_with(" to 44000 \u{2026}]\n"), "{text}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_character_of_which_the_rest_is_to_come_is_no_replacement() {
        let mut log = log_of("gr\u{fc}n ");
        log.write_bytes(Stream::Stdout, b"\xe2\x82");
        let now = get(&log, 100, None, false);
        assert_eq!((now.text.as_str(), now.lossy), ("gr\u{fc}n ", false));
        assert_eq!((now.tail.to, now.omitted_bytes), (6, 0));
        let over = get(&log, 100, None, true);
        assert_eq!(
            (over.text.as_str(), over.lossy),
            ("gr\u{fc}n \u{fffd}", true)
        );
    }

    proptest! {
        #[test]
        fn no_cut_goes_through_a_character(
            text in "[a\u{20ac}\u{1f600}\n]{0,3000}", budget in 1_usize..6000,
        ) {
            let excerpt = get(&log_of(&text), budget, None, true);
            let is_replaced = excerpt.lossy || excerpt.text.contains('\u{fffd}');
            prop_assert!(!is_replaced);
            prop_assert!(excerpt.text.len() <= budget);
            let tail = usize::try_from(excerpt.tail.from).unwrap();
            prop_assert!(excerpt.text.ends_with(&text[tail..]));
            prop_assert_eq!(excerpt.omitted_bytes, length(text.len()) - parts(&excerpt));
            if text.len() <= budget {
                prop_assert_eq!(excerpt.text, text);
            }
        }

        #[test]
        fn any_bytes_keep_to_the_budget(
            bytes in prop::collection::vec(any::<u8>(), 0..3000), budget in 1_usize..6000, is_plain: bool,
        ) {
            let mut log = log_of("");
            log.write_bytes(Stream::Stdout, &bytes);
            let wanted = Wanted { bytes: budget, stream: None, is_plain };
            let excerpt = excerpt_of(&mut log.reader(), wanted, true).unwrap();
            prop_assert!(excerpt.text.len() <= budget, "{} > {budget}", excerpt.text.len());
            prop_assert_eq!(excerpt.omitted_bytes, length(bytes.len()) - parts(&excerpt));
        }
    }
}
