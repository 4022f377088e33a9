//! A full disk, and one that cannot be written to at all.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::cli;
use crate::harness::{
    LONG, Server, binary, blocking_until, bound, eventually, id, is_root, unique_seconds,
};

/// A file system of a few megabytes in place of the state directory.
struct Small(PathBuf);

impl Small {
    /// `None` where this process may not mount.
    fn over(directory: &Path, options: &str) -> Option<Self> {
        if !is_root() {
            eprintln!("skipped: only root can mount a small file system");
            return None;
        }
        let made = mount(
            Some("small"),
            directory,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(options),
        );
        if let Err(errno) = made {
            eprintln!("skipped: cannot mount a small file system here: {errno}");
            return None;
        }
        Some(Self(directory.to_owned()))
    }

    /// Takes all the room that there is.
    fn fill(&self) {
        let mut file = File::create(self.0.join("filler")).unwrap();
        for size in [1 << 16, 4096, 1] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
    }

    fn make_room(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }

    fn remount(&self, flags: MsFlags) -> nix::Result<()> {
        mount(
            None::<&str>,
            &self.0,
            None::<&str>,
            MsFlags::MS_REMOUNT | flags,
            None::<&str>,
        )
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// The parent of the state directory is made first, so that there is something to mount on.
async fn on_a_small_disk() -> Option<(Server, Small)> {
    on_a_disk("size=6m,mode=0700").await
}

async fn on_a_disk(options: &str) -> Option<(Server, Small)> {
    let mut server = Server::start().await;
    assert!(server.end(Signal::SIGTERM).unwrap().success());
    let state = server.state_dir();
    let small = Small::over(&state, options)?;
    server.restart(Server::builder());
    server.read_token();
    Some((server, small))
}

#[tokio::test]
async fn a_full_disk_makes_jobs_wait_and_loses_nothing() {
    let Some((mut server, small)) = on_a_small_disk().await else {
        return;
    };
    let cwd = server.scratch();
    let script = "mkfifo gate; echo ready; read _ < gate; seq -f 'line %06.f' 1 20000; exit 9";
    let writer = server.submit(&json!({"script": script, "cwd": cwd})).await;
    server.says(&id(&writer), "ready").await;
    let script = "mkfifo gate2; echo ready; read _ < gate2; exit 8";
    let silent = server.submit(&json!({"script": script, "cwd": cwd})).await;
    server.says(&id(&silent), "ready").await;
    small.fill();

    let refused = server.post("/jobs", &json!({"command": ["true"]})).await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (507, "no_room"),
        "{refused}"
    );
    std::fs::write(cwd.join("gate"), "\n").unwrap();
    std::fs::write(cwd.join("gate2"), "\n").unwrap();
    eventually("the exit is recorded on a full disk", async || {
        let job = server.job(&id(&silent)).await;
        let is_over = !server.monitors().contains_key(&id(&silent));
        (is_over || job["exit"]["code"] == 8).then_some(())
    })
    .await;
    let waiting = server.job(&id(&writer)).await;
    assert_eq!(
        waiting["state"], "running",
        "it waits for room: {waiting:#}"
    );
    eventually("the job says so", async || {
        let job = server.job(&id(&writer)).await;
        let message = job["state_message"].as_str().unwrap_or_default();
        message.contains("No space left on device").then_some(())
    })
    .await;

    small.make_room();
    let silent = server.finished(&id(&silent)).await;
    assert_eq!(silent["exit"]["code"], 8, "{silent:#}");
    let ended = server.finished(&id(&writer)).await;
    assert_eq!(ended["exit"]["code"], 9, "{ended:#}");
    let lines: String = (1..=20000)
        .map(|number| format!("line {number:06}\n"))
        .collect();
    assert!(server.stdout(&id(&writer)).await == format!("ready\n{lines}"));
    let again = server.run(&json!({"script": "exit 6"})).await;
    assert_eq!(again["exit"]["code"], 6, "{again:#}");
    assert!(server.end(Signal::SIGTERM).unwrap().success());
    drop(small);
}

/// A job that fills the disk leaves what the store needs: it says why it waits, a stop ends it, and a purge makes room.
#[tokio::test]
async fn a_disk_that_a_job_has_filled_is_made_free_by_a_purge() {
    let Some((mut server, small)) = on_a_disk("size=48m,mode=0700").await else {
        return;
    };
    let body = json!({"command": ["cat", "/dev/zero"], "output": {"max_bytes": 1_000_000_000}});
    let job = id(&server.submit(&body).await);
    eventually("the job says what it waits for", async || {
        let job = server.job(&job).await;
        let message = job["state_message"].as_str().unwrap_or_default();
        message.contains("No space left on device").then_some(())
    })
    .await;
    let stopped = cli(&server, &["stop", &job]).good();
    assert!(stopped.text().contains("canceled"), "{stopped:?}");
    assert_eq!(server.run_script("exit 3").await["exit"]["code"], 3);
    let purged = server.delete(&job, "purge").await;
    assert_eq!(purged.status, 204, "{purged}");
    let body =
        json!({"script": "head -c 20000000 /dev/zero", "output": {"max_bytes": 1_000_000_000}});
    let again = server.run(&body).await;
    assert_eq!(again["output"]["stdout_bytes"], 20_000_000, "{again:#}");
    assert!(
        !server.log().contains("the store failed"),
        "{}",
        server.log()
    );
    assert!(server.end(Signal::SIGTERM).unwrap().success());
    drop(small);
}

/// While nothing can be stored, that is said once, and once for each job that has ended.
#[tokio::test]
async fn a_store_without_room_says_so_once() {
    let Some((mut server, small)) = on_a_small_disk().await else {
        return;
    };
    let body = json!({"command": ["sleep", unique_seconds()]});
    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.push(id(&server.submit(&body).await));
    }
    small.fill();
    for job in &jobs {
        let stopping = server.delete(job, "force").await;
        assert!(stopping.status < 300, "{stopping}");
    }
    eventually("each of them is tried", async || {
        let words = "could not be stored, and is tried again";
        (server.log().matches(words).count() == 3).then_some(())
    })
    .await;
    assert_eq!(server.log().matches("the store failed").count(), 1);
    small.make_room();
    for job in &jobs {
        assert_eq!(server.finished(job).await["state"], "canceled");
    }
    assert!(server.end(Signal::SIGTERM).unwrap().success());
    drop(small);
}

#[tokio::test]
async fn a_server_that_dies_on_a_full_disk_comes_back() {
    let Some((mut server, small)) = on_a_small_disk().await else {
        return;
    };
    let client = server.persistent();
    let ended = server.run_script("echo kept; exit 5").await;
    let cwd = server.scratch();
    let script = "mkfifo gate; echo ready; read _ < gate; echo more; exit 9";
    let job = server.submit(&json!({"script": script, "cwd": cwd})).await;
    server.says(&id(&job), "ready").await;
    small.fill();
    crate::harness::kill_now(server.server_process().unwrap());
    let view = client.get(&format!("/jobs/{}", id(&ended))).await.json();
    assert_eq!(view["exit"]["code"], 5, "{view:#}");
    crate::harness::kill_now(server.monitors()[&id(&job)]);
    std::fs::write(cwd.join("gate"), "\n").unwrap();
    let refused = client
        .ask(
            Method::POST,
            "/jobs",
            Some(&json!({"command": ["true"]})),
            None,
        )
        .await;
    assert_eq!(refused.status, 507, "{refused}");
    small.make_room();
    let job = client.finished(&id(&job)).await;
    assert_eq!(job["exit"]["code"], 9, "{job:#}");
    assert_eq!(server.text(&id(&job)).await, "ready\nmore\n");
    assert!(server.end(Signal::SIGTERM).unwrap().success());
    drop(small);
}

#[tokio::test]
async fn a_disk_that_cannot_be_written_to_is_refused_with_a_clear_word() {
    let Some((mut server, small)) = on_a_small_disk().await else {
        return;
    };
    let ended = server.run_script("echo kept; exit 5").await;
    assert!(server.end(Signal::SIGTERM).unwrap().success());
    let mut remounted = Err(nix::errno::Errno::EBUSY);
    blocking_until(LONG, || {
        remounted = small.remount(MsFlags::MS_RDONLY);
        remounted.is_ok()
    });
    remounted.unwrap();
    let output = Command::new(binary())
        .args(["serve", "--listen", "127.0.0.1:0", "--state-dir"])
        .arg(server.state_dir())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("Read-only file system"), "{said}");
    assert_eq!(output.status.code(), Some(78), "{said}");
    small.remount(MsFlags::empty()).unwrap();
    server.restart(Server::builder());
    let view: Value = server.job(&id(&ended)).await;
    assert_eq!(view["exit"]["code"], 5, "{view:#}");
    assert!(server.end(Signal::SIGTERM).unwrap().success());
    drop(small);
}

#[tokio::test]
async fn a_limit_on_the_size_of_files_kills_nobody() {
    // RLIMIT_FSIZE, which the kernel enforces with SIGXFSZ.
    let server = Server::builder().prelude("ulimit -S -f 4000").start().await;
    let first = server.server_process();
    // The log of a job goes on in another file.
    let script = "trap '' XFSZ; head -c 9000000 /dev/zero | tr '\\0' x; echo end";
    let job = server.run(&json!({"script": script})).await;
    assert_eq!(job["state"], "succeeded", "{job:#}");
    assert_eq!(job["output"]["dropped_bytes"], 0, "{job:#}");
    let output = server.output(&id(&job)).await;
    assert_eq!(output.len(), 9_000_004);
    // The store does not: what needs room is refused, and nobody dies.
    let text = "x".repeat(600_000);
    let mut refused = 0;
    for _ in 0..6 {
        let body = json!({"command": ["true"], "stdin": {"mode": "data", "text": text}});
        let reply = server.post("/jobs", &body).await;
        assert!([201, 503, 507].contains(&reply.status), "{reply}");
        refused += u32::from(reply.status != 201);
    }
    assert!(refused > 0);
    assert_eq!(server.server_process(), first);
    assert_eq!(server.get("/healthz").await.status, 200);
    // What is still to be written down waits for room.
    let pid = first.unwrap().to_string();
    let mut lift = Command::new("prlimit");
    lift.args(["--pid", &pid, "--fsize=unlimited:"]);
    assert!(lift.status().unwrap().success());
}

#[tokio::test]
async fn a_store_that_somebody_holds_locked_is_told_soon_and_nothing_is_lost() {
    let server = Server::start().await;
    let sleep = json!({"command": ["sleep", unique_seconds()]});
    let job = id(&server.submit(&sleep).await);
    let other = rusqlite::Connection::open(server.state_dir().join("procession.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let asked = std::time::Instant::now();
    let refusals = futures_util::future::join_all((0..5).map(|_| server.post("/jobs", &sleep)));
    for refused in refusals.await {
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (503, "store_unavailable"),
            "{refused}"
        );
        assert!(!refused.header("retry-after").is_empty());
    }
    for action in ["pause", "resume"] {
        let path = format!("/jobs/{job}/{action}");
        let done = server.send(server.request(Method::POST, &path)).await;
        assert_eq!(done.status, 200, "{done}");
    }
    let took = asked.elapsed();
    eprintln!("FIGURE store_locked_seconds {:.2}", took.as_secs_f64());
    assert!(took < bound(Duration::from_secs(10)).min(LONG), "{took:?}");
    // Longer than a writer waits for the lock.
    eventually("what cannot be told is tried again", async || {
        server
            .log()
            .matches("cannot be used:")
            .count()
            .checked_sub(1)
    })
    .await;
    other.execute_batch("COMMIT").unwrap();
    let path = format!("/jobs/{job}/events?follow=false");
    eventually("the events that were kept", async || {
        let events = server.get(&path).await;
        let text = String::from_utf8(events.body).unwrap();
        (text.contains("job.paused") && text.contains("job.resumed")).then_some(())
    })
    .await;
    assert_eq!(
        server.run(&json!({"command": ["true"]})).await["state"],
        "succeeded"
    );
    server.stop(&job, "force").await;
}

/// A file system has room for so many files, too.
#[tokio::test]
async fn a_disk_without_inodes_is_a_full_one() {
    let Some((mut server, small)) = on_a_disk("size=60m,nr_inodes=200,mode=0700").await else {
        return;
    };
    let before = server.run_script("exit 4").await;
    assert_eq!(before["exit"]["code"], 4, "{before:#}");
    let aside = small.0.join("many");
    std::fs::create_dir(&aside).unwrap();
    let mut made = 0;
    while File::create(aside.join(made.to_string())).is_ok() {
        made += 1;
    }
    for number in 0..10 {
        std::fs::remove_file(aside.join(number.to_string())).unwrap();
    }
    let refused = server.post("/jobs", &json!({"command": ["true"]})).await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (507, "no_room"),
        "{refused}"
    );
    assert_eq!(server.get("/readyz").await.status, 503);
    std::fs::remove_dir_all(&aside).unwrap();
    assert_eq!(server.get("/readyz").await.status, 200);
    let after = server.run_script("exit 6").await;
    assert_eq!(after["exit"]["code"], 6, "{after:#}");
    assert!(server.end(Signal::SIGTERM).unwrap().success());
    drop(small);
}

/// What is written to files that were moved away or removed is lost with the next start: no job is accepted for it.
#[tokio::test]
async fn a_service_without_its_state_directory_accepts_nothing() {
    for part in ["jobs", "procession.db"] {
        let server = Server::start().await;
        server.run_script("true").await;
        assert_eq!(server.get("/readyz").await.status, 200);
        let (there, away) = (
            server.state_dir().join(part),
            server.state_dir().join("away"),
        );
        std::fs::rename(&there, &away).unwrap();
        let ready = server.get("/readyz").await;
        assert_eq!((ready.status, ready.code().as_str()), (503, "not_ready"));
        assert!(ready.json()["detail"].as_str().unwrap().contains("moved"));
        let refused = server.post("/jobs", &json!({"script": "true"})).await;
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (503, "store_unavailable")
        );
        std::fs::rename(&away, &there).unwrap();
        assert_eq!(
            server.run_script("true").await["state"],
            "succeeded",
            "{part}"
        );
    }
}
