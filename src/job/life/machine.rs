//! The terms of a life: what it is planned to be, where it is, what happens to it, what is asked of it, and
//! what is answered.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Signal;
use crate::outcome::{Cause, Exit, SpawnFailure};
use crate::spec::{OutputPolicy, Scope, Spec, StopPolicy, TimeoutWarning, WaitFor};
use crate::time::BootInstant;

/// The part of a spec that matters for as long as the job lives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// How a stop goes.
    pub stop: StopPolicy,
    /// When the job counts as over.
    pub wait_for: WaitFor,
    /// How long it may run.
    pub timeout: Option<Duration>,
    /// What it hears before that.
    #[serde(default)]
    pub warning: Option<TimeoutWarning>,
    /// What is kept of the output.
    pub output: OutputPolicy,
}

impl From<&Spec> for Plan {
    fn from(spec: &Spec) -> Self {
        Self {
            stop: spec.stop,
            wait_for: spec.wait_for,
            timeout: spec.timeout,
            warning: spec.timeout_warning,
            output: spec.output,
        }
    }
}

/// Where an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The leader has been forked and has not executed the program yet.
    Starting,
    /// The program runs; its timeout, if any, strikes at `timeout_at`.
    Running {
        /// When the timeout strikes.
        timeout_at: Option<BootInstant>,
    },
    /// Every process is stopped, and the timeout's clock with it.
    Paused {
        /// What is left of the timeout.
        timeout_left: Option<Duration>,
    },
    /// The polite signal is out; the kill follows at `kill_at`.
    Terminating {
        /// When the grace period ends.
        kill_at: BootInstant,
    },
    /// Every process gets SIGKILL, again and again, until none is left.
    Killing,
    /// No process is left; the rest of the output is awaited until `give_up_at`.
    Draining {
        /// When the rest is given up.
        give_up_at: BootInstant,
    },
    /// Over.
    Ended,
}

/// The first reason for which the end was asked. A later one changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// Why; `None` if the request came after the leader had ended by itself.
    pub cause: Option<Cause>,
    /// Who.
    pub requested_by: Option<String>,
    /// In whose words.
    pub reason: Option<String>,
}

/// What a client, a timer or a shutdown wants when it wants the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// Why.
    pub cause: Cause,
    /// Who.
    pub requested_by: Option<String>,
    /// In whose words.
    pub reason: Option<String>,
    /// Instead of the plan's signal.
    pub signal: Option<Signal>,
    /// Instead of the plan's grace period.
    pub grace: Option<Duration>,
    /// No polite signal: kill at once.
    pub force: bool,
}

impl Stop {
    /// A stop for `cause` by the plan's own rules.
    #[must_use]
    pub fn for_cause(cause: Cause) -> Self {
        Self {
            cause,
            requested_by: None,
            reason: None,
            signal: None,
            grace: None,
            force: false,
        }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The program was executed.
    Started,
    /// It could not be executed.
    SpawnFailed(SpawnFailure),
    /// The leader ended like this.
    LeaderExited(Exit),
    /// The leader is gone, and so many other processes of the job are still there.
    LeftBehind(u32),
    /// No process of the job is left (waitpid(2) says `ECHILD`).
    Emptied,
    /// No more output can come.
    OutputClosed,
    /// The output limit was reached and the policy says stop.
    OutputLimitReached,
    /// Time passed.
    Tick,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The timeout is near: send this signal, if there is one, to the processes in scope.
    Warn {
        /// What to send.
        signal: Option<Signal>,
        /// To whom.
        scope: Scope,
    },
    /// Send this signal to the processes in scope, then SIGCONT to those of them that are stopped.
    Terminate {
        /// What to send.
        signal: Signal,
        /// To whom.
        scope: Scope,
    },
    /// Send this signal to every process that [`Effect::Terminate`] did not reach.
    TerminateRest {
        /// What to send.
        signal: Signal,
        /// Whom it did reach.
        reached: Scope,
    },
    /// Begin to kill every process; continue until the set is empty.
    Kill,
    /// The attempt is over.
    Finish,
}

/// The answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// It is granted, with what is to be done for it.
    Do(Option<Effect>),
    /// What it asks for is so already.
    Already,
    /// It cannot be granted in this phase.
    Refuse(Refusal),
}

/// Why a request is refused: right request, wrong phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The program has not been executed yet.
    #[error("the job has not started")]
    NotStarted,
    /// A stop is under way.
    #[error("the job is stopping")]
    Stopping,
    /// No process is left that could be meant.
    #[error("the job has finished")]
    Finished,
}
