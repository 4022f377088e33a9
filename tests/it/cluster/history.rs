//! The checker of histories over a hub and its nodes.

use nix::sys::signal::{Signal, kill};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::Method;
use serde_json::Value;

use super::{Cluster, port};
use crate::harness::{eventually_within, kill_now};
use crate::history::wire::{Mode, Wire};
use crate::history::{Clients, SETTLED, choices};

/// What fails, one after the other.
struct Faults<'a> {
    cluster: &'a mut Cluster,
    wires: &'a [Wire],
    random: StdRng,
    clients: &'a Clients,
}

impl Faults<'_> {
    fn builder(&self, node: usize) -> crate::harness::Builder {
        let name = format!("n{}", node + 1);
        let url = format!("http://127.0.0.1:{}", self.wires[node].port);
        self.cluster.node_at(&url, &name, &name).env("NODE", &name)
    }

    async fn node_is(&self, node: usize, is_so: impl Fn(&Value) -> bool) {
        eventually_within(SETTLED, "the node is as it is to be", async || {
            let request = self
                .cluster
                .hub
                .request(Method::GET, &format!("/nodes/n{}", node + 1));
            let reply = self.cluster.hub.try_send(request).await.ok()?;
            (reply.status == 200 && is_so(&reply.json())).then_some(())
        })
        .await;
    }

    async fn fail(&mut self) -> &'static str {
        let node = self.random.random_range(0..self.cluster.nodes.len());
        match self.random.random_range(0..16) {
            0..=2 => {
                if let Some(server) = self.cluster.hub.server_process() {
                    kill_now(server);
                }
                "the server of the hub was killed"
            }
            3 | 4 => {
                self.cluster.crash_hub().await;
                "the hub was killed and started again"
            }
            5..=7 => {
                if let Some(server) = self.cluster.nodes[node].server_process() {
                    kill_now(server);
                }
                "the server of a node was killed"
            }
            8 | 9 => {
                self.cluster.nodes[node].kill_supervisor();
                let again = self.builder(node);
                self.cluster.nodes[node].start_again(again).await;
                "a node was killed and started again"
            }
            10 | 11 => {
                let monitors = self.cluster.nodes[node].monitors();
                if let Some(monitor) = monitors.into_values().next() {
                    kill_now(monitor);
                }
                "a monitor was killed"
            }
            12 => {
                if let Some(server) = self.cluster.nodes[node].server_process() {
                    let _ = kill(server, Signal::SIGSTOP);
                    self.clients.pause(2).await;
                    let _ = kill(server, Signal::SIGCONT);
                }
                "the server of a node was stopped for a while"
            }
            13 => {
                self.wires[node].set(Mode::Frozen);
                self.clients.pause(3).await;
                self.wires[node].set(Mode::Open);
                "the link of a node was silent for a while"
            }
            14 => {
                self.wires[node].set(Mode::Cut);
                self.node_is(node, |it| it["state"] == "unreachable").await;
                self.wires[node].set(Mode::Open);
                "the link of a node was cut"
            }
            _ => {
                self.wires[node].set(Mode::Cut);
                self.node_is(node, |it| it["state"] == "unreachable" && it["jobs"] == 0)
                    .await;
                self.clients.pause(2).await;
                self.wires[node].set(Mode::Open);
                "a node was cut off until its jobs were lost"
            }
        }
    }
}

#[tokio::test]
async fn whatever_fails_what_clients_were_answered_stays_true() {
    let (mut random, rounds) = choices(15);
    let args = ["--role", "api", "--node-lost-after-seconds", "6"];
    let mut cluster = Cluster::start_with(0, &args).await;
    let mut wires = Vec::new();
    for number in 1..=3 {
        let wire = Wire::lay(port(), cluster.port).await;
        let name = format!("n{number}");
        cluster.token(&name).await;
        let url = format!("http://127.0.0.1:{}", wire.port);
        let node = cluster.node_at(&url, &name, &name).env("NODE", &name);
        let node = node.start().await;
        cluster.nodes.push(node);
        cluster.connected(&name, true).await;
        wires.push(wire);
    }
    let lines = cluster.hub.scratch().join("lines");
    let clients = Clients::begin(cluster.hub.persistent(), lines, &mut random).await;
    let mut faults = Faults {
        cluster: &mut cluster,
        wires: &wires,
        random: StdRng::seed_from_u64(random.random()),
        clients: &clients,
    };
    let counts = clients.suffer(rounds, async || faults.fail().await).await;
    clients.judge(wires.len(), counts).await;
}
