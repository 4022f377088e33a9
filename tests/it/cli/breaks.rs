//! Client commands while the service goes away and comes back: nothing is lost, and nothing comes twice.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;

use rand::RngCore;

use super::{Client, cli, command};
use crate::harness::{Server, eventually, kill_now};

pub(super) async fn kill_server(server: &Server) {
    let before = server.get("/info").await.json()["server_pid"].clone();
    let pid = i32::try_from(before.as_i64().unwrap()).unwrap();
    kill_now(nix::unistd::Pid::from_raw(pid));
    eventually("there is a new server", async || {
        let request = server.request(reqwest::Method::GET, "/info");
        let info = server.try_send(request).await.ok()?;
        (info.status == 200 && info.json()["server_pid"] != before).then_some(())
    })
    .await;
}

#[tokio::test]
async fn input_and_output_go_on_over_crashes_of_the_server() {
    let server = Server::start().await;
    let mut command = command(&server, &["run", "--", "cat"]);
    command.stdin(Stdio::piped());
    let mut client = Client::start(command);
    let mut stdin = client.child.stdin.take().unwrap();
    let mut all = Vec::new();
    for round in 0..3 {
        let mut piece = vec![0; 900_000];
        rand::rng().fill_bytes(&mut piece);
        let to_write = piece.clone();
        let writer = std::thread::spawn(move || {
            stdin.write_all(&to_write).unwrap();
            stdin
        });
        all.extend(piece);
        if round < 2 {
            // In the middle of it, wherever that is.
            kill_server(&server).await;
        }
        stdin = writer.join().unwrap();
    }
    drop(stdin);
    let ran = client.end();
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    assert!(
        ran.stdout == all,
        "{} bytes of {}",
        ran.stdout.len(),
        all.len()
    );
}

#[tokio::test]
async fn a_service_that_stays_away_is_given_up() {
    let mut server = Server::builder()
        .args(["--on-shutdown", "stop"])
        .start()
        .await;
    let args = [
        "run",
        "--retry-seconds",
        "1",
        "--script",
        "echo ready; while :; do sleep 0.1; done",
    ];
    let client = Client::start(command(&server, &args));
    eventually("it runs", async || {
        let jobs = server.get("/jobs").await.json()["jobs"].clone();
        let id = jobs[0]["id"].as_str()?.to_owned();
        server.text(&id).await.contains("ready").then_some(())
    })
    .await;
    server.end(nix::sys::signal::Signal::SIGKILL);
    let ran = client.end();
    assert_eq!(ran.code, Some(125), "{ran:?}");
    assert!(
        ran.stderr.contains("lost contact with the service"),
        "{ran:?}"
    );
    assert!(
        ran.stderr
            .contains("may still be running: procession show "),
        "{ran:?}"
    );
    server.start_again(Server::builder()).await;
}

#[tokio::test]
async fn a_service_that_was_never_there_is_not_waited_for() {
    let mut server = Server::start().await;
    server.end(nix::sys::signal::Signal::SIGTERM);
    for (args, code) in [
        (&["ps"][..], 3),
        (&["run", "true"], 125),
        (&["wait", "x"], 125),
    ] {
        let ran = cli(&server, args);
        assert_eq!(ran.code, Some(code), "{ran:?}");
        assert!(ran.stderr.contains("no service answers"), "{ran:?}");
    }
    let ran = cli(&server, &["ps", "--url", "http://127.0.0.1:1"]);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(
        ran.stderr.contains("cannot reach http://127.0.0.1:1"),
        "{ran:?}"
    );
}

/// Passes connections on to the service; the answer of the first is thrown away.
fn losing_proxy(server: &Server) -> (String, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let service = server.address();
    let proxy = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut upstream = TcpStream::connect(service).unwrap();
        let mut request = Vec::new();
        // The head and the body that it announces.
        while !is_whole(&request) {
            let mut piece = [0; 4096];
            let count = client.read(&mut piece).unwrap();
            request.extend(&piece[..count]);
        }
        upstream.write_all(&request).unwrap();
        let mut answer = [0; 64];
        let count = upstream.read(&mut answer).unwrap();
        assert!(answer[..count].starts_with(b"HTTP/1.1 201"));
        drop(client);
        let (client, _) = listener.accept().unwrap();
        let upstream = TcpStream::connect(service).unwrap();
        let (mut from_client, mut to_client) = (client.try_clone().unwrap(), client);
        let (mut from_service, mut to_service) = (upstream.try_clone().unwrap(), upstream);
        let up = std::thread::spawn(move || {
            let _ = std::io::copy(&mut from_client, &mut to_service);
            let _ = to_service.shutdown(std::net::Shutdown::Both);
        });
        let _ = std::io::copy(&mut from_service, &mut to_client);
        let _ = to_client.shutdown(std::net::Shutdown::Both);
        up.join().unwrap();
    });
    (url, proxy)
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().unwrap())
    });
    body.len() >= length.unwrap_or(0)
}

#[tokio::test]
async fn a_job_whose_answer_was_lost_is_not_made_twice() {
    let server = Server::start().await;
    let (url, proxy) = losing_proxy(&server);
    let ran = cli(&server, &["run", "--url", &url, "-d", "--", "true"]).good();
    proxy.join().unwrap();
    let list = server.get("/jobs").await.json();
    let ids: Vec<&str> = list["jobs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|job| job["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, [ran.text().trim()]);
}
