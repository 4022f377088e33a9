//! What a node and its hub have between them: messages and byte streams in WebSockets, and the node's side of both.
//!
//! A node dials; nobody dials a node. What a message means for a job is the manager's, and what is served over a stream
//! is whoever's gives it: this crate knows no routes.

mod dial;
mod fetch;
mod jobs;
pub mod lead;
mod node;
pub mod socket;

pub use dial::{DialError, Target};
pub use node::{Node, Serve};
