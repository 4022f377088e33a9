//! Client commands through a proxy, a real nginx: what it answers of its own is not the service's last word.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use super::breaks::kill_server;
use super::{Client, cli, command};
use crate::cluster::port;
use crate::harness::{LONG, Server, blocking_until, eventually, id, is_root, unique_seconds};

/// An nginx in front of the service.
struct Proxy {
    child: Child,
    home: PathBuf,
    url: String,
}

impl Proxy {
    /// With these lines beside `proxy_pass`.
    fn start(server: &Server, lines: &str) -> Self {
        let home = server.scratch().join("nginx");
        std::fs::create_dir_all(&home).unwrap();
        let port = port();
        let mut proxy = Self::launch(server, lines, home, port);
        let listens = blocking_until(LONG, || {
            let ended = proxy.child.try_wait().unwrap().is_some();
            ended || TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        let runs = listens && proxy.child.try_wait().unwrap().is_none();
        assert!(
            runs,
            "nginx does not start: {}",
            proxy_log(&proxy.home, "error.log")
        );
        proxy
    }

    fn launch(server: &Server, lines: &str, home: PathBuf, port: u16) -> Self {
        let user = if is_root() { "user root;" } else { "" };
        let (dir, service) = (home.display(), server.address());
        let config = format!(
            "{user} daemon off; master_process off; pid {dir}/pid; error_log {dir}/error.log;
            events {{}}
            http {{
                access_log {dir}/access.log;
                client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
                uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
                server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://{service}; {lines} }} }}
            }}"
        );
        let file = home.join("nginx.conf");
        std::fs::write(&file, config).unwrap();
        let mut nginx = Command::new("nginx");
        nginx.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        nginx
            .arg("-e")
            .arg(home.join("error.log"))
            .arg("-c")
            .arg(file);
        let child = nginx.stderr(Stdio::null()).spawn();
        Self {
            child: child.expect("nginx is there: scripts/need.sh nginx=nginx-light"),
            home,
            url: format!("http://127.0.0.1:{port}"),
        }
    }

    /// How many requests it has answered so.
    fn answers(&self, status: u16) -> usize {
        let log = proxy_log(&self.home, "access.log");
        log.matches(&format!("\" {status} ")).count()
    }
}

fn proxy_log(home: &std::path::Path, name: &str) -> String {
    std::fs::read_to_string(home.join(name)).unwrap_or_default()
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const SCRIPT: &str = "mkfifo $GATE; echo ready; read _ < $GATE; echo done; exit 5";

#[tokio::test]
async fn a_proxy_that_gives_up_waiting_is_asked_again_for_less() {
    let server = Server::start().await;
    let proxy = Proxy::start(&server, "proxy_read_timeout 2s;");
    let gate = server.scratch().join("gate");
    let body = json!({"script": SCRIPT, "env": {"GATE": gate}});
    let job = id(&server.submit(&body).await);
    server.says(&job, "ready").await;
    let client = Client::start(command(&server, &["wait", "--url", &proxy.url, &job]));
    eventually("it gives up twice", async || {
        (proxy.answers(504) >= 2).then_some(())
    })
    .await;
    eventually("the service answers in time", async || {
        (proxy.answers(200) >= 1).then_some(())
    })
    .await;
    std::fs::write(&gate, "\n").unwrap();
    let ran = client.end();
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(5), ""));
}

#[tokio::test]
async fn a_service_that_restarts_behind_a_proxy_is_waited_for() {
    let server = Server::start().await;
    let proxy = Proxy::start(&server, "proxy_buffering off;");
    let gates = [server.scratch().join("one"), server.scratch().join("two")];
    let body = json!({"script": SCRIPT, "env": {"GATE": gates[0]}, "name": "one"});
    let job = id(&server.submit(&body).await);
    server.says(&job, "ready").await;
    let env = format!("GATE={}", gates[1].display());
    let url = ["--url", &proxy.url];
    let args = [
        "run", "-n", "--name", "other", "-e", &env, "--script", SCRIPT,
    ];
    let run = Client::start(command(&server, &[&args[..], &url].concat()));
    let logs = Client::start(command(
        &server,
        &[&["logs", "-f", &job][..], &url].concat(),
    ));
    let wait = Client::start(command(&server, &[&["wait", "one"][..], &url].concat()));
    // It has reached the service once, to look for the name.
    eventually("it has looked for the name", async || {
        let log = proxy_log(&proxy.home, "access.log");
        log.contains("name=one").then_some(())
    })
    .await;
    let other = eventually("the other job is there", async || {
        let list = server.get("/jobs?name_prefix=other").await.json();
        list["jobs"].get(0).map(id)
    })
    .await;
    server.says(&other, "ready").await;
    eventually("a request that is held gets a 502", async || {
        kill_server(&server).await;
        (proxy.answers(502) >= 1).then_some(())
    })
    .await;
    for gate in gates {
        std::fs::write(gate, "\n").unwrap();
    }
    let ran = wait.end();
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(5), ""));
    let ran = run.end();
    assert_eq!(
        (ran.code, ran.text()),
        (Some(5), "ready\ndone\n"),
        "{ran:?}"
    );
    assert_eq!(logs.end().good().text(), "ready\ndone\n");
}

#[tokio::test]
async fn a_service_that_is_not_behind_its_proxy_is_not_waited_for() {
    let mut server = Server::start().await;
    let proxy = Proxy::start(&server, "");
    server.end(nix::sys::signal::Signal::SIGTERM);
    let ran = cli(&server, &["ps", "--url", &proxy.url]);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(
        ran.stderr.contains("proxy that cannot reach the service"),
        "{ran:?}"
    );
}

#[tokio::test]
async fn a_job_whose_terminal_does_not_pass_the_proxy_is_not_left_running() {
    let server = Server::start().await;
    let proxy = Proxy::start(&server, "");
    let seconds = unique_seconds();
    let ran = cli(
        &server,
        &["run", "-t", "--url", &proxy.url, "--", "sleep", &seconds],
    );
    assert_eq!(ran.code, Some(125), "{ran:?}");
    let job = server.get("/jobs").await.json()["jobs"][0].clone();
    assert_eq!(job["state"], "canceled", "{job:#}");
    assert!(
        ran.stderr
            .contains(&format!("job {} was stopped", id(&job))),
        "{ran:?}"
    );
}
