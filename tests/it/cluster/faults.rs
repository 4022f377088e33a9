//! Hub and nodes are killed at every step of a job's way and at random: no accepted job is missing, none starts twice, and
//! exit and output are those that the job wrote.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Cluster, lines};
use crate::harness::{Persistent, amount, eventually, id, kill_now};

/// A job that notes its start, writes and ends with a code that is known.
fn body(starts: &Path, number: u32) -> Value {
    json!({
        "name": format!("job-{number}"),
        "script": format!(
            "echo $PROCESSION_JOB_ID >> {}; echo out {number}; sleep 0.{}; echo end; exit {}",
            starts.display(), number % 5, number % 7
        ),
    })
}

/// Holds what the clients know against what there is: I1, I2 and I7, and that events are gapless and each once.
async fn judge(
    cluster: &Cluster,
    client: &Persistent,
    starts: &Path,
    accepted: &BTreeMap<String, u32>,
) {
    for (id, number) in accepted {
        let job = client.finished(id).await;
        assert_eq!(job["exit"]["code"], number % 7, "job {number}: {job:#}");
        let output = client.get(&format!("/jobs/{id}/output")).await;
        let text = String::from_utf8_lossy(&output.body).into_owned();
        assert_eq!(text, format!("out {number}\nend\n"), "job {number}");
    }
    let started = lines(starts);
    for id in accepted.keys() {
        assert_eq!(
            started.get(id),
            Some(&1),
            "job {id} starts once: {started:?}"
        );
    }
    assert_eq!(started.len(), accepted.len(), "nothing else has started");
    let list = client.get("/jobs?page_size=1000").await.json();
    assert_eq!(list["jobs"].as_array().unwrap().len(), accepted.len());

    let request = cluster.hub.request(Method::GET, "/events");
    let request = request.header("Accept", "application/x-ndjson");
    let reply = cluster.hub.send(request).await;
    let text = String::from_utf8(reply.body).unwrap();
    let mut told: HashMap<String, Vec<String>> = HashMap::new();
    let mut last = None;
    for line in text.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let cursor: u64 = event["id"].as_str().unwrap().parse().unwrap();
        assert!(
            last.is_none_or(|last| cursor > last),
            "{cursor} after {last:?}"
        );
        last = Some(cursor);
        let job = event["subject"].as_str().unwrap().to_owned();
        told.entry(job)
            .or_default()
            .push(event["type"].as_str().unwrap().to_owned());
    }
    for id in accepted.keys() {
        assert_eq!(
            told[id],
            ["job.created", "job.started", "job.finished"],
            "{id}"
        );
    }
}

async fn submit(client: &Persistent, starts: &Path, number: u32) -> String {
    let key = format!("key-{number}");
    let body = body(starts, number);
    let reply = client
        .ask(Method::POST, "/jobs", Some(&body), Some(&key))
        .await;
    assert_eq!(reply.status, 201, "{reply}");
    let first = id(&reply.json());
    let again = client
        .ask(Method::POST, "/jobs", Some(&body), Some(&key))
        .await;
    assert_eq!(id(&again.json()), first, "one job a key");
    first
}

#[tokio::test]
async fn the_servers_are_killed_at_every_step_from_the_claim_to_the_end() {
    let cluster = Cluster::start(2).await;
    let client = cluster.hub.persistent();
    let starts = cluster.hub.scratch().join("starts");
    let mut accepted = BTreeMap::new();
    let places = [
        "job.accepted",
        "claim.storing",
        "claim.stored",
        "assign.sending",
        "assign.sent",
        "take.storing",
        "take.stored",
        "launch.sent",
        "report.storing",
        "report.stored",
        "end.storing",
        "end.stored",
    ];
    for (number, place) in (0..).zip(places) {
        cluster.arm(place);
        accepted.insert(submit(&client, &starts, number).await, number);
        eventually(&format!("somebody is killed at {place}"), async || {
            (!cluster.is_armed(place)).then_some(())
        })
        .await;
    }
    judge(&cluster, &client, &starts, &accepted).await;
}

#[tokio::test]
async fn roles_are_killed_at_random_and_nothing_is_lost_or_runs_twice() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.hub.persistent();
    let starts = cluster.hub.scratch().join("starts");
    let seed = std::env::var("PROCESSION_FAULT_SEED")
        .map_or_else(|_| rand::random(), |it| it.parse().unwrap());
    eprintln!("PROCESSION_FAULT_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut accepted = BTreeMap::new();
    let rounds = amount("PROCESSION_CLUSTER_FAULTS", 12);
    for round in 0..rounds {
        for step in 0..3 {
            let number = round * 3 + step;
            accepted.insert(submit(&client, &starts, number).await, number);
        }
        let victim = random.random_range(0..6);
        match victim {
            // A server, which its supervisor starts again.
            0 | 1 => {
                if let Some(server) = cluster.hub.server_process() {
                    kill_now(server);
                }
            }
            2 | 3 => {
                let node = random.random_range(0..cluster.nodes.len());
                if let Some(server) = cluster.nodes[node].server_process() {
                    kill_now(server);
                }
            }
            // A supervisor, and with it its server; monitors and jobs go on.
            4 => {
                cluster.crash_hub().await;
            }
            _ => {
                let node = random.random_range(0..cluster.nodes.len());
                cluster.nodes[node].kill_supervisor();
                let again = cluster.node_builder(&format!("n{}", node + 1));
                cluster.nodes[node].start_again(again).await;
            }
        }
    }
    judge(&cluster, &client, &starts, &accepted).await;
}
