//! `procession token`: works on the files of the state directory; a running service follows them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use nix::unistd::geteuid;

use super::owner::{act_as_owner, user};
use crate::config;
use client::terminal::printed;
use http::tokens::{self, Access, AuthError, Expiry, TokenName};
use linux::clock;
use protocol::state_dir::{STORE, SYSTEM_STATE_DIR, Surroundings};
use protocol::stderr::complain;

#[derive(Debug, Args)]
pub(super) struct TokenArgs {
    #[command(subcommand)]
    action: Action,
    /// State directory of the service [default: the one `procession serve` uses]; root acts as its owner
    #[arg(long, global = true, env = "PROCESSION_STATE_DIR", value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Create a token and print it; it is shown only once
    Create {
        /// Name of the token; jobs and the audit log show it as token:NAME
        #[arg(long)]
        name: TokenName,
        /// What the token allows; each scope includes those before it, except for runner
        #[arg(long, value_enum)]
        scope: Scope,
        /// Lifetime, such as 90d, 12h or 30m [default: until revoked]
        #[arg(long, value_name = "TIME")]
        expires: Option<Expiry>,
    },
    /// List tokens
    List,
    /// Revoke a token; the token named default is replaced by a new one in its file
    Revoke {
        /// Name of the token
        name: TokenName,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Scope {
    /// Read metrics of the service
    Metrics,
    /// Look at jobs
    Read,
    /// Start, stop and signal jobs
    Operate,
    /// Administer the service
    Admin,
    /// Join the service as a node of its cluster, and nothing else
    Runner,
}

impl From<Scope> for Access {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Metrics => Self::Metrics,
            Scope::Read => Self::Read,
            Scope::Operate => Self::Operate,
            Scope::Admin => Self::Admin,
            Scope::Runner => Self::Runner,
        }
    }
}

pub(super) fn run(args: &TokenArgs) -> ExitCode {
    let Some(state_dir) = config::state_dir(args.state_dir.as_deref(), &Surroundings::read())
    else {
        complain("no state directory: give --state-dir DIR, or set HOME");
        return ExitCode::FAILURE;
    };
    if let Err(why) = act_as_owner(&state_dir) {
        complain(&why);
        return ExitCode::FAILURE;
    }
    match act(&args.action, &state_dir) {
        Ok(text) => printed(&text),
        Err(error) => {
            complain(&error.to_string());
            if !state_dir.exists() && Path::new(SYSTEM_STATE_DIR).exists() {
                complain(&format!(
                    "the service installed on this machine is in {SYSTEM_STATE_DIR}: run this as root for it"
                ));
            }
            ExitCode::FAILURE
        }
    }
}

/// Does it; gives what to print.
fn act(action: &Action, state_dir: &Path) -> Result<String, AuthError> {
    let now = clock::wall();
    match action {
        Action::Create {
            name,
            scope,
            expires,
        } => {
            let expires_at = expires.map(|Expiry(after)| now.after(after));
            let scope = Access::from(*scope);
            let text = tokens::create(state_dir, name, scope, expires_at)?;
            let expires = expires_at.map_or_else(
                || "does not expire".to_owned(),
                |end| format!("expires at {end}"),
            );
            complain(&format!(
                "token {name} with the scope {} {expires}; it is for the service of {} in {}, which takes it within 5 seconds and shows it never again",
                scope.as_str(),
                user(geteuid().as_raw()),
                state_dir.display()
            ));
            Ok(format!("{text}\n"))
        }
        Action::List => {
            let mut table = String::new();
            let mut row = |name: &str, scope: &str, created: &str, expires: &str| {
                table.push_str(&format!("{name:<24} {scope:<8} {created:<28} {expires}\n"));
            };
            row("NAME", "SCOPE", "CREATED", "EXPIRES");
            row(
                tokens::DEFAULT,
                Access::Admin.as_str(),
                "at the first start",
                "never",
            );
            for token in tokens::list(state_dir)? {
                let expires = match token.expires_at {
                    None => "never".to_owned(),
                    Some(end) if end <= now => format!("{end} (expired)"),
                    Some(end) => end.to_string(),
                };
                let (name, created) = (token.name.to_string(), token.created_at.to_string());
                row(&name, token.scope().as_str(), &created, &expires);
            }
            Ok(table)
        }
        Action::Revoke { name } => {
            tokens::revoke(state_dir, name)?;
            complain(&format!(
                "token {name} is revoked; a running service closes its open connections within 5 seconds"
            ));
            let store = state_dir.join(STORE);
            match store::schedules_made_by(&store, &format!("token:{name}")) {
                Ok(schedules) if schedules.is_empty() => {}
                Ok(schedules) => complain(&format!(
                    "schedules that were made with it continue: {}",
                    schedules.join(", ")
                )),
                Err(error) => complain(&format!(
                    "whether schedules were made with it is not known: {error}"
                )),
            }
            Ok(String::new())
        }
    }
}
