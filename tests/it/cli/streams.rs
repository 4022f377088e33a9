//! The standard streams of client commands: their readers, their modes, and what cannot be written.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;
use nix::unistd::pipe2;
use serde_json::{Value, json};

use super::{Client, cli, command};
use crate::harness::{LONG, Server, eventually, id, unique_seconds};

fn set_nonblocking(end: &OwnedFd) {
    fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
}

async fn job_named(server: &Server, name: &str) -> String {
    eventually("the job is there", async || {
        let list = server
            .get(&format!("/jobs?name_prefix={name}"))
            .await
            .json();
        list["jobs"].get(0).map(id)
    })
    .await
}

#[tokio::test]
async fn a_pipe_that_does_not_block_is_written_to_the_end() {
    let server = Server::start().await;
    let (from, to) = pipe2(OFlag::O_CLOEXEC).unwrap();
    set_nonblocking(&to);
    let args = [
        "run",
        "--name",
        "n",
        "--",
        "head",
        "-c",
        "3000000",
        "/dev/zero",
    ];
    let mut command = command(&server, &args);
    let mut child = command.stdout(to).spawn().unwrap();
    drop(command);
    // The pipe is full by then.
    let job = job_named(&server, "n").await;
    server.finished(&job).await;
    let mut all = Vec::new();
    File::from(from).read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), 3_000_000);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_pipe_that_does_not_block_is_read_to_the_end() {
    let server = Server::start().await;
    for (mode, name) in [("run", "r"), ("attach", "a")] {
        let (from, to) = pipe2(OFlag::O_CLOEXEC).unwrap();
        set_nonblocking(&from);
        let mut to = File::from(to);
        let mut command = if mode == "run" {
            command(&server, &["run", "--name", name, "--", "cat"])
        } else {
            let body = json!({"command": ["cat"], "stdin": {"mode": "open"}, "name": name});
            server.submit(&body).await;
            command(&server, &["attach", name])
        };
        command.stdin(from);
        let client = Client::start(command);
        let job = job_named(&server, name).await;
        // There is nothing to read at first, and again in between.
        server.in_state(&job, "running").await;
        for word in ["one\n", "two\n"] {
            to.write_all(word.as_bytes()).unwrap();
            server.says(&job, word).await;
        }
        drop(to);
        assert_eq!(client.end().good().text(), "one\ntwo\n", "{mode}");
    }
}

/// While nobody takes the output, input waits in its pipe.
#[tokio::test]
async fn what_is_typed_while_nobody_reads_arrives() {
    let server = Server::start().await;
    let body = json!({"command": ["cat"], "stdin": {"mode": "open"}, "name": "echo"});
    let job = id(&server.submit(&body).await);
    let mut attach = command(&server, &["attach", "echo"]);
    attach.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = attach.spawn().unwrap();
    let lines: String = (0..300_000)
        .map(|number| format!("{number:07}\n"))
        .collect();
    let (typed, mut input) = (lines.clone(), child.stdin.take().unwrap());
    let typist = std::thread::spawn(move || input.write_all(typed.as_bytes()));
    // More than the pipe of its output takes.
    eventually("the job has written", async || {
        let job = server.job(&job).await;
        (job["output"]["stdout_bytes"].as_u64()? > 1 << 17).then_some(())
    })
    .await;
    let mut output = child.stdout.take().unwrap();
    let reading = tokio::task::spawn_blocking(move || {
        let mut all = String::new();
        output.read_to_string(&mut all).map(|_| all)
    });
    let all = tokio::time::timeout(LONG, reading).await.unwrap();
    let all = all.unwrap().unwrap();
    assert!(all == lines, "{} bytes of {}", all.len(), lines.len());
    typist.join().unwrap().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_reader_that_has_gone_is_noticed_without_another_byte() {
    let server = Server::start().await;
    let body =
        json!({"script": format!("echo one; exec sleep {}", unique_seconds()), "name": "quiet"});
    let job = id(&server.submit(&body).await);
    server.says(&job, "one").await;
    for args in [
        &["logs", "-f", "quiet"][..],
        &["events", "-f", "quiet"],
        &["ps", "-w"],
        &["top"],
    ] {
        let mut child = command(&server, args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut String::new()).unwrap();
        drop(stdout);
        let status = eventually("it has ended", async || child.try_wait().unwrap()).await;
        assert_eq!(status.code(), Some(0), "{args:?}");
    }
    server.stop(&job, "force").await;
}

#[tokio::test]
async fn a_terminal_job_ends_with_the_reader_of_its_output() {
    let server = Server::start().await;
    let mut command = command(&server, &["run", "-t", "--", "yes"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut String::new()).unwrap();
    drop(stdout);
    let status = eventually("it has ended", async || child.try_wait().unwrap()).await;
    let mut told = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut told)
        .unwrap();
    assert_eq!(status.code(), Some(141), "{told}");
    let job = server.get("/jobs").await.json()["jobs"][0].clone();
    assert_eq!(job["state"], "canceled", "{job:#}");
    assert!(told.contains(&id(&job)), "{told}");
}

#[tokio::test]
async fn two_streams_into_one_file_keep_their_order() {
    let server = Server::start().await;
    let client = server.client();
    let mut shell = Command::new("/bin/sh");
    for (name, value) in client.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let script = "i=0; while [ $i -lt 50 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done";
    shell.args(["-c", "exec \"$0\" run -n --script \"$1\" 2>&1"]);
    shell.arg(client.get_program()).arg(script);
    let ran = Client::start(shell).end().good();
    let expected: String = (0..50).map(|i| format!("out {i}\nerr {i}\n")).collect();
    assert_eq!(ran.text(), expected);
    // Apart they stay apart.
    let ran = cli(
        &server,
        &["run", "-n", "--script", "echo out; echo err >&2"],
    )
    .good();
    assert_eq!((ran.text(), ran.stderr.as_str()), ("out\n", "err\n"));
}

#[tokio::test]
async fn what_cannot_be_written_is_an_error() {
    let server = Server::start().await;
    for args in [
        &["completions", "bash"][..],
        &["man"],
        &["--help"],
        &["run", "--help"],
        &["--version"],
        &["ps"],
        &["token", "list"],
        &["doctor"],
    ] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = command(&server, args).stdout(full).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {told}");
        assert!(
            args == ["doctor"] || told.contains("No space left"),
            "{args:?}: {told}"
        );
    }
}

#[tokio::test]
async fn lists_are_complete_or_say_that_they_are_not() {
    let server = Server::start().await;
    for _ in 0..105 {
        let created = server.post("/jobs", &json!({"command": ["true"]})).await;
        assert_eq!(created.status, 201);
    }
    let lines = |args: &[&str]| {
        let ran = cli(&server, args).good();
        (ran.text().lines().count(), ran.stderr)
    };
    assert_eq!(lines(&["ps", "-aq"]), (105, String::new()));
    assert_eq!(lines(&["ps", "-a", "-n", "0"]), (106, String::new()));
    assert_eq!(lines(&["ps", "-aqn", "105"]), (105, String::new()));
    for (args, count) in [(&["ps", "-a"][..], 101), (&["ps", "-aq", "-n", "7"], 7)] {
        let (found, told) = lines(args);
        assert_eq!(found, count, "{args:?}");
        assert!(
            told.contains("of 105 jobs shown, the newest; --limit 0 shows all"),
            "{told}"
        );
    }
    let list = cli(&server, &["ps", "-a", "--json"]).good().json();
    assert_eq!(
        (list["jobs"].as_array().unwrap().len(), &list["has_more"]),
        (100, &json!(true))
    );
    let list = cli(&server, &["ps", "-a", "-n", "0", "--json"])
        .good()
        .json();
    assert_eq!(list["has_more"], false);
}

#[tokio::test]
async fn signals_for_the_job_are_passed_on() {
    let server = Server::start().await;
    let script =
        "trap 'echo quit' QUIT; trap 'echo one' USR1; trap 'echo two' USR2; trap 'exit 4' TERM
        echo ready; while :; do sleep 0.05; done";
    let client = Client::start(command(
        &server,
        &["run", "--name", "s", "--script", script],
    ));
    let job = job_named(&server, "s").await;
    server.says(&job, "ready").await;
    for (signal, word) in [
        (Signal::SIGUSR1, "one"),
        (Signal::SIGQUIT, "quit"),
        (Signal::SIGUSR2, "two"),
    ] {
        client.signal(signal);
        server.says(&job, word).await;
    }
    client.signal(Signal::SIGTERM);
    let ran = client.end();
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert_eq!(ran.text(), "ready\none\nquit\ntwo\n");
}

#[tokio::test]
async fn a_job_that_is_purged_while_it_is_followed_has_its_own_end() {
    let server = Server::start().await;
    for round in 0..6 {
        let name = format!("p{round}");
        let seconds = unique_seconds();
        let client = if round % 2 == 0 {
            let args = ["run", "-n", "--name", &name, "--", "sleep", &seconds];
            Client::start(command(&server, &args))
        } else {
            let script = format!("echo ready; exec sleep {seconds}");
            let args = ["run", "-t", "--name", &name, "--script", &script];
            Client::start(command(&server, &args))
        };
        let job = job_named(&server, &name).await;
        server.in_state(&job, "running").await;
        if round % 2 == 1 {
            server.says(&job, "ready").await;
        }
        let gone = server.delete(&job, "purge=true&force=true&wait=30").await;
        assert!(gone.status < 300, "{gone:?}");
        let ran = client.end();
        assert_eq!(ran.code, Some(137), "{round}: {ran:?}");
    }
}

#[tokio::test]
async fn parts_of_logs_and_events_are_chosen_by_time_and_number() {
    let server = Server::start().await;
    let job = id(&server.run_script("echo one; echo two >&2").await);
    let logs = |since: &str| cli(&server, &["logs", "--since", since, &job]).good();
    assert_eq!(
        (logs("1h").text(), logs("1h").stderr.as_str()),
        ("one\n", "two\n")
    );
    assert_eq!(logs("2999-01-01T00:00:00Z").text(), "");
    assert_eq!(
        cli(&server, &["logs", "--since", "soon", &job]).code,
        Some(2)
    );
    let ran = cli(&server, &["events", "--json", "--tail", "1"]).good();
    assert_eq!(ran.json()["type"], "job.finished");
    let ran = cli(&server, &["events", "-f", "--json", "-n", "2", &job]).good();
    let kinds: Vec<Value> = ran
        .text()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["type"].clone())
        .collect();
    assert_eq!(kinds.len(), 2, "{ran:?}");
    assert_eq!(kinds[1], "job.finished");
}

#[tokio::test]
async fn the_health_of_a_service_on_any_port_is_known() {
    let mut server = Server::start().await;
    let health = |server: &Server| {
        let mut command = command(server, &["health"]);
        command.env("PROCESSION_LISTEN", "127.0.0.1:0");
        Client::start(command).end()
    };
    let by_its_directory = |server: &Server| {
        let mut command = command(server, &["health", "--state-dir"]);
        command
            .arg(server.state_dir())
            .env_remove("PROCESSION_LISTEN");
        Client::start(command).end()
    };
    health(&server).good();
    by_its_directory(&server).good();
    server.end(Signal::SIGTERM);
    assert_eq!(health(&server).code, Some(1));
    assert_eq!(by_its_directory(&server).code, Some(1));
}

#[tokio::test]
async fn words_of_other_programs_work_or_say_what_does() {
    let server = Server::start().await;
    for word in ["list", "ls", "jobs"] {
        assert!(
            cli(&server, &[word]).good().text().starts_with("ID "),
            "{word}"
        );
    }
    assert!(
        cli(&server, &["version"])
            .good()
            .text()
            .starts_with("procession ")
    );
    let ran = cli(&server, &["kill", "x"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("procession stop --force"), "{ran:?}");
    let ran = cli(&server, &["run", "--retries", "2", "--", "true"]);
    assert_eq!(ran.code, Some(125), "{ran:?}");
    assert!(ran.stderr.contains("use --retry N"), "{ran:?}");
    let ran = cli(&server, &["run", "-w", "/", "--", "pwd"]).good();
    assert_eq!(ran.text(), "/\n");
    let job = id(&server
        .submit(&json!({"command": ["sleep", unique_seconds()], "name": "web"}))
        .await);
    let ran = cli(&server, &["stop", "web", "nope"]);
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert!(
        ran.stderr.contains("nothing was done to the other jobs"),
        "{ran:?}"
    );
    server.stop(&job, "force").await;
}
