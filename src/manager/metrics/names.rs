//! Every series: its name, its unit and what it says.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::Metrics;
use super::gauges::Gauges;

/// Durations from a millisecond to 4.6 hours, each bucket four times the one before.
const BUCKETS: usize = 13;

fn histogram() -> Histogram {
    let bounds = std::iter::successors(Some(0.001), |bound| Some(bound * 4.0));
    Histogram::new(bounds.take(BUCKETS))
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
        metrics.register_submissions();
        metrics.register_ends();
        metrics.register_service();
        metrics
    }
}

impl Metrics {
    fn register_submissions(&mut self) {
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
    }

    fn register_ends(&mut self) {
        let r = self.registry.sub_registry_with_prefix("procession");
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
}
