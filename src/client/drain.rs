//! `procession drain`: no new jobs, and perhaps a wait until none runs.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use reqwest::Method;
use serde_json::Value;
use tokio::time::Instant;

use super::connection::{Client, ConnectArgs};
use super::execute;
use super::failure::{FAILED, Failure};
use super::progress::shown;
use super::terminal::{print, print_json};
use super::values::seconds;

#[derive(Debug, Args)]
pub struct DrainArgs {
    /// Wait until no job runs; exit with 1 if some still do after TIME, such as 90s or 1h30m [default: do not wait]
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    wait: Option<f64>,
    /// Accept new jobs again
    #[arg(long, conflicts_with = "wait")]
    end: bool,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub fn run(args: &DrainArgs) -> ExitCode {
    execute::run(async {
        let client = Client::new(&args.connect)?;
        let answer = if args.end {
            let request = || client.request(Method::DELETE, "/drain");
            client.json(request).await?
        } else {
            shown("waiting until no job runs", drain(&client, args.wait)).await?
        };
        if args.json {
            print_json(&answer)?;
        } else {
            print(&line(&answer))?;
        }
        let still_runs = args.wait.is_some() && answer["running"] != 0;
        Ok(match still_runs {
            true => ExitCode::from(FAILED),
            false => ExitCode::SUCCESS,
        })
    })
}

/// Asks for it, and again until no job runs or the time is up: a repeat changes nothing.
async fn drain(client: &Client, wait: Option<f64>) -> Result<Value, Failure> {
    let limit = wait.and_then(|wait| Duration::try_from_secs_f64(wait).ok());
    let until = Instant::now().checked_add(limit.unwrap_or_default());
    loop {
        let left = until.map_or(Duration::MAX, |until| {
            until.saturating_duration_since(Instant::now())
        });
        let request = || {
            let wait = left.min(client.hold()).as_secs_f64();
            client.post("/drain").query(&[("wait", wait)])
        };
        let answer: Value = client.json(request).await?;
        if answer["running"] == 0 || left.is_zero() {
            return Ok(answer);
        }
    }
}

fn line(answer: &Value) -> String {
    if answer["draining"] == false {
        return "new jobs are accepted\n".to_owned();
    }
    // A service that is being stopped continues to refuse, and does not count.
    let count = |name: &str| answer[name].as_u64().unwrap_or(0);
    let (running, queued) = (count("running"), count("queued"));
    format!("no new jobs are accepted; {running} running, {queued} queued\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_line_says_what_is_so_now() {
        let draining = json!({"draining": true, "running": 2, "queued": 0});
        assert_eq!(
            line(&draining),
            "no new jobs are accepted; 2 running, 0 queued\n"
        );
        assert_eq!(line(&json!({"draining": false})), "new jobs are accepted\n");
    }
}
