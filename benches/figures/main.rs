//! The benchmark: measures the figures of docs/benchmarks.md against baselines in the same run.
//!
//! `cargo bench --bench figures -- [--quick] [--dry] [F1 F2 … recovery million]`: `--quick` is for trying the benchmark
//! itself, `--dry` leaves the page as it is, and `million` is measured only if it is named. It starts the binary that users run, with their defaults, and
//! talks to it over HTTP; only F8, F15 and recovery fill a store beforehand.

mod baseline;
mod client;
mod cluster;
mod database;
mod events;
mod followers;
mod jobs;
mod large;
mod large_store;
mod million;
mod output;
mod page;
mod postgres;
mod processes;
mod report;
mod running;
mod service;
mod short;
mod simulation;
mod spans;
mod stats;
mod tools;
mod waiting;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use report::Row;

/// What takes so long that it is measured only if it is asked for.
const SELDOM: &str = "Million";

/// How much is measured.
pub(crate) struct Plan {
    /// Rounds of service and baselines in turn.
    pub(crate) rounds: usize,
    /// How long a load lasts.
    pub(crate) load: Duration,
    pub(crate) quick: bool,
}

/// Tells on standard error where the benchmark is.
pub(crate) fn note(text: &str) {
    // Nobody has to be watching.
    let _ = writeln!(io::stderr(), "bench: {text}");
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note(&format!("failed: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let quick = has("--quick");
    let figures: Vec<&String> = arguments
        .iter()
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let wanted = |names: &[&str]| {
        (figures.is_empty() && !names.contains(&SELDOM))
            || figures
                .iter()
                .any(|figure| names.iter().any(|name| name.eq_ignore_ascii_case(figure)))
    };
    let plan = Plan {
        rounds: if quick { 1 } else { 5 },
        load: Duration::from_secs(if quick { 2 } else { 8 }),
        quick,
    };
    let load_before = report::load_average();
    let begin = Instant::now();
    let mut rows = Vec::new();
    type Measure<'a> = &'a dyn Fn(&mut Vec<Row>) -> io::Result<()>;
    let found = std::cell::RefCell::new(Vec::new());
    let groups: [(&[&'static str], Measure<'_>); 22] = [
        (&["F1"], &|rows| {
            jobs::throughput(&plan, rows, &mut found.borrow_mut())
        }),
        (&["F2"], &|rows| jobs::latency(&plan, rows)),
        (&["F3", "F4"], &|rows| {
            running::memory_and_idleness(&plan, rows)
        }),
        (&["F5"], &|rows| output::writing(&plan, rows)),
        (&["F6"], &|rows| output::reading(&plan, rows)),
        (&["F6"], &|rows| followers::crowd(&plan, rows)),
        (&["F7"], &|rows| running::stop(&plan, rows)),
        (&["F8"], &|rows| large_store::figures(&plan, rows)),
        (&["F9"], &|rows| large::size(&plan, rows)),
        (&["F10"], &|rows| followers::latency(&plan, rows)),
        (&["F11"], &|rows| running::size(&plan, rows)),
        (&["F12"], &|rows| jobs::growth(&plan, rows)),
        (&["F13"], &|rows| page::figures(&plan, rows)),
        (&["F14"], &|rows| spans::hanging_collector(&plan, rows)),
        (&["F15"], &|rows| waiting::figures(&plan, rows)),
        (&["F16"], &|rows| tools::rate(&plan, rows)),
        (&["F17"], &|rows| cluster::figures(&plan, rows)),
        (&["F17"], &|rows| postgres::figures(&plan, rows)),
        (&["F17"], &|rows| simulation::figures(&plan, rows)),
        (&["F18"], &|rows| short::output(&plan, rows)),
        (&["Recovery"], &|rows| large::recovery(&plan, rows)),
        (&[SELDOM], &|rows| million::figures(&plan, rows)),
    ];
    let known = |figure: &str| {
        let mut names = groups.iter().flat_map(|(names, _)| *names);
        names.any(|name| name.eq_ignore_ascii_case(figure))
    };
    if let Some(unknown) = figures.iter().find(|figure| !known(figure)) {
        return Err(io::Error::other(format!("there is no figure {unknown}")));
    }
    for (names, measure) in groups {
        if !wanted(names) {
            continue;
        }
        let before = rows.len();
        // One figure that fails must not take the others with it.
        if let Err(error) = measure(&mut rows) {
            rows.push(Row::missing(names[0], "", "", &error.to_string()));
        }
        for row in &rows[before..] {
            note(row.markdown().trim());
        }
    }
    note(&format!("took {:.0} s", begin.elapsed().as_secs_f64()));
    let text = report::markdown(plan.rounds, &load_before, &rows, &found.borrow());
    io::stdout().write_all(text.as_bytes())?;
    // A page holds one run, and all of it.
    if figures.is_empty() && !quick && !has("--dry") {
        report::write(&text)?;
    }
    Ok(())
}
