//! The life of one attempt as a pure state machine: what happened or was asked goes in, what to do comes out.
//!
//! The monitor owns the only live copy, keeps it in the job's record after each change and carries out
//! the effects. Three facts that look like one are told apart: the leader has exited, the process set is
//! empty, the output is closed. They may come in any order, and the end needs the last two.

mod machine;
mod requests;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::outcome::{Cause, Exit, ExitStatus, SentSignal, SpawnFailure, Termination};
use crate::spec::{Scope, WaitFor};
use crate::time::{BootInstant, Now, Timestamp};
use crate::{Signal, State};
pub use machine::{Effect, Ending, Event, Phase, Plan, Refusal, Stop, Verdict};

/// How long the end of the output is waited for once no process is left: somebody outside the job may
/// hold the pipe for ever.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// The most stop signals that are remembered one by one.
const SIGNALS_KEPT: usize = 16;

/// One attempt from fork to end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Life {
    plan: Plan,
    phase: Phase,
    /// From when the timeout counts: the start, moved by every pause.
    #[serde(default)]
    counts_from: Option<BootInstant>,
    /// Since when the present pause lasts.
    #[serde(default)]
    paused_at: Option<BootInstant>,
    /// The timeout that is set now has been warned of.
    #[serde(default)]
    has_warned: bool,
    /// When it was warned last.
    #[serde(default)]
    warned_at: Option<Timestamp>,
    started_at: Option<Timestamp>,
    exit: Option<Exit>,
    spawn_failure: Option<SpawnFailure>,
    ending: Option<Ending>,
    /// Whatever ends this attempt, somebody has asked for the end of the job.
    #[serde(default)]
    is_last: bool,
    signals_sent: Vec<SentSignal>,
    escalated: bool,
    killed_leftovers: u32,
    empty: bool,
    output_closed: bool,
    ended_at: Option<Timestamp>,
}

impl Life {
    /// A life about to begin.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        Self {
            plan,
            phase: Phase::Starting,
            counts_from: None,
            paused_at: None,
            has_warned: false,
            warned_at: None,
            started_at: None,
            exit: None,
            spawn_failure: None,
            ending: None,
            is_last: false,
            signals_sent: Vec::new(),
            escalated: false,
            killed_leftovers: 0,
            empty: false,
            output_closed: false,
            ended_at: None,
        }
    }

    /// Takes in what happened. Late and repeated events are normal (a timer races an exit) and change nothing.
    #[must_use]
    pub fn on(&mut self, event: Event, now: Now) -> Option<Effect> {
        match event {
            Event::Started => self.on_started(now),
            Event::SpawnFailed(failure) => self.on_spawn_failed(failure, now),
            Event::LeaderExited(exit) => self.on_leader_exited(exit),
            Event::LeftBehind(remaining) => self.on_left_behind(remaining, now),
            Event::Emptied => self.on_emptied(now),
            Event::OutputClosed => self.on_output_closed(now),
            Event::OutputLimitReached => {
                match self.stop(Stop::for_cause(Cause::OutputLimit), now) {
                    Verdict::Do(effect) => effect,
                    Verdict::Already | Verdict::Refuse(_) => None,
                }
            }
            Event::Tick => self.on_tick(now),
        }
    }

    fn on_started(&mut self, now: Now) -> Option<Effect> {
        match self.phase {
            Phase::Starting => {
                self.started_at = Some(now.wall);
                self.counts_from = Some(now.boot);
                self.phase = Phase::Running {
                    timeout_at: self.plan.timeout.map(|timeout| now.boot.after(timeout)),
                };
                None
            }
            Phase::Running { .. }
            | Phase::Paused { .. }
            | Phase::Terminating { .. }
            | Phase::Killing
            | Phase::Draining { .. }
            | Phase::Ended => None,
        }
    }

    fn on_spawn_failed(&mut self, failure: SpawnFailure, now: Now) -> Option<Effect> {
        match self.phase {
            // `Killing` where a stop came before the program could be executed.
            Phase::Starting | Phase::Killing
                if self.started_at.is_none() && self.exit.is_none() =>
            {
                self.spawn_failure = Some(failure);
                self.finish(now)
            }
            Phase::Starting
            | Phase::Running { .. }
            | Phase::Paused { .. }
            | Phase::Terminating { .. }
            | Phase::Killing
            | Phase::Draining { .. }
            | Phase::Ended => None,
        }
    }

    fn on_leader_exited(&mut self, exit: Exit) -> Option<Effect> {
        match self.phase {
            Phase::Starting
            | Phase::Running { .. }
            | Phase::Paused { .. }
            | Phase::Terminating { .. }
            | Phase::Killing
            | Phase::Draining { .. } => {
                self.exit.get_or_insert(exit);
            }
            Phase::Ended => {}
        }
        None
    }

    fn on_left_behind(&mut self, remaining: u32, now: Now) -> Option<Effect> {
        // An exit that nobody could see is none that has not been: this is only told after the leader's end.
        if remaining == 0 || self.killed_leftovers > 0 {
            return None;
        }
        match self.phase {
            Phase::Running { .. } | Phase::Paused { .. } => match self.plan.wait_for {
                WaitFor::All => None,
                WaitFor::Leader => {
                    self.killed_leftovers = remaining;
                    self.begin_stop(self.plan.stop.signal, self.plan.stop.grace, Scope::All, now)
                }
            },
            Phase::Terminating { .. } => {
                self.killed_leftovers = remaining;
                Some(Effect::TerminateRest {
                    signal: self.plan.stop.signal,
                    reached: self.plan.stop.scope,
                })
            }
            Phase::Killing => {
                self.killed_leftovers = remaining;
                None
            }
            Phase::Starting | Phase::Draining { .. } | Phase::Ended => None,
        }
    }

    fn on_emptied(&mut self, now: Now) -> Option<Effect> {
        match self.phase {
            Phase::Starting | Phase::Draining { .. } | Phase::Ended => None,
            Phase::Running { .. }
            | Phase::Paused { .. }
            | Phase::Terminating { .. }
            | Phase::Killing => {
                self.empty = true;
                if self.output_closed {
                    self.finish(now)
                } else {
                    self.phase = Phase::Draining {
                        give_up_at: now.boot.after(DRAIN_LIMIT),
                    };
                    None
                }
            }
        }
    }

    fn on_output_closed(&mut self, now: Now) -> Option<Effect> {
        match self.phase {
            Phase::Ended => None,
            Phase::Draining { .. } => {
                self.output_closed = true;
                self.finish(now)
            }
            Phase::Starting
            | Phase::Running { .. }
            | Phase::Paused { .. }
            | Phase::Terminating { .. }
            | Phase::Killing => {
                self.output_closed = true;
                None
            }
        }
    }

    fn on_tick(&mut self, now: Now) -> Option<Effect> {
        if self.wake_at().is_none_or(|at| at > now.boot) {
            return None;
        }
        match self.phase {
            Phase::Running { timeout_at } if timeout_at.is_some_and(|at| at <= now.boot) => {
                match self.stop(Stop::for_cause(Cause::Timeout), now) {
                    Verdict::Do(effect) => effect,
                    Verdict::Already | Verdict::Refuse(_) => None,
                }
            }
            Phase::Running { .. } => self.warn(now),
            Phase::Terminating { .. } => {
                self.escalated = true;
                self.kill(now)
            }
            Phase::Draining { .. } => self.finish(now),
            Phase::Starting | Phase::Paused { .. } | Phase::Killing | Phase::Ended => None,
        }
    }

    fn warn(&mut self, now: Now) -> Option<Effect> {
        let warning = self.plan.warning?;
        self.has_warned = true;
        self.warned_at = Some(now.wall);
        Some(Effect::Warn {
            signal: warning.signal,
            scope: warning.scope,
        })
    }

    fn begin_stop(
        &mut self,
        signal: Signal,
        grace: Duration,
        scope: Scope,
        now: Now,
    ) -> Option<Effect> {
        if grace.is_zero() || (signal == Signal::KILL && scope == Scope::All) {
            return self.kill(now);
        }
        self.phase = Phase::Terminating {
            kill_at: now.boot.after(grace),
        };
        self.note_signal(signal, now);
        Some(Effect::Terminate { signal, scope })
    }

    fn kill(&mut self, now: Now) -> Option<Effect> {
        self.phase = Phase::Killing;
        self.note_signal(Signal::KILL, now);
        Some(Effect::Kill)
    }

    fn note_signal(&mut self, signal: Signal, now: Now) {
        if self.signals_sent.len() < SIGNALS_KEPT {
            self.signals_sent.push(SentSignal {
                signal,
                at: now.wall,
            });
        }
    }

    fn finish(&mut self, now: Now) -> Option<Effect> {
        self.phase = Phase::Ended;
        self.ended_at = Some(now.wall);
        Some(Effect::Finish)
    }

    /// When [`Event::Tick`] is due.
    #[must_use]
    pub fn wake_at(&self) -> Option<BootInstant> {
        match self.phase {
            Phase::Running { timeout_at } => self.warns_at().or(timeout_at),
            Phase::Terminating { kill_at } => Some(kill_at),
            Phase::Draining { give_up_at } => Some(give_up_at),
            Phase::Starting | Phase::Paused { .. } | Phase::Killing | Phase::Ended => None,
        }
    }

    /// When the warning of the timeout is due, before the timeout, as long as it is still to come.
    fn warns_at(&self) -> Option<BootInstant> {
        let warning = self.plan.warning.filter(|_| !self.has_warned)?;
        Some(self.timeout_at()?.before(warning.before))
    }

    /// When the timeout will strike, as long as it can.
    #[must_use]
    pub fn timeout_at(&self) -> Option<BootInstant> {
        match self.phase {
            Phase::Running { timeout_at } => timeout_at,
            Phase::Starting
            | Phase::Paused { .. }
            | Phase::Terminating { .. }
            | Phase::Killing
            | Phase::Draining { .. }
            | Phase::Ended => None,
        }
    }

    /// The state that clients see. The terminal one depends on the spec too: see [`State::of_ended`].
    #[must_use]
    pub fn state(&self, success_exit_codes: &[u8]) -> State {
        match self.phase {
            Phase::Starting => State::Starting,
            Phase::Running { .. } => State::Running,
            Phase::Paused { .. } => State::Paused,
            Phase::Terminating { .. } | Phase::Killing => State::Stopping,
            Phase::Draining { .. } if self.signals_sent.is_empty() => State::Running,
            Phase::Draining { .. } => State::Stopping,
            Phase::Ended => State::of_ended(self.cause(), self.exit.as_ref(), success_exit_codes),
        }
    }

    fn cause(&self) -> Cause {
        if self.spawn_failure.is_some() {
            return Cause::SpawnFailed;
        }
        if self.exit.is_none() && self.started_at.is_some() {
            // It has ended, and nobody saw how: whatever was asked of it, the end is not known.
            return Cause::MonitorLost;
        }
        if let Some(cause) = self.ending.as_ref().and_then(|ending| ending.cause) {
            return cause;
        }
        match self.exit {
            Some(Exit {
                status: ExitStatus::Code(_),
                ..
            }) => Cause::Exited,
            Some(Exit {
                status: ExitStatus::Signal { .. },
                oom_killed: Some(true),
                ..
            }) => Cause::OomKilled,
            Some(Exit {
                status: ExitStatus::Signal { .. },
                ..
            }) => Cause::Signaled,
            None => Cause::MonitorLost,
        }
    }

    /// How the attempt ended, once it has.
    #[must_use]
    pub fn termination(&self) -> Option<Termination> {
        self.ended_at?;
        Some(Termination {
            cause: self.cause(),
            requested_by: self
                .ending
                .as_ref()
                .and_then(|ending| ending.requested_by.clone()),
            reason: self
                .ending
                .as_ref()
                .and_then(|ending| ending.reason.clone()),
            signals_sent: self.signals_sent.clone(),
            escalated: self.escalated,
            killed_leftovers: self.killed_leftovers,
        })
    }

    /// Has somebody asked for the end of the job, and not only of this attempt? None follows then, whatever has ended this one.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.is_last
    }

    /// The plan it follows.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Where it is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// When the program was executed.
    #[must_use]
    pub fn started_at(&self) -> Option<Timestamp> {
        self.started_at
    }

    /// When it was warned last that its timeout is near.
    #[must_use]
    pub fn warned_at(&self) -> Option<Timestamp> {
        self.warned_at
    }

    /// When the attempt was over.
    #[must_use]
    pub fn ended_at(&self) -> Option<Timestamp> {
        self.ended_at
    }

    /// How the leader ended.
    #[must_use]
    pub fn exit(&self) -> Option<&Exit> {
        self.exit.as_ref()
    }

    /// Why the program never ran.
    #[must_use]
    pub fn spawn_failure(&self) -> Option<&SpawnFailure> {
        self.spawn_failure.as_ref()
    }
}

#[cfg(test)]
mod tests;
