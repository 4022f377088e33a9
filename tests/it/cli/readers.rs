//! A job that waits for the reader of its output, as the writer of a pipe does.

use std::fs::File;
use std::io::{Read, Write};

use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use serde_json::{Value, json};

use super::{cli, command};
use crate::harness::{Server, eventually, id, kill_now};

/// More than the log, all pipes and the sockets in between hold.
const BYTES: usize = 24_000_000;

async fn waits(server: &Server, id: &str) -> Value {
    eventually("the job waits for its reader", async || {
        let job = server.job(id).await;
        let message = job["state_message"].as_str().unwrap_or_default();
        message.contains("until its output is read").then_some(job)
    })
    .await
}

/// The log is far smaller than what goes through it, and the reader reads nothing until the job waits; by then neither
/// the death of its server nor that of its monitor loses a byte.
#[tokio::test]
async fn what_a_slow_reader_of_run_has_not_read_is_not_dropped() {
    let server = Server::start().await;
    let spec = server.scratch().join("spec.json");
    let body = json!({
        "name": "slow",
        "command": ["head", "-c", BYTES.to_string(), "/dev/zero"],
        "output": {"max_bytes": 1_048_576, "on_limit": "wait"},
    });
    fs_write(&spec, &body);
    let (from, to) = pipe2(OFlag::O_CLOEXEC).unwrap();
    let mut command = command(&server, &["run", "-f", spec.to_str().unwrap()]);
    let mut child = command.stdout(to).spawn().unwrap();
    drop(command);
    let job = eventually("the job is there", async || {
        let list = server.get("/jobs?name_prefix=slow").await.json();
        list["jobs"].get(0).map(id)
    })
    .await;
    let view = waits(&server, &job).await;
    assert_eq!(view["state"], "running", "{view:#}");
    kill_now(server.server_process().unwrap());
    eventually("another server answers", async || {
        let info = server.try_send(server.request(reqwest::Method::GET, "/info"));
        let info = info.await.ok()?.json();
        (info["server_restarts"] == 1).then_some(())
    })
    .await;
    waits(&server, &job).await;
    kill_now(server.monitors()[&job]);
    let mut all = Vec::new();
    File::from(from).read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), BYTES);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let ended = server.finished(&job).await;
    assert_eq!(ended["state"], "succeeded", "{ended:#}");
    assert_eq!(ended["output"]["next_offset"], BYTES, "{ended:#}");
}

/// Whoever follows counts, and a stop needs no reader.
#[tokio::test]
async fn a_job_without_a_reader_waits_and_can_be_stopped() {
    let server = Server::start().await;
    let body = json!({
        "command": ["yes"],
        "output": {"max_bytes": 4096, "on_limit": "wait"},
    });
    let job = id(&server.submit(&body).await);
    waits(&server, &job).await;
    let ended = server.stop(&job, "").await;
    assert_eq!(ended["state"], "canceled", "{ended:#}");
    assert_eq!(ended["output"]["dropped_bytes"], 0, "{ended:#}");
    // What was in the pipe when it was killed is there, too.
    let kept = ended["output"]["next_offset"].as_u64().unwrap();
    assert!(kept >= 65_536, "{ended:#}");
}

#[tokio::test]
async fn a_job_in_the_foreground_waits_unless_something_else_is_said() {
    let server = Server::start().await;
    for (args, on_limit) in [
        (&["--name", "a"][..], "wait"),
        (&["--name", "a", "--json"], "wait"),
        (&["--name", "a", "--max-output", "1M"], "drop_oldest"),
        (&["--name", "a", "-d"], "drop_oldest"),
        (&["--name", "a", "-t"], "drop_oldest"),
    ] {
        let args = [&["run"], args, &["--", "true"]].concat();
        cli(&server, &args).good();
        let newest = server.get("/jobs?page_size=1").await.json();
        let spec = &newest["jobs"][0]["spec"];
        assert_eq!(spec["output"]["on_limit"], on_limit, "{args:?}: {spec:#}");
    }
}

fn fs_write(path: &std::path::Path, body: &Value) {
    let mut file = File::create(path).unwrap();
    file.write_all(body.to_string().as_bytes()).unwrap();
}
