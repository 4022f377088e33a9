//! Attached over a WebSocket: output from any offset on, input, one writer, the end, and every way of ending.

mod client;

use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use reqwest::Method;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{LONG, Process, Server, eventually, id, kill_now, unique_seconds};
use crate::terminal::shell;
use client::{Attached, Refused, attach, attach_as, attach_with, over_unix};

async fn cat(server: &Server) -> String {
    id(&server
        .submit(&json!({"command": ["cat"], "stdin": {"mode": "open"}}))
        .await)
}

#[tokio::test]
async fn a_pipe_job_is_written_to_and_read_to_its_end() {
    let server = Server::start().await;
    let script = "read -r line; echo out $line; echo err >&2; cat; exit 3";
    let body = json!({"script": script, "stdin": {"mode": "open"}});
    let job = id(&server.submit(&body).await);
    let mut attached = attach(&server, &job, "stdin=true").await.unwrap();
    assert_eq!(attached.first_offset, 0);
    attached.input(b"hello\n").await;
    attached.until("out hello").await;
    attached.input(b"rest").await;
    attached.channel(255, &[0]).await;
    let end = attached.end().await;
    assert_eq!(String::from_utf8_lossy(&attached.stdout), "out hello\nrest");
    assert_eq!(String::from_utf8_lossy(&attached.stderr), "err\n");
    assert_eq!(end.code, 1000, "{end:?}");
    let status = attached.status.unwrap();
    assert_eq!(status["reason"], "NonZeroExitCode", "{status}");
    assert_eq!(status["details"]["causes"][0]["message"], "3");
}

#[tokio::test]
async fn a_shell_on_a_terminal_is_used_resized_and_left() {
    let server = Server::start().await;
    let job = id(&server.submit(&shell()).await);
    let mut attached = attach(&server, &job, "stdin").await.unwrap();
    attached.until("$ ").await;
    attached.channel(4, br#"{"Width":101,"Height":32}"#).await;
    attached.input(b"stty size\n").await;
    attached.until("32 101").await;
    attached.channel(4, br#"{"Width":0,"Height":0}"#).await;
    attached.input(b"stty size; exit 9\n").await;
    let end = attached.end().await;
    assert_eq!(end.code, 1000);
    let text = attached.text();
    assert_eq!(text.matches("32 101").count(), 2, "{text}");
    assert!(attached.stderr.is_empty());
    assert_eq!(
        attached.status.unwrap()["details"]["causes"][0]["message"],
        "9"
    );
}

#[tokio::test]
async fn an_ended_job_is_replayed_from_any_offset() {
    let server = Server::start().await;
    let job = id(&server.run_script("seq 1 30000").await);
    let expected: String = (1..=30_000).map(|number| format!("{number}\n")).collect();
    let length = expected.len();
    for (query, begin) in [
        (String::new(), 0),
        ("offset=100000".to_owned(), 100_000),
        (format!("offset={length}"), length),
        ("tail_bytes=70000".to_owned(), length - 70_000),
        ("tail_lines=2".to_owned(), length - 12),
    ] {
        let mut attached = attach(&server, &job, &query).await.unwrap();
        assert_eq!(attached.first_offset, begin, "{query}");
        assert_eq!(attached.end().await.code, 1000);
        assert!(attached.text() == expected[begin..], "{query}");
        assert_eq!(attached.status.unwrap()["status"], "Success");
    }
    let beyond = attach(&server, &job, &format!("offset={}", length + 1)).await;
    assert_eq!(beyond.unwrap_err().status, 416);
}

#[tokio::test]
async fn many_read_and_one_writes() {
    let server = Server::start().await;
    let job = cat(&server).await;
    let mut writer = attach(&server, &job, "stdin=true").await.unwrap();
    let refused = attach(&server, &job, "stdin=true").await.unwrap_err();
    assert_eq!((refused.status, refused.code()), (409, "stdin_taken"));
    let mut readers = [
        attach(&server, &job, "").await.unwrap(),
        attach(&server, &job, "stdin=false").await.unwrap(),
    ];
    writer.input(b"to all\n").await;
    for reader in &mut readers {
        reader.until("to all\n").await;
    }
    let [mut intruder, mut reader] = readers;
    intruder.input(b"me too\n").await;
    assert_eq!(intruder.end().await.code, 1008);
    writer.say_goodbye().await;
    // The place is free as soon as the other one has gone.
    let mut next = eventually("the next writer", async || {
        attach(&server, &job, "stdin=true").await.ok()
    })
    .await;
    next.input(b"from the next\n").await;
    reader.until("from the next\n").await;
    next.channel(255, &[0]).await;
    assert_eq!(reader.end().await.code, 1000);
    assert_eq!(reader.text(), "to all\nfrom the next\n");
}

#[tokio::test]
async fn who_cannot_attach_is_told_why() {
    let server = Server::start().await;
    let job = id(&server
        .submit(&json!({"command": ["sleep", unique_seconds()]}))
        .await);
    let refused = async |path: &str, headers: &[(&str, &str)]| {
        let refused = attach_with(&server, path, headers).await.unwrap_err();
        (refused.status, refused.code().to_owned())
    };
    let path = format!("/jobs/{job}/attach");
    let bearer = format!("Bearer {}", server.token());
    let token = ("authorization", bearer.as_str());
    let protocol = ("sec-websocket-protocol", "v5.channel.k8s.io");
    for (path, headers, expected) in [
        (&*path, &[protocol][..], (401, "unauthenticated")),
        (&path, &[token], (400, "invalid_header")),
        (
            &path,
            &[token, ("sec-websocket-protocol", "v3.channel.k8s.io")],
            (400, "invalid_header"),
        ),
        (
            &path,
            &[token, protocol, ("origin", "http://evil.example")],
            (403, "origin_not_allowed"),
        ),
        (
            &path,
            &[token, protocol, ("sec-fetch-site", "cross-site")],
            (403, "origin_not_allowed"),
        ),
        (
            &path,
            &[token, protocol, ("host", "evil.example")],
            (421, "host_not_allowed"),
        ),
        (
            &format!("{path}?stdin=true"),
            &[token, protocol],
            (409, "stdin_closed"),
        ),
        (
            &format!("{path}?stdin=perhaps"),
            &[token, protocol],
            (400, "invalid_query"),
        ),
        (
            &format!("{path}?tty=true"),
            &[token, protocol],
            (400, "invalid_query"),
        ),
        (
            "/jobs/nobody/attach",
            &[token, protocol],
            (404, "job_not_found"),
        ),
    ] {
        let expected = (expected.0, expected.1.to_owned());
        assert_eq!(refused(path, headers).await, expected, "{path} {headers:?}");
    }
    let plain = server.get(&path).await;
    assert_eq!(
        (plain.status, plain.code().as_str()),
        (426, "upgrade_required")
    );
    assert_eq!(plain.header("upgrade"), "websocket");
    let own = [
        token,
        protocol,
        ("origin", &*format!("http://{}", server.address())),
    ];
    let mut welcome = attach_with(&server, &path, &own).await.unwrap();
    server.stop(&job, "force").await;
    assert_eq!(welcome.end().await.code, 1000);
    assert_eq!(welcome.status.unwrap()["reason"], "ExitSignal");
}

#[tokio::test]
async fn what_is_no_message_ends_the_conversation() {
    let server = Server::start().await;
    let job = cat(&server).await;
    let sized = |length: usize| Message::binary(vec![0; length]);
    for (message, code) in [
        (Message::text("hello"), 1008),
        (Message::binary(vec![1, 2]), 1008),
        (Message::binary(vec![9]), 1008),
        (Message::binary(b"\x04{}".to_vec()), 1007),
        (sized((64 << 10) + 1), 1009),
        (sized(127 << 10), 1009),
    ] {
        let mut attached = eventually("the next writer", async || {
            attach(&server, &job, "stdin").await.ok()
        })
        .await;
        attached.send(message).await;
        assert_eq!(attached.end().await.code, code);
    }
    let mut attached = eventually("the next writer", async || {
        attach(&server, &job, "stdin").await.ok()
    })
    .await;
    attached.send(sized(64 << 10)).await;
    attached.channel(255, &[0]).await;
    assert_eq!(attached.end().await.code, 1000);
    assert_eq!(attached.stdout, vec![0; (64 << 10) - 1]);
}

#[tokio::test]
async fn a_job_that_takes_no_more_input_says_so() {
    let server = Server::start().await;
    let script = format!("exec <&-; echo closed; exec sleep {}", unique_seconds());
    let job = id(&server
        .submit(&json!({"script": script, "stdin": {"mode": "open"}}))
        .await);
    let mut attached = attach(&server, &job, "stdin").await.unwrap();
    attached.until("closed").await;
    attached.input(b"anybody?").await;
    attached.until_input_closed().await;
    attached.input(b"anybody?").await;
    server.stop(&job, "force").await;
    assert_eq!(attached.end().await.code, 1000);
}

#[tokio::test]
async fn input_waits_for_a_queued_job() {
    let server = Server::builder().args(["--max-running=1"]).start().await;
    let first = cat(&server).await;
    let second = id(&server.submit(&json!({"command": ["cat"], "pty": {}})).await);
    server.in_state(&second, "queued").await;
    let mut attached = attach(&server, &second, "stdin").await.unwrap();
    attached.channel(4, br#"{"Width":40,"Height":10}"#).await;
    attached.input(b"early\n").await;
    attached.channel(255, &[0]).await;
    server.stop(&first, "force").await;
    assert_eq!(attached.end().await.code, 1000);
    assert_eq!(attached.text(), "early\r\nearly\r\n");
}

#[tokio::test]
async fn streams_of_both_kinds_have_their_number_of_places() {
    let server = Server::builder().args(["--max-streams=2"]).start().await;
    let job = cat(&server).await;
    let attached = attach(&server, &job, "").await.unwrap();
    let follow = format!("/jobs/{job}/output?follow");
    let request = server.request(Method::GET, &follow);
    let following = request.send().await.unwrap();
    assert_eq!(following.status(), 200);
    let refused = attach(&server, &job, "").await.unwrap_err();
    assert_eq!((refused.status, refused.code()), (429, "too_many_streams"));
    let reply = server.get(&follow).await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (429, "too_many_streams")
    );
    assert_eq!(reply.header("retry-after"), "1");
    drop(attached);
    let again = eventually("a free place", async || {
        attach(&server, &job, "").await.ok()
    })
    .await;
    drop(following);
    drop(again);
    server.stop(&job, "force").await;
}

#[tokio::test]
async fn a_ping_comes_and_who_answers_nothing_is_dropped() {
    let server = Server::builder().args(["--max-streams=1"]).start().await;
    let job = cat(&server).await;
    let mut attached = attach(&server, &job, "").await.unwrap();
    attached.until_ping().await;
    drop(attached);
    // This one is never polled again, so that nothing answers for it.
    let silent = eventually("a free place", async || {
        attach(&server, &job, "").await.ok()
    })
    .await;
    let began = Instant::now();
    crate::harness::eventually_within(LONG * 2, "it is dropped", async || {
        attach(&server, &job, "").await.ok()
    })
    .await;
    assert!(began.elapsed().as_secs() >= 14, "{:?}", began.elapsed());
    drop(silent);
    server.stop(&job, "force").await;
}

#[tokio::test]
async fn a_revoked_token_ends_the_conversation() {
    let server = Server::start().await;
    let job = cat(&server).await;
    let state = server.state_dir();
    let token = |words: &[&str]| {
        let mut command = crate::harness::program("x", "");
        command
            .arg("token")
            .args(words)
            .arg("--state-dir")
            .arg(&state);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let text = token(&["create", "--name", "guest", "--scope", "operate"]);
    let path = format!("/jobs/{job}/attach?stdin");
    let bearer = format!("Bearer {text}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("sec-websocket-protocol", "v5.channel.k8s.io"),
    ];
    let mut attached = eventually("the token is known", async || {
        attach_with(&server, &path, &headers).await.ok()
    })
    .await;
    attached.input(b"hello\n").await;
    attached.until("hello").await;
    token(&["revoke", "guest"]);
    let began = Instant::now();
    assert_eq!(attached.end().await.code, 1008);
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
    server.stop(&job, "force").await;
}

#[tokio::test]
async fn the_socket_carries_it_too() {
    let server = Server::start().await;
    let job = cat(&server).await;
    let mut attached = over_unix(&server, &job, "stdin").await.unwrap();
    attached.input(b"hello").await;
    attached.until("hello").await;
    attached.channel(255, &[0]).await;
    assert_eq!(attached.end().await.code, 1000);
}

/// What is attached is broken off by a crash and comes back with its offset.
#[tokio::test]
async fn nothing_is_lost_over_kills_of_the_server() {
    let server = Server::start().await;
    let script = "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); echo $i; done; echo over";
    let job = id(&server.submit(&json!({"script": script, "pty": {}})).await);
    let mut text = String::new();
    let mut kills = 0;
    loop {
        let query = format!("offset={}", text.len());
        let mut attached = eventually("attached again", async || {
            attach(&server, &job, &query).await.ok()
        })
        .await;
        let to_kill = if kills < 3 {
            server.server_process()
        } else {
            None
        };
        let end = attached.some_or_end(20_000).await;
        assert_eq!(attached.first_offset, text.len());
        text.push_str(&attached.text());
        if let Some(end) = end {
            assert_eq!(end.code, 1000);
            break;
        }
        if let Some(pid) = to_kill {
            kills += 1;
            kill_now(pid);
            let rest = attached.rest().await;
            text.push_str(&rest);
        }
    }
    let mut expected: String = (1..=30_000).map(|number| format!("{number}\r\n")).collect();
    expected.push_str("over\r\n");
    assert!(text == expected, "{} of {}", text.len(), expected.len());
    assert!(kills > 0);
}

#[tokio::test]
async fn a_kill_of_the_monitor_goes_unnoticed() {
    let server = Server::start().await;
    let job = id(&server.submit(&shell()).await);
    let mut attached = attach(&server, &job, "stdin").await.unwrap();
    attached.until("$ ").await;
    let monitor = server.monitors()[&job];
    kill_now(monitor);
    eventually("another monitor", async || {
        let now = server.monitors().get(&job).copied()?;
        (now != monitor).then_some(())
    })
    .await;
    attached.input(b"echo st''ill; exit 0\n").await;
    attached.until("still").await;
    assert_eq!(attached.end().await.code, 1000);
}

#[tokio::test]
async fn the_end_of_the_service_is_said_and_does_not_hang() {
    let mut server = Server::builder()
        .args(["--on-shutdown=leave"])
        .start()
        .await;
    let job = cat(&server).await;
    let mut attached = attach(&server, &job, "stdin").await.unwrap();
    attached.input(b"hello").await;
    attached.until("hello").await;
    kill(server.supervisor(), Signal::SIGTERM).unwrap();
    assert_eq!(attached.end().await.code, 1001);
    assert!(server.end(Signal::SIGTERM).is_some());
    server.start_again(Server::builder()).await;
    let mut again = attach(&server, &job, "stdin&offset=5").await.unwrap();
    again.input(b" again").await;
    again.until(" again").await;
    server.stop(&job, "force").await;
}

#[tokio::test]
async fn an_upgrade_says_goodbye_and_the_next_server_goes_on() {
    let server = Server::start().await;
    let job = cat(&server).await;
    let mut attached = attach(&server, &job, "stdin").await.unwrap();
    attached.input(b"one").await;
    attached.until("one").await;
    let before = server.server_process().unwrap().as_raw();
    kill(server.supervisor(), Signal::SIGHUP).unwrap();
    assert_eq!(attached.end().await.code, 1001);
    // It may still take a connection, only to say the same.
    eventually("that server has ended", async || {
        let is_over = Process::read(before).is_none_or(|it| it.is_zombie());
        is_over.then_some(())
    })
    .await;
    let mut again = eventually("the next server", async || {
        attach(&server, &job, "stdin&offset=3").await.ok()
    })
    .await;
    again.input(b"two").await;
    again.until("two").await;
    server.stop(&job, "force").await;
}

#[tokio::test]
async fn dropped_output_is_told_as_a_gap() {
    let server = Server::start().await;
    let script = "head -c 100000 /dev/zero; echo; read -r line; head -c 100000 /dev/zero";
    let body = json!({"script": script, "stdin": {"mode": "open"}, "output": {"max_bytes": 50_000, "on_limit": "drop_newest"}});
    let job = id(&server.submit(&body).await);
    let mut attached = attach(&server, &job, "stdin").await.unwrap();
    attached.input(b"go\n").await;
    assert_eq!(attached.end().await.code, 1000);
    let gaps: u64 = attached
        .gaps
        .iter()
        .map(|gap| gap["to"].as_u64().unwrap() - gap["from"].as_u64().unwrap())
        .sum();
    let kept = u64::try_from(attached.stdout.len()).unwrap();
    assert_eq!(kept + gaps, 200_001, "{:?}", attached.gaps);
    assert!(kept > 0 && gaps > 0);
}

#[tokio::test]
async fn every_upgrade_is_audited() {
    let server = Server::start().await;
    let job = cat(&server).await;
    drop(attach(&server, &job, "").await.unwrap());
    server.stop(&job, "force").await;
    let audit = std::fs::read_to_string(server.state_dir().join("audit.jsonl")).unwrap();
    let line: Value = audit
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .find(|line| line["route"] == "/jobs/{id}/attach")
        .unwrap();
    assert_eq!(line["status"], 101, "{line}");
}

/// Kept apart, so that the types of a refusal are looked at where they are made.
impl Refused {
    fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }
}

impl Attached {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

#[tokio::test]
async fn a_ping_is_answered_while_the_job_takes_no_input() {
    let server = Server::start().await;
    let body = json!({"command": ["sleep", unique_seconds()], "stdin": {"mode": "open"}});
    let job = id(&server.submit(&body).await);
    let mut attached = attach(&server, &job, "stdin=true").await.unwrap();
    // More than the pipe takes.
    for _ in 0..10 {
        attached.input(&[b'x'; 32 << 10]).await;
    }
    attached.send(Message::Ping("still there?".into())).await;
    attached.until_pong("still there?").await;
    server.stop(&job, "force").await;
}

#[tokio::test]
async fn what_is_sent_as_text_is_input_too() {
    let server = Server::start().await;
    for protocol in ["v4.channel.k8s.io", "v5.channel.k8s.io"] {
        let job = cat(&server).await;
        let mut attached = attach_as(&server, &job, "stdin=true", protocol)
            .await
            .unwrap();
        attached.send(Message::Text("\0gr\u{fc}n\n".into())).await;
        attached.until("gr\u{fc}n\n").await;
        attached.send(Message::Text("\u{ff}\0".into())).await;
        assert_eq!(attached.end().await.code, 1000, "{protocol}");
        assert_eq!(attached.status.unwrap()["status"], "Success");
    }
}
