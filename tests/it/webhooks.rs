//! Deliveries to real receivers: signed, at least once whoever is killed, and to nobody who is near.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{OriginalUri, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;
use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::harness::{LONG, Server, eventually, id, kill_now};

const KEY: &[u8] = b"a key of thirty-two random bytes";

/// How long a receiver may take to answer.
const ATTEMPT: Duration = Duration::from_secs(15);

fn secret() -> String {
    format!("whsec_{}", STANDARD.encode(KEY))
}

/// What a receiver does with a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Deed {
    Answer(u16),
    /// To another path of the same receiver.
    Redirect,
    Hang,
}

#[derive(Clone, Debug)]
pub(crate) struct Received {
    at: Instant,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.headers.contains_key(name)
    }

    pub(crate) fn event(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

#[derive(Debug)]
struct Shared {
    deeds: Mutex<VecDeque<Deed>>,
    received: watch::Sender<Vec<Received>>,
}

/// A receiver on a socket of its own.
pub(crate) struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    _serving: JoinSet<()>,
}

impl Receiver {
    /// Does these things in turn, and takes everything afterwards.
    pub(crate) async fn start(deeds: &[Deed]) -> Self {
        let shared = Arc::new(Shared {
            deeds: Mutex::new(deeds.iter().copied().collect()),
            received: watch::Sender::new(Vec::new()),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(receive).with_state(shared.clone());
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            address,
            shared,
            _serving: serving,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// What has come, once so much has.
    pub(crate) async fn received(&self, count: usize) -> Vec<Received> {
        let mut received = self.shared.received.subscribe();
        let enough = received.wait_for(|received| received.len() >= count);
        tokio::time::timeout(LONG, enough)
            .await
            .unwrap()
            .unwrap()
            .clone()
    }
}

async fn receive(
    State(shared): State<Arc<Shared>>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let deed = shared.deeds.lock().unwrap().pop_front();
    shared.received.send_modify(|received| {
        received.push(Received {
            at: Instant::now(),
            path: uri.path().to_owned(),
            headers,
            body,
        });
    });
    match deed.unwrap_or(Deed::Answer(204)) {
        Deed::Answer(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Deed::Redirect => (StatusCode::FOUND, [("location", "/elsewhere")]).into_response(),
        Deed::Hang => std::future::pending().await,
    }
}

/// HMAC-SHA256 as RFC 2104 has it, written here so that the one of the program is not its own judge.
fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut block = [0_u8; 64];
    block[..key.len()].copy_from_slice(key);
    let inner = Sha256::new()
        .chain_update(block.map(|byte| byte ^ 0x36))
        .chain_update(message)
        .finalize();
    let outer = Sha256::new()
        .chain_update(block.map(|byte| byte ^ 0x5c))
        .chain_update(inner);
    outer.finalize().to_vec()
}

#[track_caller]
fn assert_signed(received: &Received) {
    let (id, time) = (
        received.header("webhook-id"),
        received.header("webhook-timestamp"),
    );
    let mut message = format!("{id}.{time}.").into_bytes();
    message.extend_from_slice(&received.body);
    let expected = format!("v1,{}", STANDARD.encode(hmac(KEY, &message)));
    assert_eq!(received.header("webhook-signature"), expected);
    let sent: u64 = time.parse().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    assert!(now.unwrap().as_secs().abs_diff(sent) < 120);
}

/// A service whose webhooks may reach this machine.
async fn start() -> Server {
    Server::builder()
        .args(["--webhook-allow-private"])
        .start()
        .await
}

async fn events(server: &Server, job: &str) -> Vec<Value> {
    let path = format!("/jobs/{job}/events");
    let request = server.request(Method::GET, &path);
    let reply = server
        .send(request.header("accept", "application/x-ndjson"))
        .await;
    let text = String::from_utf8(reply.body).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The events that tell of deliveries, once there are so many.
async fn deliveries(server: &Server, job: &str, count: usize) -> Vec<Value> {
    eventually("the deliveries are told", async || {
        let mut told = events(server, job).await;
        told.retain(|event| event["type"].as_str().unwrap().starts_with("job.webhook_"));
        (told.len() >= count).then_some(told)
    })
    .await
}

#[tokio::test]
async fn deliveries_are_signed_events_and_the_secret_is_never_shown() {
    let server = start().await;
    let (some, all) = (Receiver::start(&[]).await, Receiver::start(&[]).await);
    let body = json!({
        "script": "exit 3", "name": "hooked", "labels": {"team": "data"},
        "webhooks": [
            {"url": some.url(), "events": ["job.finished"], "secret": secret()},
            {"url": all.url()},
        ],
    });
    let job = server.run(&body).await;
    let own = id(&job);
    let of_some = some.received(1).await.remove(0);
    assert_signed(&of_some);
    assert_eq!(
        of_some.header("content-type"),
        "application/cloudevents+json"
    );
    let of_all = all.received(3).await;
    let told = deliveries(&server, &own, 4).await;
    let life: Vec<Value> = events(&server, &own)
        .await
        .into_iter()
        .filter(|event| !event["type"].as_str().unwrap().contains("webhook"))
        .collect();
    assert_eq!(of_some.event(), life[2]);
    let mut sent: Vec<Value> = of_all.iter().map(Received::event).collect();
    sent.sort_by_key(|event| event["id"].as_str().unwrap().parse::<u64>().unwrap());
    assert_eq!(sent, life);
    for received in &of_all {
        assert!(!received.headers.contains_key("webhook-signature"));
        assert_ne!(received.header("webhook-id"), of_some.header("webhook-id"));
    }
    for event in &told {
        assert_eq!(event["type"], "job.webhook_delivered");
        assert_eq!(
            (&event["data"]["status"], &event["data"]["attempts"]),
            (&json!(204), &json!(1))
        );
    }
    assert_eq!(
        some.received(1).await.len() + all.received(3).await.len(),
        4
    );
    let shown = &job["spec"]["webhooks"];
    assert_eq!(shown[0]["secret"], Value::Null);
    assert!(shown[0].as_object().unwrap().contains_key("secret"));
    assert!(!shown[1].as_object().unwrap().contains_key("secret"));
    let text = server.get(&format!("/jobs/{own}")).await.to_string();
    assert!(!text.contains("whsec_") && !server.log().contains("whsec_"));
    // A rerun needs the secret again, and nothing where there was none.
    let rerun = async |job: &str, patch: Value| {
        let path = format!("/jobs/{job}/rerun");
        let request = server.request(Method::POST, &path);
        let request = request.header("content-type", "application/merge-patch+json");
        server.send(request.body(patch.to_string())).await
    };
    let again = rerun(&own, json!({})).await;
    assert_eq!(again.status, 422, "{again}");
    assert_eq!(again.json()["errors"][0]["pointer"], "/webhooks/0/secret");
    let again = rerun(&own, json!({"webhooks": [{"url": all.url()}]})).await;
    assert_eq!(again.status, 201, "{again}");
    let again = rerun(&id(&again.json()), json!({})).await;
    assert_eq!(again.status, 201, "{again}");
    let received = all.received(9).await;
    assert!(
        received[3..]
            .iter()
            .all(|it| it.event()["subject"] != own.as_str())
    );
}

#[tokio::test]
async fn what_is_not_taken_comes_again_and_redirects_are_not_followed() {
    let server = start().await;
    let receiver = Receiver::start(&[Deed::Answer(500), Deed::Redirect]).await;
    let webhook = json!({"url": receiver.url(), "events": ["job.finished"], "secret": secret()});
    let job = server
        .run(&json!({"script": "true", "webhooks": [webhook]}))
        .await;
    let received = receiver.received(3).await;
    for one in &received {
        assert_signed(one);
        assert_eq!(one.path, "/hook");
        assert_eq!(one.body, received[0].body);
        assert_eq!(one.header("webhook-id"), received[0].header("webhook-id"));
    }
    let told = deliveries(&server, &id(&job), 1).await;
    assert_eq!(told[0]["type"], "job.webhook_delivered");
    assert_eq!(told[0]["data"]["attempts"], 3);
    assert_eq!(receiver.received(3).await.len(), 3);
}

#[tokio::test]
async fn a_receiver_that_is_gone_for_good_is_not_asked_again() {
    let server = start().await;
    let receiver = Receiver::start(&[Deed::Answer(410)]).await;
    let webhook = json!({"url": receiver.url(), "events": ["job.created"]});
    let job = server
        .run(&json!({"script": "true", "webhooks": [webhook]}))
        .await;
    let told = deliveries(&server, &id(&job), 1).await;
    assert_eq!(told[0]["type"], "job.webhook_failed");
    assert_eq!(told[0]["data"]["error"], "answered 410");
    assert_eq!(told[0]["data"]["webhook"], 0);
    assert_eq!(receiver.received(1).await.len(), 1);
}

#[tokio::test]
async fn a_delivery_survives_kills_of_the_server_and_the_end_of_the_service() {
    let mut server = start().await;
    let receiver = Receiver::start(&[Deed::Hang, Deed::Hang]).await;
    let webhook = json!({"url": receiver.url(), "events": ["job.finished"], "secret": secret()});
    let job = server
        .run(&json!({"script": "exit 7", "webhooks": [webhook]}))
        .await;
    receiver.received(1).await;
    kill_now(server.server_process().unwrap());
    // The next server begins anew, with the secret, and is stopped in the middle of it.
    receiver.received(2).await;
    assert!(server.end(Signal::SIGTERM).unwrap().success());
    server
        .start_again(Server::builder().args(["--webhook-allow-private"]))
        .await;
    let received = receiver.received(3).await;
    for one in &received {
        assert_signed(one);
        assert_eq!(one.event()["data"]["exit"]["code"], 7);
        assert_eq!(one.header("webhook-id"), received[0].header("webhook-id"));
    }
    let told = deliveries(&server, &id(&job), 1).await;
    assert_eq!(told[0]["type"], "job.webhook_delivered");
    assert_eq!(receiver.received(3).await.len(), 3);
}

#[tokio::test]
async fn many_jobs_deliver_to_one_receiver_and_nothing_is_left_out() {
    let server = start().await;
    let receiver = Receiver::start(&[]).await;
    let webhook = json!({"url": receiver.url(), "secret": secret()});
    for _ in 0..20 {
        server
            .submit(&json!({"command": ["/bin/true"], "webhooks": [webhook]}))
            .await;
    }
    let received = receiver.received(60).await;
    let mut ids: Vec<&str> = received.iter().map(|it| it.header("webhook-id")).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((received.len(), ids.len()), (60, 60));
    received.iter().for_each(assert_signed);
}

#[tokio::test]
async fn nothing_near_is_reached_by_address_or_by_name() {
    let server = Server::start().await;
    let receiver = Receiver::start(&[]).await;
    for url in [
        receiver.url(),
        "http://2130706433/".to_owned(),
        "http://[::1]/".to_owned(),
        "http://[::ffff:127.0.0.1]/".to_owned(),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
    ] {
        let body = json!({"script": "true", "webhooks": [{"url": url}]});
        let reply = server.post("/jobs", &body).await;
        assert_eq!(reply.status, 422, "{url}: {reply}");
        assert_eq!(reply.json()["errors"][0]["pointer"], "/webhooks/0/url");
    }
    let url = format!("http://localhost:{}/hook", receiver.address.port());
    let body = json!({"script": "true", "webhooks": [{"url": url, "events": ["job.finished"]}]});
    server.run(&body).await;
    eventually("the delivery is refused", async || {
        let log = server.log();
        log.contains("the address is private, loopback or link-local")
            .then_some(())
    })
    .await;
    assert!(receiver.shared.received.borrow().is_empty());
}

#[tokio::test]
async fn wrong_webhooks_are_told_with_their_places() {
    let server = Server::start().await;
    let fine = "https://example.org/hook";
    let short = format!("whsec_{}", STANDARD.encode([1_u8; 23]));
    for (webhooks, pointer, code) in [
        (json!({}), "/webhooks", "wrong_type"),
        (json!([{}]), "/webhooks/0/url", "missing"),
        (
            json!([{"url": "ftp://example.org/"}]),
            "/webhooks/0/url",
            "invalid_value",
        ),
        (
            json!([{"url": "example.org"}]),
            "/webhooks/0/url",
            "invalid_value",
        ),
        (
            json!([{"url": "https://u:p@example.org/"}]),
            "/webhooks/0/url",
            "invalid_value",
        ),
        (
            json!([{"url": format!("{fine}{}", "x".repeat(2048))}]),
            "/webhooks/0/url",
            "too_long",
        ),
        (
            json!([{"url": fine, "events": ["finished"]}]),
            "/webhooks/0/events/0",
            "invalid_value",
        ),
        (
            json!([{"url": fine, "events": []}]),
            "/webhooks/0/events",
            "invalid_value",
        ),
        (
            json!([{"url": fine, "events": ["job.webhook_failed"]}]),
            "/webhooks/0/events/0",
            "invalid_value",
        ),
        (
            json!([{"url": fine, "secret": "hunter2"}]),
            "/webhooks/0/secret",
            "invalid_value",
        ),
        (
            json!([{"url": fine, "secret": short}]),
            "/webhooks/0/secret",
            "invalid_value",
        ),
        (
            json!([{"url": fine, "method": "PUT"}]),
            "/webhooks/0/method",
            "unknown_field",
        ),
        (
            json!(vec![json!({"url": fine}); 9]),
            "/webhooks",
            "too_many",
        ),
    ] {
        let body = json!({"script": "true", "webhooks": webhooks});
        let reply = server.post("/jobs", &body).await;
        assert_eq!(reply.status, 422, "{body}: {reply}");
        let error = &reply.json()["errors"][0];
        assert_eq!(
            (&error["pointer"], &error["code"]),
            (&json!(pointer), &json!(code)),
            "{body}"
        );
        assert!(!reply.to_string().contains("hunter2"));
    }
    let body = json!({"script": "true", "webhooks": vec![json!({"url": fine}); 8]});
    let reply = server.post("/jobs/validate", &body).await;
    assert_eq!(reply.status, 200, "{reply}");
}

#[tokio::test]
async fn a_dead_receiver_holds_up_nobody_else() {
    let server = start().await;
    let dead = Receiver::start(&[Deed::Hang; 40]).await;
    let healthy = Receiver::start(&[]).await;
    let body = |receiver: &Receiver| {
        json!({
            "command": ["true"],
            "webhooks": [{"url": receiver.url(), "events": ["job.finished"]}],
        })
    };
    let begun = Instant::now();
    let to_dead = body(&dead);
    join_all((0..40).map(|_| server.run(&to_dead))).await;
    dead.received(8).await;
    let job = server.run(&body(&healthy)).await;
    // An attempt that is not answered takes longer.
    let came = tokio::time::timeout(Duration::from_secs(8), healthy.received(1)).await;
    assert_eq!(
        came.expect("it waits for the dead one")[0].event()["subject"],
        job["id"]
    );
    // Until the first of them is given up.
    let received = dead.received(8).await;
    let together = received.iter().filter(|it| it.at < begun + ATTEMPT);
    assert!(together.count() <= 8, "there is a bound for each");
}
