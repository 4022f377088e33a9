//! Short output of a job that is over is in the store: it needs no files, and each way to read it gives what the job wrote.

use std::fs;

use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Lines, Server, eventually, id, is_finished, unique_seconds};

/// A job that writes to both streams.
const SCRIPT: &str = "echo first; echo second >&2; printf 'no line end'";
const WRITTEN: &str = "first\nsecond\nno line end";

/// The directories of jobs, by their names.
fn directories(server: &Server) -> Vec<String> {
    let entries = fs::read_dir(server.state_dir().join("jobs")).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// Waits until the job has no directory of its own any more.
async fn needs_no_files(server: &Server, job: &str) {
    eventually("its directory is another's", async || {
        (!directories(server).iter().any(|it| it == job)).then_some(())
    })
    .await;
}

async fn text(server: &Server, path: &str) -> String {
    let reply = server.get(path).await;
    assert_eq!(reply.status, 200, "{path}: {reply}");
    String::from_utf8(reply.body).unwrap()
}

/// Every way to read it.
async fn is_read_every_way(server: &Server, job: &str) {
    let path = |rest: &str| format!("/jobs/{job}{rest}");
    let output = |rest: &str| path(&format!("/output{rest}"));
    let reply = server.get(&output("")).await;
    assert_eq!(reply.header("procession-output-complete"), "true");
    assert_eq!(reply.header("procession-next-offset"), "24");
    // Both streams come by pipes of their own, so their order is not certain.
    let sorted = |text: &str| {
        let mut bytes = text.as_bytes().to_vec();
        bytes.sort_unstable();
        bytes
    };
    assert_eq!(sorted(&text(server, &output("")).await), sorted(WRITTEN));
    for (query, wanted) in [
        ("?stream=stderr", "second\n"),
        ("?stream=stdout", "first\nno line end"),
        ("?stream=stdout&tail_lines=1", "no line end"),
        ("?stream=stdout&tail_bytes=3", "end"),
        ("?stream=stderr&follow", "second\n"),
        ("/stderr", "second\n"),
    ] {
        assert_eq!(text(server, &output(query)).await, wanted, "{query}");
    }
    let ranged = server
        .request(Method::GET, &output("/stdout"))
        .header("range", "bytes=6-7");
    let ranged = server.send(ranged).await;
    assert_eq!((ranged.status, &*ranged.body), (206, &b"no"[..]));
    let found = text(server, &output("/search?q=second")).await;
    assert!(found.contains(r#"{"matches":1,"type":"end"}"#), "{found}");
    let records = server
        .request(Method::GET, &output(""))
        .header("accept", "application/x-ndjson");
    let records = server.send(records).await;
    let records = String::from_utf8(records.body).unwrap();
    assert!(records.contains(r#""text":"second\n""#), "{records}");
    assert!(records.contains(r#""type":"end""#), "{records}");
    let job = server.get(&path("?output_bytes=1000")).await.json();
    let excerpt = job["output"]["excerpt"]["text"].as_str().unwrap();
    assert_eq!(sorted(excerpt), sorted(WRITTEN));
}

#[tokio::test]
async fn it_is_read_every_way_also_by_another_server_and_goes_with_its_job() {
    let mut server = Server::start().await;
    let job = id(&server.run_script(SCRIPT).await);
    is_read_every_way(&server, &job).await;
    needs_no_files(&server, &job).await;
    is_read_every_way(&server, &job).await;
    server.end(Signal::SIGTERM);
    server.restart(Server::builder());
    is_read_every_way(&server, &job).await;
    // Nothing of it is left on the disk once it is removed.
    let reply = server.delete(&job, "purge").await;
    assert_eq!(reply.status, 204, "{reply}");
    let database = server.state_dir().join("procession.db");
    let rows = rusqlite::Connection::open(database).unwrap();
    let count = |sql| rows.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count("SELECT count(*) FROM outputs"), 0);
    let reply = server.get(&format!("/jobs/{job}/output")).await;
    assert_eq!(reply.status, 404, "{reply}");
}

/// What the answer has that comes at the end is the same, and so is what is asked for at once.
#[tokio::test]
async fn it_is_in_the_answer_that_waits_for_the_end() {
    let server = Server::start().await;
    for number in 0..40 {
        let line = format!("line {number} of many");
        let body = json!({"command": ["echo", line]});
        let reply = server.post("/jobs?wait=30&output_bytes=1000", &body).await;
        let job = reply.json();
        assert!(is_finished(&job), "{job:#}");
        assert_eq!(job["output"]["excerpt"]["text"], format!("{line}\n"));
        let read = text(&server, &format!("/jobs/{}/output", id(&job))).await;
        assert_eq!(read, format!("{line}\n"));
    }
}

#[tokio::test]
async fn the_next_job_in_its_directory_has_nothing_of_it() {
    let server = Server::start().await;
    let mut silent = Vec::new();
    for number in 0..20 {
        let said = format!("only for {number}");
        let job = server.run(&json!({"command": ["echo", said]})).await;
        needs_no_files(&server, &id(&job)).await;
        // Truncated, renamed, and taken by whoever comes next.
        for name in directories(&server) {
            let directory = server.state_dir().join("jobs").join(name);
            for entry in fs::read_dir(directory).unwrap() {
                let bytes = fs::read(entry.unwrap().path()).unwrap();
                let has = bytes.windows(8).any(|some| some == b"only for");
                assert!(!has, "the output of a job that is over");
            }
        }
        silent.push(id(&server.run_script("true").await));
        let long = "x".repeat(5000);
        let longer = server.run(&json!({"command": ["echo", long]})).await;
        assert_eq!(
            server.output(&id(&longer)).await,
            format!("{long}\n").as_bytes()
        );
        assert!(directories(&server).contains(&id(&longer)), "it has files");
        let again = server.output(&id(&job)).await;
        assert_eq!(again, format!("{said}\n").as_bytes());
    }
    for job in silent {
        assert!(server.output(&job).await.is_empty());
    }
}

/// The files are read while the job runs, the store once it is over; at no moment is less to be seen than was seen before.
#[tokio::test]
async fn what_was_seen_of_a_running_job_is_there_at_its_end() {
    let server = Server::start().await;
    for _ in 0..20 {
        let gate = server.scratch().join("gate");
        let _ = fs::remove_file(&gate);
        let script = format!(
            "echo begun; while [ ! -e {} ]; do sleep 0.01; done; echo over",
            gate.display()
        );
        let job = id(&server.submit(&json!({ "script": script })).await);
        server.says(&job, "begun").await;
        let follow = server.request(Method::GET, &format!("/jobs/{job}/output?follow"));
        let mut lines = Lines::new(follow.send().await.unwrap());
        assert_eq!(lines.next().await.as_deref(), Some("begun"));
        fs::write(&gate, "").unwrap();
        loop {
            let reply = server.get(&format!("/jobs/{job}/output?offset=6")).await;
            assert_eq!(reply.status, 200, "{reply}");
            let is_complete = reply.header("procession-output-complete") == "true";
            let read = String::from_utf8(reply.body).unwrap();
            assert!(["", "over\n"].contains(&&*read), "{read:?}");
            let seen: Value = server.job(&job).await;
            if is_complete {
                assert_eq!(read, "over\n", "{seen:#}");
                break;
            }
        }
        assert_eq!(lines.next().await.as_deref(), Some("over"));
        assert_eq!(lines.next().await, None);
    }
}

/// Who reads when the job ends keeps its files from being removed; they go when nobody reads any more.
#[tokio::test]
async fn what_is_read_at_the_end_goes_when_nobody_reads_any_more() {
    let server = Server::start().await;
    let gate = server.scratch().join("gate");
    let script = format!(
        "seq 300; while [ ! -e {} ]; do sleep 0.01; done; echo over",
        gate.display()
    );
    let job = id(&server.submit(&json!({ "script": script })).await);
    server.says(&job, "300").await;
    let path = format!("/jobs/{job}/output?follow");
    let mut lines = Vec::new();
    for _ in 0..4 {
        let mut reading = Lines::new(server.request(Method::GET, &path).send().await.unwrap());
        assert_eq!(reading.next().await.as_deref(), Some("1"));
        lines.push(reading);
    }
    fs::write(&gate, "").unwrap();
    server.finished(&job).await;
    for mut reading in lines {
        let mut last = None;
        while let Some(line) = reading.next().await {
            last = Some(line);
        }
        assert_eq!(last.as_deref(), Some("over"));
    }
    needs_no_files(&server, &job).await;
    assert!(server.text(&job).await.ends_with("300\nover\n"));
}

/// Who waits for output of a job that has not begun finds it when the job is over, wherever it is then.
#[tokio::test]
async fn who_follows_from_before_the_start_has_all_of_it() {
    let server = Server::builder().args(["--max-running", "1"]).start().await;
    for round in 0..15 {
        let first = id(&server.submit(&json!({"command": ["sleep", "0.05"]})).await);
        let body = json!({"command": ["echo", format!("line {round}")]});
        let mut follows = Vec::new();
        let jobs: Vec<String> = [server.submit(&body).await, server.submit(&body).await]
            .iter()
            .map(id)
            .collect();
        for job in &jobs {
            let path = format!("/jobs/{job}/output?follow");
            let request = server.request(Method::GET, &path);
            let records = request.header("accept", "application/x-ndjson");
            follows.push(server.send(records));
        }
        for follow in futures_util::future::join_all(follows).await {
            let body = String::from_utf8(follow.body).unwrap();
            assert!(
                body.contains(&format!(r#""text":"line {round}\n""#)),
                "{body}"
            );
            assert!(!body.contains(r#""type":"gap""#), "{body}");
        }
        server.finished(&first).await;
    }
}

/// What an attempt has written stays in the files, which the next one goes on with; at the end, the log of all is in the store.
#[tokio::test]
async fn the_output_of_all_attempts_is_one_log() {
    let server = Server::start().await;
    let body = json!({
        "script": "echo attempt $PROCESSION_ATTEMPT; exit 3",
        "retry": {"max_attempts": 3, "backoff": {"initial_seconds": 0}},
    });
    let job = server.run(&body).await;
    assert_eq!(job["attempt"], 3, "{job:#}");
    let path = format!("/jobs/{}/output", id(&job));
    assert_eq!(
        text(&server, &path).await,
        "attempt 1\nattempt 2\nattempt 3\n"
    );
    let second = text(&server, &format!("{path}?attempt=2")).await;
    assert_eq!(second, "attempt 2\n");
    needs_no_files(&server, &id(&job)).await;
    assert_eq!(
        text(&server, &format!("{path}?attempt=3")).await,
        "attempt 3\n"
    );
}

/// The last record has no room for the output beside a reason of this length: it stays in the files.
#[tokio::test]
async fn what_has_no_room_in_the_last_record_stays_in_files() {
    let server = Server::start().await;
    let seconds = unique_seconds();
    let script = format!("seq -f 'a line of output %04.f' 1 181; echo end; exec sleep {seconds}");
    let job = id(&server.submit(&json!({ "script": script })).await);
    server.says(&job, "end").await;
    let reason = "\u{1f600}".repeat(1024);
    let reason: String = reason.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let ended = server.stop(&job, &format!("reason={reason}")).await;
    assert_eq!(ended["state"], "canceled", "{ended:#}");
    let reason = ended["termination"]["reason"].as_str().unwrap();
    assert_eq!(reason.chars().count(), 1024);
    let written = server.text(&job).await;
    assert_eq!(written.lines().count(), 182);
    assert!((3900..4032).contains(&written.len()), "{}", written.len());
    assert!(directories(&server).contains(&job), "it has files");
}
