//! PostgreSQL is away for all API nodes: every write has its answer in time, and what runs is controlled meanwhile.

use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::{Apis, PATIENT};
use crate::harness::{LONG, Reply, Server, bound, eventually, id, processes_with, unique_seconds};
use crate::history::wire::Mode;

/// No answer to a write takes longer, whatever is away.
const ANSWERED: Duration = Duration::from_secs(10);

/// No process is longer there after a forced stop.
const GONE: Duration = Duration::from_secs(5);

/// Does something take no longer than it does where nothing else keeps the machine busy, or at least not too long?
fn is_in_time(took: Duration, limit: Duration) -> bool {
    took < bound(limit).min(LONG)
}

/// A job that only a stop or a signal ends, and what its process sleeps.
async fn lasting(api: &Server) -> (String, String) {
    let seconds = unique_seconds();
    let body = json!({"script": format!("echo begun; exec sleep {seconds}")});
    let job = id(&api.submit(&body).await);
    api.says(&job, "begun").await;
    (job, seconds)
}

async fn timed(api: &Server, request: RequestBuilder, what: &str) -> Reply {
    let asked = Instant::now();
    let reply = api.send(request).await;
    let took = asked.elapsed();
    eprintln!(
        "FIGURE outage_answer_seconds {:.2} {what}",
        took.as_secs_f64()
    );
    assert!(is_in_time(took, ANSWERED), "{what} took {took:?}: {reply}");
    reply
}

/// A write that needs the ledger.
async fn refused(api: &Server, (method, path, body): (Method, &str, Option<Value>)) {
    let mut request = api.request(method.clone(), path);
    if let Some(body) = &body {
        request = request.json(body);
    }
    let reply = timed(api, request, &format!("{method} {path}")).await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (503, "ledger_unavailable"),
        "{method} {path}: {reply}"
    );
    assert!(reply.headers.contains_key("retry-after"), "{reply}");
}

async fn gone(seconds: &str, since: Instant) {
    eventually("no process of it is left", async || {
        processes_with(seconds).is_empty().then_some(())
    })
    .await;
    let took = since.elapsed();
    eprintln!("FIGURE outage_gone_seconds {:.2}", took.as_secs_f64());
    assert!(is_in_time(took, GONE), "{took:?}");
}

/// What was asked of a job that runs is done, and answered with what is known, or 503.
async fn done(api: &Server, method: Method, path: &str, body: Option<Value>) {
    let mut request = api.request(method.clone(), path);
    if let Some(body) = &body {
        request = request.json(body);
    }
    let reply = timed(api, request, &format!("{method} {path}")).await;
    assert!([200, 202, 204, 207, 503].contains(&reply.status), "{reply}");
    if reply.status == 503 {
        assert_eq!(reply.code(), "ledger_unavailable", "{reply}");
    }
}

async fn every_write_is_answered_in_time(mode: Mode) {
    let all = Apis::start_apart(2, 1, &PATIENT).await;
    let (leader, _) = all.leader().await;
    let (api, node) = (&all.apis[leader], &all.nodes[0]);
    let (paused, sleeps) = lasting(api).await;
    let (stopped, its_sleep) = lasting(api).await;
    let (signaled, another) = lasting(api).await;
    let (changed, _) = lasting(api).await;
    let held = json!({"command": ["true"], "hold": true});
    let [waits, waits_too] = [id(&api.submit(&held).await), id(&api.submit(&held).await)];
    let ways = all.ways.as_ref().unwrap();
    for way in &ways.database {
        way.set(mode);
    }
    let job = || Some(json!({"command": ["true"]}));
    let changed = format!("/jobs/{changed}");
    let (waits, waiting) = (format!("/jobs/{waits}"), format!("/jobs/{waits_too}"));
    let (rerun, bulk) = (format!("{changed}/rerun"), json!({"job_ids": [waits_too]}));
    let schedule = json!({"cron": "30 2 1 1 *", "job": {"command": ["true"]}});
    let writes = [
        (Method::POST, "/jobs", job()),
        (Method::POST, "/jobs", job()),
        (Method::POST, "/jobs?wait=5", job()),
        (
            Method::PATCH,
            &*changed,
            Some(json!({"timeout_seconds": 900})),
        ),
        (Method::PATCH, &*waits, Some(json!({"priority": 5}))),
        (Method::DELETE, &*waiting, None),
        (Method::POST, &*rerun, Some(json!({}))),
        (Method::PUT, "/queues/q", Some(json!({"max_running": 1}))),
        (Method::PUT, "/schedules/s", Some(schedule)),
        (
            Method::POST,
            "/batches",
            Some(json!({"jobs": [{"key": "a", "command": ["true"]}]})),
        ),
        (
            Method::POST,
            "/tokens",
            Some(json!({"name": "t", "scope": "read"})),
        ),
        (Method::POST, "/nodes/n1/drain", None),
    ];
    let writing = futures_util::future::join_all(writes.map(|write| refused(api, write)));
    let stopping = async {
        let (path, asked) = (format!("/jobs/{stopped}?force&wait=1"), Instant::now());
        let stop = done(api, Method::DELETE, &path, None);
        tokio::join!(stop, gone(&its_sleep, asked));
        // As often as it is asked.
        done(api, Method::DELETE, &path, None).await;
    };
    let signalling = async {
        let (path, asked) = (format!("/jobs/{signaled}/signal"), Instant::now());
        let signal = done(api, Method::POST, &path, Some(json!({"signal": "KILL"})));
        tokio::join!(signal, gone(&another, asked));
    };
    // What came of the first request cannot be stored, and the second one goes to the node all the same.
    let pausing = async {
        let path = format!("/jobs/{paused}/pause");
        let ending = async {
            eventually("it is paused", async || {
                (node.job(&paused).await["state"] == "paused").then_some(())
            })
            .await;
            let asked = Instant::now();
            let path = format!("/jobs/{paused}?force");
            tokio::join!(done(api, Method::DELETE, &path, None), gone(&sleeps, asked));
        };
        tokio::join!(done(api, Method::POST, &path, None), ending);
    };
    let stopping_many = done(api, Method::POST, "/jobs/stop", Some(bulk));
    tokio::join!(writing, stopping, signalling, pausing, stopping_many);
    for way in &ways.database {
        way.set(Mode::Open);
    }
    // What was asked of a job that waits may be forgotten, as 503 says: it is asked again.
    let again = all.ask(Method::DELETE, &waiting, None, None).await;
    assert!([200, 202].contains(&again.status), "{again}");
    for (job, state) in [
        (&paused, "canceled"),
        (&stopped, "canceled"),
        (&waits_too, "canceled"),
        (&signaled, "failed"),
    ] {
        assert_eq!(all.finished(job).await["state"], state);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_is_answered_in_time_if_postgresql_cannot_be_reached() {
    every_write_is_answered_in_time(Mode::Cut).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_is_answered_in_time_if_postgresql_says_nothing() {
    every_write_is_answered_in_time(Mode::Frozen).await;
}
