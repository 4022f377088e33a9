//! What comes back: answers, and the jobs in them.

use reqwest::header::{CONTENT_TYPE, HeaderMap};
use serde_json::Value;

/// An answer that has been checked against the description.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self}"))
    }

    /// The `code` of a problem; empty where it is none.
    pub(crate) fn code(&self) -> String {
        let value: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        value["code"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn content_type(&self) -> &str {
        let full = self.header(CONTENT_TYPE.as_str());
        full.split(';').next().unwrap_or_default().trim()
    }
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body = String::from_utf8_lossy(&self.body);
        let shown: String = body.chars().take(4000).collect();
        write!(f, "{} {:?}\n{shown}", self.status, self.headers)
    }
}

/// Is this the view of a job that has ended?
pub(crate) fn is_finished(job: &Value) -> bool {
    let state = job["state"].as_str().unwrap_or_default();
    ["succeeded", "failed", "canceled", "timed_out", "lost"].contains(&state)
}

/// The id in the view of a job.
pub(crate) fn id(job: &Value) -> String {
    job["id"].as_str().unwrap().to_owned()
}
