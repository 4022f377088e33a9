//! The command line: which role or client command this process is.

mod doctor;
mod health;
mod token;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{self, Config, LogFormat, ServeArgs, Surroundings};
use crate::connections;
use crate::supervisor;

/// HTTP job runner: POST a command, it starts in a new session; DELETE ends every process of it.
#[derive(Debug, Parser)]
#[command(name = "procession", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service.
    Serve(ServeArgs),
    /// Make, list and revoke tokens.
    Token(token::TokenArgs),
    /// Say how safe the service is with these settings; exit 1 where something is not.
    Doctor(ServeArgs),
    /// Ask a running service whether it is ready; exit 0 when it is, 1 when not.
    Health(health::HealthArgs),
}

/// Does what the command line says.
#[must_use]
pub fn run() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(args) => serve(&args),
        Command::Token(args) => token::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Health(args) => health::run(&args),
    }
}

fn serve(args: &ServeArgs) -> ExitCode {
    match config::load(args, &Surroundings::read()) {
        Ok(config) => {
            if let Err(why) = connections::check_files(&config) {
                complain(&format!("cannot start: {why}"));
                return ExitCode::from(supervisor::EXIT_CONFIG);
            }
            log_to_stderr(&config);
            supervisor::run(config)
        }
        Err(error) => {
            complain(&format!("cannot start: {error}"));
            ExitCode::from(supervisor::EXIT_CONFIG)
        }
    }
}

/// Logs go to standard error: text for people on a terminal, else one JSON object a line.
fn log_to_stderr(config: &Config) {
    let text = match config.log_format {
        Some(LogFormat::Text) => true,
        Some(LogFormat::Json) => false,
        None => io::stderr().is_terminal(),
    };
    let log = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::new(
            config.log_level.as_str(),
        ));
    if text {
        log.with_ansi(io::stderr().is_terminal()).init();
    } else {
        log.json().flatten_event(true).init();
    }
}

/// One line on standard error, for people at a terminal and in a service's journal alike.
pub(crate) fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "procession: {message}");
}
