//! F17: what a hub with nodes costs beside one service in the same run.

use std::fs;
use std::io;
use std::path::Path;
use std::slice;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::followers::{self, Lines};
use crate::output;
use crate::report::Row;
use crate::service::{Scratch, Service, pause};
use crate::stats::{float64, median, millis, percentile, ratios, spread};
use crate::{Plan, note};

/// How many nodes.
pub(crate) const NODES: usize = 3;

/// How many requests a round of the latencies has.
const REQUESTS: usize = 200;

/// A hub that runs no jobs itself.
pub(crate) fn hub(scratch: &Scratch, flags: &[&str]) -> io::Result<Service> {
    let always = ["--cluster", "local", "--role", "api", "--node-name", "hub"];
    Service::start(&scratch.path().join("hub"), &[&always, flags].concat())
}

/// A token for nodes, in a file.
pub(crate) fn token(hub: &Service, name: &str, file: &Path) -> io::Result<String> {
    let body = json!({"name": name, "scope": "runner"}).to_string();
    let answer = hub.connect()?.exchange(&hub.post("/tokens", &body))?;
    let made: Value = serde_json::from_str(&answer.body).map_err(io::Error::other)?;
    let token = made["token"].as_str();
    let token = token.ok_or_else(|| io::Error::other(answer.body.clone()))?;
    fs::write(file, token)?;
    Ok(token.to_owned())
}

/// A node that has joined; further hubs are those that it may turn to.
pub(crate) fn node(scratch: &Scratch, hubs: &[Service], number: usize) -> io::Result<Service> {
    let hub = &hubs[0];
    let name = format!("n{number}");
    let file = scratch.path().join(format!("{name}.token"));
    token(hub, &name, &file)?;
    let urls: Vec<String> = hubs
        .iter()
        .map(|hub| format!("http://{}", hub.address))
        .collect();
    let (urls, file) = (urls.join(","), file.display().to_string());
    let flags = [
        "--join",
        &urls,
        "--join-token-file",
        &file,
        "--node-name",
        &name,
    ];
    let node = Service::start(&scratch.path().join(&name), &flags)?;
    until(|| Ok(get(hub, &format!("/nodes/{name}"))?["state"] == "connected"))?;
    Ok(node)
}

pub(crate) fn get(service: &Service, path: &str) -> io::Result<Value> {
    let answer = service.connect()?.exchange(&service.request("GET", path))?;
    serde_json::from_str(&answer.body).map_err(io::Error::other)
}

pub(crate) fn until(mut is_so: impl FnMut() -> io::Result<bool>) -> io::Result<Duration> {
    let begin = Instant::now();
    while !is_so()? {
        if begin.elapsed() > Duration::from_secs(120) {
            return Err(io::Error::other("it does not come"));
        }
        pause(Duration::from_millis(2));
    }
    Ok(begin.elapsed())
}

/// From `POST` to 201 of one client, p50 in milliseconds.
pub(crate) fn starts(service: &Service) -> io::Result<f64> {
    let mut connection = service.connect()?;
    let mut taken = Vec::with_capacity(REQUESTS);
    for _ in 0..REQUESTS {
        let begin = Instant::now();
        let answer = connection.exchange(&service.short_job(""))?;
        taken.push(millis(begin.elapsed()));
        if answer.status != 201 {
            return Err(io::Error::other(answer.body));
        }
        service.wait_for_live(0)?;
    }
    Ok(median(&taken))
}

fn forwarded(hub: &Service) -> io::Result<(f64, f64)> {
    let spec = r#"{"script":"echo here; exec sleep 1000"}"#;
    let answer = hub.connect()?.exchange(&hub.submission("", spec))?;
    let job: Value = serde_json::from_str(&answer.body).map_err(io::Error::other)?;
    let id = job["id"].as_str().unwrap_or_default();
    let request = hub.request("GET", &format!("/jobs/{id}/output"));
    let mut connection = hub.connect()?;
    let mut taken = Vec::with_capacity(REQUESTS * 5);
    for _ in 0..REQUESTS * 5 {
        let begin = Instant::now();
        let answer = connection.exchange(&request)?;
        taken.push(millis(begin.elapsed()));
        if answer.status != 200 {
            return Err(io::Error::other(answer.body));
        }
    }
    let stop = hub.request("DELETE", &format!("/jobs/{id}?force&wait=10"));
    hub.connect()?.exchange(&stop)?;
    Ok((median(&taken), percentile(&taken, 0.99)))
}

/// A signal to processes, of which some may be gone.
pub(crate) fn send(processes: &[u32], signal: Signal) {
    for process in processes {
        if let Ok(pid) = i32::try_from(*process) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

/// How long it takes until a job of a node that has died says so, or of one that has fallen silent.
fn loss(scratch: &Scratch, hub: &Service, number: usize, signal: Signal) -> io::Result<f64> {
    let lost = node(scratch, slice::from_ref(hub), number)?;
    let name = format!("n{number}");
    // It outlives a node that is killed, and ends by itself.
    let spec = json!({"command": ["/bin/sleep", "30"], "placement": {"nodes": [name]}});
    let answer = hub
        .connect()?
        .exchange(&hub.submission("", &spec.to_string()))?;
    let job: Value = serde_json::from_str(&answer.body).map_err(io::Error::other)?;
    let path = format!("/jobs/{}", job["id"].as_str().unwrap_or_default());
    let processes = [lost.supervisor_pid(), lost.server_pid()?];
    send(&processes, signal);
    let taken = until(|| Ok(get(hub, &path)?["state_reason"] == "node_unreachable"))?;
    send(&processes, Signal::SIGCONT);
    Ok(taken.as_secs_f64())
}

/// F17.
pub(crate) fn figures(plan: &Plan, rows: &mut Vec<Row>) -> io::Result<()> {
    let scratch = Scratch::new()?;
    let one = Service::start(&scratch.state(), &[])?;
    let hub = hub(&scratch, &[])?;
    let mut nodes = Vec::new();
    for number in 1..=NODES {
        nodes.push(node(&scratch, slice::from_ref(&hub), number)?);
    }
    let (mut alone, mut together) = (vec![], vec![]);
    let (mut here, mut there) = (vec![], vec![]);
    let (mut get50, mut get99, mut lines50, mut rates) = (vec![], vec![], vec![], vec![]);
    let bytes: u64 = if plan.quick { 256 << 20 } else { 1 << 30 };
    let (_, large) = output::through_service(&hub, 1, bytes)?;
    let lines = Lines {
        length: 64,
        count: 1,
        step: 5000,
        seconds: plan.load.as_secs() / 2,
    };
    for round in 0..plan.rounds {
        note(&format!("F17 round {}", round + 1));
        alone.push(one.throughput(plan.load, 0)?);
        together.push(hub.throughput(plan.load, 0)?);
        here.push(starts(&one)?);
        there.push(starts(&hub)?);
        let (p50, p99) = forwarded(&hub)?;
        get50.push(p50);
        get99.push(p99);
        let (followed, _) = followers::follow(&hub, &lines, 1)?;
        let delays: Vec<f64> = followed.into_iter().flat_map(|one| one.delays).collect();
        lines50.push(median(&delays));
        let begin = Instant::now();
        let request = hub.request("GET", &format!("/jobs/{large}/output/stdout"));
        let got = hub.connect()?.download(&request)?;
        if got != bytes {
            return Err(io::Error::other(format!("{got} of {bytes} bytes")));
        }
        rates.push(float64(got) / 1e6 / begin.elapsed().as_secs_f64());
    }
    let killed = loss(&scratch, &hub, NODES + 1, Signal::SIGKILL)?;
    let silent = loss(&scratch, &hub, NODES + 2, Signal::SIGSTOP)?;
    let rate = ratios(&together, &alone);
    let start = ratios(&there, &here);
    let mut row = |what: &str, measured: String, goal, is_good| {
        rows.push(Row::new("F17", what, measured, goal, Some(is_good)));
    };
    row(
        "a hub with 3 nodes, all on this machine: `/bin/true` from 16 connections",
        format!(
            "{} jobs/s = {} × one service, {} jobs/s",
            spread(&together, 0),
            spread(&rate, 2),
            spread(&alone, 0)
        ),
        "≥ 0.5 × one service",
        median(&rate) >= 0.5,
    );
    row(
        "one client: `POST` → 201 with the PID, p50",
        format!(
            "{} ms = {} × one service, {} ms",
            spread(&there, 2),
            spread(&start, 2),
            spread(&here, 2)
        ),
        "≤ 2.5 × one service",
        median(&start) <= 2.5,
    );
    row(
        "a forwarded `GET` of output, p99",
        format!("{} ms (p50 {})", spread(&get99, 2), spread(&get50, 2)),
        "≤ 5 ms",
        median(&get99) <= 5.0,
    );
    row(
        "a printed line → its SSE event, p50",
        format!("{} ms", spread(&lines50, 2)),
        "≤ 1.5 ms",
        median(&lines50) <= 1.5,
    );
    row(
        "download of output through the hub",
        format!("{} MB/s", spread(&rates, 0)),
        "≥ 300 MB/s",
        median(&rates) >= 300.0,
    );
    row(
        "the loss of a node is told: killed; silent",
        format!("{killed:.1} s; {silent:.1} s"),
        "≤ 6 s; < 15 s",
        killed <= 6.0 && silent < 15.0,
    );
    drop(nodes);
    Ok(())
}
