//! The output in the answer: `output_bytes`.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Server, id};

/// Waits until what was written to standard output has been read: the other stream has a pipe of its own.
const READ: &str = r#"python3 -c '
import array, fcntl, termios, time
left = array.array("i", [1])
while left[0]:
    time.sleep(0.01)
    fcntl.ioctl(1, termios.FIONREAD, left)
'"#;

async fn created(server: &Server, query: &str, script: &str) -> Value {
    let path = format!("/jobs?{query}");
    let reply = server.post(&path, &json!({"script": script})).await;
    assert_eq!(reply.status, 201, "{reply}");
    reply.json()
}

async fn looked_at(server: &Server, job: &Value, query: &str) -> Value {
    let path = format!("/jobs/{}?{query}", id(job));
    let reply = server.get(&path).await;
    assert_eq!(reply.status, 200, "{reply}");
    reply.json()
}

fn text(job: &Value) -> &str {
    job["output"]["excerpt"]["text"].as_str().unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

#[tokio::test]
async fn one_answer_has_exit_code_beginning_and_end() {
    let server = Server::start().await;
    let script = format!("seq 100000; {READ}; echo BAD >&2; exit 7");
    let job = created(&server, "wait=30&output_bytes=4096", &script).await;
    assert_eq!(job["exit"]["code"], 7, "{job:#}");
    let (output, text) = (&job["output"], text(&job));
    assert!(text.len() <= 4096, "{}", text.len());
    assert!(
        text.starts_with("1\n2\n") && text.ends_with("\n100000\nBAD\n"),
        "{text}"
    );
    let excerpt = &output["excerpt"];
    let span = |name: &str| number(&excerpt[name]["to"]) - number(&excerpt[name]["from"]);
    let omitted = number(&output["next_offset"]) - span("head") - span("tail");
    assert_eq!(number(&excerpt["omitted_bytes"]), omitted);
    assert_eq!(excerpt["lossy"], false);
    // What was left out is at /output, from one part to the other.
    let (from, length) = (number(&excerpt["head"]["to"]), omitted);
    let path = format!(
        "/jobs/{}/output?offset={from}&limit_bytes={length}",
        id(&job)
    );
    let middle = String::from_utf8(server.get(&path).await.body).unwrap();
    let mark = format!(
        "[\u{2026} {omitted} bytes left out: offsets {from} to {} \u{2026}]\n",
        excerpt["tail"]["from"]
    );
    let whole = text.replace(&mark, &middle);
    assert_eq!(whole.as_bytes(), server.output(&id(&job)).await);
}

#[tokio::test]
async fn a_small_output_is_there_byte_for_byte_and_by_default_there_is_none() {
    let server = Server::start().await;
    let script = r"printf 'gr\303\274n\n\033[1mend'";
    let job = created(&server, "wait=30&output_bytes=1048576", script).await;
    assert_eq!(text(&job).as_bytes(), server.output(&id(&job)).await);
    assert_eq!(job["output"]["excerpt"]["omitted_bytes"], 0);
    for query in ["", "output_bytes=0"] {
        let job = looked_at(&server, &job, query).await;
        assert!(job["output"].get("excerpt").is_none(), "{job:#}");
    }
    let plain = looked_at(&server, &job, "output_bytes=100&output_ansi=strip").await;
    assert_eq!(text(&plain), "gr\u{fc}n\nend");
}

#[tokio::test]
async fn a_stream_can_be_chosen_and_a_rerun_shows_its_own() {
    let server = Server::start().await;
    let job = created(&server, "wait=30", "echo out; echo err >&2").await;
    for (stream, expected) in [("stdout", "out\n"), ("stderr", "err\n")] {
        let query = format!("output_bytes=100&output_stream={stream}");
        assert_eq!(text(&looked_at(&server, &job, &query).await), expected);
    }
    let path = format!(
        "/jobs/{}/rerun?wait=30&output_bytes=100&output_stream=stdout",
        id(&job)
    );
    let again = server.send(server.request(Method::POST, &path)).await;
    assert_eq!(again.status, 201, "{again}");
    let again = again.json();
    assert_eq!((text(&again), id(&again) != id(&job)), ("out\n", true));
}

#[tokio::test]
async fn a_wait_that_runs_out_shows_what_there_is() {
    let server = Server::start().await;
    let script = "echo begun; while :; do sleep 1; done";
    let job = created(&server, "output_bytes=100", script).await;
    server.says(&id(&job), "begun").await;
    let query = "wait=0.05&until=finished&output_bytes=100";
    let now = looked_at(&server, &job, query).await;
    assert_eq!((text(&now), &now["state"]), ("begun\n", &json!("running")));
    assert_eq!(
        now["output"]["excerpt"]["tail"],
        json!({"from": 0, "to": 6})
    );
    // The version is of the job, and the output is no part of it.
    let path = format!("/jobs/{}?output_bytes=100", id(&job));
    let etag = server.get(&path).await.header("etag").to_owned();
    assert_eq!(etag, format!("\"{}\"", now["version"]));
}

#[tokio::test]
async fn a_wrong_budget_is_refused_before_anything_starts() {
    let server = Server::start().await;
    for query in [
        "output_bytes=-1",
        "output_bytes=1048577",
        "output_bytes=x",
        "output_bytes=1&output_stream=both",
        "output_bytes=1&output_ansi=off",
    ] {
        let reply = server
            .post(&format!("/jobs?{query}"), &json!({"script": "true"}))
            .await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (400, "invalid_query"),
            "{query}"
        );
    }
    let jobs = server.get("/jobs").await.json();
    assert_eq!(jobs["jobs"], json!([]));
}
