//! How the store failed last: said once a minute, and known to those who wait for it.

use std::time::Instant;

use tokio::sync::watch;

use super::seldom::Seldom;
use store::StoreError;

#[derive(Debug)]
pub(super) struct Trouble {
    said: Seldom,
    last: watch::Sender<Option<(Instant, StoreError)>>,
}

impl Trouble {
    pub(super) fn new() -> Self {
        Self {
            said: Seldom::default(),
            last: watch::Sender::new(None),
        }
    }

    /// The store has failed.
    pub(super) fn note(&self, error: &StoreError) {
        let now = Instant::now();
        // On a full disk each job that ends would say so each second.
        if self.said.is_due(&error.to_string(), now) {
            tracing::error!(%error, "the store failed: {error}");
        }
        self.last.send_replace(Some((now, error.clone())));
    }

    /// Resolves once it has failed since that moment.
    pub(super) async fn since(&self, begun: Instant) -> StoreError {
        let mut last = self.last.subscribe();
        let is_since = |last: &Option<(Instant, StoreError)>| {
            last.as_ref().is_some_and(|(at, _)| *at >= begun)
        };
        // The sender lives as long as this.
        let found = last.wait_for(is_since).await;
        match found.ok().and_then(|last| last.clone()) {
            Some((_, error)) => error,
            None => std::future::pending().await,
        }
    }
}
