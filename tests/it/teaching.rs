//! Refusals that say what to do instead, and habits of other services that are understood.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Reply, Server, id};

async fn detail(server: &Server, body: Value) -> String {
    let reply = server.post("/jobs", &body).await;
    assert_eq!(reply.status, 422, "{reply}");
    let errors = reply.json()["errors"].clone();
    errors[0]["detail"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_command_as_text_is_shown_the_script() {
    let server = Server::start().await;
    let told = detail(&server, json!({"command": "echo hi"})).await;
    assert!(told.contains("or put it into `script`"), "{told}");
    let told = detail(&server, json!({"command": 3})).await;
    assert_eq!(told, "must be an array");
}

#[tokio::test]
async fn an_empty_body_is_told_so() {
    let server = Server::start().await;
    let request = server
        .request(Method::POST, "/jobs")
        .header("content-type", "application/json");
    let reply = server.send(request.body(" ")).await;
    let told = reply.json()["detail"].clone();
    assert_eq!((reply.status, told), (400, json!("the body is empty")));
}

#[tokio::test]
async fn an_unknown_field_is_shown_the_nearest_one() {
    let server = Server::start().await;
    for (given, meant) in [
        ("comand", "command"),
        ("timeout", "timeout_seconds"),
        ("Labels", "labels"),
        ("env-inherit", "env_inherit"),
        ("workdir", "cwd"),
        ("nonsense", ""),
    ] {
        let told = detail(&server, json!({"script": "true", given: 1})).await;
        let expected = if meant.is_empty() {
            "known fields: ".to_owned()
        } else {
            format!("did you mean {meant}? known fields: ")
        };
        assert!(told.starts_with(&expected), "{given}: {told}");
    }
    let reply = server.get("/jobs?states=running").await;
    let told = reply.json()["errors"][0]["detail"].clone();
    let told = told.as_str().unwrap();
    assert!(told.contains("did you mean state?"), "{told}");
}

#[tokio::test]
async fn flags_of_a_query_are_true_in_any_case() {
    let server = Server::start().await;
    let body = json!({"jobs": [{"key": "a", "script": "true"}]});
    for (word, status) in [("True", 200), ("TRUE", 200), ("False", 201), ("yes", 400)] {
        let reply = server
            .post(&format!("/batches?validate_only={word}"), &body)
            .await;
        assert_eq!(reply.status, status, "{word}: {reply}");
    }
}

#[tokio::test]
async fn patch_and_rerun_take_plain_json() {
    let server = Server::start().await;
    let job = server.run_script("echo $X").await;
    let path = format!("/jobs/{}", id(&job));
    let patched = server
        .request(Method::PATCH, &path)
        .json(&json!({"name": "new"}));
    let patched = server.send(patched).await;
    assert_eq!(
        (patched.status, &patched.json()["name"]),
        (200, &json!("new")),
        "{patched}"
    );
    let again = server
        .post(
            &format!("{path}/rerun?wait=30"),
            &json!({"env": {"X": "1"}}),
        )
        .await;
    assert_eq!(again.status, 201, "{again}");
    assert_eq!(server.text(&id(&again.json())).await, "1\n");
    let form = server.request(Method::PATCH, &path).body("name=x");
    let form = form.header("content-type", "application/x-www-form-urlencoded");
    let form = server.send(form).await;
    assert_eq!(
        (form.status, form.code().as_str()),
        (415, "unsupported_media_type")
    );
}

async fn first_block(server: &Server, path: &str) -> String {
    let request = server.request(Method::GET, path);
    let reply: Reply = server
        .send(request.header("accept", "text/event-stream"))
        .await;
    assert_eq!(reply.status, 200, "{reply}");
    let text = String::from_utf8(reply.body).unwrap();
    text.split("\n\n").next().unwrap().to_owned()
}

#[tokio::test]
async fn the_first_event_of_a_stream_is_a_real_one() {
    let server = Server::start().await;
    let job = id(&server.run_script("echo hello").await);
    for path in [
        format!("/jobs/{job}/output"),
        format!("/jobs/{job}/events"),
        "/events?follow=false".to_owned(),
    ] {
        let block = first_block(&server, &path).await;
        let has = |field: &str| block.lines().any(|line| line.starts_with(field));
        assert!(
            has("event: ") && has("data: ") && has("retry: "),
            "{path}: {block:?}"
        );
    }
}
