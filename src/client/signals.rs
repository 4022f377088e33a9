//! Signals to a command that stands for a job: the first one stops the job, the second one forces it, the
//! third one gives up on it.

use std::future::Future;
use std::pin::pin;

use reqwest::Method;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::connection::Client;
use super::failure::Failure;
use protocol::stderr::complain;

/// The signals that are the job's business.
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// Those that came and that nobody has attended to.
    pending: Vec<Caught>,
}

/// Which signal came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caught {
    Interrupt,
    Terminate,
}

impl Signals {
    /// From now on they do not end this process.
    pub(super) fn catch() -> Result<Self, Failure> {
        let catch = |kind| {
            signal(kind).map_err(|error| Failure::Local(format!("cannot catch signals: {error}")))
        };
        Ok(Self {
            interrupt: catch(SignalKind::interrupt())?,
            terminate: catch(SignalKind::terminate())?,
            pending: Vec::new(),
        })
    }

    /// The next signal.
    pub(super) async fn next(&mut self) -> Caught {
        if !self.pending.is_empty() {
            return self.pending.remove(0);
        }
        self.fresh().await
    }

    async fn fresh(&mut self) -> Caught {
        // The streams never end.
        tokio::select! {
            _ = self.interrupt.recv() => Caught::Interrupt,
            _ = self.terminate.recv() => Caught::Terminate,
        }
    }

    /// The result of this work, or nothing where two signals came first. One that came is kept.
    pub(super) async fn second_before<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        for _ in 0..2 {
            let caught = tokio::select! {
                result = &mut work => return Some(result),
                caught = self.fresh() => caught,
            };
            self.pending.push(caught);
        }
        None
    }
}

/// Passes signals on to the job; it returns only where that cannot be done, or was asked for too often.
pub(super) async fn obey(client: &Client, id: &str, signals: &mut Signals) -> Failure {
    let mut caught = signals.next().await;
    for is_forced in [false, true] {
        let request = stop(client, id, Some(caught), is_forced, "interrupted");
        let sent = tokio::select! {
            sent = request => Some(sent),
            again = signals.next() => {
                caught = again;
                None
            }
        };
        match sent {
            Some(Ok(())) => caught = signals.next().await,
            Some(Err(failure)) => return failure,
            None => {}
        }
    }
    Failure::Lost("interrupted three times".to_owned())
}

/// Stops the job and returns when it has ended; signals meanwhile are obeyed.
pub(super) async fn stop_and_wait(
    client: &Client,
    id: &str,
    reason: &str,
    signals: &mut Signals,
) -> Result<(), Failure> {
    stop(client, id, None, false, reason).await?;
    tokio::select! {
        ended = super::wait::ended(client, id, None) => ended.map(drop),
        failure = obey(client, id, signals) => Err(failure),
    }
}

/// Asks for a stop. Ctrl-C reaches the job as what it would be without us in between; everything else is
/// the stop that its spec describes.
async fn stop(
    client: &Client,
    id: &str,
    caught: Option<Caught>,
    is_forced: bool,
    reason: &str,
) -> Result<(), Failure> {
    let path = format!("/jobs/{id}");
    let request = || {
        let mut request = client
            .request(Method::DELETE, &path)
            .query(&[("reason", reason)]);
        if is_forced {
            request = request.query(&[("force", true)]);
        } else if caught == Some(Caught::Interrupt) {
            request = request.query(&[("signal", "SIGINT")]);
        }
        request
    };
    if is_forced {
        complain("killing the job");
    }
    client.send_repeatedly(request).await.map(drop)
}
