//! What a job waits for before it may start: the ends of other jobs. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::batch::{End, On};
use crate::{Job, JobId, State};

/// Whose end is waited for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Awaited {
    /// All jobs of this key in this batch.
    Group {
        /// The batch.
        batch: JobId,
        /// The key.
        key: String,
    },
    /// A batch.
    Batch {
        /// Its id.
        batch: JobId,
    },
    /// A job.
    Job {
        /// Its id.
        job: JobId,
    },
}

/// One thing that a job waits for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Dependency {
    /// Whose end.
    #[serde(flatten)]
    pub awaited: Awaited,
    /// Which end.
    pub on: On,
}

impl End {
    /// The end that this state is, if it is one.
    #[must_use]
    pub fn of(state: State) -> Option<Self> {
        match state {
            State::Queued | State::Starting | State::Running | State::Paused | State::Stopping => {
                None
            }
            State::Succeeded => Some(Self::Succeeded),
            State::Failed | State::TimedOut | State::Lost => Some(Self::Failed),
            State::Canceled => Some(Self::Canceled),
        }
    }
}

/// Who has ended and how, in words for those that waited for another end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Who.
    pub who: String,
    /// How.
    pub state: State,
}

impl Ended {
    /// A job, in the state that it is in or would be in.
    #[must_use]
    pub fn job(job: &Job, state: State) -> Self {
        let who = named(job.id, job.name.as_deref());
        Self { who, state }
    }
}

/// A job by its id and its name, if it has one.
#[must_use]
pub fn named(id: JobId, name: Option<&str>) -> String {
    match name {
        Some(name) => format!("job {id} ({name})"),
        None => format!("job {id}"),
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self.state {
            State::Succeeded => "succeeded",
            State::Failed => "failed",
            State::Canceled => "was canceled",
            State::TimedOut => "timed out",
            State::Lost => "was lost",
            State::Queued | State::Starting | State::Running | State::Paused | State::Stopping => {
                "has not ended"
            }
        };
        write!(f, "{} {how}", self.who)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_comes_back_as_it_was_written() {
        let id = JobId::generate();
        for (awaited, text) in [
            (
                Awaited::Job { job: id },
                format!(r#"{{"job":"{id}","on":"failed"}}"#),
            ),
            (
                Awaited::Batch { batch: id },
                format!(r#"{{"batch":"{id}","on":"failed"}}"#),
            ),
            (
                Awaited::Group {
                    batch: id,
                    key: "k".to_owned(),
                },
                format!(r#"{{"batch":"{id}","key":"k","on":"failed"}}"#),
            ),
        ] {
            let on = On::Failed;
            let dependency = Dependency { awaited, on };
            assert_eq!(serde_json::to_string(&dependency).unwrap(), text);
            assert_eq!(
                serde_json::from_str::<Dependency>(&text).unwrap(),
                dependency
            );
        }
    }

    #[test]
    fn every_terminal_state_is_an_end() {
        for state in State::ALL {
            assert_eq!(End::of(state).is_some(), state.is_terminal(), "{state:?}");
        }
    }

    #[test]
    fn what_went_badly_by_itself_has_failed_and_what_was_stopped_has_not() {
        for (state, failed) in [
            (State::Succeeded, false),
            (State::Failed, true),
            (State::TimedOut, true),
            (State::Lost, true),
            (State::Canceled, false),
        ] {
            let end = End::of(state).unwrap();
            assert_eq!(On::Failed.holds(end), failed, "{state:?}");
            assert_eq!(On::Succeeded.holds(end), state == State::Succeeded);
            assert!(On::Finished.holds(end), "{state:?}");
        }
    }
}
