//! The `procession` command: it puts the roles together, and is the client of a service that runs.
//!
//! ```text
//!  main ─► cli ─► engine::supervisor ─► server (as a function) ─► http ─► manager ─► store
//! ```

mod cli;
mod config;
mod limits;
mod server;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
