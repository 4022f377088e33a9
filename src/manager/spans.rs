//! Spans of jobs and requests, for a collector that speaks OTLP over HTTP, in its JSON encoding.
//!
//! A job's spans are made when its end is durable, from the job alone, and their ids are functions of the job: a server
//! that was killed or replaced meanwhile changes nothing. No command, environment or output is in one, and
//! no label but those that the operator names.

mod exporter;
mod otlp;

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

pub use exporter::Exporter;
use job::time::Timestamp;
use job::trace::Trace;
use job::{Cause, ExitStatus, Job, JobId, State};
use otlp::{Attribute, Kind, Link, Span, Status};

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
    /// The id is asked for only where the decision depends on it.
    fn takes(self, trace: Option<&Trace>, trace_id: impl FnOnce() -> String) -> bool {
        match trace {
            Some(trace) if self.follows_parent => trace.sampled,
            _ if self.of_million >= MILLION => true,
            _ => {
                // The last digits of an id are random, also of one that carries the time.
                let trace_id = trace_id();
                let tail = trace_id.get(16..).unwrap_or_default();
                let number = u64::from_str_radix(tail, 16).unwrap_or_default();
                number % MILLION < self.of_million
            }
        }
    }
}

const MILLION: u64 = 1_000_000;

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
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
        hash.update([0]);
    }
    let digest = hash.finalize();
    let digit = |number: u8| char::from(DIGITS[usize::from(number)]);
    let digits = digest.iter().take(bytes);
    digits
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
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
    let id = || trace_id(job.id, trace);
    if !sampler.is_some_and(|sampler| sampler.takes(trace, id)) {
        return trace.cloned();
    }
    Some(Trace {
        trace_id: id(),
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
    pub method: &'static str,
    /// The pattern that matched.
    pub route: &'static str,
    pub status: u16,
    pub from: Timestamp,
    pub to: Timestamp,
}

impl Asked<'_> {
    /// The trace that its span is in; `None` if there is none: nobody traces it, and it created no job.
    fn trace_id(&self) -> Option<String> {
        match self.created {
            Some(job) => Some(trace_id(job, self.trace)),
            None => Some(self.trace?.trace_id.clone()),
        }
    }

    fn is_taken(&self, sampler: Sampler) -> bool {
        let is_traced = self.trace.is_some() || self.created.is_some();
        is_traced && sampler.takes(self.trace, || self.trace_id().unwrap_or_default())
    }

    /// What waits for the collector; `None` if it is in no trace.
    fn facts(&self) -> Option<RequestFacts> {
        Some(RequestFacts {
            trace_id: self.trace_id()?,
            id: self.id.to_owned(),
            parent: self.trace.map(|trace| trace.span_id.clone()),
            created: self.created,
            method: self.method,
            route: self.route,
            status: self.status,
            from: self.from,
            to: self.to,
        })
    }
}

/// What the span of a request is made of.
#[derive(Debug)]
struct RequestFacts {
    trace_id: String,
    id: String,
    /// The caller's span.
    parent: Option<String>,
    created: Option<JobId>,
    method: &'static str,
    route: &'static str,
    status: u16,
    from: Timestamp,
    to: Timestamp,
}

impl RequestFacts {
    /// What created a job is the parent of the job's span.
    fn span(self) -> Span {
        let span_id = match self.created {
            Some(job) => Step::Request.span_id(job),
            None => digest(&[b"request", self.id.as_bytes()], 8),
        };
        Span {
            trace_id: self.trace_id.into(),
            span_id,
            parent_span_id: self.parent,
            name: format!("{} {}", self.method, self.route).into(),
            kind: Kind::Server,
            from: self.from,
            to: self.to,
            attributes: [
                Attribute::text("http.request.method", self.method),
                Attribute::text("http.route", self.route),
                Attribute::number("http.response.status_code", self.status),
                Attribute::text("procession.request.id", self.id),
            ]
            .into(),
            links: Vec::new(),
            status: (self.status >= 500).then(|| Status::error(None)),
        }
    }
}

/// One span of a job, before it is made.
#[derive(Debug)]
struct Planned {
    step: Step,
    parent: Step,
    from: Timestamp,
    to: Timestamp,
}

/// Spans of one job that are to be made, if there is room for them: which, and nothing of what is in them.
struct Plan<'a> {
    job: &'a Job,
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
        let is_taken = otlp.sampler.takes(trace, || trace_id(job.id, trace));
        is_taken.then(|| Self {
            job,
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

    /// What waits for the collector.
    fn facts(self) -> JobFacts {
        let job = self.job;
        let label = |key: &String| Some((key.clone(), job.labels.get(key)?.clone()));
        JobFacts {
            job: job.id,
            trace_id: job.trace.as_ref().map(|trace| trace.trace_id.clone()),
            rerun_of: job.rerun_of,
            state: job.state,
            queue: job.spec.queue.clone(),
            attempt: job.attempt,
            name: job.name.clone(),
            labels: self.labels.iter().filter_map(label).collect(),
            cause: job.termination.as_ref().map(|it| it.cause),
            pid: job.process.as_ref().map(|process| process.pid),
            exit: job.exit.map(|exit| exit.status),
            spans: self.spans,
        }
    }
}

/// What the spans of a job are made of.
#[derive(Debug)]
struct JobFacts {
    job: JobId,
    /// The caller's.
    trace_id: Option<String>,
    rerun_of: Option<JobId>,
    state: State,
    queue: String,
    attempt: u32,
    name: Option<String>,
    /// Those that the operator names.
    labels: Vec<(String, String)>,
    cause: Option<Cause>,
    pid: Option<i32>,
    exit: Option<ExitStatus>,
    spans: Vec<Planned>,
}

impl JobFacts {
    fn spans(mut self) -> impl Iterator<Item = Span> {
        let trace_id: Arc<str> = match self.trace_id.take() {
            Some(callers) => callers.into(),
            None => trace_id(self.job, None).into(),
        };
        let attributes = self.attributes();
        let spans = std::mem::take(&mut self.spans);
        spans.into_iter().map(move |planned| {
            let is_whole = matches!(planned.step, Step::Job);
            Span {
                trace_id: trace_id.clone(),
                span_id: planned.step.span_id(self.job),
                parent_span_id: Some(planned.parent.span_id(self.job)),
                name: planned.step.name().into(),
                kind: Kind::Internal,
                from: planned.from,
                to: planned.to,
                attributes: attributes.clone(),
                links: self.original().filter(|_| is_whole).into_iter().collect(),
                status: self.status().filter(|_| is_whole),
            }
        })
    }

    /// The job that this one repeats, if that had a trace of its own.
    fn original(&self) -> Option<Link> {
        let original = self.rerun_of?;
        Some(Link {
            trace_id: trace_id(original, None),
            span_id: Step::Job.span_id(original),
        })
    }

    fn status(&self) -> Option<Status> {
        let has_failed = !matches!(self.state, State::Succeeded | State::Canceled);
        has_failed.then(|| Status::error(self.cause.map(Cause::as_str)))
    }

    fn attributes(&self) -> Arc<[Attribute]> {
        let mut attributes = vec![
            Attribute::text("procession.job.id", self.job.to_string()),
            Attribute::text("procession.job.state", self.state.as_str()),
            Attribute::text("procession.queue.name", self.queue.as_str()),
            Attribute::number("procession.job.attempt", self.attempt),
        ];
        if let Some(name) = &self.name {
            attributes.push(Attribute::text("procession.job.name", name.as_str()));
        }
        for (key, value) in &self.labels {
            let key = format!("procession.job.label.{key}");
            attributes.push(Attribute::text(key, value.as_str()));
        }
        if let Some(cause) = self.cause {
            attributes.push(Attribute::text("procession.job.cause", cause.as_str()));
        }
        if let Some(pid) = self.pid {
            attributes.push(Attribute::number("process.pid", pid));
        }
        match self.exit {
            Some(ExitStatus::Code(code)) => {
                attributes.push(Attribute::number("process.exit.code", code));
            }
            Some(ExitStatus::Signal { signal, .. }) => {
                attributes.push(Attribute::text(
                    "procession.exit.signal",
                    signal.to_string(),
                ));
            }
            None => {}
        }
        attributes.into()
    }
}

/// What spans are made of when they are sent: a collector that hangs costs no more than this.
#[derive(Debug)]
enum Facts {
    Job(JobFacts),
    Request(RequestFacts),
}

impl Facts {
    fn add_to(self, spans: &mut Vec<Span>) {
        match self {
            Self::Job(job) => spans.extend(job.spans()),
            Self::Request(request) => spans.push(request.span()),
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use job::Spec;
    use job::outcome::Termination;

    const ALL: Sampler = Sampler {
        follows_parent: true,
        of_million: 1_000_000,
    };

    fn of_job(job: &Job, otlp: &Otlp) -> Vec<Value> {
        Plan::of_job(job, otlp).map_or_else(Vec::new, shown)
    }

    fn shown(plan: Plan<'_>) -> Vec<Value> {
        let spans = plan.facts().spans();
        spans
            .map(|span| serde_json::to_value(span).unwrap())
            .collect()
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
        let first = shown(Plan::of_attempt(&job, &otlp(ALL)).unwrap());
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

    #[test]
    fn a_stop_is_a_part_of_its_attempt_from_the_first_signal_on() {
        use job::Signal;
        use job::outcome::SentSignal;

        let mut job = ended();
        job.state = State::Canceled;
        let first = Timestamp::from_micros(2_000_000);
        let mut termination = Termination::unasked(Cause::Canceled);
        termination.signals_sent = vec![SentSignal {
            signal: Signal::KILL,
            at: first,
        }];
        job.termination = Some(termination);
        let spans = of_job(&job, &otlp(ALL));
        let stop = spans
            .iter()
            .find(|span| span["name"] == "procession.stop")
            .unwrap();
        let attempt = spans
            .iter()
            .find(|span| span["name"] == "procession.attempt")
            .unwrap();
        assert_eq!(stop["parentSpanId"], attempt["spanId"], "{spans:#?}");
        assert_eq!(stop["startTimeUnixNano"], "2000000000", "{stop:#}");
        assert_eq!(stop["endTimeUnixNano"], attempt["endTimeUnixNano"]);
        // One that ended by itself was not stopped, whatever cleaned up after it.
        job.termination.as_mut().unwrap().cause = Cause::Exited;
        let spans = of_job(&job, &otlp(ALL));
        assert!(spans.iter().all(|span| span["name"] != "procession.stop"));
    }

    #[test]
    fn a_repeat_has_a_trace_of_its_own_and_a_link_to_the_first() {
        let first = ended();
        let again = Job {
            id: JobId::from_bytes([2; 16]),
            rerun_of: Some(first.id),
            ..ended()
        };
        let [first, again] = [&first, &again].map(|job| of_job(job, &otlp(ALL)).remove(0));
        assert_ne!(again["traceId"], first["traceId"]);
        let link = &again["links"][0];
        assert_eq!(link["traceId"], first["traceId"], "{again:#}");
        assert_eq!(link["spanId"], first["spanId"], "{again:#}");
    }
}
