//! F15: jobs that wait, and lists of those that have: a batch of 10 000, 100 000 that start tomorrow, and pages by queue,
//! name, batch, schedule and time.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use job::batch::Membership;
use job::schedule::Occurrence;
use job::time::Timestamp;
use job::{Job, JobId, Spec};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::report::Row;
use crate::service::{Scratch, Service, pause};
use crate::stats::{float, float64, median, millis, percentile, spread};
use crate::{Plan, large_store, note, processes};

/// How many jobs a batch has.
const BATCH: usize = 10_000;

/// How long a server is waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// F15.
pub(crate) fn figures(plan: &Plan, rows: &mut Vec<Row>) -> io::Result<()> {
    batches(plan, rows)?;
    tomorrow(plan, rows)?;
    lists(plan, rows)
}

fn submit(service: &Service, jobs: &str) -> io::Result<Duration> {
    let body = format!("{{\"jobs\": {jobs}}}");
    let request = service.post("/batches", &body);
    let mut connection = service.connect()?;
    let begin = Instant::now();
    let answer = connection.exchange(&request)?;
    let took = begin.elapsed();
    if answer.status != 201 {
        return Err(io::Error::other(answer.body));
    }
    Ok(took)
}

fn batches(plan: &Plan, rows: &mut Vec<Row>) -> io::Result<()> {
    let held = |number: usize| {
        let after = number.checked_sub(1);
        let after = after.map(|it| format!(r#", "depends_on": [{{"key": "k{it}"}}]"#));
        format!(
            r#"{{"key": "k{number}", "command": ["/bin/true"], "hold": true{}}}"#,
            after.unwrap_or_default()
        )
    };
    let chain: Vec<String> = (0..BATCH).map(held).collect();
    let chain = format!("[{}]", chain.join(", "));
    let repeat =
        format!(r#"[{{"key": "a", "repeat": {BATCH}, "command": ["/bin/true"], "hold": true}}]"#);
    for (what, jobs) in [
        ("one entry, repeated", repeat),
        ("each waits for the one before", chain),
    ] {
        let mut taken = vec![];
        for _ in 0..plan.rounds {
            let scratch = Scratch::new()?;
            let service = Service::start(&scratch.state(), &[])?;
            taken.push(submit(&service, &jobs)?.as_secs_f64());
        }
        rows.push(Row::new(
            "F15",
            format!("`POST /batches` of {BATCH} jobs, {what}"),
            format!("{} s", spread(&taken, 2)),
            "≤ 1.5 s",
            Some(median(&taken) <= 1.5),
        ));
    }
    Ok(())
}

fn tomorrow(plan: &Plan, rows: &mut Vec<Row>) -> io::Result<()> {
    let count = if plan.quick { 20_000 } else { 100_000 };
    let at = linux::clock::wall().after(Duration::from_secs(86_400));
    let jobs = format!(
        r#"[{{"key": "a", "repeat": {BATCH}, "command": ["/bin/true"], "run_at": "{at}"}}]"#
    );
    let scratch = Scratch::new()?;
    let service = Service::start(&scratch.state(), &["--max-queued", "200000"])?;
    waiting(&service)?;
    let empty = processes::rss(service.server_pid()?);
    for _ in 0..count / BATCH {
        submit(&service, &jobs)?;
    }
    // What a request has used is given back within a second.
    pause(Duration::from_secs(2));
    let grown = |pid: u32| float64(processes::rss(pid).saturating_sub(empty)) / 1e3;
    let before = grown(service.server_pid()?);
    let (mut ready, mut after) = (vec![], vec![]);
    for round in 0..plan.rounds {
        note(&format!("F15 kill {}", round + 1));
        let old = service.server_pid()?;
        let pid = i32::try_from(old).map_err(io::Error::other)?;
        let begin = Instant::now();
        kill(Pid::from_raw(pid), Signal::SIGKILL)?;
        while waiting(&service).ok() != Some(count) {
            if begin.elapsed() > PATIENCE {
                return Err(io::Error::other("the server does not come back"));
            }
            pause(Duration::from_millis(2));
        }
        ready.push(begin.elapsed().as_secs_f64());
        after.push(grown(service.server_pid()?));
    }
    let each = before * 1e6 / float(count);
    rows.push(Row::new(
        "F15",
        format!(
            "{count} jobs with `run_at` tomorrow: RSS of the server above that of an empty one"
        ),
        format!(
            "{before:.0} MB, {each:.0} bytes a job; after a kill {} MB",
            spread(&after, 0)
        ),
        "< 60 MB",
        Some(before < 60.0 && median(&after) < 60.0),
    ));
    rows.push(Row::new(
        "F15",
        "the same: server killed, until its successor answers and knows all of them",
        format!("{} s", spread(&ready, 2)),
        "≤ 2 s",
        Some(median(&ready) <= 2.0),
    ));
    Ok(())
}

/// How many jobs wait, by the service.
fn waiting(service: &Service) -> io::Result<usize> {
    let request = service.request("GET", "/info");
    let answer = service.connect()?.exchange(&request)?;
    let info: serde_json::Value = serde_json::from_str(&answer.body).map_err(io::Error::other)?;
    let queued = info["jobs"]["queued"].as_u64();
    let queued = queued.and_then(|it| usize::try_from(it).ok());
    queued.ok_or_else(|| io::Error::other(answer.body))
}

/// When a job was made, and its id: one every half second up to now, as a service lives.
fn made(number: usize, now: Timestamp) -> (Timestamp, JobId) {
    let number = i64::try_from(number).unwrap_or_default();
    let at = Timestamp::from_micros(now.as_micros() - (1_000_000 - number) * 500_000);
    let mut id = [0; 16];
    id[..6].copy_from_slice(&(at.as_micros() / 1000).to_be_bytes()[2..]);
    id[6] = 0x70;
    id[8..].copy_from_slice(&(number | i64::MIN).to_be_bytes());
    (at, JobId::from_bytes(id))
}

/// A finished job of one of eight queues, or of a rare one; half of them have names of their own, the others one of a
/// thousand; a quarter is of batches of a thousand, a quarter of twenty schedules.
fn listed(number: usize, specs: &[Arc<Spec>], batch: &Cell<JobId>) -> Job {
    let queue = match number {
        _ if number % 10_000 == 7 => 8,
        _ => number % 8,
    };
    let mut job = large_store::finished(number, &specs[queue]);
    (job.created_at, job.id) = made(number, job.created_at);
    if number % 2 == 1 {
        job.name = Some(format!("nightly-{}", number % 1000));
    }
    if number.is_multiple_of(4000) {
        batch.set(job.id);
    }
    match number % 4 {
        1 => {
            job.batch = Some(Membership {
                id: batch.get(),
                key: "shard".to_owned(),
                group: 0,
                index: 0,
                count: 1000,
                max_running: None,
            });
        }
        2 => {
            job.schedule = Some(Occurrence {
                name: format!("schedule-{}", number / 4 % 20),
                due_at: Some(job.created_at),
            });
        }
        _ => {}
    }
    job
}

fn lists(plan: &Plan, rows: &mut Vec<Row>) -> io::Result<()> {
    let count = if plan.quick { 50_000 } else { 1_000_000 };
    let scratch = Scratch::new()?;
    // The service makes its directory and its token.
    drop(Service::start(&scratch.state(), &[])?);
    note(&format!("F15 fills a store with {count} jobs"));
    let specs: Vec<Arc<Spec>> = (0..9)
        .map(|number| {
            let queue = match number {
                8 => "rare".to_owned(),
                _ => format!("q{number}"),
            };
            Arc::new(Spec {
                queue,
                ..large_store::spec()
            })
        })
        .collect();
    let batch = Cell::new(JobId::generate());
    let middle = Cell::new((batch.get(), linux::clock::wall()));
    large_store::fill_with(&scratch.state(), count, |number| {
        let job = listed(number, &specs, &batch);
        if number == count / 2 {
            middle.set((batch.get(), job.created_at));
        }
        job
    })?;
    let (batch, moment) = middle.get();
    let service = Service::start(&scratch.state(), &[])?;
    let queries: [(&str, &dyn Fn(usize) -> String); 8] = [
        ("a queue", &|number| format!("queue=q{}", number % 8)),
        ("a rare queue", &|_| "queue=rare".to_owned()),
        ("a name", &|number| {
            format!("name_prefix=nightly-{}", 101 + number * 2)
        }),
        ("names of 11 %", &|number| {
            format!("name_prefix=nightly-{}", 1 + number % 9)
        }),
        ("names of half of them", &|_| "name_prefix=job-".to_owned()),
        ("a batch", &|_| format!("batch={batch}")),
        ("a schedule", &|number| {
            format!("schedule=schedule-{}", number % 20)
        }),
        ("a time", &|_| format!("created_before={moment}")),
    ];
    for (what, query) in queries {
        let taken = pages(&service, query)?;
        let p99 = percentile(&taken, 0.99);
        rows.push(Row::new(
            "F15",
            format!("{count} finished jobs: page of 100 by {what}, p99 of 200"),
            format!("{p99:.2} ms (p50 {:.2})", median(&taken)),
            "< 10 ms",
            Some(p99 < 10.0),
        ));
    }
    Ok(())
}

fn pages(service: &Service, query: &dyn Fn(usize) -> String) -> io::Result<Vec<f64>> {
    let mut connection = service.connect()?;
    let mut taken = Vec::new();
    for number in 0..200 {
        let target = format!("/jobs?page_size=100&{}", query(number));
        let request = service.request("GET", &target);
        let begin = Instant::now();
        let answer = connection.exchange(&request)?;
        taken.push(millis(begin.elapsed()));
        if answer.status != 200 || !answer.body.contains("\"version\"") {
            return Err(io::Error::other(format!("{target}: {}", answer.status)));
        }
    }
    Ok(taken)
}
