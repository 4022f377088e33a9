//! `procession wait`: until jobs have ended, with the exit code of the job.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::connection::{Client, ConnectArgs};
use super::execute;
use super::execute::LONG_WAIT;
use super::failure::Failure;
use super::lookup;
use super::sanitize::escape;
use super::terminal::print_json;
use super::values::seconds;
use super::view::Job;
use protocol::stderr::complain;

/// Which jobs.
#[derive(Debug, clap::Args)]
pub struct WaitArgs {
    /// An id, the beginning of one, or a name; with several, the exit code is the first that is not 0.
    #[arg(required = true, value_name = "JOB")]
    jobs: Vec<String>,
    /// Wait no longer than so, such as 90 or 1.5h; then exit with 125.
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    timeout: Option<f64>,
    /// Print each job as it is at its end.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
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
        let Some(value) = ended(&client, &id, until).await? else {
            return Err(Failure::Local(format!(
                "the time is up, and job {id} has not ended"
            )));
        };
        let job = Job::read(&value)?;
        if args.json {
            print_json(&value)?;
        } else if let Some(remark) = job.remark() {
            complain(&escape(&format!("{id}: {remark}")));
        }
        if code == 0 {
            code = job.exit_code();
        }
    }
    Ok(code)
}

/// The job when it has ended; nothing where it has not until then.
pub(super) async fn ended(
    client: &Client,
    id: &str,
    until: Option<Instant>,
) -> Result<Option<Value>, Failure> {
    let path = format!("/jobs/{id}");
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let wait = left.unwrap_or(LONG_WAIT).min(LONG_WAIT);
        let request = || {
            let request = client.get(&path).timeout(LONG_WAIT * 2);
            request
                .query(&[("wait", wait.as_secs_f64())])
                .query(&[("until", "finished")])
        };
        let value: Value = client.json(request).await?;
        if Job::read(&value)?.has_ended() {
            return Ok(Some(value));
        }
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(None);
        }
    }
}
