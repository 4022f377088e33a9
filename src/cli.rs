//! The command line: which role or client command this process is.

mod doctor;
mod health;
mod token;
mod upgrade;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing::level_filters::LevelFilter;

use crate::config::{self, Config, LogFormat, LogLevel, ServeArgs, Surroundings};
use crate::connections;
use crate::server::STORE;
use crate::store::Store;
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
    Serve(Serve),
    /// Replace a running service by the program that is on disk now; its jobs run on.
    Upgrade(upgrade::UpgradeArgs),
    /// Make, list and revoke tokens.
    Token(token::TokenArgs),
    /// Say how safe the service is with these settings; exit 1 where something is not.
    Doctor(ServeArgs),
    /// Ask a running service whether it is ready; exit 0 when it is, 1 when not.
    Health(health::HealthArgs),
}

#[derive(Debug, clap::Args)]
struct Serve {
    #[command(flatten)]
    settings: ServeArgs,
    /// Say whether configuration and state are understood, change nothing, and exit.
    #[arg(long)]
    check: bool,
}

/// Does what the command line says.
#[must_use]
pub fn run() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(args) => serve(&args),
        Command::Upgrade(args) => upgrade::run(&args),
        Command::Token(args) => token::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Health(args) => health::run(&args),
    }
}

fn serve(args: &Serve) -> ExitCode {
    let started = match config::load(&args.settings, &Surroundings::read()) {
        Ok(config) if args.check => check(&config),
        Ok(config) => {
            if let Err(why) = connections::check_files(&config) {
                complain(&format!("cannot start: {why}"));
                return ExitCode::from(supervisor::EXIT_CONFIG);
            }
            log_to_stderr(&config);
            return supervisor::run(config);
        }
        Err(error) => Err(error.to_string()),
    };
    match started {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            complain(&format!("cannot start: {why}"));
            ExitCode::from(supervisor::EXIT_CONFIG)
        }
    }
}

/// `serve --check`: could this program run here, or take over from the one that does?
fn check(config: &Config) -> Result<(), String> {
    supervisor::understands_handover()?;
    Store::check(&config.state_dir.join(STORE)).map_err(|error| error.to_string())?;
    writeln!(
        io::stdout(),
        "procession {}: configuration and state are understood",
        env!("CARGO_PKG_VERSION")
    )
    .map_err(|error| error.to_string())
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
        .with_max_level(level(config.log_level));
    if text {
        log.with_ansi(io::stderr().is_terminal()).init();
    } else {
        log.json().flatten_event(true).init();
    }
}

fn level(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// One line on standard error, for people at a terminal and in a service's journal alike.
pub(crate) fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "procession: {message}");
}
