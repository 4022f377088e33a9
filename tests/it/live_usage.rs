//! What a job uses is seen while it runs, with what its ended processes have used.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Server, bound, eventually, id};

/// Burns so many seconds of a processor in a process of its own that ends, and whose parent has ended before it: it is
/// the monitor that collects it.
const BURN: &str = r#"
import os, sys, time
def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
"#;

fn burning(seconds: f64) -> Value {
    let script = format!(
        "{BURN}
inner, outer = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        burn({seconds})
        os.write(outer, b'x')
    os._exit(0)
os.wait()
child = os.fork()
if child == 0:
    burn({seconds})
    os._exit(0)
os.waitpid(child, 0)
os.read(inner, 1)
print('burnt', flush=True)
time.sleep(600)
"
    );
    json!({"command": ["python3", "-c", script]})
}

fn cpu(usage: &Value) -> f64 {
    usage["user_cpu_seconds"].as_f64().unwrap() + usage["system_cpu_seconds"].as_f64().unwrap()
}

async fn is_seen(server: &Server) {
    // The second one shows that what the first had used is not counted again, if it has the same monitor.
    for _ in 0..2 {
        let job = id(&server.submit(&burning(1.0)).await);
        server.says(&job, "burnt").await;
        let seen = eventually("two seconds of ended processes are seen", async || {
            let seen = server.job(&job).await;
            assert_eq!(seen["state"], "running", "{seen:#}");
            // The one that nobody but the monitor collects may be about to end.
            let has_all = cpu(&seen["usage"]) >= 1.9 && seen["usage"]["processes"] == 1;
            has_all.then_some(seen)
        })
        .await;
        let usage = &seen["usage"];
        assert!(cpu(usage) < 3.5, "{usage:#}");
        assert!(
            usage["memory_bytes"].as_u64().unwrap() > 1 << 20,
            "{usage:#}"
        );
        assert!(
            usage["max_rss_bytes"].as_u64().unwrap() > 1 << 20,
            "{usage:#}"
        );
        let has_group = seen["process"]["containment"]
            .as_str()
            .unwrap()
            .contains("cgroup");
        let source = if has_group { "cgroup" } else { "processes" };
        assert_eq!(usage["source"], source, "{seen:#}");
        let of_many = server
            .get(&format!("/jobs/usage?job_ids={job}"))
            .await
            .json();
        let of_many = &of_many["usage"][0];
        assert!(cpu(of_many) >= cpu(usage), "{of_many:#} {usage:#}");
        let listed = server.get("/jobs?state=running").await.json();
        assert_eq!(listed["jobs"][0]["usage"], Value::Null, "{listed:#}");
        let ended = server.stop(&job, "force").await;
        let last = &ended["usage"];
        assert!(cpu(last) >= 1.9 && cpu(last) < 3.5, "{last:#}");
        assert_eq!(last.get("processes"), None, "{last:#}");
    }
}

#[tokio::test]
async fn what_a_job_uses_is_seen_while_it_runs() {
    is_seen(&Server::start().await).await;
}

#[tokio::test]
async fn and_without_a_cgroup() {
    is_seen(&Server::builder().without_cgroups().start().await).await;
}

#[tokio::test]
async fn a_look_at_a_hundred_processes_costs_little() {
    let server = Server::start().await;
    let script = "for i in $(seq 99); do sleep 600 & done; echo up; wait";
    let job = id(&server.submit(&json!({"script": script})).await);
    server.says(&job, "up").await;
    let mut best = Duration::MAX;
    for _ in 0..20 {
        let since = Instant::now();
        let seen = server.job(&job).await;
        best = best.min(since.elapsed());
        assert_eq!(seen["usage"]["processes"], 100, "{seen:#}");
    }
    // With the request and the answer around it, and not optimized.
    assert!(best < bound(Duration::from_millis(20)), "{best:?}");
    eprintln!("100 processes: {best:?}");
    server.stop(&job, "force").await;
}
