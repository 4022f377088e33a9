//! Whether an API node that led leads on: the ledger says so for a while, and after that the other API nodes are asked.
//!
//! While PostgreSQL is away for all of them, nobody leads anew, and what runs is controlled as ever. If it is away for this one
//! alone, or this process stood still, another one leads, and nothing that is known here may be told any more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::relay::{self, Peers};
use ledger::Status;
use reqwest::Client;

/// How long the others have for an answer.
const ANSWER: Duration = Duration::from_secs(1);

/// The pause between two rounds that nobody waits for.
const PAUSE: Duration = Duration::from_secs(1);

/// Whether this API node leads.
#[derive(Clone, Debug)]
pub struct Standing(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: Client,
    peers: Peers,
    /// One round at a time; those who wait for it share what came of it.
    round: Mutex<Option<Round>>,
}

/// The others have been asked.
#[derive(Debug)]
struct Round {
    begun: Instant,
    /// Who leads, if that is another one.
    other: Option<String>,
}

/// What an API node says of itself.
#[derive(Deserialize)]
struct Live {
    epoch: Option<u64>,
}

impl Standing {
    /// Reads the file of the authority; the error is one line that says the fix.
    pub(crate) fn new(peers: &Peers) -> Result<Self, String> {
        Ok(Self(Arc::new(Inner {
            client: relay::client(peers)?,
            peers: peers.clone(),
            round: Mutex::new(None),
        })))
    }

    /// What is known of the ledger.
    pub(crate) fn status(&self) -> &Status {
        &self.0.peers.status
    }

    /// Does the ledger say that this one leads?
    pub(crate) fn is_sure(&self) -> bool {
        let until = self.status().sure_until();
        until.is_some_and(|until| Instant::now() < until)
    }

    /// Did this one lead when this was called? The others are asked unless the ledger says so.
    pub(crate) async fn holds(&self) -> bool {
        self.other().await.is_none()
    }

    /// Resolves when another one leads, and says which.
    pub(crate) async fn deposed(&self) -> String {
        loop {
            if !self.is_sure()
                && let Some(other) = self.other().await
            {
                return other;
            }
            tokio::time::sleep_until(tokio::time::Instant::now() + PAUSE).await;
        }
    }

    async fn other(&self) -> Option<String> {
        let called = Instant::now();
        let mut round = self.0.round.lock().await;
        if self.is_sure() {
            return None;
        }
        if let Some(round) = &*round
            && round.begun >= called
        {
            return round.other.clone();
        }
        let begun = Instant::now();
        let other = self.ask().await;
        *round = Some(Round {
            begun,
            other: other.clone(),
        });
        other
    }

    /// Asks all who were heard of. Whoever does not answer is not counted: it may have ended together with the database.
    async fn ask(&self) -> Option<String> {
        let view = self.status().view();
        let mut asking = JoinSet::new();
        for member in view.members {
            let client = self.0.client.clone();
            asking.spawn(async move {
                let url = member.url.trim_end_matches('/');
                let request = client.get(format!("{url}/healthz")).timeout(ANSWER);
                let answer = request.send().await.ok()?.bytes().await.ok()?;
                let live: Live = serde_json::from_slice(&answer).ok()?;
                live.epoch.map(|epoch| (epoch, member.url))
            });
        }
        while let Some(answered) = asking.join_next().await {
            if let Ok(Some((epoch, url))) = answered
                && epoch > view.epoch
            {
                return Some(format!(
                    "PostgreSQL is not reached, and {url} says that the lead was taken {epoch} times, by this one as number {}",
                    view.epoch
                ));
            }
        }
        None
    }
}
