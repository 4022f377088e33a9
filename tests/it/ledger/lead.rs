//! Who leads, and for whom: one that does not hear the ledger any more, and one that has stood still.

use std::time::Instant;

use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::faults::{Load, lasting};
use super::{Apis, STEADY};
use crate::harness::{eventually, id, processes_with, unique_seconds};
use crate::history::wire::Mode;

/// Both nodes are connected to this API node.
async fn nodes_are_at(all: &Apis, api: usize) {
    for node in ["n1", "n2"] {
        eventually("the nodes are those of the new leader", async || {
            let reply = all.apis[api].get(&format!("/nodes/{node}")).await;
            (reply.status == 200 && reply.json()["state"] == "connected").then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_leave_a_leader_that_is_cut_off_from_the_database_alone() {
    let mut all = Apis::start_apart(3, 2, &[]).await;
    let gate = all.apis[0].scratch().join("gate");
    let running = lasting(&all, &gate).await;
    let mut load = Load::new(&all);
    load.submit(&all, 4).await;
    let (first, epoch) = all.leader().await;
    let ways = all.ways.as_ref().unwrap();
    ways.database[first].set(Mode::Cut);
    let cut = Instant::now();
    let next = all.is_followed(first, epoch).await;
    nodes_are_at(&all, next).await;
    let seconds = cut.elapsed().as_secs_f64();
    eprintln!("FIGURE nodes_moved_seconds {seconds:.2}");
    // Work, and control of what ran before.
    load.submit(&all, 4).await;
    let api = &all.apis[next];
    assert_eq!(api.job(&running).await["state"], "running");
    assert_eq!(api.text(&running).await, "begun\n");
    eventually("it says why it leads no more", async || {
        let log = all.apis[first].log();
        log.contains("says that the lead was taken").then_some(())
    })
    .await;
    // The one that is cut off does not keep anybody waiting for ever.
    let reply = all.apis[first].get(&format!("/jobs/{running}")).await;
    assert_eq!(reply.status, 503, "{reply}");
    all.ways.as_ref().unwrap().database[first].set(Mode::Open);
    eventually("it follows", async || {
        let ledger = all.ledger(first).await?;
        (ledger["role"] == "follows" && ledger["behind"] == 0).then_some(())
    })
    .await;
    std::fs::write(&gate, "").unwrap();
    assert_eq!(all.finished(&running).await["exit"]["code"], 0);
    load.judge(&all).await;
    all.are_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_hears_nobody_but_its_nodes_controls_what_runs() {
    let all = Apis::start_apart(2, 1, &STEADY).await;
    let (leader, _) = all.leader().await;
    let seconds = unique_seconds();
    let script = format!("echo begun; exec sleep {seconds}");
    let job = id(&all.apis[leader].submit(&json!({ "script": script })).await);
    all.apis[leader].says(&job, "begun").await;
    let ways = all.ways.as_ref().unwrap();
    for number in 0..2 {
        ways.database[number].set(Mode::Cut);
        ways.apis[number].set(Mode::Frozen);
    }
    let api = &all.apis[leader];
    eventually("it does not hear the database", async || {
        let info = api.get("/info").await.json();
        (info["ledger"]["available"] == false).then_some(())
    })
    .await;
    assert_eq!(api.job(&job).await["state"], "running");
    assert_eq!(api.text(&job).await, "begun\n");
    let reply = api.delete(&job, "force&wait=2").await;
    assert!(reply.status == 202 || reply.status == 503, "{reply}");
    eventually("no process of the stopped job is left", async || {
        processes_with(&seconds).is_empty().then_some(())
    })
    .await;
    for number in 0..2 {
        ways.database[number].set(Mode::Open);
        ways.apis[number].set(Mode::Open);
    }
    assert_eq!(all.finished(&job).await["state"], "canceled");
}

/// Its nodes hear whoever leads now, and it hears them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_hears_nobody_but_its_nodes_learns_from_them_who_leads() {
    let mut all = Apis::start_apart(2, 2, &[]).await;
    let gate = all.apis[0].scratch().join("gate");
    let running = lasting(&all, &gate).await;
    let mut load = Load::new(&all);
    load.submit(&all, 4).await;
    let (first, epoch) = all.leader().await;
    let ways = all.ways.as_ref().unwrap();
    let cut = Instant::now();
    ways.isolate(first, Mode::Frozen);
    let next = all.is_followed(first, epoch).await;
    nodes_are_at(&all, next).await;
    let seconds = cut.elapsed().as_secs_f64();
    eprintln!("FIGURE isolated_nodes_moved_seconds {seconds:.2}");
    load.submit(&all, 4).await;
    let api = &all.apis[next];
    assert_eq!(api.job(&running).await["state"], "running");
    assert_eq!(api.text(&running).await, "begun\n");
    eventually("it says why it leads no more", async || {
        let log = all.apis[first].log();
        log.contains("says that the lead was taken").then_some(())
    })
    .await;
    // What it knows may be old, and is not told.
    let reply = all.apis[first].get(&format!("/jobs/{running}")).await;
    assert_eq!(reply.status, 503, "{reply}");
    all.ways.as_ref().unwrap().isolate(first, Mode::Open);
    eventually("it follows", async || {
        let ledger = all.ledger(first).await?;
        (ledger["role"] == "follows" && ledger["behind"] == 0).then_some(())
    })
    .await;
    std::fs::write(&gate, "").unwrap();
    assert_eq!(all.finished(&running).await["exit"]["code"], 0);
    load.judge(&all).await;
    all.are_equal().await;
}

/// Whoever was stopped while others led knows nothing that may be told, however quickly it is asked when it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stood_still_answers_nothing_that_is_not_so_any_more() {
    let all = Apis::start(3, 1, &[]).await;
    let (first, epoch) = all.leader_of_all().await;
    let gate = all.apis[0].scratch().join("gate");
    let job = lasting(&all, &gate).await;
    all.apis[first].says(&job, "begun").await;
    all.freeze(first, Signal::SIGSTOP);
    let next = all.is_followed(first, epoch).await;
    std::fs::write(&gate, "").unwrap();
    // Its nodes notice that the first one says nothing, and join the other.
    let ended: Value = all.apis[next].finished(&job).await;
    let mut asking = JoinSet::new();
    for _ in 0..30 {
        let request = all.apis[first].request(Method::GET, &format!("/jobs/{job}"));
        asking.spawn(async move {
            let response = request.send().await.ok()?;
            let status = response.status();
            (status == 200).then_some(response.json::<Value>().await.ok()?)
        });
    }
    let address = all.apis[first].address();
    eventually("they wait at its door", async || {
        (waiting(address.port()) >= 30).then_some(())
    })
    .await;
    all.freeze(first, Signal::SIGCONT);
    for answer in asking.join_all().await.into_iter().flatten() {
        assert_eq!(answer["state"], ended["state"], "{answer:#}");
        assert!(answer["version"].as_u64() >= ended["version"].as_u64());
    }
    eventually("it follows", async || {
        let ledger = all.ledger(first).await?;
        (ledger["role"] == "follows" && ledger["behind"] == 0).then_some(())
    })
    .await;
}

/// How many connections to this port are there.
fn waiting(port: u16) -> usize {
    const ESTABLISHED: &str = "01";
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let local = format!(":{port:04X}");
    let is_one = |line: &&str| {
        let mut words = line.split_ascii_whitespace().skip(1);
        words.next().is_some_and(|it| it.ends_with(&local))
            && words.nth(1).is_some_and(|it| it == ESTABLISHED)
    };
    table.lines().filter(is_one).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_does_not_reach_the_leader_says_so() {
    let mut all = Apis::start_apart(2, 1, &STEADY).await;
    let (leader, _) = all.leader().await;
    let follower = all.follower(leader);
    let way = &all.ways.as_ref().unwrap().apis[leader];
    let job = id(&all.apis[leader].submit(&json!({"command": ["true"]})).await);
    let path = format!("/jobs/{job}");
    assert_eq!(all.apis[follower].get(&path).await.status, 200);
    // What is sent is swallowed, and nobody is told.
    way.set(Mode::Frozen);
    assert_eq!(all.apis[follower].get(&path).await.status, 503);
    assert_eq!(all.apis[follower].get("/readyz").await.status, 503);
    // The node has another way, or finds it.
    let job = all.apis[leader].submit(&json!({"command": ["true"]})).await;
    let ended = all.apis[leader].finished(&id(&job)).await;
    assert_eq!(ended["state"], "succeeded", "{ended:#}");
    all.ways.as_ref().unwrap().apis[leader].set(Mode::Open);
    eventually("it is reached again", async || {
        (all.apis[follower].get(&path).await.status == 200).then_some(())
    })
    .await;
    all.are_equal().await;
}
