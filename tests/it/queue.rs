//! Who runs when: slots, priorities, deadlines, and requests that are sent twice.

use std::collections::HashSet;
use std::path::Path;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::{Reply, Server, id, unique, unique_seconds};

/// A job that ends when somebody writes to the FIFO `gate`.
fn gated(cwd: &Path) -> Value {
    json!({"script": "mkfifo gate; echo ready; read _ < gate", "cwd": cwd})
}

#[tokio::test]
async fn the_queue_is_ordered_by_priority_and_then_by_age() {
    let server = Server::builder().args(["--max-running", "1"]).start().await;
    let cwd = server.scratch();
    let blocker = server.submit(&gated(&cwd)).await;
    server.says(&id(&blocker), "ready").await;
    let mut queued = Vec::new();
    for (name, priority) in [("a", 0), ("b", 5), ("c", 0), ("d", 5), ("e", -1), ("f", 6)] {
        let body = json!({
            "script": format!("echo {name} >> order"), "cwd": cwd, "priority": priority,
        });
        let job = server.submit(&body).await;
        assert_eq!(job["state"], "queued", "{job:#}");
        queued.push(job);
    }
    let info = server.get("/info").await.json();
    let jobs = &info["jobs"];
    assert_eq!(
        (&jobs["running"], &jobs["queued"]),
        (&json!(1), &json!(6)),
        "{info:#}"
    );
    std::fs::write(cwd.join("gate"), "\n").unwrap();
    for job in queued {
        server.finished(&id(&job)).await;
    }
    let order = std::fs::read_to_string(cwd.join("order")).unwrap();
    assert_eq!(order.split_whitespace().collect::<String>(), "fbdace");
}

#[tokio::test]
async fn a_full_queue_answers_429_with_retry_after_and_takes_jobs_again_later() {
    let server = Server::builder()
        .args(["--max-running", "1", "--max-queued", "2"])
        .start()
        .await;
    let sleep = json!({"command": ["sleep", unique_seconds()]});
    let first = server.submit(&sleep).await;
    let second = server.submit(&sleep).await;
    let third = server.submit(&sleep).await;
    let refused = server.post("/jobs", &sleep).await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (429, "queue_full")
    );
    assert!(refused.header("retry-after").parse::<u32>().unwrap() >= 1);
    let list = server.get("/jobs").await.json();
    assert_eq!(
        list["jobs"].as_array().unwrap().len(),
        3,
        "a refused job leaves nothing"
    );
    server.delete(&id(&third), "").await;
    let fourth = server.submit(&sleep).await;
    assert_eq!(fourth["state"], "queued");
    for job in [fourth, second, first] {
        server.stop(&id(&job), "force").await;
    }
}

#[tokio::test]
async fn no_more_than_max_running_run_at_once_and_all_get_their_turn() {
    let server = Server::builder().args(["--max-running", "4"]).start().await;
    let cwd = server.scratch();
    // Each job notes how many are there at once; a directory is made in one step.
    let script = "mkdir running.$$; set -- running.*; echo $# >> counts; rmdir running.$$";
    let body = json!({"script": script, "cwd": cwd});
    let jobs = join_all((0..40).map(|_| server.run(&body))).await;
    assert!(
        jobs.iter().all(|job| job["state"] == "succeeded"),
        "{jobs:#?}"
    );
    let counts = std::fs::read_to_string(cwd.join("counts")).unwrap();
    let counts: Vec<u32> = counts.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(counts.len(), 40);
    assert!(counts.iter().all(|count| *count <= 4), "{counts:?}");
}

#[tokio::test]
async fn a_start_deadline_fails_what_is_still_queued() {
    let server = Server::builder().args(["--max-running", "1"]).start().await;
    let first = server
        .submit(&json!({"command": ["sleep", unique_seconds()]}))
        .await;
    let body = json!({"command": ["true"], "start_deadline_seconds": 0.2});
    let late = server.run(&body).await;
    assert_eq!(late["state"], "failed", "{late:#}");
    assert_eq!(late["termination"]["cause"], "start_deadline", "{late:#}");
    assert_eq!(
        (&late["process"], &late["exit"]),
        (&Value::Null, &Value::Null)
    );
    server.stop(&id(&first), "force").await;
    let in_time = server.run(&body).await;
    assert_eq!(in_time["state"], "succeeded", "{in_time:#}");
}

#[tokio::test]
async fn one_key_is_one_job_however_many_ask_at_once() {
    let server = Server::start().await;
    let cwd = server.scratch();
    let body = json!({"script": "echo once >> ran", "cwd": cwd});
    let key = unique();
    let requests = (0..64).map(|_| {
        let request = server
            .request(reqwest::Method::POST, "/jobs?wait=30")
            .header("idempotency-key", &key)
            .json(&body);
        server.send(request)
    });
    let replies = join_all(requests).await;
    let ids: HashSet<String> = replies.iter().map(|reply| id(&reply.json())).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert!(replies.iter().all(|reply| reply.status == 201));
    let fresh = |reply: &&crate::harness::Reply| reply.header("idempotent-replayed").is_empty();
    assert_eq!(replies.iter().filter(fresh).count(), 1);
    let ran = std::fs::read_to_string(cwd.join("ran")).unwrap();
    assert_eq!(ran, "once\n");
    let list = server.get("/jobs").await.json();
    assert_eq!(list["jobs"].as_array().unwrap().len(), 1);

    let other = server
        .request(reqwest::Method::POST, "/jobs")
        .header("idempotency-key", &key)
        .json(&json!({"command": ["true"]}));
    let other = server.send(other).await;
    assert_eq!(
        (other.status, other.code().as_str()),
        (422, "idempotency_key_reused")
    );
}

#[tokio::test]
async fn what_a_key_has_made_is_listed_by_it() {
    let server = Server::start().await;
    let (one, many) = (unique(), unique());
    let list = async |key: &str, more: &str| {
        let path = format!("/jobs?idempotency_key={key}{more}");
        let list = server.get(&path).await.json();
        let jobs = list["jobs"].as_array().unwrap().clone();
        jobs.iter().map(id).collect::<Vec<String>>()
    };
    assert_eq!(list(&one, "").await, [""; 0]);
    let body = json!({"command": ["true"], "hold": true});
    let made = keyed(&server, "/jobs", &one, Some(&body)).await.json();
    assert_eq!(list(&one, "").await, [id(&made)]);
    assert_eq!(list(&one, "&view=basic&state=queued").await, [id(&made)]);
    assert_eq!(list(&one, "&state=running").await, [""; 0]);
    let body =
        json!({"jobs": [{"key": "a", "command": ["true"]}, {"key": "b", "command": ["true"]}]});
    let batch = keyed(&server, "/batches?wait=30", &many, Some(&body)).await;
    assert_eq!(batch.status, 201, "{batch}");
    let jobs = list(&many, "&order_by=created_at").await;
    assert_eq!(jobs.len(), 2);
    let path = format!("/jobs?idempotency_key={many}&order_by=created_at&page_size=1");
    let first = server.get(&path).await.json();
    let token = first["next_page_token"].as_str().unwrap();
    assert_eq!(
        list(&many, &format!("&order_by=created_at&page_token={token}")).await,
        jobs[1..]
    );
    server.stop(&id(&made), "force").await;
}

#[tokio::test]
async fn without_room_for_output_new_jobs_are_refused() {
    let most = i64::MAX.to_string();
    let server = Server::builder()
        .args(["--min-free-bytes", &most])
        .start()
        .await;
    let refused = server.post("/jobs", &json!({"command": ["true"]})).await;
    assert_eq!((refused.status, refused.code().as_str()), (507, "no_room"));
    let ready = server.get("/readyz").await;
    assert_eq!(
        (ready.status, ready.code().as_str()),
        (503, "not_ready"),
        "{ready}"
    );
    assert_eq!(
        server.get("/healthz").await.status,
        200,
        "it lives all the same"
    );
}

#[tokio::test]
async fn a_wait_may_be_a_preference() {
    let server = Server::start().await;
    let request = server
        .request(reqwest::Method::POST, "/jobs")
        .header("prefer", "wait=30")
        .json(&json!({"command": ["true"]}));
    let reply = server.send(request).await;
    assert_eq!(reply.json()["state"], "succeeded", "{reply}");
    assert_eq!(reply.header("preference-applied"), "wait=30");
    assert_eq!(
        reply.header("location"),
        format!("/jobs/{}", id(&reply.json()))
    );
}

/// A submission with a key.
async fn keyed(server: &Server, path: &str, key: &str, body: Option<&Value>) -> Reply {
    let mut request = server
        .request(reqwest::Method::POST, path)
        .header("idempotency-key", key);
    if let Some(body) = body {
        request = request.json(body);
    }
    server.send(request).await
}

#[tokio::test]
async fn a_repeat_finds_its_job_whatever_new_jobs_are_told() {
    let args = ["--max-running", "1", "--max-queued", "1"];
    let mut server = Server::builder()
        .args(args)
        .env("PROCESSION_ON_SHUTDOWN", "leave")
        .start()
        .await;
    let sleep = json!({"command": ["sleep", unique_seconds()]});
    let other = json!({"command": ["sleep", unique_seconds()]});
    let key = unique();
    let job = id(&keyed(&server, "/jobs", &key, Some(&sleep)).await.json());
    let full = async |server: &Server, what: &str| {
        let again = keyed(server, "/jobs", &key, Some(&sleep)).await;
        assert_eq!(again.status, 201, "{what}: {again}");
        assert_eq!(again.header("idempotent-replayed"), "true", "{what}");
        assert_eq!(id(&again.json()), job, "{what}");
        let reused = keyed(server, "/jobs", &key, Some(&other)).await;
        let code = (reused.status, reused.code());
        assert_eq!(code, (422, "idempotency_key_reused".to_owned()), "{what}");
    };
    full(&server, "with room").await;
    let queued = id(&server.submit(&other).await);
    let refused = server.post("/jobs", &other).await;
    assert_eq!(refused.code(), "queue_full", "{refused}");
    full(&server, "with a full queue").await;
    server
        .send(server.request(reqwest::Method::POST, "/drain"))
        .await;
    assert_eq!(server.post("/jobs", &other).await.code(), "draining");
    full(&server, "while draining").await;
    server
        .send(server.request(reqwest::Method::DELETE, "/drain"))
        .await;
    server.stop(&queued, "force").await;
    server.end(nix::sys::signal::Signal::SIGTERM);
    let most = i64::MAX.to_string();
    let without_room = Server::builder().args(["--min-free-bytes", &most]);
    server.start_again(without_room).await;
    assert_eq!(server.post("/jobs", &other).await.code(), "no_room");
    full(&server, "without room").await;
    server.stop(&job, "force").await;
}

#[tokio::test]
async fn a_key_is_of_one_request_and_not_of_what_it_would_run() {
    let server = Server::start().await;
    let (made, again) = (unique(), unique());
    let body = json!({"command": ["true"]});
    let job = id(&keyed(&server, "/jobs?wait=30", &made, Some(&body))
        .await
        .json());
    let rerun = format!("/jobs/{job}/rerun?wait=30");
    let reused = keyed(&server, &rerun, &made, None).await;
    assert_eq!(
        (reused.status, reused.code().as_str()),
        (422, "idempotency_key_reused"),
        "{reused}"
    );
    let first = keyed(&server, &rerun, &again, None).await;
    assert_eq!(
        (first.status, first.header("idempotent-replayed")),
        (201, "")
    );
    assert_ne!(id(&first.json()), job);
    // The answer to a repeat does not hang on the job that was to be repeated.
    let purged = server.delete(&job, "purge").await;
    assert_eq!(purged.status, 204);
    let second = keyed(&server, &rerun, &again, None).await;
    assert_eq!(second.status, 201, "{second}");
    assert_eq!(second.header("idempotent-replayed"), "true");
    assert_eq!(id(&second.json()), id(&first.json()));
    let gone = keyed(&server, &rerun, &unique(), None).await;
    assert_eq!(gone.code(), "job_not_found");
}
