//! F13: the page in a real browser: its first load, a log of 1 GB, output that comes, a server that is killed. How each
//! is measured is in tests/page/measure.mjs.

use std::io;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::report::Row;
use crate::service::BINARY;
use crate::{Plan, note};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// All figures of the page; with a tenth of the log if it has to be quick.
pub(crate) fn figures(plan: &Plan, rows: &mut Vec<Row>) -> io::Result<()> {
    for (needed, why) in [
        (
            Path::new(ROOT).join("web/node_modules/playwright-core"),
            "web/node_modules is missing: make test-web",
        ),
        (
            Path::new("/usr/bin/chromium").to_owned(),
            "there is no chromium",
        ),
    ] {
        if !needed.exists() {
            rows.push(Row::missing("F13", "the page in a browser", "", why));
            return Ok(());
        }
    }
    let sizes = if plan.quick {
        ["100000000", "30", "100", "15"]
    } else {
        ["1000000000", "300", "300", "60"]
    };
    note("F13: the page in a browser");
    let output = Command::new("node")
        .arg("tests/page/bench.mjs")
        .args(sizes)
        .current_dir(ROOT)
        .env("PROCESSION_PROGRAM", BINARY)
        .output()?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        let error = why.lines().find(|line| line.contains("Error"));
        return Err(io::Error::other(error.unwrap_or("failed").to_owned()));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_default();
    let figures: Value = serde_json::from_str(last).map_err(io::Error::other)?;
    rows.extend(table(&figures));
    rows.extend(quiet(&figures));
    Ok(())
}

/// The rows of what a page costs that nobody touches, and of what a key costs.
fn quiet(figures: &Value) -> Vec<Row> {
    let of = |name: &str| figures[name].as_f64().unwrap_or(f64::NAN);
    let row = |what: String, measured: String, goal, reached| {
        Row::new("F13", what, measured, goal, Some(reached))
    };
    let (list, log) = (of("key_list_p75_ms"), of("key_log_p75_ms"));
    let (rss, page) = (of("ten_rss_bytes") / 1e6, of("page_rss_bytes") / 1e3);
    vec![
        row(
            format!("an open page that nobody touches, by the minute, over {:.0} s", of("quiet_seconds")),
            format!(
                "{:.0} requests, {:.0} bytes, {:.0} layouts, {:.0} ms of its main thread",
                of("quiet_requests"),
                of("quiet_bytes"),
                of("quiet_layouts"),
                of("quiet_busy_ms")
            ),
            "no request",
            of("quiet_requests") == 0.0,
        ),
        row(
            "ten such pages: RSS of server and supervisor, of it for each page; their processor by the minute; heap of a page".to_owned(),
            format!(
                "{rss:.1} MB, {page:.0} kB; {:.0} ms; {:.1} MB",
                of("ten_cpu_ms"),
                of("page_heap_bytes") / 1e6
            ),
            "< 20 MB, ≤ 100 kB",
            rss < 20.0 && page <= 100.0,
        ),
        row(
            format!("a key until it is painted, {} in the list and in the log, p75 (slowest)", of("key_times")),
            format!(
                "{list:.0} ({:.0}) and {log:.0} ({:.0}) ms",
                of("key_list_max_ms"),
                of("key_log_max_ms")
            ),
            "≤ 100 ms",
            list <= 100.0 && log <= 100.0,
        ),
    ]
}

/// The rows of what was measured.
fn table(figures: &Value) -> Vec<Row> {
    let of = |name: &str| figures[name].as_f64().unwrap_or(f64::NAN);
    let row = |what: String, measured: String, goal, reached| {
        Row::new("F13", what, measured, goal, Some(reached))
    };
    let (load, all) = (of("load_bytes") / 1e3, of("all_bytes") / 1e3);
    let (paint, list) = (of("paint_ms"), of("list_ms"));
    let first = of("first_lines_ms");
    let (middle, late) = (of("jump_p50_ms"), of("jump_p99_ms"));
    let (heap, nodes) = (of("heap_bytes") / 1e6, of("nodes"));
    let (hit, hits) = (of("find_first_ms"), of("find_all_ms"));
    let (seen, seen_late) = (of("seen_p50_ms"), of("seen_p99_ms"));
    let is_same = figures["same_bytes"] == true;
    let back = of("back_ms");
    vec![
        row(
            "the page: first load, and all of its files, compressed".to_owned(),
            format!("{load:.1} kB in {} requests, {all:.1} kB", of("load_requests")),
            "≤ 75 kB in ≤ 6, ≤ 220 kB",
            load <= 75.0 && of("load_requests") <= 6.0 && all <= 220.0,
        ),
        row(
            "first paint and the list of jobs, from nothing, p50 of 5".to_owned(),
            format!("{paint:.0} and {list:.0} ms"),
            "≤ 300 and ≤ 600 ms",
            paint <= 300.0 && list <= 600.0,
        ),
        row(
            format!(
                "a log of {:.1} GB, from the click to its first lines, p50 of 5",
                of("bytes") / 1e9
            ),
            format!("{first:.0} ms"),
            "≤ 300 ms",
            first <= 300.0,
        ),
        row(
            format!("{} jumps in it to random places, p50 and p99", of("jumps")),
            format!("{middle:.0} and {late:.0} ms"),
            "≤ 50 and ≤ 200 ms",
            middle <= 50.0 && late <= 200.0,
        ),
        row(
            "heap of the browser and nodes of the page after them".to_owned(),
            format!("{heap:.1} MB, {nodes:.0}"),
            "≤ 40 MB, ≤ 3000",
            heap <= 40.0 && nodes <= 3000.0,
        ),
        row(
            format!("a search over it, {} hits: the first, and all", of("find_hits")),
            format!("{hit:.0} ms, {:.1} s", hits / 1e3),
            "≤ 100 ms, ≤ 2 s",
            hit <= 100.0 && hits <= 2000.0,
        ),
        row(
            format!("a printed line → seen, {} lines, p50 and p99", of("seen_lines")),
            format!("{seen:.0} and {seen_late:.0} ms"),
            "≤ 150 and ≤ 400 ms",
            seen <= 150.0 && seen_late <= 400.0,
        ),
        row(
            "server killed under a page that follows, until a line is seen that was printed after it".to_owned(),
            format!(
                "{:.2} s, {} bytes missing, {} double{}",
                back / 1e3,
                of("lost_bytes"),
                of("double_bytes"),
                if is_same { "" } else { "; not the same bytes" }
            ),
            "≤ 1.5 s, none",
            back <= 1500.0 && is_same,
        ),
    ]
}
