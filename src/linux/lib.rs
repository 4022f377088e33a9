//! What the kernel gives: system calls, clocks, `/proc`, cgroup v2, sandboxes, and the processes of a job.
//!
//! All unsafe code is in `sys`. Nothing here knows the service's files, its messages or the API.

#[cfg(not(target_os = "linux"))]
compile_error!(
    "Procession runs on Linux only: it stands on subreapers, pidfds, splice and cgroup v2"
);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("Procession supports x86-64 and arm64 only");

pub mod beneath;
pub mod cgroup;
pub mod clock;
pub mod failpoint;
pub mod files;
pub mod notify;
pub mod ports;
pub mod procfs;
pub mod sandbox;
pub mod service_manager;
pub mod sys;
pub mod tree;
