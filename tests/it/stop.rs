//! DELETE: polite, forced, repeated, too early, too late.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Server, id, is_root, processes_with, unique_seconds};
use crate::life::signals_sent;

/// A script that ignores SIGTERM, and so do its children.
fn stubborn(seconds: &str) -> Value {
    json!({"script": format!("trap '' TERM; echo ready; sleep {seconds}")})
}

#[tokio::test]
async fn a_polite_stop_sends_the_signal_and_tells_who_asked_and_why() {
    let server = Server::start().await;
    let seconds = unique_seconds();
    let job = server.submit(&json!({"command": ["sleep", seconds]})).await;
    let reply = server.delete(&id(&job), "reason=not%20needed").await;
    // 200 if the program was quicker than the answer.
    assert!(matches!(reply.status, 200 | 202), "{reply}");
    let job = server.finished(&id(&job)).await;
    assert_eq!(job["state"], "canceled", "{job:#}");
    assert_eq!(job["exit"]["signal"], "SIGTERM", "{job:#}");
    let termination = &job["termination"];
    assert_eq!(termination["cause"], "canceled", "{job:#}");
    assert_eq!(termination["requested_by"], job["created_by"], "{job:#}");
    assert_eq!(termination["reason"], "not needed", "{job:#}");
    assert_eq!(termination["escalated"], false, "{job:#}");
    assert_eq!(signals_sent(&job), ["SIGTERM"]);
    assert_eq!(processes_with(&seconds), []);
}

#[tokio::test]
async fn a_program_that_handles_the_signal_keeps_its_code_and_its_last_words() {
    let server = Server::start().await;
    let seconds = unique_seconds();
    let script = format!("trap 'echo bye; exit 7' TERM; echo ready; sleep {seconds} & wait");
    let job = server.submit(&json!({"script": script})).await;
    server.says(&id(&job), "ready").await;
    let job = server.stop(&id(&job), "").await;
    assert_eq!(job["state"], "canceled", "{job:#}");
    assert_eq!(job["exit"]["code"], 7, "{job:#}");
    assert_eq!(job["exit"]["signal"], Value::Null, "{job:#}");
    assert_eq!(server.text(&id(&job)).await, "ready\nbye\n");
}

#[tokio::test]
async fn force_kills_at_once() {
    let server = Server::start().await;
    let seconds = unique_seconds();
    let job = server.submit(&stubborn(&seconds)).await;
    server.says(&id(&job), "ready").await;
    let begun = Instant::now();
    let job = server.stop(&id(&job), "force=true").await;
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(job["state"], "canceled", "{job:#}");
    assert_eq!(job["exit"]["signal"], "SIGKILL", "{job:#}");
    assert_eq!(signals_sent(&job), ["SIGKILL"]);
    assert_eq!(processes_with(&seconds), []);
}

#[tokio::test]
async fn a_grace_that_passes_escalates() {
    let server = Server::start().await;
    let seconds = unique_seconds();
    let job = server.submit(&stubborn(&seconds)).await;
    server.says(&id(&job), "ready").await;
    let job = server.stop(&id(&job), "grace_seconds=0.2").await;
    assert_eq!(job["termination"]["escalated"], true, "{job:#}");
    assert_eq!(signals_sent(&job), ["SIGTERM", "SIGKILL"]);
    assert_eq!(job["exit"]["signal"], "SIGKILL", "{job:#}");
    assert_eq!(processes_with(&seconds), []);
}

#[tokio::test]
async fn a_repeat_may_shorten_the_grace_and_never_lengthens_it() {
    let server = Server::start().await;
    for (first, repeat) in [
        ("grace_seconds=600", "force"),
        ("grace_seconds=600", "grace_seconds=0.2"),
    ] {
        let job = server.submit(&stubborn(&unique_seconds())).await;
        server.says(&id(&job), "ready").await;
        assert_eq!(server.delete(&id(&job), first).await.status, 202);
        server.in_state(&id(&job), "stopping").await;
        let job = server.stop(&id(&job), repeat).await;
        assert_eq!(job["state"], "canceled", "{repeat}: {job:#}");
    }
    let job = server.submit(&stubborn(&unique_seconds())).await;
    server.says(&id(&job), "ready").await;
    let first = server
        .delete(&id(&job), "grace_seconds=0.5&reason=first")
        .await;
    assert_eq!(first.status, 202);
    // 600 seconds would be longer than this test waits.
    let job = server
        .stop(&id(&job), "grace_seconds=600&reason=second")
        .await;
    assert_eq!(job["state"], "canceled", "{job:#}");
    assert_eq!(job["termination"]["reason"], "first", "{job:#}");
    assert_eq!(signals_sent(&job), ["SIGTERM", "SIGKILL"]);
}

#[tokio::test]
async fn a_stop_after_the_end_changes_nothing() {
    let server = Server::start().await;
    let job = server.run_script("exit 4").await;
    for query in ["", "force", "grace_seconds=3", "reason=late"] {
        let reply = server.delete(&id(&job), query).await;
        assert_eq!((reply.status, reply.json()), (200, job.clone()), "{query}");
    }
    let path = format!("/jobs/{}/signal", id(&job));
    let reply = server.post(&path, &json!({"signal": "TERM"})).await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (409, "job_already_finished")
    );
}

#[tokio::test]
async fn a_purge_removes_record_and_output() {
    let server = Server::start().await;
    // So much that it is in files.
    let ended = server.run_script("seq 2000").await;
    let live = server
        .submit(&json!({"command": ["sleep", unique_seconds()]}))
        .await;
    for job in [ended, live] {
        let directory = server.state_dir().join("jobs").join(id(&job));
        assert!(directory.is_dir(), "{}", directory.display());
        let reply = server.delete(&id(&job), "purge=true&force=true").await;
        assert_eq!(reply.status, 204, "{reply}");
        assert!(!directory.exists(), "{}", directory.display());
        let gone = server.get(&format!("/jobs/{}", id(&job))).await;
        assert_eq!((gone.status, gone.code().as_str()), (404, "job_not_found"));
        let again = server.delete(&id(&job), "purge").await;
        assert_eq!(again.status, 404, "{again}");
    }
}

/// A program may end by itself in the very moment of a DELETE. Whatever comes first, the exit told must
/// be the one that happened, and nothing may be killed that had ended.
#[tokio::test]
async fn a_stop_that_races_an_exit_keeps_the_real_result() {
    let server = Server::start().await;
    let mut seen = [0, 0];
    for round in 0..60 {
        // From an exit long before the DELETE arrives to one long after.
        let script = format!("read -r _ < /proc/uptime; sleep 0.{:03}; exit 5", round / 2);
        let job = server.submit(&json!({"script": script})).await;
        let job = server.stop(&id(&job), "").await;
        let exit = (&job["exit"]["code"], &job["exit"]["signal"]);
        let cause = &job["termination"]["cause"];
        if exit == (&json!(5), &Value::Null) {
            seen[0] += 1;
            // It ended by itself, before the signal or in spite of it.
            assert!(cause == "exited" || cause == "canceled", "{job:#}");
            let state = if cause == "exited" {
                "failed"
            } else {
                "canceled"
            };
            assert_eq!(job["state"], state, "{job:#}");
        } else {
            seen[1] += 1;
            assert_eq!(exit, (&Value::Null, &json!("SIGTERM")), "{job:#}");
            assert_eq!(
                (&job["state"], cause),
                (&json!("canceled"), &json!("canceled"))
            );
        }
        assert_eq!(job["termination"]["escalated"], false, "{job:#}");
        assert!(signals_sent(&job).len() <= 1, "{job:#}");
    }
    eprintln!("{} ended by themselves, {} by the signal", seen[0], seen[1]);
}

#[tokio::test]
async fn many_stops_at_once_are_one_stop() {
    let server = Server::start().await;
    let job = server
        .submit(&json!({"command": ["sleep", unique_seconds()]}))
        .await;
    let id = id(&job);
    let stops = (0..32).map(|_| server.stop(&id, ""));
    let mut ends = join_all(stops).await;
    ends.dedup();
    assert_eq!(ends.len(), 1, "{ends:#?}");
    assert_eq!(signals_sent(&ends[0]), ["SIGTERM"]);
}

#[tokio::test]
async fn scope_leader_leaves_the_children_to_the_leader() {
    let server = Server::start().await;
    let seconds = unique_seconds();
    // Had the child been sent SIGTERM too, it would not have lived to die of SIGUSR1.
    let script = format!(
        "sleep {seconds} & child=$!
         trap 'kill -USR1 $child; wait $child; echo child=$?; exit 0' TERM
         echo ready; wait $child"
    );
    let body = json!({"script": script, "stop": {"scope": "leader"}});
    let job = server.submit(&body).await;
    server.says(&id(&job), "ready").await;
    let job = server.stop(&id(&job), "").await;
    assert_eq!(job["exit"]["code"], 0, "{job:#}");
    assert_eq!(server.stdout(&id(&job)).await, "ready\nchild=138\n");
}

#[tokio::test]
async fn scope_group_reaches_the_children_and_scope_all_those_outside_the_group() {
    let server = Server::start().await;
    for (scope, outside_hears) in [("group", false), ("all", true)] {
        let script = format!(
            "trap '' TERM
             setsid env --default-signal=TERM sh -c 'trap \"echo outside\" TERM; echo ready; while :; do sleep {} & wait $!; done' &
             wait; sleep {}",
            unique_seconds(),
            unique_seconds(),
        );
        let body = json!({"script": script, "stop": {"scope": scope, "grace_seconds": 1}});
        let job = server.submit(&body).await;
        server.says(&id(&job), "ready").await;
        let job = server.stop(&id(&job), "").await;
        let output = server.text(&id(&job)).await;
        assert_eq!(
            output.contains("outside"),
            outside_hears,
            "{scope}: {output}\n{job:#}"
        );
        assert_eq!(job["exit"]["signal"], "SIGKILL", "{scope}: {job:#}");
    }
}

#[tokio::test]
async fn the_spec_chooses_the_signal_and_the_request_may_choose_another() {
    let server = Server::start().await;
    // A shell's background jobs ignore SIGINT, hence the short grace for the sleep that is left.
    for (query, word) in [
        ("", "INT"),
        ("signal=SIGUSR1", "USR1"),
        ("signal=rtmin%2B1", "RT"),
    ] {
        let script = format!(
            "trap 'echo had INT; exit 0' INT; trap 'echo had USR1; exit 0' USR1
             trap 'echo had RT; exit 0' 35
             echo ready; sleep {} & wait $!",
            unique_seconds()
        );
        let body = json!({"script": script, "stop": {"signal": "INT", "grace_seconds": 1}});
        let job = server.submit(&body).await;
        server.says(&id(&job), "ready").await;
        let job = server.stop(&id(&job), query).await;
        assert_eq!(
            server.stdout(&id(&job)).await,
            format!("ready\nhad {word}\n"),
            "{job:#}"
        );
        assert_eq!(job["spec"]["stop"]["signal"], "SIGINT");
    }
}

#[tokio::test]
async fn a_signal_reaches_its_scope_and_the_answer_counts() {
    let server = Server::start().await;
    let script = format!(
        "trap 'echo leader' USR1; (trap 'echo child' USR1; echo ready; while :; do sleep {} & wait $!; done) &
         while :; do wait; done",
        unique_seconds()
    );
    let job = server.submit(&json!({"script": script})).await;
    let path = format!("/jobs/{}/signal", id(&job));
    server.says(&id(&job), "ready").await;
    let reply = server
        .post(&path, &json!({"signal": "USR1", "scope": "leader"}))
        .await;
    assert_eq!(reply.json(), json!({"delivered_to": 1}));
    let output = server.says(&id(&job), "leader").await;
    assert!(!output.contains("child"), "{output}");
    let reply = server.post(&path, &json!({"signal": 0})).await;
    assert_eq!((reply.status, reply.code().as_str()), (422, "invalid_body"));
    let reply = server.post(&path, &json!({"signal": 10})).await;
    assert!(reply.json()["delivered_to"].as_u64() >= Some(2), "{reply}");
    server.says(&id(&job), "child").await;
    server.stop(&id(&job), "force").await;
}

#[tokio::test]
async fn a_queued_job_is_canceled_without_ever_having_run() {
    let server = Server::builder().args(["--max-running", "1"]).start().await;
    let first = server
        .submit(&json!({"command": ["sleep", unique_seconds()]}))
        .await;
    let second = server.submit(&json!({"command": ["true"]})).await;
    assert_eq!(second["state"], "queued", "{second:#}");
    assert_eq!(second["state_reason"], "waiting_for_slot");
    let reply = server.delete(&id(&second), "reason=changed").await;
    let second = reply.json();
    assert_eq!(
        (reply.status, &second["state"]),
        (200, &json!("canceled")),
        "{second:#}"
    );
    assert_eq!(
        (&second["process"], &second["exit"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(second["started_at"], Value::Null, "{second:#}");
    assert_eq!(second["termination"]["reason"], "changed");
    assert_eq!(second["termination"]["requested_by"], second["created_by"]);
    assert_eq!(signals_sent(&second), [""; 0]);
    server.stop(&id(&first), "force").await;
    let again = server.job(&id(&second)).await;
    assert_eq!(again, second, "a terminal state never changes");
}

#[tokio::test]
async fn a_job_of_another_user_is_ended_without_the_right_to_signal_it() {
    if !is_root() {
        return; // Who cannot become another user has no job of another.
    }
    // Without cgroups, which would do it, and without CAP_KILL.
    let prelude = r#"if unshare --mount true 2> /dev/null; then
            set -- unshare --mount sh -c '
                for at in $(sed -n "s/^\([^ ]* \)\{4\}\([^ ]*\) .* - cgroup2 .*/\2/p" /proc/self/mountinfo); do
                    umount -l "$at"
                done
                exec "$@"' sh "$@"
        fi
        set -- setpriv --bounding-set -kill --inh-caps -kill "$@""#;
    let server = Server::builder().prelude(prelude).start().await;
    let script = "trap 'exit 6' TERM; setsid sleep 1000 & echo ready; while :; do sleep 0.1; done";
    let job = id(&server
        .submit(&json!({"script": script, "user": 61234}))
        .await);
    server.says(&job, "ready").await;
    let stopped = server.stop(&job, "").await;
    assert_eq!(stopped["exit"]["code"], 6, "{stopped:#}");
    let job = id(&server
        .submit(&json!({"script": script, "user": 61234}))
        .await);
    server.says(&job, "ready").await;
    let stopped = server.stop(&job, "force=true").await;
    assert_eq!(stopped["exit"]["signal"], "SIGKILL", "{stopped:#}");
}

#[tokio::test]
async fn a_condition_that_is_not_met_leaves_everything_undone() {
    let server = Server::start().await;
    let body = json!({"command": ["sleep", unique_seconds()], "stdin": {"mode": "open"}});
    let job = id(&server.submit(&body).await);
    let path = format!("/jobs/{job}");
    let etag = server.get(&path).await.header("etag").to_owned();
    let send = async |method: Method, path: String, header: &str, value: &str| {
        let request = server.request(method, &path).header(header, value);
        server.send(request).await
    };
    let signal = json!({"signal": "KILL"});
    let routes = [
        (Method::DELETE, String::new()),
        (Method::DELETE, "?purge&force".to_owned()),
        (Method::POST, "/pause".to_owned()),
        (Method::POST, "/signal".to_owned()),
        (Method::POST, "/stdin?eof".to_owned()),
        (Method::POST, "/rerun".to_owned()),
    ];
    for (method, rest) in routes {
        for (header, value) in [
            ("if-match", "\"999\""),
            ("if-match", &format!("W/{etag}")),
            ("if-none-match", etag.as_str()),
            ("if-none-match", "*"),
        ] {
            let request = server
                .request(method.clone(), &format!("{path}{rest}"))
                .header(header, value);
            let request = if rest == "/signal" {
                request.json(&signal)
            } else {
                request
            };
            let reply = server.send(request).await;
            assert_eq!(
                (reply.status, reply.code().as_str()),
                (412, "precondition_failed"),
                "{method} {rest} {header}: {value}"
            );
        }
    }
    let now = server.job(&job).await;
    assert_eq!(now["state"], "running", "{now:#}");
    assert_eq!(server.get(&path).await.header("etag"), etag);
    let absent = send(Method::DELETE, "/jobs/x".to_owned(), "if-match", "*").await;
    assert_eq!(absent.code(), "job_not_found");
    let met = send(
        Method::DELETE,
        format!("{path}?force&wait=30"),
        "if-match",
        &etag,
    )
    .await;
    assert_eq!(
        (met.status, &met.json()["state"]),
        (200, &json!("canceled"))
    );
}
