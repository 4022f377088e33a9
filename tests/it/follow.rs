//! Output as it comes: nothing lost, nothing twice, and no end before the end.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::Rng;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::harness::{LONG, Server, eventually, id, is_finished, unique_seconds};

const NDJSON: &str = "application/x-ndjson";
const EVENTS: &str = "text/event-stream";

/// Opens a follow; an error is a server that is being killed.
async fn open(
    server: &Server,
    job: &str,
    query: &str,
    headers: &[(&str, &str)],
) -> reqwest::Result<Response> {
    let mut request = server.request(Method::GET, &format!("/jobs/{job}/output?follow&{query}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await
}

fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap()
}

/// The whole lines of a body as they come; `None` at its end or where it broke.
struct Lines {
    response: Response,
    buffer: Vec<u8>,
    is_whole: bool,
}

impl Lines {
    fn new(response: Response) -> Self {
        assert_eq!(response.status(), 200);
        Self {
            response,
            buffer: Vec::new(),
            is_whole: false,
        }
    }

    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(String::from_utf8(line).unwrap().trim_end().to_owned());
            }
            let chunk = tokio::time::timeout(LONG, self.response.chunk()).await;
            match chunk.expect("something comes within the limit") {
                Ok(Some(bytes)) => self.buffer.extend_from_slice(&bytes),
                Ok(None) => {
                    self.is_whole = true;
                    return None;
                }
                Err(_) => return None,
            }
        }
    }

    /// The next record of either form, and the id of its event.
    async fn record(&mut self) -> Option<(Value, Option<String>)> {
        let mut event = None;
        loop {
            let line = self.next().await?;
            if line.starts_with('{') {
                return Some((serde_json::from_str(&line).unwrap(), None));
            }
            if let Some(value) = line.strip_prefix("id: ") {
                event = Some(value.to_owned());
            }
            if let Some(data) = line.strip_prefix("data: ") {
                return Some((serde_json::from_str(data).unwrap(), event));
            }
        }
    }

    /// All records up to the end of the body, which must be regular.
    async fn all(mut self) -> Vec<Value> {
        let mut records = Vec::new();
        while let Some((record, _)) = self.record().await {
            records.push(record);
        }
        assert!(self.is_whole, "broken off after {records:#?}");
        records
    }
}

/// The bytes of an `output` record.
fn bytes_of(record: &Value) -> Vec<u8> {
    match record["text"].as_str() {
        Some(text) => text.as_bytes().to_vec(),
        None => STANDARD.decode(record["base64"].as_str().unwrap()).unwrap(),
    }
}

fn joined(records: &[Value]) -> Vec<u8> {
    let output = records.iter().filter(|record| record["type"] == "output");
    output.flat_map(bytes_of).collect()
}

/// What `seq -f %015.0f 0 …` writes from `from` on: lines of 16 bytes.
fn expected(from: u64, length: usize) -> Vec<u8> {
    let first = from / 16;
    let skip = usize::try_from(from % 16).unwrap();
    let mut text = String::new();
    let mut line = first;
    while text.len() < skip + length {
        text.push_str(&format!("{line:015}\n"));
        line += 1;
    }
    text.as_bytes()[skip..skip + length].to_vec()
}

/// Follows a job of [`expected`] output, coming back at random places, and says how much was a gap.
async fn follow_records(server: &Server, job: &str, kind: &str) -> u64 {
    let (mut at, mut gaps) = (0_u64, 0);
    loop {
        let place = at.to_string();
        let opened = if kind == EVENTS {
            open(
                server,
                job,
                "",
                &[("accept", kind), ("last-event-id", &place)],
            )
            .await
        } else {
            let query = format!("offset={place}");
            open(server, job, &query, &[("accept", kind)]).await
        };
        let Ok(response) = opened else { continue };
        let mut lines = Lines::new(response);
        let mut left = rand::rng().random_range(1..400);
        while left > 0 {
            left -= 1;
            let Some((record, event)) = lines.record().await else {
                assert!(!lines.is_whole, "a follow ended without an end");
                break;
            };
            match record["type"].as_str().unwrap() {
                "output" => {
                    assert_eq!(record["offset"], at);
                    let bytes = bytes_of(&record);
                    assert!(bytes == expected(at, bytes.len()), "wrong bytes at {at}");
                    let mut length = bytes.len();
                    if left == 0 && length > 1 {
                        // As if the connection had broken within the record.
                        length = rand::rng().random_range(1..length);
                    } else if kind == EVENTS {
                        assert_eq!(event.unwrap(), (at + count(bytes.len())).to_string());
                    }
                    at += count(length);
                }
                "gap" => {
                    assert_eq!(record["from"], at);
                    gaps += record["to"].as_u64().unwrap() - at;
                    at = record["to"].as_u64().unwrap();
                }
                "state" => {}
                "end" => {
                    assert_eq!(record["next_offset"], at);
                    assert_eq!(record["state"], "succeeded");
                    return gaps;
                }
                other => panic!("{other}"),
            }
        }
    }
}

/// The same with raw bytes, which say in the head what is gone.
async fn follow_raw(server: &Server, job: &str, length: u64) {
    let mut at = 0_u64;
    loop {
        let opened = open(server, job, &format!("offset={at}"), &[]).await;
        let Ok(mut response) = opened else { continue };
        assert_eq!(response.status(), 200);
        let first = response.headers()["procession-first-offset"]
            .to_str()
            .unwrap();
        let first: u64 = first.parse().unwrap();
        assert!(first >= at);
        at = first;
        let mut left = rand::rng().random_range(1..200);
        while left > 0 {
            left -= 1;
            match response.chunk().await {
                Ok(Some(bytes)) => {
                    assert!(bytes == expected(at, bytes.len()), "wrong bytes at {at}");
                    at += count(bytes.len());
                }
                Ok(None) => {
                    assert_eq!(at, length, "raw bytes ended before their end");
                    return;
                }
                Err(_) => break,
            }
        }
    }
}

async fn try_json(server: &Server, path: &str) -> Option<Value> {
    let response = server.request(Method::GET, path).send().await.ok()?;
    response.json().await.ok()
}

/// Kills the server so many times, each time when the job has written on.
async fn kill_server(server: &Server, job: &str, times: u32) {
    let mut last = 0;
    for _ in 0..times {
        let path = format!("/jobs/{job}");
        let over = eventually("the job writes on", async || {
            let job = try_json(server, &path).await?;
            let next = job["output"]["next_offset"].as_u64()?;
            (next > last + (1 << 19) || is_finished(&job)).then(|| {
                last = next;
                is_finished(&job)
            })
        })
        .await;
        if over {
            return;
        }
        let info = eventually("the server answers", async || {
            try_json(server, "/info").await
        })
        .await;
        let pid = i32::try_from(info["server_pid"].as_i64().unwrap()).unwrap();
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_that_come_and_go_miss_nothing_while_the_server_is_killed() {
    const LINES: u64 = 1_500_000;
    let server = Server::start().await;
    let script = format!("seq -f %015.0f 0 {}", LINES - 1);
    let job = server
        .submit(
            &json!({"script": script, "output": {"max_bytes": 4 << 20, "on_limit": "drop_oldest"}}),
        )
        .await;
    let job = id(&job);
    tokio::join!(
        kill_server(&server, &job, 5),
        follow_records(&server, &job, NDJSON),
        follow_records(&server, &job, NDJSON),
        follow_records(&server, &job, EVENTS),
        follow_records(&server, &job, EVENTS),
        follow_raw(&server, &job, LINES * 16),
    );
    let ended = server.finished(&job).await;
    assert_eq!(ended["output"]["next_offset"], LINES * 16, "{ended:#}");
}

#[tokio::test]
async fn the_end_is_told_after_the_last_byte_of_the_last_child() {
    let server = Server::start().await;
    // The child outlives the leader and writes when it is told to end.
    let left = format!(
        "sh -c 'trap \"echo bye; exit\" TERM; echo up; sleep {} & wait' & read _ < gate",
        unique_seconds()
    );
    let one = async |number: usize| {
        let waits_for_all = number.is_multiple_of(2);
        let cwd = server.scratch().join(number.to_string());
        std::fs::create_dir(&cwd).unwrap();
        let body = if waits_for_all {
            json!({"script": "(sleep 0.1; echo bye) & echo up", "wait_for": "all"})
        } else {
            json!({"script": format!("mkfifo gate; {left}"), "cwd": cwd})
        };
        let job = id(&server.submit(&body).await);
        let accept = if number % 4 < 2 { NDJSON } else { EVENTS };
        let response = open(&server, &job, "", &[("accept", accept)])
            .await
            .unwrap();
        let mut lines = Lines::new(response);
        let mut text = String::new();
        while let Some((record, _)) = lines.record().await {
            if record["type"] == "output" {
                text.push_str(record["text"].as_str().unwrap());
                if text == "up\n" && !waits_for_all {
                    std::fs::write(cwd.join("gate"), "\n").unwrap();
                }
            }
            if record["type"] == "end" {
                assert_eq!(text, "up\nbye\n", "{body}");
                assert_eq!(record["next_offset"], 7);
                assert!(is_finished(&record), "{record}");
                assert!(is_finished(&server.job(&job).await));
                assert!(lines.next().await.is_none() || accept == EVENTS);
                return;
            }
        }
        panic!("no end: {text:?}");
    };
    join_all((0..40).map(one)).await;
}

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
async fn a_slow_reader_holds_up_neither_the_job_nor_the_others() {
    let server = Server::start().await;
    let job = json!({"script": "yes | head -c 40000000; echo; echo done"});
    let job = id(&server.submit(&job).await);
    // It reads nothing at all.
    let slow = open(&server, &job, "", &[("accept", NDJSON)])
        .await
        .unwrap();
    let mut fast = open(&server, &job, "", &[]).await.unwrap();
    let ended = server.finished(&job).await;
    assert_eq!(ended["state"], "succeeded");
    // Where a piece ends is the network's affair.
    let (mut count, mut last) = (0, Vec::new());
    while let Some(bytes) = fast.chunk().await.unwrap() {
        count += bytes.len();
        last.extend_from_slice(&bytes);
        last.drain(..last.len().saturating_sub(5));
    }
    assert_eq!((count, last.as_slice()), (40_000_006, b"done\n".as_slice()));
    let records = Lines::new(slow).all().await;
    assert_eq!(joined(&records).len(), 40_000_006);
}

#[tokio::test]
async fn two_hundred_follow_one_job() {
    let server = Server::start().await;
    let script = "for i in 1 2 3 4 5 6 7 8 9 10; do echo line $i; sleep 0.05; done";
    let job = id(&server.submit(&json!({ "script": script })).await);
    let follow = async |number: usize| {
        let accept = [NDJSON, EVENTS][number % 2];
        let response = open(&server, &job, "", &[("accept", accept)])
            .await
            .unwrap();
        let records = Lines::new(response).all().await;
        assert_eq!(records.last().unwrap()["type"], "end");
        joined(&records)
    };
    let all = join_all((0..200).map(follow)).await;
    let mut seen: HashMap<Vec<u8>, usize> = HashMap::new();
    for output in all {
        *seen.entry(output).or_default() += 1;
    }
    let expected = server.output(&job).await;
    assert_eq!(seen, HashMap::from([(expected, 200)]));
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
