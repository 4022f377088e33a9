//! Queues with limits, weights, keys, rates, pauses and turns: who starts when, and what a job waits for.

use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use nix::sys::signal::{Signal, kill};
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::cli;
use crate::harness::{
    Server, amount, bound, eventually, id, kill_now, processes_with, unique_seconds,
};

impl Server {
    async fn put_queue(&self, name: &str, settings: &Value) -> Value {
        let request = self.request(Method::PUT, &format!("/queues/{name}"));
        let reply = self.send(request.json(settings)).await;
        assert!(reply.status == 200 || reply.status == 201, "{reply}");
        reply.json()
    }

    async fn patch_queue(&self, name: &str, patch: &Value) -> Value {
        let request = self
            .request(Method::PATCH, &format!("/queues/{name}"))
            .header("content-type", "application/merge-patch+json")
            .body(patch.to_string());
        let reply = self.send(request).await;
        assert_eq!(reply.status, 200, "{reply}");
        reply.json()
    }

    async fn queue(&self, name: &str) -> Value {
        let reply = self.get(&format!("/queues/{name}")).await;
        assert_eq!(reply.status, 200, "{reply}");
        reply.json()
    }

    /// Waits until the job waits for this.
    pub(crate) async fn waits_for(&self, job: &Value, reason: &str) -> Value {
        eventually(&format!("the job waits: {reason}"), async || {
            let job = self.job(&id(job)).await;
            (job["state"] == "queued" && job["state_reason"] == reason).then_some(job)
        })
        .await
    }

    async fn submit_all(&self, count: usize, body: &Value) -> Vec<Value> {
        join_all((0..count).map(|_| self.submit(body))).await
    }

    async fn all_finished(&self, jobs: &[Value]) -> Vec<Value> {
        join_all(
            jobs.iter()
                .map(|job| async { self.finished(&id(job)).await }),
        )
        .await
    }
}

pub(crate) fn micros(job: &Value, field: &str) -> i64 {
    let text = job[field]
        .as_str()
        .unwrap_or_else(|| panic!("{field}: {job:#}"));
    text.parse::<jiff::Timestamp>().unwrap().as_microsecond()
}

/// The most of them that ran at the same moment, in weights, by the times of the jobs themselves.
pub(crate) fn most_at_once(jobs: &[Value]) -> i64 {
    let weight = |job: &Value| job["spec"]["weight"].as_i64().unwrap();
    let starts = jobs
        .iter()
        .map(|job| (micros(job, "started_at"), weight(job)));
    let ends = jobs
        .iter()
        .map(|job| (micros(job, "finished_at"), -weight(job)));
    let mut changes: Vec<(i64, i64)> = starts.chain(ends).collect();
    changes.sort_unstable();
    let mut running = 0;
    let levels = changes.into_iter().map(|(_, weight)| {
        running += weight;
        running
    });
    levels.max().unwrap()
}

/// A job that runs until somebody writes to its FIFO.
pub(crate) fn gated(cwd: &Path, name: &str, fields: &Value) -> Value {
    let script = format!("mkfifo {name}; echo ready; read _ < {name}");
    let mut body = json!({"script": script, "cwd": cwd});
    body.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    body
}

pub(crate) fn open(cwd: &Path, name: &str) {
    std::fs::write(cwd.join(name), "\n").unwrap();
}

#[tokio::test]
async fn a_limit_of_two_is_two_all_the_time() {
    let server = Server::start().await;
    let cwd = server.scratch();
    server.put_queue("q", &json!({"max_running": 2})).await;
    let mut jobs = Vec::new();
    for name in ["a", "b", "c", "d", "e", "f"] {
        let body = gated(&cwd, name, &json!({"queue": "q", "name": name}));
        jobs.push(server.submit(&body).await);
    }
    // Each that ends makes place for the next, beside the one that runs on.
    for (number, job) in jobs.iter().enumerate() {
        let (at, most) = (number, jobs.len().min(number + 2));
        for job in &jobs[at..most] {
            server.says(&id(job), "ready").await;
        }
        let states = join_all(jobs.iter().map(|job| async { server.job(&id(job)).await }));
        let states = states.await.into_iter();
        let running = states.filter(|job| job["state"] == "running").count();
        assert_eq!(running, most - at, "{number}");
        open(&cwd, job["name"].as_str().unwrap());
        server.finished(&id(job)).await;
    }
    let jobs = server.all_finished(&jobs).await;
    assert_eq!(most_at_once(&jobs), 2, "{jobs:#?}");
}

#[tokio::test]
async fn a_limit_holds_over_kills_of_the_server() {
    let server = Server::start().await;
    server.put_queue("q", &json!({"max_running": 2})).await;
    let body = json!({"command": ["sleep", "0.15"], "queue": "q"});
    let client = server.persistent();
    let mut ids = Vec::new();
    for round in 0..amount("PROCESSION_QUEUE_KILLS", 5) {
        for number in 0..4 {
            let key = format!("{round}-{number}");
            let reply = client
                .ask(Method::POST, "/jobs", Some(&body), Some(&key))
                .await;
            ids.push(id(&reply.json()));
        }
        if let Some(pid) = server.server_process() {
            kill_now(pid);
        }
    }
    let mut jobs = Vec::new();
    for id in ids {
        let path = format!("/jobs/{id}?wait=30");
        let job = client.ask(Method::GET, &path, None, None).await.json();
        assert_eq!(job["state"], "succeeded", "{job:#}");
        jobs.push(job);
    }
    assert!(most_at_once(&jobs) <= 2, "{jobs:#?}");
}

#[tokio::test]
async fn a_full_queue_stands_in_nobody_elses_way() {
    let server = Server::start().await;
    server.put_queue("a", &json!({"max_running": 1})).await;
    let sleep = json!({"command": ["sleep", unique_seconds()], "queue": "a"});
    let first = server.submit(&sleep).await;
    let others = join_all((0..100).map(|_| server.submit(&sleep))).await;
    let waiting = server.waits_for(&others[50], "waiting_for_queue").await;
    let message = waiting["state_message"].as_str().unwrap();
    assert!(message.contains("queue a"), "{waiting:#}");
    let queue = server.queue("a").await;
    assert_eq!(
        (&queue["running"], &queue["queued"]),
        (&json!(1), &json!(100))
    );
    let passing = server
        .run(&json!({"command": ["true"], "queue": "b"}))
        .await;
    assert_eq!(passing["state"], "succeeded");
    for job in others.iter().chain([&first]) {
        server.stop(&id(job), "force").await;
    }
}

#[tokio::test]
async fn a_heavy_job_keeps_its_place_and_says_why_it_waits() {
    let server = Server::start().await;
    let cwd = server.scratch();
    server.put_queue("q", &json!({"max_running": 4})).await;
    let job = |name: &str, weight: u32| gated(&cwd, name, &json!({"queue": "q", "weight": weight}));
    let heavy = server.submit(&job("heavy", 3)).await;
    let light = server.submit(&job("light", 1)).await;
    for job in [&heavy, &light] {
        server.says(&id(job), "ready").await;
    }
    let next = server.submit(&job("next", 3)).await;
    let last = server.submit(&job("last", 1)).await;
    server.waits_for(&next, "waiting_for_queue").await;
    open(&cwd, "light");
    server.finished(&id(&light)).await;
    // One of four is free, and the one that would fit does not pass the one before it.
    let waiting = server.waits_for(&last, "waiting_for_queue").await;
    let message = waiting["state_message"].as_str().unwrap();
    assert!(message.contains(&id(&next)), "{message}");
    open(&cwd, "heavy");
    for (job, name) in [(&next, "next"), (&last, "last")] {
        server.says(&id(job), "ready").await;
        open(&cwd, name);
        server.finished(&id(job)).await;
    }
    let refused = server.post("/jobs", &job("never", 5)).await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (422, "invalid_spec")
    );
    assert_eq!(
        refused.json()["errors"][0]["pointer"],
        "/weight",
        "{refused}"
    );
}

#[tokio::test]
async fn a_limit_that_is_lowered_leaves_what_is_too_heavy_waiting() {
    let server = Server::start().await;
    server
        .put_queue("q", &json!({"max_running": 4, "paused": true}))
        .await;
    let heavy = server
        .submit(&json!({"command": ["true"], "queue": "q", "weight": 3}))
        .await;
    let light = server
        .submit(&json!({"command": ["true"], "queue": "q"}))
        .await;
    server.waits_for(&heavy, "queue_paused").await;
    server.put_queue("q", &json!({"max_running": 2})).await;
    assert_eq!(server.finished(&id(&light)).await["state"], "succeeded");
    server.waits_for(&heavy, "never_fits").await;
    server.put_queue("q", &json!({"max_running": 3})).await;
    assert_eq!(server.finished(&id(&heavy)).await["state"], "succeeded");
}

#[tokio::test]
async fn a_rate_holds_in_every_window_also_over_a_kill_of_the_server() {
    let server = Server::start().await;
    let window = amount("PROCESSION_RATE_SECONDS", 2);
    let rate = json!({"starts": 5, "per_seconds": window});
    let paused = json!({"rate": rate, "paused": true});
    server.put_queue("q", &paused).await;
    let body = json!({"command": ["true"], "queue": "q"});
    let client = server.persistent();
    let mut ids = Vec::new();
    for number in 0..18 {
        let key = number.to_string();
        let reply = client
            .ask(Method::POST, "/jobs", Some(&body), Some(&key))
            .await;
        ids.push(id(&reply.json()));
    }
    // All at once, however long it took to submit them.
    server.patch_queue("q", &json!({"paused": false})).await;
    let waiting = server
        .waits_for(&json!({"id": ids[17]}), "waiting_for_rate")
        .await;
    assert!(
        waiting["state_message"]
            .as_str()
            .unwrap()
            .contains("the rate"),
        "{waiting:#}"
    );
    assert!(server.queue("q").await["next_start_at"].is_string());
    // In the middle of a window, with its starts on disk.
    server.finished(&ids[4]).await;
    kill_now(server.server_process().unwrap());
    let mut starts = Vec::new();
    for id in ids {
        let path = format!("/jobs/{id}?wait=30");
        let job = client.ask(Method::GET, &path, None, None).await.json();
        assert_eq!(job["state"], "succeeded", "{job:#}");
        starts.push(micros(&job, "started_at"));
    }
    starts.sort_unstable();
    let apart = i64::from(window) * 1_000_000;
    for window in starts.windows(6) {
        assert!(window[5] - window[0] >= apart, "{starts:?}");
    }
    let all = starts[17] - starts[0];
    // Three windows are enough; a busy machine may take longer.
    assert!(all < 20_000_000 + 4 * apart, "it stood still: {starts:?}");
}

#[tokio::test]
async fn a_pause_outlives_restarts_and_a_resume_starts_at_once() {
    let mut server = Server::start().await;
    server
        .put_queue("q", &json!({"paused": true, "pause_reason": "friday"}))
        .await;
    let job = server
        .submit(&json!({"command": ["true"], "queue": "q"}))
        .await;
    let waiting = server.waits_for(&job, "queue_paused").await;
    let message = waiting["state_message"].as_str().unwrap();
    assert!(message.contains("friday"), "{message}");
    let version = waiting["version"].clone();
    kill_now(server.server_process().unwrap());
    server
        .persistent()
        .ask(Method::GET, "/readyz", None, None)
        .await;
    server.waits_for(&job, "queue_paused").await;
    server.end(Signal::SIGTERM);
    server.start_again(Server::builder()).await;
    let waiting = server.waits_for(&job, "queue_paused").await;
    assert!(
        waiting["version"].as_u64() >= version.as_u64(),
        "{waiting:#}"
    );
    let begin = Instant::now();
    let queue = server.patch_queue("q", &json!({"paused": false})).await;
    assert_eq!(
        (&queue["paused"], &queue["pause_reason"]),
        (&json!(false), &json!("friday"))
    );
    let job = server.finished(&id(&job)).await;
    assert_eq!(job["state"], "succeeded", "{job:#}");
    let (took, limit) = (begin.elapsed(), bound(Duration::from_millis(100)));
    assert!(took < limit, "{took:?}");
}

#[tokio::test]
async fn a_pause_outlives_an_upgrade() {
    let server = Server::start().await;
    let settings = json!({"paused": true, "pause_reason": "friday"});
    server.put_queue("q", &settings).await;
    let job = server
        .submit(&json!({"command": ["true"], "queue": "q"}))
        .await;
    server.waits_for(&job, "queue_paused").await;
    let before = server.server_process().unwrap();
    kill(server.supervisor(), Signal::SIGHUP).unwrap();
    eventually("the next program's server", async || {
        server.server_process().filter(|pid| *pid != before)
    })
    .await;
    server.persistent().get("/readyz").await;
    let waiting = server.waits_for(&job, "queue_paused").await;
    assert!(
        waiting["state_message"]
            .as_str()
            .unwrap()
            .contains("friday")
    );
    assert_eq!(server.queue("q").await["paused"], true);
    server.patch_queue("q", &json!({"paused": false})).await;
    assert_eq!(server.finished(&id(&job)).await["state"], "succeeded");
}

#[tokio::test]
async fn what_a_job_waits_for_is_true_at_each_look_and_makes_no_version() {
    let server = Server::builder().args(["--max-running", "2"]).start().await;
    let cwd = server.scratch();
    let key = json!({"concurrency": {"key": "k"}});
    let holder = server.submit(&gated(&cwd, "holder", &key)).await;
    let other = server.submit(&gated(&cwd, "other", &json!({}))).await;
    for job in [&holder, &other] {
        server.says(&id(job), "ready").await;
    }
    server.put_queue("q", &json!({"paused": true})).await;
    let body = json!({"command": ["true"], "queue": "q", "concurrency": {"key": "k"}});
    let job = server.submit(&body).await;
    let waiting = server.waits_for(&job, "waiting_for_key").await;
    let message = waiting["state_message"].as_str().unwrap();
    assert!(message.contains(&id(&holder)), "{message}");
    let version = &waiting["version"];
    open(&cwd, "holder");
    server.finished(&id(&holder)).await;
    let paused = server.waits_for(&job, "queue_paused").await;
    assert_eq!(&paused["version"], version, "{paused:#}");
    let third = server.submit(&gated(&cwd, "third", &json!({}))).await;
    server.says(&id(&third), "ready").await;
    server.patch_queue("q", &json!({"paused": false})).await;
    let full = server.waits_for(&job, "waiting_for_slot").await;
    assert_eq!(&full["version"], version, "{full:#}");
    // The queue says since when, and one of which nothing is set is there with its jobs.
    let queue = server.queue("q").await;
    let apart = micros(&queue, "oldest_queued_at").abs_diff(micros(&job, "created_at"));
    assert!(apart < 1_000_000, "{queue:#}");
    let plain = server.queue("default").await;
    assert_eq!(
        (&plain["running"], &plain["max_running"]),
        (&json!(2), &Value::Null)
    );
    for name in ["other", "third"] {
        open(&cwd, name);
    }
    assert_eq!(server.finished(&id(&job)).await["state"], "succeeded");
    for job in [&other, &third] {
        server.finished(&id(job)).await;
    }
}

#[tokio::test]
async fn a_key_lets_one_run_at_a_time_and_leaves_no_gaps() {
    let server = Server::start().await;
    let body = json!({"command": ["true"], "concurrency": {"key": "k"}});
    let jobs = join_all((0..50).map(|number| {
        let mut body = body.clone();
        body["queue"] = json!(["a", "b"][number % 2]);
        let server = &server;
        async move { server.run(&body).await }
    }));
    let mut jobs = jobs.await;
    assert_eq!(most_at_once(&jobs), 1, "{jobs:#?}");
    jobs.sort_unstable_by_key(|job| micros(job, "started_at"));
    let gaps = jobs
        .windows(2)
        .map(|pair| micros(&pair[1], "started_at") - micros(&pair[0], "finished_at"));
    let mut gaps: Vec<i64> = gaps.collect();
    gaps.sort_unstable();
    let limit = bound(Duration::from_millis(50)).as_micros();
    let longest = gaps[gaps.len() - 1];
    assert!(longest < i64::try_from(limit).unwrap(), "{gaps:?}");
}

#[tokio::test]
async fn a_job_that_replaces_another_starts_when_nothing_of_that_is_left() {
    let server = Server::start().await;
    let seconds = unique_seconds();
    let key = json!({"key": "deploy", "policy": "replace"});
    let script = format!("setsid sleep {seconds} & echo ready; wait");
    let old = server
        .submit(&json!({"script": script, "concurrency": key}))
        .await;
    server.says(&id(&old), "ready").await;
    // The look does not match itself.
    let look = format!("grep -al '[s]leep.{seconds}' /proc/[0-9]*/cmdline | wc -l");
    let new = server
        .submit(&json!({"script": look, "concurrency": key, "queue": "other"}))
        .await;
    let (old, new) = (
        server.finished(&id(&old)).await,
        server.finished(&id(&new)).await,
    );
    assert_eq!(new["state"], "succeeded", "{new:#}");
    assert_eq!(
        server.stdout(&id(&new)).await.trim(),
        "0",
        "its session's child was still there"
    );
    assert!(processes_with(&seconds).is_empty());
    assert!(micros(&new, "started_at") >= micros(&old, "finished_at"));
    assert_eq!(
        (&old["state"], &old["state_reason"]),
        (&json!("canceled"), &json!("superseded"))
    );
    let reason = old["termination"]["reason"].as_str().unwrap();
    assert!(reason.contains(&id(&new)), "{reason}");
}

#[tokio::test]
async fn the_newest_of_a_key_ends_those_that_wait() {
    let server = Server::start().await;
    let cwd = server.scratch();
    let key = json!({"concurrency": {"key": "k", "policy": "newest"}});
    let mut jobs = vec![server.submit(&gated(&cwd, "first", &key)).await];
    server.says(&id(&jobs[0]), "ready").await;
    for number in 0..19 {
        let body = json!({"script": format!("echo {number}"), "concurrency": key["concurrency"]});
        jobs.push(server.submit(&body).await);
    }
    for job in &jobs[1..19] {
        let job = server.finished(&id(job)).await;
        assert_eq!(
            (&job["state"], &job["state_reason"]),
            (&json!("canceled"), &json!("superseded"))
        );
    }
    open(&cwd, "first");
    for job in [&jobs[0], &jobs[19]] {
        assert_eq!(server.finished(&id(job)).await["state"], "succeeded");
    }
}

#[tokio::test]
async fn a_job_that_does_not_wait_for_its_key_is_refused() {
    let server = Server::start().await;
    let holder = json!({"command": ["sleep", unique_seconds()], "concurrency": {"key": "k"}});
    let holder = server.submit(&holder).await;
    let body = json!({"command": ["true"], "concurrency": {"key": "k", "policy": "reject"}});
    let refused = server.post("/jobs", &body).await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (409, "concurrency_conflict")
    );
    let detail = refused.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains(&id(&holder)), "{detail}");
    server.stop(&id(&holder), "force").await;
    assert_eq!(server.run(&body).await["state"], "succeeded");
    // Of many at once, one is taken.
    let mut slow = body.clone();
    slow["command"] = json!(["sleep", unique_seconds()]);
    let replies = join_all((0..10).map(|_| server.post("/jobs", &slow))).await;
    let taken: Vec<_> = replies.iter().filter(|reply| reply.status == 201).collect();
    assert_eq!(taken.len(), 1, "{replies:?}");
    server.stop(&id(&taken[0].json()), "force").await;
}

#[tokio::test]
async fn groups_take_turns_in_a_fair_queue() {
    let server = Server::start().await;
    let cwd = server.scratch();
    server
        .put_queue(
            "q",
            &json!({"max_running": 1, "paused": true, "fair_by": {"label": "who"}}),
        )
        .await;
    let job = |who: &str| {
        let script = format!("echo {who} >> order");
        json!({"script": script, "cwd": cwd, "queue": "q", "labels": {"who": who}})
    };
    let mut jobs = server.submit_all(30, &job("many")).await;
    jobs.push(server.submit(&job("one")).await);
    server.patch_queue("q", &json!({"paused": false})).await;
    server.all_finished(&jobs).await;
    let order = std::fs::read_to_string(cwd.join("order")).unwrap();
    let place = order.lines().position(|who| who == "one").unwrap();
    assert!(place <= 2, "{order}");
}

#[tokio::test]
async fn tokens_take_turns_in_a_fair_queue_whatever_keys_their_jobs_have() {
    let server = Server::start().await;
    let cwd = server.scratch();
    let settings = json!({"max_running": 1, "paused": true, "fair_by": "created_by"});
    server.put_queue("q", &settings).await;
    let other = json!({"name": "other", "scope": "operate"});
    let other = server.post("/tokens", &other).await.json();
    let job = |who: &str, key: usize| {
        let script = format!("echo {who} >> order");
        json!({"script": script, "cwd": cwd, "queue": "q", "concurrency": {"key": format!("k{key}")}})
    };
    let many = (0..60).map(|number| {
        let body = job("many", number % 20);
        let server = &server;
        async move { server.submit(&body).await }
    });
    let mut jobs = join_all(many).await;
    let request = server
        .anonymous(Method::POST, "/jobs")
        .bearer_auth(other["token"].as_str().unwrap())
        .json(&job("one", 99));
    let one = server.send(request).await;
    assert_eq!(one.status, 201, "{one}");
    jobs.push(one.json());
    server.patch_queue("q", &json!({"paused": false})).await;
    server.all_finished(&jobs).await;
    let order = std::fs::read_to_string(cwd.join("order")).unwrap();
    let place = order.lines().position(|who| who == "one").unwrap();
    assert!(place <= 2, "{order}");
}

#[tokio::test]
async fn turns_may_be_set_while_jobs_wait() {
    let server = Server::start().await;
    let cwd = server.scratch();
    server
        .put_queue("q", &json!({"max_running": 1, "paused": true}))
        .await;
    let job = |who: &str| {
        let script = format!("echo {who} >> order");
        json!({"script": script, "cwd": cwd, "queue": "q", "labels": {"who": who}})
    };
    let mut jobs = server.submit_all(9, &job("many")).await;
    jobs.push(server.submit(&job("one")).await);
    let patch = json!({"paused": false, "fair_by": {"label": "who"}});
    server.patch_queue("q", &patch).await;
    server.all_finished(&jobs).await;
    let order = std::fs::read_to_string(cwd.join("order")).unwrap();
    // The first may have started before the turns were set.
    let place = order.lines().position(|who| who == "one").unwrap();
    assert!(place <= 3, "{order}");
}

#[tokio::test]
async fn priority_counts_over_a_restart() {
    for _ in 0..amount("PROCESSION_QUEUE_ROUNDS", 8) {
        let one = || Server::builder().args(["--max-running", "1"]);
        let mut server = one().start().await;
        let cwd = server.scratch();
        server
            .submit(&json!({"command": ["sleep", unique_seconds()]}))
            .await;
        let job = |name: &str, priority: i32| json!({"script": format!("echo {name} >> order"), "cwd": cwd, "priority": priority});
        let mut jobs = Vec::new();
        for _ in 0..3 {
            jobs.push(server.submit(&job("low", 0)).await);
        }
        jobs.push(server.submit(&job("high", 100)).await);
        // What runs is stopped, so that there is a slot when the next server starts.
        server.end(Signal::SIGTERM);
        server.start_again(one()).await;
        server.all_finished(&jobs).await;
        let order = std::fs::read_to_string(cwd.join("order")).unwrap();
        assert_eq!(order.lines().next(), Some("high"), "{order}");
    }
}

#[tokio::test]
async fn the_first_answer_after_a_restart_knows_how_many_wait() {
    let count = amount("PROCESSION_QUEUED", 400);
    let most = count.to_string();
    let args = ["--max-running", "1", "--max-queued", most.as_str()];
    let server = Server::builder().args(args).start().await;
    let sleep = json!({"command": ["sleep", unique_seconds()]});
    let first = server.submit(&sleep).await;
    let batch = json!({"jobs": [with_key(&sleep, count)]});
    let batch = server.post("/batches", &batch).await;
    assert_eq!(batch.status, 201, "{batch}");
    let client = server.persistent();
    kill_now(server.server_process().unwrap());
    let info = client.ask(Method::GET, "/info", None, None).await.json();
    assert_eq!(info["jobs"]["queued"], count, "{info:#}");
    assert_eq!(info["jobs"]["running"], 1, "{info:#}");
    let refused = server.post("/jobs", &sleep).await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (429, "queue_full")
    );
    let path = format!("/jobs/counts?batch={}", id(&batch.json()));
    let counts = server.get(&path).await.json();
    let queued = counts["counts"].as_array().unwrap().iter();
    let queued = queued.filter(|it| it["state"] == "queued");
    let queued: Vec<&Value> = queued.map(|it| &it["count"]).collect();
    assert_eq!(queued, [count], "{counts:#}");
    let list = server.get("/jobs?state=queued&page_size=1000").await.json();
    let listed = usize::try_from(count.min(1000)).unwrap();
    assert_eq!(list["jobs"].as_array().unwrap().len(), listed);
    let path = format!("/batches/{}?force", id(&batch.json()));
    client.ask(Method::DELETE, &path, None, None).await;
    server.stop(&id(&first), "force").await;
}

fn with_key(job: &Value, repeat: u32) -> Value {
    let mut entry = job.clone();
    entry["key"] = json!("a");
    entry["repeat"] = json!(repeat);
    entry
}

#[tokio::test]
async fn a_queue_in_use_is_reset_by_force_only() {
    let server = Server::start().await;
    server
        .put_queue("build", &json!({"max_running": 1, "paused": true}))
        .await;
    let jobs = server
        .submit_all(3, &json!({"command": ["true"], "queue": "build"}))
        .await;
    let delete = |query: &str| server.request(Method::DELETE, &format!("/queues/build{query}"));
    let refused = server.send(delete("")).await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (409, "queue_in_use")
    );
    assert_eq!(server.send(delete("?force")).await.status, 204);
    server.all_finished(&jobs).await;
    eventually("the queue is gone", async || {
        (server.get("/queues/build").await.status == 404).then_some(())
    })
    .await;
    let gone = server.send(delete("")).await;
    assert_eq!(
        (gone.status, gone.code().as_str()),
        (404, "queue_not_found")
    );
}

#[tokio::test]
async fn settings_have_versions_and_conditions_hold() {
    let server = Server::start().await;
    let settings = json!({"max_running": 2, "rate": {"starts": 3, "per_seconds": 0.5}, "fair_by": "created_by",
        "max_queued": 7, "default_priority": -4, "pause_reason": null});
    let put = |settings: &Value, condition: Option<&str>| {
        let request = server.request(Method::PUT, "/queues/q").json(settings);
        server.send(match condition {
            Some(tag) => request.header("if-match", tag),
            None => request,
        })
    };
    let made = put(&settings, None).await;
    assert_eq!((made.status, made.header("etag")), (201, "\"1\""));
    for (name, value) in settings.as_object().unwrap() {
        assert_eq!(&made.json()[name], value);
    }
    let same = put(&settings, None).await;
    assert_eq!((same.status, same.header("etag")), (200, "\"1\""));
    let stale = put(&json!({}), Some("\"7\"")).await;
    assert_eq!(
        (stale.status, stale.code().as_str()),
        (412, "precondition_failed")
    );
    let changed = put(&json!({}), Some("\"1\"")).await;
    assert_eq!((changed.status, changed.header("etag")), (200, "\"2\""));
    assert_eq!(changed.json()["max_running"], Value::Null);
    let refused = put(&json!({"max_running": 0, "typo": 1}), None).await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (422, "invalid_body")
    );
    let list = server.get("/queues").await.json();
    assert_eq!(list["queues"].as_array().unwrap().len(), 1, "{list:#}");
    server
        .patch_queue("q", &json!({"default_priority": 9}))
        .await;
    let job = server
        .run(&json!({"command": ["true"], "queue": "q"}))
        .await;
    assert_eq!(job["spec"]["priority"], 9);
    let own = server
        .run(&json!({"command": ["true"], "queue": "q", "priority": 0}))
        .await;
    assert_eq!(own["spec"]["priority"], 0);
}

#[tokio::test]
async fn a_bounded_queue_refuses_what_it_has_no_place_for() {
    let server = Server::start().await;
    server
        .put_queue("q", &json!({"max_running": 1, "max_queued": 2}))
        .await;
    let sleep = json!({"command": ["sleep", unique_seconds()], "queue": "q"});
    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.push(server.submit(&sleep).await);
    }
    let refused = server.post("/jobs", &sleep).await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (429, "queue_full")
    );
    assert!(!refused.header("retry-after").is_empty());
    assert_eq!(
        server.run(&json!({"command": ["true"]})).await["state"],
        "succeeded"
    );
    jobs.reverse();
    for job in jobs {
        server.stop(&id(&job), "force").await;
    }
}

#[tokio::test]
async fn an_operator_may_pause_and_no_more() {
    let server = Server::start().await;
    let made = server
        .client()
        .args(["token", "create", "--name", "op", "--scope", "operate"])
        .output()
        .unwrap();
    let token = String::from_utf8(made.stdout).unwrap();
    let patch = async |patch: Value| {
        let request = server
            .anonymous(Method::PATCH, "/queues/q")
            .bearer_auth(token.trim())
            .header("content-type", "application/merge-patch+json")
            .body(patch.to_string());
        server.send(request).await
    };
    eventually("the token is known", async || {
        let reply = patch(json!({"paused": true, "pause_reason": "me"})).await;
        (reply.status == 200).then_some(())
    })
    .await;
    let refused = patch(json!({"paused": false, "max_running": 1})).await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (403, "forbidden")
    );
    assert_eq!(server.queue("q").await["paused"], true);
    let put = server
        .anonymous(Method::PUT, "/queues/q")
        .bearer_auth(token.trim())
        .json(&json!({}));
    assert_eq!(server.send(put).await.status, 403);
}

#[tokio::test]
async fn a_job_that_waits_may_move_and_get_another_weight_and_key() {
    let server = Server::start().await;
    server.put_queue("q", &json!({"paused": true})).await;
    let job = server
        .submit(&json!({"command": ["true"], "queue": "q"}))
        .await;
    server.waits_for(&job, "queue_paused").await;
    let patch = async |patch: Value| {
        let request = server
            .request(Method::PATCH, &format!("/jobs/{}", id(&job)))
            .header("content-type", "application/merge-patch+json")
            .body(patch.to_string());
        server.send(request).await
    };
    let patched = patch(json!({"weight": 2, "concurrency": {"key": "k"}})).await;
    assert_eq!(patched.status, 200, "{patched}");
    let spec = &patched.json()["spec"];
    assert_eq!(spec["weight"], 2);
    assert_eq!(
        spec["concurrency"],
        json!({"key": "k", "limit": 1, "policy": "queue"})
    );
    assert_eq!(patch(json!({"queue": "free"})).await.status, 200);
    assert_eq!(server.finished(&id(&job)).await["state"], "succeeded");
    let late = patch(json!({"weight": 1})).await;
    assert_eq!(
        (late.status, late.code().as_str()),
        (409, "job_already_finished")
    );
}

#[tokio::test]
async fn a_job_that_sleeps_in_its_queue_can_be_watched_followed_stopped_and_overdue() {
    let server = Server::start().await;
    server.put_queue("q", &json!({"paused": true})).await;
    let body = json!({"command": ["true"], "queue": "q"});
    let jobs = join_all((0..4).map(|_| server.submit(&body))).await;
    let mut late = body.clone();
    late["start_deadline_seconds"] = json!(0.3);
    let late = server.submit(&late).await;
    let end = server.finished(&id(&late)).await;
    assert_eq!(end["termination"]["cause"], "start_deadline", "{end:#}");
    let path = format!("/jobs/{}", id(&jobs[0]));
    let watched = format!("{path}?wait=30");
    let (watched, stopped) = tokio::join!(server.get(&watched), async {
        eventually("it is there", async || {
            (server.get(&path).await.status == 200).then_some(())
        })
        .await;
        server.stop(&id(&jobs[0]), "reason=enough").await
    });
    assert_eq!(watched.json()["state"], "canceled");
    assert_eq!(stopped["termination"]["reason"], "enough");
    let follow = format!("/jobs/{}/output?follow=true", id(&jobs[1]));
    let second = id(&jobs[1]);
    let (followed, _) = tokio::join!(server.get(&follow), server.stop(&second, ""));
    assert_eq!((followed.status, followed.body.len()), (200, 0));
    server.patch_queue("q", &json!({"paused": false})).await;
    for job in &jobs[2..] {
        assert_eq!(server.finished(&id(job)).await["state"], "succeeded");
    }
}

#[tokio::test]
async fn the_command_line_has_queues_and_flags_for_them() {
    let server = Server::start().await;
    let run = |args: &[&str]| cli(&server, args);
    run(&[
        "queues",
        "set",
        "build",
        "--max-running",
        "4",
        "--rate",
        "10/60s",
        "--fair-by",
        "created_by",
    ])
    .good();
    run(&["queues", "pause", "build", "--reason", "friday"]).good();
    let queue = server.queue("build").await;
    assert_eq!(queue["rate"], json!({"starts": 10, "per_seconds": 60}));
    let text = run(&["queues"]).good();
    assert!(
        text.text().contains("0/4") && text.text().contains("paused: friday"),
        "{}",
        text.text()
    );
    let job = run(&[
        "run",
        "-d",
        "--queue",
        "build",
        "--weight",
        "3",
        "--key",
        "k",
        "--on-conflict",
        "newest",
        "--",
        "true",
    ])
    .good();
    let job = job.text().trim().to_owned();
    let spec = &server.job(&job).await["spec"];
    assert_eq!(
        spec["concurrency"],
        json!({"key": "k", "limit": 1, "policy": "newest"})
    );
    let list = run(&["ps"]).good();
    assert!(
        list.text().contains("queued (queue_paused)"),
        "{}",
        list.text()
    );
    run(&["queues", "resume", "build"]).good();
    server.finished(&job).await;
    run(&["queues", "rm", "build"]).good();
    let list = run(&["queues", "--json"]).good().json();
    assert_eq!(list, json!({"queues": []}));
}

#[tokio::test]
async fn running_weights_count_against_the_service_too() {
    let server = Server::builder().args(["--max-running", "3"]).start().await;
    let job = |weight: u32| json!({"command": ["sleep", "0.1"], "weight": weight});
    let jobs = join_all([1, 2, 3, 1, 2, 3, 1].map(|weight| {
        let body = job(weight);
        let server = &server;
        async move { server.run(&body).await }
    }));
    let jobs = jobs.await;
    assert!(most_at_once(&jobs) <= 3, "{jobs:#?}");
    assert!(
        jobs.iter().all(|job| job["state"] == "succeeded"),
        "{jobs:#?}"
    );
    let refused = server.post("/jobs", &job(4)).await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (422, "invalid_spec")
    );
}
