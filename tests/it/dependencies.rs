//! Jobs that wait for the ends of others: when they start, when they never do, and what is kept for them.

use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::cli;
use crate::harness::{Server, eventually, id, kill_now};
use crate::queues::{gated, micros, open};

fn after(target: &Value, on: &str) -> Value {
    json!({"command": ["true"], "depends_on": [{"job": id(target), "on": on}]})
}

#[tokio::test]
async fn a_job_starts_once_what_it_depends_on_has_succeeded() {
    let server = Server::start().await;
    let cwd = server.scratch();
    let first = server.submit(&gated(&cwd, "first", &json!({}))).await;
    let other = server.submit(&gated(&cwd, "other", &json!({}))).await;
    server.says(&id(&first), "ready").await;
    server.says(&id(&other), "ready").await;
    let body =
        json!({"command": ["true"], "depends_on": [{"job": id(&first)}, {"job": id(&other)}]});
    let last = server.submit(&body).await;
    assert_eq!(
        last["depends_on"][0],
        json!({"job": id(&first), "on": "succeeded"})
    );
    let waiting = server.waits_for(&last, "waiting_for_dependencies").await;
    let message = waiting["state_message"].as_str().unwrap();
    assert!(message.starts_with('2'), "{message}");
    open(&cwd, "first");
    server.finished(&id(&first)).await;
    eventually("one is left", async || {
        let job = server.job(&id(&last)).await;
        let message = job["state_message"].as_str()?;
        (message == "one of those that it depends on has not ended").then_some(())
    })
    .await;
    open(&cwd, "other");
    let other = server.finished(&id(&other)).await;
    let last = server.finished(&id(&last)).await;
    assert_eq!(last["state"], "succeeded", "{last:#}");
    assert!(micros(&last, "started_at") >= micros(&other, "finished_at"));
}

#[tokio::test]
async fn each_end_lets_those_start_that_need_it_and_ends_the_others() {
    let server = Server::start().await;
    let cwd = server.scratch();
    for (end, state, counts_as) in [
        ("good", "succeeded", "succeeded"),
        ("bad", "failed", "failed"),
        ("late", "timed_out", "failed"),
        ("stopped", "canceled", "canceled"),
    ] {
        let script = format!("mkfifo {end}; echo ready; read word < {end}; [ \"$word\" != bad ]");
        let target = server
            .submit(&json!({"script": script, "cwd": cwd, "name": end}))
            .await;
        server.says(&id(&target), "ready").await;
        let mut jobs = Vec::new();
        for on in ["succeeded", "failed", "finished"] {
            jobs.push((on, server.submit(&after(&target, on)).await));
        }
        match end {
            "stopped" => drop(server.stop(&id(&target), "force").await),
            "late" => {
                let patch = server.request(Method::PATCH, &format!("/jobs/{}", id(&target)));
                let patch = patch.header("content-type", "application/merge-patch+json");
                let patched = server.send(patch.body(r#"{"timeout_seconds": 0.1}"#)).await;
                assert_eq!(patched.status, 200, "{patched}");
            }
            _ => std::fs::write(cwd.join(end), format!("{end}\n")).unwrap(),
        }
        assert_eq!(server.finished(&id(&target)).await["state"], state);
        for (on, job) in jobs {
            let job = server.finished(&id(&job)).await;
            if on == "finished" || on == counts_as {
                assert_eq!(job["state"], "succeeded", "{on} {job:#}");
                continue;
            }
            assert_eq!(
                (&job["state"], &job["state_reason"]),
                (&json!("canceled"), &json!("dependency_failed")),
                "{on} {job:#}"
            );
            let reason = job["termination"]["reason"].as_str().unwrap();
            let start = format!("job {} ({end}) ", id(&target));
            assert!(reason.starts_with(&start), "{reason}");
            assert!(job["started_at"].is_null(), "{job:#}");
        }
    }
}

#[tokio::test]
async fn what_has_ended_already_counts_and_what_is_not_there_is_refused() {
    let server = Server::start().await;
    let good = server.run_script("true").await;
    let bad = server.run_script("false").await;
    let job = server.submit(&after(&good, "succeeded")).await;
    assert_eq!(server.finished(&id(&job)).await["state"], "succeeded");
    let job = server.submit(&after(&bad, "succeeded")).await;
    let job = server.finished(&id(&job)).await;
    assert_eq!(job["state_reason"], "dependency_failed", "{job:#}");
    assert_eq!(server.delete(&id(&good), "purge").await.status, 204);
    let refused = server.post("/jobs", &after(&good, "finished")).await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (422, "invalid_spec")
    );
    let error = &refused.json()["errors"][0];
    assert_eq!(
        (&error["pointer"], &error["code"]),
        (&json!("/depends_on/0"), &json!("no_such_job"))
    );
    for (depends_on, pointer) in [
        (json!([{}]), "/depends_on/0/job"),
        (json!([{"job": "x"}]), "/depends_on/0/job"),
        (
            json!([{"job": id(&bad), "batch": id(&bad)}]),
            "/depends_on/0/batch",
        ),
        (
            json!([{"job": id(&bad), "on": "ended"}]),
            "/depends_on/0/on",
        ),
        (json!([{"key": "a", "job": id(&bad)}]), "/depends_on/0/key"),
        (json!([{"job": id(&bad)}, {"job": id(&bad)}]), "/depends_on"),
    ] {
        let body = json!({"command": ["true"], "depends_on": depends_on});
        let refused = server.post("/jobs", &body).await;
        assert_eq!(refused.json()["errors"][0]["pointer"], pointer, "{refused}");
    }
    let jobs = server.get("/jobs?state=queued").await.json();
    assert_eq!(jobs["jobs"], json!([]));
}

#[tokio::test]
async fn a_chain_outlives_the_server_and_fails_to_its_end() {
    let mut server = Server::start().await;
    let cwd = server.scratch();
    let script = "mkfifo gate; echo ready; read _ < gate; exit 3";
    let first = server.submit(&json!({"script": script, "cwd": cwd})).await;
    server.says(&id(&first), "ready").await;
    let mut chain = vec![first];
    for _ in 0..4 {
        let next = server
            .submit(&after(chain.last().unwrap(), "succeeded"))
            .await;
        chain.push(next);
    }
    let last = server
        .submit(&after(chain.last().unwrap(), "finished"))
        .await;
    kill_now(server.server_process().unwrap());
    server.persistent().get("/readyz").await;
    server
        .waits_for(&chain[1], "waiting_for_dependencies")
        .await;
    open(&cwd, "gate");
    for job in &chain[1..] {
        let job = server.finished(&id(job)).await;
        assert_eq!(job["state_reason"], "dependency_failed", "{job:#}");
    }
    assert_eq!(server.finished(&id(&last)).await["state"], "succeeded");
    // What ended while no server was there is seen by the next one.
    let late = server.submit(&gated(&cwd, "late", &json!({}))).await;
    server.says(&id(&late), "ready").await;
    let waiting = server.submit(&after(&late, "failed")).await;
    server.end(Signal::SIGTERM);
    server.start_again(Server::builder()).await;
    let waiting = server.finished(&id(&waiting)).await;
    // A stop of the service cancels what runs.
    assert_eq!(waiting["state_reason"], "dependency_failed", "{waiting:#}");
}

#[tokio::test]
async fn what_unfinished_jobs_depend_on_is_kept() {
    let builder = Server::builder().args(["--max-finished=2"]);
    let server = builder.start().await;
    let cwd = server.scratch();
    let gate = server.submit(&gated(&cwd, "gate", &json!({}))).await;
    server.says(&id(&gate), "ready").await;
    let target = server.run_script("true").await;
    let body =
        json!({"command": ["true"], "depends_on": [{"job": id(&target)}, {"job": id(&gate)}]});
    let waiting = server.submit(&body).await;
    let mut others = Vec::new();
    for _ in 0..4 {
        others.push(server.run_script("true").await);
    }
    eventually("the oldest of the others is removed", async || {
        let reply = server.get(&format!("/jobs/{}", id(&others[0]))).await;
        (reply.status == 404).then_some(())
    })
    .await;
    assert_eq!(server.job(&id(&target)).await["state"], "succeeded");
    let refused = server.delete(&id(&target), "purge").await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (409, "depended_on")
    );
    open(&cwd, "gate");
    assert_eq!(server.finished(&id(&waiting)).await["state"], "succeeded");
    eventually("the target is removed", async || {
        let reply = server.get(&format!("/jobs/{}", id(&target))).await;
        (reply.status == 404).then_some(())
    })
    .await;
    // Its record was removed by retention, and is as one that never was.
    let refused = server.post("/jobs", &after(&target, "finished")).await;
    let error = refused.json()["errors"][0].clone();
    assert_eq!(
        (refused.status, &error["code"]),
        (422, &json!("no_such_job")),
        "{refused}"
    );
}

#[tokio::test]
async fn a_waiting_job_can_be_changed_and_stopped() {
    let server = Server::start().await;
    let cwd = server.scratch();
    let gate = server.submit(&gated(&cwd, "gate", &json!({}))).await;
    server.says(&id(&gate), "ready").await;
    let waiting = server.submit(&after(&gate, "succeeded")).await;
    let request = server
        .request(Method::PATCH, &format!("/jobs/{}", id(&waiting)))
        .header("content-type", "application/merge-patch+json")
        .body(json!({"queue": "other", "priority": 7}).to_string());
    assert_eq!(server.send(request).await.status, 200);
    server.waits_for(&waiting, "waiting_for_dependencies").await;
    let next = server.submit(&after(&waiting, "succeeded")).await;
    let stopped = server.stop(&id(&waiting), "").await;
    assert_eq!(stopped["state_reason"], "canceled", "{stopped:#}");
    let next = server.finished(&id(&next)).await;
    assert_eq!(next["state_reason"], "dependency_failed", "{next:#}");
    server.stop(&id(&gate), "force").await;
}

#[tokio::test]
async fn run_waits_for_other_jobs() {
    let server = Server::start().await;
    let first = cli(&server, &["run", "-d", "--name", "first", "--", "false"]).good();
    let bad = cli(&server, &["run", "--after", "first", "--", "true"]);
    assert_ne!(bad.code, Some(0), "{bad:?}");
    assert!(bad.stderr.contains("failed"), "{bad:?}");
    let after = format!("{}:finished", first.text().trim());
    let good = cli(&server, &["run", "--after", &after, "--", "echo", "it ran"]).good();
    assert_eq!(good.text(), "it ran\n");
}
