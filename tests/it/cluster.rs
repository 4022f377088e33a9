//! A hub and nodes that have joined it: real services on this machine, which are killed at any place.

mod bad_input;
mod control;
mod cuts;
mod faults;
mod files;
mod history;
mod loss;
mod placement;
mod restart;
pub(crate) mod tls;

use std::collections::HashMap;
use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicU16, Ordering};

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Builder, Server, eventually, kill_now};

/// A port for one that is started later, or again: none of those that the kernel gives away, nor another test's.
pub(crate) fn port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Tests that run side by side have numbers that are near each other: each begins elsewhere.
    let begin = u16::try_from(u64::from(std::process::id()) * 41 % 12_000).unwrap();
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + (begin + step) % 12_000;
        let mark = format!("procession-test-port-{port}");
        let mark = SocketAddr::from_abstract_name(mark).unwrap();
        if let Ok(mark) = UnixDatagram::bind_addr(&mark)
            && TcpListener::bind(("127.0.0.1", port)).is_ok()
        {
            // It says whose port it is while nobody listens on it, until this process ends.
            std::mem::forget(mark);
            return port;
        }
    }
}

/// A hub and its nodes.
struct Cluster {
    hub: Server,
    nodes: Vec<Server>,
    port: u16,
    args: Vec<String>,
    failpoints: tempfile::TempDir,
}

impl Cluster {
    /// A hub that runs no jobs itself, and so many nodes with two slots each.
    async fn start(nodes: usize) -> Self {
        Self::start_with(nodes, &["--role", "api"]).await
    }

    /// The same with other arguments of the hub.
    async fn start_with(nodes: usize, args: &[&str]) -> Self {
        let port = port();
        let mut all = vec!["--cluster", "local", "--node-name", "hub"];
        all.extend(args);
        let args = all.into_iter().map(str::to_owned).collect::<Vec<_>>();
        let failpoints = tempfile::tempdir().unwrap();
        let hub = builder(&failpoints)
            .args(["--listen".to_owned(), format!("127.0.0.1:{port}")])
            .args(args.clone());
        let mut cluster = Self {
            hub: hub.start().await,
            nodes: Vec::new(),
            port,
            args,
            failpoints,
        };
        for number in 1..=nodes {
            cluster.add(&format!("n{number}")).await;
        }
        for number in 1..=nodes {
            cluster.connected(&format!("n{number}"), true).await;
        }
        cluster
    }

    /// Kills the supervisor of the hub and starts it again, once its server has let go of the port.
    async fn crash_hub(&mut self) {
        self.hub.kill_supervisor();
        self.start_hub().await;
    }

    async fn start_hub(&mut self) {
        let port = self.port;
        eventually("the port is free", async || {
            TcpListener::bind(("127.0.0.1", port)).ok()
        })
        .await;
        let again = self.hub_builder();
        self.hub.start_again(again).await;
    }

    fn hub_builder(&self) -> Builder {
        builder(&self.failpoints)
            .args(["--listen".to_owned(), format!("127.0.0.1:{}", self.port)])
            .args(self.args.clone())
    }

    /// How the node of this name is started; its token is in a file of the hub.
    fn node_builder(&self, name: &str) -> Builder {
        self.node_with(name, name)
    }

    /// The same with the token of another node.
    fn node_with(&self, token: &str, name: &str) -> Builder {
        let url = format!("http://127.0.0.1:{}", self.port);
        self.node_at(&url, token, name)
    }

    /// The same with another hub.
    fn node_at(&self, url: &str, token: &str, name: &str) -> Builder {
        let token = self.hub.scratch().join(token);
        builder(&self.failpoints)
            .args(["--join", url])
            .args(["--join-token-file".to_owned(), token.display().to_string()])
            .args(["--node-name", name, "--max-running", "2"])
            .args(["--on-shutdown", "stop"])
    }

    /// Makes a token with the scope of nodes.
    async fn token(&self, name: &str) {
        let body = json!({"name": name, "scope": "runner"});
        let reply = self.hub.post("/tokens", &body).await;
        assert_eq!(reply.status, 201, "{reply}");
        let token = reply.json()["token"].as_str().unwrap().to_owned();
        fs::write(self.hub.scratch().join(name), token).unwrap();
    }

    async fn add(&mut self, name: &str) {
        self.token(name).await;
        let node = self.node_builder(name).start().await;
        self.nodes.push(node);
    }

    /// The node as the hub has it.
    async fn node(&self, name: &str) -> Value {
        let reply = self.hub.get(&format!("/nodes/{name}")).await;
        assert_eq!(reply.status, 200, "{reply}");
        reply.json()
    }

    /// Waits until the node is connected, or is not.
    async fn connected(&self, name: &str, connected: bool) {
        let state = if connected {
            "connected"
        } else {
            "unreachable"
        };
        eventually(&format!("{name} is {state}"), async || {
            let reply = self.hub.get(&format!("/nodes/{name}")).await;
            (reply.status == 200 && reply.json()["state"] == state).then_some(())
        })
        .await;
    }

    /// What was told of a job, in order.
    async fn kinds(&self, id: &str) -> Vec<String> {
        let path = format!("/jobs/{id}/events?follow=false");
        let request = self.hub.request(Method::GET, &path);
        let request = request.header("Accept", "application/x-ndjson");
        let reply = self.hub.send(request).await;
        let text = String::from_utf8(reply.body).unwrap();
        let kind = |line: &str| {
            let event: Value = serde_json::from_str(line).unwrap();
            event["type"].as_str().unwrap().to_owned()
        };
        text.lines().map(kind).collect()
    }

    /// Lets a node have no new jobs with `POST`, and again with `DELETE`.
    async fn drain(&self, name: &str, method: Method) -> Value {
        let request = self.hub.request(method, &format!("/nodes/{name}/drain"));
        let reply = self.hub.send(request).await;
        assert_eq!(reply.status, 200, "{reply}");
        reply.json()
    }

    fn arm(&self, place: &str) {
        self.arm_with(place, "");
    }

    fn arm_with(&self, place: &str, what: &str) {
        fs::write(self.failpoints.path().join(place), what).unwrap();
    }

    fn disarm(&self, place: &str) {
        fs::remove_file(self.failpoints.path().join(place)).unwrap();
    }

    fn is_armed(&self, place: &str) -> bool {
        self.failpoints.path().join(place).exists()
    }
}

fn builder(failpoints: &tempfile::TempDir) -> Builder {
    let directory = failpoints.path().display().to_string();
    Server::builder().env("PROCESSION_FAILPOINTS", &directory)
}

/// Kills every process of a service that is not a job's, as the end of a machine would.
pub(crate) fn kill_service(server: &mut Server) {
    let parts = server.marked();
    let ours = parts.iter().filter(|it| it.name.starts_with("procession"));
    for process in ours {
        kill_now(nix::unistd::Pid::from_raw(process.pid));
    }
    server.kill_supervisor();
}

/// How often each of these words is a line of a file.
pub(crate) fn lines(path: &std::path::Path) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for line in fs::read_to_string(path).unwrap_or_default().lines() {
        *counts.entry(line.to_owned()).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn jobs_are_spread_over_nodes_and_wait_by_priority_and_age() {
    let cluster = Cluster::start(2).await;
    let features = cluster.hub.get("/info").await.json()["features"].clone();
    assert!(features.to_string().contains("\"nodes\""), "{features}");
    let scratch = cluster.hub.scratch();
    let (order, gate) = (scratch.join("order"), scratch.join("gate"));
    let mut nodes: HashMap<String, usize> = HashMap::new();
    let mut first = Vec::new();
    for _ in 0..4 {
        let script = format!("until test -e {}; do sleep 0.05; done", gate.display());
        let job = cluster.hub.submit(&json!({ "script": script })).await;
        assert_eq!(job["state"], "running", "{job:#}");
        *nodes
            .entry(job["node"].as_str().unwrap().to_owned())
            .or_default() += 1;
        first.push(job["id"].as_str().unwrap().to_owned());
    }
    assert_eq!(nodes, [("n1".to_owned(), 2), ("n2".to_owned(), 2)].into());
    let mut waiting = Vec::new();
    for (name, priority) in [("a", 0), ("b", 0), ("urgent", 9), ("c", 0)] {
        let script = format!("echo {name} >> {}; sleep 0.2", order.display());
        let job = json!({"script": script, "priority": priority});
        let job = cluster.hub.submit(&job).await;
        assert_eq!(job["state"], "queued", "{job:#}");
        assert_eq!(job["state_reason"], "waiting_for_slot", "{job:#}");
        assert!(job.get("node").is_none(), "{job:#}");
        waiting.push(job["id"].as_str().unwrap().to_owned());
    }
    // One slot becomes free: who comes next is seen one by one.
    for id in &first[1..] {
        let reply = cluster.hub.delete(id, "wait=30&force").await;
        assert_eq!(reply.status, 200, "{reply}");
        eventually("the urgent one has begun", async || {
            let begun = fs::read_to_string(&order).unwrap_or_default();
            (!begun.is_empty()).then_some(())
        })
        .await;
    }
    for id in &waiting {
        cluster.hub.finished(id).await;
    }
    let begun = fs::read_to_string(&order).unwrap();
    assert_eq!(begun.lines().next(), Some("urgent"), "{begun}");
    fs::write(&gate, "").unwrap();
    assert_eq!(cluster.hub.finished(&first[0]).await["exit"]["code"], 0);
    let all = cluster.hub.get("/jobs?page_size=100").await.json();
    assert_eq!(all["jobs"].as_array().unwrap().len(), 8, "{all:#}");
}

#[tokio::test]
async fn a_job_waits_for_the_first_node_and_a_drained_one_gets_none() {
    let mut cluster = Cluster::start(0).await;
    let job = cluster.hub.submit(&json!({"command": ["true"]})).await;
    assert_eq!(job["state"], "queued", "{job:#}");
    cluster.add("n1").await;
    let ended = cluster.hub.finished(job["id"].as_str().unwrap()).await;
    assert_eq!(
        (&ended["state"], &ended["node"]),
        (&json!("succeeded"), &json!("n1"))
    );

    let node = cluster.drain("n1", Method::POST).await;
    assert_eq!(
        (&node["draining"], &node["accepting"]),
        (&json!(true), &json!(false))
    );
    let job = cluster.hub.submit(&json!({"command": ["true"]})).await;
    assert_eq!(job["state"], "queued", "{job:#}");
    // It is kept by the hub.
    cluster.hub.end(nix::sys::signal::Signal::SIGTERM);
    cluster.start_hub().await;
    cluster.connected("n1", true).await;
    assert_eq!(cluster.node("n1").await["draining"], true);
    assert_eq!(
        cluster.hub.job(job["id"].as_str().unwrap()).await["state"],
        "queued"
    );
    let client = cluster
        .hub
        .client()
        .args(["node", "undrain", "n1"])
        .output()
        .unwrap();
    assert!(client.status.success(), "{client:?}");
    let ended = cluster.hub.finished(job["id"].as_str().unwrap()).await;
    assert_eq!(ended["state"], "succeeded");
}

#[tokio::test]
async fn a_hub_runs_jobs_itself_unless_it_is_told_not_to() {
    let cluster = Cluster::start_with(1, &["--max-running", "2"]).await;
    let mut nodes = Vec::new();
    for _ in 0..4 {
        let job = cluster
            .hub
            .submit(&json!({"command": ["sleep", "1000"]}))
            .await;
        nodes.push(job["node"].as_str().unwrap().to_owned());
    }
    nodes.sort();
    assert_eq!(nodes, ["hub", "hub", "n1", "n1"]);
    // One with files runs here as well.
    let job = json!({
        "script": "cat in.txt",
        "inputs": [{"path": "in.txt", "text": "here\n"}],
        "placement": {"nodes": ["hub"]},
    });
    let waiting = cluster.hub.submit(&job).await;
    assert_eq!(waiting["state"], "queued", "{waiting:#}");
    for job in cluster.hub.get("/jobs").await.json()["jobs"]
        .as_array()
        .unwrap()
    {
        if job["state"] == "running" {
            cluster.hub.stop(job["id"].as_str().unwrap(), "force").await;
        }
    }
    let id = waiting["id"].as_str().unwrap();
    let ended = cluster.hub.finished(id).await;
    assert_eq!(
        (&ended["node"], &ended["state"]),
        (&json!("hub"), &json!("succeeded"))
    );
    assert_eq!(cluster.hub.text(id).await, "here\n");
}
