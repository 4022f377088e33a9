//! Cuts in a real network: the node is in a network namespace, and the hub outside of it.

use std::process::Command;

use serde_json::json;

use super::tls;
use crate::harness::{eventually, id, is_root};

/// A network namespace with one way out of it.
struct Net {
    name: String,
    /// The outer end of the way.
    outer: String,
    /// The address of that.
    address: String,
}

fn ip(args: &str) -> bool {
    let ran = Command::new("ip").args(args.split(' ')).output();
    ran.is_ok_and(|ran| ran.status.success())
}

impl Net {
    /// `None` where this machine does not let it be made.
    fn make() -> Option<Self> {
        let pid = std::process::id();
        let net = Self {
            name: format!("procession-{pid}"),
            outer: format!("po{pid}"),
            address: format!("10.{}.{}.1", 200 + pid / 250 % 50, pid % 250),
        };
        if !is_root() || !ip(&format!("netns add {}", net.name)) {
            return None;
        }
        let Self {
            name,
            outer,
            address,
        } = &net;
        let inner = address.trim_end_matches('1').to_owned() + "2";
        let is_made = [
            format!("link add {outer} type veth peer name inner netns {name}"),
            format!("addr add {address}/30 dev {outer}"),
            format!("link set {outer} up"),
            format!("-n {name} addr add {inner}/30 dev inner"),
            format!("-n {name} link set inner up"),
            format!("-n {name} link set lo up"),
        ]
        .iter()
        .all(|args| ip(args));
        is_made.then_some(net)
    }

    fn set(&self, args: &str) {
        let args = args
            .replace("NAME", &self.name)
            .replace("OUTER", &self.outer);
        assert!(ip(&args), "ip {args}");
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        ip(&format!("link del {}", self.outer));
        ip(&format!("netns del {}", self.name));
    }
}

#[tokio::test]
async fn a_link_that_is_cut_in_either_way_is_seen_and_its_job_goes_on() {
    let Some(net) = Net::make() else {
        eprintln!("skipped: needs root, ip(8) and network namespaces");
        return;
    };
    let (mut cluster, authority) = tls::hub(&net.address).await;
    cluster.token("n1").await;
    let url = format!("https://{}:{}", net.address, cluster.port);
    let node = cluster
        .node_at(&url, "n1", "n1")
        .args([format!("--join-ca={}", authority.display())])
        .prelude(&format!(
            "set -- nsenter --net=/run/netns/{} \"$@\"",
            net.name
        ));
    cluster.nodes.push(node.start().await);
    cluster.connected("n1", true).await;
    let gate = cluster.hub.scratch().join("gate");
    let script = format!(
        "echo before; until test -e {}; do sleep 0.05; done; echo after; exit 5",
        gate.display()
    );
    let job = cluster.hub.submit(&json!({ "script": script })).await;
    let id = id(&job);
    cluster.hub.says(&id, "before\n").await;
    let blackhole = format!("-n NAME route CHANGE blackhole {}/32", net.address);
    for (cut, heal) in [
        // Both ways, and the node notices: its device is down.
        (
            "link set OUTER down".to_owned(),
            "link set OUTER up".to_owned(),
        ),
        // What the node says is lost, and nobody is told.
        (
            blackhole.replace("CHANGE", "add"),
            blackhole.replace("CHANGE", "del"),
        ),
    ] {
        net.set(&cut);
        cluster.connected("n1", false).await;
        let job = eventually("it is said of the job", async || {
            let job = cluster.hub.job(&id).await;
            (job["state_reason"] == "node_unreachable").then_some(job)
        })
        .await;
        assert_eq!(job["state"], "running", "{job:#}");
        net.set(&heal);
        cluster.connected("n1", true).await;
        cluster.hub.says(&id, "before\n").await;
    }
    std::fs::write(&gate, "").unwrap();
    let ended = cluster.hub.finished(&id).await;
    assert_eq!(ended["exit"]["code"], 5, "{ended:#}");
    assert_eq!(cluster.hub.text(&id).await, "before\nafter\n");
}
