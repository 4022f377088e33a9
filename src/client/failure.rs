//! Why a client command ends without having done its work: words for people, an exit code for scripts.

use std::fmt::{self, Write as _};
use std::io;

use serde::Deserialize;

use super::sanitize::escape;

/// The service refused, or something failed here.
pub const FAILED: u8 = 1;
/// The command line is wrong; clap's own code.
pub const USAGE: u8 = 2;
/// The service cannot be reached, or contact was lost.
pub const UNREACHABLE: u8 = 3;
/// No such job, or several.
pub const NO_SUCH_JOB: u8 = 4;

/// The exit code for their own failures of commands that otherwise exit with the job's code, as of `docker run`.
pub const OURS: u8 = 125;

/// The exit code that a shell gives a program that wrote to a pipe without a reader: 128 and SIGPIPE.
pub const READER_GONE: u8 = 141;

/// Why a client command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// An argument that clap cannot judge.
    #[error("{0}")]
    Usage(String),
    /// Nobody answers; the text says what to do.
    #[error("{0}")]
    Unreachable(String),
    /// The service was there and is no longer.
    #[error("lost contact with the service: {0}")]
    Lost(String),
    /// The service refuses.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// An answer that is not the service's, or that of a much newer one.
    #[error("cannot understand the answer: {0}")]
    NotUnderstood(String),
    /// An argument names no job, or more than one.
    #[error("{0}")]
    NoSuchJob(String),
    /// Something on this side, such as a file that cannot be read.
    #[error("{0}")]
    Local(String),
    /// Nobody reads our output any more.
    #[error("the reader of the output is gone")]
    ReaderGone,
}

impl Failure {
    /// Standard output or error could not be written to.
    pub(super) fn writing(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::ReaderGone
        } else {
            Self::Local(format!("cannot write the output: {error}"))
        }
    }

    /// The job is not there, or no longer.
    pub(super) fn is_no_such_job(&self) -> bool {
        matches!(self, Self::Refused(problem) if problem.code == "job_not_found")
    }

    /// The exit code of commands that do not end with a job's own.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => USAGE,
            Self::Unreachable(_) | Self::Lost(_) => UNREACHABLE,
            failure if failure.is_no_such_job() => NO_SUCH_JOB,
            Self::NoSuchJob(_) => NO_SUCH_JOB,
            Self::Refused(_) | Self::NotUnderstood(_) | Self::Local(_) => FAILED,
            // A reader that went away is no failure.
            Self::ReaderGone => 0,
        }
    }
}

/// A body of `application/problem+json`, as much of it as is shown.
#[derive(Debug, Deserialize)]
pub struct Problem {
    #[serde(default)]
    pub status: u16,
    #[serde(default)]
    title: String,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    pub code: String,
    #[serde(default)]
    errors: Vec<Violation>,
    #[serde(default)]
    request_id: String,
    /// `Procession-Stdin-Offset`, which stands in the head.
    #[serde(skip)]
    pub stdin_offset: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Violation {
    pointer: Option<String>,
    parameter: Option<String>,
    header: Option<String>,
    #[serde(default)]
    detail: String,
}

impl Problem {
    /// For an answer that is no problem document, such as a proxy's.
    pub fn bare(status: u16) -> Self {
        Self {
            status,
            title: format!("status {status}, and the answer is not from Procession"),
            detail: String::new(),
            code: String::new(),
            errors: Vec::new(),
            request_id: String::new(),
            stdin_offset: None,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = lower_first(&self.title);
        // One violation alone is what the detail says already.
        let listed = self.errors.len() > 1 || self.errors.iter().any(|error| !error.says(self));
        if !self.detail.is_empty() && self.detail != self.title {
            write!(text, ": {}", self.detail)?;
        }
        if self.code == "unauthenticated" {
            text.push_str(" (set PROCESSION_TOKEN or give --token-file)");
        }
        if self.status == 500 {
            write!(text, " (request {})", self.request_id)?;
        }
        f.write_str(&escape(&text))?;
        for error in self.errors.iter().filter(|_| listed) {
            let line = format!("{}: {}", error.place(), error.detail);
            write!(f, "\n  {}", escape(&line))?;
        }
        Ok(())
    }
}

impl Violation {
    /// Where it is, in words rather than as a pointer: `stop.grace_seconds`, `command[3]`.
    fn place(&self) -> String {
        if let Some(parameter) = &self.parameter {
            return format!("parameter {parameter}");
        }
        if let Some(header) = &self.header {
            return format!("header {header}");
        }
        let mut place = String::new();
        let pointer = self.pointer.as_deref().unwrap_or_default();
        for part in pointer.split('/').skip(1) {
            let part = part.replace("~1", "/").replace("~0", "~");
            if part.bytes().all(|byte| byte.is_ascii_digit()) && !place.is_empty() {
                place.push_str(&format!("[{part}]"));
            } else if place.is_empty() {
                place = part;
            } else {
                place.push('.');
                place.push_str(&part);
            }
        }
        if place.is_empty() {
            "the body".to_owned()
        } else {
            place
        }
    }

    /// Does the problem's own detail say this already?
    fn says(&self, problem: &Problem) -> bool {
        problem.detail.contains(&self.detail) && problem.detail.contains(&self.place())
    }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(chars).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(json: &str) -> Problem {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn every_mistake_is_told_with_its_place_in_words() {
        let problem = problem(
            r#"{"title": "The job specification is not valid", "status": 422, "detail": "2 fields are not valid",
                "code": "invalid_spec", "errors": [
                {"pointer": "/stop/grace_seconds", "code": "out_of_range", "detail": "must be ≥ 0"},
                {"pointer": "/command/3", "code": "wrong_type", "detail": "must be a string"},
                {"pointer": "/labels/example.org~1a", "code": "x", "detail": "no"},
                {"pointer": "", "code": "x", "detail": "no"}]}"#,
        );
        assert_eq!(
            problem.to_string(),
            "the job specification is not valid: 2 fields are not valid\n  \
             stop.grace_seconds: must be ≥ 0\n  command[3]: must be a string\n  \
             labels.example.org/a: no\n  the body: no"
        );
    }

    #[test]
    fn a_single_mistake_is_not_told_twice() {
        let problem = problem(
            r#"{"title": "The query is not valid", "status": 400, "detail": "wait: must be a number",
                "code": "invalid_query", "errors": [{"parameter": "wait", "detail": "must be a number"}]}"#,
        );
        // "parameter wait" is not in the detail word by word, and nothing is lost by saying it.
        assert!(
            problem
                .to_string()
                .starts_with("the query is not valid: wait: must be a number")
        );
    }

    #[test]
    fn control_bytes_of_a_service_do_not_reach_the_terminal() {
        let problem = problem(r#"{"title": "A\u001b[2Jb", "status": 409, "code": "x"}"#);
        assert!(!problem.to_string().contains('\u{1b}'), "{problem}");
    }

    #[test]
    fn exit_codes_tell_the_kinds_apart() {
        let refused = |code: &str| {
            let mut problem = Problem::bare(409);
            code.clone_into(&mut problem.code);
            Failure::Refused(Box::new(problem)).exit_code()
        };
        assert_eq!(refused("job_already_finished"), FAILED);
        assert_eq!(refused("job_not_found"), NO_SUCH_JOB);
        assert_eq!(Failure::Unreachable(String::new()).exit_code(), UNREACHABLE);
        assert_eq!(Failure::Usage(String::new()).exit_code(), USAGE);
    }
}
