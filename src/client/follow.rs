//! The output of a job as it comes, across breaks of the connection.
//!
//! It knows records and offsets. What the end of a job means is for others.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::RequestBuilder;
use serde::Deserialize;

use super::connection::Client;
use super::failure::Failure;
use super::ndjson::Lines;
use super::view::Exit;

/// What is asked for besides the place in the log.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    /// `stdout` or `stderr`; `None` for both.
    pub(super) stream: Option<String>,
    /// Begin with the last so many lines.
    pub(super) tail_lines: Option<u64>,
    /// Go on until the job has ended.
    pub(super) follow: bool,
}

/// One line of the log.
#[derive(Debug, PartialEq)]
pub(super) enum Record {
    /// What the job wrote.
    Output {
        stream: Stream,
        at: String,
        bytes: Vec<u8>,
    },
    /// Bytes that were dropped before they could be read.
    Gap { from: u64, to: u64 },
    /// An attempt but the first begins.
    Attempt(u32),
    /// The job has ended, and this was all.
    End(End),
    /// Nothing more is there now; only without `follow`.
    Pause,
    /// Of a kind that is not known.
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// How the job ended, as its log tells it.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct End {
    pub(super) state: String,
    pub(super) exit: Option<Exit>,
}

impl PartialEq for End {
    fn eq(&self, other: &Self) -> bool {
        self.state == other.state
    }
}

/// A line as it comes.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Line<'a> {
    Output {
        offset: u64,
        stream: Stream,
        #[serde(default)]
        at: String,
        #[serde(borrow)]
        text: Option<Cow<'a, str>>,
        #[serde(borrow)]
        base64: Option<Cow<'a, str>>,
    },
    Gap {
        from: u64,
        to: u64,
    },
    Attempt {
        attempt: u32,
    },
    End(End),
    #[serde(other)]
    Other,
}

/// A line that was understood: what it says, and where to go on after it.
fn parse(line: &[u8]) -> Result<(Record, Option<u64>), Failure> {
    let odd = |why: String| Failure::NotUnderstood(why);
    let line: Line<'_> = serde_json::from_slice(line).map_err(|error| odd(error.to_string()))?;
    Ok(match line {
        Line::Output {
            offset,
            stream,
            at,
            text,
            base64,
        } => {
            let bytes = match (text, base64) {
                (Some(text), _) => text.into_owned().into_bytes(),
                (None, Some(coded)) => STANDARD
                    .decode(coded.as_bytes())
                    .map_err(|error| odd(error.to_string()))?,
                (None, None) => return Err(odd("a record without bytes".to_owned())),
            };
            let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            let next = offset.saturating_add(length);
            (Record::Output { stream, at, bytes }, Some(next))
        }
        Line::Gap { from, to } => (Record::Gap { from, to }, Some(to)),
        Line::Attempt { attempt } => (Record::Attempt(attempt), None),
        Line::End(end) => (Record::End(end), None),
        Line::Other => (Record::Other, None),
    })
}

/// A place in the log of a job.
///
/// [`Follow::next`] may be dropped at any moment and called again: everything is kept here.
#[derive(Debug)]
pub(super) struct Follow<'a> {
    path: String,
    selection: Selection,
    /// Where to go on; `None` before the first answer to a selection by its tail.
    offset: Option<u64>,
    lines: Lines<'a>,
}

impl<'a> Follow<'a> {
    pub(super) fn new(client: &'a Client, id: &str, selection: Selection) -> Self {
        Self {
            path: format!("/jobs/{id}/output"),
            offset: selection.tail_lines.is_none().then_some(0),
            selection,
            lines: Lines::new(client),
        }
    }

    /// The next record with its line, once there is one.
    pub(super) async fn next(&mut self) -> Result<(Record, Vec<u8>), Failure> {
        loop {
            // A second try begins where the first one would have.
            self.offset = self.offset.or(self.lines.first_offset());
            let (path, selection, offset) = (&self.path, &self.selection, self.offset);
            let line = self
                .lines
                .next(|client| request(client, path, selection, offset))
                .await?;
            if let Some(line) = line {
                let (record, next) = parse(&line)?;
                self.offset = next.or(self.offset);
                return Ok((record, line));
            }
            if !self.selection.follow {
                return Ok((Record::Pause, Vec::new()));
            }
            // The last record is the end of the job, and nobody asks for more after it.
            self.lines.again("the answer broke off".to_owned()).await?;
        }
    }

    /// Has everything been given that has come?
    pub(super) fn is_drained(&self) -> bool {
        self.lines.is_drained()
    }
}

fn request(
    client: &Client,
    path: &str,
    selection: &Selection,
    offset: Option<u64>,
) -> RequestBuilder {
    let mut request = client.get(path).query(&[("follow", selection.follow)]);
    if let Some(stream) = &selection.stream {
        request = request.query(&[("stream", stream)]);
    }
    match (offset, selection.tail_lines) {
        (Some(offset), _) => request.query(&[("offset", offset)]),
        (None, Some(lines)) => request.query(&[("tail_lines", lines)]),
        (None, None) => request,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_says_where_to_go_on() {
        let text =
            br#"{"type":"output","offset":10,"stream":"stderr","at":"t","text":"a\u00e9\n"}"#;
        let (record, next) = parse(text).unwrap();
        let output = Record::Output {
            stream: Stream::Stderr,
            at: "t".to_owned(),
            bytes: "aé\n".into(),
        };
        assert_eq!((record, next), (output, Some(14)));
        let coded = br#"{"type":"output","offset":0,"stream":"stdout","base64":"/wA="}"#;
        let (record, next) = parse(coded).unwrap();
        assert!(matches!(record, Record::Output { bytes, .. } if bytes == [0xff, 0]));
        assert_eq!(next, Some(2));
        let (gap, next) = parse(br#"{"type":"gap","from":2,"to":9}"#).unwrap();
        assert_eq!((gap, next), (Record::Gap { from: 2, to: 9 }, Some(9)));
    }

    #[test]
    fn the_end_and_what_is_unknown_move_nothing() {
        let end = br#"{"type":"end","state":"failed","exit":{"code":3},"next_offset":5}"#;
        let (Record::End(end), None) = parse(end).unwrap() else {
            panic!("it is the end");
        };
        assert_eq!(end.exit.and_then(|exit| exit.code), Some(3));
        assert_eq!(
            parse(br#"{"type":"news","x":1}"#).unwrap(),
            (Record::Other, None)
        );
        assert!(parse(b"<html>").is_err());
        assert!(parse(br#"{"type":"output","offset":0,"stream":"stdout"}"#).is_err());
    }
}
