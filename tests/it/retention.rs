//! Finished jobs go, with all that they left.

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
