//! F5 and F6: how fast output goes to disk and comes back.

use std::fs;
use std::io;
use std::process::Command;
use std::time::Instant;

use crate::baseline;
use crate::report::Row;
use crate::service::{Scratch, Service};
use crate::stats::{float64, median, ratios, spread};
use crate::{Plan, note};

const BLOCK: u64 = 1 << 18;

fn writer(bytes: u64) -> [String; 5] {
    [
        "/bin/dd".to_owned(),
        "if=/dev/zero".to_owned(),
        format!("bs={BLOCK}"),
        format!("count={}", bytes / BLOCK),
        "status=none".to_owned(),
    ]
}

/// Runs `jobs` writers of `bytes` each; returns the seconds until the last is finished, and an id.
pub(crate) fn through_service(
    service: &Service,
    jobs: u64,
    bytes: u64,
) -> io::Result<(f64, String)> {
    let spec = serde_json::json!({
        "command": writer(bytes),
        "output": {"max_bytes": bytes + (64 << 20)},
    })
    .to_string();
    let one = || -> io::Result<String> {
        let mut connection = service.connect()?;
        let answer = connection.exchange(&service.submission("?wait=60", &spec))?;
        let mut job: serde_json::Value =
            serde_json::from_str(&answer.body).map_err(io::Error::other)?;
        let id = job["id"].as_str().unwrap_or_default().to_owned();
        while job["finished_at"].is_null() {
            let request = service.request("GET", &format!("/jobs/{id}?wait=60"));
            let answer = connection.exchange(&request)?;
            job = serde_json::from_str(&answer.body).map_err(io::Error::other)?;
        }
        if job["output"]["stdout_bytes"].as_u64() != Some(bytes) {
            return Err(io::Error::other(format!("output of {job}")));
        }
        Ok(id)
    };
    let begin = Instant::now();
    let ids = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs).map(|_| scope.spawn(one)).collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(io::Error::other("a client panicked")))
            })
            .collect::<io::Result<Vec<_>>>()
    })?;
    let taken = begin.elapsed().as_secs_f64();
    Ok((taken, ids.into_iter().next().unwrap_or_default()))
}

fn through_splice(jobs: u64, bytes: u64) -> io::Result<f64> {
    let pump = baseline::compile("splice")?;
    let scratch = Scratch::new()?;
    let begin = Instant::now();
    let mut pumps = Vec::new();
    for number in 0..jobs {
        pumps.push(
            Command::new(&pump)
                .arg(scratch.path().join(number.to_string()))
                .args(writer(bytes))
                .stdout(std::process::Stdio::null())
                .spawn()?,
        );
    }
    for mut pump in pumps {
        if !pump.wait()?.success() {
            return Err(io::Error::other("a pump failed"));
        }
    }
    Ok(begin.elapsed().as_secs_f64())
}

/// F5.
pub(crate) fn writing(plan: &Plan, rows: &mut Vec<Row>) -> io::Result<()> {
    let total: u64 = if plan.quick { 512 << 20 } else { 4 << 30 };
    let rounds = plan.rounds.min(3);
    for jobs in [1, 8] {
        let (mut ours, mut theirs) = (vec![], vec![]);
        for round in 0..rounds {
            note(&format!("F5 with {jobs} jobs, round {}", round + 1));
            let scratch = Scratch::new()?;
            let service = Service::start(&scratch.state(), &[])?;
            let (taken, _) = through_service(&service, jobs, total / jobs)?;
            ours.push(float64(total) / 1e9 / taken);
            drop(service);
            drop(scratch);
            theirs.push(float64(total) / 1e9 / through_splice(jobs, total / jobs)?);
        }
        note(&format!("F5 {ours:.2?} splice {theirs:.2?}"));
        let ratio = ratios(&ours, &theirs);
        let what = if jobs == 1 {
            "one job writes".to_owned()
        } else {
            format!("{jobs} jobs write together")
        };
        rows.push(Row::new(
            "F5",
            format!(
                "{what} {} MiB through a pipe to the disk, synced, {rounds} rounds",
                total >> 20
            ),
            format!(
                "{} GB/s = {} × C splice pump, {} GB/s",
                spread(&ours, 2),
                spread(&ratio, 2),
                spread(&theirs, 2)
            ),
            "≥ 0.9 × pump",
            Some(median(&ratio) >= 0.9),
        ));
    }
    Ok(())
}

/// F6.
pub(crate) fn reading(plan: &Plan, rows: &mut Vec<Row>) -> io::Result<()> {
    let bytes: u64 = if plan.quick { 256 << 20 } else { 1 << 30 };
    let scratch = Scratch::new()?;
    let service = Service::start(&scratch.state(), &[])?;
    let (_, id) = through_service(&service, 1, bytes)?;
    let mut rates = vec![];
    for round in 0..plan.rounds {
        note(&format!("F6 round {}", round + 1));
        let begin = Instant::now();
        let request = service.request("GET", &format!("/jobs/{id}/output/stdout"));
        let got = service.connect()?.download(&request)?;
        rates.push(float64(got) / 1e9 / begin.elapsed().as_secs_f64());
        if got != bytes {
            return Err(io::Error::other(format!("{got} of {bytes} bytes")));
        }
    }
    rows.push(Row::new(
        "F6",
        format!("download of {} MiB of raw output", bytes >> 20),
        format!("{} GB/s", spread(&rates, 2)),
        "≥ 1 GB/s",
        Some(median(&rates) >= 1.0),
    ));
    drop(service);
    fs::remove_dir_all(scratch.state())
}
