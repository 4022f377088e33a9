//! Jobs choose nodes by labels, and one that fits nowhere holds up none that does.

use reqwest::Method;
use serde_json::{Value, json};

use super::Cluster;
use crate::harness::{Server, id};

impl Cluster {
    async fn add_with(&mut self, name: &str, args: &[&str]) {
        self.token(name).await;
        let builder = self.node_builder(name).args(args.iter().copied());
        let node = builder.start().await;
        self.nodes.push(node);
        self.connected(name, true).await;
    }
}

fn long(placement: &Value) -> Value {
    json!({"command": ["sleep", "1000"], "placement": placement})
}

#[tokio::test]
async fn a_job_runs_on_a_node_that_it_chooses_by_label_or_by_name() {
    let mut cluster = Cluster::start(0).await;
    let gpu = json!({"node_selector": "gpu in (a100,h100),zone!=b"});
    let waiting = cluster.hub.submit(&long(&gpu)).await;
    assert_eq!(
        (&waiting["state"], &waiting["state_reason"]),
        (&json!("queued"), &json!("no_matching_node")),
        "{waiting:#}"
    );
    cluster.add_with("n1", &[]).await;
    // It waits for no slot of the others, and holds none of them.
    let other = cluster.hub.submit(&json!({"command": ["true"]})).await;
    assert_eq!(cluster.hub.finished(&id(&other)).await["node"], "n1");
    let job = cluster.hub.job(&id(&waiting)).await;
    assert_eq!(
        job["state_message"],
        "no node with gpu in (a100,h100),zone!=b is connected and takes jobs"
    );
    cluster
        .add_with(
            "n2",
            &["--node-label", "gpu=a100", "--node-label", "zone=a"],
        )
        .await;
    let job = cluster.hub.in_state(&id(&waiting), "running").await;
    assert_eq!(job["node"], "n2", "{job:#}");
    let node = cluster.node("n2").await;
    assert_eq!(
        (&node["labels"]["gpu"], &node["labels"]["procession/name"]),
        (&json!("a100"), &json!("n2")),
        "{node:#}"
    );
    let shown = cluster.hub.client().arg("nodes").output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("gpu=a100,zone=a"), "{shown}");
    // By name, and by what each node is labelled with by itself.
    for placement in [
        json!({"nodes": ["n1"]}),
        json!({"node_selector": "procession/name=n1"}),
    ] {
        let job = cluster.hub.submit(&long(&placement)).await;
        assert_eq!(job["node"], "n1", "{job:#}");
    }
    let full = cluster.hub.submit(&long(&json!({"nodes": ["n1"]}))).await;
    assert_eq!(full["state_reason"], "waiting_for_slot", "{full:#}");
    let nowhere = cluster.hub.submit(&long(&json!({"nodes": ["n9"]}))).await;
    assert_eq!(
        nowhere["state_message"],
        "n9 is not connected, or takes no jobs"
    );
    // The labels are known while the node is away, and after a restart of the hub.
    cluster.crash_hub().await;
    assert_eq!(cluster.node("n2").await["labels"]["zone"], "a");
}

#[tokio::test]
async fn a_heavy_job_that_waits_for_room_keeps_no_light_one_from_another_node() {
    let cluster = Cluster::start(2).await;
    let weighing = |weight: u32| json!({"command": ["sleep", "1000"], "weight": weight});
    let mut first = Vec::new();
    for _ in 0..2 {
        first.push(cluster.hub.submit(&weighing(1)).await);
    }
    assert_ne!(first[0]["node"], first[1]["node"]);
    let heavy = cluster.hub.submit(&weighing(2)).await;
    assert_eq!(heavy["state_reason"], "waiting_for_slot", "{heavy:#}");
    // One node is held back for it; the light ones have the other.
    let light = cluster.hub.submit(&weighing(1)).await;
    assert_eq!(light["state"], "running", "{light:#}");
    let more = cluster.hub.submit(&weighing(1)).await;
    assert_eq!(more["state"], "queued", "{more:#}");
    let kept = first.iter().find(|it| it["node"] != light["node"]).unwrap();
    cluster.hub.stop(&id(kept), "force").await;
    let heavy = cluster.hub.in_state(&id(&heavy), "running").await;
    assert_eq!(heavy["node"], kept["node"], "{heavy:#}");
    assert_eq!(cluster.hub.job(&id(&more)).await["state"], "queued");
}

#[tokio::test]
async fn a_hub_may_fill_one_node_after_the_other() {
    let cluster = Cluster::start_with(2, &["--role", "api", "--placement", "pack"]).await;
    let mut nodes = Vec::new();
    for _ in 0..4 {
        let job = cluster
            .hub
            .submit(&json!({"command": ["sleep", "1000"]}))
            .await;
        nodes.push(job["node"].as_str().unwrap().to_owned());
    }
    assert_eq!(nodes, ["n1", "n1", "n2", "n2"]);
}

#[tokio::test]
async fn a_service_that_is_no_hub_has_no_nodes_to_choose_from() {
    let server = crate::harness::Server::start().await;
    let reply = server.post("/jobs", &long(&json!({"nodes": ["n1"]}))).await;
    assert_eq!((reply.status, reply.code().as_str()), (422, "invalid_spec"));
    assert_eq!(reply.json()["errors"][0]["pointer"], "/placement");
    // What becomes of a job whose node is lost is of no account here, and not shown unless it is given.
    let job = server.run(&json!({"command": ["true"]})).await;
    assert!(job["spec"].get("on_node_loss").is_none() && job["spec"].get("placement").is_none());
    assert_eq!(job["state"], "succeeded", "{job:#}");
}

#[tokio::test]
async fn a_job_that_waits_can_be_sent_elsewhere() {
    let cluster = Cluster::start(2).await;
    let patch = async |id: &str, placement: Value| {
        let request = cluster.hub.request(Method::PATCH, &format!("/jobs/{id}"));
        let request = request.json(&json!({ "placement": placement }));
        cluster.hub.send(request).await
    };
    let nowhere = json!({"node_selector": "procession/arch!=none", "nodes": ["n9"]});
    let job = cluster.hub.submit(&long(&nowhere)).await;
    let (id, held) = (id(&job), id(&cluster.hub.submit(&long(&nowhere)).await));
    assert_eq!(job["state_reason"], "no_matching_node", "{job:#}");
    let wrong = patch(&id, json!({"node": "n1"})).await;
    assert_eq!(wrong.status, 422, "{wrong}");
    assert_eq!(wrong.json()["errors"][0]["pointer"], "/placement/node");
    // Fields that are not given stay.
    let changed = patch(&id, json!({"nodes": ["n2"]})).await;
    assert_eq!(changed.status, 200, "{changed}");
    assert_eq!(
        changed.json()["spec"]["placement"],
        json!({"node_selector": "procession/arch!=none", "nodes": ["n2"]})
    );
    let job = cluster.hub.in_state(&id, "running").await;
    assert_eq!(job["node"], "n2", "{job:#}");
    let late = patch(&id, json!({"nodes": ["n1"]})).await;
    assert_eq!(
        (late.status, late.code().as_str()),
        (409, "job_not_queued"),
        "{late}"
    );
    // It is kept, and `null` takes it away.
    let changed = patch(&held, Value::Null).await;
    assert_eq!(changed.status, 200, "{changed}");
    assert!(
        changed.json()["spec"].get("placement").is_none(),
        "{changed}"
    );
    cluster.hub.in_state(&held, "running").await;

    let alone = Server::start().await;
    let job = alone
        .submit(&json!({"command": ["true"], "hold": true}))
        .await;
    let request = alone.request(
        Method::PATCH,
        &format!("/jobs/{}", crate::harness::id(&job)),
    );
    let request = request.json(&json!({"placement": {"nodes": ["n1"]}}));
    let refused = alone.send(request).await;
    assert_eq!(refused.status, 422, "{refused}");
    assert_eq!(
        refused.json()["errors"][0]["pointer"],
        "/placement",
        "{refused}"
    );
}

/// What a node refuses for good has started nowhere: it is tried again where it may run, or ends with the reason.
#[tokio::test]
async fn a_job_that_a_node_refuses_for_good_is_tried_on_another_one_or_ends() {
    let mut cluster = Cluster::start(0).await;
    let strict = ["--sandbox", "require", "--max-workspace-bytes", "4096"];
    cluster.add_with("n1", &strict).await;
    let again =
        json!({"max_attempts": 2, "on": ["spawn_failed"], "backoff": {"initial_seconds": 0.1}});
    let plain = json!({"command": ["true"], "sandbox": {"seccomp": "off"}, "retry": again});
    let large = "x".repeat(9000);
    let with_files = json!({
        "command": ["true"],
        "sandbox": {},
        "inputs": [{"path": "large", "text": large}],
        "retry": again,
    });
    for (body, why) in [(&plain, "node n1 cannot run it"), (&with_files, "node n1")] {
        let ended = cluster
            .hub
            .finished(&id(&cluster.hub.submit(body).await))
            .await;
        assert_eq!(
            (&ended["state"], &ended["state_reason"], &ended["attempt"]),
            (&json!("failed"), &json!("spawn_failed"), &json!(2)),
            "{ended:#}"
        );
        let message = ended["state_message"].as_str().unwrap();
        assert!(message.contains(why), "{message}");
        assert!(ended.get("node").is_none(), "it ran nowhere: {ended:#}");
    }
    // Of two nodes that are as free as each other the first one is asked first, and the other one next.
    cluster.add_with("n2", &[]).await;
    for body in [&plain, &with_files] {
        let ended = cluster
            .hub
            .finished(&id(&cluster.hub.submit(body).await))
            .await;
        assert_eq!(
            (&ended["state"], &ended["node"], &ended["attempt"]),
            (&json!("succeeded"), &json!("n2"), &json!(2)),
            "{ended:#}"
        );
        assert_eq!(ended["attempts"][0]["cause"], "spawn_failed", "{ended:#}");
    }
}
