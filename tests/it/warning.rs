//! A job hears before its timeout, and so do those who watch it: once, whoever is killed meanwhile.

use reqwest::Method;
use serde_json::{Value, json};

use crate::files::crash::Armed;
use crate::harness::{Persistent, Server, bound, eventually, id, kill_now};
use crate::life::signals_sent;

/// Says each time that it is warned, once it has said that it listens.
const WARNED: &str = "trap 'echo warned' USR1; echo up; while :; do sleep 600 & wait $!; done";

fn job(timeout: f64, before: f64) -> Value {
    json!({
        "script": WARNED, "timeout_seconds": timeout,
        "timeout_warning": {"before_seconds": before, "signal": "USR1"},
    })
}

fn seconds(at: &Value) -> f64 {
    let at = at.as_str().unwrap_or_else(|| panic!("no moment: {at}"));
    at.parse::<jiff::Timestamp>()
        .unwrap()
        .as_duration()
        .as_secs_f64()
}

async fn patch(client: &Persistent, job: &str, timeout: f64) {
    let body = json!({"timeout_seconds": timeout});
    let path = format!("/jobs/{job}");
    let reply = client.ask(Method::PATCH, &path, Some(&body), None).await;
    assert_eq!(reply.status, 200, "{reply}");
}

/// The events that tell of a warning.
async fn told(client: &Persistent, job: &str) -> Vec<Value> {
    let path = format!("/jobs/{job}/events?follow=false");
    let events = client.get(&path).await;
    let events = String::from_utf8(events.body).unwrap();
    let data = events
        .lines()
        .filter_map(|line| line.strip_prefix("data: "));
    let events = data.map(|data| serde_json::from_str::<Value>(data).unwrap());
    events.filter(|it| it["type"] == "job.warned").collect()
}

/// How often the job has heard of it, once it has so often.
async fn heard(client: &Persistent, job: &str, times: usize) -> usize {
    eventually(&format!("it hears of it {times} times"), async || {
        let output = client.get(&format!("/jobs/{job}/output/stdout")).await;
        let output = String::from_utf8(output.body).unwrap();
        let count = output.matches("warned").count();
        (count >= times).then_some(count)
    })
    .await
}

/// The events, once there are so many.
async fn told_so_often(client: &Persistent, job: &str, times: usize) -> Vec<Value> {
    eventually(&format!("it is told {times} times"), async || {
        let told = told(client, job).await;
        (told.len() >= times).then_some(told)
    })
    .await
}

#[tokio::test]
async fn a_job_is_warned_once_before_its_timeout_and_again_before_another_one() {
    let server = Server::start().await;
    let client = server.persistent();
    let job = server.submit(&job(1200.0, 599.0)).await;
    assert_eq!(job["warned_at"], Value::Null, "{job:#}");
    let job = id(&job);
    server.says(&job, "up").await;
    patch(&client, &job, 600.0).await;
    assert_eq!(heard(&client, &job, 1).await, 1);
    let told = told_so_often(&client, &job, 1).await;
    let warned = server.job(&job).await;
    assert_eq!(told[0]["time"], warned["warned_at"], "{told:?}");
    assert_eq!(
        told[0]["data"]["deadline_at"], warned["deadline_at"],
        "{told:?}"
    );
    assert_eq!(told[0]["data"]["state"], "running", "{told:?}");
    let left = seconds(&warned["deadline_at"]) - seconds(&warned["warned_at"]);
    let late = bound(std::time::Duration::from_millis(100)).as_secs_f64();
    assert!((599.0 - late..=599.01).contains(&left), "{left} s before");
    // Another timeout has a warning of its own: here at once, since less is left.
    patch(&client, &job, 599.5).await;
    assert_eq!(heard(&client, &job, 2).await, 2);
    assert_eq!(told_so_often(&client, &job, 2).await.len(), 2);
    // The same one has not.
    patch(&client, &job, 599.5).await;
    patch(&client, &job, 598.5).await;
    assert_eq!(heard(&client, &job, 3).await, 3);
    assert_eq!(told_so_often(&client, &job, 3).await.len(), 3);
    let ended = server.stop(&job, "force").await;
    assert_eq!(ended["state"], "canceled", "{ended:#}");
    assert!(ended["warned_at"].is_string(), "{ended:#}");
}

#[tokio::test]
async fn without_a_signal_clients_alone_hear_of_it_and_the_timeout_strikes() {
    let server = Server::start().await;
    let body = json!({
        "command": ["sleep", "600"], "timeout_seconds": 5, "timeout_warning": {"before_seconds": 4.5},
    });
    let ended = server.run(&body).await;
    assert_eq!(ended["state"], "timed_out", "{ended:#}");
    let job = id(&ended);
    let told = told_so_often(&server.persistent(), &job, 1).await;
    assert_eq!(told.len(), 1, "{told:?}");
    // That of the stop is the only one; any other would have ended it.
    assert_eq!(ended["exit"]["signal"], "SIGTERM", "{ended:#}");
    assert_eq!(signals_sent(&ended), ["SIGTERM"], "{ended:#}");
}

#[tokio::test]
async fn whoever_is_killed_at_the_warning_it_comes_once() {
    // How often the job has heard of it: where its monitor is killed between the note and the signal, not at all.
    for (point, expected) in [
        ("warning.recorded", 0),
        ("warning.sent", 1),
        ("warning.storing", 1),
        ("warning.stored", 1),
    ] {
        let armed = Armed::start().await;
        let job = id(&armed.server.submit(&job(1200.0, 599.0)).await);
        armed.server.says(&job, "up").await;
        armed.arm(point);
        patch(&armed.client, &job, 600.0).await;
        armed.is_struck(point).await;
        let told = told_so_often(&armed.client, &job, 1).await;
        assert_eq!(told.len(), 1, "{point}: {told:?}");
        // The next one shows that nothing of the first was still to come.
        patch(&armed.client, &job, 599.5).await;
        let heard = heard(&armed.client, &job, expected + 1).await;
        assert_eq!(heard, expected + 1, "{point}");
        let told = told_so_often(&armed.client, &job, 2).await;
        assert_eq!(told.len(), 2, "{point}: {told:?}");
    }
}

#[tokio::test]
async fn a_warning_is_given_by_a_rescuer_and_told_by_another_server() {
    let server = Server::start().await;
    let client = server.persistent();
    let job = id(&server.submit(&job(600.0, 300.0)).await);
    server.says(&job, "up").await;
    kill_now(server.monitors()[&job]);
    kill_now(server.server_process().unwrap());
    patch(&client, &job, 301.0).await;
    assert_eq!(heard(&client, &job, 1).await, 1);
    assert_eq!(told_so_often(&client, &job, 1).await.len(), 1);
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused() {
    let server = Server::start().await;
    for (body, pointer) in [
        (job(5.0, 5.0), "/timeout_warning/before_seconds"),
        (
            json!({"script": "true", "timeout_warning": {"before_seconds": 1}}),
            "/timeout_warning",
        ),
    ] {
        let reply = server.post("/jobs", &body).await;
        assert_eq!(reply.status, 422, "{reply}");
        assert_eq!(reply.json()["errors"][0]["pointer"], pointer, "{reply}");
    }
}
