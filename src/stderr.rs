//! What a role says on standard error before it ends: why it cannot start.

use std::io::{self, Write};

/// The exit code for a wrong configuration (sysexits.h `EX_CONFIG`): a restart would not help.
pub(crate) const EXIT_CONFIG: u8 = 78;

/// One line on standard error, for people at a terminal and in a service's journal alike.
pub(crate) fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "procession: {message}");
}

/// Why a role could not start, and the exit code that says whether trying again can help.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) message: String,
    pub(crate) code: u8,
}

impl Failure {
    /// The settings or the state are wrong.
    pub(crate) fn config(message: impl ToString) -> Self {
        Self {
            message: message.to_string(),
            code: EXIT_CONFIG,
        }
    }

    /// The system refused; `what` could not be done.
    pub(crate) fn system(what: &str) -> impl FnOnce(io::Error) -> Self {
        let what = what.to_owned();
        move |error| Self {
            message: format!("{what}: {error}"),
            code: 1,
        }
    }

    /// Says so, in the words of a start that failed.
    pub(crate) fn complain(&self) {
        complain(&format!("cannot start: {}", self.message));
    }
}
