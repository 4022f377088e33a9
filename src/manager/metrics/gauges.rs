//! What is read at the moment of a scrape, since it is known anyway.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::labels::{Build, Kind, QueueState, Schedule, State};
use job::time::Timestamp;

/// What is read at the moment of a scrape.
#[derive(Clone, Debug, Default)]
pub struct Present {
    /// Live jobs by state.
    pub jobs: Vec<(&'static str, u64)>,
    /// The most that may run and wait.
    pub limits: [(&'static str, u64); 2],
    /// What is in the queues, and the most that may be. Queues of the same name are one series.
    pub queues: Vec<PresentQueue>,
    /// Jobs with processes that a stop has not been able to end.
    pub blocked: u64,
    /// When each schedule made a job last that succeeded.
    pub successes: Vec<(Arc<str>, Timestamp)>,
    /// Finished jobs that are kept.
    pub finished: u64,
    /// The size of the store on disk.
    pub store_bytes: u64,
    /// Deliveries to webhooks that are not done.
    pub webhooks_pending: u64,
    /// Free bytes where the state is.
    pub free_bytes: u64,
    /// No new jobs are accepted.
    pub draining: bool,
    /// How often the server was started again.
    pub restarts: u64,
    /// Records that were found damaged.
    pub damaged_records: u64,
    /// Lines that the audit log could not take.
    pub audit_lines_lost: u64,
    /// Answers that follow a job, and WebSockets.
    pub streams: u64,
    /// Connections by kind.
    pub connections: [(&'static str, u64); 2],
    /// When the server started.
    pub started_at: Timestamp,
    /// Resident memory of the server process.
    pub resident_bytes: u64,
    /// Open descriptors of the server process.
    pub open_files: u64,
    /// The version and, if it is known, the commit.
    pub build: (String, Option<String>),
}

/// What is in a queue at the moment of a scrape.
#[derive(Clone, Debug)]
pub struct PresentQueue {
    /// As the series name it.
    pub name: Arc<str>,
    /// Jobs that run and that wait.
    pub jobs: [(&'static str, u64); 2],
    /// The most that may, if anything is set.
    pub limits: [(&'static str, Option<u64>); 2],
}

/// Set before each encoding.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    build: Family<Build, Gauge>,
    jobs: Family<State, Gauge>,
    limits: Family<State, Gauge>,
    queue_jobs: Family<QueueState, Gauge>,
    queue_limits: Family<QueueState, Gauge>,
    blocked: Gauge,
    successes: Family<Schedule, Gauge>,
    finished: Gauge,
    store_bytes: Gauge,
    webhooks_pending: Gauge,
    free_bytes: Gauge,
    draining: Gauge,
    restarts: Counter,
    damaged_records: Counter,
    audit_lines_lost: Counter,
    streams: Gauge,
    connections: Family<Kind, Gauge>,
    started_at: Gauge,
    resident_bytes: Gauge,
    open_files: Gauge,
}

impl Gauges {
    pub(super) fn register(&self, registry: &mut Registry) {
        let g = self;
        let r = registry.sub_registry_with_prefix("procession");
        g.register_jobs(r);
        g.register_service(r);
        // Names that every exporter has.
        let r = registry;
        r.register(
            "process_start_time_seconds",
            "When the server process started, since the Unix epoch",
            g.started_at.clone(),
        );
        r.register(
            "process_resident_memory_bytes",
            "Resident memory of the server process",
            g.resident_bytes.clone(),
        );
        r.register(
            "process_open_fds",
            "Open descriptors of the server process",
            g.open_files.clone(),
        );
    }

    fn register_jobs(&self, r: &mut Registry) {
        let g = self;
        r.register("jobs", "Live jobs by state", g.jobs.clone());
        r.register(
            "jobs_limit",
            "The limits on running and queued jobs",
            g.limits.clone(),
        );
        r.register(
            "queue_jobs",
            "Jobs that run in a queue and wait for it",
            g.queue_jobs.clone(),
        );
        r.register(
            "queue_limit",
            "The limits of a queue, if it has any",
            g.queue_limits.clone(),
        );
        r.register(
            "jobs_blocked",
            "Jobs with processes that a stop has not been able to end",
            g.blocked.clone(),
        );
        r.register(
            "schedule_last_success_timestamp_seconds",
            "When a job of a schedule last succeeded, since the Unix epoch",
            g.successes.clone(),
        );
    }

    fn register_service(&self, r: &mut Registry) {
        let g = self;
        r.register("build_info", "Version and commit", g.build.clone());
        r.register(
            "http_streams",
            "Answers that follow a job, and WebSockets",
            g.streams.clone(),
        );
        r.register(
            "http_connections",
            "Connections over TCP and the unix socket",
            g.connections.clone(),
        );
        r.register(
            "store_finished_jobs",
            "Finished jobs that are kept",
            g.finished.clone(),
        );
        r.register_with_unit(
            "store",
            "Size of the store on disk, without output in files",
            Unit::Bytes,
            g.store_bytes.clone(),
        );
        r.register(
            "webhook_pending",
            "Deliveries to webhooks that wait or are tried again",
            g.webhooks_pending.clone(),
        );
        r.register_with_unit(
            "state_free",
            "Free space where the state is",
            Unit::Bytes,
            g.free_bytes.clone(),
        );
        r.register(
            "draining",
            "1 while no new jobs are accepted",
            g.draining.clone(),
        );
        r.register(
            "server_restarts",
            "How often the server was started again",
            g.restarts.clone(),
        );
        r.register(
            "damaged_records",
            "Records of jobs that were found damaged",
            g.damaged_records.clone(),
        );
        r.register(
            "audit_lines_lost",
            "Lines that the audit log could not take",
            g.audit_lines_lost.clone(),
        );
    }

    pub(super) fn set(&self, present: &Present) {
        let (version, commit) = present.build.clone();
        let build = Build {
            version,
            commit: commit.unwrap_or_default(),
        };
        self.build.get_or_create(&build).set(1);
        for (of, counts) in [
            (&self.jobs, present.jobs.as_slice()),
            (&self.limits, present.limits.as_slice()),
        ] {
            for (state, count) in counts {
                of.get_or_create(&State { state }).set(number(*count));
            }
        }
        self.set_queues(&present.queues);
        self.blocked.set(number(present.blocked));
        self.successes.clear();
        for (schedule, at) in &present.successes {
            let schedule = schedule.clone();
            self.successes
                .get_or_create(&Schedule { schedule })
                .set(seconds(*at));
        }
        self.finished.set(number(present.finished));
        self.store_bytes.set(number(present.store_bytes));
        self.webhooks_pending.set(number(present.webhooks_pending));
        self.free_bytes.set(number(present.free_bytes));
        self.draining.set(i64::from(present.draining));
        for (counter, count) in [
            (&self.restarts, present.restarts),
            (&self.damaged_records, present.damaged_records),
            (&self.audit_lines_lost, present.audit_lines_lost),
        ] {
            counter.inner().store(count, Ordering::Relaxed);
        }
        self.streams.set(number(present.streams));
        for (kind, count) in present.connections {
            if !kind.is_empty() {
                self.connections
                    .get_or_create(&Kind { kind })
                    .set(number(count));
            }
        }
        self.started_at.set(seconds(present.started_at));
        self.resident_bytes.set(number(present.resident_bytes));
        self.open_files.set(number(present.open_files));
    }

    /// A queue that there is no more has no series.
    fn set_queues(&self, queues: &[PresentQueue]) {
        self.queue_jobs.clear();
        self.queue_limits.clear();
        for queue in queues {
            let of = |state| QueueState {
                queue: queue.name.clone(),
                state,
            };
            for (state, count) in queue.jobs {
                self.queue_jobs
                    .get_or_create(&of(state))
                    .inc_by(number(count));
            }
            for (state, limit) in queue.limits {
                if let Some(limit) = limit {
                    self.queue_limits
                        .get_or_create(&of(state))
                        .set(number(limit));
                }
            }
        }
    }
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn seconds(at: Timestamp) -> i64 {
    at.as_micros() / 1_000_000
}
