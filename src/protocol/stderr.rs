//! What a role says on standard error before it ends: why it cannot start.

use std::io::{self, Write};

use crate::notices;

/// The exit code for a wrong configuration (sysexits.h `EX_CONFIG`): a restart would not help.
pub const EXIT_CONFIG: u8 = 78;

/// One line on standard error from a command that somebody waits for. A role of the service uses [`notices::say`].
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

    /// Says so, in the words of a start that failed.
    pub fn say(&self) {
        notices::say(&format!("cannot start: {}", self.message));
    }
}
