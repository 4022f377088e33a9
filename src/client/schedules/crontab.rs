//! `procession crontab import`: from the lines of crontab(5) to schedules.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::put;
use crate::connection::{Client, ConnectArgs};
use crate::execute;
use crate::failure::{FAILED, Failure};
use crate::sanitize::escape;
use crate::terminal::print;
use protocol::stderr::complain;

#[derive(Debug, Args)]
pub struct CrontabArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a schedule of each line of a crontab, and say which lines cannot be one
    Import(ImportArgs),
}

#[derive(Debug, Args)]
struct ImportArgs {
    /// Crontab file
    file: PathBuf,
    /// Lines name a user, as in /etc/crontab; assumed beneath /etc
    #[arg(long)]
    system: bool,
    /// Begin the names of the schedules with this instead of the name of the file
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,
    /// Time zone of the lines, unless they set CRON_TZ [default: UTC]
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
    /// Print the schedules as JSON, one per line, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// `procession crontab`
pub fn import(args: &CrontabArgs) -> ExitCode {
    let Action::Import(args) = &args.action;
    execute::run(async {
        let shown = args.file.display();
        let text = std::fs::read_to_string(&args.file)
            .map_err(|error| Failure::Local(format!("cannot read {shown}: {error}")))?;
        let is_system = args.system || args.file.starts_with("/etc");
        let file = args.file.file_name().unwrap_or_default().to_string_lossy();
        let prefix = args.prefix.clone().unwrap_or_else(|| name_of(&file));
        let client = if args.dry_run {
            None
        } else {
            Some(Client::new(&args.connect)?)
        };
        let mut code = ExitCode::SUCCESS;
        for (number, read) in schedules(&text, is_system, args.zone.as_deref()) {
            let name = format!("{prefix}-{number}");
            let made = match (read, &client) {
                (Err(why), _) => Err(why),
                (Ok(body), None) => {
                    print(&format!("{}\n", json!({"name": name, "schedule": body})))?;
                    continue;
                }
                (Ok(body), Some(client)) => match put(client, &name, &body).await {
                    Ok(_) => Ok(()),
                    Err(Failure::Refused(problem)) => Err(problem.to_string()),
                    Err(failure) => return Err(failure),
                },
            };
            match made {
                Ok(()) => print(&format!("{name}\n"))?,
                Err(why) => {
                    complain(&escape(&format!("{shown}, line {number}: {why}")));
                    code = ExitCode::from(FAILED);
                }
            }
        }
        Ok(code)
    })
}

/// What can be part of a name.
fn name_of(file: &str) -> String {
    let name: String = file
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let name = name.trim_matches('-');
    if name.is_empty() {
        "crontab".to_owned()
    } else {
        name.chars().take(50).collect()
    }
}

/// The bodies of schedules by the numbers of their lines, or why there is none.
fn schedules(
    text: &str,
    is_system: bool,
    zone: Option<&str>,
) -> Vec<(usize, Result<Value, String>)> {
    let mut env: Map<String, Value> = Map::new();
    let mut zone = zone.map(str::to_owned);
    let mut shell = "/bin/sh".to_owned();
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match assignment(line) {
            Some(("CRON_TZ", value)) => zone = Some(value.to_owned()),
            Some(("SHELL", value)) => value.clone_into(&mut shell),
            // Nobody sends mail: the output is with the job.
            Some(("MAILTO" | "MAILFROM", _)) => {}
            Some((name, value)) => drop(env.insert(name.to_owned(), json!(value))),
            None => {
                let entry = entry(line, is_system).map(|(when, user, command)| {
                    let mut job = json!({"script": command, "shell": [shell, "-c"], "env": env});
                    if let Some(user) = user {
                        job["user"] = json!(user);
                    }
                    let mut schedule = json!({"cron": when, "job": job, "overlap": "allow"});
                    if let Some(zone) = &zone {
                        schedule["time_zone"] = json!(zone);
                    }
                    schedule
                });
                found.push((number, entry));
            }
        }
    }
    found
}

/// `NAME=VALUE`, in quotes perhaps; never the beginning of an entry.
fn assignment(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once('=')?;
    let name = name.trim_end();
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name
            .bytes()
            .all(|it| it.is_ascii_alphanumeric() || it == b'_');
    let value = value.trim_start();
    let quoted = ['"', '\'']
        .into_iter()
        .find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote));
    is_name.then(|| (name, quoted.unwrap_or(value)))
}

type Entry = (String, Option<String>, String);

/// When, as whom, and what.
fn entry(line: &str, is_system: bool) -> Result<Entry, String> {
    let mut rest = line;
    let mut field = || {
        let (field, after) = rest.split_once(char::is_whitespace)?;
        rest = after.trim_start();
        Some(field)
    };
    let short = || "it has too few fields".to_owned();
    let first = field().ok_or_else(short)?;
    let when = match first {
        "@reboot" => return Err("@reboot is no time".to_owned()),
        name if name.starts_with('@') => name.to_owned(),
        minute => {
            let mut fields = vec![minute];
            for _ in 0..4 {
                fields.push(field().ok_or_else(short)?);
            }
            fields.join(" ")
        }
    };
    let user = if is_system {
        Some(field().ok_or_else(short)?.to_owned())
    } else {
        None
    };
    if rest.is_empty() {
        return Err(short());
    }
    // A % without a backslash would begin the standard input.
    let plain = rest.replace("\\%", "");
    if plain.contains('%') {
        return Err("a % that begins the standard input cannot be imported".to_owned());
    }
    Ok((when, user, rest.replace("\\%", "%")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Debian has it.
    const DEBIAN: &str = "\
# /etc/crontab: system-wide crontab
SHELL=/bin/sh
# You can also override PATH, but by default, newer versions inherit it from the environment
#PATH=/usr/local/sbin:/usr/local/bin:/sbin:/bin:/usr/sbin:/usr/bin

17 *\t* * *\troot\tcd / && run-parts --report /etc/cron.hourly
25 6\t* * *\troot\ttest -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.daily; }
47 6\t* * 7\troot\ttest -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.weekly; }
52 6\t1 * *\troot\ttest -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.monthly; }
#
";

    #[test]
    fn the_crontab_of_debian_has_four_schedules() {
        let found = schedules(DEBIAN, true, Some("Europe/Berlin"));
        let lines: Vec<usize> = found.iter().map(|(number, _)| *number).collect();
        assert_eq!(lines, [6, 7, 8, 9]);
        let first = found[0].1.clone().unwrap();
        assert_eq!(
            first,
            json!({"cron": "17 * * * *", "time_zone": "Europe/Berlin", "overlap": "allow", "job": {
                "script": "cd / && run-parts --report /etc/cron.hourly", "shell": ["/bin/sh", "-c"],
                "env": {}, "user": "root"}})
        );
        for (_, schedule) in found {
            let schedule = schedule.unwrap();
            job::schedule::Line::parse(schedule["cron"].as_str().unwrap()).unwrap();
        }
    }

    #[test]
    fn what_cannot_be_a_schedule_says_why() {
        let text = "CRON_TZ=Asia/Tokyo\nMAILTO=me\nA = \"b c\"\n@reboot x\n* * * * y\n\
                    @daily date +\\%F\n@hourly cat%in\n1 2 3 4 5 z=1 z\n";
        let found = schedules(text, false, None);
        let why = |index: usize| found[index].1.clone().unwrap_err();
        assert!(why(0).contains("@reboot") && why(1).contains("few") && why(3).contains('%'));
        let daily = found[2].1.clone().unwrap();
        assert_eq!(
            (
                &daily["job"]["script"],
                &daily["job"]["env"],
                &daily["time_zone"]
            ),
            (
                &json!("date +%F"),
                &json!({"A": "b c"}),
                &json!("Asia/Tokyo")
            )
        );
        assert_eq!(found[4].1.clone().unwrap()["job"]["script"], "z=1 z");
        assert_eq!((found.len(), found[4].0), (5, 8));
    }

    #[test]
    fn names_are_made_of_files() {
        for (file, name) in [
            ("crontab", "crontab"),
            (".my tab.txt", "my-tab-txt"),
            ("..", "crontab"),
        ] {
            assert_eq!(name_of(file), name);
        }
    }
}
