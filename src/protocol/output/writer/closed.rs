//! The segments before the one that grows: how much they take, and their removal, oldest first.
//!
//! It must not know of limits or of what the segments hold.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;

use crate::output::segment::{self, Part};

/// A segment that is complete.
#[derive(Debug)]
struct Closed {
    first: u64,
    size: u64,
    synced: bool,
}

/// The complete segments of one job, oldest first.
#[derive(Debug, Default)]
pub(super) struct ClosedSegments {
    segments: VecDeque<Closed>,
    size: u64,
}

impl ClosedSegments {
    /// What their files take, in bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// The first offset of the oldest.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.segments.front().map(|oldest| oldest.first)
    }

    /// Adds a segment behind the others.
    pub(super) fn push(&mut self, first: u64, size: u64) {
        self.size += size;
        self.segments.push_back(Closed {
            first,
            size,
            synced: false,
        });
    }

    /// Adds one that a predecessor left.
    pub(super) fn adopt(&mut self, dir: &OwnedFd, first: u64) -> io::Result<()> {
        let mut size = 0;
        for part in Part::ALL {
            if let Some(file) = segment::open(dir, first, part, OFlag::O_RDONLY)? {
                size += file.metadata()?.len();
            }
        }
        self.push(first, size);
        Ok(())
    }

    /// What the oldest of them take that end at or before this offset; the last one ends at `end`.
    pub(super) fn size_before(&self, offset: u64, end: u64) -> u64 {
        let ends = self.segments.iter().skip(1).map(|closed| closed.first);
        let ends = ends.chain([end]);
        let before = self.segments.iter().zip(ends);
        let before = before.take_while(|(_, end)| *end <= offset);
        before.map(|(closed, _)| closed.size).sum()
    }

    pub(super) fn unlink_oldest(&mut self, dir: &OwnedFd) -> io::Result<()> {
        if let Some(oldest) = self.segments.front() {
            segment::unlink(dir, oldest.first)?;
            self.size -= oldest.size;
            self.segments.pop_front();
        }
        Ok(())
    }

    /// Makes those durable that are not yet.
    pub(super) fn sync(&mut self, dir: &OwnedFd) -> io::Result<()> {
        for closed in self.segments.iter_mut().filter(|closed| !closed.synced) {
            for part in Part::ALL {
                segment::sync_part(dir, closed.first, part)?;
            }
            closed.synced = true;
        }
        Ok(())
    }
}
