//! What is odd about waiting jobs, batches, queues and schedules is refused where it is, and nothing of it is stored.

use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::harness::{Reply, Server, id};

const NOBODY: &str = "0198c1d2-7b3a-7c4e-9f10-2a6b3c4d5e6f";

/// The fields of both.
fn with(body: &Value, more: &Value) -> Value {
    let fields = [body, more].map(|it| it.as_object().unwrap().clone());
    Value::Object(fields.into_iter().flatten().collect::<Map<_, _>>())
}

fn is_refused(reply: &Reply, pointer: &str, code: &str) {
    assert_eq!(reply.status, 422, "{pointer}: {reply}");
    let problem = reply.json();
    let errors = problem["errors"].as_array().unwrap();
    let found = errors
        .iter()
        .any(|it| it["pointer"] == pointer && it["code"] == code);
    assert!(found, "{pointer}, {code}: {problem:#}");
}

async fn has_nothing(server: &Server) {
    for (path, list) in [
        ("/jobs", "jobs"),
        ("/batches", "batches"),
        ("/schedules", "schedules"),
        ("/queues", "queues"),
    ] {
        let all = server.get(path).await.json();
        assert_eq!(all[list], json!([]), "{path}");
    }
}

#[tokio::test]
async fn of_a_job() {
    let server = Server::start().await;
    for (more, pointer, code) in [
        (json!({"run_at": "soon"}), "/run_at", "invalid_value"),
        (json!({"run_at": 5}), "/run_at", "wrong_type"),
        (
            json!({"run_at": "2030-01-01T00:00:00"}),
            "/run_at",
            "invalid_value",
        ),
        (
            json!({"run_at": "10000-01-01T00:00:00Z"}),
            "/run_at",
            "invalid_value",
        ),
        (json!({"hold": "true"}), "/hold", "wrong_type"),
        (json!({"weight": -1}), "/weight", "out_of_range"),
        (json!({"weight": 1.5}), "/weight", "wrong_type"),
        (json!({"weight": 1_000_000}), "/weight", "out_of_range"),
        (
            json!({"concurrency": {"key": "a\u{0}"}}),
            "/concurrency/key",
            "invalid_value",
        ),
        (
            json!({"concurrency": {"key": "a", "limit": 0}}),
            "/concurrency/limit",
            "out_of_range",
        ),
        (json!({"queue": "ü"}), "/queue", "invalid_value"),
        (json!({"queue": "q".repeat(129)}), "/queue", "too_long"),
        (
            json!({"start_deadline_seconds": -1}),
            "/start_deadline_seconds",
            "out_of_range",
        ),
        (json!({"retry": []}), "/retry", "wrong_type"),
        (
            json!({"retry": {"max_attempts": 0}}),
            "/retry/max_attempts",
            "out_of_range",
        ),
        (
            json!({"retry": {"max_attempts": 1e30}}),
            "/retry/max_attempts",
            "out_of_range",
        ),
        (json!({"retry": {"max": 2}}), "/retry/max", "unknown_field"),
        (
            json!({"retry": {"on": ["canceled"]}}),
            "/retry/on/0",
            "invalid_value",
        ),
        (json!({"retry": {"on": []}}), "/retry/on", "invalid_value"),
        (
            json!({"retry": {"exit_codes": [[9, 3]]}}),
            "/retry/exit_codes/0",
            "invalid_value",
        ),
        (
            json!({"retry": {"exit_codes": [256]}}),
            "/retry/exit_codes/0",
            "out_of_range",
        ),
        (
            json!({"retry": {"within_seconds": -1}}),
            "/retry/within_seconds",
            "out_of_range",
        ),
        (
            json!({"retry": {"backoff": {"initial_seconds": -1}}}),
            "/retry/backoff/initial_seconds",
            "out_of_range",
        ),
        (
            json!({"retry": {"backoff": {"factor": 0.5}}}),
            "/retry/backoff/factor",
            "out_of_range",
        ),
        (
            json!({"retry": {"backoff": {"initial_seconds": 9, "max_seconds": 5}}}),
            "/retry/backoff/max_seconds",
            "out_of_range",
        ),
        (
            json!({"depends_on": [{"job": NOBODY}]}),
            "/depends_on/0",
            "no_such_job",
        ),
        (
            json!({"depends_on": [{"job": "x"}]}),
            "/depends_on/0/job",
            "invalid_value",
        ),
        (
            json!({"depends_on": [{"job": NOBODY, "batch": NOBODY}]}),
            "/depends_on/0/batch",
            "conflict",
        ),
        (json!({"depends_on": [{}]}), "/depends_on/0/job", "missing"),
        (
            json!({"depends_on": [{"job": NOBODY, "on": "x"}]}),
            "/depends_on/0/on",
            "invalid_value",
        ),
        (
            json!({"depends_on": vec![json!({"job": NOBODY}); 101]}),
            "/depends_on",
            "too_many",
        ),
    ] {
        let body = with(&json!({"command": ["true"]}), &more);
        is_refused(&server.post("/jobs", &body).await, pointer, code);
    }
    has_nothing(&server).await;
    // A record that is gone is as one that never was.
    let gone = server.run_script("true").await;
    assert_eq!(server.delete(&id(&gone), "purge").await.status, 204);
    let body = json!({"command": ["true"], "depends_on": [{"job": id(&gone)}]});
    let reply = server.post("/jobs", &body).await;
    is_refused(&reply, "/depends_on/0", "no_such_job");
    has_nothing(&server).await;
}

#[tokio::test]
async fn of_a_batch() {
    let server = Server::start().await;
    let job = |more: Value| with(&json!({"key": "a", "command": ["true"]}), &more);
    let one = |more: Value| json!({"jobs": [job(more)]});
    let all = |more: Value| with(&one(json!({})), &more);
    for (body, pointer, code) in [
        (json!({}), "/jobs", "missing"),
        (json!({"jobs": []}), "/jobs", "invalid_value"),
        (json!({"jobs": {}}), "/jobs", "wrong_type"),
        (json!({"jobs": [5]}), "/jobs/0", "wrong_type"),
        (
            json!({"jobs": [{"command": ["true"]}]}),
            "/jobs/0/key",
            "missing",
        ),
        (
            json!({"jobs": [job(json!({"repeat": 10_000})), job(json!({"key": "b"}))]}),
            "/jobs",
            "too_many",
        ),
        (
            json!({"jobs": [job(json!({})), job(json!({"key": "b", "weight": 0}))]}),
            "/jobs/1/weight",
            "out_of_range",
        ),
        (one(json!({"key": "ü"})), "/jobs/0/key", "invalid_value"),
        (
            one(json!({"key": "k".repeat(129)})),
            "/jobs/0/key",
            "too_long",
        ),
        (one(json!({"repeat": 0})), "/jobs/0/repeat", "out_of_range"),
        (
            one(json!({"repeat": 2, "for_each": [{}]})),
            "/jobs/0/for_each",
            "conflict",
        ),
        (
            one(json!({"for_each": []})),
            "/jobs/0/for_each",
            "invalid_value",
        ),
        (
            one(json!({"for_each": [{}, {"weight": 0}]})),
            "/jobs/0/for_each/1/weight",
            "out_of_range",
        ),
        (
            one(json!({"depends_on": [{"key": "a"}]})),
            "/jobs",
            "conflict",
        ),
        (
            one(json!({"run_at": "x"})),
            "/jobs/0/run_at",
            "invalid_value",
        ),
        (
            one(json!({"retry": {"max_attempts": 0}})),
            "/jobs/0/retry/max_attempts",
            "out_of_range",
        ),
        (
            all(json!({"max_running": 0})),
            "/max_running",
            "out_of_range",
        ),
        (
            all(json!({"on_failure": "x"})),
            "/on_failure",
            "invalid_value",
        ),
        (all(json!({"name": "n".repeat(129)})), "/name", "too_long"),
        (
            all(json!({"defaults": {"foo": 1}})),
            "/defaults/foo",
            "unknown_field",
        ),
        (
            all(json!({"ttl_seconds_after_finished": 0})),
            "/ttl_seconds_after_finished",
            "out_of_range",
        ),
        (
            all(json!({"webhooks": [{"url": "https://example.org", "events": ["job.finished"]}]})),
            "/webhooks/0/events/0",
            "invalid_value",
        ),
    ] {
        is_refused(&server.post("/batches", &body).await, pointer, code);
    }
    has_nothing(&server).await;
}

#[tokio::test]
async fn of_a_schedule() {
    let server = Server::start().await;
    let put = async |name: &str, body: &Value| {
        let request = server.request(Method::PUT, &format!("/schedules/{name}"));
        server.send(request.json(body)).await
    };
    let job = json!({"job": {"command": ["true"]}});
    let daily = |more: Value| with(&json!({"cron": "@daily"}), &more);
    for (more, pointer, code) in [
        (json!({"cron": "0 0 3 * * *"}), "/cron", "invalid_value"),
        (json!({"cron": "@reboot"}), "/cron", "invalid_value"),
        (json!({"cron": ""}), "/cron", "invalid_value"),
        (json!({"cron": "٣ * * * *"}), "/cron", "invalid_value"),
        (
            json!({"cron": "*/99999999999 * * * *"}),
            "/cron",
            "invalid_value",
        ),
        (json!({}), "/cron", "missing"),
        (
            daily(json!({"every_seconds": 5})),
            "/every_seconds",
            "conflict",
        ),
        (
            json!({"every_seconds": 0}),
            "/every_seconds",
            "out_of_range",
        ),
        (
            json!({"every_seconds": -1}),
            "/every_seconds",
            "out_of_range",
        ),
        (
            json!({"every_seconds": 1e300}),
            "/every_seconds",
            "out_of_range",
        ),
        (json!({"at": []}), "/at", "invalid_value"),
        (json!({"at": ["tomorrow"]}), "/at/0", "invalid_value"),
        (
            json!({"at": vec!["2027-01-01T00:00:00Z"; 1001]}),
            "/at",
            "too_many",
        ),
        (
            daily(json!({"time_zone": "Nowhere/X"})),
            "/time_zone",
            "invalid_value",
        ),
        (
            daily(json!({"time_zone": "../../etc/passwd"})),
            "/time_zone",
            "invalid_value",
        ),
        (
            daily(json!({"time_zone": ""})),
            "/time_zone",
            "invalid_value",
        ),
        (daily(json!({"missed": "x"})), "/missed", "invalid_value"),
        (
            daily(json!({"missed_within_seconds": 604_801})),
            "/missed_within_seconds",
            "out_of_range",
        ),
        (
            daily(json!({"jitter_seconds": -1})),
            "/jitter_seconds",
            "out_of_range",
        ),
        (
            daily(json!({"starts_at": "2027-01-02T00:00:00Z", "ends_at": "2027-01-01T00:00:00Z"})),
            "/ends_at",
            "conflict",
        ),
        (daily(json!({"foo": 1})), "/foo", "unknown_field"),
        (daily(json!({"job": null})), "/job", "missing"),
        (daily(json!({"job": []})), "/job", "wrong_type"),
    ] {
        let body = with(&job, &more);
        is_refused(&put("s", &body).await, pointer, code);
    }
    let good = with(&job, &json!({"cron": "@daily"}));
    for name in [
        "a".repeat(64),
        "a".repeat(129),
        "%C3%BC".into(),
        "a%20b".into(),
        "%00".into(),
    ] {
        let reply = put(&name, &good).await;
        assert_eq!(reply.status, 404, "{name}: {reply}");
        assert!(reply.json()["detail"].as_str().unwrap().contains("1 to 63"));
    }
    has_nothing(&server).await;

    assert_eq!(put("s", &good).await.status, 201);
    let patch = async |patch: &str| {
        let request = server.request(Method::PATCH, "/schedules/s");
        let request = request.header("content-type", "application/merge-patch+json");
        server.send(request.body(patch.to_owned())).await
    };
    for (body, pointer, code) in [
        (r#"{"cron": null}"#, "/cron", "missing"),
        (r#"{"job": null}"#, "/job", "missing"),
        (r#"{"job": {"command": null}}"#, "/job/command", "missing"),
        (r#"{"version": 7}"#, "/version", "unknown_field"),
        ("null", "", "wrong_type"),
        ("[]", "", "wrong_type"),
    ] {
        is_refused(&patch(body).await, pointer, code);
    }
    for body in [
        r#"{"time_zone": null}"#,
        r#"{"paused": null, "overlap": null}"#,
    ] {
        let same = patch(body).await;
        assert_eq!((same.status, &same.json()["version"]), (200, &json!(1)));
    }
    for query in ["count=0", "count=1001", "after=x"] {
        let reply = server.get(&format!("/schedules/s/times?{query}")).await;
        assert_eq!(reply.status, 400, "{query}: {reply}");
        let parameter = query.split('=').next().unwrap();
        assert_eq!(reply.json()["errors"][0]["parameter"], parameter);
    }
}

#[tokio::test]
async fn of_a_queue_and_of_lists() {
    let server = Server::start().await;
    for (body, pointer, code) in [
        (json!({"max_running": 0}), "/max_running", "out_of_range"),
        (json!({"max_queued": -1}), "/max_queued", "out_of_range"),
        (
            json!({"rate": {"starts": 1}}),
            "/rate/per_seconds",
            "missing",
        ),
        (
            json!({"rate": {"starts": 1, "per_seconds": 0}}),
            "/rate/per_seconds",
            "out_of_range",
        ),
        (json!({"fair_by": "x"}), "/fair_by", "invalid_value"),
        (
            json!({"fair_by": {"label": ""}}),
            "/fair_by/label",
            "invalid_value",
        ),
        (
            json!({"default_priority": 1e9}),
            "/default_priority",
            "out_of_range",
        ),
        (
            json!({"pause_reason": "r".repeat(1025)}),
            "/pause_reason",
            "too_long",
        ),
        (json!([]), "", "wrong_type"),
    ] {
        let request = server.request(Method::PUT, "/queues/q").json(&body);
        is_refused(&server.send(request).await, pointer, code);
    }
    has_nothing(&server).await;
    for (query, parameter) in [
        ("batch=x", "batch"),
        ("created_after=x", "created_after"),
        ("created_before=10000-01-01T00:00:00Z", "created_before"),
        ("color=x", "color"),
    ] {
        let reply = server.get(&format!("/jobs?{query}")).await;
        assert_eq!(reply.status, 400, "{query}: {reply}");
        assert_eq!(reply.json()["errors"][0]["parameter"], parameter);
    }
}

#[tokio::test]
async fn of_what_else_there_is() {
    let server = Server::start().await;
    for (more, pointer, code) in [
        (
            json!({"retry": {"never_exit_codes": [256]}}),
            "/retry/never_exit_codes/0",
            "out_of_range",
        ),
        (
            json!({"retry": {"on": "exited"}}),
            "/retry/on",
            "wrong_type",
        ),
        (
            json!({"retry": {"backoff": []}}),
            "/retry/backoff",
            "wrong_type",
        ),
        (json!({"concurrency": []}), "/concurrency", "wrong_type"),
        (json!({"concurrency": {}}), "/concurrency/key", "missing"),
        (json!({"depends_on": "x"}), "/depends_on", "wrong_type"),
    ] {
        let body = with(&json!({"command": ["true"]}), &more);
        is_refused(&server.post("/jobs", &body).await, pointer, code);
    }
    let jobs = json!({"jobs": [{"key": "a", "command": ["true"]}]});
    for (more, pointer) in [
        (json!({"labels": []}), "/labels"),
        (json!({"labels": {"a": 1}}), "/labels/a"),
        (json!({"name": 5}), "/name"),
    ] {
        let reply = server.post("/batches", &with(&jobs, &more)).await;
        is_refused(&reply, pointer, "wrong_type");
    }
    let daily = json!({"cron": "@daily", "job": {"command": ["true"]}});
    for (more, pointer, code) in [
        (json!({"overlap": "x"}), "/overlap", "invalid_value"),
        (json!({"paused": "yes"}), "/paused", "wrong_type"),
        (json!({"starts_at": "x"}), "/starts_at", "invalid_value"),
        (json!({"labels": []}), "/labels", "wrong_type"),
    ] {
        let request = server.request(Method::PUT, "/schedules/s");
        let reply = server.send(request.json(&with(&daily, &more))).await;
        is_refused(&reply, pointer, code);
    }
    for (body, pointer, code) in [
        (json!({"cron": "x"}), "/cron", "invalid_value"),
        (
            json!({"cron": "@daily", "count": 0}),
            "/count",
            "out_of_range",
        ),
        (
            json!({"cron": "@daily", "after": "x"}),
            "/after",
            "invalid_value",
        ),
        (
            json!({"cron": "@daily", "job": {}}),
            "/job",
            "unknown_field",
        ),
    ] {
        is_refused(&server.post("/schedules/times", &body).await, pointer, code);
    }
    for (body, pointer, code) in [
        (json!({"paused": 1}), "/paused", "wrong_type"),
        (json!({"rate": []}), "/rate", "wrong_type"),
        (
            json!({"rate": {"starts": 0, "per_seconds": 1}}),
            "/rate/starts",
            "out_of_range",
        ),
    ] {
        let request = server.request(Method::PUT, "/queues/q").json(&body);
        is_refused(&server.send(request).await, pointer, code);
    }
    has_nothing(&server).await;

    let batch = server.post("/batches?wait=30", &jobs).await;
    assert_eq!(batch.status, 201, "{batch}");
    let batch = format!("/batches/{}", id(&batch.json()));
    let rerun = format!("{batch}/rerun");
    for (body, pointer, code) in [
        (json!({"only": "x"}), "/only", "invalid_value"),
        (json!({"all": true}), "/all", "unknown_field"),
    ] {
        is_refused(&server.post(&rerun, &body).await, pointer, code);
    }
    for (method, path, parameter) in [
        (Method::GET, "/batches?page_size=0".to_owned(), "page_size"),
        (Method::GET, format!("{batch}?until=x"), "until"),
        (
            Method::DELETE,
            format!("{batch}?grace_seconds=-1"),
            "grace_seconds",
        ),
        (
            Method::DELETE,
            "/queues/q?force=perhaps".to_owned(),
            "force",
        ),
        (Method::GET, "/events?batch=x".to_owned(), "batch"),
        (Method::GET, "/events?type=batch.x".to_owned(), "type"),
    ] {
        let reply = server.send(server.request(method, &path)).await;
        assert_eq!(reply.status, 400, "{path}: {reply}");
        assert_eq!(reply.json()["errors"][0]["parameter"], parameter, "{path}");
    }
}
