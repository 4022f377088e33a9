//! What clients do to a job through the hub that a node has.

use nix::sys::signal::{Signal, kill};
use reqwest::Method;
use serde_json::{Value, json};

use super::Cluster;
use crate::hangups::Places;
use crate::harness::{Lines, eventually, id, processes_with, unique_seconds};

#[tokio::test]
async fn a_job_of_a_node_is_seen_and_controlled_as_one_of_this_machine() {
    let cluster = Cluster::start(2).await;
    let hub = &cluster.hub;
    let body = json!({
        "script": "trap 'echo usr1' USR1; echo out; echo err >&2; while :; do sleep 0.05; done",
        "labels": {"a": "b"},
    });
    let job = hub.submit(&body).await;
    let id = id(&job);
    assert_eq!(job["state"], "running", "{job:#}");
    assert!(job["process"]["pid"].as_i64().unwrap() > 0);
    hub.says(&id, "err").await;
    assert_eq!(hub.stdout(&id).await, "out\n");

    let excerpt = hub
        .get(&format!("/jobs/{id}?output_bytes=1000"))
        .await
        .json();
    let text = excerpt["output"]["excerpt"]["text"].as_str().unwrap();
    assert!(text.contains("out") && text.contains("err"), "{excerpt:#}");

    let path = format!("/jobs/{id}/signal");
    let signal = hub.post(&path, &json!({"signal": "USR1"})).await;
    assert!(
        signal.json()["delivered_to"].as_u64() >= Some(1),
        "{signal}"
    );
    hub.says(&id, "usr1").await;

    for (what, state) in [("pause", "paused"), ("resume", "running")] {
        let request = hub.request(Method::POST, &format!("/jobs/{id}/{what}"));
        let reply = hub.send(request).await;
        assert_eq!(
            (reply.status, &reply.json()["state"]),
            (200, &json!(state)),
            "{reply}"
        );
    }

    let processes = hub.get(&format!("/jobs/{id}/processes")).await.json();
    let leader = &job["process"]["pid"];
    let all = processes["processes"].as_array().unwrap();
    assert!(all.iter().any(|it| it["pid"] == *leader), "{processes:#}");

    let before = hub.job(&id).await;
    let tag = format!("\"{}\"", before["version"]);
    let patch = |tag: String| {
        hub.request(Method::PATCH, &format!("/jobs/{id}"))
            .header("Content-Type", "application/merge-patch+json")
            .header("If-Match", tag)
            .body(json!({"labels": {"c": "d"}, "timeout_seconds": 3600}).to_string())
    };
    let changed = hub.send(patch(tag.clone())).await;
    assert_eq!(changed.status, 200, "{changed}");
    let changed = changed.json();
    assert_eq!(changed["labels"], json!({"a": "b", "c": "d"}));
    assert!(changed["deadline_at"].is_string(), "{changed:#}");
    let stale = hub.send(patch(tag)).await;
    assert_eq!(stale.status, 412, "{stale}");

    let stopped = hub.delete(&id, "wait=30&reason=enough").await;
    assert_eq!(stopped.status, 200, "{stopped}");
    let stopped = stopped.json();
    assert_eq!(stopped["state"], "canceled", "{stopped:#}");
    assert_eq!(stopped["termination"]["requested_by"], "token:default");
    assert_eq!(stopped["termination"]["reason"], "enough");

    // What has happened is told once by the hub, and in its order: what the node has seen, and what the hub itself has done.
    assert_eq!(
        told(&cluster, &id).await,
        [
            "job.created",
            "job.started",
            "job.signaled",
            "job.paused",
            "job.resumed",
            "job.changed",
            "job.stopping",
            "job.finished",
        ]
    );
    // The output of what has ended is there, with its end.
    let reply = hub.get(&format!("/jobs/{id}/output")).await;
    assert_eq!(
        reply.header("procession-output-complete"),
        "true",
        "{reply}"
    );
}

/// The kinds of the events of a job.
async fn told(cluster: &Cluster, id: &str) -> Vec<String> {
    let request = cluster
        .hub
        .request(Method::GET, &format!("/jobs/{id}/events"));
    let request = request.header("Accept", "application/x-ndjson");
    let reply = cluster.hub.send(request).await;
    let lines = String::from_utf8(reply.body).unwrap();
    let kind = |line: &str| serde_json::from_str::<Value>(line).unwrap()["type"].clone();
    let lines = lines.lines().map(kind);
    lines.map(|it| it.as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn output_is_followed_and_input_is_written_through_the_hub() {
    let cluster = Cluster::start(1).await;
    let hub = &cluster.hub;
    let job = hub
        .submit(&json!({"command": ["cat"], "stdin": {"mode": "open"}}))
        .await;
    let id = id(&job);
    let follow = hub
        .request(Method::GET, &format!("/jobs/{id}/output?follow"))
        .header("Accept", "application/x-ndjson");
    let mut lines = Lines::new(follow.send().await.unwrap());
    for word in ["one", "two"] {
        let request = hub.request(Method::POST, &format!("/jobs/{id}/stdin"));
        let reply = hub.send(request.body(format!("{word}\n"))).await;
        assert_eq!(reply.status, 204, "{reply}");
        loop {
            let line = lines.next().await.unwrap();
            if line.contains(word) {
                break;
            }
        }
    }
    let request = hub.request(Method::POST, &format!("/jobs/{id}/stdin?eof"));
    assert_eq!(hub.send(request).await.status, 204);
    while lines.next().await.is_some() {}
    assert!(lines.is_whole);
    assert_eq!(hub.finished(&id).await["exit"]["code"], 0);
    let range = hub.request(Method::GET, &format!("/jobs/{id}/output/stdout"));
    let range = hub.send(range.header("Range", "bytes=4-6")).await;
    assert_eq!(
        (range.status, &range.body[..]),
        (206, &b"two"[..]),
        "{range}"
    );

    // The command line does all of it at once, over a WebSocket.
    let mut run = hub.client();
    let run = run
        .args(["run", "--", "sh", "-c", "echo ran; exit 7"])
        .output()
        .unwrap();
    assert_eq!(
        (run.status.code(), &run.stdout[..]),
        (Some(7), &b"ran\n"[..]),
        "{run:?}"
    );
    let mut typed = hub.client();
    typed.args(["run", "--interactive", "--", "cat"]);
    typed
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped());
    let mut typed = typed.spawn().unwrap();
    std::io::Write::write_all(&mut typed.stdin.take().unwrap(), b"typed\n").unwrap();
    let typed = typed.wait_with_output().unwrap();
    assert_eq!(
        (typed.status.code(), &typed.stdout[..]),
        (Some(0), &b"typed\n"[..]),
        "{typed:?}"
    );
}

#[tokio::test]
async fn retries_batches_keys_and_dependencies_hold_over_nodes() {
    let cluster = Cluster::start(2).await;
    let hub = &cluster.hub;
    let flag = hub.scratch().join("flag");
    let script = format!(
        "echo try $PROCESSION_ATTEMPT; test -e {0} || {{ touch {0}; exit 1; }}",
        flag.display()
    );
    let retried =
        json!({"script": script, "retry": {"max_attempts": 3, "backoff": {"initial_seconds": 0}}});
    let ended = hub.run(&retried).await;
    assert_eq!(
        (&ended["state"], &ended["attempt"]),
        (&json!("succeeded"), &json!(2)),
        "{ended:#}"
    );
    assert_eq!(ended["attempts"].as_array().unwrap().len(), 2, "{ended:#}");
    assert_eq!(hub.text(&id(&ended)).await, "try 1\ntry 2\n");
    let events = told(&cluster, &id(&ended)).await;
    let expected = [
        "job.created",
        "job.started",
        "job.attempt_finished",
        "job.started",
        "job.finished",
    ];
    assert_eq!(events, expected);

    // Two with one key do not run at a time, wherever they are.
    let keyed = json!({"command": ["sleep", "1000"], "concurrency": {"key": "k"}});
    let one = hub.submit(&keyed).await;
    let other = hub.submit(&keyed).await;
    assert_eq!(
        (&one["state"], &other["state"]),
        (&json!("running"), &json!("queued"))
    );
    let after = json!({"command": ["true"], "depends_on": [{"job": id(&one), "on": "finished"}]});
    let after = hub.submit(&after).await;
    hub.stop(&id(&one), "force").await;
    hub.in_state(&id(&other), "running").await;
    assert_eq!(hub.finished(&id(&after)).await["state"], "succeeded");
    hub.stop(&id(&other), "force").await;

    let job = json!({"key": "j", "repeat": 5, "script": "echo $PROCESSION_INDEX"});
    let batch = hub.post("/batches", &json!({"jobs": [job]})).await;
    assert_eq!(batch.status, 201, "{batch}");
    let batch = id(&batch.json());
    let done = hub
        .get(&format!("/batches/{batch}?wait=30&until=finished"))
        .await
        .json();
    assert_eq!(done["state"], "succeeded", "{done:#}");
}

#[tokio::test]
async fn a_stop_ends_every_process_on_the_node_and_a_purge_removes_what_it_wrote() {
    let cluster = Cluster::start(1).await;
    let hub = &cluster.hub;
    let seconds = unique_seconds();
    // So much that it is in files.
    let script = format!("seq 2000; setsid sleep {seconds} & sleep {seconds} & wait");
    let job = hub.submit(&json!({ "script": script })).await;
    let id = id(&job);
    crate::harness::eventually("both run", async || {
        (processes_with(&seconds).len() >= 2).then_some(())
    })
    .await;
    let gone = hub.delete(&id, "wait=30&force").await;
    assert_eq!(gone.status, 200, "{gone}");
    assert_eq!(processes_with(&seconds), []);
    let directory = cluster.nodes[0].state_dir().join("jobs").join(&id);
    assert!(directory.exists());
    let purged = hub.delete(&id, "purge").await;
    assert_eq!(purged.status, 204, "{purged}");
    crate::harness::eventually("the node forgets it", async || {
        (!directory.exists()).then_some(())
    })
    .await;
    assert_eq!(hub.get(&format!("/jobs/{id}")).await.status, 404);
}

#[tokio::test]
async fn the_end_of_the_hub_is_not_the_end_of_the_jobs() {
    let mut cluster = Cluster::start(1).await;
    let job = cluster
        .hub
        .submit(&json!({"script": "echo a; sleep 1; echo b; exit 5"}))
        .await;
    cluster.hub.end(Signal::SIGTERM);
    let node = &cluster.nodes[0];
    let there = node.finished(&id(&job)).await;
    assert_eq!(there["exit"]["code"], 5, "{there:#}");
    cluster.start_hub().await;
    let ended = cluster.hub.finished(&id(&job)).await;
    assert_eq!(
        (&ended["exit"]["code"], &ended["state"]),
        (&json!(5), &json!("failed"))
    );
    cluster.connected("n1", true).await;
    assert_eq!(cluster.hub.text(&id(&job)).await, "a\nb\n");
}

#[tokio::test]
async fn a_drain_that_ends_lets_jobs_start_though_nobody_waits_for_the_answer() {
    let cluster = Cluster::start(1).await;
    let hub = &cluster.hub;
    cluster.drain("n1", Method::POST).await;
    let job = id(&hub.submit(&json!({"command": ["true"]})).await);
    assert_eq!(hub.job(&job).await["state"], "queued");
    let places = Places(cluster.failpoints.path());
    let (place, request) = ("nodes.writing", (Method::DELETE, "/nodes/n1/drain"));
    places.hang_up(hub, place, request, &Value::Null).await;
    places.let_go(place);
    assert_eq!(hub.finished(&job).await["state"], "succeeded");
}

#[tokio::test]
async fn a_job_that_comes_too_late_to_be_stored_by_a_node_goes_to_another() {
    let mut cluster = Cluster::start(0).await;
    cluster.token("n1").await;
    let grace = ["--shutdown-grace-seconds", "600"];
    let node = cluster.node_builder("n1").args(grace).start().await;
    cluster.connected("n1", true).await;
    let script = "trap '' TERM; echo ready; while :; do sleep 0.05; done";
    let busy = id(&cluster.hub.submit(&json!({"script": script})).await);
    cluster.hub.says(&busy, "ready").await;
    let body = json!({"command": ["true"], "hold": true});
    let late = id(&cluster.hub.submit(&body).await);
    let places = Places(cluster.failpoints.path());
    let place = "job.enlisted";
    places.hold_up(place);
    let path = format!("/jobs/{late}/release");
    let release = cluster.hub.request(Method::POST, &path);
    assert_eq!(cluster.hub.send(release).await.status, 200);
    places.reached(place).await;
    kill(node.supervisor(), Signal::SIGTERM).unwrap();
    eventually("the node ends", async || {
        (cluster.hub.job(&busy).await["state"] == "stopping").then_some(())
    })
    .await;
    places.let_go(place);
    cluster.add("n2").await;
    let late = cluster.hub.finished(&late).await;
    assert_eq!(late["state"], "succeeded", "{late:#}");
    drop(node);
}
