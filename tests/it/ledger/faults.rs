//! Who leads and the database are killed, stopped and cut off: nothing that was accepted is missing, and nothing runs twice.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Apis, PATIENT, Postgres, STEADY};
use crate::cluster::{kill_service, lines, port};
use crate::harness::{LONG, blocking_until, eventually, id};

/// A job that notes its start, writes and ends with a code that is known.
fn body(starts: &Path, number: u32) -> Value {
    json!({
        "name": format!("job-{number}"),
        "script": format!(
            "echo $PROCESSION_JOB_ID >> {}; echo out {number}; sleep 0.{}; exit {}",
            starts.display(), number % 5, number % 7
        ),
    })
}

/// What clients were answered.
pub(super) struct Load {
    starts: PathBuf,
    accepted: BTreeMap<String, u32>,
    next: u32,
}

impl Load {
    pub(super) fn new(all: &Apis) -> Self {
        Self {
            starts: all.apis[0].scratch().join("starts"),
            accepted: BTreeMap::new(),
            next: 0,
        }
    }

    /// So many jobs, each with a key, by whoever answers.
    pub(super) async fn submit(&mut self, all: &Apis, count: u32) {
        for _ in 0..count {
            let number = self.next;
            self.next += 1;
            let body = body(&self.starts, number);
            let key = format!("key-{number}");
            let reply = all
                .ask(Method::POST, "/jobs", Some(&body), Some(&key))
                .await;
            assert_eq!(reply.status, 201, "{reply}");
            self.accepted.insert(id(&reply.json()), number);
        }
    }

    /// Every job ends as it was to end, has started once, and is in the list once.
    pub(super) async fn judge(&self, all: &Apis) {
        for (id, number) in &self.accepted {
            let job = all.finished(id).await;
            assert_eq!(job["exit"]["code"], number % 7, "job {number}: {job:#}");
            let output = all
                .ask(Method::GET, &format!("/jobs/{id}/output"), None, None)
                .await;
            assert_eq!(
                String::from_utf8_lossy(&output.body),
                format!("out {number}\n")
            );
        }
        let started = lines(&self.starts);
        for id in self.accepted.keys() {
            assert_eq!(started.get(id), Some(&1), "job {id} starts once");
        }
        assert_eq!(
            started.len(),
            self.accepted.len(),
            "nothing else has started"
        );
        let list = all
            .ask(Method::GET, "/jobs?page_size=1000", None, None)
            .await
            .json();
        let listed = list["jobs"].as_array().unwrap().iter();
        let named = listed.filter(|job| {
            job["name"]
                .as_str()
                .is_some_and(|it| it.starts_with("job-"))
        });
        assert_eq!(named.count(), self.accepted.len(), "one job a key");
    }
}

/// A job that goes on until it is told to end, by a file.
pub(super) async fn lasting(all: &Apis, gate: &Path) -> String {
    let script = format!(
        "echo begun; until test -e {}; do sleep 0.05; done; echo over",
        gate.display()
    );
    let body = json!({ "script": script });
    let reply = all.ask(Method::POST, "/jobs", Some(&body), None).await;
    assert_eq!(reply.status, 201, "{reply}");
    id(&reply.json())
}

#[tokio::test]
async fn another_api_node_leads_when_the_one_that_leads_is_killed() {
    let mut all = Apis::start(3, 2, &[]).await;
    let (first, epoch) = all.leader().await;
    let gate = all.apis[0].scratch().join("gate");
    let running = lasting(&all, &gate).await;
    let mut load = Load::new(&all);
    load.submit(&all, 15).await;
    let killed = Instant::now();
    kill_service(&mut all.apis[first]);
    load.submit(&all, 1).await;
    eprintln!(
        "FIGURE takeover_seconds {:.2}",
        killed.elapsed().as_secs_f64()
    );
    load.submit(&all, 10).await;
    let (second, next) = all.leader().await;
    assert!(second != first && next > epoch, "{second} {next}");
    // What ran goes on, and is spoken of by the new one.
    std::fs::write(&gate, "").unwrap();
    assert_eq!(all.finished(&running).await["exit"]["code"], 0);
    let output = all
        .ask(Method::GET, &format!("/jobs/{running}/output"), None, None)
        .await;
    assert_eq!(String::from_utf8_lossy(&output.body), "begun\nover\n");
    load.judge(&all).await;
    // The one that was killed comes back, and follows.
    all.start_again(first).await;
    load.submit(&all, 3).await;
    load.judge(&all).await;
    all.are_equal().await;
}

#[tokio::test]
async fn a_leader_that_stood_still_ends_itself_and_follows() {
    let mut all = Apis::start(3, 2, &[]).await;
    let (first, epoch) = all.leader().await;
    let mut load = Load::new(&all);
    load.submit(&all, 5).await;
    let server = all.apis[first].server_process().unwrap();
    // The supervisor would wake it.
    let supervisor = all.apis[first].supervisor();
    kill(supervisor, Signal::SIGSTOP).unwrap();
    kill(server, Signal::SIGSTOP).unwrap();
    let others: Vec<usize> = (0..3).filter(|it| *it != first).collect();
    eventually("another one leads", async || {
        for other in &others {
            let ledger = all.ledger(*other).await.unwrap_or_default();
            if ledger["role"] == "leads" && ledger["epoch"].as_u64() > Some(epoch) {
                return Some(());
            }
        }
        None
    })
    .await;
    kill(server, Signal::SIGCONT).unwrap();
    kill(supervisor, Signal::SIGCONT).unwrap();
    eventually("it ends itself", async || {
        all.apis[first].server_process().filter(|it| *it != server)
    })
    .await;
    assert!(all.apis[first].log().contains("does not lead any more"));
    eventually("it follows", async || {
        let ledger = all.ledger(first).await?;
        (ledger["role"] == "follows" && ledger["behind"] == 0).then_some(())
    })
    .await;
    load.submit(&all, 5).await;
    load.judge(&all).await;
    all.are_equal().await;
}

#[tokio::test]
async fn an_outage_of_the_database_touches_nothing_that_runs() {
    let mut all = Apis::start(2, 1, &STEADY).await;
    let (leader, _) = all.leader().await;
    let api = &all.apis[leader];
    let gate = api.scratch().join("gate");
    let waits = lasting(&all, &gate).await;
    let stopped = lasting(&all, Path::new("/nonexistent")).await;
    api.says(&waits, "begun").await;
    api.says(&stopped, "begun").await;
    all.postgres.end(Signal::SIGINT);

    let refused = json!({"command": ["true"]});
    let reply = api.post("/jobs", &refused).await;
    assert_eq!(reply.status, 503, "{reply}");
    assert_eq!(reply.json()["code"], "ledger_unavailable");
    assert!(reply.headers.contains_key("retry-after"), "{reply}");
    // Reading, output, and the end of a job.
    let api = &all.apis[leader];
    assert_eq!(api.job(&waits).await["state"], "running");
    assert_eq!(api.text(&waits).await, "begun\n");
    let reply = api.delete(&stopped, "force&wait=5").await;
    // What came of it cannot be kept yet, so it is not 200; it has ended all the same.
    assert!(reply.status == 202 || reply.status == 503, "{reply}");
    eventually("no process of the stopped job is left", async || {
        let processes = all.nodes[0].marked();
        let is_its = |it: &crate::harness::Process| it.argv.join(" ").contains("/nonexistent");
        (!processes.iter().any(is_its)).then_some(())
    })
    .await;
    // One that ends meanwhile is reported afterwards.
    std::fs::write(&gate, "").unwrap();
    all.postgres.begin();
    assert_eq!(all.finished(&waits).await["exit"]["code"], 0);
    assert_eq!(all.finished(&stopped).await["state"], "canceled");
    let mut load = Load::new(&all);
    load.submit(&all, 3).await;
    load.judge(&all).await;
    all.are_equal().await;
}

#[tokio::test]
async fn a_database_that_is_killed_under_load_loses_nothing_that_was_accepted() {
    let mut all = Apis::start(2, 2, &[]).await;
    let mut load = Load::new(&all);
    for _ in 0..3 {
        load.submit(&all, 6).await;
        all.postgres.end(Signal::SIGKILL);
        all.postgres.begin();
    }
    load.submit(&all, 3).await;
    load.judge(&all).await;
    all.are_equal().await;
}

#[tokio::test]
async fn the_synchronous_copy_of_a_killed_database_has_everything() {
    let primary = Postgres::start();
    let standby = primary.standby();
    let url = format!(
        "postgres://procession@{},{}/postgres",
        primary.host(),
        standby.host()
    );
    let mut all = Apis::start_at(primary, url, 2, 2, &[]).await;
    let mut load = Load::new(&all);
    load.submit(&all, 8).await;
    all.postgres.end(Signal::SIGKILL);
    standby.promote();
    load.submit(&all, 8).await;
    // The old primary comes back and is left running: nobody uses it.
    all.postgres.begin();
    load.submit(&all, 3).await;
    load.judge(&all).await;
    let last = |postgres: &Postgres| -> u64 {
        let seq = postgres.sql("SELECT seq FROM procession.leader");
        seq.trim().parse().unwrap()
    };
    let (before, after) = (last(&all.postgres), last(&standby));
    assert!(before < after, "{before} {after}");
    // Nor after a start, whose first address is the old one's.
    for number in 0..2 {
        let server = all.apis[number].server_process().unwrap();
        kill(server, Signal::SIGKILL).unwrap();
    }
    load.submit(&all, 2).await;
    load.judge(&all).await;
    assert_eq!(last(&all.postgres), before);
    all.are_equal().await;
    drop(standby);
}

/// A host that takes connections and says nothing costs nobody the lead: the other one is not waited for longer than a beat may take.
#[tokio::test]
async fn a_host_of_the_database_that_is_silent_costs_nobody_the_lead() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let postgres = Postgres::start();
    let url = format!(
        "postgres://procession@{},{}/postgres",
        postgres.host(),
        silent.local_addr().unwrap()
    );
    let mut all = Apis::start_at(postgres, url, 2, 1, &PATIENT).await;
    let mut load = Load::new(&all);
    load.submit(&all, 2).await;
    let beat = || -> u64 {
        let beat = all.postgres.sql("SELECT beat FROM procession.leader");
        beat.trim().parse().unwrap()
    };
    let (_, epoch) = all.leader().await;
    for _ in 0..3 {
        let ends = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'procession'";
        all.postgres.sql(ends);
        // Longer than the lead lasts without a beat, and nobody writes meanwhile.
        let before = beat();
        eventually("it beats on", async || (beat() > before + 6).then_some(())).await;
    }
    assert_eq!(all.leader().await.1, epoch);
    load.submit(&all, 2).await;
    load.judge(&all).await;
    all.are_equal().await;
}

const LEAD: &str = "SELECT epoch, claim, seq FROM procession.leader";

/// Two API nodes whose database has failed over while one of them was away: that one, and the new primary. The old one is back, is
/// the first in their address, and takes whatever is written to it, since no commit waits for its copy.
async fn failed_over_without_one(takeover: &'static str) -> (Apis, Load, usize, Postgres) {
    let primary = Postgres::start();
    let standby = primary.copy();
    let (first, second) = (primary.host(), standby.host());
    let url = format!("postgres://procession@{first},{second}/postgres");
    let mut all = Apis::start_at(primary, url, 2, 1, &[]).await;
    all.takeover = takeover;
    let mut load = Load::new(&all);
    load.submit(&all, 3).await;
    load.judge(&all).await;
    let (leader, _) = all.leader().await;
    let away = all.follower(leader);
    all.apis[away].end(Signal::SIGTERM);
    let has_all = || standby.sql(LEAD) == all.postgres.sql(LEAD);
    assert!(blocking_until(LONG, has_all), "the copy has everything");
    all.postgres.end(Signal::SIGKILL);
    standby.promote();
    load.submit(&all, 3).await;
    all.postgres.begin();
    (all, load, away, standby)
}

#[tokio::test]
async fn one_that_missed_a_failover_of_the_database_does_not_go_on_with_the_old_one() {
    let (mut all, mut load, away, standby) = failed_over_without_one("2").await;
    let before = all.postgres.sql(LEAD);
    all.start_again(away).await;
    load.submit(&all, 3).await;
    load.judge(&all).await;
    all.are_equal().await;
    assert_eq!(all.postgres.sql(LEAD), before, "nobody led there");
    drop(standby);
}

#[tokio::test]
async fn one_that_reaches_the_old_database_alone_looks_for_a_newer_one_before_it_leads() {
    let (mut all, mut load, away, mut standby) = failed_over_without_one("10").await;
    let before = all.postgres.sql(LEAD);
    standby.end(Signal::SIGINT);
    all.start_again(away).await;
    eventually("it follows", async || {
        let ledger = all.ledger(away).await?;
        (ledger["role"] == "follows" && ledger["available"] == true).then_some(())
    })
    .await;
    standby.begin();
    load.submit(&all, 3).await;
    load.judge(&all).await;
    all.are_equal().await;
    assert_eq!(all.postgres.sql(LEAD), before, "nobody led there");
    let log = all.apis[away].log();
    assert!(log.contains("a failover has left this PostgreSQL behind"));
    drop(standby);
}

#[tokio::test]
async fn a_pooler_in_transaction_mode_may_stand_in_between() {
    let postgres = Postgres::start();
    let pooler = Pooler::start(&postgres);
    let url = format!("postgres://procession@127.0.0.1:{}/postgres", pooler.port);
    let mut all = Apis::start_at(postgres, url, 2, 1, &[]).await;
    let mut load = Load::new(&all);
    load.submit(&all, 5).await;
    let (leader, _) = all.leader().await;
    kill_service(&mut all.apis[leader]);
    load.submit(&all, 3).await;
    all.start_again(leader).await;
    load.judge(&all).await;
    drop(all);
    drop(pooler);
}

/// PgBouncer with one server connection for two clients at a time.
struct Pooler {
    child: std::process::Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Pooler {
    fn start(postgres: &Postgres) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = port();
        let settings = format!(
            "[databases]\npostgres = host={} dbname=postgres user=procession\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = any\npool_mode = transaction\ndefault_pool_size = 2\n\
             server_reset_query =\nlogfile = {}\n",
            postgres.socket().display(),
            dir.path().join("log").display()
        );
        let file = dir.path().join("pgbouncer.ini");
        std::fs::write(&file, settings).unwrap();
        if crate::harness::is_root() {
            std::os::unix::fs::chown(dir.path(), Some(65_534), Some(65_534)).unwrap();
        }
        let mut child = super::unprivileged::unprivileged(Path::new("/usr/sbin/pgbouncer"))
            .arg(&file)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let is_up = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        if !blocking_until(LONG, is_up) {
            let _ = child.kill();
            panic!(
                "{}",
                std::fs::read_to_string(dir.path().join("log")).unwrap_or_default()
            );
        }
        Self {
            child,
            port,
            _dir: dir,
        }
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = kill(
            Pid::from_raw(i32::try_from(self.child.id()).unwrap()),
            Signal::SIGKILL,
        );
        let _ = self.child.wait();
    }
}
