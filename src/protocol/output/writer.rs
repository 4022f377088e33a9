//! The monitor's side: pipe to log by splice(2), with the intent in the index first.
//!
//! Owns the files while it lives; there is one writer per directory. It must not know why the job
//! writes or what happens when a limit is reached. Its owner ignores SIGXFSZ, so that a file size
//! limit is an error like a full disk. After an error nothing is lost: the bytes are in the pipe, and
//! the same call may be made again at any time.
//!
//! The bound: the sizes of all files together are at most `max(max_bytes, 4096) + 128` bytes, indexes
//! and headers included. Dropping the oldest keeps at least 3/4 of `max_bytes`, indexes included; dropping
//! the newest fills `max_bytes` to within one index record and header. Waiting keeps what has not been read, and of
//! what has been at least half of `max_bytes`; when no process is left to wait, it takes what the pipes still hold.

mod closed;
mod current;
mod pipe;
mod place;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, SpliceFFlags, splice};
use nix::sys::resource::{Resource, getrlimit};

use super::index::{Header, Kind, Position, RECORD};
use super::segment::{self, Part};
use super::{Short, Stream};
use closed::ClosedSegments;
use current::{Current, Target};
use job::OutputTotals;
use job::spec::{OnLimit, OutputPolicy};
use job::time::Timestamp;
use linux::failpoint;
use pipe::{Available, available};
use place::Place;

const STEP: u64 = 1 << 20;
const SMALLEST_LIMIT: u64 = 4096;
const SMALLEST_SEGMENT: u64 = SMALLEST_LIMIT / SEGMENTS;
const SEGMENTS: u64 = 8;

/// What two pipes hold at most, which have no writer any more.
const LAST_OUTPUT: u64 = 2 * STEP;
const COALESCE_MICROS: i64 = 1000;

/// What one step has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Pumped {
    /// So many bytes were taken from the pipe, kept or dropped.
    Moved(u64),
    /// The pipe is empty for now.
    Empty,
    /// The pipe is empty and has no writer any more.
    Closed,
    /// The other stream has to be pumped first: the index promises bytes from its pipe.
    Blocked,
    /// There is no room until more has been read.
    Full,
}

/// Bytes that the index promises and the log does not hold: the next ones in that stream's pipe.
#[derive(Clone, Copy, Debug)]
struct Pending {
    stream: Stream,
    bytes: u64,
}

/// Writes the output of one job.
#[derive(Debug)]
pub struct Writer {
    dir: OwnedFd,
    on_limit: OnLimit,
    limit: u64,
    segment_size: u64,
    closed: ClosedSegments,
    current: Option<Current>,
    pending: Option<Pending>,
    limit_reached: bool,
    unsynced: bool,
    /// The next byte begins a record, whatever was before it.
    begins_record: bool,
    /// All before this offset has been read.
    read_up_to: u64,
    /// Nobody is left who could wait.
    pub(super) takes_the_rest: bool,
    /// What may be written on this disk.
    place: Place,
}

/// The largest file that this process may write: a log that reaches it continues in the next file.
fn largest_file() -> u64 {
    getrlimit(Resource::RLIMIT_FSIZE).map_or(u64::MAX, |(soft, _)| soft)
}

impl Writer {
    /// A writer for a directory without output. Creates nothing before the first byte.
    #[must_use]
    pub fn new(dir: OwnedFd, policy: OutputPolicy) -> Self {
        let (limit, smallest_segment) = match policy.on_limit {
            OnLimit::DropOldest | OnLimit::Wait => {
                (policy.max_bytes.max(SMALLEST_LIMIT), SMALLEST_SEGMENT)
            }
            // Nothing is dropped by segments: each header takes room for nothing.
            OnLimit::DropNewest | OnLimit::StopJob => (policy.max_bytes, SMALLEST_LIMIT),
        };
        let segment_size = (policy.max_bytes / SEGMENTS)
            .min(largest_file())
            .max(smallest_segment);
        Self {
            dir,
            on_limit: policy.on_limit,
            limit,
            segment_size,
            closed: ClosedSegments::default(),
            current: None,
            pending: None,
            limit_reached: false,
            unsynced: false,
            begins_record: false,
            read_up_to: 0,
            takes_the_rest: false,
            place: Place::default(),
        }
    }

    /// Continues where a writer died, with the same pipes. Must not run while another writer lives.
    ///
    /// Nothing is lost and nothing is kept twice. Only the count of bytes that a limit drops can come
    /// out too high, by at most the one step that the predecessor did not finish.
    pub fn resume(dir: OwnedFd, policy: OutputPolicy) -> io::Result<Self> {
        let mut writer = Self::new(dir, policy);
        let mut segments = Vec::new();
        for (first, part) in segment::list(&writer.dir)? {
            match part {
                Part::Index => segments.push(first),
                Part::Log => {
                    if segment::open(&writer.dir, first, Part::Index, OFlag::O_RDONLY)?.is_none() {
                        segment::unlink_part(&writer.dir, first, Part::Log)?;
                    }
                }
            }
        }
        while let Some(first) = segments.pop() {
            let Some((current, missing)) = Current::adopt(&writer.dir, first)? else {
                segment::unlink(&writer.dir, first)?;
                continue;
            };
            writer.pending = current.last.filter(|_| missing > 0).map(|last| Pending {
                stream: last.stream,
                bytes: missing.min(last.length),
            });
            let gap = current.header.kind == Kind::Gap;
            writer.limit_reached = gap && policy.on_limit == OnLimit::StopJob;
            writer.unsynced = true;
            writer.current = Some(current);
            break;
        }
        for first in segments {
            writer.closed.adopt(&writer.dir, first)?;
        }
        Ok(writer)
    }

    /// Continues behind the output of the attempts before, whose writers are gone, with new pipes and not before the offset
    /// `from`. What of it the files do not have is a gap.
    pub fn append(
        dir: OwnedFd,
        policy: OutputPolicy,
        from: u64,
        now: Timestamp,
    ) -> io::Result<Self> {
        let mut writer = Self::resume(dir, policy)?;
        writer.seal()?;
        writer.begins_record = true;
        let end = writer
            .current
            .as_ref()
            .map_or_else(Position::default, Current::end);
        let missing = from.saturating_sub(end.offset());
        if missing > 0 {
            let start = end.after(Stream::Stdout, missing);
            writer.begin_at(start, now)?;
        }
        Ok(writer)
    }

    /// Moves what one stream's pipe holds, at most 1 MiB; never blocks.
    ///
    /// `pipe` is a read end with `O_NONBLOCK`, whose bytes nobody else takes.
    pub fn pump(
        &mut self,
        stream: Stream,
        pipe: BorrowedFd<'_>,
        now: Timestamp,
    ) -> io::Result<Pumped> {
        let available = match available(pipe)? {
            Available::Bytes(bytes) => bytes,
            nothing @ (Available::Nothing | Available::Closed) => {
                if self.pending.is_some_and(|pending| pending.stream == stream) {
                    // They were there when they were promised, so they will not come any more.
                    self.trim(0)?;
                }
                return Ok(match nothing {
                    Available::Closed => Pumped::Closed,
                    Available::Nothing | Available::Bytes(_) => Pumped::Empty,
                });
            }
        };
        match self.pending {
            Some(pending) if pending.stream != stream => return Ok(Pumped::Blocked),
            Some(_) => self.trim(available)?,
            None => {
                let mut wanted = available.min(STEP);
                if !self.drops() {
                    wanted = self.place.take(self.dir.as_fd(), wanted)?;
                }
                if self.promise(stream, wanted, now)? == 0 {
                    return Ok(Pumped::Full);
                }
            }
        }
        self.fulfil(pipe)
    }

    /// Is what comes now dropped?
    fn drops(&self) -> bool {
        let target = self.current.as_ref().map(|current| &current.target);
        matches!(target, Some(Target::Null(..)))
    }

    /// All before this offset has been read, and may be dropped where the job waits for room.
    pub fn read_up_to(&mut self, offset: u64) {
        self.read_up_to = offset;
    }

    /// Nobody is left who could wait: what the pipes still hold is kept, too.
    pub fn take_the_rest(&mut self) {
        if self.on_limit == OnLimit::Wait && !self.takes_the_rest {
            self.takes_the_rest = true;
            let used = self.closed.size() + self.current.as_ref().map_or(0, Current::size);
            self.limit = self.limit.max(used) + LAST_OUTPUT;
        }
    }

    /// Whether the output limit has asked for the job's stop; true once, and once more after a resume.
    pub fn limit_reached(&mut self) -> bool {
        std::mem::take(&mut self.limit_reached)
    }

    /// What there is by now; `complete` is for the caller to say.
    #[must_use]
    pub fn totals(&self) -> OutputTotals {
        let Some(current) = &self.current else {
            return OutputTotals::default();
        };
        let mut end = current.end();
        if let Some(Pending { stream, bytes }) = self.pending {
            end = end.before(stream, bytes);
        }
        let start = current.header.start.offset();
        let oldest = self.closed.oldest().unwrap_or(start);
        let (first_offset, gap) = match (&current.target, self.closed.is_empty()) {
            (Target::Log(_), _) => (oldest, 0),
            (Target::Null(..), true) => (end.offset(), end.offset() - start),
            (Target::Null(..), false) => (oldest, end.offset() - start),
        };
        OutputTotals {
            stdout_bytes: end.stdout,
            stderr_bytes: end.stderr,
            first_offset,
            next_offset: end.offset(),
            dropped_bytes: oldest + gap,
            complete: false,
        }
    }

    /// All of the output, if it is short and every promise is kept.
    pub fn short(&self) -> io::Result<Option<Short>> {
        match &self.current {
            Some(current) if self.closed.is_empty() && self.pending.is_none() => current.short(),
            Some(_) | None => Ok(None),
        }
    }

    /// Makes everything written so far durable.
    pub fn sync(&mut self) -> io::Result<()> {
        if !self.unsynced {
            return Ok(());
        }
        self.closed.sync(&self.dir)?;
        if let Some(current) = &self.current {
            current.index.sync_data()?;
            if let Target::Log(log) = &current.target {
                log.sync_data()?;
            }
        }
        nix::unistd::fsync(&self.dir)?;
        self.unsynced = false;
        Ok(())
    }

    /// Takes back a promise that cannot be kept, for instance after the pipes are gone.
    pub fn seal(&mut self) -> io::Result<()> {
        self.trim(0)
    }

    /// Lowers the promise to `available` bytes where it is larger.
    fn trim(&mut self, available: u64) -> io::Result<()> {
        let (Some(pending), Some(current)) = (self.pending, &mut self.current) else {
            return Ok(());
        };
        let excess = pending.bytes.saturating_sub(available);
        if excess > 0 {
            current.resize(pending.stream, |length| length.saturating_sub(excess))?;
        }
        let bytes = pending.bytes - excess;
        self.pending = (bytes > 0).then_some(Pending { bytes, ..pending });
        Ok(())
    }

    /// States in the index that up to `wanted` bytes of the stream come next, and returns how many.
    pub(super) fn promise(
        &mut self,
        stream: Stream,
        wanted: u64,
        now: Timestamp,
    ) -> io::Result<u64> {
        let mut extends = self.extends(stream, now);
        let mut room = self.room(extends);
        if room == 0 {
            if !self.has_room_for_segment()? {
                return Ok(0);
            }
            self.start_segment(now)?;
            extends = false;
            room = self.room(false);
        }
        let Some(current) = &mut self.current else {
            return Ok(0);
        };
        self.unsynced = true;
        self.begins_record = false;
        let bytes = wanted.min(room);
        let gap = current.header.kind == Kind::Gap;
        if gap || extends {
            current.resize(stream, |length| length + bytes)?;
        } else {
            current.append(stream, bytes, now)?;
        }
        self.pending = Some(Pending { stream, bytes });
        Ok(bytes)
    }

    /// Moves the promised bytes.
    pub(super) fn fulfil(&mut self, pipe: BorrowedFd<'_>) -> io::Result<Pumped> {
        let (Some(pending), Some(current)) = (&mut self.pending, &self.current) else {
            return Ok(Pumped::Empty);
        };
        let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
        failpoint::fail("output.writing")?;
        let promised = pending.bytes;
        let mut failure = None;
        while pending.bytes > 0 {
            let length = usize::try_from(pending.bytes).unwrap_or(usize::MAX);
            let moved = match &current.target {
                Target::Null(null, _) => splice(pipe, None, null, None, length, flags),
                Target::Log(log) => {
                    let end = current.end().before(pending.stream, pending.bytes);
                    let mut offset = i64::try_from(current.place_in_log(end))
                        .map_err(|_| io::Error::from(Errno::EFBIG))?;
                    splice(pipe, None, log, Some(&mut offset), length, flags)
                }
            };
            match moved {
                Ok(0) | Err(Errno::EAGAIN) => break,
                Ok(moved) => {
                    let moved = u64::try_from(moved).unwrap_or(u64::MAX);
                    pending.bytes = pending.bytes.saturating_sub(moved);
                }
                Err(Errno::EINTR) => {}
                Err(errno) => {
                    failure = Some(errno);
                    break;
                }
            }
        }
        let moved = promised - pending.bytes;
        if pending.bytes == 0 {
            self.pending = None;
        }
        match failure {
            Some(errno) if moved == 0 => Err(errno.into()),
            Some(_) | None if moved > 0 => Ok(Pumped::Moved(moved)),
            Some(_) | None => Ok(Pumped::Empty),
        }
    }

    /// Whether the last record can take more of this stream at this time.
    fn extends(&self, stream: Stream, now: Timestamp) -> bool {
        if self.begins_record {
            return false;
        }
        let last = self.current.as_ref().and_then(|current| current.last);
        last.is_some_and(|last| {
            let age = now.as_micros().saturating_sub(last.at.as_micros());
            last.stream == stream && (0..COALESCE_MICROS).contains(&age)
        })
    }

    /// How many bytes the current segment can take.
    fn room(&self, extends: bool) -> u64 {
        let Some(current) = &self.current else {
            return 0;
        };
        if let Target::Null(..) = current.target {
            return u64::MAX;
        }
        let used = current.size() + if extends { 0 } else { RECORD };
        let segment = self.segment_size.saturating_sub(used);
        match self.on_limit {
            OnLimit::DropOldest | OnLimit::Wait => segment,
            OnLimit::DropNewest | OnLimit::StopJob => {
                segment.min(self.limit.saturating_sub(self.closed.size() + used))
            }
        }
    }

    /// Begins a segment after the current one, then makes room or gives up keeping, by policy.
    fn start_segment(&mut self, now: Timestamp) -> io::Result<()> {
        let start = self
            .current
            .as_ref()
            .map_or_else(Position::default, Current::end);
        self.begin_at(start, now)
    }

    /// The same at a place that may be behind the end of the current one.
    fn begin_at(&mut self, start: Position, now: Timestamp) -> io::Result<()> {
        let used = self.current.as_ref().map_or(0, Current::size);
        let kind = match self.on_limit {
            OnLimit::DropOldest | OnLimit::Wait => Kind::Kept,
            // A header, a record and a byte.
            OnLimit::DropNewest | OnLimit::StopJob
                if self.closed.size() + used + 2 * RECORD < self.limit =>
            {
                Kind::Kept
            }
            OnLimit::DropNewest | OnLimit::StopJob => Kind::Gap,
        };
        let next = Current::create(&self.dir, Header { kind, start }, now)?;
        if let Some(previous) = self.current.replace(next) {
            let (first, size) = (previous.header.start.offset(), previous.size());
            // An empty segment had the name that the new one has now.
            if first != start.offset() {
                self.closed.push(first, size);
            }
        }
        match self.on_limit {
            OnLimit::DropOldest => self.drop_oldest(),
            OnLimit::DropNewest | OnLimit::Wait => Ok(()),
            OnLimit::StopJob => {
                self.limit_reached |= kind == Kind::Gap;
                Ok(())
            }
        }
    }

    /// Where it waits for room: drops what has been read until there is some. Half of the limit stays even so, since
    /// what was handed to a connection may have to be sent again.
    fn has_room_for_segment(&mut self) -> io::Result<bool> {
        let Some(current) = self
            .current
            .as_ref()
            .filter(|_| self.on_limit == OnLimit::Wait)
        else {
            return Ok(true);
        };
        let (used, start) = (current.size(), current.header.start.offset());
        while self.closed.size() + used + self.segment_size > self.limit && !self.closed.is_empty()
        {
            if self.closed.size_before(self.read_up_to, start) <= self.limit / 2 {
                return Ok(false);
            }
            self.closed.unlink_oldest(&self.dir)?;
        }
        Ok(true)
    }

    /// Unlinks old segments until the current one may grow to its full size.
    fn drop_oldest(&mut self) -> io::Result<()> {
        while self.closed.size() + self.segment_size > self.limit && !self.closed.is_empty() {
            self.closed.unlink_oldest(&self.dir)?;
        }
        Ok(())
    }
}
