//! What does not fit: each is a clear error, and nothing happens.

use std::fs;
use std::process::Command;

use serde_json::json;

use super::{Cluster, port};
use crate::harness::{Server, eventually, program, unique};

/// What `procession serve` with these arguments says before it gives up.
fn refused(args: &[&str]) -> String {
    let home = tempfile::tempdir().unwrap();
    let mut command: Command = program(&unique(), "");
    command.args(["serve", "--listen", "127.0.0.1:0", "--state-dir"]);
    let output = command
        .arg(home.path().join("state"))
        .args(args)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78), "{args:?}: {output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn settings_that_do_not_go_together_are_refused() {
    for (args, why) in [
        (
            &["--cluster", "mysql://db"][..],
            "must be local, off, or a URL",
        ),
        (&["--cluster", "postgres://db"], "goes with --role api"),
        (
            &["--cluster", "postgres://db", "--role", "api"],
            "goes with --cluster-key-file",
        ),
        (
            &["--cluster", "postgres://%2Ftmp/db", "--role", "api"],
            "goes with --advertise",
        ),
        (
            &["--advertise", "https://hub"],
            "go with --cluster and the URL",
        ),
        (&["--role", "api"], "goes with --cluster local"),
        (
            &["--cluster", "local", "--auth", "none"],
            "needs --auth token",
        ),
        (
            &["--cluster", "local", "--join", "https://hub"],
            "give one of them",
        ),
        (&["--join", "https://hub"], "goes with --join-token-file"),
        (&["--join-token-file", "/dev/null"], "go with --join"),
        (&["--join", "hub:1"], "must be a URL"),
        (
            &[
                "--join",
                "http://10.0.0.1",
                "--join-token-file",
                "/dev/null",
            ],
            "use https://",
        ),
        (
            &[
                "--join",
                "http://127.0.0.1:1",
                "--join-token-file",
                "/nonexistent",
            ],
            "No such file",
        ),
        (
            &[
                "--join",
                "http://127.0.0.1:1",
                "--join-token-file",
                "/dev/null",
            ],
            "holds no token",
        ),
        (
            &["--cluster", "local", "--node-name", "a/b"],
            "letter or digit first",
        ),
        (
            &["--cluster", "local", "--node-lost-after-seconds", "0"],
            "must be a number of seconds from 1 to 604800",
        ),
    ] {
        let said = refused(args);
        assert!(said.contains(why), "{args:?}: {said}");
    }
}

/// A node that cannot join, until its log says why.
pub(super) async fn says(node: &Server, why: &str) {
    eventually(&format!("the node says {why:?}"), async || {
        node.log().contains(why).then_some(())
    })
    .await;
    let ready = node.get("/readyz").await;
    assert_eq!(
        (ready.status, ready.code().as_str()),
        (503, "not_ready"),
        "{ready}"
    );
}

#[tokio::test]
async fn a_node_says_why_it_cannot_join() {
    let mut cluster = Cluster::start(1).await;
    let scratch = cluster.hub.scratch();
    fs::write(scratch.join("wrong"), "nonsense").unwrap();
    fs::write(scratch.join("admin"), cluster.hub.token()).unwrap();
    cluster.token("n2").await;
    for (token, name, why) in [
        ("wrong", "n9", "does not accept the token"),
        ("admin", "n9", "has not the scope runner"),
        ("n2", "n1", "joined with token:n1"),
        ("n1", "n1", "another node with the name n1 is connected"),
        ("n2", "hub", "is the hub's own name"),
    ] {
        let node = cluster.node_with(token, name).start().await;
        says(&node, why).await;
    }
    // Nobody was disturbed.
    assert_eq!(cluster.hub.run_script("exit 0").await["node"], "n1");

    // A service that is no hub, as one of before clusters, and no service at all.
    let alone = Server::start().await;
    for (url, why) in [
        (
            format!("http://{}", alone.address()),
            "does not accept the token",
        ),
        (format!("http://127.0.0.1:{}", port()), "cannot be reached"),
    ] {
        let node = cluster.node_at(&url, "n2", "n2");
        says(&node.start().await, why).await;
    }
    fs::write(scratch.join("alone"), alone.token()).unwrap();
    let url = format!("http://{}", alone.address());
    let node = cluster.node_at(&url, "alone", "n2");
    says(&node.start().await, "it is no hub").await;
    assert_eq!(alone.get("/nodes").await.status, 404);

    // A token that is revoked ends the link.
    let request = cluster.hub.request(reqwest::Method::DELETE, "/tokens/n1");
    assert_eq!(cluster.hub.send(request).await.status, 200);
    cluster.connected("n1", false).await;
    says(&cluster.nodes[0], "does not accept the token").await;
    cluster.nodes.clear();
}

#[tokio::test]
async fn a_node_takes_jobs_from_its_hub_alone_and_a_hub_without_nodes_of_its_own_no_files() {
    let cluster = Cluster::start(1).await;
    let node = &cluster.nodes[0];
    let job = json!({"command": ["true"]});
    for (path, body) in [
        ("/jobs", job.clone()),
        (
            "/batches",
            json!({"jobs": [{"key": "a", "command": ["true"]}]}),
        ),
    ] {
        let reply = node.post(path, &body).await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (403, "runner_only"),
            "{reply}"
        );
    }
    // What a node cannot do is told as what it is.
    let nobody = json!({"command": ["true"], "weight": 3});
    let reply = cluster.hub.post("/jobs", &nobody).await;
    assert_eq!(reply.status, 422, "{reply}");
    // A node's token is for the link alone.
    let token = fs::read_to_string(cluster.hub.scratch().join("n1")).unwrap();
    for path in [
        "/jobs", "/nodes", "/info", "/metrics", "/events", "/tokens", "/session",
    ] {
        let request = cluster.hub.anonymous(reqwest::Method::GET, path);
        let reply = cluster.hub.send(request.bearer_auth(&token)).await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (403, "forbidden"),
            "{path}: {reply}"
        );
    }
    let request = cluster.hub.request(reqwest::Method::GET, "/cluster/link");
    assert_eq!(cluster.hub.send(request).await.status, 403);
}

#[tokio::test]
async fn a_state_directory_with_jobs_on_nodes_is_not_started_without_them() {
    let mut cluster = Cluster::start(1).await;
    let job = cluster
        .hub
        .submit(&json!({"command": ["sleep", "1000"]}))
        .await;
    cluster.hub.end(nix::sys::signal::Signal::SIGTERM);
    let mut alone = program(&unique(), "");
    alone.args(["serve", "--listen", "127.0.0.1:0", "--state-dir"]);
    let output = alone.arg(cluster.hub.state_dir()).output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("start it with --cluster local"), "{said}");
    cluster.start_hub().await;
    cluster.connected("n1", true).await;
    cluster.hub.stop(job["id"].as_str().unwrap(), "force").await;
}
