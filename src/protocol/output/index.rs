//! The bytes of an index file: a header of 32 bytes, then records of 32 bytes, all little-endian.
//!
//! PURE. Both have the positions of the two streams in front, so that one record is enough to seek by
//! global offset and by the position in one stream.

use super::Stream;
use job::time::Timestamp;

/// The length of a record, and of the header.
pub(super) const RECORD: u64 = 32;

/// The buffer for one record or header.
pub(super) type Raw = [u8; 32];

const KEPT_MAGIC: u64 = u64::from_le_bytes(*b"PROCIDX1");
const GAP_MAGIC: u64 = u64::from_le_bytes(*b"PROCGAP1");
const DROPPED: u64 = 0x80;
const KIND_SHIFT: u32 = 56;
const MAX_LENGTH: u64 = (1 << KIND_SHIFT) - 1;

/// How many bytes of each stream lie before a place in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) stdout: u64,
    pub(super) stderr: u64,
}

impl Position {
    /// The global offset. Saturates, for a damaged file may hold any numbers.
    pub(super) fn offset(self) -> u64 {
        self.stdout.saturating_add(self.stderr)
    }

    pub(super) fn of(self, stream: Stream) -> u64 {
        match stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        }
    }

    /// The position `length` bytes of `stream` later.
    pub(super) fn after(mut self, stream: Stream, length: u64) -> Self {
        let count = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        *count = count.saturating_add(length);
        self
    }

    /// The position `length` bytes of `stream` earlier.
    pub(super) fn before(mut self, stream: Stream, length: u64) -> Self {
        let count = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        *count = count.saturating_sub(length);
        self
    }
}

/// What a segment is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It has a log.
    Kept,
    /// It has no log and exactly two records, which count what was dropped of either stream.
    Gap,
}

/// The head of an index file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) start: Position,
}

impl Header {
    pub(super) fn encode(&self) -> Raw {
        let magic = match self.kind {
            Kind::Kept => KEPT_MAGIC,
            Kind::Gap => GAP_MAGIC,
        };
        join([
            magic,
            self.start.offset(),
            self.start.stdout,
            self.start.stderr,
        ])
    }

    pub(super) fn decode(raw: &Raw) -> Option<Self> {
        let [magic, first, stdout, stderr] = split(raw);
        let kind = match magic {
            KEPT_MAGIC => Kind::Kept,
            GAP_MAGIC => Kind::Gap,
            _ => return None,
        };
        let start = Position { stdout, stderr };
        (stdout.checked_add(stderr) == Some(first)).then_some(Self { kind, start })
    }
}

/// One run of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) start: Position,
    pub(super) at: Timestamp,
    pub(super) stream: Stream,
    pub(super) dropped: bool,
    pub(super) length: u64,
}

impl Record {
    /// The position after its last byte.
    pub(super) fn end(&self) -> Position {
        self.start.after(self.stream, self.length)
    }

    /// Its last field, the only one that changes while it grows.
    pub(super) fn length_and_kind(&self) -> u64 {
        let stream = match self.stream {
            Stream::Stdout => 1,
            Stream::Stderr => 2,
        };
        let kind = stream | if self.dropped { DROPPED } else { 0 };
        (kind << KIND_SHIFT) | self.length.min(MAX_LENGTH)
    }

    pub(super) fn encode(&self) -> Raw {
        let at = u64::from_le_bytes(self.at.as_micros().to_le_bytes());
        join([
            self.start.stdout,
            self.start.stderr,
            at,
            self.length_and_kind(),
        ])
    }

    /// `None` for what no writer has written, such as the zeroes that a power failure leaves.
    pub(super) fn decode(raw: &Raw) -> Option<Self> {
        let [stdout, stderr, at, length_and_kind] = split(raw);
        let kind = length_and_kind >> KIND_SHIFT;
        let stream = match kind & !DROPPED {
            1 => Stream::Stdout,
            2 => Stream::Stderr,
            _ => return None,
        };
        Some(Self {
            start: Position { stdout, stderr },
            at: Timestamp::from_micros(i64::from_le_bytes(at.to_le_bytes())),
            stream,
            dropped: kind & DROPPED != 0,
            length: length_and_kind & MAX_LENGTH,
        })
    }
}

fn join(fields: [u64; 4]) -> Raw {
    let mut raw = Raw::default();
    for (bytes, field) in raw.chunks_exact_mut(8).zip(fields) {
        bytes.copy_from_slice(&field.to_le_bytes());
    }
    raw
}

fn split(raw: &Raw) -> [u64; 4] {
    let mut fields = [0; 4];
    for (field, bytes) in fields.iter_mut().zip(raw.chunks_exact(8)) {
        *field = u64::from_le_bytes(bytes.try_into().expect("chunks_exact gives 8 bytes"));
    }
    fields
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_layout_is_the_documented_one() {
        let record = Record {
            start: Position {
                stdout: 1,
                stderr: 2,
            },
            at: Timestamp::from_micros(-1),
            stream: Stream::Stderr,
            dropped: true,
            length: 3,
        };
        let mut raw = Raw::default();
        raw[0] = 1;
        raw[8] = 2;
        raw[16..24].fill(0xff);
        raw[24] = 3;
        raw[31] = 0x82;
        assert_eq!(record.encode(), raw);
    }

    proptest! {
        #[test]
        fn a_record_comes_back(
            stdout: u64, stderr: u64, at: i64, second: bool, dropped: bool, length in 0..=MAX_LENGTH,
        ) {
            let stream = if second { Stream::Stderr } else { Stream::Stdout };
            let at = Timestamp::from_micros(at);
            let record = Record { start: Position { stdout, stderr }, at, stream, dropped, length };
            prop_assert_eq!(Record::decode(&record.encode()), Some(record));
        }

        #[test]
        fn any_bytes_decode_without_panic(raw: Raw) {
            let _ = Header::decode(&raw);
            if let Some(record) = Record::decode(&raw) {
                prop_assert_eq!(record.encode(), raw);
            }
        }
    }
}
