//! The link of a node as the task of one job has it; and which node may have one.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{Node, NodeBook};
use job::{JobId, NodeName};
use protocol::wire::link::{Ask, FromNode, ToNode};

/// May this node come back like that?
pub(super) fn may_return(
    known: &Node,
    store: &str,
    place: &str,
    actor: &str,
    has_jobs: bool,
) -> Result<(), String> {
    let (name, saved) = (&known.saved.name, &known.saved);
    if saved.actor != actor {
        return Err(format!(
            "node {name} joined with {}, and this is {actor}: use that token, or `procession node forget {name}` lets it join anew",
            saved.actor
        ));
    }
    let is_same = saved.store == store;
    match &known.link {
        Some(_) if !is_same => Err(format!(
            "another node with the name {name} is connected: give each its own --node-name"
        )),
        Some(link) if link.place != place => Err(format!(
            "a copy of the state directory of node {name} is connected: end one of them"
        )),
        None if !is_same && has_jobs => Err(format!(
            "node {name} had jobs and comes back with another state directory, which does not have them: start it with the one it had, or give it up with `procession node forget {name}`"
        )),
        Some(_) | None => Ok(()),
    }
}

/// What a job's task has of the link of its node; dropping it ends that.
#[derive(Debug)]
pub(crate) struct NodeLink {
    pub(super) book: Arc<NodeBook>,
    pub(super) node: NodeName,
    /// The store of the node.
    pub(crate) store: String,
    pub(super) epoch: u64,
    pub(super) job: JobId,
    pub(super) number: u64,
    pub(super) outgoing: mpsc::UnboundedSender<ToNode>,
    pub(super) inbox: mpsc::UnboundedReceiver<FromNode>,
}

impl NodeLink {
    /// What the node says of the job; `None` once the link has ended.
    pub(crate) async fn receive(&mut self) -> Option<FromNode> {
        self.inbox.recv().await
    }

    /// That the link has ended is seen by who receives.
    pub(crate) fn send(&self, message: ToNode) {
        let _ = self.outgoing.send(message);
    }

    /// Asks; gives the ticket of the answer.
    pub(crate) fn ask(&self, ask: Ask) -> u64 {
        let ticket = {
            let mut books = self.book.books();
            books.last_ticket += 1;
            books.last_ticket
        };
        let job = self.job;
        self.send(ToNode::Ask { ticket, job, ask });
        ticket
    }
}

impl Drop for NodeLink {
    fn drop(&mut self) {
        let mut books = self.book.books();
        if let Some(link) = books.link(&self.node)
            && link.epoch == self.epoch
            && (link.jobs.get(&self.job)).is_some_and(|(number, _)| *number == self.number)
        {
            link.jobs.remove(&self.job);
        }
    }
}
