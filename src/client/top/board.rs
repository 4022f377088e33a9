//! What `procession top` shows on a terminal, and what keys do to it. PURE.

use std::collections::{HashMap, VecDeque};

use serde::Deserialize;

use crate::sanitize::escape;
use crate::view::Job;

/// So many looks are in a sparkline.
const HISTORY: usize = 30;

/// An entry of `GET /jobs/usage`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Usage {
    pub(super) job_id: String,
    pub(super) processes: usize,
    pub(super) user_cpu_seconds: f64,
    pub(super) system_cpu_seconds: f64,
    pub(super) rss_bytes: u64,
}

/// An entry of `GET /jobs/{id}/processes`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Process {
    pub(super) pid: i32,
    pub(super) ppid: i32,
    #[serde(default)]
    pub(super) command: Vec<String>,
    #[serde(default)]
    pub(super) rss_bytes: u64,
}

/// A job that runs.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) state: String,
    pub(super) command: String,
    pub(super) processes: usize,
    pub(super) cpu_seconds: f64,
    pub(super) cpu_percent: f64,
    pub(super) rss_bytes: u64,
    /// Percent of one processor, the newest last.
    pub(super) history: VecDeque<u64>,
    /// It has been looked at, so that there is something to compare with.
    is_known: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    Cpu,
    Memory,
    Processes,
    Name,
}

impl Sort {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "CPU",
            Self::Memory => "memory",
            Self::Processes => "processes",
            Self::Name => "name",
        }
    }

    fn next(self) -> Self {
        match self {
            Self::Cpu => Self::Memory,
            Self::Memory => Self::Processes,
            Self::Processes => Self::Name,
            Self::Name => Self::Cpu,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    Jobs,
    /// The processes of the chosen job.
    Tree,
    /// The end of its output.
    Logs,
}

/// What is asked of the service next: one request a tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Jobs,
    Usage(Vec<String>),
    Processes(String),
    Logs(String),
    Stop(String),
}

/// What a key asks for beyond the picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Nothing,
    /// Another view: its data is wanted now.
    Look,
    Quit,
}

/// Everything that is shown.
#[derive(Debug)]
pub(super) struct Board {
    rows: Vec<Row>,
    pub(super) sort: Sort,
    pub(super) filter: String,
    /// The filter is being typed.
    pub(super) is_typing: bool,
    pub(super) view: View,
    /// By id, since rows move.
    chosen: Option<String>,
    /// Is the chosen job to be stopped? The next key says.
    pub(super) is_asking: bool,
    /// To be stopped at the next tick.
    stop: Option<String>,
    /// The lines of the tree or of the output.
    pub(super) lines: Vec<String>,
    pub(super) note: String,
    ticks: u64,
}

impl Default for Board {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            sort: Sort::Cpu,
            filter: String::new(),
            is_typing: false,
            view: View::Jobs,
            chosen: None,
            is_asking: false,
            stop: None,
            lines: Vec::new(),
            note: String::new(),
            ticks: 0,
        }
    }
}

impl Board {
    /// The rows that fit the filter, in order.
    pub(super) fn shown(&self) -> Vec<&Row> {
        let wanted = self.filter.to_lowercase();
        let fits = |row: &&Row| {
            let text = format!("{} {} {}", row.id, row.name, row.command);
            text.to_lowercase().contains(&wanted)
        };
        let mut rows: Vec<&Row> = self.rows.iter().filter(fits).collect();
        rows.sort_by(|one, other| {
            let order = match self.sort {
                Sort::Cpu => other.cpu_percent.total_cmp(&one.cpu_percent),
                Sort::Memory => other.rss_bytes.cmp(&one.rss_bytes),
                Sort::Processes => other.processes.cmp(&one.processes),
                // Without a name last.
                Sort::Name => {
                    (one.name.is_empty(), &one.name).cmp(&(other.name.is_empty(), &other.name))
                }
            };
            order.then_with(|| one.id.cmp(&other.id))
        });
        rows
    }

    /// Where the chosen row is among those that are shown.
    pub(super) fn position(&self) -> Option<usize> {
        let shown = self.shown();
        let chosen = self.chosen.as_ref()?;
        shown.iter().position(|row| row.id == *chosen)
    }

    pub(super) fn chosen(&self) -> Option<&Row> {
        let shown = self.shown();
        self.position().and_then(|at| shown.get(at).copied())
    }

    /// The next request.
    pub(super) fn wish(&mut self) -> Wish {
        if let Some(id) = self.stop.take() {
            return Wish::Stop(id);
        }
        self.ticks += 1;
        let chosen = self.chosen().map(|row| row.id.clone());
        match (self.view, chosen) {
            (View::Tree, Some(id)) => Wish::Processes(id),
            (View::Logs, Some(id)) => Wish::Logs(id),
            // Which jobs there are, and then twice what they use.
            _ if self.ticks % 3 == 1 || self.rows.is_empty() => Wish::Jobs,
            _ => {
                let ids = self.rows.iter().map(|row| row.id.clone());
                Wish::Usage(ids.collect())
            }
        }
    }

    /// The jobs that run now; what is known of those that were there is kept.
    pub(super) fn jobs(&mut self, jobs: &[Job]) {
        let mut known: HashMap<String, Row> = self
            .rows
            .drain(..)
            .map(|row| (row.id.clone(), row))
            .collect();
        let rows = jobs.iter().map(|job| {
            let name = job.name.as_deref().unwrap_or_default();
            let row = known.remove(&job.id).unwrap_or_else(|| Row {
                id: job.id.clone(),
                name: String::new(),
                state: String::new(),
                command: escape(&job.program()).into_owned(),
                processes: 0,
                cpu_seconds: 0.0,
                cpu_percent: 0.0,
                rss_bytes: 0,
                history: VecDeque::new(),
                is_known: false,
            });
            Row {
                name: escape(name).into_owned(),
                state: escape(&job.state).into_owned(),
                ..row
            }
        });
        self.rows = rows.collect();
        if self.chosen().is_none() {
            self.view = View::Jobs;
            self.chosen = self.shown().first().map(|row| row.id.clone());
        }
    }

    /// What they use, `elapsed` seconds after the last time. Those that are not named have no processes.
    pub(super) fn usage(&mut self, usage: &[Usage], elapsed: f64) {
        for row in &mut self.rows {
            let now = usage.iter().find(|it| it.job_id == row.id);
            let seconds = now.map_or(row.cpu_seconds, |it| {
                it.user_cpu_seconds + it.system_cpu_seconds
            });
            let used = if row.is_known {
                (seconds - row.cpu_seconds).max(0.0)
            } else {
                0.0
            };
            row.cpu_percent = 100.0 * used / elapsed.max(f64::EPSILON);
            row.cpu_seconds = seconds;
            row.processes = now.map_or(0, |it| it.processes);
            row.rss_bytes = now.map_or(0, |it| it.rss_bytes);
            if row.is_known {
                row.history.push_back(whole(row.cpu_percent));
                if row.history.len() > HISTORY {
                    row.history.pop_front();
                }
            }
            row.is_known = true;
        }
    }

    /// What a key does. Keys come as a terminal sends them.
    pub(super) fn key(&mut self, key: &[u8]) -> Act {
        self.note.clear();
        if self.is_asking {
            self.is_asking = false;
            if matches!(key, b"y" | b"Y") {
                self.stop = self.chosen.clone();
                return Act::Look;
            }
            return Act::Nothing;
        }
        if self.is_typing {
            self.type_filter(key);
            return Act::Nothing;
        }
        match key {
            b"q" | b"Q" | b"\x03" => return Act::Quit,
            b"\x1b" if self.view != View::Jobs => self.view = View::Jobs,
            b"\x1b" => self.filter.clear(),
            b"j" | b"\x1b[B" | b"\x1bOB" => self.step(true),
            b"k" | b"\x1b[A" | b"\x1bOA" => self.step(false),
            b"s" => self.sort = self.sort.next(),
            b"/" => self.is_typing = true,
            b"t" => return self.open(View::Tree),
            b"l" | b"\r" | b"\n" => return self.open(View::Logs),
            b"x" => self.is_asking = self.chosen().is_some(),
            _ => {}
        }
        Act::Nothing
    }

    fn type_filter(&mut self, key: &[u8]) {
        match key {
            b"\r" | b"\n" => self.is_typing = false,
            b"\x1b" => {
                self.is_typing = false;
                self.filter.clear();
            }
            b"\x7f" | b"\x08" => {
                self.filter.pop();
            }
            // An arrow, or another key that is no letter.
            [0x1b, ..] => {}
            other => self.filter.extend(
                String::from_utf8_lossy(other)
                    .chars()
                    .filter(|letter| !letter.is_control()),
            ),
        }
        if self.chosen().is_none() {
            self.chosen = self.shown().first().map(|row| row.id.clone());
        }
    }

    fn open(&mut self, view: View) -> Act {
        self.view = if self.view == view { View::Jobs } else { view };
        self.lines.clear();
        Act::Look
    }

    fn step(&mut self, down: bool) {
        let ids: Vec<String> = self.shown().iter().map(|row| row.id.clone()).collect();
        let at = self.position();
        let to = match (at, down) {
            (None, _) => 0,
            (Some(at), true) => at + 1,
            (Some(at), false) => at.saturating_sub(1),
        };
        if let Some(id) = ids.get(to.min(ids.len().saturating_sub(1))) {
            self.chosen = Some(id.clone());
        }
    }
}

/// Percent as a whole number; a sparkline has no use for more.
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it saturates, and what is shown is small"
)]
fn whole(percent: f64) -> u64 {
    percent.round() as u64
}

/// The processes as a tree: each below its parent, with as many steps in front as it is deep.
pub(super) fn tree(processes: &[Process]) -> Vec<String> {
    let is_there = |pid: i32| processes.iter().any(|it| it.pid == pid);
    let mut lines = Vec::new();
    let mut left: Vec<(usize, &Process)> = Vec::new();
    let roots = processes
        .iter()
        .filter(|it| !is_there(it.ppid) || it.ppid == it.pid);
    left.extend(roots.rev().map(|it| (0, it)));
    while let Some((depth, process)) = left.pop() {
        if lines.len() > processes.len() {
            break;
        }
        let command = process.command.join(" ");
        let size = crate::text::size(process.rss_bytes);
        let indent = "  ".repeat(depth);
        lines.push(format!(
            "{:>8} {size:>9}  {indent}{}",
            process.pid,
            escape(&command)
        ));
        let children = processes
            .iter()
            .filter(|it| it.ppid == process.pid && it.pid != process.pid);
        left.extend(children.rev().map(|it| (depth + 1, it)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn job(number: u32, name: &str) -> Job {
        let value = json!({"id": format!("0198c1d2-7b3a-7c4e-9f10-{number:012}"), "name": name, "state": "running",
            "created_at": "2026-01-31T12:00:00Z", "spec": {"command": ["work", name]}});
        Job::read(&value).unwrap()
    }

    fn usage(job: &Job, seconds: f64, rss_bytes: u64) -> Usage {
        Usage {
            job_id: job.id.clone(),
            processes: 1,
            user_cpu_seconds: seconds,
            system_cpu_seconds: 0.0,
            rss_bytes,
        }
    }

    fn names(board: &Board) -> Vec<&str> {
        board.shown().iter().map(|row| row.name.as_str()).collect()
    }

    fn board() -> (Board, Vec<Job>) {
        let jobs = vec![job(1, "idle"), job(2, "busy"), job(3, "large")];
        let mut board = Board::default();
        board.jobs(&jobs);
        let looks = |seconds| {
            [
                usage(&jobs[0], 0.0, 1),
                usage(&jobs[1], seconds, 2),
                usage(&jobs[2], 5.0, 3),
            ]
        };
        board.usage(&looks(1.0), 2.0);
        board.usage(&looks(2.0), 2.0);
        (board, jobs)
    }

    #[test]
    fn jobs_are_sorted_and_filtered() {
        let (mut board, _) = board();
        assert_eq!(names(&board), ["busy", "idle", "large"]);
        assert!((board.shown()[0].cpu_percent - 50.0).abs() < 1e-9);
        assert_eq!(board.shown()[0].history, [50]);
        board.key(b"s");
        assert_eq!(names(&board), ["large", "busy", "idle"]);
        for key in [b"/", b"L", b"A"] {
            board.key(key);
        }
        assert_eq!(names(&board), ["large"]);
        // What is typed is no command meanwhile.
        board.key(b"q");
        assert!(names(&board).is_empty());
        board.key(b"\x7f");
        assert_eq!(board.key(b"\r"), Act::Nothing);
        assert_eq!(board.chosen().unwrap().name, "large");
        board.key(b"\x1b");
        assert_eq!(names(&board).len(), 3);
        assert_eq!(board.key(b"q"), Act::Quit);
    }

    #[test]
    fn there_is_one_request_a_tick_and_it_fits_the_view() {
        let mut board = Board::default();
        assert_eq!(board.wish(), Wish::Jobs);
        let jobs = [job(1, "one")];
        let id = jobs[0].id.clone();
        board.jobs(&jobs);
        assert_eq!(board.wish(), Wish::Usage(vec![id.clone()]));
        assert_eq!(board.wish(), Wish::Usage(vec![id.clone()]));
        assert_eq!(board.wish(), Wish::Jobs);
        assert_eq!(board.key(b"t"), Act::Look);
        assert_eq!(board.wish(), Wish::Processes(id.clone()));
        board.key(b"l");
        assert_eq!(board.wish(), Wish::Logs(id));
        // The job is gone, and so is what was shown of it.
        board.jobs(&[]);
        assert_eq!((board.view, board.wish()), (View::Jobs, Wish::Jobs));
    }

    #[test]
    fn a_stop_is_asked_for_twice() {
        let (mut board, jobs) = board();
        board.key(b"j");
        let chosen = board.chosen().unwrap().id.clone();
        board.key(b"x");
        board.key(b"n");
        assert_ne!(board.wish(), Wish::Stop(chosen.clone()));
        board.key(b"x");
        assert_eq!(board.key(b"y"), Act::Look);
        assert_eq!(board.wish(), Wish::Stop(chosen));
        assert_eq!(jobs.len(), 3);
    }

    #[test]
    fn processes_are_a_tree() {
        let process = |pid, ppid| Process {
            pid,
            ppid,
            command: vec![format!("p{pid}")],
            rss_bytes: 0,
        };
        let lines = tree(&[
            process(10, 1),
            process(12, 11),
            process(11, 10),
            process(13, 10),
        ]);
        let shapes: Vec<&str> = lines.iter().map(|line| &line[20..]).collect();
        assert_eq!(shapes, ["p10", "  p11", "    p12", "  p13"]);
    }
}
