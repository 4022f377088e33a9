//! The files of a job go to its node before the job does. Up to the claim nothing can have started there, so that a node
//! that dies meanwhile only means that another one gets them.

use std::sync::Arc;

use super::late;
use super::place::{self, wait_again};
use crate::RequestError;
use crate::nodes::{Found, NodeBook, NodeLink};
use crate::runner::requests::JobRequest;
use crate::runner::{Next, Runner, start, workspace};
use crate::workspaces::Bundle;
use job::life::Refusal;
use job::placement::OnNodeLoss;
use job::{NodeName, State};
use linux::failpoint;
use protocol::wire::link::{FromNode, ToNode};

/// Has the node fetch the files of the job, if it has a workspace. `Err`: the node does not have them.
pub(super) async fn send(
    runner: &mut Runner,
    nodes: &Arc<NodeBook>,
    (node, store): &(NodeName, String),
) -> Result<(), Next> {
    if runner.job.spec.workspace.is_none() {
        return Ok(());
    }
    if let Err(why) = look(runner).await {
        return Err(runner.fail_to_spawn(start::not_forked(why)).await);
    }
    let link = match nodes.find(node, runner.job.id) {
        Found::Linked(link) if link.store == *store => link,
        // It has gone in this very moment.
        Found::Linked(_) | Found::Away(_) | Found::Unknown => {
            return Err(wait_again(runner, None).await);
        }
    };
    runner.job.state = State::Starting;
    runner.job.message = Some(format!("its files are on their way to node {node}"));
    runner.publish();
    let sent = converse(runner, nodes, link, node).await;
    runner.job.message = None;
    sent
}

/// Sees to it that the files are here, and can go; the error says why not.
async fn look(runner: &Runner) -> Result<(), String> {
    let failed = |why: String| format!("failed to send its files to a node: {why}");
    let provided = workspace::provide(&runner.shared, &runner.job, Default::default()).await;
    provided.map_err(|error| failed(error.to_string()))?;
    let (shared, id) = (runner.shared.clone(), runner.job.id);
    let looked = tokio::task::spawn_blocking(move || {
        let bundle = Bundle {
            directory: shared.workspaces.of(id)?,
            workspaces: shared.workspaces.clone(),
            owner: None,
        };
        Ok::<_, std::io::Error>(bundle.is_too_much())
    });
    let looked = looked.await.map_err(std::io::Error::other);
    match looked.and_then(|looked| looked) {
        Ok(false) => Ok(()),
        Ok(true) => Err(failed("there are more than a node takes".to_owned())),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// What a job is woken by whose files are on their way.
enum Woken {
    Said(Option<FromNode>),
    Asked(JobRequest),
    Shutdown,
}

async fn converse(
    runner: &mut Runner,
    nodes: &Arc<NodeBook>,
    mut link: NodeLink,
    node: &NodeName,
) -> Result<(), Next> {
    let id = runner.job.id;
    let assignment = place::assignment(&runner.job, &Default::default());
    failpoint::hit("files.sending");
    link.send(ToNode::Prepare(Box::new(assignment.job)));
    loop {
        let woken = tokio::select! {
            said = link.receive() => Woken::Said(said),
            Some(asked) = runner.requests.recv() => Woken::Asked(*asked),
            _ = runner.shutdown.changed() => Woken::Shutdown,
        };
        match woken {
            Woken::Said(Some(FromNode::Prepared { .. })) => {
                failpoint::hit("files.sent");
                return Ok(());
            }
            Woken::Said(Some(FromNode::Refused { why, is_final, .. })) => {
                tracing::info!(job.id = %id, %node, "node {node} does not take the files of job {id}: {why}");
                if is_final {
                    let why = format!("node {node} does not take its files: {why}");
                    return Err(runner.fail_to_place(node, why).await);
                }
                nodes.shut(node);
                return Err(wait_again(runner, None).await);
            }
            // What it says of another attempt is of no interest here.
            Woken::Said(Some(_)) => {}
            Woken::Said(None) => {
                tracing::info!(job.id = %id, %node, "node {node} has gone before it had the files of job {id}");
                return Err(wait_again(runner, None).await);
            }
            Woken::Asked(JobRequest::Stop(stop, reply)) => {
                link.send(ToNode::Forget(vec![id]));
                drop(link);
                // What an attempt before has left there would have been ended for this one.
                let fence = runner.job.last_fence();
                let ending = late::end_superseded(runner.shared.clone(), node.clone(), id, fence);
                runner.shared.spawn(ending);
                return Err(runner.cancel((stop, reply)).await);
            }
            Woken::Asked(JobRequest::Relay(_, reply)) => {
                let _ = reply.send(Err(Refusal::NotStarted.into()));
            }
            Woken::Asked(JobRequest::Amend(version, amendment, reply)) => {
                let amended = if version != runner.job.version {
                    Err(RequestError::Changed)
                } else if amendment.changes_place(&runner.job) {
                    Err(RequestError::NotQueued)
                } else {
                    runner.amend(*amendment).await
                };
                let _ = reply.send(amended);
            }
            Woken::Asked(JobRequest::Follow) => {}
            Woken::Shutdown => {
                if runner.shutdown.borrow().is_some() {
                    link.send(ToNode::Forget(vec![id]));
                    return Err(runner.stay_queued());
                }
            }
        }
    }
}

/// The node has the job, and its files with it: those here have served their purpose, unless the job may start again
/// elsewhere.
pub(super) async fn are_there(runner: &Runner) {
    let spec = &runner.job.spec;
    if spec.workspace.is_none() || spec.on_node_loss == OnNodeLoss::Restart {
        return;
    }
    let (workspaces, id) = (runner.shared.workspaces.clone(), runner.job.id);
    // What stays goes with the end of the job.
    let _ = tokio::task::spawn_blocking(move || workspaces.remove(&[id])).await;
}
