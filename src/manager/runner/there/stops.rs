//! Stops of a job on another node: they count whether they reach that node or not, and whether it is there in the end or not.

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Away, store};
use crate::RequestError;
use crate::runner::Stopping;
use crate::runner::requests::JobRequest;
use protocol::wire::link::Answered;

impl Away<'_> {
    /// Keeps the stops that the node has granted by these answers: a job that is being stopped does not start again elsewhere.
    /// `true` if that is news.
    pub(super) fn keep_granted(&mut self, answers: &[Answered]) -> bool {
        let granted = answers.iter().filter(|it| it.result.is_ok());
        let mut stops = granted.filter_map(|it| self.pending.get(&it.ticket)?.stop.clone());
        let (Some(stop), Some(claim)) = (stops.next_back(), &mut self.runner.job.claim) else {
            return false;
        };
        let is_news = claim.stop.as_deref() != Some(&stop);
        claim.stop = Some(Box::new(stop));
        is_news
    }

    /// Of what the node was asked and has not answered, the stops are held, as those are that came while it was not there.
    pub(super) fn hold_stops(&mut self) {
        for (_, pending) in self.pending.extract_if(|_, it| it.stop.is_some()) {
            if let Some(stop) = pending.stop {
                let asked = JobRequest::Stop(stop, pending.reply);
                self.held.push_back((asked, Instant::now()));
            }
        }
    }

    /// The job is over: what is held is answered, and a stop is granted.
    pub(super) fn grant_held(&mut self) {
        for (asked, _) in std::mem::take(&mut self.held) {
            match asked {
                JobRequest::Stop(_, reply) => drop(reply.send(Ok(0))),
                asked @ (JobRequest::Relay(..) | JobRequest::Amend(..) | JobRequest::Follow) => {
                    unreachable_now(asked);
                }
            }
        }
    }

    /// A stop that was asked while the node was not there, for whoever has the job next.
    pub(super) fn asked_to_stop(&mut self) -> Option<Stopping> {
        let mut found = None;
        for (asked, _) in std::mem::take(&mut self.held) {
            if let (JobRequest::Stop(..), None) = (&asked, &found) {
                found = asked.into_stop();
            } else {
                unreachable_now(asked);
            }
        }
        let kept = self.runner.job.claim.as_mut().and_then(|it| it.stop.take());
        found.or_else(|| kept.map(|stop| (*stop, oneshot::channel().0)))
    }

    /// Keeps a stop for the node that is not there, over restarts of this service as well.
    pub(super) async fn keep_stop(&mut self, (stop, reply): Stopping) {
        let runner = &mut *self.runner;
        let Some(claim) = &mut runner.job.claim else {
            let _ = reply.send(Err(RequestError::NodeUnreachable));
            return;
        };
        claim.stop = Some(Box::new(stop));
        runner.job.version += 1;
        let answer = if store(runner, Vec::new()).await {
            runner.publish.send_replace(runner.job.shown());
            Ok(0)
        } else {
            Err(RequestError::NodeUnreachable)
        };
        let _ = reply.send(answer);
    }
}

/// The node is not there.
pub(super) fn unreachable_now(asked: JobRequest) {
    match asked {
        JobRequest::Stop(_, reply)
        | JobRequest::Relay(_, reply)
        | JobRequest::Amend(_, _, reply) => {
            let _ = reply.send(Err(RequestError::NodeUnreachable));
        }
        JobRequest::Follow => {}
    }
}
