//! Faults: who can be killed, a service that is started again on what is there, and a client that goes on.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::{self, F_WRLCK, SEEK_SET};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::{Client, Method};
use serde_json::Value;

use super::waits::GLANCE;
use super::{LONG, Process, Reply, Server, contract};

impl Server {
    /// Uses the token that the service has made in a new state directory.
    pub(crate) fn read_token(&mut self) {
        let token = fs::read_to_string(self.state_dir().join("token")).unwrap();
        token.trim().clone_into(&mut self.token);
    }

    /// Kills the supervisor.
    pub(crate) fn kill_supervisor(&mut self) {
        self.end(Signal::SIGKILL);
        assert!(self.child.is_none(), "a killed supervisor ends");
    }

    /// Has it been started, and not ended since?
    pub(crate) fn is_started(&self) -> bool {
        self.child.is_some()
    }

    /// Has the supervisor ended by now?
    pub(crate) fn has_ended(&mut self) -> bool {
        if let Some(child) = &mut self.child
            && child.try_wait().unwrap().is_some()
        {
            self.child = None;
        }
        self.child.is_none()
    }

    /// The server, where there is one at the moment.
    pub(crate) fn server_process(&self) -> Option<Pid> {
        let supervisor = self.supervisor().as_raw();
        super::processes()
            .into_iter()
            .find(|process| {
                process.ppid == supervisor
                    && process.name == "procession-srv"
                    && !process.is_zombie()
            })
            .map(|process| Pid::from_raw(process.pid))
    }

    /// The live monitors by the id of their job. The lock on a job's record says who its monitor is.
    pub(crate) fn monitors(&self) -> HashMap<String, Pid> {
        let entries = fs::read_dir(self.state_dir().join("jobs"))
            .into_iter()
            .flatten();
        entries
            .flatten()
            .filter_map(|entry| {
                let record = fs::File::open(entry.path().join("record")).ok()?;
                let mut lock = libc::flock {
                    l_type: F_WRLCK.try_into().unwrap(),
                    l_whence: SEEK_SET.try_into().unwrap(),
                    l_start: 0,
                    l_len: 0,
                    l_pid: 0,
                };
                // /proc/locks leaves some out while other locks come and go.
                fcntl(&record, FcntlArg::F_GETLK(&mut lock)).ok()?;
                let process = Process::read(lock.l_pid)?;
                let job = entry.file_name().to_str()?.to_owned();
                (process.name == "procession-mon").then_some((job, Pid::from_raw(lock.l_pid)))
            })
            .collect()
    }

    /// A client that goes on when the service is away for a moment.
    pub(crate) fn persistent(&self) -> Persistent {
        Persistent {
            client: self.client.clone(),
            token: self.token.clone(),
            addresses: Arc::new(Mutex::new(vec![self.address])),
            turn: Arc::default(),
            patience: LONG * 2,
        }
    }
}

/// SIGKILL.
pub(crate) fn kill_now(pid: Pid) {
    let _ = kill(pid, Signal::SIGKILL);
}

/// A client that asks again until there is an answer of a service that works.
#[derive(Clone, Debug)]
pub(crate) struct Persistent {
    client: Client,
    token: String,
    addresses: Arc<Mutex<Vec<SocketAddr>>>,
    /// Whose turn it is of several.
    turn: Arc<AtomicUsize>,
    /// How long it asks.
    patience: Duration,
}

impl Persistent {
    /// The same with more patience, where one fault follows the other.
    pub(crate) fn patient(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The service is somewhere else now.
    pub(crate) fn moved(&self, server: &Server) {
        *self.addresses.lock().unwrap() = vec![server.address];
    }

    /// These services answer as well, and are asked in turn.
    pub(crate) fn with<'a>(self, servers: impl IntoIterator<Item = &'a Server>) -> Self {
        let more = servers.into_iter().map(|server| server.address);
        self.addresses.lock().unwrap().extend(more);
        self
    }

    fn address(&self, turn: usize) -> SocketAddr {
        let addresses = self.addresses.lock().unwrap();
        addresses[turn % addresses.len()]
    }

    /// The answer, at last. A 503 is none: the service is going down, or the job's monitor is being
    /// replaced.
    #[expect(clippy::disallowed_methods, reason = "a pause between two attempts")]
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        key: Option<&str>,
    ) -> Reply {
        let end = Instant::now() + self.patience;
        let mut last = String::new();
        // One after the other, whatever other clients do meanwhile.
        let mut turn = self.turn.fetch_add(1, Ordering::Relaxed);
        while Instant::now() < end {
            let address = self.address(turn);
            turn = turn.wrapping_add(1);
            let mut request = self
                .client
                .request(method.clone(), format!("http://{address}{path}"))
                .bearer_auth(&self.token);
            if let Some(body) = body {
                request = request.json(body);
            }
            if let Some(key) = key {
                request = request.header("Idempotency-Key", format!("\"{key}\""));
            }
            match answer(request).await {
                Ok(reply) if reply.status != 503 => {
                    let bare = path.split('?').next().unwrap_or_default();
                    if let Err(why) = contract::check(&method, bare, &reply) {
                        panic!("{method} {path}: not what openapi.yaml says: {why}\n{reply}");
                    }
                    return reply;
                }
                Ok(reply) => last = reply.to_string(),
                Err(error) => last = format!("{error:?}"),
            }
            tokio::time::sleep(GLANCE).await;
        }
        panic!("{method} {path}: no answer: {last}");
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.ask(Method::GET, path, None, None).await
    }

    /// The job as it is when it has ended.
    pub(crate) async fn finished(&self, id: &str) -> Value {
        let end = Instant::now() + self.patience;
        loop {
            let reply = self.get(&format!("/jobs/{id}?wait=5&until=finished")).await;
            assert_eq!(reply.status, 200, "an accepted job is missing: {reply}");
            let job = reply.json();
            if super::is_finished(&job) {
                return job;
            }
            assert!(Instant::now() < end, "has not ended: {job:#}");
        }
    }
}

async fn answer(request: reqwest::RequestBuilder) -> reqwest::Result<Reply> {
    let response = request.send().await?;
    Ok(Reply {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: response.bytes().await?.to_vec(),
    })
}
