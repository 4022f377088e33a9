//! The nodes as operators see and govern them.

use super::{BLINK, Node, NodeBook, NodeState};
use job::NodeName;
use job::time::Timestamp;

impl NodeBook {
    /// Every node.
    pub(super) fn states(&self) -> Vec<NodeState> {
        let books = self.books();
        let state = |(name, node): (&NodeName, &Node)| {
            let is_connected = node.is_here || node.link.is_some();
            let is_waited_for = !is_connected && books.account.used(name) > 0;
            NodeState {
                name: name.clone(),
                is_here: node.is_here,
                is_connected,
                is_draining: node.saved.draining,
                is_shut: node.is_shut,
                slots: node.saved.slots,
                labels: node.labels.clone(),
                jobs: books.account.count(name),
                weight: books.account.used(name),
                version: node.version.clone(),
                since: node.since.1,
                lost_at: is_waited_for.then(|| node.since.1.after(self.lost_after)),
            }
        };
        books.nodes.iter().map(state).collect()
    }

    /// Since when a node is not heard, if that is longer than a restart takes; and when its jobs are lost.
    pub(super) fn unheard(&self, name: &NodeName) -> Option<(Timestamp, Timestamp)> {
        let books = self.books();
        let node = books.nodes.get(name)?;
        let is_away = !node.is_here && node.link.is_none() && node.since.0.elapsed() > BLINK;
        is_away.then(|| (node.since.1, node.since.1.after(self.lost_after)))
    }

    /// Lets a node have no new jobs, or again; durable when this returns. `false`: there is no such node.
    pub(super) async fn drain(&self, name: &NodeName, draining: bool) -> std::io::Result<bool> {
        let unsaved = {
            let mut books = self.books();
            let Some(node) = books.nodes.get_mut(name) else {
                return Ok(false);
            };
            node.saved.draining = draining;
            books.refresh(name);
            books.changed()
        };
        self.save(unsaved).await.map(|()| true)
    }

    /// Gives a node up: it will not come back. `None`: there is no such node; `Some(false)`: it is connected.
    pub(super) async fn forget(&self, name: &NodeName) -> std::io::Result<Option<bool>> {
        let unsaved = {
            let mut books = self.books();
            match books.nodes.get(name) {
                None => return Ok(None),
                Some(node) if node.is_here || node.link.is_some() => return Ok(Some(false)),
                Some(_) => {}
            }
            books.nodes.remove(name);
            books.refresh(name);
            books.changed()
        };
        self.save(unsaved).await.map(|()| Some(true))
    }
}
