//! What kinds of happenings there are, and the word for each.

use serde::{Deserialize, Serialize};

use crate::State;

/// What kind of happening it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// Accepted and durable.
    #[serde(rename = "job.created")]
    Created,
    /// Its program was executed.
    #[serde(rename = "job.started")]
    Started,
    /// Every process of it was stopped until a resume.
    #[serde(rename = "job.paused")]
    Paused,
    /// They go on.
    #[serde(rename = "job.resumed")]
    Resumed,
    /// It was asked to end, and something of it was still there.
    #[serde(rename = "job.stopping")]
    Stopping,
    /// A signal was sent to it.
    #[serde(rename = "job.signaled")]
    Signaled,
    /// Its timeout is near.
    #[serde(rename = "job.warned")]
    Warned,
    /// A client changed it.
    #[serde(rename = "job.changed")]
    Changed,
    /// It is ready, by what its spec says.
    #[serde(rename = "job.ready")]
    Ready,
    /// It was not ready in time.
    #[serde(rename = "job.not_ready")]
    NotReady,
    /// An attempt ended, and another one follows.
    #[serde(rename = "job.attempt_finished")]
    AttemptFinished,
    /// It has ended, and its artifacts were looked for.
    #[serde(rename = "job.artifacts")]
    Artifacts,
    /// It reached its terminal state.
    #[serde(rename = "job.finished")]
    Finished,
    /// A node has reported what became of a job that had been given up for lost.
    #[serde(rename = "job.reported_late")]
    ReportedLate,
    /// A webhook has taken an event.
    #[serde(rename = "job.webhook_delivered")]
    WebhookDelivered,
    /// A delivery to a webhook was given up.
    #[serde(rename = "job.webhook_failed")]
    WebhookFailed,
    /// A batch was accepted and is durable.
    #[serde(rename = "batch.created")]
    BatchCreated,
    /// The last job of a batch has ended.
    #[serde(rename = "batch.finished")]
    BatchFinished,
    /// A schedule has made a job.
    #[serde(rename = "schedule.started")]
    ScheduleStarted,
    /// A due time of a schedule has made no job.
    #[serde(rename = "schedule.skipped")]
    ScheduleSkipped,
    /// A schedule was made, changed or removed.
    #[serde(rename = "schedule.changed")]
    ScheduleChanged,
    /// Settings of a queue were changed or removed.
    #[serde(rename = "queue.changed")]
    QueueChanged,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// A job.
    Job,
    /// A batch.
    Batch,
    /// A schedule; the event's name is its name.
    Schedule,
    /// A queue; the same.
    Queue,
}

impl Kind {
    /// Every kind, in the order of a life.
    pub const ALL: [Self; 22] = [
        Self::Created,
        Self::Started,
        Self::Paused,
        Self::Resumed,
        Self::Stopping,
        Self::Signaled,
        Self::Warned,
        Self::Changed,
        Self::Ready,
        Self::NotReady,
        Self::AttemptFinished,
        Self::Artifacts,
        Self::Finished,
        Self::ReportedLate,
        Self::WebhookDelivered,
        Self::WebhookFailed,
        Self::BatchCreated,
        Self::BatchFinished,
        Self::ScheduleStarted,
        Self::ScheduleSkipped,
        Self::ScheduleChanged,
        Self::QueueChanged,
    ];

    /// The word in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "job.created",
            Self::Started => "job.started",
            Self::Paused => "job.paused",
            Self::Resumed => "job.resumed",
            Self::Stopping => "job.stopping",
            Self::Signaled => "job.signaled",
            Self::Warned => "job.warned",
            Self::Changed => "job.changed",
            Self::Ready => "job.ready",
            Self::NotReady => "job.not_ready",
            Self::AttemptFinished => "job.attempt_finished",
            Self::Artifacts => "job.artifacts",
            Self::Finished => "job.finished",
            Self::ReportedLate => "job.reported_late",
            Self::WebhookDelivered => "job.webhook_delivered",
            Self::WebhookFailed => "job.webhook_failed",
            Self::BatchCreated => "batch.created",
            Self::BatchFinished => "batch.finished",
            Self::ScheduleStarted => "schedule.started",
            Self::ScheduleSkipped => "schedule.skipped",
            Self::ScheduleChanged => "schedule.changed",
            Self::QueueChanged => "queue.changed",
        }
    }

    /// The kind with this word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// What it is about.
    #[must_use]
    pub fn about(self) -> About {
        match self {
            Self::Created
            | Self::Started
            | Self::Paused
            | Self::Resumed
            | Self::Stopping
            | Self::Signaled
            | Self::Warned
            | Self::Changed
            | Self::Ready
            | Self::NotReady
            | Self::AttemptFinished
            | Self::Artifacts
            | Self::Finished
            | Self::ReportedLate
            | Self::WebhookDelivered
            | Self::WebhookFailed => About::Job,
            Self::BatchCreated | Self::BatchFinished => About::Batch,
            Self::ScheduleStarted | Self::ScheduleSkipped | Self::ScheduleChanged => {
                About::Schedule
            }
            Self::QueueChanged => About::Queue,
        }
    }

    /// The state in which a job is known to have been when this was told; nothing if it does not say.
    #[must_use]
    pub fn told(self) -> Option<State> {
        match self {
            Self::Created | Self::AttemptFinished => Some(State::Queued),
            Self::Started | Self::Resumed => Some(State::Running),
            Self::Paused => Some(State::Paused),
            Self::Stopping => Some(State::Stopping),
            Self::Signaled
            | Self::Warned
            | Self::Changed
            | Self::Ready
            | Self::NotReady
            | Self::Artifacts
            | Self::Finished
            | Self::ReportedLate
            | Self::WebhookDelivered
            | Self::WebhookFailed
            | Self::BatchCreated
            | Self::BatchFinished
            | Self::ScheduleStarted
            | Self::ScheduleSkipped
            | Self::ScheduleChanged
            | Self::QueueChanged => None,
        }
    }
}
