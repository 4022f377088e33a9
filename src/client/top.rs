//! `procession top`: resource usage of running jobs, live.

mod board;
mod draw;
mod keys;
mod live;

use std::collections::HashMap;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::connection::{Client, ConnectArgs};
use super::execute;
use super::failure::Failure;
use super::table::{Align, Table};
use super::terminal::print;
use super::text::{only_the_newest, size, span};
use super::view::Job;
use super::watch::Watch;
use super::{lookup, terminal};

/// Before the first update there are two looks, this far apart: processor usage is a difference.
const FIRST: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub struct TopArgs {
    /// Show jobs whose labels match, such as team=data,!nightly
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// Seconds between updates
    #[arg(short, long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    /// Look at no more than the newest N jobs; 0 for all
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// Print one update and exit
    #[arg(short, long)]
    once: bool,
    /// Print each update as a JSON object, one per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// What the processes of a job have used together.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Use {
    processes: usize,
    user_cpu_seconds: f64,
    system_cpu_seconds: f64,
    rss_bytes: u64,
}

#[derive(Debug, Deserialize)]
struct UseOf {
    job_id: String,
    #[serde(flatten)]
    used: Use,
}

#[derive(Debug, Deserialize)]
struct Usage {
    usage: Vec<UseOf>,
}

/// So many jobs are asked about at once.
const AT_ONCE: usize = 200;

/// What every job had used at one moment.
#[derive(Debug)]
struct Look {
    at: Instant,
    jobs: Vec<(Job, Use)>,
    /// There are jobs that were not looked at.
    has_more: bool,
}

/// A line of an update.
#[derive(Debug, PartialEq)]
struct Line {
    processes: usize,
    /// Of one processor.
    cpu_percent: f64,
    cpu_seconds: f64,
    rss_bytes: u64,
}

pub fn run(args: &TopArgs) -> ExitCode {
    execute::run(async {
        let client = Client::new(&args.connect)?;
        let terminals = [
            std::io::stdin().is_terminal(),
            std::io::stdout().is_terminal(),
        ];
        if terminals == [true, true] && !args.once && !args.json {
            let interval = Duration::from_secs(args.interval);
            return live::show(&client, args.selector.as_deref(), interval).await;
        }
        let mut watch = Watch::begin()?;
        let mut before = look(&client, args).await?;
        let mut next = Instant::now() + FIRST;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                over = watch.over() => return over.map(|()| ExitCode::SUCCESS),
            }
            let now = look(&client, args).await?;
            let text = picture(&before, &now, args.json);
            print(&if args.once || args.json {
                text
            } else {
                terminal::page(&text)
            })?;
            if args.once {
                return Ok(ExitCode::SUCCESS);
            }
            before = now;
            next = Instant::now() + Duration::from_secs(args.interval);
        }
    })
}

async fn look(client: &Client, args: &TopArgs) -> Result<Look, Failure> {
    let limit = if args.limit == 0 {
        usize::MAX
    } else {
        args.limit
    };
    let mut query = vec![
        ("state", "running,paused,stopping".to_owned()),
        ("page_size", limit.saturating_add(1).min(1000).to_string()),
    ];
    query.extend(
        args.selector
            .clone()
            .map(|selector| ("label_selector", selector)),
    );
    let (mut values, mut has_more) = (Vec::new(), false);
    lookup::each(client, &query, |job| {
        has_more = values.len() == limit;
        if !has_more {
            values.push(job);
        }
        !has_more
    })
    .await?;
    let all: Vec<Job> = values.iter().map(Job::read).collect::<Result<_, _>>()?;
    let mut used: HashMap<String, Use> = HashMap::new();
    for some in all.chunks(AT_ONCE) {
        let ids: Vec<&str> = some.iter().map(|job| job.id.as_str()).collect();
        let query = [("job_ids", ids.join(","))];
        let usage: Usage = client
            .json(|| client.get("/jobs/usage").query(&query))
            .await?;
        used.extend(usage.usage.into_iter().map(|one| (one.job_id, one.used)));
    }
    // One that is not there has ended meanwhile, or is about to.
    let jobs = all
        .into_iter()
        .filter_map(|job| {
            let used = *used.get(&job.id)?;
            Some((job, used))
        })
        .collect();
    let at = Instant::now();
    Ok(Look { at, jobs, has_more })
}

fn picture(before: &Look, now: &Look, as_json: bool) -> String {
    let elapsed = now.at.duration_since(before.at);
    let used: HashMap<&str, Use> = before
        .jobs
        .iter()
        .map(|(job, used)| (job.id.as_str(), *used))
        .collect();
    let mut lines: Vec<(&Job, Line)> = now
        .jobs
        .iter()
        .map(|(job, now)| {
            let before = used.get(job.id.as_str()).copied();
            (job, line(before, *now, elapsed))
        })
        .collect();
    lines.sort_by(|(_, one), (_, other)| {
        let cpu = other.cpu_percent.total_cmp(&one.cpu_percent);
        cpu.then(other.rss_bytes.cmp(&one.rss_bytes))
    });
    if as_json {
        let jobs: Vec<Value> = lines
            .iter()
            .map(|(job, line)| {
                json!({"id": job.id, "name": job.name, "state": job.state, "processes": line.processes,
                    "cpu_percent": line.cpu_percent, "cpu_seconds": line.cpu_seconds, "rss_bytes": line.rss_bytes})
            })
            .collect();
        return format!("{}\n", json!({ "jobs": jobs, "has_more": now.has_more }));
    }
    let mut table = Table::new(&[
        ("ID", Align::Left),
        ("CPU%", Align::Right),
        ("CPU", Align::Right),
        ("RSS", Align::Right),
        ("PROCS", Align::Right),
        ("NAME", Align::Fill),
        ("COMMAND", Align::Fill),
    ]);
    let style = terminal::style();
    let ids = lookup::short_ids(lines.iter().map(|(job, _)| *job), style.width.is_some());
    for ((job, line), id) in lines.iter().zip(ids) {
        let cpu = format!("{:.1}", line.cpu_percent);
        let time = span(Duration::try_from_secs_f64(line.cpu_seconds).unwrap_or_default());
        let cells = [
            id,
            &cpu,
            &time,
            &size(line.rss_bytes),
            &line.processes.to_string(),
            job.name.as_deref().unwrap_or_default(),
            &job.program(),
        ];
        table.row(&cells, None);
    }
    let note = if now.has_more {
        format!("{}\n", only_the_newest(now.jobs.len()))
    } else {
        String::new()
    };
    format!("{note}{}", table.render(style))
}

/// A job that was not there before has used everything since then. What an orphan of it had used that has ended in
/// between is not known any more.
fn line(before: Option<Use>, now: Use, elapsed: Duration) -> Line {
    let since = (seconds(now) - before.map_or(0.0, seconds)).max(0.0);
    Line {
        processes: now.processes,
        cpu_percent: 100.0 * since / elapsed.as_secs_f64().max(f64::EPSILON),
        cpu_seconds: seconds(now),
        rss_bytes: now.rss_bytes,
    }
}

fn seconds(used: Use) -> f64 {
    used.user_cpu_seconds + used.system_cpu_seconds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_use_of_processors_is_that_since_the_last_look() {
        let used = |seconds| Use {
            processes: 2,
            user_cpu_seconds: seconds,
            system_cpu_seconds: 0.5,
            rss_bytes: 111,
        };
        let shown = line(Some(used(9.5)), used(11.5), Duration::from_secs(2));
        let expected = Line {
            processes: 2,
            cpu_percent: 100.0,
            cpu_seconds: 12.0,
            rss_bytes: 111,
        };
        assert_eq!(shown, expected);
        let new = line(None, used(0.5), Duration::from_secs(2));
        assert!((new.cpu_percent - 50.0).abs() < f64::EPSILON);
        // An orphan that had used much has ended.
        let less = line(Some(used(50.0)), used(1.0), Duration::from_secs(2));
        assert!(less.cpu_percent.abs() < f64::EPSILON);
    }
}
