//! The server may die at any time: jobs live on, and nothing that was accepted is lost.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::future::join;
use futures_util::stream::{self, StreamExt};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::Method;
use serde_json::json;

use crate::harness::{Process, Server, eventually, id, processes_with, unique, unique_seconds};

/// Kills the server, not the supervisor, and waits until it is gone.
async fn crash(server: &Server) {
    let info = eventually("the server answers", async || {
        let request = server.request(Method::GET, "/info");
        server.try_send(request).await.ok()
    })
    .await;
    let pid = i32::try_from(info.json()["server_pid"].as_i64().unwrap()).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    eventually("the server is gone", async || {
        Process::read(pid)
            .is_none_or(|process| process.is_zombie())
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_crash_of_the_server_leaves_jobs_running_and_under_control() {
    let server = Server::start().await;
    let seconds = unique_seconds();
    let cwd = server.scratch();
    let script = format!(
        "echo before; mkfifo gate; read _ < gate; echo after; setsid sleep {seconds} & echo ready; wait"
    );
    let job = server.submit(&json!({"script": script, "cwd": cwd})).await;
    server.says(&id(&job), "before").await;
    let leader = i32::try_from(job["process"]["pid"].as_i64().unwrap()).unwrap();
    crash(&server).await;
    // The supervisor keeps the listening socket: the next request waits, and is answered.
    let info = server.get("/info").await.json();
    assert_eq!(info["server_restarts"], 1, "{info:#}");
    assert!(Process::read(leader).is_some(), "the job has lived on");
    std::fs::write(cwd.join("gate"), "\n").unwrap();
    let output = server.says(&id(&job), "ready").await;
    assert_eq!(output, "before\nafter\nready\n");
    let job = server.stop(&id(&job), "").await;
    assert_eq!(job["state"], "canceled", "{job:#}");
    assert_eq!(processes_with(&seconds), []);
}

/// Clients that hear nothing ask again with the same key. However often the server dies, each job runs
/// exactly once, and its result is the real one.
#[tokio::test]
async fn what_was_accepted_runs_once_through_any_number_of_crashes() {
    const JOBS: u32 = 120;
    const CRASHES: u32 = 4;
    let server = Server::builder()
        .args(["--max-running", "8", "--log-level", "warn"])
        .start()
        .await;
    let cwd = server.scratch();
    let accepted = Cell::new(0_u32);
    let submit = |number: u32| {
        let (server, cwd, accepted) = (&server, &cwd, &accepted);
        async move {
            let key = unique();
            let script = format!(
                "echo {number} >> ran; echo line {number}; exit {}",
                number % 200
            );
            let body = json!({"script": script, "cwd": cwd});
            let job = eventually("the job is accepted", async || {
                let request = server
                    .request(Method::POST, "/jobs")
                    .header("idempotency-key", &key)
                    .json(&body);
                let reply = server.try_send(request).await.ok()?;
                assert_eq!(reply.status, 201, "{reply}");
                Some(reply.json())
            })
            .await;
            accepted.set(accepted.get() + 1);
            (number, id(&job))
        }
    };
    let submissions = stream::iter((0..JOBS).map(submit))
        .buffer_unordered(8)
        .collect::<Vec<_>>();
    let crashes = async {
        for round in 1..=CRASHES {
            eventually("some more are accepted", async || {
                (accepted.get() >= round * JOBS / (CRASHES + 2)).then_some(())
            })
            .await;
            crash(&server).await;
        }
    };
    let (jobs, ()) = join(submissions, crashes).await;
    for (number, id) in &jobs {
        let job = server.finished(id).await;
        assert_eq!(
            job["exit"]["code"],
            number % 200,
            "{job:#}\n{}",
            server.log()
        );
        assert_eq!(server.text(id).await, format!("line {number}\n"), "{job:#}");
    }
    let mut times = BTreeMap::new();
    for line in std::fs::read_to_string(cwd.join("ran")).unwrap().lines() {
        *times.entry(line.parse::<u32>().unwrap()).or_insert(0) += 1;
    }
    let once: BTreeMap<u32, i32> = (0..JOBS).map(|number| (number, 1)).collect();
    assert_eq!(times, once);
    let list = server.get("/jobs?page_size=1000").await.json();
    assert_eq!(list["jobs"].as_array().unwrap().len(), jobs.len());
    let info = server.get("/info").await.json();
    assert_eq!(info["server_restarts"], CRASHES, "{info:#}");
}

#[tokio::test]
async fn a_drain_outlives_a_crash_of_the_server_and_can_be_undone() {
    let mut server = Server::start().await;
    let drained = server.send(server.request(Method::POST, "/drain")).await;
    assert_eq!(drained.status, 202, "{drained}");
    crash(&server).await;
    let info = server.get("/info").await.json();
    assert_eq!(
        (&info["server_restarts"], &info["draining"]),
        (&json!(1), &json!(true)),
        "{info:#}"
    );
    let refused = server.post("/jobs", &json!({"command": ["true"]})).await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "draining"));
    let undone = server.send(server.request(Method::DELETE, "/drain")).await;
    assert_eq!(undone.status, 200, "{undone}");
    crash(&server).await;
    assert_eq!(server.get("/info").await.json()["draining"], false);
    server.run(&json!({"command": ["true"]})).await;

    // A service that is started again accepts jobs.
    let drained = server.send(server.request(Method::POST, "/drain")).await;
    assert_eq!(drained.status, 202, "{drained}");
    assert!(server.end(Signal::SIGTERM).unwrap().success());
    server.restart(Server::builder());
    assert_eq!(server.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn a_server_that_is_killed_again_and_again_comes_back_at_once() {
    let server = Server::start().await;
    for _ in 0..10 {
        crash(&server).await;
    }
    let begun = Instant::now();
    let info = server.get("/info").await.json();
    assert_eq!(info["server_restarts"], 10, "{info:#}");
    // The pause after a tenth crash was five seconds; a loaded machine takes a part of one to fork.
    let waited = begun.elapsed();
    assert!(waited < Duration::from_secs(4), "{waited:?}");
}
