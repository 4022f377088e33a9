//! How a job's reads and writes are scheduled.

use serde::{Deserialize, Serialize};

/// A class of ioprio_set(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IoClass {
    /// Before all others; for a service that runs as root.
    Realtime,
    /// As programs usually are.
    #[default]
    BestEffort,
    /// When nobody else reads or writes.
    Idle,
}

/// The I/O priority of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoPriority {
    /// Its class.
    pub class: IoClass,
    /// Its place in the class, 0 to 7; lower comes first. Without a meaning for `idle`.
    pub level: u8,
}

impl IoPriority {
    /// The level of a job that names none.
    pub const LEVEL: u8 = 4;

    /// The number that the kernel has for it.
    #[must_use]
    pub fn number(self) -> u32 {
        let class = match self.class {
            IoClass::Realtime => 1,
            IoClass::BestEffort => 2,
            IoClass::Idle => 3,
        };
        class << 13 | u32::from(self.level)
    }
}
