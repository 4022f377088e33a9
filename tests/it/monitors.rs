//! One monitor has job after job: what the next one must not notice of the last, and when it ends.

use std::collections::HashSet;
use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::harness::{Process, Server, eventually, eventually_within, id, unique_seconds};

/// The parent of a job's leader is its monitor.
const WHO: &str = "echo $PPID";

fn is_there(pid: i32) -> bool {
    Process::read(pid)
        .is_some_and(|process| process.name == "procession-mon" && !process.is_zombie())
}

/// Runs a job; its monitor, and how the job ended.
async fn monitor_of(server: &Server, script: &str) -> (i32, Value) {
    let job = server.run_script(&format!("{WHO}; {script}")).await;
    let text = server.text(&id(&job)).await;
    (text.lines().next().unwrap().parse().unwrap(), job)
}

/// Runs `script` until it has a monitor that has had a job before: one that is soon asked for another may not
/// have said yet that it is done with the last. That monitor, and the job.
async fn again(server: &Server, script: &str) -> (i32, Value) {
    let mut seen = HashSet::new();
    for _ in 0..200 {
        let (monitor, job) = monitor_of(server, script).await;
        if !seen.insert(monitor) {
            return (monitor, job);
        }
    }
    panic!("every job had a monitor of its own: {seen:?}");
}

/// What a monitor has open but the standard ones; nothing where it is gone.
fn descriptors(pid: i32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten();
    let mut links: Vec<String> = entries
        .filter(|entry| entry.file_name().len() > 1 || entry.file_name() > *"2")
        .filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.display().to_string()))
        // Which socket or pipe it is, is no matter.
        .map(|link| link.split(':').next().unwrap_or_default().to_owned())
        .collect();
    links.sort();
    links
}

#[tokio::test]
async fn a_monitor_that_has_another_job_counts_only_what_that_one_uses() {
    let server = Server::start().await;
    // 64 MiB in the memory of one process, and some time of a processor.
    let large = "x=$(head -c 67108864 /dev/zero | tr '\\0' y); : $x";
    let mut large_ones = HashSet::new();
    let (monitor, job) = monitor_of(&server, large).await;
    large_ones.insert(monitor);
    let rss = job["usage"]["max_rss_bytes"].as_u64().unwrap();
    assert!(rss > 64 << 20, "{job:#}");
    let small = eventually("a small job after a large one", async || {
        let (monitor, job) = monitor_of(&server, "").await;
        large_ones.contains(&monitor).then_some(job)
    })
    .await;
    let usage = &small["usage"];
    assert!(
        usage["max_rss_bytes"].as_u64().unwrap() < 32 << 20,
        "{small:#}"
    );
    assert!(usage["max_rss_bytes"].as_u64().unwrap() > 0, "{small:#}");
    let seconds = |name: &str| usage[name].as_f64().unwrap();
    let cpu = seconds("user_cpu_seconds") + seconds("system_cpu_seconds");
    let before = &job["usage"];
    let large_cpu = before["user_cpu_seconds"].as_f64().unwrap()
        + before["system_cpu_seconds"].as_f64().unwrap();
    assert!(cpu < large_cpu, "{small:#}\n{job:#}");
}

#[tokio::test]
async fn the_memory_of_a_monitor_is_not_counted_as_that_of_a_later_job() {
    let server = Server::start().await;
    let rss = |job: &Value| job["usage"]["max_rss_bytes"].as_u64().unwrap();
    let (_, first) = monitor_of(&server, "").await;
    // The monitor has all of this in its memory, several times.
    let large = json!({
        "script": format!("cat >/dev/null; {WHO}"),
        "stdin": {"mode": "data", "text": "x".repeat(1_000_000)},
    });
    let job = server.run(&large).await;
    let monitor: i32 = server.text(&id(&job)).await.trim().parse().unwrap();
    let small = eventually("a small job after a large one", async || {
        let (again, job) = monitor_of(&server, "").await;
        (again == monitor).then_some(job)
    })
    .await;
    assert!(
        rss(&small) < rss(&first) + (1 << 20),
        "{small:#}\n{first:#}"
    );
}

#[tokio::test]
async fn a_monitor_keeps_nothing_of_the_jobs_that_it_had() {
    let server = Server::start().await;
    let jobs = server.state_dir().join("jobs").display().to_string();
    for number in 0..30 {
        let body = match number % 3 {
            0 => json!({"command": ["cat"], "stdin": {"mode": "data", "text": "some input"}}),
            1 => json!({"script": "echo out; echo err >&2", "output": {"merge_stderr": true}}),
            _ => json!({"command": ["/nonexistent/program"]}),
        };
        server.run(&body).await;
    }
    let (monitor, _) = again(&server, "").await;
    // The jobs' directory, the word that it is idle, the next job, signals.
    let kept = [jobs.as_str(), "anon_inode", "pipe", "socket"];
    eventually("an idle monitor as it began", async || {
        (descriptors(monitor) == kept).then_some(())
    })
    .await;
    assert!(!server.log().contains("ERROR"), "{}", server.log());
}

#[tokio::test]
async fn what_one_job_changes_of_itself_is_not_there_for_the_next() {
    let server = Server::start().await;
    let show = "ulimit -c; ulimit -n; umask; pwd; nice; cat /proc/self/oom_score_adj; id -u; env | grep ^SECRET";
    let plain = json!({"script": format!("{WHO}; {show}"), "cwd": "/"});
    let first = server.run(&plain).await;
    let expected = server.text(&id(&first)).await;
    let expected = expected.split_once('\n').unwrap().1.to_owned();
    let odd = json!({
        "script": format!("{WHO}; {show}"),
        "cwd": "/tmp",
        "umask": "0077",
        "nice": 7,
        "rlimits": {"core": 4096, "nofile": 64},
        "env": {"SECRET": "of the job before"},
    });
    eventually("a plain job after an odd one", async || {
        let odd = server.text(&id(&server.run(&odd).await)).await;
        assert_ne!(odd.split_once('\n').unwrap().1, expected);
        let text = server.text(&id(&server.run(&plain).await)).await;
        let (monitor, shown) = text.split_once('\n').unwrap();
        assert_eq!(shown, expected);
        (odd.split('\n').next() == Some(monitor)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_idle_monitor_that_is_killed_is_not_missed() {
    let server = Server::start().await;
    for _ in 0..5 {
        let (monitor, _) = again(&server, "").await;
        kill(Pid::from_raw(monitor), Signal::SIGKILL).unwrap();
        let job = server.run_script("exit 7").await;
        assert_eq!(job["exit"]["code"], 7, "{job:#}");
    }
    // Asked to end, it ends: it has no job that could be stopped.
    let (monitor, _) = again(&server, "").await;
    kill(Pid::from_raw(monitor), Signal::SIGTERM).unwrap();
    eventually("it is gone", async || (!is_there(monitor)).then_some(())).await;
    let job = server.run_script("exit 8").await;
    assert_eq!(
        (&job["state"], &job["exit"]["code"]),
        (&json!("failed"), &json!(8))
    );
}

#[tokio::test]
async fn idle_monitors_end_when_nobody_needs_them() {
    let server = Server::start().await;
    let (monitor, _) = again(&server, "").await;
    assert!(is_there(monitor));
    let within = std::time::Duration::from_secs(60);
    eventually_within(within, "it is gone", async || {
        (!is_there(monitor)).then_some(())
    })
    .await;
    let job = server.run_script("exit 9").await;
    assert_eq!(job["exit"]["code"], 9);
}

#[tokio::test]
async fn idle_monitors_end_with_the_supervisor() {
    let mut server = Server::start().await;
    let (monitor, _) = again(&server, "").await;
    server.end(Signal::SIGKILL);
    eventually("it is gone", async || (!is_there(monitor)).then_some(())).await;
    server.start_again(Server::builder()).await;
}

#[tokio::test]
async fn jobs_with_a_terminal_come_after_others_and_before_them() {
    let server = Server::start().await;
    for _ in 0..5 {
        let (_, job) = monitor_of(&server, "test ! -t 1").await;
        assert_eq!(job["state"], "succeeded", "{job:#}");
        let body = json!({"script": "test -t 0 && test -t 1 && echo yes", "pty": {}});
        let job = server.run(&body).await;
        assert_eq!(job["state"], "succeeded", "{job:#}");
    }
}

#[tokio::test]
async fn a_monitor_that_its_job_stops_goes_on() {
    let server = Server::start().await;
    let script = "while :; do kill -STOP $PPID; sleep 0.05; done";
    let late = json!({"script": script, "timeout_seconds": 1});
    let late = server.run(&late).await;
    assert_eq!(late["termination"]["cause"], "timeout", "{late:#}");
    let job = server.submit(&json!({"script": script})).await;
    let stopped = server.stop(&id(&job), "force=true").await;
    assert_eq!(stopped["exit"]["signal"], "SIGKILL", "{stopped:#}");
}

/// Its supervisor is gone, and the next one is not told that it was stopped.
#[tokio::test]
async fn a_monitor_of_an_earlier_service_that_its_job_stops_goes_on() {
    let builder = || Server::builder().args(["--on-shutdown", "leave"]);
    let mut server = builder().start().await;
    let cwd = server.scratch();
    let script = format!(
        "mkfifo gate; echo ready; read _ < gate; kill -STOP $PPID; : > stopped; sleep {}",
        unique_seconds()
    );
    let job = id(&server.submit(&json!({"script": script, "cwd": cwd})).await);
    server.says(&job, "ready").await;
    server.end(Signal::SIGTERM);
    server.start_again(builder()).await;
    server.in_state(&job, "running").await;
    fs::write(cwd.join("gate"), "\n").unwrap();
    eventually("it has been stopped", async || {
        cwd.join("stopped").exists().then_some(())
    })
    .await;
    let canceled = server.stop(&job, "force").await;
    assert_eq!(canceled["exit"]["signal"], "SIGKILL", "{canceled:#}");
    assert!(server.log().contains("was stopped, and is woken"));
}

/// A debugger holds the monitor, so that nothing wakes it.
#[tokio::test]
async fn a_monitor_that_does_not_answer_is_not_waited_for_for_ever() {
    let server = Server::start().await;
    let body = json!({"command": ["sleep", unique_seconds()]});
    let job = id(&server.submit(&body).await);
    let monitor = server.monitors()[&job];
    let script = "import ctypes, os, sys, time; pid = int(sys.argv[1]); \
        sys.exit(1) if ctypes.CDLL(None).ptrace(16, pid, None, None) else os.waitpid(pid, 0x40000000); \
        print('held', flush=True); sys.stdin.read()";
    let mut debugger = std::process::Command::new("python3")
        .args(["-c", script, &monitor.to_string()])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let stdout = debugger.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
    if line.is_empty() {
        eprintln!("skipped: a process cannot be traced here");
        debugger.wait().unwrap();
        server.stop(&job, "force").await;
        return;
    }
    let reply = server.delete(&job, "force").await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (503, "monitor_unavailable")
    );
    assert_ne!(reply.header("retry-after"), "");
    drop(debugger.stdin.take());
    debugger.wait().unwrap();
    // What it was asked is done once it can.
    assert_eq!(server.finished(&job).await["state"], "canceled");
}

#[tokio::test]
async fn a_server_that_is_stopped_goes_on() {
    let server = Server::start().await;
    kill(server.server_process().unwrap(), Signal::SIGSTOP).unwrap();
    assert_eq!(server.run_script("exit 0").await["state"], "succeeded");
}

/// Each job takes descriptors of the service. More jobs than there are descriptors for failed; now they wait.
#[tokio::test]
async fn more_jobs_than_descriptors_wait_for_one_another() {
    let server = Server::builder()
        .prelude("ulimit -n 96")
        .args(["--max-running", "200"])
        .start()
        .await;
    let info = server.get("/info").await.json();
    assert_eq!(info["jobs"]["max_running"], 16, "{info:#}");
    assert!(server.log().contains("needs 832"), "{}", server.log());
    let body = json!({"command": ["sleep", unique_seconds()], "labels": {"of": "many"}});
    let mut jobs = Vec::new();
    for _ in 0..30 {
        jobs.push(id(&server.submit(&body).await));
    }
    for (job, state) in jobs
        .iter()
        .zip((0..).map(|at| if at < 16 { "running" } else { "queued" }))
    {
        server.in_state(job, state).await;
    }
    let stop = json!({"label_selector": "of=many", "force": true});
    assert_eq!(server.post("/jobs/stop", &stop).await.status, 207);
    for job in &jobs {
        let job = server.finished(job).await;
        assert_eq!(job["state"], "canceled", "{job:#}");
    }
}
