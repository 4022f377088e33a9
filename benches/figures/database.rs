//! A PostgreSQL of Debian, as its package sets it up: it syncs what it commits.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Child, Command, Output};

use nix::sys::signal::Signal;
use nix::unistd::geteuid;

use crate::cluster::{send, until};
use unprivileged::{NOBODY, unprivileged};

#[path = "../../tests/it/ledger/unprivileged.rs"]
mod unprivileged;

/// A server with its defaults, on a socket in a directory of its own.
pub(crate) struct Postgres {
    programs: PathBuf,
    dir: tempfile::TempDir,
    child: Option<Child>,
}

/// Where the programs of the newest PostgreSQL are that is installed.
pub(crate) fn installed() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let programs = versions.filter_map(|entry| Some(entry.ok()?.path().join("bin")));
    programs.filter(|it| it.join("initdb").exists()).max()
}

fn succeeded(command: &mut Command) -> io::Result<Output> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(output);
    }
    let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!("{command:?}: {why}")))
}

impl Postgres {
    pub(crate) fn start(programs: PathBuf) -> io::Result<Self> {
        let dir = tempfile::tempdir()?;
        if geteuid().is_root() {
            chown(dir.path(), Some(NOBODY), Some(NOBODY))?;
        }
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711))?;
        let mut postgres = Self {
            programs,
            dir,
            child: None,
        };
        let mut initdb = postgres.unprivileged("initdb");
        initdb.args(["--username=procession", "--auth=trust", "--pgdata"]);
        succeeded(initdb.arg(postgres.dir.path().join("data")))?;
        postgres.begin()?;
        Ok(postgres)
    }

    fn unprivileged(&self, program: &str) -> Command {
        unprivileged(&self.programs.join(program))
    }

    pub(crate) fn begin(&mut self) -> io::Result<()> {
        let path = self.dir.path().join("log");
        let log = fs::File::options().create(true).append(true).open(&path)?;
        let mut child = self
            .unprivileged("postgres")
            .arg("-D")
            .arg(self.dir.path().join("data"))
            .arg("-k")
            .arg(self.dir.path())
            .args(["-p", "5432", "-c", "listen_addresses="])
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let ended = until(|| Ok(child.try_wait()?.is_some() || self.query("SELECT 1").is_ok()));
        let is_up = ended.is_ok() && child.try_wait()?.is_none();
        self.child = Some(child);
        if is_up {
            return Ok(());
        }
        Err(io::Error::other(
            fs::read_to_string(path).unwrap_or_default(),
        ))
    }

    pub(crate) fn end(&mut self, signal: Signal) {
        if let Some(mut child) = self.child.take() {
            send(&[child.id()], signal);
            // It is to be gone in any case.
            if until(|| Ok(child.try_wait()?.is_some())).is_err() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }

    fn query(&self, sql: &str) -> io::Result<String> {
        let mut psql = self.unprivileged("psql");
        psql.args(["--no-psqlrc", "--tuples-only", "--no-align"])
            .args(["--username=procession", "--dbname=postgres"])
            .args(["--port=5432", "--command", sql, "--host"])
            .arg(self.dir.path());
        let output = succeeded(&mut psql)?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// The address as the service takes it.
    pub(crate) fn url(&self) -> String {
        let host = self.dir.path().display().to_string().replace('/', "%2F");
        format!("postgres://procession@{host}/postgres")
    }

    /// How large all tables of the ledger are, with their indexes.
    pub(crate) fn size(&self) -> io::Result<u64> {
        let size = self.query(
            "SELECT sum(pg_total_relation_size(oid)) FROM pg_class \
             WHERE relkind = 'r' AND relnamespace = 'procession'::regnamespace",
        )?;
        size.parse().map_err(io::Error::other)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.end(Signal::SIGQUIT);
    }
}
