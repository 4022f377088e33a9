//! The attempts of a job: what is kept of one that has ended, and how the next one begins. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::outcome::{Cause, Exit, OutputTotals, SpawnFailure, Termination, Usage};
use crate::retry::{Decision, Failure};
use crate::time::Timestamp;
use crate::{Claim, Job, NodeName, State};

/// An attempt that has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its number; the first is 1.
    pub number: u32,
    /// When its program was executed.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Timestamp,
    /// Why it ended.
    pub cause: Cause,
    /// How its leader ended.
    pub exit: Option<Exit>,
    /// Why its program never ran.
    pub spawn_failure: Option<SpawnFailure>,
    /// What it used.
    pub usage: Option<Usage>,
    /// The offset of its first byte in the job's output.
    pub first_offset: u64,
    /// The offset after its last byte.
    pub next_offset: u64,
    /// The grace period passed and it was killed.
    pub escalated: bool,
    /// Processes that outlived its leader and were stopped.
    pub killed_leftovers: u32,
    /// One sentence for people on how it ended.
    pub message: Option<String>,
    /// The node that it was lost with, and by which claim that had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_with: Option<Box<(NodeName, u32)>>,
    /// The node that would not run it, of one that began nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_by: Option<Box<NodeName>>,
}

impl Attempt {
    /// The node that it was lost with, or that would not run it.
    #[must_use]
    pub fn node(&self) -> Option<&NodeName> {
        let lost_with = self.lost_with.as_ref().map(|it| &it.0);
        lost_with.or(self.refused_by.as_deref())
    }
}

impl Job {
    /// When the program of the present attempt was executed. `started_at` is of the first one.
    #[must_use]
    pub fn attempt_started_at(&self) -> Option<Timestamp> {
        if self.attempts.is_empty() {
            return self.started_at;
        }
        self.process.as_ref().map(|process| process.started_at)
    }

    /// Where the output of the present attempt begins.
    #[must_use]
    pub fn attempt_offset(&self) -> u64 {
        self.attempts.last().map_or(0, |last| last.next_offset)
    }

    /// How long its programs have run, without the pauses between its attempts; nothing if none has.
    #[must_use]
    pub fn ran(&self) -> Option<Duration> {
        if self.attempts.is_empty() {
            return Some(self.finished_at?.since(self.started_at?));
        }
        let ran = self.attempts.iter().filter_map(|attempt| {
            let started = attempt.started_at?;
            Some(attempt.finished_at.since(started))
        });
        ran.reduce(|all, one| all + one)
    }

    /// What all its attempts have used, with this of the present one.
    #[must_use]
    pub fn usage_with(&self, present: Option<Usage>) -> Option<Usage> {
        let ended = self.attempts.iter().filter_map(|attempt| attempt.usage);
        ended.chain(present).reduce(Usage::and)
    }

    /// What is decided of a job that has just ended: whether it is tried again, and when. `jitter` is random, from 0
    /// to 1.
    #[must_use]
    pub fn retry_decision(&self, now: Timestamp, jitter: f64) -> Decision {
        let cause = self.termination.as_ref().map(|it| it.cause);
        match (&self.spec.retry, cause) {
            (Some(retry), Some(cause)) if self.state != State::Succeeded => {
                let failure = Failure {
                    cause,
                    status: self.exit.map(|exit| exit.status),
                    attempt: self.attempt,
                    first_started_at: self.started_at,
                };
                retry.decide(failure, now, jitter)
            }
            (Some(_) | None, Some(_) | None) => Decision::Over,
        }
    }

    /// Keeps the attempt that has just ended, if this job keeps its attempts; `usage` is what it has used.
    pub fn keep_attempt(&mut self, usage: Option<Usage>) {
        if self.spec.retry.is_none() && self.attempts.is_empty() {
            return;
        }
        let termination = self.termination.as_ref();
        let attempt = Attempt {
            number: self.attempt,
            started_at: self.attempt_started_at(),
            finished_at: self.finished_at.unwrap_or_default(),
            cause: termination.map_or(Cause::Exited, |it| it.cause),
            exit: self.exit,
            spawn_failure: self.spawn_failure.clone(),
            usage,
            first_offset: self.attempt_offset(),
            next_offset: self.output.next_offset.max(self.attempt_offset()),
            escalated: termination.is_some_and(|it| it.escalated),
            killed_leftovers: termination.map_or(0, |it| it.killed_leftovers),
            message: self.message.clone(),
            lost_with: None,
            refused_by: None,
        };
        self.attempts.push(attempt);
        self.usage = self.usage_with(None);
    }

    /// The number of the last claim that there was of it.
    #[must_use]
    pub fn last_fence(&self) -> u32 {
        let lost = self.attempts.iter().filter_map(|it| it.lost_with.as_ref());
        let present = self.claim.as_ref().map(|claim| claim.fence);
        lost.map(|it| it.1).chain(present).max().unwrap_or(0)
    }

    /// The node of a job that has just been given up for lost has this claim no more, and the job waits for another node.
    /// What the lost attempt has written stays on its node, and is a gap in the output of the job.
    pub fn leave_node(&mut self, claim: &Claim, at: Timestamp) {
        let lost = Attempt {
            number: self.attempt,
            started_at: self.attempt_started_at(),
            finished_at: at,
            cause: Cause::NodeLost,
            exit: None,
            spawn_failure: None,
            usage: None,
            first_offset: self.attempt_offset(),
            next_offset: self.output.next_offset.max(self.attempt_offset()),
            escalated: false,
            killed_leftovers: 0,
            message: self.message.clone(),
            lost_with: Some(Box::new((claim.node.clone(), claim.fence))),
            refused_by: None,
        };
        self.output.next_offset = lost.next_offset;
        self.output.first_offset = lost.next_offset;
        self.attempts.push(lost);
        self.claim = None;
        self.wait_again(at);
        self.message = Some(format!(
            "attempt {} was lost with node {}; it starts again elsewhere",
            self.attempt - 1,
            claim.node
        ));
    }

    /// A job whose attempt has ended and been kept waits for the next one, not before `at`.
    pub fn wait_again(&mut self, at: Timestamp) {
        let of = self.spec.retry.as_ref().map_or(0, |it| it.max_attempts);
        let how = self.attempts.last().and_then(|it| it.message.clone());
        self.message = Some(format!(
            "attempt {} of {of} has ended: {}; the next one begins at {at} or later",
            self.attempt,
            how.unwrap_or_default(),
        ));
        self.attempt += 1;
        self.state = State::Queued;
        self.next_attempt_at = Some(at);
        self.finished_at = None;
        self.expires_at = None;
        self.deadline_at = None;
        self.warned_at = None;
        self.ready_at = None;
        self.not_ready_at = None;
        self.ready_message = None;
        self.process = None;
        self.exit = None;
        self.termination = None;
        self.spawn_failure = None;
        self.survivors.clear();
        self.output.complete = false;
    }

    /// The same job as if the attempt that ended last had been the last one, and it ended `at`; nothing if there was none.
    #[must_use]
    pub fn as_ended_last(&self, at: Timestamp) -> Option<Self> {
        let last = self.attempts.last()?;
        let termination = Termination {
            escalated: last.escalated,
            killed_leftovers: last.killed_leftovers,
            ..Termination::unasked(last.cause)
        };
        Some(Self {
            attempt: last.number,
            state: State::of_ended(
                last.cause,
                last.exit.as_ref(),
                &self.spec.success_exit_codes,
            ),
            next_attempt_at: None,
            message: last.message.clone(),
            finished_at: Some(at),
            expires_at: Some(at.after(self.spec.ttl_after_finished)),
            exit: last.exit,
            spawn_failure: last.spawn_failure.clone(),
            termination: Some(termination),
            output: OutputTotals {
                complete: true,
                ..self.output
            },
            ..self.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::retry::Retry;
    use crate::{ExitStatus, JobId, Spec};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    /// A job of at most so many attempts whose first has just exited with 75 and written 10 bytes.
    fn ended(max_attempts: u32) -> Job {
        let retry = Retry {
            max_attempts,
            ..Retry::default()
        };
        let spec = Spec {
            retry: Some(retry),
            ..Spec::default()
        };
        let mut job = Job::accepted(
            JobId::from_bytes([1; 16]),
            "me".into(),
            Arc::new(spec),
            at(0),
        );
        job.state = State::Failed;
        job.started_at = Some(at(1));
        job.finished_at = Some(at(2));
        job.exit = Some(Exit {
            status: ExitStatus::Code(75),
            at: at(2),
            oom_killed: None,
        });
        job.termination = Some(Termination::unasked(Cause::Exited));
        job.message = Some("the program exited with code 75".into());
        job.output.next_offset = 10;
        job.output.complete = true;
        job
    }

    #[test]
    fn an_attempt_that_failed_is_kept_and_the_next_one_begins_where_its_output_ends() {
        let mut job = ended(3);
        assert!(matches!(job.retry_decision(at(2), 0.0), Decision::Again(_)));
        job.keep_attempt(None);
        job.wait_again(at(3));
        assert_eq!((job.state, job.attempt), (State::Queued, 2));
        assert_eq!(job.attempt_offset(), 10);
        assert_eq!(
            (job.started_at, job.attempt_started_at()),
            (Some(at(1)), None)
        );
        assert!(job.exit.is_none() && !job.output.complete);
        let last = job.as_ended_last(at(4)).unwrap();
        assert_eq!((last.state, last.attempt), (State::Failed, 1));
        assert_eq!(last.exit, job.attempts[0].exit);
        assert_eq!(
            last.retry_decision(at(2), 0.0),
            ended(3).retry_decision(at(2), 0.0)
        );
    }

    #[test]
    fn a_pause_between_attempts_is_no_part_of_how_long_it_ran() {
        let mut job = ended(3);
        assert_eq!(job.ran(), Some(Duration::from_secs(1)));
        job.keep_attempt(None);
        job.wait_again(at(3));
        job.finished_at = Some(at(9));
        assert_eq!(job.ran(), Some(Duration::from_secs(1)));
        job.attempts.push(Attempt {
            number: 2,
            started_at: Some(at(50)),
            finished_at: at(53),
            ..job.attempts[0].clone()
        });
        assert_eq!(job.ran(), Some(Duration::from_secs(4)));
        job.attempts.clear();
        job.started_at = None;
        assert_eq!(job.ran(), None);
    }

    #[test]
    fn the_last_attempt_and_a_success_are_the_end() {
        assert_eq!(ended(1).retry_decision(at(2), 0.0), Decision::Over);
        let mut job = ended(3);
        job.state = State::Succeeded;
        assert_eq!(job.retry_decision(at(2), 0.0), Decision::Over);
    }

    #[test]
    fn a_job_that_leaves_a_lost_node_begins_its_next_attempt_where_the_output_is_known_to_end() {
        let mut job = ended(1);
        Arc::make_mut(&mut job.spec).retry = None;
        let claim = Claim {
            node: "n7".parse().unwrap(),
            store: "urn:uuid:7".to_owned(),
            fence: 3,
            confirmed: true,
            seen: 9,
            stop: None,
        };
        job.claim = Some(Box::new(claim.clone()));
        job.leave_node(&claim, at(5));
        assert_eq!((job.state, job.attempt), (State::Queued, 2));
        assert_eq!((job.attempt_offset(), job.last_fence()), (10, 3));
        assert_eq!(job.next_attempt_at, Some(at(5)));
        assert!(job.claim.is_none() && job.termination.is_none() && !job.output.complete);
        let lost = &job.attempts[0];
        assert_eq!((lost.cause, lost.exit), (Cause::NodeLost, None));
        assert!(job.message.unwrap().contains("n7"));
    }

    #[test]
    fn a_job_without_retries_keeps_no_attempts() {
        let mut job = ended(3);
        Arc::make_mut(&mut job.spec).retry = None;
        assert_eq!(job.retry_decision(at(2), 0.0), Decision::Over);
        job.keep_attempt(None);
        assert_eq!(job.attempts, []);
    }
}
