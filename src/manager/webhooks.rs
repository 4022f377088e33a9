//! Delivers what the store's outbox holds to the webhooks of jobs.
//!
//! At least once: a delivery leaves the outbox after its receiver has taken it, and a server that is killed
//! in between leaves it to the next one. It knows no job's life; what is tried when is decided in
//! `job::webhook`.

mod request;

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::time::{chance, pause_until};
use job::event::{Event, Kind, What};
use job::time::Timestamp;
use job::webhook;
use linux::clock;
use request::{Client, Failure};
use store::{Delivery, Room, Store, StoreError};

/// The most deliveries that are under way, and the most of them to one receiver: one that takes none until its time
/// is up must not hold up the others.
const CONCURRENCY: usize = 96;
const EACH: usize = 8;

/// How soon the store is asked again after it failed.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// The least between two looks at the outbox.
const SHORTEST_SLEEP: Duration = Duration::from_millis(10);

/// Delivers until `end` comes; what is under way then is left to the next server.
pub(crate) async fn deliver(
    store: Store,
    metrics: Arc<Metrics>,
    allow_private: bool,
    end: impl Future<Output = ()>,
) {
    let mut news = store.deliveries().news();
    let mut deliveries = Deliveries {
        store,
        metrics,
        client: Client::new(allow_private),
        under_way: HashMap::new(),
        attempts: JoinSet::new(),
    };
    let mut end = std::pin::pin!(end);
    loop {
        news.mark_unchanged();
        let again_at = deliveries.send_what_is_due().await;
        tokio::select! {
            () = &mut end => return,
            // The sender lives as long as the store, of which there is one here.
            _ = news.changed() => {}
            () = tokio::time::sleep_until(again_at) => {}
            Some(ended) = deliveries.attempts.join_next() => match ended {
                Ok(id) => drop(deliveries.under_way.remove(&id)),
                Err(error) => {
                    tracing::error!(%error, "a delivery to a webhook panicked: {error}");
                }
            },
        }
    }
}

struct Deliveries {
    store: Store,
    metrics: Arc<Metrics>,
    client: Client,
    /// The deliveries that are being tried, by their numbers, with their receivers.
    under_way: HashMap<i64, String>,
    attempts: JoinSet<i64>,
}

impl Deliveries {
    /// Begins as many attempts as there may be; says when to look again.
    async fn send_what_is_due(&mut self) -> Instant {
        let now = clock::wall();
        let room = Room {
            total: CONCURRENCY,
            each: EACH,
            under_way: self.under_way.clone(),
        };
        let (due, next) = match self.store.deliveries().due(now, room).await {
            Ok(due) => due,
            Err(error) => {
                tracing::error!(%error, "the store failed: {error}");
                return Instant::now() + STORE_RETRY;
            }
        };
        for delivery in due {
            let receiver = webhook::receiver(&delivery.url).to_owned();
            self.under_way.insert(delivery.id, receiver);
            let attempt = attempt(
                self.store.clone(),
                self.metrics.clone(),
                self.client.clone(),
                delivery,
            );
            self.attempts.spawn(attempt);
        }
        Instant::now() + pause_until(next, now).max(SHORTEST_SLEEP)
    }
}

/// One attempt, with what it leaves in the store.
async fn attempt(store: Store, metrics: Arc<Metrics>, client: Client, delivery: Delivery) -> i64 {
    let source: Arc<str> = store.source().into();
    let outcome = client.send(&source, &delivery).await;
    let verdict = judge(&delivery, outcome, clock::wall(), chance());
    let job = delivery.event.job;
    match &verdict {
        Verdict::Done(event) => {
            metrics.delivered(event.what.kind() == Kind::WebhookDelivered);
            let kind = event.what.kind().as_str();
            tracing::debug!(job.id = %job, "a delivery to a webhook of job {job} is over: {kind}");
        }
        Verdict::Again { error, .. } => {
            tracing::debug!(job.id = %job, %error, "a delivery to a webhook of job {job} is tried again: {error}");
        }
    }
    // What was taken would come once more if the store forgot it.
    while let Err(error) = note(&store, &delivery, &verdict).await {
        tracing::error!(job.id = %job, %error, "the store failed: {error}");
        tokio::time::sleep_until(Instant::now() + STORE_RETRY).await;
    }
    delivery.id
}

async fn note(store: &Store, delivery: &Delivery, verdict: &Verdict) -> Result<(), StoreError> {
    match verdict {
        Verdict::Done(event) => {
            let event = Event::clone(event);
            store.deliveries().settle(delivery, event).await
        }
        Verdict::Again { due_at, .. } => store.deliveries().put_off(delivery, *due_at).await,
    }
}

/// What follows from an attempt.
#[derive(Debug, PartialEq)]
enum Verdict {
    Done(Box<Event>),
    Again { due_at: Timestamp, error: String },
}

fn judge(
    delivery: &Delivery,
    outcome: Result<u16, Failure>,
    now: Timestamp,
    jitter: f64,
) -> Verdict {
    let attempts = delivery.attempts.saturating_add(1);
    let (webhook, event) = (delivery.webhook, delivery.cursor);
    let told = |what| {
        Box::new(Event {
            at: now,
            what,
            ..delivery.event.clone()
        })
    };
    match outcome {
        Ok(status) => Verdict::Done(told(What::WebhookDelivered {
            webhook,
            event,
            attempts,
            status,
        })),
        Err(failure) => match webhook::pause_after(attempts, jitter) {
            Some(pause) if !failure.is_final => Verdict::Again {
                due_at: now.after(pause),
                error: failure.why,
            },
            Some(_) | None => Verdict::Done(told(What::WebhookFailed {
                webhook,
                event,
                attempts,
                error: failure.why,
            })),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use job::event::Kind;
    use job::{Job, JobId};

    fn delivery(attempts: u32) -> Delivery {
        Delivery {
            id: 7,
            cursor: 42,
            event: Event::created(&Job::accepted(
                JobId::generate(),
                "me".to_owned(),
                Arc::default(),
                Timestamp::from_micros(0),
            )),
            webhook: 1,
            url: "https://example.org/".to_owned(),
            secret: None,
            attempts,
        }
    }

    fn failure(is_final: bool) -> Result<u16, Failure> {
        Err(Failure {
            why: "answered 500".to_owned(),
            is_final,
        })
    }

    #[test]
    fn an_attempt_ends_a_delivery_or_puts_it_off() {
        let now = Timestamp::from_micros(1_000_000);
        let kind = |attempts, outcome| match judge(&delivery(attempts), outcome, now, 1.0) {
            Verdict::Done(event) => Ok(event.what.kind()),
            Verdict::Again { due_at, .. } => Err(due_at.as_micros() / 1_000_000),
        };
        assert_eq!(kind(0, Ok(204)), Ok(Kind::WebhookDelivered));
        assert_eq!(kind(0, failure(false)), Err(2));
        assert_eq!(kind(2, failure(false)), Err(5));
        assert_eq!(kind(0, failure(true)), Ok(Kind::WebhookFailed));
        assert_eq!(kind(19, failure(false)), Ok(Kind::WebhookFailed));
    }
}
