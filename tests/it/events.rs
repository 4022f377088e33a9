//! The time line: every happening once, in order, whoever dies meanwhile and whenever one comes back.

use std::time::Duration;

use nix::sys::signal::Signal;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::harness::{Lines, Server, eventually, id, kill_now, unique_seconds};

const NDJSON: &str = "application/x-ndjson";
const EVENTS: &str = "text/event-stream";

/// What is there now, checked against the description.
async fn events(server: &Server, path: &str) -> Vec<Value> {
    let request = server.request(Method::GET, path).header("accept", NDJSON);
    let reply = server.send(request).await;
    assert_eq!(reply.status, 200, "{reply}");
    let text = String::from_utf8(reply.body).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn types(events: &[Value]) -> Vec<&str> {
    let types = events.iter().map(|event| event["type"].as_str().unwrap());
    types.map(|it| it.strip_prefix("job.").unwrap()).collect()
}

fn cursor(event: &Value) -> u64 {
    event["id"].as_str().unwrap().parse().unwrap()
}

async fn open(server: &Server, path: &str, last: Option<&str>) -> Response {
    let mut request = server.request(Method::GET, path).header("accept", EVENTS);
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    request.send().await.unwrap()
}

/// An event source as a client of ours would be one.
struct Source {
    lines: Lines,
}

impl Source {
    fn new(response: Response) -> Self {
        Self {
            lines: Lines::new(response),
        }
    }

    /// The next event; its lines must agree with its data.
    async fn next(&mut self) -> Option<Value> {
        let (mut place, mut kind) = (None, None);
        loop {
            let line = self.lines.next().await?;
            if let Some(text) = line.strip_prefix("id: ") {
                place = Some(text.to_owned());
            } else if let Some(text) = line.strip_prefix("event: ") {
                kind = Some(text.to_owned());
            } else if let Some(data) = line.strip_prefix("data: ") {
                let event: Value = serde_json::from_str(data).unwrap();
                assert_eq!(event["id"].as_str(), place.as_deref());
                assert_eq!(event["type"].as_str(), kind.as_deref());
                return Some(event);
            }
        }
    }

    async fn all(mut self) -> Vec<Value> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        assert!(self.lines.is_whole, "broken off after {events:#?}");
        events
    }
}

#[tokio::test]
async fn a_short_job_has_three_events_that_tell_its_life() {
    let server = Server::start().await;
    let body = json!({"command": ["/bin/true"], "name": "short", "labels": {"team": "data"}});
    let job = server.run(&body).await;
    let path = format!("/jobs/{}/events", id(&job));
    let told = events(&server, &path).await;
    assert_eq!(types(&told), ["created", "started", "finished"]);
    for event in &told {
        assert_eq!(event["specversion"], "1.0");
        assert_eq!(event["subject"], job["id"]);
        assert_eq!(event["source"], told[0]["source"]);
        assert_eq!(event["data"]["name"], "short");
        assert_eq!(event["data"]["labels"], json!({"team": "data"}));
    }
    assert_eq!(told[0]["time"], job["created_at"]);
    assert_eq!(told[0]["data"]["created_by"], job["created_by"]);
    assert_eq!(told[1]["time"], job["started_at"]);
    assert_eq!(told[1]["data"]["pid"], job["process"]["pid"]);
    assert_eq!(told[2]["time"], job["finished_at"]);
    assert_eq!(told[2]["data"]["state"], job["state"]);
    assert_eq!(told[2]["data"]["version"], job["version"]);
    assert_eq!(told[2]["data"]["exit"], job["exit"]);
    assert_eq!(told[2]["data"]["cause"], "exited");
    let from_the_first = format!("{path}?after={}", cursor(&told[0]));
    assert_eq!(events(&server, &from_the_first).await, told[1..]);
    // As an event stream the same, to its end, and then nothing more.
    assert_eq!(
        Source::new(open(&server, &path, None).await).all().await,
        told
    );
    let last = told[2]["id"].as_str().unwrap();
    let request = server.request(Method::GET, &path).header("accept", EVENTS);
    let again = server.send(request.header("last-event-id", last)).await;
    assert_eq!(again.status, 204);
}

#[tokio::test]
async fn everything_that_is_done_to_a_job_is_told_once_and_in_order() {
    let server = Server::start().await;
    let job = json!({"command": ["sleep", unique_seconds()], "labels": {"a": "b"}});
    let job = id(&server.submit(&job).await);
    let path = format!("/jobs/{job}");
    let mut source = Source::new(open(&server, &format!("{path}/events"), None).await);
    server.in_state(&job, "running").await;
    for (verb, state) in [
        ("pause", "paused"),
        ("pause", "paused"),
        ("resume", "running"),
    ] {
        let reply = server.post(&format!("{path}/{verb}"), &json!({})).await;
        assert_eq!(reply.status, 200, "{reply}");
        server.in_state(&job, state).await;
    }
    let signal = json!({"signal": "SIGCONT", "scope": "all"});
    let reply = server.post(&format!("{path}/signal"), &signal).await;
    assert_eq!(reply.json()["delivered_to"], 1);
    let patch = server
        .request(Method::PATCH, &path)
        .header("content-type", "application/merge-patch+json")
        .body(r#"{"labels": {"a": "c"}}"#);
    assert_eq!(server.send(patch).await.status, 200);
    let stopped = server.stop(&job, "reason=enough").await;
    let patch = server
        .request(Method::PATCH, &path)
        .header("content-type", "application/merge-patch+json")
        .body(r#"{"name": "late"}"#);
    assert_eq!(server.send(patch).await.status, 200);
    let mut told = Vec::new();
    while let Some(event) = source.next().await {
        told.push(event);
    }
    assert!(source.lines.is_whole);
    let told = if types(&told).last() == Some(&"finished") {
        // The end of the follow is the job's; what comes later is there to be read.
        events(&server, &format!("{path}/events")).await
    } else {
        told
    };
    assert_eq!(
        types(&told),
        [
            "created", "started", "paused", "resumed", "signaled", "changed", "stopping",
            "finished", "changed"
        ]
    );
    let cursors: Vec<u64> = told.iter().map(cursor).collect();
    assert!(cursors.is_sorted_by(|one, two| one < two), "{cursors:?}");
    assert_eq!(told[2]["data"]["state"], "paused");
    assert_eq!(told[4]["data"]["signal"], "SIGCONT");
    assert_eq!(told[4]["data"]["scope"], "all");
    assert_eq!(told[4]["data"]["delivered_to"], 1);
    assert_eq!(told[5]["data"]["labels"], json!({"a": "c"}));
    assert_eq!(told[7]["data"]["cause"], "canceled");
    assert_eq!(told[7]["data"]["reason"], "enough");
    assert_eq!(
        told[7]["data"]["requested_by"],
        stopped["termination"]["requested_by"]
    );
    assert_eq!(told[8]["data"]["name"], "late");
}

#[tokio::test]
async fn the_events_of_all_jobs_are_filtered_by_type_and_labels() {
    let server = Server::start().await;
    let mut source = Source::new(
        open(
            &server,
            "/events?type=job.finished&label_selector=team%3Ddata",
            None,
        )
        .await,
    );
    for (team, code) in [("data", 0), ("web", 1), ("data", 2)] {
        let script = format!("exit {code}");
        server
            .run(&json!({"script": script, "labels": {"team": team}}))
            .await;
    }
    for code in [0, 2] {
        let event = source.next().await.unwrap();
        assert_eq!(event["data"]["exit"]["code"], code);
    }
    let all = events(&server, "/events").await;
    assert_eq!(types(&all), ["created", "started", "finished"].repeat(3));
    let some = events(
        &server,
        "/events?type=job.created,job.started&label_selector=team!%3Ddata",
    );
    assert_eq!(types(&some.await), ["created", "started"]);
    // Without following, an event stream ends as well.
    let response = open(&server, "/events?follow=false&type=job.started", None).await;
    assert_eq!(types(&Source::new(response).all().await), ["started"; 3]);
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_over_kills_of_the_server() {
    let server = Server::start().await;
    let persistent = server.persistent();
    let mut jobs = Vec::new();
    let mut told: Vec<Value> = Vec::new();
    for round in 0..4 {
        let body = json!({"script": "sleep 0.2; exit 3", "labels": {"round": round.to_string()}});
        for _ in 0..3 {
            let key = format!("{round}-{}", jobs.len());
            let reply = persistent
                .ask(Method::POST, "/jobs", Some(&body), Some(&key))
                .await;
            jobs.push(id(&reply.json()));
        }
        let last = told
            .last()
            .map(|event| event["id"].as_str().unwrap().to_owned());
        let response = open(&server, "/events", last.as_deref()).await;
        let mut source = Source::new(response);
        // A few of them, wherever that is, then the server is gone.
        for _ in 0..4 {
            match source.next().await {
                Some(event) => told.push(event),
                None => break,
            }
        }
        let process = server.server_process().unwrap();
        kill_now(process);
        while let Some(event) = source.next().await {
            told.push(event);
        }
        assert!(
            !source.lines.is_whole,
            "a server that is killed ends nothing"
        );
        eventually("another server answers", async || {
            let other = server.server_process()?;
            (other != process).then_some(())
        })
        .await;
        persistent.get("/readyz").await;
    }
    for job in &jobs {
        persistent.finished(job).await;
    }
    let last = told.last().unwrap()["id"].as_str().unwrap().to_owned();
    told.extend(events(&server, &format!("/events?after={last}")).await);
    for job in &jobs {
        let own: Vec<Value> = told
            .iter()
            .filter(|event| event["subject"] == job.as_str())
            .cloned()
            .collect();
        assert_eq!(types(&own), ["created", "started", "finished"], "{own:#?}");
        assert_eq!(own, events(&server, &format!("/jobs/{job}/events")).await);
    }
    assert_eq!(told.len(), jobs.len() * 3);
    assert_eq!(told, events(&server, "/events").await);
}

#[tokio::test]
async fn a_cursor_that_is_too_old_or_from_nowhere_is_gone() {
    let server = Server::builder()
        .args(["--max-events", "100"])
        .start()
        .await;
    let first = id(&server.run_script("true").await);
    for _ in 0..40 {
        server.run(&json!({"command": ["/bin/true"]})).await;
    }
    let kept = events(&server, "/events").await;
    assert!((90..=100).contains(&kept.len()), "{}", kept.len());
    let oldest = cursor(&kept[0]);
    let after = async |path: &str, after: u64| {
        let reply = server
            .get(&format!("{path}?follow=false&after={after}"))
            .await;
        (reply.status, reply.code())
    };
    let gone = (410, "cursor_expired".to_owned());
    assert_eq!(after("/events", oldest - 2).await, gone);
    assert_eq!(after("/events", oldest - 1).await.0, 200);
    assert_eq!(after("/events", cursor(kept.last().unwrap())).await.0, 200);
    assert_eq!(after("/events", 1_000_000).await, gone);
    assert_eq!(after(&format!("/jobs/{first}/events"), 0).await, gone);
    assert!(
        events(&server, &format!("/jobs/{first}/events"))
            .await
            .is_empty()
    );
    let request = server
        .request(Method::GET, "/events")
        .header("accept", EVENTS);
    let reply = server.send(request.header("last-event-id", "1")).await;
    assert_eq!(reply.code(), "cursor_expired");
}

#[tokio::test]
async fn events_go_with_their_job_and_so_do_those_that_follow_it() {
    let server = Server::start().await;
    let kept = id(&server.run_script("true").await);
    let job = json!({"command": ["sleep", unique_seconds()]});
    let job = id(&server.submit(&job).await);
    let mut all = Source::new(open(&server, "/events", None).await);
    assert_eq!(server.delete(&job, "force&purge").await.status, 204);
    let left = events(&server, "/events").await;
    assert!(left.iter().all(|event| event["subject"] == kept.as_str()));
    assert_eq!(server.get(&format!("/jobs/{job}/events")).await.status, 404);
    // Numbers go on where they were.
    let next = id(&server.run_script("true").await);
    let next = events(&server, &format!("/jobs/{next}/events")).await;
    assert!(cursor(&next[0]) > cursor(left.last().unwrap()) + 1);
    let mut seen = 0;
    while seen != cursor(&next[2]) {
        let event = all.next().await.unwrap();
        assert!(cursor(&event) > seen);
        seen = cursor(&event);
    }
}

#[tokio::test]
async fn the_end_of_the_service_breaks_streams_off_and_they_go_on_later() {
    let mut server = Server::start().await;
    let job = id(&server.run_script("true").await);
    let mut source = Source::new(open(&server, "/events", None).await);
    for _ in 0..3 {
        assert_eq!(source.next().await.unwrap()["subject"], job.as_str());
    }
    let began = std::time::Instant::now();
    assert!(server.end(Signal::SIGTERM).unwrap().success());
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(source.next().await, None);
    assert!(!source.lines.is_whole, "a service that ends ends no stream");
    server.start_again(Server::builder()).await;
    let again = id(&server.run_script("true").await);
    let mut source = Source::new(open(&server, "/events", Some("3")).await);
    for expected in 4..=6 {
        let event = source.next().await.unwrap();
        assert_eq!(
            (cursor(&event), &event["subject"]),
            (expected, &json!(again))
        );
    }
}

#[tokio::test]
async fn wrong_wishes_are_problems() {
    let server = Server::start().await;
    let job = id(&server.run_script("true").await);
    for (path, status, code) in [
        ("/events?after=x".to_owned(), 400, "invalid_query"),
        ("/events?type=finished".to_owned(), 400, "invalid_query"),
        ("/events?follow=perhaps".to_owned(), 400, "invalid_query"),
        ("/events?label_selector=((".to_owned(), 400, "invalid_query"),
        ("/events?state=running".to_owned(), 400, "invalid_query"),
        (
            format!("/jobs/{job}/events?label_selector=a"),
            400,
            "invalid_query",
        ),
        (
            "/jobs/0198c1d2-7b3a-7c4e-9f10-2a6b3c4d5e6f/events".to_owned(),
            404,
            "job_not_found",
        ),
    ] {
        let reply = server.get(&path).await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (status, code),
            "{path}"
        );
    }
    let request = server
        .request(Method::GET, "/events")
        .header("accept", "text/html");
    assert_eq!(server.send(request).await.status, 406);
    let request = server
        .request(Method::GET, "/events")
        .header("last-event-id", "x");
    assert_eq!(server.send(request).await.code(), "invalid_header");
}
