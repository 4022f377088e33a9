//! Programs that cannot be started: always 201, always `failed`, and the reason is told.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Server, id, is_root, unique};

const ENOENT: i32 = 2;
const ENOEXEC: i32 = 8;
const EACCES: i32 = 13;
const ENOTDIR: i32 = 20;

fn file(directory: &Path, text: &str, mode: u32) -> String {
    let path = directory.join(unique());
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Runs a job that cannot start and checks what is told about it.
async fn refused(server: &Server, body: Value, stage: &str, errno: i32, words: &str) {
    let job = server.run(&body).await;
    assert_eq!(job["state"], "failed", "{body}\n{job:#}");
    assert_eq!(job["termination"]["cause"], "spawn_failed", "{job:#}");
    assert_eq!(job["state_reason"], "spawn_failed", "{job:#}");
    assert_eq!(job["exit"], Value::Null, "it never ran: {job:#}");
    let failure = &job["spawn_failure"];
    assert_eq!(
        (&failure["stage"], &failure["errno"]),
        (&json!(stage), &json!(errno)),
        "{job:#}"
    );
    let message = job["state_message"].as_str().unwrap();
    assert!(message.contains(words), "{words:?} is not in {message:?}");
    assert_eq!(failure["message"], message);
    assert_eq!(job["output"]["next_offset"], 0, "{job:#}");
}

#[tokio::test]
async fn a_missing_program_directory_and_interpreter_are_told_apart() {
    let server = Server::start().await;
    let name = unique();
    let missing = format!("/nowhere/{name}");
    refused(
        &server,
        json!({"command": [missing]}),
        "exec",
        ENOENT,
        &format!("program {missing}"),
    )
    .await;
    refused(
        &server,
        json!({"command": [name]}),
        "exec",
        ENOENT,
        "in no directory of PATH=",
    )
    .await;
    let elsewhere = json!({"command": ["sleep", "1"], "env": {"PATH": "/nowhere:/tmp"}});
    refused(&server, elsewhere, "exec", ENOENT, "PATH=/nowhere:/tmp").await;
    let cwd = json!({"command": ["true"], "cwd": missing});
    refused(&server, cwd, "cwd", ENOENT, &missing).await;
    let script = file(&server.scratch(), "#!/nowhere/interpreter\n", 0o755);
    refused(
        &server,
        json!({"command": [script]}),
        "exec",
        ENOENT,
        "interpreter",
    )
    .await;
}

#[tokio::test]
async fn what_may_not_or_cannot_be_executed_is_told() {
    let server = Server::start().await;
    let scratch = server.scratch();
    let plain = file(&scratch, "#!/bin/sh\n", 0o644);
    refused(&server, json!({"command": [plain]}), "exec", EACCES, &plain).await;
    let text = file(&scratch, "echo no interpreter line\n", 0o755);
    refused(
        &server,
        json!({"command": [text]}),
        "exec",
        ENOEXEC,
        "script",
    )
    .await;
    let garbage = file(&scratch, "\u{1}\u{2}\u{3}\u{4}", 0o755);
    refused(
        &server,
        json!({"command": [garbage]}),
        "exec",
        ENOEXEC,
        &garbage,
    )
    .await;
    refused(
        &server,
        json!({"command": ["/usr"]}),
        "exec",
        EACCES,
        "/usr is a directory",
    )
    .await;
    let cwd = json!({"command": ["true"], "cwd": plain});
    refused(&server, cwd, "cwd", ENOTDIR, &plain).await;
}

#[tokio::test]
async fn a_program_in_path_that_may_not_be_executed_is_not_reported_as_missing() {
    let server = Server::start().await;
    let scratch = server.scratch();
    let plain = file(&scratch, "#!/bin/sh\n", 0o644);
    let name = Path::new(&plain).file_name().unwrap().to_str().unwrap();
    let body = json!({"command": [name], "env": {"PATH": scratch}});
    refused(&server, body, "exec", EACCES, name).await;
}

#[tokio::test]
async fn a_directory_that_the_jobs_user_may_not_enter_is_told() {
    let server = Server::start().await;
    let mut body = json!({"command": ["true"]});
    if is_root() {
        let closed = server.scratch().join("closed");
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        body["user"] = json!("nobody");
        body["cwd"] = json!(closed);
    } else {
        let closed = server.scratch().join("closed");
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o600)).unwrap();
        body["cwd"] = json!(closed);
    }
    refused(&server, body, "cwd", EACCES, "closed").await;
}

#[tokio::test]
async fn a_code_127_is_the_programs_own() {
    let server = Server::start().await;
    let job = server.run_script(&format!("{}; exit $?", unique())).await;
    assert_eq!(job["exit"]["code"], 127, "{job:#}");
    assert_eq!(job["termination"]["cause"], "exited", "{job:#}");
    assert_eq!(job["spawn_failure"], Value::Null, "{job:#}");
}

#[tokio::test]
async fn a_work_directory_that_a_job_has_removed_is_made_again() {
    let server = Server::start().await;
    let job = server.run_script("rm -rf \"$PWD\"").await;
    assert_eq!(job["state"], "succeeded", "{job:#}");
    for _ in 0..2 {
        let job = server.run_script("pwd; stat -c %a .").await;
        let text = server.text(&id(&job)).await;
        assert!(text.ends_with("/state/work\n700\n"), "{text} {job:#}");
    }
}

#[tokio::test]
async fn standard_streams_can_be_opened_by_name_by_whoever_has_them() {
    let server = Server::start().await;
    let names = "cat /dev/stdin; echo out > /dev/stdout; echo err > /dev/stderr";
    let mut wanted = vec![(json!(null), names.to_owned())];
    if is_root() {
        wanted.push((json!(61234), names.to_owned()));
        let becomes = format!("setpriv --reuid 61235 --clear-groups sh -c '{names}'");
        wanted.push((json!(null), becomes));
    }
    for (user, script) in wanted {
        for stdin in [
            json!({"mode": "data", "text": "in\n"}),
            json!({"mode": "open"}),
        ] {
            let body = json!({"script": script, "user": user, "stdin": stdin});
            let job = id(&server.submit(&body).await);
            if body["stdin"]["mode"] == "open" {
                let path = format!("/jobs/{job}/stdin?eof=true");
                let typed = server.request(reqwest::Method::POST, &path).body("in\n");
                assert_eq!(server.send(typed).await.status, 204);
            }
            let job = server.finished(&job).await;
            let out = server.stdout(&id(&job)).await;
            assert_eq!(out, "in\nout\n", "{body} {}", server.text(&id(&job)).await);
            assert_eq!(job["exit"]["code"], 0, "{job:#}");
        }
    }
}
