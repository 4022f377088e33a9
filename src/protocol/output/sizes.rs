//! The sizes that a job's terminal had, beside its output: so that a recording can be shown as it was seen.
//!
//! One file of records of 16 bytes, which only ever grows and is cut off where it gets long. What cannot be
//! written is left out: a recording without a size is better than a job that fails.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use job::pty::Size;
use job::time::Timestamp;

const FILE: &str = "sizes";

/// The length of a record: when, rows, columns, and four bytes for later.
const RECORD: usize = 16;

/// The most bytes: 65,536 changes.
const MOST: u64 = 1 << 20;

/// Notes that the terminal has this size from now on.
pub fn note(dir: impl AsFd, at: Timestamp, size: Size) -> io::Result<()> {
    let flags =
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_APPEND | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut file = File::from(openat(dir, FILE, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
    if file.metadata()?.len() >= MOST {
        return Ok(());
    }
    let mut record = [0; RECORD];
    record[..8].copy_from_slice(&at.as_micros().to_le_bytes());
    record[8..10].copy_from_slice(&size.rows.to_le_bytes());
    record[10..12].copy_from_slice(&size.cols.to_le_bytes());
    file.write_all(&record)
}

/// Every change that was noted, in the order of the changes; the size at the start is none of them.
pub fn read(dir: impl AsFd) -> io::Result<Vec<(Timestamp, Size)>> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = match openat(dir, FILE, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::ENOENT) => return Ok(Vec::new()),
        Err(errno) => return Err(errno.into()),
    };
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes)?;
    let (records, _) = bytes.as_chunks::<RECORD>();
    Ok(records.iter().filter_map(parse).collect())
}

fn parse(record: &[u8; RECORD]) -> Option<(Timestamp, Size)> {
    let at = i64::from_le_bytes(*record.first_chunk()?);
    let number = |from: usize| Some(u16::from_le_bytes(*record.get(from..)?.first_chunk()?));
    let size = Size {
        rows: number(8)?,
        cols: number(10)?,
    };
    Some((Timestamp::from_micros(at), size))
}

/// Unlinks the file, which need not exist.
pub(super) fn remove(dir: impl AsFd) -> io::Result<()> {
    match unlinkat(dir, FILE, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(rows: u16, cols: u16) -> Size {
        Size { rows, cols }
    }

    #[test]
    fn sizes_are_read_as_they_were_noted_and_half_a_record_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let dir = File::open(folder.path()).unwrap();
        assert_eq!(read(&dir).unwrap(), []);
        let noted = [
            (Timestamp::from_micros(7), size(24, 80)),
            (Timestamp::from_micros(8), size(4096, 1)),
        ];
        for (at, size) in noted {
            note(&dir, at, size).unwrap();
        }
        assert_eq!(read(&dir).unwrap(), noted);
        let path = folder.path().join(FILE);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..RECORD + 5]).unwrap();
        assert_eq!(read(&dir).unwrap(), noted[..1]);
        remove(&dir).unwrap();
        remove(&dir).unwrap();
        assert_eq!(read(&dir).unwrap(), []);
    }

    #[test]
    fn a_long_file_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let dir = File::open(folder.path()).unwrap();
        std::fs::write(
            folder.path().join(FILE),
            vec![0; usize::try_from(MOST).unwrap()],
        )
        .unwrap();
        note(&dir, Timestamp::from_micros(1), size(1, 1)).unwrap();
        let length = std::fs::metadata(folder.path().join(FILE)).unwrap().len();
        assert_eq!(length, MOST);
    }
}
