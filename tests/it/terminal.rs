//! Jobs with a terminal: it is the controlling one, is typed into, resized, and outlives every role.

use std::time::Instant;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{
    LONG, Process, Reply, Server, eventually, id, kill_now, processes_with, unique_seconds,
};

/// What an interactive shell is started with, so that nobody's dot files matter.
const SHELL: [&str; 4] = ["bash", "--norc", "--noprofile", "-i"];

/// A shell on a terminal, which ends when it is hung up.
pub(crate) fn shell() -> Value {
    json!({
        "command": SHELL, "env": {"PS1": "$ "}, "pty": {"rows": 24, "cols": 80, "term": "dumb"},
        "stop": {"signal": "SIGHUP"},
    })
}

pub(crate) async fn type_in(server: &Server, job: &str, text: &str) -> Reply {
    let path = format!("/jobs/{job}/stdin");
    let request = server.request(Method::POST, &path).body(text.to_owned());
    let reply = server.send(request).await;
    assert_eq!(reply.status, 204, "{reply}");
    reply
}

/// A command that says `word`, and then the size of its terminal at each SIGWINCH. Those that come while it speaks are
/// kept, and none is lost: bash forgets one that comes while its trap runs.
pub(crate) fn says_its_size(word: &str) -> String {
    let program = "import os, signal, sys; \
        signal.signal(signal.SIGINT, signal.SIG_DFL); \
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGWINCH}); \
        print(sys.argv[1], flush=True); \
        [print(size.lines, size.columns, flush=True) for _ in iter(lambda: signal.sigwait({signal.SIGWINCH}), 0) \
        for size in [os.get_terminal_size()]]";
    format!("python3 -c '{program}' {word}")
}

/// Waits until what was stopped goes on: a shell says so before it gives it the terminal.
pub(crate) async fn goes_on(words: &str) {
    eventually("it goes on", async || {
        let all = processes_with(words);
        let is_stopped = |process: &Process| process.state == 'T';
        (!all.is_empty() && !all.iter().any(is_stopped)).then_some(())
    })
    .await;
}

async fn resize(server: &Server, job: &str, body: &Value) -> Reply {
    let request = server.request(Method::PUT, &format!("/jobs/{job}/pty"));
    server.send(request.json(body)).await
}

#[tokio::test]
async fn the_terminal_is_the_controlling_one_of_the_session() {
    let server = Server::start().await;
    let script = "test -t 0 && test -t 1 && test -t 2 && echo three; tty; ps -o tty=,tpgid=,pgid=,sid= -p $$; \
        stty size; echo $TERM; ls -l /proc/$$/fd | grep -c pts; : < /dev/tty && echo opened";
    let body = json!({"script": script, "pty": {"rows": 31, "cols": 97, "term": "vt220"}});
    let job = server.run(&body).await;
    let text = server.text(&id(&job)).await;
    let lines: Vec<&str> = text.split("\r\n").collect();
    assert_eq!(lines[0], "three", "{text}");
    let tty = lines[1].strip_prefix("/dev/").unwrap();
    assert!(tty.starts_with("pts/"), "{text}");
    let facts: Vec<&str> = lines[2].split_whitespace().collect();
    let pid = job["process"]["pid"].to_string();
    assert_eq!(facts, [tty, &pid, &pid, &pid], "{text}");
    assert_eq!(lines[3..], ["31 97", "vt220", "3", "opened", ""], "{text}");
    assert_eq!(job["spec"]["pty"]["term"], "vt220");
    assert_eq!(job["output"]["stderr_bytes"], 0);
}

#[tokio::test]
async fn defaults_are_filled_in_and_a_variable_wins_over_term() {
    let server = Server::start().await;
    let body = json!({"script": "stty size; echo $TERM", "pty": {}, "env": {"TERM": "dumb"}});
    let job = server.run(&body).await;
    let expected = json!({"rows": 24, "cols": 80, "term": "xterm-256color"});
    assert_eq!(job["spec"]["pty"], expected);
    assert_eq!(server.text(&id(&job)).await, "24 80\r\ndumb\r\n");
}

#[tokio::test]
async fn what_is_typed_is_echoed_read_and_ended() {
    let server = Server::start().await;
    let body = json!({"command": ["cat"], "pty": {}});
    let job = id(&server.submit(&body).await);
    type_in(&server, &job, "hello\n").await;
    server.says(&job, "hello\r\nhello\r\n").await;
    let request = server.request(Method::POST, &format!("/jobs/{job}/stdin?eof"));
    let reply = server.send(request.body("rest")).await;
    assert_eq!(reply.status, 204, "{reply}");
    let ended = server.finished(&job).await;
    assert_eq!(ended["exit"]["code"], 0, "{ended:#}");
    assert!(server.text(&job).await.contains("restrest"));
    let late = server
        .send(
            server
                .request(Method::POST, &format!("/jobs/{job}/stdin"))
                .body("x"),
        )
        .await;
    assert_eq!(
        (late.status, late.code().as_str()),
        (409, "job_already_finished")
    );
}

#[tokio::test]
async fn input_that_is_refused_was_not_typed() {
    let server = Server::start().await;
    let body = json!({"command": ["cat"], "pty": {}});
    let job = id(&server.submit(&body).await);
    type_in(&server, &job, "x").await;
    let request = |query: &str| server.request(Method::POST, &format!("/jobs/{job}/stdin?{query}"));
    let refused = server.send(request("offset=0").body("line\n")).await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (409, "stdin_offset_mismatch"),
        "{refused}"
    );
    // In the middle of a line the end takes more than at its start.
    assert_eq!(server.send(request("eof")).await.status, 204);
    let ended = server.finished(&job).await;
    assert_eq!(ended["exit"]["code"], 0, "{ended:#}");
    let text = server.text(&job).await;
    assert!(text.contains("xx") && !text.contains("line"), "{text}");
}

#[tokio::test]
async fn a_resize_reaches_the_foreground() {
    let server = Server::start().await;
    // The shell waits, so that the one who is told is a child in its group.
    let script = format!("{}; :", says_its_size("ready"));
    let body = json!({"script": script, "pty": {"rows": 10, "cols": 20}});
    let job = id(&server.submit(&body).await);
    server.says(&job, "ready").await;
    assert_eq!(
        resize(&server, &job, &json!({"rows": 33, "cols": 44}))
            .await
            .status,
        204
    );
    server.says(&job, "33 44").await;
    for (body, status, pointer) in [
        (json!({"rows": 0, "cols": 1}), 422, "/rows"),
        (json!({"rows": 4097, "cols": 1}), 422, "/rows"),
        (json!({"rows": 1}), 422, "/cols"),
        (json!({"rows": 1, "cols": -1}), 422, "/cols"),
        (json!({"rows": 1, "cols": 1, "height": 1}), 422, "/height"),
    ] {
        let reply = resize(&server, &job, &body).await;
        assert_eq!(reply.status, status, "{body}: {reply}");
        assert_eq!(reply.json()["errors"][0]["pointer"], pointer, "{reply}");
    }
    for (rows, cols) in [(1, 1), (4096, 4096)] {
        let reply = resize(&server, &job, &json!({"rows": rows, "cols": cols})).await;
        assert_eq!(reply.status, 204, "{reply}");
        server.says(&job, &format!("{rows} {cols}")).await;
    }
    server.stop(&job, "force").await;
    let late = resize(&server, &job, &json!({"rows": 1, "cols": 1})).await;
    assert_eq!(
        (late.status, late.code().as_str()),
        (409, "job_already_finished")
    );
}

#[tokio::test]
async fn a_job_without_a_terminal_cannot_be_resized() {
    let server = Server::start().await;
    let job = id(&server
        .submit(&json!({"command": ["sleep", unique_seconds()]}))
        .await);
    let reply = resize(&server, &job, &json!({"rows": 1, "cols": 1})).await;
    assert_eq!((reply.status, reply.code().as_str()), (409, "no_terminal"));
    server.stop(&job, "force").await;
    let nobody = resize(&server, "nobody", &json!({"rows": 1, "cols": 1})).await;
    assert_eq!(nobody.status, 404);
}

#[tokio::test]
async fn output_larger_than_any_buffer_comes_out_exactly() {
    let server = Server::start().await;
    let script = "stty -opost; seq 1 200000";
    let job = server.run(&json!({"script": script, "pty": {}})).await;
    let expected: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
    let output = server.text(&id(&job)).await;
    assert!(
        output == expected,
        "{} bytes of {}",
        output.len(),
        expected.len()
    );
    assert_eq!(job["output"]["complete"], true);
}

#[tokio::test]
async fn a_shell_has_job_control() {
    let server = Server::start().await;
    let job = id(&server.submit(&shell()).await);
    server.says(&job, "$ ").await;
    let long = unique_seconds();
    type_in(&server, &job, &format!("sleep {long}\n")).await;
    eventually("sleep is in the foreground", async || {
        let reply = server.get(&format!("/jobs/{job}/processes")).await;
        reply.json()["processes"]
            .as_array()?
            .iter()
            .any(|process| process["command"][0] == "sleep")
            .then_some(())
    })
    .await;
    type_in(&server, &job, "\x1a").await;
    server.says(&job, "Stopped").await;
    type_in(&server, &job, "fg\n").await;
    // The line of `sleep` is repeated by `fg`.
    server.says(&job, &format!("\nsleep {long}\r\n")).await;
    goes_on(&long).await;
    type_in(&server, &job, "\x03").await;
    server.says(&job, "^C").await;
    type_in(&server, &job, "echo $((41+1)); exit 7\n").await;
    let ended = server.finished(&job).await;
    assert_eq!(
        ended["exit"]["code"],
        7,
        "{ended:#}\n{}",
        server.text(&job).await
    );
    assert!(server.text(&job).await.contains("42"));
}

#[tokio::test]
async fn a_stop_ends_everything_on_the_terminal() {
    let server = Server::start().await;
    let job = id(&server.submit(&shell()).await);
    server.says(&job, "$ ").await;
    let (here, away) = (unique_seconds(), unique_seconds());
    type_in(
        &server,
        &job,
        &format!("setsid sleep {away} & sleep {here} & echo bo''th\n"),
    )
    .await;
    server.says(&job, "both").await;
    let began = Instant::now();
    let ended = server.stop(&job, "").await;
    assert_eq!(ended["state"], "canceled", "{ended:#}");
    assert!(began.elapsed() < LONG);
    assert!(processes_with(&here).is_empty());
    assert!(processes_with(&away).is_empty());
}

#[tokio::test]
async fn who_holds_the_terminal_in_the_background_is_waited_for_or_stopped() {
    let server = Server::start().await;
    let seconds = unique_seconds();
    let script = format!("trap '' HUP; sleep {seconds} & echo left");
    let job = server.run(&json!({"script": script, "pty": {}})).await;
    assert_eq!(job["termination"]["killed_leftovers"], 1, "{job:#}");
    assert_eq!(job["exit"]["code"], 0);
    assert!(processes_with(&seconds).is_empty());
    // With its leader a session loses its terminal; what waits for all goes on without it.
    let script =
        "(trap '' HUP; while kill -0 $$; do :; done; echo no; exit 0) 2>/dev/null & echo left";
    let job = server
        .run(&json!({"script": script, "pty": {}, "wait_for": "all"}))
        .await;
    assert_eq!(job["state"], "succeeded", "{job:#}");
    assert!(server.text(&id(&job)).await.starts_with("left\r\n"));
}

#[tokio::test]
async fn the_terminal_outlives_server_and_monitor() {
    let server = Server::start().await;
    let job = id(&server.submit(&shell()).await);
    server.says(&job, "$ ").await;
    let client = server.persistent();
    type_in(&server, &job, "echo on''e; tty\n").await;
    server.says(&job, "one").await;
    kill_now(server.server_process().unwrap());
    client.get(&format!("/jobs/{job}")).await;
    type_in(&server, &job, "echo tw''o\n").await;
    server.says(&job, "two").await;
    for word in ["three", "four"] {
        let monitor = eventually("a monitor", async || server.monitors().get(&job).copied()).await;
        kill_now(monitor);
        eventually("another monitor", async || {
            let now = server.monitors().get(&job).copied()?;
            (now != monitor).then_some(())
        })
        .await;
        let text = format!("echo {}''{}\n", &word[..1], &word[1..]);
        eventually("the rescuer types", async || {
            let request = server.request(Method::POST, &format!("/jobs/{job}/stdin"));
            let reply = server.send(request.body(text.clone())).await;
            (reply.status == 204).then_some(())
        })
        .await;
        server.says(&job, word).await;
    }
    assert_eq!(
        resize(&server, &job, &json!({"rows": 12, "cols": 34}))
            .await
            .status,
        204
    );
    type_in(&server, &job, "stty size; exit 5\n").await;
    let ended = server.finished(&job).await;
    assert_eq!(ended["exit"]["code"], 5, "{ended:#}");
    let text = server.text(&job).await;
    assert!(text.contains("12 34") && !text.contains("hangup"), "{text}");
}

#[tokio::test]
async fn a_rescuer_finds_what_left_the_session_but_kept_the_terminal() {
    let server = Server::start().await;
    let seconds = unique_seconds();
    let script = format!("setsid sleep {seconds} & echo ready; read -r line");
    let body = json!({"script": script, "pty": {}, "wait_for": "all"});
    let job = id(&server.submit(&body).await);
    server.says(&job, "ready").await;
    kill_now(server.monitors()[&job]);
    eventually("a rescuer", async || {
        let reply = server.delete(&job, "force&wait=30").await;
        (reply.status == 200).then_some(())
    })
    .await;
    assert!(processes_with(&seconds).is_empty());
}

#[tokio::test]
async fn an_upgrade_hands_the_terminal_over() {
    let server = Server::start().await;
    let job = id(&server.submit(&shell()).await);
    server.says(&job, "$ ").await;
    let before = server.server_process().unwrap();
    nix::sys::signal::kill(server.supervisor(), Signal::SIGHUP).unwrap();
    eventually("another server", async || {
        server
            .server_process()
            .filter(|pid: &Pid| *pid != before)
            .map(drop)
    })
    .await;
    // The spare is all that is left of the terminal for a rescuer.
    let monitor = eventually("a monitor", async || server.monitors().get(&job).copied()).await;
    kill_now(monitor);
    eventually("the rescuer types", async || {
        let request = server.request(Method::POST, &format!("/jobs/{job}/stdin"));
        let reply = server
            .try_send(request.body("echo st''ill; exit 3\n"))
            .await
            .ok()?;
        (reply.status == 204).then_some(())
    })
    .await;
    let ended = server.finished(&job).await;
    assert_eq!(ended["exit"]["code"], 3, "{ended:#}");
    assert!(server.text(&job).await.contains("still"));
}

#[tokio::test]
async fn a_job_of_another_user_owns_its_terminal() {
    let server = Server::start().await;
    if !crate::harness::is_root() {
        return;
    }
    let script = "stat -c %U $(tty); : > $(tty) && echo writable";
    let job = server
        .run(&json!({"script": script, "pty": {}, "user": "nobody", "cwd": "/"}))
        .await;
    assert_eq!(server.text(&id(&job)).await, "nobody\r\nwritable\r\n");
}

#[tokio::test]
async fn a_program_that_cannot_be_executed_says_so_with_a_terminal_too() {
    let server = Server::start().await;
    let job = server
        .run(&json!({"command": ["/nonexistent"], "pty": {}}))
        .await;
    assert_eq!(job["state"], "failed");
    assert_eq!(job["spawn_failure"]["stage"], "exec", "{job:#}");
}

#[tokio::test]
async fn a_terminal_that_nobody_has_open_is_not_at_its_end() {
    let server = Server::start().await;
    let scripts = [
        (
            "T=$(tty); echo one; exec <&- >&- 2>&-; sleep 0.3; echo two > $T",
            10,
        ),
        // The session ends with its leader, and the kernel sends the others SIGHUP.
        (
            "trap '' HUP; T=$(tty); echo one; setsid sh -c 'exec <&- >&- 2>&-; sleep 0.3; echo two > $1' sh $T &",
            10,
        ),
        (
            "T=$(tty); exec <&- >&- 2>&-; sleep 0.3; head -c 100000 /dev/zero > $T",
            100_000,
        ),
    ];
    for (script, bytes) in scripts {
        let job = server
            .run(&json!({"script": script, "pty": {}, "wait_for": "all"}))
            .await;
        let output = server.output(&id(&job)).await;
        assert_eq!(output.len(), bytes, "{script}: {job:#}");
    }
}

#[tokio::test]
async fn a_rescuer_does_not_take_a_terminal_without_readers_for_its_end() {
    let server = Server::start().await;
    let script = "T=$(tty); echo one; exec <&- >&- 2>&-; \
        while [ ! -e $GO ]; do sleep 0.05; done; echo two > $T";
    let go = server.scratch().join("go");
    let body = json!({"script": script, "pty": {}, "env": {"GO": go}});
    let job = id(&server.submit(&body).await);
    server.says(&job, "one").await;
    let monitor = server.monitors()[&job];
    kill_now(monitor);
    eventually("a rescuer", async || {
        let now = server.monitors();
        now.get(&job).filter(|now| **now != monitor).map(drop)
    })
    .await;
    std::fs::write(&go, "").unwrap();
    server.finished(&job).await;
    assert_eq!(server.text(&job).await, "one\r\ntwo\r\n");
}
