//! `procession doctor`: how safe the service is with these settings, on this machine, as this user, and what it will run
//! out of.
//!
//! Root acts as the owner of the state directory, as whom the service runs. It reads files and asks a running service over the unix socket; it changes nothing.

mod cluster;
mod health;
mod machine;
mod security;
#[cfg(test)]
mod testing;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::owner::act_as_owner;
use crate::config::{self, Config, ServeArgs};
use client::terminal::printed;
use http::doctor;
use machine::Machine;
use protocol::state_dir::Surroundings;
use protocol::stderr::EXIT_CONFIG;
use protocol::stderr::complain;

#[derive(Debug, clap::Args)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    settings: ServeArgs,
    /// Print a JSON object with all findings
    #[arg(long)]
    json: bool,
    /// The latest backup: a file or directory whose age is checked
    #[arg(long, value_name = "PATH")]
    backup: Option<PathBuf>,
}

pub(super) fn run(args: &DoctorArgs) -> ExitCode {
    let config = match config::load(&args.settings, &Surroundings::read()) {
        Ok(config) => config,
        Err(error) => {
            complain(&format!("would not start: {error}"));
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    // As whoever runs this: a backup is often root's alone.
    let backup = args.backup.as_deref().map(health::age);
    if let Err(why) = act_as_owner(&config.state_dir) {
        complain(&why);
        return ExitCode::FAILURE;
    }
    let findings = examine(&config, backup);
    let is_good = !findings.iter().any(|finding| finding.verdict.is_bad());
    let printed = printed(&if args.json {
        as_json(&findings, is_good)
    } else {
        as_text(&findings)
    });
    if is_good { printed } else { ExitCode::FAILURE }
}

/// The same for clients of the service.
pub(crate) fn findings(config: &Config) -> Vec<doctor::Finding> {
    let found = examine(config, None);
    found
        .into_iter()
        .map(|finding| doctor::Finding {
            about: finding.about,
            verdict: match finding.verdict {
                Verdict::Good => doctor::Verdict::Good,
                Verdict::Note => doctor::Verdict::Note,
                Verdict::Insecure => doctor::Verdict::Insecure,
                Verdict::Problem => doctor::Verdict::Problem,
            },
            text: finding.text,
        })
        .collect()
}

fn examine(config: &Config, backup: Option<Result<Duration, String>>) -> Vec<Finding> {
    let machine = Machine::look(config, backup);
    Finding::collect(|say| {
        security::examine(config, &machine, say);
        health::examine(config, &machine.health, say);
        if let Some(info) = &machine.info {
            cluster::examine(info, say);
        }
    })
}

fn as_text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let word = match finding.verdict {
            Verdict::Good | Verdict::Note => finding.verdict.as_str().to_owned(),
            Verdict::Insecure | Verdict::Problem => finding.verdict.as_str().to_uppercase(),
        };
        writeln!(text, "{word:<9} {:<13} {}", finding.about, finding.text)
            .expect("a string takes everything");
    }
    text
}

fn as_json(findings: &[Finding], is_good: bool) -> String {
    let findings: Vec<_> = findings
        .iter()
        .map(|finding| {
            serde_json::json!({
                "about": finding.about,
                "verdict": finding.verdict.as_str(),
                "text": finding.text,
            })
        })
        .collect();
    format!(
        "{:#}\n",
        serde_json::json!({"ok": is_good, "findings": findings})
    )
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Good,
    /// To know, and to decide about.
    Note,
    Insecure,
    /// It does not work, or soon will not.
    Problem,
}

impl Verdict {
    fn as_str(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Note => "note",
            Self::Insecure => "insecure",
            Self::Problem => "problem",
        }
    }

    fn is_bad(self) -> bool {
        matches!(self, Self::Insecure | Self::Problem)
    }
}

#[derive(Debug)]
struct Finding {
    about: &'static str,
    verdict: Verdict,
    text: String,
}

/// Takes what is found: about what, how bad it is, and one sentence.
type Say<'a> = dyn FnMut(&'static str, Verdict, String) + 'a;

impl Finding {
    fn collect(examine: impl FnOnce(&mut Say<'_>)) -> Vec<Self> {
        let mut findings = Vec::new();
        examine(&mut |about, verdict, text| {
            findings.push(Self {
                about,
                verdict,
                text,
            });
        });
        findings
    }
}
