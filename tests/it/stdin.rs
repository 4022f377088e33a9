//! Standard input that stays open: what goes in comes out, once, and ends when it is said to end.

use std::io::Read;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::{Rng, RngCore};
use reqwest::{Body, Method};
use serde_json::json;

use crate::harness::{Reply, Server, eventually, id, unique_seconds};

const OFFSET: &str = "procession-stdin-offset";

/// A job that copies its input to its output.
async fn cat(server: &Server) -> String {
    id(&server
        .submit(&json!({"command": ["cat"], "stdin": {"mode": "open"}}))
        .await)
}

async fn write(server: &Server, job: &str, query: &str, bytes: impl Into<Body>) -> Reply {
    let path = format!("/jobs/{job}/stdin?{query}");
    server
        .send(server.request(Method::POST, &path).body(bytes))
        .await
}

#[tokio::test]
async fn bytes_go_in_and_come_out_until_the_end_is_said() {
    let server = Server::start().await;
    let job = cat(&server).await;
    let first = write(&server, &job, "", "one\n").await;
    assert_eq!((first.status, first.header(OFFSET)), (204, "4"), "{first}");
    server.says(&job, "one\n").await;
    let second = write(&server, &job, "eof", "two\n").await;
    assert_eq!(
        (second.status, second.header(OFFSET)),
        (204, "8"),
        "{second}"
    );
    let ended = server.finished(&job).await;
    assert_eq!(ended["exit"]["code"], 0, "{ended:#}");
    assert_eq!(server.text(&job).await, "one\ntwo\n");
    let late = write(&server, &job, "", "three\n").await;
    assert_eq!(
        (late.status, late.code().as_str()),
        (409, "job_already_finished")
    );
}

#[tokio::test]
async fn a_large_random_input_comes_out_exactly() {
    let server = Server::start().await;
    let body = json!({"command": ["sha256sum"], "stdin": {"mode": "open"}});
    let job = id(&server.submit(&body).await);
    let mut bytes = vec![0; 8 << 20];
    rand::rng().fill_bytes(&mut bytes);
    let expected = {
        use sha2::{Digest, Sha256};
        let digest = Sha256::digest(&bytes);
        digest
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    assert_eq!(write(&server, &job, "eof", bytes).await.status, 204);
    server.finished(&job).await;
    assert_eq!(server.text(&job).await, format!("{expected}  -\n"));
}

#[tokio::test]
async fn a_job_that_does_not_read_holds_the_writer_up_and_nobody_else() {
    let server = Server::start().await;
    let cwd = server.scratch();
    let script = "mkfifo gate; echo ready; read _ < gate; wc -c";
    let body = json!({"script": script, "cwd": cwd, "stdin": {"mode": "open"}});
    let job = id(&server.submit(&body).await);
    server.says(&job, "ready").await;
    let writing = write(&server, &job, "eof", vec![b'x'; 1 << 20]);
    let reading = async {
        // The job answers other requests while a packet waits.
        let reply = server
            .post(
                &format!("/jobs/{job}/signal"),
                &json!({"signal": "SIGCONT"}),
            )
            .await;
        assert_eq!(reply.status, 200, "{reply}");
        std::fs::write(cwd.join("gate"), "\n").unwrap();
    };
    let (written, ()) = tokio::join!(writing, reading);
    assert_eq!(written.status, 204, "{written}");
    server.finished(&job).await;
    assert!(server.text(&job).await.contains("1048576"));
}

#[tokio::test]
async fn a_repeat_with_an_offset_is_written_once() {
    let server = Server::start().await;
    let job = cat(&server).await;
    assert_eq!(write(&server, &job, "offset=0", "abc").await.status, 204);
    let repeat = write(&server, &job, "offset=0", "abc").await;
    assert_eq!(
        (repeat.status, repeat.code().as_str()),
        (409, "stdin_offset_mismatch")
    );
    assert_eq!(repeat.header(OFFSET), "3");
    assert_eq!(
        write(&server, &job, "offset=3&eof", "def").await.status,
        204
    );
    // The answer to the end was lost: the same again is the same.
    let end = write(&server, &job, "offset=6&eof", "").await;
    assert!(
        end.status == 204 || end.code() == "job_already_finished",
        "{end}"
    );
    server.finished(&job).await;
    assert_eq!(server.text(&job).await, "abcdef");
}

#[tokio::test]
async fn what_has_no_open_input_takes_none() {
    let server = Server::start().await;
    for stdin in [
        json!({"mode": "null"}),
        json!({"mode": "data", "text": "x"}),
    ] {
        let body = json!({"command": ["sleep", unique_seconds()], "stdin": stdin});
        let job = id(&server.submit(&body).await);
        let reply = write(&server, &job, "", "x").await;
        assert_eq!((reply.status, reply.code().as_str()), (409, "stdin_closed"));
        server.stop(&job, "force").await;
    }
    let body = json!({"script": format!("exec <&-; echo closed; exec sleep {}", unique_seconds()), "stdin": {"mode": "open"}});
    let job = id(&server.submit(&body).await);
    server.says(&job, "closed").await;
    let reply = write(&server, &job, "", "x").await;
    assert_eq!((reply.status, reply.code().as_str()), (409, "stdin_closed"));
    server.stop(&job, "force").await;
    for (query, code) in [
        ("offset=x", "invalid_query"),
        ("eof=perhaps", "invalid_query"),
        ("of", "invalid_query"),
    ] {
        let reply = write(&server, &job, query, "").await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (400, code),
            "{query}"
        );
    }
}

async fn server_pid(server: &Server) -> i32 {
    let pid = eventually("the server answers", async || {
        let response = server.request(Method::GET, "/info").send().await.ok()?;
        let info: serde_json::Value = response.json().await.ok()?;
        info["server_pid"].as_i64()
    })
    .await;
    i32::try_from(pid).unwrap()
}

#[tokio::test]
async fn the_input_stays_open_over_the_deaths_of_server_and_monitor() {
    let server = Server::start().await;
    let job = cat(&server).await;
    assert_eq!(write(&server, &job, "offset=0", "one\n").await.status, 204);
    let pid = server_pid(&server).await;
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    eventually("another server", async || {
        (server_pid(&server).await != pid).then_some(())
    })
    .await;
    assert_eq!(write(&server, &job, "offset=4", "two\n").await.status, 204);
    let monitor = server
        .marked()
        .into_iter()
        .find(|process| process.name == "procession-mon");
    kill(Pid::from_raw(monitor.unwrap().pid), Signal::SIGKILL).unwrap();
    // The dead one has noted how far it was.
    let wrong = eventually("the rescuer answers", async || {
        let reply = write(&server, &job, "offset=7", "x").await;
        (reply.status != 503).then_some(reply)
    })
    .await;
    assert_eq!((wrong.status, wrong.header(OFFSET)), (409, "8"), "{wrong}");
    let path = "offset=8&eof";
    assert_eq!(write(&server, &job, path, "three\n").await.status, 204);
    server.finished(&job).await;
    assert_eq!(server.text(&job).await, "one\ntwo\nthree\n");
}

#[tokio::test]
async fn a_monitor_that_dies_in_a_write_leaves_an_offset_that_nobody_knows() {
    let places = tempfile::tempdir().unwrap();
    let server = Server::builder()
        .env("PROCESSION_FAILPOINTS", places.path().to_str().unwrap())
        .start()
        .await;
    let job = cat(&server).await;
    assert_eq!(write(&server, &job, "offset=0", "one\n").await.status, 204);
    std::fs::write(places.path().join("input.written"), "").unwrap();
    assert_eq!(write(&server, &job, "offset=4", "two\n").await.status, 503);
    // It was written, which the rescuer cannot know: the client has to decide.
    let unknown = eventually("the rescuer answers", async || {
        let reply = write(&server, &job, "offset=8", "x").await;
        (reply.status != 503).then_some(reply)
    })
    .await;
    assert_eq!(
        (unknown.status, unknown.header(OFFSET)),
        (409, ""),
        "{unknown}"
    );
    assert_eq!(write(&server, &job, "eof", "three\n").await.status, 204);
    server.finished(&job).await;
    assert_eq!(server.text(&job).await, "one\ntwo\nthree\n");
}

#[tokio::test]
async fn retries_over_kills_of_the_server_lose_and_double_nothing() {
    let server = Server::start().await;
    let job = cat(&server).await;
    let mut input = vec![0; 400_000];
    rand::rng().fill_bytes(&mut input);
    let mut at = 0;
    let mut kills = 0;
    while at < input.len() {
        let end = (at + rand::rng().random_range(1..60_000)).min(input.len());
        let path = format!("/jobs/{job}/stdin?offset={at}");
        let request = server
            .request(Method::POST, &path)
            .body(input[at..end].to_vec());
        let kill_now = async {
            if kills < 4 && at > (kills + 1) * 50_000 {
                kills += 1;
                let pid = server_pid(&server).await;
                kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
            }
        };
        let (sent, ()) = tokio::join!(request.send(), kill_now);
        // No answer: the same bytes again.
        let Ok(response) = sent else { continue };
        let offset = response
            .headers()
            .get(OFFSET)
            .map(|value| value.to_str().unwrap().to_owned());
        match response.status().as_u16() {
            204 => at = end,
            409 => at = offset.unwrap().parse().unwrap(),
            503 => {}
            other => panic!("{other}"),
        }
    }
    assert_eq!(
        write(&server, &job, &format!("offset={at}&eof"), "")
            .await
            .status,
        204
    );
    server.finished(&job).await;
    assert!(server.output(&job).await == input);
}

#[tokio::test]
async fn a_process_in_the_background_keeps_the_input() {
    let server = Server::start().await;
    let cwd = server.scratch();
    let body = json!({"script": "exec 3<&0; cat <&3 > copy &", "cwd": cwd, "wait_for": "all", "stdin": {"mode": "open"}});
    let job = id(&server.submit(&body).await);
    assert_eq!(write(&server, &job, "eof", "late").await.status, 204);
    server.finished(&job).await;
    let mut copy = String::new();
    let mut file = std::fs::File::open(cwd.join("copy")).unwrap();
    file.read_to_string(&mut copy).unwrap();
    assert_eq!(copy, "late");
}
