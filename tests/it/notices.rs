//! What the service writes for people: nobody has to read it, and nothing waits for that.

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::{Server, eventually, id, kill_now, program, unique};

/// What becomes of standard error: a name, and the shell's commands.
const HARDSHIPS: [(&str, &str); 4] = [
    ("a full disk", "exec 2> /dev/full"),
    (
        "a reader that is gone",
        r#"pipe=$(mktemp -u); mkfifo "$pipe"; exec 3<> "$pipe" 2> "$pipe" 3>&-; rm "$pipe""#,
    ),
    // Descriptor 3 is a reader that never reads.
    (
        "a reader that does not read",
        r#"pipe=$(mktemp -u); mkfifo "$pipe"; exec 3<> "$pipe"; rm "$pipe"; head -c 65536 /dev/zero >&3; exec 2>&3"#,
    ),
    ("none", "exec 2>&-"),
];

#[tokio::test]
async fn what_cannot_be_written_for_people_stops_nothing() {
    for (what, prelude) in HARDSHIPS {
        let mut server = Server::builder().prelude(prelude).start().await;
        for _ in 0..300 {
            let valid = server
                .post("/jobs/validate", &json!({"command": ["true"]}))
                .await;
            assert_eq!(valid.status, 200, "{what}: {valid}");
        }
        // The supervisor's and a monitor's own lines: a server, then a monitor that is killed.
        kill_now(server.server_process().unwrap());
        eventually("the next server", async || {
            let ready = server.try_send(server.request(reqwest::Method::GET, "/readyz"));
            ready.await.ok().filter(|ready| ready.status == 200)
        })
        .await;
        let job = server
            .submit(&json!({"script": "echo ready; read line; test x = \"$line\" && exit 4", "stdin": {"mode": "open"}}))
            .await;
        let job = id(&job);
        server.says(&job, "ready").await;
        let monitor = server.monitors()[&job];
        kill_now(monitor);
        eventually("a rescuer", async || {
            let now = server.monitors();
            now.get(&job).filter(|now| **now != monitor).map(drop)
        })
        .await;
        // The job may end before the answer is there; what it has read shows in its exit code.
        let path = format!("/jobs/{job}/stdin");
        let typed = server.request(reqwest::Method::POST, &path).body("x\n");
        server.send(typed).await;
        let ended = server.finished(&job).await;
        assert_eq!(ended["exit"]["code"], 4, "{what}: {ended:#}");
        // The next program says so, too.
        let pid = server.server_process().unwrap();
        nix::sys::signal::kill(server.supervisor(), Signal::SIGHUP).unwrap();
        eventually("an upgrade", async || {
            server.server_process().filter(|next| *next != pid)
        })
        .await;
        let job = server.run(&json!({"command": ["true"]})).await;
        assert_eq!(job["state"], "succeeded", "{what}: {job:#}");
        assert_eq!(
            server.end(Signal::SIGTERM).unwrap().code(),
            Some(0),
            "{what}"
        );
    }
}

#[tokio::test]
async fn dropped_lines_are_counted() {
    // The reader takes all that was written before, once it is told to.
    let prelude = r#"pipe=$(mktemp -u); mkfifo "$pipe"; exec 3<> "$pipe"; head -c 65536 /dev/zero >&3
        (while [ ! -e "$pipe.go" ]; do sleep 0.05; done; rm "$pipe.go"; exec tr -d '\000' < /proc/self/fd/3 3>&-) >> "$LOG" 2>&1 &
        echo "$pipe" > "$LOG.pipe"; exec 2>&3 3>&-"#;
    let scratch = tempfile::tempdir().unwrap();
    let log = scratch.path().join("read");
    let server = Server::builder()
        .env("LOG", log.to_str().unwrap())
        .prelude(prelude)
        .start()
        .await;
    server.run_script("true").await;
    let pipe = std::fs::read_to_string(scratch.path().join("read.pipe")).unwrap();
    std::fs::write(format!("{}.go", pipe.trim()), "").unwrap();
    let line = eventually("the word about dropped lines", async || {
        server.run_script("true").await;
        let read = std::fs::read_to_string(&log).unwrap_or_default();
        let line = read.lines().find(|line| line.contains("dropped_lines"));
        line.map(str::to_owned)
    })
    .await;
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert!(line["dropped_lines"].as_u64() > Some(0), "{line}");
}

#[test]
fn a_check_that_nobody_reads_answers_by_its_code() {
    let home = tempfile::tempdir().unwrap();
    let mut check = program(&unique(), "exec > /dev/full 2> /dev/full");
    check
        .args(["serve", "--check", "--state-dir"])
        .arg(home.path().join("state"));
    assert_eq!(check.status().unwrap().code(), Some(0));
}
