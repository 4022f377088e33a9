//! What operators count: one series at a time, and that there are no more of them the more jobs there are.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;

use nix::unistd::Pid;
use reqwest::Method;
use serde_json::json;

use crate::harness::{
    LONG, Reply, Server, eventually, eventually_within, id, kill_now, processes_with,
    unique_seconds,
};

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

/// The sum over all series of this name.
fn sum(have: &BTreeMap<String, f64>, name: &str) -> f64 {
    let of = have
        .iter()
        .filter(|(series, _)| series.split('{').next() == Some(name));
    of.map(|(_, value)| value).sum()
}

#[track_caller]
fn assert_has(have: &BTreeMap<String, f64>, expected: &[(&str, f64)]) {
    for (name, value) in expected {
        assert_eq!(have.get(*name), Some(value), "{name} in {have:#?}");
    }
}

#[tokio::test]
async fn every_end_is_counted_by_state_and_cause() {
    let server = Server::start().await;
    let asleep = || json!({"command": ["sleep", unique_seconds()], "timeout_seconds": 0.1});
    for body in [
        json!({"script": "echo hello"}),
        json!({"script": "echo hello"}),
        json!({"script": "echo hello"}),
        json!({"script": "exit 1"}),
        json!({"script": "exit 1"}),
        json!({"script": "exit 1"}),
        asleep(),
        asleep(),
        json!({"script": "kill -9 $$"}),
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
    assert_eq!(sum(&have, "procession_jobs_finished_total"), 10.0);
    assert_has(
        &have,
        &[
            (r#"procession_jobs_accepted_total{queue="other"}"#, 10.0),
            (r#"procession_jobs_refused_total{code="invalid_spec"}"#, 1.0),
            (
                r#"procession_jobs_finished_total{state="succeeded",cause="exited"}"#,
                3.0,
            ),
            (
                r#"procession_jobs_finished_total{state="failed",cause="exited"}"#,
                3.0,
            ),
            (
                r#"procession_jobs_finished_total{state="failed",cause="signaled"}"#,
                1.0,
            ),
            (
                r#"procession_jobs_finished_total{state="timed_out",cause="timeout"}"#,
                2.0,
            ),
            (
                r#"procession_jobs_finished_total{state="canceled",cause="canceled"}"#,
                1.0,
            ),
            (r#"procession_job_attempts_total{outcome="succeeded"}"#, 3.0),
            (r#"procession_output_bytes_total{stream="stdout"}"#, 18.0),
            ("procession_store_finished_jobs", 10.0),
            (r#"procession_jobs{state="running"}"#, 0.0),
            (r#"procession_job_queue_seconds_count{queue="other"}"#, 10.0),
            (r#"procession_job_start_seconds_count{queue="other"}"#, 10.0),
            ("procession_webhook_pending", 0.0),
            ("procession_audit_lines_lost_total", 0.0),
            (r#"procession_http_connections{kind="unix"}"#, 0.0),
        ],
    );
    for name in [
        "procession_state_free_bytes",
        "process_resident_memory_bytes",
        "procession_store_bytes",
        "procession_store_commit_seconds_count",
    ] {
        assert!(have[name] > 0.0, "{name} in {have:#?}");
    }
}

#[tokio::test]
async fn connections_are_counted_while_they_are_open() {
    let server = Server::start().await;
    // The client of the test opens as many to the port as it likes.
    let socket = server.state_dir().join("procession.sock");
    let mut idle: Vec<_> = (0..3)
        .map(|_| UnixStream::connect(&socket).unwrap())
        .collect();
    for (left, counted) in [(3, 3.0), (1, 1.0), (0, 0.0)] {
        idle.truncate(left);
        eventually("as many connections as are open", async || {
            let have = present(&server).await;
            assert!(have[r#"procession_http_connections{kind="tcp"}"#] >= 1.0);
            let unix = have[r#"procession_http_connections{kind="unix"}"#];
            (unix == counted).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn attempts_queues_schedules_and_chosen_labels_have_their_series() {
    let server = Server::builder()
        .args(["--metrics-label", "team"])
        .start()
        .await;
    let limited = json!({"max_running": 2, "max_queued": 5});
    let request = server.request(Method::PUT, "/queues/builds").json(&limited);
    let reply = server.send(request).await;
    assert_eq!(reply.status, 201, "{reply}");
    let body = json!({
        "script": "exit 75", "queue": "builds", "labels": {"team": "data"},
        "retry": {"max_attempts": 2, "backoff": {"initial_seconds": 0}},
    });
    let job = server.run(&body).await;
    assert_eq!(job["attempt"], 2, "{job:#}");
    let at = json!({"job": {"script": "true"}, "every_seconds": 86400});
    let request = server.request(Method::PUT, "/schedules/nightly").json(&at);
    let reply = server.send(request).await;
    assert_eq!(reply.status, 201, "{reply}");
    let run = server.post("/schedules/nightly/run", &json!({})).await;
    assert_eq!(run.status, 201, "{run}");
    let ran = server.finished(&id(&run.json())).await;
    let have = present(&server).await;
    let success: jiff::Timestamp = ran["finished_at"].as_str().unwrap().parse().unwrap();
    let success: f64 = success.as_second().to_string().parse().unwrap();
    assert_has(
        &have,
        &[
            (r#"procession_jobs_accepted_total{queue="builds"}"#, 1.0),
            (r#"procession_job_attempts_total{outcome="failed"}"#, 2.0),
            (
                r#"procession_jobs_finished_total{state="failed",cause="exited",label_team="data"}"#,
                1.0,
            ),
            (
                r#"procession_job_run_seconds_count{queue="builds",state="failed",label_team="data"}"#,
                1.0,
            ),
            (
                r#"procession_queue_jobs{queue="builds",state="running"}"#,
                0.0,
            ),
            (
                r#"procession_queue_limit{queue="builds",state="running"}"#,
                2.0,
            ),
            (
                r#"procession_queue_limit{queue="builds",state="queued"}"#,
                5.0,
            ),
            (
                r#"procession_schedule_last_success_timestamp_seconds{schedule="nightly"}"#,
                success,
            ),
        ],
    );
}

#[tokio::test]
async fn numbers_are_for_tokens_with_the_scope() {
    let server = Server::start().await;
    let made = server
        .post("/tokens", &json!({"name": "scraper", "scope": "metrics"}))
        .await;
    assert_eq!(made.status, 201, "{made}");
    let scraper = made.json()["token"].as_str().unwrap().to_owned();
    let ask = async |path: &str, token: Option<&str>, origin: Option<&str>| {
        let mut request = server.anonymous(Method::GET, path);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        server.send(request).await
    };
    let foreign = Some("https://elsewhere.example");
    let own = Some(scraper.as_str());
    for (token, origin, status) in [
        (None, None, 401),
        (Some("wrong"), None, 401),
        (own, foreign, 403),
    ] {
        let reply = ask("/metrics", token, origin).await;
        assert_eq!(reply.status, status, "{reply}");
        assert!(!text(&reply).contains("procession_"), "{reply}");
    }
    let reply = ask("/metrics", own, None).await;
    assert!(
        series(&reply).contains_key("procession_draining"),
        "{reply}"
    );
    // And nothing else with it.
    for path in ["/jobs", "/info"] {
        let reply = ask(path, own, None).await;
        assert_eq!(reply.status, 403, "{path}: {reply}");
        assert!(!text(&reply).contains("running"), "{reply}");
    }
}

#[tokio::test]
async fn a_stop_that_has_to_kill_is_seen() {
    let server = Server::start().await;
    let seconds = unique_seconds();
    // The leader obeys, and a child of it in a session of its own does not.
    let script = format!("setsid sh -c 'trap \"\" TERM; echo ready; exec sleep {seconds}' & wait");
    let body = json!({"script": script, "stop": {"grace_seconds": 0.3}});
    let job = server.submit(&body).await;
    server.says(&id(&job), "ready").await;
    let job = server.stop(&id(&job), "").await;
    let have = present(&server).await;
    assert_has(
        &have,
        &[
            ("procession_stop_escalations_total", 1.0),
            (
                r#"procession_job_stop_seconds_count{escalated="true"}"#,
                1.0,
            ),
        ],
    );
    assert!(
        have["procession_leftovers_killed_total"] >= 1.0,
        "{job:#} {have:#?}"
    );
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

/// `PROCESSION_SERIES_JOBS` is how many jobs there are in all.
#[tokio::test]
async fn there_are_no_more_series_the_more_jobs_there_are() {
    let jobs: u32 =
        std::env::var("PROCESSION_SERIES_JOBS").map_or(80, |text| text.parse().unwrap());
    let server = Server::start().await;
    let run = async |half: u32| {
        let numbers: Vec<u32> = (half * jobs / 2..(half + 1) * jobs / 2).collect();
        for some in numbers.chunks(500) {
            let jobs: Vec<_> = some
                .iter()
                .map(|number| {
                    json!({
                        "key": format!("k{number}"), "script": "true", "name": format!("name-{number}"),
                        "queue": format!("queue-{number}"), "labels": {"k": format!("v{number}")},
                    })
                })
                .collect();
            let batch = server.post("/batches", &json!({"jobs": jobs})).await;
            assert_eq!(batch.status, 201, "{batch}");
            let path = format!("/batches/{}?wait=60", id(&batch.json()));
            eventually_within(60 * LONG, "the batch ends", async || {
                let batch = server.get(&path).await.json();
                (batch["state"] == "succeeded").then_some(())
            })
            .await;
        }
        // Two scrapes: the first is itself a request to be counted by the second.
        present(&server).await;
        present(&server).await
    };
    let before = run(0).await;
    let after = run(1).await;
    let names = |have: &BTreeMap<String, f64>| have.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&after), names(&before));
    let all = f64::from(jobs / 2 * 2);
    assert_eq!(sum(&after, "procession_jobs_finished_total"), all);
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
        text(&plain).contains("# TYPE procession_leftovers_killed_total counter"),
        "{plain}"
    );
}
