//! What a command says on standard error, and why a role could not start.

use std::io::{self, Write};

/// The exit code for a wrong configuration (sysexits.h `EX_CONFIG`): a restart would not help.
pub const EXIT_CONFIG: u8 = 78;

/// One line on standard error from a command that somebody waits for. A role of the service writes to its log.
pub fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "procession: {message}");
}

/// Why a role could not start, and the exit code that says whether trying again can help.
#[derive(Debug)]
pub struct Failure {
    pub message: String,
    pub code: u8,
}

impl Failure {
    /// The settings or the state are wrong.
    pub fn config(message: impl ToString) -> Self {
        Self {
            message: message.to_string(),
            code: EXIT_CONFIG,
        }
    }

    /// The system refused; `what` could not be done.
    pub fn system(what: &str) -> impl FnOnce(io::Error) -> Self {
        let what = what.to_owned();
        move |error| Self {
            message: format!("{what}: {error}"),
            code: 1,
        }
    }
}
