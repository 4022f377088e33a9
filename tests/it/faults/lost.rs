//! The processes of jobs whose monitor is dead: named, reached and ended, also when its supervisor is dead.

use serde_json::{Value, json};

use super::remains::monitor_of;
use crate::harness::{Builder, Server, eventually, id, kill_now, processes_with, unique_seconds};

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
        let (daemon, leader) = (unique_seconds(), unique_seconds());
        let script = format!(
            "(setsid sleep {daemon} < /dev/null > /dev/null 2>&1 &) ; echo ready; exec sleep {leader}"
        );
        let job = server.submit(&json!({ "script": script })).await;
        server.says(&id(&job), "ready").await;
        eventually("the daemon runs", async || {
            (processes_with(&daemon).len() == 1).then_some(())
        })
        .await;
        jobs.push((id(&job), daemon));
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
