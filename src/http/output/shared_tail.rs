//! What followers of the same job share: the newest records, read and written once for all of them.
//!
//! It holds a few pieces a job, of those that are at the tip of its log. Who lags behind reads for itself.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::records::{Format, Records};
use job::JobId;
use protocol::output::Stream;

/// How many pieces are kept for a job, and how many bytes in them: enough for those that a busy machine has
/// left behind for a moment.
const PIECES: usize = 128;
const KEPT: usize = 4 << 20;

/// A follower with more than so many bytes to read lags behind. A crowd that is late all together must still share, else
/// each of them reads for itself and is later still: the limit only keeps a follower of old output from pushing out
/// what the others need.
const TAIL_BYTES: u64 = 16 << 20;

/// The shared tails of all jobs that are followed.
#[derive(Debug, Default)]
pub(crate) struct SharedTails(Mutex<HashMap<JobId, Weak<SharedTail>>>);

impl SharedTails {
    /// The tail of this job, for as long as somebody holds it.
    pub(super) fn of(&self, id: JobId) -> Arc<SharedTail> {
        // Held for a look-up and never over an await.
        let mut tails = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tail) = tails.get(&id).and_then(Weak::upgrade) {
            return tail;
        }
        tails.retain(|_, tail| tail.strong_count() > 0);
        let tail = Arc::new(SharedTail {
            turn: Semaphore::new(1),
            pieces: Mutex::default(),
        });
        tails.insert(id, Arc::downgrade(&tail));
        tail
    }
}

/// The newest records of one job.
#[derive(Debug)]
pub(super) struct SharedTail {
    /// One follower reads at a time; the others find what it has read.
    turn: Semaphore,
    pieces: Mutex<VecDeque<SharedPiece>>,
}

/// What the bytes of a piece depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    format: Format,
    filter: Option<Stream>,
    from: u64,
    /// The last attempt that has been written.
    attempt: u32,
}

impl Key {
    /// `None` if others have no use for what would be read.
    pub(super) fn of(records: &Records, told: u64) -> Option<Self> {
        let is_shared = match records.format {
            Format::Raw | Format::Lines | Format::Events => true,
            // What is written depends on what was before.
            Format::RawWithTimes => false,
        };
        let is_near = told.saturating_sub(records.at) <= TAIL_BYTES;
        (is_shared && is_near && records.left.is_none() && records.end.is_none()).then_some(Self {
            format: records.format,
            filter: records.filter,
            from: records.at,
            attempt: records.attempts.said,
        })
    }
}

/// Records as they are sent.
#[derive(Clone, Debug)]
pub(super) struct SharedPiece {
    pub(super) key: Key,
    pub(super) bytes: Bytes,
    /// Where to continue.
    pub(super) at: u64,
    /// The last attempt that is written by then.
    pub(super) attempt: u32,
}

impl SharedTail {
    /// Waits for the turn to read.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.turn.acquire().await.ok()
    }

    /// The piece, if somebody has read it.
    pub(super) fn find(&self, key: Key) -> Option<SharedPiece> {
        let pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        pieces.iter().find(|piece| piece.key == key).cloned()
    }

    /// Keeps a piece for the others.
    pub(super) fn keep(&self, piece: SharedPiece) {
        let mut pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        pieces.push_back(piece);
        let mut kept: usize = pieces.iter().map(|piece| piece.bytes.len()).sum();
        while pieces.len() > PIECES || kept > KEPT {
            let Some(oldest) = pieces.pop_front() else {
                break;
            };
            kept -= oldest.bytes.len();
        }
    }
}
