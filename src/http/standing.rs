//! Whether an API node that led leads on: the ledger says so for a while, and after that the other API nodes are asked, by itself
//! and by its nodes.
//!
//! While PostgreSQL is away for all of them, nobody leads anew, and what runs is controlled as ever. If it is away for this one
//! alone, or this process stood still, another one leads, and nothing that is known here may be told any more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use crate::relay::{self, Peers};
use ledger::Status;
use manager::Hub;
use protocol::wire::link::Lead;
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
    /// The nodes, which may hear others that this one does not.
    hub: Option<Hub>,
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

impl Standing {
    /// Reads the file of the authority; the error is one line that says the fix.
    pub(crate) fn new(peers: &Peers, hub: Option<Hub>) -> Result<Self, String> {
        Ok(Self(Arc::new(Inner {
            client: relay::client(peers)?,
            peers: peers.clone(),
            hub,
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

    /// Asks all API nodes that were heard of, and has nodes ask those that they know. Whoever does not answer is not counted: it
    /// may have ended together with the database.
    async fn ask(&self) -> Option<String> {
        let (until, view) = (Instant::now() + ANSWER, self.status().view());
        let through_nodes = self.0.hub.as_ref().map(Hub::ask_who_leads);
        let mut asking = JoinSet::new();
        for member in view.members {
            let (client, url) = (self.0.client.clone(), member.url);
            asking.spawn(async move {
                let epoch = cluster::lead::epoch(&client, &url, ANSWER).await?;
                Some(Lead { epoch, url })
            });
        }
        let deposed = |lead: Lead| {
            (lead.epoch > view.epoch).then(|| {
                format!(
                    "PostgreSQL is not reached, and {} says that the lead was taken {} times, by this one as number {}",
                    lead.url, lead.epoch, view.epoch
                )
            })
        };
        let mut are_heard = !asking.is_empty();
        while let Some(answered) = asking.join_next().await {
            match answered.ok().flatten() {
                Some(lead) => {
                    if let Some(why) = deposed(lead) {
                        return Some(why);
                    }
                }
                None => are_heard = false,
            }
        }
        // Those who are all heard would know.
        for answer in through_nodes.into_iter().flatten().filter(|_| !are_heard) {
            let answered = timeout_at(until.into(), answer).await;
            if let Ok(Ok(Some(lead))) = answered
                && let Some(why) = deposed(lead)
            {
                return Some(format!("{why}, as a node has heard"));
            }
        }
        None
    }
}
