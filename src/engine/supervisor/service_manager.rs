//! What a service manager such as systemd is told: that the service is ready, is being replaced or ends, how many jobs
//! run, and that this process lives.
//!
//! Every message has the whole of it, so one that was lost is made good by the next.

use std::time::Duration;

use job::time::BootInstant;
use linux::service_manager;

/// How long after a change the number of jobs is told: not with every job.
const SOON: Duration = Duration::from_secs(1);

/// Where the service is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Starting,
    Ready,
    /// The program on disk is about to take over.
    Reloading,
    Stopping {
        /// How long that may take.
        limit: Duration,
    },
}

/// What was told, and when there is more to tell.
#[derive(Debug)]
pub(super) struct ServiceManager {
    listens: bool,
    phase: Phase,
    told: String,
    /// How often it is told that this process lives.
    beat_every: Option<Duration>,
    beat_at: Option<BootInstant>,
    tell_at: Option<BootInstant>,
}

impl ServiceManager {
    /// As the environment says.
    pub(super) fn read(now: BootInstant) -> Self {
        let listens = service_manager::listens();
        // Twice in the time that it waits.
        let beat_every = service_manager::watchdog().map(|limit| limit / 2);
        let beat_every = beat_every.filter(|_| listens);
        Self {
            listens,
            phase: Phase::Starting,
            told: String::new(),
            beat_every,
            beat_at: beat_every.map(|every| now.after(every)),
            tell_at: None,
        }
    }

    /// When there is something to tell.
    pub(super) fn due(&self) -> Option<BootInstant> {
        self.beat_at.into_iter().chain(self.tell_at).min()
    }

    /// Tells of another phase at once; `jobs` run. Nothing follows the end.
    pub(super) fn enter(&mut self, phase: Phase, jobs: usize) {
        if !matches!(self.phase, Phase::Stopping { .. }) {
            self.phase = phase;
        }
        self.tell(jobs, false);
    }

    /// The number of jobs may have changed.
    pub(super) fn note_change(&mut self, now: BootInstant) {
        if self.listens && self.phase != Phase::Starting {
            self.tell_at.get_or_insert_with(|| now.after(SOON));
        }
    }

    /// Tells what is due.
    pub(super) fn on_time(&mut self, now: BootInstant, jobs: impl FnOnce() -> usize) {
        let beats = self.beat_at.is_some_and(|at| at <= now);
        if !beats && self.tell_at.is_none_or(|at| now < at) {
            return;
        }
        if beats {
            self.beat_at = self.beat_every.map(|every| now.after(every));
        }
        self.tell_at = None;
        self.tell(jobs(), beats);
    }

    fn tell(&mut self, jobs: usize, beats: bool) {
        if !self.listens {
            return;
        }
        let lines = lines(self.phase, jobs);
        if !beats && lines == self.told {
            return;
        }
        let beat = if beats { "WATCHDOG=1\n" } else { "" };
        match service_manager::tell(&format!("{lines}{beat}")) {
            Ok(()) => self.told = lines,
            Err(error) => {
                tracing::warn!(%error, "the service manager cannot be told of the state: {error}");
            }
        }
    }
}

/// The state as sd_notify(3) has it. PURE.
fn lines(phase: Phase, jobs: usize) -> String {
    let running = match jobs {
        1 => "1 job runs".to_owned(),
        jobs => format!("{jobs} jobs run"),
    };
    match phase {
        Phase::Starting => "STATUS=Starting\n".to_owned(),
        Phase::Ready => format!("READY=1\nSTATUS=Serving, {running}\n"),
        Phase::Reloading => format!("RELOADING=1\nSTATUS=Being replaced, {running}\n"),
        Phase::Stopping { limit } => format!(
            "STOPPING=1\nSTATUS=Ending, {running}\nEXTEND_TIMEOUT_USEC={}\n",
            limit.as_micros()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_is_told_whole() {
        assert_eq!(
            lines(Phase::Ready, 1),
            "READY=1\nSTATUS=Serving, 1 job runs\n"
        );
        assert_eq!(
            lines(Phase::Reloading, 0),
            "RELOADING=1\nSTATUS=Being replaced, 0 jobs run\n"
        );
        let limit = Duration::from_millis(1500);
        assert_eq!(
            lines(Phase::Stopping { limit }, 2),
            "STOPPING=1\nSTATUS=Ending, 2 jobs run\nEXTEND_TIMEOUT_USEC=1500000\n"
        );
    }
}
