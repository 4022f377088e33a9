//! What happened to a job, one visible happening each, as clients can read it afterwards.
//!
//! PURE. It decides which happenings lie between what was told of a job and what it is now; where they are
//! kept, and what they look like in the API, is not known here.

mod kind;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::batch::{Batch, Ends, Membership};
use crate::outcome::{Cause, Exit};
use crate::placement::Late;
use crate::queue::Queue;
use crate::schedule::{Record, Skipped};
use crate::spec::Scope;
use crate::time::Timestamp;
use crate::{Job, JobId, Signal, State};
pub use kind::{About, Kind};

/// The place of an event in the order of all events; grows and is never given twice.
pub type Cursor = u64;

/// A happening with what belongs to its kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// See [`Kind::Created`].
    Created {
        /// By whom.
        by: String,
        /// The job that it repeats.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rerun_of: Option<JobId>,
    },
    /// See [`Kind::Started`].
    Started {
        /// The leader's PID.
        pid: Option<i32>,
    },
    /// See [`Kind::Paused`].
    Paused,
    /// See [`Kind::Resumed`].
    Resumed,
    /// See [`Kind::Stopping`].
    Stopping,
    /// See [`Kind::Signaled`].
    Signaled {
        /// What was sent.
        signal: Signal,
        /// To whom.
        scope: Scope,
        /// How many processes it was sent to.
        delivered_to: u64,
    },
    /// See [`Kind::Warned`].
    Warned {
        /// When the timeout strikes, if nothing moves it.
        deadline_at: Option<Timestamp>,
    },
    /// See [`Kind::Changed`].
    Changed,
    /// See [`Kind::Ready`].
    Ready {
        /// What showed it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    /// See [`Kind::NotReady`].
    NotReady {
        /// Why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    /// See [`Kind::AttemptFinished`].
    AttemptFinished {
        /// Why it ended.
        cause: Cause,
        /// How its leader ended.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit: Option<Exit>,
        /// The next one begins then or later.
        next_attempt_at: Timestamp,
    },
    /// See [`Kind::Artifacts`].
    Artifacts {
        /// How many there are.
        files: u64,
        /// How large they are together.
        bytes: u64,
        /// There may be more.
        truncated: bool,
    },
    /// See [`Kind::Finished`].
    Finished {
        /// Why the job is over.
        cause: Option<Cause>,
        /// How the leader ended.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit: Option<Exit>,
        /// Who asked for the end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        requested_by: Option<String>,
        /// In whose words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// See [`Kind::ReportedLate`].
    ReportedLate(Late),
    /// See [`Kind::WebhookDelivered`].
    WebhookDelivered {
        /// Which of the job's webhooks.
        webhook: usize,
        /// The event that it has taken.
        event: Cursor,
        /// How many attempts it took.
        attempts: u32,
        /// The HTTP status of the answer.
        status: u16,
    },
    /// See [`Kind::WebhookFailed`].
    WebhookFailed {
        /// Which of the job's webhooks.
        webhook: usize,
        /// The event that it has not taken.
        event: Cursor,
        /// How many attempts there were.
        attempts: u32,
        /// Why the last one failed.
        error: String,
    },
    /// See [`Kind::BatchCreated`].
    BatchCreated {
        /// By whom.
        by: String,
        /// The batch that it repeats.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rerun_of: Option<JobId>,
        /// How many jobs it has.
        total: u32,
    },
    /// See [`Kind::BatchFinished`].
    BatchFinished {
        /// How many jobs it had.
        total: u32,
        /// How they ended.
        ends: Ends,
    },
    /// See [`Kind::ScheduleStarted`].
    ScheduleStarted {
        /// When the job was due; nothing if somebody asked for it.
        due_at: Option<Timestamp>,
        /// The job.
        job: JobId,
    },
    /// See [`Kind::ScheduleSkipped`].
    ScheduleSkipped {
        /// The due time; of several that were missed in a row, one.
        due_at: Timestamp,
        /// Why.
        reason: Skipped,
    },
    /// See [`Kind::ScheduleChanged`].
    ScheduleChanged,
    /// See [`Kind::QueueChanged`].
    QueueChanged,
}

impl What {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Created { .. } => Kind::Created,
            Self::Started { .. } => Kind::Started,
            Self::Paused => Kind::Paused,
            Self::Resumed => Kind::Resumed,
            Self::Stopping => Kind::Stopping,
            Self::Signaled { .. } => Kind::Signaled,
            Self::Warned { .. } => Kind::Warned,
            Self::Changed => Kind::Changed,
            Self::Ready { .. } => Kind::Ready,
            Self::NotReady { .. } => Kind::NotReady,
            Self::AttemptFinished { .. } => Kind::AttemptFinished,
            Self::Artifacts { .. } => Kind::Artifacts,
            Self::Finished { .. } => Kind::Finished,
            Self::ReportedLate(_) => Kind::ReportedLate,
            Self::WebhookDelivered { .. } => Kind::WebhookDelivered,
            Self::WebhookFailed { .. } => Kind::WebhookFailed,
            Self::BatchCreated { .. } => Kind::BatchCreated,
            Self::BatchFinished { .. } => Kind::BatchFinished,
            Self::ScheduleStarted { .. } => Kind::ScheduleStarted,
            Self::ScheduleSkipped { .. } => Kind::ScheduleSkipped,
            Self::ScheduleChanged => Kind::ScheduleChanged,
            Self::QueueChanged => Kind::QueueChanged,
        }
    }
}

/// The place of a job among those of its batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The entry that it is of.
    pub key: String,
    /// Which job of the entry, from 0.
    pub index: u32,
}

impl From<&Membership> for Place {
    fn from(of: &Membership) -> Self {
        Self {
            key: of.key.clone(),
            index: of.index,
        }
    }
}

/// A happening of a job, a batch, a schedule or a queue, with what that was like then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The job, or the batch; zero of a schedule or a queue, which have names.
    pub job: JobId,
    /// The batch that the job belongs to, or that this is about.
    pub batch: Option<JobId>,
    /// The place of the job in its batch.
    pub place: Option<Place>,
    /// When it happened.
    pub at: Timestamp,
    /// The name of what it is about.
    pub name: Option<String>,
    /// The labels of what it is about.
    pub labels: BTreeMap<String, String>,
    /// The state after it, of a job or a batch.
    pub state: Option<State>,
    /// The version after it; 0 of what was removed.
    pub version: u64,
    /// The execution it belongs to, of a job or a batch.
    pub attempt: Option<u32>,
    /// The trace of the job's creation, as `traceparent` has it.
    pub traceparent: Option<String>,
    /// What happened.
    pub what: What,
    /// Which of the job's webhooks are to be told; empty in what is read back.
    pub webhooks: Vec<usize>,
}

impl Event {
    /// A happening that has left the job as it is.
    #[must_use]
    pub fn of(job: &Job, at: Timestamp, what: What) -> Self {
        let kind = what.kind();
        let webhooks = job.spec.webhooks.iter().enumerate();
        Self {
            webhooks: webhooks
                .filter(|(_, webhook)| webhook.wants(kind))
                .map(|(number, _)| number)
                .collect(),
            job: job.id,
            batch: job.batch.as_ref().map(|it| it.id),
            place: job.batch.as_ref().map(Place::from),
            at,
            name: job.name.clone(),
            labels: job.labels.clone(),
            state: Some(job.state),
            version: job.version,
            attempt: Some(job.attempt),
            traceparent: job.trace.as_ref().map(ToString::to_string),
            what,
        }
    }

    /// A happening of a batch.
    #[must_use]
    pub fn of_batch(batch: &Batch, at: Timestamp, what: What) -> Self {
        let kind = what.kind();
        let webhooks = batch.webhooks.iter().enumerate();
        let wanted = webhooks.filter(|(_, webhook)| webhook.wants(kind));
        Self {
            job: batch.id,
            batch: Some(batch.id),
            place: None,
            at,
            name: batch.name.clone(),
            labels: batch.labels.clone(),
            state: Some(batch.state),
            version: batch.version(),
            attempt: Some(1),
            traceparent: None,
            what,
            webhooks: wanted.map(|(number, _)| number).collect(),
        }
    }

    /// A happening of a schedule.
    #[must_use]
    pub fn of_schedule(schedule: &Record, at: Timestamp, what: What) -> Self {
        Self {
            labels: schedule.definition.labels.clone(),
            version: schedule.version,
            ..Self::of_name(&schedule.name, at, what)
        }
    }

    /// Settings of a queue have been changed.
    #[must_use]
    pub fn of_queue(queue: &Queue) -> Self {
        Self {
            version: queue.version,
            ..Self::of_name(&queue.name, queue.changed_at, What::QueueChanged)
        }
    }

    /// A happening of what has a name and no id, and is gone.
    #[must_use]
    pub fn of_name(name: &str, at: Timestamp, what: What) -> Self {
        Self {
            job: JobId::from_bytes([0; 16]),
            batch: None,
            place: None,
            at,
            name: Some(name.to_owned()),
            labels: BTreeMap::new(),
            state: None,
            version: 0,
            attempt: None,
            traceparent: None,
            what,
            webhooks: Vec::new(),
        }
    }

    /// The first of every job.
    #[must_use]
    pub fn created(job: &Job) -> Self {
        let what = What::Created {
            by: job.created_by.clone(),
            rerun_of: job.rerun_of,
        };
        Self::of(job, job.created_at, what)
    }
}

/// What is to be told of the job's start, if it was told to be in the state `told`.
fn start(told: State, job: &Job) -> Option<Event> {
    let at = job.attempt_started_at()?;
    let pid = job.process.as_ref().map(|process| process.pid);
    matches!(told, State::Queued | State::Starting).then(|| Event {
        // As it was then, whatever has become of it meanwhile.
        state: Some(State::Running),
        ..Event::of(job, at, What::Started { pid })
    })
}

/// What has happened at the end of an attempt after which another one begins; `next` is the job as it waits for that,
/// and `ended` as if this had been its end.
#[must_use]
pub fn between(told: State, ended: &Job, next: &Job) -> Vec<Event> {
    let mut events: Vec<Event> = start(told, ended).into_iter().collect();
    if let (Some(attempt), Some(next_attempt_at)) = (next.attempts.last(), next.next_attempt_at) {
        let what = What::AttemptFinished {
            cause: attempt.cause,
            exit: attempt.exit,
            next_attempt_at,
        };
        events.push(Event {
            attempt: Some(attempt.number),
            ..Event::of(next, attempt.finished_at, what)
        });
    }
    events
}

/// What has happened to the job since it was told to be in the state `told`.
#[must_use]
pub fn since(told: State, job: &Job, now: Timestamp) -> Vec<Event> {
    if told.is_terminal() {
        return Vec::new();
    }
    let mut events: Vec<Event> = start(told, job).into_iter().collect();
    match job.state {
        State::Queued | State::Starting => {}
        State::Running => {
            if told == State::Paused {
                events.push(Event::of(job, now, What::Resumed));
            }
        }
        State::Paused => {
            if told != State::Paused {
                events.push(Event::of(job, now, What::Paused));
            }
        }
        State::Stopping => {
            if told != State::Stopping {
                events.push(Event::of(job, now, What::Stopping));
            }
        }
        State::Succeeded | State::Failed | State::Canceled | State::TimedOut | State::Lost => {
            let at = job.finished_at.unwrap_or(now);
            if let (Some(found), Some(_)) = (&job.artifacts, &job.spec.artifacts) {
                let what = What::Artifacts {
                    files: found.files,
                    bytes: found.bytes,
                    truncated: found.truncated,
                };
                events.push(Event::of(job, at, what));
            }
            let termination = job.termination.as_ref();
            let what = What::Finished {
                cause: termination.map(|it| it.cause),
                exit: job.exit,
                requested_by: termination.and_then(|it| it.requested_by.clone()),
                reason: termination.and_then(|it| it.reason.clone()),
            };
            events.push(Event::of(job, at, what));
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::Spec;
    use crate::outcome::Termination;

    fn job(state: State) -> Job {
        let at = Timestamp::from_micros(1);
        let job = Job::accepted(
            JobId::generate(),
            "me".into(),
            Arc::new(Spec::default()),
            at,
        );
        let started = !matches!(state, State::Queued | State::Starting);
        Job {
            state,
            started_at: started.then(|| Timestamp::from_micros(2)),
            finished_at: state.is_terminal().then(|| Timestamp::from_micros(3)),
            termination: state
                .is_terminal()
                .then(|| Termination::unasked(Cause::Exited)),
            ..job
        }
    }

    fn kinds(told: State, now: State) -> Vec<Kind> {
        let events = since(told, &job(now), Timestamp::from_micros(9));
        events.iter().map(|event| event.what.kind()).collect()
    }

    #[test]
    fn nothing_is_told_twice_and_no_start_and_no_end_is_left_out() {
        use Kind::{Finished, Paused, Resumed, Started, Stopping};
        for (told, now, expected) in [
            (State::Queued, State::Queued, &[][..]),
            (State::Queued, State::Starting, &[]),
            (State::Queued, State::Running, &[Started]),
            (State::Queued, State::Paused, &[Started, Paused]),
            (State::Queued, State::Stopping, &[Started, Stopping]),
            (State::Queued, State::Succeeded, &[Started, Finished]),
            (State::Running, State::Running, &[]),
            (State::Running, State::Paused, &[Paused]),
            (State::Paused, State::Running, &[Resumed]),
            (State::Paused, State::Stopping, &[Stopping]),
            (State::Paused, State::Lost, &[Finished]),
            (State::Stopping, State::Stopping, &[]),
            (State::Stopping, State::Running, &[]),
            (State::Stopping, State::Canceled, &[Finished]),
            (State::Failed, State::Failed, &[]),
        ] {
            assert_eq!(kinds(told, now), expected, "{told:?} {now:?}");
        }
    }

    #[test]
    fn a_job_that_never_ran_never_started() {
        let mut job = job(State::Canceled);
        job.started_at = None;
        let events = since(State::Queued, &job, Timestamp::from_micros(9));
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].at, Timestamp::from_micros(3));
    }

    #[test]
    fn every_kind_has_a_word_of_its_own() {
        for kind in Kind::ALL {
            assert_eq!(Kind::of_word(kind.as_str()), Some(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
        assert_eq!(Kind::of_word("job"), None);
    }
}
