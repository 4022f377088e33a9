//! What does not fit: each is a clear error, and nothing is lost.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::json;

use super::Postgres;
use crate::cluster::port;
use crate::harness::{LONG, Server, blocking_until, program, unique};

/// What `procession serve` with this ledger says before it gives up, and its exit code.
pub(super) fn refused(state: &std::path::Path, url: &str, more: &[&str]) -> (Option<i32>, String) {
    let port = port();
    let mut command: Command = program(&unique(), "");
    command
        .args([
            "serve",
            "--role",
            "api",
            "--node-name",
            "api",
            "--state-dir",
        ])
        .arg(state)
        .args(["--listen".to_owned(), format!("127.0.0.1:{port}")])
        .args(["--advertise".to_owned(), format!("http://127.0.0.1:{port}")])
        .env("PROCESSION_CLUSTER", url)
        .args(more);
    let log = state.with_extension("log");
    let mut child = command
        .stdout(std::process::Stdio::null())
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let mut status = None;
    blocking_until(LONG, || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    if status.is_none() {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    (
        status.and_then(|it| it.code()),
        fs::read_to_string(&log).unwrap(),
    )
}

pub(super) fn one(url: &str, more: &[&str]) -> crate::harness::Builder {
    let port = port();
    Server::builder()
        .args(["--listen".to_owned(), format!("127.0.0.1:{port}")])
        .args(["--advertise".to_owned(), format!("http://127.0.0.1:{port}")])
        .args([
            "--role",
            "api",
            "--node-name",
            "api",
            "--api-takeover-seconds",
            "2",
        ])
        .env("PROCESSION_CLUSTER", url)
        .args(more.iter().copied())
}

#[tokio::test]
async fn a_ledger_that_is_of_no_use_is_refused_in_words() {
    let mut postgres = Postgres::start();
    let home = tempfile::tempdir().unwrap();
    let state = |name: &str| home.path().join(name);
    let key = state("key");
    let key_file = ["--cluster-key-file", key.to_str().unwrap()];
    let made = program(&unique(), "")
        .arg("cluster-key")
        .arg(&key)
        .status()
        .unwrap();
    assert!(made.success());
    assert_eq!(
        fs::metadata(&key).unwrap().permissions().mode() & 0o777,
        0o600
    );

    let api = one(&postgres.url(), &key_file).start().await;
    let job = api
        .submit(&json!({"command": ["true"], "secret_env": {"A": "hunter2-the-secret"}}))
        .await;
    assert_eq!(job["state"], "queued", "no node has joined");
    // Nothing of it is readable in the database.
    let sealed = postgres.sql(
        "SELECT count(*) FROM procession.changes WHERE position('hunter2'::bytea in body) > 0",
    );
    assert_eq!(sealed.trim(), "0");

    let other = state("other-key");
    program(&unique(), "")
        .arg("cluster-key")
        .arg(&other)
        .status()
        .unwrap();
    let url = postgres.url();
    let (code, log) = refused(
        &state("a"),
        &url,
        &["--cluster-key-file", other.to_str().unwrap()],
    );
    assert!(
        code == Some(78) && log.contains("sealed with another key"),
        "{code:?} {log}"
    );
    let (code, log) = refused(&state("b"), &url, &[]);
    assert!(
        code == Some(78) && log.contains("give --cluster-key-file"),
        "{code:?} {log}"
    );

    let missing = format!("postgres://procession:hunter2@{}/none", postgres.host());
    let (code, log) = refused(&state("c"), &missing, &key_file);
    assert!(
        code == Some(78) && log.contains("does not exist"),
        "{code:?} {log}"
    );
    assert!(!log.contains("hunter2"), "{log}");
    let (code, log) = refused(
        &state("d"),
        "postgres://me:hunter2@127.0.0.1:1/x",
        &key_file,
    );
    assert!(
        code == Some(1) && log.contains("the ledger cannot be reached"),
        "{code:?} {log}"
    );
    assert!(
        log.contains("postgres://me@127.0.0.1:1/x") && !log.contains("hunter2"),
        "{log}"
    );
    let (code, log) = refused(
        &state("e"),
        "postgres://me:hunter2@db.example/x?sslmode=disable",
        &key_file,
    );
    assert!(
        code == Some(78) && log.contains("must have sslmode=verify-full"),
        "{code:?} {log}"
    );
    assert!(!log.contains("hunter2"), "{log}");

    // A store with jobs of its own.
    let alone = Server::start().await;
    alone.submit(&json!({"command": ["true"]})).await;
    fs::create_dir_all(state("f")).unwrap();
    fs::set_permissions(state("f"), fs::Permissions::from_mode(0o700)).unwrap();
    for end in ["", "-wal"] {
        let name = format!("procession.db{end}");
        fs::copy(alone.state_dir().join(&name), state("f").join(&name)).unwrap();
    }
    let (code, log) = refused(&state("f"), &url, &key_file);
    assert!(
        code == Some(78) && log.contains("has jobs of its own"),
        "{code:?} {log}"
    );

    // Tables of a later version, and another cluster.
    postgres.sql("UPDATE procession.leader SET schema = 99");
    let (code, log) = refused(&state("g"), &url, &key_file);
    assert!(
        code == Some(78) && log.contains("upgrade this API node"),
        "{code:?} {log}"
    );
    drop(api);
    let other = Postgres::start();
    let api = one(&other.url(), &key_file).start().await;
    let copied = state("h");
    fs::create_dir_all(&copied).unwrap();
    fs::set_permissions(&copied, fs::Permissions::from_mode(0o700)).unwrap();
    fs::copy(
        api.state_dir().join("procession.db"),
        copied.join("procession.db"),
    )
    .unwrap();
    fs::copy(
        api.state_dir().join("procession.db-wal"),
        copied.join("procession.db-wal"),
    )
    .unwrap();
    postgres.sql("UPDATE procession.leader SET schema = 1");
    let (code, log) = refused(&copied, &url, &key_file);
    assert!(
        code == Some(78) && log.contains("this state directory belongs to cluster"),
        "{code:?} {log}"
    );

    // A password that is asked for and is wrong.
    postgres.sql("ALTER USER procession PASSWORD 'right'");
    postgres.ask_for_passwords();
    let wrong = format!("postgres://procession:hunter2@{}/postgres", postgres.host());
    let (code, log) = refused(&state("i"), &wrong, &key_file);
    assert!(
        code == Some(78) && log.contains("password authentication failed"),
        "{code:?} {log}"
    );
    assert!(!log.contains("hunter2"), "{log}");
}
