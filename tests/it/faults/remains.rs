//! What a dead supervisor or a dead machine leaves, and a service that starts on it.

use std::os::unix::fs::FileExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rand::SeedableRng;
use rand::rngs::StdRng;
use reqwest::Method;
use serde_json::{Value, json};

use super::checkable::{Checkable, Kind};
use super::{post, runs};
use crate::harness::{
    Process, Server, binary, blocking_until, eventually, id, kill_now, processes_with,
    unique_seconds,
};

fn pid(job: &Value) -> i32 {
    let pid = job["process"]["pid"].as_i64();
    i32::try_from(pid.unwrap_or_else(|| panic!("no process: {job:#}"))).unwrap()
}

pub(super) fn monitor_of(server: &Server, id: &str) -> nix::unistd::Pid {
    server.monitors()[id]
}

/// Has the kernel give the next process the number `wanted`; `None` where this process may not, or the
/// machine is too busy for that.
fn with_number(wanted: i32, mut start: impl FnMut() -> Child) -> Option<Child> {
    for _ in 0..200 {
        if Process::read(wanted).is_some() {
            return None;
        }
        std::fs::write("/proc/sys/kernel/ns_last_pid", (wanted - 1).to_string()).ok()?;
        let mut child = start();
        if i32::try_from(child.id()) == Ok(wanted) {
            return Some(child);
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    None
}

#[tokio::test]
async fn sixty_four_requests_with_one_key_are_one_job_whenever_the_server_dies() {
    let server = Server::start().await;
    let file = server.scratch().join("runs");
    let mut rng = StdRng::seed_from_u64(1);
    for round in 0..4_u64 {
        let job = Checkable::new(Kind::Plain, &mut rng, &file);
        let client = server.persistent();
        let posts = join_all((0..64).map(|_| post(&client, &job)));
        let killer = async {
            for _ in 0..=round {
                let killed =
                    eventually("there is a server", async || server.server_process()).await;
                kill_now(killed);
            }
        };
        let (ids, ()) = tokio::join!(posts, killer);
        let first = &ids[0];
        assert!(ids.iter().all(|id| id == first), "{ids:?}");
        client.finished(first).await;
        assert_eq!(runs(&file).get(&job.token), Some(&1));
        let all = client.get("/jobs?page_size=1000").await.json();
        let named = all["jobs"].as_array().unwrap().iter();
        assert_eq!(
            named
                .filter(|view| view["name"] == job.token.as_str())
                .count(),
            1
        );
    }
}

#[tokio::test]
async fn without_monitor_and_supervisor_a_job_is_lost_and_its_number_is_left_alone() {
    let mut server = Server::start().await;
    let seconds = unique_seconds();
    let job = server
        .submit(&json!({"script": format!("echo begun; exec sleep {seconds}")}))
        .await;
    server.says(&id(&job), "begun").await;
    let (leader, monitor) = (pid(&job), monitor_of(&server, &id(&job)));
    server.kill_supervisor();
    kill_now(monitor);
    kill_now(nix::unistd::Pid::from_raw(leader));
    assert!(blocking_until(Duration::from_secs(10), || processes_with(
        &seconds
    )
    .is_empty()));
    // Whoever reaps orphans on this machine may take its time.
    blocking_until(Duration::from_secs(2), || Process::read(leader).is_none());
    let other = unique_seconds();
    // It has even a session of that number.
    let innocent = with_number(leader, || {
        Command::new("setsid")
            .args(["sleep", &other])
            .spawn()
            .unwrap()
    });
    server.restart(Server::builder());
    let lost = server.finished(&id(&job)).await;
    assert_eq!(lost["state"], "lost", "{lost:#}");
    assert_eq!(lost["termination"]["cause"], "supervisor_lost", "{lost:#}");
    assert_eq!(lost["exit"], Value::Null, "{lost:#}");
    assert_eq!(server.text(&id(&job)).await, "begun\n");
    assert_eq!(lost["output"]["stdout_bytes"], 6, "{lost:#}");
    let stopped = server.delete(&id(&job), "force").await;
    assert_eq!(stopped.status, 200, "{stopped}");
    match innocent {
        Some(mut child) => {
            assert!(
                child.try_wait().unwrap().is_none(),
                "an innocent process was signalled"
            );
            let state = Process::read(leader).unwrap().state;
            assert_eq!(state, 'S', "an innocent process was stopped");
            child.kill().unwrap();
            child.wait().unwrap();
        }
        None => eprintln!("skipped: the number of a process cannot be chosen here"),
    }
}

#[tokio::test]
async fn a_number_that_was_somebody_elses_has_not_its_exit_status() {
    let server = Server::start().await;
    // A job whose leader the supervisor reaps, since its monitor is dead.
    let first = server
        .submit(&json!({"command": ["sleep", unique_seconds()]}))
        .await;
    let number = pid(&first);
    kill_now(monitor_of(&server, &id(&first)));
    let canceled = server.stop(&id(&first), "force").await;
    assert_eq!(canceled["exit"]["signal"], "SIGKILL", "{canceled:#}");
    let mut second = None;
    for _ in 0..100 {
        // The monitor comes before the leader.
        let last = (number - 2).to_string();
        if std::fs::write("/proc/sys/kernel/ns_last_pid", last).is_err() {
            break;
        }
        let job = server
            .submit(&json!({"command": ["sleep", unique_seconds()]}))
            .await;
        if pid(&job) == number {
            second = Some(job);
            break;
        }
        server.stop(&id(&job), "force").await;
    }
    let Some(second) = second else {
        eprintln!("skipped: the number of a process cannot be chosen here");
        return;
    };
    let old = monitor_of(&server, &id(&second));
    kill_now(old);
    eventually("a rescuer has the job", async || {
        server
            .monitors()
            .get(&id(&second))
            .filter(|new| **new != old)
            .copied()
    })
    .await;
    let ended = server.stop(&id(&second), "").await;
    assert_eq!(ended["exit"]["signal"], "SIGTERM", "its own end: {ended:#}");
}

#[tokio::test]
async fn a_job_from_before_the_machine_restarted_is_lost_and_one_that_waited_runs() {
    let mut server = Server::builder().args(["--max-running", "1"]).start().await;
    let seconds = unique_seconds();
    let running = server.submit(&json!({"command": ["sleep", seconds]})).await;
    let waiting = server.submit(&json!({"script": "echo ran; exit 4"})).await;
    assert_eq!(waiting["state"], "queued");
    let monitor = monitor_of(&server, &id(&running));
    server.kill_supervisor();
    kill_now(monitor);
    // What the dead machine's number is now, on this one.
    let innocent = processes_with(&seconds);
    server.restart(
        Server::builder()
            .args(["--max-running", "1"])
            .env("PROCESSION_BOOT_ID", "another-boot"),
    );
    let lost = server.finished(&id(&running)).await;
    assert_eq!(lost["state"], "lost", "{lost:#}");
    assert_eq!(lost["termination"]["cause"], "host_rebooted", "{lost:#}");
    assert_eq!(lost["exit"], Value::Null, "{lost:#}");
    let ran = server.finished(&id(&waiting)).await;
    assert_eq!(ran["exit"]["code"], 4, "{ran:#}");
    assert_eq!(server.text(&id(&waiting)).await, "ran\n");
    let there = processes_with(&seconds);
    assert_eq!(there.len(), 1, "nobody is signalled");
    assert_eq!(there[0].pid, innocent[0].pid);
    assert_ne!(there[0].state, 'T', "nobody is signalled");
    for process in innocent {
        kill_now(nix::unistd::Pid::from_raw(process.pid));
    }
    blocking_until(Duration::from_secs(5), || {
        processes_with(&seconds).is_empty()
    });
}

#[tokio::test]
async fn a_damaged_record_is_put_aside_and_its_job_is_lost() {
    let mut server = Server::start().await;
    let seconds = unique_seconds();
    let job = server
        .submit(&json!({"script": format!("echo begun; exec sleep {seconds}")}))
        .await;
    server.says(&id(&job), "begun").await;
    let monitor = monitor_of(&server, &id(&job));
    let service = server.server_process().unwrap();
    server.kill_supervisor();
    // It would end by itself, but could find the damage first, and count it.
    kill_now(service);
    eventually("the server is gone", async || {
        Process::read(service.as_raw())
            .is_none_or(|process| process.is_zombie())
            .then_some(())
    })
    .await;
    kill_now(monitor);
    kill_now(nix::unistd::Pid::from_raw(pid(&job)));
    let directory = server.state_dir().join("jobs").join(id(&job));
    let record = std::fs::OpenOptions::new()
        .write(true)
        .open(directory.join("record"))
        .unwrap();
    for slot in [0, 8192] {
        record.write_all_at(&[0xff; 64], slot + 10).unwrap();
    }
    server.restart(Server::builder());
    let lost = server.finished(&id(&job)).await;
    assert_eq!(lost["state"], "lost", "{lost:#}");
    assert!(directory.join("record.damaged").exists());
    assert_eq!(server.text(&id(&job)).await, "begun\n");
    let info = server.get("/info").await.json();
    assert_eq!(info["damaged_records"], 1, "{info:#}");
    let purged = server.delete(&id(&job), "purge").await;
    assert_eq!(purged.status, 204, "{purged}");
    assert!(!directory.exists(), "a purge leaves nothing");
}

#[tokio::test]
async fn what_is_no_store_is_refused_and_kept() {
    let mut server = Server::start().await;
    let ended = server.run_script("echo kept").await;
    assert!(
        server
            .end(nix::sys::signal::Signal::SIGTERM)
            .unwrap()
            .success()
    );
    let store = server.state_dir().join("procession.db");
    let sound = std::fs::read(&store).unwrap();
    let garbage = vec![7; sound.len()];
    std::fs::write(&store, &garbage).unwrap();
    let output = Command::new(binary())
        .args(["serve", "--listen", "127.0.0.1:0", "--state-dir"])
        .arg(server.state_dir())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("damaged") || said.contains("another program"),
        "{said}"
    );
    assert_eq!(
        std::fs::read(&store).unwrap(),
        garbage,
        "nothing is overwritten"
    );
    std::fs::write(&store, sound).unwrap();
    server.restart(Server::builder());
    assert_eq!(server.job(&id(&ended)).await["state"], "succeeded");
}

#[tokio::test]
async fn a_new_server_knows_every_running_job_at_once() {
    let number = |name: &str, default: usize| {
        std::env::var(name).map_or(default, |text| text.parse().unwrap())
    };
    let count = number("PROCESSION_RECOVERY_JOBS", 100);
    let limit = count.to_string();
    let server = Server::builder()
        .args(["--max-running", limit.as_str()])
        .start()
        .await;
    let client = server.persistent();
    let body = json!({"command": ["sleep", unique_seconds()]});
    let mut ids = Vec::new();
    while ids.len() < count {
        let some = (0..50.min(count - ids.len())).map(|_| server.submit(&body));
        ids.extend(join_all(some).await.iter().map(id));
    }
    let killed = server.server_process().unwrap();
    kill_now(killed);
    let began = Instant::now();
    let mut running = 0;
    while running < count {
        let mut jobs = 0;
        let mut token = String::new();
        loop {
            let path = format!("/jobs?page_size=1000&state=running{token}");
            let page = client.get(&path).await.json();
            jobs += page["jobs"].as_array().unwrap().len();
            match page["next_page_token"].as_str() {
                Some(next) => token = format!("&page_token={next}"),
                None => break,
            }
        }
        running = jobs;
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "{running} of {count}"
        );
    }
    eprintln!(
        "{count} running jobs are known again {:?} after the server was killed",
        began.elapsed()
    );
    // A job is known for good when its monitor obeys again.
    let begun = Instant::now();
    let stopped = client
        .ask(
            Method::DELETE,
            &format!("/jobs/{}?wait=5", ids[0]),
            None,
            None,
        )
        .await;
    assert_eq!(stopped.json()["state"], "canceled", "{stopped}");
    eprintln!("the first stop took {:?}", begun.elapsed());
}

/// A job with a daemon that holds none of its pipes: the job's id, and what daemon and leader sleep.
pub(super) async fn with_daemon(server: &Server) -> (String, String, String) {
    let (daemon, leader) = (unique_seconds(), unique_seconds());
    let script = format!(
        "(setsid sleep {daemon} < /dev/null > /dev/null 2>&1 &) ; echo ready; exec sleep {leader}"
    );
    let job = server.submit(&json!({ "script": script })).await;
    server.says(&id(&job), "ready").await;
    eventually("the daemon runs", async || {
        (processes_with(&daemon).len() == 1).then_some(())
    })
    .await;
    (id(&job), daemon, leader)
}

#[tokio::test]
async fn a_daemon_whose_monitor_died_is_stopped_with_its_job() {
    let server = Server::start().await;
    let (job, daemon, leader) = with_daemon(&server).await;
    kill_now(monitor_of(&server, &job));
    let job = server.stop(&job, "").await;
    assert_eq!(job["state"], "canceled", "{job:#}");
    assert_eq!(job["exit"]["signal"], "SIGTERM", "{job:#}");
    assert_eq!(processes_with(&daemon), [], "{job:#}");
    assert_eq!(processes_with(&leader), [], "{job:#}");
}
