//! The caller's trace: kept with the job, and told to its program.

use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Server, id};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

/// Creates a job with these headers; it must be accepted.
async fn submit(server: &Server, query: &str, body: &Value, headers: &[(&str, &str)]) -> Value {
    let mut request = server.request(Method::POST, &format!("/jobs{query}")).json(body);
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
    let about = text.lines().filter(|line| names.iter().any(|name| line.starts_with(name)));
    let mut about: Vec<String> = about.map(str::to_owned).collect();
    about.sort();
    about
}

#[tokio::test]
async fn a_callers_trace_is_shown_kept_and_told_to_the_program() {
    let mut server = Server::builder().args(["--max-running", "1"]).start().await;
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let headers = [("traceparent", parent.as_str()), ("tracestate", "a=1"), ("baggage", "user=7")];
    let env = json!({"command": ["env"]});
    let job = submit(&server, "?wait=30", &env, &headers).await;
    let trace = json!({"trace_id": TRACE, "span_id": SPAN, "sampled": true});
    assert_eq!(job["trace"], trace, "{job:#}");
    let all = ["BAGGAGE=user=7".to_owned(), format!("TRACEPARENT={parent}"), "TRACESTATE=a=1".to_owned()];
    assert_eq!(told(&server, &job).await, all);

    // One that waits over a restart.
    let first = server.submit(&json!({"command": ["sleep", "5000"]})).await;
    let waits = submit(&server, "", &env, &headers).await;
    assert_eq!(waits["state"], "queued", "{waits:#}");
    server.end(Signal::SIGTERM).unwrap();
    server.restart(Server::builder().args(["--max-running", "1"]));
    assert_eq!(server.job(&id(&first)).await["termination"]["cause"], "shutdown");
    let waited = server.finished(&id(&waits)).await;
    assert_eq!(waited["trace"], trace, "{waited:#}");
    assert_eq!(told(&server, &waited).await, all);
    let log = server.log();
    let of_trace = log.lines().filter(|line| line.contains(TRACE) && line.contains(" started\""));
    assert_eq!(of_trace.count(), 2, "{log}");
}

#[tokio::test]
async fn what_is_no_trace_is_ignored_and_the_environment_of_the_spec_wins() {
    let server = Server::builder().env("TRACEPARENT", &format!("00-{TRACE}-{SPAN}-01")).start().await;
    let env = json!({"command": ["env"]});
    let zero = format!("00-{}-{SPAN}-01", "0".repeat(32));
    for wrong in ["", "x", zero.as_str(), &format!("ff-{TRACE}-{SPAN}-01"), &"0".repeat(60)] {
        let job = submit(&server, "?wait=30", &env, &[("traceparent", wrong), ("tracestate", "a=1")]).await;
        assert_eq!((&job["trace"], &job["state"]), (&Value::Null, &json!("succeeded")), "{wrong}");
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
