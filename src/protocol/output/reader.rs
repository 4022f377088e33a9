//! The server's side: seeks and reads while the writer appends, rotates and unlinks.
//!
//! Owns nothing on disk and changes nothing. It holds at most one segment open, which stays readable
//! after its unlinking, so a slow reader keeps one segment's worth of disk beyond the limit. It blocks
//! on the disk: callers on an async runtime run it where blocking is allowed. Short output
//! may be in memory in place of files.

mod held;
mod tail;
mod view;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::index::{Kind, Position};
use super::segment;
use super::{Piece, RawPiece, Short, Stream};
use job::OutputTotals;
pub use tail::Located;
use view::View;

/// How often a look at the directory is repeated when the writer was faster.
const LOOKS: usize = 64;

/// Reads the output of one job.
#[derive(Debug)]
pub struct Reader {
    source: Source,
    open: Option<View>,
    /// The last bounds found.
    seen: Bounds,
    /// What the job's record says there was; more than the files hold if they were lost or cut.
    recorded: OutputTotals,
}

/// Where the output is.
#[derive(Debug)]
enum Source {
    /// Nowhere: the job has written nothing.
    Nothing,
    /// In the files of its directory.
    Directory(OwnedFd),
    /// Here.
    Memory(Arc<Short>),
}

/// The outer bounds of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bounds {
    /// The start of the first segment.
    first: Position,
    /// The end of what is kept.
    kept: Position,
    /// The end, dropped bytes included.
    end: Position,
}

enum Place {
    /// In the open segment.
    Here,
    /// Nothing is kept from here to that offset.
    Gap(u64),
    /// Not written yet.
    End,
}

impl Reader {
    /// A reader for a job's directory, which need not hold any output yet.
    pub fn open(dir: OwnedFd) -> io::Result<Self> {
        segment::indexes(&dir)?;
        Ok(Self::of(Source::Directory(dir)))
    }

    /// A reader of output that is kept elsewhere than in files.
    #[must_use]
    pub fn of_short(short: Arc<Short>) -> Self {
        Self::of(Source::Memory(short))
    }

    fn of(source: Source) -> Self {
        Self {
            source,
            open: None,
            seen: Bounds::default(),
            recorded: OutputTotals::default(),
        }
    }

    /// A reader for a job that has no directory, and so has written nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self::of(Source::Nothing)
    }

    /// Is there nothing that could hold output?
    #[must_use]
    pub fn has_nothing(&self) -> bool {
        matches!(self.source, Source::Nothing)
    }

    /// Does reading never wait for a disk?
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        matches!(self.source, Source::Memory(_) | Source::Nothing)
    }

    /// Tells what the record of a job that is over says of its output. What the files do not hold of that is
    /// lost, and read as a gap.
    pub fn expect(&mut self, recorded: OutputTotals) {
        self.recorded = recorded;
    }

    /// Is something of this part of the output in the record and in no file, although the output limit did not
    /// drop it?
    pub fn lost_within(&mut self, from: u64, to: u64) -> io::Result<bool> {
        let OutputTotals {
            first_offset,
            next_offset,
            ..
        } = self.recorded;
        if next_offset == 0 {
            return Ok(false);
        }
        let Bounds { first, end, .. } = self.bounds()?;
        let is_front_lost = first_offset < first.offset() && from < first.offset();
        let is_end_lost = end.offset() < next_offset && end.offset() < to && from < next_offset;
        Ok(from < to && (is_front_lost || is_end_lost))
    }

    fn segments(&self) -> io::Result<Vec<u64>> {
        match &self.source {
            Source::Nothing => Ok(Vec::new()),
            Source::Directory(dir) => segment::indexes(dir),
            Source::Memory(_) => Ok(vec![0]),
        }
    }

    /// What there is by now; `complete` is for the caller to say.
    pub fn totals(&mut self) -> io::Result<OutputTotals> {
        let Bounds { first, kept, end } = self.bounds()?;
        let recorded = &self.recorded;
        let next_offset = end.offset().max(recorded.next_offset);
        let gap = next_offset.saturating_sub(kept.offset());
        let nothing_kept = first == kept;
        Ok(OutputTotals {
            stdout_bytes: end.stdout.max(recorded.stdout_bytes),
            stderr_bytes: end.stderr.max(recorded.stderr_bytes),
            first_offset: if nothing_kept {
                next_offset
            } else {
                first.offset()
            },
            next_offset,
            dropped_bytes: first.offset().saturating_add(gap),
            complete: false,
        })
    }

    /// The first piece at or after `from`: at most `max` bytes of one record, or a gap. With a filter,
    /// the other stream is passed over. `None`: nothing more by now.
    pub fn next(
        &mut self,
        from: u64,
        filter: Option<Stream>,
        max: usize,
    ) -> io::Result<Option<Piece>> {
        let mut from = from;
        loop {
            match self.seek(from)? {
                Place::End => return self.lost_from(from, filter),
                Place::Gap(to) => {
                    if !self.dropped_before(to, filter)? {
                        from = to;
                        continue;
                    }
                    return Ok(Some(Piece::Gap { from, to }));
                }
                Place::Here => {}
            }
            let Some(segment) = &mut self.open else {
                return Ok(None);
            };
            match segment.header.kind {
                Kind::Gap => {
                    let to = segment.end.offset();
                    if filter.is_none_or(|stream| segment.holds(stream)) {
                        return Ok(Some(Piece::Gap { from, to }));
                    }
                    from = to;
                }
                Kind::Kept => match segment.find(from, filter)? {
                    Some((record, offset)) => {
                        let end = record.end().offset().min(segment.end.offset());
                        let bytes = segment.read(offset, end, max)?;
                        let next = offset.saturating_add(length(&bytes));
                        return Ok(Some(Piece::Data {
                            offset,
                            stream: record.stream,
                            at: record.at,
                            bytes,
                            next,
                        }));
                    }
                    None => from = segment.end.offset(),
                },
            }
        }
    }

    /// The gap behind everything that the files hold, if the record has more.
    fn lost_from(&mut self, from: u64, filter: Option<Stream>) -> io::Result<Option<Piece>> {
        let to = self.recorded.next_offset;
        if from >= to {
            return Ok(None);
        }
        let end = self.bounds()?.end;
        let is_lost = match filter {
            None => true,
            Some(Stream::Stdout) => end.stdout < self.recorded.stdout_bytes,
            Some(Stream::Stderr) => end.stderr < self.recorded.stderr_bytes,
        };
        Ok(is_lost.then_some(Piece::Gap { from, to }))
    }

    /// The bytes at `from` without regard to records, at most `max` or 1 MiB, or a gap.
    pub fn next_raw(&mut self, from: u64, max: usize) -> io::Result<Option<RawPiece>> {
        match self.seek(from)? {
            Place::End => {
                let lost = self.lost_from(from, None)?;
                return Ok(lost.map(|_| RawPiece::Gap {
                    to: self.recorded.next_offset,
                }));
            }
            Place::Gap(to) => return Ok(Some(RawPiece::Gap { to })),
            Place::Here => {}
        }
        let Some(segment) = &self.open else {
            return Ok(None);
        };
        let to = segment.end.offset();
        Ok(Some(match segment.header.kind {
            Kind::Gap => RawPiece::Gap { to },
            Kind::Kept => RawPiece::Data(segment.read(from, to, max)?),
        }))
    }

    /// Whether bytes that pass the filter were dropped before this segment.
    fn dropped_before(&mut self, first: u64, filter: Option<Stream>) -> io::Result<bool> {
        let Some(stream) = filter else {
            return Ok(true);
        };
        let open = self.enter(first)?;
        let segment = self.open.as_ref().filter(|_| open);
        Ok(segment.is_none_or(|segment| segment.header.start.of(stream) > 0))
    }

    /// What is kept, and where the output ends. A listing is not made in one instant: while segments
    /// come and go it can miss the newest, so the end never goes back behind what was seen before.
    fn bounds(&mut self) -> io::Result<Bounds> {
        for look in 0..LOOKS {
            let segments = self.segments()?;
            if segments.is_empty() && look > 0 && self.seen == Bounds::default() {
                return Ok(self.seen);
            }
            let Some((start, kept, end)) = self.enter_last(&segments)? else {
                continue;
            };
            if end.offset() < self.seen.end.offset() {
                continue;
            }
            for first in segments {
                let header = if first == start.offset() {
                    Some(start)
                } else {
                    view::header_at(&self.source, first)?.map(|header| header.start)
                };
                if let Some(first) = header {
                    self.seen = Bounds { first, kept, end };
                    return Ok(self.seen);
                }
            }
        }
        Ok(self.seen)
    }

    /// Enters the last of these segments that is still there, and those that have come since.
    fn enter_last(
        &mut self,
        segments: &[u64],
    ) -> io::Result<Option<(Position, Position, Position)>> {
        // From the end: the others may only be removed meanwhile.
        let mut entered = false;
        for first in segments.iter().rev() {
            if self.enter(*first)? {
                entered = true;
                break;
            }
        }
        if !entered {
            return Ok(None);
        }
        loop {
            let Some(open) = &self.open else {
                return Ok(None);
            };
            let (start, end, kind) = (open.header.start, open.end, open.header.kind);
            // A segment is named after the end of the one before it.
            if end.offset() > start.offset() && self.enter(end.offset())? {
                continue;
            }
            let kept = match kind {
                Kind::Kept => end,
                Kind::Gap => start,
            };
            return Ok(Some((start, kept, end)));
        }
    }

    /// Opens the segment with this first offset, or brings the open one up to date. False if there
    /// is none.
    fn enter(&mut self, first: u64) -> io::Result<bool> {
        match &mut self.open {
            Some(open) if open.header.start.offset() == first => {
                open.refresh()?;
                Ok(true)
            }
            Some(_) | None => match View::open(&self.source, first)? {
                Some(segment) => {
                    self.open = Some(segment);
                    Ok(true)
                }
                None => Ok(false),
            },
        }
    }

    /// Opens the segment that holds the byte at `from`.
    fn seek(&mut self, from: u64) -> io::Result<Place> {
        if let Some(open) = &mut self.open {
            let first = open.header.start.offset();
            if first <= from && open.reaches(from)? {
                return Ok(Place::Here);
            }
            // The next segment has its own first offset as its name: no need to list.
            if first < from
                && open.end.offset() == from
                && self.enter(from)?
                && let Some(open) = &mut self.open
                && open.reaches(from)?
            {
                return Ok(Place::Here);
            }
        }
        let mut seen_gap = false;
        for _ in 0..LOOKS {
            let segments = self.segments()?;
            let mut following = None;
            let mut opened = segments.is_empty();
            for first in segments.into_iter().rev() {
                if first > from {
                    following = Some(first);
                    continue;
                }
                if !self.enter(first)? {
                    continue;
                }
                opened = true;
                if let Some(open) = &mut self.open
                    && open.reaches(from)?
                {
                    return Ok(Place::Here);
                }
                break;
            }
            match following {
                // A segment made during the listing may be missing from it, so look twice.
                Some(to) if seen_gap => return Ok(Place::Gap(to)),
                Some(_) => seen_gap = true,
                None if opened => return Ok(Place::End),
                None => {}
            }
        }
        Ok(Place::End)
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
