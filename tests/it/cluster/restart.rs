//! A job that starts again elsewhere when its node is lost: what is done about the first attempt, and what is not done about
//! the second.

use std::path::PathBuf;

use reqwest::Method;
use serde_json::json;

use super::Cluster;
use crate::harness::{eventually, id};

/// Where the hub has looked at a job of which a node still has an earlier attempt, and is about to have that ended.
const LOOKED: &str = "superseded.looked";

impl Cluster {
    /// The only node comes back. Whoever ends what is left there waits, and what may start there starts.
    async fn come_back_looked_at(&mut self) {
        self.arm_with(LOOKED, "wait");
        self.drain("n1", Method::POST).await;
        let again = self.node_builder("n1");
        self.nodes[0].start_again(again).await;
        eventually("it is looked", async || {
            (!self.is_armed(LOOKED)).then_some(())
        })
        .await;
        self.drain("n1", Method::DELETE).await;
    }

    /// Whoever waits at a place goes on.
    async fn goes_on(&self, place: &str) {
        self.arm(place);
        eventually("it goes on", async || (!self.is_armed(place)).then_some(())).await;
    }
}

/// A cluster of one node, which is lost with the first attempt of a job; the job, which waits for a node, and its `$GATE`.
async fn lost_once(rest: &str) -> (Cluster, String, PathBuf) {
    let args = ["--role", "api", "--node-lost-after-seconds", "1"];
    let mut cluster = Cluster::start_with(1, &args).await;
    let gate = cluster.hub.scratch().join("gate");
    let script = format!("echo attempt $PROCESSION_ATTEMPT; {rest}");
    let body = json!({"script": script, "env": {"GATE": gate}, "on_node_loss": "restart"});
    let id = id(&cluster.hub.submit(&body).await);
    cluster.hub.says(&id, "attempt 1\n").await;
    cluster.nodes[0].kill_supervisor();
    eventually("it waits for a node", async || {
        let job = cluster.hub.job(&id).await;
        (job["state_reason"] == "no_matching_node").then_some(())
    })
    .await;
    (cluster, id, gate)
}

/// Whoever ends what is left of the first attempt is held up until the second one runs on the same node: that one is left
/// alone, with what it has recorded.
#[tokio::test]
async fn what_ends_a_superseded_attempt_strikes_no_later_one() {
    let rest = "until test -e $GATE; do sleep 0.05; done";
    let (mut cluster, id, gate) = lost_once(rest).await;
    cluster.come_back_looked_at().await;
    cluster.hub.says(&id, "attempt 2\n").await;
    cluster.goes_on(LOOKED).await;
    // What it says to the node comes before what is asked now.
    let path = format!("/jobs/{id}/signal");
    let sent = cluster.hub.post(&path, &json!({"signal": "WINCH"})).await;
    assert_eq!(sent.status, 200, "{sent}");
    std::fs::write(&gate, "").unwrap();
    let ended = cluster.hub.finished(&id).await;
    assert_eq!(
        (&ended["state"], &ended["attempt"]),
        (&json!("succeeded"), &json!(2)),
        "{ended:#}"
    );
    assert_eq!(cluster.hub.text(&id).await, "attempt 2\n");
}

/// The directory of the first attempt is to be tidied when the second one has it, on the same node.
#[tokio::test]
async fn what_tidies_after_a_superseded_attempt_leaves_a_later_one_its_output() {
    const TIDYING: &str = "record.removing";
    let rest = "until test -e $GATE; do sleep 0.05; done; echo end";
    let (mut cluster, id, gate) = lost_once(rest).await;
    cluster.arm_with(TIDYING, "wait");
    let again = cluster.node_builder("n1");
    cluster.nodes[0].start_again(again).await;
    cluster.hub.says(&id, "attempt 2\n").await;
    eventually("somebody tidies", async || {
        (!cluster.is_armed(TIDYING)).then_some(())
    })
    .await;
    cluster.goes_on(TIDYING).await;
    // What tidies is done before the next job is tidied after.
    cluster.hub.run(&json!({"command": ["true"]})).await;
    std::fs::write(&gate, "").unwrap();
    let ended = cluster.hub.finished(&id).await;
    assert_eq!(ended["state"], "succeeded", "{ended:#}");
    assert_eq!(cluster.hub.text(&id).await, "attempt 2\nend\n");
}

/// A job that is being stopped is lost with its node, and starts nowhere again: the hub knows of the stop although the node
/// had taken it, and over a restart of the hub.
#[tokio::test]
async fn a_job_that_is_being_stopped_does_not_start_again_elsewhere() {
    let args = ["--role", "api", "--node-lost-after-seconds", "3"];
    let mut cluster = Cluster::start_with(2, &args).await;
    let script = "trap '' TERM; echo ready; while :; do sleep 0.1; done";
    for is_crashed in [false, true] {
        let body = json!({"script": script, "on_node_loss": "restart", "stop": {"grace_seconds": 300},
            "placement": {"nodes": ["n1", "n2"]}});
        let id = id(&cluster.hub.submit(&body).await);
        cluster.hub.says(&id, "ready\n").await;
        let node = cluster.hub.job(&id).await["node"].clone();
        let place = usize::from(node == "n2");
        let asked = cluster.hub.delete(&id, "").await;
        assert_eq!(
            (asked.status, &asked.json()["state"]),
            (202, &json!("stopping"))
        );
        cluster.nodes[place].kill_supervisor();
        if is_crashed {
            cluster.crash_hub().await;
        }
        let job = cluster.hub.finished(&id).await;
        assert_eq!(
            (&job["state"], &job["attempt"], &job["node"]),
            (&json!("lost"), &json!(1), &node),
            "{job:#}"
        );
        // What is left of it is ended when the node comes back.
        let again = cluster.node_builder(node.as_str().unwrap());
        cluster.nodes[place].start_again(again).await;
        cluster.connected(node.as_str().unwrap(), true).await;
        let ended = cluster.hub.delete(&id, "wait=30&force=true").await;
        assert_eq!(ended.status, 200, "{ended}");
    }
}

/// The hub stores that the job starts again elsewhere, and meanwhile its node comes back.
#[tokio::test]
async fn a_node_that_comes_back_while_its_job_leaves_it_ends_the_first_attempt() {
    const STORING: &str = "restart.storing";
    let args = ["--role", "api", "--node-lost-after-seconds", "1"];
    let mut cluster = Cluster::start_with(2, &args).await;
    let starts = cluster.hub.scratch().join("starts");
    let script = format!("echo $$ >> {}; exec sleep 1000", starts.display());
    let body = json!({"script": script, "on_node_loss": "restart"});
    let id = id(&cluster.hub.submit(&body).await);
    let first = eventually("it has begun", async || {
        let begun = std::fs::read_to_string(&starts).ok()?;
        begun.trim().parse::<u32>().ok()
    })
    .await;
    let node = cluster.hub.job(&id).await["node"].clone();
    let place = usize::from(node == "n2");
    cluster.arm_with(STORING, "wait");
    cluster.nodes[place].kill_supervisor();
    eventually("it is about to leave", async || {
        (!cluster.is_armed(STORING)).then_some(())
    })
    .await;
    let again = cluster.node_builder(node.as_str().unwrap());
    cluster.nodes[place].start_again(again).await;
    cluster.connected(node.as_str().unwrap(), true).await;
    cluster.drain(node.as_str().unwrap(), Method::POST).await;
    cluster.arm(STORING);
    eventually("the first attempt is ended", async || {
        (!std::path::Path::new(&format!("/proc/{first}")).exists()).then_some(())
    })
    .await;
    let job = eventually("the second one runs", async || {
        let job = cluster.hub.job(&id).await;
        (job["state"] == "running" && job["attempt"] == 2).then_some(job)
    })
    .await;
    assert_ne!(job["node"], node, "{job:#}");
    assert_eq!(
        cluster.hub.delete(&id, "wait=30&force=true").await.status,
        200
    );
}

/// A node that cannot end what an attempt before has left comes back to its hub all the same.
#[tokio::test]
async fn an_attempt_that_does_not_end_keeps_its_node_from_no_other_link() {
    const STOPPING: &str = "superseded.stopping";
    let rest = "test $PROCESSION_ATTEMPT = 2 || exec sleep 1000";
    let (mut cluster, id, _) = lost_once(rest).await;
    cluster.arm_with(STOPPING, "5");
    cluster.come_back_looked_at().await;
    eventually("the second attempt is on its way", async || {
        (cluster.hub.job(&id).await["node"] == "n1").then_some(())
    })
    .await;
    cluster.goes_on(LOOKED).await;
    cluster.crash_hub().await;
    cluster.connected("n1", true).await;
    cluster.disarm(STOPPING);
    let ended = cluster.hub.finished(&id).await;
    assert_eq!(
        (&ended["state"], &ended["attempt"]),
        (&json!("succeeded"), &json!(2)),
        "{ended:#}"
    );
}
