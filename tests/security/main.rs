//! The service against hostile clients, over real sockets.
#![expect(clippy::unwrap_used, reason = "helpers of a test are a test")]

mod limits;
mod parsing;
mod server;
mod tls;
mod tokens;
