//! A job that fails is tried again: as one job, with one log, once for each attempt, whoever dies meanwhile.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{
    Builder, Reply, Server, amount, binary, bound, eventually, id, kill_now, processes_with,
    unique_seconds,
};

const NDJSON: &str = "application/x-ndjson";
const PATCH: &str = "application/merge-patch+json";

/// So long that no attempt follows within a test.
const LONG_PAUSE: u32 = 86_400;

/// No pause to speak of.
fn at_once(max_attempts: u32) -> Value {
    json!({"max_attempts": max_attempts, "backoff": {"initial_seconds": 0}})
}

fn after_a_long_pause(max_attempts: u32) -> Value {
    json!({"max_attempts": max_attempts, "backoff": {"initial_seconds": LONG_PAUSE}})
}

/// Fails with 75 up to this attempt, and says which one it is.
fn failing_before(attempt: u32) -> String {
    format!(
        "echo attempt $PROCESSION_ATTEMPT of $PROCESSION_MAX_ATTEMPTS; \
         [ $PROCESSION_ATTEMPT -ge {attempt} ] || exit 75"
    )
}

async fn records(server: &Server, path: &str) -> Vec<Value> {
    let request = server.request(Method::GET, path).header("accept", NDJSON);
    let reply = server.send(request).await;
    assert_eq!(reply.status, 200, "{reply}");
    let text = String::from_utf8(reply.body).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

async fn kinds(server: &Server, id: &str) -> Vec<String> {
    let events = records(server, &format!("/jobs/{id}/events")).await;
    let kinds = events.iter().map(|event| event["type"].as_str().unwrap());
    kinds.map(|kind| kind.replace("job.", "")).collect()
}

/// The job once an attempt has ended and the next has not begun.
async fn in_pause(server: &Server, id: &str) -> Value {
    let mut job = server.job(id).await;
    while job["next_attempt_at"].is_null() {
        assert!(job["finished_at"].is_null(), "it has ended: {job:#}");
        let version = &job["version"];
        let path = format!("/jobs/{id}?wait=30&until=change&after_version={version}");
        job = server.get(&path).await.json();
    }
    job
}

async fn patch(server: &Server, id: &str, body: &Value) -> Reply {
    let request = server.request(Method::PATCH, &format!("/jobs/{id}"));
    let request = request.header("content-type", PATCH);
    server.send(request.body(body.to_string())).await
}

fn exits(job: &Value) -> Vec<Option<u64>> {
    let attempts = job["attempts"].as_array().unwrap().iter();
    attempts.map(|it| it["exit"]["code"].as_u64()).collect()
}

fn micros(time: &Value) -> i64 {
    let time: job::time::Timestamp = time.as_str().unwrap().parse().unwrap();
    time.as_micros()
}

#[tokio::test]
async fn a_job_is_tried_again_until_it_succeeds_as_one_job_with_one_log() {
    let server = Server::start().await;
    let retry =
        json!({"max_attempts": 5, "exit_codes": [75], "backoff": {"initial_seconds": 0.01}});
    let body = json!({"script": failing_before(3), "retry": retry});
    let job = server.run(&body).await;
    assert_eq!(job["state"], "succeeded", "{job:#}");
    assert_eq!(job["attempt"], 3, "{job:#}");
    assert_eq!(exits(&job), [Some(75), Some(75), Some(0)], "{job:#}");
    assert_eq!(job["started_at"], job["attempts"][0]["started_at"]);
    assert_eq!(job["next_attempt_at"], Value::Null);
    let job_id = id(&job);

    let expected = "attempt 1 of 5\nattempt 2 of 5\nattempt 3 of 5\n";
    assert_eq!(server.text(&job_id).await, expected);
    let log = records(&server, &format!("/jobs/{job_id}/output")).await;
    let line = 15;
    let shape: Vec<(&str, u64)> = log
        .iter()
        .map(|it| {
            let offset = it["offset"].as_u64().or(it["next_offset"].as_u64());
            (it["type"].as_str().unwrap(), offset.unwrap())
        })
        .collect();
    let expected = [
        ("output", 0),
        ("attempt", line),
        ("output", line),
        ("attempt", 2 * line),
        ("output", 2 * line),
        ("end", 3 * line),
    ];
    assert_eq!(shape, expected, "{log:#?}");
    for (attempt, offsets) in job["attempts"].as_array().unwrap().iter().zip(0..) {
        assert_eq!(attempt["first_offset"], offsets * line, "{job:#}");
        assert_eq!(attempt["next_offset"], (offsets + 1) * line, "{job:#}");
    }
    let expected = [
        "created",
        "started",
        "attempt_finished",
        "started",
        "attempt_finished",
        "started",
        "finished",
    ];
    assert_eq!(kinds(&server, &job_id).await, expected);
}

#[tokio::test]
async fn what_one_attempt_wrote_is_read_by_its_number() {
    let server = Server::start().await;
    let body = json!({"script": failing_before(2), "retry": at_once(2)});
    let job = id(&server.run(&body).await);
    for (attempt, expected) in [(1, "attempt 1 of 2\n"), (2, "attempt 2 of 2\n")] {
        let reply = server
            .get(&format!("/jobs/{job}/output?attempt={attempt}"))
            .await;
        assert_eq!(String::from_utf8_lossy(&reply.body), expected);
        assert_eq!(reply.header("procession-output-complete"), "true");
    }
    let first = records(&server, &format!("/jobs/{job}/output?attempt=1")).await;
    let types: Vec<&Value> = first.iter().map(|it| &it["type"]).collect();
    assert_eq!(types, ["output"], "{first:#?}");
    let none = server.get(&format!("/jobs/{job}/output?attempt=3")).await;
    assert_eq!(none.status, 416, "{none}");
    for query in ["attempt=0", "attempt=1&offset=3", "attempt=1&follow"] {
        let refused = server.get(&format!("/jobs/{job}/output?{query}")).await;
        assert_eq!(refused.status, 400, "{query}: {refused}");
    }
}

#[tokio::test]
async fn only_the_ends_that_are_named_are_tried_again() {
    let server = Server::start().await;
    let cases = [
        (
            "exit 1",
            json!({"max_attempts": 3, "exit_codes": [75]}),
            "failed",
        ),
        (
            "exit 75",
            json!({"max_attempts": 3, "never_exit_codes": [[70, 79]]}),
            "failed",
        ),
        (
            "kill -9 $$",
            json!({"max_attempts": 3, "on": ["exited"]}),
            "failed",
        ),
        ("exit 0", json!({"max_attempts": 3}), "succeeded"),
    ];
    for (script, retry, state) in cases {
        let job = server.run(&json!({"script": script, "retry": retry})).await;
        assert_eq!(job["state"], state, "{job:#}");
        assert_eq!(job["attempts"].as_array().unwrap().len(), 1, "{job:#}");
    }
    let missing = json!({"command": ["/no/such/program"], "retry": {"max_attempts": 2, "on": ["spawn_failed"],
        "backoff": {"initial_seconds": 0}}});
    let job = server.run(&missing).await;
    assert_eq!(job["attempts"].as_array().unwrap().len(), 2, "{job:#}");
    assert_eq!(job["attempts"][0]["cause"], "spawn_failed", "{job:#}");
    let endless = json!({"script": "sleep 5000", "timeout_seconds": 0.1, "retry": at_once(2)});
    let job = server.run(&endless).await;
    assert_eq!(job["state"], "timed_out", "{job:#}");
    assert_eq!(job["attempts"][0]["cause"], "timeout", "{job:#}");
    assert_eq!(job["attempts"][1]["cause"], "timeout", "{job:#}");
}

#[tokio::test]
async fn pauses_grow_and_keep_their_bounds() {
    let server = Server::start().await;
    let retry = json!({"max_attempts": 4, "backoff": {"initial_seconds": 0.2, "factor": 2, "max_seconds": 0.5}});
    let job = server
        .run(&json!({"script": "exit 1", "retry": retry}))
        .await;
    let attempts = job["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 4, "{job:#}");
    for (pair, longest) in attempts.windows(2).zip([200_000, 400_000, 500_000]) {
        let pause = micros(&pair[1]["started_at"]) - micros(&pair[0]["finished_at"]);
        assert!(
            pause >= longest / 2,
            "{pause} µs after {}: {job:#}",
            pair[0]
        );
        let late = pause - longest;
        let limit = bound(Duration::from_millis(500)).as_micros();
        assert!(late < i64::try_from(limit).unwrap(), "{late} µs: {job:#}");
    }
    // What was promised is within the bounds, however busy the machine is.
    let events = records(&server, &format!("/jobs/{}/events", id(&job))).await;
    let promised = events
        .iter()
        .filter(|it| it["type"] == "job.attempt_finished");
    for (event, longest) in promised.zip([200_000, 400_000, 500_000]) {
        let pause = micros(&event["data"]["next_attempt_at"]) - micros(&event["time"]);
        assert!(pause >= longest / 2, "{event:#}");
        assert!(pause <= longest + 500_000, "{event:#}");
    }
}

#[tokio::test]
async fn a_pause_holds_no_slot() {
    let server = Server::builder().args(["--max-running", "1"]).start().await;
    let body = json!({"script": "exit 1", "retry": after_a_long_pause(2)});
    let paused = id(&server.submit(&body).await);
    let job = in_pause(&server, &paused).await;
    assert_eq!(job["state"], "queued", "{job:#}");
    assert_eq!(job["state_reason"], "waiting_for_retry", "{job:#}");
    let message = job["state_message"].as_str().unwrap();
    assert!(message.starts_with("attempt 1 of 2 has ended: the program exited with code 1"));
    assert_eq!(exits(&job), [Some(1)], "{job:#}");
    let other = server.run(&json!({"command": ["true"]})).await;
    assert_eq!(other["state"], "succeeded", "{other:#}");
    server.stop(&paused, "").await;
}

#[tokio::test]
async fn a_stop_in_a_pause_is_the_end_and_keeps_the_attempts() {
    let server = Server::start().await;
    let body = json!({"script": failing_before(9), "retry": after_a_long_pause(3)});
    let job = id(&server.submit(&body).await);
    in_pause(&server, &job).await;
    let begin = Instant::now();
    let stopped = server.stop(&job, "").await;
    let (took, limit) = (begin.elapsed(), bound(Duration::from_millis(100)));
    assert!(took < limit, "{took:?}");
    assert_eq!(stopped["state"], "canceled", "{stopped:#}");
    assert_eq!(stopped["attempt"], 1, "{stopped:#}");
    assert_eq!(exits(&stopped), [Some(75)], "{stopped:#}");
    assert_eq!(stopped["next_attempt_at"], Value::Null, "{stopped:#}");
    assert_eq!(server.text(&job).await, "attempt 1 of 3\n");
    let expected = ["created", "started", "attempt_finished", "finished"];
    assert_eq!(kinds(&server, &job).await, expected);
    let gone = server.delete(&job, "purge").await;
    assert_eq!(gone.status, 204, "{gone}");
}

/// A stop comes while the attempt ends already, for a reason of its own: that stays its cause, and no other attempt follows.
#[tokio::test]
async fn a_stop_while_an_attempt_ends_is_the_end_of_the_job() {
    let server = Server::start().await;
    for is_left in [false, true] {
        let gates = tempfile::tempdir_in(server.scratch()).unwrap();
        let gate = |name: &str| gates.path().join(name).display().to_string();
        let until = |name: &str| format!("until test -e {}; do sleep 0.05; done", gate(name));
        let held = format!(
            "trap '{}; exit 9' TERM; echo ready; while :; do sleep 0.05; done",
            until("end")
        );
        let script = match is_left {
            true => format!("({held}) & {}; exit 3", until("leave")),
            false => held,
        };
        let body = json!({"script": script, "timeout_seconds": 3600, "stop": {"grace_seconds": 300},
            "retry": {"max_attempts": 3, "backoff": {"initial_seconds": 0}}});
        let job = id(&server.submit(&body).await);
        server.says(&job, "ready\n").await;
        if is_left {
            std::fs::write(gate("leave"), "").unwrap();
        } else {
            let soon = json!({"timeout_seconds": 0.001});
            let changed = patch(&server, &job, &soon).await;
            assert_eq!(changed.status, 200, "{changed}");
        }
        server.in_state(&job, "stopping").await;
        let asked = server.delete(&job, "").await;
        assert_eq!(asked.status, 202, "{asked}");
        std::fs::write(gate("end"), "").unwrap();
        let ended = server.finished(&job).await;
        let (state, code) = if is_left {
            ("failed", 3)
        } else {
            ("timed_out", 9)
        };
        assert_eq!(
            (&ended["state"], &ended["attempt"], &ended["exit"]["code"]),
            (&json!(state), &json!(1), &json!(code)),
            "{ended:#}"
        );
        let text = server.text(&job).await;
        assert_eq!(text.matches("ready").count(), 1, "{text}");
    }
}

#[tokio::test]
async fn a_release_ends_the_pause_and_is_refused_for_what_runs() {
    let server = Server::builder().args(["--max-running", "1"]).start().await;
    let body = json!({"script": failing_before(2), "retry": after_a_long_pause(3)});
    let job = id(&server.submit(&body).await);
    in_pause(&server, &job).await;
    let other = id(&server
        .submit(&json!({"command": ["sleep", unique_seconds()]}))
        .await);
    server.in_state(&other, "running").await;
    let release = async |id: &str| {
        let path = format!("/jobs/{id}/release");
        server.send(server.request(Method::POST, &path)).await
    };
    for time in ["first", "again"] {
        let waits = release(&job).await;
        assert_eq!(waits.status, 200, "{time}: {waits}");
        let waits = waits.json();
        assert_eq!(waits["state_reason"], "waiting_for_slot", "{waits:#}");
    }
    let runs = release(&other).await;
    assert_eq!(
        (runs.status, runs.code()),
        (409, "job_not_queued".to_owned())
    );
    server.stop(&other, "").await;
    let ended = server.finished(&job).await;
    assert_eq!(exits(&ended), [Some(75), Some(0)], "{ended:#}");
}

#[tokio::test]
async fn a_change_of_the_rules_in_a_pause_counts_at_once() {
    let server = Server::start().await;
    let body = json!({"script": "exit 3", "retry": after_a_long_pause(3)});
    let job = id(&server.submit(&body).await);
    in_pause(&server, &job).await;
    let more = patch(&server, &job, &json!({"retry": {"max_attempts": 2}})).await;
    assert_eq!(more.status, 200, "{more}");
    assert_eq!(
        more.json()["state"],
        "queued",
        "one attempt is left: {more}"
    );
    let none = patch(&server, &job, &json!({"retry": {"max_attempts": 1}})).await;
    assert_eq!(none.status, 200, "{none}");
    let ended = server.finished(&job).await;
    assert_eq!(ended["state"], "failed", "{ended:#}");
    assert_eq!(ended["exit"]["code"], 3, "{ended:#}");
    assert_eq!(ended["termination"]["cause"], "exited", "{ended:#}");
    assert_eq!(exits(&ended), [Some(3)], "{ended:#}");
    assert_eq!(kinds(&server, &job).await.last().unwrap(), "finished");
}

#[tokio::test]
async fn waits_and_run_return_at_the_real_end() {
    let server = Server::start().await;
    let script = format!("{}; exit 6", failing_before(2));
    let mut command = server.client();
    command.args([
        "run",
        "--retry",
        "3",
        "--retry-on-exit",
        "75,100-110",
        "--backoff",
        "0s..1s",
    ]);
    let done = command.args(["--script", &script]).output().unwrap();
    let errors = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(6), "{errors}");
    let expected = "attempt 1 of 3\nattempt 2 of 3\n";
    assert_eq!(String::from_utf8_lossy(&done.stdout), expected);
    assert!(errors.contains("attempt 2 begins"), "{errors}");
    assert!(!errors.contains("attempt 3"), "{errors}");

    let body = json!({"script": "exit 1", "retry": after_a_long_pause(3)});
    let paused = id(&server.submit(&body).await);
    in_pause(&server, &paused).await;
    let listed = server.client().arg("ps").output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains("queued (retry) 2/3"), "{listed}");
    server.stop(&paused, "").await;
}

#[tokio::test]
async fn the_limit_of_the_output_holds_over_all_attempts() {
    let server = Server::start().await;
    for on_limit in ["drop_oldest", "drop_newest"] {
        let body = json!({
            "script": "head -c 30000 /dev/zero | tr '\\0' $PROCESSION_ATTEMPT; exit 1",
            "output": {"max_bytes": 40_000, "on_limit": on_limit}, "retry": at_once(3),
        });
        let job = server.run(&body).await;
        assert_eq!(job["output"]["next_offset"], 90_000, "{job:#}");
        let ends: Vec<&Value> = job["attempts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| &it["next_offset"])
            .collect();
        assert_eq!(ends, [30_000, 60_000, 90_000], "{job:#}");
        let kept = server.output(&id(&job)).await;
        assert!(kept.len() <= 40_000, "{} bytes: {job:#}", kept.len());
        let (first, last) = (kept[0], kept[kept.len() - 1]);
        match on_limit {
            "drop_oldest" => assert_eq!(last, b'3'),
            _ => assert_eq!((first, last), (b'1', b'2')),
        }
        let log = records(&server, &format!("/jobs/{}/output", id(&job))).await;
        assert!(log.iter().any(|it| it["type"] == "gap"), "{on_limit}");
        let begun = log.iter().filter(|it| it["type"] == "attempt").count();
        assert_eq!(begun, 2, "{on_limit}");
    }
}

#[tokio::test]
async fn what_was_typed_is_gone_so_that_nothing_is_typed_to_a_job_that_is_tried_again() {
    let server = Server::start().await;
    for more in [json!({"pty": {}}), json!({"stdin": {"mode": "open"}})] {
        let mut body = json!({"command": ["cat"], "retry": {"max_attempts": 2}});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let refused = server.post("/jobs", &body).await;
        assert_eq!(refused.status, 422, "{refused}");
        let problem = refused.json();
        assert_eq!(problem["errors"][0]["pointer"], "/retry", "{problem:#}");
        assert_eq!(problem["errors"][0]["code"], "conflict", "{problem:#}");
    }
}

#[tokio::test]
async fn a_rerun_begins_with_the_first_attempt() {
    let server = Server::start().await;
    let body = json!({"script": failing_before(2), "retry": at_once(3)});
    let job = server.run(&body).await;
    let path = format!("/jobs/{}/rerun?wait=30", id(&job));
    let again = server.send(server.request(Method::POST, &path)).await;
    assert_eq!(again.status, 201, "{again}");
    let again = again.json();
    assert_eq!(again["rerun_of"], job["id"], "{again:#}");
    assert_eq!(exits(&again), [Some(75), Some(0)], "{again:#}");
    assert_eq!(again["spec"]["retry"], job["spec"]["retry"]);
}

#[tokio::test]
async fn a_pause_outlives_a_crash_of_the_server() {
    let server = Server::start().await;
    let body = json!({"script": failing_before(2), "retry": after_a_long_pause(3)});
    let job = id(&server.submit(&body).await);
    let before = in_pause(&server, &job).await;
    let client = server.persistent();
    let old = eventually("there is a server", async || server.server_process()).await;
    kill_now(old);
    eventually("another one answers", async || {
        server.server_process().filter(|new| *new != old)
    })
    .await;
    let after = client.get(&format!("/jobs/{job}")).await.json();
    assert_eq!(after["next_attempt_at"], before["next_attempt_at"]);
    assert_eq!(after["attempts"], before["attempts"]);
    assert_eq!(after["state_reason"], "waiting_for_retry", "{after:#}");
    let stopped = client
        .ask(Method::DELETE, &format!("/jobs/{job}?wait=30"), None, None)
        .await;
    assert_eq!(stopped.json()["state"], "canceled", "{stopped}");
}

/// A job of three attempts, each of which notes that it ran, and that no other one does at the same time.
fn noted(file: &Path) -> Value {
    let file = file.display();
    let script = format!(
        "until [ -e {file}.go ]; do sleep 0.02; done; \
         mkdir {file}.lock || echo twice >> {file}; echo $PROCESSION_ATTEMPT >> {file}; \
         echo out $PROCESSION_ATTEMPT; echo err $PROCESSION_ATTEMPT >&2; rmdir {file}.lock; exit 75"
    );
    let backoff = json!({"initial_seconds": 0.02, "max_seconds": 0.02});
    let output = json!({"merge_stderr": true});
    json!({"script": script, "output": output, "retry": {"max_attempts": 3, "backoff": backoff}})
}

#[tokio::test]
async fn the_server_is_killed_wherever_an_attempt_is_settled_and_none_is_too_many_or_too_few() {
    let rounds = amount("PROCESSION_FAILPOINT_ROUNDS", 2);
    let armed = tempfile::tempdir().unwrap();
    let place_of = |place: &str| armed.path().join(place);
    let points = armed.path().display().to_string();
    let server = Server::builder()
        .env("PROCESSION_FAILPOINTS", &points)
        .start()
        .await;
    let client = server.persistent();
    for place in [
        "settle.storing",
        "store.committing",
        "store.committed",
        "settle.stored",
        "settle.removed",
        "launch.sending",
        "launch.sent",
    ] {
        for round in 0..rounds {
            let file: PathBuf = server.scratch().join(format!("{place}-{round}"));
            let reply = client
                .ask(
                    Method::POST,
                    "/jobs",
                    Some(&noted(&file)),
                    Some(&format!("{place}{round}")),
                )
                .await;
            assert_eq!(reply.status, 201, "{reply}");
            let job = id(&reply.json());
            // The first attempt waits until the place is armed, so that somebody comes by.
            eventually("it runs", async || {
                let job = client.get(&format!("/jobs/{job}")).await.json();
                (job["state"] == "running").then_some(())
            })
            .await;
            fs::write(place_of(place), "").unwrap();
            fs::write(format!("{}.go", file.display()), "").unwrap();
            let ended = client.finished(&job).await;
            assert_eq!(exits(&ended), [Some(75); 3], "{place}: {ended:#}");
            let ran = fs::read_to_string(&file).unwrap();
            assert_eq!(ran, "1\n2\n3\n", "{place}: {ended:#}\n{}", server.log());
            let output = client.get(&format!("/jobs/{job}/output")).await;
            let expected = "out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\n";
            assert_eq!(
                String::from_utf8_lossy(&output.body),
                expected,
                "{place}: {ended:#}"
            );
            assert!(!place_of(place).exists(), "{place} has not struck");
        }
    }
}

/// Kills the supervisor and the job's monitor, so that nobody sees how its attempt ends.
fn lose(server: &mut Server, job: &str, builder: Builder) {
    let monitor = server.monitors()[job];
    server.kill_supervisor();
    kill_now(monitor);
    server.restart(builder);
}

#[tokio::test]
async fn what_a_lost_attempt_has_left_is_gone_before_the_next_one_begins() {
    let mut server = Server::start().await;
    let (daemon, leader) = (unique_seconds(), unique_seconds());
    let file = server.scratch().join("seen");
    let script = format!(
        "if [ $PROCESSION_ATTEMPT = 1 ]; then setsid sleep {daemon} & echo ready; exec sleep {leader}; fi; \
         ps -eo args | grep -c '^sleep {daemon}' > {}; echo second",
        file.display()
    );
    let retry =
        json!({"max_attempts": 2, "on": ["supervisor_lost"], "backoff": {"initial_seconds": 0}});
    let job = id(&server
        .submit(&json!({"script": script, "retry": retry}))
        .await);
    server.says(&job, "ready").await;
    eventually("both run", async || {
        (processes_with(&daemon).len() + processes_with(&leader).len() == 2).then_some(())
    })
    .await;
    lose(&mut server, &job, Server::builder());
    let ended = server.finished(&job).await;
    assert_eq!(ended["state"], "succeeded", "{ended:#}\n{}", server.log());
    assert_eq!(
        ended["attempts"][0]["cause"], "supervisor_lost",
        "{ended:#}"
    );
    let message = ended["attempts"][0]["message"].as_str().unwrap();
    assert!(message.contains("these processes outlived it"), "{message}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "0\n", "{ended:#}");
    assert_eq!(processes_with(&daemon), []);
    assert_eq!(server.text(&job).await, "ready\nsecond\n");
}

#[tokio::test]
async fn a_restart_of_the_machine_is_tried_again_only_if_that_is_wanted() {
    let mut server = Server::start().await;
    let seconds = unique_seconds();
    let script =
        format!("echo $PROCESSION_ATTEMPT; [ $PROCESSION_ATTEMPT = 2 ] || exec sleep {seconds}");
    let with = |on: &[&str]| json!({"script": script, "retry": {"max_attempts": 2, "on": on, "backoff": {"initial_seconds": 0}}});
    let lost = id(&server.submit(&with(&["exited", "signaled"])).await);
    let again = id(&server.submit(&with(&["host_rebooted"])).await);
    for job in [&lost, &again] {
        server.says(job, "1").await;
    }
    let monitors = [&lost, &again].map(|job| server.monitors()[job]);
    server.kill_supervisor();
    for monitor in monitors {
        kill_now(monitor);
    }
    server.restart(Server::builder().env("PROCESSION_BOOT_ID", "another-boot"));
    let lost = server.finished(&lost).await;
    assert_eq!(lost["state"], "lost", "{lost:#}");
    let job = server.finished(&again).await;
    assert_eq!(job["state"], "succeeded", "{job:#}");
    assert_eq!(job["attempts"][0]["cause"], "host_rebooted", "{job:#}");
    assert_eq!(server.text(&again).await, "1\n2\n");
    // On this machine, which has not restarted, they are still there.
    for process in processes_with(&seconds) {
        kill_now(nix::unistd::Pid::from_raw(process.pid));
    }
    eventually("they are gone", async || {
        processes_with(&seconds).is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_upgrade_in_a_pause_and_in_an_attempt_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("procession");
    let prelude = format!(
        "cp \"$1\" '{0}'; shift; set -- '{0}' \"$@\"",
        program.display()
    );
    let server = Server::builder().prelude(&prelude).start().await;
    let go = server.scratch().join("go");
    let script = format!(
        "echo $PROCESSION_ATTEMPT; [ $PROCESSION_ATTEMPT = 2 ] || until [ -e {} ]; do sleep 0.02; done; \
         [ $PROCESSION_ATTEMPT = 2 ] || exit 75",
        go.display()
    );
    let inside = id(&server
        .submit(&json!({"script": script, "retry": at_once(2)}))
        .await);
    server.says(&inside, "1").await;
    let body = json!({"script": failing_before(2), "retry": after_a_long_pause(2)});
    let paused = id(&server.submit(&body).await);
    let before = in_pause(&server, &paused).await;

    let fresh = program.with_extension("new");
    fs::copy(binary(), &fresh).unwrap();
    fs::rename(&fresh, &program).unwrap();
    kill(server.supervisor(), Signal::SIGHUP).unwrap();
    eventually("the new server answers", async || {
        let request = server
            .request(Method::GET, "/info")
            .header("connection", "close");
        let info = server.send(request).await.json();
        (info["server_restarts"] == 1).then_some(())
    })
    .await;
    let after = server.job(&paused).await;
    assert_eq!(
        after["next_attempt_at"], before["next_attempt_at"],
        "{after:#}"
    );
    assert_eq!(after["attempts"], before["attempts"], "{after:#}");
    fs::write(&go, "").unwrap();
    let ended = server.finished(&inside).await;
    assert_eq!(exits(&ended), [Some(75), Some(0)], "{ended:#}");
    assert_eq!(server.text(&inside).await, "1\n2\n");
    server.stop(&paused, "").await;
}
