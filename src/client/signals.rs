//! Signals to a command that stands for a job: the first request to stop stops the job, the second forces it, the
//! third leaves it. Signals that mean something to the job alone are passed on.

use std::future::Future;
use std::pin::pin;

use reqwest::Method;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::connection::Client;
use super::failure::Failure;
use super::sanitize::escape;
use protocol::stderr::complain;

/// The signals that are the job's business.
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    quit: Signal,
    user1: Signal,
    user2: Signal,
    /// Only if a terminal that goes is a request to stop.
    hangup: Option<Signal>,
    /// Those that came and that nobody has handled.
    pending: Vec<Caught>,
}

/// Which signal came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caught {
    Interrupt,
    Terminate,
    /// For the job as it is: its name, and the processes it is for.
    Other(&'static str, &'static str),
}

impl Caught {
    fn asks_for_a_stop(self) -> bool {
        matches!(self, Self::Interrupt | Self::Terminate)
    }
}

impl Signals {
    /// From now on they do not end this process.
    pub(super) fn catch() -> Result<Self, Failure> {
        Ok(Self {
            interrupt: catch(SignalKind::interrupt())?,
            terminate: catch(SignalKind::terminate())?,
            quit: catch(SignalKind::quit())?,
            user1: catch(SignalKind::user_defined1())?,
            user2: catch(SignalKind::user_defined2())?,
            hangup: None,
            pending: Vec::new(),
        })
    }

    /// The same, and that the terminal goes is a request to stop.
    pub(super) fn catch_all() -> Result<Self, Failure> {
        Ok(Self {
            hangup: Some(catch(SignalKind::hangup())?),
            ..Self::catch()?
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
            Some(_) = next_of(self.hangup.as_mut()) => Caught::Terminate,
            // Ctrl-\ is for all that runs in the foreground; the others are for one program.
            _ = self.quit.recv() => Caught::Other("SIGQUIT", "group"),
            _ = self.user1.recv() => Caught::Other("SIGUSR1", "leader"),
            _ = self.user2.recv() => Caught::Other("SIGUSR2", "leader"),
        }
    }

    /// The result of this work, or nothing if two requests to stop came first. What came is kept.
    pub(super) async fn second_before<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        let mut stops = 0;
        while stops < 2 {
            let caught = tokio::select! {
                result = &mut work => return Some(result),
                caught = self.fresh() => caught,
            };
            stops += usize::from(caught.asks_for_a_stop());
            self.pending.push(caught);
        }
        None
    }

    /// The result of this work, or nothing once a stop is asked for, or has been. What came is kept.
    pub(super) async fn before<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        while !self.pending.iter().any(|caught| caught.asks_for_a_stop()) {
            let caught = tokio::select! {
                result = &mut work => return Some(result),
                caught = self.fresh() => caught,
            };
            self.pending.push(caught);
        }
        None
    }
}

fn catch(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::Local(format!("cannot catch signals: {error}")))
}

async fn next_of(signal: Option<&mut Signal>) -> Option<()> {
    match signal {
        Some(signal) => signal.recv().await,
        None => None,
    }
}

/// Passes signals on to the job; returns only if that fails or is asked for too often.
pub(super) async fn obey(client: &Client, id: &str, signals: &mut Signals) -> Failure {
    let mut stops = 0;
    let mut caught = signals.next().await;
    loop {
        if let Caught::Other(name, scope) = caught {
            pass_on(client, id, name, scope).await;
            caught = signals.next().await;
            continue;
        }
        if stops == 2 {
            return Failure::Lost("interrupted three times".to_owned());
        }
        let request = stop(client, id, Some(caught), stops > 0, "interrupted");
        stops += 1;
        caught = tokio::select! {
            sent = request => match sent {
                Ok(()) => signals.next().await,
                Err(failure) => return failure,
            },
            again = signals.next() => again,
        };
    }
}

/// Sends the job a signal, once. That it could not be sent is no reason to leave the job.
async fn pass_on(client: &Client, id: &str, name: &str, scope: &str) {
    let request = client
        .post(&format!("/jobs/{id}/signal"))
        .header("Content-Type", "application/json")
        .body(json!({"signal": name, "scope": scope}).to_string());
    if let Err(failure) = client.send(request).await {
        complain(&escape(&format!("cannot pass {name} on: {failure}")));
    }
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

/// Requests a stop. Ctrl-C reaches the job as it would without this command in between; everything else is the
/// stop that its spec describes.
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
