//! Many followers, slow ones and dead ones: nobody pays for somebody else.

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use futures_util::future::join_all;
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::json;

use super::reading::{EVENTS, Lines, NDJSON, joined, open};
use crate::harness::{LONG, Server, eventually, id, unique_seconds};

const KINDS: [&str; 3] = ["text/plain", NDJSON, EVENTS];

/// A number in a file about the server's process, behind the name.
fn number_of(server: &Server, file: &str, name: &str) -> u64 {
    let process = server.server_process().unwrap();
    let text = fs::read_to_string(format!("/proc/{process}/{file}")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.unwrap().split_whitespace().next().unwrap();
    number.parse().unwrap()
}

/// A follow on a socket of its own that takes little; nothing is read of it.
fn plug_in(server: &Server, job: &str, kind: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    setsockopt(&stream, sockopt::RcvBuf, &(256 << 10)).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    let request = format!(
        "GET /jobs/{job}/output?follow HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nAccept: {kind}\r\nConnection: close\r\n\r\n",
        server.token()
    );
    stream.write_all(request.as_bytes()).unwrap();
    stream
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_do_not_read_cost_no_memory() {
    const OUTPUT: usize = 8_000_000;
    const READERS: usize = 30;
    let server = Server::start().await;
    let cwd = server.scratch();
    let script = format!("mkfifo gate; read _ < gate; yes | head -c {OUTPUT}");
    let job = id(&server.submit(&json!({"script": script, "cwd": cwd})).await);
    let mut slow: Vec<TcpStream> = (0..READERS)
        .map(|number| plug_in(&server, &job, KINDS[number % KINDS.len()]))
        .collect();
    // The heads come at once.
    for stream in &mut slow {
        stream.read_exact(&mut [0; 15]).unwrap();
    }
    let before = number_of(&server, "status", "VmRSS:");
    fs::write(cwd.join("gate"), "\n").unwrap();
    let ended = server.finished(&job).await;
    assert_eq!(ended["state"], "succeeded", "{ended:#}");
    // One of each kind goes on after all; by its end, the others have long been stuck.
    for (stream, kind) in slow.iter_mut().zip(KINDS) {
        let mut body = Vec::new();
        tokio::task::block_in_place(|| stream.read_to_end(&mut body)).unwrap();
        assert!(body.len() > OUTPUT, "{kind}: {}", body.len());
        let tail = String::from_utf8_lossy(&body[body.len() - 300..]).into_owned();
        assert!(tail.ends_with("\r\n0\r\n\r\n"), "{kind}: {tail}");
        let has_end = tail.contains(r#""type":"end","state":"succeeded""#);
        assert_eq!(has_end, kind != "text/plain", "{tail}");
    }
    let grown = number_of(&server, "status", "VmHWM:").saturating_sub(before);
    eprintln!("{grown} kB for {READERS} readers of {OUTPUT} bytes");
    assert!(
        grown < 64 << 10,
        "{grown} kB for {READERS} readers of {OUTPUT} bytes"
    );
}

#[tokio::test]
async fn two_hundred_at_the_tip_of_a_log_are_read_for_once() {
    const FOLLOWERS: usize = 200;
    let server = Server::start().await;
    let cwd = server.scratch();
    let script = "mkfifo gate; read _ < gate; for i in $(seq 100); do head -c 10000 /dev/zero | tr '\\0' x; sleep 0.02; done";
    let job = id(&server.submit(&json!({"script": script, "cwd": cwd})).await);
    let follow = async |number: usize| {
        let kind = KINDS[number % KINDS.len()];
        let response = open(&server, &job, "", &[("accept", kind)]).await.unwrap();
        assert_eq!(response.status(), 200);
        response
    };
    let opened = join_all((0..FOLLOWERS).map(follow)).await;
    let before = number_of(&server, "io", "rchar:");
    fs::write(cwd.join("gate"), "\n").unwrap();
    let whole = async |response: reqwest::Response| response.bytes().await.unwrap().len();
    let sizes = join_all(opened.into_iter().map(whole)).await;
    for (number, size) in sizes.iter().enumerate() {
        let is_raw = KINDS[number % KINDS.len()] == "text/plain";
        assert!(
            *size == 1_000_000 || (!is_raw && *size > 1_000_000),
            "{size}"
        );
    }
    let read = number_of(&server, "io", "rchar:") - before;
    eprintln!("{read} bytes were read for {FOLLOWERS} followers of 1000000 bytes");
    // Each for himself, they would be 200 MB; once for each kind, they are 3 MB.
    assert!(read < 20_000_000, "{read}");
}

#[tokio::test]
async fn a_follower_that_hears_nothing_is_asked_whether_it_is_there() {
    let server = Server::start().await;
    let job = json!({"command": ["sleep", unique_seconds()]});
    let job = id(&server.submit(&job).await);
    let mut stream = plug_in(&server, &job, "text/plain");
    stream.read_exact(&mut [0; 15]).unwrap();
    let (here, there) = (stream.local_addr().unwrap(), server.address());
    let port = |address: std::net::SocketAddr| format!(":{:04X}", address.port());
    // proc(5): the server's end of the connection, and which timer it waits for; 02 is keepalive.
    eventually("the server's end has a keepalive timer", async || {
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let mut rows = table.lines().map(|row| row.split_whitespace());
        let timer = rows.find_map(|mut row| {
            let (local, remote) = (row.nth(1)?, row.next()?);
            let is_it = local.ends_with(&port(there)) && remote.ends_with(&port(here));
            is_it.then(|| row.nth(2))?
        });
        let (kind, left) = timer?.split_once(':')?;
        let left = u64::from_str_radix(left, 16).ok()?;
        // In hundredths of a second.
        (kind == "02" && left <= 60 * 100).then_some(())
    })
    .await;
}
