//! What operators live with: the log, the service manager, tokens on the command line, the configuration file.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

use crate::harness::{LONG, Server, eventually, id, is_root, program, unique, unique_seconds};

/// Every line that the service has logged.
#[track_caller]
fn lines(server: &Server) -> Vec<Value> {
    let log = server.log();
    let lines = log.lines().map(|line| {
        let line: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for key in ["timestamp", "level", "message"] {
            assert!(line[key].is_string(), "no {key} in {line}");
        }
        line
    });
    lines.collect()
}

/// The one line of a job that has these words.
#[track_caller]
fn line_of<'a>(lines: &'a [Value], job: &str, words: &str) -> &'a Value {
    let has =
        |line: &&Value| line["job.id"] == job && line["message"].as_str().unwrap().contains(words);
    let found: Vec<&Value> = lines.iter().filter(has).collect();
    assert_eq!(found.len(), 1, "{words} of {job} in {lines:#?}");
    found[0]
}

/// A number of seconds with no more than three digits after the point.
#[track_caller]
fn is_rounded(number: &Value) {
    let thousand = number.as_f64().unwrap() * 1000.0;
    assert!((thousand - thousand.round()).abs() < 1e-6, "{number}");
}

#[tokio::test]
async fn the_log_is_one_form_and_says_what_becomes_of_jobs() {
    let mut server = Server::start().await;
    let failed = server.run_script("exit 3").await;
    let asleep = json!({"command": ["sleep", unique_seconds()], "name": "asleep"});
    let stopped = id(&server.submit(&asleep).await);
    server.stop(&stopped, "grace_seconds=2").await;
    let refused = server.post("/jobs", &json!({"command": []})).await;
    let left = id(&server.submit(&asleep).await);
    assert!(server.end(Signal::SIGINT).unwrap().success());
    let lines = lines(&server);

    let failed = id(&failed);
    let started = line_of(&lines, &failed, "started");
    assert!(
        started["pid"].is_i64() && started["queue"] == "default",
        "{started}"
    );
    is_rounded(&started["queued_seconds"]);
    let ended = line_of(&lines, &failed, "ended");
    let said = (&ended["state"], &ended["cause"], &ended["exit_code"]);
    assert_eq!(
        said,
        (&json!("failed"), &json!("exited"), &json!(3)),
        "{ended}"
    );
    is_rounded(&ended["seconds"]);

    let asked = line_of(&lines, &stopped, "is asked to end");
    let said = (&asked["actor"], &asked["cause"], &asked["grace_seconds"]);
    assert_eq!(
        said,
        (&json!("token:default"), &json!("canceled"), &json!(2.0)),
        "{asked}"
    );
    let ended = line_of(&lines, &stopped, "ended");
    let said = (&ended["state"], &ended["signal"], &ended["actor"]);
    assert_eq!(
        said,
        (
            &json!("canceled"),
            &json!("SIGTERM"),
            &json!("token:default")
        ),
        "{ended}"
    );

    let created = line_of(&lines, &failed, "POST /jobs answered 201");
    assert_eq!(created["actor"], "token:default", "{created}");
    is_rounded(&created["latency_ms"]);
    let no = lines
        .iter()
        .find(|line| line["request.id"] == refused.header("request-id"));
    let no = no.expect("the refused request has its line");
    let said = (&no["status"], &no["code"], &no["actor"]);
    let code = json!(refused.code());
    assert_eq!(
        said,
        (&json!(refused.status), &code, &json!("token:default")),
        "{no}"
    );

    let end = lines
        .iter()
        .find(|line| line["signal"] == "SIGINT")
        .unwrap();
    let message = end["message"].as_str().unwrap();
    assert!(
        end["jobs"] == 1 && message.contains("1 running jobs are stopped"),
        "{end}"
    );
    assert_eq!(line_of(&lines, &left, "ended")["cause"], "shutdown");
    let last = lines.last().unwrap()["message"].as_str().unwrap();
    assert!(last.starts_with("the service has ended"), "{last}");
}

#[tokio::test]
async fn an_end_without_jobs_names_none() {
    let mut server = Server::start().await;
    assert!(server.end(Signal::SIGTERM).unwrap().success());
    let lines = lines(&server);
    let messages: Vec<_> = lines
        .iter()
        .filter_map(|line| line["message"].as_str())
        .collect();
    let ends = &messages[messages.len() - 2..];
    assert_eq!(
        ends,
        [
            "SIGTERM: the service ends; no job runs",
            "the service has ended"
        ]
    );
}

#[tokio::test]
async fn jobs_that_are_left_are_said_to_go_on_and_to_be_found() {
    let leave = || Server::builder().args(["--on-shutdown", "leave"]);
    let mut server = leave().start().await;
    let job = id(&server
        .submit(&json!({"command": ["sleep", unique_seconds()]}))
        .await);
    assert!(server.end(Signal::SIGTERM).unwrap().success());
    server.restart(leave());
    server.stop(&job, "").await;
    let lines = lines(&server);
    let says = |words: &str| {
        lines
            .iter()
            .find(|line| line["message"].as_str().unwrap().contains(words))
    };
    assert_eq!(says("1 running jobs go on without it").unwrap()["jobs"], 1);
    assert_eq!(
        says("the service has ended; 1 jobs go on").unwrap()["jobs"],
        1
    );
    assert_eq!(
        says("found jobs of an earlier service").unwrap()["running"],
        1
    );
}

/// A service manager, as far as sd_notify(3) goes.
struct Manager {
    socket: UnixDatagram,
    _home: tempfile::TempDir,
    path: String,
}

impl Manager {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("notify").to_str().unwrap().to_owned();
        let socket = UnixDatagram::bind(&path).unwrap();
        Self {
            socket,
            _home: home,
            path,
        }
    }

    /// The next message that has all these lines.
    #[track_caller]
    fn hears(&self, wanted: &[&str]) -> String {
        let end = Instant::now() + LONG;
        let mut heard = Vec::new();
        while let Some(left) = end
            .checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())
        {
            self.socket.set_read_timeout(Some(left)).unwrap();
            let mut buffer = [0; 4096];
            let Ok(length) = self.socket.recv(&mut buffer) else {
                break;
            };
            let message = String::from_utf8(buffer[..length].to_vec()).unwrap();
            if wanted
                .iter()
                .all(|line| message.lines().any(|one| one == *line))
            {
                return message;
            }
            heard.push(message);
        }
        panic!("never heard {wanted:?}, but {heard:?}");
    }
}

#[tokio::test]
async fn a_service_manager_hears_of_readiness_jobs_upgrades_and_the_end() {
    let manager = Manager::new();
    let mut server = Server::builder()
        .env("NOTIFY_SOCKET", &manager.path)
        .env("WATCHDOG_USEC", "8000000")
        .start()
        .await;
    manager.hears(&["READY=1", "STATUS=Serving, 0 jobs run"]);
    let job = server
        .submit(&json!({"command": ["sleep", unique_seconds()]}))
        .await;
    manager.hears(&["READY=1", "STATUS=Serving, 1 job runs"]);
    manager.hears(&["WATCHDOG=1"]);
    kill(server.supervisor(), Signal::SIGHUP).unwrap();
    manager.hears(&["RELOADING=1", "STATUS=Being replaced, 1 job runs"]);
    manager.hears(&["READY=1", "STATUS=Serving, 1 job runs"]);
    assert_eq!(server.job(&id(&job)).await["state"], "running");
    assert!(server.end(Signal::SIGTERM).unwrap().success());
    let stopping = manager.hears(&["STOPPING=1"]);
    assert!(stopping.contains("EXTEND_TIMEOUT_USEC="), "{stopping}");
}

#[tokio::test]
async fn an_abstract_socket_of_a_service_manager_is_told_as_well() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;
    let name = unique();
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    let manager = Manager {
        socket,
        _home: tempfile::tempdir().unwrap(),
        path: format!("@{name}"),
    };
    let _server = Server::builder()
        .env("NOTIFY_SOCKET", &manager.path)
        .start()
        .await;
    manager.hears(&["READY=1"]);
}

#[tokio::test]
async fn a_server_that_hangs_is_replaced_and_its_jobs_go_on() {
    let points = tempfile::tempdir().unwrap();
    let server = Server::builder()
        .env("PROCESSION_FAILPOINTS", points.path().to_str().unwrap())
        .env("WATCHDOG_USEC", "6000000")
        .start()
        .await;
    let job = server
        .submit(&json!({"command": ["sleep", unique_seconds()]}))
        .await;
    let hung = server.server_process().unwrap();
    fs::write(points.path().join("server.beating"), "wait").unwrap();
    eventually("another server", async || {
        server.server_process().filter(|pid| *pid != hung)
    })
    .await;
    let job = server.stop(&id(&job), "").await;
    assert_eq!(job["exit"]["signal"], "SIGTERM", "{job:#}");
    assert!(
        server.log().contains("gives no sign of life"),
        "{}",
        server.log()
    );
}

/// Has the service inherit a listening socket, as systemd passes one on.
fn passing(socket: &str) -> String {
    format!(
        r#"set -- python3 -c 'import os, socket, sys
s = {socket}
s.bind(("127.0.0.1", 0))
os.dup2(s.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[1], sys.argv[1:])' "$@""#
    )
}

#[tokio::test]
async fn a_socket_that_is_passed_on_is_listened_on_through_an_upgrade() {
    let listening = passing("socket.socket()").replace("os.dup2", "s.listen()\nos.dup2");
    // No machine has this address.
    let server = Server::builder()
        .args(["--listen", "192.0.2.1:1"])
        .prelude(&listening)
        .start()
        .await;
    let job = server.run_script("env").await;
    assert!(!server.text(&id(&job)).await.contains("LISTEN_"));
    let before = server.server_process().unwrap();
    kill(server.supervisor(), Signal::SIGHUP).unwrap();
    eventually("the next program's server", async || {
        server.server_process().filter(|pid| *pid != before)
    })
    .await;
    assert_eq!(server.run_script("true").await["state"], "succeeded");
}

#[test]
fn a_socket_that_is_passed_on_and_cannot_be_used_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let mut command = program(&unique(), &passing("socket.socket(type=socket.SOCK_DGRAM)"));
    command
        .args(["serve", "--state-dir"])
        .arg(home.path().join("state"));
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(
        said.contains("no listening TCP socket") && said.contains("ListenStream="),
        "{said}"
    );
}

/// Runs `procession token create` on a state directory; its exit code, the token and what it says.
fn create_token(state_dir: &Path, name: &str) -> (Option<i32>, String, String) {
    let mut command = program(&unique(), "");
    command.args([
        "token",
        "create",
        "--scope",
        "read",
        "--name",
        name,
        "--state-dir",
    ]);
    let output = command.arg(state_dir).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn a_token_says_where_it_is_and_without_a_state_directory_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let missing = home.path().join("missing");
    let (code, token, said) = create_token(&missing, "ci");
    assert_eq!((code, token.as_str()), (Some(1), ""), "{said}");
    assert!(
        said.contains("missing") && said.contains("start the service once"),
        "{said}"
    );

    let state = home.path().join("state");
    fs::create_dir(&state).unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();
    let (code, token, said) = create_token(&state, "ci");
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("token ci with the scope read") && !said.contains(token.trim()),
        "{said}"
    );
    if !is_root() {
        return;
    }
    // Root acts as the owner: the service could not read what root writes.
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let theirs = home.path().join("theirs");
    fs::create_dir(&theirs).unwrap();
    fs::set_permissions(&theirs, fs::Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::chown(&theirs, Some(65534), Some(65534)).unwrap();
    let (code, _, said) = create_token(&theirs, "ci");
    assert_eq!(code, Some(0), "{said}");
    for entry in fs::read_dir(&theirs).unwrap() {
        let found = entry.unwrap().metadata().unwrap();
        assert_eq!(
            (found.uid(), found.gid(), found.mode() & 0o777),
            (65534, 65534, 0o600),
            "{said}"
        );
    }
}

#[test]
fn root_examines_the_service_as_its_owner() {
    if !is_root() {
        eprintln!("skipped: only root can act as somebody else");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let theirs = home.path().join("theirs");
    fs::create_dir(&theirs).unwrap();
    fs::set_permissions(&theirs, fs::Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::chown(&theirs, Some(65534), Some(65534)).unwrap();
    // What only root may read, as backups are.
    let backup = home.path().join("backup");
    fs::create_dir(&backup).unwrap();
    fs::write(backup.join("copy"), "").unwrap();
    fs::set_permissions(&backup, fs::Permissions::from_mode(0o700)).unwrap();
    let mut command = program(&unique(), "");
    command
        .args(["doctor", "--json", "--state-dir"])
        .arg(&theirs);
    let output = command
        .arg("--backup")
        .arg(backup.join("copy"))
        .output()
        .unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let of = |about: &str| {
        let findings = told["findings"].as_array().unwrap();
        let found = findings.iter().find(|finding| finding["about"] == about);
        found.unwrap_or_else(|| panic!("{about}: {told:#}")).clone()
    };
    assert_eq!(of("state")["text"], "private to this user", "{told:#}");
    assert_eq!(of("jobs")["verdict"], "note", "{told:#}");
    assert_eq!(of("backup")["verdict"], "ok", "{told:#}");
}

#[tokio::test]
async fn the_default_configuration_file_is_read_where_it_exists_and_loses_to_all_else() {
    // A mount of its own puts the file where it belongs; only root can.
    let prelude = r#"if ! unshare --mount true 2> /dev/null; then exit 77; fi
        cp -a /etc "$HOME_OF_ETC/etc" && mkdir -p "$HOME_OF_ETC/etc/procession"
        printf 'max_running = 3\nmax_queued = 30\n' > "$HOME_OF_ETC/etc/procession/config.toml"
        set -- unshare --mount sh -c 'mount --bind "$HOME_OF_ETC/etc" /etc && exec "$@"' sh "$@""#;
    if !is_root() {
        eprintln!("skipped: only root can put the file there");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let with = |flags: &[&str], name: &str| {
        let copy = home.path().join(name);
        fs::create_dir(&copy).unwrap();
        Server::builder()
            .env("HOME_OF_ETC", copy.to_str().unwrap())
            .prelude(prelude)
            .args(flags.iter().copied())
            .env("PROCESSION_MAX_QUEUED", "40")
            .start()
    };
    for (flags, name, running) in [
        (&[][..], "a", 3),
        (&["--max-running=5"], "b", 5),
        (&["--config="], "c", 256),
    ] {
        let server = with(flags, name).await;
        let info = server.get("/info").await.json();
        let limits = (&info["jobs"]["max_running"], &info["jobs"]["max_queued"]);
        assert_eq!(limits, (&json!(running), &json!(40)), "{flags:?}");
    }
}
