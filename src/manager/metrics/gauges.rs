//! What is read at the moment of a scrape, since it is known anyway.

use std::sync::atomic::Ordering;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::labels::{Build, State};
use job::time::Timestamp;

/// What is read at the moment of a scrape, since it is known anyway.
#[derive(Clone, Debug, Default)]
pub struct Present {
    /// Live jobs by state.
    pub jobs: Vec<(&'static str, u64)>,
    /// The most that may run and wait.
    pub limits: [(&'static str, u64); 2],
    /// Jobs with processes that a stop has not been able to end.
    pub blocked: u64,
    /// Finished jobs that are kept.
    pub finished: u64,
    /// Free bytes where the state is.
    pub free_bytes: u64,
    /// No new jobs are accepted.
    pub draining: bool,
    /// How often the server was started again.
    pub restarts: u64,
    /// Records that were found damaged.
    pub damaged_records: u64,
    /// Answers that follow a job, and WebSockets.
    pub streams: u64,
    /// When the server started.
    pub started_at: Timestamp,
    /// Resident memory of the server process.
    pub resident_bytes: u64,
    /// Open descriptors of the server process.
    pub open_files: u64,
    /// The version and, if it is known, the commit.
    pub build: (String, Option<String>),
}

/// Set before each encoding.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    pub(super) build: Family<Build, Gauge>,
    pub(super) jobs: Family<State, Gauge>,
    pub(super) limits: Family<State, Gauge>,
    pub(super) blocked: Gauge,
    pub(super) finished: Gauge,
    pub(super) free_bytes: Gauge,
    pub(super) draining: Gauge,
    pub(super) restarts: Counter,
    pub(super) damaged_records: Counter,
    pub(super) streams: Gauge,
    pub(super) started_at: Gauge,
    pub(super) resident_bytes: Gauge,
    pub(super) open_files: Gauge,
}

impl Gauges {
    pub(super) fn set(&self, present: &Present) {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let (version, commit) = present.build.clone();
        let build = Build {
            version,
            commit: commit.unwrap_or_default(),
        };
        self.build.get_or_create(&build).set(1);
        for (state, count) in &present.jobs {
            self.jobs
                .get_or_create(&State { state })
                .set(number(*count));
        }
        for (state, limit) in &present.limits {
            self.limits
                .get_or_create(&State { state })
                .set(number(*limit));
        }
        self.blocked.set(number(present.blocked));
        self.finished.set(number(present.finished));
        self.free_bytes.set(number(present.free_bytes));
        self.draining.set(i64::from(present.draining));
        self.restarts
            .inner()
            .store(present.restarts, Ordering::Relaxed);
        self.damaged_records
            .inner()
            .store(present.damaged_records, Ordering::Relaxed);
        self.streams.set(number(present.streams));
        self.started_at
            .set(present.started_at.as_micros() / 1_000_000);
        self.resident_bytes.set(number(present.resident_bytes));
        self.open_files.set(number(present.open_files));
    }
}
