//! F9 and recovery: a server that is large, and one that is killed while there is much to know again.

use std::io;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::client;
use crate::large_store;
use crate::processes;
use crate::report::Row;
use crate::service::{Scratch, Service, pause};
use crate::stats::{float64, median, millis, ratios, spread};
use crate::{Plan, note};

/// Bytes of a large spec: a body may have 1 MiB.
const SPEC: usize = 850_000;
/// Bytes of one variable; execve(2) takes at most 128 KiB.
const VARIABLE: usize = 85_000;

/// F9: jobs of which the server holds the specs. There are as many with small specs beside it, so that the
/// difference is the size and not the number.
pub(crate) fn size(plan: &Plan, rows: &mut Vec<Row>) -> io::Result<()> {
    let jobs = if plan.quick { 60 } else { 600 };
    let count = if plan.quick { 40 } else { 200 };
    let rounds = plan.rounds.min(3);
    let (mut large, mut small, mut grown) = (vec![], vec![], vec![]);
    for round in 0..rounds {
        for (bytes, taken) in [(SPEC, &mut large), (0, &mut small)] {
            note(&format!("F9 round {}, specs of {bytes} bytes", round + 1));
            let scratch = Scratch::new()?;
            let service = Service::start(&scratch.state(), &["--max-running", "1000"])?;
            let server = service.server_pid()?;
            let before = processes::rss(server);
            start(&service, jobs, bytes)?;
            if bytes > 0 {
                let rss = processes::rss(server).saturating_sub(before);
                grown.push(float64(rss) / 1e3);
            }
            taken.push(median(&posts(&service, count, jobs)?));
        }
    }
    let ratio = ratios(&large, &small);
    rows.push(Row::new(
        "F9",
        format!(
            "F2 beside {jobs} running jobs with specs of {} kB, p50, {rounds} rounds",
            SPEC / 1000
        ),
        format!(
            "{} ms with a server that is {} MB larger = {} × with small specs, {} ms",
            spread(&large, 2),
            spread(&grown, 0),
            spread(&ratio, 2),
            spread(&small, 2)
        ),
        "≤ 1.2 × with small specs",
        Some(median(&ratio) <= 1.2),
    ));
    Ok(())
}

/// Starts jobs that sleep, with so many bytes in the environment of each.
fn start(service: &Service, jobs: usize, bytes: usize) -> io::Result<()> {
    let env: serde_json::Map<String, serde_json::Value> = (0..bytes / VARIABLE)
        .map(|number| (format!("FILL_{number}"), "x".repeat(VARIABLE).into()))
        .collect();
    let spec = serde_json::json!({"command": ["/bin/sleep", "100000"], "env": env}).to_string();
    let request = service.submission("", &spec);
    let mut left = jobs;
    let load = client::drive(service.address, 4, || {
        left = left.checked_sub(1)?;
        Some(request.clone())
    })?;
    if load.refused > 0 {
        return Err(io::Error::other(format!(
            "{} submissions were refused",
            load.refused
        )));
    }
    Ok(())
}

/// F2: one client, each job alone beside those that sleep.
fn posts(service: &Service, count: usize, sleeping: usize) -> io::Result<Vec<f64>> {
    let mut connection = service.connect()?;
    let request = service.short_job("");
    let mut taken = Vec::with_capacity(count);
    for _ in 0..count {
        let begin = Instant::now();
        let answer = connection.exchange(&request)?;
        taken.push(millis(begin.elapsed()));
        if answer.status != 201 {
            return Err(io::Error::other(answer.body));
        }
        service.wait_for_live(sleeping)?;
    }
    Ok(taken)
}

/// A killed server, until its successor shows every running job.
pub(crate) fn recovery(plan: &Plan, rows: &mut Vec<Row>) -> io::Result<()> {
    let finished = if plan.quick { 10_000 } else { 100_000 };
    let running = if plan.quick { 100 } else { 1000 };
    let rounds = plan.rounds;
    let scratch = Scratch::new()?;
    // The service makes its directory and its token.
    drop(Service::start(&scratch.state(), &[])?);
    note(&format!("recovery fills a store with {finished} jobs"));
    large_store::fill(&scratch.state(), finished)?;
    let mut taken = vec![];
    for round in 0..rounds {
        note(&format!("recovery round {}", round + 1));
        let service = Service::start(&scratch.state(), &["--max-running", "1200"])?;
        service.start_sleepers(running)?;
        let server = i32::try_from(service.server_pid()?).map_err(io::Error::other)?;
        kill(Pid::from_raw(server), Signal::SIGKILL)?;
        taken.push(until_known(&service, running)?.as_secs_f64());
    }
    rows.push(Row::new(
        "Recovery",
        format!(
            "server killed with {running} running and {finished} finished jobs, until `GET /jobs` shows all that run"
        ),
        format!("{} s, {rounds} rounds", spread(&taken, 2)),
        "≤ 1 s",
        Some(median(&taken) <= 1.0),
    ));
    Ok(())
}

fn until_known(service: &Service, running: usize) -> io::Result<Duration> {
    let begin = Instant::now();
    loop {
        // A connection that the killed server had taken breaks.
        let jobs = service.jobs("state=running&page_size=1000");
        if jobs.is_ok_and(|jobs| jobs.len() == running) {
            return Ok(begin.elapsed());
        }
        if begin.elapsed() > Duration::from_secs(60) {
            return Err(io::Error::other("the jobs are not known again"));
        }
        pause(Duration::from_millis(1));
    }
}
