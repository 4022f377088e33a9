//! The command line: which role or client command this process is.

mod doctor;
mod manual;
mod token;
mod upgrade;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::thread;

use clap::{CommandFactory, Parser, Subcommand};
use tracing::level_filters::LevelFilter;

use crate::config::{self, Config, LogFormat, LogLevel, OnShutdown, ServeArgs};
use crate::server;
use client::{attach, control, events, failure, health, logs, open, queues, run, show, top, wait};
use engine::supervisor;
use http::connections;
use protocol::state_dir::{STORE, Surroundings};
use protocol::stderr::{EXIT_CONFIG, complain};
use store::Store;

/// HTTP job runner: POST a command, it starts in a new session; DELETE ends every process of it.
#[derive(Debug, Parser)]
#[command(name = "procession", version, about, max_term_width = 100, after_long_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a job in the foreground: its output, exit code and signals are those of this command.
    #[command(after_long_help = JOB_EXIT_CODES)]
    Run(Box<run::RunArgs>),
    /// List jobs.
    Ps(show::PsArgs),
    /// Say all about jobs.
    Show(show::ShowArgs),
    /// Print the output of a job.
    Logs(logs::LogsArgs),
    /// Use the terminal of a job, or its input and output, from here; Ctrl-P Ctrl-Q leaves it alone.
    Attach(attach::AttachArgs),
    /// Wait for the end of jobs, and exit with the exit code of the job.
    #[command(after_long_help = JOB_EXIT_CODES)]
    Wait(wait::WaitArgs),
    /// Stop jobs, and return when no process of them is left.
    Stop(control::StopArgs),
    /// Send a job a signal.
    Signal(control::SignalArgs),
    /// Stop every process of jobs for a while.
    Pause(control::PauseArgs),
    /// Let paused jobs go on.
    Resume(control::PauseArgs),
    /// Run a job again.
    Rerun(control::RerunArgs),
    /// Say what happened to jobs, and what happens.
    Events(events::EventsArgs),
    /// Say what is in the queues, and set limits for them.
    Queues(Box<queues::QueuesArgs>),
    /// Show what the running jobs use, live.
    Top(top::TopArgs),
    /// Open the page of the service in a browser, signed in by a one-time code.
    Open(open::OpenArgs),
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
    /// Print a script for a shell that completes this program's arguments.
    Completions(manual::CompletionsArgs),
    /// Print a manual page for man(1): procession man | man -l -
    Man(manual::ManArgs),
}

/// The exit codes of commands that do not stand for a job.
const EXIT_CODES: &str = "Exit codes: 0 done; 1 refused by the service, or failed here; 2 wrong command line; \
    3 the service cannot be reached; 4 no such job, or several. `run` and `wait` have those of the job.";

/// The exit codes of commands that stand for a job.
const JOB_EXIT_CODES: &str = "Exit codes: the job's own, or 128 + n where signal n ended it; 124 its timeout ended it; \
    125 any failure that is not the job's; 126 the program cannot be executed; 127 there is no such program; \
    141 the reader of the output has gone.";

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
pub(crate) fn run() -> ExitCode {
    let command = match aside(Cli::try_parse) {
        Ok(cli) => cli.command,
        Err(error) => return not_understood(&error),
    };
    match command {
        Command::Run(args) => run::run(&args),
        Command::Ps(args) => show::ps(&args),
        Command::Show(args) => show::show(&args),
        Command::Logs(args) => logs::run(&args),
        Command::Attach(args) => attach::run(&args),
        Command::Wait(args) => wait::run(&args),
        Command::Stop(args) => control::stop(&args),
        Command::Signal(args) => control::signal(&args),
        Command::Pause(args) => control::pause(&args),
        Command::Resume(args) => control::resume(&args),
        Command::Rerun(args) => control::rerun(&args),
        Command::Events(args) => events::run(&args),
        Command::Queues(args) => queues::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Open(args) => open::run(&args),
        Command::Serve(args) => serve(&args),
        Command::Upgrade(args) => upgrade::run(&args),
        Command::Token(args) => token::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Health(args) => health::run(&args),
        Command::Completions(args) => manual::completions(&args, Cli::command()),
        Command::Man(args) => manual::man(&args, Cli::command()),
    }
}

fn serve(args: &Serve) -> ExitCode {
    let started = match aside(|| config::load(&args.settings, &Surroundings::read())) {
        Ok(config) if args.check => check(&config),
        Ok(config) => {
            if let Err(why) = aside(|| connections::check_files(&server::http_options(&config))) {
                complain(&format!("cannot start: {why}"));
                return ExitCode::from(EXIT_CONFIG);
            }
            aside(|| log_to_stderr(&config));
            return run_service(config);
        }
        Err(error) => Err(error.to_string()),
    };
    match started {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            complain(&format!("cannot start: {why}"));
            ExitCode::from(EXIT_CONFIG)
        }
    }
}

/// The supervisor of a service with these settings; its servers get all of them.
fn run_service(config: Config) -> ExitCode {
    let settings = supervisor::Settings {
        listen: config.listen,
        state_dir: config.state_dir.clone(),
        shutdown_grace: config.shutdown_grace,
        stop_jobs: config.on_shutdown(std::process::id() == 1) == OnShutdown::Stop,
    };
    supervisor::run(
        settings,
        Box::new(move |inherited| server::run(config.clone(), inherited)),
    )
}

/// Does in a thread of its own, which is gone afterwards, what allocates much and keeps little. In this thread it
/// would leave free pieces all over the heap; the supervisor and every monitor forked from it would use those
/// again, and each page that they write to becomes a copy of that page.
fn aside<T: Send>(work: impl Fn() -> T + Sync) -> T {
    thread::scope(
        |scope| match thread::Builder::new().spawn_scoped(scope, &work) {
            Ok(thread) => match thread.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            },
            // It works here as well.
            Err(_) => work(),
        },
    )
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

/// Prints what clap has to say: the help, the version, or what is wrong. Commands that end with a job's
/// own exit code do not end with clap's 2, which a job may well have.
fn not_understood(error: &clap::Error) -> ExitCode {
    // A reader that went away is no failure.
    let _ = error.print();
    if !error.use_stderr() {
        return ExitCode::SUCCESS;
    }
    let stands_for_job = std::env::args_os()
        .nth(1)
        .is_some_and(|command| command == "run" || command == "wait" || command == "attach");
    ExitCode::from(if stands_for_job {
        failure::OURS
    } else {
        failure::USAGE
    })
}
