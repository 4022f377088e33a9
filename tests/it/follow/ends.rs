//! The end of a follow: never before the job has ended and its output is complete.

use futures_util::stream::{self, StreamExt};
use serde_json::json;

use super::reading::{EVENTS, Lines, NDJSON, open};
use crate::harness::{Server, id, is_finished, unique_seconds};

const RAW: &str = "text/plain";

/// How many jobs run at the same time.
const TOGETHER: usize = 40;

/// What each of these jobs writes, the last line of it by a child that outlives the leader.
const TEXT: &str = "up\nbye\n";

/// A job whose child holds the pipe after the leader's end; half of them wait for it, the others stop it.
async fn ends_in_order(server: &Server, number: usize) {
    let waits_for_all = number.is_multiple_of(2);
    let cwd = server.scratch().join(number.to_string());
    std::fs::create_dir(&cwd).unwrap();
    let body = if waits_for_all {
        json!({"script": "echo up; (sleep 0.1; echo bye) &", "wait_for": "all"})
    } else {
        // The child writes when it is told to end.
        let child = format!(
            "sh -c 'trap \"echo bye; exit\" TERM; echo up; sleep {} & wait'",
            unique_seconds()
        );
        json!({"script": format!("mkfifo gate; {child} & read _ < gate"), "cwd": cwd})
    };
    let job = id(&server.submit(&body).await);
    let gate = || {
        if !waits_for_all {
            std::fs::write(cwd.join("gate"), "\n").unwrap();
        }
    };
    let accept = [NDJSON, EVENTS, RAW][number / 2 % 3];
    let mut response = open(server, &job, "", &[("accept", accept)]).await.unwrap();
    if accept == RAW {
        let mut text = Vec::new();
        // A body that breaks off is an error here.
        while let Some(bytes) = response.chunk().await.unwrap() {
            text.extend_from_slice(&bytes);
            if text == b"up\n" {
                gate();
            }
        }
        assert_eq!(String::from_utf8_lossy(&text), TEXT, "{body}");
        assert!(is_finished(&server.job(&job).await), "{body}");
        return;
    }
    let mut lines = Lines::new(response);
    let mut text = String::new();
    while let Some((record, _)) = lines.record().await {
        if record["type"] == "output" {
            text.push_str(record["text"].as_str().unwrap());
            if text == "up\n" {
                gate();
            }
        }
        if record["type"] == "end" {
            assert_eq!(text, TEXT, "{body}");
            assert_eq!(record["next_offset"], 7);
            assert!(is_finished(&record), "{record}");
            assert!(is_finished(&server.job(&job).await), "{body}");
            // An event ends with an empty line.
            while let Some(line) = lines.next().await {
                assert_eq!((line.as_str(), accept), ("", EVENTS));
            }
            assert!(lines.is_whole);
            return;
        }
    }
    panic!("no end: {text:?} {body}");
}

#[tokio::test]
async fn the_end_is_told_after_the_last_byte_of_the_last_child() {
    let jobs = std::env::var("PROCESSION_END_JOBS").map_or(200, |text| text.parse().unwrap());
    let server = Server::start().await;
    stream::iter(0..jobs)
        .for_each_concurrent(TOGETHER, |number| ends_in_order(&server, number))
        .await;
}
