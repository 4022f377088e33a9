//! `procession man` and `procession completions`: both come from the description that parses the command line, so
//! neither can be out of date.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, io};

use clap::Command;
use clap_complete::Shell;

use client::failure::{FAILED, USAGE};
use client::terminal::printed;
use protocol::stderr::complain;

#[derive(Debug, clap::Args)]
pub(super) struct ManArgs {
    /// Print the page of this command
    command: Option<String>,
    /// Write all pages to a directory, such as /usr/local/share/man/man1
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    dir: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(super) struct CompletionsArgs {
    /// Shell to complete for
    shell: Shell,
}

pub(super) fn man(args: &ManArgs, program: Command) -> ExitCode {
    let mut program = program;
    program.build();
    if let Some(dir) = &args.dir {
        return match write_all(&program, dir) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                complain(&format!("cannot write to {}: {error}", dir.display()));
                ExitCode::from(FAILED)
            }
        };
    }
    let command = match &args.command {
        None => Some(&program),
        Some(name) => program.find_subcommand(name),
    };
    let Some(command) = command else {
        complain("no such command; see procession --help");
        return ExitCode::from(USAGE);
    };
    match page(command) {
        Ok(text) => printed(&text),
        Err(error) => {
            complain(&format!("cannot make the page: {error}"));
            ExitCode::from(FAILED)
        }
    }
}

fn write_all(program: &Command, dir: &Path) -> io::Result<()> {
    fs::write(dir.join("procession.1"), page(program)?)?;
    for command in program.get_subcommands() {
        let name = format!("procession-{}.1", command.get_name());
        fs::write(dir.join(name), page(command)?)?;
    }
    Ok(())
}

fn page(command: &Command) -> io::Result<String> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut text)?;
    String::from_utf8(text).map_err(io::Error::other)
}

pub(super) fn completions(args: &CompletionsArgs) -> ExitCode {
    match super::complete::script(&args.shell.to_string()) {
        Ok(text) => printed(&String::from_utf8_lossy(&text)),
        Err(error) => {
            complain(&format!("cannot make the script: {error}"));
            ExitCode::from(FAILED)
        }
    }
}
