//! A node that dies: what is told, when its jobs are lost, and what becomes of what it has left.

use nix::sys::signal::{Signal, kill};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Cluster, kill_service};
use crate::harness::{eventually, id, processes_with, unique_seconds};

#[tokio::test]
async fn jobs_of_a_dead_node_are_lost_after_a_time_and_what_is_left_is_ended_when_it_returns() {
    let args = ["--role", "api", "--node-lost-after-seconds", "8"];
    let mut cluster = Cluster::start_with(1, &args).await;
    let seconds = unique_seconds();
    let body = json!({"command": ["sleep", &seconds], "retry": {"max_attempts": 3}});
    let job = cluster.hub.submit(&body).await;
    let id = id(&job);
    kill_service(&mut cluster.nodes[0]);
    cluster.connected("n1", false).await;
    let node = cluster.node("n1").await;
    assert_eq!(
        (&node["jobs"], &node["accepting"]),
        (&json!(1), &json!(false))
    );
    assert!(node["lost_at"].is_string(), "{node:#}");
    // It is said before it is decided.
    eventually("it is said of the job", async || {
        let job = cluster.hub.job(&id).await;
        (job["state_reason"] == "node_unreachable").then_some(())
    })
    .await;
    let output = cluster.hub.get(&format!("/jobs/{id}/output")).await;
    assert_eq!(
        (output.status, output.code().as_str()),
        (503, "node_unreachable")
    );
    let lost = cluster.hub.finished(&id).await;
    assert_eq!(
        (&lost["state"], &lost["state_reason"]),
        (&json!("lost"), &json!("node_lost"))
    );
    assert_eq!(
        lost["attempt"], 1,
        "it may still run: it is not tried again"
    );
    // Its slot is free again as far as the hub goes, but there is no node.
    assert_eq!(cluster.node("n1").await["jobs"], 0);

    // Its process is there, and nobody can say that it is gone.
    assert_eq!(processes_with(&seconds).len(), 1);
    let asked = cluster.hub.delete(&id, "wait=1").await;
    assert_eq!(asked.status, 202, "{asked}");
    let said = asked.json()["state_message"].to_string();
    assert!(said.contains("when node n1 is there"), "{said}");
    // The stop outlasts the hub.
    cluster.crash_hub().await;
    let again = cluster.node_builder("n1");
    cluster.nodes[0].start_again(again).await;
    eventually("what is left of it is ended", async || {
        processes_with(&seconds).is_empty().then_some(())
    })
    .await;
    let ended = cluster.hub.delete(&id, "wait=30").await;
    assert_eq!(ended.status, 200, "{ended}");
    // A terminal state is not taken back.
    let told = reported_late(&cluster, &id).await;
    assert_eq!(
        (&told["state"], &told["finished_at"], &told["exit"]),
        (&lost["state"], &lost["finished_at"], &json!(null))
    );
    assert_eq!(told["late"]["node"], "n1", "{told:#}");
}

/// The job once its node has said how it ended after it was given up for lost.
async fn reported_late(cluster: &Cluster, id: &str) -> Value {
    eventually("it is told how it ended", async || {
        let job = cluster.hub.job(id).await;
        let state = job["late"]["state"].as_str();
        state.is_some_and(|it| it != "running").then_some(job)
    })
    .await
}

#[tokio::test]
async fn the_end_of_a_lost_job_is_told_when_its_node_comes_back_and_its_output_is_there() {
    let args = ["--role", "api", "--node-lost-after-seconds", "1"];
    let mut cluster = Cluster::start_with(1, &args).await;
    let gate = cluster.hub.scratch().join("gate");
    let script = format!(
        "echo a; until test -e {}; do sleep 0.05; done; echo b; exit 6",
        gate.display()
    );
    let job = cluster.hub.submit(&json!({ "script": script })).await;
    let id = id(&job);
    cluster.hub.says(&id, "a\n").await;
    // Its monitor and the job go on.
    cluster.nodes[0].kill_supervisor();
    let lost = cluster.hub.finished(&id).await;
    assert_eq!(lost["state_reason"], "node_lost", "{lost:#}");
    assert!(lost.get("late").is_none(), "{lost:#}");
    let again = cluster.node_builder("n1");
    cluster.nodes[0].start_again(again).await;
    eventually("it is told that it still runs", async || {
        let job = cluster.hub.job(&id).await;
        (job["late"]["state"] == "running").then_some(())
    })
    .await;
    std::fs::write(&gate, "").unwrap();
    let told = reported_late(&cluster, &id).await;
    assert_eq!(
        (&told["state"], &told["state_reason"], &told["exit"]),
        (&json!("lost"), &json!("node_lost"), &json!(null))
    );
    assert_eq!(
        (&told["late"]["state"], &told["late"]["exit"]["code"]),
        (&json!("failed"), &json!(6)),
        "{told:#}"
    );
    assert_eq!(cluster.hub.text(&id).await, "a\nb\n");
    let kinds = cluster.kinds(&id).await;
    let expected = [
        "job.created",
        "job.started",
        "job.finished",
        "job.reported_late",
        "job.reported_late",
    ];
    assert_eq!(kinds, expected);
    // It is told once.
    cluster.crash_hub().await;
    cluster.connected("n1", true).await;
    cluster.hub.run_script("exit 0").await;
    assert_eq!(cluster.hub.job(&id).await["version"], told["version"]);
}

/// It was on its way when its node died.
#[tokio::test]
async fn a_node_that_comes_back_says_so_of_a_lost_job_that_it_never_got() {
    let args = ["--role", "api", "--node-lost-after-seconds", "1"];
    let mut cluster = Cluster::start_with(1, &args).await;
    // Its link is open, and it reads nothing. Its supervisor would wake it.
    let node = &cluster.nodes[0];
    for part in [node.supervisor(), node.server_process().unwrap()] {
        kill(part, Signal::SIGSTOP).unwrap();
    }
    let began = cluster.hub.scratch().join("began");
    let script = format!("touch {}", began.display());
    let id = id(&cluster.hub.submit(&json!({ "script": script })).await);
    let lost = cluster.hub.finished(&id).await;
    assert_eq!(
        (&lost["state_reason"], &lost["node"]),
        (&json!("node_lost"), &json!("n1")),
        "{lost:#}"
    );
    assert!(lost.get("late").is_none(), "{lost:#}");
    let asked = cluster.hub.delete(&id, "wait=1").await;
    assert_eq!(asked.status, 202, "nobody knows yet: {asked}");
    kill_service(&mut cluster.nodes[0]);
    let again = cluster.node_builder("n1");
    cluster.nodes[0].start_again(again).await;
    let told = reported_late(&cluster, &id).await;
    let late = json!({"node": "n1", "state": "lost", "exit": null, "finished_at": null});
    assert_eq!(told["late"], late, "{told:#}");
    let said = told["state_message"].as_str().unwrap();
    assert!(said.ends_with("most likely it never began"), "{said}");
    assert!(!began.exists());
    let ended = cluster.hub.delete(&id, "wait=30").await;
    assert_eq!(ended.status, 200, "{ended}");
    // It is told once.
    cluster.crash_hub().await;
    cluster.connected("n1", true).await;
    cluster.hub.run_script("exit 0").await;
    assert_eq!(cluster.hub.job(&id).await["version"], told["version"]);
    let expected = [
        "job.created",
        "job.finished",
        "job.changed",
        "job.reported_late",
    ];
    assert_eq!(cluster.kinds(&id).await, expected);
}

/// The opposite of at most once, for whom wants it: it overlaps, and the first attempt is ended when it is found.
#[tokio::test]
async fn a_job_that_wants_it_starts_again_elsewhere_when_its_node_is_lost() {
    let args = ["--role", "api", "--node-lost-after-seconds", "1"];
    let mut cluster = Cluster::start_with(2, &args).await;
    let starts = cluster.hub.scratch().join("starts");
    let gate = cluster.hub.scratch().join("gate");
    let script = format!(
        "echo $PROCESSION_ATTEMPT $$ >> {}; echo attempt $PROCESSION_ATTEMPT; until test -e {}; do sleep 0.05; done; exit 7",
        starts.display(),
        gate.display()
    );
    let body =
        json!({"script": script, "on_node_loss": "restart", "placement": {"nodes": ["n1", "n2"]}});
    let job = cluster.hub.submit(&body).await;
    let id = id(&job);
    assert_eq!((&job["node"], &job["attempt"]), (&json!("n1"), &json!(1)));
    cluster.hub.says(&id, "attempt 1\n").await;
    cluster.nodes[0].kill_supervisor();
    let job = eventually("it runs on the other one", async || {
        let job = cluster.hub.job(&id).await;
        (job["state"] == "running" && job["attempt"] == 2).then_some(job)
    })
    .await;
    assert_eq!(job["node"], "n2", "{job:#}");
    let first = &job["attempts"][0];
    assert_eq!(
        (
            &first["number"],
            &first["cause"],
            &first["node"],
            &first["exit"]
        ),
        (&json!(1), &json!("node_lost"), &json!("n1"), &json!(null)),
        "{job:#}"
    );
    cluster.hub.says(&id, "attempt 2\n").await;
    let begun = std::fs::read_to_string(&starts).unwrap();
    let pids: Vec<i32> = begun
        .lines()
        .map(|line| line.split(' ').nth(1).unwrap().parse().unwrap())
        .collect();
    assert_eq!(pids.len(), 2, "{begun}");
    let lives = |pid: i32| std::path::Path::new(&format!("/proc/{pid}")).exists();
    assert!(
        lives(pids[0]) && lives(pids[1]),
        "both run: that was asked for"
    );
    // The hub is started again, and the node comes back: its attempt is not wanted any more. The other node is given the time
    // that it takes to come back too.
    "600".clone_into(cluster.args.last_mut().unwrap());
    cluster.crash_hub().await;
    let again = cluster.node_builder("n1");
    cluster.nodes[0].start_again(again).await;
    cluster.connected("n1", true).await;
    eventually("the first attempt is ended", async || {
        (!lives(pids[0])).then_some(())
    })
    .await;
    assert!(lives(pids[1]));
    std::fs::write(&gate, "").unwrap();
    let ended = cluster.hub.finished(&id).await;
    assert_eq!(
        (&ended["state"], &ended["exit"]["code"], &ended["attempt"]),
        (&json!("failed"), &json!(7), &json!(2)),
        "{ended:#}"
    );
    assert_eq!(cluster.hub.text(&id).await, "attempt 2\n");
    let kinds = cluster.kinds(&id).await;
    let expected = [
        "job.created",
        "job.started",
        "job.attempt_finished",
        "job.started",
        "job.finished",
    ];
    assert_eq!(kinds, expected);
}

/// With one node alone it waits for that one, which ends the first attempt before it begins the second.
#[tokio::test]
async fn a_restarted_job_may_come_back_to_the_node_that_it_was_lost_with() {
    let args = ["--role", "api", "--node-lost-after-seconds", "1"];
    let mut cluster = Cluster::start_with(1, &args).await;
    let starts = cluster.hub.scratch().join("starts");
    let script = format!(
        "echo $$ >> {}; test $PROCESSION_ATTEMPT = 2 || exec sleep 1000; echo second",
        starts.display()
    );
    let body = json!({"script": script, "on_node_loss": "restart"});
    let id = id(&cluster.hub.submit(&body).await);
    eventually("it has begun", async || {
        std::fs::read_to_string(&starts).ok()
    })
    .await;
    cluster.nodes[0].kill_supervisor();
    eventually("it waits for a node", async || {
        let job = cluster.hub.job(&id).await;
        (job["state_reason"] == "no_matching_node").then_some(())
    })
    .await;
    let again = cluster.node_builder("n1");
    cluster.nodes[0].start_again(again).await;
    let ended = cluster.hub.finished(&id).await;
    assert_eq!(
        (&ended["state"], &ended["attempt"]),
        (&json!("succeeded"), &json!(2)),
        "{ended:#}"
    );
    assert_eq!(cluster.hub.text(&id).await, "second\n");
    let begun = std::fs::read_to_string(&starts).unwrap();
    let first = begun.lines().next().unwrap();
    assert!(!std::path::Path::new(&format!("/proc/{first}")).exists());
    assert_eq!(begun.lines().count(), 2, "{begun}");
}

/// What was given up for lost and still runs takes room on its node: nothing is sent there to wait for its end.
#[tokio::test]
async fn a_lost_job_that_still_runs_takes_its_nodes_room() {
    let args = ["--role", "api", "--node-lost-after-seconds", "1"];
    let mut cluster = Cluster::start_with(1, &args).await;
    let mut lost = Vec::new();
    for _ in 0..2 {
        let body = json!({"command": ["sleep", unique_seconds()]});
        lost.push(id(&cluster.hub.submit(&body).await));
    }
    cluster.nodes[0].kill_supervisor();
    for id in &lost {
        assert_eq!(cluster.hub.finished(id).await["state"], "lost");
    }
    let again = cluster.node_builder("n1");
    cluster.nodes[0].start_again(again).await;
    cluster.connected("n1", true).await;
    let node = cluster.node("n1").await;
    assert_eq!((&node["jobs"], &node["weight"]), (&json!(2), &json!(2)));
    let next = id(&cluster.hub.submit(&json!({"command": ["true"]})).await);
    let path = format!("/jobs/{next}?wait=1&until=started");
    let job = cluster.hub.get(&path).await.json();
    assert_eq!(
        (&job["state"], &job["node"]),
        (&json!("queued"), &Value::Null),
        "{job:#}"
    );
    // It is known over a restart of the hub, before anybody is sent there.
    cluster.crash_hub().await;
    cluster.connected("n1", true).await;
    let job = cluster.hub.job(&next).await;
    assert_eq!(job["state"], "queued", "{job:#}");
    let ended = cluster.hub.delete(&lost[0], "wait=30&force=true").await;
    assert_eq!(ended.status, 200, "{ended}");
    assert_eq!(cluster.hub.finished(&next).await["state"], "succeeded");
    eventually("the other one is left", async || {
        (cluster.node("n1").await["jobs"] == 1).then_some(())
    })
    .await;
    cluster.hub.delete(&lost[1], "wait=30&force=true").await;
}

/// A stop is taken whether the node is there or not, and holds over a restart of the hub.
#[tokio::test]
async fn a_stop_waits_for_the_node_that_has_the_job() {
    let mut cluster = Cluster::start_with(1, &["--role", "api"]).await;
    let seconds = unique_seconds();
    let job = cluster
        .hub
        .submit(&json!({"command": ["sleep", &seconds]}))
        .await;
    let id = id(&job);
    cluster.nodes[0].kill_supervisor();
    cluster.connected("n1", false).await;
    let asked = cluster.hub.delete(&id, "reason=enough").await;
    assert_eq!(asked.status, 202, "{asked}");
    eventually("it is said that it will be stopped", async || {
        let job = cluster.hub.job(&id).await;
        let said = job["state_message"].as_str().unwrap_or_default();
        (job["state"] == "running" && said.ends_with("is stopped if it does")).then_some(())
    })
    .await;
    cluster.crash_hub().await;
    assert_eq!(processes_with(&seconds).len(), 1);
    let again = cluster.node_builder("n1");
    cluster.nodes[0].start_again(again).await;
    let stopped = cluster.hub.finished(&id).await;
    assert_eq!(
        (&stopped["state"], &stopped["termination"]["reason"]),
        (&json!("canceled"), &json!("enough")),
        "{stopped:#}"
    );
    assert_eq!(processes_with(&seconds), []);
}

#[tokio::test]
async fn a_node_that_is_given_up_loses_its_jobs_at_once_and_may_join_anew() {
    let mut cluster = Cluster::start(2).await;
    let job = cluster
        .hub
        .submit(&json!({"command": ["sleep", "1000"]}))
        .await;
    assert_eq!(job["node"], "n1");
    let forget = async |cluster: &Cluster| {
        let request = cluster.hub.request(Method::DELETE, "/nodes/n1");
        cluster.hub.send(request).await
    };
    let refused = forget(&cluster).await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (409, "node_connected")
    );
    for process in cluster.nodes[0].marked() {
        crate::harness::kill_now(nix::unistd::Pid::from_raw(process.pid));
    }
    cluster.nodes[0].kill_supervisor();
    cluster.connected("n1", false).await;
    assert_eq!(forget(&cluster).await.status, 204);
    let lost = cluster.hub.finished(&id(&job)).await;
    assert_eq!(lost["state_reason"], "node_lost", "{lost:#}");
    let nodes = cluster.hub.get("/nodes").await.json();
    assert_eq!(nodes["nodes"].as_array().unwrap().len(), 1, "{nodes:#}");
    // The others work on, and the output of the lost job is no empty one.
    assert_eq!(cluster.hub.run_script("exit 0").await["node"], "n2");
    let output = cluster.hub.get(&format!("/jobs/{}/output", id(&job))).await;
    assert_eq!(output.status, 503, "{output}");
    let again = cluster.node_builder("n1");
    cluster.nodes[0].start_again(again).await;
    cluster.connected("n1", true).await;
}

#[tokio::test]
async fn a_node_whose_server_or_whole_service_is_started_again_keeps_its_jobs() {
    let mut cluster = Cluster::start(1).await;
    let gate = cluster.hub.scratch().join("gate");
    let script = format!(
        "echo a; until test -e {}; do sleep 0.05; done; echo b; exit 6",
        gate.display()
    );
    let job = cluster.hub.submit(&json!({ "script": script })).await;
    let id = id(&job);
    let server = cluster.nodes[0].server_process().unwrap();
    crate::harness::kill_now(server);
    // Its server comes back, and the node with it; until then the answer is 503.
    eventually("its output", async || {
        let reply = cluster.hub.get(&format!("/jobs/{id}/output")).await;
        assert!([200, 503].contains(&reply.status), "{reply}");
        (reply.body == b"a\n").then_some(())
    })
    .await;
    cluster.nodes[0].kill_supervisor();
    cluster.connected("n1", false).await;
    let again = cluster.node_builder("n1");
    cluster.nodes[0].start_again(again).await;
    cluster.connected("n1", true).await;
    assert_eq!(cluster.hub.job(&id).await["state"], "running");
    std::fs::write(&gate, "").unwrap();
    let ended = cluster.hub.finished(&id).await;
    assert_eq!(ended["exit"]["code"], 6, "{ended:#}");
    assert_eq!(cluster.hub.text(&id).await, "a\nb\n");
}

/// The hub has removed what it knew of a lost job, which then ends on its node: that has room again.
#[tokio::test]
async fn a_lost_job_that_is_removed_takes_no_room_once_it_has_ended() {
    let args = [
        "--role",
        "api",
        "--node-lost-after-seconds",
        "1",
        "--max-finished",
        "1",
    ];
    let mut cluster = Cluster::start_with(1, &args).await;
    let gate = cluster.hub.scratch().join("gate");
    let script = format!(
        "echo begun; until test -e {}; do sleep 0.05; done",
        gate.display()
    );
    let body = json!({"script": script});
    let id = id(&cluster.hub.submit(&body).await);
    cluster.hub.says(&id, "begun\n").await;
    cluster.nodes[0].kill_supervisor();
    assert_eq!(cluster.hub.finished(&id).await["state"], "lost");
    let again = cluster.node_builder("n1");
    cluster.nodes[0].start_again(again).await;
    cluster.connected("n1", true).await;
    cluster.hub.run(&json!({"command": ["true"]})).await;
    eventually("it is removed", async || {
        let job = cluster.hub.get(&format!("/jobs/{id}")).await;
        (job.status == 404).then_some(())
    })
    .await;
    assert_eq!(cluster.node("n1").await["jobs"], 1);
    // It is heard of before its end, and after that.
    for change in ["pause", "resume"] {
        let path = format!("/jobs/{id}/{change}");
        let changed = cluster.nodes[0].post(&path, &json!({})).await;
        assert_eq!(changed.status, 200, "{changed}");
    }
    std::fs::write(&gate, "").unwrap();
    eventually("the node has room", async || {
        (cluster.node("n1").await["jobs"] == 0).then_some(())
    })
    .await;
}
