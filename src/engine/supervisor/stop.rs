//! The end of the service: who asked for it, what becomes of running jobs, and how long it may take.

use std::time::Duration;

use nix::libc;
use nix::sys::signalfd::siginfo;

use super::Settings;
use job::time::{BootInstant, rounded_seconds};

/// How much longer than the jobs' own time a shutdown waits for their ends to be recorded.
const SHUTDOWN_MARGIN: Duration = Duration::from_secs(5);

/// The signal that asks for the end, and who has sent it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    signal: &'static str,
    /// 0 for the kernel: a terminal's Ctrl-C.
    pid: u32,
    uid: u32,
}

impl Asked {
    pub(super) fn by(signal: &siginfo) -> Self {
        let is_int = i32::try_from(signal.ssi_signo) == Ok(libc::SIGINT);
        Self {
            signal: if is_int { "SIGINT" } else { "SIGTERM" },
            pid: signal.ssi_pid,
            uid: signal.ssi_uid,
        }
    }
}

/// How far the end is.
pub(super) struct Shutdown {
    pub(super) kill_at: BootInstant,
    monitors_asked: bool,
}

impl Shutdown {
    pub(super) fn new(kill_at: BootInstant) -> Self {
        Self {
            kill_at,
            monitors_asked: false,
        }
    }

    /// How long it may take from `now` on.
    pub(super) fn limit(&self, now: BootInstant) -> Duration {
        self.kill_at.after(SHUTDOWN_MARGIN * 2).remaining(now)
    }

    /// It has taken too long.
    pub(super) fn is_overdue(&self, now: BootInstant) -> bool {
        self.kill_at.after(SHUTDOWN_MARGIN) <= now
    }

    /// Are monitors to be asked to end their jobs, with no server to do it? Once, and again and again from the time of
    /// the kill on.
    pub(super) fn asks_monitors(&mut self, now: BootInstant) -> bool {
        let is_first = !std::mem::replace(&mut self.monitors_asked, true);
        is_first || self.kill_at <= now
    }
}

/// The line of the log that says what becomes of running jobs.
pub(super) fn announce(asked: Asked, is_again: bool, settings: &Settings, jobs: usize) {
    let Asked { signal, pid, uid } = asked;
    let grace_seconds = rounded_seconds(settings.shutdown_grace);
    let becomes = match (settings.stop_jobs, is_again) {
        _ if jobs == 0 => "no job runs".to_owned(),
        (true, false) => {
            format!("{jobs} running jobs are stopped, and killed after {grace_seconds} s")
        }
        (true, true) => format!("{jobs} running jobs are killed now"),
        (false, _) => {
            format!("{jobs} running jobs go on without it, and the next start finds them")
        }
    };
    tracing::info!(
        signal,
        sender.pid = pid,
        sender.uid = uid,
        jobs,
        "{signal}: the service ends; {becomes}"
    );
}
