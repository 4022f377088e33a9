//! What a job writes comes back byte for byte, and what is not kept is accounted for.

use std::fs;

use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::{Reply, Server, eventually, id, is_finished};

/// Runs a script whose output is these bytes.
async fn written(server: &Server, bytes: &[u8], output: Value) -> Value {
    let cwd = server.scratch();
    fs::write(cwd.join("bytes"), bytes).unwrap();
    server
        .run(&json!({"command": ["cat", "bytes"], "cwd": cwd, "output": output}))
        .await
}

/// Bytes in which every four tell where they are.
fn counted(length: u32) -> Vec<u8> {
    (0..length / 4).flat_map(u32::to_be_bytes).collect()
}

async fn log(server: &Server, job: &Value, query: &str) -> Reply {
    let reply = server
        .get(&format!("/jobs/{}/output?{query}", id(job)))
        .await;
    assert_eq!(reply.status, 200, "{query}: {}", reply.status);
    reply
}

async fn ranged(server: &Server, job: &Value, stream: &str, range: &str) -> Reply {
    let path = format!("/jobs/{}/output/{stream}", id(job));
    server
        .send(server.request(Method::GET, &path).header("range", range))
        .await
}

fn number(reply: &Reply, header: &str) -> u64 {
    reply.header(header).parse().unwrap()
}

#[tokio::test]
async fn a_hundred_megabytes_through_a_pipeline_are_exact() {
    const BYTES: u64 = 100_000_000;
    let server = Server::start().await;
    let cwd = server.scratch();
    let body = json!({
        "script": format!("head -c {BYTES} /dev/urandom | tee copy"),
        "cwd": cwd,
        "output": {"max_bytes": 200_000_000},
    });
    let job = server.submit(&body).await;
    let job = eventually("the job has ended", async || {
        let job = server.job(&id(&job)).await;
        is_finished(&job).then_some(job)
    })
    .await;
    assert_eq!(job["state"], "succeeded", "{job:#}");
    assert_eq!(job["output"]["stdout_bytes"], BYTES, "{job:#}");
    assert_eq!(job["output"]["dropped_bytes"], 0, "{job:#}");
    let output = server.output(&id(&job)).await;
    let copy = fs::read(cwd.join("copy")).unwrap();
    assert_eq!(output.len(), copy.len());
    assert_eq!(Sha256::digest(&output), Sha256::digest(&copy));
}

#[tokio::test]
async fn bytes_are_bytes() {
    let server = Server::start().await;
    // NUL, a character cut in two by a pause of the writer, no final line end, every byte there is.
    let script = r"printf 'a\000b\303'; sleep 0.1; printf '\244\377\r\n\033[0m'";
    let job = server.run_script(script).await;
    let expected = b"a\0b\xc3\xa4\xff\r\n\x1b[0m";
    assert_eq!(server.output(&id(&job)).await, expected);
    let all: Vec<u8> = (0..=255).collect();
    let job = written(&server, &all, json!({})).await;
    assert_eq!(server.output(&id(&job)).await, all);
    let path = format!("/jobs/{}/output", id(&job));
    let binary = server
        .request(Method::GET, &path)
        .header("accept", "application/octet-stream");
    let binary = server.send(binary).await;
    assert_eq!(
        (binary.content_type(), &binary.body),
        ("application/octet-stream", &all)
    );
    let html = server
        .request(Method::GET, &path)
        .header("accept", "text/html");
    let html = server.send(html).await;
    assert_eq!((html.status, html.code().as_str()), (406, "not_acceptable"));
    let head = server.send(server.request(Method::HEAD, &path)).await;
    assert_eq!((head.status, head.header("content-length")), (200, "256"));
}

#[tokio::test]
async fn streams_are_kept_apart_and_share_their_offsets() {
    let server = Server::start().await;
    let script = "echo one; read _; echo two >&2; read _; echo three";
    let body = json!({"script": script, "stdin": {"mode": "open"}});
    let job = id(&server.submit(&body).await);
    // Each is read before the next comes: two pipes have no order.
    for word in ["one", "two"] {
        server.says(&job, word).await;
        let path = format!("/jobs/{job}/stdin");
        let reply = server.send(server.request(Method::POST, &path).body("\n"));
        assert_eq!(reply.await.status, 204);
    }
    let job = server.finished(&job).await;
    let output = &job["output"];
    assert_eq!(
        (&output["stdout_bytes"], &output["stderr_bytes"]),
        (&json!(10), &json!(4))
    );
    assert_eq!(
        (&output["first_offset"], &output["next_offset"]),
        (&json!(0), &json!(14))
    );
    for (query, expected) in [
        ("", "one\ntwo\nthree\n"),
        ("stream=all", "one\ntwo\nthree\n"),
        ("stream=stdout", "one\nthree\n"),
        ("stream=stderr", "two\n"),
        ("stream=stdout&offset=4", "three\n"),
        ("stream=stdout&offset=10", "ree\n"),
        ("stream=stderr&offset=6", "o\n"),
        ("stream=stderr&offset=8", ""),
    ] {
        let reply = log(&server, &job, query).await;
        assert_eq!(String::from_utf8_lossy(&reply.body), expected, "{query}");
        assert_eq!(reply.header("procession-output-complete"), "true");
        assert_eq!(number(&reply, "procession-next-offset"), 14, "{query}");
    }
    for (stream, expected) in [("stdout", "one\nthree\n"), ("stderr", "two\n")] {
        let reply = server
            .get(&format!("/jobs/{}/output/{stream}", id(&job)))
            .await;
        assert_eq!(String::from_utf8_lossy(&reply.body), expected);
    }
}

#[tokio::test]
async fn merged_streams_keep_their_order() {
    let server = Server::start().await;
    let script = "i=0; while [ $i -lt 500 ]; do echo out $i; echo err $i >&2; i=$((i + 1)); done";
    let body = json!({"script": script, "output": {"merge_stderr": true}});
    let job = server.run(&body).await;
    let expected: String = (0..500).map(|i| format!("out {i}\nerr {i}\n")).collect();
    assert_eq!(server.text(&id(&job)).await, expected);
    assert_eq!(job["output"]["stderr_bytes"], 0, "{job:#}");
    let stderr = server
        .get(&format!("/jobs/{}/output/stderr", id(&job)))
        .await;
    assert_eq!((stderr.status, stderr.body.len()), (200, 0));
}

#[tokio::test]
async fn every_part_of_the_log_can_be_asked_for() {
    let server = Server::start().await;
    let bytes = counted(100_000);
    let job = written(&server, &bytes, json!({})).await;
    for (query, from, to) in [
        ("", 0, 100_000),
        ("offset=0", 0, 100_000),
        ("offset=99999", 99_999, 100_000),
        ("offset=100000", 100_000, 100_000),
        ("offset=5&limit_bytes=7", 5, 12),
        ("limit_bytes=0", 0, 0),
        ("limit_bytes=999999999999", 0, 100_000),
        ("tail_bytes=10", 99_990, 100_000),
        ("tail_bytes=0", 100_000, 100_000),
        ("tail_bytes=999999999", 0, 100_000),
        ("tail_bytes=10&limit_bytes=3", 99_990, 99_993),
    ] {
        let reply = log(&server, &job, query).await;
        assert!(
            reply.body == bytes[from..to],
            "{query}: {} bytes",
            reply.body.len()
        );
        assert_eq!(
            number(&reply, "procession-first-offset"),
            u64::try_from(from).unwrap(),
            "{query}"
        );
        assert_eq!(
            number(&reply, "procession-next-offset"),
            u64::try_from(to).unwrap(),
            "{query}"
        );
        let complete = if to == 100_000 { "true" } else { "false" };
        assert_eq!(
            reply.header("procession-output-complete"),
            complete,
            "{query}"
        );
    }
    let mut read = Vec::new();
    loop {
        let reply = log(
            &server,
            &job,
            &format!("offset={}&limit_bytes=7001", read.len()),
        )
        .await;
        read.extend_from_slice(&reply.body);
        assert_eq!(
            number(&reply, "procession-next-offset"),
            u64::try_from(read.len()).unwrap()
        );
        if reply.header("procession-output-complete") == "true" {
            break;
        }
        assert_eq!(reply.body.len(), 7001);
    }
    assert!(read == bytes);
    for query in [
        "offset=1&tail_bytes=1",
        "offset=-1",
        "offset=x",
        "tail_bytes=1.5",
        "stream=both",
        "follow=maybe",
    ] {
        let reply = server
            .get(&format!("/jobs/{}/output?{query}", id(&job)))
            .await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (400, "invalid_query"),
            "{query}"
        );
    }
}

#[tokio::test]
async fn lines_are_counted_from_the_end() {
    let server = Server::start().await;
    let job = server.run_script("printf 'one\\ntwo\\nthree'").await;
    for (lines, expected) in [
        (0, ""),
        (1, "three"),
        (2, "two\nthree"),
        (9, "one\ntwo\nthree"),
    ] {
        let reply = log(&server, &job, &format!("tail_lines={lines}")).await;
        assert_eq!(String::from_utf8_lossy(&reply.body), expected, "{lines}");
    }
}

#[tokio::test]
async fn a_single_stream_has_ranges() {
    let server = Server::start().await;
    let bytes = counted(10_000);
    let job = written(&server, &bytes, json!({})).await;
    for (range, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=9990-", 9990, 10_000),
        ("bytes=9990-99999", 9990, 10_000),
        ("bytes=-7", 9993, 10_000),
        ("bytes=-99999", 0, 10_000),
    ] {
        let reply = ranged(&server, &job, "stdout", range).await;
        assert_eq!(reply.status, 206, "{range}");
        assert_eq!(
            reply.header("content-range"),
            format!("bytes {from}-{}/10000", to - 1),
            "{range}"
        );
        assert!(reply.body == bytes[from..to], "{range}");
    }
    for range in ["bytes=10000-", "bytes=-0", "bytes=20000-30000"] {
        let reply = ranged(&server, &job, "stdout", range).await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (416, "range_not_satisfiable"),
            "{range}"
        );
        assert_eq!(reply.header("content-range"), "bytes */10000", "{range}");
    }
    for range in ["bytes=5-2", "lines=0-1", "bytes=0-1,5-6", "bytes=", "x"] {
        let reply = ranged(&server, &job, "stdout", range).await;
        assert!(
            reply.status == 200 && reply.body == bytes,
            "{range}: {}",
            reply.status
        );
    }
}

#[tokio::test]
async fn a_log_can_be_read_while_it_grows() {
    let server = Server::start().await;
    let cwd = server.scratch();
    let script = "mkfifo gate; echo one; read _ < gate; echo two";
    let job = server.submit(&json!({"script": script, "cwd": cwd})).await;
    assert_eq!(server.says(&id(&job), "one").await, "one\n");
    let reply = log(&server, &job, "").await;
    assert_eq!(reply.header("procession-output-complete"), "false");
    assert_eq!(number(&reply, "procession-next-offset"), 4);
    let reply = ranged(&server, &job, "stdout", "bytes=4-").await;
    assert_eq!(reply.status, 416, "nothing of it exists yet");
    fs::write(cwd.join("gate"), "\n").unwrap();
    let job = server.finished(&id(&job)).await;
    let reply = log(&server, &job, "offset=4").await;
    assert_eq!(reply.body, b"two\n");
    assert_eq!(reply.header("procession-output-complete"), "true");
}

fn total(job: &Value, name: &str) -> usize {
    usize::try_from(job["output"][name].as_u64().unwrap()).unwrap()
}

#[tokio::test]
async fn drop_oldest_keeps_the_end_and_says_what_is_missing() {
    let server = Server::start().await;
    let bytes = counted(1_000_000);
    let limit = 65_536;
    let job = written(&server, &bytes, json!({"max_bytes": limit})).await;
    assert_eq!(job["state"], "succeeded", "{job:#}");
    assert_eq!(total(&job, "stdout_bytes"), bytes.len(), "{job:#}");
    assert_eq!(total(&job, "next_offset"), bytes.len(), "{job:#}");
    let first = total(&job, "first_offset");
    assert_eq!(total(&job, "dropped_bytes"), first, "{job:#}");
    let kept = bytes.len() - first;
    assert!(kept <= limit && kept > limit / 2, "{kept} bytes are kept");
    for query in ["", "offset=0", &format!("offset={}", first - 1)] {
        let reply = log(&server, &job, query).await;
        assert!(
            reply.body == bytes[first..],
            "{query}: {} bytes",
            reply.body.len()
        );
        assert_eq!(
            reply.header("procession-first-offset"),
            first.to_string(),
            "{query}"
        );
    }
    let stdout = server
        .get(&format!("/jobs/{}/output/stdout", id(&job)))
        .await;
    assert!(stdout.body == bytes[first..]);
    assert_eq!(
        stdout.header("procession-first-position"),
        first.to_string()
    );
    let early = ranged(&server, &job, "stdout", "bytes=0-9").await;
    assert_eq!(early.status, 416, "nothing of the range is kept: {early}");
    let late = ranged(&server, &job, "stdout", "bytes=999990-").await;
    assert!(late.status == 206 && late.body == bytes[999_990..]);
    assert!(size_on_disk(&server, &job) <= u64::try_from(limit).unwrap() + 4096);
}

#[tokio::test]
async fn drop_newest_keeps_the_beginning_and_lets_the_job_run() {
    let server = Server::start().await;
    let bytes = counted(1_000_000);
    let policy = json!({"max_bytes": 65_536, "on_limit": "drop_newest"});
    let job = written(&server, &bytes, policy).await;
    assert_eq!(job["state"], "succeeded", "{job:#}");
    assert_eq!(total(&job, "stdout_bytes"), bytes.len(), "{job:#}");
    let output = server.output(&id(&job)).await;
    assert!(
        output.len() > 32_768 && output.len() <= 65_536,
        "{}",
        output.len()
    );
    assert!(output == bytes[..output.len()]);
    assert_eq!(
        total(&job, "dropped_bytes"),
        bytes.len() - output.len(),
        "{job:#}"
    );
    assert_eq!(total(&job, "first_offset"), 0, "{job:#}");
}

#[tokio::test]
async fn stop_job_stops_the_job() {
    let server = Server::start().await;
    let body = json!({
        "command": ["yes"], "output": {"max_bytes": 65_536, "on_limit": "stop_job"},
    });
    let job = server.run(&body).await;
    assert_eq!(job["termination"]["cause"], "output_limit", "{job:#}");
    assert_eq!(job["state"], "failed", "{job:#}");
    let output = server.text(&id(&job)).await;
    assert!(
        output.len() <= 65_536 && output.starts_with("y\ny\ny\n"),
        "{}",
        output.len()
    );
    let accounted = output.len() + total(&job, "dropped_bytes");
    assert_eq!(accounted, total(&job, "stdout_bytes"), "{job:#}");
}

fn size_on_disk(server: &Server, job: &Value) -> u64 {
    let directory = server.state_dir().join("jobs").join(id(job));
    let files = fs::read_dir(directory).unwrap().flatten();
    // Its record may go meanwhile.
    let lengths = files.filter_map(|file| Some(file.metadata().ok()?.len()));
    lengths.sum()
}

/// What becomes of the output of a job that is over.
#[derive(Clone, Copy, Debug)]
enum Loss {
    NoIndex,
    NoLog,
    HalfAnIndex,
    HalfALog,
    NoDirectory,
}

fn lose(server: &Server, job: &str, loss: Loss) {
    let directory = server.state_dir().join("jobs").join(job);
    let cut = |file: &std::path::Path| {
        let file = std::fs::File::options().write(true).open(file).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    };
    if let Loss::NoDirectory = loss {
        return std::fs::remove_dir_all(directory).unwrap();
    }
    let mut found = 0;
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        match (extension, loss) {
            (Some("idx"), Loss::NoIndex) | (Some("log"), Loss::NoLog) => {
                std::fs::remove_file(&path).unwrap();
            }
            (Some("idx"), Loss::HalfAnIndex) | (Some("log"), Loss::HalfALog) => cut(&path),
            _ => continue,
        }
        found += 1;
    }
    assert!(found > 0, "{directory:?}");
}

/// The head and the body of an answer; a body that is broken off is none. If it breaks off before its first byte, there
/// may be no head.
async fn taken(server: &Server, path: &str, accept: &str) -> (String, Option<Vec<u8>>) {
    let request = server.request(Method::GET, path).header("accept", accept);
    let Ok(response) = request.send().await else {
        return (String::new(), None);
    };
    assert_eq!(response.status(), 200, "{path}");
    let complete = response.headers().get("procession-output-complete");
    let complete = complete.map_or("", |complete| complete.to_str().unwrap());
    let complete = complete.to_owned();
    let body = response.bytes().await.ok();
    (complete, body.map(|bytes| bytes.to_vec()))
}

#[tokio::test]
async fn output_that_is_lost_never_looks_complete() {
    let server = Server::start().await;
    let script =
        "i=0; while [ $i -lt 400 ]; do echo line $i of the output; echo err >&2; i=$((i+1)); done";
    for loss in [
        Loss::NoIndex,
        Loss::NoLog,
        Loss::HalfAnIndex,
        Loss::HalfALog,
        Loss::NoDirectory,
    ] {
        let job = server.run_script(script).await;
        let next = job["output"]["next_offset"].as_u64().unwrap();
        let job = id(&job);
        lose(&server, &job, loss);
        for path in [
            "",
            "/stdout",
            "/stderr",
            "?follow",
            "?stream=stdout",
            "?timestamps",
        ] {
            let path = format!("/jobs/{job}/output{path}");
            let (complete, body) = taken(&server, &path, "text/plain").await;
            assert_eq!(body, None, "{loss:?} {path}");
            assert_ne!(complete, "true", "{loss:?} {path}");
        }
        for path in ["", "?follow"] {
            let path = format!("/jobs/{job}/output{path}");
            let (_, body) = taken(&server, &path, "application/x-ndjson").await;
            let body = String::from_utf8(body.unwrap()).unwrap();
            let records: Vec<Value> = body
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect();
            let [.., gap, end] = records.as_slice() else {
                panic!("{loss:?} {path}: {body}");
            };
            assert_eq!(
                (&gap["type"], &gap["to"]),
                (&json!("gap"), &json!(next)),
                "{loss:?}"
            );
            assert_eq!(
                (&end["type"], &end["next_offset"]),
                (&json!("end"), &json!(next))
            );
        }
        // Whoever has come to the end is not kept.
        let rest = server
            .get(&format!("/jobs/{job}/output?offset={next}"))
            .await;
        assert_eq!(rest.header("procession-output-complete"), "true");
        assert!(
            server
                .log()
                .contains(&format!("output of job {job} is lost"))
        );
    }
}

#[tokio::test]
async fn an_answer_says_how_much_of_the_output_was_dropped() {
    let server = Server::start().await;
    let body = json!({
        "script": "seq 1 40000", "output": {"max_bytes": 65536, "on_limit": "drop_oldest"},
    });
    let job = server.run(&body).await;
    let dropped = job["output"]["dropped_bytes"].to_string();
    assert_ne!(dropped, "0");
    for path in ["", "/stdout", "?follow"] {
        let reply = server
            .get(&format!("/jobs/{}/output{path}", id(&job)))
            .await;
        assert_eq!(reply.header("procession-output-dropped"), dropped, "{path}");
    }
    let whole = id(&server.run_script("echo all").await);
    let reply = server.get(&format!("/jobs/{whole}/output")).await;
    assert_eq!(reply.header("procession-output-dropped"), "");
}
