//! Spans of jobs and requests, for a collector that speaks OTLP over HTTP, in its JSON encoding.
//!
//! A job's spans are made when its end is durable, from the job alone, and their ids are functions of the job: a server
//! that was killed or replaced meanwhile changes nothing. No command, environment, output or label is in one.

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
    Queue,
    Attempt(u32),
    Stop,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Job => "procession.job",
            Self::Queue => "procession.queue",
            Self::Attempt(_) => "procession.attempt",
            Self::Stop => "procession.stop",
        }
    }

    /// The same for every server that makes the span.
    fn span_id(self, job: JobId) -> String {
        let attempt = if let Self::Attempt(number) = self {
            number
        } else {
            0
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

/// The span of a request; `None` where its trace is not exported. What created a job is the parent of the job's span.
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

/// The spans of a job that has ended; none where its trace is not exported.
fn of_job(job: &Job, sampler: Sampler) -> Vec<Value> {
    let trace = job.trace.as_ref();
    let trace_id = trace_id(job.id, trace);
    let (Some(finished), true) = (job.finished_at, sampler.takes(trace, &trace_id)) else {
        return Vec::new();
    };
    let make = |step: Step, parent: Step, from: Timestamp, to: Timestamp| {
        let parent = parent.span_id(job.id);
        span(
            &trace_id,
            &step.span_id(job.id),
            Some(&parent),
            step.name(),
            (from, to.max(from)),
        )
    };
    let mut whole = make(Step::Job, Step::Request, job.created_at, finished);
    whole["attributes"] = attributes(job);
    if let Some(original) = job.rerun_of {
        let trace_id = self::trace_id(original, None);
        whole["links"] = json!([{"traceId": trace_id, "spanId": Step::Job.span_id(original)}]);
    }
    if !matches!(job.state, State::Succeeded | State::Canceled) {
        let cause = job.termination.as_ref().map_or("", |it| it.cause.as_str());
        whole["status"] = json!({"code": 2, "message": cause});
    }
    let started = job.started_at.unwrap_or(finished);
    let mut spans = vec![whole, make(Step::Queue, Step::Job, job.created_at, started)];
    if job.started_at.is_some() {
        let mut attempt = make(Step::Attempt(job.attempt), Step::Job, started, finished);
        attempt["attributes"] = attributes(job);
        spans.push(attempt);
    }
    if let Some(first) = job
        .termination
        .as_ref()
        .and_then(|it| it.signals_sent.first())
        && is_stopped(job)
    {
        spans.push(make(
            Step::Stop,
            Step::Attempt(job.attempt),
            first.at,
            finished,
        ));
    }
    spans
}

/// Was it ended, and did not end by itself?
fn is_stopped(job: &Job) -> bool {
    let by_itself = [Cause::Exited, Cause::Signaled, Cause::OomKilled];
    job.termination
        .as_ref()
        .is_some_and(|it| !by_itself.contains(&it.cause))
}

fn attributes(job: &Job) -> Value {
    let mut attributes = vec![
        text("procession.job.id", &job.id.to_string()),
        text("procession.job.state", job.state.as_str()),
        text("procession.queue.name", &job.spec.queue),
        number("procession.job.attempt", i64::from(job.attempt)),
    ];
    if let Some(name) = &job.name {
        attributes.push(text("procession.job.name", name));
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
        let spans = of_job(&job, ALL);
        assert_eq!(spans, of_job(&job, ALL), "whoever makes them");
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
    fn a_callers_decision_is_followed() {
        let unsampled = Job {
            trace: Some(trace(false)),
            ..ended()
        };
        assert!(of_job(&unsampled, ALL).is_empty());
        let none = Sampler {
            of_million: 0,
            ..ALL
        };
        assert!(of_job(&ended(), none).is_empty());
        let sampled = Job {
            trace: Some(trace(true)),
            ..ended()
        };
        let spans = of_job(&sampled, none);
        assert_eq!(spans[0]["traceId"], trace(true).trace_id.as_str());
        let ignores = Sampler {
            follows_parent: false,
            of_million: 0,
        };
        assert!(of_job(&sampled, ignores).is_empty());
    }
}
