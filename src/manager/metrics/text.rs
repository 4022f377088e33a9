//! The two formats that scrapers read.

/// What a scraper asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' text format 0.0.4.
    Text,
}

/// How an exemplar begins. The value of a label cannot have it, since quotes are escaped there.
const EXEMPLAR: &str = " # {trace_id=\"";

/// OpenMetrics as the older format: a counter's name has the ending of its samples, and there is no exemplar, no unit and
/// no end.
pub(super) fn without_openmetrics(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let counters: Vec<&str> = lines
        .iter()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut out = String::with_capacity(text.len());
    for line in lines {
        if line.starts_with("# UNIT ") || line == "# EOF" {
            continue;
        }
        match described(line) {
            Some((kind, name, rest)) if counters.contains(&name) => {
                out.push_str(&format!("# {kind} {name}_total {rest}\n"));
            }
            Some(_) | None => {
                out.push_str(line.split(EXEMPLAR).next().unwrap_or(line));
                out.push('\n');
            }
        }
    }
    out
}

/// The parts of a line such as `# HELP name text`.
fn described(line: &str) -> Option<(&str, &str, &str)> {
    let mut parts = line.strip_prefix("# ")?.splitn(3, ' ');
    Some((parts.next()?, parts.next()?, parts.next()?))
}
