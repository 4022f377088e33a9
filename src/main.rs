//! The `procession` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    procession::cli::run()
}
