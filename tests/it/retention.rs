//! Finished jobs go, with all that they left.

use std::fs;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;

use crate::harness::{Server, eventually, id};

#[tokio::test]
async fn the_oldest_finished_jobs_make_room_for_new_ones() {
    let server = Server::builder()
        .args(["--max-finished", "3"])
        .start()
        .await;
    let mut jobs = Vec::new();
    for number in 0..6 {
        let job = server
            .run(&json!({"command": ["echo", number.to_string()]}))
            .await;
        jobs.push(id(&job));
    }
    eventually("three jobs are left", async || {
        let list = server.get("/jobs").await.json();
        (list["jobs"].as_array().unwrap().len() == 3).then_some(())
    })
    .await;
    for gone in &jobs[..3] {
        assert_eq!(server.get(&format!("/jobs/{gone}")).await.status, 404);
        assert!(!server.state_dir().join("jobs").join(gone).exists());
    }
    for (number, kept) in jobs.iter().enumerate().skip(3) {
        assert_eq!(server.text(kept).await, format!("{number}\n"));
    }
}

/// More have expired than go at a time; one that comes later is kept while the first ones go.
#[tokio::test]
async fn a_job_that_is_to_be_kept_longer_stays_while_others_go() {
    let points = tempfile::tempdir().unwrap();
    let place = points.path().join("purge.removing");
    let server = Server::builder()
        .env("PROCESSION_FAILPOINTS", points.path().to_str().unwrap())
        .start()
        .await;
    let body = json!({"command": ["true"], "ttl_seconds_after_finished": 3600});
    let jobs = join_all((0..80).map(|_| server.run(&body))).await;
    let mut ids: Vec<(String, String)> = jobs
        .iter()
        .map(|job| (job["expires_at"].as_str().unwrap().to_owned(), id(job)))
        .collect();
    ids.sort_unstable();
    let (_, last) = ids.pop().unwrap();

    fs::write(&place, "wait").unwrap();
    let two_hours = 2_u64 * 3600 * 1_000_000;
    // Moved, so that nobody reads it half written.
    fs::write(points.path().join("new"), two_hours.to_string()).unwrap();
    fs::rename(points.path().join("new"), points.path().join("clock")).unwrap();
    eventually("the first ones are about to go", async || {
        (!place.exists()).then_some(())
    })
    .await;
    let change = server
        .request(Method::PATCH, &format!("/jobs/{last}"))
        .header("content-type", "application/merge-patch+json")
        .body(json!({"ttl_seconds_after_finished": 36_000}).to_string());
    let kept = server.send(change).await;
    assert_eq!(kept.status, 200, "{kept}");
    // The first ones go.
    fs::write(&place, "").unwrap();
    for (_, gone) in &ids {
        eventually("all others are gone", async || {
            let reply = server.get(&format!("/jobs/{gone}")).await;
            (reply.status == 404).then_some(())
        })
        .await;
    }
    let there = server.get(&format!("/jobs/{last}")).await;
    assert_eq!(there.status, 200, "{there}");
    assert_eq!(there.json()["expires_at"], kept.json()["expires_at"]);
}
