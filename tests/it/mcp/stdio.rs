//! `procession mcp`: standard input and output.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};

use serde_json::{Value, json};

use super::{PARENT, request, verdict, within};
use crate::harness::{
    LONG, Server, blocking_until, eventually, is_finished, processes_with, unique_seconds,
};

/// A client that has started the tools.
struct Client {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<Value>,
}

impl Client {
    fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = sender.send(serde_json::from_str(&line).unwrap());
            }
        });
        Self {
            child,
            input,
            lines,
        }
    }

    fn send(&mut self, message: &Value) {
        let input = self.input.as_mut().unwrap();
        writeln!(input, "{message}").unwrap();
    }

    fn next(&self) -> Value {
        self.lines.recv_timeout(LONG).unwrap()
    }

    fn ask(&mut self, message: &Value) -> Value {
        self.send(message);
        loop {
            let answer = self.next();
            if answer["id"] == message["id"] {
                return answer;
            }
        }
    }

    fn call(&mut self, tool: &str, arguments: Value) -> Value {
        let params = json!({"name": tool, "arguments": arguments});
        let mut message = request("tools/call", params, false);
        // Of a request that was cancelled before, an answer may still come.
        message["id"] = json!(format!("a call of {tool}"));
        let answer = self.ask(&message);
        assert!(answer["error"].is_null(), "{answer:#}");
        answer["result"].clone()
    }

    /// Runs a command in a call whose `_meta` has these besides.
    fn call_within(&mut self, more: Value, arguments: Value) -> Value {
        let params = json!({"name": "run_command", "arguments": arguments});
        let answer = self.ask(&within(request("tools/call", params, false), more));
        assert!(answer["error"].is_null(), "{answer:#}");
        answer["result"].clone()
    }

    /// Closes the input, and waits for the end.
    fn end(&mut self) {
        self.input = None;
        let mut status = None;
        blocking_until(LONG, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        assert!(status.unwrap().success(), "{status:?}");
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn client(server: &Server, flags: &[&str]) -> Client {
    let mut command = server.client();
    command.arg("mcp").args(flags);
    Client::start(command)
}

#[tokio::test]
async fn a_client_of_each_version_lists_and_calls() {
    let server = Server::start().await;
    let mut new = client(&server, &[]);
    let found = new.ask(&request("server/discover", json!({}), false));
    let versions = found["result"]["supportedVersions"].as_array().unwrap();
    assert!(versions.contains(&json!("2026-07-28")), "{found:#}");
    let ran = new.call("run_command", json!({"command": ["echo", "hi"]}));
    assert_eq!(ran["structuredContent"]["output"], "hi\n", "{ran:#}");
    new.end();
    let mut old = client(&server, &[]);
    let hello = old.ask(&json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "old", "version": "1"}}}));
    assert_eq!(
        hello["result"]["protocolVersion"], "2025-06-18",
        "{hello:#}"
    );
    old.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    let ran = old.ask(
        &json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {
        "name": "run_command", "arguments": {"script": "exit 9"}}}),
    );
    assert_eq!(
        ran["result"]["structuredContent"]["exit"]["code"], 9,
        "{ran:#}"
    );
    old.end();
}

#[tokio::test]
async fn a_client_that_is_killed_leaves_its_job_running() {
    let server = Server::start().await;
    let mut first = client(&server, &[]);
    let command = json!(["sleep", unique_seconds()]);
    let params =
        json!({"name": "run_command", "arguments": {"command": command, "wait_seconds": 50}});
    first.send(&request("tools/call", params, false));
    let job = eventually("the job runs", async || {
        let jobs = server.get("/jobs?state=running").await.json();
        jobs["jobs"][0]["id"].as_str().map(str::to_owned)
    })
    .await;
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    let mut second = client(&server, &[]);
    let list = second.call("list_jobs", json!({"state": "running"}));
    assert_eq!(
        list["structuredContent"]["jobs"][0]["id"],
        json!(job),
        "{list:#}"
    );
    let stopped = second.call("stop_job", json!({"job_id": job}));
    assert_eq!(verdict(&stopped), "stopped; no process is left");
    second.end();
}

#[tokio::test]
async fn with_stop_on_exit_nothing_is_left() {
    let server = Server::start().await;
    let seconds = unique_seconds();
    for flags in [&["--stop-on-exit"][..], &[]] {
        let mut one = client(&server, flags);
        let run = json!({"script": format!("setsid sleep {seconds} & sleep {seconds}"), "wait_seconds": 0});
        let ran = one.call("run_command", run);
        let job = ran["structuredContent"]["job_id"]
            .as_str()
            .unwrap()
            .to_owned();
        eventually("both sleep", async || {
            (processes_with(&seconds).len() >= 2).then_some(())
        })
        .await;
        one.end();
        let now = server.job(&job).await;
        if flags.is_empty() {
            assert_eq!(now["state"], "running", "{now:#}");
            server.stop(&job, "force").await;
        } else {
            assert!(is_finished(&now), "{now:#}");
            assert_eq!(now["termination"]["reason"], "the client ended", "{now:#}");
            assert_eq!(processes_with(&seconds).len(), 0);
        }
    }
}

#[tokio::test]
async fn a_cancelled_call_leaves_its_job_unless_it_was_told_to_stop_it() {
    let server = Server::start().await;
    for (on_cancel, state) in [("leave", "running"), ("stop", "canceled")] {
        let mut one = client(&server, &[]);
        let arguments = json!({"command": ["sleep", unique_seconds()], "wait_seconds": 50, "on_cancel": on_cancel});
        let mut call = request(
            "tools/call",
            json!({"name": "run_command", "arguments": arguments}),
            false,
        );
        call["params"]["_meta"]["progressToken"] = json!("p");
        one.send(&call);
        // The first thing that is said is which job it is.
        let progress = one.next();
        assert_eq!(progress["method"], "notifications/progress", "{progress:#}");
        let message = progress["params"]["message"].as_str().unwrap();
        let job = message.split(' ').nth(1).unwrap().to_owned();
        one.send(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}));
        if on_cancel == "stop" {
            let ended = server.finished(&job).await;
            assert_eq!(ended["state"], state, "{ended:#}");
        } else {
            // The next call is answered, after the cancellation was heard.
            let list = one.call("list_jobs", json!({"state": "running"}));
            assert_eq!(
                list["structuredContent"]["jobs"][0]["id"],
                json!(job),
                "{list:#}"
            );
            server.stop(&job, "force").await;
        }
        one.end();
    }
}

#[tokio::test]
async fn a_reading_client_has_only_tools_that_read() {
    let server = Server::start().await;
    let mut one = client(&server, &["--read-only"]);
    let list = one.ask(&request("tools/list", json!({}), false));
    let tools = list["result"]["tools"].as_array().unwrap().iter();
    let names: Vec<&str> = tools.map(|tool| tool["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "wait_for_job",
            "read_output",
            "list_jobs",
            "list_files",
            "read_file"
        ]
    );
    let params = json!({"name": "run_command", "arguments": {"script": "true"}});
    let refused = one.ask(&request("tools/call", params, false));
    assert_eq!(refused["error"]["code"], -32602, "{refused:#}");
    one.end();
}

#[tokio::test]
async fn the_trace_that_a_call_names_is_that_of_its_job() {
    let server = Server::start().await;
    let mut client = client(&server, &[]);
    let job = client.call_within(
        json!({"traceparent": PARENT, "tracestate": "a=1", "baggage": "user=7"}),
        json!({"script": "echo $TRACEPARENT $TRACESTATE $BAGGAGE"}),
    );
    let told = &job["structuredContent"]["output"];
    assert_eq!(told, &json!(format!("{PARENT} a=1 user=7\n")), "{job:#}");
    // What is no trace is ignored, whatever it is.
    for wrong in [
        json!({"traceparent": "x\ny"}),
        json!({"traceparent": "x", "tracestate": "a=1"}),
        json!({"traceparent": 7}),
        json!({"tracestate": "a=1"}),
    ] {
        let job = client.call_within(wrong, json!({"script": "echo =$TRACEPARENT$TRACESTATE="}));
        assert_eq!(job["structuredContent"]["output"], "==\n", "{job:#}");
    }
    client.end();
}
