//! Output as it comes: nothing lost, nothing twice, and no end before the end.

mod churn;
mod clients;
mod crowds;
mod ends;
mod reading;

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Server, id, unique_seconds};
use reading::{EVENTS, Lines, NDJSON, joined, open};

#[tokio::test]
async fn what_was_written_is_joined_from_text_and_base64() {
    let server = Server::start().await;
    let script = r"printf 'gr\303'; sleep 0.01; printf '\274n\n'; printf '\377\376' >&2; printf '\360\237'; sleep 0.2; printf '\230\200'; head -c 100000 /dev/urandom | tee copy";
    let cwd = server.scratch();
    let job = id(&server.submit(&json!({"script": script, "cwd": cwd})).await);
    let response = open(&server, &job, "stream=stdout", &[("accept", NDJSON)]).await;
    let records = Lines::new(response.unwrap()).all().await;
    let mut expected = "grün\n😀".as_bytes().to_vec();
    expected.extend(std::fs::read(cwd.join("copy")).unwrap());
    assert!(joined(&records) == expected);
    assert_eq!(records.last().unwrap()["type"], "end");
    // A later reader gets the same in one piece, checked against the description.
    let path = format!("/jobs/{job}/output?stream=stdout");
    let request = server.request(Method::GET, &path).header("accept", NDJSON);
    let again = server.send(request).await;
    let text = String::from_utf8(again.body).unwrap();
    let records: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(joined(&records) == expected);
    assert_eq!(records.last().unwrap()["type"], "end");
}

#[tokio::test]
async fn an_event_source_that_has_had_the_end_is_told_not_to_come_back() {
    let server = Server::start().await;
    let job = id(&server.run_script("echo out").await);
    let mut lines = Lines::new(
        open(&server, &job, "", &[("accept", EVENTS)])
            .await
            .unwrap(),
    );
    let mut ids = Vec::new();
    while let Some((record, event)) = lines.record().await {
        assert_ne!(record["type"], "state", "the last state comes with the end");
        ids.push(event.unwrap());
    }
    assert!(lines.is_whole);
    assert_eq!(ids, ["4", "4-end"]);
    let again = async |last: &str| {
        let path = format!("/jobs/{job}/output");
        let request = server.request(Method::GET, &path).header("accept", EVENTS);
        server.send(request.header("last-event-id", last)).await
    };
    assert_eq!(again("4-end").await.status, 204);
    let end = again("4").await;
    assert_eq!(end.status, 200);
    let text = String::from_utf8(end.body).unwrap();
    assert!(
        text.contains("event: end\n") && !text.contains("event: output"),
        "{text}"
    );
    let wrong = again("four").await;
    assert_eq!(
        (wrong.status, wrong.code().as_str()),
        (400, "invalid_header")
    );
    assert_eq!(again("5").await.status, 416);
}

#[tokio::test]
async fn a_queued_job_can_be_followed_and_tells_its_states() {
    let server = Server::builder().args(["--max-running", "1"]).start().await;
    let sleep = json!({"command": ["sleep", unique_seconds()]});
    let first = id(&server.submit(&sleep).await);
    let job = id(&server.submit(&json!({"script": "echo ran"})).await);
    let mut lines = Lines::new(
        open(&server, &job, "", &[("accept", EVENTS)])
            .await
            .unwrap(),
    );
    let mut raw = open(&server, &job, "", &[]).await.unwrap();
    let (queued, _) = lines.record().await.unwrap();
    assert_eq!(
        (&queued["type"], &queued["state"]),
        (&json!("state"), &json!("queued"))
    );
    server.stop(&first, "force").await;
    let records = lines.all().await;
    assert_eq!(joined(&records), b"ran\n");
    let end = records.last().unwrap();
    assert_eq!(
        (&end["type"], &end["exit"]["code"]),
        (&json!("end"), &json!(0))
    );
    assert_eq!(raw.chunk().await.unwrap().unwrap(), "ran\n");
    assert_eq!(raw.chunk().await.unwrap(), None);
}

#[tokio::test]
async fn a_follow_goes_on_over_the_death_of_the_monitor() {
    let server = Server::start().await;
    let cwd = server.scratch();
    let body = json!({"script": "mkfifo gate; echo one; read _ < gate; echo two", "cwd": cwd});
    let job = id(&server.submit(&body).await);
    let mut lines = Lines::new(
        open(&server, &job, "", &[("accept", NDJSON)])
            .await
            .unwrap(),
    );
    assert_eq!(lines.record().await.unwrap().0["text"], "one\n");
    let monitor = server
        .marked()
        .into_iter()
        .find(|process| process.name == "procession-mon");
    kill(Pid::from_raw(monitor.unwrap().pid), Signal::SIGKILL).unwrap();
    std::fs::write(cwd.join("gate"), "\n").unwrap();
    assert_eq!(lines.record().await.unwrap().0["text"], "two\n");
    assert_eq!(lines.record().await.unwrap().0["type"], "end");
}

#[tokio::test]
async fn lines_begin_with_their_times_where_that_is_wanted() {
    let server = Server::start().await;
    let job = id(&server
        .run_script("echo one; printf two; sleep 0.05; echo three")
        .await);
    let reply = server.get(&format!("/jobs/{job}/output?timestamps")).await;
    let text = String::from_utf8(reply.body).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    for (line, expected) in lines.iter().zip(["one", "twothree"]) {
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(time.ends_with('Z') && time.len() == 27, "{line}");
        assert_eq!(rest, expected);
    }
}

#[tokio::test]
async fn wrong_wishes_are_problems() {
    let server = Server::start().await;
    let job = id(&server.run_script("echo out").await);
    for (query, status, code) in [
        ("follow=perhaps", 400, "invalid_query"),
        ("timestamps=9", 400, "invalid_query"),
        ("follow&offset=x", 400, "invalid_query"),
        ("follow&offset=1&tail_lines=1", 400, "invalid_query"),
        ("follow&stream=both", 400, "invalid_query"),
        ("folow", 400, "invalid_query"),
        ("follow&offset=5", 416, "range_not_satisfiable"),
    ] {
        let reply = server.get(&format!("/jobs/{job}/output?{query}")).await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (status, code),
            "{query}"
        );
    }
    let path = format!("/jobs/{job}/output?follow");
    let request = server
        .request(Method::GET, &path)
        .header("accept", "image/png");
    assert_eq!(server.send(request).await.status, 406);
    let nobody = "/jobs/0198c1d2-7b3a-7c4e-9f10-2a6b3c4d5e6f/output?follow";
    assert_eq!(server.get(nobody).await.status, 404);
    // A part of a follow, as records and within a time that is not the job's.
    let path = format!("/jobs/{job}/output?follow&limit_bytes=2");
    let reply = tokio::time::timeout(Duration::from_secs(20), server.get(&path))
        .await
        .unwrap();
    assert_eq!(reply.body, b"ou");
}
