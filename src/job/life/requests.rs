//! What clients, timers and shutdowns may ask of a life, and what each phase answers.

use std::time::Duration;

use super::Life;
use super::machine::{Ending, Phase, Refusal, Stop, Verdict};
use crate::spec::{Scope, StopPolicy, WaitFor};
use crate::time::Now;

impl Life {
    /// Asks for the end. A repeat may shorten the grace period or force, never lengthen; what was asked
    /// first stays the cause, and a leader that has ended by itself keeps its result.
    pub fn stop(&mut self, stop: Stop, now: Now) -> Verdict {
        let grace = if stop.force {
            Duration::ZERO
        } else {
            stop.grace.unwrap_or(self.plan.stop.grace)
        };
        match self.phase {
            Phase::Starting => {
                // The program has not run: there is nobody to be polite to.
                self.note_ending(&stop);
                Verdict::Do(self.kill(now))
            }
            Phase::Running { .. } | Phase::Paused { .. } => {
                self.note_ending(&stop);
                let signal = stop.signal.unwrap_or(self.plan.stop.signal);
                let scope = if self.exit.is_some() {
                    Scope::All
                } else {
                    self.plan.stop.scope
                };
                Verdict::Do(self.begin_stop(signal, grace, scope, now))
            }
            Phase::Terminating { kill_at } => {
                self.note_ending(&stop);
                let sooner = now.boot.after(grace);
                if sooner >= kill_at || (!stop.force && stop.grace.is_none()) {
                    Verdict::Already
                } else if grace.is_zero() {
                    Verdict::Do(self.kill(now))
                } else {
                    self.phase = Phase::Terminating { kill_at: sooner };
                    Verdict::Do(None)
                }
            }
            Phase::Killing | Phase::Draining { .. } => {
                self.note_ending(&stop);
                Verdict::Already
            }
            Phase::Ended => Verdict::Already,
        }
    }

    fn note_ending(&mut self, stop: &Stop) {
        self.is_last |= stop.cause.is_of_the_job();
        if self.ending.is_some() {
            return;
        }
        // With `all`, a job whose leader has ended still runs: there a stop is a stop.
        let ended_by_itself = match self.phase {
            Phase::Running { .. } | Phase::Paused { .. } => {
                self.exit.is_some() && self.plan.wait_for == WaitFor::Leader
            }
            // A program that has not been executed cannot have ended.
            Phase::Starting => false,
            Phase::Terminating { .. } | Phase::Killing | Phase::Draining { .. } | Phase::Ended => {
                true
            }
        };
        self.ending = Some(Ending {
            cause: (!ended_by_itself).then_some(stop.cause),
            requested_by: stop.requested_by.clone(),
            reason: stop.reason.clone(),
        });
    }

    /// May a signal be sent to the job's processes now?
    pub fn may_signal(&self) -> Verdict {
        match self.phase {
            Phase::Starting => Verdict::Refuse(Refusal::NotStarted),
            Phase::Running { .. }
            | Phase::Paused { .. }
            | Phase::Terminating { .. }
            | Phase::Killing => Verdict::Do(None),
            Phase::Draining { .. } | Phase::Ended => Verdict::Refuse(Refusal::Finished),
        }
    }

    /// Stops the timeout's clock. The monitor stops the processes.
    pub fn pause(&mut self, now: Now) -> Verdict {
        match self.phase {
            Phase::Starting => Verdict::Refuse(Refusal::NotStarted),
            Phase::Running { timeout_at } => {
                self.paused_at = Some(now.boot);
                self.phase = Phase::Paused {
                    timeout_left: timeout_at.map(|at| at.remaining(now.boot)),
                };
                Verdict::Do(None)
            }
            Phase::Paused { .. } => Verdict::Already,
            Phase::Terminating { .. } | Phase::Killing => Verdict::Refuse(Refusal::Stopping),
            Phase::Draining { .. } | Phase::Ended => Verdict::Refuse(Refusal::Finished),
        }
    }

    /// Lets the timeout's clock continue. The monitor wakes the processes.
    pub fn resume(&mut self, now: Now) -> Verdict {
        match self.phase {
            Phase::Starting => Verdict::Refuse(Refusal::NotStarted),
            Phase::Paused { timeout_left } => {
                let pause = self
                    .paused_at
                    .take()
                    .map_or(Duration::ZERO, |at| now.boot.remaining(at));
                self.counts_from = self.counts_from.map(|from| from.after(pause));
                self.phase = Phase::Running {
                    timeout_at: timeout_left.map(|left| now.boot.after(left)),
                };
                Verdict::Do(None)
            }
            Phase::Running { .. } => Verdict::Already,
            Phase::Terminating { .. } | Phase::Killing => Verdict::Refuse(Refusal::Stopping),
            Phase::Draining { .. } | Phase::Ended => Verdict::Refuse(Refusal::Finished),
        }
    }

    /// Changes how long the job may run, and how a stop goes. The time that it has run counts, so that a
    /// shorter timeout may have passed already.
    pub fn amend(&mut self, timeout: Option<Duration>, stop: StopPolicy, now: Now) -> Verdict {
        match &mut self.phase {
            Phase::Starting => {}
            Phase::Running { timeout_at } => {
                let from = self.counts_from.unwrap_or(now.boot);
                *timeout_at = timeout.map(|timeout| from.after(timeout));
            }
            Phase::Paused { timeout_left } => {
                let paused_at = self.paused_at.unwrap_or(now.boot);
                let ran = paused_at.remaining(self.counts_from.unwrap_or(paused_at));
                *timeout_left = timeout.map(|timeout| timeout.saturating_sub(ran));
            }
            Phase::Terminating { .. } | Phase::Killing => {
                return Verdict::Refuse(Refusal::Stopping);
            }
            Phase::Draining { .. } | Phase::Ended => return Verdict::Refuse(Refusal::Finished),
        }
        if timeout != self.plan.timeout {
            // Of another moment, it is told again.
            self.has_warned = false;
        }
        self.plan.timeout = timeout;
        self.plan.stop = stop;
        Verdict::Do(None)
    }
}
