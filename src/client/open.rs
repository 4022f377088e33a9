//! `procession open`: the page, in a browser, signed in by a one-time code.
//!
//! The code is in the fragment of the address, which is sent to nobody. A browser is given a file that only this user
//! can read and that leads there, as everybody can see command lines.

use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::{env, fs};

use clap::{Args, ValueEnum};
use serde::Deserialize;
use serde_json::{Value, json};

use super::connection::{Client, ConnectArgs};
use super::execute;
use super::failure::Failure;
use super::lookup;
use super::terminal::print;
use protocol::state_dir::private_file;
use protocol::stderr::complain;

/// Opens the page.
#[derive(Debug, Args)]
pub struct OpenArgs {
    /// Open this job: an id, the beginning of one, or a name.
    job: Option<String>,
    /// What the browser may do; never more than the caller may.
    #[arg(long, value_enum, default_value_t = Scope::Operate)]
    scope: Scope,
    /// Print the address instead of opening a browser. It is good once, and for ten minutes.
    #[arg(long)]
    print: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Scope {
    /// Look at jobs.
    Read,
    /// Run and stop jobs.
    Operate,
    /// Govern the service.
    Admin,
}

#[derive(Deserialize)]
struct Made {
    code: String,
    url: String,
}

pub fn run(args: &OpenArgs) -> ExitCode {
    execute::run(async {
        let client = Client::new(&args.connect)?;
        let job = match &args.job {
            Some(job) => Some(lookup::id(&client, job).await?),
            None => None,
        };
        let scope = match args.scope {
            Scope::Read => "read",
            Scope::Operate => "operate",
            Scope::Admin => "admin",
        };
        let request = client.post("/session/codes");
        let request = request
            .header("Content-Type", "application/json")
            .body(json!({"scope": scope}).to_string());
        let answer = client.send(request).await?;
        let answer = answer.bytes().await.unwrap_or_default();
        let not_understood = |error: serde_json::Error| Failure::NotUnderstood(error.to_string());
        let answer: Value = serde_json::from_slice(&answer).map_err(not_understood)?;
        let made: Made = serde_json::from_value(answer).map_err(not_understood)?;
        let base = args.connect.url().unwrap_or(&made.url);
        let address = address(base, &made.code, job.as_deref());
        if !args.print && has_display() {
            match open(&address) {
                Ok(()) => return Ok(ExitCode::SUCCESS),
                Err(error) => complain(&format!("cannot open a browser: {error}")),
            }
        }
        print(&format!("{address}\n"))?;
        if env::var_os("SSH_CONNECTION").is_some() {
            let port = base.rsplit(':').next().unwrap_or_default();
            let port: String = port.chars().take_while(char::is_ascii_digit).collect();
            complain(&format!(
                "from another machine, first: ssh -L {port}:localhost:{port} this-machine"
            ));
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// The address that signs a browser in.
fn address(base: &str, code: &str, job: Option<&str>) -> String {
    let base = base.trim_end_matches('/');
    let job = job.map_or_else(String::new, |job| format!("&job={job}"));
    format!("{base}/ui/signin#code={code}{job}")
}

fn has_display() -> bool {
    ["WAYLAND_DISPLAY", "DISPLAY"]
        .iter()
        .any(|name| env::var_os(name).is_some_and(|value| !value.is_empty()))
}

/// A file that leads there, and the program that shows files.
fn open(address: &str) -> io::Result<()> {
    let directory = env::var_os("XDG_RUNTIME_DIR").map_or_else(env::temp_dir, PathBuf::from);
    let path = directory.join(format!("procession-open-{}.html", std::process::id()));
    let mut file = private_file(&path, true)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    write!(
        file,
        "<!doctype html><meta http-equiv=\"refresh\" content=\"0;url={address}\"><title>Procession</title>\n"
    )?;
    drop(file);
    let status = Command::new("xdg-open")
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()?;
    if status.success() {
        Ok(())
    } else {
        fs::remove_file(&path)?;
        Err(io::Error::other(format!("xdg-open: {status}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_in_the_fragment() {
        assert_eq!(
            address("http://127.0.0.1:8080/", "abc", None),
            "http://127.0.0.1:8080/ui/signin#code=abc"
        );
        assert_eq!(
            address("https://host/tools", "abc", Some("0198")),
            "https://host/tools/ui/signin#code=abc&job=0198"
        );
    }
}
