//! Files in and out: a directory for each job, what is put in before it starts, and what is kept of it.

pub(crate) mod archives;
mod commands;
pub(crate) mod crash;
mod ends;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Reply, Server, eventually, id, is_root};

const MODE: u32 = 0o777;

/// Where the job has its directory.
pub(super) fn workspace(server: &Server, id: &str) -> PathBuf {
    server.state_dir().join("workspaces").join(id)
}

/// The paths that are listed, each with whether it is an artifact.
async fn listed(server: &Server, id: &str, query: &str) -> Vec<(String, bool)> {
    let reply = server.get(&format!("/jobs/{id}/files{query}")).await;
    assert_eq!(reply.status, 200, "{reply}");
    let list = reply.json();
    let files = list["files"].as_array().unwrap().iter();
    let file = |it: &Value| {
        let path = it["path"].as_str().unwrap().to_owned();
        (path, it["artifact"].as_bool().unwrap())
    };
    files.map(file).collect()
}

async fn file(server: &Server, id: &str, path: &str) -> Reply {
    server.get(&format!("/jobs/{id}/files/{path}")).await
}

async fn text(server: &Server, id: &str, path: &str) -> String {
    let reply = file(server, id, path).await;
    assert_eq!(reply.status, 200, "{reply}");
    String::from_utf8(reply.body).unwrap()
}

async fn put(server: &Server, id: &str, path: &str, bytes: &'static str) -> Reply {
    let request = server.request(Method::PUT, &format!("/jobs/{id}/files/{path}"));
    server.send(request.body(bytes)).await
}

/// Nothing of it is left on disk.
async fn is_gone(server: &Server, id: &str) {
    let (workspaces, own) = (server.state_dir().join("workspaces"), workspace(server, id));
    eventually("the workspace is gone", async || {
        let trash = fs::read_dir(workspaces.join(".trash")).unwrap().count();
        (!own.exists() && trash == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn inputs_are_there_at_the_start_and_artifacts_after_the_end() {
    let server = Server::start().await;
    let job = server
        .run(&json!({
            "script": "pwd; echo $PROCESSION_WORKSPACE; mkdir -p out/tmp; sort in/a.txt > out/s.txt; cp run out/tmp/x; ./run; echo $((1+1)) > b.log",
            "inputs": [
                {"path": "in/a.txt", "text": "b\na\n"},
                {"path": "run", "base64": "IyEvYmluL3NoCmVjaG8gcmFuCg==", "mode": "0755"},
            ],
            "artifacts": {"paths": ["out", "*.log", "!out/tmp", "none/**"]},
        }))
        .await;
    assert_eq!(job["state"], "succeeded", "{job:#}");
    let id = id(&job);
    let own = workspace(&server, &id);
    let lines = format!("{0}\n{0}\nran\n", own.canonicalize().unwrap().display());
    assert_eq!(
        server.text(&id).await.replace(
            &own.display().to_string(),
            &own.canonicalize().unwrap().display().to_string()
        ),
        lines
    );
    assert_eq!(job["spec"]["workspace"], json!({"keep": "artifacts"}));
    let expected =
        json!({"files": 2, "bytes": 6, "truncated": false, "missing": ["none/**"], "error": null});
    assert_eq!(job["artifacts"], expected, "{job:#}");

    let expected = [("b.log", true), ("out", false), ("out/s.txt", true)];
    let expected = expected.map(|(path, is)| (path.to_owned(), is));
    assert_eq!(listed(&server, &id, "").await, expected);
    assert_eq!(text(&server, &id, "out/s.txt").await, "a\nb\n");
    for gone in ["run", "in/a.txt", "out/tmp/x", "nothing"] {
        let reply = file(&server, &id, gone).await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (404, "file_not_found"),
            "{gone}"
        );
    }
    // The rest goes, behind the scenes.
    eventually("the rest is gone", async || {
        let is_gone =
            !own.join("run").exists() && !own.join("in").exists() && !own.join("out/tmp").exists();
        is_gone.then_some(())
    })
    .await;
    assert_eq!(text(&server, &id, "b.log").await, "2\n");
    let events = server.get(&format!("/jobs/{id}/events?follow=false")).await;
    let events = String::from_utf8(events.body).unwrap();
    let artifacts = events.find("job.artifacts").expect(&events);
    assert!(artifacts < events.find("job.finished").unwrap(), "{events}");
}

#[tokio::test]
async fn a_job_that_is_stopped_or_fails_leaves_its_artifacts() {
    let server = Server::start().await;
    let body = |more: Value| {
        let mut body = json!({"script": "mkdir out; echo x > out/a; echo ready; exec sleep 600", "artifacts": {"paths": ["out/**"]}});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        body
    };
    let timed_out = id(&server.submit(&body(json!({"timeout_seconds": 3600}))).await);
    server.says(&timed_out, "ready").await;
    let ended = server.time_out(&timed_out).await;
    assert_eq!(ended["state"], "timed_out", "{ended:#}");
    let canceled = id(&server.submit(&body(json!({}))).await);
    server.says(&canceled, "ready").await;
    server.stop(&canceled, "").await;
    let killed = id(&server.submit(&body(json!({}))).await);
    server.says(&killed, "ready").await;
    let signal = json!({"signal": "SIGKILL"});
    assert_eq!(
        server
            .post(&format!("/jobs/{killed}/signal"), &signal)
            .await
            .status,
        200
    );
    for id in [timed_out, canceled, killed] {
        let job = server.finished(&id).await;
        assert_eq!(job["artifacts"]["files"], 1, "{job:#}");
        assert_eq!(text(&server, &id, "out/a").await, "x\n");
    }
}

#[tokio::test]
async fn artifacts_of_successes_alone_are_none_of_a_failure() {
    let server = Server::start().await;
    let run = async |exit: u8, when: &str| {
        let artifacts = json!({"paths": ["a"], "when": when});
        let body = json!({"script": format!("echo x > a; exit {exit}"), "artifacts": artifacts});
        let job = server.run(&body).await;
        assert_eq!(job["artifacts"]["error"], Value::Null, "{job:#}");
        job["artifacts"]["files"].as_u64().unwrap()
    };
    assert_eq!(run(0, "success").await, 1);
    assert_eq!(run(3, "success").await, 0);
    assert_eq!(run(0, "failure").await, 0);
    assert_eq!(run(3, "failure").await, 1);
}

#[tokio::test]
async fn what_is_kept_is_as_the_job_says() {
    let server = Server::start().await;
    for (keep, left) in [("all", 2), ("none", 0), ("artifacts", 1)] {
        let job = server
            .run(&json!({"script": "echo > a; echo > b", "workspace": {"keep": keep}, "artifacts": {"paths": ["a"]}}))
            .await;
        let files = listed(&server, &id(&job), "").await;
        assert_eq!(files.len(), left, "{keep}: {files:?}");
        if keep == "none" {
            is_gone(&server, &id(&job)).await;
        }
    }
}

#[tokio::test]
async fn links_pipes_and_files_of_others_are_read_by_no_route() {
    let server = Server::start().await;
    let token = server.state_dir().join("token");
    let outside = server.scratch().join("secret");
    fs::write(&outside, "hidden").unwrap();
    let script = format!(
        "mkdir out; cd out; ln -s {outside} x; ln -s .. up; mkfifo p; ln {token} t; echo fine > f; ln f g; ln -s f l",
        outside = outside.display(),
        token = token.display(),
    );
    let job = server
        .run(&json!({"script": script, "artifacts": {"paths": ["out/**"]}, "workspace": {"keep": "all"}}))
        .await;
    assert_eq!(job["state"], "succeeded", "{job:#}");
    let id = id(&job);
    // Two names of one file of its own are two artifacts.
    assert_eq!(job["artifacts"]["files"], 2, "{job:#}");
    for bad in ["out/x", "out/p", "out/t", "out/l", "out", "out/up/out/f"] {
        let reply = file(&server, &id, bad).await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (409, "not_a_file"),
            "{bad}: {reply}"
        );
    }
    assert_eq!(text(&server, &id, "out/g").await, "fine\n");
    let names: Vec<String> = listed(&server, &id, "?path=out")
        .await
        .into_iter()
        .map(|it| it.0)
        .collect();
    assert_eq!(names, ["out/f", "out/g", "out/l", "out/up", "out/x"]);
}

#[tokio::test]
async fn paths_that_lead_elsewhere_are_refused_and_leave_nothing() {
    let server = Server::start().await;
    let long = "x/".repeat(2500) + "x";
    let bad = [
        "../x",
        "/etc/x",
        "a/../../b",
        "a\0b",
        "",
        "a//b",
        ".",
        "a/",
        &long,
        &"n".repeat(256),
    ];
    for path in bad {
        let body = json!({"command": ["true"], "inputs": [{"path": "ok", "text": ""}, {"path": path, "text": "x"}]});
        let reply = server.post("/jobs", &body).await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (422, "invalid_spec"),
            "{path:?}"
        );
        assert_eq!(
            reply.json()["errors"][0]["pointer"],
            "/inputs/1/path",
            "{reply}"
        );
        let body = json!({"command": ["true"], "artifacts": {"paths": ["ok", path]}});
        let reply = server.post("/jobs", &body).await;
        if path != "a/" {
            assert_eq!(
                reply.json()["errors"][0]["pointer"],
                "/artifacts/paths/1",
                "{path:?} {reply}"
            );
        }
    }
    for (body, pointer) in [
        (
            json!({"inputs": [{"path": "a", "text": ""}, {"path": "a/b", "text": ""}]}),
            "/inputs/1",
        ),
        (json!({"inputs": [{"path": "a"}]}), "/inputs/0/text"),
        (
            json!({"inputs": [{"path": "a", "text": "", "base64": ""}]}),
            "/inputs/0/base64",
        ),
        (
            json!({"inputs": [{"path": "a", "text": "", "mode": "4755"}]}),
            "/inputs/0/mode",
        ),
        (json!({"workspace": {"keep": "some"}}), "/workspace/keep"),
        (json!({"workspace": true, "cwd": "../x"}), "/cwd"),
        (json!({"cwd": "x"}), "/cwd"),
        (json!({"artifacts": {"paths": []}}), "/artifacts/paths"),
    ] {
        let mut body = body;
        body["command"] = json!(["true"]);
        let reply = server.post("/jobs", &body).await;
        assert_eq!(reply.status, 422, "{reply}");
        assert_eq!(reply.json()["errors"][0]["pointer"], pointer, "{reply}");
    }
    let held = id(&server
        .submit(&json!({"command": ["true"], "hold": true, "workspace": true}))
        .await);
    for path in [
        "..%2Fx",
        "a%2F..%2F..%2Fb",
        "%2Fetc%2Fx",
        "a%00b",
        "a//b",
        &"n".repeat(256),
    ] {
        let reply = put(&server, &held, path, "x").await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (422, "invalid_path"),
            "{path}: {reply}"
        );
    }
    let jobs = server.get("/jobs").await.json().to_string();
    let of_refused: Vec<_> = fs::read_dir(server.state_dir().join("workspaces"))
        .unwrap()
        .map(|it| it.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.') && !jobs.contains(name))
        .collect();
    assert_eq!(of_refused, Vec::<String>::new());
}

#[tokio::test]
async fn two_jobs_write_the_same_names_and_see_their_own() {
    let server = Server::start().await;
    let run = |word: &'static str| {
        let script = format!("echo {word} > same; echo ready; read x; cat same; ls");
        json!({"script": script, "workspace": {"keep": "all"}, "stdin": {"mode": "open"}})
    };
    let one = id(&server.submit(&run("one")).await);
    let two = id(&server.submit(&run("two")).await);
    for job in [&one, &two] {
        server.says(job, "ready").await;
    }
    for job in [&one, &two] {
        let input = server.request(Method::POST, &format!("/jobs/{job}/stdin"));
        assert_eq!(server.send(input.body("go\n")).await.status, 204);
    }
    for (job, word) in [(&one, "one"), (&two, "two")] {
        let job = server.finished(job).await;
        let expected = format!("ready\n{word}\nsame\n");
        assert_eq!(server.text(&id(&job)).await, expected, "{job:#}");
        assert_eq!(text(&server, &id(&job), "same").await, format!("{word}\n"));
    }
}

#[tokio::test]
async fn a_confined_job_reads_and_writes_its_own_workspace_and_no_other() {
    let server = Server::start().await;
    let info = server.get("/info").await.json();
    if info["sandbox"]["landlock_abi"].is_null() {
        return;
    }
    let other = server
        .run(&json!({"script": "echo hidden > a", "workspace": {"keep": "all"}}))
        .await;
    let other = workspace(&server, &id(&other)).join("a");
    assert!(other.exists());
    for sandbox in [json!({}), json!({"writable_paths": ["/dev"]})] {
        let script = format!(
            "cat {0}; echo no > {0}; echo mine > b; cat b; echo home $HOME",
            other.display()
        );
        let body = json!({"script": script, "sandbox": sandbox, "workspace": true, "output": {"merge_stderr": true}});
        let job = server.run(&body).await;
        let text = server.text(&id(&job)).await;
        assert!(text.contains("mine") && !text.contains("hidden"), "{text}");
        assert!(text.contains("Permission denied"), "{text}");
    }
    assert_eq!(fs::read_to_string(&other).unwrap(), "hidden\n");
    // One without a workspace sees none either.
    let script = format!("cat {}", other.display());
    let job = server.run(&json!({"script": script, "sandbox": {}})).await;
    assert_eq!(job["state"], "failed", "{job:#}");
}

#[tokio::test]
async fn a_growing_file_is_sent_as_long_as_it_was_announced_and_in_ranges() {
    let server = Server::start().await;
    let script = "printf 0123456789 > f; echo ready; read go; printf abc >> f; echo grown; read go";
    let job = id(&server
        .submit(&json!({"script": script, "workspace": true, "stdin": {"mode": "open"}}))
        .await);
    server.says(&job, "ready").await;
    let whole = file(&server, &job, "f").await;
    assert_eq!(
        (whole.header("content-length"), &*whole.body),
        ("10", &b"0123456789"[..])
    );
    let tag = whole.header("etag").to_owned();
    let ranged = async |range: &str, condition: &str| {
        let request = server.request(Method::GET, &format!("/jobs/{job}/files/f"));
        let request = request.header("range", range);
        let reply = server.send(request.header("if-range", condition)).await;
        (reply.status, String::from_utf8(reply.body).unwrap())
    };
    assert_eq!(ranged("bytes=4-", &tag).await, (206, "456789".to_owned()));
    let same = server.request(Method::GET, &format!("/jobs/{job}/files/f"));
    assert_eq!(
        server.send(same.header("if-none-match", &tag)).await.status,
        304
    );
    server
        .send(
            server
                .request(Method::POST, &format!("/jobs/{job}/stdin"))
                .body("\n"),
        )
        .await;
    server.says(&job, "grown").await;
    // Another file by now: the range is not of it.
    assert_eq!(
        ranged("bytes=4-", &tag).await,
        (200, "0123456789abc".to_owned())
    );
    let request = server.request(Method::GET, &format!("/jobs/{job}/files/f"));
    let beyond = server.send(request.header("range", "bytes=13-")).await;
    assert_eq!(beyond.status, 416, "{beyond}");
    for (header, value) in [
        (
            "content-disposition",
            "attachment; filename=\"f\"; filename*=UTF-8''f",
        ),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "sandbox"),
    ] {
        assert_eq!(whole.header(header), value);
    }
}

#[tokio::test]
async fn files_are_put_into_a_held_job_and_replaced_and_removed() {
    let server = Server::start().await;
    let body = json!({"script": "cat in/a in/b; ls in", "hold": true, "cwd": ".", "inputs": [{"path": "in/b", "text": "inline\n"}]});
    let mut body = body;
    body.as_object_mut().unwrap().remove("cwd");
    let held = id(&server.submit(&body).await);
    assert_eq!(text(&server, &held, "in/b").await, "inline\n");
    assert_eq!(put(&server, &held, "in/a", "one\n").await.status, 201);
    assert_eq!(put(&server, &held, "in/a", "two\n").await.status, 204);
    let request = server.request(Method::PUT, &format!("/jobs/{held}/files/in/a"));
    let refused = server
        .send(request.header("if-none-match", "*").body("x"))
        .await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (412, "precondition_failed")
    );
    assert_eq!(put(&server, &held, "in/c", "").await.status, 201);
    let remove = |path: &str| {
        server.send(server.request(Method::DELETE, &format!("/jobs/{held}/files/{path}")))
    };
    assert_eq!(remove("in/c").await.status, 204);
    assert_eq!(remove("in/c").await.code(), "file_not_found");
    assert_eq!(remove("in").await.code(), "not_a_file");
    assert_eq!(put(&server, &held, "in/a/x", "").await.code(), "not_a_file");
    assert_eq!(put(&server, &held, "in", "").await.code(), "not_a_file");
    let mode = server.request(Method::PUT, &format!("/jobs/{held}/files/run?mode=0750"));
    assert_eq!(server.send(mode.body("x")).await.status, 201);
    let found = fs::metadata(workspace(&server, &held).join("run")).unwrap();
    assert_eq!(found.permissions().mode() & MODE, 0o750);
    assert_eq!(
        server
            .post(&format!("/jobs/{held}/release"), &Value::Null)
            .await
            .status,
        200
    );
    let job = server.finished(&held).await;
    assert_eq!(server.text(&held).await, "two\ninline\na\nb\n", "{job:#}");
    let late = put(&server, &held, "in/a", "x").await;
    assert_eq!(late.code(), "job_already_finished");
    let plain = id(&server.run_script("true").await);
    assert_eq!(put(&server, &plain, "a", "x").await.code(), "no_workspace");
    assert_eq!(file(&server, &plain, "a").await.code(), "no_workspace");
    assert_eq!(
        server.get(&format!("/jobs/{plain}/files")).await.code(),
        "no_workspace"
    );
}

#[tokio::test]
async fn a_list_has_pages_and_levels() {
    let server = Server::start().await;
    let script = "mkdir -p a/b; for i in 1 2 3; do echo > a/$i; echo > a/b/$i; done; echo > z";
    let job = id(&server
        .run(&json!({"script": script, "workspace": {"keep": "all"}}))
        .await);
    let all = listed(&server, &job, "").await;
    assert_eq!(all.len(), 9);
    let names = async |query: &str| {
        let files = listed(&server, &job, query)
            .await
            .into_iter()
            .map(|it| it.0);
        files.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names("?depth=1").await, "a z");
    assert_eq!(names("?path=a&depth=1").await, "a/1 a/2 a/3 a/b");
    assert_eq!(names("?path=a/b").await, "a/b/1 a/b/2 a/b/3");
    let mut paged = Vec::new();
    let mut query = "?page_size=4".to_owned();
    loop {
        let page = server
            .get(&format!("/jobs/{job}/files{query}"))
            .await
            .json();
        paged.extend(
            page["files"]
                .as_array()
                .unwrap()
                .iter()
                .map(|it| it["path"].as_str().unwrap().to_owned()),
        );
        let Some(token) = page["next_page_token"].as_str() else {
            break;
        };
        query = format!("?page_size=4&page_token={token}");
    }
    assert_eq!(paged, all.into_iter().map(|it| it.0).collect::<Vec<_>>());
    // A page has a thousand unless more are asked for.
    let many =
        json!({"script": "mkdir d; cd d; seq 1200 | xargs touch", "workspace": {"keep": "all"}});
    let job = id(&server.run(&many).await);
    for (query, found) in [("", 1000), ("?page_size=5000", 1201)] {
        let page = server.get(&format!("/jobs/{job}/files{query}")).await;
        let page = page.json();
        assert_eq!(page["files"].as_array().unwrap().len(), found, "{query}");
        assert_eq!(page["next_page_token"].is_null(), found > 1000, "{query}");
    }
}

#[tokio::test]
async fn a_relative_directory_is_within_the_workspace_and_a_retry_finds_what_was_left() {
    let server = Server::start().await;
    let job = server
        .run(&json!({
            "script": "pwd; echo x >> tries; cat tries; [ $PROCESSION_ATTEMPT = 2 ]",
            "cwd": "src", "inputs": [{"path": "src/main", "text": ""}],
            "artifacts": {"paths": ["src/tries"]},
            "retry": {"max_attempts": 3, "backoff": {"initial_seconds": 0}},
        }))
        .await;
    assert_eq!(
        (&job["state"], &job["attempt"]),
        (&json!("succeeded"), &json!(2)),
        "{job:#}"
    );
    assert_eq!(text(&server, &id(&job), "src/tries").await, "x\nx\n");
    assert!(
        server
            .text(&id(&job))
            .await
            .contains(&format!("/workspaces/{}/src\n", id(&job)))
    );
    // A rerun begins with its inputs alone.
    let again = server
        .post(&format!("/jobs/{}/rerun?wait=30", id(&job)), &json!({}))
        .await
        .json();
    assert_eq!(
        text(&server, &id(&again), "src/tries").await,
        "x\nx\n",
        "{again:#}"
    );
}

#[tokio::test]
async fn a_purged_job_leaves_no_byte_behind() {
    let server = Server::start().await;
    let script = "mkdir -p a/b/c; echo > a/b/c/d; chmod 0 a/b; mkdir e; chmod 0 e";
    let job = id(&server
        .run(&json!({"script": script, "workspace": {"keep": "all"}}))
        .await);
    assert!(workspace(&server, &job).exists());
    assert_eq!(server.delete(&job, "purge=true").await.status, 204);
    is_gone(&server, &job).await;
}

#[tokio::test]
async fn limits_on_artifacts_leave_the_workspace_whole() {
    let server = Server::start().await;
    let job = server
        .run(&json!({"script": "for i in 1 2 3; do echo $i > f$i; done; echo > other", "artifacts": {"paths": ["f*"], "max_files": 2}}))
        .await;
    assert_eq!(job["artifacts"]["truncated"], true, "{job:#}");
    assert_eq!(job["artifacts"]["files"], 2, "{job:#}");
    let listed = listed(&server, &id(&job), "").await;
    assert_eq!(listed.len(), 4, "{listed:?}");
}

#[tokio::test]
async fn files_belong_to_the_user_of_the_job() {
    if !is_root() {
        return;
    }
    let scratch = std::env::temp_dir().join(format!(
        "procession-workspaces-{}",
        crate::harness::unique()
    ));
    fs::create_dir(&scratch).unwrap();
    fs::set_permissions(&scratch, PermissionsExt::from_mode(0o755)).unwrap();
    let own = scratch.join("workspaces");
    let arg = format!("--workspaces-dir={}", own.display());
    let server = Server::builder().args([arg]).start().await;
    let body = json!({"script": "id -u; cat a; echo x > b; cat ../*/a", "user": 65534, "group": 65534,
        "inputs": [{"path": "a", "text": "in\n"}], "artifacts": {"paths": ["b", "l"]}});
    let job = server.run(&body).await;
    assert!(
        server.stdout(&id(&job)).await.starts_with("65534\nin\n"),
        "{job:#}"
    );
    assert_eq!(text(&server, &id(&job), "b").await, "x\n");
    let found = fs::metadata(own.join(id(&job))).unwrap();
    assert_eq!((found.uid(), found.mode() & MODE), (65534, 0o700));
    server.delete(&id(&job), "purge=true").await;
    drop(server);
    fs::remove_dir_all(scratch).unwrap();
    // In the state directory, nobody else could get there.
    let server = Server::start().await;
    let reply = server.post("/jobs", &body).await;
    assert_eq!(reply.status, 422, "{reply}");
    assert_eq!(
        reply.json()["errors"][0]["pointer"],
        "/workspace",
        "{reply}"
    );
}
