//! `stop`, `signal`, `pause`, `resume`, `release` and `rerun`: commands that change existing jobs.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::connection::{Client, ConnectArgs};
use super::execute;
use super::failure::Failure;
use super::progress::shown;
use super::signals::Signals;
use super::terminal::print;
use super::terminal::print_json;
use super::values::{json_object, seconds, since};
use super::view::Job;
use super::{batches, lookup, run, wait};
use job::time::Timestamp;
use protocol::stderr::complain;

#[derive(Debug, Args)]
pub struct StopArgs {
    /// Job IDs, unique prefixes of IDs, or names; IDs of batches
    #[arg(
        value_name = "JOB",
        required_unless_present = "filter",
        conflicts_with = "filter"
    )]
    jobs: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// Signal to send first, instead of the job's own stop signal
    #[arg(short, long)]
    signal: Option<String>,
    /// Time before SIGKILL, instead of the job's own grace period
    #[arg(short, long, value_name = "TIME", value_parser = seconds)]
    grace: Option<f64>,
    /// Kill at once
    #[arg(long)]
    force: bool,
    /// Reason to record with the job
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Do nothing unless exactly N jobs match
    #[arg(long, value_name = "N", requires = "filter")]
    expect: Option<u64>,
    /// Only print how many jobs match
    #[arg(long, requires = "filter")]
    dry_run: bool,
    /// Do not wait until every process of the job has ended
    #[arg(long)]
    no_wait: bool,
    /// Remove the job's record and output afterwards
    #[arg(long, conflicts_with = "no_wait")]
    purge: bool,
    /// Print the jobs as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Which jobs are stopped, other than by their names. All conditions have to hold.
#[derive(Debug, Args)]
#[group(id = "filter", multiple = true, conflicts_with_all = ["no_wait", "purge"])]
struct Filter {
    /// Stop every unfinished job whose labels match, such as team=data,!nightly
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// Stop every job in one of these states, such as queued,paused
    #[arg(long = "state", value_name = "STATE", value_delimiter = ',')]
    states: Vec<String>,
    /// Stop every unfinished job whose name begins with PREFIX
    #[arg(long, value_name = "PREFIX")]
    name_prefix: Option<String>,
    /// Stop every unfinished job of a queue
    #[arg(long, value_name = "QUEUE")]
    queue: Option<String>,
    /// Only jobs that this actor created, such as token:ci or uid:1000
    #[arg(long, value_name = "ACTOR")]
    created_by: Option<String>,
    /// Only jobs created since a time, such as 10m ago or 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = since)]
    created_after: Option<Timestamp>,
    /// Only jobs created before a time
    #[arg(long, value_name = "TIME", value_parser = since)]
    created_before: Option<Timestamp>,
}

impl Filter {
    /// The conditions as the service reads them; nothing if there is none.
    fn body(&self) -> Option<Map<String, Value>> {
        let states = (!self.states.is_empty()).then(|| json!(self.states));
        let moment = |at: Option<Timestamp>| at.map(|at| json!(at.to_string()));
        let body: Map<String, Value> = [
            ("label_selector", self.selector.as_ref().map(|it| json!(it))),
            ("state", states),
            ("name_prefix", self.name_prefix.as_ref().map(|it| json!(it))),
            ("queue", self.queue.as_ref().map(|it| json!(it))),
            ("created_by", self.created_by.as_ref().map(|it| json!(it))),
            ("created_after", moment(self.created_after)),
            ("created_before", moment(self.created_before)),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect();
        (!body.is_empty()).then_some(body)
    }
}

#[derive(Debug, Args)]
pub struct SignalArgs {
    /// Job ID, unique prefix of one, or name
    job: String,
    /// Signal name, with or without SIG, or number
    signal: String,
    /// Processes to signal
    #[arg(long, value_enum, default_value_t = Scope::Group)]
    scope: Scope,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Scope {
    /// The leader's process group
    Group,
    /// The leader only
    Leader,
    /// Every process of the job
    All,
}

#[derive(Debug, Args)]
pub struct PauseArgs {
    /// Job IDs, unique prefixes of IDs, or names
    #[arg(required = true, value_name = "JOB")]
    jobs: Vec<String>,
    /// Print the jobs as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub struct RerunArgs {
    /// Job ID, unique prefix of one, or name
    job: String,
    /// JSON file with a merge patch for the job's spec, or - for standard input
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    file: Option<std::path::PathBuf>,
    /// Stay in the foreground, as `procession run` does
    #[arg(long)]
    follow: bool,
    /// Print the job as JSON; with --follow, its output records
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub fn stop(args: &StopArgs) -> ExitCode {
    execute::run(async {
        let client = Client::new(&args.connect)?;
        match args.filter.body() {
            Some(filter) => stop_matching(&client, args, filter).await,
            None => stop_named(&client, args).await,
        }
    })
}

async fn stop_named(client: &Client, args: &StopArgs) -> Result<ExitCode, Failure> {
    let ids = lookup::ids(client, &args.jobs).await?;
    let mut query: Vec<(&str, String)> = Vec::new();
    query.extend(args.signal.clone().map(|signal| ("signal", signal)));
    query.extend(args.grace.map(|grace| ("grace_seconds", grace.to_string())));
    query.extend(args.force.then(|| ("force", "true".to_owned())));
    query.extend(args.reason.clone().map(|reason| ("reason", reason)));
    // All of them are asked before one is waited for.
    let mut answers = Vec::with_capacity(ids.len());
    for id in &ids {
        let path = format!("/jobs/{id}");
        let request = || client.request(Method::DELETE, &path).query(&query);
        answers.push(match client.json::<Value>(request).await {
            Ok(answer) => Some(answer),
            // It may be that of a batch.
            Err(failure) if failure.is_no_such_job() => {
                batches::get(client, id).await.map_err(|_| failure)?;
                None
            }
            Err(failure) => return Err(failure),
        });
    }
    for (id, answer) in ids.iter().zip(answers) {
        let Some(answer) = answer else {
            let stopped = batches::stop(client, id, &query, !args.no_wait, args.purge).await?;
            if args.json {
                print_json(&stopped)?;
            } else {
                print(&batches::line(&stopped)?)?;
            }
            continue;
        };
        let answer = if args.no_wait {
            answer
        } else {
            let waiting = wait::ended(client, id, None);
            let waited = shown(&format!("stopping job {id}"), waiting).await?;
            waited.unwrap_or(answer)
        };
        if args.purge {
            let path = format!("/jobs/{id}");
            let request = || {
                client
                    .request(Method::DELETE, &path)
                    .query(&[("purge", true)])
            };
            client.send_repeatedly(request).await?;
        }
        show(&answer, args.json)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn stop_matching(
    client: &Client,
    args: &StopArgs,
    mut body: Map<String, Value>,
) -> Result<ExitCode, Failure> {
    if let Some(signal) = &args.signal {
        body.insert("signal".to_owned(), json!(signal));
    }
    if let Some(grace) = args.grace {
        body.insert("grace_seconds".to_owned(), json!(grace));
    }
    if args.force {
        body.insert("force".to_owned(), json!(true));
    }
    if let Some(reason) = &args.reason {
        body.insert("reason".to_owned(), json!(reason));
    }
    if let Some(expect) = args.expect {
        body.insert("expect".to_owned(), json!(expect));
    }
    if args.dry_run {
        body.insert("dry_run".to_owned(), json!(true));
    }
    let body = Value::Object(body).to_string();
    let request = || {
        let request = client.post("/jobs/stop").body(body.clone());
        request.header("Content-Type", "application/json")
    };
    let answer: Value = client.json(request).await?;
    if args.dry_run && args.json {
        print_json(&answer)?;
    } else if args.dry_run {
        let more = if answer["truncated"] == true {
            "more than "
        } else {
            ""
        };
        print(&format!("{more}{}\n", answer["matched"]))?;
    }
    let mut code = ExitCode::SUCCESS;
    for result in answer["results"].as_array().into_iter().flatten() {
        let id = result["id"].as_str().unwrap_or_default();
        if let Some(detail) = result["detail"].as_str() {
            complain(&super::sanitize::escape(&format!("{id}: {detail}")));
            code = ExitCode::from(super::failure::FAILED);
            continue;
        }
        let waiting = wait::ended(client, id, None);
        let ended = shown(&format!("stopping job {id}"), waiting).await?;
        show(&ended.unwrap_or_default(), args.json)?;
    }
    Ok(code)
}

/// One line per job: its id and state, or all of it.
fn show(value: &Value, json: bool) -> Result<(), Failure> {
    if json {
        return print_json(value);
    }
    let job = Job::read(value)?;
    print(&format!("{} {}\n", job.id, job.state))
}

pub fn signal(args: &SignalArgs) -> ExitCode {
    execute::run(async {
        let client = Client::new(&args.connect)?;
        let id = lookup::id(&client, &args.job).await?;
        let scope = match args.scope {
            Scope::Group => "group",
            Scope::Leader => "leader",
            Scope::All => "all",
        };
        let body = json!({"signal": args.signal, "scope": scope}).to_string();
        let request = client.post(&format!("/jobs/{id}/signal"));
        let request = request
            .header("Content-Type", "application/json")
            .body(body);
        // A signal is sent once: whether a broken request delivered it cannot be known.
        let answer = client.send(request).await?;
        let answer = answer.bytes().await.unwrap_or_default();
        let answer: Value = serde_json::from_slice(&answer)
            .map_err(|error| Failure::NotUnderstood(error.to_string()))?;
        if args.json {
            print_json(&answer)?;
        } else if let Some(note) = answer["note"].as_str() {
            complain(&super::sanitize::escape(note));
        }
        Ok(ExitCode::SUCCESS)
    })
}

pub fn pause(args: &PauseArgs) -> ExitCode {
    change(args, "pause")
}

pub fn resume(args: &PauseArgs) -> ExitCode {
    change(args, "resume")
}

pub fn release(args: &PauseArgs) -> ExitCode {
    change(args, "release")
}

fn change(args: &PauseArgs, what: &str) -> ExitCode {
    execute::run(async {
        let client = Client::new(&args.connect)?;
        for id in lookup::ids(&client, &args.jobs).await? {
            let path = format!("/jobs/{id}/{what}");
            // A repeat changes nothing.
            let answer: Value = client.json(|| client.post(&path)).await?;
            if args.json {
                print_json(&answer)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

pub fn rerun(args: &RerunArgs) -> ExitCode {
    execute::block_on(async {
        match rerun_job(args).await {
            Ok(code) => ExitCode::from(code),
            Err(Failure::ReaderGone) => ExitCode::from(super::failure::READER_GONE),
            Err(failure) => {
                complain(&failure.to_string());
                ExitCode::from(if args.follow {
                    super::failure::OURS
                } else {
                    failure.exit_code()
                })
            }
        }
    })
}

async fn rerun_job(args: &RerunArgs) -> Result<u8, Failure> {
    let patch = match &args.file {
        Some(path) => json_object(path)?,
        None => Map::new(),
    };
    let client = Client::new(&args.connect)?;
    let id = lookup::id(&client, &args.job).await?;
    let path = format!("/jobs/{id}/rerun");
    if !args.follow {
        let answer = run::create(&client, &path, &patch).await?;
        if args.json {
            print_json(&answer)?;
        } else {
            print(&format!("{}\n", Job::read(&answer)?.id))?;
        }
        return Ok(0);
    }
    let mut signals = Signals::catch()?;
    let created = run::create(&client, &path, &patch);
    let job = run::known(signals.second_before(created).await)?;
    run::attend(&client, &job, false, args.json, &mut signals).await
}
