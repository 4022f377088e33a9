//! The command line: which role or client command this process is.

mod complete;
pub(crate) mod doctor;
mod hints;
mod log;
mod machine;
mod manual;
mod owner;
mod token;
mod upgrade;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

use clap::{CommandFactory, Parser, Subcommand};

use crate::config::{self, Config, OnShutdown, Part, ServeArgs};
use crate::server;
use client::{
    attach, batches, control, drain, events, failure, files, health, logs, mcp, nodes, open,
    queues, run, schedules, show, templates, terminal, top, wait,
};
use engine::supervisor;
use http::{connections, relay};
use protocol::notices::announce;
use protocol::state_dir::{STORE, Surroundings};
use protocol::stderr::{EXIT_CONFIG, complain};
use store::Store;

/// HTTP job runner: POST a command, it starts in a new session; DELETE ends every process of it
#[derive(Debug, Parser)]
#[command(name = "procession", version, about, max_term_width = 100, after_long_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a job in the foreground, with its output, input, signals and exit code
    #[command(after_long_help = JOB_EXIT_CODES)]
    Run(Box<run::RunArgs>),
    /// List jobs
    #[command(visible_aliases = ["list", "ls", "jobs"])]
    Ps(show::PsArgs),
    /// Show jobs in detail
    #[command(visible_alias = "inspect")]
    Show(show::ShowArgs),
    /// Print the output of a job
    Logs(logs::LogsArgs),
    /// List the files of a job
    Files(files::FilesArgs),
    /// Copy a file into a job that has not ended, or from a job: procession cp JOB:out/report.pdf .
    Cp(files::CpArgs),
    /// Connect to the terminal of a job, or to its input and output; Ctrl-P Ctrl-Q detaches
    Attach(attach::AttachArgs),
    /// Wait for jobs to end, and exit with the job's exit code
    #[command(after_long_help = JOB_EXIT_CODES)]
    Wait(wait::WaitArgs),
    /// Stop jobs, and return once every process has ended
    #[command(visible_alias = "cancel")]
    Stop(control::StopArgs),
    /// Send a signal to a job
    Signal(control::SignalArgs),
    /// Suspend every process of jobs
    Pause(control::PauseArgs),
    /// Resume paused jobs
    #[command(visible_alias = "unpause")]
    Resume(control::PauseArgs),
    /// Release held jobs
    Release(control::PauseArgs),
    /// Run a job again
    Rerun(control::RerunArgs),
    /// Show what happened to jobs, and follow what happens
    Events(events::EventsArgs),
    /// Submit many jobs together, all or none
    Batch(batches::BatchArgs),
    /// List batches
    Batches(batches::BatchesArgs),
    /// List queues, and set their limits
    Queues(Box<queues::QueuesArgs>),
    /// List the nodes of a cluster
    Nodes(nodes::NodesArgs),
    /// Drain a node of a cluster, or give it up
    Node(nodes::NodeArgs),
    /// List schedules
    Schedules(schedules::SchedulesArgs),
    /// Create, change, run and remove schedules
    Schedule(schedules::ScheduleArgs),
    /// Import crontabs as schedules
    Crontab(schedules::CrontabArgs),
    /// List the templates of a service with a command policy
    Templates(templates::TemplatesArgs),
    /// Accept no new jobs until the service is stopped; running and queued jobs continue
    Drain(drain::DrainArgs),
    /// Show resource usage of running jobs, live
    Top(top::TopArgs),
    /// Open the page of the service in a browser, signed in with a one-time code
    Open(open::OpenArgs),
    /// Serve the tools of agents over standard input and output (Model Context Protocol)
    Mcp(mcp::McpArgs),
    /// Run the service
    Serve(Serve),
    /// Replace a running service with the program now on disk; jobs keep running
    Upgrade(upgrade::UpgradeArgs),
    /// Make the key that seals what API nodes keep in PostgreSQL: procession cluster-key cluster.key
    ClusterKey(ClusterKeyArgs),
    /// Create, list and revoke tokens
    Token(token::TokenArgs),
    /// Check how secure the service is with these settings and what it lacks; exit 1 if something is insecure or a problem
    Doctor(doctor::DoctorArgs),
    /// Check whether a service responds; exit 0 if it does, 1 if not
    Health(health::HealthArgs),
    /// Print a shell completion script
    Completions(manual::CompletionsArgs),
    /// Print a manual page: procession man | man -l -
    Man(manual::ManArgs),
    /// Print the version
    #[command(hide = true)]
    Version,
}

/// Exit codes of commands that do not stand for a job.
const EXIT_CODES: &str = "Exit codes: 0 success; 1 refused by the service, or failed here; 2 wrong command line; \
    3 the service cannot be reached; 4 no such job, or several. `run` and `wait` exit with the job's code.";

/// Exit codes of commands that stand for a job.
const JOB_EXIT_CODES: &str = "Exit codes: the job's own, or 128 + n if signal n ended it; 124 timeout; \
    125 any failure that is not the job's; 126 the program cannot be executed; 127 no such program; \
    141 the reader of the output is gone.";

#[derive(Debug, clap::Args)]
struct ClusterKeyArgs {
    /// The file, which must not exist; each API node needs the same
    file: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Serve {
    #[command(flatten)]
    settings: ServeArgs,
    /// Check configuration and state, change nothing, and exit
    #[arg(long)]
    check: bool,
}

/// Does what the command line says.
#[must_use]
pub(crate) fn run() -> ExitCode {
    complete::complete(Cli::command);
    let command = match aside(Cli::try_parse) {
        Ok(cli) => cli.command,
        Err(error) => return not_understood(&error),
    };
    match command {
        Command::Run(args) => run::run(&args),
        Command::Ps(args) => show::ps(&args),
        Command::Show(args) => show::show(&args),
        Command::Logs(args) => logs::run(&args),
        Command::Files(args) => files::files(&args),
        Command::Cp(args) => files::cp(&args),
        Command::Attach(args) => attach::run(&args),
        Command::Wait(args) => wait::run(&args),
        Command::Stop(args) => control::stop(&args),
        Command::Signal(args) => control::signal(&args),
        Command::Pause(args) => control::pause(&args),
        Command::Resume(args) => control::resume(&args),
        Command::Release(args) => control::release(&args),
        Command::Rerun(args) => control::rerun(&args),
        Command::Events(args) => events::run(&args),
        Command::Batch(args) => batches::batch(&args),
        Command::Batches(args) => batches::list(&args),
        Command::Queues(args) => queues::run(&args),
        Command::Nodes(args) => nodes::list(&args),
        Command::Node(args) => nodes::run(&args),
        Command::Schedules(args) => schedules::list(&args),
        Command::Schedule(args) => schedules::run(&args),
        Command::Crontab(args) => schedules::import(&args),
        Command::Templates(args) => templates::list(&args),
        Command::Drain(args) => drain::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Open(args) => open::run(&args),
        Command::Mcp(args) => mcp::run(&args),
        Command::Serve(args) => serve(&args),
        Command::Upgrade(args) => upgrade::run(&args),
        Command::ClusterKey(args) => cluster_key(&args),
        Command::Token(args) => token::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Health(args) => health::run(&args),
        Command::Completions(args) => manual::completions(&args),
        Command::Man(args) => manual::man(&args, Cli::command()),
        Command::Version => terminal::printed(&Cli::command().render_version()),
    }
}

fn cluster_key(args: &ClusterKeyArgs) -> ExitCode {
    match ledger::make_key(&args.file) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("cannot make {}: {error}", args.file.display()));
            ExitCode::from(failure::FAILED)
        }
    }
}

fn serve(args: &Serve) -> ExitCode {
    let surroundings = Surroundings::read();
    // Before the settings are read: what is wrong with them is a line of the log as well.
    aside(|| log::begin(config::log_form(&args.settings, &surroundings)));
    for remark in config::unknown_variables(std::env::vars_os().map(|(name, _)| name)) {
        tracing::warn!("{remark}");
    }
    let prepared = aside(|| {
        let config =
            config::load(&args.settings, &surroundings).map_err(|error| error.to_string())?;
        machine::check()?;
        match args.check {
            true => check(&config)?,
            false => check_files(&config)?,
        }
        Ok::<Config, String>(config)
    });
    match prepared {
        Ok(_) if args.check => ExitCode::SUCCESS,
        Ok(config) => run_service(config),
        Err(why) => {
            if !args.check {
                supervisor::go_back(&format!("the new program cannot start: {why}"));
            }
            tracing::error!("cannot start: {why}");
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

fn check_files(config: &Config) -> Result<(), String> {
    if let Part::Node(_, target, _) = &config.part {
        target.check().map_err(|error| error.to_string())?;
    }
    if let Some(setup) = &config.ledger {
        relay::check_advertised(&setup.advertise)?;
        let follower = ledger::Follower::new(setup, env!("CARGO_PKG_VERSION"));
        follower.map_err(|error| error.to_string())?;
    }
    connections::check_files(&server::http_options(config))
}

/// `serve --check`: could this program run here, or take over from the one that does?
fn check(config: &Config) -> Result<(), String> {
    supervisor::understands_handover()?;
    Store::check(&config.state_dir.join(STORE)).map_err(|error| error.to_string())?;
    // All that a start reads, so that what is understood here also starts.
    check_files(config)?;
    // The exit code is the answer, whoever reads the line.
    announce(&format!(
        "procession {}: configuration and state are understood",
        env!("CARGO_PKG_VERSION")
    ));
    Ok(())
}

/// Prints clap's answer: the help, the version, or what is wrong. Commands that exit with a job's own code do not
/// exit with clap's 2, which a job may well have.
fn not_understood(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        return match error.print() {
            Ok(()) => ExitCode::SUCCESS,
            // A reader that went away is no failure.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Err(error) => {
                complain(&format!("cannot write the output: {error}"));
                ExitCode::from(failure::FAILED)
            }
        };
    }
    match hints::of(error) {
        Some(hint) => complain(&hint),
        // Standard error may be closed.
        None => drop(error.print()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    /// What a job has if nobody says otherwise is in the help of `run`.
    #[test]
    fn every_option_of_a_job_says_its_default() {
        // A job has none of these unless they are given.
        const NOTHING: &[&str] = &[
            "file",
            "name",
            "key",
            "script",
            "template",
            "into",
            "ready-log",
            "ready-port",
            "ready-file",
        ];
        let cli = Cli::command();
        let run = cli.find_subcommand("run").unwrap();
        for option in run.get_arguments() {
            let is_one_value = matches!(option.get_action(), clap::ArgAction::Set)
                && option.get_help_heading() != Some("Connection");
            let Some(name) = option.get_long().filter(|_| is_one_value) else {
                continue;
            };
            let help = option.get_help().map(ToString::to_string);
            let says = help.is_some_and(|help| help.contains("[default: "));
            let is_said = says || !option.get_default_values().is_empty();
            assert_ne!(is_said, NOTHING.contains(&name), "--{name}");
        }
    }

    #[test]
    fn words_of_other_programs_are_commands_or_have_a_hint() {
        for word in [
            "kill", "rm", "restart", "exec", "inspect", "list", "ls", "jobs", "start", "submit",
            "cancel", "delete", "tail", "status", "info", "version", "drain", "unpause",
        ] {
            let Err(error) = Cli::try_parse_from(["procession", word]) else {
                continue;
            };
            let is_command = error.kind() != clap::error::ErrorKind::InvalidSubcommand;
            let hint = hints::of(&error);
            assert!(is_command || hint.is_some(), "{word}: {error}");
        }
        let error = Cli::try_parse_from(["procession", "run", "--rm", "true"]).unwrap_err();
        assert!(hints::of(&error).unwrap().contains("--ttl"));
        let error = Cli::try_parse_from(["procession", "runn"]).unwrap_err();
        assert_eq!(hints::of(&error), None);
        assert!(error.to_string().contains("'run'"), "{error}");
    }
}
