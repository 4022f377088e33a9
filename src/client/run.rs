//! `procession run`: a job in the place of a process. Its output is ours, our input is its, a signal to us
//! stops it, and its exit code is ours.

pub(super) mod spec;

use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::pin::pin;
use std::process::ExitCode;

use nix::sys::stat::{SFlag, fstat, major, minor};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::attach::{self, Begin, Wish};
use super::connection::{Client, ConnectArgs};
use super::execute;
use super::failure::{Failure, OURS};
use super::follow::{End, Follow, Record, Selection, Sinks, Stream};
use super::input::{self, Fed};
use super::sanitize::escape;
use super::signals::{self, Signals};
use super::terminal::print;
use super::terminal::print_json;
use super::view::{Exit, Job};
use protocol::stderr::complain;
use spec::{Here, SpecArgs};

/// What a shell tells of a program that wrote to a pipe without a reader: 128 and SIGPIPE.
const READER_GONE: u8 = 141;

/// A job in the foreground, or in the background with `--detach`.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// Print the id of the job once it is accepted, and leave it alone.
    #[arg(short, long)]
    detach: bool,
    /// Send standard input to the job although it is a terminal.
    #[arg(short, long, conflicts_with = "no_stdin")]
    interactive: bool,
    /// Give the job a terminal of the size of this one; with --interactive it is this one, and Ctrl-P Ctrl-Q leaves
    /// the job alone.
    #[arg(short, long, conflicts_with = "json")]
    tty: bool,
    /// Never read standard input.
    #[arg(short, long)]
    no_stdin: bool,
    /// Print the records of the output as JSON, one a line; with --detach the job.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    spec: SpecArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub fn run(args: &RunArgs) -> ExitCode {
    execute::block_on_job(execute(args))
}

async fn execute(args: &RunArgs) -> Result<u8, Failure> {
    let directory = std::env::current_dir().unwrap_or_default();
    let here = Here {
        directory: &directory,
        variable: |name| std::env::var(name).ok(),
    };
    let mut body = args.spec.body(&here)?;
    let feeds = takes_input(args, &body);
    if args.tty {
        give_terminal(&mut body);
    } else if (feeds || args.interactive) && !body.contains_key("template") {
        body.insert("stdin".to_owned(), json!({"mode": "open"}));
    }
    let client = Client::new(&args.connect)?;
    if args.detach {
        let job = create(&client, "/jobs", &body).await?;
        if args.json {
            print_json(&job)?;
        } else {
            print(&format!("{}\n", Job::read(&job)?.id))?;
        }
        return Ok(0);
    }
    if args.tty {
        let job = Job::read(&create(&client, "/jobs", &body).await?)?;
        let wish = Wish {
            writes: args.interactive,
            has_terminal: true,
            begin: Begin::Offset(0),
        };
        return attach::converse(&client, &job.id, wish).await;
    }
    // From here on a signal is the job's business, even where it is not made yet.
    let mut signals = Signals::catch()?;
    let job = {
        let created = create(&client, "/jobs", &body);
        match signals.second_before(created).await {
            Some(created) => Job::read(&created?)?,
            None => {
                return Err(Failure::Lost(
                    "interrupted before the job was known".to_owned(),
                ));
            }
        }
    };
    attend(&client, &job, feeds, args.json, &mut signals).await
}

/// A terminal like ours. What hangs it up ends an interactive shell, which SIGTERM does not.
fn give_terminal(body: &mut Map<String, Value>) {
    let (rows, cols) = attach::size().unwrap_or((24, 80));
    let mut pty = json!({"rows": rows, "cols": cols});
    if let Ok(term) = std::env::var("TERM") {
        pty["term"] = term.into();
    }
    body.entry("pty").or_insert(pty);
    let stop = body.entry("stop").or_insert_with(|| json!({}));
    if let Some(stop) = stop.as_object_mut() {
        stop.entry("signal").or_insert_with(|| json!("SIGHUP"));
    }
}

/// Is our input the job's?
fn takes_input(args: &RunArgs, body: &Map<String, Value>) -> bool {
    if args.no_stdin || args.detach || args.spec.reads_stdin() || body.contains_key("template") {
        return false;
    }
    let is_said = body
        .get("stdin")
        .is_some_and(|stdin| stdin["mode"] != "open");
    !is_said && (args.interactive || has_input())
}

/// A terminal is not read unasked, and nothing comes from `/dev/null`.
fn has_input() -> bool {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        return false;
    }
    let Ok(found) = fstat(stdin.as_fd()) else {
        return false;
    };
    let kind = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT;
    let is_null = kind == SFlag::S_IFCHR && (major(found.st_rdev), minor(found.st_rdev)) == (1, 3);
    !is_null
}

/// Creates a job; a repeat after a break is the same job.
pub(super) async fn create(
    client: &Client,
    path: &str,
    body: &Map<String, Value>,
) -> Result<Value, Failure> {
    let key = Uuid::now_v7().to_string();
    let body = Value::Object(body.clone()).to_string();
    let kind = if path == "/jobs" {
        "application/json"
    } else {
        "application/merge-patch+json"
    };
    let request = || {
        let request = client.post(path).header("Idempotency-Key", &key);
        request.header("Content-Type", kind).body(body.clone())
    };
    client.json(request).await
}

/// What happened first.
enum Event {
    Ended(Result<Ended, Failure>),
    Fed(Result<Fed, Failure>),
    /// The job was asked to stop as often as it makes sense.
    GivenUp(Failure),
}

/// The end of a job's output.
pub(super) struct Ended {
    end: End,
    /// So many bytes were dropped before they could be read.
    missed: u64,
}

/// Stands for the job until it has ended, and gives what to exit with.
pub(super) async fn attend(
    client: &Client,
    job: &Job,
    feeds: bool,
    json: bool,
    signals: &mut Signals,
) -> Result<u8, Failure> {
    let id = job.id.as_str();
    let event = {
        let mut output = pin!(copy(client, id, json));
        let mut feeding = pin!(async {
            started(client, job).await?;
            input::forward(client, id).await
        });
        let mut interrupted = pin!(signals::obey(client, id, signals));
        let mut feeds = feeds;
        loop {
            let event = tokio::select! {
                ended = &mut output => Event::Ended(ended),
                fed = &mut feeding, if feeds => Event::Fed(fed),
                failure = &mut interrupted => Event::GivenUp(failure),
            };
            match event {
                Event::Fed(Ok(Fed::Whole | Fed::Closed)) => feeds = false,
                Event::Ended(_) | Event::GivenUp(_) | Event::Fed(Err(_)) => break event,
            }
        }
    };
    match event {
        Event::Ended(Ok(ended)) => judge(client, id, &ended).await,
        Event::Ended(Err(Failure::ReaderGone)) => {
            let words = "the reader of the output has gone";
            signals::stop_and_wait(client, id, words, signals).await?;
            Ok(READER_GONE)
        }
        Event::Fed(Err(failure)) => {
            // Without the rest of its input the job would wait, or take half for the whole.
            let words = "its input broke off";
            signals::stop_and_wait(client, id, words, signals).await?;
            Err(failure)
        }
        Event::Ended(Err(failure)) | Event::GivenUp(failure) => {
            complain(&format!("job {id} may go on: procession show {id}"));
            Err(failure)
        }
        Event::Fed(Ok(_)) => unreachable!("the loop goes on then"),
    }
}

/// Returns once the job has left the queue.
async fn started(client: &Client, job: &Job) -> Result<(), Failure> {
    let path = format!("/jobs/{}", job.id);
    let mut state = job.state.clone();
    while matches!(state.as_str(), "queued" | "starting") {
        let request = || {
            let request = client.get(&path).timeout(execute::LONG_WAIT * 2);
            request
                .query(&[("wait", execute::LONG_WAIT.as_secs())])
                .query(&[("until", "started")])
        };
        let job: Value = client.json(request).await?;
        state = Job::read(&job)?.state;
    }
    Ok(())
}

/// Copies the output of the job to ours until the job has ended.
async fn copy(client: &Client, id: &str, json: bool) -> Result<Ended, Failure> {
    let selection = Selection {
        follow: true,
        ..Selection::default()
    };
    let mut follow = Follow::new(client, id, selection);
    let mut sinks = Sinks::new();
    let mut missed = 0;
    loop {
        let (record, mut line) = follow.next().await?;
        if json {
            line.push(b'\n');
            sinks.write(Stream::Stdout, &line).await?;
        }
        match record {
            Record::Output { stream, bytes, .. } if !json => sinks.write(stream, &bytes).await?,
            Record::Output { .. } | Record::Other | Record::Pause => {}
            Record::Gap { from, to } => {
                missed += to.saturating_sub(from);
                let count = to.saturating_sub(from);
                sinks.flush().await?;
                complain(&format!(
                    "{count} bytes of the output were dropped before they were read (--max-output keeps more)"
                ));
            }
            Record::End(end) => {
                sinks.flush().await?;
                return Ok(Ended { end, missed });
            }
        }
        if follow.is_drained() {
            sinks.flush().await?;
        }
    }
}

/// What to exit with. An exit code alone says all of most ends, and the rest is asked for.
async fn judge(client: &Client, id: &str, ended: &Ended) -> Result<u8, Failure> {
    let end = &ended.end;
    let own = end.exit.as_ref().and_then(Exit::as_code);
    let is_plain = end.state == "succeeded"
        || end.state == "failed" && end.exit.as_ref().is_some_and(|exit| exit.code.is_some());
    let code = match own {
        Some(code) if is_plain => code,
        Some(_) | None => {
            let path = format!("/jobs/{id}");
            let job: Value = client.json(|| client.get(&path)).await?;
            let job = Job::read(&job)?;
            if let Some(remark) = job.remark() {
                complain(&escape(&remark));
            }
            job.exit_code()
        }
    };
    // Output with a hole in it must not look like success.
    Ok(if code == 0 && ended.missed > 0 {
        OURS
    } else {
        code
    })
}
