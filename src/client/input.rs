//! Our standard input, sent to the job no faster than it reads, and over every break of the connection.
//!
//! Each piece goes with its offset and is kept until the service has it: what a broken request has written
//! is found out by asking again.

use bytes::Bytes;
use reqwest::RequestBuilder;
use tokio::time::Instant;

use super::connection::{self, CALM, Client, Waiting};
use super::failure::{Failure, Problem};
use super::stdio::Input;

/// What became of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fed {
    /// All of it was sent, and so was its end.
    Whole,
    /// The job does not read any more.
    Closed,
}

/// Reads standard input to its end and sends it to a job that has started.
pub(super) async fn forward(client: &Client, id: &str) -> Result<Fed, Failure> {
    let mut stdin = Input::default();
    let mut writer = Writer {
        client,
        path: format!("/jobs/{id}/stdin"),
        offset: Some(0),
    };
    loop {
        let read = stdin.next().await;
        let bytes =
            read.map_err(|error| Failure::Local(format!("cannot read standard input: {error}")))?;
        let is_end = bytes.is_empty();
        if writer.send(Bytes::from(bytes), is_end).await? == Fed::Closed {
            return Ok(Fed::Closed);
        }
        if is_end {
            return Ok(Fed::Whole);
        }
    }
}

struct Writer<'a> {
    client: &'a Client,
    path: String,
    /// How much the job's pipe has taken; `None` once the service cannot tell.
    offset: Option<u64>,
}

/// What to do after a refusal.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Closed,
    /// So many bytes of the piece have arrived already.
    Skip(u64),
    /// The service does not count any more; nothing of this piece has been sent yet.
    WithoutOffset,
    Again,
    Fail,
}

/// `sent_before`: an earlier try of this piece may have arrived in part.
fn after_refusal(problem: &Problem, offset: Option<u64>, length: u64, sent_before: bool) -> Next {
    match problem.code.as_str() {
        "stdin_closed" | "job_already_finished" => Next::Closed,
        "monitor_unavailable" => Next::Again,
        "stdin_offset_mismatch" => match (offset, problem.stdin_offset) {
            (Some(offset), Some(there))
                if (offset..=offset.saturating_add(length)).contains(&there) =>
            {
                Next::Skip(there - offset)
            }
            (Some(_), None) if !sent_before => Next::WithoutOffset,
            _ => Next::Fail,
        },
        _ => Next::Fail,
    }
}

impl Writer<'_> {
    async fn send(&mut self, mut piece: Bytes, eof: bool) -> Result<Fed, Failure> {
        let mut sent_before = false;
        let mut waiting: Option<Waiting> = None;
        loop {
            let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
            let since = Instant::now();
            let failure = match self.client.send(self.request(&piece, eof)).await {
                Ok(_) => {
                    self.offset = self.offset.map(|offset| offset.saturating_add(length));
                    return Ok(Fed::Whole);
                }
                Err(failure) => failure,
            };
            if let Failure::Refused(problem) = &failure {
                match after_refusal(problem, self.offset, length, sent_before) {
                    Next::Closed => return Ok(Fed::Closed),
                    Next::Skip(count) => {
                        let _ = piece.split_to(usize::try_from(count).unwrap_or(piece.len()));
                        self.offset = self.offset.map(|offset| offset + count);
                        if piece.is_empty() && !eof {
                            return Ok(Fed::Whole);
                        }
                        continue;
                    }
                    Next::WithoutOffset => {
                        self.offset = None;
                        continue;
                    }
                    Next::Again => {}
                    Next::Fail => return Err(failure),
                }
            } else if !connection::is_passing(&failure) {
                return Err(failure);
            } else if self.offset.is_none() && !piece.is_empty() {
                return Err(Failure::Local(
                    "the connection broke while input was sent, and how much of it arrived cannot be known"
                        .to_owned(),
                ));
            }
            sent_before = true;
            if since.elapsed() > CALM {
                // A job may take as long as it likes to read, and a proxy gives up earlier.
                waiting = None;
            }
            let client = self.client;
            waiting
                .get_or_insert_with(|| client.patience())
                .pause(failure)
                .await?;
        }
    }

    fn request(&self, piece: &Bytes, eof: bool) -> RequestBuilder {
        let mut request = self
            .client
            .post(&self.path)
            // A job may take as long as it likes to read.
            .timeout(std::time::Duration::MAX)
            .query(&[("eof", eof)])
            .body(piece.clone());
        if let Some(offset) = self.offset {
            request = request.query(&[("offset", offset)]);
        }
        request
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrived_of_a_broken_piece_is_not_sent_again() {
        let mismatch = |there| {
            let mut problem = Problem::bare(409);
            "stdin_offset_mismatch".clone_into(&mut problem.code);
            problem.stdin_offset = there;
            problem
        };
        let next = |there, sent| after_refusal(&mismatch(there), Some(100), 50, sent);
        assert_eq!(next(Some(120), true), Next::Skip(20));
        assert_eq!(next(Some(150), true), Next::Skip(50));
        // Somebody else writes, too, or took our place.
        assert_eq!(next(Some(99), true), Next::Fail);
        assert_eq!(next(Some(151), true), Next::Fail);
        // The monitor was replaced.
        assert_eq!(next(None, false), Next::WithoutOffset);
        assert_eq!(next(None, true), Next::Fail);
    }

    #[test]
    fn a_job_that_reads_no_more_ends_the_input() {
        for code in ["stdin_closed", "job_already_finished"] {
            let mut problem = Problem::bare(409);
            code.clone_into(&mut problem.code);
            assert_eq!(after_refusal(&problem, Some(0), 1, false), Next::Closed);
        }
        assert_eq!(
            after_refusal(&Problem::bare(403), Some(0), 1, false),
            Next::Fail
        );
    }
}
