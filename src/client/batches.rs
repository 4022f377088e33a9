//! `procession batch` and `procession batches`: many jobs that are submitted, shown and stopped together.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::connection::{Client, ConnectArgs};
use super::failure::Failure;
use super::ndjson::Lines;
use super::sanitize::escape;
use super::table::{Align, Colour, Table};
use super::terminal::{self, print, print_json};
use super::values::json_object;
use super::{execute, run};
use job::time::Timestamp;
use protocol::stderr::complain;

#[derive(Debug, Args)]
pub struct BatchArgs {
    /// JSON file with the body of POST /batches, or - for standard input
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    file: PathBuf,
    /// Print each job when it ends, and exit with 0 only if all succeeded
    #[arg(long)]
    follow: bool,
    /// Print the batch as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub struct BatchesArgs {
    /// Show at most N batches, newest first
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// Print the batches as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// As much of a batch as is shown.
#[derive(Debug, Deserialize)]
struct Batch {
    id: String,
    name: Option<String>,
    state: String,
    total: u64,
    counts: Map<String, Value>,
    created_at: Timestamp,
    finished_at: Option<Timestamp>,
    max_running: Option<u64>,
    on_failure: Option<String>,
}

/// As much of an event as is shown.
#[derive(Debug, Deserialize)]
struct Event {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    subject: String,
    data: EventData,
}

#[derive(Debug, Deserialize)]
struct EventData {
    name: Option<String>,
    key: Option<String>,
    index: Option<u32>,
    state: String,
    cause: Option<String>,
}

impl Event {
    /// How a job has ended. It is named by its key, with its number if there are several of that.
    fn line(self, entries: &Value) -> String {
        let data = self.data;
        let name = match (data.key, data.index) {
            (Some(key), Some(index)) if entries[&key].is_object() => format!("{key}[{index}]"),
            (Some(key), _) => key,
            (None, _) => self.subject,
        };
        let cause = data.cause.filter(|cause| cause != "exited");
        let words = [Some(name), Some(data.state), cause, data.name];
        words.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}

fn read<'a, T: Deserialize<'a>>(value: &'a Value) -> Result<T, Failure> {
    T::deserialize(value).map_err(|error| Failure::NotUnderstood(error.to_string()))
}

impl Batch {
    /// How many jobs are in which state, without those in which none is.
    fn counts(&self) -> String {
        let some = self.counts.iter();
        let some = some.filter(|(_, count)| **count != json!(0));
        let some: Vec<String> = some
            .map(|(state, count)| format!("{count} {state}"))
            .collect();
        some.join(", ")
    }
}

pub fn batch(args: &BatchArgs) -> ExitCode {
    execute::run(async {
        let body = json_object(&args.file)?;
        let client = Client::new(&args.connect)?;
        let value = run::create(&client, "/batches", &body).await?;
        let id = read::<Batch>(&value)?.id;
        if !args.follow {
            if args.json {
                print_json(&value)?;
            } else {
                print(&format!("{id}\n"))?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        complain(&format!("batch {id}"));
        follow(&client, &id, &value["jobs"], args.json).await?;
        let value = get(&client, &id).await?;
        let batch: Batch = read(&value)?;
        if args.json {
            print_json(&value)?;
        } else {
            complain(&format!("{}: {}", batch.state, batch.counts()));
        }
        Ok(if batch.state == "succeeded" {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(super::failure::FAILED)
        })
    })
}

/// Prints a line for each job that ends, until the last of them has. `entries` are those of the batch.
async fn follow(client: &Client, id: &str, entries: &Value, quiet: bool) -> Result<(), Failure> {
    let mut after: Option<u64> = None;
    let mut lines = Lines::new(client);
    loop {
        let cursor = after;
        let request = |client: &Client| {
            let request = client.get("/events").query(&[
                ("follow", "true"),
                ("batch", id),
                ("type", "job.finished,batch.finished"),
            ]);
            match cursor {
                Some(after) => request.query(&[("after", after)]),
                None => request,
            }
        };
        let Some(line) = lines.next(request).await? else {
            lines.again("the answer broke off".to_owned()).await?;
            continue;
        };
        let event: Event = serde_json::from_slice(&line)
            .map_err(|error| Failure::NotUnderstood(error.to_string()))?;
        after = event.id.parse().ok().or(cursor);
        if event.kind == "batch.finished" {
            return Ok(());
        }
        if !quiet {
            print(&format!("{}\n", escape(&event.line(entries))))?;
        }
    }
}

pub fn list(args: &BatchesArgs) -> ExitCode {
    execute::run(async {
        let client = Client::new(&args.connect)?;
        let mut batches: Vec<Value> = Vec::new();
        let mut token: Option<String> = None;
        while batches.len() < args.limit {
            let size = (args.limit - batches.len()).min(1000);
            let page: Page = client
                .json(|| {
                    let request = client.get("/batches").query(&[("page_size", size)]);
                    match &token {
                        Some(token) => request.query(&[("page_token", token)]),
                        None => request,
                    }
                })
                .await?;
            batches.extend(page.batches);
            token = page.next_page_token;
            if token.is_none() {
                break;
            }
        }
        if args.json {
            print_json(&json!({"batches": batches}))?;
            return Ok(ExitCode::SUCCESS);
        }
        let batches: Vec<Batch> = batches.iter().map(read).collect::<Result<_, _>>()?;
        print(&table(&batches).render(terminal::style()))?;
        Ok(ExitCode::SUCCESS)
    })
}

#[derive(Debug, Deserialize)]
struct Page {
    batches: Vec<Value>,
    next_page_token: Option<String>,
}

fn table(batches: &[Batch]) -> Table {
    let mut table = Table::new(&[
        ("BATCH", Align::Left),
        ("NAME", Align::Left),
        ("STATE", Align::Left),
        ("JOBS", Align::Right),
        ("COUNTS", Align::Fill),
    ]);
    for batch in batches {
        let total = batch.total.to_string();
        let counts = batch.counts();
        let cells = [
            batch.id.as_str(),
            batch.name.as_deref().unwrap_or_default(),
            batch.state.as_str(),
            total.as_str(),
            counts.as_str(),
        ];
        table.row(
            &cells,
            (batch.state == "failed").then_some((2, Colour::Red)),
        );
    }
    table
}

/// A batch by its id.
pub(super) async fn get(client: &Client, id: &str) -> Result<Value, Failure> {
    let path = format!("/batches/{id}");
    client.json(|| client.get(&path)).await
}

/// What people want to know about a batch, a line each.
pub(super) fn describe(value: &Value) -> Result<String, Failure> {
    let batch: Batch = read(value)?;
    let lines = [
        ("batch", Some(batch.id.clone())),
        ("name", batch.name.clone()),
        ("state", Some(batch.state.clone())),
        ("jobs", Some(batch.total.to_string())),
        ("counts", Some(batch.counts())),
        ("at once", batch.max_running.map(|most| most.to_string())),
        ("on failure", batch.on_failure.filter(|it| it != "continue")),
        ("created", Some(batch.created_at.to_string())),
        ("finished", batch.finished_at.map(|at| at.to_string())),
    ];
    let lines = lines.into_iter();
    let lines = lines.filter_map(|(what, text)| Some(format!("{what:<12}{}\n", escape(&text?))));
    Ok(lines.collect())
}

/// Stops all jobs of a batch, and waits until they have ended if that is wanted.
pub(super) async fn stop(
    client: &Client,
    id: &str,
    query: &[(&str, String)],
    waits: bool,
    purge: bool,
) -> Result<Value, Failure> {
    let path = format!("/batches/{id}");
    let request = || client.request(Method::DELETE, &path).query(query);
    let mut value: Value = client.json(request).await?;
    while waits && value["finished_at"].is_null() {
        let request = || {
            let wait = client.hold().as_secs_f64();
            client.get(&path).query(&[("wait", wait)])
        };
        value = client.json(request).await?;
    }
    if purge {
        let request = || {
            let request = client.request(Method::DELETE, &path);
            request.query(&[("purge", true)])
        };
        client.send_repeatedly(request).await?;
    }
    Ok(value)
}

/// One line: its id and state.
pub(super) fn line(value: &Value) -> Result<String, Failure> {
    let batch: Batch = read(value)?;
    Ok(format!("{} {}\n", batch.id, batch.state))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Style;

    #[test]
    fn a_job_that_has_ended_is_named_by_its_key() {
        let entries = json!({"one": "0198", "many": {"first": "0199", "count": 2}});
        for (data, expected) in [
            (
                json!({"key": "one", "index": 0, "cause": "exited"}),
                "one failed",
            ),
            (
                json!({"key": "many", "index": 1, "name": "n", "cause": "timeout"}),
                "many[1] failed timeout n",
            ),
            (json!({}), "0198 failed"),
        ] {
            let mut data = data;
            data["state"] = json!("failed");
            let event = json!({"id": "7", "type": "job.finished", "subject": "0198", "data": data});
            assert_eq!(read::<Event>(&event).unwrap().line(&entries), expected);
        }
    }

    #[test]
    fn a_line_says_how_far_a_batch_is() {
        let value = json!({"id": "0198", "name": "night\u{1b}ly", "state": "running", "total": 7,
            "counts": {"failed": 0, "queued": 4, "succeeded": 3}, "created_at": "2026-01-31T12:00:01Z",
            "finished_at": null, "max_running": 2, "on_failure": "continue"});
        let batch: Batch = read(&value).unwrap();
        let text = table(&[batch]).render(Style::default());
        let line = text.lines().nth(1).unwrap();
        assert!(
            line.contains("0198   night\\x1bly  running     7  4 queued, 3 succeeded"),
            "{line}"
        );
        let text = describe(&value).unwrap();
        assert!(
            text.contains("at once     2\n") && !text.contains("on failure"),
            "{text}"
        );
    }
}
