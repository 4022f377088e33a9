//! A launch that comes to its monitor, and is still on its way when the server that made it is gone.

use nix::sys::signal::{Signal, kill};
use reqwest::Method;
use serde_json::{Value, json};

use super::errors::Places;
use crate::harness::{Process, Server, eventually, id, kill_now, processes};

/// Where a monitor is that has not read what to launch.
const BEFORE: &str = "monitor.started";

/// A job whose starts can be counted, and that leaves nothing to read.
fn counted(server: &Server) -> Value {
    let starts = server.scratch().join("starts");
    json!({"script": format!("echo $$ >> {}", starts.display())})
}

fn starts(server: &Server) -> usize {
    let starts = std::fs::read_to_string(server.scratch().join("starts"));
    starts.unwrap_or_default().lines().count()
}

async fn is_there(places: &Places) {
    eventually("a monitor waits", async || {
        (!places.is_armed(BEFORE)).then_some(())
    })
    .await;
}

/// Lets the monitor go on that waits, and waits until it has given up.
async fn let_go(places: &Places, late: i32) {
    places.arm(BEFORE, "");
    eventually("the late monitor has ended", async || {
        let ended = Process::read(late).is_none_or(|it| it.is_zombie());
        ended.then_some(())
    })
    .await;
}

/// The only monitor of a service.
fn monitor(server: &Server) -> i32 {
    let supervisor = server.supervisor().as_raw();
    let is_monitor = |it: &Process| it.ppid == supervisor && it.name.starts_with("procession-mon");
    let monitors: Vec<_> = processes().into_iter().filter(is_monitor).collect();
    assert_eq!(monitors.len(), 1, "{monitors:?}");
    monitors[0].pid
}

/// The next server has launched the job, and the job is over and its directory gone.
#[tokio::test]
async fn a_launch_that_is_later_than_its_job_starts_nothing() {
    let places = Places::new();
    let server = places.builder().start().await;
    let client = server.persistent();
    places.arm(BEFORE, "wait");
    let body = counted(&server);
    let kill_the_server = async {
        is_there(&places).await;
        let late = monitor(&server);
        kill_now(server.server_process().unwrap());
        late
    };
    let create = client.ask(Method::POST, "/jobs", Some(&body), Some("late"));
    let (created, late) = tokio::join!(create, kill_the_server);
    let job = client.finished(&id(&created.json())).await;
    assert_eq!(job["state"], "succeeded", "{job:#}");
    let directory = server.state_dir().join("jobs").join(id(&job));
    eventually("its directory is gone", async || {
        (!directory.exists()).then_some(())
    })
    .await;
    let_go(&places, late).await;
    assert_eq!(starts(&server), 1);
    assert_eq!(server.run(&counted(&server)).await["state"], "succeeded");
    assert_eq!(starts(&server), 2);
}

async fn a_job_is_accepted_when_the_service_ends_by(signal: Signal) {
    let leave = ["--on-shutdown", "leave"];
    let places = Places::new();
    let mut server = places.builder().args(leave).start().await;
    places.arm(BEFORE, "wait");
    let end = async {
        is_there(&places).await;
        let late = monitor(&server);
        kill(server.supervisor(), signal).unwrap();
        late
    };
    let body = counted(&server);
    let (created, late) = tokio::join!(server.post("/jobs", &body), end);
    assert_eq!(created.status, 201, "{created}");
    assert!(server.wait_for_end().is_some());
    let_go(&places, late).await;
    server.restart(places.builder().args(leave));
    let job = server.finished(&id(&created.json())).await;
    assert_eq!(job["state"], "succeeded", "{job:#}");
    assert_eq!(starts(&server), 1);
}

/// Who is told that it is not might submit it again, or give it to another machine.
#[tokio::test]
async fn a_job_that_is_stored_when_the_service_ends_is_said_to_be_accepted() {
    a_job_is_accepted_when_the_service_ends_by(Signal::SIGTERM).await;
}

#[tokio::test]
async fn a_job_that_is_stored_when_the_supervisor_is_killed_is_said_to_be_accepted() {
    a_job_is_accepted_when_the_service_ends_by(Signal::SIGKILL).await;
}
