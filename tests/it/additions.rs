//! Routes that do or tell something about many jobs, and about the service itself: templates, tokens,
//! findings, what happened, and recordings.

use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::cli;
use crate::harness::{Server, eventually, id};

fn sleep(name: &str, queue: &str) -> Value {
    json!({"command": ["sleep", "300"], "name": name, "queue": queue})
}

#[tokio::test]
async fn stop_on_the_command_line_takes_a_filter() {
    let server = Server::start().await;
    let mut jobs = Vec::new();
    for name in ["night-1", "night-2", "day-1"] {
        jobs.push(id(&server.submit(&sleep(name, "default")).await));
    }
    let run = |args: &[&str]| {
        let mut command = server.client();
        command.args(args).output().unwrap()
    };
    let stopped = run(&[
        "stop",
        "--name-prefix",
        "night-",
        "--created-after",
        "1h ago",
    ]);
    assert!(stopped.status.success(), "{stopped:?}");
    let text = String::from_utf8(stopped.stdout).unwrap();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert_eq!(server.in_state(&jobs[2], "running").await["name"], "day-1");
    let stopped = run(&[
        "stop",
        "--state",
        "running,paused",
        "--queue",
        "default",
        "--force",
    ]);
    assert!(stopped.status.success(), "{stopped:?}");
    assert_eq!(server.finished(&jobs[2]).await["state"], "canceled");
}

#[tokio::test]
async fn stop_on_the_command_line_counts_first_and_holds_to_the_count() {
    let server = Server::start().await;
    let mut jobs = Vec::new();
    for name in ["a-1", "a-2"] {
        jobs.push(id(&server.submit(&sleep(name, "default")).await));
    }
    let run = |args: &[&str]| {
        let mut command = server.client();
        let ran = command.args(args).output().unwrap();
        let text = String::from_utf8(ran.stdout).unwrap();
        let said = String::from_utf8(ran.stderr).unwrap();
        (ran.status.code().unwrap(), text, said)
    };
    let mine = [
        "stop",
        "--name-prefix",
        "a-",
        "--created-by",
        "token:default",
    ];
    let (code, text, _) = run(&[&mine[..], &["--dry-run"]].concat());
    assert_eq!((code, text.as_str()), (0, "2\n"));
    let (code, text, said) = run(&[&mine[..], &["--expect", "3"]].concat());
    assert_eq!((code, text.as_str()), (1, ""), "{said}");
    assert!(
        said.contains("2 jobs match and 3 were expected; nothing was done"),
        "{said}"
    );
    assert_eq!(server.in_state(&jobs[0], "running").await["name"], "a-1");
    let (_, text, _) = run(&["ps", "--quiet", "--created-by", "token:default"]);
    assert_eq!(text.lines().count(), 2, "{text}");
    let (_, text, _) = run(&["ps", "--quiet", "--created-by", "uid:4294967294"]);
    assert_eq!(text, "");
    let (code, text, said) = run(&[&mine[..], &["--expect", "2", "--force"]].concat());
    assert_eq!((code, text.lines().count()), (0, 2), "{said}");
    let (code, ..) = run(&["stop", "--expect", "2", &jobs[0]]);
    assert_eq!(code, 2);
}

#[tokio::test]
async fn the_creator_of_a_job_is_a_filter_and_its_output_is_counted() {
    let server = Server::start().await;
    let made = server
        .post("/tokens", &json!({"name": "ci", "scope": "operate"}))
        .await;
    let token = made.json()["token"].as_str().unwrap().to_owned();
    let mine = id(&server.run_script("printf 0123456789").await);
    let request = server
        .anonymous(Method::POST, "/jobs?wait=60")
        .bearer_auth(token);
    let body = json!({"script": "printf 01234", "name": "theirs"});
    let answer = request.json(&body).send().await.unwrap();
    let theirs: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    assert_eq!(theirs["created_by"], "token:ci");
    let names = async |query: &str| {
        let list = server.get(&format!("/jobs?{query}")).await.json();
        let jobs = list["jobs"].as_array().unwrap().iter();
        jobs.map(|job| job["id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(names("created_by=token:ci").await, [theirs["id"].clone()]);
    assert_eq!(names("created_by=token:default").await, [json!(mine)]);
    let failed = names("created_by=token:ci&state=failed").await;
    assert!(failed.is_empty(), "{failed:?}");
    let counts = server.get("/jobs/counts?created_by=token:ci").await.json();
    let succeeded = counts["counts"].as_array().unwrap().iter();
    let succeeded = succeeded.clone().find(|one| one["state"] == "succeeded");
    assert_eq!(succeeded.unwrap()["count"], 1, "{counts:#}");
    assert_eq!(server.get("/info").await.json()["output_bytes"], 15);
    let purged = server
        .post(
            "/jobs/purge",
            &json!({"created_by": "token:ci", "expect": 1}),
        )
        .await;
    assert_eq!(purged.status, 207, "{purged}");
    assert_eq!(server.get("/info").await.json()["output_bytes"], 10);
}

#[tokio::test]
async fn lines_are_found_by_the_command_line_as_grep_finds_them() {
    let server = Server::start().await;
    let script =
        "printf 'one needle, two needles\\nhay\\nNeedle\\n'; printf 'needle \\033[31mred\\n' >&2";
    let job = id(&server.run_script(script).await);
    let grep = |args: &[&str]| {
        let mut command = server.client();
        command.args(["logs", &job, "--grep"]).args(args);
        let ran = command.output().unwrap();
        (
            ran.status.code().unwrap(),
            String::from_utf8(ran.stdout).unwrap(),
        )
    };
    assert_eq!(
        grep(&["needles?", "--stream", "stdout"]),
        (0, "one needle, two needles\n".to_owned())
    );
    let (code, text) = grep(&["^needle", "--ignore-case"]);
    assert_eq!((code, text.lines().count()), (0, 2), "{text}");
    assert_eq!(grep(&["nothing"]), (1, String::new()));
    let (code, text) = grep(&["hay", "--json"]);
    assert_eq!(code, 0);
    let hit: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&hit["text"], &hit["length"]),
        (&json!("hay"), &json!(3)),
        "{hit}"
    );
    let (code, _) = grep(&["("]);
    assert_eq!(code, 1);
}

#[tokio::test]
async fn tokens_are_made_and_revoked_over_http_and_known_at_once() {
    let server = Server::start().await;
    let made = server
        .post(
            "/tokens",
            &json!({"name": "ci", "scope": "read", "expires_in_seconds": 600}),
        )
        .await;
    assert_eq!(made.status, 201, "{made}");
    let token = made.json()["token"].as_str().unwrap().to_owned();
    let ask = async |path: &str| {
        let request = server.anonymous(Method::GET, path).bearer_auth(&token);
        server.send(request).await.status
    };
    assert_eq!((ask("/jobs").await, ask("/tokens").await), (200, 403));
    let taken = server
        .post("/tokens", &json!({"name": "ci", "scope": "read"}))
        .await;
    assert_eq!((taken.status, taken.code().as_str()), (409, "token_exists"));
    let list = server.get("/tokens").await;
    let list = list.json();
    assert_eq!(list["tokens"][0]["name"], "default", "{list:#}");
    assert_eq!(list["tokens"][1]["name"], "ci", "{list:#}");
    assert!(!list.to_string().contains(&token));
    assert_eq!(list["tokens"][1].get("token"), None);
    let mut command = server.client();
    let shown = command.args(["token", "list"]).output().unwrap();
    assert!(String::from_utf8(shown.stdout).unwrap().contains("ci"));
    let remove = async |name: &str| {
        let request = server.request(Method::DELETE, &format!("/tokens/{name}"));
        server.send(request).await.status
    };
    assert_eq!(remove("ci").await, 200);
    assert_eq!(ask("/jobs").await, 401);
    assert_eq!((remove("ci").await, remove("A").await), (404, 404));
    let log = server.state_dir().join("audit.jsonl");
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("/tokens") && !log.contains(&token), "{log}");
}

#[tokio::test]
async fn without_a_policy_there_are_no_templates_and_with_one_they_are_described() {
    let server = Server::start().await;
    let none = server.get("/templates").await.json();
    assert_eq!(none, json!({"only": false, "templates": []}));
    assert_eq!(server.get("/info").await.json()["policy"], false);
    let said = cli(&server, &["templates"]).good();
    assert!(said.text().contains("no command policy"), "{said:?}");
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("policy.toml");
    let text = "[template.greet]\ncommand = [\"/bin/echo\", \"{word}\"]\nparams.word = { type = \"enum\", values = [\"hello\"] }\n";
    std::fs::write(&policy, text).unwrap();
    let server = Server::builder()
        .args(["--policy", policy.to_str().unwrap()])
        .start()
        .await;
    let some = server.get("/templates").await.json();
    assert_eq!(some["only"], true);
    assert_eq!(some["templates"][0]["name"], "greet", "{some:#}");
    let command = json!(["/bin/echo", "{word}"]);
    assert_eq!(some["templates"][0]["command"], command);
    let word = &some["templates"][0]["params"]["properties"]["word"];
    assert_eq!(*word, json!({"type": "string", "enum": ["hello"]}));
    let listed = cli(&server, &["templates"]).good();
    let listed: Vec<Vec<&str>> = listed
        .text()
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        listed,
        [
            vec!["TEMPLATE", "PARAMETERS", "COMMAND"],
            vec!["greet", "word=hello", "/bin/echo", "{word}"]
        ]
    );
    let listed = cli(&server, &["templates", "--json"]).good().json();
    assert_eq!(listed, some);
    let job = json!({"template": "greet", "params": {"word": "hello"}});
    assert_eq!(server.run(&job).await["state"], "succeeded");
}

#[tokio::test]
async fn the_findings_are_those_of_the_command() {
    let server = Server::start().await;
    let told = server.get("/doctor").await;
    assert_eq!(told.status, 200, "{told}");
    let told = told.json();
    let findings = told["findings"].as_array().unwrap();
    let abouts: Vec<&str> = findings
        .iter()
        .filter_map(|it| it["about"].as_str())
        .collect();
    for about in [
        "listener",
        "auth",
        "state",
        "tokens",
        "containment",
        "sandbox",
        "workspaces",
    ] {
        assert!(abouts.contains(&about), "{told:#}");
    }
    let auth = findings.iter().find(|it| it["about"] == "auth").unwrap();
    assert_eq!(auth["verdict"], "ok");
    let info = server.get("/info").await.json();
    assert!(info["memory_bytes"].as_u64().unwrap() > 1 << 20, "{info:#}");
    assert!(
        info["free_bytes"].as_u64() < info["disk_bytes"].as_u64(),
        "{info:#}"
    );
}

#[tokio::test]
async fn what_happened_is_counted_by_the_minute_and_outlives_the_server() {
    let server = Server::start().await;
    server.run_script("exit 0").await;
    server.run_script("exit 1").await;
    let sum = |stats: &Value, field: &str| -> u64 {
        let steps = stats["steps"].as_array().unwrap();
        steps.iter().map(|step| step[field].as_u64().unwrap()).sum()
    };
    let stats = server.get("/stats").await.json();
    assert_eq!(stats["step_seconds"], 60);
    for (field, expected) in [
        ("created", 2),
        ("started", 2),
        ("succeeded", 1),
        ("failed", 1),
    ] {
        assert_eq!(sum(&stats, field), expected, "{field}: {stats:#}");
    }
    crate::harness::kill_now(server.server_process().unwrap());
    eventually("the next server with the same numbers", async || {
        let request = server.request(Method::GET, "/stats?step=3600");
        let answer = server.try_send(request).await.ok()?;
        (answer.status == 200 && sum(&answer.json(), "created") == 2).then_some(())
    })
    .await;
    for bad in ["step=5", "since=yesterday"] {
        let reply = server.get(&format!("/stats?{bad}")).await;
        assert_eq!(reply.status, 400, "{bad}: {reply}");
    }
}

#[tokio::test]
async fn a_recording_has_what_was_written_and_every_size() {
    let server = Server::start().await;
    let script =
        "stty size; trap 'stty size; exit' WINCH; echo ready €; while :; do sleep 0.05; done";
    let spec = json!({"script": script, "pty": {"rows": 24, "cols": 80}, "name": "recorded"});
    let job = id(&server.submit(&spec).await);
    eventually("its output", async || {
        server.text(&job).await.contains("ready").then_some(())
    })
    .await;
    let path = format!("/jobs/{job}/pty");
    let request = server.request(Method::PUT, &path);
    let resized = server
        .send(request.json(&json!({"rows": 50, "cols": 120})))
        .await;
    assert_eq!(resized.status, 204, "{resized}");
    server.finished(&job).await;
    let cast = server.get(&format!("/jobs/{job}/recording.cast")).await;
    assert_eq!(cast.status, 200, "{cast}");
    assert_eq!(cast.header("content-type"), "application/x-asciicast");
    let text = String::from_utf8(cast.body.to_vec()).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let head = &lines[0];
    assert_eq!(
        (&head["version"], &head["width"], &head["height"]),
        (&json!(2), &json!(80), &json!(24))
    );
    assert_eq!(head["title"], "recorded");
    let events = &lines[1..];
    let at = |index: usize| events[index][0].as_f64().unwrap();
    assert!(
        (1..events.len()).all(|index| at(index - 1) <= at(index)),
        "{text}"
    );
    let resize = events.iter().position(|event| event[1] == "r").unwrap();
    assert_eq!(events[resize][2], "120x50", "{text}");
    let written = |events: &[Value]| -> String {
        let output = events.iter().filter(|event| event[1] == "o");
        output.map(|event| event[2].as_str().unwrap()).collect()
    };
    assert_eq!(written(&events[..resize]), "24 80\r\nready €\r\n");
    assert_eq!(written(&events[resize..]), "50 120\r\n");
    let plain = id(&server.run_script("true").await);
    let none = server.get(&format!("/jobs/{plain}/recording.cast")).await;
    assert_eq!((none.status, none.code().as_str()), (409, "no_terminal"));
    let purged = server.delete(&job, "purge").await;
    assert_eq!(purged.status, 204, "{purged}");
    let left = std::fs::read_dir(server.state_dir().join("jobs")).unwrap();
    assert!(left.flatten().all(|entry| *entry.file_name() != *job));
}

#[tokio::test]
async fn processes_have_users_threads_and_what_they_read() {
    let server = Server::start().await;
    let job = id(&server.submit(&sleep("seen", "default")).await);
    server.in_state(&job, "running").await;
    let seen = server.get(&format!("/jobs/{job}/processes")).await.json();
    let process = &seen["processes"][0];
    assert_eq!(process["threads"], 1, "{seen:#}");
    assert!(
        process["user"].is_string() || process["user"].is_null(),
        "{seen:#}"
    );
    assert!(process["written_bytes"].is_u64(), "{seen:#}");
    let usage = server.get("/jobs/usage?label_selector=").await.json();
    assert_eq!(usage["usage"][0]["job_id"], *job, "{usage:#}");
    let both = server
        .get(&format!("/jobs/usage?label_selector=a&job_ids={job}"))
        .await;
    assert_eq!(both.status, 400, "{both}");
    server.stop(&job, "force").await;
}
