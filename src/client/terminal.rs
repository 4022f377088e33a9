//! What standard output is, and printing to it.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use anstream::{AutoStream, ColorChoice};

use super::failure::Failure;
use super::stdio::write_all;
use super::table::Style;
use protocol::stderr::complain;

/// Colours and a width on a terminal, and neither in files and pipes.
pub(super) fn style() -> Style {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return Style::default();
    }
    Style {
        // NO_COLOR, CLICOLOR and a dumb terminal are respected.
        colours: AutoStream::choice(&stdout) != ColorChoice::Never,
        width: terminal_size::terminal_size_of(&stdout)
            .map(|(terminal_size::Width(columns), _)| usize::from(columns)),
    }
}

/// A text that replaces the one before on a terminal; in a pipe they follow each other.
pub(super) fn page(text: &str) -> String {
    let stdout = io::stdout();
    if stdout.is_terminal() {
        // One line fewer than there are, so that nothing scrolls.
        let rows = terminal_size::terminal_size_of(&stdout);
        let rows = rows.map_or(usize::MAX, |(_, terminal_size::Height(rows))| {
            usize::from(rows)
        });
        let lines = text.lines().take(rows.saturating_sub(1).max(1));
        // Home, each line cleared to its end, and what is below them.
        let lines: String = lines.map(|line| format!("{line}\x1b[K\n")).collect();
        format!("\x1b[H{lines}\x1b[J")
    } else {
        text.to_owned()
    }
}

/// Writes to standard output.
pub fn print(text: &str) -> Result<(), Failure> {
    write_all(&io::stdout(), text.as_bytes()).map_err(|error| Failure::writing(&error))
}

/// The exit code of a command that has only printed: a reader that went away is no failure, a full disk is.
pub fn printed(text: &str) -> ExitCode {
    match print(text) {
        Ok(()) | Err(Failure::ReaderGone) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&failure.to_string());
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Writes one JSON value, one line.
pub fn print_json(value: &serde_json::Value) -> Result<(), Failure> {
    print(&format!("{value}\n"))
}
