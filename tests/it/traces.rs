//! The caller's trace: kept with the job, and told to its program.

use std::sync::{Arc, Mutex};

use axum::routing::post;
use axum::{Json, Router};
use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::{Server, eventually, id, kill_now, unique};
use crate::webhooks::Receiver;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

/// Creates a job with these headers; it must be accepted.
async fn submit(server: &Server, query: &str, body: &Value, headers: &[(&str, &str)]) -> Value {
    let mut request = server
        .request(Method::POST, &format!("/jobs{query}"))
        .json(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let reply = server.send(request).await;
    assert_eq!(reply.status, 201, "{headers:?}: {reply}");
    reply.json()
}

/// What a job that ran `env` was told of its trace.
async fn told(server: &Server, job: &Value) -> Vec<String> {
    let text = server.text(&id(job)).await;
    let names = ["TRACEPARENT=", "TRACESTATE=", "BAGGAGE="];
    let about = text
        .lines()
        .filter(|line| names.iter().any(|name| line.starts_with(name)));
    let mut about: Vec<String> = about.map(str::to_owned).collect();
    about.sort();
    about
}

#[tokio::test]
async fn a_callers_trace_is_shown_kept_and_told_to_the_program() {
    let mut server = Server::builder().args(["--max-running", "1"]).start().await;
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let headers = [
        ("traceparent", parent.as_str()),
        ("tracestate", "a=1"),
        ("baggage", "user=7"),
    ];
    let env = json!({"command": ["env"]});
    let job = submit(&server, "?wait=30", &env, &headers).await;
    let trace = json!({"trace_id": TRACE, "span_id": SPAN, "sampled": true});
    assert_eq!(job["trace"], trace, "{job:#}");
    let all = [
        "BAGGAGE=user=7".to_owned(),
        format!("TRACEPARENT={parent}"),
        "TRACESTATE=a=1".to_owned(),
    ];
    assert_eq!(told(&server, &job).await, all);

    // One that waits over a restart.
    let first = server.submit(&json!({"command": ["sleep", "5000"]})).await;
    let waits = submit(&server, "", &env, &headers).await;
    assert_eq!(waits["state"], "queued", "{waits:#}");
    server.end(Signal::SIGTERM).unwrap();
    server.restart(Server::builder().args(["--max-running", "1"]));
    assert_eq!(
        server.job(&id(&first)).await["termination"]["cause"],
        "shutdown"
    );
    let waited = server.finished(&id(&waits)).await;
    assert_eq!(waited["trace"], trace, "{waited:#}");
    assert_eq!(told(&server, &waited).await, all);
    let log = server.log();
    let of_trace = log
        .lines()
        .filter(|line| line.contains(TRACE) && line.contains(" started\""));
    assert_eq!(of_trace.count(), 2, "{log}");
}

#[tokio::test]
async fn what_is_no_trace_is_ignored_and_the_environment_of_the_spec_wins() {
    let server = Server::builder()
        .env("TRACEPARENT", &format!("00-{TRACE}-{SPAN}-01"))
        .start()
        .await;
    let env = json!({"command": ["env"]});
    let zero = format!("00-{}-{SPAN}-01", "0".repeat(32));
    for wrong in [
        "",
        "x",
        zero.as_str(),
        &format!("ff-{TRACE}-{SPAN}-01"),
        &"0".repeat(60),
    ] {
        let job = submit(
            &server,
            "?wait=30",
            &env,
            &[("traceparent", wrong), ("tracestate", "a=1")],
        )
        .await;
        assert_eq!(
            (&job["trace"], &job["state"]),
            (&Value::Null, &json!("succeeded")),
            "{wrong}"
        );
        assert_eq!(told(&server, &job).await, Vec::<String>::new(), "{wrong}");
    }
    let parent = format!("00-{TRACE}-{SPAN}-00");
    let own = json!({"command": ["env"], "env": {"TRACEPARENT": "mine"}});
    let job = submit(&server, "?wait=30", &own, &[("traceparent", &parent)]).await;
    assert_eq!(told(&server, &job).await, ["TRACEPARENT=mine"]);
    // A rerun is another request, in another trace.
    let again = server.request(Method::POST, &format!("/jobs/{}/rerun?wait=30", id(&job)));
    let again = server.send(again).await;
    assert_eq!(again.json()["trace"], Value::Null, "{again}");
}

/// A collector of spans, as far as OTLP over HTTP in JSON goes.
struct Collector {
    url: String,
    bodies: Arc<Mutex<Vec<Value>>>,
    _serving: JoinSet<()>,
}

impl Collector {
    async fn start() -> Self {
        let bodies: Arc<Mutex<Vec<Value>>> = Arc::default();
        let kept = bodies.clone();
        let take = post(move |Json(body): Json<Value>| async move {
            kept.lock().unwrap().push(body);
            Json(json!({}))
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().route("/v1/traces", take);
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            url,
            bodies,
            _serving: serving,
        }
    }

    fn spans(&self) -> Vec<Value> {
        let bodies = self.bodies.lock().unwrap();
        let spans = bodies.iter().flat_map(|body| {
            let resource = &body["resourceSpans"][0];
            assert_eq!(
                attribute(&resource["resource"], "service.name"),
                "procession",
                "{body}"
            );
            resource["scopeSpans"][0]["spans"]
                .as_array()
                .unwrap()
                .clone()
        });
        spans.collect()
    }

    /// The span of this name that says it is of this job.
    async fn span(&self, name: &str, job: &str) -> Value {
        eventually(&format!("{name} of {job}"), async || {
            let is_it =
                |span: &Value| span["name"] == name && attribute(span, "procession.job.id") == job;
            self.spans().into_iter().find(is_it)
        })
        .await
    }
}

fn attribute(of: &Value, key: &str) -> String {
    let found = of["attributes"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|it| it["key"] == key);
    found.map_or_else(String::new, |it| {
        it["value"]["stringValue"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    })
}

/// A moment of the API as a span has it.
fn nanos(moment: &Value) -> String {
    let moment: jiff::Timestamp = moment.as_str().unwrap().parse().unwrap();
    moment.as_nanosecond().to_string()
}

#[tokio::test]
async fn a_collector_gets_one_trace_from_the_request_to_the_program() {
    let collector = Collector::start().await;
    let server = Server::builder()
        .args(["--otlp-endpoint", &collector.url])
        .start()
        .await;
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let marker = unique();
    let body = json!({
        "script": format!("echo {marker} $TRACEPARENT; exit 3"),
        "env": {"MARKER": marker},
        "labels": {"marker": marker},
    });
    let job = submit(&server, "?wait=30", &body, &[("traceparent", &parent)]).await;
    let whole = collector.span("procession.job", &id(&job)).await;
    let attempt = collector.span("procession.attempt", &id(&job)).await;
    let spans = eventually("all four spans", async || {
        let spans = collector.spans();
        (spans.len() >= 4).then_some(spans)
    })
    .await;
    let of = |name: &str| spans.iter().find(|span| span["name"] == name).unwrap();
    let (request, queue) = (of("POST /jobs"), of("procession.queue"));
    for span in [request, &whole, queue, &attempt] {
        assert_eq!(span["traceId"], TRACE, "{span:#}");
    }
    assert_eq!(request["parentSpanId"], SPAN, "{request:#}");
    assert_eq!(whole["parentSpanId"], request["spanId"], "{whole:#}");
    assert_eq!(queue["parentSpanId"], whole["spanId"], "{queue:#}");
    assert_eq!(attempt["parentSpanId"], whole["spanId"], "{attempt:#}");
    for (span, key, moment) in [
        (&whole, "startTimeUnixNano", "created_at"),
        (&whole, "endTimeUnixNano", "finished_at"),
        (queue, "endTimeUnixNano", "started_at"),
        (&attempt, "startTimeUnixNano", "started_at"),
    ] {
        assert_eq!(span[key], nanos(&job[moment]), "{key} {moment}");
    }
    assert_eq!(whole["status"]["code"], 2, "{whole:#}");
    let child = format!(
        "{marker} 00-{TRACE}-{}-01\n",
        attempt["spanId"].as_str().unwrap()
    );
    assert_eq!(
        server.text(&id(&job)).await,
        child,
        "the attempt is the program's parent"
    );
    assert!(
        !json!(collector.spans()).to_string().contains(&marker),
        "{spans:#?}"
    );

    // Without a caller's trace the job has one of its own.
    let own = server.run_script("echo $TRACEPARENT").await;
    let attempt = collector.span("procession.attempt", &id(&own)).await;
    let said = server.text(&id(&own)).await;
    let own = format!(
        "00-{}-{}-01\n",
        attempt["traceId"].as_str().unwrap(),
        attempt["spanId"].as_str().unwrap()
    );
    assert_eq!(said, own);
    // And one whose caller does not record is not exported, but passed on as it came.
    let unsampled = format!("00-{TRACE}-{SPAN}-00");
    let job = submit(
        &server,
        "?wait=30",
        &json!({"command": ["env"]}),
        &[("traceparent", &unsampled)],
    )
    .await;
    assert_eq!(
        told(&server, &job).await,
        [format!("TRACEPARENT={unsampled}")]
    );
}

#[tokio::test]
async fn each_attempt_has_its_own_wait_and_run_in_one_trace() {
    let collector = Collector::start().await;
    let server = Server::builder()
        .args(["--otlp-endpoint", &collector.url, "--otlp-label", "team"])
        .start()
        .await;
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let body = json!({
        "script": "echo $TRACEPARENT; exit 75",
        "labels": {"team": "data", "other": "hidden-label"},
        "retry": {"max_attempts": 2, "backoff": {"initial_seconds": 0}},
    });
    let job = submit(&server, "?wait=30", &body, &[("traceparent", &parent)]).await;
    assert_eq!(
        (&job["state"], &job["attempt"]),
        (&json!("failed"), &json!(2)),
        "{job:#}"
    );
    collector.span("procession.job", &id(&job)).await;
    let spans = eventually("all six spans", async || {
        let spans = collector.spans();
        (spans.len() >= 6).then_some(spans)
    })
    .await;
    let all = |name: &str| -> Vec<&Value> {
        let mut of: Vec<&Value> = spans.iter().filter(|span| span["name"] == name).collect();
        of.sort_by_key(|span| span["startTimeUnixNano"].as_str().unwrap().to_owned());
        of
    };
    let (requests, jobs) = (all("POST /jobs"), all("procession.job"));
    let (queues, attempts) = (all("procession.queue"), all("procession.attempt"));
    let counts = [requests.len(), jobs.len(), queues.len(), attempts.len()];
    assert_eq!(counts, [1, 1, 2, 2], "{spans:#?}");
    assert_eq!(jobs[0]["parentSpanId"], requests[0]["spanId"]);
    let kept = job["attempts"].as_array().unwrap();
    for (number, (queue, attempt)) in queues.iter().zip(&attempts).enumerate() {
        for span in [queue, attempt] {
            assert_eq!(span["traceId"], TRACE, "{span:#}");
            assert_eq!(span["parentSpanId"], jobs[0]["spanId"], "{span:#}");
            assert_eq!(
                attribute(span, "procession.job.label.team"),
                "data",
                "{span:#}"
            );
        }
        let waited_from = match number {
            0 => &job["created_at"],
            _ => &kept[number - 1]["finished_at"],
        };
        assert_eq!(queue["startTimeUnixNano"], nanos(waited_from));
        assert_eq!(queue["endTimeUnixNano"], nanos(&kept[number]["started_at"]));
        assert_eq!(
            attempt["startTimeUnixNano"],
            nanos(&kept[number]["started_at"])
        );
        assert_eq!(
            attempt["endTimeUnixNano"],
            nanos(&kept[number]["finished_at"])
        );
    }
    // Each attempt's program was told of its own span.
    let told = server.text(&id(&job)).await;
    let own: Vec<String> = attempts
        .iter()
        .map(|span| format!("00-{TRACE}-{}-01", span["spanId"].as_str().unwrap()))
        .collect();
    assert_eq!(told.lines().collect::<Vec<_>>(), own);
    assert!(
        !json!(spans).to_string().contains("hidden-label"),
        "{spans:#?}"
    );
}

/// Killed where the attempt has ended and the end of the job is not stored.
#[tokio::test]
async fn a_server_killed_between_attempt_and_end_leaves_one_span_to_the_next() {
    let collector = Collector::start().await;
    let points = tempfile::tempdir().unwrap();
    let server = Server::builder()
        .args(["--otlp-endpoint", &collector.url])
        .env("PROCESSION_FAILPOINTS", points.path().to_str().unwrap())
        .start()
        .await;
    let killed = server.server_process();
    std::fs::write(points.path().join("end.storing"), "").unwrap();
    let client = server.persistent();
    let body = json!({"script": "true"});
    let job = client
        .ask(Method::POST, "/jobs", Some(&body), Some("once"))
        .await
        .json();
    client.finished(&id(&job)).await;
    assert_ne!(server.server_process(), killed);
    collector.span("procession.job", &id(&job)).await;
    let barrier = id(&server.run_script("true").await);
    collector.span("procession.job", &barrier).await;
    for name in ["procession.job", "procession.queue", "procession.attempt"] {
        let of = |span: &&Value| {
            span["name"] == name && attribute(span, "procession.job.id") == id(&job)
        };
        assert_eq!(collector.spans().iter().filter(of).count(), 1, "{name}");
    }
}

#[tokio::test]
async fn the_audit_log_and_webhooks_name_the_trace() {
    let receiver = Receiver::start(&[]).await;
    let server = Server::builder()
        .args(["--webhook-allow-private"])
        .start()
        .await;
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let body = json!({
        "script": "true", "webhooks": [{"url": receiver.url(), "events": ["job.finished"]}],
    });
    submit(&server, "?wait=30", &body, &[("traceparent", &parent)]).await;
    let received = receiver.received(1).await.remove(0);
    assert_eq!(received.header("traceparent"), parent);
    assert_eq!(received.event()["traceparent"], parent.as_str());
    // One without a trace names none.
    submit(&server, "?wait=30", &body, &[]).await;
    let received = receiver.received(2).await.remove(1);
    assert!(!received.has("traceparent"));
    assert_eq!(received.event()["traceparent"], Value::Null);
    let audit = std::fs::read_to_string(server.state_dir().join("audit.jsonl")).unwrap();
    let lines: Vec<Value> = audit
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let traces: Vec<&Value> = lines.iter().map(|line| &line["trace_id"]).collect();
    assert_eq!(traces, [&json!(TRACE), &Value::Null], "{audit}");
}

// The collector answers while this thread waits for the end of the service.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_makes_an_end_durable_exports_it_once() {
    let collector = Collector::start().await;
    let with =
        || Server::builder().args(["--otlp-endpoint", &collector.url, "--on-shutdown", "leave"]);
    let mut server = with().start().await;
    let gate = server.scratch();
    let body = json!({"script": "mkfifo gate; echo ready; read _ < gate", "cwd": gate});
    let job = id(&server.submit(&body).await);
    server.says(&job, "ready").await;
    kill_now(server.server_process().unwrap());
    std::fs::write(gate.join("gate"), "\n").unwrap();
    eventually("the next server", async || {
        let ready = server.try_send(server.request(Method::GET, "/readyz"));
        ready.await.ok().filter(|ready| ready.status == 200)
    })
    .await;
    server.finished(&job).await;
    collector.span("procession.job", &job).await;
    // The end of the service brings what waits, and the next start brings nothing again.
    let last = id(&server.run_script("true").await);
    assert!(server.end(Signal::SIGTERM).unwrap().success());
    collector.span("procession.job", &last).await;
    server.restart(with());
    let barrier = id(&server.run_script("true").await);
    collector.span("procession.job", &barrier).await;
    for id in [&job, &last] {
        let of = |span: &&Value| {
            span["name"] == "procession.job" && attribute(span, "procession.job.id") == **id
        };
        assert_eq!(collector.spans().iter().filter(of).count(), 1, "{id}");
    }
}

#[tokio::test]
async fn a_collector_that_hangs_costs_spans_and_nothing_else() {
    // Takes connections and never answers.
    let hangs = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", hangs.local_addr().unwrap());
    let mut server = Server::builder()
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &url)
        .env("OTEL_EXPORTER_OTLP_TIMEOUT", "100")
        .start()
        .await;
    for _ in 0..5 {
        let job = server.run(&json!({"command": ["env"]})).await;
        assert_eq!(job["state"], "succeeded", "{job:#}");
        assert!(!server.text(&id(&job)).await.contains("OTEL_"), "{job:#}");
    }
    eventually("the dropped spans are counted", async || {
        let metrics = server.get("/metrics").await;
        let metrics = String::from_utf8(metrics.body).unwrap();
        let dropped = metrics
            .lines()
            .find_map(|line| line.strip_prefix(r#"procession_spans_total{result="dropped"} "#));
        dropped
            .filter(|count| count.parse::<f64>().unwrap() > 0.0)
            .map(drop)
    })
    .await;
    assert!(server.end(Signal::SIGTERM).unwrap().success());
}
