//! The way of spans to the collector: a bounded queue and one task. Whoever has a span never waits; what has no room, and
//! what the collector does not take, is counted and dropped.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::otlp::{self, Attribute, Span};
use super::{Asked, Otlp, Plan};
use crate::metrics::Metrics;
use crate::time::until;
use job::Job;

/// The most spans that wait.
const QUEUE: usize = 4096;

/// The most spans of one request.
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
    queue: mpsc::Sender<Span>,
    otlp: Arc<Otlp>,
    metrics: Arc<Metrics>,
}

/// What is to be driven for spans to go anywhere.
#[derive(Debug)]
pub(crate) struct Delivery {
    queue: mpsc::Receiver<Span>,
    otlp: Arc<Otlp>,
    metrics: Arc<Metrics>,
}

impl Exporter {
    pub(crate) fn new(otlp: Otlp, metrics: Arc<Metrics>) -> (Self, Delivery) {
        let (sender, queue) = mpsc::channel(QUEUE);
        let otlp = Arc::new(otlp);
        let exporter = Self {
            queue: sender,
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
        self.put(&plan).then(|| plan.trace_id())
    }

    /// The end of an attempt is durable, and another one follows.
    pub(crate) fn attempt_ended(&self, job: &Job) {
        if let Some(plan) = Plan::of_attempt(job, &self.otlp) {
            self.put(&plan);
        }
    }

    /// A request was answered. Gives the trace that its span is in, if it goes anywhere.
    #[must_use]
    pub fn answered(&self, asked: &Asked<'_>) -> Option<String> {
        if !asked.is_taken(self.otlp.sampler) || !self.has_room(1) {
            return None;
        }
        self.send(asked.span());
        asked.trace_id()
    }

    /// Whether there was room for the spans.
    fn put(&self, plan: &Plan<'_>) -> bool {
        let has_room = self.has_room(plan.spans.len());
        if has_room {
            self.send(plan.make());
        }
        has_room
    }

    /// What has no room is not even made, and counted here: a collector that hangs must not cost time.
    fn has_room(&self, spans: usize) -> bool {
        let has_room = self.queue.capacity() >= spans;
        if !has_room {
            let count = u64::try_from(spans).unwrap_or(u64::MAX);
            self.metrics.spans_dropped(count);
        }
        has_room
    }

    fn send(&self, spans: impl IntoIterator<Item = Span>) {
        for span in spans {
            if self.queue.try_send(span).is_err() {
                self.metrics.spans_dropped(1);
            }
        }
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
                count = self.queue.recv_many(&mut batch, BATCH) => count == 0,
            };
            if !is_over {
                is_over = tokio::select! {
                    _ = &mut end => true,
                    () = until(Some(Instant::now() + GATHERING)) => false,
                };
            }
            let most = if is_over { QUEUE } else { BATCH };
            while batch.len() < most
                && let Ok(span) = self.queue.try_recv()
            {
                batch.push(span);
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
