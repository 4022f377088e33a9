//! `procession upgrade`: asks the running service to become the program that is on disk now, and waits for what comes of it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::config;
use client::terminal;
use protocol::state_dir;
use protocol::state_dir::Surroundings;
use protocol::stderr::complain;
use protocol::upgrades::{self, Outcome, Upgrade};

/// Longer than the supervisor takes for each step, and how often is looked.
const PATIENCE: Duration = Duration::from_secs(120);
const GLANCE: Duration = Duration::from_millis(20);

/// Which service.
#[derive(Debug, clap::Args)]
pub(super) struct UpgradeArgs {
    /// State directory of the service [default: the one `procession serve` uses]
    #[arg(long, env = "PROCESSION_STATE_DIR", value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

pub(super) fn run(args: &UpgradeArgs) -> ExitCode {
    match upgrade(args) {
        Ok(version) => terminal::printed(&format!("the service runs version {version}\n")),
        Err(why) => {
            complain(&why);
            ExitCode::FAILURE
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a pause between two looks, in a command of one thread"
)]
/// The version that serves afterwards, or why nothing was replaced.
fn upgrade(args: &UpgradeArgs) -> Result<String, String> {
    let state_dir = config::state_dir(args.state_dir.as_deref(), &Surroundings::read())
        .ok_or("no state directory: give --state-dir DIR, or set HOME")?;
    let holder = holder(&state_dir)?;
    // One that is under way already is as good as ours.
    let before = match upgrades::last(&state_dir) {
        Some(Upgrade {
            number,
            outcome: Outcome::Asked,
        }) => number.saturating_sub(1),
        Some(Upgrade { number, .. }) => number,
        None => 0,
    };
    kill(Pid::from_raw(holder), Signal::SIGHUP)
        .map_err(|errno| format!("cannot signal the supervisor ({holder}): {}", errno.desc()))?;
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        match upgrades::last(&state_dir) {
            Some(Upgrade { number, outcome }) if number > before => match outcome {
                Outcome::Done(version) => return Ok(version),
                Outcome::Refused(why) => {
                    return Err(format!(
                        "not upgraded, the service runs on as it was: {why}"
                    ));
                }
                Outcome::Asked => {}
            },
            Some(_) | None => {}
        }
        if state_dir::holder(&state_dir).ok().flatten() != Some(holder) {
            return Err("the service ended meanwhile; its log says why".to_owned());
        }
        thread::sleep(GLANCE);
    }
    Err("the service has not said what became of the upgrade; its log may".to_owned())
}

/// Whoever holds the lock is the supervisor: no file names a process that may be somebody else by now.
fn holder(state_dir: &Path) -> Result<i32, String> {
    match state_dir::holder(state_dir) {
        Ok(Some(holder)) if holder > 0 => Ok(holder),
        Ok(_) => Err(format!("no service runs on {}", state_dir.display())),
        Err(error) => Err(format!("cannot read {}: {error}", state_dir.display())),
    }
}
