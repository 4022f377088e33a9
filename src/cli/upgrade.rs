//! `procession upgrade`: asks the running service to become the program that is on disk now.

use std::path::PathBuf;
use std::process::ExitCode;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::config;
use protocol::state_dir;
use protocol::state_dir::Surroundings;
use protocol::stderr::complain;

/// Which service.
#[derive(Debug, clap::Args)]
pub(super) struct UpgradeArgs {
    /// State directory of the service [default: the one `procession serve` uses]
    #[arg(long, env = "PROCESSION_STATE_DIR", value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

pub(super) fn run(args: &UpgradeArgs) -> ExitCode {
    let Some(state_dir) = config::state_dir(args.state_dir.as_deref(), &Surroundings::read())
    else {
        complain("no state directory: give --state-dir DIR, or set HOME");
        return ExitCode::FAILURE;
    };
    // Whoever holds the lock is the supervisor: no file names a process that may be somebody else by now.
    let holder = match state_dir::holder(&state_dir) {
        Ok(Some(holder)) if holder > 0 => holder,
        Ok(_) => {
            complain(&format!("no service runs on {}", state_dir.display()));
            return ExitCode::FAILURE;
        }
        Err(error) => {
            complain(&format!("cannot read {}: {error}", state_dir.display()));
            return ExitCode::FAILURE;
        }
    };
    match kill(Pid::from_raw(holder), Signal::SIGHUP) {
        Ok(()) => ExitCode::SUCCESS,
        Err(errno) => {
            complain(&format!(
                "cannot signal the supervisor ({holder}): {}",
                errno.desc()
            ));
            ExitCode::FAILURE
        }
    }
}
