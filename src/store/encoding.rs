//! How a job becomes the text in its row, and back: JSON without what is as usual.
//!
//! What has a column of its own (id, state, name, creation and expiry) is not repeated here.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::job::outcome::{Exit, OutputTotals, SpawnFailure, Termination, Usage};
use crate::job::spec::Secrets;
use crate::job::{Job, JobId, Process, Spec, State, Survivor};
use crate::store::Fault;

/// What is left out where it is exactly this, by section. Frozen: rows were written against it, so it
/// stays as it is even when a default of the program changes. A field that is new needs no entry.
const USUAL: &str = r#"{
  "spec": {
    "cwd": null, "env": {}, "secret_env": {}, "env_inherit": "default", "user": null, "group": null,
    "supplementary_groups": null, "umask": "0022", "nice": null, "oom_score_adj": null,
    "cpu_affinity": null, "rlimits": {},
    "limits": {"memory_bytes": null, "cpu": null, "pids": null},
    "no_new_privs": true, "sandbox": null, "stdin": {"mode": "null"}, "pty": null,
    "output": {"merge_stderr": false, "max_bytes": 67108864, "on_limit": "drop_oldest"},
    "timeout_seconds": null,
    "stop": {"signal": "SIGTERM", "grace_seconds": 10, "scope": "group"},
    "wait_for": "leader", "success_exit_codes": [0], "queue": "default", "priority": 0,
    "start_deadline_seconds": null, "ttl_seconds_after_finished": 604800,
    "webhooks": []
  },
  "process": {"executable": null, "cgroup": null, "sandbox": null},
  "exit": {"oom_killed": null},
  "termination": {
    "requested_by": null, "reason": null, "signals_sent": [], "escalated": false, "killed_leftovers": 0
  },
  "output": {
    "stdout_bytes": 0, "stderr_bytes": 0, "first_offset": 0, "next_offset": 0, "dropped_bytes": 0,
    "complete": true
  }
}"#;

static SECTIONS: LazyLock<Map<String, Value>> =
    LazyLock::new(|| serde_json::from_str(USUAL).expect("the text above is a JSON object"));

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
struct Record {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    created_by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rerun_of: Option<JobId>,
    spec: Arc<Spec>,
    version: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    started_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    finished_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deadline_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    process: Option<Process>,
    attempt: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exit: Option<Exit>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    termination: Option<Termination>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    spawn_failure: Option<SpawnFailure>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
    output: OutputTotals,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    survivors: Vec<Survivor>,
}

/// The columns of a job's row and its text. No value of a secret is in either.
pub(super) fn encode(job: &Job) -> Result<(Columns, String), Fault> {
    let micros = |moment: Option<Timestamp>| moment.map(Timestamp::as_micros);
    let record = Record {
        labels: job.labels.clone(),
        created_by: job.created_by.clone(),
        rerun_of: job.rerun_of,
        spec: Arc::clone(&job.spec),
        version: job.version,
        message: job.message.clone(),
        started_at: micros(job.started_at),
        finished_at: micros(job.finished_at),
        deadline_at: micros(job.deadline_at),
        process: job.process.clone(),
        attempt: job.attempt,
        exit: job.exit,
        termination: job.termination.clone(),
        spawn_failure: job.spawn_failure.clone(),
        usage: job.usage,
        output: job.output,
        survivors: job.survivors.clone(),
    };
    let mut text = serde_json::to_value(record)?;
    for (section, usual) in SECTIONS.iter() {
        if let Some(value) = text.get_mut(section) {
            strip(value, usual);
        }
    }
    let columns = Columns {
        id: job.id,
        state: number_of(job.state),
        name: job.name.clone(),
        created_at: job.created_at.as_micros(),
        expires_at: micros(job.expires_at),
    };
    Ok((columns, text.to_string()))
}

/// The job of a row.
pub(super) fn decode(columns: Columns, text: &str) -> Result<Job, Fault> {
    let mut value: Value = serde_json::from_str(text)?;
    for (section, usual) in SECTIONS.iter() {
        if let Some(value) = value.get_mut(section) {
            fill(value, usual);
        }
    }
    let record: Record = serde_json::from_value(value)?;
    let moment = |micros: Option<i64>| micros.map(Timestamp::from_micros);
    Ok(Job {
        id: columns.id,
        name: columns.name,
        labels: record.labels,
        created_by: record.created_by,
        rerun_of: record.rerun_of,
        spec: record.spec,
        version: record.version,
        state: state_of(columns.state).ok_or(Fault::UnknownState(columns.state))?,
        message: record.message,
        created_at: Timestamp::from_micros(columns.created_at),
        started_at: moment(record.started_at),
        finished_at: moment(record.finished_at),
        expires_at: moment(columns.expires_at),
        deadline_at: moment(record.deadline_at),
        process: record.process,
        attempt: record.attempt,
        exit: record.exit,
        termination: record.termination,
        spawn_failure: record.spawn_failure,
        usage: record.usage,
        output: record.output,
        survivors: record.survivors,
    })
}

/// The labels in a row's text, without reading the rest of it.
pub(super) fn labels(text: &str) -> Result<BTreeMap<String, String>, Fault> {
    #[derive(Deserialize)]
    struct Labels {
        #[serde(default)]
        labels: BTreeMap<String, String>,
    }
    Ok(serde_json::from_str::<Labels>(text)?.labels)
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

fn state_of(number: i64) -> Option<State> {
    State::ALL
        .into_iter()
        .find(|state| number_of(*state) == number)
}

/// Removes from `value` what is the same in `usual`.
fn strip(value: &mut Value, usual: &Value) {
    let (Value::Object(value), Value::Object(usual)) = (value, usual) else {
        return;
    };
    value.retain(|key, value| match usual.get(key) {
        Some(usual) if *value == *usual => false,
        Some(usual) => {
            strip(value, usual);
            true
        }
        None => true,
    });
}

/// Puts back what [`strip`] removed.
fn fill(value: &mut Value, usual: &Value) {
    let (Value::Object(value), Value::Object(usual)) = (value, usual) else {
        return;
    };
    for (key, usual) in usual {
        match value.get_mut(key) {
            Some(value) => fill(value, usual),
            None => {
                value.insert(key.clone(), usual.clone());
            }
        }
    }
}
