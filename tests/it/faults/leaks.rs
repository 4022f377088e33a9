//! What many short jobs leave behind: nothing, in files, cgroups, descriptors, memory and store.

use std::fs;
use std::path::Path;
use std::time::Instant;

use futures_util::stream::{self, StreamExt};
use nix::unistd::Pid;
use serde_json::json;

use super::leftover_files;
use crate::harness::{Server, eventually, is_spare, job_cgroups};

/// How many finished jobs the service keeps.
const KEPT: usize = 100;

/// How many jobs are under way at any time.
const AT_ONCE: usize = 8;

/// What grows where something leaks.
#[derive(Clone, Copy, Debug)]
struct Size {
    supervisor_kib: u64,
    server_kib: u64,
    supervisor_fds: usize,
    server_fds: usize,
    store_kib: u64,
    directories: usize,
}

impl Size {
    fn of(server: &Server) -> Self {
        let supervisor = server.supervisor();
        let process = server.server_process().unwrap();
        let state = server.state_dir();
        Self {
            supervisor_kib: private_kib(supervisor),
            server_kib: private_kib(process),
            supervisor_fds: descriptors(supervisor),
            server_fds: descriptors(process),
            store_kib: kib(&state.join("procession.db")) + kib(&state.join("procession.db-wal")),
            directories: fs::read_dir(state.join("jobs"))
                .unwrap()
                .filter(|entry| !is_spare(entry.as_ref().unwrap()))
                .count(),
        }
    }
}

/// The memory that a process shares with no file.
fn private_kib(pid: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let number = line.unwrap().trim().trim_end_matches(" kB");
    number.trim().parse().unwrap()
}

fn descriptors(pid: Pid) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

fn kib(file: &Path) -> u64 {
    fs::metadata(file).map_or(0, |file| file.len() / 1024)
}

/// Runs jobs that do nothing, and one in ten that writes something.
async fn run(server: &Server, jobs: usize) {
    let one = |number: usize| async move {
        let body = match number % 10 {
            0 => json!({"command": ["echo", "output"]}),
            _ => json!({"command": ["/bin/true"]}),
        };
        let reply = server.post("/jobs?wait=30", &body).await;
        assert_eq!(reply.status, 201, "{reply}");
        assert_eq!(reply.json()["state"], "succeeded", "{reply}");
    };
    let all = stream::iter((0..jobs).map(one)).buffer_unordered(AT_ONCE);
    all.collect::<()>().await;
    eventually("the oldest have gone", async || {
        let list = server.get("/jobs?page_size=1000").await.json();
        (list["jobs"].as_array().unwrap().len() <= KEPT).then_some(())
    })
    .await;
}

#[tokio::test]
async fn many_jobs_leave_nothing_behind() {
    let jobs = std::env::var("PROCESSION_LEAK_JOBS").map_or(400, |text| text.parse().unwrap());
    let server = Server::builder()
        .args(["--max-finished", &KEPT.to_string()])
        .args(["--max-events", "1000", "--log-level", "warn"])
        .start()
        .await;
    // Pools, caches and the store's file grow to their size first.
    run(&server, (jobs / 4).clamp(200, 5000)).await;
    let before = Size::of(&server);
    let began = Instant::now();
    run(&server, jobs).await;
    let took = began.elapsed();
    eventually("every record and cgroup is gone", async || {
        let is_tidy = leftover_files(&server).is_empty()
            && job_cgroups(&server.state_dir()).is_empty()
            && server.monitors().is_empty();
        is_tidy.then_some(())
    })
    .await;
    // A monitor without a job is kept for some seconds, and the supervisor has a socket to it.
    eventually(
        "the supervisor has no more descriptors than before",
        async || (descriptors(server.supervisor()) <= before.supervisor_fds).then_some(()),
    )
    .await;
    let after = Size::of(&server);
    eprintln!("{jobs} jobs in {took:?}\nbefore {before:?}\nafter  {after:?}");
    assert!(after.directories <= KEPT, "{after:?}");
    assert!(
        after.supervisor_kib <= before.supervisor_kib + 512,
        "{before:?} {after:?}"
    );
    assert!(
        after.server_kib <= before.server_kib + 16 * 1024,
        "{before:?} {after:?}"
    );
    // Connections that are just being closed.
    assert!(
        after.server_fds <= before.server_fds + AT_ONCE,
        "{before:?} {after:?}"
    );
    assert!(
        after.store_kib <= before.store_kib * 2 + 1024,
        "{before:?} {after:?}"
    );
}
