//! The service against hostile clients, over real sockets.
#![expect(clippy::unwrap_used, reason = "helpers of a test are a test")]

#[path = "../it/harness/binary.rs"]
mod binary;
#[path = "../it/harness/contract.rs"]
mod contract;
mod defaults;
mod hostile;
mod limits;
mod matrix;
mod output;
#[path = "../it/harness/reply.rs"]
mod reply;
mod server;
mod socket;
mod tables;
mod tls;
mod tokens;

// The description is held against answers as in the other suite.
use reply::Reply;
