//! What operators count: jobs by state and cause, the time they wait, start, run and stop, their output, requests.
//!
//! Counters begin at 0 with each server. A job that ended while there was no server is counted by the one that finds
//! its end, once: where the end is made durable. No label ever holds an id, a name or a value that clients choose
//! freely, so the number of series does not grow with the number of jobs.

mod gauges;
mod labels;
mod text;

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use gauges::Gauges;
pub use gauges::{Present, PresentQueue};
use job::schedule::Skipped;
use job::time::Timestamp;
use job::{Cause, Job};
pub use labels::label_name;
use labels::{
    Attempted, Choice, Chosen, Code, Ended, Escalated, Mode, OTHER, Outcome, Queue, Ran, Reason,
    Request, Schedule, Stream, Traced, Values,
};
pub use text::Format;

/// Durations from a millisecond to 4.6 hours, each bucket four times the one before.
const BUCKETS: usize = 13;

fn bounds() -> impl Iterator<Item = f64> {
    std::iter::successors(Some(0.001), |bound| Some(bound * 4.0)).take(BUCKETS)
}

fn histogram() -> Histogram {
    Histogram::new(bounds())
}

/// A histogram of which each bucket names the last trace that was recorded of what is in it.
type TracedHistogram = HistogramWithExemplars<Traced>;

fn traced_histogram() -> TracedHistogram {
    TracedHistogram::new(bounds())
}

/// All that is counted, in one registry.
pub struct Metrics {
    registry: Registry,
    /// Labels of jobs that are also labels of series.
    choices: Vec<Choice>,
    /// The queues that have series of their own.
    queues: Values,
    /// The schedules that have.
    schedules: Values,
    accepted: Family<Queue, Counter>,
    refused: Family<Code, Counter>,
    schedule_runs: Family<Schedule, Counter>,
    schedule_skipped: Family<Reason, Counter>,
    finished: Family<Ended, Counter>,
    attempts: Family<Attempted, Counter>,
    queue_seconds: Family<Queue, TracedHistogram, fn() -> TracedHistogram>,
    start_seconds: Family<Queue, Histogram, fn() -> Histogram>,
    run_seconds: Family<Ran, TracedHistogram, fn() -> TracedHistogram>,
    stop_seconds: Family<Escalated, Histogram, fn() -> Histogram>,
    leftovers: Counter,
    escalations: Counter,
    rescues: Counter,
    cpu_seconds: Family<Mode, Counter<f64, AtomicU64>>,
    output_bytes: Family<Stream, Counter>,
    dropped_bytes: Counter,
    requests: Family<Request, TracedHistogram, fn() -> TracedHistogram>,
    commit_seconds: Histogram,
    deliveries: Family<Outcome, Counter>,
    spans: Family<Outcome, Counter>,
    gauges: Gauges,
    /// One scrape at a time sets what is read at its moment.
    scrape: Mutex<()>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Nothing counted yet; the values of these labels of jobs become labels of the series of their ends.
    #[must_use]
    pub fn new(labels: &[String]) -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            choices: labels.iter().map(|key| Choice::new(key)).collect(),
            queues: Values::default(),
            schedules: Values::default(),
            accepted: Family::default(),
            refused: Family::default(),
            schedule_runs: Family::default(),
            schedule_skipped: Family::default(),
            finished: Family::default(),
            attempts: Family::default(),
            queue_seconds: Family::new_with_constructor(traced_histogram),
            start_seconds: Family::new_with_constructor(histogram),
            run_seconds: Family::new_with_constructor(traced_histogram),
            stop_seconds: Family::new_with_constructor(histogram),
            leftovers: Counter::default(),
            escalations: Counter::default(),
            rescues: Counter::default(),
            cpu_seconds: Family::default(),
            output_bytes: Family::default(),
            dropped_bytes: Counter::default(),
            requests: Family::new_with_constructor(traced_histogram),
            commit_seconds: histogram(),
            deliveries: Family::default(),
            spans: Family::default(),
            gauges: Gauges::default(),
            scrape: Mutex::default(),
        };
        metrics.register_jobs();
        metrics.register_times();
        metrics.register_service();
        metrics.gauges.register(&mut metrics.registry);
        metrics
    }

    fn register_jobs(&mut self) {
        let r = self.registry.sub_registry_with_prefix("procession");
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
        r.register(
            "job_attempts",
            "Attempts that ended, by the state that they ended in",
            self.attempts.clone(),
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
        r.register(
            "monitor_rescues",
            "Jobs whose monitor died and that another process ended",
            self.rescues.clone(),
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

    fn register_times(&mut self) {
        let r = self.registry.sub_registry_with_prefix("procession");
        r.register_with_unit(
            "job_queue",
            "From acceptance to the start of the program",
            Unit::Seconds,
            self.queue_seconds.clone(),
        );
        r.register_with_unit(
            "job_start",
            "From the grant of a slot to the start of the program",
            Unit::Seconds,
            self.start_seconds.clone(),
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
        r.register_with_unit(
            "http_request",
            "From the request to the head of its answer",
            Unit::Seconds,
            self.requests.clone(),
        );
        r.register_with_unit(
            "store_commit",
            "One transaction of the store, with its sync",
            Unit::Seconds,
            self.commit_seconds.clone(),
        );
    }

    fn register_service(&mut self) {
        let r = self.registry.sub_registry_with_prefix("procession");
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
    }

    /// The queue as the series name it; one of which nothing is set is one of the others.
    pub(crate) fn queue(&self, name: &str, is_set: bool) -> Arc<str> {
        if is_set {
            self.queues.of(name)
        } else {
            OTHER.into()
        }
    }

    /// The schedule as the series name it.
    pub(crate) fn schedule(&self, name: &str) -> Arc<str> {
        self.schedules.of(name)
    }

    /// A job was accepted into this queue.
    pub(crate) fn accepted(&self, queue: Arc<str>) {
        self.accepted.get_or_create(&Queue { queue }).inc();
    }

    /// The program of a job was started, so long after the job got its slot.
    pub(crate) fn started(&self, queue: Arc<str>, took: Duration) {
        self.start_seconds
            .get_or_create(&Queue { queue })
            .observe(took.as_secs_f64());
    }

    /// The end of an attempt is durable.
    pub(crate) fn attempt_ended(&self, state: job::State) {
        let outcome = state.as_str();
        self.attempts.get_or_create(&Attempted { outcome }).inc();
    }

    /// The monitor of a job had died, and another process saw to the end.
    pub(crate) fn rescued(&self) {
        self.rescues.inc();
    }

    /// A schedule has made a job.
    pub(crate) fn schedule_ran(&self, name: &str) {
        let schedule = self.schedule(name);
        self.schedule_runs
            .get_or_create(&Schedule { schedule })
            .inc();
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

    /// The end of a job of this queue is durable; `trace` is the id of its trace, if that is recorded.
    pub(crate) fn ended(&self, job: &Job, queue: Arc<str>, trace: Option<String>) {
        let Some(termination) = &job.termination else {
            return;
        };
        let state = job.state.as_str();
        let cause = termination.cause.as_str();
        let chosen: Chosen = self.choices.iter().map(|choice| choice.of(job)).collect();
        let ended = Ended {
            state,
            cause,
            chosen: chosen.clone(),
        };
        self.finished.get_or_create(&ended).inc();
        if let Some(started) = job.started_at {
            let waited = started.since(job.created_at).as_secs_f64();
            let of = Queue {
                queue: queue.clone(),
            };
            let traced = trace.clone().map(Traced::new);
            self.queue_seconds
                .get_or_create(&of)
                .observe(waited, traced, None);
        }
        if let Some(ran) = job.ran() {
            let of = Ran {
                queue,
                state,
                chosen,
            };
            self.run_seconds.get_or_create(&of).observe(
                ran.as_secs_f64(),
                trace.map(Traced::new),
                None,
            );
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

    /// A request was answered; `trace` is the id of its trace, if that is recorded.
    pub fn answered(&self, answered: &Answered, trace: Option<String>) {
        let Answered {
            method,
            route,
            status,
            took,
        } = *answered;
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
        self.requests.get_or_create(&request).observe(
            took.as_secs_f64(),
            trace.map(Traced::new),
            None,
        );
    }

    /// The store has committed a transaction.
    pub(crate) fn committed(&self, took: Duration) {
        self.commit_seconds.observe(took.as_secs_f64());
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
        let _alone = self.scrape.lock().unwrap_or_else(PoisonError::into_inner);
        self.gauges.set(present);
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a string takes every byte");
        match format {
            Format::OpenMetrics => text,
            Format::Text => text::without_openmetrics(&text),
        }
    }
}

/// A request that was answered.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// One of a few.
    pub method: &'static str,
    /// The pattern that matched.
    pub route: &'static str,
    /// The status code.
    pub status: u16,
    /// Until the head of the answer.
    pub took: Duration,
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
        | Cause::NotReady
        | Cause::WorkspaceLimit
        | Cause::OutputLimit => true,
        Cause::Exited
        | Cause::Signaled
        | Cause::SpawnFailed
        | Cause::OomKilled
        | Cause::DependencyFailed
        | Cause::StartDeadline
        | Cause::MonitorLost
        | Cause::SupervisorLost
        | Cause::HostRebooted
        | Cause::NodeLost => false,
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
        let metrics = Metrics::new(&[]);
        let job = ended(job::State::Succeeded, Cause::Exited);
        metrics.ended(&job, "builds".into(), None);
        let text = text(&metrics, Format::OpenMetrics);
        for line in [
            "procession_jobs_finished_total{state=\"succeeded\",cause=\"exited\"} 1",
            "procession_job_queue_seconds_bucket{le=\"0.004\",queue=\"builds\"} 1",
            "procession_job_run_seconds_count{queue=\"builds\",state=\"succeeded\"} 1",
        ] {
            assert!(text.lines().any(|have| have == line), "{line}\n{text}");
        }
        assert!(text.ends_with("# EOF\n"), "{text}");
        assert!(!text.contains("job_stop_seconds_count{"), "{text}");
    }

    #[test]
    fn a_bucket_names_the_last_trace_that_was_recorded_where_the_format_can() {
        let metrics = Metrics::new(&[]);
        let job = ended(job::State::Succeeded, Cause::Exited);
        let id = "0af7651916cd43dd8448eb211c80319c";
        metrics.ended(&job, "builds".into(), Some(id.to_owned()));
        metrics.ended(&job, "builds".into(), None);
        let bucket = "procession_job_queue_seconds_bucket{le=\"0.004\",queue=\"builds\"} 2";
        let named = format!("{bucket} # {{trace_id=\"{id}\"}} 0.002");
        let openmetrics = text(&metrics, Format::OpenMetrics);
        assert!(
            openmetrics.lines().any(|line| line == named),
            "{openmetrics}"
        );
        let ran = "procession_job_run_seconds_bucket{le=\"16.384\",queue=\"builds\",state=\"succeeded\"} 2 # {trace_id=";
        assert!(openmetrics.contains(ran), "{openmetrics}");
        let older = text(&metrics, Format::Text);
        assert!(older.lines().any(|line| line == bucket), "{older}");
        assert!(!older.contains(id), "{older}");
    }

    #[test]
    fn a_stop_is_timed_from_its_first_signal() {
        let metrics = Metrics::new(&[]);
        let mut job = ended(job::State::Canceled, Cause::Canceled);
        let termination = job.termination.as_mut().unwrap();
        termination.escalated = true;
        termination.killed_leftovers = 2;
        termination.signals_sent = vec![SentSignal {
            signal: Signal::KILL,
            at: Timestamp::from_micros(4_000_000),
        }];
        metrics.ended(&job, "builds".into(), None);
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
    fn labels_that_the_operator_chose_are_labels_of_ends() {
        let metrics = Metrics::new(&["team".to_owned(), "example.org/tier".to_owned()]);
        let mut job = ended(job::State::Succeeded, Cause::Exited);
        for number in 0..150 {
            job.labels = [("team".to_owned(), format!("t{number}"))].into();
            metrics.ended(&job, "builds".into(), None);
        }
        let text = text(&metrics, Format::OpenMetrics);
        let of = |team: &str| format!("label_team=\"{team}\",label_example_org_tier=\"\"");
        for line in [
            format!(
                "procession_jobs_finished_total{{state=\"succeeded\",cause=\"exited\",{}}} 1",
                of("t7")
            ),
            format!(
                "procession_jobs_finished_total{{state=\"succeeded\",cause=\"exited\",{}}} 50",
                of("other")
            ),
            format!(
                "procession_job_run_seconds_count{{queue=\"builds\",state=\"succeeded\",{}}} 50",
                of("other")
            ),
        ] {
            assert!(text.lines().any(|have| have == line), "{line}\n{text}");
        }
        assert!(!text.contains("t149"), "{text}");
    }

    #[test]
    fn queues_of_the_same_name_are_one_series_and_go_with_their_queues() {
        let metrics = Metrics::new(&[]);
        let queue = |name: &str, running, limit| PresentQueue {
            name: name.into(),
            jobs: [("running", running), ("queued", 1)],
            limits: [("running", limit), ("queued", None)],
        };
        let present = Present {
            queues: vec![
                queue("other", 2, None),
                queue("other", 3, None),
                queue("a", 1, Some(4)),
            ],
            ..Present::default()
        };
        let text = metrics.encode(&present, Format::OpenMetrics);
        for line in [
            "procession_queue_jobs{queue=\"other\",state=\"running\"} 5",
            "procession_queue_jobs{queue=\"a\",state=\"queued\"} 1",
            "procession_queue_limit{queue=\"a\",state=\"running\"} 4",
        ] {
            assert!(text.lines().any(|have| have == line), "{line}\n{text}");
        }
        let text = metrics.encode(&Present::default(), Format::OpenMetrics);
        assert!(!text.contains("queue=\"a\""), "{text}");
    }

    #[test]
    fn the_older_format_names_a_counter_as_its_samples_are() {
        let metrics = Metrics::new(&[]);
        metrics.accepted("builds".into());
        let text = text(&metrics, Format::Text);
        assert!(
            text.contains(
                "# TYPE procession_jobs_accepted_total counter\nprocession_jobs_accepted_total{queue=\"builds\"} 1\n"
            ),
            "{text}"
        );
        assert!(
            !text.contains("# EOF") && !text.contains("# UNIT"),
            "{text}"
        );
    }
}
