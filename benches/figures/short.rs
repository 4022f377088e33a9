//! F18: what short output costs: jobs per second that write a line which is read back, by those that write nothing.

use std::cell::Cell;
use std::io;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::baseline;
use crate::client;
use crate::report::Row;
use crate::service::{Scratch, Service};
use crate::stats::{float64, median, ratios, spread};
use crate::{Plan, note};

/// Short turns, so that what else the machine does meets all of them alike.
const TURNS: u32 = 4;

const CONNECTIONS: usize = 16;

/// 99 characters and a line feed, of two arguments: so the line is in the output alone, and not in the job.
const LINE: &str = "a-line-of-a-hundred-bytes-is-what-many-a-job-has-to say:a-digest,a-number,a-path,an-address,or-that";

/// How the output is read back.
#[derive(Clone, Copy)]
enum Way {
    /// In the answer to the submission, which waits for the end.
    Answer,
    /// By a request of its own after such an answer.
    Request,
}

/// F18.
pub(crate) fn output(plan: &Plan, rows: &mut Vec<Row>) -> io::Result<()> {
    let limit = baseline::compile("limit")?;
    let (mut silent, mut answers, mut requests) = (Vec::new(), Vec::new(), Vec::new());
    let (mut just_true, mut just_echo) = (Vec::new(), Vec::new());
    for round in 0..plan.rounds {
        note(&format!("F18 round {}", round + 1));
        let scratch = Scratch::new()?;
        let service = Service::start(&scratch.state(), &[])?;
        let mut sums = [0.0; 3];
        let time = plan.load / TURNS;
        let spawned = |command: &[&str]| {
            baseline::numbers(
                Command::new(&limit)
                    .arg(time.as_secs_f64().to_string())
                    .args(command),
            )
        };
        just_true.extend(spawned(&["/bin/true"])?);
        just_echo.extend(spawned(&command())?);
        for _ in 0..TURNS {
            sums[0] += service.throughput(time, 0)?;
            sums[1] += read_back(&service, time, Way::Answer)?;
            sums[2] += read_back(&service, time, Way::Request)?;
        }
        for (sum, rates) in sums.iter().zip([&mut silent, &mut answers, &mut requests]) {
            rates.push(sum / f64::from(TURNS));
        }
    }
    let ratio = ratios(&answers, &silent);
    rows.push(Row::new(
        "F18",
        "F1 with `/bin/echo` of 100 bytes and its output in the answer (`?wait=10&output_bytes=1000`)",
        format!(
            "{} jobs/s = {} × F1 of the same service, {} jobs/s; by *limit*, which reads nothing, {} × `/bin/true`",
            spread(&answers, 0),
            spread(&ratio, 2),
            spread(&silent, 0),
            spread(&ratios(&just_echo, &just_true), 2)
        ),
        "≥ 0.9 × F1",
        Some(median(&ratio) >= 0.9),
    ));
    rows.push(Row::new(
        "F18",
        "the same with a request of its own for the output, `GET /jobs/{id}/output`",
        format!(
            "{} jobs/s = {} × F1",
            spread(&requests, 0),
            spread(&ratios(&requests, &silent), 2)
        ),
        "–",
        None,
    ));
    Ok(())
}

/// Jobs per second, each of whose lines was compared with what it was to write.
fn read_back(service: &Service, time: Duration, way: Way) -> io::Result<f64> {
    let begin = Instant::now();
    let query = match way {
        Way::Answer => "?wait=10&output_bytes=1000",
        Way::Request => "?wait=10",
    };
    let spec = serde_json::json!({ "command": command() });
    let request = service.submission(query, &spec.to_string());
    let (mut sent, mut read) = (0_u64, 0_u64);
    // The first that was not as it had to be.
    let wrong = Cell::new(None);
    let load = client::converse(service.address, CONNECTIONS, |answer| {
        if let Some(answer) = answer {
            let body = String::from_utf8_lossy(answer);
            match (way, id(&body)) {
                (Way::Request, Some(id)) => {
                    return Some(service.request("GET", &format!("/jobs/{id}/output")));
                }
                (Way::Answer, Some(_)) | (Way::Request, None) => {}
                (Way::Answer, None) => wrong.set(Some(body.to_string())),
            }
            if body.contains(LINE) {
                read += 1;
            } else {
                wrong.set(Some(body.into_owned()));
            }
        }
        if begin.elapsed() >= time {
            return None;
        }
        sent += 1;
        Some(request.clone())
    })?;
    if load.refused > 0 || read != sent {
        let what = wrong.take().unwrap_or_default();
        return Err(io::Error::other(format!(
            "{read} of {sent} lines were read back: {what}"
        )));
    }
    service.wait_for_live(0)?;
    Ok(float64(read) / begin.elapsed().as_secs_f64())
}

/// What the jobs run.
fn command() -> Vec<&'static str> {
    ["/bin/echo"].into_iter().chain(LINE.split(' ')).collect()
}

/// The id of the job that a body is.
fn id(body: &str) -> Option<&str> {
    body.strip_prefix("{\"id\":\"")?.split('"').next()
}
