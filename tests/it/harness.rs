//! A service under test: started, spoken to, checked and taken away again.
//!
//! It knows nothing of the program's insides: only its command line, its HTTP API and what `/proc` and
//! the file system show.

mod again;
mod binary;
mod contract;
mod lines;
mod reply;
mod scale;
mod scan;
mod waits;

use std::fs::{self, File};
use std::future::Future;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid, pipe2};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) use again::{Persistent, kill_now};
pub(crate) use binary::binary;
pub(crate) use lines::Lines;
pub(crate) use reply::{Reply, id, is_finished};
pub(crate) use scale::{amount, bound};
pub(crate) use scan::{Process, is_spare, job_cgroups, processes, processes_with};
pub(crate) use waits::{LONG, blocking_until, eventually, eventually_within};

/// [`LONG`] as a query wants it.
const WAIT: &str = "wait=30";

/// The variable that marks every process of one service. Jobs inherit it, since `LC_*` is among the
/// variables that they get by default.
const MARK: &str = "LC_PROCESSION_TEST";

/// Are these tests run by root? Some answers differ by that, and both are asserted.
pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}

/// A word that nothing else on this machine has in its command line.
pub(crate) fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("ptest{}x{count}x", std::process::id())
}

/// An argument for sleep(1) that is hours and that nothing else on this machine sleeps.
pub(crate) fn unique_seconds() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(1);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // The final 1 keeps one number from being the beginning of another.
    format!("5000.{:07}{count:05}1", std::process::id())
}

/// How a service is to be started.
#[derive(Debug)]
pub(crate) struct Builder {
    args: Vec<String>,
    env: Vec<(String, String)>,
    prelude: String,
    authority: Option<String>,
}

impl Builder {
    /// The service talks TLS, with a certificate that this authority (in PEM) has signed.
    pub(crate) fn trusting(mut self, authority: String) -> Self {
        self.authority = Some(authority);
        self
    }

    /// Shell commands before the service, which replaces that shell: what it inherits from them.
    pub(crate) fn prelude(mut self, commands: &str) -> Self {
        commands.clone_into(&mut self.prelude);
        self
    }

    /// Has the service find no cgroups, where this process may arrange that; else it may find some.
    pub(crate) fn without_cgroups(self) -> Self {
        self.prelude(
            r#"if unshare --mount true 2> /dev/null; then
                set -- unshare --mount sh -c '
                    for at in $(sed -n "s/^\([^ ]* \)\{4\}\([^ ]*\) .* - cgroup2 .*/\2/p" /proc/self/mountinfo); do
                        umount -l "$at"
                    done
                    exec "$@"' sh "$@"
            fi"#,
        )
    }

    /// More arguments of `procession serve`.
    pub(crate) fn args<A: Into<String>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// A variable in the environment of the service.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts the service and waits until it listens.
    pub(crate) async fn start(self) -> Server {
        let is_kept = std::env::var_os("PROCESSION_TEST_KEEP").is_some();
        let home = tempfile::Builder::new().disable_cleanup(is_kept).tempdir();
        let (home, mark) = (home.unwrap(), unique());
        let authority = self.authority.clone();
        let (child, address) = self.launch(home.path(), &mark);
        let mut client = Client::builder()
            .timeout(LONG * 2)
            .no_proxy()
            // A connection that a crash of the server breaks must not be the next request's.
            .pool_max_idle_per_host(0);
        if let Some(authority) = &authority {
            let authority = reqwest::Certificate::from_pem(authority.as_bytes());
            client = client.add_root_certificate(authority.unwrap());
        }
        let token = fs::read_to_string(home.path().join("state/token")).unwrap_or_default();
        Server {
            child: Some(child),
            address,
            scheme: if authority.is_some() { "https" } else { "http" },
            token: token.trim().to_owned(),
            client: client.build().unwrap(),
            mark,
            home,
            had_another: false,
        }
    }

    /// Starts the service on this directory; gives the process and its address.
    fn launch(self, home: &Path, mark: &str) -> (Child, SocketAddr) {
        let log = home.join("log");
        let mut command = program(mark, &self.prelude);
        // As variables, so that a test can give the flags.
        command
            .env("PROCESSION_LISTEN", "127.0.0.1:0")
            .env("PROCESSION_ON_SHUTDOWN", "stop")
            .env("PROCESSION_SHUTDOWN_GRACE_SECONDS", "0.2")
            .env("PROCESSION_MIN_FREE_BYTES", "0")
            .env("PROCESSION_LOG_LEVEL", "debug")
            .envs(self.env)
            .args(["serve", "--state-dir"])
            .arg(home.join("state"))
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr(&log));
        let mut child = command.spawn().unwrap();
        let line = first_line(&mut child);
        let address: Option<SocketAddr> = line
            .as_deref()
            .and_then(|line| serde_json::from_str::<Value>(line).ok())
            .and_then(|line| line["url"].as_str()?.split_once("://")?.1.parse().ok());
        let Some(address) = address else {
            let _ = child.kill();
            let log = fs::read_to_string(&log).unwrap_or_default();
            panic!("the service does not listen; it said {line:?}, and\n{log}");
        };
        (child, address)
    }
}

/// The program, with an environment in which only the necessary is set.
pub(crate) fn program(mark: &str, prelude: &str) -> Command {
    let binary = binary();
    let mut command = if prelude.is_empty() {
        Command::new(&binary)
    } else {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &format!("{prelude}\nexec \"$@\""), "sh", &binary]);
        shell
    };
    for (name, _) in std::env::vars() {
        if name.starts_with("PROCESSION_") || name.starts_with("LC_") {
            command.env_remove(name);
        }
    }
    command.env(MARK, mark);
    command
}

/// Where the service's log goes: to a file, unless these tests are to run with a log that cannot be written (`full`) or that
/// nobody reads (`unread`): `make test-unheard`.
fn stderr(log: &Path) -> Stdio {
    let to = std::env::var("PROCESSION_TEST_STDERR").unwrap_or_default();
    match to.as_str() {
        "full" => File::options()
            .write(true)
            .open("/dev/full")
            .unwrap()
            .into(),
        "unread" => full_pipe().into(),
        _ => {
            let file = File::options().create(true).append(true).open(log);
            file.unwrap().into()
        }
    }
}

/// The write end of a pipe that takes nothing more. Its reader is this process, which never reads.
fn full_pipe() -> OwnedFd {
    let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).unwrap();
    while nix::unistd::write(&write, &[b' '; 512]).is_ok() {}
    fcntl(&write, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    std::mem::forget(read);
    write
}

/// The first line on a child's standard output, if there is one within [`LONG`].
fn first_line(child: &mut Child) -> Option<String> {
    let mut output = BufReader::new(child.stdout.take()?);
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = output.read_line(&mut line);
        let _ = sender.send(read.map(|_| line));
        // Held open: a service that writes more must not be killed by a closed pipe.
        let _ = std::io::copy(&mut output, &mut std::io::sink());
    });
    receiver.recv_timeout(LONG).ok()?.ok()
}

/// A running service.
#[derive(Debug)]
pub(crate) struct Server {
    child: Option<Child>,
    address: SocketAddr,
    scheme: &'static str,
    token: String,
    client: Client,
    mark: String,
    home: TempDir,
    /// It was started again, or its parts were killed: a monitor of before may outlive it by a moment, in its cgroup.
    had_another: bool,
}

impl Server {
    /// A service as it starts by default, with the limits that tests need.
    pub(crate) async fn start() -> Self {
        Self::builder().start().await
    }

    /// A service with other arguments or variables.
    pub(crate) fn builder() -> Builder {
        Builder {
            args: Vec::new(),
            env: Vec::new(),
            prelude: String::new(),
            authority: None,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.home.path().join("state")
    }

    /// The program as a client of this service, which it finds by the state directory.
    pub(crate) fn client(&self) -> Command {
        let mut command = program(&self.mark, "");
        command.env("PROCESSION_STATE_DIR", self.state_dir());
        command
    }

    /// A directory for the files of one test, outside the state directory; every user can enter it.
    pub(crate) fn scratch(&self) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let scratch = self.home.path().join("scratch");
        fs::create_dir_all(&scratch).unwrap();
        for open in [self.home.path(), &scratch] {
            fs::set_permissions(open, fs::Permissions::from_mode(0o755)).unwrap();
        }
        scratch
    }

    pub(crate) fn supervisor(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.as_ref().unwrap().id()).unwrap())
    }

    /// The environment that the service itself has.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        let environ = fs::read(format!("/proc/{}/environ", self.supervisor())).unwrap();
        let environ = String::from_utf8(environ).unwrap();
        let pairs = environ
            .split_terminator('\0')
            .filter_map(|pair| pair.split_once('='));
        pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    /// What the service has written to its log.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    /// Every process of the service and of its jobs that can be told by its environment.
    pub(crate) fn marked(&self) -> Vec<Process> {
        scan::processes_marked(&format!("{MARK}={}", self.mark))
    }

    // --- requests -----------------------------------------------------------------------------

    /// A request with the token.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.anonymous(method, path).bearer_auth(&self.token)
    }

    /// A request without the token.
    pub(crate) fn anonymous(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("{}://{}{path}", self.scheme, self.address))
    }

    /// Sends a request and checks that the answer is one that the description has.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Reply {
        self.try_send(request).await.unwrap()
    }

    /// The same, where the server may crash meanwhile.
    pub(crate) async fn try_send(&self, request: RequestBuilder) -> reqwest::Result<Reply> {
        let request = request.build()?;
        let method = request.method().clone();
        let path = request.url().path().to_owned();
        let response = self.client.execute(request).await?;
        let reply = Reply {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.bytes().await?.to_vec(),
        };
        if let Err(why) = contract::check(&method, &path, &reply) {
            panic!("{method} {path}: not what openapi.yaml says: {why}\n{reply}");
        }
        Ok(reply)
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(self.request(Method::GET, path)).await
    }

    pub(crate) async fn delete(&self, id: &str, query: &str) -> Reply {
        let path = format!("/jobs/{id}?{query}");
        self.send(self.request(Method::DELETE, &path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    // --- jobs ---------------------------------------------------------------------------------

    /// Creates a job, which must be accepted, and gives it as it is then.
    #[track_caller]
    pub(crate) fn submit(&self, body: &Value) -> impl Future<Output = Value> {
        self.created("/jobs", body.clone())
    }

    /// Creates a job and gives it as it is when it has ended.
    #[track_caller]
    pub(crate) fn run(&self, body: &Value) -> impl Future<Output = Value> {
        ended(self.created("/jobs?wait=30", body.clone()))
    }

    /// Creates a job of a shell script and gives it as it is when it has ended.
    #[track_caller]
    pub(crate) fn run_script(&self, script: &str) -> impl Future<Output = Value> + use<'_> {
        let job = self.created("/jobs?wait=30", json!({ "script": script }));
        ended(job)
    }

    #[track_caller]
    fn created<'a>(
        &'a self,
        path: &'static str,
        body: Value,
    ) -> impl Future<Output = Value> + use<'a> {
        let place = std::panic::Location::caller();
        async move {
            let reply = self.post(path, &body).await;
            assert_eq!(reply.status, 201, "from {place}: {body}\n{reply}");
            reply.json()
        }
    }

    /// The job as it is now.
    pub(crate) async fn job(&self, id: &str) -> Value {
        let reply = self.get(&format!("/jobs/{id}")).await;
        assert_eq!(reply.status, 200, "{reply}");
        reply.json()
    }

    /// The job as it is when it has ended.
    pub(crate) async fn finished(&self, id: &str) -> Value {
        let job = self.get(&format!("/jobs/{id}?{WAIT}&until=finished")).await;
        let job = job.json();
        assert!(is_finished(&job), "has not ended: {job:#}\n{}", self.log());
        job
    }

    /// The job when it is in this state; it must be on its way there.
    pub(crate) async fn in_state(&self, id: &str, state: &str) -> Value {
        let end = Instant::now() + LONG;
        let mut job = self.job(id).await;
        while job["state"] != state {
            assert!(
                Instant::now() < end && !is_finished(&job),
                "will not be {state}: {job:#}"
            );
            let version = &job["version"];
            let path = format!("/jobs/{id}?{WAIT}&until=change&after_version={version}");
            job = self.get(&path).await.json();
        }
        job
    }

    /// Has the timeout of a job strike, and gives the job as it is when it has ended: what it has run counts, so that this one
    /// has passed.
    pub(crate) async fn time_out(&self, id: &str) -> Value {
        let request = self.request(Method::PATCH, &format!("/jobs/{id}"));
        let body = json!({"timeout_seconds": 0.001});
        let reply = self.send(request.json(&body)).await;
        assert_eq!(reply.status, 200, "{reply}");
        self.finished(id).await
    }

    /// Stops a job and gives it as it is when it has ended.
    pub(crate) async fn stop(&self, id: &str, query: &str) -> Value {
        let reply = self.delete(id, &format!("{WAIT}&{query}")).await;
        assert_eq!(reply.status, 200, "{reply}\n{}", self.log());
        reply.json()
    }

    /// All that a job has written that is still kept.
    pub(crate) async fn output(&self, id: &str) -> Vec<u8> {
        let reply = self.get(&format!("/jobs/{id}/output")).await;
        assert_eq!(reply.status, 200, "{reply}");
        reply.body
    }

    /// The same as text, without what is no UTF-8.
    pub(crate) async fn text(&self, id: &str) -> String {
        String::from_utf8_lossy(&self.output(id).await).into_owned()
    }

    /// What it has written to standard output. A shell tells of signals on standard error.
    pub(crate) async fn stdout(&self, id: &str) -> String {
        let reply = self.get(&format!("/jobs/{id}/output/stdout")).await;
        assert_eq!(reply.status, 200, "{reply}");
        String::from_utf8(reply.body).unwrap()
    }

    /// The output of a job, once this text is in it.
    pub(crate) async fn says(&self, id: &str, text: &str) -> String {
        eventually(&format!("the output has {text:?}"), async || {
            let output = self.text(id).await;
            output.contains(text).then_some(output)
        })
        .await
    }

    // --- the end ------------------------------------------------------------------------------

    /// Sends the service a signal and waits for its end.
    pub(crate) fn end(&mut self, signal: Signal) -> Option<ExitStatus> {
        let child = self.child.as_ref()?;
        let _ = kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal);
        self.wait_for_end()
    }

    /// Waits for the service's end, for which it has been asked.
    pub(crate) fn wait_for_end(&mut self) -> Option<ExitStatus> {
        let child = self.child.as_mut()?;
        let mut status = None;
        blocking_until(LONG, || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        self.child = self.child.take().filter(|_| status.is_none());
        status
    }

    /// Starts the service anew on the same state directory, after it has ended.
    pub(crate) async fn start_again(&mut self, builder: Builder) {
        self.restart(builder);
    }

    /// The same where nobody can await.
    pub(crate) fn restart(&mut self, builder: Builder) {
        assert!(self.child.is_none(), "it has not ended");
        let (child, address) = builder.launch(self.home.path(), &self.mark);
        self.child = Some(child);
        self.address = address;
        self.had_another = true;
    }

    /// Ends the service and says what is left of it; nothing should be.
    fn take_away(&mut self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.child.is_some() {
            match self.end(Signal::SIGTERM) {
                Some(status) if status.success() => {}
                Some(status) => wrong.push(format!("the service ended with {status}")),
                None => {
                    wrong.push("the service did not end on SIGTERM".to_owned());
                    self.end(Signal::SIGKILL);
                }
            }
        }
        let gone = blocking_until(LONG, || self.marked().is_empty());
        if !gone {
            for process in self.marked() {
                wrong.push(format!("left behind: {process:?}"));
                let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
            }
        }
        wrong.extend(scan::remove_cgroups(&self.state_dir(), self.had_another));
        if let Err(error) = remove(&self.state_dir()) {
            wrong.push(format!("the state directory cannot be removed: {error}"));
        }
        wrong
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let log = self.log();
        let wrong = self.take_away();
        if std::thread::panicking() {
            // The test has failed already; a second panic would hide why.
            eprintln!("{}\nleft behind: {wrong:#?}", tail(&log, 60));
        } else {
            assert!(wrong.is_empty(), "{wrong:#?}\n{}", tail(&self.log(), 60));
        }
    }
}

fn remove(directory: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

async fn ended(job: impl Future<Output = Value>) -> Value {
    let job = job.await;
    assert!(is_finished(&job), "has not ended: {job:#}");
    job
}
