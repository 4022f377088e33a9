//! `procession events`: what happened to jobs, and what happens.

use std::process::ExitCode;

use reqwest::RequestBuilder;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::connection::{Client, ConnectArgs};
use super::execute;
use super::failure::Failure;
use super::lookup;
use super::ndjson::Lines;
use super::sanitize::escape;
use super::terminal::print;

#[derive(Debug, clap::Args)]
pub struct EventsArgs {
    /// Only of this job: an id, the beginning of one, or a name.
    #[arg(conflicts_with = "selector")]
    job: Option<String>,
    /// Go on with what comes; with a job until it has ended.
    #[arg(short, long)]
    follow: bool,
    /// Only of this type, such as job.finished; can be repeated, or separated by commas.
    #[arg(short, long = "type", value_name = "TYPE", value_delimiter = ',')]
    types: Vec<String>,
    /// Only of jobs with such labels, such as team=data,!nightly.
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// Only after this cursor, which is the id of an event.
    #[arg(long, value_name = "CURSOR")]
    after: Option<u64>,
    /// Print the events as JSON, one a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// A CloudEvent, as far as people are told of it.
#[derive(Debug, Deserialize)]
struct Event {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    subject: String,
    time: String,
    #[serde(default)]
    data: Map<String, Value>,
}

pub fn run(args: &EventsArgs) -> ExitCode {
    execute::run(async {
        let client = Client::new(&args.connect)?;
        let path = match &args.job {
            Some(job) => format!("/jobs/{}/events", lookup::id(&client, job).await?),
            None => "/events".to_owned(),
        };
        follow(&client, &path, args).await?;
        Ok(ExitCode::SUCCESS)
    })
}

async fn follow(client: &Client, path: &str, args: &EventsArgs) -> Result<(), Failure> {
    let mut lines = Lines::new(client);
    let mut after = args.after;
    // Nothing has come of the present answer.
    let mut is_empty = true;
    loop {
        let Some(line) = lines
            .next(|client| request(client, path, args, after))
            .await?
        else {
            // The time line of a job ends with the job; that of all ends with the service alone.
            if !args.follow || args.job.is_some() && is_empty {
                return Ok(());
            }
            is_empty = true;
            lines.again("the answer broke off".to_owned()).await?;
            continue;
        };
        let event: Event = serde_json::from_slice(&line)
            .map_err(|error| Failure::NotUnderstood(error.to_string()))?;
        is_empty = false;
        after = event.id.parse().ok().or(after);
        if args.json {
            print(&format!("{}\n", String::from_utf8_lossy(&line)))?;
        } else {
            print(&format!("{}\n", describe(&event)))?;
        }
        if args.job.is_some() && event.kind == "job.finished" {
            return Ok(());
        }
    }
}

fn request(client: &Client, path: &str, args: &EventsArgs, after: Option<u64>) -> RequestBuilder {
    let mut request = client.get(path).query(&[("follow", args.follow)]);
    if !args.types.is_empty() {
        request = request.query(&[("type", args.types.join(","))]);
    }
    if let Some(selector) = &args.selector {
        request = request.query(&[("label_selector", selector)]);
    }
    if let Some(after) = after {
        request = request.query(&[("after", after)]);
    }
    request
}

/// When, what, which job, and what the event says of it.
fn describe(event: &Event) -> String {
    let kind = event.kind.strip_prefix("job.").unwrap_or(&event.kind);
    let mut line = format!("{}  {kind:<10}  {}", event.time, event.subject);
    for (key, value) in &event.data {
        // Of a job rather than of the event, or said by it already.
        if matches!(key.as_str(), "version" | "attempt" | "labels" | "state") || value.is_null() {
            continue;
        }
        let shown = match value {
            Value::String(text) => text.clone(),
            Value::Object(exit) => match (exit.get("code"), exit.get("signal")) {
                (Some(code), _) if !code.is_null() => code.to_string(),
                (_, Some(Value::String(signal))) => signal.clone(),
                (_, _) => value.to_string(),
            },
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => value.to_string(),
        };
        line.push_str(&format!("  {key}={shown}"));
    }
    escape(&line).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_one_harmless_line() {
        let event = json!({"id": "7", "type": "job.finished", "subject": "0198", "time": "2026-01-31T12:00:01Z",
            "data": {"name": "a\n\u{1b}b", "labels": {}, "state": "failed", "version": 3, "attempt": 1,
                "cause": "exited", "exit": {"code": 3, "signal": null}, "reason": null}});
        let line = describe(&serde_json::from_value(event).unwrap());
        assert!(
            line.starts_with("2026-01-31T12:00:01Z  finished    0198  "),
            "{line}"
        );
        for part in ["  name=a\\n\\x1bb", "  cause=exited", "  exit=3"] {
            assert!(line.contains(part), "{line}");
        }
        assert!(
            !line.contains("reason") && !line.contains("labels"),
            "{line}"
        );
    }
}
