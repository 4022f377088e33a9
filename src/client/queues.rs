//! `procession queues`: what is in the queues, and their settings.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::connection::{Client, ConnectArgs};
use super::execute;
use super::failure::Failure;
use super::table::{Align, Colour, Table};
use super::terminal::{self, print, print_json};
use super::text::named;
use super::values::seconds;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct QueuesArgs {
    #[command(subcommand)]
    action: Option<Action>,
    /// Print the queues as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Change settings of a queue; others stay as they are, and `none` removes a limit
    Set(SetArgs),
    /// Start no further job of a queue; running jobs continue
    Pause(PauseArgs),
    /// Start jobs of a paused queue again
    Resume(NameArgs),
    /// Remove the settings of a queue
    Rm(RmArgs),
}

#[derive(Debug, Args)]
struct SetArgs {
    /// Name of the queue
    name: String,
    /// Maximum weight of running jobs
    #[arg(long, value_name = "N|none", value_parser = count)]
    max_running: Option<Value>,
    /// Maximum number of waiting jobs
    #[arg(long, value_name = "N|none", value_parser = count)]
    max_queued: Option<Value>,
    /// Maximum starts in a time, such as 10/60s
    #[arg(long, value_name = "N/TIME|none", value_parser = rate)]
    rate: Option<Value>,
    /// Take turns between creators, or between values of a label
    #[arg(long, value_name = "created_by|label=KEY|none", value_parser = fair_by)]
    fair_by: Option<Value>,
    /// Priority of jobs that set none
    #[arg(long, allow_hyphen_values = true, value_name = "N")]
    default_priority: Option<i64>,
    #[command(flatten)]
    to: To,
}

#[derive(Debug, Args)]
struct PauseArgs {
    /// Name of the queue
    name: String,
    /// Reason to show to those whose jobs wait
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    to: To,
}

#[derive(Debug, Args)]
struct NameArgs {
    /// Name of the queue
    name: String,
    #[command(flatten)]
    to: To,
}

#[derive(Debug, Args)]
struct RmArgs {
    /// Name of the queue
    name: String,
    /// Remove it even if it has jobs, which continue without its limits
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
struct To {
    /// Print the queue as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

fn count(text: &str) -> Result<Value, String> {
    if text == "none" {
        return Ok(Value::Null);
    }
    let count = text.parse::<u32>();
    count
        .map(Value::from)
        .map_err(|_| "a number, or none".to_owned())
}

fn rate(text: &str) -> Result<Value, String> {
    const FORM: &str = "a number and a time such as 10/60s, or none";
    if text == "none" {
        return Ok(Value::Null);
    }
    let (starts, per) = text.split_once('/').ok_or(FORM)?;
    let starts: u32 = starts.parse().map_err(|_| FORM)?;
    Ok(json!({"starts": starts, "per_seconds": seconds(per)?}))
}

fn fair_by(text: &str) -> Result<Value, String> {
    match (text, text.split_once('=')) {
        ("none", _) => Ok(Value::Null),
        ("created_by", _) => Ok(json!("created_by")),
        (_, Some(("label", key))) => Ok(json!({"label": key})),
        _ => Err("created_by, label=KEY or none".to_owned()),
    }
}

/// As much of a queue as is shown.
#[derive(Debug, Deserialize)]
struct Queue {
    name: String,
    max_running: Option<u32>,
    max_queued: Option<u32>,
    rate: Option<Rate>,
    paused: bool,
    pause_reason: Option<String>,
    running: usize,
    running_weight: u64,
    queued: usize,
}

#[derive(Debug, Deserialize)]
struct Rate {
    starts: u32,
    per_seconds: f64,
}

#[derive(Debug, Deserialize)]
struct List {
    queues: Vec<Value>,
}

pub fn run(args: &QueuesArgs) -> ExitCode {
    execute::run(async {
        match &args.action {
            None => list(args).await?,
            Some(Action::Set(set)) => change(&set.name, set.patch(), &set.to).await?,
            Some(Action::Pause(pause)) => {
                let patch = json!({"paused": true, "pause_reason": pause.reason});
                change(&pause.name, patch, &pause.to).await?;
            }
            Some(Action::Resume(resume)) => {
                let patch = json!({"paused": false, "pause_reason": null});
                change(&resume.name, patch, &resume.to).await?;
            }
            Some(Action::Rm(rm)) => {
                let client = Client::new(&rm.connect)?;
                let request = client.request(Method::DELETE, &path(&rm.name));
                let request = request.query(&[("force", rm.force.to_string())]);
                client.send(request).await?;
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn path(name: &str) -> String {
    named("/queues", name)
}

impl SetArgs {
    fn patch(&self) -> Value {
        let fields = [
            ("max_running", self.max_running.clone()),
            ("max_queued", self.max_queued.clone()),
            ("rate", self.rate.clone()),
            ("fair_by", self.fair_by.clone()),
            ("default_priority", self.default_priority.map(Value::from)),
        ];
        let given = fields.into_iter();
        let given = given.filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Value::Object(given.collect::<Map<_, _>>())
    }
}

async fn change(name: &str, patch: Value, to: &To) -> Result<(), Failure> {
    let client = Client::new(&to.connect)?;
    let body = patch.to_string();
    // The same change again changes nothing.
    let request = || {
        let request = client.request(Method::PATCH, &path(name));
        let request = request.header("Content-Type", "application/merge-patch+json");
        request.body(body.clone())
    };
    let queue: Value = client.json(request).await?;
    if to.json {
        print_json(&queue)?;
    }
    Ok(())
}

async fn list(args: &QueuesArgs) -> Result<(), Failure> {
    let client = Client::new(&args.connect)?;
    let list: List = client.json(|| client.get("/queues")).await?;
    if args.json {
        return print_json(&json!({"queues": list.queues}));
    }
    let queues = list.queues.iter().map(|queue| {
        Queue::deserialize(queue).map_err(|error| Failure::NotUnderstood(error.to_string()))
    });
    let queues: Vec<Queue> = queues.collect::<Result<_, _>>()?;
    print(&table(&queues).render(terminal::style()))
}

fn table(queues: &[Queue]) -> Table {
    let mut table = Table::new(&[
        ("QUEUE", Align::Left),
        ("RUNNING", Align::Right),
        ("WAITING", Align::Right),
        ("RATE", Align::Right),
        ("REMARK", Align::Fill),
    ]);
    for queue in queues {
        let of = |most: Option<u32>| most.map(|most| format!("/{most}")).unwrap_or_default();
        let jobs = match queue.running_weight {
            weight if weight == u64::try_from(queue.running).unwrap_or_default() => String::new(),
            _ => format!(" ({} jobs)", queue.running),
        };
        let running = format!("{}{}{jobs}", queue.running_weight, of(queue.max_running));
        let waiting = format!("{}{}", queue.queued, of(queue.max_queued));
        let rate = queue.rate.as_ref();
        let rate = rate.map(|rate| format!("{}/{}s", rate.starts, rate.per_seconds));
        let remark = match (&queue.pause_reason, queue.paused) {
            (Some(reason), true) => format!("paused: {reason}"),
            (None, true) => "paused".to_owned(),
            (_, false) => String::new(),
        };
        let cells = [
            queue.name.as_str(),
            running.as_str(),
            waiting.as_str(),
            rate.as_deref().unwrap_or_default(),
            remark.as_str(),
        ];
        table.row(&cells, queue.paused.then_some((4, Colour::Yellow)));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Style;

    #[test]
    fn a_line_says_how_full_a_queue_is_and_why_it_stands() {
        let queue = json!({"name": "build", "max_running": 4, "max_queued": null,
            "rate": {"starts": 10, "per_seconds": 60}, "paused": true, "pause_reason": "fri\u{1b}day",
            "running": 2, "running_weight": 4, "queued": 17});
        let queue = Queue::deserialize(&queue).unwrap();
        let text = table(&[queue]).render(Style::default());
        let line = text.lines().nth(1).unwrap();
        assert!(line.starts_with("build  4/4 (2 jobs)"), "{line}");
        assert!(line.contains("17  10/60s  paused: fri\\x1bday"), "{line}");
    }

    #[test]
    fn flags_become_a_patch_of_what_they_name() {
        assert_eq!(count("none"), Ok(Value::Null));
        assert_eq!(count("7"), Ok(json!(7)));
        assert!(count("-1").is_err());
        assert_eq!(
            rate("10/1m"),
            Ok(json!({"starts": 10, "per_seconds": 60.0}))
        );
        assert!(rate("10").is_err() && rate("x/1m").is_err() && rate("1/x").is_err());
        assert_eq!(fair_by("label=a/b"), Ok(json!({"label": "a/b"})));
        assert!(fair_by("age").is_err());
    }
}
