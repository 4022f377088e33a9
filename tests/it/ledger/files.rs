//! Jobs with files: what was uploaded is on the disk of the API node that led then, and on no other.

use reqwest::Method;
use serde_json::json;

use super::{Apis, PATIENT};
use crate::cluster::kill_service;
use crate::harness::{Reply, eventually, id};

impl Apis {
    /// Puts a file into the workspace of a job, by this API node.
    async fn put(&self, api: usize, id: &str, bytes: &'static str) -> Reply {
        let server = &self.apis[api];
        let request = server.request(Method::PUT, &format!("/jobs/{id}/files/up"));
        server.send(request.body(bytes)).await
    }
}

#[tokio::test]
async fn a_job_whose_uploads_are_on_a_dead_leader_fails_with_that_reason_and_never_starts_without_them()
 {
    let mut all = Apis::start(2, 1, &PATIENT).await;
    let (leader, _) = all.leader().await;
    let follower = all.follower(leader);
    let body = |script: &str| {
        json!({
            "script": script,
            "hold": true,
            "inputs": [{"path": "in", "text": "in\n"}],
            "artifacts": {"paths": ["out"]},
        })
    };
    let mut jobs = Vec::new();
    let scripts = [
        "cat up in",
        "cat in up",
        "cat in >out; cat in",
        "cat up; cat in",
    ];
    for script in scripts {
        let body = body(script);
        let reply = all.ask(Method::POST, "/jobs", Some(&body), None).await;
        assert_eq!(reply.status, 201, "{reply}");
        jobs.push(id(&reply.json()));
    }
    // A follower passes it on, and what comes back.
    for (api, job) in [(leader, &jobs[0]), (follower, &jobs[1]), (leader, &jobs[3])] {
        let reply = all.put(api, job, "up\n").await;
        assert_eq!(reply.status, 201, "{reply}");
    }
    let release = async |all: &Apis, job: &str| {
        let path = format!("/jobs/{job}/release");
        let reply = all
            .ask(Method::POST, &path, Some(&json!({})), Some(job))
            .await;
        assert_eq!(reply.status, 200, "{reply}");
    };
    release(&all, &jobs[0]).await;
    let ended = all.finished(&jobs[0]).await;
    assert_eq!(ended["exit"]["code"], 0, "{ended:#}");

    kill_service(&mut all.apis[leader]);
    eventually("the other one leads", async || {
        let ledger = all.ledger(follower).await?;
        (ledger["role"] == "leads").then_some(())
    })
    .await;
    all.connected("n1").await;
    let path = format!("/jobs/{}/files", jobs[1]);
    let refused = all.apis[follower].get(&path).await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (503, "files_unavailable"),
        "never empty by mistake: {refused}"
    );
    for job in &jobs[1..3] {
        release(&all, job).await;
    }
    let ended = all.finished(&jobs[1]).await;
    let message = ended["state_message"].as_str().unwrap();
    assert_eq!(ended["state_reason"], "spawn_failed", "{ended:#}");
    assert!(
        message.contains(&format!(
            "files that were uploaded for it are on the disk of api{leader}"
        )),
        "{message}"
    );
    assert!(ended["started_at"].is_null(), "{ended:#}");
    // What stands in the description is in the ledger.
    let ended = all.finished(&jobs[2]).await;
    assert_eq!(
        (&ended["exit"]["code"], &ended["artifacts"]["files"]),
        (&json!(0), &json!(1)),
        "{ended:#}"
    );
    // Files of jobs that have run are on their nodes.
    let path = format!("/jobs/{}/files/out", jobs[2]);
    let file = all.ask(Method::GET, &path, None, None).await;
    assert_eq!(file.body, b"in\n");
    let path = format!("/jobs/{}/files", jobs[0]);
    assert_eq!(all.ask(Method::GET, &path, None, None).await.status, 200);

    // Once that one leads again, it has them.
    let again = all.builder(leader);
    all.apis[leader].start_again(again).await;
    eventually("it has followed up", async || {
        let ledger = all.ledger(follower).await?;
        let followers = ledger["followers"].as_array()?;
        let is_even = |it: &serde_json::Value| it["heard"] == true && it["behind"] == 0;
        followers.iter().any(is_even).then_some(())
    })
    .await;
    kill_service(&mut all.apis[follower]);
    eventually("the first one leads again", async || {
        let ledger = all.ledger(leader).await?;
        (ledger["role"] == "leads").then_some(())
    })
    .await;
    all.connected("n1").await;
    release(&all, &jobs[3]).await;
    let ended = all.finished(&jobs[3]).await;
    assert_eq!(ended["exit"]["code"], 0, "{ended:#}");
    let again = all.builder(follower);
    all.apis[follower].start_again(again).await;
}
