//! `procession show` and `procession ps`: the state of jobs.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use super::connection::{Client, ConnectArgs};
use super::describe::describe;
use super::execute;
use super::failure::Failure;
use super::table::{Align, Colour, Style, Table};
use super::terminal::print;
use super::terminal::print_json;
use super::text::span;
use super::view::Job;
use super::watch::Watch;
use super::{batches, lookup, terminal};
use linux::clock;
use protocol::stderr::complain;

#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    /// Job IDs, unique prefixes of IDs, or names; IDs of batches
    #[arg(required = true, value_name = "JOB")]
    jobs: Vec<String>,
    /// Print the jobs as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, clap::Args)]
pub struct PsArgs {
    /// Include finished jobs
    #[arg(short, long)]
    all: bool,
    /// Show jobs in this state only; repeat or separate with commas
    #[arg(short, long, value_name = "STATE", value_delimiter = ',')]
    state: Vec<String>,
    /// Show jobs whose labels match, such as team=data,!nightly
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// Show jobs whose name starts with TEXT
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// Show jobs of this queue only
    #[arg(long)]
    queue: Option<String>,
    /// Show jobs that this actor created only, such as token:ci or uid:1000
    #[arg(long, value_name = "ACTOR")]
    created_by: Option<String>,
    /// Show at most N jobs, newest first; 0 for all [default: 100, and all with --quiet]
    #[arg(short = 'n', long, value_name = "N")]
    limit: Option<usize>,
    /// Print IDs only
    #[arg(short, long, conflicts_with = "json")]
    quiet: bool,
    /// Refresh every second; q or Ctrl-C quits
    #[arg(short, long)]
    watch: bool,
    /// Print a JSON object with the jobs; with --watch, one per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub fn show(args: &ShowArgs) -> ExitCode {
    execute::run(async {
        let client = Client::new(&args.connect)?;
        for (at, id) in lookup::ids(&client, &args.jobs).await?.iter().enumerate() {
            let (value, job) = match lookup::get(&client, id).await {
                Ok(found) => found,
                Err(failure) if failure.is_no_such_job() => {
                    let Ok(batch) = batches::get(&client, id).await else {
                        return Err(failure);
                    };
                    if args.json {
                        print_json(&batch)?;
                    } else {
                        let gap = if at > 0 { "\n" } else { "" };
                        print(&format!("{gap}{}", batches::describe(&batch)?))?;
                    }
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            if args.json {
                print_json(&value)?;
                continue;
            }
            let gap = if at > 0 { "\n" } else { "" };
            print(&format!("{gap}{}", describe(&job)))?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// How long it runs or ran.
pub(super) fn run_time(job: &Job) -> Option<Duration> {
    let end = job.finished_at.unwrap_or_else(clock::wall);
    job.started_at.map(|start| end.since(start))
}

pub fn ps(args: &PsArgs) -> ExitCode {
    execute::run(async {
        let client = Client::new(&args.connect)?;
        if !args.watch {
            let (text, note) = list(&client, args).await?;
            print(&text)?;
            if let Some(note) = note {
                complain(&note);
            }
            return Ok(ExitCode::SUCCESS);
        }
        let mut watch = Watch::begin()?;
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        loop {
            let (mut text, note) = list(&client, args).await?;
            if let Some(note) = note.filter(|_| !args.json && !args.quiet) {
                text.insert_str(0, &format!("{note}\n"));
            }
            print(&terminal::page(&text))?;
            tokio::select! {
                _ = ticks.tick() => {}
                over = watch.over() => return over.map(|()| ExitCode::SUCCESS),
            }
        }
    })
}

/// How many jobs are shown without a limit, to people.
const LIMIT: usize = 100;

/// The list, and a note if it is cut.
async fn list(client: &Client, args: &PsArgs) -> Result<(String, Option<String>), Failure> {
    let limit = match args.limit {
        Some(0) => usize::MAX,
        Some(limit) => limit,
        None if args.quiet => usize::MAX,
        None => LIMIT,
    };
    let page_size = limit.saturating_add(1).min(1000);
    let mut query = vec![("page_size", page_size.to_string())];
    if !args.json {
        query.push(("view", "basic".to_owned()));
    }
    let states = match (args.state.is_empty(), args.all) {
        (false, _) => Some(args.state.join(",")),
        (true, true) => None,
        (true, false) => Some(lookup::live_states()),
    };
    query.extend(states.clone().map(|states| ("state", states)));
    query.extend(
        args.selector
            .clone()
            .map(|selector| ("label_selector", selector)),
    );
    query.extend(args.name.clone().map(|name| ("name_prefix", name)));
    query.extend(args.queue.clone().map(|queue| ("queue", queue)));
    query.extend(args.created_by.clone().map(|actor| ("created_by", actor)));
    let (mut jobs, mut has_more) = (Vec::new(), false);
    lookup::each(client, &query, |job| {
        has_more = jobs.len() == limit;
        if !has_more {
            jobs.push(job);
        }
        !has_more
    })
    .await?;
    let note = match has_more {
        true => Some(count(client, &query, states.as_deref()).await?.note(limit)),
        false => None,
    };
    if args.json {
        let list = json!({ "jobs": jobs, "has_more": has_more });
        return Ok((format!("{list}\n"), note));
    }
    let jobs: Vec<Job> = jobs.iter().map(Job::read).collect::<Result<_, _>>()?;
    if args.quiet {
        let ids = jobs.iter().map(|job| format!("{}\n", job.id)).collect();
        return Ok((ids, note));
    }
    Ok((table(&jobs, terminal::style()), note))
}

/// How many jobs a list has that is cut.
#[derive(Debug, PartialEq, Eq)]
struct Count {
    jobs: u64,
    /// There are no more.
    exact: bool,
}

impl Count {
    /// Of an answer of `GET /jobs/counts`, in these states or in any.
    fn of(answer: &Value, states: Option<&str>) -> Self {
        let is_meant = |entry: &&Value| {
            let state = entry["state"].as_str().unwrap_or_default();
            states.is_none_or(|states| states.split(',').any(|one| one.trim() == state))
        };
        let counts = answer["counts"].as_array().into_iter().flatten();
        let meant: Vec<&Value> = counts.filter(is_meant).collect();
        Self {
            jobs: meant.iter().filter_map(|it| it["count"].as_u64()).sum(),
            exact: meant.iter().all(|it| it["exact"] != false),
        }
    }

    fn note(&self, shown: usize) -> String {
        let more = if self.exact { "" } else { "more than " };
        format!(
            "{shown} of {more}{} jobs shown, the newest; --limit 0 shows all",
            self.jobs
        )
    }
}

/// Counts what the query of a list means, without its limit.
async fn count(
    client: &Client,
    query: &[(&str, String)],
    states: Option<&str>,
) -> Result<Count, Failure> {
    let is_filter = |name: &str| !matches!(name, "state" | "page_size" | "view");
    let filter: Vec<_> = query.iter().filter(|(name, _)| is_filter(name)).collect();
    let request = || client.get("/jobs/counts").query(&filter);
    let answer: Value = client.json(request).await?;
    Ok(Count::of(&answer, states))
}

fn table(jobs: &[Job], style: Style) -> String {
    let mut table = Table::new(&[
        ("ID", Align::Left),
        ("STATE", Align::Left),
        ("EXIT", Align::Right),
        ("AGE", Align::Right),
        ("RAN", Align::Right),
        ("NAME", Align::Fill),
        ("COMMAND", Align::Fill),
    ]);
    let now = clock::wall();
    let ids = lookup::short_ids(jobs, style.width.is_some());
    for (job, id) in jobs.iter().zip(ids) {
        let exit = match (&job.exit, job.has_ended()) {
            (Some(exit), _) => match (exit.code, &exit.signal) {
                (Some(code), _) => code.to_string(),
                (None, Some(signal)) => signal.trim_start_matches("SIG").to_owned(),
                (None, None) => String::new(),
            },
            (None, true) => "?".to_owned(),
            (None, false) => String::new(),
        };
        let state = match job.state_reason.as_deref() {
            Some(reason) if job.state == "queued" && reason != "waiting_for_slot" => {
                format!("queued ({})", reason.trim_start_matches("waiting_for_"))
            }
            Some(_) | None => job.state.clone(),
        };
        let state = match job.attempt_of() {
            Some(attempt) => format!("{state} {attempt}"),
            None => state,
        };
        let age = span(now.since(job.created_at));
        let ran = run_time(job).map(span).unwrap_or_default();
        let cells = [
            id,
            state.as_str(),
            &exit,
            &age,
            &ran,
            job.name.as_deref().unwrap_or_default(),
            &job.program(),
        ];
        table.row(&cells, colour(&job.state).map(|colour| (1, colour)));
    }
    table.render(style)
}

/// Good, bad, and in between.
fn colour(state: &str) -> Option<Colour> {
    match state {
        "running" | "succeeded" => Some(Colour::Green),
        "failed" | "timed_out" | "lost" => Some(Colour::Red),
        "paused" | "stopping" => Some(Colour::Yellow),
        "queued" | "starting" | "canceled" => Some(Colour::Grey),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(fields: Value) -> Job {
        let mut job = json!({"id": "0198c1d2-7b3a-7c4e-9f10-2a6b3c4d5e6f", "name": "n\u{1b}[2J",
            "state": "failed", "created_at": "2026-01-31T12:00:00Z", "started_at": "2026-01-31T12:00:01Z",
            "finished_at": "2026-01-31T12:01:06Z", "exit": {"code": null, "signal": "SIGKILL", "signal_number": 9},
            "spec": {"command": ["printf", "\u{1b}]0;x\u{7}"]}});
        job.as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        Job::read(&job).unwrap()
    }

    #[test]
    fn a_line_of_the_list_says_how_the_job_ended() {
        let text = table(&[job(json!({}))], Style::default());
        let line = text.lines().nth(1).unwrap();
        assert!(
            line.starts_with("0198c1d2-7b3a-7c4e-9f10-2a6b3c4d5e6f  failed  KILL"),
            "{line}"
        );
        assert!(
            line.contains("  1m5s  n\\x1b[2J  printf '\\x1b]0;x\\x07'"),
            "{line}"
        );
    }

    #[test]
    fn what_is_not_shown_is_counted() {
        let answer = json!({"counts": [{"state": "running", "count": 30, "exact": true},
            {"state": "queued", "count": 100, "exact": false}]});
        let note = |states| Count::of(&answer, states).note(10);
        assert_eq!(
            note(Some("running")),
            "10 of 30 jobs shown, the newest; --limit 0 shows all"
        );
        assert_eq!(
            note(Some("queued,running")),
            "10 of more than 130 jobs shown, the newest; --limit 0 shows all"
        );
        assert_eq!(note(None), note(Some("queued,running")));
    }

    #[test]
    fn a_description_has_no_line_that_a_job_has_made() {
        let odd = job(json!({"state_message": "a\nid          forged", "labels": {"a": "b"}}));
        let text = describe(&odd);
        assert_eq!(
            text.lines().filter(|line| line.starts_with("id ")).count(),
            1,
            "{text}"
        );
        assert!(
            text.contains("exit        SIGKILL\n") && text.contains("labels      a=b\n"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'), "{text}");
    }
}
