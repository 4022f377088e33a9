//! Monitors that were stopped (`kill -STOP $PPID` in a job). A supervisor wakes its own; one that has outlived its
//! supervisor is woken here, or its job's timeout would never strike.

use std::os::fd::AsFd;
use std::time::Duration;

use super::job_dirs::JobDirs;
use job::{JobId, Signal};
use linux::procfs;
use linux::sys::{self, Pid};
use protocol::record::Found;

/// How often such a monitor is looked at.
pub(super) const LOOK: Duration = Duration::from_secs(5);

/// Lets the job's monitor continue if it is stopped.
pub(super) fn wake(dirs: &JobDirs, id: JobId, monitor: i32) {
    let is_stopped = procfs::stat(monitor).is_ok_and(|stat| stat.state == 'T');
    let Some(pid) = Pid::new(monitor).filter(|_| is_stopped) else {
        return;
    };
    let Ok(held) = sys::pidfd_open(pid) else {
        return;
    };
    // Asked once it is held: whoever has the lock is the monitor, and not another process with its number.
    let found = dirs.read_record(id);
    if matches!(found, Ok(Some(Found { monitor: Some(holder), .. })) if holder == monitor) {
        tracing::warn!(job.id = %id, pid = monitor, "the monitor of job {id} was stopped, and is woken");
        let _ = sys::pidfd_signal(held.as_fd(), Signal::CONT);
    }
}
