//! What lies between API nodes, their database and the nodes, and can be cut.

use crate::cluster::port;
use crate::history::wire::{Mode, Wire};

/// Every way by itself.
pub(super) struct Ways {
    /// From each API node to the database.
    pub(super) database: Vec<Wire>,
    /// From all others to each API node.
    pub(super) apis: Vec<Wire>,
    /// From each node to each API node.
    pub(super) nodes: Vec<Vec<Wire>>,
}

impl Wire {
    /// The database at the end of it.
    pub(super) fn url(&self) -> String {
        format!("postgres://procession@127.0.0.1:{}/postgres", self.port)
    }
}

impl Ways {
    pub(super) async fn lay(database: u16, apis: &[u16], nodes: usize) -> Self {
        let mut ways = Self {
            database: Vec::new(),
            apis: Vec::new(),
            nodes: Vec::new(),
        };
        for api in apis {
            ways.database.push(Wire::lay(port(), database).await);
            ways.apis.push(Wire::lay(port(), *api).await);
        }
        for _ in 0..nodes {
            let mut to = Vec::new();
            for api in apis {
                to.push(Wire::lay(port(), *api).await);
            }
            ways.nodes.push(to);
        }
        ways
    }

    /// All that one API node reaches PostgreSQL and the other API nodes by, and is reached by of those. Between the others it is
    /// the same, as each of them has one address.
    pub(super) fn isolate(&self, api: usize, mode: Mode) {
        self.database[api].set(mode);
        for wire in &self.apis {
            wire.set(mode);
        }
    }

    /// All that a node reaches the API nodes by.
    pub(super) fn set_node(&self, node: usize, mode: Mode) {
        for wire in &self.nodes[node] {
            wire.set(mode);
        }
    }
}
