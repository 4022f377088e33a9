//! The way of spans to the collector: a bounded queue of what they are made of, and one task that makes and sends them.
//! Whoever has a span never waits; what has no room, and what the collector does not take, is counted and dropped.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use super::otlp::{self, Attribute, Span};
use super::{Asked, Facts, Otlp, Plan, trace_id};
use crate::metrics::Metrics;
use crate::time::until;
use job::Job;

/// The most spans that wait.
const QUEUE: usize = 4096;

/// A request with so many spans is not made larger.
const BATCH: usize = 512;

/// How long a span waits for others.
const GATHERING: Duration = Duration::from_millis(500);

/// How often a request is tried, and the first pause in between; each is twice the one before.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);

/// How long the end of the service waits for the last spans.
const LAST: Duration = Duration::from_secs(2);

/// Takes spans; clones share the queue.
#[derive(Clone, Debug)]
pub struct Exporter {
    queue: mpsc::UnboundedSender<Waiting>,
    /// For spans, which bounds the queue.
    room: Arc<Semaphore>,
    otlp: Arc<Otlp>,
    metrics: Arc<Metrics>,
}

/// Spans that wait for the collector, with their room.
#[derive(Debug)]
struct Waiting {
    facts: Facts,
    _room: OwnedSemaphorePermit,
}

/// What is to be driven for spans to go anywhere.
#[derive(Debug)]
pub(crate) struct Delivery {
    queue: mpsc::UnboundedReceiver<Waiting>,
    otlp: Arc<Otlp>,
    metrics: Arc<Metrics>,
}

impl Exporter {
    pub(crate) fn new(otlp: Otlp, metrics: Arc<Metrics>) -> (Self, Delivery) {
        let (sender, queue) = mpsc::unbounded_channel();
        let otlp = Arc::new(otlp);
        let exporter = Self {
            queue: sender,
            room: Arc::new(Semaphore::new(QUEUE)),
            otlp: otlp.clone(),
            metrics: metrics.clone(),
        };
        let delivery = Delivery {
            queue,
            otlp,
            metrics,
        };
        (exporter, delivery)
    }

    /// The end of a job is durable. Gives the trace that its spans are in, if they go anywhere.
    pub(crate) fn ended(&self, job: &Job) -> Option<String> {
        let plan = Plan::of_job(job, &self.otlp)?;
        self.put_plan(plan)
            .then(|| trace_id(job.id, job.trace.as_ref()))
    }

    /// The end of an attempt is durable, and another one follows.
    pub(crate) fn attempt_ended(&self, job: &Job) {
        if let Some(plan) = Plan::of_attempt(job, &self.otlp) {
            self.put_plan(plan);
        }
    }

    /// A request was answered. Gives the trace that its span is in, if it goes anywhere.
    #[must_use]
    pub fn answered(&self, asked: &Asked<'_>) -> Option<String> {
        let is_taken = asked.is_taken(self.otlp.sampler);
        let is_put = is_taken && self.put(1, || asked.facts().map(Facts::Request));
        is_put.then(|| asked.trace_id()).flatten()
    }

    fn put_plan(&self, plan: Plan<'_>) -> bool {
        let spans = u32::try_from(plan.spans.len()).unwrap_or(u32::MAX);
        self.put(spans, || Some(Facts::Job(plan.facts())))
    }

    /// Whether there was room for so many spans. All spans pass here: without room nothing is even put together for them, since a
    /// collector that hangs must not cost time.
    fn put(&self, spans: u32, facts: impl FnOnce() -> Option<Facts>) -> bool {
        let room = self.room.clone().try_acquire_many_owned(spans).ok();
        let waiting = room.and_then(|_room| {
            let facts = facts()?;
            Some(Waiting { facts, _room })
        });
        let is_put = waiting.is_some_and(|waiting| self.queue.send(waiting).is_ok());
        if !is_put {
            self.metrics.spans_dropped(spans.into());
        }
        is_put
    }
}

impl Delivery {
    /// Sends spans until `end` comes, and then those that are there, for as long as that may take.
    pub(crate) async fn run(mut self, mut end: oneshot::Receiver<()>) {
        let client = reqwest::Client::builder()
            .timeout(self.otlp.timeout)
            .redirect(reqwest::redirect::Policy::none())
            .build();
        let client = match client {
            Ok(client) => client,
            Err(error) => {
                tracing::error!(%error, "no spans are exported: {error}");
                return;
            }
        };
        loop {
            let mut batch = Vec::new();
            let mut is_over = tokio::select! {
                _ = &mut end => true,
                first = self.queue.recv() => match first {
                    Some(first) => {
                        first.facts.add_to(&mut batch);
                        false
                    }
                    None => true,
                },
            };
            if !is_over {
                is_over = tokio::select! {
                    _ = &mut end => true,
                    () = until(Some(Instant::now() + GATHERING)) => false,
                };
            }
            let most = if is_over { QUEUE } else { BATCH };
            while batch.len() < most
                && let Ok(next) = self.queue.try_recv()
            {
                next.facts.add_to(&mut batch);
            }
            let mut sending = std::pin::pin!(self.send(&client, batch));
            let is_sent = tokio::select! {
                () = &mut sending, if !is_over => true,
                _ = &mut end, if !is_over => false,
                else => false,
            };
            if !is_sent {
                let _ = tokio::time::timeout(LAST, sending).await;
                return;
            }
        }
    }

    /// Sends them, tries again if that may help, and counts what became of them.
    async fn send(&self, client: &reqwest::Client, spans: Vec<Span>) {
        if spans.is_empty() {
            return;
        }
        let count = u64::try_from(spans.len()).unwrap_or(u64::MAX);
        let resource = self.otlp.resource.iter();
        let resource = resource.map(|(key, value)| Attribute::text(key.clone(), value.as_str()));
        let body = match otlp::request(&resource.collect::<Vec<_>>(), &spans) {
            Ok(body) => body,
            Err(error) => {
                tracing::error!(%error, spans = count, "spans were dropped: {error}");
                return self.metrics.spans_dropped(count);
            }
        };
        drop(spans);
        let mut pause = PAUSE;
        for attempt in 1..=TRIES {
            let error = match self.post(client, body.clone()).await {
                Ok(()) => return self.metrics.spans_exported(count),
                Err(error) => error,
            };
            if attempt == TRIES || !error.may_pass {
                tracing::warn!(
                    spans = count,
                    error = error.what,
                    "spans were dropped: {}",
                    error.what
                );
                return self.metrics.spans_dropped(count);
            }
            until(Some(Instant::now() + pause)).await;
            pause *= 2;
        }
    }

    async fn post(&self, client: &reqwest::Client, body: Vec<u8>) -> Result<(), Refused> {
        let mut request = client
            .post(&self.otlp.url)
            .header("content-type", "application/json")
            .body(body);
        for (name, value) in &self.otlp.headers {
            request = request.header(name, value);
        }
        match request.send().await {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(Refused {
                what: format!("the collector answered {}", answer.status().as_u16()),
                // As the specification of OTLP has it.
                may_pass: [429, 502, 503, 504].contains(&answer.status().as_u16()),
            }),
            Err(error) => Err(Refused {
                what: format!("the collector cannot be reached: {}", error.without_url()),
                may_pass: true,
            }),
        }
    }
}

struct Refused {
    what: String,
    may_pass: bool,
}
