//! `procession run` in the place of a process: streams, input, exit codes, signals.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use nix::sys::signal::Signal;
use rand::RngCore;
use serde_json::Value;

use super::{Client, Ran, cli, cli_with_input, command};
use crate::harness::{Server, eventually, is_root, unique_seconds};

/// The only job of the service.
async fn only_job(server: &Server) -> Value {
    eventually("there is one job", async || {
        let list = server.get("/jobs").await.json();
        let jobs = list["jobs"].as_array().unwrap().clone();
        (jobs.len() == 1).then(|| jobs[0].clone())
    })
    .await
}

async fn only_id(server: &Server) -> String {
    only_job(server).await["id"].as_str().unwrap().to_owned()
}

fn told(ran: &Ran) -> (Option<i32>, &str, &str) {
    (ran.code, ran.text(), ran.stderr.as_str())
}

#[tokio::test]
async fn output_and_exit_code_are_those_of_the_job() {
    let server = Server::start().await;
    let ran = cli(
        &server,
        &["run", "--", "sh", "-c", "echo out; echo err >&2; exit 3"],
    );
    assert_eq!(told(&ran), (Some(3), "out\n", "err\n"));
    let ran = cli(
        &server,
        &["run", "-e", "X=a b", "--script", "printf %s \"$X\""],
    );
    assert_eq!(told(&ran), (Some(0), "a b", ""));
}

#[tokio::test]
async fn every_end_has_the_exit_code_that_shells_give_it() {
    let server = Server::start().await;
    let seconds = unique_seconds();
    let cases: [(&[&str], i32, &str); 7] = [
        (&["run", "--", "sh", "-c", "kill -9 $$"], 137, ""),
        (&["run", "--", "no-such-program"], 127, "no-such-program"),
        (&["run", "--", "/etc/passwd"], 126, "Permission denied"),
        (
            &["run", "-C", "/no/such/dir", "--", "true"],
            126,
            "/no/such/dir",
        ),
        (
            &["run", "--timeout", "0.1s", "--", "sleep", &seconds],
            124,
            "stopped by its timeout",
        ),
        (&["run", "--no-such-flag"], 125, "unexpected argument"),
        (&["run"], 125, "nothing to run"),
    ];
    for (args, code, words) in cases {
        let ran = cli(&server, args);
        assert_eq!(ran.code, Some(code), "{args:?}: {ran:?}");
        assert!(ran.stderr.contains(words), "{args:?}: {ran:?}");
    }
}

#[tokio::test]
async fn a_refusal_names_every_mistake_in_words() {
    let server = Server::start().await;
    let ran = cli(
        &server,
        &["run", "--nice", "77", "-l", "a b=c", "--", "true"],
    );
    assert_eq!(ran.code, Some(125), "{ran:?}");
    assert!(
        ran.stderr
            .contains("procession: the job specification is not valid"),
        "{ran:?}"
    );
    assert!(ran.stderr.contains("\n  nice: "), "{ran:?}");
    assert!(ran.stderr.contains("\n  labels.a b: "), "{ran:?}");
    if !is_root() {
        let ran = cli(&server, &["run", "-u", "root", "--", "true"]);
        assert_eq!(ran.code, Some(125), "{ran:?}");
    }
}

#[tokio::test]
async fn megabytes_of_random_input_come_out_exactly() {
    let server = Server::start().await;
    let mut bytes = vec![0; 6 << 20];
    rand::rng().fill_bytes(&mut bytes);
    let ran = cli_with_input(
        &server,
        &["run", "--", "sh", "-c", "cat; exit 7"],
        bytes.clone(),
    );
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(7), ""));
    assert!(
        ran.stdout == bytes,
        "{} bytes of {}",
        ran.stdout.len(),
        bytes.len()
    );
}

#[tokio::test]
async fn input_without_an_end_does_not_outlast_the_job() {
    let server = Server::start().await;
    let mut command = command(&server, &["run", "--", "head", "-1"]);
    command.stdin(Stdio::piped());
    let mut client = Client::start(command);
    let mut stdin = client.child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || while stdin.write_all(b"y\n").is_ok() {});
    let ran = client.end();
    writer.join().unwrap();
    assert_eq!(told(&ran), (Some(0), "y\n", ""));
}

#[tokio::test]
async fn input_is_left_alone_when_it_shall_be() {
    let server = Server::start().await;
    for args in [&["run", "-n", "--", "cat"][..], &["run", "-d", "--", "cat"]] {
        let ran = cli_with_input(&server, args, b"x".to_vec()).good();
        assert!(!ran.text().contains('x'), "{ran:?}");
    }
    // A spec that says where input comes from is left as it is.
    let spec = br#"{"command": ["cat"], "stdin": {"mode": "data", "text": "from the spec"}}"#;
    let ran = cli_with_input(&server, &["run", "-f", "-"], spec.to_vec()).good();
    assert_eq!(ran.text(), "from the spec");
}

#[tokio::test]
async fn the_job_ends_with_the_reader_of_its_output() {
    let server = Server::start().await;
    let mut command = command(&server, &["run", "--", "yes"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "y\n");
    drop(stdout);
    let job = server.finished(&only_id(&server).await).await;
    assert_eq!(job["state"], "canceled", "{job:#}");
    let status = eventually("it has ended", async || child.try_wait().unwrap()).await;
    assert_eq!(status.code(), Some(141));
}

#[tokio::test]
async fn an_interrupt_reaches_the_job_as_one() {
    let server = Server::start().await;
    let script = "trap 'echo interrupted; exit 9' INT; echo ready; while :; do sleep 0.05; done";
    let client = Client::start(command(&server, &["run", "--script", script]));
    server.says(&only_id(&server).await, "ready").await;
    client.signal(Signal::SIGINT);
    let ran = client.end();
    assert_eq!((ran.code, ran.text()), (Some(9), "ready\ninterrupted\n"));
}

#[tokio::test]
async fn a_second_signal_kills_what_does_not_want_to_end() {
    let server = Server::start().await;
    let script = "trap '' INT; trap 'echo no' TERM; echo ready; while :; do sleep 0.05; done";
    let args = ["run", "--grace", "1h", "--script", script];
    let client = Client::start(command(&server, &args));
    let id = only_id(&server).await;
    server.says(&id, "ready").await;
    client.signal(Signal::SIGTERM);
    server.says(&id, "no").await;
    client.signal(Signal::SIGTERM);
    let ran = client.end();
    assert_eq!(
        (ran.code, ran.text()),
        (Some(137), "ready\nno\n"),
        "{ran:?}"
    );
    assert!(ran.stderr.contains("killing the job"), "{ran:?}");
}

#[tokio::test]
async fn detached_it_prints_the_id_and_records_come_as_json() {
    let server = Server::start().await;
    let ran = cli(
        &server,
        &["run", "-d", "--name", "n", "-l", "a=b", "--", "true"],
    )
    .good();
    let id = only_id(&server).await;
    assert_eq!(ran.text(), format!("{id}\n"));
    let job = server.finished(&id).await;
    assert_eq!(
        (&job["name"], &job["labels"]["a"]),
        (&"n".into(), &"b".into())
    );
    let ran = cli(&server, &["run", "--json", "--", "echo", "x"]).good();
    let records: Vec<Value> = ran
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(records[0]["text"], "x\n");
    assert_eq!(records.last().unwrap()["state"], "succeeded");
}

#[tokio::test]
async fn a_hole_in_the_output_is_not_success() {
    let server = Server::start().await;
    let cwd = server.scratch();
    let script = "mkfifo gate; echo ready; read _ < gate; yes | head -c 16000000";
    let directory = cwd.to_str().unwrap();
    let args = [
        "run",
        "--max-output",
        "65536",
        "-C",
        directory,
        "--script",
        script,
    ];
    let client = Client::start(command(&server, &args));
    let id = only_id(&server).await;
    server.says(&id, "ready").await;
    // It is slower than any job: more is dropped than the connection holds.
    client.signal(Signal::SIGSTOP);
    std::fs::write(cwd.join("gate"), "\n").unwrap();
    server.finished(&id).await;
    client.signal(Signal::SIGCONT);
    let ran = client.end();
    assert_eq!(ran.code, Some(125), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("bytes of output were dropped"),
        "{}",
        ran.stderr
    );
    assert!(ran.stdout.len() < 16_000_000);
}
