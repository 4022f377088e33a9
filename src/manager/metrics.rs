//! What operators count: jobs by state and cause, the time they wait, start, run and stop, their output, requests.
//!
//! Counters begin at 0 with each server. A job that ended while there was no server is counted by the one that finds
//! its end, once: where the end is made durable. No label ever holds an id, a name or a value that clients choose
//! freely, so the number of series does not grow with the number of jobs.

mod gauges;
mod labels;
mod names;
mod text;

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use gauges::Gauges;
pub use gauges::Present;
use job::schedule::Skipped;
use job::time::Timestamp;
use job::{Cause, Job};
use labels::{Code, Ended, Escalated, Mode, Outcome, Reason, Request, State, Stream};
pub use text::Format;

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

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
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
