//! The commands that look at jobs and change them.

use serde_json::{Value, json};

use super::{Client, Ran, cli, cli_with_input, command};
use crate::harness::{Server, binary, eventually, id, is_finished, unique_seconds};

fn lines(ran: &Ran) -> Vec<&str> {
    ran.text().lines().collect()
}

#[tokio::test]
async fn jobs_are_listed_and_described_for_people_and_for_programs() {
    let server = Server::start().await;
    let seconds = unique_seconds();
    let body = json!({"command": ["sleep", seconds], "name": "nap", "labels": {"a": "b"}});
    let live = id(&server.submit(&body).await);
    let dead = id(&server.run_script("exit 3").await);
    let ran = cli(&server, &["ps"]).good();
    assert_eq!(lines(&ran).len(), 2, "{ran:?}");
    assert!(
        lines(&ran)[1].starts_with(&live) && lines(&ran)[1].contains("nap"),
        "{ran:?}"
    );
    let ran = cli(&server, &["ps", "-aq"]).good();
    assert_eq!(lines(&ran), [dead.as_str(), live.as_str()]);
    for (args, expected) in [
        (&["ps", "-q", "-s", "failed,lost"][..], &dead),
        (&["ps", "-q", "-l", "a=b"], &live),
        (&["ps", "-q", "--name", "na"], &live),
        (&["ps", "-aqn", "1"], &dead),
    ] {
        assert_eq!(
            lines(&cli(&server, args).good()),
            [expected.as_str()],
            "{args:?}"
        );
    }
    let list = cli(&server, &["ps", "-a", "--json"]).good().json();
    assert_eq!(list["jobs"].as_array().unwrap().len(), 2);
    let shown = cli(&server, &["show", "--json", &dead]).good().json();
    assert_eq!(shown["exit"]["code"], 3);
    let ran = cli(&server, &["show", &live, &dead]).good();
    for words in ["nap", "a=b", "running", "code 3", &seconds] {
        assert!(ran.text().contains(words), "{words}: {ran:?}");
    }
    cli(&server, &["stop", "--force", &live]).good();
}

#[tokio::test]
async fn a_job_is_named_by_its_id_the_beginning_of_it_or_its_name() {
    let server = Server::start().await;
    let seconds = unique_seconds();
    let named = json!({"command": ["sleep", seconds], "name": "twin"});
    let old = id(&server
        .run(&json!({"command": ["true"], "name": "twin"}))
        .await);
    let found = |text: &str| cli(&server, &["show", "--json", text]);
    assert_eq!(found("twin").good().json()["id"], *old);
    let live = id(&server.submit(&named).await);
    assert_eq!(found("twin").good().json()["id"], *live, "the live one");
    // All but the last few digits, with or without dashes.
    let beginning = &live[..live.len() - 4];
    assert_eq!(found(beginning).good().json()["id"], *live);
    assert_eq!(
        found(&beginning.replace('-', "")).good().json()["id"],
        *live
    );
    let other = id(&server.submit(&named).await);
    let ran = found("twin");
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert!(
        ran.stderr.contains(&live) && ran.stderr.contains(&other),
        "{ran:?}"
    );
    // What two jobs of one moment have in common.
    let common: String = live
        .chars()
        .zip(other.chars())
        .take_while(|(a, b)| a == b)
        .map(|(a, _)| a)
        .collect();
    if common.len() >= 8 {
        assert_eq!(found(&common).code, Some(4));
    }
    for text in [
        "no-such-job",
        "0198c1d2",
        "0198c1d2-7b3a-7c4e-9f10-2a6b3c4d5e6f",
    ] {
        let ran = found(text);
        assert_eq!(ran.code, Some(4), "{ran:?}");
    }
    let ran = cli(&server, &["stop", &live, &other]).good();
    assert_eq!(
        lines(&ran),
        [format!("{live} canceled"), format!("{other} canceled")]
    );
}

#[tokio::test]
async fn what_a_job_runs_cannot_act_on_a_terminal() {
    let server = Server::start().await;
    let evil = "\u{1b}]0;owned\u{7}\u{202e}x";
    let body = json!({"command": ["echo", evil]});
    let job = id(&server.run(&body).await);
    for args in [&["ps", "-a"][..], &["show", &job]] {
        let ran = cli(&server, args).good();
        assert!(
            !ran.text().contains(['\u{1b}', '\u{7}', '\u{202e}']),
            "{ran:?}"
        );
        assert!(ran.text().contains("]0;owned"), "{ran:?}");
    }
    // A pipe gets what the job wrote.
    assert_eq!(
        cli(&server, &["logs", &job]).good().text(),
        format!("{evil}\n")
    );
}

/// The client in a terminal, which a job of the service lends it.
#[tokio::test]
async fn on_a_terminal_logs_show_escapes_and_keep_colours() {
    let server = Server::start().await;
    let text = "\u{1b}[31mred\u{1b}[0m \u{1b}[2J\u{1b}]0;t\u{7}\n";
    let job = id(&server
        .run(&json!({"command": ["printf", "%s", text], "name": "c"}))
        .await);
    let program = binary();
    let in_terminal = async |args: &[&str], env: Value| {
        let command: Vec<&str> = [program.as_str()].iter().chain(args).copied().collect();
        let mut env = env;
        env["PROCESSION_STATE_DIR"] = server.state_dir().to_str().unwrap().into();
        let body = json!({"command": command, "env": env, "pty": {"cols": 60}});
        let ran = server.run(&body).await;
        assert_eq!(ran["exit"]["code"], 0, "{ran:#}");
        server.text(&id(&ran)).await
    };
    let shown = in_terminal(&["logs", &job], json!({})).await;
    assert_eq!(shown, "\u{1b}[31mred\u{1b}[0m ^[[2J^[]0;t^G\r\n");
    let raw = in_terminal(&["logs", "--raw", &job], json!({})).await;
    assert_eq!(raw, text.replace('\n', "\r\n"));
    // Lines that end as those of terminals, and a colour that is left on.
    let left_on = id(&server
        .run(&json!({"command": ["printf", "\\033[31mred\\r\\n"]}))
        .await);
    let shown = in_terminal(&["logs", &left_on], json!({})).await;
    assert_eq!(shown, "\u{1b}[31mred\r\n\u{1b}[0m");
    let list = in_terminal(&["ps", "-a", "--name", "c"], json!({})).await;
    assert!(list.contains("\u{1b}[32msucceeded\u{1b}[0m"), "{list:?}");
    let plain = in_terminal(&["ps", "-a", "--name", "c"], json!({"NO_COLOR": "1"})).await;
    assert!(
        !plain.contains('\u{1b}') && plain.contains("succeeded"),
        "{plain:?}"
    );
    assert!(
        plain.lines().all(|line| line.trim_end().len() <= 60),
        "{plain:?}"
    );
}

#[tokio::test]
async fn logs_are_the_output_in_parts_and_as_it_comes() {
    let server = Server::start().await;
    let cwd = server.scratch();
    let script = "mkfifo first gate; echo one; echo two >&2; read _ < first; echo three; read _ < gate; echo four";
    let job = id(&server.submit(&json!({"script": script, "cwd": cwd})).await);
    // The order of what two streams say at once is nobody's promise.
    server.says(&job, "two").await;
    std::fs::write(cwd.join("first"), "\n").unwrap();
    server.says(&job, "three").await;
    let ran = cli(&server, &["logs", &job]).good();
    assert_eq!((ran.text(), ran.stderr.as_str()), ("one\nthree\n", "two\n"));
    let ran = cli(&server, &["logs", "--tail", "1", &job]).good();
    assert_eq!((ran.text(), ran.stderr.as_str()), ("three\n", ""));
    let ran = cli(&server, &["logs", "--stream", "stderr", &job]).good();
    assert_eq!((ran.text(), ran.stderr.as_str()), ("", "two\n"));
    let ran = cli(&server, &["logs", "-t", "--stream", "stdout", &job]).good();
    for (line, word) in ran.text().lines().zip(["one", "three"]) {
        let (at, rest) = line.split_once(' ').unwrap();
        assert!(
            at.ends_with('Z') && at.starts_with("20") && rest == word,
            "{line}"
        );
    }
    let ran = cli(&server, &["logs", "--json", &job]).good();
    let first: Value = serde_json::from_str(lines(&ran)[0]).unwrap();
    assert_eq!(first["type"], "output");
    let client = Client::start(command(&server, &["logs", "-f", &job]));
    std::fs::write(cwd.join("gate"), "\n").unwrap();
    assert_eq!(client.end().good().text(), "one\nthree\nfour\n");
}

#[tokio::test]
async fn wait_has_the_exit_code_of_the_job() {
    let server = Server::start().await;
    let cwd = server.scratch();
    let script = "mkfifo gate; echo ready; read _ < gate; exit 5";
    let job = id(&server
        .submit(&json!({"script": script, "cwd": cwd, "name": "w"}))
        .await);
    server.says(&job, "ready").await;
    let ran = cli(&server, &["wait", "--timeout", "0.1", &job]);
    assert_eq!(ran.code, Some(125), "{ran:?}");
    assert!(ran.stderr.contains("is still running"), "{ran:?}");
    let client = Client::start(command(&server, &["wait", "w"]));
    std::fs::write(cwd.join("gate"), "\n").unwrap();
    assert_eq!(client.end().code, Some(5));
    let good = id(&server.run_script("exit 0").await);
    assert_eq!(cli(&server, &["wait", &good, &job]).code, Some(5));
    let ran = cli(&server, &["wait", "--json", &good]).good();
    assert_eq!(ran.json()["state"], "succeeded");
    assert_eq!(cli(&server, &["wait", "nobody"]).code, Some(125));
}

#[tokio::test]
async fn jobs_are_signalled_paused_resumed_stopped_and_run_again() {
    let server = Server::start().await;
    let script =
        "trap 'echo usr' USR1; trap 'exit 4' TERM; echo ready; while :; do sleep 0.05; done";
    let job = id(&server
        .submit(&json!({"script": script, "labels": {"k": "v"}}))
        .await);
    server.says(&job, "ready").await;
    let ran = cli(&server, &["signal", "--json", &job, "usr1"]).good();
    assert!(ran.json()["delivered_to"].as_u64().unwrap() >= 1, "{ran:?}");
    server.says(&job, "usr").await;
    cli(&server, &["pause", &job]).good();
    assert_eq!(server.job(&job).await["state"], "paused");
    let ran = cli(&server, &["resume", "--json", &job]).good();
    assert_eq!(ran.json()["state"], "running");
    let args = [
        "stop",
        "--json",
        "--reason",
        "done with",
        "--grace",
        "20",
        &job,
    ];
    let stopped = cli(&server, &args).good().json();
    assert!(is_finished(&stopped), "{stopped:#}");
    assert_eq!(stopped["termination"]["reason"], "done with");
    assert_eq!(stopped["exit"]["code"], 4);
    // Refused, and said in words.
    let ran = cli(&server, &["signal", &job, "TERM"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.starts_with("procession: the job has"), "{ran:?}");
    let ran = cli(&server, &["signal", &job, "NOSUCH"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    // Again, and another program this time.
    let ran = cli(&server, &["rerun", &job]).good();
    let again = ran.text().trim().to_owned();
    server.says(&again, "ready").await;
    let ran = cli(&server, &["stop", "-l", "k=v"]).good();
    assert_eq!(ran.text(), format!("{again} canceled\n"));
    let patch = br#"{"script": "echo patched; exit 6"}"#.to_vec();
    let ran = cli_with_input(&server, &["rerun", "--follow", "-f", "-", &job], patch);
    assert_eq!((ran.code, ran.text()), (Some(6), "patched\n"));
    cli(&server, &["stop", "--purge", &again]).good();
    assert_eq!(cli(&server, &["show", &again]).code, Some(4));
}

#[tokio::test]
async fn events_are_told_of_one_job_and_of_all() {
    let server = Server::start().await;
    let job = id(&server.run_script("exit 3").await);
    let ran = cli(&server, &["events", &job]).good();
    let (first, last) = (lines(&ran)[0], *lines(&ran).last().unwrap());
    assert!(
        first.contains("  created ") && first.contains(&job),
        "{ran:?}"
    );
    assert!(
        last.contains("  finished ") && last.contains("exit=3"),
        "{ran:?}"
    );
    let ran = cli(&server, &["events", "--json", "-t", "job.finished"]).good();
    assert_eq!(ran.json()["subject"], *job);
    let cursor = ran.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(
        cli(&server, &["events", "--after", &cursor]).good().text(),
        ""
    );
    // Of a finished job there is nothing to follow; of a live one, until it is over.
    cli(&server, &["events", "-f", &job]).good();
    let seconds = unique_seconds();
    let live = id(&server.submit(&json!({"command": ["sleep", seconds]})).await);
    let client = Client::start(command(&server, &["events", "-f", &live]));
    server.stop(&live, "").await;
    let ran = client.end().good();
    assert!(
        lines(&ran).last().unwrap().contains("  finished "),
        "{ran:?}"
    );
}

#[tokio::test]
async fn top_shows_who_uses_the_processor() {
    let server = Server::start().await;
    let idle = id(&server
        .submit(&json!({"command": ["sleep", unique_seconds()]}))
        .await);
    let body = json!({"script": "while :; do :; done", "name": "busy"});
    let busy = id(&server.submit(&body).await);
    let jobs = eventually("the busy one has used something", async || {
        let top = cli(&server, &["top", "--once", "--json"]).good().json();
        let jobs = top["jobs"].as_array().unwrap().clone();
        (jobs.len() == 2 && jobs[0]["cpu_percent"].as_f64()? > 1.0).then_some(jobs)
    })
    .await;
    assert_eq!(
        (&jobs[0]["id"], &jobs[1]["id"]),
        (&json!(busy), &json!(idle))
    );
    assert!(jobs[1]["rss_bytes"].as_u64().unwrap() > 0);
    let ran = cli(&server, &["top", "--once"]).good();
    assert!(
        lines(&ran)[0].starts_with("ID ") && ran.text().contains("busy"),
        "{ran:?}"
    );
    cli(&server, &["stop", "--force", &busy, &idle]).good();
}

#[tokio::test]
async fn a_list_is_shown_anew_until_it_is_interrupted() {
    let server = Server::start().await;
    let mut command = command(&server, &["ps", "--watch", "--json"]);
    let mut child = command
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let mut list = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(list()["jobs"], json!([]));
    let job = id(&server
        .submit(&json!({"command": ["sleep", unique_seconds()]}))
        .await);
    let seen = (0..30).any(|_| list()["jobs"][0]["id"] == *job);
    assert!(seen, "the new job comes");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let status = eventually("it has ended", async || child.try_wait().unwrap()).await;
    assert_eq!(status.code(), Some(0));
    server.stop(&job, "force").await;
}

#[tokio::test]
async fn over_tcp_a_token_is_found_or_asked_for() {
    let server = Server::start().await;
    let url = format!("http://{}", server.address());
    // The state directory is this machine's, and so is the address.
    cli(&server, &["ps", "--url", &url]).good();
    let empty = server.scratch();
    let bare = |token: Option<&str>| {
        let mut command = command(&server, &["ps", "--url", &url]);
        command.env("PROCESSION_STATE_DIR", &empty);
        if let Some(token) = token {
            command.env("PROCESSION_TOKEN", token);
        }
        Client::start(command).end()
    };
    bare(Some(server.token())).good();
    for token in [None, Some("wrong")] {
        let ran = bare(token);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.stderr.contains("PROCESSION_TOKEN"), "{ran:?}");
    }
    let file = empty.join("token-file");
    std::fs::write(&file, server.token()).unwrap();
    cli(
        &server,
        &["ps", "--url", &url, "--token-file", file.to_str().unwrap()],
    )
    .good();
}

#[tokio::test]
async fn the_manual_knows_every_command() {
    let server = Server::start().await;
    let dir = server.scratch();
    cli(&server, &["man", "--dir", dir.to_str().unwrap()]).good();
    let main = std::fs::read_to_string(dir.join("procession.1")).unwrap();
    for name in [
        "run", "ps", "show", "logs", "wait", "stop", "signal", "pause", "resume", "rerun",
        "events", "top", "serve",
    ] {
        let page = std::fs::read_to_string(dir.join(format!("procession-{name}.1"))).unwrap();
        assert!(page.contains(&format!("procession\\-{name}")), "{name}");
        assert!(main.contains(&format!("procession\\-{name}(1)")), "{name}");
    }
    let run = cli(&server, &["man", "run"]).good();
    assert!(
        run.text().contains("Exit codes") && run.text().contains("\\-\\-detach"),
        "{}",
        run.text()
    );
    assert_eq!(cli(&server, &["man", "nothing"]).code, Some(2));
}

#[tokio::test]
async fn a_drain_waits_until_no_job_runs_and_is_taken_back() {
    let server = Server::start().await;
    let gate = server.scratch().join("gate");
    let script = format!("while ! test -e {}; do sleep 0.05; done", gate.display());
    let job = id(&server.submit(&json!({"script": script})).await);
    let ran = cli(&server, &["drain", "--wait", "100ms"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.text().contains("1 running, 0 queued"), "{ran:?}");
    let waiting = Client::start(command(&server, &["drain", "--wait", "10min", "--json"]));
    std::fs::write(&gate, "").unwrap();
    let drained = waiting.end().good().json();
    assert_eq!(
        drained,
        json!({"draining": true, "running": 0, "queued": 0})
    );
    assert!(is_finished(&server.job(&job).await));
    let refused = cli(&server, &["run", "-d", "--", "true"]);
    assert!(
        refused.stderr.contains("accepts no new jobs"),
        "{refused:?}"
    );
    let ended = cli(&server, &["drain", "--end"]).good();
    assert_eq!(ended.text(), "new jobs are accepted\n");
    server.run_script("exit 0").await;
}
