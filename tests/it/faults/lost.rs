//! The processes of jobs whose monitor is dead: named, reached and ended, also when its supervisor is dead.

use std::process::Command;

use nix::unistd::Pid;
use reqwest::Method;
use serde_json::{Value, json};

use super::remains::{monitor_of, with_daemon};
use crate::harness::{
    Builder, Reply, Server, eventually, id, kill_now, processes, processes_with, unique_seconds,
};

/// The numbers of the live processes of a job, as the service tells them.
async fn told(server: &Server, id: &str) -> Vec<i64> {
    let reply = server.get(&format!("/jobs/{id}/processes")).await;
    assert_eq!(reply.status, 200, "{reply}");
    let told = reply.json();
    let told = told["processes"].as_array().unwrap().iter();
    let mut pids: Vec<i64> = told
        .map(|process| process["pid"].as_i64().unwrap())
        .collect();
    pids.sort_unstable();
    pids
}

fn pids_with(text: &[&str]) -> Vec<i64> {
    let mut pids: Vec<i64> = text
        .iter()
        .flat_map(|text| processes_with(text))
        .map(|process| process.pid.into())
        .collect();
    pids.sort_unstable();
    pids
}

/// A job with a leader, and a child in another session that holds the job's output.
async fn with_child(server: &Server, leader: &str, child: &str) -> Value {
    let script = format!("setsid sleep {child} & echo ready; exec sleep {leader}");
    let job = server.submit(&json!({ "script": script })).await;
    server.says(&id(&job), "ready").await;
    eventually("both run", async || {
        (pids_with(&[leader, child]).len() == 2).then_some(())
    })
    .await;
    job
}

async fn a_lost_job_is_ended(builder: fn() -> Builder) {
    let mut server = builder().start().await;
    let (leader, child, other) = (unique_seconds(), unique_seconds(), unique_seconds());
    let job = with_child(&server, &leader, &child).await;
    let stubborn = format!("trap '' TERM; echo ready; while :; do sleep {other}; done");
    let stubborn = server.submit(&json!({ "script": stubborn })).await;
    server.says(&id(&stubborn), "ready").await;
    let monitors = server.monitors();
    server.kill_supervisor();
    for monitor in monitors.into_values() {
        kill_now(monitor);
    }
    server.restart(builder());
    let lost = server.finished(&id(&job)).await;
    assert_eq!(lost["state"], "lost", "{lost:#}");
    let left = pids_with(&[&leader, &child]);
    assert_eq!(left.len(), 2, "nobody is signalled unasked");
    assert_eq!(told(&server, &id(&job)).await, left, "{lost:#}");
    let message = lost["state_message"].as_str().unwrap();
    assert!(
        left.iter()
            .all(|pid| message.contains(&format!("sleep ({pid})"))),
        "{left:?}: {message}"
    );
    assert!(server.log().contains("these processes outlived it"));

    // The polite signal suffices for one, and the other is killed when its grace has passed.
    let ended = server.delete(&id(&job), "wait=20").await;
    assert_eq!(ended.status, 200, "{ended}");
    assert_eq!(ended.json()["state"], "lost");
    assert!(pids_with(&[&leader, &child]).is_empty());
    assert!(told(&server, &id(&job)).await.is_empty());
    server.finished(&id(&stubborn)).await;
    let asked = server.delete(&id(&stubborn), "grace_seconds=600").await;
    assert_eq!(asked.status, 202, "{asked}");
    assert!(!told(&server, &id(&stubborn)).await.is_empty());
    let forced = server.delete(&id(&stubborn), "force&wait=20").await;
    assert_eq!(forced.status, 200, "{forced}");
    assert!(pids_with(&[&other]).is_empty());
    let again = server.delete(&id(&stubborn), "purge").await;
    assert_eq!(again.status, 204, "{again}");
}

#[tokio::test]
async fn what_a_lost_job_has_left_is_named_and_ended_when_asked() {
    a_lost_job_is_ended(Server::builder).await;
}

#[tokio::test]
async fn what_a_lost_job_without_cgroup_has_left_is_named_and_ended_when_asked() {
    a_lost_job_is_ended(|| Server::builder().without_cgroups()).await;
}

#[tokio::test]
async fn the_processes_of_a_rescued_job_are_told_and_reached_without_a_cgroup() {
    let mut server = Server::builder().without_cgroups().start().await;
    let (leader, child) = (unique_seconds(), unique_seconds());
    let script = format!("setsid sleep {child} & echo ready; exec sleep {leader}");
    let body = json!({"script": script, "stop": {"scope": "leader", "grace_seconds": 600}});
    let job = server.submit(&body).await;
    server.says(&id(&job), "ready").await;
    let old = monitor_of(&server, &id(&job));
    kill_now(old);
    eventually("a rescuer has the job", async || {
        let new = server.monitors().get(&id(&job)).copied();
        new.filter(|new| *new != old)
    })
    .await;
    eventually("both are told", async || {
        let both = pids_with(&[&leader, &child]);
        (both.len() == 2 && told(&server, &id(&job)).await == both).then_some(())
    })
    .await;

    // Its supervisor dies as well: the rescuer still reaches what is nobody's child any more.
    server.kill_supervisor();
    server.restart(Server::builder().without_cgroups());
    assert_eq!(
        told(&server, &id(&job)).await,
        pids_with(&[&leader, &child])
    );
    let ended = server.delete(&id(&job), "wait=20").await;
    assert_eq!(ended.json()["state"], "lost", "{ended}");
    assert!(pids_with(&[&leader, &child]).is_empty());
}

#[tokio::test]
async fn daemons_of_monitors_that_died_together_are_stopped_with_their_own_jobs() {
    let server = Server::builder().without_cgroups().start().await;
    let mut jobs = Vec::new();
    for _ in 0..3 {
        let (job, daemon, _) = with_daemon(&server).await;
        jobs.push((job, daemon));
    }
    for monitor in server.monitors().into_values() {
        kill_now(monitor);
    }
    for (number, (job, daemon)) in jobs.iter().enumerate() {
        let job = server.stop(job, "").await;
        assert_eq!(job["exit"]["signal"], "SIGTERM", "{job:#}");
        assert_eq!(processes_with(daemon), [], "{job:#}");
        for (_, other) in &jobs[number + 1..] {
            assert_eq!(processes_with(other).len(), 1, "another job's");
        }
    }
}

/// Its monitor is another supervisor's, so nobody rescues the job, and nobody but the purge ends what it has left.
async fn a_job_that_is_lost_while_it_is_purged_goes(builder: fn() -> Builder) {
    let mut server = builder().start().await;
    let mark = unique_seconds();
    let script = format!(
        "trap 'echo told; trap - TERM' TERM; : {mark}; echo ready; while :; do sleep 0.02; done"
    );
    let body = json!({"script": script, "stop": {"scope": "leader"}});
    let job = id(&server.submit(&body).await);
    server.says(&job, "ready").await;
    server.kill_supervisor();
    server.restart(builder());
    let monitor = monitor_of(&server, &job);

    let (purged, ()) = tokio::join!(
        server.delete(&job, "purge&grace_seconds=600&wait=25"),
        async {
            server.says(&job, "told").await;
            kill_now(monitor);
        }
    );
    assert_eq!(purged.status, 204, "{purged}\n{}", server.log());
    assert_eq!(processes_with(&mark), []);
    let gone = server.get(&format!("/jobs/{job}")).await;
    assert_eq!(gone.status, 404, "{gone}");
}

#[tokio::test]
async fn a_purge_ends_what_a_job_has_left_that_is_lost_meanwhile() {
    a_job_that_is_lost_while_it_is_purged_goes(Server::builder).await;
}

#[tokio::test]
async fn a_purge_ends_what_a_job_without_cgroup_has_left_that_is_lost_meanwhile() {
    a_job_that_is_lost_while_it_is_purged_goes(|| Server::builder().without_cgroups()).await;
}

/// What is answered to a `DELETE` of a batch.
async fn delete_batch(server: &Server, batch: &str, query: &str) -> Reply {
    let path = format!("/batches/{batch}?{query}");
    server.send(server.request(Method::DELETE, &path)).await
}

#[tokio::test]
async fn what_the_lost_jobs_of_a_batch_have_left_is_ended_with_the_batch() {
    let mut server = Server::start().await;
    let (first, second) = (unique_seconds(), unique_seconds());
    let mut batches = Vec::new();
    for mark in [&first, &second] {
        let script = format!("trap '' TERM; echo ready; exec sleep {mark}");
        let body = json!({"jobs": [
            {"key": "lost", "script": script},
            {"key": "ended", "command": ["true"]},
        ]});
        let batch = server.post("/batches", &body).await;
        assert_eq!(batch.status, 201, "{batch}");
        let batch = id(&batch.json());
        let path = format!("/jobs?batch={batch}&order_by=created_at");
        let jobs = server.get(&path).await.json();
        let job = id(&jobs["jobs"][0]);
        server.says(&job, "ready").await;
        server.finished(&id(&jobs["jobs"][1])).await;
        batches.push((batch, job));
    }
    let monitors = server.monitors();
    server.kill_supervisor();
    for monitor in monitors.into_values() {
        kill_now(monitor);
    }
    server.restart(Server::builder());
    for (batch, _) in &batches {
        let ended = server.get(&format!("/batches/{batch}?wait=30")).await;
        assert_eq!(ended.json()["counts"]["lost"], 1, "{ended}");
    }
    let [(stopped, its_job), (purged, other_job)] = &batches[..] else {
        panic!("two batches");
    };

    let asked = delete_batch(&server, stopped, "grace_seconds=600").await;
    assert_eq!(asked.status, 202, "{asked}");
    assert!(
        told(&server, its_job)
            .await
            .contains(&pids_with(&[&first])[0])
    );
    let forced = delete_batch(&server, stopped, "force&wait=20").await;
    assert_eq!(forced.status, 200, "{forced}");
    assert_eq!(processes_with(&first), []);
    let again = delete_batch(&server, stopped, "").await;
    assert_eq!(again.status, 200, "{again}");

    assert_eq!(pids_with(&[&second]).len(), 1, "nobody has asked for it");
    let asked = delete_batch(&server, purged, "purge&grace_seconds=600&wait=0").await;
    assert_eq!(asked.status, 202, "{asked}");
    assert!(
        told(&server, other_job)
            .await
            .contains(&pids_with(&[&second])[0])
    );
    let forced = delete_batch(&server, purged, "purge&force").await;
    assert_eq!(forced.status, 204, "{forced}");
    assert_eq!(processes_with(&second), []);
    for gone in [format!("/batches/{purged}"), format!("/jobs/{other_job}")] {
        assert_eq!(server.get(&gone).await.status, 404, "{gone}");
    }
}

/// A service whose supervisor is the first process of a PID namespace of its own, as in a container.
fn first_process() -> Builder {
    Server::builder()
        .prelude("set -- unshare --pid --fork --kill-child --mount-proc -- \"$@\"")
        .env("PROCESSION_SHUTDOWN_GRACE_SECONDS", "5")
}

/// The first process, as it is numbered outside of its namespace.
fn inner(server: &Server) -> Pid {
    let outer = server.supervisor().as_raw();
    let inner = processes()
        .into_iter()
        .find(|process| process.ppid == outer && process.name != "unshare");
    Pid::from_raw(inner.unwrap().pid)
}

async fn ended(server: &mut Server) {
    eventually("the service has ended", async || {
        server.has_ended().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_container_that_is_killed_loses_its_jobs_and_one_that_is_stopped_ends_them() {
    let may = Command::new("unshare")
        .args(["--pid", "--fork", "--mount-proc", "true"])
        .status();
    if !may.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no PID namespace can be made here");
        return;
    }
    let mut server = first_process().start().await;
    let info = server.get("/info").await.json();
    assert_eq!(info["supervisor_pid"], 1, "{info:#}");
    let seconds = unique_seconds();
    let script = format!("echo begun; setsid sleep {seconds} & exec sleep {seconds}");
    let lost = server.submit(&json!({ "script": script })).await;
    server.says(&id(&lost), "begun").await;
    kill_now(inner(&server));
    ended(&mut server).await;
    // The kernel has ended them all.
    eventually("nothing is left", async || {
        processes_with(&seconds).is_empty().then_some(())
    })
    .await;

    server.restart(first_process());
    let job = server.finished(&id(&lost)).await;
    assert_eq!(job["state"], "lost", "{job:#}");
    assert_eq!(job["state_reason"], "supervisor_lost", "{job:#}");
    assert_eq!(job["exit"], Value::Null, "{job:#}");
    assert_eq!(server.text(&id(&lost)).await, "begun\n");
    assert!(told(&server, &id(&lost)).await.is_empty(), "{job:#}");
    let polite = json!({"script": "trap 'echo bye; exit 3' TERM; echo ready; sleep 1000 & wait"});
    let polite = server.submit(&polite).await;
    server.says(&id(&polite), "ready").await;
    let daemon = json!({"script": format!("setsid sleep {seconds} & echo ready; sleep 1000")});
    let daemon = server.submit(&daemon).await;
    server.says(&id(&daemon), "ready").await;
    nix::sys::signal::kill(inner(&server), nix::sys::signal::Signal::SIGTERM).unwrap();
    ended(&mut server).await;
    assert!(processes_with(&seconds).is_empty());

    server.restart(Server::builder());
    let job = server.job(&id(&polite)).await;
    assert_eq!(job["termination"]["cause"], "shutdown", "{job:#}");
    assert_eq!(job["exit"]["code"], 3, "{job:#}");
    assert_eq!(server.text(&id(&polite)).await, "ready\nbye\n");
    let job = server.job(&id(&daemon)).await;
    assert_eq!(job["termination"]["cause"], "shutdown", "{job:#}");
    assert_eq!(job["state"], "canceled", "{job:#}");
}
