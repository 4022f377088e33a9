//! The checker of histories over PostgreSQL, three API nodes and their nodes.

use std::path::Path;

use nix::sys::signal::{Signal, kill};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::Method;
use serde_json::Value;

use super::Apis;
use crate::cluster::kill_service;
use crate::harness::{Persistent, eventually_within, kill_now};
use crate::history::wire::Mode;
use crate::history::{Clients, SETTLED, choices};

/// What fails, one after the other.
struct Faults<'a> {
    all: &'a mut Apis,
    random: StdRng,
    clients: &'a Clients,
}

impl Apis {
    /// A client of all API nodes.
    fn persistent(&self) -> Persistent {
        self.apis[0].persistent().with(&self.apis[1..])
    }

    async fn node_is(&self, node: usize, is_so: impl Fn(&Value) -> bool) {
        let path = format!("/nodes/n{}", node + 1);
        eventually_within(SETTLED, "the node is as it is to be", async || {
            let reply = self.try_ask(Method::GET, &path, None, None).await?;
            (reply.status == 200 && is_so(&reply.json())).then_some(())
        })
        .await;
    }
}

impl Faults<'_> {
    async fn fail(&mut self) -> &'static str {
        let (leader, epoch) = self.all.leader().await;
        let follower = (leader + self.random.random_range(1..3)) % 3;
        let node = self.random.random_range(0..self.all.nodes.len());
        match self.random.random_range(0..26) {
            kind @ 0..=7 => self.api_fails(kind, leader, epoch, follower).await,
            kind @ 8..=12 => self.node_fails(kind, node).await,
            kind @ 13..=15 => self.database_fails(kind, leader).await,
            kind => self.way_is_cut(kind, (leader, epoch), follower, node).await,
        }
    }

    async fn api_fails(
        &mut self,
        kind: u32,
        leader: usize,
        epoch: u64,
        follower: usize,
    ) -> &'static str {
        match kind {
            0 | 1 => {
                if let Some(server) = self.all.apis[leader].server_process() {
                    kill_now(server);
                }
                "the server that leads was killed"
            }
            2 | 3 => {
                kill_service(&mut self.all.apis[leader]);
                if self.random.random() {
                    self.all.is_followed(leader, epoch).await;
                }
                self.all.start_again(leader).await;
                "the API node that leads was killed and started again"
            }
            4 => {
                if let Some(server) = self.all.apis[follower].server_process() {
                    kill_now(server);
                }
                "a server that follows was killed"
            }
            5 => {
                kill_service(&mut self.all.apis[follower]);
                self.clients.pause(2).await;
                self.all.start_again(follower).await;
                "an API node that follows was killed and started again"
            }
            6 => {
                self.all.freeze(leader, Signal::SIGSTOP);
                self.all.is_followed(leader, epoch).await;
                self.all.freeze(leader, Signal::SIGCONT);
                "the API node that leads was stopped until another one led"
            }
            _ => {
                self.all.freeze(follower, Signal::SIGSTOP);
                let server = self.all.apis[leader].server_process();
                if let Some(server) = server.filter(|_| self.random.random()) {
                    kill_now(server);
                }
                self.all.freeze(follower, Signal::SIGCONT);
                "an API node that follows was stopped for a while"
            }
        }
    }

    async fn node_fails(&mut self, kind: u32, node: usize) -> &'static str {
        match kind {
            8 | 9 => {
                if let Some(server) = self.all.nodes[node].server_process() {
                    kill_now(server);
                }
                "the server of a node was killed"
            }
            10 => {
                self.all.nodes[node].kill_supervisor();
                let again = self.all.node_builder(node + 1);
                self.all.nodes[node].start_again(again).await;
                "a node was killed and started again"
            }
            11 => {
                let monitors = self.all.nodes[node].monitors();
                if let Some(monitor) = monitors.into_values().next() {
                    kill_now(monitor);
                }
                "a monitor was killed"
            }
            _ => {
                if let Some(server) = self.all.nodes[node].server_process() {
                    let _ = kill(server, Signal::SIGSTOP);
                    self.clients.pause(2).await;
                    let _ = kill(server, Signal::SIGCONT);
                }
                "the server of a node was stopped for a while"
            }
        }
    }

    async fn database_fails(&mut self, kind: u32, leader: usize) -> &'static str {
        match kind {
            13 | 14 => {
                self.all.postgres.end(Signal::SIGKILL);
                self.all.postgres.begin();
                "PostgreSQL was killed and started again"
            }
            _ => {
                self.all.postgres.signal_all(Signal::SIGSTOP);
                eventually_within(SETTLED, "it is not heard", async || {
                    let ledger = self.all.ledger(leader).await?;
                    (ledger["available"] == false).then_some(())
                })
                .await;
                self.all.postgres.signal_all(Signal::SIGCONT);
                "PostgreSQL was stopped for a while"
            }
        }
    }

    async fn way_is_cut(
        &mut self,
        kind: u32,
        (leader, epoch): (usize, u64),
        follower: usize,
        node: usize,
    ) -> &'static str {
        let mode = [Mode::Cut, Mode::Frozen][self.random.random_range(0..2)];
        let ways = self.all.ways.as_ref().unwrap();
        match kind {
            16 | 17 => {
                ways.database[leader].set(mode);
                self.all.is_followed(leader, epoch).await;
                self.clients.pause(2).await;
                ways.database[leader].set(Mode::Open);
                "the leader was cut off from PostgreSQL until another one led"
            }
            18 => {
                ways.database[follower].set(mode);
                self.clients.pause(3).await;
                ways.database[follower].set(Mode::Open);
                "a follower was cut off from PostgreSQL for a while"
            }
            19 => {
                ways.apis[leader].set(mode);
                self.clients.pause(2).await;
                ways.apis[leader].set(Mode::Open);
                "the leader was cut off from the other API nodes for a while"
            }
            20 => {
                ways.nodes[node][leader].set(mode);
                self.clients.pause(3).await;
                ways.nodes[node][leader].set(Mode::Open);
                "a node was cut off from the leader for a while"
            }
            21 | 22 => {
                ways.isolate(leader, mode);
                self.all.is_followed(leader, epoch).await;
                self.clients.pause(2).await;
                ways.isolate(leader, Mode::Open);
                "the leader was cut off from all but its nodes until another one led"
            }
            23 | 24 => {
                ways.set_node(node, mode);
                self.all
                    .node_is(node, |it| it["state"] == "unreachable")
                    .await;
                ways.set_node(node, Mode::Open);
                "a node was cut off"
            }
            _ => {
                ways.set_node(node, mode);
                self.all
                    .node_is(node, |it| it["state"] == "unreachable" && it["jobs"] == 0)
                    .await;
                ways.set_node(node, Mode::Open);
                "a node was cut off until its jobs were lost"
            }
        }
    }
}

/// A token of a node is good for its link alone, whichever API node is asked: I12.
async fn a_node_may_do_nothing_else(all: &Apis) {
    let token = std::fs::read_to_string(all.apis[0].scratch().join("n1")).unwrap();
    for api in &all.apis {
        for (method, path) in [
            (Method::GET, "/jobs"),
            (Method::POST, "/jobs"),
            (Method::GET, "/nodes"),
            (Method::GET, "/info"),
        ] {
            let request = api.anonymous(method, path).bearer_auth(&token);
            assert_eq!(api.send(request).await.status, 403, "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_fails_what_clients_were_answered_stays_true() {
    let (mut random, rounds) = choices(6);
    let args = ["--node-lost-after-seconds", "20"];
    let mut all = Apis::start_apart(3, 3, &args).await;
    a_node_may_do_nothing_else(&all).await;
    let lines: &Path = &all.apis[0].scratch().join("lines");
    let client = all.persistent();
    let clients = Clients::begin(client, lines.to_owned(), &mut random).await;
    let mut faults = Faults {
        random: StdRng::seed_from_u64(random.random()),
        all: &mut all,
        clients: &clients,
    };
    let counts = clients.suffer(rounds, async || faults.fail().await).await;
    clients.judge(3, counts).await;
    // I11: every copy of the store is the same.
    all.are_equal().await;
}
