//! Tokens made, used and revoked while the service runs; the policy; the doctor.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::server::{Server, answers, run};

/// Asks until the status is there: the service notices a change within two seconds.
pub(crate) fn eventually(server: &Server, token: &str, status: u16) -> Duration {
    eventually_by(|| server.ask(token, "GET", "/jobs", "").status == status)
}

/// The same, asked in another way.
pub(crate) fn eventually_by(is_so: impl Fn() -> bool) -> Duration {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(5));
    }
    begin.elapsed()
}

#[test]
fn a_token_opens_what_its_scope_reaches_until_it_is_revoked() {
    let server = Server::start();
    let state_dir = server.state_dir();
    let (code, token) = run(
        &[
            "token",
            "create",
            "--name",
            "eyes",
            "--scope",
            "read",
            "--expires",
            "90d",
        ],
        &state_dir,
    );
    assert_eq!(code, 0);
    eventually(&server, &token, 200);
    let body = server.canary_body();
    let refused = server.ask(&token, "POST", "/jobs", &body);
    assert_eq!(refused.problem(), (403, "forbidden".to_owned()));
    let (code, list) = run(&["token", "list"], &state_dir);
    assert_eq!(code, 0);
    assert!(
        list.contains("eyes") && list.contains("read") && !list.contains(&token),
        "{list}"
    );
    assert_eq!(run(&["token", "revoke", "eyes"], &state_dir).0, 0);
    eventually(&server, &token, 401);
    assert_eq!(run(&["token", "revoke", "eyes"], &state_dir).0, 1);
    server.assert_untouched();
    let audit = std::fs::read_to_string(state_dir.join("audit.jsonl")).unwrap();
    assert!(audit.contains(r#""actor":"token:eyes""#), "{audit}");
    assert!(
        !audit.contains("canary") && !audit.contains(&token),
        "{audit}"
    );
}

#[test]
fn a_wait_ends_within_five_seconds_of_its_tokens_revocation() {
    let server = Server::start();
    let state_dir = server.state_dir();
    let (_, token) = run(
        &["token", "create", "--name", "ci", "--scope", "operate"],
        &state_dir,
    );
    eventually(&server, &token, 200);
    let job = server.ask(
        &token,
        "POST",
        "/jobs",
        r#"{"command":["/bin/sleep","300"]}"#,
    );
    assert_eq!(job.status, 201, "{job:?}");
    let job: serde_json::Value = serde_json::from_str(&job.body).unwrap();
    assert_eq!(job["created_by"], "token:ci");
    let mut stream = server.connect();
    let id = job["id"].as_str().unwrap();
    write!(
        stream,
        "GET /jobs/{id}?wait=300 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let begin = Instant::now();
    assert_eq!(run(&["token", "revoke", "ci"], &state_dir).0, 0);
    let answer = answers(&mut stream).remove(0);
    assert_eq!(answer.problem(), (401, "unauthenticated".to_owned()));
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "{:?}",
        begin.elapsed()
    );
}

#[test]
fn with_a_policy_the_service_runs_templates_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let policy = dir.path().join("policy.toml");
    std::fs::write(
        &policy,
        "[template.say]\ncommand = [\"/bin/echo\", \"{word}\"]\nparams.word = { type = \"pattern\", pattern = \"[a-z;$() ]+\" }\n",
    )
    .unwrap();
    std::fs::set_permissions(&policy, std::fs::Permissions::from_mode(0o600)).unwrap();
    let flag = format!("--policy={}", policy.display());
    let server = Server::in_dir(dir, &[&flag]);
    let raw = server.ask(&server.token, "POST", "/jobs", &server.canary_body());
    assert_eq!(raw.problem(), (403, "policy_forbids".to_owned()));
    let body = r#"{"template":"say","params":{"word":"a; $(reboot)"}}"#;
    let made = server.ask(&server.token, "POST", "/jobs?wait=20", body);
    assert_eq!(made.status, 201, "{made:?}");
    let job: serde_json::Value = serde_json::from_str(&made.body).unwrap();
    let path = format!("/jobs/{}/output", job["id"].as_str().unwrap());
    assert_eq!(
        server.ask(&server.token, "GET", &path, "").body,
        "a; $(reboot)\n"
    );
    // Nor is a rerun a way around it.
    let rerun = |patch: &str| {
        let request = format!(
            "POST /jobs/{}/rerun?wait=20 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/merge-patch+json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{patch}",
            job["id"].as_str().unwrap(),
            server.token,
            patch.len()
        );
        server.raw(request.as_bytes()).remove(0)
    };
    let other = rerun(&server.canary_body());
    assert_eq!(other.problem(), (403, "policy_forbids".to_owned()));
    let wider = rerun(r#"{"stop":{"grace_seconds":1}}"#);
    assert_eq!(wider.problem(), (403, "policy_forbids".to_owned()));
    assert_eq!(rerun("{}").status, 201);
    assert!(!server.canary().exists());
}

#[test]
fn the_doctor_finds_what_is_not_safe() {
    let server = Server::start();
    let state_dir = server.state_dir();
    let (code, text) = run(&["doctor", "--deny-root-jobs"], &state_dir);
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("containment") && text.contains("loopback only"),
        "{text}"
    );
    for flags in [
        &["doctor", "--deny-root-jobs", "--auth=none"][..],
        &["doctor", "--deny-root-jobs", "--listen=0.0.0.0:1"],
    ] {
        let (code, text) = run(flags, &state_dir);
        assert_eq!(code, 1, "{text}");
        assert!(text.contains("INSECURE"), "{text}");
    }
    assert_eq!(
        run(&["doctor", "--auth=none", "--listen=0.0.0.0:1"], &state_dir).0,
        78
    );
}

#[test]
fn the_doctor_says_as_json_what_runs_out_and_which_file_is_not_as_it_should_be() {
    let server = Server::start();
    let state_dir = server.state_dir();
    let asked = |flags: &[&str]| {
        let line = [&["doctor", "--json", "--deny-root-jobs"], flags].concat();
        let (code, text) = run(&line, &state_dir);
        let said: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(code, i32::from(said["ok"] != true), "{text}");
        said
    };
    let verdict = |said: &serde_json::Value, about: &str| {
        let mut found = said["findings"].as_array().unwrap().iter().rev();
        let found = found.find(|finding| finding["about"] == about);
        found.map(|finding| finding["verdict"].as_str().unwrap().to_owned())
    };
    let good = asked(&["--min-free-bytes=0"]);
    assert_eq!(good["ok"], true, "{good:#}");
    for about in ["disk", "descriptors", "kernel", "state"] {
        assert!(verdict(&good, about).is_some(), "{about} in {good:#}");
    }
    assert_eq!(verdict(&good, "files"), None, "{good:#}");
    let full = asked(&["--min-free-bytes=9000000000000000"]);
    assert_eq!(
        verdict(&full, "disk").as_deref(),
        Some("problem"),
        "{full:#}"
    );
    let backup = asked(&["--min-free-bytes=0", "--backup=/nowhere/at/all"]);
    assert_eq!(
        verdict(&backup, "backup").as_deref(),
        Some("problem"),
        "{backup:#}"
    );
    let open = state_dir.join("audit.jsonl");
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644)).unwrap();
    let found = asked(&[]);
    assert_eq!(
        verdict(&found, "files").as_deref(),
        Some("insecure"),
        "{found:#}"
    );
}

#[test]
fn a_secret_that_others_can_read_or_that_is_no_secret_ends_the_start() {
    for (text, mode) in [
        ("0123456789abcdef0123456789abcdef", 0o644),
        ("", 0o600),
        ("short", 0o600),
    ] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let token = dir.path().join("token");
        std::fs::write(&token, text).unwrap();
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(
            run(&["serve", "--listen=127.0.0.1:0"], dir.path()).0,
            78,
            "{text:?} {mode:o}"
        );
    }
}

#[test]
fn a_policy_or_certificate_that_cannot_be_used_ends_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let bad = dir.path().join("bad");
    std::fs::write(&bad, "[template").unwrap();
    std::fs::set_permissions(&bad, std::fs::Permissions::from_mode(0o600)).unwrap();
    let state_dir = dir.path().join("state");
    let bad = bad.to_str().unwrap();
    for flags in [
        &["--policy", bad][..],
        &["--policy", "/no/such/file"],
        &["--tls-cert", bad, "--tls-key", bad],
        &["--tls-cert", bad],
    ] {
        let line = [&["serve", "--listen=127.0.0.1:0"], flags].concat();
        assert_eq!(run(&line, &state_dir).0, 78, "{flags:?}");
    }
}

#[test]
fn off_loopback_plain_http_warns_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = crate::server::program()
        .args([
            "serve",
            "--listen=0.0.0.0:0",
            "--log-level=error",
            "--state-dir",
        ])
        .arg(dir.path().join("state"))
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 10];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut first)
        .unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let mut said = String::new();
    child
        .stderr
        .as_mut()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    child.wait().unwrap();
    assert_eq!(said.matches("plain HTTP").count(), 1, "{said}");
}

#[test]
fn a_state_directory_that_others_can_read_is_made_private() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    std::fs::create_dir(&state).unwrap();
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o755)).unwrap();
    let server = Server::in_dir(dir, &[]);
    let mode = std::fs::metadata(server.state_dir()).unwrap().permissions();
    assert_eq!(mode.mode() & 0o7777, 0o700);
}

#[test]
fn what_the_first_start_makes_is_for_its_owner_alone() {
    let server = Server::start();
    let state_dir = server.state_dir();
    assert_eq!(
        run(
            &["token", "create", "--name", "ci", "--scope", "read"],
            &state_dir
        )
        .0,
        0
    );
    // So that every file there may be is there.
    server.ask(
        &server.token,
        "POST",
        "/jobs?wait=20",
        r#"{"script":"echo"}"#,
    );
    let token = server.token.trim();
    assert!(token.len() == 64 && token.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let mut looked_at = 0;
    let mut directories = vec![state_dir];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let (path, found) = entry.map(|one| (one.path(), one.metadata())).unwrap();
            let found = found.unwrap();
            let mode = found.permissions().mode() & 0o777;
            assert_eq!(mode & 0o077, 0, "{} {mode:o}", path.display());
            looked_at += 1;
            if found.is_dir() {
                directories.push(path);
            }
        }
    }
    assert!(looked_at > 10, "{looked_at}");
    let other = Server::start();
    assert_ne!(other.token, server.token);
}
