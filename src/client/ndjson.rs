//! An answer that comes line by line and may break off: it is asked for again where it stopped.
//!
//! It knows lines and connections. Where to continue is known to whoever reads the lines.

use std::time::Duration;

use reqwest::header::ACCEPT;
use reqwest::{RequestBuilder, Response};
use tokio::time::Instant;

use super::connection::{self, CALM, Client, Waiting};
use super::failure::Failure;

/// A line of a log is some ten kilobytes; a service that sends this much without an end of it is not ours.
const LONGEST_LINE: usize = 16 << 20;

/// An answer, and what has come of it.
///
/// [`Lines::next`] may be dropped at any moment and called again: everything is kept here.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    client: &'a Client,
    response: Option<Response>,
    buffer: Buffer,
    waiting: Option<Waiting>,
    /// `Procession-First-Offset` of the last answer that had one.
    first_offset: Option<u64>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(client: &'a Client) -> Self {
        Self {
            client,
            response: None,
            buffer: Buffer::default(),
            waiting: None,
            first_offset: None,
        }
    }

    /// The next line, or nothing if the answer has ended in order. `ask` makes the request that goes on
    /// after the last line; it is called if there is no answer yet, or none any more.
    pub(super) async fn next(
        &mut self,
        ask: impl Fn(&Client) -> RequestBuilder,
    ) -> Result<Option<Vec<u8>>, Failure> {
        loop {
            if let Some(line) = self.buffer.line()? {
                return Ok(Some(line));
            }
            let Some(response) = &mut self.response else {
                self.open(ask(self.client)).await?;
                continue;
            };
            match response.chunk().await {
                Ok(Some(bytes)) => {
                    self.waiting = None;
                    self.buffer.take_in(&bytes);
                }
                Ok(None) => return Ok(None),
                Err(error) => self.again(connection::root(&error)).await?,
            }
        }
    }

    /// Gives the present answer up, so that the next line comes from another one, after a pause.
    pub(super) async fn again(&mut self, why: String) -> Result<(), Failure> {
        self.response = None;
        self.buffer = Buffer::default();
        self.pause(Failure::Lost(why)).await
    }

    /// The offset at which the first answer began.
    pub(super) fn first_offset(&self) -> Option<u64> {
        self.first_offset
    }

    /// Has everything been given that has come?
    pub(super) fn is_drained(&self) -> bool {
        !self.buffer.has_line()
    }

    async fn open(&mut self, request: RequestBuilder) -> Result<(), Failure> {
        // The answer lasts as long as the job.
        let request = request
            .timeout(Duration::MAX)
            .header(ACCEPT, "application/x-ndjson");
        let since = Instant::now();
        match self.client.send(request).await {
            Ok(response) => {
                let begin = response.headers().get("procession-first-offset");
                self.first_offset = begin.and_then(|value| value.to_str().ok()?.parse().ok());
                self.response = Some(response);
                // A proxy may end a silent answer again and again; the service is there.
                if let Some(waiting) = &mut self.waiting {
                    waiting.reached();
                }
                Ok(())
            }
            Err(failure) if connection::is_passing(&failure) => {
                if since.elapsed() > CALM {
                    self.waiting = None;
                }
                self.pause(failure).await
            }
            Err(failure) => Err(failure),
        }
    }

    async fn pause(&mut self, failure: Failure) -> Result<(), Failure> {
        let client = self.client;
        let waiting = self.waiting.get_or_insert_with(|| client.patience());
        waiting.pause(failure).await
    }
}

/// Bytes that came, cut into lines.
#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    /// Up to here the lines have been given away.
    start: usize,
    /// Up to here there is no end of a line.
    searched: usize,
}

impl Buffer {
    fn take_in(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        self.bytes.extend_from_slice(bytes);
    }

    fn has_line(&self) -> bool {
        self.bytes[self.searched..].contains(&b'\n')
    }

    fn line(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let Some(end) = self.bytes[self.searched..]
            .iter()
            .position(|byte| *byte == b'\n')
        else {
            self.searched = self.bytes.len();
            if self.searched - self.start > LONGEST_LINE {
                return Err(Failure::NotUnderstood("a line without an end".to_owned()));
            }
            return Ok(None);
        };
        let end = self.searched + end;
        let line = self.bytes[self.start..end].to_vec();
        self.start = end + 1;
        self.searched = self.start;
        Ok(Some(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_however_the_bytes_come() {
        let all = b"one\n\ntwo\nthree";
        for cut in 0..all.len() {
            let mut buffer = Buffer::default();
            let mut lines = Vec::new();
            for part in [&all[..cut], &all[cut..]] {
                buffer.take_in(part);
                while let Some(line) = buffer.line().unwrap() {
                    lines.push(String::from_utf8(line).unwrap());
                }
            }
            assert_eq!(lines, ["one", "", "two"], "cut at {cut}");
            assert!(!buffer.has_line());
        }
    }
}
