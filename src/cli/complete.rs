//! Completion in shells: what clap knows of the command line, and what the service has.

use std::ffi::OsStr;
use std::io;

use clap::{Arg, Command};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::{CompleteEnv, Shells};

use client::complete::{What, candidates};
use job::State;

/// A shell that completes sets it; the script of `procession completions` says so.
const VARIABLE: &str = "PROCESSION_COMPLETE";
/// The signals that people send.
const SIGNALS: &[&str] = &[
    "HUP", "INT", "QUIT", "KILL", "USR1", "USR2", "TERM", "CONT", "STOP", "WINCH",
];

/// Completes, and ends the process, if a shell asks for that.
pub(super) fn complete(program: fn() -> Command) {
    CompleteEnv::with_factory(move || informed(program()))
        .var(VARIABLE)
        .complete();
}

/// The script that a shell reads once.
pub(super) fn script(shell: &str) -> io::Result<Vec<u8>> {
    let shells = Shells::builtins();
    let shell = shells
        .completer(shell)
        .ok_or_else(|| io::Error::other("no such shell"))?;
    let mut text = Vec::new();
    shell.write_registration(
        VARIABLE,
        "procession",
        "procession",
        "procession",
        &mut text,
    )?;
    Ok(text)
}

/// The program with what its arguments may be.
fn informed(command: Command) -> Command {
    let name = command.get_name().to_owned();
    command
        .mut_args(|arg| with_values(&name, arg))
        .mut_subcommands(informed)
}

fn with_values(command: &str, arg: Arg) -> Arg {
    let fixed = |words: Vec<&'static str>| {
        ArgValueCompleter::new(move |typed: &OsStr| {
            beginning(typed, words.iter().map(|it| (*it, "")))
        })
    };
    let asked = |what: What| {
        ArgValueCompleter::new(move |typed: &OsStr| {
            let line: Vec<_> = std::env::args_os().collect();
            let found = candidates(what, &line);
            beginning(
                typed,
                found
                    .iter()
                    .map(|(word, help)| (word.as_str(), help.as_str())),
            )
        })
    };
    let is_for_live = ["stop", "signal", "pause", "resume", "attach"].contains(&command);
    let completer = match arg.get_id().as_str() {
        "job" | "jobs" if is_for_live => asked(What::LiveJobs),
        "job" | "jobs" => asked(What::Jobs),
        "selector" => asked(What::Labels),
        "queue" => asked(What::Queues),
        "name" if ["set", "pause", "resume", "rm"].contains(&command) => asked(What::Queues),
        "state" => fixed(State::ALL.iter().map(|state| state.as_str()).collect()),
        "signal" | "stop_signal" => fixed(SIGNALS.to_vec()),
        _ => return arg,
    };
    arg.add(completer)
}

fn beginning<'a>(
    typed: &OsStr,
    words: impl Iterator<Item = (&'a str, &'a str)>,
) -> Vec<CompletionCandidate> {
    let typed = typed.to_string_lossy();
    let fitting = words.filter(|(word, _)| word.starts_with(&*typed));
    let made = fitting.map(|(word, help)| {
        let help = (!help.is_empty()).then(|| help.to_owned().into());
        CompletionCandidate::new(word).help(help)
    });
    made.collect()
}
