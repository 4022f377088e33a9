//! Where `procession run` starts, what it does about a job of the same name, and what a shell can complete.

use std::path::Path;

use serde_json::json;

use super::{Client, cli, command};
use crate::harness::{Server, id, unique_seconds};

#[tokio::test]
async fn a_job_starts_in_the_present_directory() {
    let server = Server::start().await;
    let here = server.scratch().canonicalize().unwrap();
    let run = |args: &[&str]| {
        let mut command = command(&server, args);
        command.current_dir(&here);
        Client::start(command).end().good()
    };
    assert_eq!(Path::new(run(&["run", "--", "pwd"]).text().trim()), here);
    assert_eq!(run(&["run", "-C", "/usr", "--", "pwd"]).text(), "/usr\n");
    std::fs::create_dir(here.join("below")).unwrap();
    let below = run(&["run", "-C", "below", "--", "pwd"]);
    assert_eq!(Path::new(below.text().trim()), here.join("below"));
}

#[tokio::test]
async fn over_an_address_a_job_starts_where_the_service_says() {
    let server = Server::start().await;
    let url = format!("http://{}", server.address());
    let ran = cli(&server, &["run", "--url", &url, "--", "pwd"]).good();
    let work = server.state_dir().join("work").canonicalize().unwrap();
    assert_eq!(Path::new(ran.text().trim()), work);
}

#[tokio::test]
async fn a_name_can_be_that_of_one_job_at_a_time() {
    let server = Server::start().await;
    let seconds = unique_seconds();
    let start = |flag: &str| {
        let line = ["run", "-d", "--name", "web", flag, "--", "sleep", &seconds];
        cli(&server, &line)
    };
    let first = start("--if-not-running").good().text().trim().to_owned();
    let refused = start("--if-not-running");
    assert_eq!(refused.code, Some(125), "{refused:?}");
    assert!(refused.stderr.contains(&first), "{refused:?}");
    let second = start("--replace").good().text().trim().to_owned();
    assert_eq!(server.finished(&first).await["state"], "canceled");
    server.in_state(&second, "running").await;
    cli(&server, &["stop", "web"]).good();
    // Each needs the name.
    let ran = cli(&server, &["run", "--replace", "--", "true"]);
    assert_eq!(ran.code, Some(125), "{ran:?}");
}

/// What a shell is offered for the last of these words.
fn offered(server: &Server, words: &[&str]) -> Vec<String> {
    let mut line = vec!["--", "procession"];
    line.extend(words);
    let mut command = command(server, &line);
    command
        .env("PROCESSION_COMPLETE", "bash")
        .env("_CLAP_COMPLETE_INDEX", words.len().to_string())
        .env("_CLAP_COMPLETE_COMP_TYPE", "9")
        .env("_CLAP_COMPLETE_SPACE", "true")
        .env("_CLAP_IFS", "\n");
    let ran = Client::start(command).end().good();
    ran.text().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn shells_complete_what_the_service_has() {
    let server = Server::start().await;
    let live = json!({"command": ["sleep", unique_seconds()], "name": "nightly", "labels": {"team": "data"}});
    let live = id(&server.submit(&live).await);
    let ended = json!({"command": ["true"], "name": "build", "queue": "slow"});
    let ended = id(&server.run(&ended).await);

    assert_eq!(offered(&server, &["logs", "nig"]), ["nightly"]);
    assert_eq!(
        offered(&server, &["logs", &ended[..20]]),
        std::slice::from_ref(&ended)
    );
    assert!(offered(&server, &["logs", ""]).contains(&"build".to_owned()));
    // What has ended cannot be stopped.
    let words = offered(&server, &["stop", ""]);
    assert!(words.contains(&"nightly".to_owned()) && words.contains(&live));
    assert!(!words.contains(&"build".to_owned()) && !words.contains(&ended));
    assert_eq!(offered(&server, &["ps", "-l", ""]), ["team=data"]);
    assert_eq!(offered(&server, &["ps", "-s", "timed"]), ["timed_out"]);
    assert_eq!(
        offered(&server, &["signal", "nightly", "US"]),
        ["USR1", "USR2"]
    );
    assert!(offered(&server, &["comp"]).contains(&"completions".to_owned()));
    // Nobody answers: nothing is offered, and nothing is said.
    assert_eq!(
        offered(&server, &["logs", "--url", "http://127.0.0.1:1", "x"]),
        Vec::<String>::new()
    );
    server.stop(&live, "force").await;
}

#[tokio::test]
async fn the_script_of_each_shell_asks_the_program() {
    let server = Server::start().await;
    for shell in ["bash", "zsh", "fish", "elvish"] {
        let ran = cli(&server, &["completions", shell]).good();
        assert!(ran.text().contains("PROCESSION_COMPLETE"), "{shell}");
    }
}
