//! One of the two files of a segment, on a disk or in memory.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use nix::fcntl::OFlag;

use super::Source;
use crate::output::Short;
use crate::output::segment::{self, Part};

/// What one file of a segment holds.
#[derive(Debug)]
pub(super) enum Held {
    File(File),
    Memory(Arc<Short>, Part),
}

impl Held {
    /// A file of the segment with this first offset; `None` if it does not exist.
    pub(super) fn open(source: &Source, first: u64, part: Part) -> io::Result<Option<Self>> {
        match source {
            Source::Nothing => Ok(None),
            Source::Directory(dir) => {
                let file = segment::open(dir, first, part, OFlag::O_RDONLY)?;
                Ok(file.map(Self::File))
            }
            Source::Memory(short) => Ok((first == 0).then(|| Self::Memory(short.clone(), part))),
        }
    }

    fn bytes(short: &Short, part: Part) -> &[u8] {
        match part {
            Part::Index => &short.index,
            Part::Log => &short.log,
        }
    }

    pub(super) fn len(&self) -> io::Result<u64> {
        match self {
            Self::File(file) => Ok(file.metadata()?.len()),
            Self::Memory(short, part) => Ok(super::length(Self::bytes(short, *part))),
        }
    }

    pub(super) fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Self::File(file) => file.read_exact_at(buffer, offset),
            Self::Memory(..) => {
                let bytes = self.read(offset, buffer.len())?;
                if bytes.len() < buffer.len() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                buffer.copy_from_slice(&bytes);
                Ok(())
            }
        }
    }

    /// At most so many bytes from there on.
    pub(super) fn read(&self, offset: u64, most: usize) -> io::Result<Vec<u8>> {
        match self {
            Self::File(file) => {
                let mut file = file;
                // Not pread: that would need a buffer of zeroes first.
                file.seek(SeekFrom::Start(offset))?;
                let mut bytes = Vec::with_capacity(most);
                file.take(u64::try_from(most).map_err(io::Error::other)?)
                    .read_to_end(&mut bytes)?;
                Ok(bytes)
            }
            Self::Memory(short, part) => {
                let from = usize::try_from(offset).map_err(io::Error::other)?;
                let bytes = Self::bytes(short, *part).get(from..).unwrap_or_default();
                Ok(bytes.get(..most).unwrap_or(bytes).to_vec())
            }
        }
    }
}
