//! Clients that are not ours: curl(1) with files and ranges, and an event source in Node.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::{Server, eventually, id, kill_now};

/// What curl says: the range could not be had, and the transfer was cut.
const NO_RANGE: i32 = 33;
const CUT: [i32; 2] = [18, 56];

/// curl(1) with the token, on a path of the service.
fn curl(server: &Server, path: &str, args: &[&str]) -> Command {
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--show-error", "--fail", "--max-time", "60"])
        .args(["--noproxy", "*", "--header"])
        .arg(format!("Authorization: Bearer {}", server.token()))
        .args(args)
        .arg(format!("http://{}{path}", server.address()))
        .stdin(Stdio::null());
    command
}

/// Downloads standard output into a file; the exit code.
async fn download(server: &Server, job: &str, file: &Path, args: &[&str]) -> i32 {
    let path = format!("/jobs/{job}/output/stdout");
    let mut command = curl(server, &path, args);
    command.arg("--output").arg(file);
    let ended = tokio::task::spawn_blocking(move || command.output());
    let output = ended.await.unwrap().expect("curl is there");
    output.status.code().unwrap()
}

const RESUME: &[&str] = &["--continue-at", "-"];

#[tokio::test]
async fn curl_goes_on_with_a_stream_that_has_grown() {
    let server = Server::start().await;
    let cwd = server.scratch();
    let script = "mkfifo gate; head -c 300000 /dev/urandom | tee copy; read _ < gate; head -c 500000 /dev/urandom | tee -a copy";
    let job = id(&server.submit(&json!({"script": script, "cwd": cwd})).await);
    let file = cwd.join("file");
    eventually("the first part is there", async || {
        let job = server.job(&job).await;
        (job["output"]["stdout_bytes"] == 300_000).then_some(())
    })
    .await;
    assert_eq!(download(&server, &job, &file, RESUME).await, 0);
    assert_eq!(fs::read(&file).unwrap().len(), 300_000);
    fs::write(cwd.join("gate"), "\n").unwrap();
    server.finished(&job).await;
    assert_eq!(download(&server, &job, &file, RESUME).await, 0);
    assert!(fs::read(&file).unwrap() == fs::read(cwd.join("copy")).unwrap());
    // Nothing more is there: 416, which tells curl that it has the whole file, except with --fail.
    let again = [RESUME, &["--no-fail"]].concat();
    assert_eq!(download(&server, &job, &file, &again).await, 0);
    assert!(fs::read(&file).unwrap() == fs::read(cwd.join("copy")).unwrap());
}

#[tokio::test]
async fn curl_goes_on_after_the_server_was_killed_under_it() {
    let server = Server::start().await;
    let cwd = server.scratch();
    // More than the sockets hold: what they have, curl gets in spite of the kill.
    let body = json!({"script": "head -c 50000000 /dev/urandom | tee copy", "cwd": cwd});
    let job = id(&server.submit(&body).await);
    server.finished(&job).await;
    let file = cwd.join("file");
    let size = || fs::metadata(&file).map_or(0, |file| file.len());
    let (code, ()) = tokio::join!(
        download(&server, &job, &file, &["--limit-rate", "4M"]),
        async {
            eventually("a part has come", async || (size() > 0).then_some(())).await;
            kill_now(server.server_process().unwrap());
        }
    );
    assert!(CUT.contains(&code), "{code}");
    assert!((1..50_000_000).contains(&size()), "{}", size());
    assert_eq!(download(&server, &job, &file, RESUME).await, 0);
    assert!(fs::read(&file).unwrap() == fs::read(cwd.join("copy")).unwrap());
}

#[tokio::test]
async fn curl_does_not_put_together_what_does_not_fit() {
    let server = Server::start().await;
    let cwd = server.scratch();
    let spec = json!({
        "script": "head -c 100000 /dev/zero; mkfifo gate; read _ < gate; head -c 900000 /dev/zero",
        "cwd": cwd, "output": {"max_bytes": 100_000, "on_limit": "drop_oldest"},
    });
    let job = id(&server.submit(&spec).await);
    let file = cwd.join("file");
    fs::write(&file, "0123456789").unwrap();
    eventually("it waits", async || {
        fs::metadata(cwd.join("gate")).ok().map(|_| ())
    })
    .await;
    fs::write(cwd.join("gate"), "\n").unwrap();
    let ended = server.finished(&job).await;
    assert!(ended["output"]["first_offset"].as_u64().unwrap() > 10);
    // The rest of the file is no longer kept: the answer says where it begins, and curl refuses that.
    assert_eq!(download(&server, &job, &file, RESUME).await, NO_RANGE);
    assert_eq!(fs::read(&file).unwrap(), b"0123456789");
}

#[tokio::test]
async fn curl_follows_to_the_end_and_knows_when_it_was_not_the_end() {
    let server = Server::start().await;
    let cwd = server.scratch();
    let script = "mkfifo gate; echo one; read _ < gate; echo two";
    let job = id(&server.submit(&json!({"script": script, "cwd": cwd})).await);
    let path = format!("/jobs/{job}/output?follow");
    let follow = || {
        let mut command = curl(&server, &path, &["--no-buffer"]);
        command.stdout(Stdio::piped());
        let mut child = command.spawn().expect("curl is there");
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        output.read_line(&mut first).unwrap();
        assert_eq!(first, "one\n");
        (child, output)
    };
    let (mut cut, _output) = follow();
    kill_now(server.server_process().unwrap());
    let code = cut.wait().unwrap().code().unwrap();
    assert!(CUT.contains(&code), "{code}");
    let (mut whole, mut output) = follow();
    fs::write(cwd.join("gate"), "\n").unwrap();
    let mut last = String::new();
    output.read_line(&mut last).unwrap();
    assert_eq!(last, "two\n");
    assert_eq!(whole.wait().unwrap().code(), Some(0));
}

#[tokio::test]
async fn an_event_source_comes_back_by_itself_and_stops_when_all_is_told() {
    if Command::new("node").arg("--version").output().is_err() {
        eprintln!("skipped: there is no node here");
        return;
    }
    let server = Server::start().await;
    let cwd = server.scratch();
    // A gate each: one that is opened again while its writer closes it lets the job through.
    let script =
        "mkfifo first second; echo one; read _ < first; echo zwei ü; read _ < second; echo three";
    let job = id(&server.submit(&json!({"script": script, "cwd": cwd})).await);
    server.says(&job, "one").await;
    let program = cwd.join("event_source.mjs");
    fs::write(&program, include_str!("event_source.mjs")).unwrap();
    let mut node = Command::new("node")
        .arg(program)
        .arg(format!("http://{}/jobs/{job}/output", server.address()))
        .arg(server.token())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(node.stdout.take().unwrap());
    let mut lines = output.lines().map(|line| line.unwrap());
    assert_eq!(lines.next().unwrap(), "open");
    kill_now(server.server_process().unwrap());
    assert_eq!(lines.next().unwrap(), "open");
    fs::write(cwd.join("first"), "\n").unwrap();
    server.says(&job, "zwei").await;
    kill_now(server.server_process().unwrap());
    assert_eq!(lines.next().unwrap(), "open");
    fs::write(cwd.join("second"), "\n").unwrap();
    // After the end it comes back once more, and is told not to.
    let had: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
    assert_eq!(node.wait().unwrap().code(), Some(0));
    let expected = json!({
        "text": "one\nzwei ü\nthree\n",
        "states": ["running", "running", "running"],
        "end": "succeeded",
        "connections": 3,
    });
    assert_eq!(had, expected);
}
