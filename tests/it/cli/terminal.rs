//! `run -it` and `attach` on a real terminal: tmux is the one who sits there.

use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use super::cli;
use crate::harness::{Server, blocking_until, eventually, id, kill_now, unique_seconds};
use crate::terminal::{goes_on, says_its_size};

/// A terminal of 100 by 30 with a shell in it, to type into and to look at.
struct Screen {
    socket: PathBuf,
    home: PathBuf,
}

impl Screen {
    fn start(server: &Server) -> Self {
        let home = server.scratch();
        let screen = Self {
            socket: home.join("tmux"),
            home,
        };
        let mut tmux = screen.tmux();
        let client = server.client();
        for (name, value) in client.get_envs() {
            match value {
                Some(value) => tmux.env(name, value),
                None => tmux.env_remove(name),
            };
        }
        tmux.env("P", client.get_program()).env("TERM", "xterm");
        tmux.args(["-f", "/dev/null", "start-server", ";"]);
        tmux.args(["set", "-g", "status", "off", ";"]);
        tmux.args(["set", "-g", "default-terminal", "screen", ";"]);
        tmux.args([
            "new-session",
            "-d",
            "-x",
            "100",
            "-y",
            "30",
            "env -u ENV sh",
        ]);
        let output = tmux.output().expect("tmux is there: scripts/need.sh tmux");
        assert!(output.status.success(), "{output:?}");
        // A shell of root's sets its own prompt.
        screen.line("PS1='he''re> '");
        screen.wait("here>");
        screen
    }

    fn tmux(&self) -> Command {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(&self.socket).current_dir(&self.home);
        command
    }

    fn keys(&self, keys: &[&str]) {
        let output = self.tmux().arg("send-keys").args(keys).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    /// Types a line.
    fn line(&self, text: &str) {
        self.keys(&["-l", text]);
        self.keys(&["Enter"]);
    }

    fn text(&self) -> String {
        let output = self.tmux().args(["capture-pane", "-p"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Waits until the screen has this text.
    #[track_caller]
    fn wait(&self, text: &str) {
        let is_there = blocking_until(crate::harness::LONG, || self.text().contains(text));
        assert!(is_there, "{text:?} is not on the screen:\n{}", self.text());
    }

    fn resize(&self, cols: u16, rows: u16) {
        let (cols, rows) = (cols.to_string(), rows.to_string());
        let resized = self
            .tmux()
            .args(["resize-window", "-x", &cols, "-y", &rows])
            .output();
        assert!(resized.unwrap().status.success());
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.tmux().arg("kill-server").output();
    }
}

const BASH: &str = "bash --norc --noprofile";

#[tokio::test]
async fn a_shell_is_used_as_if_it_were_here() {
    let server = Server::start().await;
    let screen = Screen::start(&server);
    screen.line("A=$(stty -g)");
    screen.line(&format!(
        "$P run -it -e PS1='jo''b> ' -- {BASH}; echo code=$?"
    ));
    screen.wait("job>");
    screen.line("stty size; echo term=$TERM");
    screen.wait("30 100");
    screen.wait("term=screen");
    let long = unique_seconds();
    screen.line(&format!("sleep {long}"));
    eventually("sleep runs", async || {
        (!crate::harness::processes_with(&long).is_empty()).then_some(())
    })
    .await;
    screen.keys(&["C-z"]);
    screen.wait("Stopped");
    screen.keys(&["C-l"]);
    screen.line("jobs");
    screen.wait("[1]+  Stopped");
    screen.line("fg");
    screen.wait(&format!("\nsleep {long}"));
    goes_on(&long).await;
    screen.keys(&["C-c"]);
    screen.wait("^C");
    screen.line("clear; stty size; exit 7");
    screen.wait("code=7");
    screen.line("clear; test \"$A\" = \"$(stty -g)\" && echo re''stored");
    screen.wait("restored");
}

#[tokio::test]
async fn the_size_follows_this_terminal() {
    let server = Server::start().await;
    let screen = Screen::start(&server);
    let script = says_its_size("rea\\dy");
    screen.line(&format!("$P run -it --script \"{script}\"; echo code=$?"));
    screen.wait("ready");
    screen.resize(90, 20);
    screen.wait("20 90");
    screen.keys(&["C-c"]);
    screen.wait("code=130");
}

#[tokio::test]
async fn an_editor_opens_writes_and_quits() {
    let server = Server::start().await;
    let screen = Screen::start(&server);
    let file = server.scratch().join("text");
    screen.line(&format!(
        "$P run -it -- vi -u NONE {}; echo code=$?",
        file.display()
    ));
    screen.wait("~");
    screen.keys(&["-l", "ihello from here"]);
    screen.wait("hello from here");
    screen.keys(&["Escape"]);
    screen.line(":wq");
    screen.wait("code=0");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "hello from here\n");
}

#[tokio::test]
async fn top_shows_and_quits() {
    let server = Server::start().await;
    let screen = Screen::start(&server);
    screen.line("$P run -it -- top; echo code=$?");
    screen.wait("load average");
    screen.wait("PID");
    screen.keys(&["q"]);
    screen.wait("code=0");
}

#[tokio::test]
async fn two_keys_leave_the_job_alone_and_attach_comes_back() {
    let server = Server::start().await;
    let screen = Screen::start(&server);
    screen.line(&format!(
        "$P run -it --name shell -e PS1='jo''b> ' -- {BASH}; echo code=$?"
    ));
    screen.wait("job>");
    screen.line("A=kept");
    screen.keys(&["C-p", "C-q"]);
    screen.wait("code=0");
    screen.wait("continues");
    let jobs = server.get("/jobs").await.json();
    assert_eq!(jobs["jobs"][0]["state"], "running", "{jobs:#}");
    // What is looked for is on the screen already, until it is cleared.
    screen.line("clear; echo cle''ared; $P attach shell; echo code=$?");
    screen.wait("cleared");
    screen.wait("job> A=kept");
    // A second one may only watch.
    let refused = cli(&server, &["attach", "shell"]);
    assert_eq!(refused.code, Some(125), "{refused:?}");
    assert!(refused.stderr.contains("is writing"), "{refused:?}");
    screen.line("echo still $A; exit 4");
    screen.wait("still kept");
    screen.wait("code=4");
}

#[tokio::test]
async fn a_crash_of_the_server_goes_unnoticed_on_the_screen() {
    let server = Server::start().await;
    let screen = Screen::start(&server);
    screen.line(&format!(
        "$P run -it -e PS1='jo''b> ' -- {BASH}; echo code=$?"
    ));
    screen.wait("job>");
    let before = server.server_process().unwrap();
    kill_now(before);
    eventually("another server", async || {
        server
            .server_process()
            .filter(|pid| *pid != before)
            .map(drop)
    })
    .await;
    let job = id(&eventually("it answers", async || {
        let request = server.request(reqwest::Method::GET, "/jobs");
        let reply = server.try_send(request).await.ok()?;
        (reply.status == 200).then(|| reply.json()["jobs"][0].clone())
    })
    .await);
    // Typed once more where it was typed into nothing.
    eventually("typed", async || {
        screen.line("echo ba''ck");
        server.text(&job).await.contains("back").then_some(())
    })
    .await;
    screen.wait("back");
    screen.line("exit 0");
    screen.wait("code=0");
}

#[tokio::test]
async fn a_signal_gives_the_terminal_back() {
    let server = Server::start().await;
    let screen = Screen::start(&server);
    screen.line("A=$(stty -g)");
    screen.line("$P run -it -- cat; echo code=$?");
    let job = eventually("it runs", async || {
        let jobs = server.get("/jobs?state=running").await.json();
        jobs["jobs"].get(0).map(id)
    })
    .await;
    screen.line("hello");
    server.says(&job, "hello\r\nhello").await;
    let client = server
        .marked()
        .into_iter()
        .find(|process| process.argv.iter().any(|word| word == "-it"))
        .unwrap();
    let pid = nix::unistd::Pid::from_raw(client.pid);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    screen.wait("code=0");
    screen.line("clear; test \"$A\" = \"$(stty -g)\" && echo re''stored");
    screen.wait("restored");
    server.stop(&job, "force").await;
}

#[tokio::test]
async fn without_a_terminal_here_the_job_has_one() {
    let server = Server::start().await;
    let ran = cli(&server, &["run", "-t", "--", "sh", "-c", "tty; stty size"]).good();
    assert!(ran.text().starts_with("/dev/pts/"), "{ran:?}");
    assert!(ran.text().ends_with("24 80\r\n"), "{ran:?}");
    let job = id(&server
        .submit(&json!({"command": ["cat"], "stdin": {"mode": "open"}}))
        .await);
    let ran = super::cli_with_input(&server, &["attach", &job], b"piped".to_vec()).good();
    assert_eq!(ran.text(), "piped");
}

/// What tmux knows of the screen: whether it is the alternate one, and whether the cursor is shown.
fn flags(screen: &Screen) -> String {
    let output = screen
        .tmux()
        .args(["display-message", "-p", "#{alternate_on}#{cursor_flag}"])
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[tokio::test]
async fn a_full_screen_is_left_behind_by_keys_and_by_signals() {
    let server = Server::start().await;
    let screen = Screen::start(&server);
    let seconds = unique_seconds();
    let script = format!("printf '\\033[?1049h\\033[?25lfu%s' ll; exec sleep {seconds}");
    for by_keys in [true, false] {
        screen.line(&format!(
            "clear; $P run -it --script \"{script}\"; echo code=$?"
        ));
        screen.wait("full");
        assert_eq!(flags(&screen), "10");
        if by_keys {
            screen.keys(&["C-p", "C-q"]);
        } else {
            let marked = server.marked();
            let client = marked
                .iter()
                .find(|process| process.argv.iter().any(|word| word == "-it"))
                .unwrap();
            let pid = nix::unistd::Pid::from_raw(client.pid);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        }
        screen.wait("code=0");
        assert_eq!(flags(&screen), "01");
    }
    for job in server.get("/jobs").await.json()["jobs"].as_array().unwrap() {
        server.stop(&id(job), "force").await;
    }
}

#[tokio::test]
async fn a_client_that_was_stopped_has_the_terminal_again() {
    let server = Server::start().await;
    let screen = Screen::start(&server);
    // A shell that sets the modes of its own terminal.
    screen.line(&format!("PS1='in''ner> ' {BASH}"));
    screen.wait("inner>");
    screen.line("$P run -it -- cat; echo code=$?");
    let job = eventually("it runs", async || {
        let jobs = server.get("/jobs?state=running").await.json();
        jobs["jobs"].get(0).map(id)
    })
    .await;
    screen.line("hello");
    server.says(&job, "hello\r\nhello").await;
    let marked = server.marked();
    let client = marked
        .iter()
        .find(|process| process.argv.iter().any(|word| word == "-it"))
        .unwrap();
    let pid = nix::unistd::Pid::from_raw(client.pid);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    screen.wait("Stopped");
    screen.line("clear; echo be''fore; fg");
    screen.wait("before\n$P run -it");
    screen.line("again");
    server.says(&job, "again\r\nagain").await;
    // The job's, and not this command's.
    screen.keys(&["C-c"]);
    screen.wait("^Cinner>");
    screen.line("echo co''de=$?");
    screen.wait("code=130");
}

#[tokio::test]
async fn keys_to_detach_can_be_chosen_and_one_alone_is_the_jobs() {
    let server = Server::start().await;
    let screen = Screen::start(&server);
    let script =
        "stty raw -echo; echo rea''dy; dd bs=1 count=1 2>/dev/null | od -An -tx1; exec cat";
    screen.line(&format!(
        "$P run -it --name k --script \"{script}\"; echo code=$?"
    ));
    screen.wait("ready");
    screen.keys(&["C-p"]);
    screen.wait(" 10");
    screen.keys(&["C-p", "C-q"]);
    screen.wait("code=0");
    // What is looked for is on the screen already, until it is cleared.
    screen.line("clear; echo cle''ared; $P attach --detach-keys 'ctrl-],q' k; echo le''ft=$?");
    let job = id(&server.get("/jobs").await.json()["jobs"][0]);
    screen.wait("cleared");
    screen.wait("ready");
    screen.keys(&["C-p", "C-q", "x"]);
    server.says(&job, "\u{10}\u{11}x").await;
    screen.keys(&["C-]", "q"]);
    screen.wait("left=0");
    server.stop(&job, "force").await;
}

#[tokio::test]
async fn q_leaves_top_and_a_list_that_is_watched() {
    let server = Server::start().await;
    let screen = Screen::start(&server);
    screen.line("A=$(stty -g)");
    for command in ["top", "ps --watch"] {
        screen.line(&format!("clear; $P {command}; echo co''de=$?"));
        screen.wait("COMMAND");
        screen.keys(&["q"]);
        screen.wait("code=0");
    }
    screen.line("clear; test \"$A\" = \"$(stty -g)\" && echo re''stored");
    screen.wait("restored");
}

#[tokio::test]
async fn top_filters_looks_into_a_job_and_stops_it() {
    let server = Server::start().await;
    let seconds = unique_seconds();
    let script = format!("echo sa''id; sleep {seconds} & wait");
    let job = json!({"script": script, "name": "sleeper"});
    let job = id(&server.submit(&job).await);
    let other = json!({"command": ["sleep", unique_seconds()], "name": "another"});
    let other = id(&server.submit(&other).await);
    let screen = Screen::start(&server);
    screen.line("A=$(stty -g)");
    screen.line("clear; $P top --interval 1; echo co''de=$?");
    screen.wait("another");
    screen.keys(&["/"]);
    screen.keys(&["-l", "SLEEPER"]);
    screen.wait("/SLEEPER");
    screen.keys(&["Enter"]);
    assert!(!screen.text().contains("another"), "{}", screen.text());
    screen.keys(&["l"]);
    screen.wait("output of sleeper");
    screen.wait("\nsaid");
    screen.keys(&["t"]);
    screen.wait("processes of sleeper");
    screen.wait(&format!("  sleep {seconds}"));
    screen.keys(&["x"]);
    screen.wait("y/n");
    screen.keys(&["y"]);
    let ended = server.finished(&job).await;
    assert_eq!(
        ended["termination"]["reason"], "procession top",
        "{ended:#}"
    );
    screen.keys(&["q"]);
    screen.wait("code=0");
    screen.line("clear; test \"$A\" = \"$(stty -g)\" && echo re''stored");
    screen.wait("restored");
    server.stop(&other, "force").await;
}
