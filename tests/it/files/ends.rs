//! What clients put into the workspace of a job that ends meanwhile: either the end finds it, or they are told that the job is
//! over, and nothing of it stays.

use std::fs;
use std::io;

use reqwest::{Body, Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::archives::made;
use super::crash::Armed;
use super::{is_gone, listed, put, text, workspace};
use crate::harness::{Server, eventually, id};

/// A body that ends when the sender is dropped.
fn slow() -> (mpsc::UnboundedSender<Vec<u8>>, Body) {
    let (sender, pieces) = mpsc::unbounded_channel::<Vec<u8>>();
    let stream = futures_util::stream::unfold(pieces, async |mut pieces| {
        let piece = pieces.recv().await?;
        Some((Ok::<_, io::Error>(piece), pieces))
    });
    (sender, Body::wrap_stream(stream))
}

fn puts(server: &Server, id: &str, path: &str) -> RequestBuilder {
    server.request(Method::PUT, &format!("/jobs/{id}/files/{path}"))
}

/// The file that a client has begun to put is in the making.
async fn has_begun(server: &Server) {
    let incoming = server.state_dir().join("workspaces/.incoming");
    eventually("a file has begun to come", async || {
        let mut names = fs::read_dir(&incoming).unwrap();
        names.next().is_some().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_file_that_is_complete_after_the_end_of_the_job_is_refused() {
    let server = Server::start().await;
    let archive = made("add('b', content=b'more')");
    for (keep, query, content) in [
        ("none", "in/a", b"content".to_vec()),
        ("all", "in/a", b"content".to_vec()),
        ("none", "in?unpack=tar", archive.clone()),
        ("all", "in?unpack=tar", archive),
    ] {
        let body = json!({"script": "echo up; exec sleep 600", "workspace": {"keep": keep}});
        let job = id(&server.submit(&body).await);
        server.says(&job, "up").await;
        let (sender, body) = slow();
        let sent = server.send(puts(&server, &job, query).body(body));
        let ended = async {
            let (first, rest) = content.split_at(content.len() / 2);
            sender.send(first.to_vec()).unwrap();
            has_begun(&server).await;
            server.stop(&job, "force").await;
            if keep == "none" {
                is_gone(&server, &job).await;
            }
            sender.send(rest.to_vec()).unwrap();
            drop(sender);
        };
        let (reply, ()) = tokio::join!(sent, ended);
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (409, "job_already_finished"),
            "{keep} {query}: {reply}"
        );
        assert_eq!(listed(&server, &job, "").await, [], "{keep} {query}");
    }
}

#[tokio::test]
async fn a_file_of_a_job_that_has_been_purged_meanwhile_belongs_to_no_job() {
    let server = Server::start().await;
    let body = json!({"script": "true", "hold": true, "workspace": {"keep": "all"}});
    let job = id(&server.submit(&body).await);
    let (sender, body) = slow();
    let sent = server.send(puts(&server, &job, "a").body(body));
    let purged = async {
        sender.send(b"half".to_vec()).unwrap();
        has_begun(&server).await;
        server.stop(&job, "").await;
        assert_eq!(server.delete(&job, "purge=true").await.status, 204);
        drop(sender);
    };
    let (reply, ()) = tokio::join!(sent, purged);
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (404, "job_not_found"),
        "{reply}"
    );
    is_gone(&server, &job).await;
}

#[tokio::test]
async fn the_end_finds_what_is_being_put_in_place() {
    let armed = Armed::start().await;
    let server = &armed.server;
    let body = json!({
        "script": "echo up; read x", "stdin": {"mode": "open"}, "artifacts": {"paths": ["a", "b"]},
    });
    let job = id(&server.submit(&body).await);
    server.says(&job, "up").await;
    armed.hold("file.placing");
    let sent = put(server, &job, "a", "content");
    let ended = async {
        armed.is_struck("file.placing").await;
        let input = server.request(Method::POST, &format!("/jobs/{job}/stdin"));
        assert_eq!(server.send(input.body("go\n")).await.status, 204);
        // No end without the file: it would be an artifact that nobody has counted.
        let path = format!("/jobs/{job}?wait=1&until=finished");
        let waited = server.get(&path).await.json();
        assert_eq!(waited["finished_at"], Value::Null, "{waited:#}");
        armed.hold("file.placing");
    };
    let (reply, ()) = tokio::join!(sent, ended);
    assert_eq!(reply.status, 201, "{reply}");
    let job = server.finished(&job).await;
    assert_eq!(job["artifacts"]["files"], 1, "{job:#}");
    assert_eq!(text(server, &id(&job), "a").await, "content");
}

#[tokio::test]
async fn a_workspace_that_is_made_for_a_file_is_not_there_after_the_end_of_the_job() {
    let armed = Armed::start().await;
    let server = &armed.server;
    for keep in ["none", "all"] {
        let body = json!({"script": "true", "hold": true, "workspace": {"keep": keep}});
        let job = id(&server.submit(&body).await);
        armed.hold("workspace.filled");
        let sent = put(server, &job, "a", "content");
        let ended = async {
            armed.is_struck("workspace.filled").await;
            server.stop(&job, "").await;
            let ending = server.state_dir().join("workspaces/.ending");
            eventually("its end is done with", async || {
                (fs::read_dir(&ending).unwrap().count() == 0).then_some(())
            })
            .await;
            armed.hold("workspace.filled");
        };
        let (reply, ()) = tokio::join!(sent, ended);
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (409, "job_already_finished"),
            "{keep}: {reply}"
        );
        assert!(!workspace(server, &job).exists(), "{keep}");
        is_gone(server, &job).await;
    }
}
