//! What operators count: jobs by state and cause, the time they wait, start, run and stop, their output, requests.
//!
//! Counters begin at 0 with each server. A job that ended while there was no server is counted by the one that finds
//! its end, once: where the end is made durable. No label ever holds an id, a name or a value that clients choose
//! freely, so the number of series does not grow with the number of jobs.

mod text;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use job::schedule::Skipped;
use job::time::Timestamp;
use job::{Cause, Job};
pub use text::Format;

/// Durations from a millisecond to 4.6 hours, each bucket four times the one before.
const BUCKETS: usize = 13;

fn histogram() -> Histogram {
    let bounds = std::iter::successors(Some(0.001), |bound| Some(bound * 4.0));
    Histogram::new(bounds.take(BUCKETS))
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Ended {
    state: &'static str,
    cause: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct State {
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Escalated {
    escalated: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Mode {
    mode: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Stream {
    stream: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Code {
    code: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Request {
    method: &'static str,
    route: &'static str,
    status: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Build {
    version: String,
    commit: String,
}

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

/// All that is counted, in one registry.
pub struct Metrics {
    registry: Registry,
    accepted: Counter,
    refused: Family<Code, Counter>,
    schedule_runs: Counter,
    schedule_skipped: Family<Reason, Counter>,
    finished: Family<Ended, Counter>,
    queue_seconds: Histogram,
    run_seconds: Family<State, Histogram, fn() -> Histogram>,
    stop_seconds: Family<Escalated, Histogram, fn() -> Histogram>,
    leftovers: Counter,
    escalations: Counter,
    cpu_seconds: Family<Mode, Counter<f64, AtomicU64>>,
    output_bytes: Family<Stream, Counter>,
    dropped_bytes: Counter,
    requests: Family<Request, Histogram, fn() -> Histogram>,
    deliveries: Family<Outcome, Counter>,
    spans: Family<Outcome, Counter>,
    gauges: Gauges,
}

/// Set before each encoding.
#[derive(Debug, Default)]
struct Gauges {
    build: Family<Build, Gauge>,
    jobs: Family<State, Gauge>,
    limits: Family<State, Gauge>,
    blocked: Gauge,
    finished: Gauge,
    free_bytes: Gauge,
    draining: Gauge,
    restarts: Counter,
    damaged_records: Counter,
    streams: Gauge,
    started_at: Gauge,
    resident_bytes: Gauge,
    open_files: Gauge,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            accepted: Counter::default(),
            refused: Family::default(),
            schedule_runs: Counter::default(),
            schedule_skipped: Family::default(),
            finished: Family::default(),
            queue_seconds: histogram(),
            run_seconds: Family::new_with_constructor(histogram),
            stop_seconds: Family::new_with_constructor(histogram),
            leftovers: Counter::default(),
            escalations: Counter::default(),
            cpu_seconds: Family::default(),
            output_bytes: Family::default(),
            dropped_bytes: Counter::default(),
            requests: Family::new_with_constructor(histogram),
            deliveries: Family::default(),
            spans: Family::default(),
            gauges: Gauges::default(),
        };
        metrics.register_jobs();
        metrics.register_service();
        metrics
    }
}

impl Metrics {
    fn register_jobs(&mut self) {
        let r = self.registry.sub_registry_with_prefix("procession");
        let g = &self.gauges;
        r.register("jobs", "Live jobs by state", g.jobs.clone());
        r.register(
            "jobs_limit",
            "The limits on running and queued jobs",
            g.limits.clone(),
        );
        r.register(
            "jobs_blocked",
            "Jobs with processes that a stop has not been able to end",
            g.blocked.clone(),
        );
        r.register(
            "jobs_accepted",
            "Jobs that were accepted",
            self.accepted.clone(),
        );
        r.register(
            "jobs_refused",
            "Submissions that were refused, by code",
            self.refused.clone(),
        );
        r.register(
            "schedule_runs",
            "Jobs that schedules made",
            self.schedule_runs.clone(),
        );
        r.register(
            "schedule_skipped",
            "Due times of schedules that made no job, by reason",
            self.schedule_skipped.clone(),
        );
        r.register(
            "jobs_finished",
            "Jobs that ended, by state and cause",
            self.finished.clone(),
        );
        r.register_with_unit(
            "job_queue",
            "From acceptance to the start of the program",
            Unit::Seconds,
            self.queue_seconds.clone(),
        );
        r.register_with_unit(
            "job_run",
            "From the start of the program to the end of the job",
            Unit::Seconds,
            self.run_seconds.clone(),
        );
        r.register_with_unit(
            "job_stop",
            "From the first signal of a stop to the end of the last process",
            Unit::Seconds,
            self.stop_seconds.clone(),
        );
        r.register(
            "leftovers_killed",
            "Processes that outlived their leader and were killed",
            self.leftovers.clone(),
        );
        r.register(
            "stop_escalations",
            "Stops that had to use SIGKILL",
            self.escalations.clone(),
        );
        r.register_with_unit(
            "job_cpu",
            "Processor time of ended jobs",
            Unit::Seconds,
            self.cpu_seconds.clone(),
        );
        r.register_with_unit(
            "output",
            "Output of ended jobs",
            Unit::Bytes,
            self.output_bytes.clone(),
        );
        r.register_with_unit(
            "output_dropped",
            "Output of ended jobs that was dropped to keep a bound",
            Unit::Bytes,
            self.dropped_bytes.clone(),
        );
    }

    fn register_service(&mut self) {
        let r = self.registry.sub_registry_with_prefix("procession");
        let g = &self.gauges;
        r.register("build_info", "Version and commit", g.build.clone());
        r.register_with_unit(
            "http_request",
            "From the request to the head of its answer",
            Unit::Seconds,
            self.requests.clone(),
        );
        r.register(
            "http_streams",
            "Answers that follow a job, and WebSockets",
            g.streams.clone(),
        );
        r.register(
            "store_finished_jobs",
            "Finished jobs that are kept",
            g.finished.clone(),
        );
        r.register_with_unit(
            "state_free",
            "Free space where the state is",
            Unit::Bytes,
            g.free_bytes.clone(),
        );
        r.register(
            "webhook_deliveries",
            "Deliveries to webhooks that ended, by result",
            self.deliveries.clone(),
        );
        r.register(
            "spans",
            "Spans for the collector, by what became of them",
            self.spans.clone(),
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
        // Names that every exporter has.
        let r = &mut self.registry;
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
    /// A job was accepted.
    pub(crate) fn accepted(&self) {
        self.accepted.inc();
    }

    /// A schedule has made a job.
    pub(crate) fn schedule_ran(&self) {
        self.schedule_runs.inc();
    }

    /// A due time of a schedule has made no job.
    pub(crate) fn schedule_skipped(&self, why: Skipped) {
        let reason = why.as_str();
        self.schedule_skipped
            .get_or_create(&Reason { reason })
            .inc();
    }

    /// A submission was refused with this code of a problem.
    pub fn refused(&self, code: &'static str) {
        self.refused.get_or_create(&Code { code }).inc();
    }

    /// The end of a job is durable.
    pub(crate) fn ended(&self, job: &Job) {
        let Some(termination) = &job.termination else {
            return;
        };
        let state = job.state.as_str();
        let cause = termination.cause.as_str();
        self.finished.get_or_create(&Ended { state, cause }).inc();
        if let Some(started) = job.started_at {
            let waited = started.since(job.created_at);
            self.queue_seconds.observe(waited.as_secs_f64());
        }
        if let Some(ran) = job.ran() {
            let runs = self.run_seconds.get_or_create(&State { state });
            runs.observe(ran.as_secs_f64());
        }
        if let Some(first) = termination.signals_sent.first()
            && let Some(took) = stop_took(first.at, job)
        {
            let escalated = if termination.escalated {
                "true"
            } else {
                "false"
            };
            let stops = self.stop_seconds.get_or_create(&Escalated { escalated });
            stops.observe(took.as_secs_f64());
        }
        self.leftovers
            .inc_by(u64::from(termination.killed_leftovers));
        self.escalations.inc_by(u64::from(termination.escalated));
        if let Some(usage) = &job.usage {
            for (mode, seconds) in [
                ("user", usage.user_cpu_seconds),
                ("system", usage.system_cpu_seconds),
            ] {
                self.cpu_seconds
                    .get_or_create(&Mode { mode })
                    .inc_by(seconds.max(0.0));
            }
        }
        for (stream, bytes) in [
            ("stdout", job.output.stdout_bytes),
            ("stderr", job.output.stderr_bytes),
        ] {
            self.output_bytes
                .get_or_create(&Stream { stream })
                .inc_by(bytes);
        }
        self.dropped_bytes.inc_by(job.output.dropped_bytes);
    }

    /// A request was answered; `route` is the pattern that matched.
    pub fn answered(&self, method: &'static str, route: &'static str, status: u16, took: Duration) {
        let status = match status / 100 {
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        };
        let request = Request {
            method,
            route,
            status,
        };
        self.requests
            .get_or_create(&request)
            .observe(took.as_secs_f64());
    }

    /// A delivery to a webhook ended: it was taken, or given up.
    pub(crate) fn delivered(&self, is_taken: bool) {
        let result = if is_taken { "delivered" } else { "given_up" };
        self.deliveries.get_or_create(&Outcome { result }).inc();
    }

    pub(crate) fn spans_exported(&self, count: u64) {
        let result = "exported";
        self.spans.get_or_create(&Outcome { result }).inc_by(count);
    }

    pub(crate) fn spans_dropped(&self, count: u64) {
        let result = "dropped";
        self.spans.get_or_create(&Outcome { result }).inc_by(count);
    }

    /// Everything as a scrape gets it.
    pub fn encode(&self, present: &Present, format: Format) -> String {
        self.gauges.set(present);
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a string takes every byte");
        match format {
            Format::OpenMetrics => text,
            Format::Text => text::without_openmetrics(&text),
        }
    }
}

/// The time from the first signal of a stop to the end of the job. None if nobody asked for the end: signals that
/// clean up after a leader are no stop.
fn stop_took(first: Timestamp, job: &Job) -> Option<Duration> {
    let cause = job.termination.as_ref()?.cause;
    let is_stop = match cause {
        Cause::Timeout
        | Cause::Canceled
        | Cause::Superseded
        | Cause::Shutdown
        | Cause::OutputLimit => true,
        Cause::Exited
        | Cause::Signaled
        | Cause::SpawnFailed
        | Cause::OomKilled
        | Cause::DependencyFailed
        | Cause::StartDeadline
        | Cause::MonitorLost
        | Cause::SupervisorLost
        | Cause::HostRebooted => false,
    };
    is_stop.then(|| Some(job.finished_at?.since(first)))?
}

impl Gauges {
    fn set(&self, present: &Present) {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use job::outcome::{SentSignal, Termination};
    use job::{JobId, Signal, Spec};

    fn ended(state: job::State, cause: Cause) -> Job {
        let at = Timestamp::from_micros(1_000_000);
        Job {
            state,
            started_at: Some(at.after(Duration::from_millis(2))),
            finished_at: Some(at.after(Duration::from_secs(5))),
            termination: Some(Termination::unasked(cause)),
            ..Job::accepted(
                JobId::from_bytes([1; 16]),
                String::new(),
                Arc::new(Spec::default()),
                at,
            )
        }
    }

    fn text(metrics: &Metrics, format: Format) -> String {
        metrics.encode(&Present::default(), format)
    }

    #[test]
    fn an_end_is_counted_by_state_and_cause_and_its_times_are_observed() {
        let metrics = Metrics::default();
        metrics.ended(&ended(job::State::Succeeded, Cause::Exited));
        let text = text(&metrics, Format::OpenMetrics);
        for line in [
            "procession_jobs_finished_total{state=\"succeeded\",cause=\"exited\"} 1",
            "procession_job_queue_seconds_bucket{le=\"0.004\"} 1",
            "procession_job_run_seconds_count{state=\"succeeded\"} 1",
        ] {
            assert!(text.lines().any(|have| have == line), "{line}\n{text}");
        }
        assert!(text.ends_with("# EOF\n"), "{text}");
        assert!(!text.contains("job_stop_seconds_count{"), "{text}");
    }

    #[test]
    fn a_stop_is_timed_from_its_first_signal() {
        let metrics = Metrics::default();
        let mut job = ended(job::State::Canceled, Cause::Canceled);
        let termination = job.termination.as_mut().unwrap();
        termination.escalated = true;
        termination.killed_leftovers = 2;
        termination.signals_sent = vec![SentSignal {
            signal: Signal::KILL,
            at: Timestamp::from_micros(4_000_000),
        }];
        metrics.ended(&job);
        let text = text(&metrics, Format::OpenMetrics);
        for line in [
            "procession_job_stop_seconds_sum{escalated=\"true\"} 2.0",
            "procession_stop_escalations_total 1",
            "procession_leftovers_killed_total 2",
        ] {
            assert!(text.lines().any(|have| have == line), "{line}\n{text}");
        }
    }

    #[test]
    fn the_older_format_names_a_counter_as_its_samples_are() {
        let metrics = Metrics::default();
        metrics.accepted();
        let text = text(&metrics, Format::Text);
        assert!(
            text.contains(
                "# TYPE procession_jobs_accepted_total counter\nprocession_jobs_accepted_total 1\n"
            ),
            "{text}"
        );
        assert!(
            !text.contains("# EOF") && !text.contains("# UNIT"),
            "{text}"
        );
    }
}
