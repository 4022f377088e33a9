//! What the figures are compared with. One that cannot be had here is reported as such.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::client::{self, Connection};
use crate::service::{Scratch, pause};
use crate::stats::float64;

/// Why a baseline is missing.
pub(crate) type Missing = String;

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

/// Jobs per second through pueue's client, four slots, until the last has ended.
pub(crate) fn pueue(count: u32) -> io::Result<f64> {
    let scratch = Scratch::new()?;
    let run = |program: &str, args: &[&str]| {
        Command::new(program)
            .args(args)
            .env("XDG_RUNTIME_DIR", scratch.path())
            .env("XDG_CONFIG_HOME", scratch.path())
            .env("XDG_DATA_HOME", scratch.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
    };
    run("pueued", &["--daemonize"])?;
    pause(Duration::from_millis(500));
    run("pueue", &["parallel", "4"])?;
    let begin = Instant::now();
    for _ in 0..count {
        run("pueue", &["add", "--", "/bin/true"])?;
    }
    run("pueue", &["wait", "--quiet"])?;
    let rate = f64::from(count) / begin.elapsed().as_secs_f64();
    run("pueue", &["shutdown"])?;
    Ok(rate)
}
