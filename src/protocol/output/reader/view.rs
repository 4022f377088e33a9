//! One open segment: what it holds by now, and binary search in its index.
//!
//! It must not know of other segments.

use std::io;

use super::held::Held;
use super::{Located, Source};
use crate::output::Stream;
use crate::output::index::{Header, Kind, Position, RECORD, Raw, Record};
use crate::output::segment::Part;

/// The most that one read gives.
pub(super) const LARGEST_PIECE: usize = 1 << 20;
/// Records read at once; 4 KiB.
const BLOCK: u64 = 128;

/// A segment as far as this reader knows it.
#[derive(Debug)]
pub(super) struct View {
    pub(super) header: Header,
    index: Held,
    log: Option<Held>,
    /// The end of what the log held at the last refresh. Records below are final, up to the length of
    /// the last of them.
    pub(super) end: Position,
    records: u64,
    block: Vec<Record>,
    block_start: u64,
}

impl View {
    pub(super) fn open(source: &Source, first: u64) -> io::Result<Option<Self>> {
        let Some(index) = Held::open(source, first, Part::Index)? else {
            return Ok(None);
        };
        let Some(header) = header_of(&index)? else {
            return Ok(None);
        };
        let log = match header.kind {
            Kind::Gap => None,
            Kind::Kept => match Held::open(source, first, Part::Log)? {
                Some(log) => Some(log),
                None => return Ok(None),
            },
        };
        let mut view = Self {
            header,
            index,
            log,
            end: header.start,
            records: 0,
            block: Vec::new(),
            block_start: 0,
        };
        view.refresh()?;
        Ok(Some(view))
    }

    /// Whether the byte at `from` is known to be here, after a look at the files where it was not.
    pub(super) fn reaches(&mut self, from: u64) -> io::Result<bool> {
        if from >= self.end.offset() {
            self.refresh()?;
        }
        Ok(from < self.end.offset())
    }

    pub(super) fn refresh(&mut self) -> io::Result<()> {
        // The log's length first: see the module `output`.
        let held = match &self.log {
            Some(log) => log.len()?,
            None => 0,
        };
        self.block.clear();
        self.records = (self.index.len()? / RECORD).saturating_sub(1);
        let start = self.header.start;
        if self.header.kind == Kind::Gap {
            let mut end = start;
            for number in 0..self.records.min(2) {
                let record = self.record(number)?;
                end = end.after(record.stream, record.length);
            }
            self.end = end;
            return Ok(());
        }
        // Zeroes at the end are what a power failure leaves of records.
        while self.records > 0 && self.raw_record(self.records - 1)?.is_none() {
            self.records -= 1;
        }
        self.end = start;
        if held == 0 || self.records == 0 {
            return Ok(());
        }
        let held = start.offset().saturating_add(held);
        let last = self.record_at(|record| record.start.offset() < held)?;
        let length = held.saturating_sub(last.start.offset()).min(last.length);
        self.end = last.start.after(last.stream, length);
        Ok(())
    }

    pub(super) fn holds(&self, stream: Stream) -> bool {
        self.end.of(stream) > self.header.start.of(stream)
    }

    /// The record of the first byte at or after `from` that passes the filter, and that byte's offset.
    pub(super) fn find(
        &mut self,
        from: u64,
        filter: Option<Stream>,
    ) -> io::Result<Option<(Record, u64)>> {
        let record = self.record_at(|record| record.start.offset() <= from)?;
        let Some(stream) = filter.filter(|stream| *stream != record.stream) else {
            if from >= record.end().offset() {
                return Err(damaged());
            }
            return Ok(Some((record, from)));
        };
        let position = record.start.of(stream);
        if position >= self.end.of(stream) {
            return Ok(None);
        }
        let record = self.record_at(|record| record.start.of(stream) <= position)?;
        Ok(Some((record, record.start.offset())))
    }

    /// Where a position of a stream, not before this segment's start, is; its end if it is later.
    pub(super) fn locate(&mut self, stream: Stream, position: u64) -> io::Result<Located> {
        let end = self.end.of(stream);
        if position >= end {
            return Ok(Located {
                offset: self.end.offset(),
                position: end,
            });
        }
        if self.header.kind == Kind::Gap {
            return Ok(Located {
                offset: self.header.start.offset(),
                position: self.header.start.of(stream),
            });
        }
        let record = self.record_at(|record| record.start.of(stream) <= position)?;
        // A damaged file may hold any numbers.
        let offset = (record.start.offset())
            .checked_add(position - record.start.of(stream))
            .ok_or_else(damaged)?;
        Ok(Located { offset, position })
    }

    /// The last record for which `holds` is true, by binary search: it is true up to some record.
    pub(super) fn record_at(&mut self, holds: impl Fn(&Record) -> bool) -> io::Result<Record> {
        // Most questions are answered by the block at hand, or by the next one when reading forwards.
        for _ in 0..2 {
            let (Some(first), Some(last)) = (self.block.first(), self.block.last()) else {
                break;
            };
            let block_end = self.block_start + (self.records - self.block_start).min(BLOCK);
            if !holds(first) {
                break;
            }
            if !holds(last) || block_end == self.records {
                let index = self.block.partition_point(&holds);
                return Ok(self.block[index - 1]);
            }
            self.record(block_end)?;
        }
        let (mut low, mut high) = (0, self.records);
        while low < high {
            let middle = low + (high - low) / 2;
            if holds(&self.record(middle)?) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        match low.checked_sub(1) {
            Some(number) => self.record(number),
            None => Err(damaged()),
        }
    }

    fn record(&mut self, number: u64) -> io::Result<Record> {
        self.raw_record(number)?.ok_or_else(damaged)
    }

    /// `None` if the file has something else there.
    fn raw_record(&mut self, number: u64) -> io::Result<Option<Record>> {
        let start = number / BLOCK * BLOCK;
        if self.block.is_empty() || self.block_start != start {
            let wanted = (self.records - start).min(BLOCK);
            let size = usize::try_from(wanted * RECORD).map_err(io::Error::other)?;
            let mut buffer = vec![0; size];
            self.index
                .read_exact_at(&mut buffer, RECORD * (1 + start))?;
            self.block.clear();
            self.block_start = start;
            for raw in buffer.as_chunks::<32>().0 {
                let Some(record) = Record::decode(raw) else {
                    break;
                };
                self.block.push(record);
            }
        }
        let index = usize::try_from(number - start).map_err(io::Error::other)?;
        Ok(self.block.get(index).copied())
    }

    /// The bytes from `offset` up to `end`, at most `max` of them and at least one.
    pub(super) fn read(&self, offset: u64, end: u64, max: usize) -> io::Result<Vec<u8>> {
        let max = max.clamp(1, LARGEST_PIECE);
        let wanted = usize::try_from(end.saturating_sub(offset)).unwrap_or(max);
        let wanted = wanted.min(max);
        let log = self.log.as_ref().ok_or_else(damaged)?;
        let from = offset.checked_sub(self.header.start.offset());
        let bytes = log.read(from.ok_or_else(damaged)?, wanted)?;
        if bytes.is_empty() {
            return Err(damaged());
        }
        Ok(bytes)
    }
}

/// The header of the segment with this first offset; `None` while there is none yet.
pub(super) fn header_at(source: &Source, first: u64) -> io::Result<Option<Header>> {
    match Held::open(source, first, Part::Index)? {
        Some(index) => header_of(&index),
        None => Ok(None),
    }
}

fn header_of(index: &Held) -> io::Result<Option<Header>> {
    let mut raw = Raw::default();
    match index.read_exact_at(&mut raw, 0) {
        Ok(()) => Ok(Header::decode(&raw)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the output index is damaged")
}
