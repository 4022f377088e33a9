//! When a job is ready: by its output, a port, a file, or what it reports; and on which ports it listens.

mod crash;

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::Client;
use crate::cluster::port;
use crate::files::crash::Armed;
use crate::harness::{Server, bound, id, is_root};

/// Listens on a port of 127.0.0.1 once a line comes, and says when it does.
const LISTENER: &str = r#"
import socket, sys, time
sys.stdin.readline()
it = socket.socket()
it.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
it.bind((sys.argv[2], int(sys.argv[1])))
it.listen()
print(time.time(), flush=True)
sys.stdin.read()
"#;

fn listener(port: u16, address: &str, ready: &Value) -> Value {
    json!({
        "command": ["python3", "-c", LISTENER, port.to_string(), address],
        "stdin": {"mode": "open"}, "ready": ready,
    })
}

async fn input(server: &Server, job: &str, text: &'static str) {
    let request = server.request(Method::POST, &format!("/jobs/{job}/stdin"));
    assert_eq!(server.send(request.body(text)).await.status, 204);
}

/// The job once it is known whether it is ready.
async fn known(server: &Server, job: &str) -> Value {
    let reply = server
        .get(&format!("/jobs/{job}?wait=30&until=ready"))
        .await;
    assert_eq!(reply.status, 200, "{reply}");
    reply.json()
}

async fn events(server: &Server, job: &str) -> String {
    let reply = server
        .get(&format!("/jobs/{job}/events?follow=false"))
        .await;
    String::from_utf8(reply.body).unwrap()
}

fn micros(at: &Value) -> i64 {
    let at = at.as_str().unwrap_or_else(|| panic!("no moment: {at}"));
    at.parse::<jiff::Timestamp>().unwrap().as_microsecond()
}

#[tokio::test]
async fn a_server_is_ready_once_it_listens() {
    let server = Server::start().await;
    let port = port();
    let job = server
        .submit(&listener(port, "127.0.0.1", &json!({"port": port})))
        .await;
    assert_eq!(job["ready_at"], Value::Null, "{job:#}");
    let job = id(&job);
    let (waited, ()) = tokio::join!(known(&server, &job), input(&server, &job, "go\n"));
    assert_eq!(waited["state"], "running", "{waited:#}");
    let pid = &waited["process"]["pid"];
    let message = format!("port {port} at 127.0.0.1, process {pid}");
    assert_eq!(waited["ready_message"], message, "{waited:#}");
    let listens: f64 = server.says(&job, "\n").await.trim().parse().unwrap();
    let listens = Duration::from_secs_f64(listens);
    let ready = Duration::from_micros(u64::try_from(micros(&waited["ready_at"])).unwrap());
    // It says so a little later than it does so.
    let late = ready.saturating_sub(listens);
    assert!(late < bound(Duration::from_millis(200)), "{late:?}");
    let all = events(&server, &job).await;
    assert_eq!(all.matches("\"job.ready\"").count(), 1, "{all}");
    assert!(all.find("job.started") < all.find("\"job.ready\""), "{all}");
}

#[tokio::test]
async fn a_port_of_another_process_and_one_at_another_address_do_not_count() {
    let server = Server::start().await;
    let taken = port();
    let _held = TcpListener::bind(("127.0.0.1", taken)).unwrap();
    let ready = json!({"port": taken, "timeout_seconds": 1});
    let job = server
        .submit(&json!({"command": ["sleep", "600"], "ready": ready}))
        .await;
    let foreign = known(&server, &id(&job)).await;
    assert_eq!(
        (&foreign["state"], &foreign["ready_at"]),
        (&json!("running"), &Value::Null),
        "{foreign:#}"
    );
    let why = format!("a process that is none of the job's listens on port {taken}");
    assert_eq!(foreign["ready_message"], why, "{foreign:#}");

    let port = port();
    let ready = json!({"port": port, "address": "routable", "timeout_seconds": 1});
    let job = id(&server.submit(&listener(port, "127.0.0.1", &ready)).await);
    input(&server, &job, "go\n").await;
    server.says(&job, "\n").await;
    let loopback = known(&server, &job).await;
    assert_eq!(loopback["ready_at"], Value::Null, "{loopback:#}");
}

#[tokio::test]
async fn a_line_is_found_that_comes_in_two_writes_and_is_no_text() {
    let server = Server::start().await;
    let script = r"printf 'list\377en'; read x; printf 'ing on 80\nmore\n' >&2; printf 'ing on 80\nmore\n'; exec sleep 600";
    let ready = json!({"log": "^list.*ing on [0-9]+$", "stream": "stdout"});
    let body = json!({"script": script, "stdin": {"mode": "open"}, "ready": ready});
    let job = id(&server.submit(&body).await);
    server.says(&job, "list").await;
    assert_eq!(server.job(&job).await["ready_at"], Value::Null);
    input(&server, &job, "go\n").await;
    // `.` is a character unless one says that it is a byte.
    let ready = json!({"log": "(?-u)^list.ening on [0-9]+$", "stream": "stdout"});
    let body = json!({"script": script, "stdin": {"mode": "open"}, "ready": ready});
    let other = id(&server.submit(&body).await);
    input(&server, &other, "go\n").await;
    let found = known(&server, &other).await;
    assert_eq!(
        found["ready_message"], "list\u{fffd}ening on 80",
        "{found:#}"
    );
    // What is on standard error is none.
    let job = server.job(&job).await;
    assert_eq!(job["ready_at"], Value::Null, "{job:#}");
}

#[tokio::test]
async fn whoever_waits_for_a_job_that_ends_first_has_its_end() {
    let server = Server::start().await;
    let body = json!({"script": "echo no; exit 3", "ready": {"log": "^yes$"}});
    let reply = server.post("/jobs?wait=30&until=ready", &body).await;
    let job = reply.json();
    assert_eq!(
        (&job["state"], &job["ready_at"]),
        (&json!("failed"), &Value::Null),
        "{job:#}"
    );
    // The last line of one that ends counts.
    let body = json!({"script": "echo yes; exit 3", "ready": {"log": "^yes$"}});
    let job = server.run(&body).await;
    assert_eq!(job["ready_message"], "yes", "{job:#}");
    let all = events(&server, &id(&job)).await;
    let (ready, finished) = (all.find("\"job.ready\""), all.find("job.finished"));
    assert!(ready.is_some() && ready < finished, "{all}");
    assert_eq!(all.matches("\"job.ready\"").count(), 1, "{all}");
}

#[tokio::test]
async fn a_job_that_is_not_ready_in_time_runs_on_or_is_stopped() {
    let server = Server::start().await;
    let body = |on_timeout: &str| {
        let ready = json!({"file": "up", "timeout_seconds": 0.2, "on_timeout": on_timeout});
        json!({"script": "read x; echo > up; exec sleep 600", "stdin": {"mode": "open"}, "ready": ready})
    };
    let job = id(&server.submit(&body("nothing")).await);
    let late = known(&server, &job).await;
    assert_eq!(late["state"], "running", "{late:#}");
    assert!(
        late["not_ready_at"].is_string() && late["ready_at"].is_null(),
        "{late:#}"
    );
    assert!(
        events(&server, &job).await.contains("\"job.not_ready\""),
        "{late:#}"
    );
    // It may come all the same.
    input(&server, &job, "go\n").await;
    let version = &late["version"];
    let reply = server
        .get(&format!("/jobs/{job}?wait=30&after_version={version}"))
        .await;
    let ready = reply.json();
    assert_eq!(ready["ready_message"], "file up", "{ready:#}");

    let stopped = server.run(&body("stop")).await;
    assert_eq!(
        (&stopped["state"], &stopped["state_reason"]),
        (&json!("failed"), &json!("not_ready")),
        "{stopped:#}"
    );
}

/// Sends a message from a process beneath the one that was started, and stays.
const REPORTER: &str = r#"
import os, socket, sys, time
sys.stdin.readline()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        it = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        it.connect("\0" + os.environ["NOTIFY_SOCKET"][1:])
        it.send(b"STATUS=warming up")
        it.send(b"READY=1\nSTATUS=serving")
        it.send(b"STATUS=later")
        print("sent", flush=True)
        time.sleep(600)
    time.sleep(600)
time.sleep(600)
"#;

#[tokio::test]
async fn a_process_of_the_job_reports_and_no_other() {
    let server = Server::start().await;
    let body = json!({
        "command": ["python3", "-c", REPORTER], "stdin": {"mode": "open"}, "ready": {"notify": true},
    });
    let job = id(&server.submit(&body).await);
    let name = format!("procession-notify-{job}");
    let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
    let sender = UnixDatagram::unbound().unwrap();
    sender
        .send_to_addr(b"READY=1\nSTATUS=forged", &address)
        .unwrap();
    input(&server, &job, "go\n").await;
    let ready = known(&server, &job).await;
    assert_eq!(ready["ready_message"], "serving", "{ready:#}");
    server.says(&job, "sent").await;
    // Whoever reports later is heard, and nothing comes of it.
    sender.send_to_addr(b"WATCHDOG=1", &address).unwrap();

    // A user's own variable would be in its way.
    let body =
        json!({"command": ["true"], "env": {"NOTIFY_SOCKET": "x"}, "ready": {"notify": true}});
    let reply = server.post("/jobs", &body).await;
    let pointer = &reply.json()["errors"][0]["pointer"];
    assert_eq!(pointer, "/env/NOTIFY_SOCKET", "{reply}");
}

/// Three processes listen, one of them where nobody may look unless root does.
const THREE: &str = r#"
import ctypes, os, socket, time
def listen(address):
    it = socket.socket()
    it.bind((address, 0))
    it.listen()
    print(it.getsockname()[1], flush=True)
    return it
mine = listen("127.0.0.1")
for hidden in (False, True):
    if os.fork() == 0:
        mine.close()
        other = listen("0.0.0.0")
        if hidden:
            ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
            print("hidden", flush=True)
        time.sleep(600)
time.sleep(600)
"#;

#[tokio::test]
async fn the_ports_are_those_of_all_processes_that_may_be_looked_at() {
    let server = Server::start().await;
    let body = json!({"command": ["python3", "-c", THREE]});
    let job = id(&server.submit(&body).await);
    let said = crate::harness::eventually("all listen", async || {
        let text = server.text(&job).await;
        (text.lines().count() == 4).then_some(text)
    })
    .await;
    let list = server.get(&format!("/jobs/{job}/ports")).await.json();
    let found = list["ports"].as_array().unwrap();
    // Of the one that hides, root alone learns it.
    assert_eq!(list["complete"], is_root(), "{list:#}");
    assert_eq!(found.len(), if is_root() { 3 } else { 2 }, "{list:#}");
    for port in found {
        let number = port["port"].to_string();
        assert!(said.lines().any(|line| line == number), "{said} {list:#}");
        assert_eq!(port["protocol"], "tcp", "{list:#}");
    }
    let pids: std::collections::BTreeSet<_> = found.iter().map(|it| it["pid"].as_i64()).collect();
    assert_eq!(pids.len(), found.len(), "{list:#}");
    let at = |address: &str| found.iter().filter(|it| it["address"] == address).count();
    assert_eq!(at("127.0.0.1"), 1, "{list:#}");
    server.stop(&job, "force").await;
    let list = server.get(&format!("/jobs/{job}/ports")).await.json();
    assert_eq!(list, json!({"ports": [], "complete": true}));
    let none = server.get("/jobs/00000000-0000-0000-0000-000000000000/ports");
    assert_eq!(none.await.status, 404);
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_with_its_place() {
    let server = Server::start().await;
    for (ready, pointer) in [
        (json!({}), "/ready/log"),
        (json!({"log": "a", "port": 80}), "/ready/port"),
        (json!({"log": "("}), "/ready/log"),
        (json!({"log": "a".repeat(4097)}), "/ready/log"),
        (json!({"log": "a{9999}{9999}"}), "/ready/log"),
        (json!({"log": "a", "stream": "both"}), "/ready/stream"),
        (json!({"port": 80, "stream": "all"}), "/ready/stream"),
        (json!({"file": "a", "address": "any"}), "/ready/address"),
        (json!({"port": 0}), "/ready/port"),
        (json!({"file": "../x"}), "/ready/file"),
        (json!({"notify": false}), "/ready/notify"),
        (
            json!({"port": 80, "timeout_seconds": 0}),
            "/ready/timeout_seconds",
        ),
        (
            json!({"port": 80, "on_timeout": "kill"}),
            "/ready/on_timeout",
        ),
        (json!({"ports": 80, "port": 80}), "/ready/ports"),
    ] {
        let body = json!({"command": ["true"], "ready": ready});
        let reply = server.post("/jobs", &body).await;
        assert_eq!(reply.status, 422, "{ready} {reply}");
        let pointers = &reply.json()["errors"];
        assert_eq!(pointers[0]["pointer"], pointer, "{reply}");
    }
    // A pattern that costs others their lives costs this one nothing.
    let body = json!({
        "script": "head -c 30000 /dev/zero | tr '\\0' a; echo b; echo up; exec sleep 600",
        "ready": {"log": "^((a+)+|up)$"},
    });
    let job = known(&server, &id(&server.submit(&body).await)).await;
    assert_eq!(job["ready_message"], "up", "{job:#}");

    let plain = json!({"command": ["true"]});
    let reply = server.post("/jobs?wait=1&until=ready", &plain).await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (400, "invalid_query"),
        "{reply}"
    );
    assert_eq!(
        server.get("/jobs").await.json()["jobs"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let plain = id(&server.run(&plain).await);
    let reply = server.get(&format!("/jobs/{plain}?until=ready")).await;
    assert_eq!(reply.json()["errors"][0]["parameter"], "until", "{reply}");
}

#[tokio::test]
async fn each_attempt_is_ready_by_itself() {
    let server = Server::start().await;
    let script = "echo up $PROCESSION_ATTEMPT; test $PROCESSION_ATTEMPT = 2";
    let ready = json!({"log": "^up"});
    let retry = json!({"max_attempts": 2, "backoff": {"initial_seconds": 0}});
    let body = json!({"script": script, "ready": ready, "retry": retry});
    let job = server.run(&body).await;
    assert_eq!(
        (&job["state"], &job["ready_message"]),
        (&json!("succeeded"), &json!("up 2")),
        "{job:#}"
    );
    let all = events(&server, &id(&job)).await;
    assert_eq!(all.matches("\"job.ready\"").count(), 2, "{all}");
}

/// Reports with a descriptor, as sd_pid_notify_with_fds(3) does, and says when that was closed.
const WITH_DESCRIPTOR: &str = r#"
import array, os, socket, time
it = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
seen, held = os.pipe()
what = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [held, held]))
it.sendmsg([b"READY=1\nFDSTORE=1"], [what], 0, "\0" + os.environ["NOTIFY_SOCKET"][1:])
os.close(held)
os.read(seen, 1)
print("closed", flush=True)
time.sleep(600)
"#;

#[tokio::test]
async fn a_report_counts_that_comes_with_descriptors() {
    let server = Server::start().await;
    let ready = json!({"notify": true});
    let body = json!({"command": ["python3", "-c", WITH_DESCRIPTOR], "ready": ready});
    let job = id(&server.submit(&body).await);
    server.says(&job, "closed").await;
    let known = known(&server, &job).await;
    assert!(known["ready_at"].is_string(), "{known:#}");
}

/// Reports at once. The first attempt ends as soon as its report has been read, the second one stays.
const AT_ONCE: &str = r#"
import array, os, socket, time
it = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
seen, held = os.pipe()
name = "\0" + os.environ["NOTIFY_SOCKET"][1:]
what = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [held]))
attempt = os.environ["PROCESSION_ATTEMPT"]
try:
    it.sendmsg([b"READY=1\nSTATUS=" + attempt.encode()], [what], 0, name)
    print("told", attempt, flush=True)
except OSError as error:
    print("not told", attempt, error, flush=True)
os.close(held)
if attempt == "1":
    os.read(seen, 1)
    os._exit(1)
time.sleep(600)
"#;

#[tokio::test]
async fn the_next_attempt_reports_as_soon_as_it_starts() {
    let armed = Armed::start().await;
    // Where a socket is made that was not there when the program started.
    armed.hold("notify.binding");
    let retry = json!({"max_attempts": 2, "backoff": {"initial_seconds": 0}});
    let body = json!({
        "command": ["python3", "-c", AT_ONCE], "ready": {"notify": true}, "retry": retry,
    });
    let job = id(&armed.server.submit(&body).await);
    let text = armed.server.says(&job, "told 2").await;
    armed.hold("notify.binding");
    assert!(text.contains("told 1\ntold 2\n"), "{text}");
    let ready = known(&armed.server, &job).await;
    assert_eq!(ready["ready_message"], "2", "{ready:#}");
}

#[tokio::test]
async fn the_command_line_waits_until_a_server_is_ready() {
    let server = Server::start().await;
    let run = |flags: &[&str], script: &str| {
        let mut command = server.client();
        command.args(["run", "-d", "--wait-ready"]).args(flags);
        command.args(["--script", script]);
        Client::start(command).end()
    };
    let ready = run(&["--ready-log", "^up$"], "echo up; exec sleep 600").good();
    let job = ready.text().trim().to_owned();
    let mut command = server.client();
    command.args(["wait", "--until", "ready", "--json", &job]);
    let waited = Client::start(command).end().good().json();
    assert_eq!(waited["ready_message"], "up", "{waited:#}");

    let ended = run(&["--ready-log", "^up$"], "exit 3");
    assert_eq!(ended.code, Some(125), "{ended:?}");
    assert!(
        ended.stderr.contains("ended before it was ready"),
        "{ended:?}"
    );
    let port = port().to_string();
    let flags = ["--ready-port", &port, "--ready-timeout", "0.2"];
    let late = run(&flags, "exec sleep 600");
    assert_eq!(late.code, Some(125), "{late:?}");
    let why = format!("nothing listens on port {port}");
    assert!(late.stderr.contains(&why), "{late:?}");
}
