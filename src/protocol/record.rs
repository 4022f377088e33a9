//! The record in a job's directory: what its monitor knows, and proof that the monitor lives.
//!
//! One file, two slots of fixed size, both allocated when the file is made, so that the exit is still
//! recorded on a full disk. Each write goes to the slot that does not hold the newest record and carries
//! a checksum: whenever the writer is killed, one slot holds a complete record. The monitor holds a POSIX
//! record lock (fcntl(2) `F_SETLK`) on the file for as long as it lives; fork(2) does not inherit it, and
//! `F_GETLK` names its holder, so liveness never hangs on a process number read from disk.
//!
//! Making and removing such a file costs as much as a short job's program, so one may be used again (`spare`). What another job
//! has left in it counts as nothing: a record names its job, and a leader's note has a tag.

mod directory;
mod lock;
mod notes;
mod slots;
mod spare;

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, posix_fallocate};
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};

use crate::output::Short;
use crate::state_dir::boot_of;
pub use directory::{
    CONTROL_SOCKET, abandon, create_directory, discard, is_untidy, open_directory, quarantine,
    remove, remove_damaged, reopen_directory,
};
use job::life::Life;
use job::outcome::{SpawnFailure, Stage};
use job::sandbox::InForce;
use job::time::Timestamp;
use job::{JobId, OutputTotals, Survivor, Usage};
use linux::failpoint;
use linux::procfs::{self, ProcessIdentity};
pub use lock::{lock, lock_holder};
use notes::Noted;
pub use notes::{LAST_WORD, LEADER_NOTE, LastWord, LeaderNote, tag_of};
use slots::{LENGTH, SLOT, Slot, frame, newest, read_slot};
pub use slots::{parse_slot, sealed, warm_up};
pub use spare::{open_to_read, remove_over, remove_spares, set_aside, take_spare};

/// The file's name in the job's directory.
const FILE: &str = "record";

/// The leader once it exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    pub identity: ProcessIdentity,
    pub started_at: Timestamp,
    /// The file that was executed.
    pub executable: String,
    #[serde(default)]
    pub sandbox: Option<InForce>,
}

/// What a monitor knows of its job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub job: JobId,
    pub attempt: u32,
    /// The boot id, or an epoch: see [`boot_of`].
    pub boot_id: String,
    pub monitor: ProcessIdentity,
    pub leader: Option<Leader>,
    /// The job's cgroup as a path beneath the cgroup mount.
    pub cgroup: Option<String>,
    pub life: Life,
    /// The wall-clock time of the timeout, while one is armed.
    pub deadline_at: Option<Timestamp>,
    pub usage: Option<Usage>,
    /// What the monitor's earlier jobs had used, in user mode and in the kernel, in microseconds.
    #[serde(default)]
    pub used_before: (u64, u64),
    pub output: OutputTotals,
    pub survivors: Vec<Survivor>,
    /// A standard input that was open is closed.
    #[serde(default)]
    pub stdin_closed: bool,
    /// The inodes of the pipes that the job's output comes through.
    #[serde(default)]
    pub pipes: Vec<u64>,
    /// The job's processes are not beneath its monitor, which took another's place.
    #[serde(default)]
    pub rescued: bool,
    /// Those of them that bear no trace of the job.
    #[serde(default)]
    pub strays: Vec<ProcessIdentity>,
    /// Written ahead for the leader, which is still to come: it counts from the leader's note on. Without that
    /// no program was executed, and there is no record.
    #[serde(default)]
    pub is_ahead: bool,
    /// Why output cannot be written down at the moment, as an errno; the job waits once its pipes are full.
    #[serde(default)]
    pub output_refused: Option<i32>,
    /// The log is full, and the job has waited for more than a moment until it is read.
    #[serde(default)]
    pub output_waits: bool,
    /// All of its output, once the job has ended, if that is short. Its files are not synced then.
    #[serde(default)]
    pub short: Option<Box<Short>>,
}

/// The writing side, in the monitor.
#[derive(Debug)]
pub struct Writer {
    file: File,
    sequence: u64,
}

impl Writer {
    /// Makes the file, allocates both slots and takes the lock.
    pub fn create(directory: BorrowedFd<'_>) -> io::Result<Self> {
        let flags =
            OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = File::from(openat(
            directory,
            FILE,
            flags,
            Mode::from_bits_truncate(0o600),
        )?);
        posix_fallocate(&file, 0, i64::try_from(LENGTH).unwrap_or(i64::MAX))?;
        if !lock(&file)? {
            return Err(io::Error::from(Errno::EAGAIN));
        }
        Self::begin(file)
    }

    /// Begins a record in a file that is locked.
    fn begin(file: File) -> io::Result<Self> {
        // A server that took this launch for dead has discarded it, and launches the job again.
        if nix::sys::stat::fstat(&file)?.st_nlink == 0 {
            return Err(io::Error::from(Errno::ESTALE));
        }
        Ok(Self { file, sequence: 0 })
    }

    /// Goes on with the file of a monitor that is dead: takes the lock and returns its last record.
    pub fn resume(directory: BorrowedFd<'_>, job: JobId) -> io::Result<(Self, Record)> {
        let flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = File::from(openat(directory, FILE, flags, Mode::empty())?);
        if !lock(&file)? {
            return Err(io::Error::from(Errno::EAGAIN));
        }
        let (sequence, record) = read_record(&file, job)
            .record
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok((Self { file, sequence }, record))
    }

    /// Writes the record into the older slot.
    pub fn write(&mut self, record: &Record) -> io::Result<()> {
        // Where it has no room nothing is written, and the next one does not go to the slot of the newest.
        let bytes = frame(self.sequence + 1, record)?;
        self.sequence += 1;
        failpoint::fail("record.writing")?;
        self.file.write_all_at(&bytes, (self.sequence % 2) * SLOT)
    }

    /// Notes how many bytes of standard input have been written, and how many are about to be. It has a
    /// place of its own, since it changes with every packet.
    pub fn note_input(&self, written: u64, pending: u64) -> io::Result<()> {
        notes::write_input(&self.file, written, pending)
    }

    /// How many bytes of standard input the monitor before this one has written; `None` if it was
    /// killed between its note and the write, or after it: nobody knows which.
    pub fn noted_input(&self) -> Option<u64> {
        notes::read_input(&self.file)
    }

    /// What the leader said last.
    pub fn last_word(&self) -> Option<SpawnFailure> {
        notes::read_last_word(&self.file)
    }

    /// The file, which a leader keeps for its notes.
    pub fn file(&self) -> &File {
        &self.file
    }
}

/// The word with which a leader gives up because its monitor died before its note was there.
pub const ORPHANED: LastWord = LastWord {
    stage: Stage::Record,
    errno: nix::libc::ECHILD,
};

/// Is this the word of a leader that gave up because its monitor died? Then the job may be launched again.
pub fn is_orphaned(failure: &SpawnFailure) -> bool {
    failure.stage == ORPHANED.stage && failure.errno == ORPHANED.errno
}

/// What a record file says.
#[derive(Debug)]
pub struct Found {
    /// The newest complete record; `None` if there is none.
    pub record: Option<Record>,
    /// There is no complete record, though something has been written: what the job did is not known.
    pub damaged: bool,
    /// The PID of the live monitor.
    pub monitor: Option<i32>,
    /// The leader's word that no program was executed.
    pub last_word: Option<SpawnFailure>,
}

/// Reads the job's record in its directory; `Ok(None)` if there is no such file.
pub fn read(directory: BorrowedFd<'_>, job: JobId) -> io::Result<Option<Found>> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file: OwnedFd = match openat(directory, FILE, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::ENOENT) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let file = File::from(file);
    // The lock first: a monitor that ends in between has written its last record before it let go.
    let monitor = lock_holder(&file)?;
    let ReadRecord { record, is_damaged } = read_record(&file, job);
    Ok(Some(Found {
        damaged: record.is_none() && is_damaged,
        record: record.map(|(_, record)| record),
        monitor,
        last_word: notes::read_last_word(&file),
    }))
}

struct ReadRecord {
    /// The newest that counts, with its sequence number.
    record: Option<(u64, Record)>,
    is_damaged: bool,
}

fn read_record(file: &File, job: JobId) -> ReadRecord {
    // The note first: a record that comes later than it knows of the leader, or has its end.
    let note = notes::read_leader(file, job);
    let slots = [read_slot(file, 0, job), read_slot(file, SLOT, job)];
    let is_damaged =
        matches!(note, Noted::Damaged) || slots.iter().any(|slot| matches!(slot, Slot::Damaged));
    let record = newest(slots).and_then(|(sequence, mut record)| {
        // A leader that executed nothing is none of the job's processes.
        let has_failed = record.life.spawn_failure().is_some();
        if record.leader.is_none()
            && !has_failed
            && let Noted::Leader(note) = note
        {
            record.leader = Some(note.leader());
        }
        // Of what an earlier boot wrote, anything may be missing on the disk: there may have been a leader.
        let counts = !record.is_ahead
            || record.leader.is_some()
            || procfs::boot_id().is_ok_and(|boot_id| boot_id != boot_of(&record.boot_id));
        record.is_ahead = false;
        counts.then_some((sequence, record))
    });
    ReadRecord { record, is_damaged }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::fd::AsFd;

    use proptest::prelude::*;

    use super::slots::HEADER;
    use linux::clock;

    use super::*;
    use job::life::Plan;
    use job::spec::Spec;

    const JOB: JobId = JobId::from_bytes([7; 16]);

    pub(crate) fn record(number: u32) -> Record {
        Record {
            job: JOB,
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
            used_before: (0, 0),
            output: OutputTotals::default(),
            survivors: Vec::new(),
            stdin_closed: false,
            pipes: Vec::new(),
            rescued: false,
            strays: Vec::new(),
            is_ahead: false,
            output_refused: None,
            output_waits: false,
            short: None,
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
        assert!(read(directory.as_fd(), JOB).unwrap().is_none());
        let mut writer = Writer::create(directory.as_fd()).unwrap();
        assert!(
            read(directory.as_fd(), JOB)
                .unwrap()
                .unwrap()
                .record
                .is_none()
        );
        for number in 1..=5 {
            writer.write(&record(number)).unwrap();
        }
        assert_eq!(
            read(directory.as_fd(), JOB)
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
        assert!(!read(directory.as_fd(), JOB).unwrap().unwrap().damaged);
        std::fs::write(keep.path().join(FILE), b"PrRc garbage").unwrap();
        let found = read(directory.as_fd(), JOB).unwrap().unwrap();
        assert!(found.damaged && found.record.is_none());
    }

    #[test]
    fn a_record_without_room_leaves_the_newest_one_in_its_slot() {
        let (_keep, directory) = directory();
        let mut writer = Writer::create(directory.as_fd()).unwrap();
        let slot_of = |number: u32| {
            let file = openat(&directory, FILE, OFlag::O_RDONLY, Mode::empty()).unwrap();
            let file = File::from(file);
            let slots = [0, SLOT].map(|at| read_slot(&file, at, JOB));
            slots
                .into_iter()
                .position(|slot| matches!(slot, Slot::Whole(_, record) if record.attempt == number))
        };
        writer.write(&record(1)).unwrap();
        writer.write(&record(2)).unwrap();
        let newest = slot_of(2);
        let mut large = record(3);
        large.boot_id = "b".repeat(9000);
        assert!(writer.write(&large).is_err());
        writer.write(&record(3)).unwrap();
        assert_eq!(slot_of(2), newest);
        assert_ne!(slot_of(3), newest);
    }

    pub(crate) const LEADER: LeaderNote = LeaderNote {
        identity: ProcessIdentity {
            pid: 11,
            start_ticks: 12,
        },
        started_at: Timestamp::from_micros(13),
    };

    fn ahead(boot_id: String) -> Record {
        Record {
            is_ahead: true,
            boot_id,
            ..record(1)
        }
    }

    fn note(writer: &Writer, bytes: &[u8], offset: u64) {
        writer.file().write_all_at(bytes, offset).unwrap();
    }

    #[test]
    fn a_record_that_is_ahead_counts_from_the_leaders_note_on() {
        let (_keep, directory) = directory();
        let mut writer = Writer::create(directory.as_fd()).unwrap();
        let found = || read(directory.as_fd(), JOB).unwrap().unwrap();
        writer.write(&ahead(procfs::boot_id().unwrap())).unwrap();
        assert!(found().record.is_none() && !found().damaged);
        // Half of a note: a leader was there, and nobody knows what it did next.
        note(&writer, &LEADER.to_bytes(tag_of(JOB))[..16], LEADER_NOTE);
        assert!(found().record.is_none() && found().damaged);
        note(&writer, &LEADER.to_bytes(tag_of(JOB)), LEADER_NOTE);
        let leader = found().record.unwrap().leader.unwrap();
        assert_eq!(leader, LEADER.leader());
        assert!(!found().record.unwrap().is_ahead && !found().damaged);
        assert_eq!(found().last_word, None);
        note(&writer, &ORPHANED.to_bytes(), LAST_WORD);
        assert!(is_orphaned(&found().last_word.unwrap()));
    }

    #[test]
    fn a_record_that_is_ahead_of_an_earlier_boot_counts() {
        let (_keep, directory) = directory();
        let mut writer = Writer::create(directory.as_fd()).unwrap();
        writer.write(&ahead("another".to_owned())).unwrap();
        let found = read(directory.as_fd(), JOB).unwrap().unwrap();
        assert!(found.record.unwrap().leader.is_none());
    }

    #[test]
    fn a_leader_that_executed_nothing_is_no_process_of_the_job() {
        let (_keep, directory) = directory();
        let mut writer = Writer::create(directory.as_fd()).unwrap();
        note(&writer, &LEADER.to_bytes(tag_of(JOB)), LEADER_NOTE);
        let mut failed = record(1);
        let failure = ORPHANED.failure();
        let _ = failed
            .life
            .on(job::life::Event::SpawnFailed(failure), clock::now());
        writer.write(&failed).unwrap();
        let found = read(directory.as_fd(), JOB).unwrap().unwrap();
        assert!(found.record.unwrap().leader.is_none());
    }

    #[test]
    fn a_launch_is_discarded_where_no_leader_came() {
        for has_leader in [false, true] {
            let (keep, jobs) = directory();
            let job = JobId::generate();
            let directory = create_directory(jobs.as_fd(), job).unwrap();
            let mut writer = Writer::create(directory.as_fd()).unwrap();
            let mut record = ahead(procfs::boot_id().unwrap());
            record.job = job;
            writer.write(&record).unwrap();
            if has_leader {
                note(&writer, &LEADER.to_bytes(tag_of(job)), LEADER_NOTE);
            }
            drop(writer);
            assert_eq!(discard(jobs.as_fd(), job).unwrap(), !has_leader);
            assert_eq!(keep.path().join(job.to_string()).exists(), has_leader);
        }
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
            let found = read(directory.as_fd(), JOB).unwrap().unwrap().record.unwrap().attempt;
            prop_assert!(found == 2 || found == 3);
            if cut < HEADER {
                prop_assert_eq!(found, 2);
            }
        }
    }
}
