//! The tables, and their place in docs/benchmarks.md.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

const BEGIN: &str = "<!-- written by `make bench`: begin -->";
const END: &str = "<!-- written by `make bench`: end -->";

/// One line of the table of figures.
pub(crate) struct Row {
    pub(crate) figure: &'static str,
    pub(crate) what: String,
    pub(crate) measured: String,
    pub(crate) goal: &'static str,
    /// `None` where there is nothing to compare.
    pub(crate) reached: Option<bool>,
}

impl Row {
    pub(crate) fn new(
        figure: &'static str,
        what: impl Into<String>,
        measured: impl Into<String>,
        goal: &'static str,
        reached: Option<bool>,
    ) -> Self {
        Self {
            figure,
            what: what.into(),
            measured: measured.into(),
            goal,
            reached,
        }
    }

    /// A figure that this run has not got, and why.
    pub(crate) fn missing(figure: &'static str, what: &str, goal: &'static str, why: &str) -> Self {
        Self::new(figure, what, format!("not measured: {why}"), goal, None)
    }

    pub(crate) fn markdown(&self) -> String {
        let verdict = match self.reached {
            Some(true) => "✓",
            Some(false) => "✗",
            None => "–",
        };
        format!(
            "| {} | {} | {} | {} | {verdict} |\n",
            self.figure, self.what, self.measured, self.goal
        )
    }
}

fn output_of(program: &str, args: &[&str]) -> String {
    Command::new(program)
        .args(args)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default()
}

fn file(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Where and when this ran.
fn heading(rounds: usize, load_before: &str) -> String {
    let cpu = file("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1))
        .unwrap_or("unknown processor")
        .to_owned();
    let cores = cpu
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let memory = file("/proc/meminfo");
    let memory = memory
        .split_whitespace()
        .nth(1)
        .and_then(|kilobytes| kilobytes.parse::<u64>().ok())
        .unwrap_or(0)
        / 1_000_000;
    let dirty = output_of("git", &["status", "--porcelain", "--", "src", "Cargo.toml"]);
    let commit = output_of("git", &["rev-parse", "--short=12", "HEAD"]);
    format!(
        "- **Date**: {}\n- **Commit**: {commit}{}\n- **Machine**: {model}, {cores} cores, {memory} GB; \
         state directories on {}\n- **Kernel**: {}\n- **Compiler**: {}\n- **Load average before**: {load_before}\n\
         - **Rounds**: {rounds}, baselines and service in turn; medians, with the least and the greatest in brackets; \
         ratios are taken within a round\n- **Repeat**: `make bench`, or one figure: `make bench FIGURES=F1,F2`\n",
        output_of("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        if dirty.is_empty() {
            ""
        } else {
            " with changes that are not committed"
        },
        output_of("stat", &["-f", "-c", "%T", "."]),
        file("/proc/sys/kernel/osrelease").trim(),
        output_of("rustc", &["--version"]),
    )
}

/// Load average, to tell how quiet the machine was.
pub(crate) fn load_average() -> String {
    file("/proc/loadavg")
        .split(' ')
        .take(2)
        .collect::<Vec<_>>()
        .join(" ")
}

/// The whole text.
pub(crate) fn markdown(
    rounds: usize,
    load_before: &str,
    rows: &[Row],
    baselines: &[(String, String)],
) -> String {
    let mut text = heading(rounds, load_before);
    text.push_str("\n| figure | what | measured | goal | |\n|---|---|---|---|---|\n");
    for row in rows {
        text.push_str(&row.markdown());
    }
    if !baselines.is_empty() {
        text.push_str("\n| baseline | measured in the same run |\n|---|---|\n");
        for (name, value) in baselines {
            text.push_str(&format!("| {name} | {value} |\n"));
        }
    }
    text
}

/// Puts the text between the marks in docs/benchmarks.md.
pub(crate) fn write(text: &str) -> io::Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/benchmarks.md");
    let page = fs::read_to_string(&path).unwrap_or_default();
    let page = match (page.find(BEGIN), page.find(END)) {
        (Some(begin), Some(end)) if begin < end => {
            format!(
                "{}{BEGIN}\n{text}{}",
                page.get(..begin).unwrap_or_default(),
                page.get(end..).unwrap_or_default()
            )
        }
        _ => format!("{page}\n{BEGIN}\n{text}{END}\n"),
    };
    fs::write(path, page)
}
