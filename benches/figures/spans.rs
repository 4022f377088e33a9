//! F14: what a collector of spans costs that takes connections and never answers: jobs per second, and processor time of
//! the server, of which other programs of the machine take less away.

use std::io;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::processes;
use crate::report::Row;
use crate::service::{Scratch, Service};
use crate::stats::{float64, median, ratios, spread};
use crate::{Plan, note};

/// Short turns, so that what else the machine does meets all services alike.
const TURNS: u32 = 8;

/// F14: three services beside each other, in turn: with the collector, without one, and another without one. Two services that
/// do the same differ by some percent, as their memory happens to lie: that is what the figure can be trusted to.
pub(crate) fn hanging_collector(plan: &Plan, rows: &mut Vec<Row>) -> io::Result<()> {
    // The kernel takes the connections; nobody reads them.
    let collector = TcpListener::bind("127.0.0.1:0")?;
    let endpoint = format!("http://{}", collector.local_addr()?);
    let (mut with, mut without, mut control) =
        (Loads::default(), Loads::default(), Loads::default());
    let mut dropped = vec![];
    for round in 0..plan.rounds {
        note(&format!("F14 round {}", round + 1));
        let places = [Scratch::new()?, Scratch::new()?, Scratch::new()?];
        let start = |place: &Scratch, options: &[&str]| Service::start(&place.state(), options);
        let hangs = start(&places[0], &["--otlp-endpoint", &endpoint])?;
        let services = [&hangs, &start(&places[1], &[])?, &start(&places[2], &[])?];
        let mut sums = [Sum::default(), Sum::default(), Sum::default()];
        for turn in 0..TURNS {
            // Whoever is first finds a colder machine.
            let mut order = [0, 1, 2];
            order.rotate_left(usize::try_from(turn % 3).unwrap_or_default());
            for service in order {
                sums[service].drive(plan.load / TURNS, services[service])?;
            }
        }
        for (sum, loads) in sums.iter().zip([&mut with, &mut without, &mut control]) {
            loads.add(sum);
        }
        dropped.push(spans_dropped(&hangs)?);
    }
    let by_without = ratios(&with.rates, &without.rates);
    rows.push(Row::new(
        "F14",
        format!(
            "F1 with a collector of spans that hangs, by F1 without one; {} spans dropped",
            spread(&dropped, 0)
        ),
        format!(
            "{} ({} and {} jobs/s); {} of two without one",
            spread(&by_without, 3),
            spread(&with.rates, 0),
            spread(&without.rates, 0),
            spread(&ratios(&control.rates, &without.rates), 3)
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
            "{} ({} and {} µs); {} of two without one",
            spread(&by_without, 3),
            spread(&with.costs, 0),
            spread(&without.costs, 0),
            spread(&ratios(&control.costs, &without.costs), 3)
        ),
        "≤ 1.02",
        Some(median(&by_without) <= 1.02),
    ));
    Ok(())
}

/// What the turns of one service were together.
#[derive(Default)]
struct Sum {
    jobs: f64,
    seconds: f64,
    /// Processor time of the server, in microseconds.
    used: f64,
}

impl Sum {
    fn drive(&mut self, time: Duration, service: &Service) -> io::Result<()> {
        let server = service.server_pid()?;
        let (begin, before) = (Instant::now(), processes::cpu(server));
        let rate = service.throughput(time, 0)?;
        let seconds = begin.elapsed().as_secs_f64();
        let used = processes::cpu(server).saturating_sub(before);
        self.jobs += rate * seconds;
        self.seconds += seconds;
        self.used += float64(used) / 1000.0;
        Ok(())
    }
}

/// What each round has shown.
#[derive(Default)]
struct Loads {
    /// Jobs per second.
    rates: Vec<f64>,
    /// Processor time of the server for a job, in microseconds.
    costs: Vec<f64>,
}

impl Loads {
    fn add(&mut self, sum: &Sum) {
        self.rates.push(sum.jobs / sum.seconds);
        self.costs.push(sum.used / sum.jobs);
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
