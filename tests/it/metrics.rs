//! What operators count: one series at a time, and that there are no more of them the more jobs there are.

use std::collections::BTreeMap;

use nix::unistd::Pid;
use reqwest::Method;
use serde_json::json;

use crate::harness::{Reply, Server, eventually, id, kill_now, processes_with, unique_seconds};

fn text(reply: &Reply) -> String {
    String::from_utf8(reply.body.clone()).unwrap()
}

/// The series of an answer with their values.
fn series(reply: &Reply) -> BTreeMap<String, f64> {
    assert_eq!(reply.status, 200, "{reply}");
    let text = text(reply);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

async fn present(server: &Server) -> BTreeMap<String, f64> {
    series(&server.get("/metrics").await)
}

#[tokio::test]
async fn every_end_is_counted_by_state_and_cause() {
    let server = Server::start().await;
    for body in [
        json!({"script": "echo hello"}),
        json!({"script": "echo hello"}),
        json!({"script": "exit 3"}),
        json!({"script": "kill -9 $$"}),
        json!({"command": ["/no/such/program"]}),
        json!({"command": ["sleep", unique_seconds()], "timeout_seconds": 0.1}),
    ] {
        let job = server.submit(&body).await;
        server.finished(&id(&job)).await;
    }
    let job = server
        .submit(&json!({"command": ["sleep", unique_seconds()]}))
        .await;
    server.in_state(&id(&job), "running").await;
    server.stop(&id(&job), "").await;
    let refused = server.post("/jobs", &json!({"command": []})).await;
    assert_eq!(refused.status, 422, "{refused}");
    let have = present(&server).await;
    for (name, value) in [
        ("procession_jobs_accepted_total", 7.0),
        (r#"procession_jobs_refused_total{code="invalid_spec"}"#, 1.0),
        (
            r#"procession_jobs_finished_total{state="succeeded",cause="exited"}"#,
            2.0,
        ),
        (
            r#"procession_jobs_finished_total{state="failed",cause="exited"}"#,
            1.0,
        ),
        (
            r#"procession_jobs_finished_total{state="failed",cause="signaled"}"#,
            1.0,
        ),
        (
            r#"procession_jobs_finished_total{state="failed",cause="spawn_failed"}"#,
            1.0,
        ),
        (
            r#"procession_jobs_finished_total{state="timed_out",cause="timeout"}"#,
            1.0,
        ),
        (
            r#"procession_jobs_finished_total{state="canceled",cause="canceled"}"#,
            1.0,
        ),
        (r#"procession_output_bytes_total{stream="stdout"}"#, 12.0),
        ("procession_store_finished_jobs", 7.0),
        (r#"procession_jobs{state="running"}"#, 0.0),
        ("procession_job_queue_seconds_count", 6.0),
    ] {
        assert_eq!(have.get(name), Some(&value), "{name} in {have:#?}");
    }
    assert!(have["procession_state_free_bytes"] > 0.0, "{have:#?}");
    assert!(have["process_resident_memory_bytes"] > 0.0, "{have:#?}");
}

#[tokio::test]
async fn a_stop_that_has_to_kill_is_seen() {
    let server = Server::start().await;
    let seconds = unique_seconds();
    let script = format!(
        "trap '' TERM; echo ready; (setsid sleep {seconds} &) ; while :; do sleep {seconds}; done"
    );
    let body = json!({"script": script, "stop": {"grace_seconds": 0.3}});
    let job = server.submit(&body).await;
    server.says(&id(&job), "ready").await;
    server.stop(&id(&job), "").await;
    let have = present(&server).await;
    assert_eq!(have["procession_stop_escalations_total"], 1.0, "{have:#?}");
    let took = have[r#"procession_job_stop_seconds_sum{escalated="true"}"#];
    assert!((0.3..30.0).contains(&took), "{took}");
}

#[tokio::test]
async fn jobs_that_end_while_there_is_no_server_are_counted_once_by_the_next() {
    let server = Server::start().await;
    let seconds = unique_seconds();
    let mut jobs = Vec::new();
    for _ in 0..5 {
        jobs.push(id(&server
            .submit(&json!({"command": ["sleep", seconds]}))
            .await));
    }
    for job in &jobs {
        server.in_state(job, "running").await;
    }
    kill_now(server.server_process().unwrap());
    for process in processes_with(&seconds) {
        kill_now(Pid::from_raw(process.pid));
    }
    eventually("another server answers", async || {
        let reply = server
            .try_send(server.request(Method::GET, "/healthz"))
            .await;
        reply.is_ok().then_some(())
    })
    .await;
    for job in &jobs {
        server.finished(job).await;
    }
    let have = present(&server).await;
    let ended = r#"procession_jobs_finished_total{state="failed",cause="signaled"}"#;
    assert_eq!(have[ended], 5.0, "{have:#?}");
    assert_eq!(have["procession_server_restarts_total"], 1.0, "{have:#?}");
}

#[tokio::test]
async fn there_are_no_more_series_the_more_jobs_there_are() {
    let server = Server::start().await;
    let run = async |from: u32| {
        for number in from..from + 40 {
            let body = json!({
                "script": "true", "name": format!("name-{number}"), "labels": {"k": format!("v{number}")},
            });
            let job = server.submit(&body).await;
            server.finished(&id(&job)).await;
        }
        present(&server).await.len()
    };
    // The first scrape is itself a request to be counted by the second.
    present(&server).await;
    let before = run(0).await;
    assert_eq!(run(40).await, before);
}

#[tokio::test]
async fn a_scraper_chooses_the_format() {
    let server = Server::start().await;
    let open = server.request(Method::GET, "/metrics").header(
        "accept",
        "application/openmetrics-text;version=1.0.0,text/plain;q=0.5",
    );
    let open = server.send(open).await;
    assert_eq!(open.status, 200, "{open}");
    assert!(text(&open).ends_with("# EOF\n"), "{open}");
    let plain = server.get("/metrics").await;
    assert!(!text(&plain).contains("# EOF"), "{plain}");
    assert!(
        text(&plain).contains("# TYPE procession_jobs_accepted_total counter"),
        "{plain}"
    );
}
