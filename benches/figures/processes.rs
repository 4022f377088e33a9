//! What proc(5) tells of the roles' memory and CPU time.

use std::fs;
use std::io;

/// A process as a row of ps(1).
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    pub(crate) name: String,
}

/// Every process there is.
pub(crate) fn all() -> io::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // One that has just ended is none.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        let (Some(open), Some(close)) = (stat.find('('), stat.rfind(')')) else {
            continue;
        };
        let parent = stat[close + 1..]
            .split_whitespace()
            .nth(1)
            .and_then(|parent| parent.parse().ok());
        found.push(Process {
            pid,
            parent: parent.unwrap_or(0),
            name: stat[open + 1..close].to_owned(),
        });
    }
    Ok(found)
}

/// The direct children of a process, those included that nobody has collected yet.
pub(crate) fn children(parent: u32) -> io::Result<Vec<Process>> {
    let mut all = all()?;
    all.retain(|process| process.parent == parent);
    Ok(all)
}

fn field(pid: u32, file: &str, key: &str) -> u64 {
    fs::read_to_string(format!("/proc/{pid}/{file}"))
        .ok()
        .and_then(|text| {
            text.lines().find_map(|line| {
                line.strip_prefix(key)?
                    .split_whitespace()
                    .next()?
                    .parse()
                    .ok()
            })
        })
        .unwrap_or(0)
}

/// Proportional set size in kB: shared pages count by the share of each process.
pub(crate) fn pss(pid: u32) -> u64 {
    field(pid, "smaps_rollup", "Pss:")
}

/// Resident set size in kB: shared pages count in full.
pub(crate) fn rss(pid: u32) -> u64 {
    field(pid, "status", "VmRSS:")
}

/// Page tables in kB, which PSS does not count.
pub(crate) fn page_tables(pid: u32) -> u64 {
    field(pid, "status", "VmPTE:")
}

/// CPU time of all threads in nanoseconds.
pub(crate) fn cpu(pid: u32) -> u64 {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return 0;
    };
    threads
        .filter_map(|thread| {
            let path = thread.ok()?.path().join("schedstat");
            let text = fs::read_to_string(path).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        })
        .sum()
}
