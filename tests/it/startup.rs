//! How the service starts, refuses to start, and ends.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster::port;
use crate::harness::{
    LONG, Process, Server, blocking_until, eventually, id, is_root, processes_with, program,
    unique, unique_seconds,
};

/// A wrong configuration: a restart would not help (`EX_CONFIG` of sysexits.h).
const EX_CONFIG: i32 = 78;

/// What a program that ends by itself has said, and its exit code.
struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Runs the program to its end; one that does not end is killed, and has no code.
fn run(command: &mut Command) -> Said {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    if !blocking_until(LONG, || child.try_wait().unwrap().is_some()) {
        child.kill().unwrap();
    }
    let code = child.wait().unwrap().code();
    let (mut stdout, mut stderr) = (String::new(), String::new());
    child.stdout.unwrap().read_to_string(&mut stdout).unwrap();
    child.stderr.unwrap().read_to_string(&mut stderr).unwrap();
    Said {
        code,
        stdout,
        stderr,
    }
}

fn serve(state_dir: &Path) -> Command {
    let mut command = program(&unique(), "");
    command
        .env("PROCESSION_LISTEN", "127.0.0.1:0")
        .args(["serve", "--state-dir"])
        .arg(state_dir);
    command
}

/// The service must not start, and must say why in one line that has these words.
#[track_caller]
fn refuses(command: &mut Command, words: &[&str]) {
    let said = run(command);
    let about = format!("{command:?}\n{}{}", said.stdout, said.stderr);
    assert_eq!(said.code, Some(EX_CONFIG), "{about}");
    assert_eq!(said.stdout, "", "{about}");
    assert_eq!(said.stderr.lines().count(), 1, "{about}");
    let line: Value = serde_json::from_str(&said.stderr).expect(&about);
    assert_eq!(line["level"], "ERROR", "{about}");
    let message = line["message"].as_str().expect(&about);
    assert!(message.starts_with("cannot start: "), "{about}");
    for word in words {
        assert!(message.contains(word), "no {word:?} in {about}");
    }
}

fn scratch() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn a_state_directory_that_cannot_be_used_is_refused_with_the_reason() {
    let home = scratch();
    let at = |name: &str| home.path().join(name);
    refuses(
        &mut serve(Path::new("/dev/null/state")),
        &["/dev/null/state"],
    );
    // Not even root can make a directory there.
    refuses(
        &mut serve(Path::new("/proc/state")),
        &["/proc/state", "cannot be made"],
    );

    fs::write(at("file"), "").unwrap();
    refuses(
        &mut serve(&at("file")),
        &["is not a directory", "--state-dir"],
    );

    fs::create_dir(at("real")).unwrap();
    symlink(at("real"), at("link")).unwrap();
    refuses(&mut serve(&at("link")), &["is a symbolic link"]);

    fs::create_dir(at("open")).unwrap();
    fs::set_permissions(at("open"), fs::Permissions::from_mode(0o777)).unwrap();
    refuses(
        &mut serve(&at("open")),
        &["can be written by others", "0777", "chmod 700"],
    );

    if is_root() {
        fs::create_dir(at("theirs")).unwrap();
        std::os::unix::fs::chown(at("theirs"), Some(65534), None).unwrap();
        refuses(&mut serve(&at("theirs")), &["belongs to uid 65534"]);
    } else {
        refuses(&mut serve(Path::new("/usr")), &["belongs to uid 0"]);
        fs::create_dir(at("closed")).unwrap();
        fs::set_permissions(at("closed"), fs::Permissions::from_mode(0o500)).unwrap();
        refuses(
            &mut serve(&at("closed/state")),
            &["closed/state", "cannot be made"],
        );
    }
}

#[test]
fn an_address_that_cannot_be_listened_on_is_refused_with_the_reason() {
    let home = scratch();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = serve(&home.path().join("state"));
    refuses(
        command.args(["--listen", &address]),
        &[&address, "is in use", "--listen"],
    );
    // 192.0.2.0/24 is for documents; no machine has it.
    let mut command = serve(&home.path().join("state"));
    refuses(command.args(["--listen", "192.0.2.1:1"]), &["192.0.2.1:1"]);
    let mut command = serve(&home.path().join("state"));
    refuses(
        command.args(["--listen", "0.0.0.0:0", "--auth", "none"]),
        &["none"],
    );
}

#[tokio::test]
async fn a_second_service_on_the_same_state_directory_is_refused_and_the_first_goes_on() {
    let server = Server::start().await;
    let job = server
        .submit(&json!({"command": ["sleep", unique_seconds()]}))
        .await;
    let pid = server.supervisor().to_string();
    refuses(
        &mut serve(&server.state_dir()),
        &["is used by another procession", &pid],
    );
    let job = server.stop(&id(&job), "").await;
    assert_eq!(job["exit"]["signal"], "SIGTERM", "{job:#}");
    let socket = server.state_dir().join("procession.sock");
    assert!(socket.exists(), "the first one's socket is still there");
}

#[tokio::test]
async fn a_second_service_is_refused_even_if_the_lock_was_removed() {
    let mut server = Server::start().await;
    std::fs::remove_file(server.state_dir().join("lock")).unwrap();
    refuses(
        serve(&server.state_dir()).args(["--listen", "127.0.0.1:0"]),
        &["is used by another procession"],
    );
    let job = server.run(&json!({"command": ["true"]})).await;
    assert_eq!(job["state"], "succeeded");
    assert!(server.end(Signal::SIGTERM).unwrap().success());
}

#[test]
fn a_configuration_that_is_wrong_is_refused_by_name() {
    let home = scratch();
    let file = home.path().join("procession.toml");
    for (text, words) in [
        (
            "listn = \"127.0.0.1:0\"\n",
            &["listn", "procession.toml"][..],
        ),
        (
            "max_running = \"many\"\n",
            &["max_running", "procession.toml"],
        ),
        ("max_running = [1]\n", &["max_running"]),
        ("auth = \"password\"\n", &["auth"]),
        ("max_running = 1\nmax_queued =\n", &["procession.toml", "2"]),
    ] {
        fs::write(&file, text).unwrap();
        let mut command = serve(&home.path().join("state"));
        refuses(command.arg("--config").arg(&file), words);
    }
    let mut command = serve(&home.path().join("state"));
    refuses(
        command.args(["--config", "/nowhere/procession.toml"]),
        &["/nowhere/procession.toml"],
    );
    // Nobody writes into it: it would be waited for.
    let pipe = home.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for flag in ["--config", "--policy"] {
        let mut command = serve(&home.path().join("state"));
        refuses(command.arg(flag).arg(&pipe), &["is no regular file"]);
    }
    let mut command = serve(&home.path().join("state"));
    refuses(
        command.env("PROCESSION_MAX_QUEUED", "-1"),
        &["PROCESSION_MAX_QUEUED"],
    );
    let mut command = serve(&home.path().join("state"));
    refuses(command.args(["--max-running", "x"]), &["--max-running"]);
    assert!(
        !home.path().join("state").exists(),
        "nothing is made before the configuration is read"
    );
}

#[tokio::test]
async fn a_store_that_is_newer_or_foreign_or_damaged_is_refused_and_left_alone() {
    let mut server = Server::start().await;
    server.run(&json!({"command": ["true"]})).await;
    server.end(Signal::SIGTERM).unwrap();
    let path = server.state_dir().join("procession.db");
    let good = fs::read(&path).unwrap();

    rusqlite::Connection::open(&path)
        .unwrap()
        .pragma_update(None, "user_version", 999)
        .unwrap();
    let newer = fs::read(&path).unwrap();
    refuses(&mut serve(&server.state_dir()), &["999", "newer version"]);
    assert!(fs::read(&path).unwrap() == newer, "it was not touched");

    fs::write(
        &path,
        "no database at all, but a text of some length".repeat(100),
    )
    .unwrap();
    refuses(&mut serve(&server.state_dir()), &["damaged"]);

    fs::remove_file(&path).unwrap();
    let other = rusqlite::Connection::open(&path).unwrap();
    other
        .execute_batch("CREATE TABLE t (x); PRAGMA application_id = 7")
        .unwrap();
    drop(other);
    refuses(&mut serve(&server.state_dir()), &["another program"]);

    fs::write(&path, &good).unwrap();
    server.start_again(Server::builder()).await;
    let list = server.get("/jobs").await.json();
    assert_eq!(
        list["jobs"].as_array().unwrap().len(),
        1,
        "and the good one is good still"
    );
}

/// docs/operate.md, "Upgrade and downgrade".
#[tokio::test]
async fn the_way_back_from_a_newer_program_is_the_copy_from_before_the_upgrade() {
    let mut server = Server::start().await;
    let job = json!({"command": ["echo", "before"], "name": "before"});
    let before = id(&server.run(&job).await);
    server.end(Signal::SIGTERM).unwrap();
    let (state, copy) = (server.state_dir(), server.scratch().join("copy"));
    copy_all(&state, &copy);

    server.start_again(Server::builder()).await;
    server.run(&json!({"command": ["true"]})).await;
    server.end(Signal::SIGTERM).unwrap();
    rusqlite::Connection::open(state.join("procession.db"))
        .unwrap()
        .pragma_update(None, "user_version", 999)
        .unwrap();
    refuses(&mut serve(&state), &["999", "newer version"]);

    fs::rename(&state, server.scratch().join("state.old")).unwrap();
    copy_all(&copy, &state);
    server.start_again(Server::builder()).await;
    let list = server.get("/jobs").await.json();
    let ids: Vec<_> = list["jobs"].as_array().unwrap().iter().map(id).collect();
    assert_eq!(ids, [before.as_str()], "what the older program knew");
    assert_eq!(server.stdout(&before).await, "before\n");
}

fn copy_all(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.unwrap().success());
}

#[tokio::test]
async fn a_service_that_was_killed_is_started_again_at_once_on_its_address() {
    let listen = ["--listen".to_owned(), format!("127.0.0.1:{}", port())];
    let mut server = Server::builder().args(listen.clone()).start().await;
    let address = server.address();
    // Its server notices, and has a second for the requests that it answers.
    server.kill_supervisor();
    server.start_again(Server::builder().args(listen)).await;
    assert_eq!(server.address(), address);
    assert_eq!(server.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn a_token_that_others_can_read_is_refused() {
    let mut server = Server::start().await;
    server.end(Signal::SIGTERM).unwrap();
    let token = server.state_dir().join("token");
    assert_eq!(
        fs::metadata(&token).unwrap().permissions().mode() & 0o777,
        0o600
    );
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).unwrap();
    refuses(
        &mut serve(&server.state_dir()),
        &["token", "can be read by others", "chmod 600"],
    );
}

#[tokio::test]
async fn a_flag_beats_the_environment_which_beats_the_file() {
    let home = scratch();
    let file = home.path().join("procession.toml");
    fs::write(
        &file,
        "max_running = 3\nmax_queued = 30\nmax_body_bytes = 5000\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    for (flag, variable, expected) in [
        (None, None, 3),
        (None, Some("4"), 4),
        (Some("5"), Some("4"), 5),
        (Some("5"), None, 5),
    ] {
        let mut builder = Server::builder().args(["--config", file]);
        if let Some(flag) = flag {
            builder = builder.args(["--max-running", flag]);
        }
        if let Some(variable) = variable {
            builder = builder.env("PROCESSION_MAX_RUNNING", variable);
        }
        let server = builder.start().await;
        let info = server.get("/info").await.json();
        assert_eq!(
            info["jobs"]["max_running"], expected,
            "{flag:?} {variable:?}"
        );
        assert_eq!(info["jobs"]["max_queued"], 30);
        assert_eq!(info["max_body_bytes"], 5000);
    }
}

#[tokio::test]
async fn without_authentication_no_token_is_needed_on_a_loopback_address() {
    let server = Server::builder().args(["--auth", "none"]).start().await;
    let reply = server
        .send(server.anonymous(reqwest::Method::GET, "/jobs"))
        .await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn the_unix_socket_is_for_the_services_own_user_and_needs_no_token() {
    let server = Server::start().await;
    let path = server.state_dir().join("procession.sock");
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    let request = "GET /info HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn health_tells_a_service_that_answers_from_one_that_does_not() {
    let mut server = Server::start().await;
    let address = server.address().to_string();
    let health = || run(program(&unique(), "").args(["health", "--listen", &address]));
    let said = health();
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
    let by_variable = run(program(&unique(), "")
        .arg("health")
        .env("PROCESSION_LISTEN", &address));
    assert_eq!(by_variable.code, Some(0), "{}", by_variable.stderr);
    server.end(Signal::SIGTERM).unwrap();
    let said = health();
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains(&address), "{}", said.stderr);
}

#[test]
fn the_program_tells_its_version_and_what_it_can_do() {
    let said = run(program(&unique(), "").arg("--version"));
    let version = concat!("procession ", env!("CARGO_PKG_VERSION"));
    assert_eq!((said.code, said.stdout.trim()), (Some(0), version));
    let said = run(program(&unique(), "").arg("--help"));
    assert!(
        said.code == Some(0) && said.stdout.contains("serve"),
        "{}",
        said.stdout
    );
    let said = run(program(&unique(), "").args(["serve", "--no-such-flag"]));
    assert!(
        said.code == Some(2) && said.stderr.contains("--no-such-flag"),
        "{}",
        said.stderr
    );
}

#[tokio::test]
async fn a_shutdown_stops_the_jobs_and_their_records_say_so() {
    // So that a signal has its effect on a machine that is busy.
    let grace = ["--shutdown-grace-seconds", "2"];
    let mut server = Server::builder().args(grace).start().await;
    let token = server.token().to_owned();
    let (seconds, deaf) = (unique_seconds(), unique_seconds());
    let job = server.submit(&json!({"command": ["sleep", seconds]})).await;
    let script = format!("trap '' TERM; setsid sleep {deaf} & echo ready; sleep {deaf}");
    let stubborn = server.submit(&json!({"script": script})).await;
    server.says(&id(&stubborn), "ready").await;
    let finished = server.run_script("echo kept; exit 4").await;
    let status = server.end(Signal::SIGTERM).unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(
        (processes_with(&seconds), processes_with(&deaf)),
        (vec![], vec![])
    );

    server.start_again(Server::builder()).await;
    assert_eq!(
        fs::read_to_string(server.state_dir().join("token"))
            .unwrap()
            .trim(),
        token
    );
    let job = server.job(&id(&job)).await;
    assert_eq!(job["termination"]["cause"], "shutdown", "{job:#}");
    assert_eq!(job["exit"]["signal"], "SIGTERM", "{job:#}");
    let stubborn = server.job(&id(&stubborn)).await;
    assert_eq!(stubborn["termination"]["cause"], "shutdown", "{stubborn:#}");
    assert_eq!(stubborn["exit"]["signal"], "SIGKILL", "{stubborn:#}");
    assert_eq!(server.job(&id(&finished)).await, finished);
    assert_eq!(server.text(&id(&finished)).await, "kept\n");
}

#[tokio::test]
async fn a_shutdown_may_leave_the_jobs_and_the_next_service_has_them() {
    let leave = || Server::builder().args(["--on-shutdown", "leave"]);
    let mut server = leave().start().await;
    let cwd = server.scratch();
    let seconds = unique_seconds();
    let running = json!({"command": ["sleep", seconds]});
    let running = server.submit(&running).await;
    let script = "mkfifo gate; echo before; read _ < gate; echo after; exit 5";
    let ending = server.submit(&json!({"script": script, "cwd": cwd})).await;
    server.says(&id(&ending), "before").await;
    let status = server.end(Signal::SIGTERM).unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(processes_with(&seconds).len(), 1, "it has been left");
    fs::write(cwd.join("gate"), "\n").unwrap();
    let leader = i32::try_from(ending["process"]["pid"].as_i64().unwrap()).unwrap();
    eventually("the other has ended meanwhile", async || {
        Process::read(leader).is_none().then_some(())
    })
    .await;

    server.start_again(Server::builder()).await;
    let ending = server.finished(&id(&ending)).await;
    assert_eq!(ending["exit"]["code"], 5, "{ending:#}");
    assert_eq!(server.text(&id(&ending)).await, "before\nafter\n");
    let job = server.job(&id(&running)).await;
    assert_eq!(
        (&job["state"], &job["process"]),
        (&json!("running"), &running["process"]),
        "{job:#}"
    );
    let job = server.stop(&id(&running), "").await;
    assert_eq!(
        (&job["state"], &job["exit"]["code"]),
        (&json!("canceled"), &Value::Null),
        "{job:#}"
    );
    assert_eq!(processes_with(&seconds), []);
}

#[tokio::test]
async fn a_second_signal_skips_the_grace() {
    let mut server = Server::builder()
        .args(["--shutdown-grace-seconds", "600"])
        .start()
        .await;
    let seconds = unique_seconds();
    let script =
        format!("trap 'echo asked' TERM; echo ready; while :; do sleep {seconds} & wait; done");
    let body = json!({"script": script, "stop": {"grace_seconds": 600}});
    let job = server.submit(&body).await;
    server.says(&id(&job), "ready").await;
    nix::sys::signal::kill(server.supervisor(), Signal::SIGTERM).unwrap();
    server.says(&id(&job), "asked").await;
    let refused = server.post("/jobs", &body).await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (503, "draining"),
        "{refused}"
    );
    let status = server.end(Signal::SIGTERM).unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(processes_with(&seconds), []);
}

#[test]
fn surroundings_that_lie_are_refused_in_words() {
    if !is_root() {
        eprintln!("skipped: only root can make them");
        return;
    }
    let home = scratch();
    let under = |wrapper: &[&str]| {
        let mut command = Command::new(wrapper[0]);
        let inner = serve(&home.path().join("state"));
        command.args(&wrapper[1..]).arg(inner.get_program());
        command.args(inner.get_args());
        command.env("PROCESSION_LISTEN", "127.0.0.1:0");
        command
    };
    let may = |wrapper: &[&str]| {
        let mut probe = Command::new(wrapper[0]);
        probe
            .args(&wrapper[1..])
            .arg("true")
            .status()
            .unwrap()
            .success()
    };
    let foreign = ["unshare", "--pid", "--fork", "--kill-child"];
    if may(&foreign) {
        refuses(&mut under(&foreign), &["PID namespace", "mount"]);
    }
    let subset = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        "mount -t proc -o subset=pid proc /proc && exec \"$@\"",
        "sh",
    ];
    if may(&subset) {
        refuses(&mut under(&subset), &["boot_id", "subset=pid"]);
    }
    let within = |commands: &'static str| ["unshare", "--mount", "sh", "-c", commands, "sh"];
    let empty = within("mount -t tmpfs none /dev && exec \"$@\"");
    if may(&empty) {
        refuses(&mut under(&empty), &["/dev/null", "No such file"]);
    }
    let file = within("mount -t tmpfs none /dev && : >/dev/null && exec \"$@\"");
    if may(&file) {
        refuses(&mut under(&file), &["/dev/null", "is no device"]);
    }
}

#[test]
fn a_limit_of_open_files_that_has_room_for_no_job_is_refused() {
    let home = scratch();
    let mut command = Command::new("sh");
    let inner = serve(&home.path().join("state"));
    command
        .args(["-c", "ulimit -n 40 && exec \"$@\"", "sh"])
        .arg(inner.get_program());
    command
        .args(inner.get_args())
        .env("PROCESSION_LISTEN", "127.0.0.1:0");
    refuses(&mut command, &["40 open files", "RLIMIT_NOFILE"]);
}
