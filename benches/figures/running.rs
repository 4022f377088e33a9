//! F3, F4 and F7: what running jobs cost, and how fast they are stopped.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use crate::client;
use crate::processes;
use crate::report::Row;
use crate::service::{Scratch, Service, pause};
use crate::stats::{float, float64, median, millis, percentile, spread};
use crate::{Plan, note};

/// F3 and F4, on the same running jobs.
pub(crate) fn memory_and_idleness(plan: &Plan, rows: &mut Vec<Row>) -> io::Result<()> {
    let count = if plan.quick { 300 } else { 2000 };
    let rounds = plan.rounds.min(3);
    let (mut per_job, mut monitors, mut servers, mut tables) = (vec![], vec![], vec![], vec![]);
    let (mut idle, mut p50, mut p99) = (vec![], vec![], vec![]);
    for round in 0..rounds {
        note(&format!("F3, F4 round {}", round + 1));
        let scratch = Scratch::new()?;
        let service = Service::start(&scratch.state(), &["--max-running", "3000"])?;
        let supervisor = service.supervisor_pid();
        let server = service.server_pid()?;
        let before = (processes::pss(supervisor), processes::pss(server));
        service.start_sleepers(count)?;
        pause(Duration::from_secs(1));
        let pids = service.monitor_pids()?;
        let monitor: u64 = pids.iter().map(|pid| processes::pss(*pid)).sum();
        let table: u64 = pids.iter().map(|pid| processes::page_tables(*pid)).sum();
        let grown = |pid, before| float64(processes::pss(pid)) - float64(before);
        let server_grown = grown(server, before.1);
        // The supervisor's share of what it has in common with monitors shrinks: count that for it.
        let total = float64(monitor) + server_grown + grown(supervisor, before.0);
        per_job.push(total / float(count));
        monitors.push(float64(monitor) / float(count));
        servers.push(server_grown / float(count));
        tables.push(float64(table) / float(count));

        let everyone: Vec<u32> = pids.iter().copied().chain([supervisor, server]).collect();
        let cpu = || everyone.iter().map(|pid| processes::cpu(*pid)).sum::<u64>();
        let (begin, used) = (Instant::now(), cpu());
        pause(Duration::from_secs(5));
        let used = cpu().saturating_sub(used);
        idle.push(float64(used) / 1e9 / begin.elapsed().as_secs_f64() * 100.0);

        let taken = reads(&service, Duration::from_secs(5))?;
        p50.push(percentile(&taken, 0.5));
        p99.push(percentile(&taken, 0.99));
    }
    rows.push(Row::new(
        "F3",
        format!("memory of a running job beyond its own, {count} × `sleep`, {rounds} rounds"),
        format!(
            "{} kB PSS (monitor {}, server {}); page tables of the monitor, which PSS leaves out: {} kB",
            spread(&per_job, 0),
            spread(&monitors, 0),
            spread(&servers, 1),
            spread(&tables, 0)
        ),
        "≤ 100 kB",
        Some(median(&per_job) <= 100.0),
    ));
    rows.push(Row::new(
        "F4",
        format!("idle CPU of all roles with {count} running jobs, 5 s, {rounds} rounds"),
        format!("{} % of a core", spread(&idle, 3)),
        "< 1 %",
        Some(median(&idle) < 1.0),
    ));
    rows.push(Row::new(
        "F4",
        format!("`GET /jobs/{{id}}` at 1 000 a second, 5 s, {rounds} rounds, p99"),
        format!("{} ms (p50 {:.2})", spread(&p99, 2), median(&p50)),
        "< 5 ms",
        Some(median(&p99) < 5.0),
    ));
    Ok(())
}

/// 1 000 reads a second by four clients, each timed from the moment when it was due.
fn reads(service: &Service, time: Duration) -> io::Result<Vec<f64>> {
    const CLIENTS: u32 = 4;
    let jobs = service.jobs("state=running&page_size=1000")?;
    let requests: Vec<Vec<u8>> = jobs
        .iter()
        .filter_map(|job| job["id"].as_str())
        .map(|id| service.request("GET", &format!("/jobs/{id}")))
        .collect();
    let client = |number: u32| -> io::Result<Vec<f64>> {
        let mut connection = service.connect()?;
        let step = Duration::from_millis(4);
        let begin = Instant::now() + step * number / CLIENTS;
        let mut taken = Vec::new();
        let mut due = begin;
        for request in requests.iter().cycle() {
            due += step;
            if due >= begin + time {
                break;
            }
            pause(due.saturating_duration_since(Instant::now()));
            connection.exchange(request)?;
            taken.push(millis(due.elapsed()));
        }
        Ok(taken)
    };
    let all = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CLIENTS)
            .map(|number| scope.spawn(move || client(number)))
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(io::Error::other("a client panicked")))
            })
            .collect::<io::Result<Vec<_>>>()
    })?;
    Ok(all.concat())
}

/// F7.
pub(crate) fn stop(plan: &Plan, rows: &mut Vec<Row>) -> io::Result<()> {
    let repeats = if plan.quick { 5 } else { 20 };
    let rounds = plan.rounds.min(3);
    let scratch = Scratch::new()?;
    let service = Service::start(&scratch.state(), &["--max-running", "1200"])?;
    let mut taken = vec![];
    note("F7, one job");
    let mut connection = service.connect()?;
    let crowd = r#"{"script":"i=0; while [ $i -lt 99 ]; do sleep 100000 & i=$((i+1)); done; echo ready; wait"}"#;
    for _ in 0..repeats {
        let answer = connection.exchange(&service.submission("", crowd))?;
        let job: serde_json::Value =
            serde_json::from_str(&answer.body).map_err(io::Error::other)?;
        let id = job["id"].as_str().unwrap_or_default().to_owned();
        let output = service.request("GET", &format!("/jobs/{id}/output"));
        while connection.exchange(&output)?.body != "ready\n" {
            pause(Duration::from_millis(5));
        }
        let begin = Instant::now();
        connection.exchange(&service.request("DELETE", &format!("/jobs/{id}?wait=30")))?;
        taken.push(millis(begin.elapsed()));
        service.wait_for_live(0)?;
    }
    let mut all = vec![];
    for round in 0..rounds {
        note(&format!("F7, 1 000 jobs, round {}", round + 1));
        service.start_sleepers(1000)?;
        let jobs = service.jobs("state=running&page_size=1000")?;
        let mut requests = jobs
            .iter()
            .filter_map(|job| job["id"].as_str())
            .map(|id| service.request("DELETE", &format!("/jobs/{id}")));
        let begin = Instant::now();
        client::drive(service.address, 16, || requests.next())?;
        service.wait_for_live(0)?;
        all.push(begin.elapsed().as_secs_f64());
    }
    rows.push(Row::new(
        "F7",
        format!("`DELETE?wait` of one job with 100 processes, {repeats} times, p50"),
        format!("{} ms", spread(&taken, 1)),
        "< 10 ms",
        Some(median(&taken) < 10.0),
    ));
    rows.push(Row::new(
        "F7",
        format!("1 000 jobs stopped by 1 000 `DELETE`s, 16 connections, {rounds} rounds"),
        format!("{} s", spread(&all, 2)),
        "< 2 s",
        Some(median(&all) < 2.0),
    ));
    Ok(())
}

/// F11.
pub(crate) fn size(plan: &Plan, rows: &mut Vec<Row>) -> io::Result<()> {
    let size = float64(fs::metadata(crate::service::BINARY)?.len()) / 1e6;
    let (mut rss, mut pss, mut ready) = (vec![], vec![], vec![]);
    for _ in 0..plan.rounds.max(5) {
        let scratch = Scratch::new()?;
        let service = Service::start(&scratch.state(), &[])?;
        ready.push(millis(service.ready_after));
        pause(Duration::from_millis(500));
        let roles = [service.supervisor_pid(), service.server_pid()?];
        rss.push(float64(roles.iter().map(|pid| processes::rss(*pid)).sum()) / 1e3);
        pss.push(float64(roles.iter().map(|pid| processes::pss(*pid)).sum()) / 1e3);
    }
    rows.push(Row::new(
        "F11",
        "size of the binary",
        format!("{size:.1} MB"),
        "< 20 MB",
        Some(size < 20.0),
    ));
    rows.push(Row::new(
        "F11",
        "idle RSS of supervisor and server",
        format!("{} MB (PSS {:.1})", spread(&rss, 1), median(&pss)),
        "< 20 MB",
        Some(median(&rss) < 20.0),
    ));
    rows.push(Row::new(
        "F11",
        "start of the program, empty state directory, to ready",
        format!("{} ms", spread(&ready, 1)),
        "< 100 ms",
        Some(median(&ready) < 100.0),
    ));
    Ok(())
}
