//! Schedules: jobs that are made again and again, once for each due time.

mod clocks;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::cli;
use crate::harness::{LONG, Reply, Server, amount, bound, eventually, id, kill_now};

impl Server {
    pub(crate) async fn put_schedule(&self, name: &str, body: &Value) -> Reply {
        let request = self.request(Method::PUT, &format!("/schedules/{name}"));
        self.send(request.json(body)).await
    }

    async fn patch_schedule(&self, name: &str, patch: &Value) -> Value {
        let request = self
            .request(Method::PATCH, &format!("/schedules/{name}"))
            .header("content-type", "application/merge-patch+json")
            .body(patch.to_string());
        let reply = self.send(request).await;
        assert_eq!(reply.status, 200, "{reply}");
        reply.json()
    }

    async fn schedule(&self, name: &str) -> Value {
        let reply = self.get(&format!("/schedules/{name}")).await;
        assert_eq!(reply.status, 200, "{reply}");
        reply.json()
    }

    /// Sets up a schedule that is due in a moment, by the clock of this `moment`, and gives when. If that has passed when the
    /// service hears of it, which says so, it is set again.
    async fn put_soon(&self, name: &str, moment: impl Fn(f64) -> String) -> String {
        let mut seconds = 0.2;
        loop {
            let due = moment(seconds);
            let body = json!({"at": [due], "job": {"command": ["true"]}});
            let reply = self.put_schedule(name, &body).await;
            assert!([200, 201].contains(&reply.status), "{reply}");
            if !reply.json()["next_due_at"].is_null() {
                return due;
            }
            assert!(moment(0.0) > due, "it has not passed: {reply}");
            seconds *= 2.0;
        }
    }

    /// The jobs of a schedule, oldest first.
    async fn jobs_of(&self, name: &str) -> Vec<Value> {
        let path = format!("/jobs?schedule={name}&page_size=1000&order_by=created_at%20asc");
        let reply = self.get(&path).await;
        assert_eq!(reply.status, 200, "{reply}");
        reply.json()["jobs"].as_array().unwrap().clone()
    }

    /// Waits until a schedule has made so many jobs.
    async fn has_run(&self, name: &str, runs: u64) -> Value {
        eventually(&format!("{name} has run {runs} times"), async || {
            let schedule = self.schedule(name).await;
            (schedule["runs"].as_u64().unwrap() >= runs).then_some(schedule)
        })
        .await
    }

    async fn has_skipped(&self, name: &str, reason: &str) -> Value {
        eventually(&format!("{name} has skipped: {reason}"), async || {
            let schedule = self.schedule(name).await;
            (schedule["last"]["reason"] == reason).then_some(schedule)
        })
        .await
    }
}

fn seconds_from_now(seconds: f64) -> String {
    let micros = SignedDuration::from_secs_f64(seconds);
    let at = Timestamp::now() + micros;
    // What is stored has microseconds.
    format!(
        "{:.6}",
        Timestamp::from_microsecond(at.as_microsecond()).unwrap()
    )
}

fn time(value: &Value) -> Timestamp {
    let text = value.as_str().unwrap_or_else(|| panic!("no time: {value}"));
    text.parse().unwrap()
}

#[tokio::test]
async fn each_due_time_makes_one_job_that_knows_it() {
    let server = Server::start().await;
    let (first, second) = (seconds_from_now(3.0), seconds_from_now(4.0));
    let script = "echo $PROCESSION_SCHEDULE $PROCESSION_DUE_AT";
    let body = json!({"at": [second, first], "job": {"script": script, "name": "n"}});
    let made = server.put_schedule("twice", &body).await;
    assert_eq!(made.status, 201, "{made}");
    assert_eq!(made.header("location"), "/schedules/twice");
    let made = made.json();
    assert_eq!(made["at"], json!([first, second]));
    assert_eq!(time(&made["next_due_at"]), time(&json!(first)));
    let schedule = server.has_run("twice", 2).await;
    assert_eq!(
        (&schedule["next_due_at"], &schedule["skipped"]),
        (&Value::Null, &json!(0))
    );
    let jobs = server.jobs_of("twice").await;
    assert_eq!(jobs.len(), 2, "{jobs:#?}");
    assert_eq!(schedule["last"]["job_id"], jobs[1]["id"]);
    for (job, due) in jobs.iter().zip([&first, &second]) {
        let job = server.finished(&id(job)).await;
        assert_eq!(job["schedule"], json!({"name": "twice", "due_at": due}));
        assert_eq!(job["created_by"], "schedule:twice");
        assert_eq!(server.text(&id(&job)).await, format!("twice {due}\n"));
        let late = time(&job["created_at"]).duration_since(time(&json!(due)));
        let late = Duration::try_from(late).expect("not before its time");
        assert!(late < bound(Duration::from_secs(1)), "{late:?}");
    }
    let success = server.schedule("twice").await["last_success_at"].clone();
    let last = server.job(&id(&jobs[1])).await;
    assert_eq!(success, last["finished_at"]);
    let counts = server.get("/jobs/counts?schedule=twice").await.json();
    let done = counts["counts"].as_array().unwrap().iter();
    assert!(
        done.clone()
            .any(|it| it["state"] == "succeeded" && it["count"] == 2)
    );
}

#[tokio::test]
async fn a_schedule_that_is_set_again_stays_and_another_one_counts_from_now() {
    let server = Server::start().await;
    let hourly = json!({"every_seconds": 3600, "job": {"command": ["true"], "secret_env": {"A": "hunter2"},
        "webhooks": []}, "labels": {"of": "me"}});
    let first = server.put_schedule("s", &hourly).await;
    assert_eq!((first.status, first.header("etag")), (201, "\"1\""));
    assert!(!String::from_utf8_lossy(&first.body).contains("hunter2"));
    assert_eq!(first.json()["job"]["secret_env"], json!({"A": null}));
    let again = server.put_schedule("s", &hourly).await;
    assert_eq!(
        (again.status, again.json()["version"].clone()),
        (200, json!(1))
    );
    assert_eq!(again.json()["next_due_at"], first.json()["next_due_at"]);
    let daily = json!({"cron": "@daily", "job": {"command": ["true"]}});
    let other = server.put_schedule("s", &daily).await.json();
    assert_eq!(
        (&other["version"], &other["every_seconds"]),
        (&json!(2), &Value::Null)
    );
    assert!(time(&other["next_due_at"]) > Timestamp::now());
    // Conditions.
    let with = |header: &'static str, value: &'static str| {
        server
            .request(Method::PUT, "/schedules/s")
            .header(header, value)
            .json(&hourly)
    };
    for (header, value, status) in [
        ("if-match", "\"1\"", 412),
        ("if-none-match", "*", 412),
        ("if-match", "\"2\"", 200),
    ] {
        let reply = server.send(with(header, value)).await;
        assert_eq!(reply.status, status, "{header}: {reply}");
    }
    let listed = server.get("/schedules").await.json();
    assert_eq!(listed["schedules"][0]["name"], "s");
    let gone = server
        .send(server.request(Method::DELETE, "/schedules/s"))
        .await;
    assert_eq!(gone.status, 204, "{gone}");
    let none = server.get("/schedules/s").await;
    assert_eq!(
        (none.status, none.code()),
        (404, "schedule_not_found".to_owned())
    );
    assert_eq!(
        server.get("/schedules").await.json(),
        json!({"schedules": []})
    );
}

#[tokio::test]
async fn what_is_wrong_is_refused_where_it_is() {
    let server = Server::start().await;
    let job = json!({"command": ["true"]});
    for (body, pointer) in [
        (
            json!({"cron": "@daily", "time_zone": "Mars/Base", "job": job}),
            "/time_zone",
        ),
        (json!({"cron": "61 * * * *", "job": job}), "/cron"),
        (json!({"cron": "30 2 30 2 *", "job": job}), "/cron"),
        (
            json!({"cron": "@daily", "job": {"comand": ["x"], "command": ["x"]}}),
            "/job/comand",
        ),
        (json!({"cron": "@daily", "job": {}}), "/job/command"),
    ] {
        let reply = server.put_schedule("s", &body).await;
        assert_eq!(
            (reply.status, reply.code()),
            (422, "invalid_body".to_owned()),
            "{reply}"
        );
        assert_eq!(reply.json()["errors"][0]["pointer"], pointer, "{reply}");
    }
    let request = server.request(Method::PUT, "/schedules/s?validate_only=true");
    let body = json!({"cron": "30 2 * * *", "time_zone": "Europe/Berlin", "job": job});
    let valid = server.send(request.json(&body)).await;
    assert_eq!(
        (
            valid.status,
            valid.json()["times"].as_array().unwrap().len()
        ),
        (200, 10)
    );
    assert_eq!(
        server.get("/schedules").await.json(),
        json!({"schedules": []})
    );
}

#[tokio::test]
async fn times_are_shown_with_their_offsets_over_the_nights_when_clocks_change() {
    let server = Server::start().await;
    let times = async |when: Value, after: &str, count: u32| {
        let mut body = json!({"time_zone": "Europe/Berlin", "after": after, "count": count});
        body.as_object_mut()
            .unwrap()
            .extend(when.as_object().unwrap().clone());
        let reply = server.post("/schedules/times", &body).await;
        assert_eq!(reply.status, 200, "{reply}");
        let times = reply.json()["times"].clone();
        let times = times.as_array().unwrap().iter();
        times
            .map(|it| it.as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let spring = times(
        json!({"cron": "30 2 * * *"}),
        "2027-03-27T12:00:00+01:00",
        2,
    )
    .await;
    assert_eq!(
        spring,
        ["2027-03-28T03:00:00+02:00", "2027-03-29T02:30:00+02:00"]
    );
    let autumn = times(
        json!({"cron": "30 2 * * *"}),
        "2027-10-30T12:00:00+02:00",
        2,
    )
    .await;
    assert_eq!(
        autumn,
        ["2027-10-31T02:30:00+02:00", "2027-11-01T02:30:00+01:00"]
    );
    let hours = times(json!({"cron": "0 * * * *"}), "2027-10-31T01:30:00+02:00", 3).await;
    let expected = [
        "2027-10-31T02:00:00+02:00",
        "2027-10-31T02:00:00+01:00",
        "2027-10-31T03:00:00+01:00",
    ];
    assert_eq!(hours, expected);
    let body =
        json!({"cron": "0 3 * * *", "time_zone": "Asia/Tokyo", "job": {"command": ["true"]}});
    server.put_schedule("tokyo", &body).await;
    let shown = server
        .get("/schedules/tokyo/times?count=3&after=2027-01-01T00:00:00Z")
        .await;
    let first = shown.json()["times"][0].clone();
    assert_eq!(
        (first, shown.json()["times"].as_array().unwrap().len()),
        (json!("2027-01-02T03:00:00+09:00"), 3)
    );
}

#[tokio::test]
async fn a_run_by_hand_works_while_paused_and_moves_nothing() {
    let server = Server::start().await;
    let body = json!({"every_seconds": 3600, "paused": true, "job": {"script": "echo $A$PROCESSION_DUE_AT", "env": {"A": "a"}}});
    server.put_schedule("s", &body).await;
    assert_eq!(server.schedule("s").await["next_due_at"], Value::Null);
    let run = server
        .send(server.request(Method::POST, "/schedules/s/run?wait=30"))
        .await;
    assert_eq!(run.status, 201, "{run}");
    let job = run.json();
    assert_eq!(job["schedule"], json!({"name": "s", "due_at": null}));
    assert_eq!(server.text(&id(&job)).await, "a\n");
    let request = server
        .request(Method::POST, "/schedules/s/run?wait=30")
        .header("content-type", "application/merge-patch+json")
        .body(r#"{"env": {"A": "b"}}"#);
    let job = server.send(request).await.json();
    assert_eq!(server.text(&id(&job)).await, "b\n");
    let resumed = server.patch_schedule("s", &json!({"paused": false})).await;
    let due = time(&resumed["next_due_at"]);
    let run = server
        .send(server.request(Method::POST, "/schedules/s/run"))
        .await;
    assert_eq!(run.status, 201, "{run}");
    let after = server.schedule("s").await;
    assert_eq!(
        (time(&after["next_due_at"]), &after["runs"]),
        (due, &json!(0))
    );
    assert_eq!(server.jobs_of("s").await.len(), 3);
}

#[tokio::test]
async fn a_pause_over_a_due_time_makes_no_job_and_nothing_is_made_up_for() {
    let server = Server::start().await;
    let due = seconds_from_now(1.0);
    let body = json!({"at": [due, seconds_from_now(3600.0)], "paused": true, "job": {"command": ["true"]}});
    server.put_schedule("s", &body).await;
    let later = |seconds| seconds_from_now(1.0 + seconds);
    server.put_soon("witness", later).await;
    server.has_run("witness", 1).await;
    let resumed = server.patch_schedule("s", &json!({"paused": false})).await;
    assert!(time(&resumed["next_due_at"]) > Timestamp::now());
    server.put_soon("third", seconds_from_now).await;
    server.has_run("third", 1).await;
    let schedule = server.schedule("s").await;
    assert_eq!(
        (&schedule["runs"], &schedule["skipped"], &schedule["last"]),
        (&json!(0), &json!(0), &Value::Null)
    );
}

#[tokio::test]
async fn a_drain_over_a_due_time_is_made_up_for_afterwards() {
    let server = Server::start().await;
    let drained = server.send(server.request(Method::POST, "/drain")).await;
    assert_eq!(drained.status, 202, "{drained}");
    let due = server.put_soon("s", seconds_from_now).await;
    let witness = time(&json!(due)) + SignedDuration::from_secs(1);
    tokio::time::timeout(LONG, async {
        while Timestamp::now() < witness {
            server.get("/readyz").await;
        }
    })
    .await
    .unwrap();
    assert_eq!(server.schedule("s").await["runs"], 0);
    server.send(server.request(Method::DELETE, "/drain")).await;
    let schedule = server.has_run("s", 1).await;
    assert_eq!(
        (&schedule["skipped"], &schedule["last"]["outcome"]),
        (&json!(0), &json!("started"))
    );
}

#[tokio::test]
async fn a_server_that_is_killed_again_and_again_makes_one_job_for_each_due_time() {
    let server = Server::start().await;
    let moments: Vec<String> = (0..amount("PROCESSION_SCHEDULE_KILLS", 12))
        .map(|it| seconds_from_now(3.0 + 0.5 * f64::from(it)))
        .collect();
    let body =
        json!({"at": moments, "missed": "all", "overlap": "allow", "job": {"command": ["true"]}});
    let reply = server.put_schedule("s", &body).await;
    assert_eq!(reply.status, 201, "{reply}");
    let client = server.persistent();
    for moment in &moments {
        // About when it is due, a little earlier or later each time.
        while Timestamp::now() < time(&json!(moment)) {
            client.get("/healthz").await;
        }
        if let Some(pid) = server.server_process() {
            kill_now(pid);
        }
    }
    let count = moments.len();
    let jobs = eventually("all have been made", async || {
        let path = "/jobs?schedule=s&page_size=1000&order_by=created_at%20asc";
        let reply = client.get(path).await;
        let jobs = reply.json()["jobs"].as_array()?.clone();
        (jobs.len() >= count).then_some(jobs)
    })
    .await;
    let mut due: Vec<String> = jobs
        .iter()
        .map(|it| it["schedule"]["due_at"].as_str().unwrap().to_owned())
        .collect();
    due.sort();
    assert_eq!(due, moments);
    for job in jobs {
        client.finished(&id(&job)).await;
    }
}

#[tokio::test]
async fn a_template_that_is_gone_makes_no_job() {
    let mut server = Server::start().await;
    server.end(Signal::SIGTERM);
    let policy = server.scratch().join("policy.toml");
    let template = |name: &str| format!("[template.{name}]\ncommand = [\"/bin/true\"]\n");
    std::fs::write(&policy, template("ok")).unwrap();
    let builder = || Server::builder().args(["--policy".to_owned(), policy.display().to_string()]);
    server.start_again(builder()).await;
    let body = json!({"every_seconds": 1, "job": {"template": "ok"}});
    let reply = server.put_schedule("s", &body).await;
    assert_eq!(reply.status, 201, "{reply}");
    let own = json!({"every_seconds": 1, "job": {"command": ["/bin/true"]}});
    let forbidden = server.put_schedule("own", &own).await;
    assert_eq!(
        (forbidden.status, forbidden.code()),
        (403, "policy_forbids".to_owned())
    );
    server.has_run("s", 1).await;
    server.end(Signal::SIGTERM);
    std::fs::write(&policy, template("other")).unwrap();
    server.start_again(builder()).await;
    server.has_skipped("s", "policy_forbids").await;
    eventually("it is skipped again", async || {
        let schedule = server.schedule("s").await;
        (schedule["skipped"].as_u64().unwrap() >= 2).then_some(())
    })
    .await;
    let log = server.log();
    assert_eq!(log.matches("schedule s makes no job").count(), 1, "{log}");
}

#[tokio::test]
async fn the_command_line_sets_shows_and_removes_schedules() {
    let server = Server::start().await;
    let ran = |args: &[&str]| cli(&server, args);
    let set = [
        "schedule",
        "set",
        "nightly",
        "--cron",
        "0 3 * * *",
        "--zone",
        "Europe/Berlin",
        "--overlap",
        "queue",
        "--",
        "true",
    ];
    ran(&set).good();
    let schedule = server.schedule("nightly").await;
    assert_eq!(
        (&schedule["cron"], &schedule["overlap"]),
        (&json!("0 3 * * *"), &json!("queue"))
    );
    assert_eq!(schedule["job"]["command"], json!(["true"]));
    let shown = ran(&["schedules"]).good();
    assert!(
        shown.text().contains("nightly") && shown.text().contains("0 3 * * * Europe/Berlin"),
        "{shown:?}"
    );
    let times = ran(&["schedule", "times", "-n", "3", "nightly"]).good();
    assert_eq!(
        times
            .text()
            .lines()
            .filter(|it| it.contains("T03:00:00+0"))
            .count(),
        3,
        "{times:?}"
    );
    ran(&["schedule", "pause", "nightly"]).good();
    assert!(ran(&["schedules"]).good().text().contains("paused"));
    let job = ran(&["schedule", "run", "nightly"]).good();
    assert_eq!(
        server.finished(job.text().trim()).await["state"],
        "succeeded"
    );
    ran(&["schedule", "resume", "nightly"]).good();
    assert_eq!(server.schedule("nightly").await["paused"], false);
    ran(&["schedule", "rm", "nightly"]).good();
    assert_eq!(server.get("/schedules/nightly").await.status, 404);
    // A crontab.
    let file = server.scratch().join("my.tab");
    std::fs::write(
        &file,
        "CRON_TZ=Asia/Tokyo\n@reboot x\n5 4 * * * echo hello\n",
    )
    .unwrap();
    let import = ran(&["crontab", "import", file.to_str().unwrap()]);
    assert_eq!(
        (import.code, import.text()),
        (Some(1), "my-tab-3\n"),
        "{import:?}"
    );
    assert!(import.stderr.contains("line 2: @reboot"), "{import:?}");
    let schedule = server.schedule("my-tab-3").await;
    assert_eq!(
        (&schedule["cron"], &schedule["time_zone"]),
        (&json!("5 4 * * *"), &json!("Asia/Tokyo"))
    );
}

#[tokio::test]
async fn the_crontab_of_the_system_is_imported_with_its_users() {
    let server = Server::start().await;
    let me = nix::unistd::User::from_uid(nix::unistd::geteuid());
    let me = me.unwrap().unwrap().name;
    let file = server.scratch().join("crontab");
    let text = format!(
        "SHELL=/bin/sh\n\n17 *\t* * *\t{me}\tcd / && true\n47 6\t* * 7\t{me}\ttest -x /usr/sbin/anacron || true\n@reboot {me} x\n"
    );
    std::fs::write(&file, text).unwrap();
    let import = ["crontab", "import", "--system", file.to_str().unwrap()];
    let import = cli(&server, &import);
    assert_eq!(
        (import.code, import.text()),
        (Some(1), "crontab-3\ncrontab-4\n"),
        "{import:?}"
    );
    assert!(import.stderr.contains("line 5: @reboot"), "{import:?}");
    let hourly = server.schedule("crontab-3").await;
    assert_eq!(
        (
            &hourly["cron"],
            &hourly["job"]["user"],
            &hourly["job"]["script"]
        ),
        (&json!("17 * * * *"), &json!(me), &json!("cd / && true"))
    );
    assert_eq!(server.schedule("crontab-4").await["cron"], "47 6 * * 7");
}

/// The events of this kind with this subject.
async fn told(server: &Server, kind: &str, subject: &str) -> Vec<Value> {
    let request = server.request(Method::GET, &format!("/events?follow=false&type={kind}"));
    let reply = server
        .send(request.header("accept", "application/x-ndjson"))
        .await;
    assert_eq!(reply.status, 200, "{reply}");
    let text = String::from_utf8(reply.body).unwrap();
    let events = text.lines().map(|it| serde_json::from_str(it).unwrap());
    events
        .filter(|it: &Value| it["subject"] == subject)
        .collect()
}

#[tokio::test]
async fn what_schedules_and_queues_do_are_events() {
    let server = Server::start().await;
    let moments = [3.0, 3.5].map(seconds_from_now);
    let body =
        json!({"at": moments, "labels": {"team": "data"}, "job": {"command": ["sleep", "600"]}});
    assert_eq!(server.put_schedule("s", &body).await.status, 201);
    let skipped = server.has_skipped("s", "overlap").await;
    server.patch_schedule("s", &json!({"paused": true})).await;
    let run = server
        .send(server.request(Method::POST, "/schedules/s/run"))
        .await;
    let by_hand = id(&run.json());
    let gone = server
        .send(server.request(Method::DELETE, "/schedules/s"))
        .await;
    assert_eq!(gone.status, 204, "{gone}");
    let changed = told(&server, "schedule.changed", "schedule/s").await;
    let versions: Vec<&Value> = changed.iter().map(|it| &it["data"]["version"]).collect();
    assert_eq!(versions, [1, 2, 0], "{changed:#?}");
    assert_eq!(changed[0]["data"]["labels"], json!({"team": "data"}));
    assert_eq!(changed[0]["data"]["name"], "s");
    let started = told(&server, "schedule.started", "schedule/s").await;
    let jobs = server.jobs_of("s").await;
    let expected = json!([[moments[0], jobs[0]["id"]], [null, by_hand]]);
    let found = started
        .iter()
        .map(|it| json!([it["data"]["due_at"], it["data"]["job_id"]]));
    assert_eq!(json!(found.collect::<Vec<_>>()), expected, "{started:#?}");
    let events = told(&server, "schedule.skipped", "schedule/s").await;
    assert_eq!(events.len(), 1, "{events:#?}");
    assert_eq!(
        (&events[0]["data"]["due_at"], &events[0]["data"]["reason"]),
        (&skipped["last"]["due_at"], &json!("overlap"))
    );

    for body in [json!({"max_running": 2}), json!({"max_running": 2})] {
        let request = server.request(Method::PUT, "/queues/build").json(&body);
        assert!(server.send(request).await.status < 300);
    }
    let request = server.request(Method::PATCH, "/queues/build");
    let request = request.header("content-type", "application/merge-patch+json");
    let reply = server.send(request.body(r#"{"paused": true}"#)).await;
    assert_eq!(reply.status, 200, "{reply}");
    let gone = server
        .send(server.request(Method::DELETE, "/queues/build"))
        .await;
    assert_eq!(gone.status, 204, "{gone}");
    let changed = told(&server, "queue.changed", "queue/build").await;
    let versions: Vec<&Value> = changed.iter().map(|it| &it["data"]["version"]).collect();
    assert_eq!(versions, [1, 2, 0], "{changed:#?}");
    for job in jobs {
        server.stop(&id(&job), "force").await;
    }
}

#[tokio::test]
async fn a_schedule_outlives_its_token_and_the_revocation_names_it() {
    let server = Server::start().await;
    for token in ["ci", "night"] {
        let made = server
            .post("/tokens", &json!({"name": token, "scope": "operate"}))
            .await;
        let secret = made.json()["token"].as_str().unwrap().to_owned();
        let body = json!({"every_seconds": 3600, "job": {"command": ["true"]}});
        let request = server
            .anonymous(Method::PUT, &format!("/schedules/of-{token}"))
            .bearer_auth(secret);
        let reply = server.send(request.json(&body)).await;
        assert_eq!(reply.status, 201, "{reply}");
    }
    let revoked = server
        .send(server.request(Method::DELETE, "/tokens/ci"))
        .await;
    assert_eq!(
        (revoked.status, revoked.json()),
        (200, json!({"name": "ci", "schedules": ["of-ci"]}))
    );
    let mut command = server.client();
    let done = command.args(["token", "revoke", "night"]).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{said}");
    assert!(said.contains("continue: of-night\n"), "{said}");
    for name in ["of-ci", "of-night"] {
        assert!(server.schedule(name).await["next_due_at"].is_string());
    }
}
