//! What is there, one entry each, in the order of their paths. A walk keeps no more than the names in the directories on
//! the path to where it is, however much there is besides, and can begin behind a path without a look at what comes before.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};
use std::vec;

use nix::dir::{Dir, Type};
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
    /// The most names that are read.
    pub entries: usize,
    /// How many levels; 1: what is in the directory itself.
    pub depth: usize,
    /// How long it may take, with what is done between two entries.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 1_000_000,
            depth: usize::MAX,
            time: Duration::from_secs(30),
        }
    }
}

/// A walk through all that is beneath a directory. What comes and goes meanwhile is found or not.
#[derive(Debug)]
pub struct Walk<'a> {
    root: BorrowedFd<'a>,
    from: &'a str,
    after: Option<&'a str>,
    limits: Limits,
    until: Option<Instant>,
    levels: Vec<Level>,
    has_begun: bool,
    is_truncated: bool,
    error: Option<String>,
}

/// A directory on the path to where the walk is.
#[derive(Debug)]
struct Level {
    path: String,
    /// Open as long as the walk is here, so that a deep tree takes no more descriptors than a flat one.
    opened: Option<OwnedFd>,
    /// In their order. A directory is there twice: as an entry, and with a slash at its end as what is in it. In between
    /// come names such as `a.b` for a directory `a`, just as in the order of whole paths.
    names: vec::IntoIter<Box<str>>,
}

/// Begins a walk through all that is beneath `from`, a directory beneath `root`.
#[must_use]
pub fn walk<'a>(root: BorrowedFd<'a>, from: &'a str, limits: Limits) -> Walk<'a> {
    Walk {
        root,
        from,
        after: None,
        limits,
        until: Instant::now().checked_add(limits.time),
        levels: Vec::new(),
        has_begun: false,
        is_truncated: false,
        error: None,
    }
}

impl<'a> Walk<'a> {
    /// Only what comes behind this path, which need not be there any more.
    #[must_use]
    pub fn after(mut self, path: Option<&'a str>) -> Self {
        self.after = path;
        self
    }

    /// A limit was reached: there may be more.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.is_truncated
    }

    /// What could not be looked at; the first of it.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Goes into a directory.
    fn enter(&mut self, path: String) {
        if self.levels.len() >= self.limits.depth {
            return;
        }
        if let Some(above) = self.levels.last_mut() {
            above.opened = None;
        }
        match self.look(&path) {
            Ok(level) => self.levels.push(level),
            // What has been removed meanwhile is not there.
            Err(error) if error.kind() == io::ErrorKind::NotFound && path != self.from => {}
            Err(error) => self.note(&path, &error.to_string()),
        }
    }

    /// Reads the names in a directory, of those that come behind where the walk begins.
    fn look(&mut self, path: &str) -> io::Result<Level> {
        let mut listing = Dir::from_fd(directory(self.root, path)?)?;
        let opened = directory(self.root, path)?;
        let begin = begin_in(path, self.after);
        let mut names = Vec::new();
        for found in listing.iter() {
            let found = found?;
            let name = found.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let Ok(text) = name.to_str() else {
                self.note(path, "a name that is not UTF-8");
                continue;
            };
            if self.limits.entries == 0 || self.is_late() {
                self.is_truncated = true;
                break;
            }
            self.limits.entries -= 1;
            if path.len() + 1 + text.len() > PATH_BYTES {
                self.note(path, "a path that is too long");
                continue;
            }
            if begin.is_none_or(|begin| text > begin) {
                names.push(Box::from(text));
            }
            let is_directory = match found.file_type() {
                Some(kind) => kind == Type::Directory,
                // Some file systems do not say it.
                None => fstatat(&opened, name, AtFlags::AT_SYMLINK_NOFOLLOW)
                    .is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFDIR),
            };
            if is_directory {
                let within = format!("{text}/");
                if begin.is_none_or(|begin| *within > *begin || begin.starts_with(&within)) {
                    names.push(within.into_boxed_str());
                }
            }
        }
        names.sort_unstable();
        Ok(Level {
            path: path.to_owned(),
            opened: Some(opened),
            names: names.into_iter(),
        })
    }

    /// Looks at one entry; nothing if it has gone, or is a pipe or the like.
    fn entry(&mut self, name: &str) -> Option<Entry> {
        let level = self.levels.last_mut()?;
        if level.opened.is_none() {
            level.opened = directory(self.root, &level.path).ok();
        }
        let opened = level.opened.as_ref()?;
        let stat = fstatat(opened, name, AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
        let kind = match stat.st_mode & libc::S_IFMT {
            libc::S_IFREG => Kind::File,
            libc::S_IFDIR => Kind::Directory,
            libc::S_IFLNK => Kind::Symlink,
            _ => return None,
        };
        let number = |value: i64| u64::try_from(value).unwrap_or_default();
        Some(Entry {
            path: below(&level.path, name),
            kind,
            bytes: match kind {
                Kind::File => number(stat.st_size),
                Kind::Directory | Kind::Symlink => 0,
            },
            disk_bytes: number(stat.st_blocks).saturating_mul(512),
            stat,
        })
    }

    fn is_late(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }

    fn note(&mut self, path: &str, what: &str) {
        let place = if path.is_empty() {
            "the workspace"
        } else {
            path
        };
        self.error.get_or_insert_with(|| format!("{place}: {what}"));
    }
}

impl Iterator for Walk<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        if !self.has_begun {
            self.has_begun = true;
            let within = below(self.from, "");
            let is_behind = |after: &str| after > &*within && !after.starts_with(&within);
            if !self.after.is_some_and(is_behind) || self.from.is_empty() {
                self.enter(self.from.to_owned());
            }
        }
        while let Some(level) = self.levels.last_mut() {
            let Some(name) = level.names.next() else {
                self.levels.pop();
                continue;
            };
            let within = name.strip_suffix('/').map(|it| below(&level.path, it));
            if self.is_late() {
                self.is_truncated = true;
                self.levels.clear();
                return None;
            }
            match within {
                Some(path) => self.enter(path),
                None => match self.entry(&name) {
                    None => {}
                    found => return found,
                },
            }
        }
        None
    }
}

/// What of the names in the directory `path` comes behind `after`: those behind what is returned, or all.
fn begin_in<'a>(path: &str, after: Option<&'a str>) -> Option<&'a str> {
    if path.is_empty() {
        return after;
    }
    // No walk goes into a directory of which nothing comes behind.
    after?.strip_prefix(path)?.strip_prefix('/')
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}/{name}")
    }
}
