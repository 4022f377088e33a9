//! The on-disk log of a job's output: the monitor writes it, the server reads it at the same time.
//!
//! Owns the segment files in a job's directory and their format. It must not know who pumps when, what
//! a job is beyond its output policy, or how output looks in the API. Synchronous throughout.
//!
//! A segment is a pair of files named after the global offset of its first byte: `….log` has the bytes
//! of both streams in the order of their arrival, `….idx` a header and records of 32 bytes that say
//! whose they are and when they came. A global offset counts payload bytes over both streams, dropped
//! ones included, and never changes its meaning. Nothing of that name exists before the first byte.
//!
//! Two orders make this safe without locks and against SIGKILL at any instruction:
//! - The writer states its intent in the index before it moves bytes from the pipe to the log. What
//!   the index promises beyond the log's end is still in that stream's pipe.
//! - The reader takes the log's length before it reads the index. Records below that length are final.

mod index;
mod reader;
mod segment;
mod short;
pub mod sizes;
#[cfg(test)]
mod tests;
mod writer;

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use job::time::Timestamp;
pub use reader::{Located, Reader};
pub(crate) use segment::{is_first, is_unused, put_by, remove_unused};
pub use short::{SHORT, Short};
pub use writer::{Pumped, Writer};

/// Which of the job's two outputs a byte came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Descriptor 1 of the job.
    Stdout,
    /// Descriptor 2 of the job.
    Stderr,
}

impl Stream {
    /// Both streams.
    pub const ALL: [Self; 2] = [Self::Stdout, Self::Stderr];

    /// The word in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Unlinks all that is kept of a job's output, and leaves everything else in its directory.
pub fn remove(dir: impl AsFd) -> io::Result<()> {
    segment::remove(&dir)?;
    segment::remove_unused(&dir)?;
    sizes::remove(&dir)
}

/// Makes all that is kept of a job's output durable, as its writer would.
pub fn sync(dir: OwnedFd) -> io::Result<()> {
    segment::sync(&dir)
}

/// What a reader finds at an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes of one stream.
    Data {
        /// The offset of the first byte.
        offset: u64,
        /// Where they came from.
        stream: Stream,
        /// When the monitor took the first byte of their record from the pipe.
        at: Timestamp,
        /// The bytes as the job wrote them, never empty.
        bytes: Vec<u8>,
        /// The offset to continue from.
        next: u64,
    },
    /// Output that was dropped; continue from `to`.
    Gap {
        /// Where it begins for this reader: the offset asked for, or a later one past the other stream.
        from: u64,
        /// The first offset after it.
        to: u64,
    },
}

/// What a reader finds at an offset where it does not care for streams and times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RawPiece {
    /// The bytes at the offset asked for, of both streams in the order of their arrival; never empty.
    Data(Vec<u8>),
    /// Output that was dropped; continue from `to`.
    Gap {
        /// The first offset after it.
        to: u64,
    },
}
