//! A job whose node is lost starts again elsewhere, if its spec says so.

use std::collections::VecDeque;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{late, store};
use crate::chains;
use crate::runner::requests::JobRequest;
use crate::runner::{Next, Runner};
use job::event;
use job::placement::OnNodeLoss;
use job::retry::ATTEMPTS_MAX;
use job::{Claim, Job, State};
use linux::{clock, failpoint};

/// The claim that is given up for another attempt when the node is lost; `None` if there is to be none, as for a job that is
/// being stopped.
pub(super) fn wanted(job: &Job, held: &VecDeque<(JobRequest, Instant)>) -> Option<Claim> {
    let claim = job.claim.as_deref()?;
    let is_stopped = |(asked, _): &(JobRequest, Instant)| matches!(asked, JobRequest::Stop(..));
    let again = job.spec.on_node_loss == OnNodeLoss::Restart
        && job.attempt < ATTEMPTS_MAX
        && claim.stop.is_none()
        && !held.iter().any(is_stopped);
    again.then(|| claim.clone())
}

/// The job, which has just been given up for lost, waits for another node.
pub(super) async fn elsewhere(runner: &mut Runner, claim: &Claim) -> Next {
    let ended = runner.job.clone();
    runner.job.leave_node(claim, clock::wall());
    runner.job.version += 1;
    let events = event::between(runner.told, &ended, &runner.job);
    runner.told = State::Queued;
    runner.is_counted = false;
    tokio::task::block_in_place(|| failpoint::hit("restart.storing"));
    // The slot is not another one's before: the next server would find it taken.
    if !store(runner, events).await {
        return Next::Over;
    }
    failpoint::hit("restart.stored");
    let id = runner.job.id;
    tracing::warn!(job.id = %id, node = %claim.node, "job {id} starts again elsewhere: node {} is lost", claim.node);
    runner.shared.count_attempt(&ended);
    runner.shared.leave(id);
    let (slot, has_slot) = oneshot::channel();
    let ticket = runner.shared.room.ticket_of(&runner.job);
    runner.shared.room.enter(ticket, Some(slot));
    chains::linked(&runner.shared, id);
    runner.publish.send_replace(runner.job.shown());
    // The node may have come back before this was shown, and was told nothing.
    let (shared, node) = (runner.shared.clone(), claim.node.clone());
    let ending = late::end_superseded(shared, node, id, claim.fence);
    runner.shared.spawn(ending);
    runner.answer();
    runner.shared.grant();
    Next::Wait(has_slot, None)
}
