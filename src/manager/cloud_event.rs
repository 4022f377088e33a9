//! An event as the outside sees it: JSON in the form of CloudEvents 1.0, the same over HTTP and in webhooks.
//!
//! PURE. Who gets it, and how, is not known here.

use std::collections::BTreeMap;

use serde::Serialize;

use job::batch::Ends;
use job::event::{About, Cursor, Event, What};
use job::placement::Late;
use job::spec::Scope;
use job::time::Timestamp;
use job::{Cause, Exit, ExitStatus, JobId, Signal, State};

/// The media type of one event by itself.
pub const CLOUD_EVENT_JSON: &str = "application/cloudevents+json";

/// The envelope; <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md>.
#[derive(Debug, Serialize)]
pub struct CloudEvent<'a> {
    specversion: &'static str,
    id: String,
    source: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    subject: String,
    time: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    datacontenttype: &'static str,
    data: Data<'a>,
}

#[derive(Debug, Serialize)]
struct Data<'a> {
    name: Option<&'a str>,
    labels: &'a BTreeMap<String, String>,
    batch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<State>,
    version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    #[serde(flatten)]
    more: More<'a>,
}

/// What only some kinds have.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum More<'a> {
    Nothing {},
    Created {
        created_by: &'a str,
        rerun_of: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        total: Option<u32>,
    },
    Started {
        pid: Option<i32>,
    },
    Signaled {
        signal: Signal,
        scope: Scope,
        delivered_to: u64,
    },
    Ready {
        message: Option<&'a str>,
    },
    Warned {
        deadline_at: Option<Timestamp>,
    },
    AttemptFinished {
        cause: Cause,
        exit: Option<ExitView>,
        next_attempt_at: Timestamp,
    },
    Artifacts {
        files: u64,
        bytes: u64,
        truncated: bool,
    },
    Finished {
        cause: Option<Cause>,
        exit: Option<ExitView>,
        requested_by: Option<&'a str>,
        reason: Option<&'a str>,
    },
    Late {
        late: LateView<'a>,
    },
    Delivered {
        webhook: usize,
        event: String,
        attempts: u32,
        status: u16,
    },
    Failed {
        webhook: usize,
        event: String,
        attempts: u32,
        error: &'a str,
    },
    BatchFinished {
        total: u32,
        counts: Ends,
    },
    ScheduleStarted {
        due_at: Option<Timestamp>,
        job_id: String,
    },
    ScheduleSkipped {
        due_at: Timestamp,
        reason: &'static str,
    },
}

fn subject(event: &Event) -> String {
    let name = event.name.as_deref().unwrap_or_default();
    match event.what.kind().about() {
        About::Job => event.job.to_string(),
        About::Batch => format!("batch/{}", event.job),
        About::Schedule => format!("schedule/{name}"),
        About::Queue => format!("queue/{name}"),
    }
}

impl<'a> More<'a> {
    fn created(by: &'a str, rerun_of: Option<JobId>, total: Option<u32>) -> Self {
        Self::Created {
            created_by: by,
            rerun_of: rerun_of.map(|id| id.to_string()),
            total,
        }
    }
}

impl<'a> From<&'a What> for More<'a> {
    fn from(what: &'a What) -> Self {
        match what {
            What::Created { by, rerun_of } => Self::created(by, *rerun_of, None),
            What::Started { pid } => Self::Started { pid: *pid },
            What::Paused
            | What::Resumed
            | What::Stopping
            | What::Changed
            | What::ScheduleChanged
            | What::QueueChanged => Self::Nothing {},
            What::Signaled {
                signal,
                scope,
                delivered_to,
            } => Self::Signaled {
                signal: *signal,
                scope: *scope,
                delivered_to: *delivered_to,
            },
            What::Ready { message } | What::NotReady { message } => Self::Ready {
                message: message.as_deref(),
            },
            What::Warned { deadline_at } => Self::Warned {
                deadline_at: *deadline_at,
            },
            What::AttemptFinished {
                cause,
                exit,
                next_attempt_at,
            } => Self::AttemptFinished {
                cause: *cause,
                exit: exit.as_ref().map(ExitView::from),
                next_attempt_at: *next_attempt_at,
            },
            What::Artifacts {
                files,
                bytes,
                truncated,
            } => Self::Artifacts {
                files: *files,
                bytes: *bytes,
                truncated: *truncated,
            },
            What::Finished {
                cause,
                exit,
                requested_by,
                reason,
            } => Self::Finished {
                cause: *cause,
                exit: exit.as_ref().map(ExitView::from),
                requested_by: requested_by.as_deref(),
                reason: reason.as_deref(),
            },
            What::ReportedLate(late) => Self::Late {
                late: LateView::from(late),
            },
            What::WebhookDelivered {
                webhook,
                event,
                attempts,
                status,
            } => Self::Delivered {
                webhook: *webhook,
                event: event.to_string(),
                attempts: *attempts,
                status: *status,
            },
            What::WebhookFailed {
                webhook,
                event,
                attempts,
                error,
            } => Self::Failed {
                webhook: *webhook,
                event: event.to_string(),
                attempts: *attempts,
                error,
            },
            What::BatchCreated {
                by,
                rerun_of,
                total,
            } => Self::created(by, *rerun_of, Some(*total)),
            What::BatchFinished { total, ends } => Self::BatchFinished {
                total: *total,
                counts: *ends,
            },
            What::ScheduleStarted { due_at, job } => Self::ScheduleStarted {
                due_at: *due_at,
                job_id: job.to_string(),
            },
            What::ScheduleSkipped { due_at, reason } => Self::ScheduleSkipped {
                due_at: *due_at,
                reason: reason.as_str(),
            },
        }
    }
}

impl<'a> CloudEvent<'a> {
    /// The event at this cursor of the store that is called `source`.
    pub fn new(source: &'a str, cursor: Cursor, event: &'a Event) -> Self {
        Self {
            specversion: "1.0",
            id: cursor.to_string(),
            source,
            kind: event.what.kind().as_str(),
            subject: subject(event),
            time: event.at,
            traceparent: event.traceparent.as_deref(),
            datacontenttype: "application/json",
            data: Data {
                name: event.name.as_deref(),
                labels: &event.labels,
                batch: event.batch.map(|id| id.to_string()),
                key: event.place.as_ref().map(|it| it.key.as_str()),
                index: event.place.as_ref().map(|it| it.index),
                state: event.state,
                version: event.version,
                attempt: event.attempt,
                more: More::from(&event.what),
            },
        }
    }

    /// Its `type`.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// The whole event as one line of JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("names, numbers and texts can always be written as JSON")
    }
}

/// What a node has reported of a job that had been given up for lost.
#[derive(Debug, Serialize)]
pub struct LateView<'a> {
    node: &'a str,
    state: State,
    exit: Option<ExitView>,
    finished_at: Option<Timestamp>,
}

impl<'a> From<&'a Late> for LateView<'a> {
    fn from(late: &'a Late) -> Self {
        Self {
            node: late.node.as_str(),
            state: late.state,
            exit: late.exit.as_ref().map(ExitView::from),
            finished_at: late.finished_at,
        }
    }
}

/// How the leader ended.
#[derive(Debug, Serialize)]
pub struct ExitView {
    code: Option<u8>,
    signal: Option<Signal>,
    signal_number: Option<i32>,
    core_dumped: bool,
    oom_killed: Option<bool>,
    at: Timestamp,
}

impl From<&Exit> for ExitView {
    fn from(exit: &Exit) -> Self {
        let (code, signal, core_dumped) = match exit.status {
            ExitStatus::Code(code) => (Some(code), None, false),
            ExitStatus::Signal {
                signal,
                core_dumped,
            } => (None, Some(signal), core_dumped),
        };
        Self {
            code,
            signal,
            signal_number: signal.map(Signal::number),
            core_dumped,
            oom_killed: exit.oom_killed,
            at: exit.at,
        }
    }
}
