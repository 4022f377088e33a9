//! What nodes hear of other API nodes, for one that hears none of them: who has taken the lead how often.

use tokio::sync::oneshot;

use super::{Link, NodeBook};
use protocol::wire::link::{Lead, ToNode};

/// The most nodes that are asked at a time. The next time it is others.
const WITNESSES: usize = 8;

impl Link {
    pub(super) fn hear_who_leads(&mut self, ticket: u64, lead: Option<Lead>) {
        if let Some(waiting) = self.leads.remove(&ticket) {
            // Who asked may have its answer by now.
            let _ = waiting.send(lead);
        }
    }
}

/// Has some nodes that are connected ask all API nodes that they know; gives their answers to be.
pub(super) fn ask_who_leads(nodes: &NodeBook) -> Vec<oneshot::Receiver<Option<Lead>>> {
    let mut books = nodes.books();
    let mut ticket = books.last_ticket;
    let able = books.nodes.values_mut().filter(|node| node.hears_others);
    let mut able: Vec<&mut Link> = able.filter_map(|node| node.link.as_mut()).collect();
    let first = usize::try_from(ticket).unwrap_or_default() % able.len().max(1);
    able.rotate_left(first);
    let mut answers = Vec::new();
    for link in able.into_iter().take(WITNESSES) {
        ticket += 1;
        let (answer, answered) = oneshot::channel();
        link.leads.retain(|_, waiting| !waiting.is_closed());
        link.leads.insert(ticket, answer);
        // That the link has ended is seen by who waits.
        let _ = link.outgoing.send(ToNode::WhoLeads { ticket });
        answers.push(answered);
    }
    books.last_ticket = ticket;
    answers
}
