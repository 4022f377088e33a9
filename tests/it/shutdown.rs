//! The service's end: jobs are stopped or left, and nothing that waits is forgotten.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::hangups::Places;
use crate::harness::{Server, eventually, id, processes_with, unique_seconds};

fn stubborn(seconds: &str) -> Value {
    json!({"script": format!("trap '' TERM; echo ready; while :; do sleep {seconds}; done")})
}

#[tokio::test]
async fn a_stopping_service_ends_its_jobs_and_says_so() {
    // So that there is time to be polite on a machine that is busy.
    let grace = ["--shutdown-grace-seconds", "2"];
    let mut server = Server::builder().args(grace).start().await;
    let seconds = unique_seconds();
    let polite = server
        .submit(&json!({"script": "trap 'echo bye; exit 3' TERM; echo ready; sleep 1000 & wait"}))
        .await;
    let killed = server.submit(&stubborn(&seconds)).await;
    for job in [&polite, &killed] {
        server.says(&id(job), "ready").await;
    }
    let begun = Instant::now();
    assert_eq!(server.end(Signal::SIGTERM).unwrap().code(), Some(0));
    // The grace for a job that ignores SIGTERM, on a machine that may be busy.
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(processes_with(&seconds), []);
    server.restart(Server::builder());
    let polite = server.job(&id(&polite)).await;
    assert_eq!(polite["state"], "canceled", "{polite:#}");
    assert_eq!(polite["termination"]["cause"], "shutdown", "{polite:#}");
    assert_eq!(polite["exit"]["code"], 3, "{polite:#}");
    assert_eq!(server.text(&id(&polite)).await, "ready\nbye\n");
    let killed = server.job(&id(&killed)).await;
    assert_eq!(killed["termination"]["cause"], "shutdown", "{killed:#}");
    assert_eq!(killed["exit"]["signal"], "SIGKILL", "{killed:#}");
}

#[tokio::test]
async fn a_second_sigterm_skips_the_grace() {
    let mut server = Server::builder()
        .args(["--shutdown-grace-seconds", "600"])
        .start()
        .await;
    let seconds = unique_seconds();
    let job = server.submit(&stubborn(&seconds)).await;
    server.says(&id(&job), "ready").await;
    kill(server.supervisor(), Signal::SIGTERM).unwrap();
    eventually("the job is being stopped", async || {
        (server.job(&id(&job)).await["state"] == "stopping").then_some(())
    })
    .await;
    assert_eq!(server.end(Signal::SIGTERM).unwrap().code(), Some(0));
    assert_eq!(processes_with(&seconds), []);
    server.restart(Server::builder());
    let job = server.job(&id(&job)).await;
    assert_eq!(job["termination"]["cause"], "shutdown", "{job:#}");
    assert_eq!(job["exit"]["signal"], "SIGKILL", "{job:#}");
}

#[tokio::test]
async fn a_job_that_comes_too_late_to_be_stored_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let places = Places(folder.path());
    let builder = || {
        Server::builder()
            .env("PROCESSION_FAILPOINTS", folder.path().to_str().unwrap())
            .args(["--shutdown-grace-seconds", "600"])
    };
    let mut server = builder().start().await;
    let busy = id(&server.submit(&stubborn(&unique_seconds())).await);
    server.says(&busy, "ready").await;
    let place = "job.enlisted";
    places.hold_up(place);
    let body = json!({"command": ["true"], "name": "late"});
    let ends = async {
        places.reached(place).await;
        kill(server.supervisor(), Signal::SIGTERM).unwrap();
        eventually("the service ends", async || {
            (server.job(&busy).await["state"] == "stopping").then_some(())
        })
        .await;
        places.let_go(place);
    };
    let (reply, ()) = tokio::join!(server.post("/jobs", &body), ends);
    assert_eq!((reply.status, reply.code()), (503, "draining".to_owned()));
    assert_eq!(server.end(Signal::SIGTERM).unwrap().code(), Some(0));
    server.restart(builder());
    let jobs = server.get("/jobs?name=late").await.json();
    assert_eq!(jobs["jobs"], json!([]), "{jobs:#}");
}

#[tokio::test]
async fn jobs_that_are_left_run_on_and_are_found_again() {
    let leave = ["--on-shutdown", "leave"];
    let mut server = Server::builder().args(leave).start().await;
    let cwd = server.scratch();
    let script = "mkfifo gate; echo ready; read _ < gate; echo done; exit 5";
    let running = server.submit(&json!({"script": script, "cwd": cwd})).await;
    server.says(&id(&running), "ready").await;
    let meanwhile = server
        .submit(&json!({"script": "mkfifo gate2; echo ready; read _ < gate2; echo done; exit 6", "cwd": cwd}))
        .await;
    server.says(&id(&meanwhile), "ready").await;
    assert_eq!(server.end(Signal::SIGTERM).unwrap().code(), Some(0));
    // One ends while there is no service at all.
    std::fs::write(cwd.join("gate2"), "\n").unwrap();
    eventually("its monitor has ended", async || {
        (server.monitors().len() == 1).then_some(())
    })
    .await;
    server.restart(Server::builder().args(leave));
    assert_eq!(server.finished(&id(&meanwhile)).await["exit"]["code"], 6);
    assert_eq!(server.stdout(&id(&meanwhile)).await, "ready\ndone\n");
    assert_eq!(server.job(&id(&running)).await["state"], "running");
    std::fs::write(cwd.join("gate"), "\n").unwrap();
    assert_eq!(server.finished(&id(&running)).await["exit"]["code"], 5);
    assert_eq!(server.stdout(&id(&running)).await, "ready\ndone\n");
}

#[tokio::test]
async fn what_waits_goes_on_waiting_for_the_next_start() {
    let mut server = Server::builder().args(["--max-running", "1"]).start().await;
    let blocker = server
        .submit(&json!({"command": ["sleep", unique_seconds()]}))
        .await;
    let secret = json!({"script": "echo $SECRET; exit 7", "secret_env": {"SECRET": "kept"}});
    let waiting = server.submit(&secret).await;
    assert_eq!(waiting["state"], "queued", "{waiting:#}");
    assert_eq!(server.end(Signal::SIGTERM).unwrap().code(), Some(0));
    server.restart(Server::builder().args(["--max-running", "1"]));
    assert_eq!(
        server.job(&id(&blocker)).await["termination"]["cause"],
        "shutdown"
    );
    let ran = server.finished(&id(&waiting)).await;
    assert_eq!(ran["exit"]["code"], 7, "{ran:#}");
    assert_eq!(server.text(&id(&waiting)).await, "kept\n");
}

#[tokio::test]
async fn a_service_without_a_server_stops_its_jobs_all_the_same() {
    let mut server = Server::start().await;
    let seconds = unique_seconds();
    let job = server.submit(&stubborn(&seconds)).await;
    server.says(&id(&job), "ready").await;
    crate::harness::kill_now(server.server_process().unwrap());
    let status = server.end(Signal::SIGTERM).unwrap();
    assert!(status.code().is_some(), "{status}");
    assert_eq!(processes_with(&seconds), []);
    server.restart(Server::builder());
    let job = server.finished(&id(&job)).await;
    assert_eq!(job["termination"]["cause"], "shutdown", "{job:#}");
}

/// One kill(1) for every process of the service, as `pkill` and systemd's `KillMode=control-group` do it.
fn signal_family(server: &Server, signal: Signal) {
    let family = server.marked().into_iter();
    for process in family.filter(|process| process.name.starts_with("procession")) {
        let _ = kill(Pid::from_raw(process.pid), signal);
    }
}

#[tokio::test]
async fn a_signal_to_the_whole_family_is_one_to_the_supervisor() {
    let mut server = Server::builder()
        .args(["--shutdown-grace-seconds", "20"])
        .start()
        .await;
    let script = "trap 'sleep 1; echo bye; exit 3' TERM; echo ready; while :; do sleep 0.1; done";
    let job = id(&server.submit(&json!({"script": script})).await);
    server.says(&job, "ready").await;
    // Nobody is ended by those that others take for a word to open logs again.
    let first = server.server_process();
    signal_family(&server, Signal::SIGUSR1);
    signal_family(&server, Signal::SIGUSR2);
    signal_family(&server, Signal::SIGTERM);
    assert_eq!(server.wait_for_end().unwrap().code(), Some(0));
    assert!(first.is_some());
    let log = server.log();
    assert!(
        !log.contains("ended unasked") && !log.contains("is started again"),
        "{log}"
    );
    server.restart(Server::builder());
    let job = server.job(&job).await;
    assert_eq!(job["exit"]["code"], 3, "its grace: {job:#}");
    assert_eq!(job["termination"]["escalated"], false, "{job:#}");

    let mut server = Server::builder()
        .args(["--on-shutdown", "leave"])
        .start()
        .await;
    let job = id(&server.submit(&json!({"script": script})).await);
    server.says(&job, "ready").await;
    signal_family(&server, Signal::SIGTERM);
    assert_eq!(server.wait_for_end().unwrap().code(), Some(0));
    server.restart(Server::builder());
    assert_eq!(server.job(&job).await["state"], "running");
}
