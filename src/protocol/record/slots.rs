//! The format of the record file: slots of fixed size, each with a checksum, and room for the notes beside them.
//!
//! What a record means is not known here, nor who may write when.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::Record;
use crate::codec;
use job::JobId;

pub(super) const SLOT: u64 = 8192;

/// What comes after the slots, in the file's last bytes: see `notes`.
pub(super) const NOTES: u64 = 2 * SLOT + 4016;
pub(super) const LENGTH: u64 = 2 * SLOT + 4096;

const MAGIC: [u8; 4] = *b"PrRc";
/// Magic, length, sequence number, checksum.
pub(super) const HEADER: usize = 4 + 4 + 8 + 4;

pub(super) fn frame(sequence: u64, record: &Record) -> io::Result<Vec<u8>> {
    let bytes = sealed(sequence, &codec::encode(record)?);
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > SLOT {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "record larger than its slot",
        ));
    }
    Ok(bytes)
}

/// A payload as it stands in a slot.
pub fn sealed(sequence: u64, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&sequence.to_le_bytes());
    bytes.extend_from_slice(&checksum(sequence, payload).to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

pub(super) fn checksum(sequence: u64, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&sequence.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// Has the checksum look at the processor once, for all processes that are forked later. In a virtual
/// machine every look is an exit to the host.
pub fn warm_up() {
    let _ = checksum(0, &[0; 256]);
}

/// What a slot holds.
pub(super) enum Slot {
    /// Nothing was ever written to it for this job: the file may have been that of another.
    Empty,
    /// A record that is whole, and its sequence number.
    Whole(u64, Box<Record>),
    /// Something else.
    Damaged,
}

pub(super) fn newest(slots: [Slot; 2]) -> Option<(u64, Record)> {
    let whole = slots.into_iter().filter_map(|slot| match slot {
        Slot::Whole(sequence, record) => Some((sequence, *record)),
        Slot::Empty | Slot::Damaged => None,
    });
    whole.max_by_key(|(sequence, _)| *sequence)
}

pub(super) fn read_slot(file: &File, offset: u64, job: JobId) -> Slot {
    let Some(slot) = read_area(file, offset, SLOT) else {
        return Slot::Damaged;
    };
    if slot.iter().all(|byte| *byte == 0) {
        return Slot::Empty;
    }
    match parse_slot(&slot) {
        Some((sequence, record)) if record.job == job => Slot::Whole(sequence, Box::new(record)),
        Some(_) => Slot::Empty,
        None => Slot::Damaged,
    }
}

/// A part of the file, filled up with zeroes; `None` if it cannot be read.
fn read_area(file: &File, offset: u64, size: u64) -> Option<Vec<u8>> {
    let mut slot = vec![0; usize::try_from(size).unwrap_or_default()];
    let mut filled = 0;
    while let Some(rest) = slot.get_mut(filled..)
        && !rest.is_empty()
    {
        match file.read_at(rest, offset + u64::try_from(filled).unwrap_or_default()) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(_) => return None,
        }
    }
    Some(slot)
}

/// The record in a slot, if it is whole.
pub fn parse_slot(slot: &[u8]) -> Option<(u64, Record)> {
    if slot.get(..4)? != MAGIC {
        return None;
    }
    let length = usize::try_from(u32::from_le_bytes(slot.get(4..8)?.try_into().ok()?)).ok()?;
    let sequence = u64::from_le_bytes(slot.get(8..16)?.try_into().ok()?);
    let sum = u32::from_le_bytes(slot.get(16..20)?.try_into().ok()?);
    let payload = slot.get(HEADER..HEADER.checked_add(length)?)?;
    (checksum(sequence, payload) == sum).then_some(())?;
    Some((sequence, codec::decode(payload).ok()?))
}
