//! What a shell may complete from: the jobs, labels and queues that the service has now.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::pin::Pin;
use std::time::Duration;

use clap::{Args, Command, FromArgMatches};
use serde_json::Value;
use tokio::time::timeout;

use super::connection::{Client, ConnectArgs};
use super::failure::Failure;
use super::lookup::{self, Page};
use super::view::Job;

/// A shell that waits is worse than one that knows less.
const PATIENCE: Duration = Duration::from_secs(2);
/// The newest jobs, as many as one page has.
const NEWEST: &str = "200";

/// What can be completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Names and ids of jobs.
    Jobs,
    /// Those of jobs that have not ended.
    LiveJobs,
    /// `KEY=VALUE`
    Labels,
    /// Names of queues.
    Queues,
}

/// The words for it, each with what it is. Nothing if the service does not answer.
///
/// `line` is the command line so far: it may name the service.
#[must_use]
pub fn candidates(what: What, line: &[OsString]) -> Vec<(String, String)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let (Ok(runtime), Some(connect)) = (runtime, connection(line)) else {
        return Vec::new();
    };
    let asking = async { timeout(PATIENCE, ask(what, &connect)).await };
    let asking: Pin<Box<dyn Future<Output = _> + '_>> = Box::pin(asking);
    let found = runtime.block_on(asking);
    found.ok().and_then(Result::ok).unwrap_or_default()
}

/// The flags of a line that say which service is meant.
fn connection(line: &[OsString]) -> Option<ConnectArgs> {
    let command = ConnectArgs::augment_args(Command::new("procession"));
    let flags: Vec<String> = command
        .get_arguments()
        .filter_map(|arg| arg.get_long().map(|long| format!("--{long}")))
        .collect();
    let mut kept = vec![OsStr::new("procession").to_owned()];
    let mut words = line.iter().peekable();
    while let Some(word) = words.next() {
        let text = word.to_string_lossy();
        if flags.iter().any(|flag| *flag == text) {
            kept.push(word.clone());
            kept.extend(words.next().cloned());
        } else if flags
            .iter()
            .any(|flag| text.starts_with(&format!("{flag}=")))
        {
            kept.push(word.clone());
        }
    }
    let matches = command.try_get_matches_from(kept).ok()?;
    ConnectArgs::from_arg_matches(&matches).ok()
}

async fn ask(what: What, connect: &ConnectArgs) -> Result<Vec<(String, String)>, Failure> {
    let client = Client::new(connect)?;
    if what == What::Queues {
        let answer: Value = client.json(|| client.get("/queues")).await?;
        let names = answer["queues"].as_array().into_iter().flatten();
        let names = names.filter_map(|queue| queue["name"].as_str());
        return Ok(names.map(|name| (name.to_owned(), String::new())).collect());
    }
    let view = ("view", "basic".to_owned());
    let mut query = vec![("page_size", NEWEST.to_owned()), view];
    if what == What::LiveJobs {
        query.push(("state", lookup::live_states()));
    }
    let page: Page = client.json(|| client.get("/jobs").query(&query)).await?;
    if what == What::Labels {
        let labels: BTreeSet<String> = page.jobs.iter().flat_map(labels_of).collect();
        return Ok(labels.into_iter().map(|it| (it, String::new())).collect());
    }
    let jobs: Result<Vec<Job>, Failure> = page.jobs.iter().map(Job::read).collect();
    Ok(words_for(&jobs?))
}

fn labels_of(job: &Value) -> Vec<String> {
    let labels = job["labels"].as_object().into_iter().flatten();
    labels
        .filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)))
        .collect()
}

/// Each name once, with its newest job, and each id.
fn words_for(jobs: &[Job]) -> Vec<(String, String)> {
    let what = |job: &Job| format!("{}: {}", job.state, job.program());
    let mut seen = BTreeSet::new();
    let names = jobs.iter().filter_map(|job| {
        let name = job.name.as_deref()?;
        seen.insert(name).then(|| (name.to_owned(), what(job)))
    });
    let names: Vec<(String, String)> = names.collect();
    let ids = jobs.iter().map(|job| (job.id.clone(), what(job)));
    names.into_iter().chain(ids).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_which_service_is_meant() {
        let line = [
            "procession",
            "--",
            "procession",
            "logs",
            "--url=http://a:1",
            "-f",
        ];
        let line: Vec<OsString> = line.iter().map(OsString::from).collect();
        assert_eq!(connection(&line).unwrap().url(), Some("http://a:1"));
        let line: Vec<OsString> = ["procession", "stop", "--url", "http://b:2", ""]
            .iter()
            .map(OsString::from)
            .collect();
        assert_eq!(connection(&line).unwrap().url(), Some("http://b:2"));
        // A flag that is being typed.
        let line = [OsString::from("procession"), OsString::from("--url")];
        assert!(connection(&line).is_none());
    }

    #[test]
    fn a_name_is_there_once_and_before_the_ids() {
        let job = |id: &str, name: Value| {
            let value = serde_json::json!({"id": id, "name": name, "state": "running",
                "created_at": "2026-01-31T12:00:00Z", "spec": {"command": ["make", "all"]}});
            Job::read(&value).unwrap()
        };
        let jobs = [
            job("0198c1d2-7b3a-7c4e-9f10-2a6b3c4d5e6f", "web".into()),
            job("0198c1d2-7b3b-7c4e-9f10-2a6b3c4d5e6f", "web".into()),
            job("0198c1d2-7b3c-7c4e-9f10-2a6b3c4d5e6f", Value::Null),
        ];
        let words: Vec<String> = words_for(&jobs).into_iter().map(|(word, _)| word).collect();
        assert_eq!(words.len(), 4);
        assert_eq!(words[0], "web");
        assert_eq!(words[1], jobs[0].id);
    }
}
