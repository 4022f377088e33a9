//! A PostgreSQL of Debian for one test: on a socket in a directory of its own, as a user without privileges.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::unprivileged::{NOBODY, unprivileged};
use crate::harness::{LONG, blocking_until, is_root};

/// A server and the directory that holds its data and its socket.
#[derive(Debug)]
pub(super) struct Postgres {
    dir: TempDir,
    child: Option<Child>,
    args: Vec<String>,
    port: u16,
}

/// Only a name, as long as there is no TCP.
const PORT: u16 = 5432;

/// A program of PostgreSQL, of the newest version that is installed.
fn installed(name: &str) -> PathBuf {
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .expect("PostgreSQL is installed: make test does that")
        .map(|entry| entry.unwrap().path().join("bin").join(name))
        .filter(|path| path.exists())
        .collect();
    versions.sort();
    versions.pop().expect("PostgreSQL is installed")
}

fn done(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

impl Postgres {
    /// One that holds nothing yet.
    pub(super) fn start() -> Self {
        Self::made(PORT, &[])
    }

    /// The same, which listens on this port of this machine as well.
    pub(super) fn start_on(port: u16) -> Self {
        Self::made(port, &["listen_addresses=127.0.0.1"])
    }

    fn made(port: u16, settings: &[&str]) -> Self {
        let mut postgres = Self::directory(port);
        for setting in settings {
            postgres.set(setting);
        }
        done(
            unprivileged(&installed("initdb"))
                .args(["--username=procession", "--auth=trust", "--no-sync"])
                .arg("--pgdata")
                .arg(postgres.data()),
        );
        postgres.begin();
        postgres
    }

    /// A setting, from the next begin on.
    pub(super) fn set(&mut self, setting: &str) {
        self.args.extend(["-c".to_owned(), setting.to_owned()]);
    }

    fn directory(port: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        if is_root() {
            std::os::unix::fs::chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
        Self {
            dir,
            child: None,
            args: Vec::new(),
            port,
        }
    }

    /// A copy that follows this one and that each commit waits for from now on.
    pub(super) fn standby(&self) -> Self {
        let standby = self.copy();
        self.sql("ALTER SYSTEM SET synchronous_standby_names = '*'");
        self.sql("SELECT pg_reload_conf()");
        let is_synced = || {
            // Not `async`.
            let state = self.sql("SELECT sync_state FROM pg_stat_replication");
            state.trim() == "sync"
        };
        assert!(blocking_until(LONG, is_synced), "the standby follows");
        standby
    }

    /// A copy that follows this one, and that no commit waits for.
    pub(super) fn copy(&self) -> Self {
        let mut standby = Self::directory(self.port);
        done(
            unprivileged(&installed("pg_basebackup"))
                .args([
                    "--username=procession",
                    "--write-recovery-conf",
                    "--no-sync",
                    "--checkpoint=fast",
                ])
                .arg("--host")
                .arg(self.dir.path())
                .arg(format!("--port={}", self.port))
                .arg("--pgdata")
                .arg(standby.data()),
        );
        standby.begin();
        standby
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Where the program has its files: those of a certificate belong there.
    pub(super) fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        if is_root() {
            std::os::unix::fs::chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// The directory of its socket.
    pub(super) fn socket(&self) -> &Path {
        self.dir.path()
    }

    /// Starts it again after its end.
    pub(super) fn begin(&mut self) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"))
            .unwrap();
        // The children of one that was killed may still hold its memory.
        let is_up = || {
            let mut child = unprivileged(&installed("postgres"))
                .arg("-D")
                .arg(self.data())
                .arg("-k")
                .arg(self.dir.path())
                .args(["-p".to_owned(), self.port.to_string()])
                .args(["-c", "listen_addresses=", "-c", "fsync=off"])
                .args(["-c", "max_connections=40"])
                .args(["-c", "shared_buffers=16MB", "-c", "max_wal_senders=4"])
                .args(&self.args)
                .stdout(log.try_clone().unwrap())
                .stderr(log.try_clone().unwrap())
                .spawn()
                .unwrap();
            let is_up = blocking_until(LONG, || {
                child.try_wait().unwrap().is_some() || self.query("SELECT 1").status.success()
            });
            let is_up = is_up && child.try_wait().unwrap().is_none();
            is_up.then_some(child)
        };
        let mut child = None;
        blocking_until(LONG, || {
            child = is_up();
            child.is_some()
        });
        self.child = Some(child.unwrap_or_else(|| {
            panic!(
                "{}",
                fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
            )
        }));
    }

    fn query(&self, sql: &str) -> Output {
        Command::new("psql")
            .args([
                "--no-psqlrc",
                "--tuples-only",
                "--no-align",
                "--username=procession",
            ])
            .arg("--host")
            .arg(self.dir.path())
            .arg(format!("--port={}", self.port))
            .args(["--dbname=postgres", "--command", sql])
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// What the database answers.
    pub(super) fn sql(&self, sql: &str) -> String {
        let output = self.query(sql);
        assert!(output.status.success(), "{sql}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The address as the service takes it.
    pub(super) fn url(&self) -> String {
        format!("postgres://procession@{}/postgres", self.host())
    }

    /// The host in such an address.
    pub(super) fn host(&self) -> String {
        self.dir.path().display().to_string().replace('/', "%2F")
    }

    /// Ends it.
    pub(super) fn end(&mut self, signal: Signal) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        let _ = kill(pid, signal);
        if !blocking_until(LONG, || child.try_wait().unwrap().is_some()) {
            let _ = child.kill();
        }
    }

    /// Stops it where it is, or lets it go on: every process of it.
    pub(super) fn signal_all(&self, signal: Signal) {
        let data = self.data().display().to_string();
        for process in crate::harness::processes() {
            let cwd = fs::read_link(format!("/proc/{}/cwd", process.pid));
            if cwd.is_ok_and(|cwd| cwd.display().to_string() == data) {
                let _ = kill(Pid::from_raw(process.pid), signal);
            }
        }
    }

    /// Nobody comes in without a password any more.
    pub(super) fn ask_for_passwords(&mut self) {
        fs::write(
            self.data().join("pg_hba.conf"),
            "local all all scram-sha-256\n",
        )
        .unwrap();
        self.signal_all(Signal::SIGHUP);
        let is_so = || !self.query("SELECT 1").status.success();
        assert!(blocking_until(LONG, is_so), "passwords are asked for");
    }

    /// Makes the copy the one that is written to.
    pub(super) fn promote(&self) {
        assert!(self.sql("SELECT pg_promote()").contains('t'));
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.signal_all(Signal::SIGCONT);
        self.end(Signal::SIGQUIT);
    }
}
