//! F14: what a collector of spans costs that takes connections and never answers.

use std::io;
use std::net::TcpListener;

use crate::report::Row;
use crate::service::{Scratch, Service};
use crate::stats::{median, ratios, spread};
use crate::{Plan, note};

/// F14: jobs per second with and without, in turn.
pub(crate) fn hanging_collector(plan: &Plan, rows: &mut Vec<Row>) -> io::Result<()> {
    // The kernel takes the connections; nobody reads them.
    let collector = TcpListener::bind("127.0.0.1:0")?;
    let endpoint = format!("http://{}", collector.local_addr()?);
    let (mut without, mut with, mut dropped) = (vec![], vec![], vec![]);
    for round in 0..plan.rounds {
        note(&format!("F14 round {}", round + 1));
        // Whoever is first finds a colder machine.
        for is_with in [round % 2 == 0, round % 2 != 0] {
            let scratch = Scratch::new()?;
            if !is_with {
                without.push(Service::start(&scratch.state(), &[])?.throughput(plan.load, 0)?);
                continue;
            }
            let service = Service::start(&scratch.state(), &["--otlp-endpoint", &endpoint])?;
            with.push(service.throughput(plan.load, 0)?);
            dropped.push(spans_dropped(&service)?);
        }
    }
    let by_without = ratios(&with, &without);
    rows.push(Row::new(
        "F14",
        format!(
            "F1 with a collector of spans that hangs, by F1 without one; {} spans dropped",
            spread(&dropped, 0)
        ),
        format!(
            "{} ({} and {} jobs/s)",
            spread(&by_without, 3),
            spread(&with, 0),
            spread(&without, 0)
        ),
        "≥ 0.98",
        Some(median(&by_without) >= 0.98 && dropped.iter().all(|count| *count > 0.0)),
    ));
    Ok(())
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
