//! The tables of hostile requests, each against a service of its own.

use std::os::unix::fs::{PermissionsExt, symlink};

use crate::hostile;
use crate::reply::{id, is_finished};
use crate::server::Server;

const POLICY: &str = r#"
[template.say]
command = ["/bin/echo", "{word}"]
params.word = { type = "pattern", pattern = "[a-z;$() -]+" }

[template.either]
command = ["/bin/echo", "{word}"]
params.word = { type = "pattern", pattern = "a|b" }

[template.show]
command = ["/bin/cat", "{path}"]
params.path = { type = "path", beneath = "ROOT" }

[template.level]
command = ["/bin/echo", "{level}"]
params.level = { type = "integer", min = 0, max = 9 }

[template.pick]
command = ["/bin/echo", "{one}"]
params.one = { type = "enum", values = ["red", "green"] }
"#;

/// A job that runs until the service ends, and one that has ended.
fn with_jobs(server: &Server) -> [(&'static str, String); 2] {
    let made = |path: &str, body: &str| {
        let answer = server.ask(&server.token, "POST", path, body);
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.reply.json()
    };
    let running = made(
        "/jobs",
        r#"{"command":["/bin/sleep","3600"],"stdin":{"mode":"open"}}"#,
    );
    let ended = made("/jobs?wait=30", r#"{"command":["/bin/echo","abc"]}"#);
    assert!(!is_finished(&running) && is_finished(&ended));
    [("$JOB", id(&running)), ("$DONE", id(&ended))]
}

fn table(text: &str) {
    let server = Server::start();
    let jobs = with_jobs(&server);
    hostile::run(&server, text, &jobs);
}

#[test]
fn who_asks() {
    table(include_str!("cases/auth.txt"));
}

#[test]
fn what_a_web_page_can_send() {
    table(include_str!("cases/browser.txt"));
}

#[test]
fn bodies() {
    table(include_str!("cases/body.txt"));
}

#[test]
fn jobs_that_nobody_may_have() {
    // With room for what is too large for execve(2).
    let server = Server::with(&["--max-body-bytes=2097152"]);
    hostile::run(&server, include_str!("cases/spec.txt"), &[]);
}

#[test]
fn targets() {
    table(include_str!("cases/path.txt"));
}

#[test]
fn what_is_done_to_jobs() {
    table(include_str!("cases/job.txt"));
}

#[test]
fn bytes_on_the_wire() {
    table(include_str!("cases/raw.txt"));
}

#[test]
fn websockets() {
    let server = Server::start();
    let body = r#"{"command":["/bin/sh"],"stdin":{"mode":"open"}}"#;
    let shell = server.ask(&server.token, "POST", "/jobs", body);
    assert_eq!(shell.status, 201, "{shell:?}");
    let words = [("$SHELL", id(&shell.reply.json()))];
    hostile::run_in_turn(&server, include_str!("cases/attach.txt"), &words);
}

#[test]
fn ways_around_a_policy() {
    let dir = tempfile::tempdir().unwrap();
    let (policy, root) = (dir.path().join("policy.toml"), dir.path().join("root"));
    std::fs::create_dir(&root).unwrap();
    symlink("/etc", root.join("link")).unwrap();
    let root = root.display().to_string();
    std::fs::write(&policy, POLICY.replace("ROOT", &root)).unwrap();
    std::fs::set_permissions(&policy, std::fs::Permissions::from_mode(0o600)).unwrap();
    let flag = format!("--policy={}", policy.display());
    let server = Server::in_dir(dir, &[&flag]);
    let body = r#"{"template":"say","params":{"word":"a"}}"#;
    let done = server.ask(&server.token, "POST", "/jobs?wait=30", body);
    assert_eq!(done.status, 201, "{done:?}");
    let words = [("$DONE", id(&done.reply.json())), ("$ROOT", root)];
    hostile::run(&server, include_str!("cases/policy.txt"), &words);
}

/// What the tables rely on: without anything hostile about it, the request runs.
#[test]
fn a_request_that_is_right_leaves_its_file() {
    let server = Server::start();
    let answer = server.ask(
        &server.token,
        "POST",
        "/jobs?wait=30",
        &server.canary_body(),
    );
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.reply.json()["state"], "succeeded");
    assert!(server.canary().exists());
}
