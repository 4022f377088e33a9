//! What is written into the record's file beside its slots, each in its own place: who the leader is, its last
//! word, and the progress of standard input.
//!
//! A leader shares its monitor's memory when it writes its notes, so that making them neither allocates nor waits.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::Leader;
use super::slots::{LENGTH, NOTES, checksum};
use job::JobId;
use job::outcome::{SpawnFailure, Stage};
use job::time::Timestamp;
use linux::procfs::ProcessIdentity;

/// The room for a leader's note.
const ROOM: usize = 32;

/// Where a leader says who it is.
pub const LEADER_NOTE: u64 = NOTES;
/// Where it says that no program was executed.
pub const LAST_WORD: u64 = NOTES + 32;
/// Where the progress of standard input is noted: 16 bytes.
const INPUT_NOTE: u64 = LENGTH - 16;

const LEADER_MAGIC: [u8; 4] = *b"PrLd";
const WORD_MAGIC: [u8; 4] = *b"PrLw";

/// Whose leader it is that leaves a note: the file may have been that of another job before. Never 0, which is in notes of
/// earlier versions.
pub fn tag_of(job: JobId) -> u32 {
    checksum(0, job.as_bytes()).max(1)
}

/// A leader, by itself. It is there before a program is executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderNote {
    pub identity: ProcessIdentity,
    pub started_at: Timestamp,
}

impl LeaderNote {
    /// As it stands in the file of the job with this tag: see [`tag_of`].
    pub fn to_bytes(self, tag: u32) -> [u8; ROOM] {
        let mut note = [0; ROOM];
        let (magic, rest) = note.split_at_mut(4);
        let (pid, rest) = rest.split_at_mut(4);
        let (ticks, rest) = rest.split_at_mut(8);
        let (micros, rest) = rest.split_at_mut(8);
        let (whose, _) = rest.split_at_mut(4);
        magic.copy_from_slice(&LEADER_MAGIC);
        pid.copy_from_slice(&self.identity.pid.to_le_bytes());
        ticks.copy_from_slice(&self.identity.start_ticks.to_le_bytes());
        micros.copy_from_slice(&self.started_at.as_micros().to_le_bytes());
        whose.copy_from_slice(&tag.to_le_bytes());
        signed(note)
    }

    /// The note and its tag.
    pub fn from_bytes(note: [u8; ROOM]) -> Option<(Self, u32)> {
        let rest = checked(&note, LEADER_MAGIC)?;
        let (pid, rest) = rest.split_first_chunk()?;
        let (ticks, rest) = rest.split_first_chunk()?;
        let (micros, rest) = rest.split_first_chunk()?;
        let (tag, _) = rest.split_first_chunk()?;
        let note = Self {
            identity: ProcessIdentity {
                pid: i32::from_le_bytes(*pid),
                start_ticks: u64::from_le_bytes(*ticks),
            },
            started_at: Timestamp::from_micros(i64::from_le_bytes(*micros)),
        };
        Some((note, u32::from_le_bytes(*tag)))
    }

    /// What a record says of this leader until its monitor knows more.
    pub fn leader(self) -> Leader {
        Leader {
            identity: self.identity,
            started_at: self.started_at,
            executable: String::new(),
            sandbox: None,
        }
    }
}

/// A leader's word, for a rescuer, that it has executed nothing: when the monitor is dead, nobody hears it otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastWord {
    pub stage: Stage,
    pub errno: i32,
}

impl LastWord {
    pub fn to_bytes(self) -> [u8; ROOM] {
        let mut note = [0; ROOM];
        let (magic, rest) = note.split_at_mut(4);
        let (stage, rest) = rest.split_at_mut(4);
        let (errno, _) = rest.split_at_mut(4);
        magic.copy_from_slice(&WORD_MAGIC);
        stage.copy_from_slice(&self.stage.number().to_le_bytes());
        errno.copy_from_slice(&self.errno.to_le_bytes());
        signed(note)
    }

    pub fn from_bytes(note: [u8; ROOM]) -> Option<Self> {
        let rest = checked(&note, WORD_MAGIC)?;
        let (stage, rest) = rest.split_first_chunk()?;
        let (errno, _) = rest.split_first_chunk()?;
        Some(Self {
            stage: Stage::from_number(u32::from_le_bytes(*stage))?,
            errno: i32::from_le_bytes(*errno),
        })
    }

    /// What was meant, without what it happened on: the word has no room for that.
    pub fn failure(self) -> SpawnFailure {
        let errno = nix::errno::Errno::from_raw(self.errno);
        SpawnFailure {
            stage: self.stage,
            errno: self.errno,
            message: format!(
                "failed to {}: {} ({errno:?})",
                self.stage.describe(),
                errno.desc()
            ),
        }
    }
}

/// A note with its checksum in the last four bytes.
fn signed(mut note: [u8; ROOM]) -> [u8; ROOM] {
    if let Some((content, sum)) = note.split_last_chunk_mut::<4>() {
        *sum = checksum(0, content).to_le_bytes();
    }
    note
}

/// What follows the magic, where that and the checksum are right.
fn checked(note: &[u8; ROOM], magic: [u8; 4]) -> Option<&[u8]> {
    let (content, sum) = note.split_last_chunk::<4>()?;
    (checksum(0, content) == u32::from_le_bytes(*sum)).then_some(())?;
    content.strip_prefix(&magic)
}

/// What there is instead of a leader's note.
pub(super) enum Noted {
    /// No leader has come so far.
    Nothing,
    Leader(LeaderNote),
    /// Something else.
    Damaged,
}

/// Reads who the job's leader is.
pub(super) fn read_leader(file: &File, job: JobId) -> Noted {
    match read_note(file, LEADER_NOTE) {
        None => Noted::Damaged,
        Some(note) if note == [0; ROOM] => Noted::Nothing,
        Some(note) => match LeaderNote::from_bytes(note) {
            Some((note, tag)) if tag == 0 || tag == tag_of(job) => Noted::Leader(note),
            Some(_) => Noted::Nothing,
            None => Noted::Damaged,
        },
    }
}

/// Reads what the leader said last.
pub(super) fn read_last_word(file: &File) -> Option<SpawnFailure> {
    let word = LastWord::from_bytes(read_note(file, LAST_WORD)?)?;
    Some(word.failure())
}

/// A file that ends before it has no note.
fn read_note(file: &File, offset: u64) -> Option<[u8; ROOM]> {
    let mut note = [0; ROOM];
    match file.read_exact_at(&mut note, offset) {
        Ok(()) => Some(note),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Some([0; ROOM]),
        Err(_) => None,
    }
}

/// Notes how many bytes of standard input have been written, and how many are about to be.
pub(super) fn write_input(file: &File, written: u64, pending: u64) -> io::Result<()> {
    let mut note = [0; 16];
    let (first, second) = note.split_at_mut(8);
    first.copy_from_slice(&written.to_le_bytes());
    second.copy_from_slice(&pending.to_le_bytes());
    file.write_all_at(&note, INPUT_NOTE)
}

/// How many bytes of standard input have been written; `None` if nobody knows.
pub(super) fn read_input(file: &File) -> Option<u64> {
    let mut note = [0; 16];
    file.read_exact_at(&mut note, INPUT_NOTE).ok()?;
    let (written, pending) = note.split_first_chunk::<8>()?;
    (pending == [0; 8]).then(|| u64::from_le_bytes(*written))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn note(pid: i32, start_ticks: u64, micros: i64) -> LeaderNote {
        LeaderNote {
            identity: ProcessIdentity { pid, start_ticks },
            started_at: Timestamp::from_micros(micros),
        }
    }

    proptest! {
        #[test]
        fn a_note_says_what_was_noted(pid in any::<i32>(), ticks in any::<u64>(), micros in any::<i64>(), tag in any::<u32>()) {
            let note = note(pid, ticks, micros);
            prop_assert_eq!(LeaderNote::from_bytes(note.to_bytes(tag)), Some((note, tag)));
            prop_assert_eq!(LastWord::from_bytes(note.to_bytes(tag)), None);
        }

        #[test]
        fn a_changed_byte_makes_it_nothing(place in 0..ROOM, change in 1_u8..) {
            let mut bytes = note(2, 3, 4).to_bytes(5);
            bytes[place] ^= change;
            prop_assert_eq!(LeaderNote::from_bytes(bytes), None);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in any::<[u8; ROOM]>()) {
            let _ = LeaderNote::from_bytes(bytes);
            let _ = LastWord::from_bytes(bytes);
        }
    }

    #[test]
    fn a_word_says_the_stage_and_the_error() {
        for stage in Stage::ALL {
            let word = LastWord { stage, errno: 13 };
            assert_eq!(LastWord::from_bytes(word.to_bytes()), Some(word));
        }
        let word = LastWord {
            stage: Stage::Cwd,
            errno: 13,
        };
        assert_eq!(
            word.failure().message,
            "failed to change to the working directory: Permission denied (EACCES)"
        );
    }
}
