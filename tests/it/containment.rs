//! No process of a job survives its end, whatever it does to get away.

use std::io::Write;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::{
    LONG, Process, Server, bound, eventually, id, is_root, processes_with, unique, unique_seconds,
};

/// How soon a forced stop must have ended a hostile job, where nothing else keeps the machine busy.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Ways in which a child gets away from its parent: what it is called, and the shell's words for it.
/// SECONDS stands for what it sleeps.
const ESCAPES: [(&str, &str); 10] = [
    ("background", "sleep SECONDS &"),
    ("nohup", "nohup sleep SECONDS >/dev/null 2>&1 &"),
    (
        "own group",
        "perl -e 'setpgrp(0, 0); exec @ARGV' sleep SECONDS &",
    ),
    ("timeout(1)", "timeout 5000 sleep SECONDS &"),
    ("job control", "set -m; sleep SECONDS & set +m"),
    ("own session", "setsid sleep SECONDS &"),
    ("forked into an own session", "setsid --fork sleep SECONDS"),
    (
        "double fork",
        "(setsid sh -c '(sleep SECONDS </dev/null >/dev/null 2>&1 &)' &)",
    ),
    (
        "deaf",
        "setsid sh -c 'trap \"\" TERM HUP INT; exec sleep SECONDS' &",
    ),
    (
        "stopped",
        "setsid sh -c 'kill -STOP $$; exec sleep SECONDS' &",
    ),
];

/// Starts one job for every escape and waits until each has got away; the leader stays.
async fn escaped(server: &Server, leader: &str) -> Vec<(&'static str, String, Value)> {
    let start = ESCAPES.map(|(name, words)| async move {
        let seconds = unique_seconds();
        let script = format!("{}\n{leader}", words.replace("SECONDS", &seconds));
        let body = json!({"script": script, "stop": {"grace_seconds": 0.5}});
        let job = server.submit(&body).await;
        eventually(name, async || {
            // Not yet the shell that is about to become it, whose script has the number too.
            let there = processes_with(&seconds);
            let is_away = |process: &Process| process.name == "sleep" || process.state == 'T';
            there.iter().any(is_away).then_some(())
        })
        .await;
        (name, seconds, job)
    });
    join_all(start).await
}

#[tokio::test]
async fn a_stop_ends_every_process_however_it_got_away() {
    for query in ["", "force=true"] {
        let server = Server::start().await;
        let jobs = escaped(&server, &format!("sleep {}", unique_seconds())).await;
        let ends = jobs.iter().map(|(name, seconds, job)| {
            let server = &server;
            async move {
                let job = server.stop(&id(job), query).await;
                assert_eq!(job["state"], "canceled", "{name}: {job:#}");
                assert_eq!(processes_with(seconds), [], "{name}: {job:#}");
                assert_eq!(job["blocked_by"], json!([]), "{name}: {job:#}");
            }
        });
        join_all(ends).await;
    }
}

#[tokio::test]
async fn the_end_of_the_leader_ends_every_process_however_it_got_away() {
    let server = Server::start().await;
    let cwd = server.scratch();
    let gate = cwd.join("gate");
    let leader = format!(
        "until test -e {}; do sleep 0.05; done; exit 6",
        gate.display()
    );
    let jobs = escaped(&server, &leader).await;
    std::fs::write(&gate, "").unwrap();
    for (name, seconds, job) in jobs {
        let job = server.finished(&id(&job)).await;
        assert_eq!(job["exit"]["code"], 6, "{name}: {job:#}");
        assert_eq!(job["state"], "failed", "{name}: {job:#}");
        assert!(
            job["termination"]["killed_leftovers"].as_u64() >= Some(1),
            "{name}: {job:#}"
        );
        assert_eq!(processes_with(&seconds), [], "{name}: {job:#}");
    }
}

#[tokio::test]
async fn a_timeout_ends_every_process_however_it_got_away() {
    let server = Server::start().await;
    let seconds = unique_seconds();
    let words: Vec<&str> = ESCAPES.iter().map(|(_, words)| *words).collect();
    let script = words.join("\n").replace("SECONDS", &seconds);
    let body = json!({
        "script": format!("{script}\nwait; sleep {seconds}"),
        "timeout_seconds": 1.5,
        "stop": {"grace_seconds": 0.2},
    });
    let job = server.run(&body).await;
    assert_eq!(job["state"], "timed_out", "{job:#}");
    assert_eq!(processes_with(&seconds), [], "{job:#}");
}

/// It forks, its parent ends, and the child starts a session of its own, thousands of times a second: no
/// look at a group, a session or a list of processes ever sees where it is.
#[tokio::test]
async fn a_hopper_is_caught_within_two_seconds() {
    let server = Server::start().await;
    let mark = unique();
    let hop = "$| = 1; fork; fork; print qq(hopping\\n); while (1) { my $child = fork; \
               exit if $child; POSIX::setsid() if defined $child }";
    let body = json!({
        "command": ["perl", "-MPOSIX", "-e", hop, mark], "wait_for": "all",
    });
    let job = server.submit(&body).await;
    server
        .says(&id(&job), "hopping\nhopping\nhopping\nhopping\n")
        .await;
    let begun = Instant::now();
    let job = server.stop(&id(&job), "force=true").await;
    assert!(
        begun.elapsed() < bound(AT_ONCE),
        "took {:?}: {job:#}",
        begun.elapsed()
    );
    assert_eq!(job["state"], "canceled", "{job:#}");
    assert_eq!(processes_with(&mark), []);
}

#[tokio::test]
async fn a_fork_bomb_under_a_limit_of_processes_ends_within_two_seconds() {
    let server = Server::start().await;
    let mark = unique();
    // A uid of its own: the limit counts all processes of a user.
    let uid = 3_000_000_000 + std::process::id();
    let body = json!({
        "command": ["perl", "-e", "fork while 1", mark],
        "user": uid,
        "cwd": "/",
        "rlimits": {"nproc": 200},
        // It fills its limit all the same, and leaves the processors to the tests beside it.
        "nice": 19,
    });
    if !is_root() {
        let refused = server.post("/jobs", &body).await;
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (403, "privilege_required")
        );
        return;
    }
    let job = server.submit(&body).await;
    eventually("the bomb has filled its limit", async || {
        (processes_with(&mark).len() >= 200).then_some(())
    })
    .await;
    let begun = Instant::now();
    let job = server.stop(&id(&job), "force=true").await;
    assert!(
        begun.elapsed() < bound(AT_ONCE),
        "took {:?}: {job:#}",
        begun.elapsed()
    );
    assert_eq!(processes_with(&mark), []);
}

#[tokio::test]
async fn a_stopped_job_ends_politely() {
    let server = Server::start().await;
    let seconds = unique_seconds();
    let script = format!("trap 'echo bye; exit 0' TERM; echo ready; sleep {seconds} & wait");
    let job = server.submit(&json!({"script": script})).await;
    server.says(&id(&job), "ready").await;
    let path = format!("/jobs/{}/signal", id(&job));
    let reply = server.post(&path, &json!({"signal": "STOP"})).await;
    assert_eq!(reply.status, 200, "{reply}");
    let pid = i32::try_from(job["process"]["pid"].as_i64().unwrap()).unwrap();
    eventually("it is stopped", async || {
        (Process::read(pid)?.state == 'T').then_some(())
    })
    .await;
    let job = server.stop(&id(&job), "").await;
    assert_eq!(job["exit"]["code"], 0, "{job:#}");
    assert_eq!(job["termination"]["escalated"], false, "{job:#}");
    assert_eq!(server.stdout(&id(&job)).await, "ready\nbye\n");
    assert_eq!(processes_with(&seconds), []);
}

#[tokio::test]
async fn a_pipe_held_by_an_outsider_delays_the_end_by_the_drain_limit_and_no_more() {
    let server = Server::start().await;
    let cwd = server.scratch();
    let script = "echo before; mkfifo gate; read _ < gate; exit 0";
    let job = server.submit(&json!({"script": script, "cwd": cwd})).await;
    let before = server.says(&id(&job), "before").await;
    // This test is the outsider: it opens the job's end of the pipe anew.
    let mut held = std::fs::OpenOptions::new()
        .write(true)
        .open(format!("/proc/{}/fd/1", job["process"]["pid"]))
        .unwrap();
    eventually("the gate is there", async || {
        cwd.join("gate").exists().then_some(())
    })
    .await;
    let begun = Instant::now();
    std::fs::write(cwd.join("gate"), "\n").unwrap();
    let job = server.finished(&id(&job)).await;
    let took = begun.elapsed();
    assert!(
        took > Duration::from_millis(1500) && took < LONG / 3,
        "{took:?}: {job:#}"
    );
    assert_eq!(job["state"], "succeeded", "{job:#}");
    assert_eq!(job["output"]["complete"], true, "{job:#}");
    // What comes after the end goes nowhere, and the writer learns it.
    eventually("the pipe is closed", async || {
        held.write_all(b"after\n").is_err().then_some(())
    })
    .await;
    assert_eq!(server.text(&id(&job)).await, before);
}

#[tokio::test]
async fn containment_is_told_truly() {
    let server = Server::start().await;
    let info = server.get("/info").await.json();
    let job = server
        .submit(&json!({"command": ["sleep", unique_seconds()]}))
        .await;
    assert_eq!(
        job["process"]["containment"], info["containment"]["kind"],
        "{info:#}"
    );
    let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", job["process"]["pid"]));
    let groups = groups.unwrap();
    let in_own_group = groups
        .lines()
        .any(|line| line.starts_with("0::") && line.ends_with(&id(&job)));
    assert_eq!(
        in_own_group,
        info["containment"]["kind"] == "cgroup+subreaper",
        "{groups}"
    );
    assert_eq!(
        info["containment"]["cgroup"].is_null(),
        !in_own_group,
        "{info:#}"
    );
    assert_eq!(
        info["containment"]["cgroup_unavailable"].is_null(),
        in_own_group,
        "{info:#}"
    );

    let controllers = info["containment"]["controllers"].as_array().unwrap();
    for (controller, limit) in [("memory", "memory_bytes"), ("cpu", "cpu"), ("pids", "pids")] {
        let body = json!({"command": ["true"], "limits": {limit: 16 << 20}});
        let body = if limit == "cpu" {
            json!({"command": ["true"], "limits": {"cpu": 0.5}})
        } else {
            body
        };
        let body = if limit == "pids" {
            json!({"command": ["true"], "limits": {"pids": 8}})
        } else {
            body
        };
        let reply = server.post("/jobs?wait=30", &body).await;
        if controllers.iter().any(|name| name == controller) {
            assert_eq!(reply.json()["state"], "succeeded", "{reply}");
        } else {
            assert_eq!(
                (reply.status, reply.code().as_str()),
                (422, "containment_unavailable")
            );
            assert_eq!(
                reply.json()["errors"][0]["pointer"],
                format!("/limits/{limit}")
            );
        }
    }
    server.stop(&id(&job), "force").await;
}

/// The kernel cuts a name after 15 bytes, within a character where it comes to that (proc_pid_comm(5)).
#[tokio::test]
async fn a_process_whose_name_is_no_text_is_seen_and_ended() {
    let server = Server::builder().without_cgroups().start().await;
    let seconds = unique_seconds();
    let sleeper = "import ctypes, sys, time
ctypes.CDLL(None).prctl(15, b'\\xd0', 0, 0, 0)
print('up', flush=True)
time.sleep(float(sys.argv[1]))";
    let script = format!("setsid python3 -c \"{sleeper}\" {seconds} & wait");
    let job = server
        .submit(&json!({"script": script, "stop": {"grace_seconds": 0.5}}))
        .await;
    let job = id(&job);
    eventually("the nameless one", async || {
        (server.text(&job).await == "up\n").then_some(())
    })
    .await;
    let seen = server.get(&format!("/jobs/{job}/processes")).await.json();
    let named = seen["processes"].as_array().unwrap().iter();
    let commands: Vec<String> = named
        .map(|process| process["command"].to_string())
        .collect();
    assert!(
        commands.iter().any(|command| command.contains(&seconds)),
        "{seen:#}"
    );
    server.stop(&job, "").await;
    assert_eq!(processes_with(&seconds), []);
}
