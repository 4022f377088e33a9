//! The labels of the series. None of them holds an id or a value that there is no bound on.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;

use job::Job;

/// What stands for the values of a label that have come after [`VALUES_MAX`] others, and for queues of which nothing is
/// set.
pub(super) const OTHER: &str = "other";

/// The most values that one label takes.
const VALUES_MAX: usize = 100;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct Ended {
    pub(super) state: &'static str,
    pub(super) cause: &'static str,
    #[prometheus(flatten)]
    pub(super) chosen: Chosen,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct Ran {
    pub(super) queue: Arc<str>,
    pub(super) state: &'static str,
    #[prometheus(flatten)]
    pub(super) chosen: Chosen,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct State {
    pub(super) state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct Queue {
    pub(super) queue: Arc<str>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct QueueState {
    pub(super) queue: Arc<str>,
    pub(super) state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct Attempted {
    pub(super) outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct Escalated {
    pub(super) escalated: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct Mode {
    pub(super) mode: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct Stream {
    pub(super) stream: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct Reason {
    pub(super) reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct Code {
    pub(super) code: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct Outcome {
    pub(super) result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct Kind {
    pub(super) kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct Schedule {
    pub(super) schedule: Arc<str>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct Request {
    pub(super) method: &'static str,
    pub(super) route: &'static str,
    pub(super) status: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct Build {
    pub(super) version: String,
    pub(super) commit: String,
}

/// What an exemplar names; series have no such label.
#[derive(Clone, Debug, EncodeLabelSet)]
pub(super) struct Traced {
    trace_id: String,
}

impl Traced {
    pub(super) fn new(trace_id: String) -> Self {
        Self { trace_id }
    }
}

/// The values that a label has taken up to now.
#[derive(Debug, Default)]
pub(super) struct Values(Mutex<BTreeSet<Arc<str>>>);

impl Values {
    /// The value as the series have it: itself if it is one of the first, else [`OTHER`].
    pub(super) fn of(&self, value: &str) -> Arc<str> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(value) {
            return known.clone();
        }
        if known.len() >= VALUES_MAX {
            return OTHER.into();
        }
        let value: Arc<str> = value.into();
        known.insert(value.clone());
        value
    }
}

/// Labels of a job that the operator has chosen, with their values.
pub(super) type Chosen = Vec<(Arc<str>, Arc<str>)>;

/// A label of jobs whose values the operator wants to see.
#[derive(Debug)]
pub(super) struct Choice {
    /// In the labels of a job.
    key: String,
    /// In the series.
    name: Arc<str>,
    values: Values,
}

impl Choice {
    pub(super) fn new(key: &str) -> Self {
        Self {
            key: key.to_owned(),
            name: label_name(key).into(),
            values: Values::default(),
        }
    }

    /// The label as the series of this job have it; an empty value is the same as no label.
    pub(super) fn of(&self, job: &Job) -> (Arc<str>, Arc<str>) {
        let value = job.labels.get(&self.key).map_or("", String::as_str);
        (self.name.clone(), self.values.of(value))
    }
}

/// The name of a job's label in the series: `label_` and the key, each character that a name cannot have as `_`.
#[must_use]
pub fn label_name(key: &str) -> String {
    let word = |it: char| if it.is_ascii_alphanumeric() { it } else { '_' };
    let key: String = key.chars().map(word).collect();
    format!("label_{key}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_takes_the_first_hundred_values() {
        let values = Values::default();
        for number in 0..VALUES_MAX {
            let value = number.to_string();
            assert_eq!(&*values.of(&value), value);
        }
        assert_eq!(&*values.of("new"), OTHER);
        assert_eq!(&*values.of("7"), "7", "one of the first stays itself");
    }

    #[test]
    fn a_key_becomes_a_name() {
        assert_eq!(label_name("team"), "label_team");
        assert_eq!(
            label_name("example.org/cost-centre"),
            "label_example_org_cost_centre"
        );
    }
}
