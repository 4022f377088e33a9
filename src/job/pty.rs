//! The terminal of a job: how large it is and what it calls itself. What a terminal does is the kernel's.

use serde::{Deserialize, Serialize};

/// The most rows or columns. The kernel takes more; programs allocate for every cell.
pub const SIZE_MAX: u16 = 4096;

/// How many characters a terminal shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters of a line.
    pub cols: u16,
}

/// A terminal that a job gets as its controlling one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pty {
    /// Lines at the start.
    pub rows: u16,
    /// Characters of a line at the start.
    pub cols: u16,
    /// What `TERM` says, where the job's own variables do not.
    pub term: String,
}

impl Pty {
    /// Its size at the start.
    #[must_use]
    pub fn size(&self) -> Size {
        Size {
            rows: self.rows,
            cols: self.cols,
        }
    }
}

impl Default for Pty {
    /// What every terminal was once.
    fn default() -> Self {
        Self {
            rows: 24,
            cols: 80,
            term: "xterm-256color".to_owned(),
        }
    }
}
