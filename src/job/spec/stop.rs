//! How a stop goes, and when a job counts as over.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Signal;
use crate::seconds;

/// Which processes of the job a signal goes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// The leader's process group.
    #[default]
    Group,
    /// The leader alone.
    Leader,
    /// Every process of the job.
    All,
}

/// What a stop does before the final kill, which always takes every process of the job.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StopPolicy {
    /// What is sent first.
    pub signal: Signal,
    /// How long the job may take to end after it.
    #[serde(rename = "grace_seconds", with = "seconds")]
    pub grace: Duration,
    /// Whom it is sent to.
    pub scope: Scope,
}

impl Default for StopPolicy {
    fn default() -> Self {
        Self {
            signal: Signal::TERM,
            grace: Duration::from_secs(10),
            scope: Scope::default(),
        }
    }
}

/// What a job hears before its timeout.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TimeoutWarning {
    /// How long before.
    #[serde(rename = "before_seconds", with = "seconds")]
    pub before: Duration,
    /// What is sent; without it, only clients hear of it.
    pub signal: Option<Signal>,
    /// Whom it is sent to.
    pub scope: Scope,
}

/// When a job counts as over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitFor {
    /// The leader's exit ends the job; what is left of it is stopped.
    #[default]
    Leader,
    /// The job runs until its last process has ended.
    All,
}
