//! Settings for the tests of the findings.

use clap::Parser;

use crate::config::{self, Config, ServeArgs};
use protocol::state_dir::Surroundings;

#[derive(Debug, Parser)]
struct Doctor {
    #[command(flatten)]
    args: ServeArgs,
}

/// The settings that these flags give, with a state directory that is not there.
pub(super) fn config(flags: &[&str]) -> Config {
    let line = ["doctor", "--state-dir=/nowhere/at/all"];
    let line = line.iter().chain(flags);
    let args = Doctor::try_parse_from(line).unwrap().args;
    config::load(&args, &Surroundings::default()).unwrap()
}
