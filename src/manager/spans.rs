//! Spans of jobs and requests, for a collector that speaks OTLP over HTTP, in its JSON encoding.
//!
//! A job's spans are made when its end is durable, from the job alone, and their ids are functions of the job: a server
//! that was killed or replaced meanwhile changes nothing. No command, environment or output is in one, and
//! no label but those that the operator names.

mod exporter;

use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub use exporter::Exporter;
use job::time::Timestamp;
use job::trace::Trace;
use job::{Cause, ExitStatus, Job, JobId, State};

/// Where spans go, and which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Otlp {
    /// The whole address, path included.
    pub url: String,
    /// Headers of each request, such as credentials.
    pub headers: Vec<(String, String)>,
    /// How long the collector may take.
    pub timeout: Duration,
    /// Attributes of the resource; `service.name` among them.
    pub resource: Vec<(String, String)>,
    /// Which traces are exported that no caller has decided about.
    pub sampler: Sampler,
    /// Labels of jobs that are attributes of their spans.
    pub labels: Vec<String>,
}

/// Which traces are exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampler {
    /// A caller's decision is followed.
    pub follows_parent: bool,
    /// Of a million traces, as many as this.
    pub of_million: u64,
}

impl Sampler {
    fn takes(self, trace: Option<&Trace>, trace_id: &str) -> bool {
        match trace {
            Some(trace) if self.follows_parent => trace.sampled,
            _ => {
                // The last digits of an id are random, also of one that carries the time.
                let tail = trace_id.get(16..).unwrap_or_default();
                let number = u64::from_str_radix(tail, 16).unwrap_or_default();
                number % 1_000_000 < self.of_million
            }
        }
    }
}

/// The steps of a job that have a span.
#[derive(Clone, Copy, Debug)]
enum Step {
    Request,
    Job,
    Queue(u32),
    Attempt(u32),
    Stop(u32),
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Job => "procession.job",
            Self::Queue(_) => "procession.queue",
            Self::Attempt(_) => "procession.attempt",
            Self::Stop(_) => "procession.stop",
        }
    }

    /// The same for every server that makes the span.
    fn span_id(self, job: JobId) -> String {
        let attempt = match self {
            Self::Request | Self::Job => 0,
            Self::Queue(attempt) | Self::Attempt(attempt) | Self::Stop(attempt) => attempt,
        };
        digest(
            &[
                job.to_string().as_bytes(),
                self.name().as_bytes(),
                &attempt.to_be_bytes(),
            ],
            8,
        )
    }
}

/// The first bytes of a hash, in hexadecimal digits.
fn digest(parts: &[&[u8]], bytes: usize) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
        hash.update([0]);
    }
    let digest = hash.finalize();
    digest
        .iter()
        .take(bytes)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The trace of a job: its caller's, or one of its own.
fn trace_id(job: JobId, trace: Option<&Trace>) -> String {
    match trace {
        Some(trace) => trace.trace_id.clone(),
        None => digest(&[job.to_string().as_bytes()], 16),
    }
}

/// The trace as the program of a job is told of it: where its spans are exported, the attempt's span is the parent of its
/// own; else it is the caller's, if there is one.
pub(crate) fn told(job: &Job, sampler: Option<Sampler>) -> Option<Trace> {
    let trace = job.trace.as_ref();
    let trace_id = trace_id(job.id, trace);
    if !sampler.is_some_and(|sampler| sampler.takes(trace, &trace_id)) {
        return trace.cloned();
    }
    Some(Trace {
        trace_id,
        span_id: Step::Attempt(job.attempt).span_id(job.id),
        sampled: true,
        state: trace.and_then(|trace| trace.state.clone()),
        baggage: trace.and_then(|trace| trace.baggage.clone()),
    })
}

/// A request, as far as its span tells.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    /// The request's id.
    pub id: &'a str,
    /// The caller's trace.
    pub trace: Option<&'a Trace>,
    /// The job that it created.
    pub created: Option<JobId>,
    pub method: &'a str,
    /// The pattern that matched.
    pub route: &'a str,
    pub status: u16,
    pub from: Timestamp,
    pub to: Timestamp,
}

/// The span of a request; `None` if its trace is not exported. What created a job is the parent of the job's span.
fn of_request(asked: &Asked<'_>, sampler: Sampler) -> Option<Value> {
    let trace_id = match asked.created {
        Some(job) => trace_id(job, asked.trace),
        None => asked.trace?.trace_id.clone(),
    };
    if !sampler.takes(asked.trace, &trace_id) {
        return None;
    }
    let span_id = match asked.created {
        Some(job) => Step::Request.span_id(job),
        None => digest(&[b"request", asked.id.as_bytes()], 8),
    };
    let mut span = span(
        &trace_id,
        &span_id,
        asked.trace.map(|trace| trace.span_id.as_str()),
        &format!("{} {}", asked.method, asked.route),
        (asked.from, asked.to),
    );
    span["kind"] = json!(2);
    span["attributes"] = json!([
        text("http.request.method", asked.method),
        text("http.route", asked.route),
        number("http.response.status_code", i64::from(asked.status)),
        text("procession.request.id", asked.id),
    ]);
    if asked.status >= 500 {
        span["status"] = json!({"code": 2});
    }
    Some(span)
}

/// One span of a job, before it is made.
struct Planned {
    step: Step,
    parent: Step,
    from: Timestamp,
    to: Timestamp,
}

/// Spans of one job that are to be made, if there is room for them.
struct Plan<'a> {
    job: &'a Job,
    trace_id: String,
    labels: &'a [String],
    spans: Vec<Planned>,
}

impl<'a> Plan<'a> {
    /// The spans of an attempt that has ended and after which another one follows; `None` if the job's trace is not
    /// exported.
    fn of_attempt(job: &'a Job, otlp: &'a Otlp) -> Option<Self> {
        let ended = job.finished_at?;
        let mut plan = Self::new(job, otlp)?;
        plan.add_attempt(ended);
        Some(plan)
    }

    /// The span of a job that has ended, and those of its last attempt.
    fn of_job(job: &'a Job, otlp: &'a Otlp) -> Option<Self> {
        let finished = job.finished_at?;
        let mut plan = Self::new(job, otlp)?;
        plan.add(Step::Job, Step::Request, job.created_at, finished);
        // A job that ended while it waited for another attempt has told of the one before.
        let last = job.attempts.last();
        if last.is_none_or(|it| it.finished_at == finished) {
            plan.add_attempt(finished);
        }
        Some(plan)
    }

    fn new(job: &'a Job, otlp: &'a Otlp) -> Option<Self> {
        let trace = job.trace.as_ref();
        let trace_id = trace_id(job.id, trace);
        otlp.sampler.takes(trace, &trace_id).then_some(Self {
            job,
            trace_id,
            labels: &otlp.labels,
            spans: Vec::with_capacity(4),
        })
    }

    fn add(&mut self, step: Step, parent: Step, from: Timestamp, to: Timestamp) {
        self.spans.push(Planned {
            step,
            parent,
            from,
            to: to.max(from),
        });
    }

    /// The present attempt, which ended at this moment: its wait, its run and its stop.
    fn add_attempt(&mut self, ended: Timestamp) {
        let job = self.job;
        let number = job.attempt;
        let (kept, before) = match job.attempts.as_slice() {
            [before @ .., last] if last.number == number => (Some(last), before.last()),
            before => (None, before.last()),
        };
        let waited_from = before.map_or(job.created_at, |it| it.finished_at);
        let started = match kept {
            Some(kept) => kept.started_at,
            None => job.attempt_started_at(),
        };
        let (queue, attempt) = (Step::Queue(number), Step::Attempt(number));
        self.add(queue, Step::Job, waited_from, started.unwrap_or(ended));
        let Some(started) = started else {
            return;
        };
        self.add(attempt, Step::Job, started, ended);
        let signals = job.termination.as_ref().map(|it| &it.signals_sent);
        if let Some(first) = signals.and_then(|it| it.first())
            && is_stopped(job)
        {
            self.add(Step::Stop(number), attempt, first.at, ended);
        }
    }

    fn make(&self) -> Vec<Value> {
        let attributes = attributes(self.job, self.labels);
        let spans = self.spans.iter().map(|planned| {
            let parent = planned.parent.span_id(self.job.id);
            let mut span = span(
                &self.trace_id,
                &planned.step.span_id(self.job.id),
                Some(&parent),
                planned.step.name(),
                (planned.from, planned.to),
            );
            span["attributes"] = attributes.clone();
            if matches!(planned.step, Step::Job) {
                self.finish(&mut span);
            }
            span
        });
        spans.collect()
    }

    /// What only the span of the whole job has.
    fn finish(&self, span: &mut Value) {
        let job = self.job;
        if let Some(original) = job.rerun_of {
            let trace_id = trace_id(original, None);
            span["links"] = json!([{"traceId": trace_id, "spanId": Step::Job.span_id(original)}]);
        }
        if !matches!(job.state, State::Succeeded | State::Canceled) {
            let cause = job.termination.as_ref().map_or("", |it| it.cause.as_str());
            span["status"] = json!({"code": 2, "message": cause});
        }
    }
}

/// Was it ended, and did not end by itself?
fn is_stopped(job: &Job) -> bool {
    let by_itself = [Cause::Exited, Cause::Signaled, Cause::OomKilled];
    job.termination
        .as_ref()
        .is_some_and(|it| !by_itself.contains(&it.cause))
}

fn attributes(job: &Job, labels: &[String]) -> Value {
    let mut attributes = vec![
        text("procession.job.id", &job.id.to_string()),
        text("procession.job.state", job.state.as_str()),
        text("procession.queue.name", &job.spec.queue),
        number("procession.job.attempt", i64::from(job.attempt)),
    ];
    if let Some(name) = &job.name {
        attributes.push(text("procession.job.name", name));
    }
    for key in labels {
        if let Some(value) = job.labels.get(key) {
            attributes.push(text(&format!("procession.job.label.{key}"), value));
        }
    }
    if let Some(termination) = &job.termination {
        attributes.push(text("procession.job.cause", termination.cause.as_str()));
    }
    if let Some(process) = &job.process {
        attributes.push(number("process.pid", i64::from(process.pid)));
    }
    match job.exit.map(|exit| exit.status) {
        Some(ExitStatus::Code(code)) => {
            attributes.push(number("process.exit.code", i64::from(code)))
        }
        Some(ExitStatus::Signal { signal, .. }) => {
            attributes.push(text("procession.exit.signal", &signal.to_string()));
        }
        None => {}
    }
    Value::Array(attributes)
}

fn span(
    trace_id: &str,
    span_id: &str,
    parent: Option<&str>,
    name: &str,
    (from, to): (Timestamp, Timestamp),
) -> Value {
    // 64-bit numbers are strings in the JSON of OTLP.
    let nanos = |at: Timestamp| format!("{}000", at.as_micros());
    json!({
        "traceId": trace_id,
        "spanId": span_id,
        "parentSpanId": parent.unwrap_or_default(),
        "name": name,
        "kind": 1,
        "startTimeUnixNano": nanos(from),
        "endTimeUnixNano": nanos(to),
    })
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

fn number(key: &str, value: i64) -> Value {
    json!({"key": key, "value": {"intValue": value.to_string()}})
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use job::Spec;
    use job::outcome::Termination;

    const ALL: Sampler = Sampler {
        follows_parent: true,
        of_million: 1_000_000,
    };

    fn of_job(job: &Job, otlp: &Otlp) -> Vec<Value> {
        Plan::of_job(job, otlp).map_or_else(Vec::new, |plan| plan.make())
    }

    fn otlp(sampler: Sampler) -> Otlp {
        Otlp {
            url: String::new(),
            headers: Vec::new(),
            timeout: Duration::ZERO,
            resource: Vec::new(),
            sampler,
            labels: vec!["team".to_owned()],
        }
    }

    fn ended() -> Job {
        let at = Timestamp::from_micros(1_000_000);
        Job {
            state: State::Failed,
            started_at: Some(at.after(Duration::from_micros(7))),
            finished_at: Some(at.after(Duration::from_secs(5))),
            termination: Some(Termination::unasked(Cause::Exited)),
            ..Job::accepted(
                JobId::from_bytes([1; 16]),
                String::new(),
                Arc::new(Spec::default()),
                at,
            )
        }
    }

    fn trace(sampled: bool) -> Trace {
        Trace {
            trace_id: "0af7651916cd43dd8448eb211c80319c".to_owned(),
            span_id: "b7ad6b7169203331".to_owned(),
            sampled,
            state: None,
            baggage: None,
        }
    }

    #[test]
    fn a_jobs_spans_are_functions_of_the_job() {
        let job = ended();
        let spans = of_job(&job, &otlp(ALL));
        assert_eq!(spans, of_job(&job, &otlp(ALL)), "whoever makes them");
        let names: Vec<_> = spans
            .iter()
            .map(|span| span["name"].as_str().unwrap())
            .collect();
        assert_eq!(
            names,
            ["procession.job", "procession.queue", "procession.attempt"]
        );
        assert_eq!(spans[1]["parentSpanId"], spans[0]["spanId"]);
        assert_eq!(spans[2]["parentSpanId"], spans[0]["spanId"]);
        assert_eq!(spans[1]["endTimeUnixNano"], "1000007000");
        assert_eq!(
            spans[2]["spanId"],
            told(&job, Some(ALL)).unwrap().span_id.as_str(),
            "the program's parent"
        );
        assert_eq!(spans[0]["status"]["message"], "exited");
        let ids: std::collections::BTreeSet<_> = spans
            .iter()
            .map(|span| span["spanId"].to_string())
            .collect();
        assert_eq!(ids.len(), spans.len());
    }

    #[test]
    fn each_attempt_has_its_wait_and_its_run() {
        let mut job = ended();
        Arc::make_mut(&mut job.spec).retry = Some(job::retry::Retry::default());
        job.labels = [("team", "a"), ("secret", "b")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        job.keep_attempt(None);
        let first = Plan::of_attempt(&job, &otlp(ALL)).unwrap().make();
        let again_at = job.finished_at.unwrap().after(Duration::from_secs(3));
        job.wait_again(again_at);
        // It was given up while it waited.
        let last = job.as_ended_last(again_at).unwrap();
        let given_up = of_job(&last, &otlp(ALL));
        assert_eq!(
            given_up.len(),
            1,
            "the first attempt is told once: {given_up:#?}"
        );
        // Or it ran once more, and could not be started.
        job.state = State::Failed;
        job.finished_at = Some(again_at);
        job.termination = Some(Termination::unasked(Cause::SpawnFailed));
        job.keep_attempt(None);
        let second = of_job(&job, &otlp(ALL));
        let names = |spans: &[Value]| -> Vec<String> {
            let names = spans
                .iter()
                .map(|it| it["name"].as_str().unwrap().to_owned());
            names.collect()
        };
        assert_eq!(names(&first), ["procession.queue", "procession.attempt"]);
        assert_eq!(names(&second), ["procession.job", "procession.queue"]);
        assert_eq!(second[1]["startTimeUnixNano"], first[1]["endTimeUnixNano"]);
        assert_ne!(second[1]["spanId"], first[0]["spanId"]);
        let text = json!(second).to_string();
        assert!(
            text.contains("procession.job.label.team") && !text.contains("secret"),
            "{text}"
        );
    }

    #[test]
    fn a_callers_decision_is_followed() {
        let unsampled = Job {
            trace: Some(trace(false)),
            ..ended()
        };
        assert!(of_job(&unsampled, &otlp(ALL)).is_empty());
        let none = Sampler {
            of_million: 0,
            ..ALL
        };
        assert!(of_job(&ended(), &otlp(none)).is_empty());
        let sampled = Job {
            trace: Some(trace(true)),
            ..ended()
        };
        let spans = of_job(&sampled, &otlp(none));
        assert_eq!(spans[0]["traceId"], trace(true).trace_id.as_str());
        let ignores = Sampler {
            follows_parent: false,
            of_million: 0,
        };
        assert!(of_job(&sampled, &otlp(ignores)).is_empty());
    }
}
