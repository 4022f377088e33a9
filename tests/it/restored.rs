//! A store that came back without the directories of its jobs: what had been started is not started again.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Server, eventually, id, kill_now, unique_seconds};

/// A job that adds a line to `runs` whenever its program begins, and runs on.
fn noted(runs: &Path, name: &str) -> Value {
    let script = format!(
        "echo {name} >> {}; trap '' TERM; echo begun; while :; do sleep {}; done",
        runs.display(),
        unique_seconds()
    );
    json!({"script": script, "name": name})
}

fn with(mut job: Value, fields: &Value) -> Value {
    let fields = fields.as_object().unwrap().clone();
    job.as_object_mut().unwrap().extend(fields);
    job
}

fn begun(runs: &Path) -> Vec<String> {
    let text = fs::read_to_string(runs).unwrap_or_default();
    let mut names: Vec<String> = text.lines().map(str::to_owned).collect();
    names.sort();
    names
}

/// The last event of the job that is in the store.
async fn told(server: &Server, job: &str, kind: &str) {
    eventually(&format!("{kind} is in the store"), async || {
        let request = server.request(Method::GET, &format!("/jobs/{job}/events"));
        let request = request.header("accept", "application/x-ndjson");
        let text = String::from_utf8(server.send(request).await.body).unwrap();
        text.lines().last()?.contains(kind).then_some(())
    })
    .await;
}

/// Ends the service and all that runs, as a machine does that breaks.
fn break_down(server: &mut Server, jobs: &[Value]) {
    let monitors = server.monitors();
    server.kill_supervisor();
    monitors.into_values().for_each(kill_now);
    for job in jobs {
        if let Some(pid) = job["process"]["pid"].as_i64() {
            let session = Pid::from_raw(i32::try_from(pid).unwrap());
            let _ = nix::sys::signal::killpg(session, Signal::SIGKILL);
        }
    }
}

/// Every state of a row, all without a directory.
#[tokio::test]
async fn what_had_been_started_is_lost_and_the_rest_waits_or_starts() {
    let builder = || Server::builder().args(["--max-running", "6"]);
    let mut server = builder().start().await;
    let runs = server.scratch().join("runs");
    let submit = |name: &str, fields: Value| {
        let body = with(noted(&runs, name), &fields);
        let server = &server;
        async move {
            let job = id(&server.submit(&body).await);
            if fields.get("hold").is_none() && fields.get("run_at").is_none() {
                server.says(&job, "begun").await;
                told(server, &job, "job.started").await;
            }
            job
        }
    };
    let running = submit("running", json!({})).await;
    let paused = submit("paused", json!({})).await;
    let reply = server
        .post(&format!("/jobs/{paused}/pause"), &json!({}))
        .await;
    assert!(reply.status < 300, "{reply}");
    told(&server, &paused, "job.paused").await;
    let stopping = submit("stopping", json!({"stop": {"grace_seconds": 600}})).await;
    server.delete(&stopping, "").await;
    told(&server, &stopping, "job.stopping").await;
    let again = json!({"max_attempts": 2, "backoff": {"initial_seconds": 0}});
    let script = format!(
        "echo second >> {}; echo begun; [ $PROCESSION_ATTEMPT = 1 ] && exit 1; exec sleep {}",
        runs.display(),
        unique_seconds()
    );
    let body = json!({"script": script, "name": "second", "retry": again});
    let second = id(&server.submit(&body).await);
    server.says(&second, "begun\nbegun").await;
    told(&server, &second, "job.started").await;
    let later = json!({"max_attempts": 2, "backoff": {"initial_seconds": 86_400}});
    let body = json!({"command": ["false"], "name": "between", "retry": later});
    let between = id(&server.submit(&body).await);
    told(&server, &between, "job.attempt_finished").await;
    let held = submit("held", json!({"hold": true})).await;
    let due = submit("due", json!({"run_at": "2099-01-01T00:00:00Z"})).await;
    let queue = server
        .request(Method::PUT, "/queues/q")
        .json(&json!({"paused": true}));
    assert!(server.send(queue).await.status < 300);
    let queued = json!({"script": format!("echo queued >> {}", runs.display()), "queue": "q"});
    let queued = id(&server.submit(&queued).await);
    let started = ["paused", "running", "second", "second", "stopping"];
    assert_eq!(begun(&runs), started);

    let all = [&running, &paused, &stopping, &second];
    let mut jobs = Vec::new();
    for job in all {
        jobs.push(server.job(job).await);
    }
    break_down(&mut server, &jobs);
    fs::remove_dir_all(server.state_dir().join("jobs")).unwrap();
    server.restart(builder());
    for job in all {
        let lost = server.finished(job).await;
        assert_eq!(lost["state"], "lost", "{lost:#}");
        assert_eq!(lost["exit"], Value::Null, "{lost:#}");
        let message = lost["state_message"].as_str().unwrap();
        assert!(message.contains("missing"), "{lost:#}");
        // What it wrote is not there, and nothing else looks like it.
        let output = server.request(Method::GET, &format!("/jobs/{job}/output"));
        let output = output.header("accept", "application/x-ndjson");
        let output = server.send(output).await;
        let kept = output.header("procession-output-complete").to_owned();
        let text = String::from_utf8(output.body).unwrap();
        assert!(kept == "false" || text.contains("\"gap\""), "{kept} {text}");
    }
    for job in [&held, &due, &between, &queued] {
        let waits = server.job(job).await;
        assert_eq!(waits["state"], "queued", "{waits:#}");
    }
    let resume = server
        .request(Method::PUT, "/queues/q")
        .json(&json!({"paused": false}));
    assert!(server.send(resume).await.status < 300);
    assert_eq!(server.finished(&queued).await["state"], "succeeded");
    let mut expected = started.to_vec();
    expected.insert(1, "queued");
    assert_eq!(begun(&runs), expected, "something was started again");
    for job in [&held, &due, &between] {
        server.stop(job, "force").await;
    }
}

/// What is left of a directory.
#[derive(Clone, Copy, Debug)]
enum Left {
    Nothing,
    Directory,
    EmptyRecord,
    Garbage,
    Unreadable,
}

impl Left {
    fn leave(self, directory: &Path) {
        let record = directory.join("record");
        match self {
            Self::Nothing => fs::remove_dir_all(directory).unwrap(),
            Self::Directory => {
                fs::remove_dir_all(directory).unwrap();
                fs::create_dir(directory).unwrap();
            }
            Self::EmptyRecord => fs::write(record, b"").unwrap(),
            Self::Garbage => fs::write(record, [b'x'; 4096]).unwrap(),
            Self::Unreadable => {
                fs::remove_file(&record).unwrap();
                std::os::unix::fs::symlink("record", record).unwrap();
            }
        }
    }
}

/// Whatever is left of its directory, a job that had begun is lost.
#[tokio::test]
async fn no_damage_starts_a_job_again() {
    let lefts = [
        Left::Nothing,
        Left::Directory,
        Left::EmptyRecord,
        Left::Garbage,
        Left::Unreadable,
    ];
    let mut server = Server::start().await;
    let runs = server.scratch().join("runs");
    let mut jobs = Vec::new();
    for left in lefts {
        let job = id(&server.submit(&noted(&runs, &format!("{left:?}"))).await);
        server.says(&job, "begun").await;
        told(&server, &job, "job.started").await;
        jobs.push(server.job(&job).await);
    }
    let before = begun(&runs);
    break_down(&mut server, &jobs);
    for (job, left) in jobs.iter().zip(lefts) {
        left.leave(&server.state_dir().join("jobs").join(id(job)));
    }
    server.restart(Server::builder());
    for (job, left) in jobs.iter().zip(lefts) {
        let lost = server.finished(&id(job)).await;
        assert_eq!(lost["state"], "lost", "{left:?}: {lost:#}");
        assert!(lost["state_message"].is_string(), "{left:?}: {lost:#}");
    }
    assert_eq!(begun(&runs), before, "something was started again");
}
