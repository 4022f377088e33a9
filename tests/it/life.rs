//! The life of a job that nobody stops: identity, exit, leftovers, timeout.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::{Process, Server, eventually, id, processes_with, unique_seconds};

#[tokio::test]
async fn pid_pgid_and_sid_are_equal_and_true() {
    let server = Server::start().await;
    let seconds = unique_seconds();
    let job = server.submit(&json!({"command": ["sleep", seconds]})).await;
    assert_eq!(job["state"], "running", "{job:#}");
    let told = job["process"].clone();
    let pid = told["pid"].as_i64().unwrap();
    assert_eq!((&told["pgid"], &told["sid"]), (&json!(pid), &json!(pid)));

    let process = Process::read(i32::try_from(pid).unwrap()).unwrap();
    assert_eq!(process.argv, ["sleep", seconds.as_str()]);
    assert_eq!((process.pgid, process.sid), (process.pid, process.pid));
    let executable = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    let told_executable = std::fs::canonicalize(told["executable"].as_str().unwrap()).unwrap();
    assert_eq!(executable, told_executable);

    let listed = server.get(&format!("/jobs/{}/processes", id(&job))).await;
    let listed = listed.json();
    assert_eq!(listed["processes"][0]["pid"], pid, "{listed:#}");
    assert_eq!(listed["processes"][0]["command"], json!(["sleep", seconds]));

    let ended = server.stop(&id(&job), "").await;
    assert_eq!(ended["process"], told, "the record keeps what it was");
    let listed = server.get(&format!("/jobs/{}/processes", id(&job))).await;
    assert_eq!(listed.json(), json!({"processes": []}));
}

#[tokio::test]
async fn every_exit_code_is_told_and_only_the_named_ones_are_success() {
    let server = Server::start().await;
    let codes = [
        0, 1, 2, 3, 42, 126, 127, 128, 129, 130, 137, 143, 200, 254, 255,
    ];
    let jobs = codes.map(|code| {
        let server = &server;
        async move { (code, server.run_script(&format!("exit {code}")).await) }
    });
    for (code, job) in join_all(jobs).await {
        let state = if code == 0 { "succeeded" } else { "failed" };
        assert_eq!(job["state"], state, "{job:#}");
        assert_eq!(job["exit"]["code"], code, "{job:#}");
        assert_eq!(job["exit"]["signal"], Value::Null, "{job:#}");
        assert_eq!(job["exit"]["signal_number"], Value::Null);
        assert_eq!(job["termination"]["cause"], "exited");
        assert_eq!(job["termination"]["signals_sent"], json!([]));
        assert_eq!(job["state_reason"], "exited");
    }
    for (script, state) in [("exit 3", "succeeded"), ("exit 0", "failed")] {
        let body = json!({"script": script, "success_exit_codes": [3, 7]});
        let job = server.run(&body).await;
        assert_eq!(job["state"], state, "{job:#}");
    }
}

#[tokio::test]
async fn a_death_by_signal_is_never_told_as_a_code() {
    let server = Server::start().await;
    for (number, name) in [
        (9, "SIGKILL"),
        (11, "SIGSEGV"),
        (15, "SIGTERM"),
        (35, "SIGRTMIN+1"),
    ] {
        let job = server.run_script(&format!("kill -{number} $$")).await;
        assert_eq!(job["state"], "failed", "{job:#}");
        assert_eq!(job["exit"]["code"], Value::Null, "{job:#}");
        assert_eq!(job["exit"]["signal"], name, "{job:#}");
        assert_eq!(job["exit"]["signal_number"], number, "{job:#}");
        assert_eq!(job["termination"]["cause"], "signaled", "{job:#}");
        assert_eq!(
            job["termination"]["signals_sent"],
            json!([]),
            "Procession sent none: {job:#}"
        );
    }
    let shell = server.run_script("sh -c 'kill -9 $$'; exit $?").await;
    assert_eq!(shell["exit"]["code"], 137, "a code of the program's own");
}

#[tokio::test]
async fn times_are_in_order_and_the_record_expires_a_ttl_after_the_end() {
    let server = Server::start().await;
    let body = json!({"command": ["true"], "ttl_seconds_after_finished": 60});
    let job = server.run(&body).await;
    let time = |name: &str| -> jiff::Timestamp { job[name].as_str().unwrap().parse().unwrap() };
    assert!(time("created_at") <= time("started_at"), "{job:#}");
    assert!(time("started_at") <= time("finished_at"), "{job:#}");
    let kept = time("expires_at").duration_since(time("finished_at"));
    assert_eq!(kept.as_secs(), 60, "{job:#}");
    assert_eq!(job["output"]["complete"], true);
    assert!(
        job["usage"]["max_rss_bytes"].as_u64().unwrap() > 0,
        "{job:#}"
    );
}

#[tokio::test]
async fn what_outlives_the_leader_is_stopped_and_counted() {
    let server = Server::start().await;
    let (one, two) = (unique_seconds(), unique_seconds());
    let script = format!("sleep {one} & setsid sleep {two} & echo ready; exit 3");
    let job = server.run_script(&script).await;
    assert_eq!(job["exit"]["code"], 3, "{job:#}");
    assert_eq!(job["termination"]["cause"], "exited", "{job:#}");
    assert_eq!(job["termination"]["killed_leftovers"], 2, "{job:#}");
    assert_eq!(
        job["state"], "failed",
        "the result is the leader's: {job:#}"
    );
    for seconds in [one, two] {
        assert_eq!(processes_with(&seconds), [], "{job:#}");
    }
}

#[tokio::test]
async fn a_leftover_may_tidy_up_within_the_grace() {
    let server = Server::start().await;
    let seconds = unique_seconds();
    let script = format!(
        "(trap 'echo tidied; exit' TERM; echo ready; sleep {seconds} & wait) > out 2>&1 &
         until grep -q ready out; do :; done; tail -f out --pid=$! & exit 0"
    );
    // What tidies up writes to a file, so that the end of the output says nothing about it.
    let cwd = server.scratch();
    let job = server.run(&json!({"script": script, "cwd": cwd})).await;
    assert_eq!(job["state"], "succeeded", "{job:#}");
    let out = std::fs::read_to_string(cwd.join("out")).unwrap();
    assert!(out.contains("tidied"), "{out}\n{job:#}");
    assert_eq!(processes_with(&seconds), []);
}

#[tokio::test]
async fn wait_for_all_runs_until_the_last_process_has_ended() {
    let server = Server::start().await;
    let cwd = server.scratch();
    let script = "mkfifo gate; (read word < gate; echo \"child had $word\") & exit 3";
    let body = json!({"script": script, "cwd": cwd, "wait_for": "all"});
    let job = server.submit(&body).await;
    let job = eventually("the leader's exit is told", async || {
        let job = server.job(&id(&job)).await;
        (!job["exit"].is_null()).then_some(job)
    })
    .await;
    assert_eq!(job["state"], "running", "{job:#}");
    assert_eq!(job["exit"]["code"], 3, "{job:#}");
    std::fs::write(cwd.join("gate"), "bread\n").unwrap();
    let job = server.finished(&id(&job)).await;
    assert_eq!(job["state"], "failed", "{job:#}");
    assert_eq!(job["termination"]["killed_leftovers"], 0, "{job:#}");
    assert_eq!(server.text(&id(&job)).await, "child had bread\n");
}

#[tokio::test]
async fn a_timeout_is_polite_first() {
    let server = Server::start().await;
    let body = json!({"command": ["sleep", unique_seconds()], "timeout_seconds": 2});
    let job = server.submit(&body).await;
    assert!(job["deadline_at"].is_string(), "{job:#}");
    let job = server.finished(&id(&job)).await;
    assert_eq!(job["state"], "timed_out", "{job:#}");
    assert_eq!(job["termination"]["cause"], "timeout");
    assert_eq!(job["termination"]["requested_by"], Value::Null);
    assert_eq!(job["termination"]["escalated"], false);
    assert_eq!(signals_sent(&job), ["SIGTERM"]);
    assert_eq!(job["exit"]["signal"], "SIGTERM");
}

#[tokio::test]
async fn a_timeout_that_is_ignored_escalates() {
    let server = Server::start().await;
    let seconds = unique_seconds();
    let body = json!({
        "script": format!("trap '' TERM; echo ready; sleep {seconds}"),
        "timeout_seconds": 3600,
        "stop": {"grace_seconds": 0.2},
    });
    let job = id(&server.submit(&body).await);
    server.says(&job, "ready").await;
    let job = server.time_out(&job).await;
    assert_eq!(job["state"], "timed_out", "{job:#}");
    assert_eq!(job["termination"]["escalated"], true, "{job:#}");
    assert_eq!(signals_sent(&job), ["SIGTERM", "SIGKILL"]);
    assert_eq!(job["exit"]["signal"], "SIGKILL");
    assert_eq!(job["exit"]["code"], Value::Null);
    assert_eq!(processes_with(&seconds), []);
}

#[tokio::test]
async fn a_job_that_ends_before_its_timeout_is_not_timed_out() {
    let server = Server::start().await;
    let job = server
        .run(&json!({"command": ["true"], "timeout_seconds": 20}))
        .await;
    assert_eq!(job["state"], "succeeded", "{job:#}");
    assert_eq!(
        job["deadline_at"],
        Value::Null,
        "it can strike no more: {job:#}"
    );
}

#[tokio::test]
async fn a_wait_that_runs_out_answers_with_the_present_state() {
    let server = Server::start().await;
    let reply = server
        .post(
            "/jobs?wait=0.1",
            &json!({"command": ["sleep", unique_seconds()]}),
        )
        .await;
    let job = reply.json();
    assert_eq!(
        (reply.status, &job["state"]),
        (201, &json!("running")),
        "{job:#}"
    );
    let id = id(&job);
    for query in ["wait=0.1", "wait=0.1&until=change", "wait=9&until=started"] {
        let seen = server.get(&format!("/jobs/{id}?{query}")).await.json();
        assert_eq!(seen["state"], "running", "{query}: {seen:#}");
    }
    let version = job["version"].as_u64().unwrap();
    let known = server
        .request(reqwest::Method::GET, &format!("/jobs/{id}"))
        .header("if-none-match", format!("\"{version}\""));
    assert_eq!(server.send(known).await.status, 304);
    server.stop(&id, "force").await;
}

pub(crate) fn signals_sent(job: &Value) -> Vec<&str> {
    let sent = job["termination"]["signals_sent"].as_array().unwrap();
    sent.iter()
        .map(|sent| sent["signal"].as_str().unwrap())
        .collect()
}

/// The number of ptrace(2).
const PTRACE: u32 = if cfg!(target_arch = "aarch64") {
    117
} else {
    101
};

#[tokio::test]
async fn a_stop_for_a_tracer_that_there_is_not_is_no_end() {
    let server = Server::start().await;
    // PTRACE_TRACEME: the monitor is the tracer, and the program stops for it at each signal and at an execve.
    for (then, code) in [
        ("system('true'); exit 7", 7),
        ("exec 'sh', '-c', 'exit 8'", 8),
        ("kill 'STOP', $$; exit 9", 9),
    ] {
        let program = format!("syscall({PTRACE}, 0, 0, 0, 0); {then}");
        let job = server
            .submit(&json!({"command": ["perl", "-e", program]}))
            .await;
        if code == 9 {
            // It is stopped, as without a tracer, until somebody wakes it.
            let pid = i32::try_from(job["process"]["pid"].as_i64().unwrap()).unwrap();
            eventually("it is stopped", async || {
                Process::read(pid).filter(|process| process.state == 'T')
            })
            .await;
            let path = format!("/jobs/{}/signal", id(&job));
            server.post(&path, &json!({"signal": "CONT"})).await;
        }
        let job = server.finished(&id(&job)).await;
        assert_eq!(job["exit"]["code"], code, "{then}: {job:#}");
        assert_eq!(job["termination"]["cause"], "exited", "{then}: {job:#}");
        assert_eq!(job["termination"]["killed_leftovers"], 0, "{then}: {job:#}");
    }
    let trap = format!("syscall({PTRACE}, 0, 0, 0, 0); kill 'USR1', $$; sleep 1000");
    let job = server.run(&json!({"command": ["perl", "-e", trap]})).await;
    assert_eq!(job["exit"]["signal"], "SIGUSR1", "{job:#}");
}

#[tokio::test]
async fn every_signal_that_ends_a_program_is_told_by_its_number() {
    let mut server = Server::start().await;
    let mut jobs = Vec::new();
    for number in [1, 9, 31, 32, 33, 34, 64] {
        let kill = format!("$SIG{{HUP}} = 'DEFAULT'; kill {number}, $$; sleep 1000");
        let job = server.run(&json!({"command": ["perl", "-e", kill]})).await;
        assert_eq!(job["exit"]["signal_number"], number, "{job:#}");
        jobs.push((id(&job), job["exit"]["signal"].clone()));
    }
    let names: Vec<_> = jobs
        .iter()
        .map(|(_, name)| name.as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "SIGHUP",
            "SIGKILL",
            "SIGSYS",
            "SIG32",
            "SIG33",
            "SIGRTMIN",
            "SIGRTMIN+30"
        ]
    );
    server.end(nix::sys::signal::Signal::SIGTERM);
    server.restart(Server::builder());
    for (job, name) in jobs {
        assert_eq!(server.job(&job).await["exit"]["signal"], name);
    }
}
