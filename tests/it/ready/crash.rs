//! A server that is killed before, while and after a job becomes ready: it is known when that was, and told once.

use reqwest::Method;
use serde_json::{Value, json};

use super::micros;
use crate::files::crash::Armed;
use crate::harness::{LONG, id, kill_now};

async fn known(armed: &Armed, job: &str) -> Value {
    let end = std::time::Instant::now() + LONG;
    loop {
        let reply = armed
            .client
            .get(&format!("/jobs/{job}?wait=5&until=ready"))
            .await;
        let job = reply.json();
        if !job["ready_at"].is_null() {
            return job;
        }
        assert!(std::time::Instant::now() < end, "is not ready: {job:#}");
    }
}

async fn ready_events(armed: &Armed, job: &str) -> usize {
    let path = format!("/jobs/{job}/events?follow=false");
    let events = armed.client.get(&path).await;
    let events = String::from_utf8(events.body).unwrap();
    events.matches("\"job.ready\"").count()
}

#[tokio::test]
async fn a_line_is_found_once_whenever_the_server_is_killed() {
    for point in ["ready.storing", "ready.stored"] {
        let armed = Armed::start().await;
        armed.arm(point);
        let script = "date +%s%6N; echo up; exec sleep 600";
        let body = json!({"script": script, "ready": {"log": "^up$"}});
        let asked = armed
            .client
            .ask(Method::POST, "/jobs", Some(&body), Some(point));
        let job = id(&asked.await.json());
        armed.is_struck(point).await;
        let ready = known(&armed, &job).await;
        assert_eq!(ready_events(&armed, &job).await, 1, "{point}: {ready:#}");
        // The time is that of the line, not of the server which has found it.
        let said = armed.client.get(&format!("/jobs/{job}/output")).await;
        let said = String::from_utf8(said.body).unwrap();
        let said: i64 = said.lines().next().unwrap().parse().unwrap();
        let late = micros(&ready["ready_at"]) - said;
        let started = micros(&ready["started_at"]);
        assert!(
            late >= 0 || micros(&ready["ready_at"]) >= started,
            "{point}: {late}"
        );
    }
}

#[tokio::test]
async fn a_line_that_comes_while_no_server_is_there_is_found() {
    let armed = Armed::start().await;
    // The pipe's other end is this test.
    let scratch = armed.server.scratch();
    let pipe = scratch.join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let done = scratch.join("done");
    let script = format!(
        "read x < {pipe}; echo up; echo > {done}; test \"$x\" = go || exec sleep 600",
        pipe = pipe.display(),
        done = done.display(),
    );
    for (word, state) in [("go\n", "succeeded"), ("stay\n", "running")] {
        let _ = std::fs::remove_file(&done);
        let body = json!({"script": script, "ready": {"log": "^up$"}});
        let asked = armed
            .client
            .ask(Method::POST, "/jobs", Some(&body), Some(word.trim()));
        let job = id(&asked.await.json());
        // Stopped, it is there and does nothing; then it is killed.
        let before = armed.server.server_process().unwrap();
        nix::sys::signal::kill(before, nix::sys::signal::Signal::SIGSTOP).unwrap();
        std::fs::write(&pipe, word).unwrap();
        assert!(crate::harness::blocking_until(LONG, || done.exists()));
        kill_now(before);
        let ready = known(&armed, &job).await;
        assert_eq!(ready["ready_message"], "up", "{ready:#}");
        if state == "succeeded" {
            let ended = armed.client.finished(&job).await;
            assert_eq!(ended["state"], state, "{ended:#}");
        }
        assert_eq!(ready_events(&armed, &job).await, 1, "{ready:#}");
    }
}
