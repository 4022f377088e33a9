//! How a job becomes the text in its row, and back: JSON without its defaults.
//!
//! What has a column of its own (id, state, name, creation and expiry) is not repeated here.

mod defaults;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Fault;
use crate::bulk::{self, Bulk, Stored};
use job::batch::Membership;
use job::dependency::Dependency;
use job::outcome::{Exit, OutputTotals, SpawnFailure, Termination, Usage};
use job::placement::Late;
use job::schedule::Occurrence;
use job::spec::Secrets;
use job::time::Timestamp;
use job::trace::Trace;
use job::workspace::{Artifacts, Uploads};
use job::{Attempt, Claim, Job, JobId, Process, Spec, State, Survivor};

/// What a row holds beside the text.
#[derive(Clone, Debug)]
pub(super) struct Columns {
    pub(super) id: JobId,
    pub(super) state: i64,
    pub(super) name: Option<String>,
    pub(super) created_at: i64,
    pub(super) expires_at: Option<i64>,
}

#[derive(Serialize, Deserialize)]
struct Record<'a> {
    #[serde(default, skip_serializing_if = "no_labels")]
    labels: Cow<'a, BTreeMap<String, String>>,
    created_by: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rerun_of: Option<JobId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trace: Option<Cow<'a, Trace>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run_at: Option<i64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    hold: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    schedule: Option<Cow<'a, Occurrence>>,
    spec: Arc<Spec>,
    /// Large parts of it are not here, but beside the row.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_cut: bool,
    #[serde(default, skip_serializing_if = "no_dependencies")]
    depends_on: Cow<'a, [Dependency]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    batch: Option<Cow<'a, Membership>>,
    version: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    started_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    finished_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deadline_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    warned_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ready_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    not_ready_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ready_message: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    process: Option<Cow<'a, Process>>,
    attempt: u32,
    #[serde(default, skip_serializing_if = "no_attempts")]
    attempts: Cow<'a, [Attempt]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next_attempt_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exit: Option<Exit>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    termination: Option<Cow<'a, Termination>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    spawn_failure: Option<Cow<'a, SpawnFailure>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
    output: OutputTotals,
    #[serde(default, skip_serializing_if = "no_survivors")]
    survivors: Cow<'a, [Survivor]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    artifacts: Option<Cow<'a, Artifacts>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uploads: Option<Cow<'a, Uploads>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    claim: Option<Cow<'a, Claim>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    late: Option<Cow<'a, Late>>,
}

fn no_labels(labels: &BTreeMap<String, String>) -> bool {
    labels.is_empty()
}

fn no_dependencies(dependencies: &[Dependency]) -> bool {
    dependencies.is_empty()
}

fn no_attempts(attempts: &[Attempt]) -> bool {
    attempts.is_empty()
}

fn no_survivors(survivors: &[Survivor]) -> bool {
    survivors.is_empty()
}

/// A job as it is stored. No value of a secret is in it.
#[derive(Debug)]
pub(super) struct Encoded {
    /// The columns of its row.
    pub(super) columns: Columns,
    /// The row's text.
    pub(super) text: String,
    /// What is beside the row.
    pub(super) bulk: Option<Bulk>,
}

/// A job as it is to be stored.
pub(super) fn encode(job: &Job) -> Result<Encoded, Fault> {
    let (cut, bulk) = bulk::split(&job.spec)?.unzip();
    let micros = |moment: Option<Timestamp>| moment.map(Timestamp::as_micros);
    let record = Record {
        labels: Cow::Borrowed(&job.labels),
        created_by: Cow::Borrowed(&job.created_by),
        rerun_of: job.rerun_of,
        trace: job.trace.as_ref().map(Cow::Borrowed),
        run_at: micros(job.run_at),
        hold: job.hold,
        schedule: job.schedule.as_ref().map(Cow::Borrowed),
        is_cut: bulk.is_some(),
        spec: cut.map_or_else(|| Arc::clone(&job.spec), Arc::new),
        depends_on: Cow::Borrowed(&job.depends_on),
        batch: job.batch.as_ref().map(Cow::Borrowed),
        version: job.version,
        message: job.message.as_deref().map(Cow::Borrowed),
        started_at: micros(job.started_at),
        finished_at: micros(job.finished_at),
        deadline_at: micros(job.deadline_at),
        warned_at: micros(job.warned_at),
        ready_at: micros(job.ready_at),
        not_ready_at: micros(job.not_ready_at),
        ready_message: job.ready_message.as_deref().map(Cow::Borrowed),
        process: job.process.as_ref().map(Cow::Borrowed),
        attempt: job.attempt,
        attempts: Cow::Borrowed(&job.attempts),
        next_attempt_at: micros(job.next_attempt_at),
        exit: job.exit,
        termination: job.termination.as_ref().map(Cow::Borrowed),
        spawn_failure: job.spawn_failure.as_ref().map(Cow::Borrowed),
        usage: job.usage,
        output: job.output,
        survivors: Cow::Borrowed(&job.survivors),
        artifacts: job.artifacts.as_ref().map(Cow::Borrowed),
        uploads: job.uploads.as_deref().map(Cow::Borrowed),
        claim: job.claim.as_deref().map(Cow::Borrowed),
        late: job.late.as_deref().map(Cow::Borrowed),
    };
    let text = defaults::strip(serde_json::to_string(&record)?);
    let columns = Columns {
        id: job.id,
        state: number_of(job.state),
        name: job.name.clone(),
        created_at: job.created_at.as_micros(),
        expires_at: micros(job.expires_at),
    };
    Ok(Encoded {
        columns,
        text,
        bulk,
    })
}

/// The job of a row.
pub(super) fn decode(columns: Columns, text: &str) -> Result<Stored, Fault> {
    let record: Record<'static> = serde_json::from_str(&defaults::fill(text))?;
    let moment = |micros: Option<i64>| micros.map(Timestamp::from_micros);
    let is_cut = record.is_cut;
    let job = Job {
        id: columns.id,
        name: columns.name,
        labels: record.labels.into_owned(),
        created_by: record.created_by.into_owned(),
        rerun_of: record.rerun_of,
        trace: record.trace.map(Cow::into_owned),
        run_at: moment(record.run_at),
        hold: record.hold,
        schedule: record.schedule.map(Cow::into_owned),
        spec: record.spec,
        depends_on: record.depends_on.into_owned(),
        batch: record.batch.map(Cow::into_owned),
        version: record.version,
        state: state_of(columns.state).ok_or(Fault::UnknownState(columns.state))?,
        message: record.message.map(Cow::into_owned),
        created_at: Timestamp::from_micros(columns.created_at),
        started_at: moment(record.started_at),
        finished_at: moment(record.finished_at),
        expires_at: moment(columns.expires_at),
        deadline_at: moment(record.deadline_at),
        warned_at: moment(record.warned_at),
        ready_at: moment(record.ready_at),
        not_ready_at: moment(record.not_ready_at),
        ready_message: record.ready_message.map(Cow::into_owned),
        process: record.process.map(Cow::into_owned),
        attempt: record.attempt,
        attempts: record.attempts.into_owned(),
        next_attempt_at: moment(record.next_attempt_at),
        exit: record.exit,
        termination: record.termination.map(Cow::into_owned),
        spawn_failure: record.spawn_failure.map(Cow::into_owned),
        usage: record.usage,
        output: record.output,
        survivors: record.survivors.into_owned(),
        artifacts: record.artifacts.map(Cow::into_owned),
        uploads: record.uploads.map(|it| Box::new(it.into_owned())),
        claim: record.claim.map(|it| Box::new(it.into_owned())),
        late: record.late.map(|it| Box::new(it.into_owned())),
    };
    Ok(Stored { job, is_cut })
}

/// Bytes of the job's output that are kept here: that of a node's job is there.
pub(super) fn kept_output(job: &Job) -> i64 {
    match job.claim {
        Some(_) => 0,
        None => kept(job.output.first_offset, job.output.next_offset),
    }
}

fn kept(first: u64, next: u64) -> i64 {
    i64::try_from(next.saturating_sub(first)).unwrap_or(i64::MAX)
}

/// What a row's text has for the index of labels and the totals.
#[derive(Deserialize)]
pub(super) struct Indexed {
    pub(super) created_by: String,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) schedule: Option<Occurrence>,
    #[serde(default)]
    batch: Option<OfBatch>,
    #[serde(default)]
    claim: Option<OfNode>,
    #[serde(default)]
    output: Extent,
}

/// Where the output that is kept begins and ends.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Extent {
    first_offset: u64,
    next_offset: u64,
}

#[derive(Deserialize)]
struct OfBatch {
    id: JobId,
}

#[derive(Deserialize)]
struct OfNode {
    node: String,
}

impl Indexed {
    /// The id of the job's batch.
    pub(super) fn batch(&self) -> Option<String> {
        self.batch.as_ref().map(|it| it.id.to_string())
    }

    /// The node that has the job, or had it at its end.
    pub(super) fn node(&self) -> Option<&str> {
        self.claim.as_ref().map(|it| it.node.as_str())
    }

    /// The same as [`kept_output`].
    pub(super) fn kept_output(&self) -> i64 {
        match self.claim {
            Some(_) => 0,
            None => kept(self.output.first_offset, self.output.next_offset),
        }
    }
}

/// Reads that, without the rest of the text.
pub(super) fn indexed(text: &str) -> Result<Indexed, Fault> {
    Ok(serde_json::from_str(text)?)
}

/// The secrets with their values, for the table that is erased when the job ends.
pub(super) fn encode_secrets(secrets: &Secrets) -> Result<String, Fault> {
    // Not the encoding of `Secrets`, which leaves the values out.
    Ok(serde_json::to_string(&secrets.0)?)
}

/// What [`encode_secrets`] encoded.
pub(super) fn decode_secrets(text: &str) -> Result<Secrets, Fault> {
    Ok(Secrets(serde_json::from_str(text)?))
}

/// The number of a state in the database. Rows hold it, so a number is never given to another state.
pub(super) fn number_of(state: State) -> i64 {
    match state {
        State::Queued => 0,
        State::Starting => 1,
        State::Running => 2,
        State::Paused => 3,
        State::Stopping => 4,
        State::Succeeded => 5,
        State::Failed => 6,
        State::Canceled => 7,
        State::TimedOut => 8,
        State::Lost => 9,
    }
}

pub(super) fn state_of(number: i64) -> Option<State> {
    State::ALL
        .into_iter()
        .find(|state| number_of(*state) == number)
}
