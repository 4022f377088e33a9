//! Procession runs commands over HTTP: each one in a session of its own, with a stop that is verified.
//!
//! ```text
//!  main ─► supervisor, server, cli ─► config
//!  server ─► http ─► manager ─► store, wire, output ─► job
//!  supervisor ─► monitor ─► wire, output ─► job
//! ```
#[cfg(not(target_os = "linux"))]
compile_error!(
    "Procession runs on Linux only: it stands on subreapers, pidfds, splice and cgroup v2"
);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("Procession supports x86-64 and arm64 only");

pub mod clock;
pub mod job;
pub mod manager;
pub mod output;
pub mod store;
