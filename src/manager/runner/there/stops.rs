//! Stops that do not reach the node of a job.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Away, store, unreachable_now};
use crate::RequestError;
use crate::nodes::Found;
use crate::runner::requests::JobRequest;
use crate::runner::{Runner, Stopping};
use protocol::wire::link::Ask;

impl Away<'_> {
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
            runner.publish.send_replace(Arc::new(runner.job.clone()));
            Ok(0)
        } else {
            Err(RequestError::NodeUnreachable)
        };
        let _ = reply.send(answer);
    }
}

/// A job is lost whose stop has not reached its node: what runs there is ended if the node comes back, as far as this
/// service lives to see it.
pub(super) fn stop_on_return(runner: &Runner) {
    let (Some(nodes), Some(claim)) = (runner.shared.nodes.clone(), &runner.job.claim) else {
        return;
    };
    let (Some(stop), node, job) = (claim.stop.clone(), claim.node.clone(), runner.job.id) else {
        return;
    };
    let mut shutdown = runner.shutdown.clone();
    runner.shared.spawn(async move {
        let mut changes = nodes.changes();
        loop {
            changes.borrow_and_update();
            match nodes.find(&node, job) {
                Found::Linked(link) => {
                    link.ask(Ask::Stop(*stop));
                    return;
                }
                Found::Unknown => return,
                Found::Away(_) => {}
            }
            tokio::select! {
                _ = changes.changed() => {}
                _ = shutdown.wait_for(Option::is_some) => return,
            }
        }
    });
}
