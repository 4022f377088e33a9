//! The supervisor and the monitors of jobs: one thread each, forked and never executed.
//!
//! They know no runtime, no HTTP, no JSON and no SQL; what a server does is handed in as a function.

mod monitor;
pub mod supervisor;
