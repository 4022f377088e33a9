//! What stands between the service and its clients: a proxy that keeps answers back where nobody tells it not to,
//! and balancers that keep connections for a minute.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::harness::{LONG, Server, eventually, id, unique_seconds};

/// An nginx as Debian has it, with nothing but `proxy_pass`.
struct Nginx {
    child: Child,
    socket: PathBuf,
}

impl Nginx {
    async fn before(server: &Server) -> Self {
        let home = server.scratch();
        let socket = home.join("nginx.sock");
        let at = home.display();
        let config = format!(
            "daemon off; pid {at}/pid; error_log {at}/log; events {{}}
            http {{
                access_log off;
                client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fastcgi;
                uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;
                server {{ listen unix:{at}/nginx.sock; location / {{ proxy_pass http://{}; }} }}
            }}",
            server.address()
        );
        std::fs::write(home.join("conf"), config).unwrap();
        std::fs::set_permissions(&home, PermissionsExt::from_mode(0o777)).unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let child = Command::new("nginx")
            .env("PATH", format!("{path}:/usr/sbin:/sbin"))
            .arg("-e")
            .arg(home.join("log"))
            .arg("-c")
            .arg(home.join("conf"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx is there: scripts/need.sh nginx");
        let nginx = Self { child, socket };
        eventually("nginx listens", async || {
            UnixStream::connect(&nginx.socket).await.ok()
        })
        .await;
        nginx
    }

    /// What comes, up to this text.
    async fn until(&self, server: &Server, path: &str, accept: &str, text: &str) -> String {
        let mut stream = UnixStream::connect(&self.socket).await.unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nAuthorization: Bearer {}\r\n\r\n",
            server.token()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut came = Vec::new();
        let coming = async {
            while !String::from_utf8_lossy(&came).contains(text) {
                assert_ne!(stream.read_buf(&mut came).await.unwrap(), 0, "it ended");
            }
        };
        let waited = timeout(LONG, coming).await;
        let came = String::from_utf8_lossy(&came).into_owned();
        assert!(waited.is_ok(), "{path} {accept}: {came:?}");
        came
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SIGTERM, so that the workers go, too.
        let pid = nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn what_is_followed_passes_a_proxy_at_once() {
    let server = Server::start().await;
    let script = format!("echo the first line; exec sleep {}", unique_seconds());
    let job = id(&server.submit(&json!({"script": script})).await);
    server.says(&job, "the first line").await;
    let nginx = Nginx::before(&server).await;
    let output = format!("/jobs/{job}/output?follow");
    for (path, accept, text) in [
        (output.as_str(), "text/plain", "the first line"),
        (&output, "application/x-ndjson", "the first line"),
        (&output, "text/event-stream", "the first line"),
        (
            &format!("{output}&timestamps"),
            "text/plain",
            "the first line",
        ),
        (
            &format!("/jobs/{job}/events?follow"),
            "application/x-ndjson",
            "job.started",
        ),
        (
            &format!("/jobs/{job}/events"),
            "text/event-stream",
            "job.started",
        ),
        ("/events?follow", "application/x-ndjson", "job.started"),
        ("/events", "text/event-stream", "job.started"),
    ] {
        let came = nginx.until(&server, path, accept, text).await;
        let head = came.split("\r\n\r\n").next().unwrap().to_lowercase();
        assert!(
            head.contains("cache-control: no-store, no-transform"),
            "{head}"
        );
    }
    server.stop(&job, "force").await;
}

/// Does the service close this connection within this time?
async fn is_closed_within(stream: &mut TcpStream, time: Duration) -> bool {
    let mut byte = [0];
    match timeout(time, stream.read(&mut byte)).await {
        Err(_) => false,
        Ok(Ok(0) | Err(_)) => true,
        Ok(Ok(_)) => panic!("there is an answer to no question"),
    }
}

async fn ask(stream: &mut TcpStream) {
    let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut came = Vec::new();
    while !came.ends_with(b"{\"live\":true}") {
        assert_ne!(stream.read_buf(&mut came).await.unwrap(), 0, "it ended");
    }
}

/// Longer than the head of a request may take, which is 10 s.
const IDLE: Duration = Duration::from_secs(12);

#[tokio::test]
async fn a_connection_is_kept_between_two_requests_and_not_within_a_head() {
    let server = Server::start().await;
    let mut idle = TcpStream::connect(server.address()).await.unwrap();
    let mut slow = TcpStream::connect(server.address()).await.unwrap();
    ask(&mut idle).await;
    ask(&mut slow).await;
    slow.write_all(b"GET /healthz HT").await.unwrap();
    let (idle_closed, slow_closed) = tokio::join!(
        is_closed_within(&mut idle, IDLE),
        is_closed_within(&mut slow, LONG)
    );
    assert!(!idle_closed, "balancers keep connections for a minute");
    assert!(slow_closed, "a head does not come to its end");
    ask(&mut idle).await;
}

#[tokio::test]
async fn how_long_an_idle_connection_is_kept_is_a_setting() {
    let server = Server::builder()
        .args(["--keep-alive-seconds", "1"])
        .start()
        .await;
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    ask(&mut stream).await;
    assert!(is_closed_within(&mut stream, LONG).await);
}
