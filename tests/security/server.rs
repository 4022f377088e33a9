//! A real server of its own for each test, and a client that sends any bytes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use crate::binary::binary;
use crate::reply::Reply;

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
        std::fs::create_dir(dir.path().join("canaries")).unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
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
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let said = serde_json::from_str::<serde_json::Value>(&line).unwrap_or_default();
        let address = said["url"].as_str().and_then(|url| url.rsplit('/').next());
        let address = address.and_then(|address| address.parse().ok());
        let address = address.unwrap_or_else(|| {
            let log = std::fs::read_to_string(dir.path().join("log"));
            panic!("{line:?}\n{}", log.unwrap_or_default())
        });
        // There is none where nobody has to show one.
        let token = std::fs::read_to_string(dir.path().join("state/token")).unwrap_or_default();
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

    /// Where requests that got through would have made files.
    pub(crate) fn canaries(&self) -> PathBuf {
        self.dir.path().join("canaries")
    }

    /// One such file.
    pub(crate) fn canary(&self) -> PathBuf {
        self.canaries().join("one")
    }

    /// What the service has said.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
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
        self.exchange(bytes, false)
    }

    /// The same; a client that is cut off says that it will send nothing more.
    pub(crate) fn exchange(&self, bytes: &[u8], is_cut: bool) -> Vec<Answer> {
        let mut stream = self.connect();
        // The server may close before it has read everything.
        let _ = stream.write_all(bytes);
        if is_cut {
            let _ = stream.shutdown(std::net::Shutdown::Write);
        }
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

    /// The id and the end, if it has come, of every job.
    pub(crate) fn jobs(&self) -> Vec<String> {
        let answer = self.ask(&self.token, "GET", "/jobs?page_size=1000", "");
        assert_eq!(answer.status, 200, "{answer:?}");
        let list = answer.reply.json();
        let jobs = list["jobs"].as_array().unwrap().iter();
        jobs.map(|job| format!("{} {}", job["id"], job["finished_at"]))
            .collect()
    }

    /// The server still answers and has neither panicked nor been started again, and no hostile command has run.
    pub(crate) fn assert_unharmed(&self) {
        let info = self.ask(&self.token, "GET", "/info", "");
        assert_eq!(info.status, 200, "{info:?}");
        assert_eq!(info.reply.json()["server_restarts"], 0, "{}", self.log());
        assert!(!self.log().contains("panic"), "{}", self.log());
        let ran: Vec<_> = std::fs::read_dir(self.canaries()).unwrap().collect();
        assert!(ran.is_empty(), "{ran:?}");
    }

    /// The same, where nobody has asked for a job that is allowed.
    pub(crate) fn assert_untouched(&self) {
        assert_eq!(self.jobs(), [""; 0]);
        self.assert_unharmed();
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
    let mut command = Command::new(binary());
    command.env_clear().stdin(Stdio::null());
    command
}

/// Runs a client command and gives its exit code, 124 where it does not end, and standard output.
pub(crate) fn run(args: &[&str], state_dir: &Path) -> (i32, String) {
    let output = Command::new("timeout")
        .args(["30", &binary()])
        .env_clear()
        .stdin(Stdio::null())
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
    pub(crate) reply: Reply,
}

impl Answer {
    fn of(head: &str, body: &[u8]) -> Self {
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap();
        let status = status.parse().unwrap();
        let headers: HeaderMap = lines
            .map(|line| {
                let (name, value) = line.split_once(':').unwrap();
                let name: HeaderName = name.parse().unwrap();
                (name, HeaderValue::from_str(value.trim()).unwrap())
            })
            .collect();
        Self {
            status,
            body: String::from_utf8_lossy(body).into_owned(),
            reply: Reply {
                status,
                headers,
                body: body.to_vec(),
            },
        }
    }

    /// The status and the code of a problem; an empty code where there is none.
    pub(crate) fn problem(&self) -> (u16, String) {
        (self.status, self.reply.code())
    }
}

/// Every answer until the end of the connection.
pub(crate) fn answers(stream: &mut impl Read) -> Vec<Answer> {
    let mut bytes = Vec::new();
    // A reset after the answer is how a server stops a client that goes on sending.
    let _ = stream.read_to_end(&mut bytes);
    let mut rest = bytes.as_slice();
    let mut answers = Vec::new();
    while let Some(at) = rest.windows(4).position(|end| end == b"\r\n\r\n") {
        let head = String::from_utf8_lossy(&rest[..at]).into_owned();
        let after = &rest[at + 4..];
        let mut answer = Answer::of(&head, after);
        let length = answer.reply.header("content-length").parse();
        let length: usize = length.unwrap_or(after.len());
        let (body, next) = after.split_at(length.min(after.len()));
        answer = Answer::of(&head, body);
        answers.push(answer);
        rest = next;
    }
    answers
}
