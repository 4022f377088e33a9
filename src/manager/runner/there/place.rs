//! Where a job starts that has its slot, and how it comes there.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::{Away, files, store};
use crate::nodes::NodeBook;
use crate::runner::{Next, Runner, Stopping};
use crate::workspaces::handover;
use crate::{batches, chains};
use job::spec::Secrets;
use job::{Claim, Job, NodeName, State};
use linux::failpoint;
use protocol::wire::link::Assignment;

/// A node keeps a job that has ended for so long at least, so that a hub that was away still learns of the end.
const KEPT: Duration = Duration::from_hours(7 * 24);

/// Where a job is to start.
pub(in crate::runner) enum Chosen {
    /// On this machine.
    Here,
    /// On this node, which has this store.
    There(NodeName, String),
    /// Nowhere.
    Then(Next),
}

/// Finds the node that a job has its place on.
pub(in crate::runner) async fn choose(
    runner: &mut Runner,
    nodes: &NodeBook,
    stopping: &mut Option<Stopping>,
) -> Chosen {
    if let Some(stopping) = stopping.take() {
        return Chosen::Then(runner.cancel(stopping).await);
    }
    if runner.shutdown.borrow().is_some() {
        return Chosen::Then(runner.stay_queued());
    }
    match nodes.place_of(runner.job.id) {
        Some((_, _, true)) => Chosen::Here,
        Some((node, store, false)) => Chosen::There(node, store),
        // It has gone in this very moment.
        None => Chosen::Then(wait_again(runner, None).await),
    }
}

/// A job that has a place and could not be given to that node waits for another one.
pub(super) async fn wait_again(runner: &mut Runner, stopping: Option<Stopping>) -> Next {
    let id = runner.job.id;
    if !take_back(runner).await {
        return Next::Over;
    }
    let was_queued = runner.job.state == State::Queued;
    runner.job.state = State::Queued;
    runner.shared.leave(id);
    let (slot, has_slot) = oneshot::channel();
    let ticket = runner.shared.room.ticket_of(&runner.job);
    runner.shared.room.enter(ticket, Some(slot));
    chains::linked(&runner.shared, id);
    if !was_queued {
        runner.publish();
    }
    runner.shared.grant();
    Next::Wait(has_slot, stopping)
}

/// Makes it durable that no node has the job, before it starts here. `false` if the service ends first.
pub(in crate::runner) async fn take_back(runner: &mut Runner) -> bool {
    runner.job.claim.take().is_none() || store(runner, Vec::new()).await
}

/// Claims the job for a node, which counts once it is durable.
pub(in crate::runner) fn claim(runner: &mut Runner, (node, store_id): (NodeName, String)) {
    let fence = runner.job.last_fence() + 1;
    runner.job.claim = Some(Box::new(Claim {
        node,
        store: store_id,
        fence,
        confirmed: false,
        seen: 0,
        stop: None,
    }));
    runner.job.state = State::Starting;
    runner.job.message = None;
    runner.job.next_attempt_at = None;
    runner.job.version += 1;
}

/// Claims the job for a node, hands it over and mirrors it.
pub(in crate::runner) async fn hand_over(
    runner: &mut Runner,
    secrets: &Secrets,
    there: (NodeName, String),
) -> Next {
    let Some(nodes) = runner.shared.nodes.clone() else {
        return Next::Over;
    };
    // What is put there from now on would not be in what the node gets.
    let _leaving = handover::leave(&runner.shared.workspaces, runner.job.id);
    if let Err(next) = files::send(runner, &nodes, &there).await {
        return next;
    }
    claim(runner, there);
    failpoint::hit("claim.storing");
    if !store(runner, Vec::new()).await {
        return Next::Over;
    }
    failpoint::hit("claim.stored");
    claimed(runner, secrets).await
}

/// The same for a job whose claim is durable.
pub(in crate::runner) async fn claimed(runner: &mut Runner, secrets: &Secrets) -> Next {
    runner.publish.send_replace(runner.job.shown());
    Away::new(runner, secrets).follow().await
}

/// The job as its node has it: what concerns its execution.
pub(super) fn assignment(job: &Job, secrets: &Secrets) -> Assignment {
    let mut spec = batches::with_batch(job, (*job.spec).clone());
    spec.webhooks.clear();
    spec.concurrency = None;
    "default".clone_into(&mut spec.queue);
    spec.priority = 0;
    spec.start_deadline = None;
    spec.placement = None;
    // They are in its workspace.
    spec.inputs.clear();
    spec.ttl_after_finished = spec.ttl_after_finished.max(KEPT);
    let handed = Job {
        name: job.name.clone(),
        labels: job.labels.clone(),
        rerun_of: job.rerun_of,
        trace: job.trace.clone(),
        schedule: job.schedule.clone(),
        claim: job.claim.clone(),
        started_at: job.started_at,
        attempt: job.attempt,
        attempts: job.attempts.clone(),
        ..Job::accepted(
            job.id,
            job.created_by.clone(),
            Arc::new(spec),
            job.created_at,
        )
    };
    Assignment {
        job: handed,
        secrets: secrets.0.clone(),
    }
}
