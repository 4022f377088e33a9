//! What a job's task is asked, what it asks the job's monitor in turn, and changes of the job.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::Runner;
use crate::RequestError;
use crate::link::MonitorLink;
use job::Signal;
use job::amendment::Amendment;
use job::event::{Event, What};
use job::life::Stop;
use job::spec::Scope;
use linux::clock;
use protocol::wire::messages::{Request, RequestRefused, ToMonitor};

/// The ticket of requests whose answer nobody waits for.
pub(super) const UNANSWERED: u64 = u64::MAX;

/// The ticket of what a monitor is told of the readers of its job.
pub(super) const READERS: u64 = u64::MAX - 1;

/// Where the answer to a request goes; the number depends on the request.
pub(crate) type Reply = oneshot::Sender<Result<u64, RequestError>>;

/// What clients ask of a live job.
#[derive(Debug)]
pub(crate) enum Ask {
    Stop(Stop, Reply),
    /// For the monitor alone: it is passed on as it is.
    Relay(Request, Reply),
    /// Somebody has subscribed to the output.
    Follow,
    /// Change it, if it is still in this version. Answered with the new version.
    Amend(u64, Box<Amendment>, Reply),
}

/// A request that the monitor has not answered yet.
pub(super) struct Pending {
    /// The stop that was asked, to be asked again of a rescuer.
    pub(super) stop: Option<Stop>,
    /// The change that is to be made once the monitor has made its part.
    pub(super) amendment: Option<Box<Amendment>>,
    /// The signal that is told of once it has been sent.
    pub(super) signal: Option<(Signal, Scope)>,
    pub(super) reply: Reply,
}

impl Runner {
    pub(super) async fn amend_queued(
        &mut self,
        version: u64,
        amendment: Amendment,
    ) -> Result<u64, RequestError> {
        if version != self.job.version {
            return Err(RequestError::Changed);
        }
        if !amendment.changes_place(&self.job) {
            return self.amend(amendment).await;
        }
        let before = self.job.clone();
        let mut after = before.clone();
        amendment.clone().apply(&mut after);
        let room = &self.shared.room;
        let (new, old) = (room.ticket_of(&after), room.ticket_of(&before));
        if !room.amend(before.id, |it| *it = new) {
            return Err(RequestError::NotQueued);
        }
        let amended = self.amend(amendment).await;
        if amended.is_err() {
            self.shared.room.amend(before.id, |it| *it = old);
        }
        self.shared.grant();
        amended
    }

    /// Makes a change durable, then visible.
    pub(super) async fn amend(&mut self, amendment: Amendment) -> Result<u64, RequestError> {
        let mut job = self.job.clone();
        amendment.apply(&mut job);
        job.version += 1;
        let changed = Event::of(&job, clock::wall(), What::Changed);
        let stored = Arc::new(job.clone());
        self.shared.store.update(stored, vec![changed]).await?;
        self.job = job;
        self.publish.send_replace(Arc::new(self.job.clone()));
        Ok(self.job.version)
    }
}

impl Pending {
    /// A request of which nothing is known but where its answer goes.
    pub(super) fn plain(reply: Reply) -> Self {
        Self {
            stop: None,
            amendment: None,
            signal: None,
            reply,
        }
    }
}

/// Sends a request; gives it back where the monitor is gone and has not had it. That it is gone says its
/// closed socket.
pub(super) async fn send(link: &MonitorLink, ticket: u64, request: Request) -> Option<ToMonitor> {
    let message = ToMonitor { ticket, request };
    let sent = link.send(&message).await;
    sent.err().map(|_| message)
}

pub(super) fn refused(refused: RequestRefused) -> RequestError {
    match refused {
        RequestRefused::Refused(refusal) => refusal.into(),
        RequestRefused::StdinClosed => RequestError::StdinClosed,
        RequestRefused::StdinOffset { expected } => RequestError::StdinOffset { expected },
        RequestRefused::Errno(errno) => RequestError::Errno(nix::errno::Errno::from_raw(errno)),
    }
}
