//! A real server of its own for each test, and a client that sends any bytes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Longer than any answer may take.
pub(crate) const LONG: Duration = Duration::from_secs(30);

pub(crate) struct Server {
    child: Child,
    dir: tempfile::TempDir,
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    pub(crate) fn with(flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::in_dir(dir, flags)
    }

    pub(crate) fn in_dir(dir: tempfile::TempDir, flags: &[&str]) -> Self {
        let mut child = program()
            .args([
                "serve",
                "--listen=127.0.0.1:0",
                "--on-shutdown=stop",
                "--min-free-bytes=0",
            ])
            .args(flags)
            .arg("--state-dir")
            .arg(dir.path().join("state"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line
            .trim()
            .rsplit('/')
            .next()
            .unwrap()
            .parse()
            .expect(&line);
        let token = std::fs::read_to_string(dir.path().join("state/token")).unwrap();
        Self {
            child,
            dir,
            address,
            token,
        }
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// A file that a request which got through would have made.
    pub(crate) fn canary(&self) -> PathBuf {
        self.dir.path().join("canary")
    }

    /// The body of a request that would make it.
    pub(crate) fn canary_body(&self) -> String {
        format!(
            r#"{{"command":["/usr/bin/touch","{}"]}}"#,
            self.canary().display()
        )
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream
    }

    /// Sends bytes as they are and reads until the server closes.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Vec<Answer> {
        let mut stream = self.connect();
        // The server may close before it has read everything.
        let _ = stream.write_all(bytes);
        answers(&mut stream)
    }

    /// One ordinary request.
    pub(crate) fn ask(&self, token: &str, method: &str, path: &str, body: &str) -> Answer {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        self.raw(request.as_bytes()).remove(0)
    }

    /// The server still answers, and no hostile command has run.
    pub(crate) fn assert_unharmed(&self) {
        assert_eq!(self.ask(&self.token, "GET", "/jobs", "").status, 200);
        assert!(!self.canary().exists());
        let jobs = self.ask(&self.token, "GET", "/jobs", "").body;
        assert!(jobs.contains(r#""jobs":[]"#), "{jobs}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The supervisor stops the jobs and the server; killing it would leave them.
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

/// The program under test, without settings from the environment.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_procession"));
    command.env_clear().stdin(Stdio::null());
    command
}

/// Runs a client command and gives its exit code and standard output.
pub(crate) fn run(args: &[&str], state_dir: &Path) -> (i32, String) {
    let output = program()
        .args(args)
        .arg("--state-dir")
        .arg(state_dir)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (output.status.code().unwrap(), text.trim().to_owned())
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Answer {
    /// The status and the code of a problem; an empty code where there is none.
    pub(crate) fn problem(&self) -> (u16, String) {
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        let code = body["code"].as_str().unwrap_or_default();
        (self.status, code.to_owned())
    }
}

/// Every answer until the end of the connection.
pub(crate) fn answers(stream: &mut impl Read) -> Vec<Answer> {
    let mut bytes = Vec::new();
    // A reset after the answer is how a server stops a client that goes on sending.
    let _ = stream.read_to_end(&mut bytes);
    let mut rest = String::from_utf8_lossy(&bytes).into_owned();
    let mut answers = Vec::new();
    while let Some((head, after)) = rest.split_once("\r\n\r\n") {
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length = head
            .lines()
            .find_map(|line| {
                line.to_ascii_lowercase()
                    .strip_prefix("content-length: ")?
                    .parse()
                    .ok()
            })
            .unwrap_or(after.len());
        let cut = length.min(after.len());
        answers.push(Answer {
            status,
            body: after[..cut].to_owned(),
        });
        rest = after[cut..].to_owned();
    }
    answers
}
