//! A server that is killed while it puts files in place or looks for artifacts: either there is no job, or one with all of
//! its files, and no directory belongs to nobody.

use std::fs;

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::workspace;
use crate::harness::{Persistent, Server, eventually, id};

/// A service of which a test can have the server killed.
pub(crate) struct Armed {
    pub(crate) server: Server,
    pub(crate) client: Persistent,
    points: TempDir,
}

impl Armed {
    pub(crate) async fn start() -> Self {
        let points = tempfile::tempdir().unwrap();
        let value = points.path().display().to_string();
        let server = Server::builder().env("PROCESSION_FAILPOINTS", &value);
        let server = server.start().await;
        Self {
            client: server.persistent(),
            server,
            points,
        }
    }

    /// The next that comes by there is killed.
    pub(crate) fn arm(&self, point: &str) {
        fs::write(self.points.path().join(point), "").unwrap();
    }

    /// The next that comes by there waits until it is armed again.
    pub(crate) fn hold(&self, point: &str) {
        fs::write(self.points.path().join(point), "wait").unwrap();
    }

    pub(crate) async fn is_struck(&self, point: &str) {
        let file = self.points.path().join(point);
        let what = format!("{point} is come by");
        eventually(&what, async || (!file.exists()).then_some(())).await;
    }

    /// The directories are those of the jobs that there are, and nothing is in the making or in the trash.
    async fn is_tidy(&self, jobs: &[String]) {
        let root = self.server.state_dir().join("workspaces");
        let names = |within: &str| {
            let found = fs::read_dir(root.join(within)).unwrap();
            let names = found.map(|it| it.unwrap().file_name().into_string().unwrap());
            names.collect::<Vec<String>>()
        };
        eventually("no directory is without a job", async || {
            let left = names(".incoming").len() + names(".trash").len() + names(".ending").len();
            let mut own = names("");
            own.retain(|name| !name.starts_with('.'));
            (left == 0 && own == jobs).then_some(())
        })
        .await;
    }

    async fn text(&self, job: &str, path: &str) -> String {
        let reply = self.client.get(&format!("/jobs/{job}/files/{path}")).await;
        assert_eq!(reply.status, 200, "{reply}");
        String::from_utf8(reply.body).unwrap()
    }
}

#[tokio::test]
async fn a_job_is_accepted_with_all_of_its_inputs_or_not_at_all() {
    for point in [
        "job.accepting",
        "workspace.filling",
        "workspace.filled",
        "workspace.provided",
        "job.accepted",
    ] {
        let armed = Armed::start().await;
        armed.arm(point);
        let body = json!({
            "script": "cat a/1 b",
            "inputs": [{"path": "a/1", "text": "one\n"}, {"path": "b", "text": "two\n"}],
            "workspace": {"keep": "all"},
        });
        let asked = armed
            .client
            .ask(Method::POST, "/jobs", Some(&body), Some(point));
        let reply = asked.await;
        assert_eq!(reply.status, 201, "{reply}");
        armed.is_struck(point).await;
        let job = armed.client.finished(&id(&reply.json())).await;
        assert_eq!(job["state"], "succeeded", "{point}: {job:#}");
        let id = id(&job);
        assert_eq!(
            armed.text(&id, "a/1").await + &armed.text(&id, "b").await,
            "one\ntwo\n"
        );
        armed.is_tidy(&[id]).await;
    }
}

#[tokio::test]
async fn artifacts_are_complete_whenever_the_server_is_killed_at_the_end() {
    for point in [
        "artifacts.collecting",
        "artifacts.collected",
        "end.storing",
        "end.stored",
        "record.removing",
    ] {
        let armed = Armed::start().await;
        armed.arm(point);
        let body = json!({
            "script": "mkdir out; echo 1 > out/a; echo 2 > out/b; echo 3 > rest",
            "artifacts": {"paths": ["out"]},
        });
        let asked = armed
            .client
            .ask(Method::POST, "/jobs", Some(&body), Some(point));
        let job = id(&asked.await.json());
        let ended = armed.client.finished(&job).await;
        armed.is_struck(point).await;
        let artifacts = &ended["artifacts"];
        assert_eq!(
            (&artifacts["files"], &artifacts["error"]),
            (&json!(2), &Value::Null),
            "{point}"
        );
        for (path, expected) in [("out/a", "1\n"), ("out/b", "2\n")] {
            assert_eq!(armed.text(&job, path).await, expected, "{point}");
        }
        armed.is_tidy(std::slice::from_ref(&job)).await;
        assert!(
            !workspace(&armed.server, &job).join("rest").exists(),
            "{point}"
        );
    }
}
