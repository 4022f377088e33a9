//! The unix socket, when its directory and its mode no longer keep anybody from it.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::server::Server;

/// Asks over the socket as this user, with more flags of curl; gives the status and the code of a problem.
fn ask(server: &Server, uid: u32, flags: &[&str]) -> (u16, String) {
    use std::os::unix::process::CommandExt;
    let output = Command::new("curl")
        .env_clear()
        .uid(uid)
        .gid(uid)
        .stdin(Stdio::null())
        .args(["--silent", "--max-time", "30", "--unix-socket"])
        .arg(server.state_dir().join("procession.sock"))
        .args(["--write-out", "\n%{http_code}", "http://localhost/jobs"])
        .args(flags)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let (body, status) = said.rsplit_once('\n').unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let code = body["code"].as_str().unwrap_or_default();
    (status.parse().unwrap(), code.to_owned())
}

#[test]
fn a_peer_of_another_user_is_refused_whatever_it_shows() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can ask as another user");
        return;
    }
    let server = Server::start();
    let (body, bearer) = (
        server.canary_body(),
        format!("Authorization: Bearer {}", server.token),
    );
    let json = "Content-Type: application/json";
    let read: &[&str] = &["--header", &bearer];
    let write: &[&str] = &["--header", &bearer, "--header", json, "--data", &body];
    assert_eq!(ask(&server, 0, &[]).0, 200);
    // As it is, nobody else gets as far as the socket.
    assert_eq!(ask(&server, 65534, &[]).0, 0);

    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let state = server.state_dir();
    open(state.parent().unwrap(), 0o755);
    open(&state, 0o755);
    open(&state.join("procession.sock"), 0o666);
    for uid in [65534, 1, 12345] {
        for flags in [&[][..], read, write] {
            let said = ask(&server, uid, flags);
            assert_eq!(
                said,
                (403, "peer_not_allowed".to_owned()),
                "{uid} {flags:?}"
            );
        }
    }
    assert_eq!(ask(&server, 0, &[]).0, 200);
    server.assert_untouched();
    let audit = std::fs::read_to_string(state.join("audit.jsonl")).unwrap();
    assert_eq!(
        audit.matches(r#""decision":"refused""#).count(),
        3,
        "{audit}"
    );
}
