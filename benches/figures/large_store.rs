//! F8: a store with a million finished jobs against an empty one.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use job::spec::{Program, Secrets};
use job::{
    Cause, Exit, ExitStatus, Job, JobId, OutputTotals, Process, Spec, State, Termination, Usage,
};
use store::Store;

use crate::report::Row;
use crate::service::{Scratch, Service};
use crate::stats::{float, float64, median, millis, percentile, ratios, spread};
use crate::{Plan, note};

/// The database in the state directory.
const FILE: &str = "procession.db";

/// A finished job as a busy service leaves them: every tenth failed, one label out of ten values.
pub(crate) fn finished(number: usize, spec: &Arc<Spec>) -> Job {
    let now = linux::clock::wall();
    let failed = number.is_multiple_of(10);
    Job {
        id: JobId::generate(),
        name: Some(format!("job-{number}")),
        labels: [("team".to_owned(), format!("team-{}", number / 10 % 10))].into(),
        created_by: "token:default".to_owned(),
        rerun_of: None,
        trace: None,
        run_at: None,
        hold: false,
        schedule: None,
        spec: Arc::clone(spec),
        depends_on: Vec::new(),
        batch: None,
        version: 3,
        state: if failed {
            State::Failed
        } else {
            State::Succeeded
        },
        message: None,
        created_at: now,
        started_at: Some(now),
        finished_at: Some(now),
        expires_at: Some(now.after(Duration::from_secs(604_800))),
        deadline_at: None,
        warned_at: None,
        ready_at: None,
        not_ready_at: None,
        ready_message: None,
        process: Some(Process {
            unwatched: None,
            pid: 12_345,
            started_at: now,
            start_ticks: 123_456,
            monitor_pid: 12_344,
            used_before: (0, 0),
            executable: Some("/bin/true".to_owned()),
            cgroup: None,
            sandbox: None,
        }),
        attempt: 1,
        attempts: Vec::new(),
        artifacts: None,
        uploads: None,
        claim: None,
        late: None,
        next_attempt_at: None,
        exit: Some(Exit {
            status: ExitStatus::Code(u8::from(failed)),
            at: now,
            oom_killed: None,
        }),
        termination: Some(Termination::unasked(Cause::Exited)),
        spawn_failure: None,
        usage: Some(Usage {
            user_cpu_seconds: 0.001_234,
            system_cpu_seconds: 0.000_567,
            max_rss_bytes: 1_843_200,
            max_memory_bytes: None,
        }),
        output: OutputTotals {
            complete: true,
            ..OutputTotals::default()
        },
        survivors: Vec::new(),
    }
}

/// Puts so many finished jobs into the store of a state directory.
pub(crate) fn fill(state: &Path, count: usize) -> io::Result<()> {
    let spec = Arc::new(spec());
    fill_with(state, count, |number| finished(number, &spec))
}

/// What each of them has run.
pub(crate) fn spec() -> Spec {
    Spec {
        program: Program::Command {
            command: vec!["/bin/true".to_owned()],
        },
        ..Spec::default()
    }
}

/// The same with jobs of another make.
pub(crate) fn fill_with(state: &Path, count: usize, make: impl Fn(usize) -> Job) -> io::Result<()> {
    let path = &state.join(FILE);
    let runtime = tokio::runtime::Runtime::new()?;
    let store = Store::open(path).map_err(io::Error::other)?;
    let mut number = 0;
    while number < count {
        let batch = (number..count.min(number + 4096)).map(|number| {
            let job = Arc::new(make(number));
            store.insert(job, Secrets::default(), None, Vec::new())
        });
        number += batch.len();
        for inserted in runtime.block_on(futures_util::future::join_all(batch)) {
            inserted.map_err(io::Error::other)?;
        }
    }
    store.close();
    Ok(())
}

/// F8.
pub(crate) fn figures(plan: &Plan, rows: &mut Vec<Row>) -> io::Result<()> {
    let count = if plan.quick { 50_000 } else { 1_000_000 };
    let rounds = plan.rounds;
    let large = Scratch::new()?;
    // The service makes its directory and its token.
    drop(Service::start(&large.state(), &[])?);
    note(&format!("F8 fills a store with {count} jobs"));
    let begin = Instant::now();
    fill(&large.state(), count)?;
    let filled = float(count) / begin.elapsed().as_secs_f64();
    let per_job = float64(fs::metadata(large.state().join(FILE))?.len()) / float(count);
    let (mut full, mut empty, mut ready, mut p99, mut p50) =
        (vec![], vec![], vec![], vec![], vec![]);
    for round in 0..rounds {
        note(&format!("F8 round {}", round + 1));
        let service = Service::start(&large.state(), &[])?;
        ready.push(service.ready_after.as_secs_f64());
        let taken = pages(&service)?;
        p99.push(percentile(&taken, 0.99));
        p50.push(median(&taken));
        full.push(service.throughput(plan.load / 2, 0)?);
        drop(service);
        let scratch = Scratch::new()?;
        empty.push(Service::start(&scratch.state(), &[])?.throughput(plan.load / 2, 0)?);
    }
    let ratio = ratios(&full, &empty);
    rows.push(Row::new(
        "F8",
        format!("{count} finished jobs: page of 100 by state and label, p99 of 200"),
        format!("{} ms (p50 {:.2})", spread(&p99, 2), median(&p50)),
        "< 10 ms",
        Some(median(&p99) < 10.0),
    ));
    rows.push(Row::new(
        "F8",
        "the same store: throughput of F1 by that of an empty store",
        format!(
            "{} ({:.0} and {:.0} jobs/s)",
            spread(&ratio, 2),
            median(&full),
            median(&empty)
        ),
        "≥ 0.95",
        Some(median(&ratio) >= 0.95),
    ));
    rows.push(Row::new(
        "F8",
        "the same store: start to ready",
        format!("{} s", spread(&ready, 3)),
        "< 1 s",
        Some(median(&ready) < 1.0),
    ));
    rows.push(Row::new(
        "F8",
        "the same store: size of the file for a job",
        format!("{per_job:.0} bytes (written at {filled:.0} jobs/s)"),
        "< 1 kB",
        Some(per_job < 1000.0),
    ));
    Ok(())
}

/// Pages one after the other, from several labels.
fn pages(service: &Service) -> io::Result<Vec<f64>> {
    let mut connection = service.connect()?;
    let mut taken = Vec::new();
    for number in 0..200 {
        let target = format!(
            "/jobs?state=failed&label_selector=team%3Dteam-{}&page_size=100",
            number % 10
        );
        let request = service.request("GET", &target);
        let begin = Instant::now();
        let answer = connection.exchange(&request)?;
        taken.push(millis(begin.elapsed()));
        if answer.status != 200 || answer.body.matches("\"version\"").count() != 100 {
            return Err(io::Error::other(format!(
                "{target}: {} {}",
                answer.status,
                answer.body.get(..300).unwrap_or(&answer.body)
            )));
        }
    }
    Ok(taken)
}
