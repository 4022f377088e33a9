//! `procession schedules`, `schedule` and `crontab`: jobs that are made again and again.

mod crontab;

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::connection::{Client, ConnectArgs};
use super::execute;
use super::failure::Failure;
use super::run::spec::{Here, SpecArgs};
use super::table::{Align, Colour, Table};
use super::terminal::{self, print, print_json};
use super::text::named;
use super::values::{moment, seconds};
use super::view::Job;
pub use crontab::{CrontabArgs, import};
use job::time::Timestamp;

#[derive(Debug, Args)]
pub struct SchedulesArgs {
    /// Print the schedules as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub struct ScheduleArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Create a schedule, or replace it
    Set(Box<SetArgs>),
    /// Run the job of a schedule now, even if it is paused
    Run(NameArgs),
    /// Make no further job until a resume; running jobs continue
    Pause(NameArgs),
    /// Continue from now on; what was due meanwhile is not made up for
    Resume(NameArgs),
    /// Remove a schedule; its jobs stay
    Rm(NameArgs),
    /// Show when a schedule is due next
    Times(TimesArgs),
}

#[derive(Debug, Args)]
struct SetArgs {
    /// Name of the schedule
    #[arg(value_name = "NAME")]
    schedule: String,
    /// Crontab line such as '0 3 * * *', or @hourly, @daily, @weekly, @monthly, @yearly
    #[arg(long, value_name = "LINE", conflicts_with_all = ["every", "on"])]
    cron: Option<String>,
    /// Time between two jobs
    #[arg(long, value_name = "TIME", value_parser = seconds, conflicts_with = "on")]
    every: Option<f64>,
    /// Moment to run at; can be repeated
    #[arg(long, value_name = "MOMENT", value_parser = moment)]
    on: Vec<Timestamp>,
    /// Time zone of the crontab line [default: UTC]
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
    /// What to do if the last job has not ended [default: skip]
    #[arg(long, value_enum, value_name = "WHAT")]
    overlap: Option<Overlap>,
    /// What to do about times when the service was down [default: latest]
    #[arg(long, value_enum, value_name = "WHAT")]
    missed: Option<Missed>,
    /// How long ago a time may be to be made up for [default: 1h]
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    missed_within: Option<f64>,
    /// Delay every run by the same part of TIME, which depends on the name [default: 0]
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    jitter: Option<f64>,
    /// Create it paused
    #[arg(long)]
    paused: bool,
    /// Print the schedule as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    job: SpecArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Overlap {
    /// Run beside it
    Allow,
    /// Do nothing
    Skip,
    /// Wait for its end; one at most waits
    Queue,
    /// Stop it first
    Replace,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Missed {
    /// Run once
    Latest,
    /// Run for each, up to a hundred
    All,
    /// Do nothing
    Skip,
}

#[derive(Debug, Args)]
struct NameArgs {
    /// Name of the schedule
    name: String,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
struct TimesArgs {
    /// Name of the schedule
    name: String,
    /// How many times
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
    count: u32,
    /// Print them as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// As much of a schedule as is shown.
#[derive(Debug, Deserialize)]
struct Schedule {
    name: String,
    cron: Option<String>,
    every_seconds: Option<u64>,
    at: Option<Vec<String>>,
    time_zone: String,
    paused: bool,
    next_due_at: Option<String>,
    last: Option<Last>,
    runs: u64,
    skipped: u64,
}

#[derive(Debug, Deserialize)]
struct Last {
    due_at: String,
    outcome: String,
    reason: Option<String>,
}

/// `procession schedules`
pub fn list(args: &SchedulesArgs) -> ExitCode {
    execute::run(async {
        let client = Client::new(&args.connect)?;
        let list: Value = client.json(|| client.get("/schedules")).await?;
        if args.json {
            print_json(&list)?;
            return Ok(ExitCode::SUCCESS);
        }
        let schedules = Vec::<Schedule>::deserialize(&list["schedules"])
            .map_err(|error| Failure::NotUnderstood(error.to_string()))?;
        print(&table(&schedules).render(terminal::style()))?;
        Ok(ExitCode::SUCCESS)
    })
}

/// `procession schedule`
pub fn run(args: &ScheduleArgs) -> ExitCode {
    execute::run(async {
        match &args.action {
            Action::Set(set) => set_up(set).await?,
            Action::Run(name) => {
                let client = Client::new(&name.connect)?;
                let request = client.post(&format!("{}/run", path(&name.name)));
                // Sent once: whether a broken request has made a job cannot be known.
                let answer = client.send(request).await?;
                let answer = answer.bytes().await.unwrap_or_default();
                let answer: Value = serde_json::from_slice(&answer)
                    .map_err(|error| Failure::NotUnderstood(error.to_string()))?;
                if name.json {
                    print_json(&answer)?;
                } else {
                    print(&format!("{}\n", Job::read(&answer)?.id))?;
                }
            }
            Action::Pause(name) => pause(name, true).await?,
            Action::Resume(name) => pause(name, false).await?,
            Action::Rm(name) => {
                let client = Client::new(&name.connect)?;
                let request = client.request(Method::DELETE, &path(&name.name));
                client.send(request).await?;
            }
            Action::Times(times) => {
                let client = Client::new(&times.connect)?;
                let path = format!("{}/times", path(&times.name));
                let query = [("count", times.count)];
                let request = || client.get(&path).query(&query);
                let answer: Value = client.json(request).await?;
                if times.json {
                    print_json(&answer)?;
                } else {
                    for time in answer["times"].as_array().into_iter().flatten() {
                        print(&format!("{}\n", time.as_str().unwrap_or_default()))?;
                    }
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

async fn set_up(args: &SetArgs) -> Result<(), Failure> {
    let directory = std::env::current_dir().unwrap_or_default();
    let here = Here {
        directory: &directory,
        variable: |name| std::env::var(name).ok(),
    };
    let job = args.job.body(&here)?;
    if !args.job.apart(&directory)?.is_empty() {
        let why = "--in takes files of 512 KiB together here: they are part of the schedule";
        return Err(Failure::Usage(why.to_owned()));
    }
    let client = Client::new(&args.connect)?;
    let schedule = put(&client, &args.schedule, &args.body(job)?).await?;
    if args.json {
        print_json(&schedule)?;
    }
    Ok(())
}

async fn put(client: &Client, name: &str, body: &Value) -> Result<Value, Failure> {
    let body = body.to_string();
    // The same again changes nothing.
    let request = || {
        let request = client.request(Method::PUT, &path(name));
        let request = request.header("Content-Type", "application/json");
        request.body(body.clone())
    };
    client.json(request).await
}

impl SetArgs {
    fn body(&self, job: Map<String, Value>) -> Result<Value, Failure> {
        let word =
            |value: Option<clap::builder::PossibleValue>| value.map(|it| json!(it.get_name()));
        let whole = |seconds: Option<f64>, flag: &str| match seconds {
            Some(seconds) if seconds.fract() != 0.0 => {
                Err(Failure::Usage(format!("{flag} takes whole seconds")))
            }
            Some(seconds) => Ok(Some(json!(seconds))),
            None => Ok(None),
        };
        let on = (!self.on.is_empty()).then(|| json!(self.on));
        let fields = [
            ("cron", self.cron.as_ref().map(|line| json!(line))),
            ("every_seconds", whole(self.every, "--every")?),
            ("at", on),
            ("time_zone", self.zone.as_ref().map(|zone| json!(zone))),
            (
                "overlap",
                word(self.overlap.and_then(|it| it.to_possible_value())),
            ),
            (
                "missed",
                word(self.missed.and_then(|it| it.to_possible_value())),
            ),
            (
                "missed_within_seconds",
                whole(self.missed_within, "--missed-within")?,
            ),
            ("jitter_seconds", whole(self.jitter, "--jitter")?),
            ("paused", self.paused.then_some(json!(true))),
            ("job", Some(Value::Object(job))),
        ];
        let given = fields.into_iter();
        let given = given.filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Ok(Value::Object(given.collect()))
    }
}

async fn pause(args: &NameArgs, paused: bool) -> Result<(), Failure> {
    let client = Client::new(&args.connect)?;
    let body = json!({"paused": paused}).to_string();
    // The same change again changes nothing.
    let request = || {
        let request = client.request(Method::PATCH, &path(&args.name));
        let request = request.header("Content-Type", "application/merge-patch+json");
        request.body(body.clone())
    };
    let schedule: Value = client.json(request).await?;
    if args.json {
        print_json(&schedule)?;
    }
    Ok(())
}

fn path(name: &str) -> String {
    named("/schedules", name)
}

fn table(schedules: &[Schedule]) -> Table {
    let mut table = Table::new(&[
        ("SCHEDULE", Align::Left),
        ("WHEN", Align::Left),
        ("NEXT", Align::Left),
        ("LAST", Align::Left),
        ("RUNS", Align::Right),
        ("SKIPPED", Align::Right),
    ]);
    for schedule in schedules {
        let when = match (&schedule.cron, schedule.every_seconds, &schedule.at) {
            (Some(line), _, _) => format!("{line} {}", schedule.time_zone),
            (None, Some(seconds), _) => format!("every {seconds}s"),
            (None, None, moments) => {
                format!("{} moments", moments.as_ref().map_or(0, Vec::len))
            }
        };
        let next = match &schedule.next_due_at {
            _ if schedule.paused => "paused".to_owned(),
            Some(at) => shown(at),
            None => "never".to_owned(),
        };
        let last = schedule.last.as_ref().map_or_else(String::new, |last| {
            let what = last.reason.as_ref().unwrap_or(&last.outcome);
            format!("{} {what}", shown(&last.due_at))
        });
        let (runs, skipped) = (schedule.runs.to_string(), schedule.skipped.to_string());
        let cells = [&schedule.name, &when, &next, &last, &runs, &skipped];
        let cells = cells.map(String::as_str);
        table.row(&cells, schedule.paused.then_some((2, Colour::Yellow)));
    }
    table
}

/// A moment without parts of a second.
fn shown(at: &str) -> String {
    match at.split_once('.') {
        Some((whole, _)) => format!("{whole}Z"),
        None => at.to_owned(),
    }
}
