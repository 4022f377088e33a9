//! A client that follows: whole lines and records of a body as they come.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Method, Response};
use serde_json::Value;

pub(super) use crate::harness::Lines;
use crate::harness::Server;

pub(super) const NDJSON: &str = "application/x-ndjson";
pub(super) const EVENTS: &str = "text/event-stream";

/// Opens a follow; an error is a server that is being killed.
pub(super) async fn open(
    server: &Server,
    job: &str,
    query: &str,
    headers: &[(&str, &str)],
) -> reqwest::Result<Response> {
    let mut request = server.request(Method::GET, &format!("/jobs/{job}/output?follow&{query}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await
}

pub(super) fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap()
}

impl Lines {
    /// The next record of either form, and the id of its event.
    pub(super) async fn record(&mut self) -> Option<(Value, Option<String>)> {
        let mut event = None;
        loop {
            let line = self.next().await?;
            if line.starts_with('{') {
                return Some((serde_json::from_str(&line).unwrap(), None));
            }
            if let Some(value) = line.strip_prefix("id: ") {
                event = Some(value.to_owned());
            }
            if let Some(data) = line.strip_prefix("data: ") {
                return Some((serde_json::from_str(data).unwrap(), event));
            }
        }
    }

    /// All records up to the end of the body, which must be regular.
    pub(super) async fn all(mut self) -> Vec<Value> {
        let mut records = Vec::new();
        while let Some((record, _)) = self.record().await {
            records.push(record);
        }
        assert!(self.is_whole, "broken off after {records:#?}");
        records
    }
}

/// The bytes of an `output` record.
pub(super) fn bytes_of(record: &Value) -> Vec<u8> {
    match record["text"].as_str() {
        Some(text) => text.as_bytes().to_vec(),
        None => STANDARD.decode(record["base64"].as_str().unwrap()).unwrap(),
    }
}

pub(super) fn joined(records: &[Value]) -> Vec<u8> {
    let output = records.iter().filter(|record| record["type"] == "output");
    output.flat_map(bytes_of).collect()
}
