//! A leader that is killed, or does not get on, before it is the program. It may be in its monitor's memory then.

use std::collections::HashSet;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::Method;
use serde_json::{Value, json};

use super::errors::Places;
use super::points::LEADER;
use crate::harness::{
    Process, Server, eventually, id, kill_now, processes, processes_with, unique_seconds,
};

#[tokio::test]
async fn a_leader_that_is_killed_is_a_failure_and_its_monitor_has_the_next_job() {
    let places = Places::new();
    let server = places.builder().start().await;
    let seconds = unique_seconds();
    let mut seen = HashSet::new();
    for place in LEADER.repeat(3) {
        places.arm(place, "");
        let job = server
            .run(&json!({"command": ["sleep", seconds], "env": {"BALLAST": "x".repeat(20_000)}}))
            .await;
        assert!(!places.is_armed(place), "{place}: {job:#}");
        assert_eq!(job["state"], "failed", "{place}: {job:#}");
        if place == "leader.executing" {
            // It has said that all that is left is execve(2); nobody can tell a kill before that from one after it.
            assert_eq!(job["exit"]["signal"], "SIGKILL", "{place}: {job:#}");
        } else {
            let message = job["spawn_failure"]["message"].as_str().unwrap();
            assert!(
                message.contains("was killed before it could"),
                "{place}: {job:#}"
            );
            assert_eq!(job["process"], Value::Null, "{place}: {job:#}");
        }
        assert_eq!(processes_with(&seconds), [], "{place}: {job:#}");
        let next = server.run_script("echo $PPID").await;
        assert_eq!(next["state"], "succeeded", "{place}: {next:#}");
        seen.insert(server.text(&id(&next)).await);
    }
    assert!(seen.len() < 3 * LEADER.len(), "{seen:?}");
}

#[tokio::test]
async fn a_leader_that_hangs_delays_nobody_but_its_job() {
    let places = Places::new();
    let server = places.builder().start().await;
    // Before there is any word of it, and with execve(2) as the call that hangs.
    for place in ["leader.recording", "leader.executing"] {
        let seconds = unique_seconds();
        places.arm(place, "hang");
        let job = server
            .post("/jobs", &json!({"command": ["sleep", seconds]}))
            .await;
        let job = id(&job.json());
        eventually(&format!("{place} is come by"), async || {
            (!places.is_armed(place)).then_some(())
        })
        .await;
        assert_eq!(server.job(&job).await["state"], "starting", "{place}");
        let monitor = server.monitors()[&job].as_raw();
        let hung = hung_child(monitor).await;
        // Others start, and its monitor takes requests.
        let other = server.run_script("true").await;
        assert_eq!(other["state"], "succeeded", "{place}: {other:#}");
        let ended = server.stop(&job, "force=true").await;
        assert_eq!(
            ended["termination"]["cause"], "canceled",
            "{place}: {ended:#}"
        );
        let left = Process::read(hung.as_raw());
        assert!(
            left.as_ref().is_none_or(|left| left.ppid != monitor),
            "{place}: {left:?}"
        );
        assert_eq!(processes_with(&seconds), [], "{place}: {ended:#}");
    }
}

/// The process that hangs beneath this one.
async fn hung_child(parent: i32) -> Pid {
    let hung = eventually("a process hangs", async || {
        let is_hung = |process: &Process| process.ppid == parent && process.state == 'T';
        processes().into_iter().find(is_hung)
    })
    .await;
    Pid::from_raw(hung.pid)
}

#[tokio::test]
async fn a_program_that_begins_after_its_monitors_death_is_known_to_run() {
    let places = Places::new();
    let server = places.builder().start().await;
    places.arm("leader.executing", "hang");
    let job = server.post("/jobs", &json!({"command": ["true"]})).await;
    let job = id(&job.json());
    let monitor = server.monitors()[&job];
    let leader = hung_child(monitor.as_raw()).await;
    // The monitor writes this down, and does not know of the leader yet.
    let patch = server.request(Method::PATCH, &format!("/jobs/{job}"));
    let patch = patch.header("content-type", "application/merge-patch+json");
    let patched = server.send(patch.body(r#"{"timeout_seconds": 60}"#)).await;
    assert_eq!(patched.status, 200, "{patched}");
    kill_now(monitor);
    eventually("a rescuer", async || {
        server
            .monitors()
            .get(&job)
            .is_some_and(|rescuer| *rescuer != monitor)
            .then_some(())
    })
    .await;
    kill(leader, Signal::SIGCONT).unwrap();
    let ended = server.finished(&job).await;
    assert_eq!(ended["state"], "succeeded", "{ended:#}");
    assert_eq!(ended["process"]["pid"], leader.as_raw(), "{ended:#}");
}

#[tokio::test]
async fn a_monitor_that_is_late_knows_of_the_program_before_its_output() {
    let places = Places::new();
    let server = places.builder().start().await;
    let seconds = unique_seconds();
    places.arm("leader.forked", "wait");
    let written = server.scratch().join("written");
    // More than is kept, to both streams, and then a polite end.
    let script = format!(
        "trap 'exit 5' TERM; head -c 60000 /dev/zero; head -c 60000 /dev/zero >&2; : > {}; sleep {seconds} & wait",
        written.display()
    );
    let body = json!({
        "script": script,
        "output": {"max_bytes": 4096, "on_limit": "stop_job"},
        "wait_for": "all",
    });
    let server = &server;
    let create = async { server.post("/jobs", &body).await.json() };
    let go_on = async {
        let has_come = || written.exists() && !places.is_armed("leader.forked");
        eventually("all is written", async || has_come().then_some(())).await;
        places.arm("leader.forked", "");
    };
    let (job, ()) = tokio::join!(create, go_on);
    let ended = server.finished(&id(&job)).await;
    assert_eq!(ended["exit"]["code"], 5, "{ended:#}");
    assert_ne!(ended["process"], Value::Null, "{ended:#}");
    assert_eq!(processes_with(&seconds), [], "{ended:#}");
}

#[tokio::test]
async fn a_group_that_cannot_be_opened_is_joined() {
    const EMFILE: &str = "24";
    let places = Places::new();
    let server = places.builder().start().await;
    let info = server.get("/info").await.json();
    if !info["containment"]["kind"]
        .as_str()
        .unwrap()
        .contains("cgroup")
    {
        return;
    }
    places.arm("cgroup.opening", EMFILE);
    let job = server.run_script("cat /proc/self/cgroup").await;
    assert_eq!(job["state"], "succeeded", "{job:#}");
    let groups = server.text(&id(&job)).await;
    assert!(groups.contains(&id(&job)), "{groups}");
}

#[tokio::test]
async fn a_limit_on_files_hides_no_failure_to_execute() {
    let server = Server::start().await;
    let body = json!({
        "command": ["/nonexistent/program"],
        "rlimits": {"fsize": {"soft": 0, "hard": 0}, "core": {"soft": 0, "hard": "unlimited"}},
    });
    let job = server.run(&body).await;
    assert_eq!(job["state_reason"], "spawn_failed", "{job:#}");
    assert_eq!(job["spawn_failure"]["errno"], 2, "{job:#}");
}

#[tokio::test]
async fn without_close_range_a_job_has_three_descriptors_all_the_same() {
    const EPERM: &str = "1";
    let places = Places::new();
    places.arm("descriptors.closing", EPERM);
    let server = places.builder().start().await;
    for _ in 0..3 {
        let job = server.run_script("ls /proc/$$/fd; :").await;
        let open = server.stdout(&id(&job)).await;
        assert_eq!(open, "0\n1\n2\n", "{job:#}");
    }
}
