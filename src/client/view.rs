//! A job as client commands read it, and the exit code that it gives them.
//!
//! Unknown fields and words are skipped: the service may be newer.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::failure::{Failure, OURS};
use super::text;
use job::time::Timestamp;

/// The exit code for a job that its timeout ended, as of timeout(1).
pub(super) const TIMED_OUT: u8 = 124;
/// A program that cannot be executed, and one that does not exist, as shells and `docker run` say it.
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;
/// A signal is this plus its number.
const SIGNALED: u8 = 128;

/// What the service says about a job.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Job {
    pub(super) id: String,
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    pub(super) state: String,
    pub(super) state_reason: Option<String>,
    pub(super) state_message: Option<String>,
    pub(super) created_by: Option<String>,
    pub(super) created_at: Timestamp,
    pub(super) started_at: Option<Timestamp>,
    pub(super) finished_at: Option<Timestamp>,
    pub(super) deadline_at: Option<Timestamp>,
    pub(super) ready_at: Option<Timestamp>,
    pub(super) not_ready_at: Option<Timestamp>,
    pub(super) ready_message: Option<String>,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) process: Option<Process>,
    #[serde(default)]
    pub(super) attempt: u32,
    #[serde(default)]
    pub(super) attempts: Vec<Attempt>,
    pub(super) exit: Option<Exit>,
    pub(super) termination: Option<Termination>,
    pub(super) spawn_failure: Option<SpawnFailure>,
    pub(super) usage: Option<Usage>,
    #[serde(default)]
    pub(super) output: Output,
    #[serde(default)]
    pub(super) spec: Spec,
    /// What a list without specs has instead.
    command: Option<String>,
    max_attempts: Option<u32>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Process {
    pub(super) pid: i32,
    pub(super) containment: Option<String>,
}

/// An attempt that has ended.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Attempt {
    pub(super) number: u32,
    pub(super) message: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Exit {
    pub(super) code: Option<u8>,
    pub(super) signal: Option<String>,
    pub(super) signal_number: Option<u8>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Termination {
    pub(super) cause: String,
    pub(super) requested_by: Option<String>,
    pub(super) reason: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct SpawnFailure {
    #[serde(default)]
    pub(super) stage: String,
    #[serde(default)]
    pub(super) errno: i32,
    #[serde(default)]
    pub(super) message: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Usage {
    pub(super) user_cpu_seconds: f64,
    pub(super) system_cpu_seconds: f64,
    pub(super) max_rss_bytes: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Output {
    #[serde(default)]
    pub(super) stdout_bytes: u64,
    #[serde(default)]
    pub(super) stderr_bytes: u64,
    #[serde(default)]
    pub(super) dropped_bytes: u64,
}

/// As much of a spec as is shown.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Spec {
    pub(super) command: Option<Vec<String>>,
    pub(super) script: Option<String>,
    pub(super) cwd: Option<String>,
    pub(super) queue: Option<String>,
    pub(super) retry: Option<Retry>,
}

/// As much of it as is shown.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Retry {
    pub(super) max_attempts: u32,
}

impl Job {
    /// Reads an answer.
    pub(super) fn read(value: &serde_json::Value) -> Result<Self, Failure> {
        Self::deserialize(value).map_err(|error| Failure::NotUnderstood(error.to_string()))
    }

    /// A terminal state never changes. An unknown state is taken for a live one.
    pub(super) fn has_ended(&self) -> bool {
        is_terminal(&self.state)
    }

    /// Which attempt of how many this is, such as `2/3`, if it may be tried again.
    pub(super) fn attempt_of(&self) -> Option<String> {
        let retry = self.spec.retry.as_ref().map(|retry| retry.max_attempts);
        let most = retry.or(self.max_attempts)?;
        (most > 1).then(|| format!("{}/{most}", self.attempt))
    }

    /// What is run, on one line.
    pub(super) fn program(&self) -> String {
        match (&self.spec.command, &self.spec.script) {
            (Some(command), _) => text::command_line(command.iter().map(String::as_str)),
            (None, Some(script)) => script.split_whitespace().collect::<Vec<_>>().join(" "),
            (None, None) => self.command.clone().unwrap_or_default(),
        }
    }

    /// The exit code of a command that stands for the job; only if it has ended.
    pub(super) fn exit_code(&self) -> u8 {
        if self.state == "timed_out" {
            return TIMED_OUT;
        }
        if let Some(failure) = &self.spawn_failure {
            return if failure.stage == "exec" && failure.errno == nix::libc::ENOENT {
                NOT_FOUND
            } else {
                NOT_EXECUTABLE
            };
        }
        self.exit.as_ref().and_then(Exit::as_code).unwrap_or(OURS)
    }

    /// Why the job is over, if its own exit does not say everything.
    pub(super) fn remark(&self) -> Option<String> {
        let cause = self.termination.as_ref().map(|end| end.cause.as_str());
        if let Some(failure) = &self.spawn_failure {
            return Some(match self.state_message.as_deref() {
                Some(message) => message.to_owned(),
                None => format!("cannot start ({}): {}", failure.stage, failure.message),
            });
        }
        if self.state == "succeeded" || matches!(cause, Some("exited" | "signaled")) {
            return None;
        }
        let mut remark = match cause {
            Some("timeout") => "the job was stopped by its timeout".to_owned(),
            Some("canceled") => "the job was stopped".to_owned(),
            Some("superseded") => "the job made room for a newer one with its key".to_owned(),
            Some("oom_killed") => "the job ran out of memory".to_owned(),
            Some("workspace_limit") => "the job put too much into its workspace".to_owned(),
            Some("not_ready") => "the job was stopped since it was not ready in time".to_owned(),
            Some("output_limit") => "the job was stopped at its output limit".to_owned(),
            Some(other) => format!("the job is {}: {}", self.state, other.replace('_', " ")),
            None => format!("the job is {}", self.state),
        };
        if let Some(end) = &self.termination {
            for (word, text) in [(" by ", &end.requested_by), (": ", &end.reason)] {
                if let Some(text) = text {
                    remark.push_str(word);
                    remark.push_str(text);
                }
            }
        }
        Some(remark)
    }
}

impl Exit {
    /// As a shell tells it.
    pub(super) fn as_code(&self) -> Option<u8> {
        let signaled = self
            .signal_number
            .map(|number| SIGNALED.saturating_add(number));
        self.code.or(signaled)
    }
}

/// Is this the word of a state that never changes?
pub(super) fn is_terminal(state: &str) -> bool {
    matches!(
        state,
        "succeeded" | "failed" | "canceled" | "timed_out" | "lost"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use job::State;

    fn job(fields: Value) -> Job {
        let mut job = json!({"id": "i", "name": null, "state": "failed", "created_at": "2026-01-31T12:00:00Z"});
        let fields = fields.as_object().unwrap().clone();
        job.as_object_mut().unwrap().extend(fields);
        Job::read(&job).unwrap()
    }

    #[test]
    fn a_job_ends_a_command_as_shells_tell_it() {
        let code = |fields| job(fields).exit_code();
        assert_eq!(code(json!({"state": "succeeded", "exit": {"code": 0}})), 0);
        assert_eq!(
            code(json!({"exit": {"code": 7, "signal": null, "signal_number": null}})),
            7
        );
        assert_eq!(
            code(json!({"exit": {"code": null, "signal": "SIGKILL", "signal_number": 9}})),
            137
        );
        assert_eq!(
            code(json!({"state": "timed_out", "exit": {"code": 0}})),
            124
        );
        assert_eq!(
            code(json!({"spawn_failure": {"stage": "exec", "errno": 2, "message": ""}})),
            127
        );
        assert_eq!(
            code(json!({"spawn_failure": {"stage": "exec", "errno": 13, "message": ""}})),
            126
        );
        assert_eq!(
            code(json!({"spawn_failure": {"stage": "cwd", "errno": 2, "message": ""}})),
            126
        );
        assert_eq!(code(json!({"state": "lost", "exit": null})), 125);
        assert_eq!(code(json!({"state": "canceled", "exit": null})), 125);
    }

    #[test]
    fn only_an_end_that_needs_words_has_a_remark() {
        assert_eq!(
            job(json!({"termination": {"cause": "exited"}})).remark(),
            None
        );
        let stopped = json!({"state": "canceled",
            "termination": {"cause": "canceled", "requested_by": "token:ci", "reason": "superseded"}});
        assert_eq!(
            job(stopped).remark().as_deref(),
            Some("the job was stopped by token:ci: superseded")
        );
        let lost = json!({"state": "lost", "termination": {"cause": "host_rebooted"}});
        assert_eq!(
            job(lost).remark().as_deref(),
            Some("the job is lost: host rebooted")
        );
    }

    #[test]
    fn the_terminal_states_are_those_of_the_service() {
        for state in State::ALL {
            assert_eq!(
                is_terminal(state.as_str()),
                state.is_terminal(),
                "{state:?}"
            );
        }
        assert!(!is_terminal("a_state_of_the_future"));
    }
}
