//! What of a job's files is shown: everything while it lives, what is kept of it afterwards.

use std::os::fd::BorrowedFd;

use super::FileEntry;
use job::Job;
use job::time::Timestamp;
use job::workspace::{Kept, Patterns, artifacts_of};
use linux::beneath::{self, Entry, Kind};

/// What of a job's files is shown.
#[derive(Debug)]
pub(super) struct Seen {
    kept: Kept,
    artifacts: Option<Patterns>,
}

impl Seen {
    pub(super) fn of(job: &Job) -> Self {
        let is_whole = job.artifacts.as_ref().is_some_and(|it| it.truncated);
        Self {
            kept: if is_whole || !job.state.is_terminal() {
                Kept::Everything
            } else {
                Kept::of(&job.spec, job.state)
            },
            artifacts: artifacts_of(&job.spec, job.state),
        }
    }

    fn is_all(&self) -> bool {
        matches!(self.kept, Kept::Everything)
    }

    /// Is a file or link with this path shown?
    pub(super) fn has(&self, path: &str) -> bool {
        self.kept.has(path)
    }

    pub(super) fn entry(&self, entry: Entry) -> FileEntry {
        let artifacts = self.artifacts.as_ref();
        FileEntry {
            is_artifact: entry.kind == Kind::File
                && artifacts.is_some_and(|it| it.is_match(&entry.path)),
            kind: entry.kind,
            bytes: entry.bytes,
            mode: entry.stat.st_mode & 0o7777,
            modified_at: Timestamp::from_micros(
                entry
                    .stat
                    .st_mtime
                    .saturating_mul(1_000_000)
                    .saturating_add(entry.stat.st_mtime_nsec / 1000),
            ),
            path: entry.path,
        }
    }
}

/// Whether there is something in a directory that is shown. Asked in the order of a walk, it reads no directory more than
/// twice: what the last looks have found also answers for what is beneath.
#[derive(Debug)]
pub(super) struct Within<'a> {
    seen: &'a Seen,
    directory: BorrowedFd<'a>,
    /// A path that is shown.
    shown: String,
    /// A directory, with a slash at its end, in which there is nothing.
    bare: Option<String>,
}

impl<'a> Within<'a> {
    pub(super) fn of(seen: &'a Seen, directory: BorrowedFd<'a>) -> Self {
        Self {
            seen,
            directory,
            shown: String::new(),
            bare: None,
        }
    }

    pub(super) fn has_any(&mut self, path: &str) -> bool {
        let prefix = format!("{path}/");
        if self.seen.is_all() || self.shown.starts_with(&prefix) {
            return true;
        }
        let bare = self.bare.as_ref();
        if bare.is_some_and(|bare| prefix.starts_with(bare)) {
            return false;
        }
        let mut walk = beneath::walk(self.directory, path, beneath::Limits::default());
        let found = walk.find(|it| it.kind != Kind::Directory && self.seen.has(&it.path));
        let has_any = found.is_some();
        match found {
            Some(found) => self.shown = found.path,
            None => self.bare = Some(prefix),
        }
        has_any
    }
}
