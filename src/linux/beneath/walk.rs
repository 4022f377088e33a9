//! What is there, one entry each. A directory is opened by its whole path each time, so that a deep tree takes no more
//! descriptors than a flat one.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::dir::Dir;
use nix::fcntl::AtFlags;
use nix::libc;
use nix::sys::stat::{FileStat, fstatat};

use super::directory;

/// The longest path that can be asked for.
const PATH_BYTES: usize = 4095;

/// What an entry is. Pipes, sockets and devices are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
}

/// A file, directory or link.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Relative to the root.
    pub path: String,
    /// What it is.
    pub kind: Kind,
    /// The size of a file.
    pub bytes: u64,
    /// What the disk takes for it, in bytes.
    pub disk_bytes: u64,
    /// All of it.
    pub stat: FileStat,
}

/// How far a walk goes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most entries.
    pub entries: usize,
    /// How long it may take.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 1_000_000,
            time: Duration::from_secs(30),
        }
    }
}

/// What a walk has found.
#[derive(Debug, Default)]
pub struct Walked {
    /// In the order of their paths.
    pub entries: Vec<Entry>,
    /// A limit was reached: there may be more.
    pub truncated: bool,
    /// What could not be looked at; the first of it.
    pub error: Option<String>,
}

/// Looks at all that is beneath `from`, a directory beneath `root`.
pub fn walk(root: BorrowedFd<'_>, from: &str, limits: Limits) -> Walked {
    let mut walked = Walked::default();
    let until = Instant::now() + limits.time;
    let mut waiting = vec![from.to_owned()];
    while let Some(at) = waiting.pop() {
        if let Err(error) = walked.look(root, &at, limits.entries, until, &mut waiting) {
            // What has been removed meanwhile is not there.
            let is_gone = error.kind() == io::ErrorKind::NotFound && at != from;
            let shown = if at.is_empty() { "the workspace" } else { &at };
            if !is_gone && walked.error.is_none() {
                walked.error = Some(format!("{shown}: {error}"));
            }
        }
        if walked.truncated {
            break;
        }
    }
    walked
        .entries
        .sort_unstable_by(|one, other| one.path.cmp(&other.path));
    walked
}

impl Walked {
    fn look(
        &mut self,
        root: BorrowedFd<'_>,
        at: &str,
        most: usize,
        until: Instant,
        waiting: &mut Vec<String>,
    ) -> io::Result<()> {
        let mut listing = Dir::from_fd(directory(root, at)?)?;
        let here = directory(root, at)?;
        for found in listing.iter() {
            let found = found?;
            let name = found.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let Ok(name) = name.to_str() else {
                self.note(at, "a name that is not UTF-8");
                continue;
            };
            if self.entries.len() >= most || Instant::now() >= until {
                self.truncated = true;
                return Ok(());
            }
            let path = if at.is_empty() {
                name.to_owned()
            } else {
                format!("{at}/{name}")
            };
            if path.len() > PATH_BYTES {
                self.note(at, "a path that is too long");
                continue;
            }
            let Ok(stat) = fstatat(&here, name, AtFlags::AT_SYMLINK_NOFOLLOW) else {
                continue;
            };
            let kind = match stat.st_mode & libc::S_IFMT {
                libc::S_IFREG => Kind::File,
                libc::S_IFDIR => Kind::Directory,
                libc::S_IFLNK => Kind::Symlink,
                _ => continue,
            };
            if kind == Kind::Directory {
                waiting.push(path.clone());
            }
            let number = |value: i64| u64::try_from(value).unwrap_or_default();
            self.entries.push(Entry {
                path,
                kind,
                bytes: match kind {
                    Kind::File => number(stat.st_size),
                    Kind::Directory | Kind::Symlink => 0,
                },
                disk_bytes: number(stat.st_blocks).saturating_mul(512),
                stat,
            });
        }
        Ok(())
    }

    fn note(&mut self, at: &str, what: &str) {
        if self.error.is_none() {
            self.error = Some(format!(
                "{what}, in {}",
                if at.is_empty() { "the workspace" } else { at }
            ));
        }
    }
}
