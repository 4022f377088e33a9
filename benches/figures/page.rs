//! F13: a log of 1 GB in the page, in a real browser. What is measured is in tests/page/measure.mjs.

use std::io;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::report::Row;
use crate::service::BINARY;
use crate::{Plan, note};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A log of 1 GB, or a tenth of it, is opened and jumped in.
pub(crate) fn log(plan: &Plan, rows: &mut Vec<Row>) -> io::Result<()> {
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
            rows.push(Row::missing("F13", "a log of 1 GB in the page", "", why));
            return Ok(());
        }
    }
    let (bytes, jumps) = if plan.quick {
        ("100000000", "30")
    } else {
        ("1000000000", "300")
    };
    note("F13: writing the log");
    let output = Command::new("node")
        .args(["tests/page/bench.mjs", bytes, jumps])
        .current_dir(ROOT)
        .env("PROCESSION_PROGRAM", BINARY)
        .output()?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(
            why.lines().last().unwrap_or("failed").to_owned(),
        ));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_default();
    let figures: Value = serde_json::from_str(last).map_err(io::Error::other)?;
    let of = |name: &str| figures[name].as_f64().unwrap_or(f64::NAN);
    let size = of("bytes") / 1e9;
    let first = of("first_lines_ms");
    rows.push(Row::new(
        "F13",
        format!("the page: a log of {size:.1} GB, from the click to its first lines"),
        format!("{first:.0} ms"),
        "≤ 300 ms",
        Some(first <= 300.0),
    ));
    let (middle, late) = (of("jump_p50_ms"), of("jump_p99_ms"));
    rows.push(Row::new(
        "F13",
        format!("{} jumps in it to random places, p50 and p99", of("jumps")),
        format!("{middle:.0} and {late:.0} ms"),
        "≤ 50 and ≤ 200 ms",
        Some(middle <= 50.0 && late <= 200.0),
    ));
    let (heap, nodes) = (of("heap_bytes") / 1e6, of("nodes"));
    rows.push(Row::new(
        "F13",
        "heap of the browser and nodes of the page after them",
        format!("{heap:.1} MB, {nodes:.0}"),
        "≤ 40 MB, ≤ 3000",
        Some(heap <= 40.0 && nodes <= 3000.0),
    ));
    Ok(())
}
