//! Schedules and times by a wall clock that the test sets.

use std::time::Duration;

use jiff::Timestamp;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{seconds_from_now, told};
use crate::harness::{Builder, Server, bound, eventually, id};
use crate::queues::open;

/// A wall clock that a test sets.
struct Clock {
    folder: tempfile::TempDir,
    ahead: i32,
}

impl Clock {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder, ahead: 0 }
    }

    fn builder(&self) -> Builder {
        let folder = self.folder.path().display().to_string();
        Server::builder().env("PROCESSION_FAILPOINTS", &folder)
    }

    fn forward(&mut self, seconds: i32) {
        self.ahead += seconds;
        let (file, new) = ("clock", "clock.new");
        let [file, new] = [file, new].map(|name| self.folder.path().join(name));
        std::fs::write(&new, (i64::from(self.ahead) * 1_000_000).to_string()).unwrap();
        std::fs::rename(new, file).unwrap();
    }

    /// Sets the clock to this moment.
    fn set(&mut self, moment: &str) {
        let moment: Timestamp = moment.parse().unwrap();
        let seconds = moment.duration_since(Timestamp::now()).as_secs();
        self.ahead = i32::try_from(seconds).unwrap();
        self.forward(0);
    }

    fn after(&self, seconds: f64) -> String {
        seconds_from_now(seconds + f64::from(self.ahead))
    }

    /// Has the service look at its clock, and waits until it has done what is due.
    async fn passes(&self, server: &Server, name: &str) {
        server.put_soon(name, |seconds| self.after(seconds)).await;
        server.has_run(name, 1).await;
    }
}

#[tokio::test]
async fn a_service_that_was_down_makes_up_for_what_it_missed_as_said() {
    let mut clock = Clock::new();
    let mut server = clock.builder().start().await;
    let moments: Vec<String> = (0..5)
        .map(|it| clock.after(300.0 + 0.1 * f64::from(it)))
        .collect();
    let job = json!({"command": ["true"]});
    for (name, more) in [
        ("latest", json!({})),
        ("all", json!({"missed": "all", "overlap": "allow"})),
        ("none", json!({"missed": "skip"})),
        ("narrow", json!({"missed_within_seconds": 0})),
    ] {
        let mut body = json!({"at": moments, "job": job});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let reply = server.put_schedule(name, &body).await;
        assert_eq!(reply.status, 201, "{reply}");
    }
    server.end(Signal::SIGTERM);
    clock.forward(600);
    server.start_again(clock.builder()).await;
    let latest = server.has_run("latest", 1).await;
    assert_eq!(
        (&latest["runs"], &latest["skipped"]),
        (&json!(1), &json!(1)),
        "{latest:#}"
    );
    let jobs = server.jobs_of("latest").await;
    assert_eq!(jobs[0]["schedule"]["due_at"], json!(moments[4]));
    server.has_run("all", 5).await;
    let due: Vec<Value> = server
        .jobs_of("all")
        .await
        .iter()
        .map(|it| it["schedule"]["due_at"].clone())
        .collect();
    assert_eq!(json!(due), json!(moments));
    for name in ["none", "narrow"] {
        let skipped = server.has_skipped(name, "missed").await;
        assert_eq!(
            (&skipped["runs"], &skipped["skipped"]),
            (&json!(0), &json!(1)),
            "{skipped:#}"
        );
        assert_eq!(server.jobs_of(name).await.len(), 0);
    }
}

#[tokio::test]
async fn ten_minutes_down_over_a_due_time_are_made_up_for_and_two_hours_are_not() {
    let mut clock = Clock::new();
    let mut server = clock.builder().start().await;
    let due = clock.after(300.0);
    let script = "echo $PROCESSION_DUE_AT";
    let body = json!({"at": [due, clock.after(900.0)], "job": {"script": script}});
    assert_eq!(server.put_schedule("s", &body).await.status, 201);
    let minutes: Vec<String> = (1..=5)
        .map(|it| clock.after(60.0 * f64::from(it)))
        .collect();
    let all =
        json!({"at": minutes, "missed": "all", "overlap": "allow", "job": {"command": ["true"]}});
    assert_eq!(server.put_schedule("all", &all).await.status, 201);

    server.end(Signal::SIGTERM);
    clock.forward(600);
    server.start_again(clock.builder()).await;
    let ready = std::time::Instant::now();
    server.has_run("s", 1).await;
    assert!(ready.elapsed() < bound(Duration::from_secs(1)), "{ready:?}");
    let jobs = server.jobs_of("s").await;
    assert_eq!(jobs.len(), 1, "{jobs:#?}");
    server.finished(&id(&jobs[0])).await;
    assert_eq!(server.text(&id(&jobs[0])).await, format!("{due}\n"));
    server.has_run("all", 5).await;
    let jobs = server.jobs_of("all").await;
    let made: Vec<&Value> = jobs.iter().map(|it| &it["schedule"]["due_at"]).collect();
    assert_eq!(json!(made), json!(minutes));

    server.end(Signal::SIGTERM);
    clock.forward(7200);
    server.start_again(clock.builder()).await;
    let schedule = server.has_skipped("s", "missed").await;
    assert_eq!(schedule["runs"], 1, "{schedule:#}");
    assert_eq!(server.jobs_of("s").await.len(), 1);
    let events = told(&server, "schedule.skipped", "schedule/s").await;
    assert_eq!(events.len(), 1, "{events:#?}");
    assert_eq!(events[0]["data"]["reason"], "missed");
}

#[tokio::test]
async fn a_clock_that_is_set_back_runs_nothing_twice_and_set_forward_is_as_being_down() {
    let mut clock = Clock::new();
    let server = clock.builder().start().await;
    clock.passes(&server, "once").await;
    clock.forward(-7200);
    clock.passes(&server, "back").await;
    clock.forward(7200);
    clock.passes(&server, "again").await;
    let once = server.schedule("once").await;
    assert_eq!((&once["runs"], &once["skipped"]), (&json!(1), &json!(0)));
    assert_eq!(server.jobs_of("once").await.len(), 1);

    let long_ago = json!({"at": [clock.after(1800.0)], "job": {"command": ["true"]}});
    let lately = json!({"at": [clock.after(5400.0)], "job": {"command": ["true"]}});
    for (name, body) in [("long-ago", long_ago), ("lately", lately)] {
        assert_eq!(server.put_schedule(name, &body).await.status, 201);
    }
    clock.forward(7200);
    clock.passes(&server, "forward").await;
    server.has_skipped("long-ago", "missed").await;
    server.has_run("lately", 1).await;
    assert_eq!(server.jobs_of("long-ago").await.len(), 0);
    assert_eq!(server.jobs_of("lately").await.len(), 1);
}

/// One has ended before the other was made. Some of their times are of the machine's clock, others of the one that is set.
async fn assert_in_order(server: &Server, one: &Value, other: &Value) {
    let number = async |kind, job: &Value| -> u64 {
        let events = told(server, kind, &id(job)).await;
        events[0]["id"].as_str().unwrap().parse().unwrap()
    };
    let (ended, made) = (
        number("job.finished", one).await,
        number("job.created", other).await,
    );
    assert!(ended < made, "{ended} {made}: {one:#} {other:#}");
}

#[tokio::test]
async fn a_job_that_has_not_ended_is_dealt_with_as_said() {
    let mut clock = Clock::new();
    let server = clock.builder().start().await;
    let job = json!({"command": ["sleep", "600"]});
    let moments = [60.0, 120.0, 180.0].map(|seconds| clock.after(seconds));
    for overlap in ["allow", "skip", "queue", "replace"] {
        let body = json!({"at": moments, "overlap": overlap, "job": job});
        let reply = server.put_schedule(overlap, &body).await;
        assert_eq!(reply.status, 201, "{reply}");
    }
    for runs in 1..=3 {
        clock.forward(60);
        clock.passes(&server, &format!("look-{runs}")).await;
        server.has_run("allow", runs).await;
        // What is replaced has ended before the next minute.
        server.has_run("replace", runs).await;
    }
    let replaced = server.schedule("replace").await;
    assert_eq!(replaced["skipped"], 0, "{replaced:#}");
    let jobs = server.jobs_of("replace").await;
    for pair in jobs.windows(2) {
        let old = server.finished(&id(&pair[0])).await;
        assert_eq!(
            (&old["state"], &old["termination"]["cause"]),
            (&json!("canceled"), &json!("superseded"))
        );
        assert_in_order(&server, &old, &pair[1]).await;
    }
    server.in_state(&id(&jobs[2]), "running").await;
    server.stop(&id(&jobs[2]), "force=true").await;
    let skipped = eventually("two are skipped", async || {
        let schedule = server.schedule("skip").await;
        (schedule["skipped"] == 2).then_some(schedule)
    })
    .await;
    assert_eq!(
        (&skipped["runs"], &skipped["last"]["reason"]),
        (&json!(1), &json!("overlap"))
    );
    // Of two one waits, and only until the first has ended.
    let queued = server.has_skipped("queue", "overlap").await;
    assert_eq!(
        (&queued["runs"], &queued["skipped"]),
        (&json!(1), &json!(1)),
        "{queued:#}"
    );
    let first = server.jobs_of("queue").await.remove(0);
    server.stop(&id(&first), "force=true").await;
    server.has_run("queue", 2).await;
    let jobs = server.jobs_of("queue").await;
    assert_eq!(jobs.len(), 2);
    assert_in_order(&server, &first, &jobs[1]).await;
    assert_eq!(server.schedule("queue").await["skipped"], 1);
}

/// A run of 90 seconds every minute: it begins at 0, 2 and 4.
#[tokio::test]
async fn what_takes_longer_than_a_minute_runs_every_other_minute() {
    let mut clock = Clock::new();
    let server = clock.builder().start().await;
    let cwd = server.scratch();
    let minutes: Vec<String> = (1..=5)
        .map(|it| clock.after(60.0 * f64::from(it)))
        .collect();
    let script = "rm -f gate; mkfifo gate; echo ready; read _ < gate";
    let body = json!({"at": minutes, "overlap": "skip", "job": {"script": script, "cwd": cwd}});
    assert_eq!(server.put_schedule("s", &body).await.status, 201);
    for (minute, due) in minutes.iter().enumerate() {
        clock.forward(60);
        clock.passes(&server, &format!("look-{minute}")).await;
        eventually("the minute is dealt with", async || {
            let last = server.schedule("s").await["last"]["due_at"].clone();
            (last == due.as_str()).then_some(())
        })
        .await;
        // After one was left out, the run ends.
        let last = id(&server.jobs_of("s").await.pop().unwrap());
        server.says(&last, "ready").await;
        if minute % 2 == 1 {
            open(&cwd, "gate");
            server.finished(&last).await;
        }
    }
    let schedule = server.schedule("s").await;
    assert_eq!(
        (&schedule["runs"], &schedule["skipped"]),
        (&json!(3), &json!(2)),
        "{schedule:#}"
    );
    let jobs = server.jobs_of("s").await;
    let due: Vec<&Value> = jobs.iter().map(|it| &it["schedule"]["due_at"]).collect();
    assert_eq!(json!(due), json!([minutes[0], minutes[2], minutes[4]]));
    let events = told(&server, "schedule.skipped", "schedule/s").await;
    let skipped: Vec<Value> = events
        .iter()
        .map(|it| json!([it["data"]["due_at"], it["data"]["reason"]]))
        .collect();
    let expected = json!([[minutes[1], "overlap"], [minutes[3], "overlap"]]);
    assert_eq!(json!(skipped), expected, "{events:#?}");
    open(&cwd, "gate");
    server.finished(&id(&jobs[2])).await;
}

#[tokio::test]
async fn a_clock_that_is_set_forward_starts_what_waits_for_its_time() {
    let mut clock = Clock::new();
    let server = clock.builder().start().await;
    let body = json!({"command": ["true"], "run_at": clock.after(3600.0)});
    let job = server.submit(&body).await;
    assert_eq!(job["state_reason"], "waiting_for_time", "{job:#}");
    clock.forward(7200);
    // It looks at the clock once a minute, and with each new job: what has a time of its own is not late for that.
    let soon = json!({"command": ["true"], "run_at": clock.after(0.2)});
    let soon = server.run(&soon).await;
    assert_eq!(soon["state"], "succeeded", "{soon:#}");
    let job = server.finished(&id(&job)).await;
    assert_eq!(job["state"], "succeeded", "{job:#}");
}

#[tokio::test]
async fn a_record_that_has_expired_is_nothing_to_depend_on() {
    let mut clock = Clock::new();
    let server = clock.builder().start().await;
    let body = json!({"command": ["true"], "ttl_seconds_after_finished": 60});
    let target = id(&server.run(&body).await);
    let after = json!({"command": ["true"], "depends_on": [{"job": target, "on": "finished"}]});
    let job = server.submit(&after).await;
    assert_eq!(server.finished(&id(&job)).await["state"], "succeeded");
    clock.forward(61);
    eventually("the record expires", async || {
        let reply = server.get(&format!("/jobs/{target}")).await;
        (reply.status == 404).then_some(())
    })
    .await;
    let refused = server.post("/jobs", &after).await;
    let error = refused.json()["errors"][0].clone();
    assert_eq!(
        (refused.status, &error["pointer"], &error["code"]),
        (422, &json!("/depends_on/0"), &json!("no_such_job")),
        "{refused}"
    );
}

/// The table of docs/schedules.md, as jobs: two hours of each night, ten minutes at a time.
async fn has_the_jobs_of_the_table(day: &str, daily: &[&str]) {
    let mut clock = Clock::new();
    clock.set(&format!("{day}T00:20:00Z"));
    let server = clock.builder().start().await;
    let quarters = [
        "00:30", "00:45", "01:00", "01:15", "01:30", "01:45", "02:00", "02:15",
    ];
    let midnight = format!("{day}T00:00:00Z");
    let lines = [
        ("daily", json!({"cron": "30 2 * * *"}), daily),
        (
            "hourly",
            json!({"cron": "0 * * * *"}),
            &["01:00", "02:00"][..],
        ),
        ("quarters", json!({"cron": "*/15 * * * *"}), &quarters[..]),
        (
            "elapsed",
            json!({"every_seconds": 7200, "starts_at": midnight}),
            &["02:00"][..],
        ),
    ];
    for (name, when, _) in &lines {
        let mut body =
            json!({"time_zone": "Europe/Berlin", "overlap": "allow", "job": {"command": ["true"]}});
        body.as_object_mut()
            .unwrap()
            .extend(when.as_object().unwrap().clone());
        let reply = server.put_schedule(name, &body).await;
        assert_eq!(reply.status, 201, "{reply}");
    }
    for number in 0..12 {
        clock.forward(600);
        clock.passes(&server, &format!("look-{number}")).await;
    }
    for (name, _, moments) in lines {
        let due = moments.iter().map(|it| format!("{day}T{it}:00.000000Z"));
        let due: Vec<String> = due.collect();
        let last = u64::try_from(due.len()).unwrap();
        server.has_run(name, last).await;
        let jobs = server.jobs_of(name).await;
        let made: Vec<&Value> = jobs.iter().map(|it| &it["schedule"]["due_at"]).collect();
        assert_eq!(json!(made), json!(due), "{name}");
        assert_eq!(server.schedule(name).await["skipped"], 0, "{name}");
    }
}

#[tokio::test]
async fn in_the_night_with_the_gap_each_line_makes_the_jobs_of_the_table() {
    // 02:30 does not exist: 03:00+02:00.
    has_the_jobs_of_the_table("2027-03-28", &["01:00"]).await;
}

#[tokio::test]
async fn in_the_night_with_the_hour_twice_each_line_makes_the_jobs_of_the_table() {
    // The first of the two: 02:30+02:00.
    has_the_jobs_of_the_table("2027-10-31", &["00:30"]).await;
}
