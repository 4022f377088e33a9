//! What a service says and refuses when nobody has thought of its safety.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};

use crate::hostile;
use crate::reply::id;
use crate::server::{Server, program, run};

/// Without tokens these guards are all that stands between a web page and this machine.
#[test]
fn a_web_page_gets_nowhere_without_tokens_either() {
    let server = Server::with(&["--auth=none"]);
    assert_eq!(server.token, "");
    let job = server.ask("", "POST", "/jobs", r#"{"command":["/bin/sleep","3600"]}"#);
    assert_eq!(job.status, 201, "{job:?}");
    let words = [("$JOB", id(&job.reply.json()))];
    // Any page can send a form, so that one is taken from callers who show a token alone.
    let (with_token, without) = ("400 invalid_request", "415 unsupported_media_type");
    let forms = "boundary=x | | ";
    let cases = include_str!("cases/browser.txt");
    assert_eq!(cases.matches(&format!("{forms}{with_token}")).count(), 1);
    let cases = cases.replace(
        &format!("{forms}{with_token}"),
        &format!("{forms}{without}"),
    );
    hostile::run(&server, &cases, &words);
}

/// Starts a service with this standard output.
fn start(state_dir: &std::path::Path, stdout: Stdio) -> Child {
    let mut command = program();
    command
        .args(["serve", "--listen=127.0.0.1:0", "--state-dir"])
        .arg(state_dir)
        .stdout(stdout)
        .stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Ends it and gives what it has said on standard error.
fn end(mut child: Child) -> String {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    let mut said = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert!(child.wait().unwrap().success(), "{said}");
    said
}

#[test]
fn the_first_words_do_not_have_the_token() {
    let dir = tempfile::tempdir().unwrap();
    let state_dir = dir.path().join("state");
    let mut child = start(&state_dir, Stdio::piped());
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let said = end(child);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert!(
        line.contains("\"message\":\"listening on http://127.0.0.1:"),
        "{line}"
    );
    assert_eq!(rest, "");
    let token = std::fs::read_to_string(state_dir.join("token")).unwrap();
    assert!(!said.contains(&token), "{said}");
    let is_root = nix::unistd::geteuid().is_root();
    assert_eq!(said.contains("--deny-root-jobs"), is_root, "{said}");

    // A terminal is shown a line to try, which reads the token from its file.
    let terminal = nix::pty::openpty(None, None).unwrap();
    let child = start(&state_dir, terminal.slave.into());
    let mut terminal = BufReader::new(std::fs::File::from(terminal.master));
    let mut shown = String::new();
    while !shown.contains("/jobs?wait=5'") {
        assert_ne!(terminal.read_line(&mut shown).unwrap(), 0, "{shown}");
    }
    let said = end(child);
    let file = format!("$(cat {})", state_dir.join("token").display());
    assert!(shown.contains(&file), "{shown}");
    assert!(!shown.contains(&token) && !said.contains(&token));
}

#[test]
fn a_token_that_is_a_link_ends_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let private = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let (state_dir, elsewhere) = (dir.path().join("state"), dir.path().join("elsewhere"));
    std::fs::create_dir(&state_dir).unwrap();
    private(&state_dir, 0o700);
    std::fs::write(&elsewhere, "0123456789abcdef0123456789abcdef").unwrap();
    private(&elsewhere, 0o600);
    symlink(&elsewhere, state_dir.join("token")).unwrap();
    assert_eq!(run(&["serve", "--listen=127.0.0.1:0"], &state_dir).0, 78);
    // Nor is a file made where a link leads.
    let nowhere = dir.path().join("nowhere");
    std::fs::remove_file(state_dir.join("token")).unwrap();
    symlink(&nowhere, state_dir.join("token")).unwrap();
    assert_eq!(run(&["serve", "--listen=127.0.0.1:0"], &state_dir).0, 78);
    assert!(!nowhere.exists());
}
