//! What the figures are compared with. One that cannot be had here is reported as such.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::client::{self, Connection};
use crate::service::{Scratch, pause};
use crate::stats::float64;

/// Why a baseline is missing.
pub(crate) type Missing = String;

/// How long pueue may take until it answers, and for the jobs of one round.
const PUEUE_READY: Duration = Duration::from_secs(20);
const PUEUE_JOBS: Duration = Duration::from_secs(60);

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("benches/baseline")
        .join(name)
}

fn cache() -> io::Result<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    fs::create_dir_all(&path)?;
    Ok(path)
}

/// Compiles one of the C programs.
pub(crate) fn compile(name: &str) -> io::Result<PathBuf> {
    let program = cache()?.join(name);
    let status = Command::new("cc")
        .args(["-O2", "-Wall", "-o"])
        .arg(&program)
        .arg(source(&format!("{name}.c")))
        .status()?;
    if status.success() {
        Ok(program)
    } else {
        Err(io::Error::other(format!("cc {name}.c failed")))
    }
}

/// Runs a program and reads the numbers that it prints.
pub(crate) fn numbers(command: &mut Command) -> io::Result<Vec<f64>> {
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!("{command:?}: {}", output.status)));
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace()
        .map(|word| word.parse().map_err(io::Error::other))
        .collect()
}

/// A server of somebody else's, killed when dropped.
pub(crate) struct Rival {
    child: Child,
    pub(crate) address: SocketAddr,
    kind: Kind,
    _scratch: Scratch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Naive,
    Webhook,
}

fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// Whether a program can be found.
pub(crate) fn have(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
    })
}

/// Makes the virtual environment of the naive server once.
pub(crate) fn naive_python() -> Result<PathBuf, Missing> {
    let venv = cache().map_err(|error| error.to_string())?.join("venv");
    let python = venv.join("bin/python");
    if venv.join("bin/uvicorn").exists() {
        return Ok(python);
    }
    let mut make = Command::new("python3");
    make.args(["-m", "venv"]).arg(&venv);
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "-q", "install", "fastapi", "uvicorn"]);
    for mut step in [make, install] {
        let output = step.output().map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err("a venv with fastapi and uvicorn could not be made".to_owned());
        }
    }
    Ok(python)
}

impl Rival {
    pub(crate) fn naive(python: &Path) -> io::Result<Self> {
        let scratch = Scratch::new()?;
        let address = free_address()?;
        let mut command = Command::new(python);
        command
            .args(["-m", "uvicorn", "naive:app", "--no-access-log"])
            .args(["--log-level", "error", "--host", "127.0.0.1", "--port"])
            .arg(address.port().to_string())
            .arg("--app-dir")
            .arg(source(""));
        Self::start(command, address, Kind::Naive, scratch)
    }

    pub(crate) fn webhook() -> io::Result<Self> {
        let scratch = Scratch::new()?;
        let address = free_address()?;
        let hooks = scratch.path().join("hooks.json");
        fs::write(
            &hooks,
            r#"[{"id":"true","execute-command":"/bin/true","http-methods":["POST"],"include-command-output-in-response":true}]"#,
        )?;
        let mut command = Command::new("webhook");
        command
            .args(["-ip", "127.0.0.1", "-port"])
            .arg(address.port().to_string())
            .arg("-hooks")
            .arg(hooks);
        Self::start(command, address, Kind::Webhook, scratch)
    }

    fn start(
        mut command: Command,
        address: SocketAddr,
        kind: Kind,
        scratch: Scratch,
    ) -> io::Result<Self> {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let rival = Self {
            child,
            address,
            kind,
            _scratch: scratch,
        };
        let limit = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(address).is_err() {
            if Instant::now() > limit {
                return Err(io::Error::other(format!("{kind:?} does not listen")));
            }
            pause(Duration::from_millis(20));
        }
        Ok(rival)
    }

    pub(crate) fn request(&self) -> Vec<u8> {
        let (path, body) = match self.kind {
            Kind::Naive => ("/jobs", r#"{"command":["/bin/true"]}"#),
            Kind::Webhook => ("/hooks/true", "{}"),
        };
        format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        )
        .into_bytes()
    }

    /// Jobs per second from 16 keep-alive connections, until the last process has ended.
    pub(crate) fn throughput(&self, time: Duration) -> io::Result<f64> {
        let begin = Instant::now();
        let load = client::drive_for(self.address, 16, time, &self.request())?;
        if load.refused > 0 {
            return Err(io::Error::other(format!("{} refused", load.refused)));
        }
        match self.kind {
            // Asked for the output, it answers after the end. Otherwise it answers first, forks later, and
            // nothing tells when the last of its backlog is done.
            Kind::Webhook => {}
            Kind::Naive => {
                let request = format!("GET /running HTTP/1.1\r\nHost: {}\r\n\r\n", self.address);
                let mut connection = Connection::open(self.address)?;
                while !connection
                    .exchange(request.as_bytes())?
                    .body
                    .contains("\"running\":0")
                {}
            }
        }
        Ok(float64(load.done) / begin.elapsed().as_secs_f64())
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Jobs per second through task-spooler's client, four slots, until the last has ended.
pub(crate) fn task_spooler(count: u32) -> io::Result<f64> {
    let scratch = Scratch::new()?;
    let tsp = |args: &[&str]| {
        Command::new("tsp")
            .args(args)
            .env("TS_SOCKET", scratch.path().join("socket"))
            .env("TMPDIR", scratch.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
    };
    tsp(&["-S", "4"])?;
    let begin = Instant::now();
    for _ in 0..count {
        tsp(&["/bin/true"])?;
    }
    tsp(&["-w"])?;
    let rate = f64::from(count) / begin.elapsed().as_secs_f64();
    tsp(&["-K"])?;
    Ok(rate)
}

/// A pueue of the benchmark's own: all that it keeps is in its scratch directory. Killed when dropped.
struct Pueue {
    daemon: Child,
    scratch: Scratch,
}

impl Pueue {
    /// In the foreground, so that it is a child that can be ended and is interrupted together with the benchmark.
    fn start() -> io::Result<Self> {
        let scratch = Scratch::new()?;
        let daemon = Self::command("pueued", &scratch)
            .stdout(Stdio::null())
            .stderr(fs::File::create(scratch.path().join("stderr"))?)
            .spawn()?;
        let mut pueue = Self { daemon, scratch };
        let limit = Instant::now() + PUEUE_READY;
        while !pueue.client(&["status"])?.status.success() {
            if let Some(status) = pueue.daemon.try_wait()? {
                let said = fs::read_to_string(pueue.scratch.path().join("stderr"))?;
                let said = said.lines().next().unwrap_or_default().to_owned();
                return Err(io::Error::other(format!("pueued ended: {status} {said}")));
            }
            if Instant::now() > limit {
                return Err(io::Error::other("pueued does not answer"));
            }
            pause(Duration::from_millis(20));
        }
        Ok(pueue)
    }

    /// Without the variables of whoever started the benchmark: they name the directories of that person's own pueue,
    /// and pueue writes all of them down with each job.
    fn command(program: &str, scratch: &Scratch) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("HOME", scratch.path())
            .env("XDG_RUNTIME_DIR", scratch.path())
            .current_dir(scratch.path())
            .stdin(Stdio::null());
        command
    }

    fn client(&self, args: &[&str]) -> io::Result<Output> {
        Self::command("pueue", &self.scratch).args(args).output()
    }

    /// The same where it must succeed; gives its standard output.
    fn ask(&self, args: &[&str]) -> io::Result<Vec<u8>> {
        let output = self.client(args)?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let said = said.lines().next().unwrap_or_default();
        Err(io::Error::other(format!("pueue {args:?}: {said}")))
    }

    /// How many jobs have succeeded. One that has failed is an error.
    fn succeeded(&self) -> io::Result<u32> {
        let state: serde_json::Value =
            serde_json::from_slice(&self.ask(&["status", "--json"])?).map_err(io::Error::other)?;
        let jobs = state["tasks"].as_object();
        let jobs = jobs.ok_or_else(|| io::Error::other("pueue tells of no jobs"))?;
        let mut succeeded = 0;
        for end in jobs.values().filter_map(|job| job["status"].get("Done")) {
            if end["result"] != "Success" {
                return Err(io::Error::other(format!("a job of pueue ended so: {end}")));
            }
            succeeded += 1;
        }
        Ok(succeeded)
    }
}

impl Drop for Pueue {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// Jobs per second through pueue's client, four slots, until the last has ended.
pub(crate) fn pueue(count: u32) -> io::Result<f64> {
    let pueue = Pueue::start()?;
    pueue.ask(&["parallel", "4"])?;
    let begin = Instant::now();
    for _ in 0..count {
        pueue.ask(&["add", "--", "/bin/true"])?;
    }
    // `pueue wait` looks every two seconds only.
    while pueue.succeeded()? < count {
        if begin.elapsed() > PUEUE_JOBS {
            return Err(io::Error::other("the jobs of pueue do not end"));
        }
        pause(Duration::from_millis(20));
    }
    Ok(f64::from(count) / begin.elapsed().as_secs_f64())
}
