//! What is set of a queue, and the keys that jobs run under. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Job;
use crate::time::Timestamp;

/// The greatest weight of a job, and the greatest limit of a queue.
pub const WEIGHT_MAX: u32 = 1_000_000;

/// The most starts that a rate may allow, and so the most that are remembered.
pub const STARTS_MAX: u32 = 10_000;

/// No more than so many starts in any window of this length.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// How many.
    pub starts: u32,
    /// In how long.
    #[serde(rename = "per_seconds", with = "crate::seconds")]
    pub per: Duration,
}

/// By what the jobs of a queue are grouped; the groups take turns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FairBy {
    /// Who created them.
    CreatedBy,
    /// The value of this label.
    Label(String),
}

impl FairBy {
    /// The group of a job; all without the label are one.
    #[must_use]
    pub fn group_of<'a>(&self, job: &'a Job) -> &'a str {
        match self {
            Self::CreatedBy => &job.created_by,
            Self::Label(key) => job.labels.get(key).map_or("", String::as_str),
        }
    }
}

/// What is set of a queue. A queue of which nothing is set has no limits of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// The most that may run, in weights.
    pub max_running: Option<u32>,
    /// The most that may wait, in jobs.
    pub max_queued: Option<u32>,
    /// How often jobs may start.
    pub rate: Option<Rate>,
    /// No job starts.
    pub paused: bool,
    /// Why not.
    pub pause_reason: Option<String>,
    /// Whose jobs take turns.
    pub fair_by: Option<FairBy>,
    /// The priority of jobs that bring none.
    pub default_priority: i32,
}

/// A queue of which something is set.
#[derive(Clone, Debug, PartialEq)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// What is set.
    pub settings: Settings,
    /// Grows on every change of that.
    pub version: u64,
    /// When something was set of it first.
    pub created_at: Timestamp,
    /// When something was set of it last.
    pub changed_at: Timestamp,
}

/// What happens to a job whose key is taken, and to those that have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnConflict {
    /// It waits.
    #[default]
    Queue,
    /// It is not taken.
    Reject,
    /// It waits, and those that wait with the key end.
    Newest,
    /// The same, and what runs with the key is stopped.
    Replace,
}

/// No more than some jobs run under a key at the same time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concurrency {
    /// The key.
    pub key: String,
    /// How many may run, this job among them.
    pub limit: u32,
    /// What happens where that many do.
    pub policy: OnConflict,
}
