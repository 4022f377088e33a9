//! A program as a user that PostgreSQL is willing to run as. The figures in `benches` use it as well.

use std::path::Path;
use std::process::{Command, Stdio};

use nix::unistd::geteuid;

/// The user that a service without privileges has on Debian.
pub(crate) const NOBODY: u32 = 65_534;

pub(crate) fn unprivileged(program: &Path) -> Command {
    let mut command = if geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command
            .args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")])
            .arg("--clear-groups")
            .arg(program);
        command
    } else {
        Command::new(program)
    };
    for (name, _) in std::env::vars() {
        if name.starts_with("PG") || name.starts_with("LC_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null()).current_dir("/");
    command
}
