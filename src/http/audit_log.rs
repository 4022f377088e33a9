//! The audit log: who changed what, one JSON line for each write request, in `audit.jsonl` of the state
//! directory.
//!
//! A line is one write(2) at the end of the file: it survives the end of this process, and the page cache
//! loses the last of them with the host. Files are synced where they are put aside and when the service
//! ends. It knows no HTTP, no bodies, environments or tokens.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::libc;
use serde::Serialize;

use job::time::Timestamp;

const FILE: &str = "audit.jsonl";
/// A file of this size is put aside.
const FILE_BYTES: u64 = 64 << 20;
/// How many are kept aside: `audit.jsonl.1` is the latest of them.
const KEPT: usize = 3;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Decision {
    /// The caller may; the status says what came of it.
    Allowed,
    /// A guard, the authentication, the scope or the policy said no.
    Refused,
    /// The client went away before there was an answer; the request may have had its effect.
    Unanswered,
}

/// One line.
#[derive(Debug, Serialize)]
pub(crate) struct Line<'a> {
    /// When the request came.
    pub(crate) at: Timestamp,
    pub(crate) request_id: &'a str,
    /// Nothing if nobody could be recognised.
    pub(crate) actor: Option<&'a str>,
    pub(crate) peer: Option<&'a str>,
    pub(crate) method: &'a str,
    /// The path as in `openapi.yaml`; nothing if there is none such.
    pub(crate) route: Option<&'a str>,
    pub(crate) job_id: Option<&'a str>,
    /// The trace that the request is part of, if it says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trace_id: Option<&'a str>,
    pub(crate) decision: Decision,
    pub(crate) status: Option<u16>,
    pub(crate) code: Option<&'static str>,
}

/// The open log.
#[derive(Debug)]
pub struct Audit {
    path: PathBuf,
    file_bytes: u64,
    // A std mutex: held for one write to the page cache, never across an await.
    open: Mutex<Open>,
    lost: AtomicU64,
}

#[derive(Debug)]
struct Open {
    file: File,
    size: u64,
    /// The last write failed, and that has been said.
    failing: bool,
    /// It is not the file that it should be, or larger than it should be, and that has been said.
    misplaced: bool,
}

impl Open {
    /// Is this the file that has this name?
    fn is_at(&self, path: &Path) -> bool {
        let identity = |found: fs::Metadata| (found.dev(), found.ino());
        match (fs::symlink_metadata(path), self.file.metadata()) {
            (Ok(named), Ok(open)) => identity(named) == identity(open),
            (Err(_), _) | (_, Err(_)) => false,
        }
    }
}

impl Audit {
    /// Opens or makes the log; the error is one line that says what is wrong.
    pub(crate) fn open(state_dir: &Path) -> Result<Self, String> {
        Self::with_limit(state_dir, FILE_BYTES)
    }

    fn with_limit(state_dir: &Path, file_bytes: u64) -> Result<Self, String> {
        let path = state_dir.join(FILE);
        let open = open(&path)
            .map_err(|error| format!("cannot write the audit log {}: {error}", path.display()))?;
        Ok(Self {
            path,
            file_bytes,
            open: Mutex::new(open),
            lost: AtomicU64::new(0),
        })
    }

    /// Adds a line. A full disk keeps no job from being stopped: the log says once that lines are missing.
    pub(crate) fn write(&self, line: &Line<'_>) {
        let mut bytes = serde_json::to_vec(line).expect("strings and numbers");
        bytes.push(b'\n');
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        match self.append(&mut open, &bytes) {
            Ok(()) => open.failing = false,
            Err(error) => {
                if !open.failing {
                    tracing::error!(%error, "the audit log cannot be written, lines are missing: {error}");
                }
                open.failing = true;
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// How many lines could not be written.
    pub(crate) fn lines_lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn append(&self, open: &mut Open, bytes: &[u8]) -> io::Result<()> {
        // Somebody else may have moved or removed it, as logrotate does. Until there is a file of that name again,
        // no line is lost: it goes into the one that is open.
        let ready = if open.is_at(&self.path) {
            Ok(())
        } else {
            self.reopen(open)
        };
        let ready = ready.and_then(|()| match open.size >= self.file_bytes {
            true => self.put_aside(open),
            false => Ok(()),
        });
        open.file.write_all(bytes)?;
        open.size += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if let Err(error) = &ready
            && !open.misplaced
        {
            tracing::error!(%error, "the audit log goes on in a file that is not {}: {error}", self.path.display());
        }
        open.misplaced = ready.is_err();
        Ok(())
    }

    fn reopen(&self, open: &mut Open) -> io::Result<()> {
        let fresh = self::open(&self.path)?;
        open.file.sync_all()?;
        *open = fresh;
        Ok(())
    }

    fn put_aside(&self, open: &mut Open) -> io::Result<()> {
        open.file.sync_all()?;
        for number in (1..KEPT).rev() {
            match fs::rename(self.aside(number), self.aside(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        fs::rename(&self.path, self.aside(1))?;
        *open = self::open(&self.path)?;
        Ok(())
    }

    fn aside(&self, number: usize) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }

    /// Makes every line durable.
    pub(crate) fn sync(&self) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = open.file.sync_all() {
            tracing::error!(%error, "the audit log cannot be synced: {error}");
        }
    }
}

fn open(path: &Path) -> io::Result<Open> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    let found = file.metadata()?;
    if found.mode() & 0o077 != 0 {
        return Err(io::Error::other("others can read it; run chmod 600 on it"));
    }
    Ok(Open {
        size: found.len(),
        file,
        failing: false,
        misplaced: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(request_id: &str) -> Line<'_> {
        Line {
            at: Timestamp::from_micros(0),
            request_id,
            actor: Some("token:ci"),
            peer: Some("127.0.0.1:1"),
            method: "POST",
            route: Some("/jobs"),
            job_id: None,
            trace_id: None,
            decision: Decision::Allowed,
            status: Some(201),
            code: None,
        }
    }

    #[test]
    fn a_line_is_one_json_object_in_a_private_file() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::open(dir.path()).unwrap();
        audit.write(&line("r1"));
        audit.write(&line("r2"));
        let path = dir.path().join(FILE);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(
            text.lines().next().unwrap(),
            r#"{"at":"1970-01-01T00:00:00.000000Z","request_id":"r1","actor":"token:ci","peer":"127.0.0.1:1","method":"POST","route":"/jobs","job_id":null,"decision":"allowed","status":201,"code":null}"#
        );
        assert_eq!(text.lines().count(), 2);
        assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn lines_are_added_after_a_restart_and_old_files_are_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        for index in 0..12 {
            // Two lines pass the limit, so that the third begins a file.
            let audit = Audit::with_limit(dir.path(), 300).unwrap();
            audit.write(&line(&format!("r{index:02}")));
            audit.sync();
        }
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        for (name, first) in [
            (FILE, "r10"),
            ("audit.jsonl.1", "r08"),
            ("audit.jsonl.2", "r06"),
            ("audit.jsonl.3", "r04"),
        ] {
            assert!(read(name).contains(first), "{name}");
            assert_eq!(read(name).lines().count(), 2);
        }
        assert!(!dir.path().join("audit.jsonl.4").exists());
    }

    #[test]
    fn a_log_that_others_read_or_that_is_a_link_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Audit::open(dir.path()).unwrap_err().contains("chmod 600"));
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        assert!(Audit::open(dir.path()).is_err());
    }

    #[test]
    fn a_log_that_somebody_moves_is_made_again_and_loses_no_line() {
        let folder = tempfile::tempdir().unwrap();
        let audit = Audit::with_limit(folder.path(), 400).unwrap();
        let (log, moved) = (folder.path().join(FILE), folder.path().join("moved"));
        let has = |path: &Path, id: &str| fs::read_to_string(path).unwrap().contains(id);
        audit.write(&line("first"));
        fs::rename(&log, &moved).unwrap();
        audit.write(&line("second"));
        assert!(has(&moved, "first") && !has(&moved, "second"));
        assert!(has(&log, "second") && !has(&log, "first"));
        fs::remove_file(&log).unwrap();
        audit.write(&line("third"));
        assert!(has(&log, "third"));
        // A name that cannot be opened: the lines go on into the open file, past its limit.
        fs::rename(&log, &moved).unwrap();
        std::os::unix::fs::symlink("elsewhere", &log).unwrap();
        for number in 0..8 {
            audit.write(&line(&format!("line-{number}")));
        }
        assert!((0..8).all(|number| has(&moved, &format!("line-{number}"))));
        fs::remove_file(&log).unwrap();
        audit.write(&line("last"));
        assert!(has(&log, "last"));
    }
}
