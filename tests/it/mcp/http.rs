//! `POST /mcp`.

use std::fs;

use reqwest::Method;
use serde_json::{Value, json};

use super::{PARENT, meta, request, verdict, within};
use crate::harness::{LONG, Reply, Server, eventually, id, processes_with, unique_seconds};

/// Sends a message as a client of version 2026-07-28 does.
async fn post(server: &Server, token: &str, message: &Value) -> Reply {
    let method = message["method"].as_str().unwrap();
    let params = &message["params"];
    let name = params["name"].as_str().or(params["taskId"].as_str());
    let mut request = server
        .anonymous(Method::POST, "/mcp")
        .bearer_auth(token)
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", method)
        .json(message);
    if let Some(name) = name {
        request = request.header("mcp-name", name);
    }
    server.send(request).await
}

async fn answer(server: &Server, message: &Value) -> Value {
    let reply = post(server, server.token(), message).await;
    assert_eq!(reply.status, 200, "{reply}");
    reply.json()
}

/// The result of a tool.
async fn call(server: &Server, tool: &str, arguments: Value) -> Value {
    let params = json!({"name": tool, "arguments": arguments});
    let answer = answer(server, &request("tools/call", params, false)).await;
    assert!(answer["error"].is_null(), "{answer:#}");
    answer["result"].clone()
}

fn text(result: &Value) -> &str {
    result["content"][0]["text"].as_str().unwrap()
}

fn job_of(result: &Value) -> String {
    let id = result["structuredContent"]["job_id"].as_str();
    id.unwrap_or_else(|| panic!("no job: {result:#}"))
        .to_owned()
}

async fn tools(server: &Server) -> Vec<String> {
    let list = answer(server, &request("tools/list", json!({}), false)).await;
    assert_eq!(list["result"]["ttlMs"], 3_600_000, "{list:#}");
    let tools = list["result"]["tools"].as_array().unwrap().clone();
    for tool in &tools {
        assert_eq!(tool["inputSchema"]["type"], "object", "{tool:#}");
        assert!(tool["annotations"]["readOnlyHint"].is_boolean(), "{tool:#}");
    }
    let names = tools.iter().map(|tool| tool["name"].as_str().unwrap());
    names.map(str::to_owned).collect()
}

#[tokio::test]
async fn a_command_has_its_verdict_its_exit_code_and_its_output() {
    let server = Server::start().await;
    let result = call(
        &server,
        "run_command",
        json!({"script": "echo hello; exit 3"}),
    )
    .await;
    assert_eq!(result["isError"], false, "{result:#}");
    assert!(
        verdict(&result).starts_with("exited with code 3 after "),
        "{result:#}"
    );
    assert!(text(&result).ends_with("\nhello\n"), "{result:#}");
    let told = &result["structuredContent"];
    assert_eq!(
        (&told["exit"]["code"], &told["output"]),
        (&json!(3), &json!("hello\n"))
    );
    assert_eq!(
        (&told["state"], &told["timed_out"]),
        (&json!("failed"), &json!(false))
    );
    assert_eq!(told["next_step"], Value::Null, "{told:#}");
    let job = server.job(&job_of(&result)).await;
    assert_eq!(job["spec"]["timeout_seconds"], 600.0, "{job:#}");
    let result = call(
        &server,
        "run_command",
        json!({"command": ["true"], "timeout_seconds": 0}),
    )
    .await;
    let job = server.job(&job_of(&result)).await;
    assert_eq!(job["spec"]["timeout_seconds"], Value::Null, "{job:#}");
}

#[tokio::test]
async fn a_call_that_waits_too_short_comes_back_and_goes_on() {
    let server = Server::start().await;
    let gate = server.scratch().join("gate");
    let script = format!(
        "echo begun; while ! test -e {}; do sleep 0.05; done; exit 5",
        gate.display()
    );
    let begin = std::time::Instant::now();
    let result = call(
        &server,
        "run_command",
        json!({"script": script, "wait_seconds": 0.5}),
    )
    .await;
    assert!(begin.elapsed() < LONG / 2);
    assert!(
        verdict(&result).starts_with("still running after "),
        "{result:#}"
    );
    let job_id = job_of(&result);
    server.says(&job_id, "begun").await;
    let again = json!({"job_id": job_id, "offset": 0, "wait_seconds": 0.5});
    let result = call(&server, "wait_for_job", again).await;
    let told = &result["structuredContent"];
    assert_eq!(
        (&told["state"], &told["output"]),
        (&json!("running"), &json!("begun\n"))
    );
    let step = told["next_step"].as_str().unwrap();
    assert!(
        step.contains("wait_for_job with job_id and offset 6"),
        "{step}"
    );
    fs::write(&gate, "").unwrap();
    let end = json!({"job_id": job_id, "offset": 6});
    let end = call(&server, "wait_for_job", end).await;
    assert_eq!(end["structuredContent"]["exit"]["code"], 5, "{end:#}");
    assert_eq!(end["structuredContent"]["output"], "", "{end:#}");
}

#[tokio::test]
async fn output_is_waited_for_read_in_parts_and_by_its_end() {
    let server = Server::start().await;
    let run = json!({"script": "read a; echo got $a; read b; seq 5000", "interactive": true, "wait_seconds": 0});
    let job_id = job_of(&call(&server, "run_command", run).await);
    let typed = json!({"job_id": job_id, "text": "one\n"});
    let wrote = call(&server, "write_input", typed).await;
    assert!(verdict(&wrote).starts_with("wrote 4 bytes"), "{wrote:#}");
    let wait = json!({"job_id": job_id, "until": "output", "offset": 0, "wait_seconds": 30});
    let heard = call(&server, "wait_for_job", wait).await;
    assert_eq!(
        heard["structuredContent"]["output"], "got one\n",
        "{heard:#}"
    );
    let typed = json!({"job_id": job_id, "text": "two\n", "eof": true});
    call(&server, "write_input", typed).await;
    let end = call(
        &server,
        "wait_for_job",
        json!({"job_id": job_id, "output_bytes": 1000}),
    )
    .await;
    let told = &end["structuredContent"];
    assert!(told["output"].as_str().unwrap().len() <= 1000, "{end:#}");
    assert_eq!(told["truncated"], true, "{end:#}");
    let (mut offset, mut whole) = (0, String::new());
    loop {
        let read = json!({"job_id": job_id, "offset": offset, "output_bytes": 7000});
        let part = call(&server, "read_output", read).await;
        let told = &part["structuredContent"];
        whole.push_str(told["output"].as_str().unwrap());
        offset = told["next_offset"].as_u64().unwrap();
        if told["truncated"] == false {
            break;
        }
    }
    assert_eq!(whole.as_bytes(), server.output(&job_id).await);
    let tail = call(
        &server,
        "read_output",
        json!({"job_id": job_id, "tail_lines": 2}),
    )
    .await;
    assert_eq!(
        tail["structuredContent"]["output"], "4999\n5000\n",
        "{tail:#}"
    );
}

#[tokio::test]
async fn a_stop_says_that_no_process_is_left_and_none_is() {
    let server = Server::start().await;
    let seconds = unique_seconds();
    let script = format!("setsid sh -c 'trap \"\" TERM; sleep {seconds}' & sleep {seconds}");
    let run = json!({"script": script, "wait_seconds": 0});
    let job_id = job_of(&call(&server, "run_command", run).await);
    eventually("both sleep", async || {
        (processes_with(&seconds).len() >= 2).then_some(())
    })
    .await;
    let stop = json!({"job_id": job_id, "grace_seconds": 0.2, "reason": "enough"});
    let stopped = call(&server, "stop_job", stop).await;
    assert_eq!(
        verdict(&stopped),
        "stopped; no process is left",
        "{stopped:#}"
    );
    assert_eq!(processes_with(&seconds).len(), 0);
    let job = server.job(&job_id).await;
    assert_eq!(job["termination"]["reason"], "enough", "{job:#}");
}

#[tokio::test]
async fn jobs_are_listed_and_signalled() {
    let server = Server::start().await;
    let script = "trap 'echo hup' HUP; echo ready; while :; do sleep 0.05; done";
    let run = json!({"script": script, "name": "server", "wait_seconds": 0});
    let job_id = job_of(&call(&server, "run_command", run).await);
    server.says(&job_id, "ready").await;
    let list = call(&server, "list_jobs", json!({"state": "running"})).await;
    assert_eq!(
        list["structuredContent"]["jobs"][0]["id"],
        json!(job_id),
        "{list:#}"
    );
    assert!(text(&list).contains("running server: trap"), "{list:#}");
    let signal = json!({"job_id": job_id, "signal": "SIGHUP", "scope": "leader"});
    let told = call(&server, "signal_job", signal).await;
    assert!(
        verdict(&told).starts_with("delivered to 1 processes"),
        "{told:#}"
    );
    server.says(&job_id, "hup").await;
    call(&server, "stop_job", json!({"job_id": job_id})).await;
}

#[tokio::test]
async fn lines_that_match_are_found_in_all_of_the_output() {
    let server = Server::start().await;
    let script = "seq 1 5000; echo 'error: one error'; seq 1 5000; printf '\\033[31merror\\033[0m: two\\n' >&2; seq 1 9";
    let job = job_of(&call(&server, "run_command", json!({"script": script})).await);
    let read = async |mut arguments: Value| {
        arguments["job_id"] = job.clone().into();
        call(&server, "read_output", arguments).await["structuredContent"].clone()
    };
    let found = read(json!({"match": "error"})).await;
    let lines = found["lines"].as_array().unwrap();
    let texts: Vec<&str> = lines
        .iter()
        .map(|it| it["text"].as_str().unwrap())
        .collect();
    assert_eq!(
        (texts, &found["more"]),
        (vec!["error: one error", "error: two"], &json!(false))
    );
    let on = read(json!({"offset": lines[0]["offset"], "output_bytes": 17})).await;
    assert_eq!(on["output"], "error: one error\n");
    let one = read(json!({"match": "^error", "stream": "stdout"})).await;
    assert_eq!(one["lines"].as_array().unwrap().len(), 1, "{one:#}");
    let many = read(json!({"match": "7", "output_bytes": 100})).await;
    assert!(
        many["lines"].to_string().len() < 2000 && many["more"] == true,
        "{many:#}"
    );
    assert_eq!(read(json!({"match": "none"})).await["lines"], json!([]));
    assert_eq!(read(json!({"match": "("})).await["code"], "invalid_query");
    assert_eq!(
        read(json!({"match": "a", "offset": 0})).await["code"],
        "invalid_arguments"
    );
}

#[tokio::test]
async fn files_are_given_to_a_job_written_while_it_runs_and_read_afterwards() {
    let server = Server::start().await;
    let tool = async |name: &str, job: &str, mut arguments: Value| {
        arguments["job_id"] = job.into();
        call(&server, name, arguments).await["structuredContent"].clone()
    };
    // One pixel.
    let png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
    let script =
        "base64 -d png.txt > out.png; read line; cat more >> in/a; printf '\\377' > raw; : > empty";
    let files = json!({"in/a": "one é\n", "png.txt": png});
    let run = json!({"script": script, "files": files, "interactive": true, "wait_seconds": 0});
    let job = job_of(&call(&server, "run_command", run).await);
    let more = json!({"path": "more", "text": "two\n"});
    let written = tool("write_file", &job, more).await;
    assert_eq!(
        (&written["bytes"], &written["replaced"]),
        (&json!(4), &json!(false))
    );
    let go = call(
        &server,
        "write_input",
        json!({"job_id": job, "text": "go\n"}),
    )
    .await;
    assert_ne!(go["isError"], true, "{go:#}");
    let ended = tool("wait_for_job", &job, json!({})).await;
    assert_eq!(ended["state"], "succeeded", "{ended:#}");

    let listed = tool("list_files", &job, json!({})).await;
    let paths = listed["files"].as_array().unwrap().iter();
    let paths: Vec<&str> = paths.map(|it| it["path"].as_str().unwrap()).collect();
    assert_eq!(
        paths,
        ["empty", "in", "in/a", "more", "out.png", "png.txt", "raw"]
    );
    let first = tool("list_files", &job, json!({"path": "in", "limit": 1})).await;
    assert_eq!(
        (&first["files"][0]["path"], &first["more"]),
        (&json!("in/a"), &json!(false))
    );

    let whole = tool("read_file", &job, json!({"path": "in/a"})).await;
    assert_eq!(
        (&whole["text"], &whole["truncated"]),
        (&json!("one é\ntwo\n"), &json!(false))
    );
    // In the middle of a character.
    let part = tool(
        "read_file",
        &job,
        json!({"path": "in/a", "output_bytes": 5}),
    )
    .await;
    assert_eq!(
        (&part["text"], &part["next_offset"]),
        (&json!("one "), &json!(4))
    );
    let rest = tool("read_file", &job, json!({"path": "in/a", "offset": 4})).await;
    assert_eq!(
        (&rest["text"], &rest["bytes"]),
        (&json!("é\ntwo\n"), &json!(11))
    );
    let empty = tool("read_file", &job, json!({"path": "empty"})).await;
    assert_eq!((&empty["text"], &empty["bytes"]), (&json!(""), &json!(0)));
    assert_eq!(
        tool("read_file", &job, json!({"path": "raw"})).await["base64"],
        "/w=="
    );
    let picture = json!({"job_id": job, "path": "out.png", "output_bytes": 16});
    let picture = call(&server, "read_file", picture).await;
    let image = &picture["content"][1];
    assert_eq!(
        (&image["type"], &image["mimeType"], &image["data"]),
        (&json!("image"), &json!("image/png"), &json!(png))
    );

    for (name, arguments, code) in [
        ("read_file", json!({"path": "none"}), "file_not_found"),
        ("read_file", json!({"path": "../x"}), "invalid_arguments"),
        (
            "write_file",
            json!({"path": "x", "text": ""}),
            "job_already_finished",
        ),
    ] {
        assert_eq!(tool(name, &job, arguments).await["code"], code);
    }
    let bare = job_of(&call(&server, "run_command", json!({"script": "true"})).await);
    assert_eq!(
        tool("list_files", &bare, json!({})).await["code"],
        "no_workspace"
    );
}

#[tokio::test]
async fn what_is_refused_is_an_error_with_its_code() {
    let server = Server::start().await;
    for (tool, arguments, expected) in [
        (
            "run_command",
            json!({"command": "echo hi"}),
            "or put it into `script`",
        ),
        (
            "run_command",
            json!({"script": "true", "comand": 1}),
            "unknown field `comand`",
        ),
        (
            "run_command",
            json!({"script": "true", "wait_seconds": 51}),
            "wait_seconds: from 0 to 50",
        ),
        (
            "run_command",
            json!({"script": "true", "output_bytes": 131_073}),
            "output_bytes: from 1 to",
        ),
        (
            "wait_for_job",
            json!({"job_id": "0198c1d2-7b3a-7c4e-9f10-2a6b3c4d5e6f"}),
            "job_not_found",
        ),
        (
            "wait_for_job",
            json!({"job_id": "../queues"}),
            "job_id: the id of a job",
        ),
    ] {
        let result = call(&server, tool, arguments).await;
        assert_eq!(result["isError"], true, "{result:#}");
        assert!(text(&result).contains(expected), "{expected}: {result:#}");
        assert!(verdict(&result).starts_with("refused: "), "{result:#}");
    }
    assert_eq!(server.get("/jobs").await.json()["jobs"], json!([]));
}

#[tokio::test]
async fn a_reader_may_look_and_starts_nothing() {
    let server = Server::start().await;
    let mut create = server.client();
    create.args(["token", "create", "--name", "reader", "--scope", "read"]);
    let made = create.output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let token = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    let token = eventually("the token is known", async || {
        let request = server.anonymous(Method::GET, "/info").bearer_auth(&token);
        (server.send(request).await.status == 200).then(|| token.clone())
    })
    .await;
    let list = json!({"name": "list_jobs", "arguments": {}});
    let list = post(&server, &token, &request("tools/call", list, false))
        .await
        .json();
    assert_eq!(list["result"]["isError"], false, "{list:#}");
    let run = json!({"name": "run_command", "arguments": {"script": "true"}});
    let run = post(&server, &token, &request("tools/call", run, false))
        .await
        .json();
    assert_eq!(run["result"]["isError"], true, "{run:#}");
    assert_eq!(
        run["result"]["structuredContent"]["code"], "forbidden",
        "{run:#}"
    );
    assert_eq!(server.get("/jobs").await.json()["jobs"], json!([]));
    let audit = fs::read_to_string(server.state_dir().join("audit.jsonl")).unwrap();
    let lines: Vec<Value> = audit
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let refused = |line: &&Value| line["actor"] == "token:reader" && line["decision"] == "refused";
    let refused: Vec<&Value> = lines.iter().filter(refused).collect();
    assert_eq!(refused.len(), 1, "{audit}");
    assert_eq!(
        (&refused[0]["route"], &refused[0]["status"]),
        (&json!("/jobs"), &json!(403))
    );
}

#[tokio::test]
async fn a_policy_offers_its_templates_and_nothing_else() {
    let scratch = tempfile::tempdir().unwrap();
    let policy = scratch.path().join("policy.toml");
    let text = "[template.greet]\ncommand = [\"/bin/echo\", \"{who}\"]\nparams.who = { type = \"enum\", values = [\"you\", \"me\"] }\n";
    fs::write(&policy, text).unwrap();
    let server = Server::builder()
        .args(["--policy", policy.to_str().unwrap()])
        .start()
        .await;
    let names = tools(&server).await;
    assert!(names.contains(&"run_template".to_owned()), "{names:?}");
    assert!(!names.contains(&"run_command".to_owned()), "{names:?}");
    let list = server.get("/templates").await.json();
    let who = json!({"type": "string", "enum": ["you", "me"]});
    assert_eq!(list["only"], true);
    assert_eq!(
        list["templates"][0]["params"]["properties"]["who"], who,
        "{list:#}"
    );
    let run = json!({"template": "greet", "params": {"who": "me"}});
    let result = call(&server, "run_template", run).await;
    assert_eq!(result["structuredContent"]["output"], "me\n", "{result:#}");
    let refused = call(&server, "run_command", json!({"script": "true"})).await;
    assert_eq!(
        refused["structuredContent"]["code"], "policy_forbids",
        "{refused:#}"
    );
}

#[tokio::test]
async fn a_task_is_a_job_and_outlives_a_crash_of_the_server() {
    let server = Server::start().await;
    let gate = server.scratch().join("gate");
    let script = format!(
        "while ! test -e {}; do sleep 0.05; done; echo over; exit 4",
        gate.display()
    );
    let run = json!({"name": "run_command", "arguments": {"script": script, "wait_seconds": 0}});
    let made = answer(&server, &request("tools/call", run, true)).await;
    let task = &made["result"];
    assert_eq!(
        (&task["resultType"], &task["status"]),
        (&json!("task"), &json!("working")),
        "{made:#}"
    );
    let id = task["taskId"].as_str().unwrap().to_owned();
    let get = request("tasks/get", json!({"taskId": id}), true);
    assert_eq!(answer(&server, &get).await["result"]["status"], "working");
    // The server is the child of the supervisor that listens; a new one answers.
    let before = server.get("/info").await.json()["server_pid"].clone();
    let pid = i32::try_from(before.as_i64().unwrap()).unwrap();
    crate::harness::kill_now(nix::unistd::Pid::from_raw(pid));
    eventually("another server answers", async || {
        let request = server.request(Method::GET, "/info");
        let info = server.try_send(request).await.ok()?.json();
        (info["server_pid"] != before).then_some(())
    })
    .await;
    assert_eq!(answer(&server, &get).await["result"]["status"], "working");
    fs::write(&gate, "").unwrap();
    server.finished(&id).await;
    let done = answer(&server, &get).await;
    assert_eq!(done["result"]["status"], "completed", "{done:#}");
    let told = &done["result"]["result"]["structuredContent"];
    assert_eq!(
        (&told["exit"]["code"], &told["output"]),
        (&json!(4), &json!("over\n")),
        "{done:#}"
    );
}

#[tokio::test]
async fn a_task_is_cancelled_and_an_unknown_one_is_not_there() {
    let server = Server::start().await;
    let run = json!({"name": "run_command", "arguments": {"command": ["sleep", unique_seconds()], "wait_seconds": 0}});
    let made = answer(&server, &request("tools/call", run, true)).await;
    let id = made["result"]["taskId"].as_str().unwrap().to_owned();
    answer(
        &server,
        &request("tasks/cancel", json!({"taskId": id}), true),
    )
    .await;
    let job = server.finished(&id).await;
    assert_eq!(
        job["termination"]["reason"], "cancelled by the client",
        "{job:#}"
    );
    let get = request("tasks/get", json!({"taskId": id}), true);
    assert_eq!(answer(&server, &get).await["result"]["status"], "cancelled");
    for unknown in ["0198c1d2-7b3a-7c4e-9f10-2a6b3c4d5e6f", "../jobs"] {
        let get = request("tasks/get", json!({"taskId": unknown}), true);
        let told = answer(&server, &get).await;
        assert_eq!(told["error"]["code"], -32602, "{told:#}");
        assert_eq!(told["error"]["message"], "no such task", "{told:#}");
    }
}

#[tokio::test]
async fn guards_versions_and_headers_are_looked_at() {
    let server = Server::start().await;
    let list = request("tools/list", json!({}), false);
    let sent = || {
        let request = server.request(Method::POST, "/mcp").json(&list);
        request
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2026-07-28")
    };
    let foreign = sent()
        .header("origin", "https://evil.example")
        .header("mcp-method", "tools/list");
    let foreign = server.send(foreign).await;
    assert_eq!(
        (foreign.status, foreign.code().as_str()),
        (403, "origin_not_allowed")
    );
    let nobody = server.anonymous(Method::POST, "/mcp").json(&list);
    assert_eq!(server.send(nobody).await.status, 401);
    let other = server.send(sent().header("mcp-method", "tools/call")).await;
    assert_eq!(
        (other.status, other.json()["error"]["code"].as_i64()),
        (400, Some(-32020)),
        "{other}"
    );
    let unknown =
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/eat", "params": {"_meta": meta(false)}});
    let unknown = post(&server, server.token(), &unknown).await;
    assert_eq!(
        (unknown.status, unknown.json()["error"]["code"].as_i64()),
        (404, Some(-32601)),
        "{unknown}"
    );
    let get = server.get("/mcp").await;
    assert_eq!((get.status, get.header("allow")), (405, "POST"));
    // A client of 2025-06-18: a handshake first, and no sessions after it.
    let old = |message: Value| {
        let request = server.request(Method::POST, "/mcp").json(&message);
        let request = request.header("accept", "application/json, text/event-stream");
        request.header("mcp-protocol-version", "2025-06-18")
    };
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "old", "version": "1"}}});
    let hello = server.send(old(hello)).await.json();
    assert_eq!(
        hello["result"]["protocolVersion"], "2025-06-18",
        "{hello:#}"
    );
    let ready = server
        .send(old(
            json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
        ))
        .await;
    assert_eq!(ready.status, 202, "{ready}");
    let run = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {
        "name": "run_command", "arguments": {"command": ["echo", "hi"]}}});
    let ran = server.send(old(run)).await.json();
    assert_eq!(
        ran["result"]["structuredContent"]["output"], "hi\n",
        "{ran:#}"
    );
    assert!(ran["result"].get("resultType").is_none(), "{ran:#}");
}

#[tokio::test]
async fn a_service_without_tools_says_so() {
    let server = Server::builder().args(["--mcp", "off"]).start().await;
    let list = post(
        &server,
        server.token(),
        &request("tools/list", json!({}), false),
    )
    .await;
    assert_eq!((list.status, list.code().as_str()), (404, "not_found"));
}

#[tokio::test]
async fn the_list_of_tools_is_the_same_for_everybody_and_in_order() {
    let server = Server::start().await;
    let names = tools(&server).await;
    let expected = [
        "run_command",
        "wait_for_job",
        "read_output",
        "write_input",
        "stop_job",
        "signal_job",
        "list_jobs",
        "list_files",
        "read_file",
        "write_file",
    ];
    assert_eq!(names, expected);
    assert_eq!(tools(&server).await, expected);
}

/// Memory of the server that is its own, in bytes.
fn memory(pid: i64) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("RssAnon:"))
        .unwrap();
    let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes << 10
}

#[tokio::test]
async fn two_hundred_megabytes_in_one_line_are_no_burden() {
    let server = Server::start().await;
    let pid = server.get("/info").await.json()["server_pid"]
        .as_i64()
        .unwrap();
    call(
        &server,
        "run_command",
        json!({"script": "head -c 100000 /dev/zero | tr '\\0' x"}),
    )
    .await;
    let before = memory(pid);
    let script = "head -c 200000000 /dev/zero | tr '\\0' x";
    let run = json!({"script": script, "wait_seconds": 50, "output_bytes": 16384});
    let result = call(&server, "run_command", run).await;
    let grown = memory(pid).saturating_sub(before);
    assert_eq!(
        result["structuredContent"]["exit"]["code"],
        0,
        "{}",
        verdict(&result)
    );
    let shown = result["structuredContent"]["output"].as_str().unwrap();
    assert!(shown.len() <= 16384, "{}", shown.len());
    assert!(
        text(&result).len() <= 16384 + 1024,
        "{}",
        text(&result).len()
    );
    assert!(grown < 5 << 20, "the server has grown by {grown} bytes");
    let job = server.job(&job_of(&result)).await;
    assert_eq!(id(&job), job_of(&result));
}

#[tokio::test]
async fn a_call_knows_its_trace_better_than_the_request_around_it() {
    let server = Server::start().await;
    let around = PARENT.replace("b7ad6b7169203331", "aaaaaaaaaaaaaaaa");
    for (named, expected) in [(PARENT, PARENT), ("00-nonsense", around.as_str())] {
        let params = json!({"name": "run_command", "arguments": {"script": "echo $TRACEPARENT"}});
        let message = request("tools/call", params, false);
        let message = within(message, json!({"traceparent": named}));
        let asked = server
            .anonymous(Method::POST, "/mcp")
            .bearer_auth(server.token())
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", "tools/call")
            .header("mcp-name", "run_command")
            .header("traceparent", &around)
            .json(&message);
        let reply = server.send(asked).await;
        assert_eq!(reply.status, 200, "{reply}");
        let result = &reply.json()["result"];
        assert_eq!(text(result).lines().last().unwrap(), expected, "{result:#}");
        let job = server.job(&job_of(result)).await;
        assert_eq!(job["trace"]["trace_id"], PARENT[3..35], "{job:#}");
    }
}
