//! Where a job starts that has its slot, and how it comes there.

use std::sync::Arc;
use std::time::Duration;

use super::{Away, store};
use crate::nodes::NodeBook;
use crate::runner::requests::JobRequest;
use crate::runner::{Next, Runner, Stopping, log};
use crate::time::until;
use crate::{RequestError, batches};
use job::life::Refusal;
use job::outcome::{Cause, Termination};
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

/// Is it one that only this machine can run? Its files are here.
fn must_be_here(job: &Job) -> bool {
    job.spec.workspace.is_some() || job.claim.is_none() && !job.attempts.is_empty()
}

/// Finds a node for a job that has a slot of the service, and waits for one.
pub(in crate::runner) async fn choose(
    runner: &mut Runner,
    nodes: &Arc<NodeBook>,
    stopping: &mut Option<Stopping>,
) -> Chosen {
    let mut changes = nodes.changes();
    let mut has_said = false;
    let deadline = runner.start_deadline();
    loop {
        changes.borrow_and_update();
        if let Some(stopping) = stopping.take() {
            return Chosen::Then(runner.cancel(stopping).await);
        }
        if runner.shutdown.borrow().is_some() {
            return Chosen::Then(runner.stay_queued());
        }
        let (id, weight) = (runner.job.id, runner.job.spec.weight);
        match nodes.claim(id, weight, must_be_here(&runner.job)) {
            Some((_, _, true)) => return Chosen::Here,
            Some((node, store, false)) => return Chosen::There(node, store),
            None => {}
        }
        if !std::mem::replace(&mut has_said, true) {
            runner.job.state = State::Queued;
            runner.job.message = Some("it waits for a node that has room for it".to_owned());
            runner.publish();
            runner.answer();
        }
        tokio::select! {
            _ = changes.changed() => {}
            _ = runner.shutdown.changed() => {}
            () = until(deadline) => {
                runner.shared.leave(id);
                let termination = Termination::unasked(Cause::StartDeadline);
                runner.end_unstarted(termination).await;
                return Chosen::Then(Next::Over);
            }
            Some(asked) = runner.requests.recv() => match *asked {
                JobRequest::Stop(stop, reply) => {
                    log::stopping(&runner.job, &stop);
                    *stopping = Some((stop, reply));
                }
                JobRequest::Relay(_, reply) => drop(reply.send(Err(Refusal::NotStarted.into()))),
                JobRequest::Follow => {}
                JobRequest::Amend(version, amendment, reply) => {
                    let amended = if version != runner.job.version {
                        Err(RequestError::Changed)
                    } else if amendment.changes_place(&runner.job) {
                        Err(RequestError::NotQueued)
                    } else {
                        runner.amend(*amendment).await
                    };
                    let _ = reply.send(amended);
                }
            },
        }
    }
}

/// Makes it durable that no node has the job, before it starts here. `false` if the service ends first.
pub(in crate::runner) async fn take_back(runner: &mut Runner) -> bool {
    runner.job.claim.take().is_none() || store(runner, Vec::new()).await
}

/// Claims the job for a node, hands it over and mirrors it.
pub(in crate::runner) async fn hand_over(
    runner: &mut Runner,
    secrets: &Secrets,
    (node, store_id): (NodeName, String),
) -> Next {
    let fence = runner.job.claim.as_ref().map_or(0, |it| it.fence) + 1;
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
    runner.job.version += 1;
    failpoint::hit("claim.storing");
    if !store(runner, Vec::new()).await {
        return Next::Over;
    }
    failpoint::hit("claim.stored");
    runner.publish.send_replace(Arc::new(runner.job.clone()));
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
    spec.ttl_after_finished = spec.ttl_after_finished.max(KEPT);
    let handed = Job {
        name: job.name.clone(),
        labels: job.labels.clone(),
        rerun_of: job.rerun_of,
        trace: job.trace.clone(),
        schedule: job.schedule.clone(),
        claim: job.claim.clone(),
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
