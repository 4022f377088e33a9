//! Several API nodes over one PostgreSQL: real services and a real database on this machine, any of which may die.

mod faults;
mod files;
mod history;
mod lead;
mod loss;
mod outage;
mod postgres;
mod refusals;
mod tls;
mod unprivileged;
mod ways;

use std::collections::HashMap;
use std::fs;
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use reqwest::Method;
use serde_json::{Value, json};

use crate::cluster::port;
use crate::harness::{Builder, Reply, Server, eventually, eventually_within, id, program, unique};
use crate::history::SETTLED;
use postgres::Postgres;
use ways::Ways;

/// API nodes and the nodes that have joined them.
struct Apis {
    apis: Vec<Server>,
    ports: Vec<u16>,
    nodes: Vec<Server>,
    url: String,
    /// What can be cut between all of them.
    ways: Option<Ways>,
    args: Vec<String>,
    /// How many seconds nothing is heard of one that leads until another one does, unless the arguments say it.
    takeover: &'static str,
    /// The one that answered last is asked first.
    answered: AtomicUsize,
    keys: tempfile::TempDir,
    client: reqwest::Client,
    // Last: the others end before it.
    postgres: Postgres,
}

/// Arguments of API nodes of which none is to take the lead of another: a beat that comes late on a busy machine moves nothing.
const STEADY: [&str; 2] = ["--api-takeover-seconds", "10"];

/// The same where one is to take it at last.
const PATIENT: [&str; 2] = ["--api-takeover-seconds", "5"];

impl Apis {
    /// So many API nodes, and so many nodes with four slots each that know all of them.
    async fn start(apis: usize, nodes: usize, args: &[&str]) -> Self {
        let postgres = Postgres::start();
        let url = postgres.url();
        Self::start_at(postgres, url, apis, nodes, args).await
    }

    async fn start_at(
        postgres: Postgres,
        url: String,
        apis: usize,
        nodes: usize,
        args: &[&str],
    ) -> Self {
        let ports = (0..apis).map(|_| port()).collect();
        Self::start_with(postgres, url, ports, None, args, nodes).await
    }

    /// The same with ways that can be cut.
    async fn start_apart(apis: usize, nodes: usize, args: &[&str]) -> Self {
        let to = port();
        let postgres = Postgres::start_on(to);
        let ports: Vec<u16> = (0..apis).map(|_| port()).collect();
        let ways = Ways::lay(to, &ports, nodes).await;
        let url = postgres.url();
        Self::start_with(postgres, url, ports, Some(ways), args, nodes).await
    }

    async fn start_with(
        postgres: Postgres,
        url: String,
        ports: Vec<u16>,
        ways: Option<Ways>,
        args: &[&str],
        nodes: usize,
    ) -> Self {
        let apis = ports.len();
        let mut all = Self {
            apis: Vec::new(),
            ports,
            nodes: Vec::new(),
            url,
            ways,
            args: args.iter().map(|&it| it.to_owned()).collect(),
            takeover: "2",
            answered: AtomicUsize::new(0),
            keys: tempfile::tempdir().unwrap(),
            client: reqwest::Client::builder()
                .timeout(Duration::from_secs(20))
                .no_proxy()
                .pool_max_idle_per_host(0)
                .build()
                .unwrap(),
            postgres,
        };
        // Smaller than what is released, so that the log is cut back.
        fs::write(all.keys.path().join("ledger.long"), "262144").unwrap();
        fs::write(all.keys.path().join("ledger.kept"), "50").unwrap();
        let key = all.keys.path().join("key");
        let mut made = program(&unique(), "");
        assert!(made.arg("cluster-key").arg(key).status().unwrap().success());
        for number in 0..apis {
            let api = all.builder(number).start().await;
            all.apis.push(api);
        }
        for number in 1..=nodes {
            all.add(number).await;
        }
        for number in 1..=nodes {
            all.connected(&format!("n{number}")).await;
        }
        all
    }

    fn builder(&self, number: usize) -> Builder {
        let port = self.ports[number];
        let (database, advertised) = match &self.ways {
            Some(ways) => (ways.database[number].url(), ways.apis[number].port),
            None => (self.url.clone(), port),
        };
        Server::builder()
            .args(["--listen".to_owned(), format!("127.0.0.1:{port}")])
            .args([
                "--advertise".to_owned(),
                format!("http://127.0.0.1:{advertised}"),
            ])
            .args(["--cluster", &database, "--role", "api"])
            .args(self.args.clone())
            .args(["--node-name".to_owned(), format!("api{number}")])
            .args(["--cluster-key-file".to_owned()])
            .args([self.keys.path().join("key").display().to_string()])
            .env("PROCESSION_API_TAKEOVER_SECONDS", self.takeover)
            .env(
                "PROCESSION_FAILPOINTS",
                &self.keys.path().display().to_string(),
            )
    }

    async fn add(&mut self, number: usize) {
        let name = format!("n{number}");
        let body = json!({"name": name, "scope": "runner"});
        let reply = self.ask(Method::POST, "/tokens", Some(&body), None).await;
        assert_eq!(reply.status, 201, "{reply}");
        let token = self.apis[0].scratch().join(&name);
        fs::write(&token, reply.json()["token"].as_str().unwrap()).unwrap();
        let node = self.node_builder(number).start().await;
        self.nodes.push(node);
    }

    /// How node `n1` and so on is started.
    fn node_builder(&self, number: usize) -> Builder {
        let name = format!("n{number}");
        let token = self.apis[0].scratch().join(&name);
        let ports = match &self.ways {
            Some(ways) => ways.nodes[number - 1].iter().map(|it| it.port).collect(),
            None => self.ports.clone(),
        };
        let urls: Vec<String> = ports
            .iter()
            .map(|it| format!("http://127.0.0.1:{it}"))
            .collect();
        Server::builder()
            .args(["--join".to_owned(), urls.join(",")])
            .args(["--join-token-file".to_owned(), token.display().to_string()])
            .args(["--node-name", &name, "--max-running", "4"])
            .env("NODE", &name)
    }

    /// Starts an API node again that was killed, once its server has let go of the port.
    async fn start_again(&mut self, number: usize) {
        let port = self.ports[number];
        eventually("the port is free", async || {
            TcpListener::bind(("127.0.0.1", port)).ok()
        })
        .await;
        let again = self.builder(number);
        self.apis[number].start_again(again).await;
    }

    async fn connected(&self, name: &str) {
        eventually(&format!("{name} is connected"), async || {
            let reply = self
                .try_ask(Method::GET, &format!("/nodes/{name}"), None, None)
                .await?;
            (reply.status == 200 && reply.json()["state"] == "connected").then_some(())
        })
        .await;
    }

    /// One answer of any API node, if there is one that is none of an outage.
    async fn try_ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        key: Option<&str>,
    ) -> Option<Reply> {
        let first = self.answered.load(Ordering::Relaxed);
        for step in 0..self.apis.len() {
            let number = (first + step) % self.apis.len();
            let api = &self.apis[number];
            let address = api.address();
            let mut request = self
                .client
                .request(method.clone(), format!("http://{address}{path}"))
                .bearer_auth(api.token());
            if let Some(body) = body {
                request = request.json(body);
            }
            if let Some(key) = key {
                request = request.header("Idempotency-Key", format!("\"{key}\""));
            }
            if let Ok(response) = request.send().await
                && response.status() != 503
            {
                self.answered.store(number, Ordering::Relaxed);
                return Some(Reply {
                    status: response.status().as_u16(),
                    headers: response.headers().clone(),
                    body: response.bytes().await.ok()?.to_vec(),
                });
            }
        }
        None
    }

    /// An answer, at last.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        key: Option<&str>,
    ) -> Reply {
        eventually(&format!("{method} {path} is answered"), async || {
            self.try_ask(method.clone(), path, body, key).await
        })
        .await
    }

    async fn finished(&self, id: &str) -> Value {
        let path = format!("/jobs/{id}?wait=5&until=finished");
        eventually(&format!("job {id} has ended"), async || {
            let reply = self.ask(Method::GET, &path, None, None).await;
            assert_eq!(reply.status, 200, "an accepted job is missing: {reply}");
            let job = reply.json();
            crate::harness::is_finished(&job).then_some(job)
        })
        .await
    }

    /// What an API node says of itself and of the ledger.
    async fn ledger(&self, number: usize) -> Option<Value> {
        let server = &self.apis[number];
        let asked = self
            .client
            .get(format!("http://{}/readyz", server.address()));
        let reply = asked.send().await.ok()?;
        let body: Value = reply.json().await.ok()?;
        if !body["ledger"].is_null() {
            return Some(body["ledger"].clone());
        }
        // One that follows would say what the leader says.
        if body["ready"] != true {
            return None;
        }
        let info = self.client.get(format!("http://{}/info", server.address()));
        let info = info.bearer_auth(server.token()).send().await.ok()?;
        let info: Value = info.json().await.ok()?;
        Some(info["ledger"].clone())
    }

    /// The same once it has heard of all others: it cannot ask whom it does not know.
    async fn leader_of_all(&self) -> (usize, u64) {
        eventually("the leader knows the others", async || {
            let leader = self.leader().await;
            let ledger = self.ledger(leader.0).await?;
            let followers = ledger["followers"].as_array()?.iter();
            let heard = followers.filter(|it| it["heard"] == true).count();
            (heard + 1 == self.apis.len()).then_some(leader)
        })
        .await
    }

    /// The number of the API node that leads, with its epoch.
    async fn leader(&self) -> (usize, u64) {
        eventually("somebody leads", async || {
            let mut leaders = Vec::new();
            for number in 0..self.apis.len() {
                if !self.apis[number].is_started() {
                    continue;
                }
                let ledger = self.ledger(number).await.unwrap_or_default();
                if ledger["role"] == "leads" {
                    leaders.push((number, ledger["epoch"].as_u64().unwrap()));
                }
            }
            leaders.into_iter().max_by_key(|(_, epoch)| *epoch)
        })
        .await
    }

    /// Another API node leads than this one, which led with this number.
    async fn is_followed(&self, before: usize, epoch: u64) -> usize {
        eventually_within(SETTLED, "another one leads", async || {
            for other in (0..self.apis.len()).filter(|it| *it != before) {
                let ledger = self.ledger(other).await.unwrap_or_default();
                if ledger["role"] == "leads" && ledger["epoch"].as_u64() > Some(epoch) {
                    return Some(other);
                }
            }
            None
        })
        .await
    }

    /// Stops an API node where it is, or lets it go on. Its supervisor would wake it.
    fn freeze(&self, number: usize, signal: Signal) {
        let api = &self.apis[number];
        let parts = [Some(api.supervisor()), api.server_process()];
        for part in parts.into_iter().flatten() {
            let _ = kill(part, signal);
        }
    }

    fn follower(&self, leader: usize) -> usize {
        (leader + 1) % self.apis.len()
    }

    /// Waits until every API node has every change, stops them, and holds their databases against each other.
    async fn are_equal(&mut self) {
        let mut seen = Value::Null;
        let leader = eventually("nobody is behind", async || {
            // On a machine that stands still for a moment the lead moves.
            let (leader, _) = self.leader().await;
            let ledger = self.ledger(leader).await?;
            if seen != ledger {
                eprintln!("API node {leader}: {ledger}");
                seen.clone_from(&ledger);
            }
            let followers = ledger["followers"].as_array()?;
            let heard = followers.iter().filter(|it| it["heard"] == true);
            let is_even = heard.clone().count() == self.apis.len() - 1
                && heard.clone().all(|it| it["behind"] == 0);
            is_even.then_some(leader)
        })
        .await;
        let mut dumps = Vec::new();
        for number in (0..self.apis.len())
            .filter(|it| *it != leader)
            .chain([leader])
        {
            // The one that leads ends last, and nobody takes the lead then.
            self.apis[number].end(Signal::SIGTERM);
            dumps.push(dump(&self.apis[number].state_dir().join("procession.db")));
        }
        let last = dumps.pop().unwrap();
        // What the end of the leader has written is in its own alone.
        for dump in &dumps {
            let lacking: Vec<_> = dump.iter().filter(|row| !last.contains(row)).collect();
            assert_eq!(lacking, Vec::<&String>::new());
            assert_eq!(dump.len(), last.len());
        }
        assert!(last.len() > 10, "{last:#?}");
    }
}

/// Every row of every table of a store.
fn dump(path: &std::path::Path) -> Vec<String> {
    let connection = rusqlite::Connection::open(path).unwrap();
    let mut tables = connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'ledger_tail' ORDER BY name")
        .unwrap();
    let tables: Vec<String> = tables
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let mut dump = Vec::new();
    for table in tables {
        let mut rows = connection
            .prepare(&format!("SELECT * FROM \"{table}\""))
            .unwrap();
        let width = rows.column_count();
        let mut rows = rows.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let cells = (0..width).map(|index| format!("{:?}", row.get_ref(index).unwrap()));
            dump.push(format!(
                "{table}: {}",
                cells.collect::<Vec<_>>().join(" | ")
            ));
        }
    }
    dump
}

#[tokio::test]
async fn every_api_node_answers_for_all_of_them() {
    let mut all = Apis::start(3, 2, &STEADY).await;
    let (leader, epoch) = all.leader().await;
    assert_eq!(epoch, 1);
    let mut made = HashMap::new();
    for number in 0..3 {
        let api = &all.apis[number];
        let body = json!({"script": format!("echo from {number}"), "labels": {"of": "all"}});
        let job = api.submit(&body).await;
        made.insert(job["id"].as_str().unwrap().to_owned(), number);
    }
    for (job, number) in &made {
        let other = &all.apis[(number + 1) % 3];
        assert_eq!(other.finished(job).await["exit"]["code"], 0);
        assert_eq!(other.text(job).await, format!("from {number}\n"));
    }
    for api in &all.apis {
        let list = api.get("/jobs?label_selector=of%3Dall").await.json();
        assert_eq!(list["jobs"].as_array().unwrap().len(), 3, "{list:#}");
        assert_eq!(api.get("/readyz").await.status, 200);
        assert_eq!(
            api.get("/nodes").await.json()["nodes"]
                .as_array()
                .unwrap()
                .len(),
            2
        );
    }
    let follower = &all.apis[all.follower(leader)];
    // A key holds whoever is asked.
    let keyed = json!({"command": ["true"]});
    let mut ids = Vec::new();
    for api in &all.apis {
        let request = api.request(Method::POST, "/jobs").json(&keyed);
        let reply = api
            .send(request.header("Idempotency-Key", "\"once\""))
            .await;
        assert!(reply.status < 300, "{reply}");
        ids.push(id(&reply.json()));
    }
    assert!(ids.iter().all(|it| *it == ids[0]), "{ids:?}");
    // A terminal, over the unix socket of one that follows.
    let run = follower
        .client()
        .args(["run", "--", "sh", "-c", "echo seen; exit 3"])
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(3), "{run:?}");
    assert_eq!(String::from_utf8_lossy(&run.stdout), "seen\n");
    // Following, and the end of all processes.
    let job = follower
        .submit(&json!({"script": "echo begun; sleep 1000 & sleep 1000"}))
        .await;
    let job = id(&job);
    follower.says(&job, "begun").await;
    let events = follower.request(Method::GET, "/events");
    let events = follower
        .send(events.header("Accept", "application/x-ndjson"))
        .await;
    assert!(
        String::from_utf8_lossy(&events.body).contains(&job),
        "{events}"
    );
    assert_eq!(follower.stop(&job, "force").await["state"], "canceled");
    let error = follower
        .get("/jobs/0198c1d2-7b3a-7c4e-9f10-2a6b3c4d5e6f")
        .await;
    assert_eq!(error.status, 404, "{error}");
    let metrics = follower.get("/metrics").await;
    let metrics = String::from_utf8(metrics.body).unwrap();
    assert!(
        metrics.contains("procession_ledger_followers 2\n"),
        "{metrics}"
    );
    // Who leads and who follows is told with the nodes, and in the check-up.
    let nodes = follower.get("/nodes").await.json();
    assert_eq!(nodes["ledger"]["followers"].as_array().unwrap().len(), 2);
    let said = |args: &[&str]| {
        let output = follower.client().args(args).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let leading = format!("http://127.0.0.1:{}", all.ports[leader]);
    let listed = said(&["nodes"]);
    let rows: Vec<_> = listed.lines().map(str::split_whitespace).collect();
    let roles = rows.into_iter().filter_map(|mut row| {
        let url = row.next().filter(|it| it.starts_with("http"))?;
        Some((url.to_owned(), row.next()?.to_owned()))
    });
    let roles: Vec<(String, String)> = roles.collect();
    assert_eq!(roles.len(), 3, "{listed}");
    assert_eq!(roles[0], (leading.clone(), "leads".to_owned()), "{listed}");
    let state_dir = follower.state_dir().display().to_string();
    let doctor = said(&["doctor", "--state-dir", &state_dir]);
    assert!(
        doctor.contains(&format!("{leading} leads, as number 1")),
        "{doctor}"
    );
    assert_eq!(doctor.matches(" follows\n").count(), 2, "{doctor}");
    all.are_equal().await;
}
