//! Segment files by name: how they are called, opened, listed and removed beneath a job's directory.
//!
//! Names are made from numbers alone, and no link is followed. It must not know what is in the files.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

/// Which of the two files of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Index,
    Log,
}

impl Part {
    fn suffix(self) -> &'static str {
        match self {
            Self::Index => "idx",
            Self::Log => "log",
        }
    }
}

fn name(first: u64, part: Part) -> String {
    format!("{first:020}.{}", part.suffix())
}

fn parse(name: &[u8]) -> Option<(u64, Part)> {
    let (number, suffix) = std::str::from_utf8(name).ok()?.split_once('.')?;
    let canonical = number.len() == 20 && number.bytes().all(|byte| byte.is_ascii_digit());
    let part = match suffix {
        "idx" => Part::Index,
        "log" => Part::Log,
        _ => return None,
    };
    let first = if canonical { number.parse().ok() } else { None };
    Some((first?, part))
}

/// Opens a file of a segment; `None` if it does not exist.
pub(super) fn open(
    dir: impl AsFd,
    first: u64,
    part: Part,
    flags: OFlag,
) -> io::Result<Option<File>> {
    let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    match openat(dir, name(first, part).as_str(), flags, mode) {
        Ok(fd) => Ok(Some(File::from(fd))),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Every file of a segment in the directory, in the order of their offsets.
pub(super) fn list(dir: impl AsFd) -> io::Result<Vec<(u64, Part)>> {
    // Its own description: two listings must not share a position.
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut dir = Dir::openat(dir, ".", flags, Mode::empty())?;
    let mut found = Vec::new();
    for entry in dir.iter() {
        found.extend(parse(entry?.file_name().to_bytes()));
    }
    found.sort_unstable_by_key(|(first, _)| *first);
    Ok(found)
}

/// The first offsets of all segments that have an index.
pub(super) fn indexes(dir: impl AsFd) -> io::Result<Vec<u64>> {
    let files = list(dir)?.into_iter();
    Ok(files
        .filter(|(_, part)| *part == Part::Index)
        .map(|(first, _)| first)
        .collect())
}

/// Unlinks both files of a segment, the index first: a log without an index is litter, but an index
/// without its log would promise bytes.
pub(super) fn unlink(dir: impl AsFd, first: u64) -> io::Result<()> {
    unlink_part(&dir, first, Part::Index)?;
    unlink_part(&dir, first, Part::Log)
}

/// Unlinks one file of a segment, which need not exist.
pub(super) fn unlink_part(dir: impl AsFd, first: u64, part: Part) -> io::Result<()> {
    match unlinkat(dir, name(first, part).as_str(), UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Unlinks every segment file in a job's directory and leaves everything else there.
pub(super) fn remove(dir: impl AsFd) -> io::Result<()> {
    for (first, part) in list(&dir)? {
        unlink_part(&dir, first, part)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_names_are_segments() {
        for first in [0, 7, u64::MAX] {
            for part in [Part::Index, Part::Log] {
                assert_eq!(parse(name(first, part).as_bytes()), Some((first, part)));
            }
        }
        for other in [
            "exit",
            "1.idx",
            "+0000000000000000001.log",
            "00000000000000000001.idx.log",
            "99999999999999999999.log",
            "00000000000000000001.txt",
            ".",
        ] {
            assert_eq!(parse(other.as_bytes()), None, "{other}");
        }
    }
}
