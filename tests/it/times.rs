//! Jobs that start later, or once they are released.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::cli;
use crate::harness::{Reply, Server, bound, id, kill_now};

/// A moment so many milliseconds from now.
fn from_now(millis: i64) -> Timestamp {
    Timestamp::now() + SignedDuration::from_millis(millis)
}

fn time(job: &Value, field: &str) -> Timestamp {
    let text = job[field].as_str();
    let text = text.unwrap_or_else(|| panic!("{field}: {job:#}"));
    text.parse().unwrap()
}

/// It started at its time or after it, and no later than that.
#[track_caller]
fn assert_on_time(job: &Value, limit: Duration) {
    let late = time(job, "started_at").duration_since(time(job, "run_at"));
    let late = Duration::try_from(late).expect("not before its time");
    assert!(late < bound(limit), "{late:?}: {job:#}");
}

impl Server {
    async fn patch_job(&self, job: &Value, patch: &Value) -> Reply {
        let request = self
            .request(Method::PATCH, &format!("/jobs/{}", id(job)))
            .header("content-type", "application/merge-patch+json")
            .body(patch.to_string());
        self.send(request).await
    }

    async fn release(&self, job: &Value) -> Reply {
        self.post_nothing(&format!("/jobs/{}/release", id(job)))
            .await
    }

    pub(crate) async fn post_nothing(&self, path: &str) -> Reply {
        self.send(self.request(Method::POST, path)).await
    }

    async fn queued(&self) -> u64 {
        let info = self.get("/info").await.json();
        info["jobs"]["queued"].as_u64().unwrap()
    }
}

#[tokio::test]
async fn a_job_starts_at_its_time_and_not_before() {
    let server = Server::start().await;
    let run_at = from_now(3_600_000);
    let body = json!({"command": ["true"], "run_at": run_at.to_string()});
    let job = server.submit(&body).await;
    assert_eq!(job["state"], "queued", "{job:#}");
    assert_eq!(job["state_reason"], "waiting_for_time");
    assert_eq!(
        time(&job, "run_at").as_microsecond(),
        run_at.as_microsecond()
    );
    assert!(job["state_message"].as_str().unwrap().contains("before"));
    assert_eq!(server.queued().await, 1);
    let soon = from_now(500).to_string();
    let moved = server.patch_job(&job, &json!({"run_at": soon})).await;
    assert_eq!(moved.status, 200, "{moved}");
    let job = server.finished(&id(&job)).await;
    assert_eq!(job["state"], "succeeded", "{job:#}");
    assert_on_time(&job, Duration::from_millis(100));
    // A time that has passed is now.
    let body = json!({"command": ["true"], "run_at": "2001-01-01T01:00:00+01:00"});
    let job = server.run(&body).await;
    assert_eq!(job["state"], "succeeded", "{job:#}");
    assert_eq!(job["run_at"], "2001-01-01T00:00:00.000000Z");
    for wrong in ["tomorrow", "2027-01-01T00:00:00", "06:00", ""] {
        let body = json!({"command": ["true"], "run_at": wrong});
        let reply = server.post("/jobs", &body).await;
        assert_eq!(reply.status, 422, "{wrong}: {reply}");
        assert_eq!(reply.json()["errors"][0]["pointer"], "/run_at");
    }
}

#[tokio::test]
async fn a_held_job_starts_once_it_is_released() {
    let server = Server::start().await;
    let body = json!({"command": ["true"], "hold": true});
    let held = server.submit(&body).await;
    assert_eq!(
        (&held["state"], &held["hold"]),
        (&json!("queued"), &json!(true))
    );
    assert_eq!(held["state_reason"], "held");
    // It stands in nobody's way.
    let other = server.run_script("exit 0").await;
    assert_eq!(other["state"], "succeeded");
    assert_eq!(server.job(&id(&held)).await["state"], "queued");
    let released = server.release(&held).await;
    assert_eq!(released.status, 200, "{released}");
    assert_eq!(released.json()["hold"], false);
    assert!(released.json()["version"].as_u64() > held["version"].as_u64());
    let done = server.finished(&id(&held)).await;
    assert_eq!(done["state"], "succeeded", "{done:#}");
    // What does not wait cannot be released.
    let again = server.release(&held).await;
    assert_eq!(
        (again.status, again.code()),
        (409, "job_already_finished".to_owned())
    );
    // One that was ended before it was released will never start.
    let held = server.submit(&body).await;
    server.stop(&id(&held), "").await;
    let refused = server.release(&held).await;
    assert_eq!(
        (refused.status, refused.code()),
        (409, "job_already_finished".to_owned())
    );
    let none = server
        .post_nothing("/jobs/00000000-0000-7000-8000-000000000000/release")
        .await;
    assert_eq!(
        (none.status, none.code()),
        (404, "job_not_found".to_owned())
    );
}

#[tokio::test]
async fn a_held_job_with_a_time_waits_for_both() {
    let server = Server::start().await;
    let late = from_now(3_600_000).to_string();
    let body = json!({"command": ["true"], "hold": true, "run_at": late});
    let job = server.submit(&body).await;
    assert_eq!(job["state_reason"], "held");
    let job = server.release(&job).await.json();
    assert_eq!(
        (&job["state"], &job["state_reason"]),
        (&json!("queued"), &json!("waiting_for_time"))
    );
    let job = server
        .patch_job(&job, &json!({"run_at": null}))
        .await
        .json();
    assert_eq!(job["run_at"], Value::Null);
    assert_eq!(server.finished(&id(&job)).await["state"], "succeeded");
}

#[tokio::test]
async fn a_time_and_a_hold_change_while_the_job_is_queued() {
    let server = Server::start().await;
    let hour = from_now(3_600_000).to_string();
    let job = server
        .submit(&json!({"command": ["true"], "run_at": hour}))
        .await;
    let soon = from_now(700).to_string();
    let patched = server.patch_job(&job, &json!({"run_at": soon})).await;
    assert_eq!(patched.status, 200, "{patched}");
    let done = server.finished(&id(&job)).await;
    assert_on_time(&done, Duration::from_secs(1));
    let late = server.patch_job(&job, &json!({"run_at": hour})).await;
    assert_eq!(
        (late.status, late.code()),
        (409, "job_already_finished".to_owned())
    );
    // From a time to a hold and back, with another name at once.
    let job = server
        .submit(&json!({"command": ["sleep", "60"], "run_at": hour}))
        .await;
    let patch = json!({"hold": true, "run_at": null, "name": "later"});
    let held = server.patch_job(&job, &patch).await.json();
    assert_eq!(
        (&held["state_reason"], &held["name"]),
        (&json!("held"), &json!("later"))
    );
    let free = server.patch_job(&job, &json!({"hold": false})).await;
    assert_eq!(free.status, 200, "{free}");
    let running = server.in_state(&id(&job), "running").await;
    for patch in [json!({"hold": true}), json!({"run_at": hour})] {
        let late = server.patch_job(&running, &patch).await;
        assert_eq!(
            (late.status, late.code()),
            (409, "job_not_queued".to_owned()),
            "{patch}"
        );
    }
    let path = format!("/jobs/{}/events?follow=false&type=job.changed", id(&job));
    let events = server.get(&path).await;
    let events = String::from_utf8(events.body).unwrap();
    assert_eq!(events.matches("event: job.changed").count(), 2, "{events}");
}

#[tokio::test]
async fn a_start_deadline_counts_from_the_time_of_the_job() {
    let server = Server::start().await;
    let run_at = from_now(1500);
    // With a deadline from its creation, it would have ended before its time.
    let body =
        json!({"command": ["true"], "run_at": run_at.to_string(), "start_deadline_seconds": 0.7});
    let job = server.submit(&body).await;
    let job = server.finished(&id(&job)).await;
    assert_eq!(job["state"], "succeeded", "{job:#}");
    // It is moved with the time.
    let hour = from_now(3_600_000).to_string();
    let body =
        json!({"command": ["true"], "hold": true, "run_at": hour, "start_deadline_seconds": 0.3});
    let job = server.submit(&body).await;
    let run_at = from_now(300).to_string();
    let job = server
        .patch_job(&job, &json!({"run_at": run_at}))
        .await
        .json();
    let job = server.finished(&id(&job)).await;
    assert_eq!(job["termination"]["cause"], "start_deadline", "{job:#}");
    let ended = time(&job, "finished_at").duration_since(time(&job, "run_at"));
    assert!((300..2000).contains(&ended.as_millis()), "{job:#}");
}

#[tokio::test]
async fn what_waits_for_its_time_counts_for_the_service_and_not_for_its_queue() {
    let args = ["--max-running", "1", "--max-queued", "3"];
    let server = Server::builder().args(args).start().await;
    let queue = server.request(Method::PUT, "/queues/q");
    let queue = server
        .send(queue.json(&json!({"max_running": 1, "max_queued": 0})))
        .await;
    assert_eq!(queue.status, 201, "{queue}");
    let hour = from_now(3_600_000).to_string();
    let later = json!({"command": ["true"], "queue": "q", "run_at": hour});
    let held = json!({"command": ["true"], "queue": "q", "hold": true});
    server.submit(&later).await;
    server.submit(&held).await;
    assert_eq!(server.get("/queues/q").await.json()["queued"], 0);
    let running = server
        .submit(&json!({"command": ["sleep", "60"], "queue": "q"}))
        .await;
    server.in_state(&id(&running), "running").await;
    let full = server
        .post("/jobs", &json!({"command": ["true"], "queue": "q"}))
        .await;
    assert_eq!((full.status, full.code()), (429, "queue_full".to_owned()));
    server.submit(&later).await;
    let full = server.post("/jobs", &later).await;
    assert_eq!((full.status, full.code()), (429, "queue_full".to_owned()));
}

#[tokio::test]
async fn times_and_holds_outlive_the_server_and_the_service() {
    let mut server = Server::start().await;
    let hour = from_now(3_600_000).to_string();
    let later = server
        .submit(&json!({"command": ["true"], "run_at": hour}))
        .await;
    let held = server
        .submit(&json!({"command": ["true"], "hold": true}))
        .await;
    let free = server
        .submit(&json!({"command": ["true"], "hold": true}))
        .await;
    let missed = from_now(500).to_string();
    let missed = server
        .submit(&json!({"command": ["true"], "run_at": missed}))
        .await;
    kill_now(server.server_process().unwrap());
    let client = server.persistent();
    let read = |job: Value| {
        let client = client.clone();
        async move { client.get(&format!("/jobs/{}", id(&job))).await.json() }
    };
    assert_eq!(
        read(later.clone()).await["state_reason"],
        "waiting_for_time"
    );
    assert_eq!(read(held.clone()).await["state_reason"], "held");
    assert_eq!(client.finished(&id(&missed)).await["state"], "succeeded");
    // Released and not started, and then the service is down over a time.
    server.end(Signal::SIGTERM);
    server.start_again(Server::builder()).await;
    for (job, reason) in [
        (&later, "waiting_for_time"),
        (&held, "held"),
        (&free, "held"),
    ] {
        let job = server.job(&id(job)).await;
        assert_eq!(
            (&job["state"], &job["state_reason"]),
            (&json!("queued"), &json!(reason))
        );
    }
    assert_eq!(server.release(&free).await.status, 200);
    assert_eq!(server.finished(&id(&free)).await["state"], "succeeded");
    assert_eq!(server.queued().await, 2);
}

#[tokio::test]
async fn hundreds_of_jobs_with_one_time_start_then_and_a_killed_server_is_soon_back() {
    const JOBS: usize = 300;
    let args = ["--max-running", "4"];
    let server = Server::builder().args(args).start().await;
    let hour = from_now(3_600_000).to_string();
    let body = json!({"command": ["true"], "run_at": hour, "labels": {"of": "many"}});
    for _ in 0..JOBS / 100 {
        join_all((0..100).map(|_| server.submit(&body))).await;
    }
    assert_eq!(server.queued().await, 300);
    kill_now(server.server_process().unwrap());
    let killed = Instant::now();
    let client = server.persistent();
    let info = client.get("/info").await.json();
    let took = killed.elapsed();
    assert!(took < bound(Duration::from_secs(2)), "{took:?}");
    assert_eq!(info["jobs"]["queued"], JOBS);
    // The first of them all at one moment, and no others.
    let page = client.get("/jobs?label_selector=of%3Dmany&page_size=4&order_by=created_at%20asc");
    let jobs = page.await.json()["jobs"].as_array().unwrap().clone();
    let soon = from_now(1000).to_string();
    for job in &jobs {
        let reply = server.patch_job(job, &json!({"run_at": soon})).await;
        assert_eq!(reply.status, 200, "{reply}");
    }
    for job in &jobs {
        assert_on_time(&client.finished(&id(job)).await, Duration::from_millis(100));
    }
    assert_eq!(server.queued().await, 296);
    // And the rest at one moment: four at a time, without a pause in between.
    let page = client.get("/jobs?label_selector=of%3Dmany&state=queued&page_size=300");
    let jobs = page.await.json()["jobs"].as_array().unwrap().clone();
    assert_eq!(jobs.len(), 296);
    let soon = json!({"run_at": from_now(2000).to_string()});
    for reply in join_all(jobs.iter().map(|job| server.patch_job(job, &soon))).await {
        assert_eq!(reply.status, 200, "{reply}");
    }
    for job in &jobs {
        let job = client.finished(&id(job)).await;
        assert_eq!(job["state"], "succeeded", "{job:#}");
        assert_on_time(&job, Duration::from_secs(10));
    }
    assert_eq!(server.queued().await, 0);
}

#[tokio::test]
async fn the_command_line_starts_later_and_releases() {
    let server = Server::start().await;
    let ran = |args: &'static [&'static str]| cli(&server, args);
    let later = ran(&["run", "-d", "--at", "in 1h", "--", "true"]).good();
    let job = server.job(later.text().trim()).await;
    assert_eq!(job["state_reason"], "waiting_for_time");
    let away = time(&job, "run_at").duration_since(Timestamp::now());
    assert!((3500..=3600).contains(&away.as_secs()), "{job:#}");
    let held = ran(&["run", "-d", "--hold", "--name", "kept", "--", "true"]).good();
    let held = held.text().trim().to_owned();
    assert_eq!(server.job(&held).await["state_reason"], "held");
    let shown = ran(&["ps"]).good();
    assert!(shown.text().contains("kept"), "{shown:?}");
    ran(&["release", "kept"]).good();
    assert_eq!(server.finished(&held).await["state"], "succeeded");
    let wrong = ran(&["run", "-d", "--at", "soon", "--", "true"]);
    assert_eq!(wrong.code, Some(125), "{wrong:?}");
    assert!(wrong.stderr.contains("tomorrow 06:00"), "{wrong:?}");
}
