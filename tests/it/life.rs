//! The life of a job, from POST to its verified end.

use serde_json::json;

use crate::harness::{Process, Server, id};

#[tokio::test]
async fn pid_pgid_and_sid_are_equal_and_true() {
    let server = Server::start().await;
    let job = server.submit(&json!({"command": ["sleep", "5000"]})).await;
    assert_eq!(job["state"], "running", "{job:#}");
    let told = &job["process"];
    let pid = told["pid"].as_i64().unwrap();
    assert_eq!((&told["pgid"], &told["sid"]), (&json!(pid), &json!(pid)));
    let process = Process::read(i32::try_from(pid).unwrap()).unwrap();
    assert_eq!(process.argv, ["sleep", "5000"]);
    assert_eq!((process.pgid, process.sid), (process.pid, process.pid));
    server.stop(&id(&job), "").await;
}
