//! What is kept of a job's output.

use serde::{Deserialize, Serialize};

/// What happens when the kept output reaches `max_bytes`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnLimit {
    /// The oldest output makes room.
    #[default]
    DropOldest,
    /// What comes later is dropped.
    DropNewest,
    /// The job is stopped with the cause `output_limit`.
    StopJob,
    /// The job waits, as for the reader of a pipe, until those who follow its output have read some of it.
    Wait,
}

/// What is kept of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OutputPolicy {
    /// Standard error goes into standard output: the only way to an exact order between the two.
    pub merge_stderr: bool,
    /// The most that is kept on disk.
    pub max_bytes: u64,
    /// What happens then.
    pub on_limit: OnLimit,
}

impl Default for OutputPolicy {
    fn default() -> Self {
        Self {
            merge_stderr: false,
            max_bytes: 64 << 20,
            on_limit: OnLimit::default(),
        }
    }
}
