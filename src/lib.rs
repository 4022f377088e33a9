//! Procession runs commands over HTTP: each one in a session of its own, with a stop that is verified.
//!
//! ```text
//!  main ─► cli ─► supervisor ─► server ─► http ─► manager ─► store ─► job
//!                     └──────► monitor ─► record, output, wire ─► job
//! ```
//!
//! `job` is pure. `sys` holds the unsafe code, `procfs` and `cgroup` what the kernel tells, `wire` the
//! messages between the roles, `record` and `output` the files that they share.

#[cfg(not(target_os = "linux"))]
compile_error!(
    "Procession runs on Linux only: it stands on subreapers, pidfds, splice and cgroup v2"
);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("Procession supports x86-64 and arm64 only");

pub mod audit;
pub mod auth;
mod cgroup;
pub mod cli;
pub mod clock;
mod cloud_event;
mod codec;
pub mod config;
mod connections;
mod failpoint;
#[doc(hidden)]
pub mod fuzz;
pub mod http;
mod inherited;
pub mod job;
mod listeners;
pub mod manager;
mod monitor;
pub mod output;
pub mod policy;
mod procfs;
mod record;
mod sandbox;
mod server;
mod state_dir;
mod stderr;
pub mod store;
mod supervisor;
mod sys;
mod tls;
mod tree;
mod webhooks;
mod wire;
