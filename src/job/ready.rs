//! When a job counts as ready: by what it prints, listens on, writes or reports.
//!
//! PURE. What the job does is told to it; who looks, and how often, is not known here.

use std::net::IpAddr;
use std::time::Duration;

use regex::bytes::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use crate::seconds;
use crate::workspace::InnerPath;

/// The longest pattern, in bytes.
pub const PATTERN_BYTES: usize = 4096;
/// The most memory that a compiled pattern may take.
const PROGRAM_BYTES: usize = 1 << 20;
/// The longest part of a line that is matched as one.
const LINE_BYTES: usize = 64 << 10;
/// The longest message that is kept, in characters.
const MESSAGE_CHARACTERS: usize = 256;

/// When a job is ready, and what happens if it is not in time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ready {
    /// What shows it.
    #[serde(flatten)]
    pub sign: Sign,
    /// How long each attempt may take for it, from its start.
    #[serde(rename = "timeout_seconds", with = "seconds")]
    pub timeout: Duration,
    /// What happens then.
    pub on_timeout: OnTimeout,
}

/// What shows that a job is ready.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Sign {
    /// A line of its output matches.
    Log {
        /// What the line matches.
        log: Pattern,
        /// In which output.
        stream: Channel,
    },
    /// A process of it listens on a TCP port.
    Port {
        /// The port.
        port: u16,
        /// At which addresses.
        address: Address,
    },
    /// A file of this path is in its workspace.
    File {
        /// The path.
        file: InnerPath,
    },
    /// A process of it reports it, as sd_notify(3) does.
    Notify {
        /// Always `true`.
        notify: bool,
    },
}

/// What happens if a job is not ready in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnTimeout {
    /// It is told, and the job continues.
    #[default]
    Nothing,
    /// The job is stopped with the cause `not_ready`.
    Stop,
}

/// Which output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// Both.
    #[default]
    All,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// At which addresses a port has to be open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Address {
    /// At any.
    #[default]
    Any,
    /// At one that programs of this machine reach.
    Loopback,
    /// At one that other machines may reach.
    Routable,
}

impl Address {
    /// Is a socket that listens at this address one of them? The unspecified address stands for all of them.
    #[must_use]
    pub fn admits(self, at: IpAddr) -> bool {
        let at = at.to_canonical();
        match self {
            Self::Any => true,
            Self::Loopback => at.is_unspecified() || at.is_loopback(),
            Self::Routable => !at.is_loopback(),
        }
    }

    /// The word in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Loopback => "loopback",
            Self::Routable => "routable",
        }
    }
}

/// A regular expression for lines; it has been checked that it compiles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pattern(String);

impl Pattern {
    /// The pattern, or what is wrong with it in a few words.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > PATTERN_BYTES {
            return Err(format!("must have 1 to {PATTERN_BYTES} bytes"));
        }
        compile(text).map(|_| Self(text.to_owned()))
    }
}

fn compile(text: &str) -> Result<Regex, String> {
    RegexBuilder::new(text)
        .size_limit(PROGRAM_BYTES)
        .build()
        .map_err(|error| {
            let words = error.to_string();
            let last = words.lines().last().unwrap_or("not a regular expression");
            last.trim_start_matches("error: ").to_owned()
        })
}

/// Looks for a line in one stream of output that comes in parts.
#[derive(Debug)]
pub struct Lines {
    pattern: Option<Regex>,
    held: Vec<u8>,
}

impl Lines {
    /// Lines that match this.
    #[must_use]
    pub fn new(pattern: &Pattern) -> Self {
        Self {
            // It compiled when the job was accepted.
            pattern: compile(&pattern.0).ok(),
            held: Vec::new(),
        }
    }

    /// The first line that matches, once all of it is there. Of a line that is too long, a part after the other is matched.
    pub fn push(&mut self, mut bytes: &[u8]) -> Option<String> {
        while !bytes.is_empty() {
            let room = LINE_BYTES - self.held.len();
            let line = bytes.iter().position(|byte| *byte == b'\n');
            let (part, is_whole) = match line.filter(|end| *end <= room) {
                Some(end) => (end, true),
                None => (bytes.len().min(room), false),
            };
            self.held.extend_from_slice(&bytes[..part]);
            bytes = &bytes[part + usize::from(is_whole)..];
            if is_whole || self.held.len() == LINE_BYTES {
                let line = std::mem::take(&mut self.held);
                let line = line.strip_suffix(b"\r").unwrap_or(&line);
                if self.pattern.as_ref().is_some_and(|it| it.is_match(line)) {
                    return Some(cut(&String::from_utf8_lossy(line)));
                }
            }
        }
        None
    }

    /// Some of the output is not there: a line does not continue behind that.
    pub fn gap(&mut self) {
        self.held.clear();
    }
}

/// What a process reports of its job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// That it is ready.
    pub is_ready: bool,
    /// Words for people.
    pub status: Option<String>,
}

impl Report {
    /// Reads a message of sd_notify(3): assignments, a line each. Those that are not known mean nothing.
    #[must_use]
    pub fn read(message: &[u8]) -> Self {
        let mut report = Self::default();
        for line in message.split(|byte| *byte == b'\n') {
            if line == b"READY=1" {
                report.is_ready = true;
            } else if let Some(status) = line.strip_prefix(b"STATUS=") {
                report.status = Some(cut(&String::from_utf8_lossy(status)));
            }
        }
        report
    }
}

/// As much of it as is kept.
fn cut(text: &str) -> String {
    text.chars().take(MESSAGE_CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_however_it_is_cut() {
        let whole = b"starting\nlistening on \xff 80\r\nlater\n";
        for at in 0..whole.len() {
            let mut lines = Lines::new(&Pattern::new("(?-u)^listening .* 80$").unwrap());
            let (first, second) = whole.split_at(at);
            let found = lines.push(first).or_else(|| lines.push(second));
            assert_eq!(found.as_deref(), Some("listening on \u{fffd} 80"), "{at}");
        }
    }

    #[test]
    fn a_line_is_none_before_its_end_and_none_behind_a_gap() {
        let mut lines = Lines::new(&Pattern::new("ready").unwrap());
        assert_eq!(lines.push(b"ready"), None);
        lines.gap();
        assert_eq!(lines.push(b"steady\n"), None);
        assert_eq!(lines.push(b"ready\n").as_deref(), Some("ready"));
    }

    #[test]
    fn a_line_without_an_end_takes_no_more_memory_than_allowed() {
        let mut lines = Lines::new(&Pattern::new("y$").unwrap());
        for _ in 0..100 {
            assert_eq!(lines.push(&[b'x'; 5000]), None);
            assert!(lines.held.len() <= LINE_BYTES);
        }
    }

    #[test]
    fn a_pattern_is_bounded_and_costs_no_more_than_its_line() {
        assert!(Pattern::new(&"a".repeat(PATTERN_BYTES)).is_ok());
        for bad in ["", "(", "a{9999}{9999}", &"a".repeat(PATTERN_BYTES + 1)] {
            assert!(Pattern::new(bad).is_err(), "{bad}");
        }
        // Would never end where one tries everything.
        let mut lines = Lines::new(&Pattern::new("^(a+)+$").unwrap());
        let mut line = vec![b'a'; LINE_BYTES - 2];
        line.extend_from_slice(b"b\n");
        assert_eq!(lines.push(&line), None);
    }

    #[test]
    fn a_report_has_what_is_known_of_it() {
        let report = Report::read(b"X=1\nSTATUS=warming up\nREADY=1\n");
        assert!(report.is_ready);
        assert_eq!(report.status.as_deref(), Some("warming up"));
        assert_eq!(Report::read(b"READY=0\nSTATUS"), Report::default());
    }

    #[test]
    fn an_address_is_what_can_be_reached_there() {
        let admits = |address: Address| {
            [
                "0.0.0.0",
                "127.0.0.2",
                "10.0.0.1",
                "::",
                "::1",
                "::ffff:127.0.0.1",
            ]
            .map(|at| address.admits(at.parse().unwrap()))
        };
        assert_eq!(admits(Address::Any), [true; 6]);
        assert_eq!(
            admits(Address::Loopback),
            [true, true, false, true, true, true]
        );
        assert_eq!(
            admits(Address::Routable),
            [true, false, true, true, false, false]
        );
    }

    #[test]
    fn what_is_stored_comes_back() {
        let ready = |sign| Ready {
            sign,
            timeout: Duration::from_millis(1500),
            on_timeout: OnTimeout::Stop,
        };
        for sign in [
            Sign::Log {
                log: Pattern::new("a").unwrap(),
                stream: Channel::Stderr,
            },
            Sign::Port {
                port: 80,
                address: Address::Loopback,
            },
            Sign::File {
                file: InnerPath::new("a/b").unwrap(),
            },
            Sign::Notify { notify: true },
        ] {
            let json = serde_json::to_string(&ready(sign.clone())).unwrap();
            assert_eq!(
                serde_json::from_str::<Ready>(&json).unwrap(),
                ready(sign),
                "{json}"
            );
        }
    }
}
