//! System calls that fail: what the service does about it, and that it goes on when they work again.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{
    Builder, Process, Server, eventually, id, kill_now, processes_with, unique_seconds,
};

const EIO: i32 = 5;

/// Places that can be armed.
pub(super) struct Places(TempDir);

impl Places {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(super) fn builder(&self) -> Builder {
        Server::builder().env("PROCESSION_FAILPOINTS", self.0.path().to_str().unwrap())
    }

    /// Has everybody who comes by get this error, until it is mended.
    fn fail(&self, place: &str, errno: i32) {
        self.arm(place, &errno.to_string());
    }

    pub(super) fn arm(&self, place: &str, what: &str) {
        // Written beside and moved, so that nobody reads it half written.
        let beside = self.0.path().join("new");
        std::fs::write(&beside, what).unwrap();
        std::fs::rename(beside, self.0.path().join(place)).unwrap();
    }

    pub(super) fn is_armed(&self, place: &str) -> bool {
        self.0.path().join(place).exists()
    }

    fn mend(&self, place: &str) {
        std::fs::remove_file(self.0.path().join(place)).unwrap();
    }
}

#[tokio::test]
async fn a_monitor_that_cannot_prepare_leaves_no_leader_and_says_why() {
    let places = Places::new();
    let server = places.builder().start().await;
    let seconds = unique_seconds();
    let body = json!({"command": ["sleep", seconds], "stdin": {"mode": "data", "text": "x"}});
    places.fail("pipes.preparing", EIO);
    let job = server.run(&body).await;
    assert_eq!(job["state"], "failed", "{job:#}");
    assert_eq!(job["state_reason"], "spawn_failed", "{job:#}");
    assert_eq!(job["spawn_failure"]["stage"], "fork", "{job:#}");
    assert_eq!(job["spawn_failure"]["errno"], EIO, "{job:#}");
    assert_eq!(processes_with(&seconds), [], "{job:#}");
    assert!(server.monitors().is_empty());
    assert!(!server.state_dir().join("jobs").join(id(&job)).exists());
    places.mend("pipes.preparing");
    let job = server.submit(&body).await;
    assert_eq!(job["state"], "running", "{job:#}");
    server.stop(&id(&job), "force").await;
}

#[tokio::test]
async fn a_disk_that_fails_stops_no_job_and_hides_no_end() {
    let places = Places::new();
    let server = places.builder().start().await;
    let client = server.persistent();
    let cwd = server.scratch();
    let gated = |gate: &str, code: u8| {
        json!({
            "script": format!("mkfifo {gate}; echo ready; read _ < {gate}; seq -f 'line %06.f' 1 2000; exit {code}"),
            "cwd": cwd,
        })
    };
    let running = server.submit(&gated("first", 9)).await;
    let ending = server.submit(&gated("second", 8)).await;
    for job in [&running, &ending] {
        server.says(&id(job), "ready").await;
    }
    for place in ["record.writing", "output.writing", "store.writing"] {
        places.fail(place, EIO);
    }
    // Nothing new is accepted, and nobody is told that it was this service's mistake.
    let body = json!({"command": ["true"]});
    let refused = server.post("/jobs", &body).await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (503, "store_unavailable"),
        "{refused}"
    );
    assert!(!refused.header("retry-after").is_empty());
    // What is there can be read, and is not said to have ended before that is kept.
    std::fs::write(cwd.join("second"), "\n").unwrap();
    let leader = i32::try_from(ending["process"]["pid"].as_i64().unwrap()).unwrap();
    eventually("the leader has ended", async || {
        Process::read(leader)
            .is_none_or(|process| process.is_zombie())
            .then_some(())
    })
    .await;
    for job in [&running, &ending] {
        let view = server.job(&id(job)).await;
        assert!(
            ["running", "stopping"].contains(&view["state"].as_str().unwrap()),
            "{view:#}"
        );
    }
    // A server that starts on such a disk goes on with what it finds.
    kill_now(server.server_process().unwrap());
    let view = client.get(&format!("/jobs/{}", id(&running))).await.json();
    assert_eq!(view["exit"], Value::Null, "{view:#}");

    for place in ["record.writing", "output.writing", "store.writing"] {
        places.mend(place);
    }
    std::fs::write(cwd.join("first"), "\n").unwrap();
    let lines: String = (1..=2000)
        .map(|number| format!("line {number:06}\n"))
        .collect();
    for (job, code) in [(&running, 9), (&ending, 8)] {
        let job = client.finished(&id(job)).await;
        assert_eq!(job["exit"]["code"], code, "{job:#}");
        let text = server.text(&id(&job)).await;
        assert!(text == format!("ready\n{lines}"), "{} bytes", text.len());
    }
    let again = server.run(&json!({"script": "exit 6"})).await;
    assert_eq!(again["exit"]["code"], 6, "{again:#}");
}
