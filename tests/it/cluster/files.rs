//! Jobs with files: these come to the node before the job does, and clients reach them there.

use std::collections::BTreeMap;
use std::path::PathBuf;

use reqwest::Method;
use serde_json::{Value, json};

use super::{Cluster, kill_service, lines};
use crate::files::archives::{FORM, form, made, said};
use crate::harness::{Reply, Server, eventually, id};

fn workspace(server: &Server, id: &str) -> PathBuf {
    server.state_dir().join("workspaces").join(id)
}

async fn put(hub: &Server, id: &str, path: &str, bytes: Vec<u8>) -> Reply {
    let request = hub.request(Method::PUT, &format!("/jobs/{id}/files/{path}"));
    hub.send(request.body(bytes)).await
}

async fn text(hub: &Server, id: &str, path: &str) -> String {
    let reply = hub.get(&format!("/jobs/{id}/files/{path}")).await;
    assert_eq!(reply.status, 200, "{reply}");
    String::from_utf8(reply.body).unwrap()
}

async fn release(hub: &Server, id: &str) {
    let reply = hub.post(&format!("/jobs/{id}/release"), &json!({})).await;
    assert_eq!(reply.status, 200, "{reply}");
}

/// The paths of a job's files.
async fn listed(hub: &Server, id: &str) -> Vec<String> {
    let reply = hub.get(&format!("/jobs/{id}/files")).await;
    assert_eq!(reply.status, 200, "{reply}");
    let list = reply.json();
    let files = list["files"].as_array().unwrap().iter();
    files
        .map(|it| it["path"].as_str().unwrap().to_owned())
        .collect()
}

/// An archive with a program, a link to it, an empty directory and a large file.
fn archive(large: usize) -> Vec<u8> {
    made(&format!(
        "add('run', content=b'#!/bin/sh\\necho ran\\n', mode=0o750)\n\
         add('link', tarfile.SYMTYPE, link='run')\n\
         add('empty', tarfile.DIRTYPE, mode=0o755)\n\
         add('large', content=b'x' * {large})"
    ))
}

#[tokio::test]
async fn a_job_with_files_runs_on_a_node_and_its_files_are_reached_through_the_hub() {
    let cluster = Cluster::start(1).await;
    let hub = &cluster.hub;
    let job = hub
        .submit(&json!({
            "script": "cat in/a.txt ü.txt; src/link; wc -c <src/large; ls -d src/empty; stat -c %a src/run b; \
                       mkdir out; echo $PROCESSION_WORKSPACE >out/where; until test -e go; do sleep 0.05; done; cp go out/",
            "hold": true,
            "inputs": [
                {"path": "in/a.txt", "text": "a\n"},
                {"path": "b", "base64": "AAE=", "mode": "0711"},
            ],
            "artifacts": {"paths": ["out/**", "none"]},
        }))
        .await;
    let id = id(&job);
    let large = 3 << 20;
    let reply = put(hub, &id, "src?unpack=tar", archive(large)).await;
    assert_eq!(reply.status, 204, "{reply}");
    assert_eq!(
        put(hub, &id, "%C3%BC.txt", b"u\n".to_vec()).await.status,
        201
    );
    assert_eq!(put(hub, &id, "gone", b"".to_vec()).await.status, 201);
    let request = hub.request(Method::DELETE, &format!("/jobs/{id}/files/gone"));
    assert_eq!(hub.send(request).await.status, 204);
    let before = listed(hub, &id).await;
    assert!(before.contains(&"src/empty".to_owned()), "{before:?}");
    release(hub, &id).await;
    let shown = format!("a\nu\nran\n{large}\nsrc/empty\n750\n711\n");
    hub.says(&id, &shown).await;
    let job = hub.job(&id).await;
    assert_eq!(job["node"], "n1", "{job:#}");

    // They are on the node alone, and are read and written there.
    let own = workspace(&cluster.nodes[0], &id);
    assert!(own.join("src/large").exists());
    eventually("the hub has none of them any more", async || {
        (!workspace(hub, &id).exists()).then_some(())
    })
    .await;
    let now = listed(hub, &id).await;
    assert!(now.contains(&"out/where".to_owned()), "{now:?}");
    let place = text(hub, &id, "out/where").await;
    assert_eq!(
        PathBuf::from(place.trim()).canonicalize().unwrap(),
        own.canonicalize().unwrap()
    );
    assert_eq!(put(hub, &id, "go", b"gone on\n".to_vec()).await.status, 201);

    let ended = hub.finished(&id).await;
    assert_eq!(ended["state"], "succeeded", "{ended:#}");
    assert_eq!(
        (&ended["artifacts"]["files"], &ended["artifacts"]["missing"]),
        (&json!(2), &json!(["none"])),
        "{ended:#}"
    );
    assert_eq!(
        cluster.kinds(&id).await,
        [
            "job.created",
            "job.changed",
            "job.changed",
            "job.started",
            "job.artifacts",
            "job.finished"
        ]
    );
    let request = hub.request(Method::GET, &format!("/jobs/{id}/files/out/go"));
    let part = hub.send(request.header("Range", "bytes=5-6")).await;
    assert_eq!((part.status, &part.body[..]), (206, &b"on"[..]), "{part}");
    let tar = hub.get(&format!("/jobs/{id}/files.tar?match=out/g*")).await;
    assert_eq!(tar.status, 200, "{tar}");
    assert_eq!(said("tar", &["-tf", "-"], &tar.body), "out/go\n");
    let reply = put(hub, &id, "late", b"".to_vec()).await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (409, "job_already_finished"),
        "{reply}"
    );
    let purged = hub.delete(&id, "purge=true&wait=10").await;
    assert_eq!(purged.status, 204, "{purged}");
    eventually("the node has none of them any more", async || {
        (!own.exists()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn files_of_a_form_and_of_jobs_on_other_nodes_come_to_the_node() {
    let cluster = Cluster::start(2).await;
    let hub = &cluster.hub;
    let on = |node: &str| json!({"nodes": [node]});
    let first = hub
        .submit(&json!({
            "script": "until test -e go; do sleep 0.05; done; echo made >'a b%.txt'",
            "artifacts": {"paths": ["*.txt"]},
            "inputs": [{"path": "given", "text": "given\n"}],
            "placement": on("n1"),
        }))
        .await;
    let first = id(&first);
    hub.in_state(&first, "running").await;
    // At once, and when the other has ended.
    let from = |path: &str| json!({"path": "got", "from": {"job": first, "path": path}});
    let now = json!({"script": "cat got", "inputs": [from("given")], "placement": on("n2")});
    let later = json!({
        "script": "cat got",
        "inputs": [from("a b%.txt")],
        "placement": on("n2"),
        "depends_on": [{"job": first}],
    });
    let (now, later) = (hub.submit(&now).await, hub.submit(&later).await);
    let wrong = hub
        .post(
            "/jobs",
            &json!({"script": "true", "inputs": [from("none")]}),
        )
        .await;
    assert_eq!(wrong.status, 422, "{wrong}");
    assert_eq!(
        wrong.json()["errors"][0]["code"],
        "file_not_found",
        "{wrong}"
    );
    assert_eq!(hub.finished(&id(&now)).await["node"], "n2");
    assert_eq!(hub.text(&id(&now)).await, "given\n");
    assert_eq!(put(hub, &first, "go", Vec::new()).await.status, 201);
    assert_eq!(hub.finished(&id(&later)).await["node"], "n2");
    assert_eq!(hub.text(&id(&later)).await, "made\n");

    let spec = json!({"script": "cat in", "inputs": [{"path": "in", "part": "f"}]});
    let spec = spec.to_string();
    let body = form(&[("job", spec.as_bytes()), ("f", b"of a form\n")]);
    let request = hub
        .request(Method::POST, "/jobs")
        .header("content-type", FORM);
    let reply = hub.send(request.body(body)).await;
    assert_eq!(reply.status, 201, "{reply}");
    let job = id(&reply.json());
    hub.finished(&job).await;
    assert_eq!(hub.text(&job).await, "of a form\n");
}

#[tokio::test]
async fn a_node_that_dies_while_it_gets_the_files_leaves_the_job_to_another() {
    let mut cluster = Cluster::start(2).await;
    let starts = cluster.hub.scratch().join("starts");
    std::fs::write(cluster.failpoints.path().join("files.fetched"), "wait").unwrap();
    let body = json!({
        "script": format!("echo $PROCESSION_JOB_ID >>{}; cat in", starts.display()),
        "inputs": [{"path": "in", "text": "here\n"}],
        "name": "first",
    });
    let key = cluster
        .hub
        .request(Method::POST, "/jobs")
        .header("Prefer", "respond-async");
    let job = cluster.hub.send(key.json(&body)).await.json();
    let id = id(&job);
    let job = eventually("its files are on their way", async || {
        let job = cluster.hub.job(&id).await;
        let is_coming = job["state"] == "starting" && !cluster.is_armed("files.fetched");
        is_coming.then_some(job)
    })
    .await;
    let message = job["state_message"].as_str().unwrap().to_owned();
    let first = usize::from(message.ends_with("n2"));
    assert!(
        message.contains("its files are on their way to node n"),
        "{message}"
    );
    // What is put now might not be in what the node gets.
    let reply = put(&cluster.hub, &id, "in", b"other\n".to_vec()).await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (503, "files_unavailable"),
        "{reply}"
    );
    kill_service(&mut cluster.nodes[first]);
    let ended = cluster.hub.finished(&id).await;
    let other = ["n2", "n1"][first];
    assert_eq!(
        (&ended["node"], &ended["exit"]["code"]),
        (&json!(other), &json!(0)),
        "{ended:#}"
    );
    assert_eq!(cluster.hub.text(&id).await, "here\n");
    assert_eq!(lines(&starts), [(id.clone(), 1)].into());
    // What had come of it is no job's.
    let name = ["n1", "n2"][first];
    let again = cluster.node_builder(name);
    cluster.nodes[first].start_again(again).await;
    cluster.connected(name, true).await;
    let left = workspace(&cluster.nodes[first], &id);
    eventually("nothing is left of it", async || {
        (!left.exists()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_servers_are_killed_at_every_step_of_the_files_and_none_is_missing() {
    let cluster = Cluster::start(2).await;
    let client = cluster.hub.persistent();
    let starts = cluster.hub.scratch().join("starts");
    let mut accepted = BTreeMap::new();
    let places = [
        "workspace.provided",
        "files.sending",
        "files.fetched",
        "files.moving",
        "files.sent",
        "claim.storing",
        "claim.stored",
        "assign.sent",
        "take.storing",
        "take.stored",
        "report.stored",
        "artifacts.collected",
        "end.stored",
    ];
    for (number, place) in places.into_iter().enumerate() {
        cluster.arm(place);
        let body = json!({
            "script": format!("echo $PROCESSION_JOB_ID >>{}; cat in/*; cp in/a out", starts.display()),
            "inputs": [{"path": "in/a", "text": format!("{number}\n")}, {"path": "in/b", "text": "b\n"}],
            "artifacts": {"paths": ["out"]},
        });
        let key = format!("key-{number}");
        let reply = client
            .ask(Method::POST, "/jobs", Some(&body), Some(&key))
            .await;
        assert_eq!(reply.status, 201, "{reply}");
        accepted.insert(id(&reply.json()), number);
        eventually(&format!("somebody is killed at {place}"), async || {
            (!cluster.is_armed(place)).then_some(())
        })
        .await;
    }
    for (id, number) in &accepted {
        let job = client.finished(id).await;
        assert_eq!(job["exit"]["code"], 0, "job {number}: {job:#}");
        assert_eq!(job["artifacts"]["files"], 1, "job {number}: {job:#}");
        let output = client.get(&format!("/jobs/{id}/output")).await;
        assert_eq!(
            String::from_utf8_lossy(&output.body),
            format!("{number}\nb\n")
        );
        let out = client.get(&format!("/jobs/{id}/files/out")).await;
        assert_eq!(String::from_utf8_lossy(&out.body), format!("{number}\n"));
    }
    let started = lines(&starts);
    assert!(started.values().all(|count| *count == 1), "{started:?}");
    assert_eq!(started.len(), accepted.len(), "nothing else has started");
    for id in accepted.keys() {
        eventually("the hub keeps none of them", async || {
            (!workspace(&cluster.hub, id).exists()).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn what_was_uploaded_outlasts_the_hub_and_is_not_replaced_by_nothing() {
    let mut cluster = Cluster::start(1).await;
    let held = json!({
        "script": "cat in up",
        "hold": true,
        "inputs": [{"path": "in", "text": "in\n"}],
    });
    let (kept, gone, plain) = (
        id(&cluster.hub.submit(&held).await),
        id(&cluster.hub.submit(&held).await),
        id(&cluster
            .hub
            .submit(&json!({"script": "cat in", "hold": true, "inputs": held["inputs"]}))
            .await),
    );
    for job in [&kept, &gone] {
        let reply = put(&cluster.hub, job, "up", b"up\n".to_vec()).await;
        assert_eq!(reply.status, 201, "{reply}");
    }
    cluster.crash_hub().await;
    cluster.connected("n1", true).await;
    release(&cluster.hub, &kept).await;
    assert_eq!(cluster.hub.finished(&kept).await["exit"]["code"], 0);
    assert_eq!(cluster.hub.text(&kept).await, "in\nup\n");
    // Somebody removes it.
    let removed = id(&cluster.hub.submit(&held).await);
    let reply = put(&cluster.hub, &removed, "up", b"up\n".to_vec()).await;
    assert_eq!(reply.status, 201, "{reply}");
    std::fs::remove_dir_all(workspace(&cluster.hub, &removed)).unwrap();
    release(&cluster.hub, &removed).await;
    let ended = cluster.hub.finished(&removed).await;
    let message = ended["state_message"].as_str().unwrap();
    assert_eq!(ended["state_reason"], "spawn_failed", "{ended:#}");
    assert!(message.contains("not there any more"), "{message}");
    // A store that was restored without the workspaces.
    cluster.hub.kill_supervisor();
    let workspaces = cluster.hub.state_dir().join("workspaces");
    std::fs::remove_dir_all(workspaces).unwrap();
    cluster.start_hub().await;
    cluster.connected("n1", true).await;
    let reply = cluster.hub.get(&format!("/jobs/{gone}/files")).await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (503, "files_unavailable"),
        "{reply}"
    );
    let reply = put(&cluster.hub, &gone, "up", Vec::new()).await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (503, "files_unavailable"),
        "{reply}"
    );
    for job in [&gone, &plain] {
        release(&cluster.hub, job).await;
    }
    let ended = cluster.hub.finished(&gone).await;
    assert_eq!(
        (&ended["state"], &ended["state_reason"]),
        (&json!("failed"), &json!("spawn_failed")),
        "{ended:#}"
    );
    let message = ended["state_message"].as_str().unwrap();
    assert!(
        message.contains("files that were uploaded for it"),
        "{message}"
    );
    // What stands in its description is made again.
    assert_eq!(cluster.hub.finished(&plain).await["exit"]["code"], 0);
    assert_eq!(cluster.hub.text(&plain).await, "in\n");
}

#[tokio::test]
async fn a_job_that_starts_again_elsewhere_has_the_files_that_it_began_with() {
    let args = ["--role", "api", "--node-lost-after-seconds", "1"];
    let mut cluster = Cluster::start_with(2, &args).await;
    let starts = cluster.hub.scratch().join("starts");
    let gate = cluster.hub.scratch().join("gate");
    let job = cluster
        .hub
        .submit(&json!({
            "script": format!(
                "cat in >>{}; echo changed >in; until test -e {}; do sleep 0.05; done",
                starts.display(), gate.display()
            ),
            "inputs": [{"path": "in", "text": "begun\n"}],
            "on_node_loss": "restart",
        }))
        .await;
    let id = id(&job);
    let has_begun = async |times: usize| {
        eventually("it has begun", async || {
            (lines(&starts).get("begun") == Some(&times)).then_some(())
        })
        .await;
    };
    has_begun(1).await;
    let first = usize::from(cluster.hub.job(&id).await["node"] == "n2");
    kill_service(&mut cluster.nodes[first]);
    has_begun(2).await;
    std::fs::write(&gate, "").unwrap();
    let ended = cluster.hub.finished(&id).await;
    assert_eq!(
        (&ended["attempt"], &ended["exit"]["code"], &ended["node"]),
        (&json!(2), &json!(0), &json!(["n2", "n1"][first])),
        "{ended:#}"
    );
    eventually("the hub keeps none of them", async || {
        (!workspace(&cluster.hub, &id).exists()).then_some(())
    })
    .await;
    // What the lost attempt has left goes when its node is back.
    let left = workspace(&cluster.nodes[first], &id);
    assert!(left.exists());
    let again = cluster.node_builder(["n1", "n2"][first]);
    cluster.nodes[first].start_again(again).await;
    eventually("nothing is left of it", async || {
        (!left.exists()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_a_node_cannot_take_fails_with_its_reason_and_a_stop_ends_the_way() {
    let mut cluster = Cluster::start(0).await;
    cluster.token("n1").await;
    let node = cluster
        .node_builder("n1")
        .args(["--max-workspace-bytes", "1MiB"]);
    cluster.nodes.push(node.start().await);
    cluster.connected("n1", true).await;
    // Of one without files nothing is removed, and it starts.
    let empty = json!({"script": "true", "workspace": {}, "hold": true});
    let plain = id(&cluster.hub.submit(&empty).await);
    let request = cluster
        .hub
        .request(Method::DELETE, &format!("/jobs/{plain}/files/none"));
    let reply = cluster.hub.send(request).await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (404, "file_not_found"),
        "{reply}"
    );
    release(&cluster.hub, &plain).await;
    assert_eq!(cluster.hub.finished(&plain).await["exit"]["code"], 0);

    let id = id(&cluster.hub.submit(&empty).await);
    assert_eq!(
        put(&cluster.hub, &id, "large", vec![0; 2 << 20])
            .await
            .status,
        201
    );
    release(&cluster.hub, &id).await;
    let ended = cluster.hub.finished(&id).await;
    assert_eq!(ended["state_reason"], "spawn_failed", "{ended:#}");
    let message = ended["state_message"].as_str().unwrap();
    assert!(
        message.contains("node n1 does not take its files: more than 1048576 bytes"),
        "{message}"
    );

    std::fs::write(cluster.failpoints.path().join("files.fetched"), "wait").unwrap();
    let body = json!({"script": "true", "inputs": [{"path": "in", "text": "x"}]});
    let request = cluster.hub.request(Method::POST, "/jobs").json(&body);
    let job: Value = cluster.hub.send(request).await.json();
    let id = job["id"].as_str().unwrap().to_owned();
    let stopped = cluster.hub.delete(&id, "wait=10").await;
    assert_eq!(
        (stopped.status, &stopped.json()["state"]),
        (200, &json!("canceled")),
        "{stopped}"
    );
    cluster.arm("files.fetched");
    let own = workspace(&cluster.nodes[0], &id);
    eventually("nothing is left of it", async || {
        let is_taken = !cluster.is_armed("files.fetched");
        (is_taken && !own.exists()).then_some(())
    })
    .await;
    // The node goes on.
    let job = cluster.hub.run(&body).await;
    assert_eq!(job["state"], "succeeded", "{job:#}");
}
