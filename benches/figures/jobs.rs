//! F1, F2 and F12: how many jobs in a second, how soon one is started and over, and whether that stays so.

use std::io;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit};

use crate::baseline::{self, Rival};
use crate::report::Row;
use crate::service::{Scratch, Service, pause};
use crate::stats::{median, millis, percentile, ratios, spread};
use crate::{Plan, note};

/// F1, and the table of baselines.
pub(crate) fn throughput(
    plan: &Plan,
    rows: &mut Vec<Row>,
    baselines: &mut Vec<(String, String)>,
) -> io::Result<()> {
    let limit = baseline::compile("limit")?;
    let python = baseline::naive_python();
    let has_webhook = baseline::have("webhook");
    let has_spooler = baseline::have("tsp");
    let mut no_pueue = (!baseline::have("pueue") || !baseline::have("pueued"))
        .then(|| "not in `PATH`, where `make bench` puts it".to_owned());
    let seconds = plan.load.as_secs_f64();
    let short = plan.load / 2;
    let (mut ours, mut most, mut naive, mut webhook, mut spooler, mut pueue) =
        (vec![], vec![], vec![], vec![], vec![], vec![]);
    for round in 0..plan.rounds {
        note(&format!("F1 round {}", round + 1));
        let scratch = Scratch::new()?;
        ours.push(Service::start(&scratch.state(), &[])?.throughput(plan.load, 0)?);
        most.extend(baseline::numbers(
            Command::new(&limit).arg(short.as_secs_f64().to_string()),
        )?);
        if let Ok(python) = &python {
            naive.push(Rival::naive(python)?.throughput(short)?);
        }
        if has_webhook {
            webhook.push(Rival::webhook()?.throughput(short)?);
        }
        if has_spooler {
            spooler.push(baseline::task_spooler(200)?);
        }
        if no_pueue.is_none() {
            match baseline::pueue(40) {
                Ok(rate) => pueue.push(rate),
                Err(error) => no_pueue = Some(error.to_string()),
            }
        }
    }
    note(&format!(
        "F1 {ours:.0?} limit {most:.0?} naive {naive:.0?} webhook {webhook:.0?} pueue {pueue:.1?}"
    ));
    let by_limit = ratios(&ours, &most);
    rows.push(Row::new(
        "F1",
        format!(
            "`POST /jobs` of `/bin/true`, 16 connections, {seconds:.0} s, until all are committed"
        ),
        format!(
            "{} jobs/s = {} × limit",
            spread(&ours, 0),
            spread(&by_limit, 2)
        ),
        "≥ 0.7 × limit",
        Some(median(&by_limit) >= 0.7),
    ));
    if webhook.is_empty() {
        rows.push(Row::missing(
            "F1",
            "the same by webhook",
            "≥ 1",
            "`apt-get install webhook`",
        ));
    } else {
        let by_webhook = ratios(&ours, &webhook);
        rows.push(Row::new(
            "F1",
            "the same by webhook",
            spread(&by_webhook, 2),
            "≥ 1",
            Some(median(&by_webhook) >= 1.0),
        ));
    }
    let missing = |why: &str| format!("not measured: {why}");
    let rate = |values: &[f64], why: &str| {
        if values.is_empty() {
            missing(why)
        } else {
            format!("{} jobs/s", spread(values, 0))
        }
    };
    let no_python = python.err().unwrap_or_default();
    baselines.extend([
        (
            "limit: `posix_spawn` of `/bin/true` in its own session, 4 at a time".to_owned(),
            rate(&most, ""),
        ),
        (
            "naive: FastAPI, uvicorn, `Popen(start_new_session=True)`, a dict".to_owned(),
            rate(&naive, &no_python),
        ),
        (
            "webhook running `/bin/true`".to_owned(),
            rate(&webhook, "`apt-get install webhook`"),
        ),
        (
            "task-spooler, 4 slots, by its client".to_owned(),
            rate(&spooler, "`apt-get install task-spooler`"),
        ),
        (
            "pueue, 4 slots, by its client".to_owned(),
            rate(&pueue, no_pueue.as_deref().unwrap_or_default()),
        ),
    ]);
    Ok(())
}

/// F2.
pub(crate) fn latency(plan: &Plan, rows: &mut Vec<Row>) -> io::Result<()> {
    let limit = baseline::compile("limit")?;
    let python = baseline::naive_python();
    let count = if plan.quick { 100 } else { 400 };
    let scratch = Scratch::new()?;
    let service = Service::start(&scratch.state(), &[])?;
    let (mut start50, mut start99, mut end50, mut end99) = (vec![], vec![], vec![], vec![]);
    let mut spaced50 = vec![];
    let (mut limits, mut naive) = (vec![], vec![]);
    for round in 0..plan.rounds {
        note(&format!("F2 round {}", round + 1));
        let mut connection = service.connect()?;
        let mut measure = |request: &[u8], gap: Option<Duration>, count| -> io::Result<Vec<f64>> {
            let mut taken = Vec::with_capacity(count);
            for _ in 0..count {
                let begin = Instant::now();
                let answer = connection.exchange(request)?;
                taken.push(millis(begin.elapsed()));
                if answer.status != 201 {
                    return Err(io::Error::other(answer.body));
                }
                if let Some(gap) = gap {
                    // The end of this job is not the next one's business.
                    service.wait_for_live(0)?;
                    pause(gap);
                }
            }
            Ok(taken)
        };
        let started = measure(&service.short_job(""), Some(Duration::ZERO), count)?;
        let ended = measure(&service.short_job("?wait=10"), None, count)?;
        // What the kernel keeps warm under load is cold when jobs are rare.
        let gap = Some(Duration::from_millis(30));
        spaced50.push(median(&measure(&service.short_job(""), gap, count / 8)?));
        start50.push(median(&started));
        start99.push(percentile(&started, 0.99));
        end50.push(median(&ended));
        end99.push(percentile(&ended, 0.99));
        let spawned = baseline::numbers(Command::new(&limit).args(["-l", &count.to_string()]))?;
        limits.push(spawned.first().copied().unwrap_or(f64::NAN) / 1e3);
        if let Ok(python) = &python {
            naive.push(naive_latency(python, count)?);
        }
    }
    let by_limit = ratios(&end50, &limits);
    let beside = if naive.is_empty() {
        String::new()
    } else {
        format!("; naive, which only forks, {} ms", spread(&naive, 2))
    };
    rows.push(Row::new(
        "F2",
        "one client: `POST` → 201 with the PID, p50",
        format!("{} ms{beside}", spread(&start50, 2)),
        "≤ 1.5 ms",
        Some(median(&start50) <= 1.5),
    ));
    rows.push(Row::new(
        "F2",
        "the same with 30 ms between jobs, p50",
        format!("{} ms", spread(&spaced50, 2)),
        "≤ 1.5 ms",
        Some(median(&spaced50) <= 1.5),
    ));
    rows.push(Row::new(
        "F2",
        "the same without a pause, p99",
        format!("{} ms", spread(&start99, 2)),
        "–",
        None,
    ));
    rows.push(Row::new(
        "F2",
        "one client: `POST?wait` → finished and durable, p50",
        format!(
            "{} ms (p99 {:.2}) = {} × spawn and wait of the limit, {} ms",
            spread(&end50, 2),
            median(&end99),
            spread(&by_limit, 2),
            spread(&limits, 2)
        ),
        "≤ 2.5 × limit",
        Some(median(&by_limit) <= 2.5),
    ));
    Ok(())
}

fn naive_latency(python: &Path, count: usize) -> io::Result<f64> {
    let rival = Rival::naive(python)?;
    let mut connection = crate::client::Connection::open(rival.address)?;
    let request = rival.request();
    let mut taken = Vec::with_capacity(count);
    for _ in 0..count {
        let begin = Instant::now();
        connection.exchange(&request)?;
        taken.push(millis(begin.elapsed()));
    }
    Ok(median(&taken))
}

/// F12.
pub(crate) fn growth(plan: &Plan, rows: &mut Vec<Row>) -> io::Result<()> {
    let wanted: &[usize] = if plan.quick {
        &[10, 100, 1000]
    } else {
        &[10, 100, 1000, 5000]
    };
    // The supervisor has four descriptors of a running job, and some for the jobs that are started beside them.
    let (_, files) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let (levels, beyond): (Vec<usize>, Vec<usize>) = wanted
        .iter()
        .partition(|level| u64::try_from(**level * 4 + 512).is_ok_and(|needed| needed <= files));
    let rounds = plan.rounds.min(3);
    let mut rates = vec![vec![]; levels.len()];
    for round in 0..rounds {
        let scratch = Scratch::new()?;
        let service = Service::start(&scratch.state(), &["--max-running", "6000"])?;
        let mut running = 0;
        for (level, rates) in levels.iter().zip(&mut rates) {
            note(&format!("F12 round {}, {level} running", round + 1));
            service.start_sleepers(level - running)?;
            running = *level;
            rates.push(service.throughput(Duration::from_secs(2), running)?);
        }
    }
    let of_first: Vec<Vec<f64>> = rates.iter().map(|level| ratios(level, &rates[0])).collect();
    let mut text: Vec<String> = levels
        .iter()
        .zip(&rates)
        .zip(&of_first)
        .map(|((level, rates), ratio)| {
            format!("{level}: {} (× {:.2})", spread(rates, 0), median(ratio))
        })
        .collect();
    text.extend(beyond.iter().map(|level| {
        format!("{level}: not measured, {files} open files are the most here (`ulimit -Hn`)")
    }));
    let worst = of_first
        .iter()
        .map(|level| median(level))
        .fold(f64::INFINITY, f64::min);
    rows.push(Row::new(
        "F12",
        format!("jobs/s beside so many that sleep, 2 s each, {rounds} rounds"),
        text.join(", "),
        "flat within 20 %",
        Some(worst >= 0.8),
    ));
    Ok(())
}
