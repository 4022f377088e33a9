//! A copy of a state directory, made while its service runs: it must not harm the original.

use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::{Server, eventually, id, processes_with, unique_seconds};

/// Copies the state directory to where nothing is yet.
fn copy(server: &Server, name: &str) -> PathBuf {
    let to = server.state_dir().with_file_name(name);
    let mut cp = Command::new("cp");
    let copied = cp.arg("-a").arg(server.state_dir()).arg(&to).status();
    assert!(copied.unwrap().success());
    to
}

#[tokio::test]
async fn a_copy_beside_the_service_that_it_was_made_of_does_not_start() {
    let server = Server::start().await;
    let seconds = unique_seconds();
    let job = server.submit(&json!({"command": ["sleep", seconds]})).await;
    let copy = copy(&server, "copy");
    let mut serve = server.client();
    let said = serve
        .env("PROCESSION_LISTEN", "127.0.0.1:0")
        .args(["serve", "--state-dir"])
        .arg(&copy)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&said.stderr);
    assert_eq!(said.status.code(), Some(78), "{stderr}");
    for words in ["is a copy of", &server.supervisor().to_string()] {
        assert!(stderr.contains(words), "{stderr}");
    }
    assert_eq!(processes_with(&seconds).len(), 1);
    server.stop(&id(&job), "force").await;
}

/// Both what runs under its monitor and what a lost job has left.
#[tokio::test]
async fn a_copy_signals_no_process_of_the_original() {
    let mut server = Server::builder()
        .without_cgroups()
        .args(["--on-shutdown", "leave"])
        .start()
        .await;
    let (watched, left) = (unique_seconds(), unique_seconds());
    let lives = id(&server.submit(&json!({"command": ["sleep", watched]})).await);
    let lost = id(&server.submit(&json!({"command": ["sleep", left]})).await);
    let monitor = server.monitors()[&lost];
    // Nobody rescues a job whose monitor dies without a supervisor.
    server.end(Signal::SIGTERM);
    crate::harness::kill_now(monitor);
    server
        .start_again(
            Server::builder()
                .without_cgroups()
                .args(["--on-shutdown", "leave"]),
        )
        .await;
    let job = server.finished(&lost).await;
    assert_eq!(job["state"], "lost", "{job:#}");
    assert!(job["state_message"].as_str().is_some(), "{job:#}");
    server.end(Signal::SIGTERM);

    let original = server.state_dir();
    let copy = copy(&server, "copy");
    let aside = original.with_file_name("original");
    std::fs::rename(&original, &aside).unwrap();
    std::fs::rename(&copy, &original).unwrap();
    server
        .start_again(Server::builder().without_cgroups())
        .await;
    let job = server.finished(&lives).await;
    assert_eq!(job["state"], "lost", "{job:#}");
    assert_eq!(job["termination"]["cause"], "supervisor_lost", "{job:#}");
    for id in [&lives, &lost] {
        server.delete(id, "wait=5&force").await;
        let reply = server.get(&format!("/jobs/{id}/processes")).await;
        assert_eq!(reply.json()["processes"], json!([]), "{reply}");
    }
    // A fresh job is the copy's own, and ends as everywhere.
    let own = id(&server
        .submit(&json!({"command": ["sleep", unique_seconds()]}))
        .await);
    assert_eq!(server.stop(&own, "force").await["state"], "canceled");
    assert_eq!(processes_with(&watched).len(), 1);
    assert_eq!(processes_with(&left).len(), 1);
    server.end(Signal::SIGTERM);

    // The original goes on as if nothing had been.
    std::fs::rename(&original, &copy).unwrap();
    std::fs::rename(&aside, &original).unwrap();
    server
        .start_again(Server::builder().without_cgroups())
        .await;
    assert_eq!(server.job(&lives).await["state"], "running");
    server.stop(&lives, "force").await;
    server.delete(&lost, "wait=5&force").await;
    eventually("the left process is ended", async || {
        processes_with(&left).is_empty().then_some(())
    })
    .await;
    std::fs::remove_dir_all(&copy).unwrap();
}
