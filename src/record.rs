//! The record in a job's directory: what its monitor knows, and proof that the monitor lives.
//!
//! One file, two slots of fixed size, both allocated when the file is made, so that the exit is still
//! recorded on a full disk. Each write goes to the slot that does not hold the newest record and carries
//! a checksum: whenever the writer is killed, one slot holds a complete record. The monitor holds a POSIX
//! record lock (fcntl(2) `F_SETLK`) on the file for as long as it lives; fork(2) does not inherit it, and
//! `F_GETLK` names its holder, so liveness never hangs on a process number read from disk.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, openat, posix_fallocate};
use nix::libc;
use nix::sys::stat::Mode;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::job::life::Life;
use crate::job::outcome::{SpawnFailure, Stage};
use crate::job::{JobId, OutputTotals, Survivor, Usage};
use crate::wire;

/// The file's name in the job's directory.
pub(crate) const FILE: &str = "record";

/// The name of a record that was put aside.
const DAMAGED: &str = "record.damaged";

const SLOT: u64 = 8192;

/// Room after the slots for a leader's last word.
const LAST_WORD: u64 = 4096;
const MAGIC: [u8; 4] = *b"PrRc";
/// Magic, length, sequence number, checksum.
const HEADER: usize = 4 + 4 + 8 + 4;

/// A process by number and start time: with the boot id, one process for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessIdentity {
    pub(crate) pid: i32,
    pub(crate) start_ticks: u64,
}

/// The leader once it exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Leader {
    pub(crate) identity: ProcessIdentity,
    pub(crate) started_at: Timestamp,
    /// The file that was executed.
    pub(crate) executable: String,
}

/// What a monitor knows of its job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) job: JobId,
    pub(crate) attempt: u32,
    pub(crate) boot_id: String,
    pub(crate) monitor: ProcessIdentity,
    pub(crate) leader: Option<Leader>,
    /// The job's cgroup as a path beneath the cgroup mount.
    pub(crate) cgroup: Option<String>,
    pub(crate) life: Life,
    /// The wall-clock time of the timeout, while one is armed.
    pub(crate) deadline_at: Option<Timestamp>,
    pub(crate) usage: Option<Usage>,
    pub(crate) output: OutputTotals,
    pub(crate) survivors: Vec<Survivor>,
    /// A standard input that was open is closed.
    #[serde(default)]
    pub(crate) stdin_closed: bool,
}

/// The writing side, in the monitor.
#[derive(Debug)]
pub(crate) struct Writer {
    file: File,
    sequence: u64,
}

impl Writer {
    /// Makes the file, allocates both slots and takes the lock.
    pub(crate) fn create(directory: BorrowedFd<'_>) -> io::Result<Self> {
        let flags =
            OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = File::from(openat(
            directory,
            FILE,
            flags,
            Mode::from_bits_truncate(0o600),
        )?);
        posix_fallocate(
            &file,
            0,
            i64::try_from(2 * SLOT + LAST_WORD).unwrap_or(i64::MAX),
        )?;
        if !lock(&file)? {
            return Err(io::Error::from(Errno::EAGAIN));
        }
        // A server that took this launch for dead has discarded it, and launches the job again.
        if nix::sys::stat::fstat(&file)?.st_nlink == 0 {
            return Err(io::Error::from(Errno::ESTALE));
        }
        Ok(Self { file, sequence: 0 })
    }

    /// Goes on with the file of a monitor that is dead: takes the lock and returns its last record.
    pub(crate) fn resume(directory: BorrowedFd<'_>) -> io::Result<(Self, Record)> {
        let flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = File::from(openat(directory, FILE, flags, Mode::empty())?);
        if !lock(&file)? {
            return Err(io::Error::from(Errno::EAGAIN));
        }
        let (sequence, record) = newest([read_slot(&file, 0), read_slot(&file, SLOT)])
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok((Self { file, sequence }, record))
    }

    /// Writes the record into the older slot.
    pub(crate) fn write(&mut self, record: &Record) -> io::Result<()> {
        self.sequence += 1;
        let bytes = frame(self.sequence, record, SLOT)?;
        self.file.write_all_at(&bytes, (self.sequence % 2) * SLOT)
    }

    /// Says, in the leader, that no program was executed. It has a place of its own: when the monitor is
    /// dead, a rescuer may be writing records at the same time.
    pub(crate) fn write_last_word(&self, failure: &SpawnFailure) -> io::Result<()> {
        self.file
            .write_all_at(&frame(0, failure, LAST_WORD)?, 2 * SLOT)
    }

    /// What the leader said last.
    pub(crate) fn last_word(&self) -> Option<SpawnFailure> {
        read_last_word(&self.file)
    }

    /// The file, to be kept open where all others are closed.
    pub(crate) fn file_mut(&mut self) -> &mut File {
        &mut self.file
    }

    /// Skips the slot that a forked leader writes, so that this side's next record comes after it.
    pub(crate) fn skip_one(&mut self) {
        self.sequence += 1;
    }
}

/// The failure with which a leader gives up because its monitor died before its record was there.
pub(crate) fn orphaned() -> SpawnFailure {
    SpawnFailure {
        stage: Stage::Record,
        errno: nix::libc::ECHILD,
        message: "failed to write the run record: the monitor is gone".to_owned(),
    }
}

/// Is this the word of a leader that gave up because its monitor died? Then the job may be launched again.
pub(crate) fn is_orphaned(failure: &SpawnFailure) -> bool {
    failure.stage == Stage::Record && failure.errno == nix::libc::ECHILD
}

fn frame<T: Serialize>(sequence: u64, value: &T, room: u64) -> io::Result<Vec<u8>> {
    let bytes = sealed(sequence, &wire::encode(value)?);
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > room {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "record larger than its slot",
        ));
    }
    Ok(bytes)
}

/// A payload as it stands in a slot.
pub(crate) fn sealed(sequence: u64, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&sequence.to_le_bytes());
    bytes.extend_from_slice(&checksum(sequence, payload).to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

fn checksum(sequence: u64, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&sequence.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// Has the checksum look at the processor once, for all processes that are forked later. In a virtual
/// machine every look is an exit to the host.
pub(crate) fn warm_up() {
    let _ = checksum(0, &[0; 256]);
}

fn whole_file(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: libc::c_short::try_from(kind).unwrap_or_default(),
        l_whence: libc::c_short::try_from(libc::SEEK_SET).unwrap_or_default(),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// Takes the write lock on a file; `false` where somebody else holds it. It goes with the process, and
/// with the first descriptor of the file that this process closes.
pub(crate) fn lock(file: &File) -> io::Result<bool> {
    match fcntl(file, FcntlArg::F_SETLK(&whole_file(libc::F_WRLCK))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Who holds the write lock on a file; 0 where the holder is in another PID namespace.
pub(crate) fn lock_holder(file: &File) -> io::Result<Option<i32>> {
    let mut query = whole_file(libc::F_WRLCK);
    fcntl(file, FcntlArg::F_GETLK(&mut query))?;
    Ok((i32::from(query.l_type) != libc::F_UNLCK).then_some(query.l_pid))
}

/// What a record file says.
#[derive(Debug)]
pub(crate) struct Found {
    /// The newest complete record; `None` where there is none.
    pub(crate) record: Option<Record>,
    /// There is no complete record, though something has been written: what the job did is not known.
    pub(crate) damaged: bool,
    /// The PID of the live monitor.
    pub(crate) monitor: Option<i32>,
    /// The leader's word that no program was executed.
    pub(crate) last_word: Option<SpawnFailure>,
}

/// Reads the record in a job's directory; `Ok(None)` where there is no such file.
pub(crate) fn read(directory: BorrowedFd<'_>) -> io::Result<Option<Found>> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file: OwnedFd = match openat(directory, FILE, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::ENOENT) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let file = File::from(file);
    // The lock first: a monitor that ends in between has written its last record before it let go.
    let monitor = lock_holder(&file)?;
    let slots = [read_slot(&file, 0), read_slot(&file, SLOT)];
    let is_damaged = slots.iter().any(|slot| matches!(slot, Slot::Damaged));
    let record = newest(slots).map(|(_, record)| record);
    Ok(Some(Found {
        damaged: record.is_none() && is_damaged,
        record,
        monitor,
        last_word: read_last_word(&file),
    }))
}

/// What a slot holds.
enum Slot {
    /// Nothing was ever written to it.
    Empty,
    /// A record that is whole, and its sequence number.
    Whole(u64, Box<Record>),
    /// Something else.
    Damaged,
}

fn newest(slots: [Slot; 2]) -> Option<(u64, Record)> {
    let whole = slots.into_iter().filter_map(|slot| match slot {
        Slot::Whole(sequence, record) => Some((sequence, *record)),
        Slot::Empty | Slot::Damaged => None,
    });
    whole.max_by_key(|(sequence, _)| *sequence)
}

fn read_slot(file: &File, offset: u64) -> Slot {
    let Some(slot) = read_area(file, offset, SLOT) else {
        return Slot::Damaged;
    };
    if slot.iter().all(|byte| *byte == 0) {
        return Slot::Empty;
    }
    match decode_slot(&slot) {
        Some((sequence, record)) => Slot::Whole(sequence, Box::new(record)),
        None => Slot::Damaged,
    }
}

fn read_last_word(file: &File) -> Option<SpawnFailure> {
    let area = read_area(file, 2 * SLOT, LAST_WORD)?;
    decode_slot(&area).map(|(_, failure)| failure)
}

/// A part of the file, filled up with zeroes; `None` where it cannot be read.
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
pub(crate) fn parse_slot(slot: &[u8]) -> Option<(u64, Record)> {
    decode_slot(slot)
}

fn decode_slot<T: DeserializeOwned>(slot: &[u8]) -> Option<(u64, T)> {
    if slot.get(..4)? != MAGIC {
        return None;
    }
    let length = usize::try_from(u32::from_le_bytes(slot.get(4..8)?.try_into().ok()?)).ok()?;
    let sequence = u64::from_le_bytes(slot.get(8..16)?.try_into().ok()?);
    let sum = u32::from_le_bytes(slot.get(16..20)?.try_into().ok()?);
    let payload = slot.get(HEADER..HEADER.checked_add(length)?)?;
    (checksum(sequence, payload) == sum).then_some(())?;
    Some((sequence, wire::decode(payload).ok()?))
}

/// Puts a damaged record aside, under a name that no reader looks for.
pub(crate) fn quarantine(jobs: BorrowedFd<'_>, job: JobId) -> io::Result<()> {
    let directory = open_directory(jobs, job)?;
    nix::fcntl::renameat(&directory, FILE, &directory, DAMAGED)?;
    Ok(())
}

/// Removes what was put aside in a job's directory.
pub(crate) fn remove_damaged(directory: &OwnedFd) -> io::Result<()> {
    use nix::unistd::{UnlinkatFlags, unlinkat};
    match unlinkat(directory.as_fd(), DAMAGED, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Opens a job's directory beneath `jobs`, without following links.
pub(crate) fn open_directory(jobs: BorrowedFd<'_>, job: JobId) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(openat(
        jobs,
        job.to_string().as_str(),
        flags,
        Mode::empty(),
    )?)
}

/// Makes a job's directory beneath `jobs` and opens it.
pub(crate) fn create_directory(jobs: BorrowedFd<'_>, job: JobId) -> io::Result<OwnedFd> {
    nix::sys::stat::mkdirat(
        jobs,
        job.to_string().as_str(),
        Mode::from_bits_truncate(0o700),
    )?;
    open_directory(jobs, job)
}

/// Is there a record, a socket or an empty directory, as a job that is over does not have?
pub(crate) fn is_untidy(jobs: BorrowedFd<'_>, job: JobId) -> bool {
    use nix::fcntl::AtFlags;
    use nix::sys::stat::fstatat;
    let Ok(directory) = open_directory(jobs, job) else {
        return false;
    };
    let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
    if [FILE, CONTROL_SOCKET]
        .into_iter()
        .any(|name| fstatat(&directory, name, flags).is_ok())
    {
        return true;
    }
    nix::dir::Dir::from_fd(directory).is_ok_and(|mut entries| entries.iter().flatten().count() == 2)
}

/// Makes sure that a launch whose monitor is dead never executes a program, and removes what it left.
/// `false` where that is not so: its monitor lives, or its leader may have executed one.
///
/// Whoever holds the lock decides: a monitor that comes late finds it held, or its file without a name.
pub(crate) fn discard(jobs: BorrowedFd<'_>, job: JobId) -> io::Result<bool> {
    use nix::unistd::{UnlinkatFlags, unlinkat};
    let directory = match open_directory(jobs, job) {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    };
    let flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let _lock = match openat(&directory, FILE, flags, Mode::empty()) {
        Ok(file) => {
            let file = File::from(file);
            if !lock(&file)? {
                return Ok(false);
            }
            // Read under the lock: no monitor lives, and a leader without one gives up.
            let slots = [read_slot(&file, 0), read_slot(&file, SLOT)];
            let is_empty = slots.iter().all(|slot| matches!(slot, Slot::Empty));
            if !is_empty && !read_last_word(&file).is_some_and(|word| is_orphaned(&word)) {
                return Ok(false);
            }
            unlinkat(directory.as_fd(), FILE, UnlinkatFlags::NoRemoveDir)?;
            Some(file)
        }
        Err(Errno::ENOENT) => None,
        Err(errno) => return Err(errno.into()),
    };
    match unlinkat(
        directory.as_fd(),
        CONTROL_SOCKET,
        UnlinkatFlags::NoRemoveDir,
    ) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    match unlinkat(jobs, job.to_string().as_str(), UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        // A monitor has just made its record.
        Err(Errno::ENOTEMPTY | Errno::EEXIST) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Takes back a launch that failed, in its monitor: in the directory that it made, not in one that has
/// the same name by now.
pub(crate) fn abandon(jobs: BorrowedFd<'_>, job: JobId, directory: BorrowedFd<'_>) {
    use nix::fcntl::AtFlags;
    use nix::sys::stat::{fstat, fstatat};
    use nix::unistd::{UnlinkatFlags, unlinkat};
    let _ = unlinkat(directory, FILE, UnlinkatFlags::NoRemoveDir);
    let name = job.to_string();
    let inode = |stat: nix::Result<nix::sys::stat::FileStat>| stat.map(|stat| stat.st_ino).ok();
    let ours = inode(fstat(directory));
    if ours.is_some() && ours == inode(fstatat(jobs, name.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW)) {
        let _ = unlinkat(jobs, name.as_str(), UnlinkatFlags::RemoveDir);
    }
}

/// Removes the record, and the directory with it where nothing else is in it.
pub(crate) fn remove(jobs: BorrowedFd<'_>, job: JobId) -> io::Result<()> {
    use nix::unistd::{UnlinkatFlags, unlinkat};
    let directory = match open_directory(jobs, job) {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for name in [FILE, CONTROL_SOCKET] {
        match unlinkat(directory.as_fd(), name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    match unlinkat(jobs, job.to_string().as_str(), UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// The name of the socket that a monitor binds in the job's directory once its server is gone.
pub(crate) const CONTROL_SOCKET: &str = "control";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::job::life::Plan;
    use crate::job::spec::Spec;

    fn record(number: u32) -> Record {
        Record {
            job: JobId::generate(),
            attempt: number,
            boot_id: "b".into(),
            monitor: ProcessIdentity {
                pid: 7,
                start_ticks: 8,
            },
            leader: None,
            cgroup: None,
            life: Life::new(Plan::from(&Spec::default())),
            deadline_at: None,
            usage: None,
            output: OutputTotals::default(),
            survivors: Vec::new(),
            stdin_closed: false,
        }
    }

    fn directory() -> (tempfile::TempDir, File) {
        let directory = tempfile::tempdir().unwrap();
        let opened = File::open(directory.path()).unwrap();
        (directory, opened)
    }

    #[test]
    fn the_newest_record_is_read() {
        let (_keep, directory) = directory();
        assert!(read(directory.as_fd()).unwrap().is_none());
        let mut writer = Writer::create(directory.as_fd()).unwrap();
        assert!(read(directory.as_fd()).unwrap().unwrap().record.is_none());
        for number in 1..=5 {
            writer.write(&record(number)).unwrap();
        }
        assert_eq!(
            read(directory.as_fd())
                .unwrap()
                .unwrap()
                .record
                .unwrap()
                .attempt,
            5
        );
    }

    #[test]
    fn what_is_no_record_counts_as_damaged_and_nothing_as_nothing() {
        let (keep, directory) = directory();
        let _writer = Writer::create(directory.as_fd()).unwrap();
        assert!(!read(directory.as_fd()).unwrap().unwrap().damaged);
        std::fs::write(keep.path().join(FILE), b"PrRc garbage").unwrap();
        let found = read(directory.as_fd()).unwrap().unwrap();
        assert!(found.damaged && found.record.is_none());
    }

    proptest! {
        #[test]
        fn a_torn_write_leaves_the_record_before_it(cut in 0_usize..400) {
            let (keep, directory) = directory();
            let mut writer = Writer::create(directory.as_fd()).unwrap();
            writer.write(&record(1)).unwrap();
            writer.write(&record(2)).unwrap();
            let path = keep.path().join(FILE);
            let before = std::fs::read(&path).unwrap();
            writer.write(&record(3)).unwrap();
            let after = std::fs::read(&path).unwrap();
            // The third record went into the slot of the first: tear it after `cut` bytes.
            let slot = usize::try_from(SLOT).unwrap();
            let mut torn = before;
            let end = (slot + cut).min(after.len());
            torn[slot..end].copy_from_slice(&after[slot..end]);
            std::fs::write(&path, torn).unwrap();
            let found = read(directory.as_fd()).unwrap().unwrap().record.unwrap().attempt;
            prop_assert!(found == 2 || found == 3);
            if cut < HEADER {
                prop_assert_eq!(found, 2);
            }
        }
    }
}
