//! The link of a node as the task of one job has it; and which node may have one.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{Books, Node, NodeBook};
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
    /// What the node says of the job comes here from now on, and to nobody else; `None` if it is not connected.
    pub(super) fn of(
        book: &Arc<NodeBook>,
        books: &mut Books,
        node: &NodeName,
        job: JobId,
    ) -> Option<Self> {
        books.last_ticket += 1;
        let number = books.last_ticket;
        let known = books.nodes.get_mut(node)?;
        let link = known.link.as_mut()?;
        let (sender, inbox) = mpsc::unbounded_channel();
        link.jobs.insert(job, (number, sender));
        Some(Self {
            book: book.clone(),
            node: node.clone(),
            store: known.saved.store.clone(),
            epoch: link.epoch,
            job,
            number,
            outgoing: link.outgoing.clone(),
            inbox,
        })
    }

    /// The same, if nobody else has it.
    pub(crate) fn if_free(book: &Arc<NodeBook>, node: &NodeName, job: JobId) -> Option<Self> {
        let mut books = book.books();
        let is_taken = books.link(node)?.jobs.contains_key(&job);
        match is_taken {
            true => None,
            false => Self::of(book, &mut books, node, job),
        }
    }

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
        self.ask_with(&mut self.book.books(), ask)
    }

    fn ask_with(&self, books: &mut Books, ask: Ask) -> u64 {
        books.last_ticket += 1;
        let (ticket, job) = (books.last_ticket, self.job);
        self.send(ToNode::Ask { ticket, job, ask });
        ticket
    }

    /// Asks, unless somebody else has had the link since: what is asked must not strike what that one has sent there.
    pub(crate) fn ask_if_held(&self, ask: Ask) -> bool {
        let mut books = self.book.books();
        let is_held = self.is_held(&mut books);
        if is_held {
            self.ask_with(&mut books, ask);
        }
        is_held
    }

    /// Has the node remove what is left of the job, unless somebody else has had the link since.
    pub(crate) fn forget_if_held(&self) {
        let mut books = self.book.books();
        if self.is_held(&mut books) {
            self.send(ToNode::Forget(vec![self.job]));
        }
    }

    fn is_held(&self, books: &mut Books) -> bool {
        books.link(&self.node).is_some_and(|link| {
            let holder = link.jobs.get(&self.job);
            link.epoch == self.epoch && holder.is_some_and(|(number, _)| *number == self.number)
        })
    }
}

impl Drop for NodeLink {
    fn drop(&mut self) {
        let mut books = self.book.books();
        if self.is_held(&mut books)
            && let Some(link) = books.link(&self.node)
        {
            link.jobs.remove(&self.job);
        }
    }
}
