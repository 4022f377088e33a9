//! A client that hangs up before it is answered: what has begun comes to its end all the same.

use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::control::patch;
use crate::harness::{Server, eventually, id};

/// Places in the service where a test holds it up: files of a folder.
#[derive(Clone, Copy)]
pub(crate) struct Places<'a>(pub(crate) &'a Path);

/// Where a change is about to be made durable.
const COMMIT: &str = "store.committing";

impl Places<'_> {
    async fn server(self) -> Server {
        let folder = self.0.to_str().unwrap();
        let server = Server::builder().env("PROCESSION_FAILPOINTS", folder);
        server.start().await
    }

    /// Whoever comes by this place next waits there.
    pub(crate) fn hold_up(self, place: &str) {
        std::fs::write(self.0.join(place), "wait").unwrap();
    }

    pub(crate) async fn reached(self, place: &str) {
        eventually(&format!("the service is at {place}"), async || {
            (!self.0.join(place).exists()).then_some(())
        })
        .await;
    }

    /// Whoever waits there goes on.
    pub(crate) fn let_go(self, place: &str) {
        std::fs::write(self.0.join(place), "").unwrap();
    }

    /// Sends a request with this token, and hangs up while the service is at this place. It stays there, and knows.
    async fn hang_up_with(
        self,
        (server, token): (&Server, &str),
        place: &str,
        (method, path): (Method, &str),
        body: &Value,
    ) {
        self.hold_up(place);
        let before = unanswered(server);
        let kind = match method {
            Method::PATCH => "application/merge-patch+json",
            _ => "application/json",
        };
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        self.reached(place).await;
        drop(stream);
        eventually("the service knows that the client is gone", async || {
            (unanswered(server) > before).then_some(())
        })
        .await;
    }

    /// The same with the token of the service.
    pub(crate) async fn hang_up(
        self,
        server: &Server,
        place: &str,
        request: (Method, &str),
        body: &Value,
    ) {
        let by = (server, server.token());
        self.hang_up_with(by, place, request, body).await;
    }

    /// The same at the commit of what the request changes, which is made then.
    async fn hang_up_at_commit(self, server: &Server, request: (Method, &str), body: &Value) {
        self.hang_up(server, COMMIT, request, body).await;
        self.let_go(COMMIT);
    }
}

/// How many requests were not answered, by the audit log.
fn unanswered(server: &Server) -> usize {
    let audit = std::fs::read_to_string(server.state_dir().join("audit.jsonl"));
    let audit = audit.unwrap_or_default();
    audit.matches(r#""decision":"unanswered""#).count()
}

fn hourly() -> Value {
    json!({"every_seconds": 3600, "job": {"command": ["true"]}})
}

impl Server {
    /// Waits until this is there, or is not.
    async fn is_there(&self, path: &str, there: bool) -> Value {
        let status = if there { 200 } else { 404 };
        eventually(&format!("{path} is {status}"), async || {
            let reply = self.get(path).await;
            (reply.status == status).then(|| reply.json())
        })
        .await
    }
}

#[tokio::test]
async fn a_new_schedule_is_there_for_everybody() {
    let folder = tempfile::tempdir().unwrap();
    let places = Places(folder.path());
    let server = places.server().await;
    let request = (Method::PUT, "/schedules/s");
    places.hang_up_at_commit(&server, request, &hourly()).await;
    let schedule = server.is_there("/schedules/s", true).await;
    assert_eq!(schedule["version"], 1, "{schedule:#}");
    let put = server.put_schedule("s", &hourly()).await;
    assert_eq!(put.status, 200, "{put}");
    let removal = server.request(Method::DELETE, "/schedules/s");
    assert_eq!(server.send(removal).await.status, 204);
}

#[tokio::test]
async fn a_schedule_that_is_changed_is_due_as_it_was_changed() {
    let folder = tempfile::tempdir().unwrap();
    let places = Places(folder.path());
    let server = places.server().await;
    let put = server.put_schedule("s", &hourly()).await;
    assert_eq!(put.status, 201, "{put}");
    let patch = json!({"every_seconds": 1});
    let request = (Method::PATCH, "/schedules/s");
    places.hang_up_at_commit(&server, request, &patch).await;
    eventually("it has made two jobs", async || {
        let schedule = server.get("/schedules/s").await.json();
        (schedule["runs"].as_u64() >= Some(2)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_schedule_that_is_removed_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let places = Places(folder.path());
    let server = places.server().await;
    let put = server.put_schedule("s", &hourly()).await;
    assert_eq!(put.status, 201, "{put}");
    let request = (Method::DELETE, "/schedules/s");
    places
        .hang_up_at_commit(&server, request, &Value::Null)
        .await;
    server.is_there("/schedules/s", false).await;
    let put = server.put_schedule("s", &hourly()).await;
    assert_eq!(put.status, 201, "{put}");
}

#[tokio::test]
async fn what_is_set_of_a_queue_is_in_force() {
    let folder = tempfile::tempdir().unwrap();
    let places = Places(folder.path());
    let server = places.server().await;
    let request = (Method::PUT, "/queues/q");
    let paused = json!({"paused": true});
    places.hang_up_at_commit(&server, request, &paused).await;
    let queue = server.is_there("/queues/q", true).await;
    assert_eq!(queue["paused"], true, "{queue:#}");
    let body = json!({"command": ["true"], "queue": "q"});
    let job = id(&server.submit(&body).await);
    assert_eq!(server.job(&job).await["state"], "queued");
    let request = (Method::PATCH, "/queues/q");
    let goes_on = json!({"paused": false});
    places.hang_up_at_commit(&server, request, &goes_on).await;
    assert_eq!(server.finished(&job).await["state"], "succeeded");
    let request = (Method::DELETE, "/queues/q");
    places
        .hang_up_at_commit(&server, request, &Value::Null)
        .await;
    server.is_there("/queues/q", false).await;
}

#[tokio::test]
async fn a_batch_that_is_stopped_ends() {
    let folder = tempfile::tempdir().unwrap();
    let places = Places(folder.path());
    let server = places.server().await;
    let body = json!({"jobs": [{"key": "a", "command": ["true"], "hold": true}]});
    let batch = server.post("/batches", &body).await.json();
    let path = format!("/batches/{}", id(&batch));
    let request = (Method::DELETE, path.as_str());
    places
        .hang_up_at_commit(&server, request, &Value::Null)
        .await;
    let batch = server.get(&format!("{path}?wait=30")).await.json();
    assert_eq!(batch["state"], "canceled", "{batch:#}");
}

#[tokio::test]
async fn a_batch_that_is_purged_is_gone_with_its_jobs() {
    let folder = tempfile::tempdir().unwrap();
    let places = Places(folder.path());
    let server = places.server().await;
    let body = json!({"jobs": [{"key": "a", "command": ["true"]}]});
    let batch = server.post("/batches", &body).await.json();
    let path = format!("/batches/{}", id(&batch));
    server.get(&format!("{path}?wait=30")).await;
    let removal = format!("{path}?purge");
    let request = (Method::DELETE, removal.as_str());
    let place = "purge.removed";
    places.hang_up(&server, place, request, &Value::Null).await;
    places.let_go(place);
    server.is_there(&path, false).await;
    let job = batch["jobs"]["a"].as_str().unwrap();
    server.is_there(&format!("/jobs/{job}"), false).await;
}

#[tokio::test]
async fn a_change_of_a_job_that_has_ended_is_not_lost_to_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let places = Places(folder.path());
    let server = places.server().await;
    let job = id(&server.run(&json!({"command": ["true"]})).await);
    let path = format!("/jobs/{job}");
    let (first, second) = (json!({"labels": {"a": "b"}}), json!({"name": "n"}));
    let request = (Method::PATCH, path.as_str());
    places.hang_up(&server, COMMIT, request, &first).await;
    let let_go = async {
        // Meanwhile the second has come as far as it can.
        for _ in 0..5 {
            server.job(&job).await;
        }
        places.let_go(COMMIT);
    };
    let (reply, ()) = tokio::join!(patch(&server, &job, &second), let_go);
    assert_eq!(reply.status, 200, "{reply}");
    let job = server.job(&job).await;
    assert_eq!(
        (&job["labels"], &job["name"]),
        (&first["labels"], &second["name"]),
        "{job:#}"
    );
}

#[tokio::test]
async fn a_session_that_its_browser_ends_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let places = Places(folder.path());
    let server = places.server().await;
    let body = json!({"token": server.token(), "browser": "one"});
    let entry = server.anonymous(Method::POST, "/session").json(&body);
    let reply = server.send(entry).await;
    assert_eq!(reply.status, 201, "{reply}");
    let token = reply.json()["token"].as_str().unwrap().to_owned();
    let place = "session.struck";
    let request = (Method::DELETE, "/session");
    let by = (&server, token.as_str());
    places.hang_up_with(by, place, request, &Value::Null).await;
    places.let_go(place);
    eventually("the session is over", async || {
        let request = server.anonymous(Method::GET, "/session");
        let reply = server.send(request.bearer_auth(&token)).await;
        (reply.status == 401).then_some(())
    })
    .await;
}
