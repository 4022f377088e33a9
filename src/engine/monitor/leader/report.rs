//! What a leader says to its monitor, in a few bytes of fixed layout: it cannot allocate.

use job::outcome::Stage;
use job::time::Timestamp;
use linux::procfs::ProcessIdentity;
use protocol::record::LeaderNote;

/// How many bytes a report has.
pub(super) const LENGTH: usize = 32;

/// One report; the last one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// About to execute a program. The end of the pipe right after it means that it worked.
    Executing {
        note: LeaderNote,
        /// Which of the plan's programs.
        program: u32,
    },
    /// A step failed.
    Failed(FailedStep),
}

/// Which step failed, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FailedStep {
    pub(super) stage: Stage,
    pub(super) errno: i32,
    pub(super) on: On,
}

/// What a step failed on, as far as its stage does not say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum On {
    Stage,
    /// The nth of the plan's limits.
    Limit(u32),
    Null,
    Terminal,
    Filter,
    /// The nth of the plan's programs.
    Program(u32),
    /// That, and nothing has its name.
    NoProgram(u32),
    Directory(u32),
    /// No program was found anywhere.
    Nowhere,
    Pipe,
}

impl On {
    fn numbers(self) -> (u32, u32) {
        match self {
            Self::Stage => (0, 0),
            Self::Limit(index) => (1, index),
            Self::Null => (2, 0),
            Self::Terminal => (3, 0),
            Self::Filter => (4, 0),
            Self::Program(index) => (5, index),
            Self::NoProgram(index) => (6, index),
            Self::Directory(index) => (7, index),
            Self::Nowhere => (8, 0),
            Self::Pipe => (9, 0),
        }
    }

    fn from_numbers(kind: u32, index: u32) -> Option<Self> {
        Some(match kind {
            0 => Self::Stage,
            1 => Self::Limit(index),
            2 => Self::Null,
            3 => Self::Terminal,
            4 => Self::Filter,
            5 => Self::Program(index),
            6 => Self::NoProgram(index),
            7 => Self::Directory(index),
            8 => Self::Nowhere,
            9 => Self::Pipe,
            _ => return None,
        })
    }
}

impl Report {
    pub(super) fn to_bytes(self) -> [u8; LENGTH] {
        match self {
            Self::Executing { note, program } => pack(
                [
                    0,
                    u32::from_ne_bytes(note.identity.pid.to_ne_bytes()),
                    program,
                    0,
                ],
                note.identity.start_ticks,
                note.started_at.as_micros(),
            ),
            Self::Failed(FailedStep { stage, errno, on }) => {
                let (kind, index) = on.numbers();
                let errno = u32::from_ne_bytes(errno.to_ne_bytes());
                pack([1, stage.number(), errno, kind], u64::from(index), 0)
            }
        }
    }

    /// The last report of all that was said.
    pub(super) fn last_of(said: &[u8]) -> Option<Self> {
        Self::from_bytes(said.chunks_exact(LENGTH).last()?)
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (kind, bytes) = bytes.split_first_chunk()?;
        let (first, bytes) = bytes.split_first_chunk()?;
        let (second, bytes) = bytes.split_first_chunk()?;
        let (third, bytes) = bytes.split_first_chunk()?;
        let (fourth, bytes) = bytes.split_first_chunk()?;
        let (fifth, _) = bytes.split_first_chunk()?;
        let fourth = u64::from_le_bytes(*fourth);
        match u32::from_le_bytes(*kind) {
            0 => Some(Self::Executing {
                note: LeaderNote {
                    identity: ProcessIdentity {
                        pid: i32::from_le_bytes(*first),
                        start_ticks: fourth,
                    },
                    started_at: Timestamp::from_micros(i64::from_le_bytes(*fifth)),
                },
                program: u32::from_le_bytes(*second),
            }),
            1 => Some(Self::Failed(FailedStep {
                stage: Stage::from_number(u32::from_le_bytes(*first))?,
                errno: i32::from_le_bytes(*second),
                on: On::from_numbers(u32::from_le_bytes(*third), u32::try_from(fourth).ok()?)?,
            })),
            _ => None,
        }
    }
}

fn pack(small: [u32; 4], unsigned: u64, signed: i64) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    let (words, rest) = bytes.split_at_mut(16);
    for (place, word) in words.chunks_exact_mut(4).zip(small) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    let (first, second) = rest.split_at_mut(8);
    first.copy_from_slice(&unsigned.to_le_bytes());
    second.copy_from_slice(&signed.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_report_says_what_was_reported(
            pid in any::<i32>(), start_ticks in any::<u64>(), micros in any::<i64>(), program in any::<u32>(),
        ) {
            let note = LeaderNote {
                identity: ProcessIdentity { pid, start_ticks },
                started_at: Timestamp::from_micros(micros),
            };
            let report = Report::Executing { note, program };
            prop_assert_eq!(Report::last_of(&report.to_bytes()), Some(report));
        }

        #[test]
        fn a_failure_says_what_failed(errno in any::<i32>(), kind in 0_u32..10, index in any::<u32>()) {
            let on = On::from_numbers(kind, index).unwrap();
            for stage in Stage::ALL {
                let report = Report::Failed(FailedStep { stage, errno, on });
                prop_assert_eq!(Report::last_of(&report.to_bytes()), Some(report));
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Report::last_of(&bytes);
        }
    }

    #[test]
    fn the_last_report_counts() {
        let failed = |errno| {
            Report::Failed(FailedStep {
                stage: Stage::Exec,
                errno,
                on: On::Nowhere,
            })
        };
        let said = [failed(1).to_bytes(), failed(2).to_bytes()].concat();
        assert_eq!(Report::last_of(&said), Some(failed(2)));
        assert_eq!(Report::last_of(&[]), None);
    }
}
