//! `procession wait`: until jobs have ended, or are ready.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::connection::{Client, ConnectArgs};
use super::execute;
use super::failure::Failure;
use super::lookup;
use super::progress::shown;
use super::sanitize::escape;
use super::terminal::print_json;
use super::values::seconds;
use super::view::Job;
use protocol::stderr::complain;

/// After so long, what a job says of its state is passed on.
const SOON: Duration = Duration::from_secs(5);

/// Which jobs.
#[derive(Debug, clap::Args)]
pub struct WaitArgs {
    /// Job IDs, unique prefixes of IDs, or names; of several exit codes, the first that is not 0 counts
    #[arg(required = true, value_name = "JOB")]
    jobs: Vec<String>,
    /// What to wait for; a job that is not ready in time, or ends first, is a failure
    #[arg(long, value_enum, value_name = "WHAT", default_value = "finished")]
    until: Goal,
    /// Give up after TIME, such as 90s or 1h30m, and exit with 125 [default: never]
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    timeout: Option<f64>,
    /// Print each job as JSON when it ends
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// What a job is to have come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Goal {
    Finished,
    Ready,
}

pub fn run(args: &WaitArgs) -> ExitCode {
    execute::block_on_job(execute(args))
}

async fn execute(args: &WaitArgs) -> Result<u8, Failure> {
    let client = Client::new(&args.connect)?;
    let limit = args
        .timeout
        .and_then(|time| Duration::try_from_secs_f64(time).ok());
    let until = limit.and_then(|limit| Instant::now().checked_add(limit));
    let mut code = 0;
    for id in lookup::ids(&client, &args.jobs).await? {
        let waiting = reached(&client, &id, args.until, until);
        let waited = shown(&format!("waiting for job {id}"), waiting).await?;
        let Some(value) = waited else {
            return Err(Failure::Local(format!(
                "timeout: job {id} is still running"
            )));
        };
        let job = Job::read(&value)?;
        if args.json {
            print_json(&value)?;
        } else if let Some(remark) = job.remark().filter(|_| args.until == Goal::Finished) {
            complain(&escape(&format!("{id}: {remark}")));
        }
        if code == 0 && args.until == Goal::Finished {
            code = job.exit_code();
        }
    }
    Ok(code)
}

/// The job when it has ended; nothing if it has not by then.
pub(super) async fn ended(
    client: &Client,
    id: &str,
    until: Option<Instant>,
) -> Result<Option<Value>, Failure> {
    reached(client, id, Goal::Finished, until).await
}

/// The same when it has come to that; an error if it has not, and will not.
pub(super) async fn reached(
    client: &Client,
    id: &str,
    goal: Goal,
    until: Option<Instant>,
) -> Result<Option<Value>, Failure> {
    let path = format!("/jobs/{id}");
    let (mut most, mut said) = (SOON, None);
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let request = || {
            // After an answer that did not come through, a proxy's patience is shorter than thought.
            let wait = left.unwrap_or(Duration::MAX).min(most).min(client.hold());
            client
                .get(&path)
                .query(&[("wait", wait.as_secs_f64())])
                .query(&[("until", goal.as_str())])
        };
        let value: Value = client.json(request).await?;
        let job = Job::read(&value)?;
        match goal {
            Goal::Finished if job.has_ended() => return Ok(Some(value)),
            Goal::Ready if job.ready_at.is_some() => return Ok(Some(value)),
            Goal::Ready if job.has_ended() || job.not_ready_at.is_some() => {
                return Err(Failure::Local(not_ready(&job)));
            }
            Goal::Finished | Goal::Ready => {}
        }
        most = Duration::MAX;
        // What a job that should end waits for.
        let message = value["state_message"].as_str();
        if message.is_some() && message != said.as_deref() {
            said = message.map(str::to_owned);
            complain(&escape(&format!("{id}: {}", message.unwrap_or_default())));
        }
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(None);
        }
    }
}

fn not_ready(job: &Job) -> String {
    let id = &job.id;
    let why = job.ready_message.as_deref();
    let why = why
        .map(|why| format!(": {}", escape(why)))
        .unwrap_or_default();
    if !job.has_ended() {
        return format!("job {id} runs, and is not ready in time{why}");
    }
    let message = job.state_message.as_deref().unwrap_or_default();
    format!(
        "job {id} ended before it was ready{why}; {}",
        escape(message)
    )
}

impl Goal {
    fn as_str(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Ready => "ready",
        }
    }
}
