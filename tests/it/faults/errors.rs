//! System calls that fail: what the service does about it, and that it goes on when they work again.

use serde_json::json;
use tempfile::TempDir;

use crate::harness::{Builder, Server, id, processes_with, unique_seconds};

const EIO: i32 = 5;

/// Places that can be made to fail.
struct Places(TempDir);

impl Places {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn builder(&self) -> Builder {
        Server::builder().env("PROCESSION_FAILPOINTS", self.0.path().to_str().unwrap())
    }

    /// Has everybody who comes by get this error, until it is mended.
    fn fail(&self, place: &str, errno: i32) {
        // Written beside and moved, so that nobody reads it half written.
        let beside = self.0.path().join("new");
        std::fs::write(&beside, errno.to_string()).unwrap();
        std::fs::rename(beside, self.0.path().join(place)).unwrap();
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
