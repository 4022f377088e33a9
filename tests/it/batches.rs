//! Batches: many jobs that are accepted together, counted together and stopped together.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::{cli, cli_with_input};
use crate::harness::{
    Server, amount, bound, eventually, id, kill_now, processes_with, unique_seconds,
};
use crate::queues::{gated, micros, most_at_once, open};
use crate::webhooks::{Deed, Receiver};

impl Server {
    async fn batch(&self, body: &Value) -> Value {
        let reply = self.post("/batches", body).await;
        assert_eq!(reply.status, 201, "{reply}");
        let batch = reply.json();
        assert_eq!(
            reply.headers["location"],
            format!("/batches/{}", id(&batch))
        );
        batch
    }

    async fn batch_finished(&self, batch: &Value) -> Value {
        let path = format!("/batches/{}?wait=30", id(batch));
        let batch = self.get(&path).await.json();
        assert_ne!(batch["state"], "running", "{batch:#}\n{}", self.log());
        batch
    }

    /// All jobs of a batch in the order of the request.
    async fn batch_jobs(&self, batch: &Value) -> Vec<Value> {
        let mut jobs = Vec::new();
        let mut token = String::new();
        loop {
            let path = format!(
                "/jobs?batch={}&order_by=created_at&page_size=1000&page_token={token}",
                id(batch)
            );
            let page = self.get(&path).await.json();
            jobs.extend(page["jobs"].as_array().unwrap().clone());
            match page["next_page_token"].as_str() {
                Some(next) => next.clone_into(&mut token),
                None => return jobs,
            }
        }
    }

    async fn refused(&self, body: &Value) -> (u16, String, Value) {
        let reply = self.post("/batches", body).await;
        let problem = reply.json();
        (reply.status, reply.code(), problem["errors"][0].clone())
    }

    /// Neither a batch nor a job is there.
    async fn has_nothing(&self) {
        let batches = self.get("/batches").await.json();
        let jobs = self.get("/jobs").await.json();
        assert_eq!(
            (&batches["batches"], &jobs["jobs"]),
            (&json!([]), &json!([]))
        );
    }
}

fn sum(counts: &Value) -> u64 {
    let counts = counts.as_object().unwrap().values();
    counts.map(|count| count.as_u64().unwrap()).sum()
}

fn states(jobs: &[Value]) -> Vec<&str> {
    jobs.iter()
        .map(|job| job["state"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn a_batch_expands_and_its_jobs_know_their_places() {
    let server = Server::start().await;
    let body = json!({
        "name": "nightly", "labels": {"team": "data"},
        "defaults": {"env": {"A": "default"}, "queue": "etl"},
        "jobs": [
            {"key": "fetch", "script": "echo $A $PROCESSION_JOB_KEY $PROCESSION_INDEX/$PROCESSION_COUNT $PROCESSION_BATCH_ID"},
            {"key": "shard", "repeat": 3, "script": "echo $PROCESSION_INDEX/$PROCESSION_COUNT", "depends_on": [{"key": "fetch"}]},
            {"key": "each", "for_each": [{"env": {"A": "x"}}, {"env": {"A": "y"}}], "script": "echo $A"},
        ]
    });
    let valid = server.post("/batches?validate_only", &body).await;
    assert_eq!(valid.json(), json!({"valid": true, "total": 6}));
    server.has_nothing().await;
    let batch = server.batch(&body).await;
    assert_eq!(
        (&batch["total"], &batch["labels"]["team"]),
        (&json!(6), &json!("data"))
    );
    assert_eq!(sum(&batch["counts"]), 6, "{batch:#}");
    let batch = server.batch_finished(&batch).await;
    assert_eq!(batch["state"], "succeeded", "{batch:#}");
    assert_eq!(batch["counts"]["succeeded"], 6, "{batch:#}");
    let jobs = server.batch_jobs(&batch).await;
    let mut said = Vec::new();
    for job in &jobs {
        assert_eq!(
            (&job["batch"]["id"], &job["spec"]["queue"]),
            (&batch["id"], &json!("etl"))
        );
        said.push(server.text(&id(job)).await.trim().to_owned());
    }
    let first = format!("default fetch 0/1 {}", id(&batch));
    assert_eq!(said, [first.as_str(), "0/3", "1/3", "2/3", "x", "y"]);
    assert_eq!(batch["jobs"]["fetch"], jobs[0]["id"]);
    assert_eq!(
        batch["jobs"]["shard"],
        json!({"first": jobs[1]["id"], "count": 3})
    );
    let events = server
        .request(
            Method::GET,
            &format!("/events?follow=false&batch={}", id(&batch)),
        )
        .header("accept", "application/x-ndjson");
    let events = String::from_utf8(server.send(events).await.body).unwrap();
    let events: Vec<Value> = events
        .lines()
        .map(|it| serde_json::from_str(it).unwrap())
        .collect();
    let of = |kind: &str| {
        events
            .iter()
            .filter(|it| it["type"] == kind)
            .collect::<Vec<_>>()
    };
    assert_eq!(of("job.created").len(), 6);
    let finished = of("batch.finished");
    assert_eq!(finished.len(), 1, "{events:#?}");
    assert_eq!(finished[0]["subject"], format!("batch/{}", id(&batch)));
    assert_eq!(finished[0]["data"]["counts"]["succeeded"], 6);
    assert_eq!(events[0]["type"], "batch.created");
    // A job's own events are of the job alone.
    for job in &jobs {
        let request = server.request(Method::GET, &format!("/jobs/{}/events", id(job)));
        let own = server
            .send(request.header("accept", "application/x-ndjson"))
            .await;
        let own = String::from_utf8(own.body).unwrap();
        assert!(own.lines().count() >= 3, "{own}");
        for line in own.lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            assert!(
                event["type"].as_str().unwrap().starts_with("job."),
                "{event:#}"
            );
        }
    }
    let list = server.get("/batches?page_size=1").await.json();
    assert_eq!(list["batches"][0]["id"], batch["id"]);
}

#[tokio::test]
async fn all_of_a_batch_is_accepted_or_nothing() {
    let server = Server::builder()
        .args(["--max-running=1", "--max-queued=98"])
        .start()
        .await;
    let job = |key: &str| json!({"key": key, "command": ["true"]});
    let mut jobs: Vec<Value> = (0..4712).map(|it| job(&format!("k{it}"))).collect();
    jobs[4711]["stop"] = json!({"grace_seconds": -1});
    let (status, code, error) = server.refused(&json!({"jobs": jobs})).await;
    assert_eq!((status, code.as_str()), (422, "invalid_spec"));
    assert_eq!(error["pointer"], "/jobs/4711/stop/grace_seconds");
    let bad = json!({"defaults": {"cwd": "tmp"}, "jobs": [job("a")]});
    assert_eq!(server.refused(&bad).await.2["pointer"], "/defaults/cwd");
    let bad = json!({"max_running": 1, "jobs": [{"key": "a", "command": ["true"], "concurrency": {"key": "k"}}]});
    assert_eq!(
        server.refused(&bad).await.2["pointer"],
        "/jobs/0/concurrency"
    );
    // 99 places are there.
    let full = json!({"jobs": [{"key": "a", "repeat": 100, "command": ["true"]}]});
    let (status, code, _) = server.refused(&full).await;
    assert_eq!((status, code.as_str()), (429, "queue_full"));
    server.has_nothing().await;
    let fits = json!({"jobs": [{"key": "a", "repeat": 99, "command": ["true"]}]});
    let batch = server.batch(&fits).await;
    assert_eq!(server.batch_finished(&batch).await["state"], "succeeded");
}

#[tokio::test]
async fn who_cannot_wait_for_whom_is_refused_with_the_place() {
    let server = Server::start().await;
    let job = |key: &str, depends_on: Value| json!({"key": key, "command": ["true"], "depends_on": depends_on});
    let nobody = "0198c1d2-7b3a-7c4e-9f10-2a6b3c4d5e6f";
    for (jobs, pointer, code) in [
        (
            vec![job("a", json!([{"key": "x"}]))],
            "/jobs/0/depends_on/0/key",
            "invalid_value",
        ),
        (
            vec![job("a", json!([])), job("a", json!([]))],
            "/jobs/1/key",
            "invalid_value",
        ),
        (
            vec![job("a", json!([])), job("b", json!([{"job": nobody}]))],
            "/jobs/1/depends_on/0",
            "no_such_job",
        ),
        (
            vec![job("b", json!([{"batch": nobody}]))],
            "/jobs/0/depends_on/0",
            "no_such_job",
        ),
        (vec![job("a", json!([{"key": "a"}]))], "/jobs", "conflict"),
    ] {
        let (status, _, error) = server.refused(&json!({"jobs": jobs})).await;
        assert_eq!(status, 422, "{error}");
        assert_eq!(
            (&error["pointer"], &error["code"]),
            (&json!(pointer), &json!(code)),
            "{error}"
        );
    }
    let cycle = json!({"jobs": [job("a", json!([{"key": "b"}])), job("b", json!([{"key": "a"}]))]});
    let (_, _, error) = server.refused(&cycle).await;
    let detail = error["detail"].as_str().unwrap();
    assert!(detail.contains("a → b → a"), "{detail}");
    server.has_nothing().await;
}

#[tokio::test]
async fn ten_thousand_jobs_come_in_one_call_and_a_repeat_is_the_same_batch() {
    let server = Server::builder().args(["--max-queued=20000"]).start().await;
    let gate = server.run_script("true").await;
    let body = json!({
        "max_running": 1, "jobs": [
            {"key": "first", "command": ["sleep", unique_seconds()]},
            {"key": "many", "repeat": 9_999, "command": ["true"], "depends_on": [{"key": "first"}, {"job": id(&gate)}]},
        ]
    });
    let client = server.persistent();
    let begin = Instant::now();
    let reply = client
        .ask(Method::POST, "/batches", Some(&body), Some("k"))
        .await;
    let took = begin.elapsed();
    assert_eq!(reply.status, 201, "{reply}");
    eprintln!("10000 jobs were accepted in {took:?}");
    assert!(took < bound(Duration::from_millis(1500)), "{took:?}");
    let batch = reply.json();
    assert_eq!(
        batch["counts"]["queued"].as_u64().unwrap()
            + batch["counts"]["running"].as_u64().unwrap()
            + batch["counts"]["starting"].as_u64().unwrap(),
        10_000,
        "{batch:#}"
    );
    kill_now(server.server_process().unwrap());
    let begin = Instant::now();
    client.get("/readyz").await;
    eprintln!(
        "ready after a kill with 10000 waiting in {:?}",
        begin.elapsed()
    );
    let repeat = client
        .ask(Method::POST, "/batches", Some(&body), Some("k"))
        .await;
    assert_eq!((repeat.status, &repeat.json()["id"]), (201, &batch["id"]));
    assert_eq!(repeat.headers["idempotent-replayed"], "true");
    let other = json!({"jobs": [{"key": "a", "command": ["true"]}]});
    let reused = client
        .ask(Method::POST, "/batches", Some(&other), Some("k"))
        .await;
    assert_eq!(reused.code(), "idempotency_key_reused");
    let path = format!("/jobs/counts?batch={}", id(&batch));
    let counts = server.get(&path).await.json();
    let counts = counts["counts"].as_array().unwrap().iter();
    let counts = counts.map(|count| count["count"].as_u64().unwrap());
    assert_eq!(counts.sum::<u64>(), 10_000);
    let begin = Instant::now();
    let path = format!("/batches/{}?force", id(&batch));
    let reply = client.ask(Method::DELETE, &path, None, None).await;
    assert!([200, 202].contains(&reply.status), "{reply}");
    let mut stopped = reply.json();
    while stopped["state"] == "running" && begin.elapsed() < Duration::from_secs(180) {
        let path = format!("/batches/{}?wait=20", id(&batch));
        stopped = client.get(&path).await.json();
    }
    eprintln!(
        "9999 waiting and 1 running were stopped in {:?}",
        begin.elapsed()
    );
    let path = format!("/jobs?batch={}&state=starting,running,stopping", id(&batch));
    let left = client.get(&path).await.json();
    assert_eq!(
        (&stopped["state"], &stopped["counts"]["canceled"]),
        (&json!("canceled"), &json!(10_000)),
        "{left:#}"
    );
}

/// What was answered to a stop holds, whenever the server dies.
#[tokio::test]
async fn a_stop_of_a_batch_outlives_the_server() {
    let server = Server::builder().args(["--max-queued=20000"]).start().await;
    let client = server.persistent();
    for round in 0..3 {
        let body = json!({"max_running": 1, "jobs": [
            {"key": "first", "command": ["sleep", unique_seconds()]},
            {"key": "many", "repeat": 1000, "command": ["true"], "depends_on": [{"key": "first", "on": "finished"}]},
        ]});
        let batch = server.post("/batches", &body).await;
        assert_eq!(batch.status, 201, "{batch}");
        let path = format!("/batches/{}", id(&batch.json()));
        let reply = server
            .send(server.request(Method::DELETE, &format!("{path}?force&reason=enough")))
            .await;
        assert!([200, 202].contains(&reply.status), "{reply}");
        kill_now(server.server_process().unwrap());
        let ended = client.get(&format!("{path}?wait=60")).await.json();
        assert_eq!(
            (&ended["state"], &ended["counts"]["canceled"]),
            (&json!("canceled"), &json!(1001)),
            "round {round}: {ended:#}"
        );
    }
}

/// However the server dies, all jobs of the batch are there or none, and a repeat makes the same batch.
#[tokio::test]
async fn a_kill_at_any_moment_leaves_all_or_nothing() {
    let rounds = amount("PROCESSION_BATCH_KILLS", 6);
    let server = Server::builder().args(["--max-queued=20000"]).start().await;
    let client = server.persistent();
    for round in 0..u64::from(rounds) {
        let body = json!({"name": format!("round {round}"), "jobs": [
            {"key": "a", "repeat": 300, "command": ["true"]},
            {"key": "b", "command": ["true"], "depends_on": [{"key": "a", "on": "finished"}]},
        ]});
        let key = format!("key {round}").replace(' ', "-");
        let asking = client.ask(Method::POST, "/batches", Some(&body), Some(&key));
        let killing = async {
            let end = Instant::now() + Duration::from_millis(round % 6 * 25);
            eventually("the moment of the kill", async || {
                (Instant::now() >= end).then_some(())
            })
            .await;
            if let Some(pid) = server.server_process() {
                kill_now(pid);
            }
        };
        let (reply, ()) = futures_util::future::join(asking, killing).await;
        assert_eq!(reply.status, 201, "{reply}");
        let batch = reply.json();
        let path = format!("/batches/{}?wait=30", id(&batch));
        let batch = client.get(&path).await.json();
        assert_eq!(batch["state"], "succeeded", "{batch:#}");
        assert_eq!(server.batch_jobs(&batch).await.len(), 301);
    }
    let batches = server.get("/batches").await.json();
    let there = batches["batches"].as_array().unwrap().len();
    assert_eq!(there, usize::try_from(rounds).unwrap().min(100));
}

#[tokio::test]
async fn a_diamond_runs_in_its_order_over_kills_of_the_server() {
    let server = Server::start().await;
    let client = server.persistent();
    let job = |key: &str, after: &[&str]| {
        let depends_on: Vec<Value> = after.iter().map(|key| json!({"key": key})).collect();
        json!({"key": key, "script": "sleep 0.05", "depends_on": depends_on})
    };
    let body = json!({"jobs": [
        job("d", &["b", "c"]), job("b", &["a"]), job("c", &["a"]), job("a", &[]),
    ]});
    for round in 0..u64::from(amount("PROCESSION_BATCH_KILLS", 8)) {
        let key = format!("k{round}");
        let batch = client
            .ask(Method::POST, "/batches", Some(&body), Some(&key))
            .await
            .json();
        let end = Instant::now() + Duration::from_millis(round % 8 * 30);
        eventually("the moment of the kill", async || {
            (Instant::now() >= end).then_some(())
        })
        .await;
        if let Some(pid) = server.server_process() {
            kill_now(pid);
        }
        let path = format!("/batches/{}?wait=30", id(&batch));
        let batch = client.get(&path).await.json();
        assert_eq!(batch["state"], "succeeded", "{batch:#}");
        let jobs = server.batch_jobs(&batch).await;
        let of = |key: &str| jobs.iter().find(|job| job["batch"]["key"] == key).unwrap();
        for (first, then) in [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")] {
            let (first, then) = (of(first), of(then));
            assert!(
                micros(then, "started_at") >= micros(first, "finished_at"),
                "{jobs:#?}"
            );
            assert_eq!(then["attempt"], 1);
        }
    }
}

#[tokio::test]
async fn a_failure_goes_down_a_chain_of_a_thousand_at_once() {
    let server = Server::start().await;
    let cwd = server.scratch();
    let mut jobs = vec![
        json!({"key": "k0", "script": "mkfifo gate; echo ready; read _ < gate; exit 3", "cwd": cwd}),
    ];
    for number in 1..1000 {
        let before = format!("k{}", number - 1);
        jobs.push(json!({"key": format!("k{number}"), "command": ["true"], "depends_on": [{"key": before}]}));
    }
    let batch = server.batch(&json!({"jobs": jobs})).await;
    let first = batch["jobs"]["k0"].as_str().unwrap();
    server.says(first, "ready").await;
    let begin = Instant::now();
    open(&cwd, "gate");
    let batch = server.batch_finished(&batch).await;
    let (took, limit) = (begin.elapsed(), bound(Duration::from_secs(3)));
    eprintln!("a chain of 1000 failed in {took:?}");
    assert!(took < limit, "{took:?}");
    assert_eq!(batch["state"], "failed", "{batch:#}");
    assert_eq!(
        (&batch["counts"]["failed"], &batch["counts"]["canceled"]),
        (&json!(1), &json!(999))
    );
    let last = server.job(batch["jobs"]["k999"].as_str().unwrap()).await;
    assert_eq!(last["state_reason"], "dependency_failed");
    let reason = last["termination"]["reason"].as_str().unwrap();
    assert!(reason.ends_with("(k998) was canceled"), "{reason}");
}

#[tokio::test]
async fn a_wait_ends_with_the_last_and_the_counts_always_sum_up() {
    let server = Server::start().await;
    let body = json!({"jobs": [
        {"key": "a", "repeat": 30, "script": "sleep 0.05"},
        {"key": "b", "repeat": 10, "command": ["false"], "depends_on": [{"key": "a"}]},
        {"key": "c", "command": ["true"], "depends_on": [{"key": "b"}]},
        {"key": "d", "command": ["true"], "depends_on": [{"key": "b", "on": "failed"}]},
    ]});
    let batch = server.batch(&body).await;
    let mut version = 0;
    loop {
        let path = format!(
            "/batches/{}?wait=30&until=change&after_version={version}",
            id(&batch)
        );
        let now = server.get(&path).await.json();
        assert_eq!(sum(&now["counts"]), 42, "{now:#}");
        assert!(now["version"].as_u64().unwrap() > version, "{now:#}");
        version = now["version"].as_u64().unwrap();
        if now["state"] != "running" {
            assert_eq!(now["state"], "failed", "{now:#}");
            assert_eq!(
                (
                    &now["counts"]["succeeded"],
                    &now["counts"]["failed"],
                    &now["counts"]["canceled"]
                ),
                (&json!(31), &json!(10), &json!(1)),
                "{now:#}"
            );
            break;
        }
    }
    let jobs = server.batch_jobs(&batch).await;
    for job in &jobs {
        assert_eq!(server.delete(&id(job), "purge").await.status, 204);
    }
    let later = server.get(&format!("/batches/{}", id(&batch))).await.json();
    assert_eq!(
        (sum(&later["counts"]), &later["counts"]["failed"]),
        (42, &json!(10))
    );
    let rerun = server
        .post(&format!("/batches/{}/rerun", id(&batch)), &json!({}))
        .await;
    assert_eq!(
        (rerun.status, rerun.code().as_str()),
        (409, "batch_jobs_expired")
    );
}

#[tokio::test]
async fn a_stop_ends_what_runs_and_starts_nothing_more() {
    let running = amount("PROCESSION_BATCH_RUNNING", 20);
    let total = running * 20 - 100;
    let args = [format!("--max-running={running}")];
    let server = Server::builder().args(args).start().await;
    let seconds = unique_seconds();
    let body = json!({"jobs": [
        {"key": "a", "repeat": total, "command": ["sleep", seconds]},
        {"key": "late", "command": ["sleep", seconds], "depends_on": [{"key": "a", "on": "finished"}]},
    ]});
    let batch = server.batch(&body).await;
    let most = usize::try_from(running).unwrap();
    eventually("as many run as may", async || {
        (processes_with(&seconds).len() == most).then_some(())
    })
    .await;
    let again = server
        .post(&format!("/batches/{}/rerun", id(&batch)), &json!({}))
        .await;
    assert_eq!(again.code(), "batch_not_finished");
    let path = format!("/batches/{}?wait=30&reason=enough", id(&batch));
    let begin = Instant::now();
    let stopped = server.send(server.request(Method::DELETE, &path)).await;
    let took = begin.elapsed();
    eprintln!("{running} of {total} ran and were stopped in {took:?}");
    assert_eq!(stopped.status, 200, "{stopped}");
    assert!(took < bound(Duration::from_secs(5)), "{took:?}");
    assert_eq!(processes_with(&seconds), []);
    let stopped = stopped.json();
    assert_eq!(
        (&stopped["state"], &stopped["counts"]["canceled"]),
        (&json!("canceled"), &json!(total + 1))
    );
    let jobs = server.batch_jobs(&batch).await;
    let started = jobs
        .iter()
        .filter(|job| !job["started_at"].is_null())
        .count();
    assert_eq!(started, most);
    assert_eq!(jobs[0]["termination"]["reason"], "enough");
    let path = format!("/batches/{}?purge", id(&batch));
    assert_eq!(
        server
            .send(server.request(Method::DELETE, &path))
            .await
            .status,
        204
    );
    server.has_nothing().await;
}

/// Its jobs are more than a page holds.
#[tokio::test]
async fn a_batch_of_large_jobs_runs_again_and_goes_as_a_whole() {
    let server = Server::start().await;
    let env = json!({"TEXT": "x".repeat(100_000)});
    let body =
        json!({"jobs": [{"key": "a", "repeat": 100, "script": "exit ${#TEXT}", "env": env}]});
    let batch = server.batch(&body).await;
    server.batch_finished(&batch).await;
    let path = format!("/batches/{}/rerun", id(&batch));
    let again = server.post(&path, &json!({})).await;
    assert_eq!(again.status, 201, "{again}");
    let again = server.batch_finished(&again.json()).await;
    // Of 100 000, what an exit code holds.
    let jobs = server.batch_jobs(&again).await;
    let codes = jobs.iter().map(|job| job["exit"]["code"].as_u64());
    assert_eq!(codes.collect::<Vec<_>>(), [Some(100_000 % 256); 100]);
    for batch in [&batch, &again] {
        let path = format!("/batches/{}?purge", id(batch));
        let purged = server.send(server.request(Method::DELETE, &path)).await;
        assert_eq!(purged.status, 204, "{purged}");
    }
    server.has_nothing().await;
}

#[tokio::test]
async fn the_end_of_a_batch_is_told_once_and_delivered_over_a_kill() {
    let server = Server::builder()
        .args(["--webhook-allow-private"])
        .start()
        .await;
    let receiver = Receiver::start(&[Deed::Answer(500)]).await;
    let cwd = server.scratch();
    let mut last = gated(&cwd, "gate", &json!({"key": "b"}));
    last["depends_on"] = json!([{"key": "a"}]);
    let body = json!({
        "webhooks": [{"url": receiver.url()}],
        "jobs": [{"key": "a", "command": ["true"]}, last]
    });
    let batch = server.batch(&body).await;
    server
        .says(batch["jobs"]["b"].as_str().unwrap(), "ready")
        .await;
    open(&cwd, "gate");
    // The first attempt is refused, so that the server dies between the end and the delivery.
    receiver.received(1).await;
    kill_now(server.server_process().unwrap());
    let received = receiver.received(2).await;
    for one in &received {
        let event = one.event();
        assert_eq!(event["type"], "batch.finished");
        assert_eq!(event["subject"], format!("batch/{}", id(&batch)));
        assert_eq!(event["data"]["state"], "succeeded");
        assert_eq!(event["id"], received[0].event()["id"]);
    }
    server.persistent().get("/readyz").await;
    let events = server
        .request(Method::GET, "/events?follow=false&type=batch.finished")
        .header("accept", "application/x-ndjson");
    let events = String::from_utf8(server.send(events).await.body).unwrap();
    assert_eq!(events.lines().count(), 1, "{events}");
}

#[tokio::test]
async fn no_more_of_a_batch_run_than_may() {
    let server = Server::start().await;
    let cwd = server.scratch();
    let script = "until [ -e go ]; do sleep 0.02; done; sleep 0.05";
    let body = json!({"max_running": 3, "jobs": [{"key": "a", "repeat": 15, "script": script, "cwd": cwd}]});
    let batch = server.batch(&body).await;
    let waiting = eventually("one waits for the batch", async || {
        let jobs = server.batch_jobs(&batch).await;
        jobs.into_iter()
            .find(|job| job["state_reason"] == "waiting_for_batch")
    })
    .await;
    assert!(
        waiting["state_message"].as_str().unwrap().contains('3'),
        "{waiting:#}"
    );
    std::fs::write(cwd.join("go"), "").unwrap();
    server.batch_finished(&batch).await;
    let jobs = server.batch_jobs(&batch).await;
    assert_eq!(most_at_once(&jobs), 3);
}

#[tokio::test]
async fn a_failure_can_end_the_others() {
    let server = Server::builder().args(["--max-running=2"]).start().await;
    for on_failure in ["continue", "cancel_queued", "stop_all"] {
        let cwd = server.scratch().join(on_failure);
        std::fs::create_dir(&cwd).unwrap();
        let body = json!({"on_failure": on_failure, "jobs": [
            {"key": "bad", "script": "mkfifo gate; echo ready; read _ < gate; exit 3", "cwd": cwd},
            {"key": "runs", "script": "mkfifo wait; echo ready; read _ < wait", "cwd": cwd},
            {"key": "waits", "repeat": 3, "command": ["true"], "depends_on": [{"key": "runs"}]},
        ]});
        let batch = server.batch(&body).await;
        for key in ["bad", "runs"] {
            server
                .says(batch["jobs"][key].as_str().unwrap(), "ready")
                .await;
        }
        open(&cwd, "gate");
        server
            .finished(batch["jobs"]["bad"].as_str().unwrap())
            .await;
        if on_failure == "cancel_queued" {
            let waits = batch["jobs"]["waits"]["first"].as_str().unwrap();
            let job = server.finished(waits).await;
            assert_eq!(job["state_reason"], "canceled", "{job:#}");
        }
        if on_failure != "stop_all" {
            open(&cwd, "wait");
        }
        let batch = server.batch_finished(&batch).await;
        let jobs = server.batch_jobs(&batch).await;
        let expected = match on_failure {
            "continue" => ["failed", "succeeded", "succeeded", "succeeded", "succeeded"],
            "cancel_queued" => ["failed", "succeeded", "canceled", "canceled", "canceled"],
            _ => ["failed", "canceled", "canceled", "canceled", "canceled"],
        };
        assert_eq!(states(&jobs), expected, "{jobs:#?}");
        assert_eq!(batch["state"], "failed");
        if on_failure == "stop_all" {
            let reason = jobs[1]["termination"]["reason"].as_str().unwrap();
            assert!(reason.ends_with("(bad) failed"), "{reason}");
        }
    }
}

#[tokio::test]
async fn what_failed_runs_again_with_those_that_depend_on_it() {
    let server = Server::start().await;
    let cwd = server.scratch();
    let body = json!({"defaults": {"cwd": cwd}, "jobs": [
        {"key": "good", "script": "echo good >> log"},
        {"key": "bad", "script": "echo bad >> log; [ -e fixed ]", "depends_on": [{"key": "good"}]},
        {"key": "last", "script": "echo last >> log", "depends_on": [{"key": "bad"}, {"key": "good"}]},
    ]});
    let batch = server.batch(&body).await;
    assert_eq!(server.batch_finished(&batch).await["state"], "failed");
    std::fs::write(cwd.join("fixed"), "").unwrap();
    let path = format!("/batches/{}/rerun?wait=30", id(&batch));
    let again = server.post(&path, &json!({"only": "failed"})).await;
    assert_eq!(again.status, 201, "{again}");
    let again = again.json();
    assert_eq!(
        (&again["state"], &again["total"]),
        (&json!("succeeded"), &json!(2)),
        "{again:#}"
    );
    assert_eq!(again["rerun_of"], batch["id"]);
    let log = std::fs::read_to_string(cwd.join("log")).unwrap();
    assert_eq!(log, "good\nbad\nbad\nlast\n");
    let path = format!("/batches/{}/rerun", id(&again));
    assert_eq!(
        server.post(&path, &json!({})).await.code(),
        "nothing_to_rerun"
    );
    let all = server
        .post(&format!("{path}?wait=30"), &json!({"only": "all"}))
        .await;
    assert_eq!(all.json()["counts"]["succeeded"], 2, "{all}");
}

#[tokio::test]
async fn jobs_wait_for_batches_and_batches_for_jobs() {
    let server = Server::start().await;
    let cwd = server.scratch();
    let gate = server.submit(&gated(&cwd, "gate", &json!({}))).await;
    server.says(&id(&gate), "ready").await;
    let body = json!({"jobs": [
        {"key": "a", "repeat": 2, "command": ["true"], "depends_on": [{"job": id(&gate)}]},
        {"key": "b", "command": ["false"], "depends_on": [{"key": "a"}]},
    ]});
    let batch = server.batch(&body).await;
    let mut jobs = Vec::new();
    for on in ["succeeded", "failed", "finished"] {
        let body = json!({"command": ["true"], "depends_on": [{"batch": id(&batch), "on": on}]});
        jobs.push(server.submit(&body).await);
    }
    server.waits_for(&jobs[2], "waiting_for_dependencies").await;
    kill_now(server.server_process().unwrap());
    server.persistent().get("/readyz").await;
    open(&cwd, "gate");
    let batch = server.batch_finished(&batch).await;
    assert_eq!(batch["state"], "failed", "{batch:#}");
    let expected = ["canceled", "succeeded", "succeeded"];
    for (job, state) in jobs.iter().zip(expected) {
        let job = server.finished(&id(job)).await;
        assert_eq!(job["state"], state, "{job:#}");
    }
    let late = json!({"command": ["true"], "depends_on": [{"batch": id(&batch), "on": "failed"}]});
    let late = server.submit(&late).await;
    assert_eq!(server.finished(&id(&late)).await["state"], "succeeded");
}

#[tokio::test]
async fn many_are_waited_for_and_stopped_by_their_batch() {
    let server = Server::start().await;
    let seconds = unique_seconds();
    let body = json!({"jobs": [{"key": "a", "repeat": 3, "command": ["sleep", seconds]}]});
    let batch = server.batch(&body).await;
    let other = server.submit(&json!({"command": ["sleep", seconds]})).await;
    let waited = server
        .post("/jobs/wait", &json!({"batch": id(&batch)}))
        .await
        .json();
    assert_eq!(
        (
            &waited["satisfied"],
            waited["jobs"].as_array().unwrap().len()
        ),
        (&json!(false), 3)
    );
    let stopped = server
        .post("/jobs/stop", &json!({"batch": id(&batch), "force": true}))
        .await;
    let ids: HashSet<String> = stopped.json()["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(id)
        .collect();
    assert_eq!(ids.len(), 3, "{stopped}");
    assert_eq!(server.batch_finished(&batch).await["state"], "canceled");
    let counts = server
        .get(&format!("/jobs/counts?batch={}", id(&batch)))
        .await
        .json();
    let canceled = counts["counts"]
        .as_array()
        .unwrap()
        .iter()
        .find(|it| it["state"] == "canceled");
    assert_eq!(canceled.unwrap()["count"], 3);
    server.stop(&id(&other), "force").await;
}

#[tokio::test]
async fn a_batch_can_be_submitted_followed_shown_and_stopped_by_command() {
    let server = Server::start().await;
    let good = json!({"name": "night", "jobs": [{"key": "a", "repeat": 2, "command": ["true"]}]})
        .to_string();
    let ran = cli_with_input(
        &server,
        &["batch", "-f", "-", "--follow"],
        good.clone().into_bytes(),
    )
    .good();
    let text = ran.text().to_owned();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["a[0] succeeded", "a[1] succeeded"], "{ran:?}");
    let bad = json!({"jobs": [{"key": "a", "command": ["false"]}]}).to_string();
    let ran = cli_with_input(&server, &["batch", "-f", "-", "--follow"], bad.into_bytes());
    assert_eq!((ran.code, ran.text()), (Some(1), "a failed\n"), "{ran:?}");
    assert!(ran.stderr.contains("failed: 1 failed"), "{ran:?}");
    let seconds = unique_seconds();
    let long = json!({"jobs": [{"key": "a", "command": ["sleep", seconds]}]}).to_string();
    let ran = cli_with_input(&server, &["batch", "-f", "-"], long.into_bytes()).good();
    let batch = ran.text().trim().to_owned();
    let shown = cli(&server, &["show", &batch]).good();
    assert!(shown.text().contains("running"), "{shown:?}");
    let stopped = cli(&server, &["stop", "--force", &batch]).good();
    assert_eq!(stopped.text(), format!("{batch} canceled\n"));
    let list = cli(&server, &["batches"]).good();
    assert_eq!(list.text().lines().count(), 4, "{list:?}");
    assert!(
        list.text().contains("night") && list.text().contains("2 succeeded"),
        "{list:?}"
    );
    assert_eq!(processes_with(&seconds), []);
}
