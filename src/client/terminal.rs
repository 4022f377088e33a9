//! What standard output is, and what may be written to it.

use std::io::{self, IsTerminal, Write};

use anstream::{AutoStream, ColorChoice};

use super::failure::Failure;
use super::table::Style;

/// Colours and a width where people look, and neither in files and pipes.
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

/// A text in the place of what stood there before; in a pipe one after the other.
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

/// What a failed write to standard output means.
pub(super) fn cannot_write(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        Failure::ReaderGone
    } else {
        Failure::Local(format!("cannot write the output: {error}"))
    }
}

/// Writes to standard output.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    written.map_err(|error| cannot_write(&error))
}

/// Writes one JSON value, one line.
pub fn print_json(value: &serde_json::Value) -> Result<(), Failure> {
    print(&format!("{value}\n"))
}
