//! Requests on every job that matches a filter.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{Server, id};

async fn acted(server: &Server, verb: &str, body: &Value) -> Value {
    let reply = server.post(&format!("/jobs/{verb}"), body).await;
    assert_eq!(reply.status, 207, "{reply}");
    reply.json()
}

fn statuses(acted: &Value) -> Vec<u64> {
    let results = acted["results"].as_array().unwrap().iter();
    results.map(|one| one["status"].as_u64().unwrap()).collect()
}

async fn sleepers(server: &Server, count: usize, queue: &str) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..count {
        let body = json!({"script": "trap 'echo usr1' USR1; echo ready; while :; do sleep 0.05; done", "queue": queue});
        let job = id(&server.submit(&body).await);
        server.says(&job, "ready").await;
        ids.push(job);
    }
    ids
}

#[tokio::test]
async fn an_empty_filter_is_refused_and_nothing_happens() {
    let server = Server::start().await;
    let [job] = &sleepers(&server, 1, "a").await[..] else {
        panic!("one job");
    };
    for verb in ["stop", "signal", "pause", "resume", "purge"] {
        for body in [
            json!({}),
            json!({"signal": "SIGUSR1"}),
            json!({"stat": "running"}),
            json!({"queue": null}),
            json!({"label_selector": ""}),
        ] {
            let reply = server.post(&format!("/jobs/{verb}"), &body).await;
            assert_eq!(
                (reply.status, reply.code().as_str()),
                (422, "invalid_body"),
                "{verb} {body}"
            );
        }
    }
    assert_eq!(server.job(job).await["state"], "running");
    server.stop(job, "force").await;
}

#[tokio::test]
async fn what_is_counted_is_what_is_then_acted_on() {
    let server = Server::start().await;
    let (mine, others) = (
        sleepers(&server, 3, "mine").await,
        sleepers(&server, 1, "others").await,
    );
    let dry = acted(&server, "pause", &json!({"queue": "mine", "dry_run": true})).await;
    assert_eq!(
        dry,
        json!({"matched": 3, "truncated": false, "results": []})
    );
    assert_eq!(server.job(&mine[0]).await["state"], "running");
    let paused = acted(&server, "pause", &json!({"queue": "mine"})).await;
    assert_eq!(
        (&paused["matched"], statuses(&paused)),
        (&json!(3), vec![200; 3])
    );
    for job in &mine {
        server.in_state(job, "paused").await;
    }
    assert_eq!(server.job(&others[0]).await["state"], "running");
    let resumed = acted(
        &server,
        "resume",
        &json!({"queue": "mine", "state": "paused"}),
    )
    .await;
    assert_eq!(statuses(&resumed), vec![200; 3]);
    let told = acted(
        &server,
        "signal",
        &json!({"queue": "mine", "signal": "USR1", "scope": "leader"}),
    )
    .await;
    for one in told["results"].as_array().unwrap() {
        assert_eq!(
            (&one["status"], &one["delivered_to"]),
            (&json!(200), &json!(1)),
            "{told:#}"
        );
    }
    for job in &mine {
        server.says(job, "usr1").await;
    }
    let stop = json!({"state": ["running", "paused"], "force": true});
    let stopped = acted(&server, "stop", &stop).await;
    assert_eq!(stopped["matched"], 4, "{stopped:#}");
    for job in mine.iter().chain(&others) {
        server.finished(job).await;
    }
}

#[tokio::test]
async fn a_purge_removes_what_has_ended_and_a_repeat_nothing() {
    let server = Server::start().await;
    let mut ended = Vec::new();
    for code in [0, 0, 3] {
        ended.push(id(&server.run_script(&format!("exit {code}")).await));
    }
    let live = sleepers(&server, 1, "default").await;
    let filter = json!({"state": "succeeded"});
    let purged = acted(&server, "purge", &filter).await;
    assert_eq!(
        (statuses(&purged), &purged["matched"]),
        (vec![204; 2], &json!(2)),
        "{purged:#}"
    );
    for job in &ended[..2] {
        assert_eq!(server.get(&format!("/jobs/{job}")).await.status, 404);
        assert!(!server.state_dir().join("jobs").join(job).exists());
    }
    let again = acted(&server, "purge", &filter).await;
    assert_eq!(
        again,
        json!({"matched": 0, "truncated": false, "results": []})
    );
    let before = json!({"created_before": "2999-01-01T00:00:00Z"});
    let rest = acted(&server, "purge", &before).await;
    assert_eq!(rest["matched"], 1, "{rest:#}");
    assert_eq!(server.job(&live[0]).await["state"], "running");
    server.stop(&live[0], "force").await;
}

#[tokio::test]
async fn nothing_is_done_if_others_match_than_were_counted() {
    let server = Server::start().await;
    let jobs = sleepers(&server, 3, "counted").await;
    for verb in ["stop", "signal", "pause", "resume", "rerun"] {
        for (expect, dry_run) in [(2, false), (4, false), (0, true)] {
            let mut body = json!({"queue": "counted", "expect": expect, "dry_run": dry_run});
            if verb == "signal" {
                body["signal"] = json!("SIGKILL");
            }
            let reply = server.post(&format!("/jobs/{verb}"), &body).await;
            let problem = reply.json();
            assert_eq!(
                (
                    reply.status,
                    &problem["code"],
                    &problem["matched"],
                    &problem["expected"]
                ),
                (409, &json!("count_differs"), &json!(3), &json!(expect)),
                "{verb} {reply}"
            );
        }
    }
    let list = server.get("/jobs?queue=counted").await.json();
    assert_eq!(list["jobs"].as_array().unwrap().len(), 3, "{list:#}");
    for job in &jobs {
        assert_eq!(server.job(job).await["state"], "running");
    }
    for wrong in [json!(-1), json!(10_001), json!("3"), json!(1.5)] {
        let body = json!({"queue": "counted", "expect": wrong});
        let reply = server.post("/jobs/stop", &body).await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (422, "invalid_body"),
            "{body}"
        );
    }
    let stop = json!({"queue": "counted", "expect": 3, "force": true});
    let stopped = acted(&server, "stop", &stop).await;
    assert_eq!(stopped["matched"], 3, "{stopped:#}");
    for job in &jobs {
        server.finished(job).await;
    }
    let purge = json!({"queue": "counted", "expect": 2});
    let reply = server.post("/jobs/purge", &purge).await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (409, "count_differs")
    );
    assert_eq!(server.job(&jobs[0]).await["state"], "canceled");
    let purged = acted(&server, "purge", &json!({"queue": "counted", "expect": 3})).await;
    assert_eq!(statuses(&purged), [204; 3]);
}

#[tokio::test]
async fn named_jobs_are_acted_on_if_they_match() {
    let server = Server::start().await;
    let jobs = sleepers(&server, 3, "named").await;
    let over = id(&server.run_script("exit 0").await);
    let gone = "00000000-0000-7000-8000-000000000000";
    let body = json!({"job_ids": [jobs[0], jobs[2], over, gone], "expect": 2});
    let paused = acted(&server, "pause", &body).await;
    assert_eq!(
        (&paused["matched"], statuses(&paused)),
        (&json!(2), vec![200; 2])
    );
    assert_eq!(server.job(&jobs[1]).await["state"], "running");
    let body = json!({"job_ids": jobs, "state": "running", "force": true});
    let stopped = acted(&server, "stop", &body).await;
    assert_eq!(stopped["results"][0]["id"], json!(jobs[1]), "{stopped:#}");
    assert_eq!(stopped["matched"], 1);
    server.finished(&jobs[1]).await;
    let rest = acted(&server, "stop", &json!({"job_ids": jobs, "force": true})).await;
    assert_eq!(rest["matched"], 2);
    for job in &jobs {
        server.finished(job).await;
    }
    let purged = acted(&server, "purge", &json!({"job_ids": [jobs[0], over]})).await;
    assert_eq!(statuses(&purged), [204; 2]);
    for body in [
        json!({"job_ids": []}),
        json!({"job_ids": [jobs[1], jobs[1]]}),
        json!({"job_ids": ["x"]}),
    ] {
        let reply = server.post("/jobs/stop", &body).await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (422, "invalid_body"),
            "{body}"
        );
    }
}

#[tokio::test]
async fn all_that_match_run_again_once_however_often_that_is_asked() {
    let server = Server::start().await;
    let mut ended = Vec::new();
    for code in [1, 0, 2] {
        let body = json!({"script": format!("exit {code}"), "name": format!("n{code}")});
        ended.push(id(&server.submit(&body).await));
    }
    for job in &ended {
        server.finished(job).await;
    }
    let secret = json!({"script": "exit 1", "secret_env": {"A": "b"}});
    let secret = id(&server.submit(&secret).await);
    server.finished(&secret).await;
    let before = server.job(&secret).await["created_at"].clone();
    let body =
        json!({"state": "failed", "job_ids": [ended[0], ended[1], ended[2], secret], "expect": 3});
    let request = async || {
        let request = server.request(reqwest::Method::POST, "/jobs/rerun");
        let request = request.header("Idempotency-Key", "again-1").json(&body);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 207);
        let text = answer.text().await.unwrap();
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let first = request().await;
    assert_eq!(statuses(&first), [201, 201, 422], "{first:#}");
    for (one, of) in first["results"]
        .as_array()
        .unwrap()
        .iter()
        .zip([&ended[0], &ended[2]])
    {
        assert_eq!(
            (&one["id"], &one["job"]["rerun_of"]),
            (&json!(of), &json!(of))
        );
        assert_eq!(
            server.finished(one["job"]["id"].as_str().unwrap()).await["state"],
            "failed"
        );
    }
    let again = request().await;
    for at in [0, 1] {
        let of = |answer: &Value| answer["results"][at]["job"]["id"].clone();
        assert_eq!(of(&first), of(&again));
    }
    let newer = format!("/jobs?created_after={}", before.as_str().unwrap());
    let list = server.get(&newer).await.json();
    assert_eq!(list["jobs"].as_array().unwrap().len(), 3, "{list:#}");
}

#[tokio::test]
async fn jobs_that_end_meanwhile_are_told_one_by_one() {
    let server = Server::start().await;
    let gate = server.scratch().join("gate");
    let body =
        json!({"script": format!("while ! test -e {}; do :; done", gate.display()), "queue": "q"});
    for _ in 0..4 {
        server.submit(&body).await;
    }
    let live = sleepers(&server, 1, "q").await;
    let filter = json!({"queue": "q"});
    let (paused, ()) = tokio::join!(acted(&server, "pause", &filter), async {
        fs::write(&gate, "").unwrap();
    });
    // Those that had ended before they were looked for are not among them.
    for one in paused["results"].as_array().unwrap() {
        let is_over = one["status"] == 409 && one["code"] == "job_already_finished";
        assert!(one["status"] == 200 || is_over, "{paused:#}");
    }
    let ids = paused["results"].as_array().unwrap().iter();
    assert!(
        ids.clone().any(|one| one["id"] == json!(live[0])),
        "{paused:#}"
    );
    acted(&server, "stop", &json!({"queue": "q", "force": true})).await;
    for one in ids {
        server.finished(one["id"].as_str().unwrap()).await;
    }
    server.finished(&live[0]).await;
}

#[tokio::test]
async fn a_purge_leaves_what_unfinished_jobs_depend_on() {
    let server = Server::start().await;
    let mut ended = Vec::new();
    for _ in 0..3 {
        ended.push(id(&server.run_script("exit 0").await));
    }
    let needs = json!({"command": ["true"], "hold": true, "depends_on": [{"job": ended[1], "on": "succeeded"}]});
    let needs = id(&server.submit(&needs).await);
    let purged = acted(&server, "purge", &json!({"state": "succeeded"})).await;
    assert_eq!(statuses(&purged), [204, 409, 204], "{purged:#}");
    let results = purged["results"].as_array().unwrap();
    let ids: Vec<&str> = results
        .iter()
        .map(|one| one["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ended);
    assert_eq!(results[1]["code"], "depended_on");
    assert_eq!(server.job(&ended[1]).await["state"], "succeeded");
    server.stop(&needs, "force").await;
}
