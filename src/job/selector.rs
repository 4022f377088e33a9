//! Label selectors in the syntax of Kubernetes: `a=b,c!=d,e in (x,y),f notin (z),g,!h`.

use std::collections::BTreeMap;

/// One condition on a job's labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// The label exists and has one of these values (`a=b`, `a==b`, `a in (b,c)`).
    In(String, Vec<String>),
    /// The label is absent or has none of these values (`a!=b`, `a notin (b,c)`).
    NotIn(String, Vec<String>),
    /// The label exists (`a`).
    Exists(String),
    /// The label is absent (`!a`).
    NotExists(String),
}

/// Conditions that must all hold. An empty selector matches every job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// The conditions.
    pub requirements: Vec<Requirement>,
}

impl Selector {
    /// Do these labels fulfil every condition?
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.requirements
            .iter()
            .all(|requirement| match requirement {
                Requirement::In(key, values) => {
                    labels.get(key).is_some_and(|value| values.contains(value))
                }
                Requirement::NotIn(key, values) => {
                    labels.get(key).is_none_or(|value| !values.contains(value))
                }
                Requirement::Exists(key) => labels.contains_key(key),
                Requirement::NotExists(key) => !labels.contains_key(key),
            })
    }
}
