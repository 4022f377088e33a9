//! Segment files by name: how they are called, opened, listed and removed beneath a job's directory.
//!
//! Names are made from numbers alone, and no link is followed. It must not know what is in the files.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

/// Which of the two files of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Index,
    Log,
}

impl Part {
    pub(super) const ALL: [Self; 2] = [Self::Index, Self::Log];

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

/// The name of an empty file that is there for the first segment to come.
fn unused(part: Part) -> String {
    format!("unused.{}", part.suffix())
}

/// Is this the name of one?
pub(crate) fn is_unused(name: &[u8]) -> bool {
    Part::ALL
        .iter()
        .any(|part| unused(*part).as_bytes() == name)
}

/// Is this the name of a file of the first segment?
pub(crate) fn is_first(name: &[u8]) -> bool {
    parse(name).is_some_and(|(first, _)| first == 0)
}

/// Empties the files of the first segment and keeps them for the output of another job, which has the directory next: making
/// files is most of what short output costs.
pub(crate) fn put_by(dir: impl AsFd) -> io::Result<()> {
    for part in Part::ALL {
        let (segment, unused) = (name(0, part), unused(part));
        let flags = OFlag::O_WRONLY | OFlag::O_TRUNC | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat(&dir, segment.as_str(), flags, Mode::empty()) {
            Ok(file) => drop(file),
            Err(Errno::ENOENT) => continue,
            Err(errno) => return Err(errno.into()),
        }
        // Nothing has that name that is not empty.
        renameat(&dir, segment.as_str(), &dir, unused.as_str())?;
    }
    Ok(())
}

/// Gives the first segment a file that is there for it; `false` if there is none.
pub(super) fn use_unused(dir: impl AsFd, part: Part) -> io::Result<bool> {
    match renameat(&dir, unused(part).as_str(), &dir, name(0, part).as_str()) {
        Ok(()) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Removes the files that are there for output to come.
pub(crate) fn remove_unused(dir: impl AsFd) -> io::Result<()> {
    for part in Part::ALL {
        unlink_name(&dir, &unused(part))?;
    }
    Ok(())
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
    unlink_name(dir, &name(first, part))
}

fn unlink_name(dir: impl AsFd, name: &str) -> io::Result<()> {
    match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Makes what one file of a segment holds durable; it need not exist.
pub(super) fn sync_part(dir: impl AsFd, first: u64, part: Part) -> io::Result<()> {
    match open(dir, first, part, OFlag::O_RDONLY)? {
        Some(file) => file.sync_data(),
        None => Ok(()),
    }
}

/// Makes every segment file in a job's directory durable, and that it is there.
pub(super) fn sync(dir: impl AsFd) -> io::Result<()> {
    for (first, part) in list(&dir)? {
        sync_part(&dir, first, part)?;
    }
    Ok(nix::unistd::fsync(&dir)?)
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
            "unused.idx",
            "00000000000000000001.txt",
            ".",
        ] {
            assert_eq!(parse(other.as_bytes()), None, "{other}");
        }
    }
}
