//! F14: what a collector of spans costs that takes connections and never answers: jobs per second, and processor time of
//! the server, of which other programs of the machine take less away.

use std::io;
use std::net::TcpListener;
use std::time::Instant;

use crate::processes;
use crate::report::Row;
use crate::service::{Scratch, Service};
use crate::stats::{float64, median, ratios, spread};
use crate::{Plan, note};

/// F14: with and without, in turn.
pub(crate) fn hanging_collector(plan: &Plan, rows: &mut Vec<Row>) -> io::Result<()> {
    // The kernel takes the connections; nobody reads them.
    let collector = TcpListener::bind("127.0.0.1:0")?;
    let endpoint = format!("http://{}", collector.local_addr()?);
    let (mut without, mut with, mut dropped) = (Loads::default(), Loads::default(), vec![]);
    for round in 0..plan.rounds {
        note(&format!("F14 round {}", round + 1));
        // Whoever is first finds a colder machine.
        for is_with in [round % 2 == 0, round % 2 != 0] {
            let scratch = Scratch::new()?;
            if !is_with {
                without.drive(plan, &Service::start(&scratch.state(), &[])?)?;
                continue;
            }
            let service = Service::start(&scratch.state(), &["--otlp-endpoint", &endpoint])?;
            with.drive(plan, &service)?;
            dropped.push(spans_dropped(&service)?);
        }
    }
    let by_without = ratios(&with.rates, &without.rates);
    rows.push(Row::new(
        "F14",
        format!(
            "F1 with a collector of spans that hangs, by F1 without one; {} spans dropped",
            spread(&dropped, 0)
        ),
        format!(
            "{} ({} and {} jobs/s)",
            spread(&by_without, 3),
            spread(&with.rates, 0),
            spread(&without.rates, 0)
        ),
        "≥ 0.98",
        Some(median(&by_without) >= 0.98 && dropped.iter().all(|count| *count > 0.0)),
    ));
    let by_without = ratios(&with.costs, &without.costs);
    rows.push(Row::new(
        "F14",
        "processor time of the server for a job with that collector, by that without one"
            .to_owned(),
        format!(
            "{} ({} and {} µs)",
            spread(&by_without, 3),
            spread(&with.costs, 0),
            spread(&without.costs, 0)
        ),
        "≤ 1.02",
        Some(median(&by_without) <= 1.02),
    ));
    Ok(())
}

/// What each load has shown.
#[derive(Default)]
struct Loads {
    /// Jobs per second.
    rates: Vec<f64>,
    /// Processor time of the server for a job, in microseconds.
    costs: Vec<f64>,
}

impl Loads {
    fn drive(&mut self, plan: &Plan, service: &Service) -> io::Result<()> {
        let server = service.server_pid()?;
        let (begin, before) = (Instant::now(), processes::cpu(server));
        let rate = service.throughput(plan.load, 0)?;
        let jobs = rate * begin.elapsed().as_secs_f64();
        let used = processes::cpu(server).saturating_sub(before);
        self.rates.push(rate);
        self.costs.push(float64(used) / 1000.0 / jobs);
        Ok(())
    }
}

/// As `/metrics` counts them.
fn spans_dropped(service: &Service) -> io::Result<f64> {
    let mut connection = service.connect()?;
    let answer = connection.exchange(&service.request("GET", "/metrics"))?;
    let series = r#"procession_spans_total{result="dropped"} "#;
    let found = answer
        .body
        .lines()
        .find_map(|line| line.strip_prefix(series));
    found.map_or(Ok(0.0), |count| count.parse().map_err(io::Error::other))
}
