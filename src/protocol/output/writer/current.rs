//! The segment that grows: its files, and every write to its index.
//!
//! It must not know of limits, of pipes or of other segments.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use crate::output::index::{Header, Kind, Position, RECORD, Raw, Record};
use crate::output::segment::{self, Part};
use crate::output::{SHORT, Short, Stream};
use job::time::Timestamp;

const LENGTH_FIELD: u64 = 24;

/// The segment that grows.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) header: Header,
    pub(super) index: File,
    pub(super) target: Target,
    pub(super) last: Option<Record>,
    records: u64,
}

/// Where the bytes go.
#[derive(Debug)]
pub(super) enum Target {
    /// The log.
    Log(File),
    /// `/dev/null`, and what has been dropped of either stream, in the order of [`Stream::ALL`].
    Null(File, [Record; 2]),
}

impl Current {
    /// A new segment. Litter of the same name, left by a failure, is overwritten.
    pub(super) fn create(dir: &OwnedFd, header: Header, now: Timestamp) -> io::Result<Self> {
        let first = header.start.offset();
        let make = |part| {
            let created = OFlag::O_RDWR | OFlag::O_CREAT;
            // One that is there is empty. ext4 writes a file to the disk when it is closed that was cut to nothing before it
            // was written (mount option auto_da_alloc).
            let is_there = first == 0 && segment::use_unused(dir, part)?;
            let flags = match is_there {
                true => created,
                false => created | OFlag::O_TRUNC,
            };
            make(dir, first, part, flags)
        };
        let index = make(Part::Index)?;
        let (target, records) = match header.kind {
            Kind::Kept => {
                index.write_all_at(&header.encode(), 0)?;
                (Target::Log(make(Part::Log)?), 0)
            }
            Kind::Gap => {
                // One write within one page: it is there as a whole or not at all.
                let dropped = nothing_dropped(header.start, now);
                let [stdout, stderr] = dropped.map(|record| record.encode());
                index.write_all_at(&[header.encode(), stdout, stderr].concat(), 0)?;
                (Target::Null(open_null()?, dropped), 2)
            }
        };
        Ok(Self {
            header,
            index,
            target,
            last: None,
            records,
        })
    }

    /// The segment that a predecessor left, and how many bytes of its last record's stream its log
    /// lacks. `None` if the predecessor died before it could hold anything.
    pub(super) fn adopt(dir: &OwnedFd, first: u64) -> io::Result<Option<(Self, u64)>> {
        let Some(index) = segment::open(dir, first, Part::Index, OFlag::O_RDWR)? else {
            return Ok(None);
        };
        let length = index.metadata()?.len();
        if length < RECORD {
            return Ok(None);
        }
        let Some(header) = Header::decode(&read_raw(&index, 0)?) else {
            return Ok(None);
        };
        let mut records = length / RECORD - 1;
        let mut last = None;
        let mut missing = 0;
        let target = match header.kind {
            Kind::Gap => {
                let mut dropped = nothing_dropped(header.start, Timestamp::default());
                for (record, number) in dropped.iter_mut().zip(0..records) {
                    let raw = read_raw(&index, RECORD * (1 + number))?;
                    *record = Record::decode(&raw).unwrap_or(*record);
                }
                Target::Null(open_null()?, dropped)
            }
            Kind::Kept => {
                let flags = OFlag::O_RDWR | OFlag::O_CREAT;
                let log = make(dir, first, Part::Log, flags)?;
                // Zeroes at the end are what a power failure leaves of records.
                while records > 0 && last.is_none() {
                    last = Record::decode(&read_raw(&index, RECORD * records)?);
                    records -= u64::from(last.is_none());
                }
                let end = last.map_or(header.start, |last: Record| last.end());
                let promised = end.offset().saturating_sub(first);
                let held = log.metadata()?.len();
                if held > promised {
                    // Only a power failure does this. Whose bytes they are went with the index.
                    log.set_len(promised)?;
                }
                missing = promised.saturating_sub(held);
                Target::Log(log)
            }
        };
        let current = Self {
            header,
            index,
            target,
            last,
            records,
        };
        Ok(Some((current, missing)))
    }

    /// The position after all that is written or promised.
    pub(super) fn end(&self) -> Position {
        let start = self.header.start;
        match &self.target {
            Target::Log(_) => self.last.map_or(start, |last| last.end()),
            Target::Null(_, [stdout, stderr]) => start
                .after(Stream::Stdout, stdout.length)
                .after(Stream::Stderr, stderr.length),
        }
    }

    /// What its files hold or are promised.
    pub(super) fn size(&self) -> u64 {
        let index = RECORD * (1 + self.records);
        match &self.target {
            Target::Log(_) => index + self.place_in_log(self.end()),
            Target::Null(..) => index,
        }
    }

    /// What the files hold, if that is all of the output and no more than [`SHORT`] bytes.
    pub(super) fn short(&self) -> io::Result<Option<Short>> {
        let Target::Log(log) = &self.target else {
            return Ok(None);
        };
        if self.header.start != Position::default() || self.size() > SHORT {
            return Ok(None);
        }
        let read = |file: &File, size: u64| -> io::Result<Vec<u8>> {
            let mut bytes = vec![0; usize::try_from(size).map_err(io::Error::other)?];
            file.read_exact_at(&mut bytes, 0)?;
            Ok(bytes)
        };
        Ok(Some(Short {
            index: read(&self.index, RECORD * (1 + self.records))?,
            log: read(log, self.place_in_log(self.end()))?,
        }))
    }

    /// The file offset of a position.
    pub(super) fn place_in_log(&self, position: Position) -> u64 {
        position.offset().saturating_sub(self.header.start.offset())
    }

    /// Begins a record.
    pub(super) fn append(&mut self, stream: Stream, length: u64, at: Timestamp) -> io::Result<()> {
        let record = Record {
            start: self.end(),
            at,
            stream,
            dropped: false,
            length,
        };
        let place = RECORD * (1 + self.records);
        self.index.write_all_at(&record.encode(), place)?;
        self.records += 1;
        self.last = Some(record);
        Ok(())
    }

    /// Changes the length of the last record, or of the stream's record in a gap.
    pub(super) fn resize(&mut self, stream: Stream, change: impl Fn(u64) -> u64) -> io::Result<()> {
        match &mut self.target {
            Target::Log(_) => {
                let Some(mut last) = self.last else {
                    return Ok(());
                };
                last.length = change(last.length);
                // Eight aligned bytes, which no reader sees half.
                let field = last.length_and_kind().to_le_bytes();
                self.index
                    .write_all_at(&field, RECORD * self.records + LENGTH_FIELD)?;
                self.last = Some(last);
            }
            Target::Null(_, dropped) => {
                let [mut stdout, mut stderr] = *dropped;
                match stream {
                    Stream::Stdout => stdout.length = change(stdout.length),
                    Stream::Stderr => stderr.length = change(stderr.length),
                }
                stderr.start = stdout.end();
                // Readers sum the lengths and leave the positions alone, so they may see one record
                // newer than the other.
                self.index
                    .write_all_at(&[stdout.encode(), stderr.encode()].concat(), RECORD)?;
                *dropped = [stdout, stderr];
            }
        }
        Ok(())
    }
}

fn make(dir: &OwnedFd, first: u64, part: Part, flags: OFlag) -> io::Result<File> {
    segment::open(dir, first, part, flags)?.ok_or_else(|| Errno::ENOENT.into())
}

fn open_null() -> io::Result<File> {
    let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    Ok(File::from(open("/dev/null", flags, Mode::empty())?))
}

fn read_raw(index: &File, place: u64) -> io::Result<Raw> {
    let mut raw = Raw::default();
    index.read_exact_at(&mut raw, place)?;
    Ok(raw)
}

fn nothing_dropped(start: Position, at: Timestamp) -> [Record; 2] {
    Stream::ALL.map(|stream| Record {
        start,
        at,
        stream,
        dropped: true,
        length: 0,
    })
}
