//! F17, the safe one: three API nodes with their ledger in PostgreSQL, and three nodes, beside one service in the same run.

use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::client;
use crate::cluster::{NODES, get, node, send, starts, until};
use crate::database::{self, Postgres};
use crate::report::Row;
use crate::service::{Scratch, Service, pause};
use crate::stats::{float, float64, median, percentile, ratios, spread};
use crate::{Plan, note};

/// How many API nodes.
const APIS: usize = 3;

/// After how many seconds without a word of the leader another API node takes the lead: the least that can be set.
const TAKEOVER: &str = "2";

/// How many jobs are stopped while there is no database, and how many fill it.
const STOPPED: usize = 20;
const FILLING: usize = 2000;

/// API nodes and their nodes.
struct Cluster {
    // In this order: nodes end before API nodes, and those before the database.
    nodes: Vec<Service>,
    apis: Vec<Service>,
    ports: Vec<u16>,
    database: Postgres,
}

/// Ports that are free, below those that the kernel gives to anybody.
fn free_ports(count: usize) -> Vec<u16> {
    let begin = 20_000 + u16::try_from(std::process::id() % 12_000).unwrap_or(0);
    (begin..32_768)
        .chain(20_000..begin)
        .filter(|port| is_free(*port))
        .take(count)
        .collect()
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

fn api(scratch: &Scratch, database: &Postgres, number: usize, port: u16) -> io::Result<Service> {
    let (name, url) = (format!("api{number}"), database.url());
    let advertised = format!("http://127.0.0.1:{port}");
    let api = Service::start_on(
        port,
        &scratch.path().join(&name),
        &[
            "--cluster",
            &url,
            "--role",
            "api",
            "--node-name",
            &name,
            "--advertise",
            &advertised,
            "--api-takeover-seconds",
            TAKEOVER,
        ],
    )?;
    until(|| Ok(get(&api, "/readyz")?["ready"] == true))?;
    Ok(api)
}

impl Cluster {
    fn start(scratch: &Scratch, database: Postgres) -> io::Result<Self> {
        let mut all = Self {
            nodes: Vec::new(),
            apis: Vec::new(),
            ports: free_ports(APIS),
            database,
        };
        if all.ports.len() < APIS {
            return Err(io::Error::other("no ports are free"));
        }
        for (number, port) in all.ports.iter().enumerate() {
            all.apis
                .push(api(scratch, &all.database, number + 1, *port)?);
        }
        for number in 1..=NODES {
            all.nodes.push(node(scratch, &all.apis, number)?);
        }
        Ok(all)
    }

    /// Where the one that leads is in the list, and one that follows.
    fn leader(&self) -> io::Result<(usize, usize)> {
        let mut leads = Err(io::Error::other("nobody leads"));
        for (at, api) in self.apis.iter().enumerate() {
            // Only one that follows says something of the ledger there.
            let state = get(api, "/readyz")?;
            if state["ready"] == true && state["ledger"].is_null() {
                leads = Ok((at, (at + 1) % APIS));
            }
        }
        leads
    }

    /// Runs jobs to their end; returns the bytes of the database for one of them.
    fn fill(&self, count: usize) -> io::Result<f64> {
        let api = &self.apis[self.leader()?.0];
        let before = self.database.size()?;
        let mut left = count;
        let load = client::drive(api.address, 16, || {
            left = left.checked_sub(1)?;
            Some(api.short_job(""))
        })?;
        if load.refused > 0 {
            return Err(io::Error::other(format!("{} were refused", load.refused)));
        }
        api.wait_for_live(0)?;
        let grown = self.database.size()?.saturating_sub(before);
        Ok(float64(grown) / float(count))
    }

    /// Kills the leader under load; returns the seconds until another API node answers 201.
    fn takeover(&mut self, scratch: &Scratch, load: Duration) -> io::Result<f64> {
        let (leads, follows) = self.leader()?;
        let (leader, asked) = (&self.apis[leads], &self.apis[follows]);
        let processes = [leader.supervisor_pid(), leader.server_pid()?];
        let is_over = AtomicBool::new(false);
        let taken = thread::scope(|scope| {
            for number in 0..16 {
                let api = &self.apis[number % APIS];
                let is_over = &is_over;
                scope.spawn(move || while_wanted(api, is_over));
            }
            pause(load);
            send(&processes, Signal::SIGKILL);
            let begin = Instant::now();
            let taken = until(|| Ok(is_accepted(asked))).map(|_| begin.elapsed());
            is_over.store(true, Ordering::Relaxed);
            taken
        })?;
        drop(self.apis.remove(leads));
        let port = self.ports[leads];
        until(|| Ok(is_free(port)))?;
        let again = api(scratch, &self.database, leads + 1, port)?;
        self.apis.insert(leads, again);
        self.settle()?;
        Ok(taken.as_secs_f64())
    }

    /// Waits until all nodes are back, and nothing runs.
    fn settle(&self) -> io::Result<()> {
        let api = &self.apis[0];
        until(|| {
            let list = get(api, "/nodes")?;
            let nodes = list["nodes"].as_array().into_iter().flatten();
            Ok(nodes.filter(|it| it["state"] == "connected").count() == NODES)
        })?;
        api.wait_for_live(0)
    }

    /// Stops jobs while there is no database: for each the seconds until its process is gone and until the answer, with its status.
    fn outage(&mut self) -> io::Result<Vec<(f64, f64, u16)>> {
        let (leads, _) = self.leader()?;
        let mut jobs = Vec::with_capacity(STOPPED);
        for _ in 0..STOPPED {
            let leader = &self.apis[leads];
            let request = leader.submission("", r#"{"command":["/bin/sleep","1000"]}"#);
            let answer = leader.connect()?.exchange(&request)?;
            let job: Value = serde_json::from_str(&answer.body).map_err(io::Error::other)?;
            match (job["id"].as_str(), job["process"]["pid"].as_u64()) {
                (Some(id), Some(pid)) => jobs.push((format!("/jobs/{id}"), pid)),
                _ => return Err(io::Error::other(answer.body)),
            }
        }
        self.database.end(Signal::SIGINT);
        let leader = &self.apis[leads];
        let stopped = thread::scope(|scope| {
            let mut asked = Vec::with_capacity(STOPPED);
            for (path, pid) in &jobs {
                let begin = Instant::now();
                let answer = scope.spawn(move || {
                    let answer = leader
                        .connect()?
                        .exchange(&leader.request("DELETE", path))?;
                    io::Result::Ok((begin.elapsed().as_secs_f64(), answer.status))
                });
                let process = PathBuf::from(format!("/proc/{pid}"));
                until(|| Ok(!process.exists()))?;
                asked.push((begin.elapsed().as_secs_f64(), answer));
            }
            let mut stopped = Vec::with_capacity(STOPPED);
            for (gone, answer) in asked {
                let answer = answer.join();
                let (answered, status) = answer.map_err(|_| io::Error::other("a panic"))??;
                stopped.push((gone, answered, status));
            }
            io::Result::Ok(stopped)
        })?;
        self.database.begin()?;
        self.settle()?;
        for (path, _) in &jobs {
            let job = get(&self.apis[0], path)?;
            if job["state"] != "canceled" {
                let state = &job["state"];
                return Err(io::Error::other(format!("{path} is {state}, not canceled")));
            }
        }
        Ok(stopped)
    }
}

fn is_accepted(api: &Service) -> bool {
    let answer = api
        .connect()
        .and_then(|mut it| it.exchange(&api.short_job("")));
    answer.is_ok_and(|answer| answer.status == 201)
}

/// A client that submits as long as it is to, whether or not it is answered.
fn while_wanted(api: &Service, is_over: &AtomicBool) {
    let request = api.short_job("");
    while !is_over.load(Ordering::Relaxed) {
        if let Ok(mut connection) = api.connect() {
            while !is_over.load(Ordering::Relaxed)
                && connection
                    .exchange(&request)
                    .is_ok_and(|answer| answer.status == 201)
            {}
        }
        pause(Duration::from_millis(10));
    }
}

/// What came of `outage`, in words, and whether each process was gone in time.
fn told(stopped: &[(f64, f64, u16)]) -> (String, bool) {
    let gone: Vec<f64> = stopped.iter().map(|it| it.0).collect();
    let mut statuses: Vec<u16> = stopped.iter().map(|it| it.2).collect();
    statuses.sort_unstable();
    statuses.dedup();
    let answers: Vec<String> = statuses
        .iter()
        .map(|status| {
            let these = stopped.iter().filter(|it| it.2 == *status);
            let after: Vec<f64> = these.map(|it| it.1).collect();
            let (usual, slowest) = (median(&after), percentile(&after, 0.99));
            let count = after.len();
            format!("{status} for {count} of them, p99 {slowest:.1} s (p50 {usual:.1})")
        })
        .collect();
    let slowest = percentile(&gone, 0.99);
    let text = format!(
        "process gone p99 {:.0} ms (p50 {:.0}); answer {}",
        slowest * 1e3,
        median(&gone) * 1e3,
        answers.join(", ")
    );
    (text, slowest < 1.0)
}

/// What it costs.
fn costs(plan: &Plan, all: &Cluster, one: &Service, rows: &mut Vec<Row>) -> io::Result<()> {
    let size = all.fill(if plan.quick { FILLING / 10 } else { FILLING })?;
    let (mut alone, mut together) = (vec![], vec![]);
    let (mut here, mut leading, mut following) = (vec![], vec![], vec![]);
    for round in 0..plan.rounds {
        note(&format!("F17 with PostgreSQL, round {}", round + 1));
        let (leads, follows) = all.leader()?;
        alone.push(one.throughput(plan.load, 0)?);
        together.push(all.apis[leads].throughput(plan.load, 0)?);
        here.push(starts(one)?);
        leading.push(starts(&all.apis[leads])?);
        following.push(starts(&all.apis[follows])?);
    }
    let rate = ratios(&together, &alone);
    let (start, further) = (ratios(&leading, &here), ratios(&following, &here));
    rows.push(Row::new(
        "F17",
        "PostgreSQL, 3 API nodes and 3 nodes, all on this machine: `/bin/true` from 16 connections to the leader",
        format!(
            "{} jobs/s = {} × one service, {} jobs/s",
            spread(&together, 0),
            spread(&rate, 2),
            spread(&alone, 0)
        ),
        "≥ 0.35 × one service",
        Some(median(&rate) >= 0.35),
    ));
    rows.push(Row::new(
        "F17",
        "one client of the leader: `POST` → 201 with the PID, p50",
        format!(
            "{} ms = {} × one service, {} ms",
            spread(&leading, 2),
            spread(&start, 2),
            spread(&here, 2)
        ),
        "≤ 4 × one service",
        Some(median(&start) <= 4.0),
    ));
    rows.push(Row::new(
        "F17",
        "the same of an API node that follows, p50",
        format!(
            "{} ms = {} × one service",
            spread(&following, 2),
            spread(&further, 2)
        ),
        "–",
        None,
    ));
    rows.push(Row::new(
        "F17",
        "size of the ledger in the database for a finished job",
        format!("{size:.0} bytes"),
        "–",
        None,
    ));
    Ok(())
}

/// F17 with PostgreSQL.
pub(crate) fn figures(plan: &Plan, rows: &mut Vec<Row>) -> io::Result<()> {
    let Some(programs) = database::installed() else {
        let what = "PostgreSQL, 3 API nodes and 3 nodes";
        let why = "`apt-get install postgresql`";
        rows.push(Row::missing("F17", what, "", why));
        return Ok(());
    };
    let scratch = Scratch::new()?;
    let one = Service::start(&scratch.state(), &[])?;
    let mut all = Cluster::start(&scratch, Postgres::start(programs)?)?;
    costs(plan, &all, &one, rows)?;
    note("F17 with PostgreSQL, stopped");
    let (stopped, is_soon) = told(&all.outage()?);
    rows.push(Row::new(
        "F17",
        format!("`DELETE` of {STOPPED} running jobs while the database is stopped"),
        stopped,
        "process gone p99 < 1 s",
        Some(is_soon),
    ));
    let mut taken = Vec::with_capacity(plan.rounds);
    for round in 0..plan.rounds {
        note(&format!("F17 with PostgreSQL, takeover {}", round + 1));
        taken.push(all.takeover(&scratch, plan.load / 4)?);
    }
    rows.push(Row::new(
        "F17",
        format!(
            "the leader killed under 16 clients, `--api-takeover-seconds {TAKEOVER}`: until another API node \
             answers `POST` with 201"
        ),
        format!("{} s", spread(&taken, 2)),
        "–",
        None,
    ));
    Ok(())
}
