//! What a job's task is asked, and what it asks the job's monitor in turn.

use tokio::sync::oneshot;

use crate::RequestError;
use crate::link::MonitorLink;
use job::Signal;
use job::amendment::Amendment;
use job::life::Stop;
use job::spec::Scope;
use protocol::wire::messages::{Request, RequestRefused, ToMonitor};

/// The ticket of requests whose answer nobody waits for.
pub(super) const UNANSWERED: u64 = u64::MAX;

/// The ticket of what a monitor is told of the readers of its job.
pub(super) const READERS: u64 = u64::MAX - 1;

/// Where the answer to a request goes; the number depends on the request.
pub(crate) type Reply = oneshot::Sender<Result<u64, RequestError>>;

/// What clients ask of a live job.
#[derive(Debug)]
pub(crate) enum JobRequest {
    Stop(Stop, Reply),
    /// For the monitor alone: it is passed on as it is.
    Relay(Request, Reply),
    /// Somebody has subscribed to the output.
    Follow,
    /// Change it, if it is still in this version. Answered with the new version.
    Amend(u64, Box<Amendment>, Reply),
}

impl JobRequest {
    /// The stop that it is, if it is one.
    pub(super) fn into_stop(self) -> Option<(Stop, Reply)> {
        match self {
            Self::Stop(stop, reply) => Some((stop, reply)),
            Self::Relay(..) | Self::Follow | Self::Amend(..) => None,
        }
    }

    /// Is it input, which waits for the job to read?
    pub(crate) fn is_input(&self) -> bool {
        matches!(self, Self::Relay(Request::Stdin(_), _))
    }
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
