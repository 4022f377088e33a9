//! `procession events`: what happened to jobs, and what happens.

use std::collections::VecDeque;
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
use super::stdio::reader_gone;
use super::terminal::print;

#[derive(Debug, clap::Args)]
pub struct EventsArgs {
    /// Show events of this job only: ID, unique prefix of one, or name
    #[arg(conflicts_with = "selector")]
    job: Option<String>,
    /// Follow new events; with JOB, until it ends
    #[arg(short, long)]
    follow: bool,
    /// Show events of this type only, such as job.finished; repeat or separate with commas
    #[arg(short, long = "type", value_name = "TYPE", value_delimiter = ',')]
    types: Vec<String>,
    /// Show events of jobs whose labels match, such as team=data,!nightly
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// Show only the last N events before following
    #[arg(short = 'n', long, value_name = "N")]
    tail: Option<usize>,
    /// Start after this cursor, the ID of an event
    #[arg(long, value_name = "CURSOR")]
    after: Option<u64>,
    /// Print events as JSON, one per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// A CloudEvent, as much of it as is shown.
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
        tokio::select! {
            followed = show(&client, &path, args) => followed?,
            () = reader_gone() => return Err(Failure::ReaderGone),
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Shows the events; with `--tail`, those that there are are read first, and the last of them shown.
async fn show(client: &Client, path: &str, args: &EventsArgs) -> Result<(), Failure> {
    let mut after = args.after;
    if let Some(tail) = args.tail {
        let mut last = VecDeque::new();
        let mut has_ended = false;
        each(client, path, args, false, &mut after, |event, line| {
            has_ended = is_end(args, event);
            last.push_back(shown(args, event, line));
            if last.len() > tail {
                last.pop_front();
            }
            Ok(())
        })
        .await?;
        print(&last.into_iter().collect::<String>())?;
        if has_ended || !args.follow {
            return Ok(());
        }
    }
    each(
        client,
        path,
        args,
        args.follow,
        &mut after,
        |event, line| print(&shown(args, event, line)),
    )
    .await
}

/// Is nothing to follow after this event?
fn is_end(args: &EventsArgs, event: &Event) -> bool {
    args.job.is_some() && event.kind == "job.finished"
}

fn shown(args: &EventsArgs, event: &Event, line: &[u8]) -> String {
    if args.json {
        format!("{}\n", String::from_utf8_lossy(line))
    } else {
        format!("{}\n", describe(event))
    }
}

/// Gives away the events after a cursor, and moves it.
async fn each(
    client: &Client,
    path: &str,
    args: &EventsArgs,
    follow: bool,
    after: &mut Option<u64>,
    mut take: impl FnMut(&Event, &[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut lines = Lines::new(client);
    // Nothing has come of the present answer.
    let mut is_empty = true;
    loop {
        let cursor = *after;
        let Some(line) = lines
            .next(|client| request(client, path, args, follow, cursor))
            .await?
        else {
            // The time line of a job ends with the job; that of all ends with the service alone.
            if !follow || args.job.is_some() && is_empty {
                return Ok(());
            }
            is_empty = true;
            lines.again("the answer broke off".to_owned()).await?;
            continue;
        };
        let event: Event = serde_json::from_slice(&line)
            .map_err(|error| Failure::NotUnderstood(error.to_string()))?;
        is_empty = false;
        *after = event.id.parse().ok().or(cursor);
        take(&event, &line)?;
        if is_end(args, &event) {
            return Ok(());
        }
    }
}

fn request(
    client: &Client,
    path: &str,
    args: &EventsArgs,
    follow: bool,
    after: Option<u64>,
) -> RequestBuilder {
    let mut request = client.get(path).query(&[("follow", follow)]);
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

/// Time, type, job, and the rest of the event.
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
