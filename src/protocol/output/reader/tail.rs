//! Where to begin: the last bytes or lines, and positions of one stream in the log of both.

use std::io;

use super::view::LARGEST_PIECE;
use super::{Bounds, LOOKS, Place, Reader, length};
use crate::output::Stream;
use crate::output::index::Kind;

const LINE_SCAN: u64 = 64 << 10;

/// Where a position of one stream is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    /// The global offset to read from, with that stream as the filter.
    pub offset: u64,
    /// Bytes of the stream before it: what was asked for, or the nearest that is kept.
    pub position: u64,
}

impl Reader {
    /// The offset from which the last `n` kept bytes, of the stream or of both, can be read.
    pub fn tail_bytes(&mut self, n: u64, filter: Option<Stream>) -> io::Result<u64> {
        let Bounds { first, kept, .. } = self.bounds()?;
        match filter {
            None => Ok(kept.offset().saturating_sub(n).max(first.offset())),
            Some(_) if n == 0 => Ok(kept.offset()),
            Some(stream) => {
                let position = kept.of(stream).saturating_sub(n);
                let position = position.max(first.of(stream));
                Ok(self.offset_of_stream_position(stream, position)?.offset)
            }
        }
    }

    /// The offset from which the last `n` kept lines, of the stream or of both, can be read. A last line
    /// without its line feed counts as one.
    pub fn tail_lines(&mut self, n: u64, filter: Option<Stream>) -> io::Result<u64> {
        let Bounds { first, kept, .. } = self.bounds()?;
        let (oldest, mut before) = match filter {
            None => (first.offset(), kept.offset()),
            Some(stream) => (first.of(stream), kept.of(stream)),
        };
        if n == 0 {
            return Ok(kept.offset());
        }
        let mut start = kept.offset();
        // The line feed that ends the last line begins no further one.
        let mut feeds = 0;
        let mut last = true;
        while before > oldest {
            let Some((offset, bytes)) = self.run_before(before, filter)? else {
                break;
            };
            for (index, byte) in bytes.iter().enumerate().rev() {
                if *byte == b'\n' && !last {
                    feeds += 1;
                    if feeds == n {
                        return Ok(offset.saturating_add(length(&bytes[..=index])));
                    }
                }
                last = false;
            }
            before -= length(&bytes);
            start = offset;
        }
        Ok(start)
    }

    /// Where the byte is that has `position` bytes of its stream before it: for ranges of one stream.
    /// A position before the first kept byte gives that, one after the end gives the end.
    pub fn offset_of_stream_position(
        &mut self,
        stream: Stream,
        position: u64,
    ) -> io::Result<Located> {
        for _ in 0..LOOKS {
            let mut found = None;
            let mut listed = false;
            for first in self.segments()?.into_iter().rev() {
                listed = true;
                if !self.enter(first)? {
                    continue;
                }
                let Some(segment) = &mut self.open else {
                    continue;
                };
                let start = segment.header.start;
                found = Some(Located {
                    offset: start.offset(),
                    position: start.of(stream),
                });
                if start.of(stream) <= position {
                    found = Some(segment.locate(stream, position)?);
                    break;
                }
            }
            if let Some(found) = found {
                return Ok(found);
            }
            if !listed {
                break;
            }
        }
        Ok(Located {
            offset: 0,
            position: 0,
        })
    }

    /// The bytes that end at `before`, a global offset or a position of the filter's stream, and the
    /// offset of the first of them. `None` where they are gone.
    fn run_before(
        &mut self,
        before: u64,
        filter: Option<Stream>,
    ) -> io::Result<Option<(u64, Vec<u8>)>> {
        let Some(stream) = filter else {
            let Place::Here = self.seek(before - 1)? else {
                return Ok(None);
            };
            let Some(segment) = &self.open else {
                return Ok(None);
            };
            let start = before.saturating_sub(LINE_SCAN);
            let start = start.max(segment.header.start.offset());
            let bytes = segment.read(start, before, LARGEST_PIECE)?;
            return Ok(Some((start, bytes)));
        };
        let open = self.open.as_ref();
        let here = open.is_some_and(|open| {
            open.header.start.of(stream) < before && before <= open.end.of(stream)
        });
        if !here {
            let located = self.offset_of_stream_position(stream, before - 1)?;
            if located.position != before - 1 {
                return Ok(None);
            }
        }
        let Some(segment) = &mut self.open else {
            return Ok(None);
        };
        if segment.header.kind == Kind::Gap || before > segment.end.of(stream) {
            return Ok(None);
        }
        let record = segment.record_at(|record| record.start.of(stream) < before)?;
        let wanted = before - record.start.of(stream);
        // A damaged file may hold any numbers.
        let Some(end) = record.start.offset().checked_add(wanted) else {
            return Ok(None);
        };
        let start = end - wanted.min(LINE_SCAN);
        let bytes = segment.read(start, end, LARGEST_PIECE)?;
        Ok(Some((start, bytes)))
    }
}
