//! The service under test: the binary and the defaults that users run, with a state directory on disk.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::client::{self, Connection, Load};
use crate::processes;

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_procession");

const TRUE: &str = r#"{"command":["/bin/true"]}"#;

/// A running service; it ends with its jobs when this is dropped.
pub(crate) struct Service {
    supervisor: Child,
    pub(crate) address: SocketAddr,
    authority: String,
    /// From the start of the program to its line, which it prints when it is ready.
    pub(crate) ready_after: Duration,
}

/// Waits without a busy loop.
pub(crate) fn pause(time: Duration) {
    #[expect(
        clippy::disallowed_methods,
        reason = "a benchmark paces itself by the clock"
    )]
    std::thread::sleep(time);
}

/// Where a service listens, as it says itself.
fn address_of(supervisor: &mut Child) -> io::Result<SocketAddr> {
    let mut line = String::new();
    let stdout = supervisor.stdout.take();
    let stdout = stdout.ok_or_else(|| io::Error::other("no standard output"))?;
    BufReader::new(stdout).read_line(&mut line)?;
    line.split_once("http://")
        .and_then(|(_, rest)| {
            let end = rest.find(|it: char| !it.is_ascii_digit() && !".:".contains(it));
            rest[..end.unwrap_or(rest.len())].parse().ok()
        })
        .ok_or_else(|| io::Error::other(format!("the service said {line:?}")))
}

impl Service {
    /// Starts the service on a state directory, which is made where it is missing.
    pub(crate) fn start(state: &Path, flags: &[&str]) -> io::Result<Self> {
        Self::start_on(0, state, flags)
    }

    /// The same on a port that others know beforehand.
    pub(crate) fn start_on(port: u16, state: &Path, flags: &[&str]) -> io::Result<Self> {
        let begin = Instant::now();
        let mut supervisor = Command::new(BINARY)
            .args(["serve", "--on-shutdown", "stop"])
            .args(["--listen".to_owned(), format!("127.0.0.1:{port}")])
            .args(["--log-level", "error", "--shutdown-grace-seconds", "2"])
            .arg("--state-dir")
            .arg(state)
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let address = match address_of(&mut supervisor) {
            Ok(address) => address,
            Err(error) => {
                supervisor.kill()?;
                return Err(error);
            }
        };
        let ready_after = begin.elapsed();
        let token = fs::read_to_string(state.join("token"))?;
        Ok(Self {
            supervisor,
            address,
            authority: format!(
                "Host: {address}\r\nAuthorization: Bearer {}\r\n",
                token.trim()
            ),
            ready_after,
        })
    }

    pub(crate) fn supervisor_pid(&self) -> u32 {
        self.supervisor.id()
    }

    pub(crate) fn server_pid(&self) -> io::Result<u32> {
        processes::children(self.supervisor.id())?
            .into_iter()
            .find(|process| process.name == "procession-srv")
            .map(|process| process.pid)
            .ok_or_else(|| io::Error::other("there is no server"))
    }

    pub(crate) fn monitor_pids(&self) -> io::Result<Vec<u32>> {
        Ok(processes::children(self.supervisor.id())?
            .into_iter()
            .filter(|process| process.name == "procession-mon")
            .map(|process| process.pid)
            .collect())
    }

    pub(crate) fn connect(&self) -> io::Result<Connection> {
        Connection::open(self.address)
    }

    /// A request without a body.
    pub(crate) fn request(&self, method: &str, target: &str) -> Vec<u8> {
        format!("{method} {target} HTTP/1.1\r\n{}\r\n", self.authority).into_bytes()
    }

    /// `POST /jobs`; `query` may be empty.
    pub(crate) fn submission(&self, query: &str, spec: &str) -> Vec<u8> {
        self.post(&format!("/jobs{query}"), spec)
    }

    /// `POST` of a body of JSON.
    pub(crate) fn post(&self, target: &str, body: &str) -> Vec<u8> {
        format!(
            "POST {target} HTTP/1.1\r\n{}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.authority,
            body.len()
        )
        .into_bytes()
    }

    /// The same with further headers, each with its end of line.
    pub(crate) fn post_with(&self, target: &str, headers: &str, body: &str) -> Vec<u8> {
        format!(
            "POST {target} HTTP/1.1\r\n{}{headers}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.authority,
            body.len()
        )
        .into_bytes()
    }

    /// A request with a body that is no JSON.
    pub(crate) fn with_body(&self, method: &str, target: &str, body: &str) -> Vec<u8> {
        format!(
            "{method} {target} HTTP/1.1\r\n{}Content-Type: application/octet-stream\r\nContent-Length: {}\r\n\r\n{body}",
            self.authority,
            body.len()
        )
        .into_bytes()
    }

    /// `POST /jobs` of `/bin/true`.
    pub(crate) fn short_job(&self, query: &str) -> Vec<u8> {
        self.submission(query, TRUE)
    }

    /// Jobs per second from 16 keep-alive connections, until every job is finished and committed.
    pub(crate) fn throughput(&self, time: Duration, live_before: usize) -> io::Result<f64> {
        let begin = Instant::now();
        let load = client::drive_for(self.address, 16, time, &self.short_job(""))?;
        accepted(&load)?;
        self.wait_for_live(live_before)?;
        Ok(crate::stats::float64(load.done) / begin.elapsed().as_secs_f64())
    }

    /// Starts jobs that sleep; returns their ids.
    pub(crate) fn start_sleepers(&self, count: usize) -> io::Result<()> {
        let request = self.submission("", r#"{"command":["/bin/sleep","100000"]}"#);
        let mut left = count;
        let load = client::drive(self.address, 16, || {
            left = left.checked_sub(1)?;
            Some(request.clone())
        })?;
        accepted(&load)
    }

    /// The jobs that are in one of the states.
    pub(crate) fn jobs(&self, query: &str) -> io::Result<Vec<serde_json::Value>> {
        let target = format!("/jobs?{query}");
        let answer = self.connect()?.exchange(&self.request("GET", &target))?;
        let body: serde_json::Value =
            serde_json::from_str(&answer.body).map_err(io::Error::other)?;
        body["jobs"]
            .as_array()
            .cloned()
            .ok_or_else(|| io::Error::other(format!("{target} gave {}", answer.status)))
    }

    /// Waits until no more than `count` jobs are unfinished. What is finished is in the store.
    pub(crate) fn wait_for_live(&self, count: usize) -> io::Result<()> {
        let request = self.request("GET", "/info");
        let mut connection = self.connect()?;
        let limit = Instant::now() + Duration::from_secs(120);
        loop {
            let answer = connection.exchange(&request)?;
            let info: serde_json::Value =
                serde_json::from_str(&answer.body).map_err(io::Error::other)?;
            let number = |key: &str| info["jobs"][key].as_u64().unwrap_or(u64::MAX);
            let live = number("running").saturating_add(number("queued"));
            // The slot is free a moment before the end is committed: the list tells about that.
            if live <= u64::try_from(count).unwrap_or(u64::MAX) && self.unfinished_within(count)? {
                return Ok(());
            }
            if Instant::now() > limit {
                return Err(io::Error::other("the jobs do not end"));
            }
            pause(Duration::from_millis(2));
        }
    }

    fn unfinished_within(&self, count: usize) -> io::Result<bool> {
        // Sleepers are running; whatever else is live is on its way out.
        if count > 0 {
            return Ok(self
                .jobs("state=queued,starting,stopping&page_size=1")?
                .is_empty());
        }
        Ok(self
            .jobs("state=queued,starting,running,stopping&page_size=1")?
            .is_empty())
    }
}

fn accepted(load: &Load) -> io::Result<()> {
    if load.refused == 0 {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{} submissions were refused",
        load.refused
    )))
}

impl Drop for Service {
    fn drop(&mut self) {
        let pid = i32::try_from(self.supervisor.id()).map(Pid::from_raw);
        if let Ok(pid) = pid {
            // It can be gone already, which is what is wanted.
            let _ = kill(pid, Signal::SIGTERM);
        }
        let _ = self.supervisor.wait();
    }
}

/// A fresh directory beneath target/, so that state lies on the disk and not in memory.
pub(crate) struct Scratch(tempfile::TempDir);

impl Scratch {
    pub(crate) fn new() -> io::Result<Self> {
        let parent = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
        fs::create_dir_all(&parent)?;
        tempfile::Builder::new()
            .prefix("state-")
            .tempdir_in(parent)
            .map(Self)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.0.path().join("state")
    }
}
