//! The command line as people and scripts use it: the real program against the real service.

mod breaks;
mod here;
mod jobs;
mod proxies;
mod readers;
mod run;
mod streams;
mod terminal;

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{LONG, Server, blocking_until};

/// A client command that runs.
pub(crate) struct Client {
    child: Child,
    stdout: JoinHandle<Vec<u8>>,
    stderr: JoinHandle<Vec<u8>>,
}

/// How a client command ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    /// The output as one JSON value.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).unwrap()
    }

    /// It ended with 0.
    #[track_caller]
    pub(crate) fn good(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }
}

impl Client {
    /// Starts a command; what it prints is read on as it comes.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = read_on(child.stdout.take().unwrap());
        let stderr = read_on(child.stderr.take().unwrap());
        Self {
            child,
            stdout,
            stderr,
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(
            Pid::from_raw(i32::try_from(self.child.id()).unwrap()),
            signal,
        )
        .unwrap();
    }

    /// Waits for its end; one that does not end is killed, and the test fails.
    pub(crate) fn end(mut self) -> Ran {
        let mut status = None;
        blocking_until(LONG, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        if status.is_none() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
        let ran = Ran {
            code: status.and_then(|status| status.code()),
            stdout: self.stdout.join().unwrap(),
            stderr: String::from_utf8_lossy(&self.stderr.join().unwrap()).into_owned(),
        };
        assert!(status.is_some(), "it does not end: {ran:?}");
        ran
    }
}

fn read_on(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        let _ = from.read_to_end(&mut all);
        all
    })
}

/// A client command of this service without input.
pub(crate) fn command(server: &Server, args: &[&str]) -> Command {
    let mut command = server.client();
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub(crate) fn cli(server: &Server, args: &[&str]) -> Ran {
    Client::start(command(server, args)).end()
}

/// The same with this input.
pub(crate) fn cli_with_input(server: &Server, args: &[&str], input: Vec<u8>) -> Ran {
    let mut command = command(server, args);
    let mut client = Client::start({
        command.stdin(Stdio::piped());
        command
    });
    let mut stdin = client.child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let ran = client.end();
    // A command that does not read all of it breaks the pipe.
    let _ = writer.join().unwrap();
    ran
}
