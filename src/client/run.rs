//! `procession run`: this command stands for a job. Its output is ours, our input is its, a signal to us stops it,
//! and its exit code is ours.

mod deliver;
mod files;
pub(super) mod more;
mod ready;
pub(super) mod spec;

use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;

use nix::sys::stat::{SFlag, fstat, major, minor};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::attach::{self, Begin, Options, Sequence};
use super::connection::{Client, ConnectArgs};
use super::execute;
use super::failure::{Failure, OURS, READER_GONE};
use super::files as job_files;
use super::follow::{End, Follow, Record, Selection, Stream};
use super::input::{self, Fed};
use super::lookup;
use super::raw;
use super::sanitize::escape;
use super::signals::{self, Signals};
use super::stdio::{Sinks, is_one_file};
use super::terminal::print;
use super::terminal::print_json;
use super::view::{Exit, Job, TIMED_OUT};
use super::wait::{self, Goal};
use deliver::Deliver;
use protocol::stderr::complain;
use spec::{Here, SpecArgs};

#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// Run in the background and print the job ID
    #[arg(short, long)]
    detach: bool,
    /// With --detach, wait until the job is ready; fail if it is not in time, or ends first
    #[arg(long, requires = "detach")]
    wait_ready: bool,
    /// Send standard input to the job even if it is a terminal
    #[arg(short, long, conflicts_with = "no_stdin")]
    interactive: bool,
    /// Give the job a terminal; with --interactive, connect this terminal to it
    #[arg(short, long, conflicts_with = "json")]
    tty: bool,
    /// Never read standard input
    #[arg(short, long)]
    no_stdin: bool,
    /// Print output records as JSON, one per line; with --detach, print the job
    #[arg(long)]
    json: bool,
    /// Keys that detach from the job with --tty --interactive, such as ctrl-],q; empty for none
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    detach_keys: Sequence,
    /// Bring the artifacts into a directory here once the job has ended, whatever its exit code
    #[arg(long, value_name = "DIR", conflicts_with = "detach")]
    into: Option<PathBuf>,
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
    let is_shown = !args.detach && !args.tty && !args.json && !body.contains_key("template");
    if is_shown && is_one_file() {
        // One pipe keeps the order of the two streams, which would come out as one anyway.
        let output = body.entry("output").or_insert_with(|| json!({}));
        if let Some(output) = output.as_object_mut() {
            output.entry("merge_stderr").or_insert_with(|| json!(true));
        }
    }
    if !args.detach && !args.tty {
        wait_for_us(&mut body);
    }
    let deliver = Deliver::new(&mut body, args.spec.apart(&directory)?)?;
    let client = Client::new(&args.connect)?;
    start_here(&client, &directory, &mut body);
    if let Some(depends_on) = after(&client, args.spec.after()).await? {
        body.insert("depends_on".to_owned(), depends_on);
    }
    if args.detach {
        let created = create(&client, "/jobs", &body);
        let (job, signals) = match &deliver {
            None => (created.await?, None),
            Some(deliver) => {
                let mut signals = Signals::catch_all()?;
                let held = known(signals.second_before(created).await)?;
                let given = deliver.unless_stopped(&client, &held.id, &mut signals);
                (given.await?, Some(signals))
            }
        };
        if args.json {
            print_json(&job)?;
        } else {
            print(&format!("{}\n", Job::read(&job)?.id))?;
        }
        if args.wait_ready {
            let id = Job::read(&job)?.id;
            let ready = wait::reached(&client, &id, Goal::Ready, None);
            match signals {
                None => ready.await?,
                Some(mut signals) => match signals.before(ready).await {
                    Some(reached) => reached?,
                    None => return Err(Failure::Lost("interrupted".to_owned())),
                },
            };
        }
        return Ok(0);
    }
    // From here on a signal is the job's business, even before there is a job.
    let mut signals = Signals::catch()?;
    let created = create(&client, "/jobs", &body);
    let mut job = known(signals.second_before(created).await)?;
    if let Some(deliver) = &deliver {
        let given = deliver.unless_stopped(&client, &job.id, &mut signals);
        job = Job::read(&given.await?)?;
    }
    let code = if args.tty {
        stand_in_terminal(&client, &job, args, &mut signals).await?
    } else {
        attend(&client, &job, feeds, args.json, &mut signals).await?
    };
    if let Some(into) = &args.into {
        job_files::bring(&client, &job.id, into).await?;
    }
    Ok(code)
}

/// What `--after` says, with the ids of the jobs.
async fn after(client: &Client, jobs: &[String]) -> Result<Option<Value>, Failure> {
    let mut depends_on = Vec::new();
    for text in jobs {
        let (job, on) = match text.rsplit_once(':') {
            Some((job, on @ ("succeeded" | "failed" | "finished"))) => (job, on),
            Some(_) | None => (text.as_str(), "succeeded"),
        };
        let job = lookup::id(client, job).await?;
        depends_on.push(json!({"job": job, "on": on}));
    }
    Ok((!depends_on.is_empty()).then_some(Value::Array(depends_on)))
}

/// The job starts in this directory, if the service can get into it and the request names none.
fn start_here(client: &Client, directory: &Path, body: &mut Map<String, Value>) {
    let is_said = ["cwd", "template", "user"].iter();
    let is_said = is_said.into_iter().any(|field| body.contains_key(*field));
    if is_said || files::has_workspace(body) {
        return;
    }
    match directory.to_str() {
        Some(here) if client.sees(directory) => {
            body.insert("cwd".to_owned(), json!(here));
        }
        _ if std::io::stderr().is_terminal() => complain(
            "the service does not see this directory: the job starts in the service's work directory, unless -C names another",
        ),
        _ => {}
    }
}

/// The job, unless two signals came before the answer.
pub(super) fn known(created: Option<Result<Value, Failure>>) -> Result<Job, Failure> {
    match created {
        Some(created) => Job::read(&created?),
        None => Err(Failure::Lost(
            "interrupted before the answer came; `procession ps` shows whether there is a job"
                .to_owned(),
        )),
    }
}

/// `--tty`: the job's terminal, and no job that is left without a word.
async fn stand_in_terminal(
    client: &Client,
    job: &Job,
    args: &RunArgs,
    signals: &mut Signals,
) -> Result<u8, Failure> {
    let options = Options {
        writes: args.interactive,
        has_terminal: true,
        begin: Begin::Offset(0),
        redraw: false,
        detach_keys: args.detach_keys.clone(),
    };
    let id = job.id.as_str();
    let failure = match attach::converse(client, id, options).await {
        Ok(code) => return Ok(code),
        Err(failure) => failure,
    };
    let reason = match &failure {
        Failure::ReaderGone => "the reader of the output is gone",
        // Nobody has seen anything of it.
        Failure::Refused(_) | Failure::NotUnderstood(_) => "its terminal cannot be used",
        Failure::Usage(_)
        | Failure::Unreachable(_)
        | Failure::Lost(_)
        | Failure::NoSuchJob(_)
        | Failure::Local(_) => {
            complain(&format!(
                "job {id} may still be running: procession attach {id}"
            ));
            return Err(failure);
        }
    };
    match signals::stop_and_wait(client, id, reason, signals).await {
        Ok(()) => complain(&format!("job {id} was stopped: {reason}")),
        Err(other) => {
            complain(&format!("job {id} may still be running: {other}"));
        }
    }
    Err(failure)
}

/// A job whose output goes through here waits for its reader, as in a pipe, unless something else is said of its output.
fn wait_for_us(body: &mut Map<String, Value>) {
    if body.contains_key("template") {
        return;
    }
    let output = body.entry("output").or_insert_with(|| json!({}));
    if let Some(output) = output.as_object_mut()
        && !output.contains_key("max_bytes")
    {
        output.entry("on_limit").or_insert_with(|| json!("wait"));
    }
}

/// A terminal like ours. What hangs it up ends an interactive shell, which SIGTERM does not.
fn give_terminal(body: &mut Map<String, Value>) {
    let (rows, cols) = raw::size().unwrap_or((24, 80));
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
    // What one attempt has read is gone for the next: only who asks for it is told so by the service.
    let is_retried = body.get("retry").is_some_and(|retry| !retry.is_null());
    if is_retried && !args.interactive {
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
    let kind = if ["/jobs", "/batches"].contains(&path) {
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

/// Stands for the job until it has ended, and gives the exit code.
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
            let words = "the reader of the output is gone";
            signals::stop_and_wait(client, id, words, signals).await?;
            Ok(READER_GONE)
        }
        Event::Fed(Err(failure)) => {
            // Without the rest of its input the job would wait, or take half for the whole.
            let words = "its input broke off";
            signals::stop_and_wait(client, id, words, signals).await?;
            Err(failure)
        }
        Event::Ended(Err(failure)) if failure.is_no_such_job() => {
            complain(&format!(
                "job {id} was removed before its end could be read"
            ));
            Err(failure)
        }
        Event::Ended(Err(failure)) | Event::GivenUp(failure) => {
            complain(&format!(
                "job {id} may still be running: procession show {id}"
            ));
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
            client
                .get(&path)
                .query(&[("wait", client.hold().as_secs_f64())])
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
    let mut sinks = Sinks::default();
    let mut missed = 0;
    let mut said = 1;
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
                    "{count} bytes of output were dropped before they could be read (--max-output keeps more)"
                ));
            }
            Record::Attempt(attempt) => {
                sinks.flush().await?;
                if attempt > said {
                    said = attempt;
                    complain(&format!("attempt {attempt} begins"));
                }
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

/// The exit code. For most ends the job's own says everything; for the others the job is read.
async fn judge(client: &Client, id: &str, ended: &Ended) -> Result<u8, Failure> {
    let end = &ended.end;
    let own = end.exit.as_ref().and_then(Exit::as_code);
    let is_plain = end.state == "succeeded"
        || end.state == "failed" && end.exit.as_ref().is_some_and(|exit| exit.code.is_some());
    let code = match own {
        Some(code) if is_plain => code,
        Some(_) | None => {
            match lookup::get(client, id).await {
                Ok((_, job)) => {
                    if let Some(remark) = job.remark() {
                        complain(&escape(&remark));
                    }
                    job.exit_code()
                }
                // Its output has told how it ended.
                Err(failure) if failure.is_no_such_job() => {
                    complain(&format!(
                        "the job is {}, and its record was removed",
                        escape(&end.state)
                    ));
                    match end.state.as_str() {
                        "timed_out" => TIMED_OUT,
                        _ => own.unwrap_or(OURS),
                    }
                }
                Err(failure) => return Err(failure),
            }
        }
    };
    // Output with a hole in it must not look like success.
    Ok(if code == 0 && ended.missed > 0 {
        OURS
    } else {
        code
    })
}
