//! What output leaves free on the disk. The store needs it: to record that a job has ended, and to purge.

use std::io;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::sys::statvfs::fstatvfs;

/// So much stays free, or a sixteenth of a small file system.
const KEPT: u64 = 4 << 20;

/// The most that is written before the disk is looked at again.
const STRIDE: u64 = 16 << 20;

/// Others write to the same disk: so much of what is free is for this one before it looks again.
const SHARE: u64 = 16;

/// How much may be written before the disk is looked at again.
#[derive(Debug, Default)]
pub(super) struct Place {
    left: u64,
}

impl Place {
    /// Takes up to `wanted` bytes, at least one; `ENOSPC` if only what is kept free is left.
    pub(super) fn take(&mut self, dir: BorrowedFd<'_>, wanted: u64) -> io::Result<u64> {
        if self.left == 0 {
            let space = fstatvfs(dir)?;
            let bytes = |blocks: u64| blocks.saturating_mul(space.fragment_size());
            let (free, all) = (bytes(space.blocks_available()), bytes(space.blocks()));
            self.left = stride(free, all).ok_or(Errno::ENOSPC)?;
        }
        let taken = wanted.min(self.left);
        self.left -= taken;
        Ok(taken)
    }
}

/// How much may be written before the disk is looked at again; `None` if it is as good as full.
fn stride(free: u64, all: u64) -> Option<u64> {
    // A file system that does not say how large it is has no end.
    if all == 0 {
        return Some(STRIDE);
    }
    let over = free.saturating_sub(KEPT.min(all / 16));
    (over > 0).then(|| (over / SHARE).clamp(1, STRIDE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_of_a_disk_is_kept_free() {
        assert_eq!(stride(0, 1 << 40), None);
        assert_eq!(stride(KEPT, 1 << 40), None);
        assert_eq!(stride(KEPT + 1, 1 << 40), Some(1));
        assert_eq!(stride(KEPT + 160, 1 << 40), Some(10));
        assert_eq!(stride(1 << 39, 1 << 40), Some(STRIDE));
        // Of a small one, less.
        assert_eq!(stride(1 << 19, 6 << 20), Some(8192));
        assert_eq!(stride(0, 0), Some(STRIDE));
    }
}
