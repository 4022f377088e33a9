//! Thousands of jobs: every result true, and nothing left of them but their output.

use std::collections::BTreeSet;
use std::fs;

use futures_util::stream::{self, StreamExt};
use nix::unistd::Pid;
use serde_json::json;

use crate::harness::{Server, eventually, id, is_spare, job_cgroups, processes};

const JOBS: u32 = 2000;
const AT_ONCE: usize = 32;

fn open_files(pid: Pid) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// A line of `/proc/PID/status` in KiB.
fn memory(pid: Pid, line: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let found = status.lines().find_map(|text| text.strip_prefix(line));
    let found = found.unwrap_or_else(|| panic!("no {line} in {status}"));
    found
        .trim_start_matches(':')
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}

#[tokio::test]
async fn two_thousand_jobs_are_told_truly_and_leave_nothing() {
    let server = Server::builder()
        .args(["--log-level", "warn"])
        .start()
        .await;
    let supervisor = server.supervisor();
    // The first job makes what is made once.
    server.run(&json!({"command": ["true"]})).await;
    let server_pid = server.get("/info").await.json()["server_pid"]
        .as_i64()
        .unwrap();
    let server_pid = Pid::from_raw(i32::try_from(server_pid).unwrap());
    let idle = (open_files(supervisor), open_files(server_pid));

    let jobs = (0..JOBS).map(|number| {
        let server = &server;
        async move {
            let code: u8 = rand::random();
            let word: u64 = rand::random();
            let script = format!("echo line {number} {word:x}; exit {code}");
            let job = server.run(&json!({"script": script})).await;
            assert_eq!(job["exit"]["code"], code, "{job:#}");
            assert_eq!(job["exit"]["signal"], json!(null), "{job:#}");
            let state = if code == 0 { "succeeded" } else { "failed" };
            assert_eq!(job["state"], state, "{job:#}");
            let output = server.text(&id(&job)).await;
            assert_eq!(output, format!("line {number} {word:x}\n"), "{job:#}");
            id(&job)
        }
    });
    let ids: BTreeSet<String> = stream::iter(jobs).buffer_unordered(AT_ONCE).collect().await;
    assert_eq!(ids.len(), usize::try_from(JOBS).unwrap());

    let children_of = |pid: Pid| -> Vec<i32> {
        let all = processes().into_iter();
        let children = all.filter(|process| process.ppid == pid.as_raw());
        children.map(|process| process.pid).collect()
    };
    eventually("only supervisor and server are left", async || {
        let mut left: Vec<i32> = server.marked().iter().map(|process| process.pid).collect();
        left.sort_unstable();
        let mut roles = [supervisor.as_raw(), server_pid.as_raw()];
        roles.sort_unstable();
        // Nor is there a zombie, which has no mark.
        let has_no_other = children_of(supervisor) == [server_pid.as_raw()];
        (left == roles && has_no_other && children_of(server_pid).is_empty()).then_some(())
    })
    .await;
    assert_eq!(
        job_cgroups(&server.state_dir()),
        Vec::<std::path::PathBuf>::new()
    );
    eventually("as many open files as before", async || {
        ((open_files(supervisor), open_files(server_pid)) <= idle).then_some(())
    })
    .await;

    // What is kept of a job is in the store; some directories are there for the next ones, with nothing of it.
    eventually("only directories for other jobs are left", async || {
        let entries = fs::read_dir(server.state_dir().join("jobs")).unwrap();
        let mut entries = entries.map(Result::unwrap);
        entries.all(|entry| is_spare(&entry)).then_some(())
    })
    .await;
    for directory in fs::read_dir(server.state_dir().join("jobs")).unwrap() {
        for file in fs::read_dir(directory.unwrap().path()).unwrap().flatten() {
            let bytes = fs::read(file.path()).unwrap();
            assert!(bytes.iter().all(|byte| *byte == 0), "{file:?}");
        }
    }

    let (anonymous, resident) = (memory(supervisor, "RssAnon"), memory(supervisor, "VmRSS"));
    eprintln!("supervisor: {anonymous} KiB anonymous, {resident} KiB resident");
    assert!(anonymous < 5 << 10, "{anonymous} KiB");
    if !cfg!(debug_assertions) {
        // Unoptimised code with its debug information is a multiple of what is shipped.
        assert!(resident < 5 << 10, "{resident} KiB");
    }
    let info = server.get("/info").await.json();
    assert_eq!(info["jobs"]["running"], 0, "{info:#}");
    assert_eq!(info["server_restarts"], 0, "{info:#}");
}

/// From 64 monitors on the supervisor forks and reaps in another way.
#[tokio::test]
async fn beside_many_others_a_job_starts_and_ends_like_any_other() {
    let server = Server::start().await;
    let submit = |number: u32| {
        let server = &server;
        async move {
            let spec =
                json!({"command": ["sleep", "600"], "labels": {"number": number.to_string()}});
            id(&server.submit(&spec).await)
        }
    };
    let sleepers: Vec<String> = stream::iter((0..80).map(submit))
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let monitors = server.monitors();
    assert_eq!(monitors.len(), sleepers.len());
    let most = monitors.values().map(|pid| open_files(*pid)).max();
    assert!(
        most < Some(40),
        "a monitor holds {most:?} files, as if they were the supervisor's"
    );

    let spec = json!({
        "script": "ls /proc/self/fd | wc -l; cat; echo error >&2; exit 7",
        "stdin": {"mode": "data", "text": "from its input\n"},
    });
    let jobs = (0..20).map(|_| server.run(&spec));
    let jobs: Vec<_> = stream::iter(jobs).buffer_unordered(4).collect().await;
    for job in jobs {
        assert_eq!(job["exit"]["code"], 7, "{job:#}");
        let path = format!("/jobs/{}/output/", id(&job));
        let stdout = server.get(&format!("{path}stdout")).await.body;
        // 0 to 2, and the directory that ls itself has open.
        assert_eq!(stdout, b"4\nfrom its input\n", "{job:#}");
        assert_eq!(server.get(&format!("{path}stderr")).await.body, b"error\n");
    }
    // A monitor that is killed is seen at once, and its job goes on.
    let job = sleepers[0].clone();
    crate::harness::kill_now(monitors[&job]);
    eventually("another monitor", async || {
        let now = *server.monitors().get(&job)?;
        (now != monitors[&job]).then_some(())
    })
    .await;
    assert_eq!(server.job(&job).await["state"], "running");
    let stopped = server
        .post("/jobs/stop", &json!({"label_selector": "number"}))
        .await;
    assert_eq!(stopped.status, 207);
    for sleeper in &sleepers {
        assert_eq!(server.finished(sleeper).await["exit"]["signal"], "SIGTERM");
    }
}
