//! Batches whose jobs depend on each other and are tried again: each ends as it would without the kills.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Persistent, Server, amount, id, kill_now};
use crate::queues::micros;

/// A job that notes each of its attempts in a file of its name, and whether another one runs beside it. It fails before
/// this attempt.
fn noted(key: &str, succeeds_with: u32, depends_on: &Value) -> Value {
    let script = format!(
        "mkdir {key}.lock || echo twice >> {key}; echo $PROCESSION_ATTEMPT >> {key}; sleep 0.03; \
         rmdir {key}.lock; [ $PROCESSION_ATTEMPT -ge {succeeds_with} ] || exit 75"
    );
    let backoff = json!({"initial_seconds": 0.02, "max_seconds": 0.02});
    let retry = json!({"max_attempts": 3, "backoff": backoff});
    json!({"key": key, "script": script, "retry": retry, "depends_on": depends_on})
}

/// `a` is tried twice; `b` fails three times and `c` succeeds in the third attempt; so `d` cannot run, `e` and `f` do.
fn diamond(cwd: &Path) -> Value {
    let on = |key: &str, on: &str| json!({"key": key, "on": on});
    json!({"defaults": {"cwd": cwd}, "jobs": [
        noted("a", 2, &json!([])),
        noted("b", 9, &json!([on("a", "succeeded")])),
        noted("c", 3, &json!([on("a", "succeeded")])),
        noted("d", 1, &json!([on("b", "succeeded"), on("c", "succeeded")])),
        noted("e", 1, &json!([on("b", "failed"), on("c", "succeeded")])),
        noted("f", 1, &json!([on("d", "finished")])),
    ]})
}

const ENDS: [(&str, &str, &str); 6] = [
    ("a", "succeeded", "1\n2\n"),
    ("b", "failed", "1\n2\n3\n"),
    ("c", "succeeded", "1\n2\n3\n"),
    ("d", "canceled", ""),
    ("e", "succeeded", "1\n"),
    ("f", "succeeded", "1\n"),
];

/// The second of these starts once the first has ended.
const ORDER: [(&str, &str); 5] = [("a", "b"), ("a", "c"), ("b", "e"), ("c", "e"), ("d", "f")];

async fn jobs_of(client: &Persistent, batch: &Value) -> Vec<Value> {
    let page = client.get(&format!("/jobs?batch={}", id(batch))).await;
    page.json()["jobs"].as_array().unwrap().clone()
}

fn judge(jobs: &[Value], cwd: &Path) {
    let of = |key: &str| jobs.iter().find(|job| job["batch"]["key"] == key).unwrap();
    for (key, state, attempts) in ENDS {
        let job = of(key);
        assert_eq!(job["state"], state, "{job:#}");
        let ran = fs::read_to_string(cwd.join(key)).unwrap_or_default();
        assert_eq!(ran, attempts, "{job:#}");
    }
    assert_eq!(of("d")["state_reason"], "dependency_failed");
    for (first, then) in ORDER {
        let (first, then) = (of(first), of(then));
        assert!(micros(then, "started_at") >= micros(first, "finished_at"));
    }
    assert!(micros(of("d"), "finished_at") >= micros(of("b"), "finished_at"));
}

#[tokio::test]
#[expect(
    clippy::disallowed_methods,
    reason = "the next kill comes at a random moment"
)]
async fn a_diamond_with_retries_and_a_branch_that_fails_ends_right_whenever_the_server_is_killed() {
    let seed = u64::from(amount("PROCESSION_FAULT_SEED", rand::random()));
    eprintln!("PROCESSION_FAULT_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let server = Server::start().await;
    let client = server.persistent();
    for round in 0..amount("PROCESSION_DIAMOND_ROUNDS", 5) {
        let cwd = server.scratch().join(round.to_string());
        fs::create_dir(&cwd).unwrap();
        let (body, key) = (diamond(&cwd), format!("round-{round}"));
        let asking = client.ask(Method::POST, "/batches", Some(&body), Some(&key));
        let kills: Vec<u64> = (0..rng.random_range(1..=3))
            .map(|_| rng.random_range(0..400))
            .collect();
        let killing = async {
            for after in &kills {
                tokio::time::sleep(Duration::from_millis(*after)).await;
                if let Some(pid) = server.server_process() {
                    kill_now(pid);
                }
            }
        };
        let (reply, ()) = futures_util::future::join(asking, killing).await;
        assert_eq!(reply.status, 201, "{reply}");
        let path = format!("/batches/{}?wait=30", id(&reply.json()));
        let batch = client.get(&path).await.json();
        assert_eq!(batch["state"], "failed", "{kills:?}: {batch:#}");
        let counts = &batch["counts"];
        assert_eq!(
            (&counts["succeeded"], &counts["failed"], &counts["canceled"]),
            (&json!(4), &json!(1), &json!(1)),
            "{kills:?}: {batch:#}"
        );
        judge(&jobs_of(&client, &batch).await, &cwd);
    }
}

#[tokio::test]
async fn a_job_that_succeeds_in_its_third_attempt_counts_as_succeeded_and_others_wait_for_that() {
    let server = Server::start().await;
    let cwd = server.scratch();
    let body = json!({"defaults": {"cwd": cwd}, "jobs": [
        noted("first", 3, &json!([])),
        noted("then", 1, &json!([{"key": "first"}])),
    ]});
    let batch = server.post("/batches?wait=30", &body).await.json();
    let path = format!("/batches/{}?wait=30", id(&batch));
    let batch = server.get(&path).await.json();
    assert_eq!(batch["state"], "succeeded", "{batch:#}");
    assert_eq!(batch["counts"]["succeeded"], 2, "{batch:#}");
    let jobs = jobs_of(&server.persistent(), &batch).await;
    let of = |key: &str| jobs.iter().find(|job| job["batch"]["key"] == key).unwrap();
    assert_eq!(of("first")["attempts"].as_array().unwrap().len(), 3);
    assert!(micros(of("then"), "started_at") >= micros(of("first"), "finished_at"));
    assert_eq!(fs::read_to_string(cwd.join("first")).unwrap(), "1\n2\n3\n");
}
