//! The commands that bring files in and out.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::crash::Armed;
use super::{MODE, put, text, workspace};
use crate::harness::{Server, eventually, id, kill_now};

fn work(server: &Server, name: &str) -> std::path::PathBuf {
    let here = server.scratch().join(name);
    fs::create_dir_all(&here).unwrap();
    here
}

fn client(server: &Server, here: &Path, args: &[&str]) -> Command {
    let mut command = server.client();
    command.current_dir(here).args(args).stdin(Stdio::null());
    command
}

#[tokio::test]
async fn a_run_brings_files_in_and_artifacts_back_over_a_restart_whatever_its_exit_code() {
    let server = Server::start().await;
    let here = work(&server, "run");
    fs::write(here.join("data.csv"), "b\na\n").unwrap();
    fs::write(here.join("tool"), "#!/bin/sh\nsort data.csv\n").unwrap();
    fs::set_permissions(here.join("tool"), PermissionsExt::from_mode(0o755)).unwrap();
    let script = "mkfifo go; echo ready; read x < go; mkdir -p out/a; ./bin/tool > out/a/sorted; cp bin/tool out; exit 3";
    let mut run = client(
        &server,
        &here,
        &["run", "--in", "data.csv", "--in", "tool:bin/tool"],
    );
    run.args([
        "--out", "out/**", "--into", "back", "--name", "brings", "--script", script,
    ]);
    let child = run
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let job = eventually("the job is there", async || {
        let list = server.get("/jobs?name_prefix=brings").await.json();
        list["jobs"][0]["id"].as_str().map(str::to_owned)
    })
    .await;
    server.says(&job, "ready").await;
    kill_now(server.server_process().unwrap());
    let go = workspace(&server, &job).join("go");
    let ended = tokio::task::spawn_blocking(move || {
        fs::write(go, "x\n").unwrap();
        child.wait_with_output().unwrap()
    });
    let output = ended.await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert_eq!(
        fs::read_to_string(here.join("back/out/a/sorted")).unwrap(),
        "a\nb\n",
        "{said}"
    );
    let tool = fs::metadata(here.join("back/out/tool")).unwrap();
    assert_eq!(tool.permissions().mode() & MODE, 0o755);
    assert!(!here.join("back/go").exists());
}

#[tokio::test]
async fn files_are_listed_and_copied_by_commands() {
    let server = Server::start().await;
    let here = work(&server, "cp");
    fs::write(here.join("a b"), "content\n").unwrap();
    let run = |args: &[&str]| {
        let output = client(&server, &here, args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap() + &said,
        )
    };
    let held = id(&server
        .submit(
            &json!({"script": "cat 'in/a b' > out", "hold": true, "workspace": {"keep": "all"}}),
        )
        .await);
    assert_eq!(
        run(&["cp", "a b", &format!("{held}:in/")]),
        (Some(0), String::new())
    );
    assert_eq!(text(&server, &held, "in/a%20b").await, "content\n");
    assert_eq!(run(&["release", &held]).0, Some(0));
    server.finished(&held).await;
    assert_eq!(
        run(&["cp", &format!("{held}:out"), "."]),
        (Some(0), String::new())
    );
    assert_eq!(fs::read_to_string(here.join("out")).unwrap(), "content\n");
    let (code, listed) = run(&["files", &held]);
    assert_eq!(code, Some(0), "{listed}");
    for path in ["in/", "in/a b", "out"] {
        assert!(listed.lines().any(|line| line.ends_with(path)), "{listed}");
    }
    let (code, said) = run(&["cp", &format!("{held}:none"), "."]);
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(run(&["cp", "a", "b"]).0, Some(2));
    assert_eq!(
        put(&server, &held, "x", "x").await.code(),
        "job_already_finished"
    );
}

#[tokio::test]
async fn a_run_brings_directories_in_and_more_than_a_request_holds() {
    let server = Server::start().await;
    let here = work(&server, "dirs");
    fs::create_dir_all(here.join("src/deep/er")).unwrap();
    fs::write(here.join("src/deep/er/a b"), "content\n").unwrap();
    fs::write(here.join("src/tool"), "#!/bin/sh\ncat 'deep/er/a b' link\n").unwrap();
    fs::set_permissions(here.join("src/tool"), PermissionsExt::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("deep/er/a b", here.join("src/link")).unwrap();
    let large: String = (0..400_000).map(|n| format!("{n}\n")).collect();
    assert!(large.len() > 2 << 20);
    fs::write(here.join("large"), &large).unwrap();
    let run = |args: &[&str]| client(&server, &here, args).output().unwrap();
    let script = "cd in && ./tool && tail -n 1 ../large; exit 4";
    let out = run(&["run", "--in", "src:in", "--in", "large", "--script", script]);
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(4), "{said}");
    let expected = "content\ncontent\n399999\n";
    assert_eq!(String::from_utf8(out.stdout).unwrap(), expected, "{said}");
    // What is in a directory, into the workspace itself; and in the background.
    let here = here.join("src");
    let mut run = client(&server, &here, &["run", "-d", "--in", ".", "./tool"]);
    let out = run.output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{said}");
    let job = server
        .finished(String::from_utf8(out.stdout).unwrap().trim())
        .await;
    assert_eq!(job["state"], "succeeded", "{job:#}");
    assert_eq!(server.stdout(&id(&job)).await, "content\ncontent\n");
}

#[tokio::test]
async fn a_job_that_does_not_get_its_files_is_canceled() {
    let server = Server::start().await;
    let here = work(&server, "refused");
    fs::create_dir_all(here.join("src")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", here.join("src/out")).unwrap();
    let args = ["run", "--name", "refused", "--in", "src", "true"];
    let out = client(&server, &here, &args).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(125), "{said}");
    assert!(said.contains("src/out") || said.contains("link"), "{said}");
    let list = server.get("/jobs?name=refused").await.json();
    let job = server
        .finished(list["jobs"][0]["id"].as_str().unwrap())
        .await;
    assert_eq!(job["state"], "canceled", "{job:#}");
}

/// What is interrupted while its files are on the way leaves no job that is held forever.
#[tokio::test]
async fn a_run_that_is_interrupted_while_it_brings_files_cancels_its_job() {
    let armed = Armed::start().await;
    let server = &armed.server;
    let here = work(server, "interrupted");
    fs::write(here.join("large"), vec![b'x'; 3 << 20]).unwrap();
    for (name, options, signal) in [
        ("detached", &["-d"][..], Signal::SIGINT),
        ("hung-up", &["-d", "--wait-ready"], Signal::SIGHUP),
        ("attended", &[], Signal::SIGTERM),
    ] {
        armed.hold("file.putting");
        let mut run = client(server, &here, &["run", "--name", name, "--in", "large"]);
        let run = run.args(options).arg("true").stderr(Stdio::piped());
        let run = run.spawn().unwrap();
        armed.is_struck("file.putting").await;
        kill(Pid::from_raw(run.id().cast_signed()), signal).unwrap();
        let ended = tokio::task::spawn_blocking(move || run.wait_with_output().unwrap());
        let ended = ended.await.unwrap();
        armed.arm("file.putting");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(125), "{name}: {said}");
        let list = server.get(&format!("/jobs?name={name}")).await.json();
        let job = server.finished(&id(&list["jobs"][0])).await;
        assert_eq!(job["state"], "canceled", "{job:#}");
        assert!(
            said.contains(&id(&job)) && said.contains("canceled"),
            "{said}"
        );
        let files = server
            .get(&format!("/jobs/{}/files", id(&job)))
            .await
            .json();
        assert_eq!(files["files"], json!([]), "{name}");
    }
}
