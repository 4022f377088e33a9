//! Whether a job that has ended badly is tried again, and when. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;
use crate::{Cause, ExitStatus};

/// The most attempts of a job.
pub const ATTEMPTS_MAX: u32 = 100;

/// What is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum On {
    /// An exit code that is no success.
    Exited,
    /// A signal that nobody here sent.
    Signaled,
    /// The kernel's out-of-memory killer.
    OomKilled,
    /// The timeout of the attempt.
    Timeout,
    /// The program could not be executed.
    SpawnFailed,
    /// More output than allowed.
    OutputLimit,
    /// More in its workspace than allowed.
    WorkspaceLimit,
    /// It was not ready in time.
    NotReady,
    /// The end was not seen: the monitor died.
    MonitorLost,
    /// The same, with the supervisor.
    SupervisorLost,
    /// The machine restarted.
    HostRebooted,
    /// The service took its jobs with it.
    Shutdown,
}

impl On {
    /// Every kind, with its word in the API.
    pub const WORDS: [(&'static str, Self); 12] = [
        ("exited", Self::Exited),
        ("signaled", Self::Signaled),
        ("oom_killed", Self::OomKilled),
        ("timeout", Self::Timeout),
        ("spawn_failed", Self::SpawnFailed),
        ("output_limit", Self::OutputLimit),
        ("workspace_limit", Self::WorkspaceLimit),
        ("not_ready", Self::NotReady),
        ("monitor_lost", Self::MonitorLost),
        ("supervisor_lost", Self::SupervisorLost),
        ("host_rebooted", Self::HostRebooted),
        ("shutdown", Self::Shutdown),
    ];

    /// What is tried again by default.
    pub const DEFAULT: [Self; 4] = [Self::Exited, Self::Signaled, Self::OomKilled, Self::Timeout];

    /// The kind of an end; `None` for one that is never tried again.
    #[must_use]
    pub fn of(cause: Cause) -> Option<Self> {
        Some(match cause {
            Cause::Exited => Self::Exited,
            Cause::Signaled => Self::Signaled,
            Cause::OomKilled => Self::OomKilled,
            Cause::Timeout => Self::Timeout,
            Cause::SpawnFailed => Self::SpawnFailed,
            Cause::OutputLimit => Self::OutputLimit,
            Cause::WorkspaceLimit => Self::WorkspaceLimit,
            Cause::NotReady => Self::NotReady,
            Cause::MonitorLost => Self::MonitorLost,
            Cause::SupervisorLost => Self::SupervisorLost,
            Cause::HostRebooted => Self::HostRebooted,
            Cause::Shutdown => Self::Shutdown,
            Cause::Canceled
            | Cause::Superseded
            | Cause::DependencyFailed
            | Cause::StartDeadline
            // It may still run where nobody hears it.
            | Cause::NodeLost => return None,
        })
    }
}

/// Exit codes from the first to the last; in JSON one number, or both in an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "CodesText", into = "CodesText")]
pub struct Codes {
    /// The least of them.
    pub first: u8,
    /// The greatest of them.
    pub last: u8,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum CodesText {
    One(u8),
    Range(u8, u8),
}

impl From<CodesText> for Codes {
    fn from(text: CodesText) -> Self {
        let (first, last) = match text {
            CodesText::One(code) => (code, code),
            CodesText::Range(first, last) => (first, last),
        };
        Self { first, last }
    }
}

impl From<Codes> for CodesText {
    fn from(codes: Codes) -> Self {
        if codes.first == codes.last {
            Self::One(codes.first)
        } else {
            Self::Range(codes.first, codes.last)
        }
    }
}

impl Codes {
    fn contain(self, code: u8) -> bool {
        (self.first..=self.last).contains(&code)
    }
}

/// How long the pauses between attempts are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Backoff {
    /// The first pause.
    #[serde(rename = "initial_seconds", with = "crate::seconds")]
    pub initial: Duration,
    /// By what each grows over the one before.
    pub factor: f64,
    /// The longest.
    #[serde(rename = "max_seconds", with = "crate::seconds")]
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            initial: Duration::from_secs(1),
            factor: 2.0,
            max: Duration::from_secs(300),
        }
    }
}

impl Backoff {
    /// The pause after so many attempts, less up to half of it. `jitter` is random, from 0 to 1, and keeps those
    /// that failed together from coming back together.
    #[must_use]
    pub fn pause(self, attempts: u32, jitter: f64) -> Duration {
        let exponent = i32::try_from(attempts.saturating_sub(1)).unwrap_or(i32::MAX);
        let grown = self.initial.as_secs_f64() * self.factor.max(1.0).powi(exponent);
        let pause = grown.min(self.max.as_secs_f64());
        Duration::from_secs_f64(pause * (0.5 + jitter.clamp(0.0, 1.0) / 2.0))
    }
}

/// How often and why a job is tried again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Retry {
    /// The most attempts, the first included; 1 tries nothing again.
    pub max_attempts: u32,
    /// Which ends.
    pub on: Vec<On>,
    /// Of the exit codes only these; all if there is nothing.
    pub exit_codes: Option<Vec<Codes>>,
    /// Never these.
    pub never_exit_codes: Vec<Codes>,
    /// The pauses.
    pub backoff: Backoff,
    /// No attempt begins later than so long after the start of the first.
    #[serde(rename = "within_seconds", with = "crate::seconds::optional")]
    pub within: Option<Duration>,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            max_attempts: 1,
            on: On::DEFAULT.to_vec(),
            exit_codes: None,
            never_exit_codes: Vec::new(),
            backoff: Backoff::default(),
            within: None,
        }
    }
}

/// An attempt that has ended without success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Why it is over.
    pub cause: Cause,
    /// How its leader ended, if that was seen.
    pub status: Option<ExitStatus>,
    /// Its number; the first is 1.
    pub attempt: u32,
    /// When the first attempt started, if any has.
    pub first_started_at: Option<Timestamp>,
}

/// What comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Another attempt, not before this moment.
    Again(Timestamp),
    /// That was the last.
    Over,
}

impl Retry {
    /// Decides at the end of an attempt that failed; a success is not asked about. `jitter` is random, from 0 to 1.
    #[must_use]
    pub fn decide(&self, failure: Failure, now: Timestamp, jitter: f64) -> Decision {
        if failure.attempt >= self.max_attempts || !self.covers(failure) {
            return Decision::Over;
        }
        let at = now.after(self.backoff.pause(failure.attempt, jitter));
        let first = failure.first_started_at;
        match (self.within, first) {
            (Some(within), Some(first)) if at > first.after(within) => Decision::Over,
            (Some(_) | None, Some(_) | None) => Decision::Again(at),
        }
    }

    fn covers(&self, failure: Failure) -> bool {
        if !On::of(failure.cause).is_some_and(|it| self.on.contains(&it)) {
            return false;
        }
        let code = match (failure.cause, failure.status) {
            (Cause::Exited, Some(ExitStatus::Code(code))) => code,
            _ => return true,
        };
        let listed = |codes: &[Codes]| codes.iter().any(|it| it.contain(code));
        !listed(&self.never_exit_codes) && self.exit_codes.as_deref().is_none_or(listed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

    fn exited(code: u8, attempt: u32) -> Failure {
        Failure {
            cause: Cause::Exited,
            status: Some(ExitStatus::Code(code)),
            attempt,
            first_started_at: Some(NOW),
        }
    }

    fn codes(first: u8, last: u8) -> Codes {
        Codes { first, last }
    }

    #[test]
    fn it_is_tried_so_often_and_no_more() {
        let retry = Retry {
            max_attempts: 3,
            ..Retry::default()
        };
        let pauses = [1, 2].map(|it| retry.decide(exited(1, it), NOW, 1.0));
        let again = |seconds| Decision::Again(NOW.after(Duration::from_secs(seconds)));
        assert_eq!(pauses, [again(1), again(2)]);
        assert_eq!(retry.decide(exited(1, 3), NOW, 1.0), Decision::Over);
        let never = Retry::default();
        assert_eq!(never.decide(exited(1, 1), NOW, 1.0), Decision::Over);
    }

    #[test]
    fn only_what_is_named_is_tried_again() {
        let retry = Retry {
            max_attempts: 9,
            exit_codes: Some(vec![codes(75, 75), codes(100, 110)]),
            never_exit_codes: vec![codes(105, 105)],
            ..Retry::default()
        };
        let again = |code| retry.decide(exited(code, 1), NOW, 0.0) != Decision::Over;
        let tried: Vec<u8> = (0..=255).filter(|it| again(*it)).collect();
        let expected = [75].into_iter().chain(100..=104).chain(106..=110);
        assert!(tried.into_iter().eq(expected));
        for (cause, is_tried) in [
            (Cause::Signaled, true),
            (Cause::OomKilled, true),
            (Cause::Timeout, true),
            (Cause::SpawnFailed, false),
            (Cause::OutputLimit, false),
            (Cause::MonitorLost, false),
            (Cause::SupervisorLost, false),
            (Cause::HostRebooted, false),
            (Cause::Shutdown, false),
            (Cause::Canceled, false),
            (Cause::Superseded, false),
            (Cause::DependencyFailed, false),
            (Cause::StartDeadline, false),
            (Cause::NodeLost, false),
        ] {
            let failure = Failure {
                cause,
                status: None,
                ..exited(0, 1)
            };
            let decision = retry.decide(failure, NOW, 0.0);
            assert_eq!(decision != Decision::Over, is_tried, "{cause:?}");
        }
    }

    #[test]
    fn no_attempt_begins_after_the_window() {
        let retry = Retry {
            max_attempts: 9,
            within: Some(Duration::from_secs(10)),
            ..Retry::default()
        };
        let later = |seconds| NOW.after(Duration::from_secs(seconds));
        let decide = |now, attempt| retry.decide(exited(1, attempt), now, 1.0);
        assert_eq!(decide(later(8), 2), Decision::Again(later(10)));
        assert_eq!(decide(later(9), 2), Decision::Over);
        let unstarted = Failure {
            cause: Cause::Exited,
            first_started_at: None,
            ..exited(1, 2)
        };
        assert_ne!(retry.decide(unstarted, later(99), 1.0), Decision::Over);
    }

    #[test]
    fn it_is_written_as_the_api_has_it() {
        let retry = Retry {
            exit_codes: Some(vec![codes(75, 75), codes(100, 110)]),
            ..Retry::default()
        };
        let json = serde_json::to_value(&retry).unwrap();
        let expected = serde_json::json!({
            "max_attempts": 1, "on": ["exited", "signaled", "oom_killed", "timeout"],
            "exit_codes": [75, [100, 110]], "never_exit_codes": [],
            "backoff": {"initial_seconds": 1, "factor": 2.0, "max_seconds": 300}, "within_seconds": null,
        });
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_value::<Retry>(json).unwrap(), retry);
        for (word, on) in On::WORDS {
            assert_eq!(serde_json::to_value(on).unwrap(), word);
        }
    }

    proptest! {
        #[test]
        fn pauses_keep_their_bounds(
            initial in 0_u64..86_400, factor in 1.0..10.0, more in 0_u64..86_400,
            attempts in 1_u32..=ATTEMPTS_MAX, jitter in 0.0..=1.0,
        ) {
            let (initial, max) = (Duration::from_secs(initial), Duration::from_secs(initial + more));
            let backoff = Backoff { initial, factor, max };
            let pause = backoff.pause(attempts, jitter);
            prop_assert!(pause >= initial / 2 && pause <= max, "{pause:?}");
            prop_assert!(backoff.pause(attempts + 1, jitter) >= pause);
        }
    }
}
