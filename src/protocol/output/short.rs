//! Short output as one value: what the two files of a log hold that has one segment, for whoever keeps it in another place.

use std::io;

use serde::{Deserialize, Serialize};

/// The most bytes of both files: what the smallest of files takes on most disks.
pub const SHORT: u64 = 4096;

/// The whole output of a job, if it is short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Short {
    #[serde(with = "serde_bytes")]
    pub(super) index: Vec<u8>,
    #[serde(with = "serde_bytes")]
    pub(super) log: Vec<u8>,
}

impl Short {
    /// As it is kept: the length of the index in four bytes, little-endian, and both.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.index.len()).unwrap_or_default();
        [&length.to_le_bytes(), &*self.index, &*self.log].concat()
    }

    /// What [`Short::to_bytes`] has made.
    ///
    /// # Errors
    /// If it is something else.
    pub fn from_bytes(bytes: &[u8]) -> io::Result<Self> {
        let split = bytes.split_first_chunk().and_then(|(length, rest)| {
            let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
            rest.split_at_checked(length)
        });
        let (index, log) = split.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "it ends before its index does")
        })?;
        Ok(Self {
            index: index.to_vec(),
            log: log.to_vec(),
        })
    }
}
