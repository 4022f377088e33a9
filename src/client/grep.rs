//! `procession logs --grep`: the lines of a job's output that match, found by the service.

use std::process::ExitCode;

use serde::Deserialize;

use super::connection::Client;
use super::failure::{FAILED, Failure};
use super::follow::Stream;
use super::ndjson::Lines;
use super::sanitize::Sanitizer;
use super::stdio::{Sinks, reader_gone};

/// What is looked for.
#[derive(Debug)]
pub(super) struct Search<'a> {
    /// A regular expression.
    pub(super) pattern: &'a str,
    /// Upper and lower case are the same.
    pub(super) ignore_case: bool,
    /// `stdout` or `stderr`; both without it.
    pub(super) stream: Option<&'static str>,
    /// The records as they come.
    pub(super) json: bool,
    /// Nothing on a terminal is escaped.
    pub(super) raw: bool,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Record {
    Match {
        offset: u64,
        line_offset: u64,
        text: String,
    },
    Progress {
        scanned_to: u64,
    },
    End,
    #[serde(other)]
    Other,
}

/// Prints the lines; 1 if there is none, as grep(1) has it.
pub(super) async fn run(
    client: &Client,
    id: &str,
    search: &Search<'_>,
    is_terminal: bool,
) -> Result<ExitCode, Failure> {
    tokio::select! {
        printed = print(client, id, search, is_terminal) => printed,
        () = reader_gone() => Err(Failure::ReaderGone),
    }
}

async fn print(
    client: &Client,
    id: &str,
    search: &Search<'_>,
    is_terminal: bool,
) -> Result<ExitCode, Failure> {
    let path = format!("/jobs/{id}/output/search");
    let mut lines = Lines::new(client);
    let mut sinks = Sinks::default();
    let mut sanitizer = (is_terminal && !search.raw).then(Sanitizer::default);
    // A search that broke off continues where it was; a line with several hits is printed once.
    let mut at = 0;
    let mut last = None;
    let mut code = ExitCode::from(FAILED);
    loop {
        let ask = |client: &Client| {
            let mut request = client.get(&path).query(&[
                ("q", search.pattern),
                ("regex", "true"),
                ("text", "true"),
                ("case", if search.ignore_case { "false" } else { "true" }),
                ("offset", &at.to_string()),
            ]);
            if let Some(stream) = search.stream {
                request = request.query(&[("stream", stream)]);
            }
            request
        };
        let Some(mut line) = lines.next(ask).await? else {
            lines.again("the answer broke off".to_owned()).await?;
            continue;
        };
        let record: Record = serde_json::from_slice(&line)
            .map_err(|error| Failure::NotUnderstood(error.to_string()))?;
        match record {
            Record::Match {
                offset,
                line_offset,
                text,
            } => {
                at = offset + 1;
                code = ExitCode::SUCCESS;
                if search.json {
                    line.push(b'\n');
                    sinks.write(Stream::Stdout, &line).await?;
                } else if last != Some(line_offset) {
                    let mut shown = Vec::with_capacity(text.len() + 1);
                    match &mut sanitizer {
                        Some(sanitizer) => {
                            sanitizer.show(text.as_bytes(), &mut shown);
                            sanitizer.finish(&mut shown);
                        }
                        None => shown.extend_from_slice(text.as_bytes()),
                    }
                    shown.push(b'\n');
                    sinks.write(Stream::Stdout, &shown).await?;
                }
                last = Some(line_offset);
            }
            Record::Progress { scanned_to } => at = at.max(scanned_to),
            Record::End => {
                sinks.flush().await?;
                return Ok(code);
            }
            Record::Other => {}
        }
        if lines.is_drained() {
            sinks.flush().await?;
        }
    }
}
