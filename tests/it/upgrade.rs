//! The service becomes the program on disk, in place, while jobs run and clients ask.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;

use crate::harness::{LONG, Server, binary, eventually, id, processes_with, unique_seconds};

/// What `procession upgrade` says, and its exit code.
fn upgrade(server: &Server) -> (Option<i32>, String) {
    let said = server.client().arg("upgrade").output().unwrap();
    let text = [said.stdout, said.stderr].concat();
    (said.status.code(), String::from_utf8(text).unwrap())
}

/// Puts another copy of the program where the service was started from, as a package manager does.
fn replace(program: &Path) -> u64 {
    let fresh = program.with_extension("new");
    fs::copy(binary(), &fresh).unwrap();
    fs::rename(&fresh, program).unwrap();
    fs::metadata(program).unwrap().ino()
}

/// The inode of the file that a process executes.
fn executed(pid: nix::unistd::Pid) -> u64 {
    fs::metadata(format!("/proc/{pid}/exe")).unwrap().ino()
}

/// A service that was started from a copy of the program, which a test can replace.
async fn from_own_copy() -> (Server, PathBuf, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("procession");
    let prelude = format!(
        "cp \"$1\" '{0}'; shift; set -- '{0}' \"$@\"",
        copy.display()
    );
    (
        Server::builder().prelude(&prelude).start().await,
        copy,
        directory,
    )
}

/// Counts to a hundred in four seconds or so, and exits with 7.
fn counting() -> serde_json::Value {
    json!({"script": "i=0; while [ $i -lt 100 ]; do echo $i; i=$((i+1)); sleep 0.04; done; exit 7"})
}

fn counted() -> String {
    (0..100).map(|number| format!("{number}\n")).collect()
}

#[tokio::test]
async fn an_upgrade_keeps_jobs_output_and_clients() {
    let (server, program, _directory) = from_own_copy().await;
    let supervisor = server.supervisor();
    let running = server.submit(&counting()).await;
    let stopped = server.submit(&json!({"command": ["sleep", "5000"]})).await;
    let ended = server.run(&json!({"command": ["true"]})).await;
    server.says(&id(&running), "5").await;

    for round in 1..=2 {
        let inode = replace(&program);
        kill(supervisor, Signal::SIGHUP).unwrap();
        // Every request is answered, if later: the listening socket never closes. A connection that is
        // kept alive ends with its server, so each request here has its own.
        let mut answered = 0;
        eventually("the supervisor executes the new file", async || {
            let request = server
                .request(Method::GET, "/info")
                .header("connection", "close");
            assert_eq!(server.send(request).await.status, 200);
            answered += 1;
            (executed(supervisor) == inode).then_some(())
        })
        .await;
        eventually("the new server answers", async || {
            let info = server.get("/info").await.json();
            (info["server_restarts"] == round).then_some(())
        })
        .await;
        assert!(answered > 0);
    }

    let job = server.finished(&id(&running)).await;
    assert_eq!(job["exit"]["code"], 7, "{job:#}");
    assert_eq!(job["termination"]["cause"], "exited", "{job:#}");
    assert_eq!(server.text(&id(&running)).await, counted());
    let job = server.stop(&id(&stopped), "").await;
    assert_eq!(job["exit"]["signal"], "SIGTERM", "{job:#}");
    let job = server.job(&id(&ended)).await;
    assert_eq!(job["state"], "succeeded", "{job:#}");
    // A monitor that dies after an upgrade is rescued like any other.
    let last = server
        .run(&json!({"command": ["echo", "still here"]}))
        .await;
    assert_eq!(server.text(&id(&last)).await, "still here\n");
}

#[tokio::test]
async fn a_program_that_does_not_understand_replaces_nothing() {
    let (server, program, _directory) = from_own_copy().await;
    let (supervisor, before) = (server.supervisor(), executed(server.supervisor()));
    let running = server.submit(&counting()).await;
    server.says(&id(&running), "3").await;

    let other = program.with_extension("new");
    fs::write(
        &other,
        "#!/bin/sh\necho 'state of another time' >&2\nexit 78\n",
    )
    .unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&other, &program).unwrap();
    kill(supervisor, Signal::SIGHUP).unwrap();
    eventually("the log says that nothing was replaced", async || {
        server.log().contains("nothing was replaced").then_some(())
    })
    .await;

    assert_eq!(executed(supervisor), before);
    assert_eq!(server.get("/info").await.json()["server_restarts"], 0);
    let job = server.finished(&id(&running)).await;
    assert_eq!(job["exit"]["code"], 7, "{job:#}");
    assert_eq!(server.text(&id(&running)).await, counted());
}

#[tokio::test]
async fn the_command_line_finds_the_service_by_its_state_directory() {
    let (server, program, _directory) = from_own_copy().await;
    let inode = replace(&program);
    let state_dir = server.state_dir();
    let upgrade = |state_dir: &Path| {
        let mut command = crate::harness::program("upgrade", "");
        command
            .arg("upgrade")
            .arg("--state-dir")
            .arg(state_dir)
            .output()
            .unwrap()
    };
    assert!(upgrade(&state_dir).status.success());
    eventually("the supervisor executes the new file", async || {
        (executed(server.supervisor()) == inode).then_some(())
    })
    .await;
    let nowhere = upgrade(&server.scratch());
    assert!(!nowhere.status.success());
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("cannot read"));
}

#[tokio::test]
async fn a_drain_outlives_an_upgrade() {
    let (server, program, _directory) = from_own_copy().await;
    let drained = server.send(server.request(Method::POST, "/drain")).await;
    assert_eq!(drained.status, 202, "{drained}");
    let inode = replace(&program);
    kill(server.supervisor(), Signal::SIGHUP).unwrap();
    eventually("the supervisor executes the new file", async || {
        (executed(server.supervisor()) == inode).then_some(())
    })
    .await;
    let info = server.get("/info").await.json();
    assert_eq!(info["draining"], true, "{info:#}");
}

/// A purge is its server's own. The stop is the monitor's, and goes on.
#[tokio::test]
async fn a_purge_that_an_upgrade_interrupts_removes_nothing_and_the_stop_goes_on() {
    let server = Server::start().await;
    let (go, mark) = (server.scratch().join("go"), unique_seconds());
    let script = format!(
        "trap 'until [ -e {} ]; do sleep 0.02; done; echo bye; exit 3' TERM
         : {mark}; echo ready; while :; do sleep 0.02; done",
        go.display()
    );
    let body = json!({"script": script, "stop": {"scope": "leader", "grace_seconds": 600}});
    let job = id(&server.submit(&body).await);
    server.says(&job, "ready").await;
    let begun = server.delete(&job, "purge&wait=0").await;
    assert_eq!(begun.status, 202, "{begun}");
    server.in_state(&job, "stopping").await;

    kill(server.supervisor(), Signal::SIGHUP).unwrap();
    eventually("the new server answers", async || {
        let info = server.get("/info").await.json();
        (info["server_restarts"] == 1).then_some(())
    })
    .await;
    let there = server.get(&format!("/jobs/{job}")).await;
    assert_eq!(there.status, 200, "{there}\n{}", server.log());
    assert_eq!(there.json()["state"], "stopping", "{there}");
    assert_ne!(processes_with(&mark), []);
    fs::write(go, "").unwrap();
    let ended = server.finished(&job).await;
    assert_eq!(ended["state"], "canceled", "{ended:#}");
    assert_eq!(ended["exit"]["code"], 3, "{ended:#}");
    assert_eq!(server.text(&job).await, "ready\nbye\n");
    assert_eq!(processes_with(&mark), []);
    let again = server.delete(&job, "purge").await;
    assert_eq!(again.status, 204, "{again}");
}

/// How long a server that ends waits for the first request of a connection.
const FIRST_WORDS: Duration = Duration::from_millis(500);

/// A connection on which nothing has been asked yet.
fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

/// Asks and gives what comes first of the answer, nothing if the connection has ended.
fn ask(stream: &mut TcpStream) -> String {
    let request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut answer = [0; 512];
    let asked = stream.write_all(request.as_bytes());
    let count = asked.and_then(|()| stream.read(&mut answer));
    String::from_utf8_lossy(&answer[..count.unwrap_or(0)]).into_owned()
}

/// Connects, has the service begin an upgrade, and asks when the server has begun to end: whether it was asked in time for an
/// answer, and the answer.
fn asked_late(server: &Server) -> (bool, String) {
    let (mut early, mut idle, mut busy) = (connect(server), connect(server), connect(server));
    // Connections are accepted in their order: all are, once the last is answered.
    for stream in [&mut idle, &mut busy] {
        assert!(ask(stream).starts_with("HTTP/1.1 200"));
    }
    kill(server.supervisor(), Signal::SIGHUP).unwrap();
    // As long as it answers and keeps the connection it had not begun to end when it was asked.
    let (mut before, mut asked) = (Instant::now(), Instant::now());
    let is_kept = |answer: &str| !answer.is_empty() && !answer.contains("connection: close");
    while is_kept(&ask(&mut busy)) {
        (before, asked) = (asked, Instant::now());
    }
    let answer = ask(&mut early);
    // A connection that has been used and is idle is closed.
    assert_eq!(idle.read(&mut [0; 1]).unwrap(), 0);
    (before.elapsed() < FIRST_WORDS, answer)
}

#[tokio::test]
async fn who_has_connected_before_an_upgrade_and_asks_after_it_began_is_answered() {
    let (server, _program, _directory) = from_own_copy().await;
    let mut upgrades = 0;
    // On a busy machine this test may come too late, and knows nothing then.
    eventually("it was asked in time", async || {
        let (in_time, answer) = asked_late(&server);
        let is_answered = answer.starts_with("HTTP/1.1 200");
        assert!(is_answered || !in_time, "{answer:?}");
        upgrades += 1;
        eventually("the new server answers", async || {
            let info = server.get("/info").await.json();
            (info["server_restarts"] == upgrades).then_some(())
        })
        .await;
        in_time.then_some(())
    })
    .await;
}

/// All that a start reads is read before anything is replaced: each of these was taken for understood, and ended the service.
#[tokio::test]
async fn an_upgrade_that_could_not_start_says_why_and_the_service_runs_on() {
    let files = tempfile::tempdir().unwrap();
    let at = |name: &str| files.path().join(name);
    let policy = "[template.say]\ncommand = [\"/bin/echo\"]\n";
    fs::write(at("policy"), policy).unwrap();
    fs::set_permissions(at("policy"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(at("settings"), format!("policy = {:?}\n", at("policy"))).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("procession");
    let prelude = format!(
        "cp \"$1\" '{0}'; shift; set -- '{0}' \"$@\"",
        copy.display()
    );
    let server = Server::builder()
        .prelude(&prelude)
        .args(["--config".to_owned(), at("settings").display().to_string()])
        .start()
        .await;
    let answers = async || {
        let body = json!({"template": "say"});
        server.post("/jobs?wait=30", &body).await.json()["state"].clone()
    };
    assert_eq!(answers().await, "succeeded");
    let mode = |name: &str, mode| fs::set_permissions(at(name), fs::Permissions::from_mode(mode));
    for (name, text, word) in [
        ("policy", "templates = 7\n", "policy"),
        ("settings", "max_running = \"many\"\n", "max_running"),
        (
            "settings",
            "tls_cert = \"/nowhere\"\ntls_key = \"/nowhere\"\n",
            "/nowhere",
        ),
    ] {
        let before = fs::read_to_string(at(name)).unwrap();
        fs::write(at(name), text).unwrap();
        let (code, said) = upgrade(&server);
        assert_eq!(code, Some(1), "{text}: {said}");
        assert!(
            said.contains("not upgraded") && said.contains(word),
            "{said}"
        );
        fs::write(at(name), before).unwrap();
        assert_eq!(answers().await, "succeeded", "{text}");
    }
    mode("policy", 0o666).unwrap();
    let (code, said) = upgrade(&server);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("not upgraded") && said.contains("others"),
        "{said}"
    );
    mode("policy", 0o600).unwrap();
    let (code, said) = upgrade(&server);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("version"), "{said}");
    assert_eq!(server.get("/info").await.json()["server_restarts"], 1);
    assert_eq!(answers().await, "succeeded");
}

/// Replaces the program by a script that says yes to a check, and does `start` when it is to serve.
fn replace_by_script(program: &Path, start: &str) {
    let real = program.with_extension("real");
    fs::copy(binary(), &real).unwrap();
    let text = format!(
        "#!/bin/sh\nfor word; do [ \"$word\" != --check ] || exec '{0}' \"$@\"; done\n{start}\nexec '{0}' \"$@\"\n",
        real.display()
    );
    let fresh = program.with_extension("new");
    fs::write(&fresh, text).unwrap();
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&fresh, program).unwrap();
}

/// It understands when it is asked, and does not start all the same.
#[tokio::test]
async fn a_new_program_that_does_not_start_gives_way_to_the_one_before() {
    let (server, program, _directory) = from_own_copy().await;
    let before = executed(server.supervisor());
    let running = server.submit(&counting()).await;
    server.says(&id(&running), "3").await;
    replace_by_script(&program, "export PROCESSION_MAX_RUNNING=none");
    let (code, said) = upgrade(&server);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("not upgraded"), "{said}");
    assert!(said.to_lowercase().contains("max_running"), "{said}");
    assert_eq!(executed(server.supervisor()), before);
    let job = server.finished(&id(&running)).await;
    assert_eq!(job["exit"]["code"], 7, "{job:#}");
    assert_eq!(server.text(&id(&running)).await, counted());
    // And an upgrade to one that does start is possible after that.
    let inode = replace(&program);
    let (code, said) = upgrade(&server);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(executed(server.supervisor()), inode);
    let last = server
        .run(&json!({"command": ["echo", "still here"]}))
        .await;
    assert_eq!(server.text(&id(&last)).await, "still here\n");
}

/// Its server dies before it is ready, again and again.
#[tokio::test]
async fn a_new_program_without_a_server_gives_way_to_the_one_before() {
    let (server, program, _directory) = from_own_copy().await;
    let before = executed(server.supervisor());
    let running = server.submit(&counting()).await;
    server.says(&id(&running), "3").await;
    let points = server.scratch().join("points");
    fs::create_dir(&points).unwrap();
    fs::write(points.join("server.starting"), "5").unwrap();
    let start = format!("export PROCESSION_FAILPOINTS='{}'", points.display());
    replace_by_script(&program, &start);
    let (code, said) = upgrade(&server);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("before it is ready"), "{said}");
    assert_eq!(executed(server.supervisor()), before);
    let job = server.finished(&id(&running)).await;
    assert_eq!(job["exit"]["code"], 7, "{job:#}");
    assert_eq!(server.text(&id(&running)).await, counted());
}
