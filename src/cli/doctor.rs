//! `procession doctor`: says how safe the service is with these settings, on this machine, as this user.

use std::fmt::Write as _;
use std::process::ExitCode;

use crate::config::{self, ServeArgs};
use crate::doctor;
use client::terminal::printed;
use http::doctor::Verdict;
use protocol::state_dir::Surroundings;
use protocol::stderr::{EXIT_CONFIG, complain};

pub(super) fn run(args: &ServeArgs) -> ExitCode {
    let config = match config::load(args, &Surroundings::read()) {
        Ok(config) => config,
        Err(error) => {
            complain(&format!("would not start: {error}"));
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let findings = doctor::examine(&config);
    let mut text = String::new();
    for finding in &findings {
        let word = match finding.verdict {
            Verdict::Good => "ok",
            Verdict::Note => "note",
            Verdict::Insecure => "INSECURE",
        };
        writeln!(text, "{word:<9} {:<13} {}", finding.about, finding.text)
            .expect("a string takes everything");
    }
    let printed = printed(&text);
    let insecure = findings
        .iter()
        .any(|finding| finding.verdict == Verdict::Insecure);
    if insecure { ExitCode::FAILURE } else { printed }
}
