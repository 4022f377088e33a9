//! Jobs that are changed while they wait, run or are over, and requests on many of them.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::cli;
use crate::harness::{Process, Reply, Server, eventually, id, unique_seconds};

const PATCH: &str = "application/merge-patch+json";

pub(crate) async fn patch(server: &Server, job: &str, body: &Value) -> Reply {
    let request = server
        .request(Method::PATCH, &format!("/jobs/{job}"))
        .header("content-type", PATCH)
        .body(body.to_string());
    server.send(request).await
}

async fn act(server: &Server, job: &str, action: &str) -> Reply {
    let path = format!("/jobs/{job}/{action}");
    server.send(server.request(Method::POST, &path)).await
}

async fn rerun(server: &Server, job: &str, body: &Value) -> Reply {
    let request = server
        .request(Method::POST, &format!("/jobs/{job}/rerun?wait=30"))
        .header("content-type", PATCH)
        .body(body.to_string());
    server.send(request).await
}

fn sleep() -> Value {
    json!({"command": ["sleep", unique_seconds()]})
}

#[tokio::test]
async fn a_patch_that_changes_nothing_leaves_the_version_alone() {
    let server = Server::start().await;
    let running = id(&server.submit(&sleep()).await);
    server.in_state(&running, "running").await;
    let held = json!({"command": ["true"], "hold": true, "name": "held"});
    let waiting = id(&server.submit(&held).await);
    for job in [running, waiting] {
        let before = server.get(&format!("/jobs/{job}")).await.json();
        for body in [json!({}), json!({"name": before["name"]})] {
            let same = patch(&server, &job, &body).await;
            assert_eq!(same.status, 200, "{same}");
            assert_eq!(same.json()["version"], before["version"], "{body}");
        }
        let other = patch(&server, &job, &json!({"name": "other"})).await.json();
        let version = before["version"].as_u64().unwrap();
        assert_eq!(other["version"], version + 1);
    }
}

fn state_of(pid: i32) -> char {
    Process::read(pid).map_or('-', |process| process.state)
}

#[tokio::test]
async fn a_paused_job_stands_still_with_its_clock_until_it_is_resumed() {
    let server = Server::start().await;
    let seconds = unique_seconds();
    let body = json!({"script": format!("sleep {seconds} & setsid sleep {seconds} & wait"), "timeout_seconds": 3600});
    let job = id(&server.submit(&body).await);
    let members = eventually("three processes", async || {
        let list = server.get(&format!("/jobs/{job}/processes")).await.json();
        let list = list["processes"].as_array()?.clone();
        (list.len() == 3).then_some(list)
    })
    .await;
    let pids: Vec<i32> = members
        .iter()
        .map(|one| i32::try_from(one["pid"].as_i64().unwrap()).unwrap())
        .collect();
    for _ in 0..2 {
        let paused = act(&server, &job, "pause").await;
        assert_eq!(
            (paused.status, &paused.json()["state"]),
            (200, &json!("paused"))
        );
        assert_eq!(paused.json()["deadline_at"], Value::Null);
    }
    for pid in &pids {
        eventually("it stands still", async || {
            (state_of(*pid) == 'T').then_some(())
        })
        .await;
    }
    for _ in 0..2 {
        let resumed = act(&server, &job, "resume").await;
        assert_eq!(
            (resumed.status, &resumed.json()["state"]),
            (200, &json!("running"))
        );
        assert_ne!(resumed.json()["deadline_at"], Value::Null);
    }
    for pid in &pids {
        eventually("it goes on", async || (state_of(*pid) != 'T').then_some(())).await;
    }
    // A paused job can be stopped.
    act(&server, &job, "pause").await;
    server.stop(&job, "").await;
    let late = act(&server, &job, "pause").await;
    assert_eq!(
        (late.status, late.code().as_str()),
        (409, "job_already_finished")
    );
}

#[tokio::test]
async fn a_running_timeout_can_be_extended_shortened_and_dropped() {
    let server = Server::start().await;
    let mut body = sleep();
    body["timeout_seconds"] = json!(3600);
    let job = server.submit(&body).await;
    let deadline = |job: &Value| job["deadline_at"].as_str().map(str::to_owned);
    let first = deadline(&job).unwrap();
    let job = id(&job);
    let extended = patch(&server, &job, &json!({"timeout_seconds": 7200})).await;
    assert_eq!(extended.status, 200, "{extended}");
    let extended = extended.json();
    assert!(deadline(&extended).unwrap() > first);
    assert_eq!(extended["spec"]["timeout_seconds"], 7200);
    let dropped = patch(&server, &job, &json!({"timeout_seconds": null}))
        .await
        .json();
    assert_eq!(
        (deadline(&dropped), &dropped["spec"]["timeout_seconds"]),
        (None, &Value::Null)
    );
    // What it has run counts: this one has passed already.
    let began = Instant::now();
    let ended = server.time_out(&job).await;
    assert_eq!(ended["state"], "timed_out", "{ended:#}");
    assert!(began.elapsed() < Duration::from_secs(8));
    let late = patch(&server, &job, &json!({"timeout_seconds": 5})).await;
    assert_eq!(
        (late.status, late.code().as_str()),
        (409, "job_already_finished")
    );
    let kept = patch(
        &server,
        &job,
        &json!({"name": "late", "ttl_seconds_after_finished": 60}),
    )
    .await;
    assert_eq!((kept.status, &kept.json()["name"]), (200, &json!("late")));
    assert!(kept.json()["expires_at"].as_str() < ended["expires_at"].as_str());
    assert_eq!(server.job(&job).await, kept.json());
}

#[tokio::test]
async fn a_changed_stop_is_the_one_that_is_followed_also_by_the_next_server() {
    let server = Server::start().await;
    let script = format!(
        "trap 'echo usr1; exit 0' USR1; echo ready; sleep {} & wait",
        unique_seconds()
    );
    let job = id(&server.submit(&json!({ "script": script })).await);
    server.says(&job, "ready").await;
    let changed = patch(
        &server,
        &job,
        &json!({"stop": {"signal": "SIGUSR1"}, "labels": {"a": "b"}}),
    )
    .await;
    assert_eq!(changed.status, 200, "{changed}");
    let pid = server.get("/info").await.json()["server_pid"]
        .as_i64()
        .unwrap();
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL).unwrap();
    let job_now = eventually("the next server answers", async || {
        let path = format!("/jobs/{job}");
        let response = server.request(Method::GET, &path).send().await.ok()?;
        response.json::<Value>().await.ok()
    })
    .await;
    assert_eq!(
        job_now["spec"]["stop"],
        json!({"signal": "SIGUSR1", "grace_seconds": 10, "scope": "group"})
    );
    assert_eq!(job_now["labels"], json!({"a": "b"}));
    let ended = server.stop(&job, "").await;
    assert_eq!(
        ended["termination"]["signals_sent"][0]["signal"], "SIGUSR1",
        "{ended:#}"
    );
    assert!(server.text(&job).await.contains("usr1"));
}

#[tokio::test]
async fn a_queued_job_changes_its_place() {
    let server = Server::builder().args(["--max-running", "1"]).start().await;
    let cwd = server.scratch();
    let first = id(&server.submit(&sleep()).await);
    let job = async |name: &str| {
        let body = json!({"script": format!("echo {name} >> order"), "cwd": cwd});
        id(&server.submit(&body).await)
    };
    let (a, b, c) = (job("a").await, job("b").await, job("c").await);
    let moved = patch(
        &server,
        &c,
        &json!({"priority": 5, "queue": "fast", "labels": {"x": "y"}}),
    )
    .await;
    assert_eq!(moved.status, 200, "{moved}");
    assert_eq!(moved.json()["spec"]["queue"], "fast");
    assert_eq!(
        patch(&server, &a, &json!({"priority": -1})).await.status,
        200
    );
    let running = patch(&server, &first, &json!({"priority": 1})).await;
    assert_eq!(
        (running.status, running.code().as_str()),
        (409, "job_not_queued")
    );
    let paused = act(&server, &a, "pause").await;
    assert_eq!(
        (paused.status, paused.code().as_str()),
        (409, "job_not_started")
    );
    server.stop(&first, "force").await;
    for job in [&a, &b, &c] {
        server.finished(job).await;
    }
    let order = std::fs::read_to_string(cwd.join("order")).unwrap();
    assert_eq!(order, "c\nb\na\n");
}

#[tokio::test]
async fn a_patch_is_bound_to_a_version_and_to_the_rules() {
    let server = Server::start().await;
    let job = server.submit(&sleep()).await;
    let job = id(&job);
    let etag = server
        .get(&format!("/jobs/{job}"))
        .await
        .header("etag")
        .to_owned();
    let bound = async |tag: &str, name: &str| {
        let request = server
            .request(Method::PATCH, &format!("/jobs/{job}"))
            .header("content-type", PATCH)
            .header("if-match", tag)
            .body(json!({ "name": name }).to_string());
        server.send(request).await
    };
    let first = bound(&etag, "one").await;
    assert_eq!((first.status, &first.json()["name"]), (200, &json!("one")));
    let second = bound(&etag, "two").await;
    assert_eq!(
        (second.status, second.code().as_str()),
        (412, "precondition_failed")
    );
    assert_eq!(bound("*", "three").await.status, 200);
    for (body, pointer, code) in [
        (json!({"command": ["true"]}), "/command", "unknown_field"),
        (json!({"typo": null}), "/typo", "unknown_field"),
        (
            json!({"stop": {"typo": null}}),
            "/stop/typo",
            "unknown_field",
        ),
        (
            json!({"timeout_seconds": 0}),
            "/timeout_seconds",
            "out_of_range",
        ),
        (json!({"labels": {"-": "x"}}), "/labels/-", "invalid_value"),
        (
            json!({"stop": {"signal": "SIGNOT"}}),
            "/stop/signal",
            "invalid_value",
        ),
        (
            json!({"ttl_seconds_after_finished": 1}),
            "/ttl_seconds_after_finished",
            "out_of_range",
        ),
    ] {
        let reply = patch(&server, &job, &body).await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (422, "invalid_body"),
            "{body}"
        );
        let error = &reply.json()["errors"][0];
        assert_eq!(
            (&error["pointer"], &error["code"]),
            (&json!(pointer), &json!(code))
        );
    }
    let path = format!("/jobs/{job}");
    let plain = server
        .send(
            server
                .request(Method::PATCH, &path)
                .header("content-type", "text/plain")
                .body(r#"{"name": "x"}"#),
        )
        .await;
    assert_eq!(plain.status, 415);
    // Many at a time: each one takes effect.
    let labels = (0..12).map(|number| {
        let body = json!({"labels": {format!("l{number}"): "x"}});
        let (server, job) = (&server, &job);
        async move {
            loop {
                let reply = patch(server, job, &body).await;
                if reply.status == 200 {
                    return;
                }
                assert_eq!(reply.status, 412, "{reply}");
            }
        }
    });
    futures_util::future::join_all(labels).await;
    let now = server.job(&job).await;
    assert_eq!(now["labels"].as_object().unwrap().len(), 12, "{now:#}");
    server.stop(&job, "force").await;
}

#[tokio::test]
async fn a_rerun_is_the_same_job_but_for_the_patch() {
    let server = Server::start().await;
    let body = json!({"script": "echo $WORD $TOKEN; exit 3", "env": {"WORD": "one"}, "secret_env": {"TOKEN": "hunter2"}, "name": "n", "labels": {"a": "b"}});
    let first = server.run(&body).await;
    let bare = act(&server, &id(&first), "rerun").await;
    assert_eq!((bare.status, bare.code().as_str()), (422, "invalid_spec"));
    assert_eq!(bare.json()["errors"][0]["pointer"], "/secret_env/TOKEN");
    let again = rerun(
        &server,
        &id(&first),
        &json!({"secret_env": {"TOKEN": "x"}, "env": {"WORD": "two"}}),
    )
    .await;
    assert_eq!(again.status, 201, "{again}");
    let again = again.json();
    assert_eq!(again["rerun_of"], first["id"]);
    assert_eq!(
        (&again["name"], &again["labels"], &again["exit"]["code"]),
        (&json!("n"), &json!({"a": "b"}), &json!(3))
    );
    assert_eq!(server.text(&id(&again)).await, "two x\n");
    let other = rerun(
        &server,
        &id(&first),
        &json!({"secret_env": null, "command": ["echo", "three"]}),
    )
    .await;
    assert_eq!(other.status, 201, "{other}");
    assert_eq!(server.text(&id(&other.json())).await, "three\n");
    let wrong = rerun(
        &server,
        &id(&first),
        &json!({"secret_env": null, "comand": 1}),
    )
    .await;
    assert_eq!((wrong.status, wrong.code().as_str()), (422, "invalid_spec"));
    let wrong = rerun(
        &server,
        &id(&first),
        &json!({"secret_env": null, "limits": {"typo": null}}),
    )
    .await;
    assert_eq!((wrong.status, wrong.code().as_str()), (422, "invalid_spec"));
    assert_eq!(wrong.json()["errors"][0]["pointer"], "/limits/typo");
    let plain = server.run_script("true").await;
    let same = act(&server, &id(&plain), "rerun?wait=30").await;
    assert_eq!(
        (same.status, &same.json()["state"]),
        (201, &json!("succeeded"))
    );
}

#[tokio::test]
async fn any_or_all_of_many_jobs_are_waited_for() {
    let server = Server::start().await;
    let cwd = server.scratch();
    let mut slow = sleep();
    slow["labels"] = json!({"batch": "7"});
    let slow = id(&server.submit(&slow).await);
    let gated = async || {
        let script = "rm -f gate; mkfifo gate; echo ready; read _ < gate";
        let quick = json!({"script": script, "cwd": cwd, "labels": {"batch": "7"}});
        let quick = id(&server.submit(&quick).await);
        server.says(&quick, "ready").await;
        quick
    };
    let mut quick = gated().await;
    let ids = json!([slow, quick]);
    let none = server
        .post("/jobs/wait", &json!({"job_ids": ids, "mode": "any"}))
        .await
        .json();
    assert_eq!(none["satisfied"], false);
    let mut tries = 0;
    loop {
        let wait = json!({"label_selector": "batch=7", "mode": "any", "timeout_seconds": 2});
        let waiting = server.post("/jobs/wait", &wait);
        let ending = async { std::fs::write(cwd.join("gate"), "\n").unwrap() };
        let (any, ()) = tokio::join!(waiting, ending);
        let any = any.json();
        let count = any["jobs"].as_array().unwrap().len();
        if count == 2 {
            assert_eq!(any["satisfied"], true);
            break;
        }
        // The job had ended before the request was there, which then waits for the other one alone.
        assert_eq!((count, &any["satisfied"]), (1, &json!(false)));
        tries += 1;
        assert!(tries < 20, "no request came before the end of its job");
        quick = gated().await;
    }
    let ids = json!([slow, quick]);
    let all = json!({"job_ids": ids, "mode": "all", "timeout_seconds": 0.05});
    assert_eq!(
        server.post("/jobs/wait", &all).await.json()["satisfied"],
        false
    );
    server.stop(&slow, "force").await;
    let all = server.post("/jobs/wait", &all).await.json();
    assert_eq!(all["satisfied"], true);
    assert_eq!(
        (&all["jobs"][0]["id"], &all["jobs"][1]["id"]),
        (&json!(slow), &json!(quick))
    );
    let nobody = json!({"job_ids": ["0198c1d2-7b3a-7c4e-9f10-2a6b3c4d5e6f"]});
    assert_eq!(server.post("/jobs/wait", &nobody).await.status, 404);
    for wrong in [
        json!({}),
        json!({"job_ids": [], "label_selector": "a"}),
        json!({"job_ids": ["x"]}),
        json!({"label_selector": ""}),
        json!({"label_selector": "a", "mode": "some"}),
        json!({"label_selector": "a", "timeout": 1}),
    ] {
        let reply = server.post("/jobs/wait", &wrong).await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (422, "invalid_body"),
            "{wrong}"
        );
    }
}

#[tokio::test]
async fn all_jobs_that_match_are_stopped_and_no_other() {
    let server = Server::builder().args(["--max-running", "3"]).start().await;
    let mut jobs = Vec::new();
    for (label, count) in [("stop", 3), ("keep", 1), ("stop", 1)] {
        for _ in 0..count {
            let mut body = sleep();
            body["labels"] = json!({ "group": label });
            jobs.push(id(&server.submit(&body).await));
        }
    }
    for empty in [
        json!({}),
        json!({"label_selector": ""}),
        json!({"label_selector": " "}),
    ] {
        let reply = server.post("/jobs/stop", &empty).await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (422, "invalid_body"),
            "{empty}"
        );
    }
    let body = json!({"label_selector": "group=stop", "reason": "over", "grace_seconds": 5});
    let reply = server.post("/jobs/stop", &body).await;
    assert_eq!(reply.status, 207, "{reply}");
    let reply = reply.json();
    let results = reply["results"].as_array().unwrap();
    assert_eq!(results.len(), 4, "{reply:#}");
    for result in results {
        let ended = server.finished(result["id"].as_str().unwrap()).await;
        assert_eq!(
            (&ended["state"], &ended["termination"]["reason"]),
            (&json!("canceled"), &json!("over"))
        );
    }
    let kept = server.in_state(&jobs[3], "running").await;
    assert_eq!(kept["labels"]["group"], "keep");
    server.stop(&jobs[3], "force").await;
}

#[tokio::test]
async fn a_draining_service_takes_no_new_jobs_and_lets_the_others_run() {
    let server = Server::start().await;
    let job = id(&server.submit(&sleep()).await);
    let held = json!({"command": ["true"], "hold": true});
    let held = id(&server.submit(&held).await);
    let drained = server.send(server.request(Method::POST, "/drain")).await;
    assert_eq!(
        (drained.status, drained.json()),
        (202, json!({"draining": true, "running": 1, "queued": 1}))
    );
    let refused = server.post("/jobs", &sleep()).await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "draining"));
    assert!(!refused.header("retry-after").is_empty());
    // Neither asks for a token; a probe of a lone service goes on sending clients to their jobs.
    for (path, status) in [("/readyz", 503), ("/readyz?serving", 200)] {
        let probe = server.anonymous(Method::GET, path);
        assert_eq!(server.send(probe).await.status, status, "{path}");
    }
    assert_eq!(server.get("/info").await.json()["draining"], true);
    assert_eq!(server.job(&job).await["state"], "running");
    let undone = server.send(server.request(Method::DELETE, "/drain")).await;
    assert_eq!(
        (undone.status, undone.json()),
        (200, json!({"draining": false}))
    );
    assert_eq!(server.get("/readyz").await.status, 200);
    let job_again = id(&server.submit(&sleep()).await);
    for job in [job, job_again, held] {
        server.stop(&job, "force").await;
    }
}

/// What looks like success and is none has a word of explanation.
#[tokio::test]
async fn traps_for_people_are_named() {
    let server = Server::start().await;
    // It forks, its child is the program, and its own end is the job's.
    let forked = server
        .run(&json!({"command": ["setsid", "sleep", unique_seconds()]}))
        .await;
    assert_eq!(forked["termination"]["killed_leftovers"], 1, "{forked:#}");
    let message = forked["state_message"].as_str().unwrap();
    assert!(
        message.contains("a process that it left running was ended"),
        "{message}"
    );

    let job = id(&server.submit(&sleep()).await);
    let path = format!("/jobs/{job}/signal");
    let stopped = server.post(&path, &json!({"signal": "TSTP"})).await.json();
    assert_eq!(stopped["delivered_to"], 1);
    let note = stopped["note"].as_str().unwrap();
    assert!(note.contains("discards SIGTSTP"), "{note}");
    let winch = server.post(&path, &json!({"signal": "WINCH"})).await.json();
    assert_eq!(winch, json!({"delivered_to": 1}));
    let said = cli(&server, &["signal", &job, "TTIN"]);
    assert!(said.stderr.contains("discards SIGTSTP"), "{said:?}");
    server.stop(&job, "force").await;

    let body = json!({"script": "echo ready; exec cat", "pty": {}});
    let job = id(&server.submit(&body).await);
    server.says(&job, "ready").await;
    let path = format!("/jobs/{job}/signal");
    let winch = server
        .post(&path, &json!({"signal": "SIGTSTP"}))
        .await
        .json();
    assert_eq!(winch["note"], Value::Null, "{winch:#}");
    server.stop(&job, "force").await;
}
