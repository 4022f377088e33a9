//! `procession logs`: the output of a job.

use std::future::pending;
use std::io::IsTerminal;
use std::process::ExitCode;

use clap::ValueEnum;

use super::connection::{Client, ConnectArgs};
use super::execute;
use super::failure::Failure;
use super::follow::{Follow, Record, Selection, Stream};
use super::grep;
use super::lookup;
use super::sanitize::Sanitizer;
use super::signals::Signals;
use super::stdio::{Sinks, reader_gone};
use super::values::since;
use job::time::Timestamp;
use protocol::stderr::complain;

#[derive(Debug, clap::Args)]
pub struct LogsArgs {
    /// Job ID, unique prefix of one, or name
    job: String,
    /// Follow the output until the job ends
    #[arg(short, long)]
    follow: bool,
    /// Show only the last N lines [default: all that are kept]
    #[arg(short = 'n', long, value_name = "N")]
    tail: Option<u64>,
    /// Show only one stream [default: both]
    #[arg(long, value_enum)]
    stream: Option<One>,
    /// Show only output since a time, such as 10m ago or 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Timestamp>,
    /// Show only lines that match a regular expression; exit 1 if there is none
    #[arg(long, value_name = "PATTERN", conflicts_with_all = ["follow", "tail", "since", "timestamps"])]
    grep: Option<String>,
    /// With --grep, ignore case
    #[arg(long, requires = "grep")]
    ignore_case: bool,
    /// Start each line with its time
    #[arg(short, long, conflicts_with = "json")]
    timestamps: bool,
    /// Do not escape control sequences on a terminal
    #[arg(long)]
    raw: bool,
    /// Print the records as JSON, one per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum One {
    Stdout,
    Stderr,
}

impl One {
    fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

pub fn run(args: &LogsArgs) -> ExitCode {
    execute::run(async {
        let client = Client::new(&args.connect)?;
        let id = lookup::id(&client, &args.job).await?;
        if let Some(pattern) = &args.grep {
            let search = grep::Search {
                pattern,
                ignore_case: args.ignore_case,
                stream: args.stream.map(One::as_str),
                json: args.json,
                raw: args.raw,
            };
            let is_terminal = std::io::stdout().is_terminal();
            return grep::run(&client, &id, &search, is_terminal).await;
        }
        print_log(&client, &id, args).await
    })
}

/// The exit code of a command that SIGINT ended.
const INTERRUPTED: u8 = 130;

async fn print_log(client: &Client, id: &str, args: &LogsArgs) -> Result<ExitCode, Failure> {
    let mut pages = [
        Page::of(Stream::Stdout, args),
        Page::of(Stream::Stderr, args),
    ];
    let mut sinks = Sinks::default();
    // A colour must not outlive the command.
    let may_leave_colours = pages.iter().any(|page| page.sanitizer.is_some());
    let interrupted = async {
        if may_leave_colours {
            Signals::catch()?.next().await;
            return Ok(ExitCode::from(INTERRUPTED));
        }
        pending().await
    };
    let ended = tokio::select! {
        copied = copy(client, id, args, &mut pages, &mut sinks) => copied.map(|()| ExitCode::SUCCESS),
        interrupted = interrupted => interrupted,
        () = reader_gone() => Err(Failure::ReaderGone),
    };
    if !matches!(ended, Err(Failure::ReaderGone)) {
        for (page, stream) in pages.iter_mut().zip([Stream::Stdout, Stream::Stderr]) {
            sinks.write(stream, &page.finish()).await?;
        }
        sinks.flush().await?;
    }
    ended
}

async fn copy(
    client: &Client,
    id: &str,
    args: &LogsArgs,
    pages: &mut [Page; 2],
    sinks: &mut Sinks,
) -> Result<(), Failure> {
    let selection = Selection {
        stream: args.stream.map(|stream| stream.as_str().to_owned()),
        tail_lines: args.tail,
        follow: args.follow,
    };
    let mut follow = Follow::new(client, id, selection);
    let is_old = |at: &str| {
        let at = at.parse::<Timestamp>().ok();
        at.is_some_and(|at| args.since.is_some_and(|since| at < since))
    };
    loop {
        let (record, mut line) = follow.next().await?;
        let is_old = matches!(&record, Record::Output { at, .. } if is_old(at));
        if args.json && !line.is_empty() && !is_old {
            line.push(b'\n');
            sinks.write(Stream::Stdout, &line).await?;
        }
        match record {
            Record::Output { stream, at, bytes } if !args.json && !is_old => {
                let page = match stream {
                    Stream::Stdout => &mut pages[0],
                    Stream::Stderr => &mut pages[1],
                };
                sinks.write(stream, &page.shown(&at, &bytes)).await?;
            }
            Record::Output { .. } | Record::Attempt(_) | Record::Other => {}
            Record::Gap { from, to } => {
                sinks.flush().await?;
                let count = to.saturating_sub(from);
                complain(&format!(
                    "{count} bytes were dropped here and are no longer kept"
                ));
            }
            Record::End(_) | Record::Pause => return sinks.flush().await,
        }
        if follow.is_drained() {
            sinks.flush().await?;
        }
    }
}

/// How the bytes of one stream are shown.
struct Page {
    times: bool,
    within_line: bool,
    sanitizer: Option<Sanitizer>,
}

impl Page {
    fn of(stream: Stream, args: &LogsArgs) -> Self {
        let is_terminal = match stream {
            Stream::Stdout => std::io::stdout().is_terminal(),
            Stream::Stderr => std::io::stderr().is_terminal(),
        };
        Self {
            times: args.timestamps,
            within_line: false,
            sanitizer: (is_terminal && !args.raw).then(Sanitizer::default),
        }
    }

    fn shown(&mut self, at: &str, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.times && !self.within_line {
                out.extend_from_slice(at.as_bytes());
                out.push(b' ');
            }
            self.within_line = !line.ends_with(b"\n");
            match &mut self.sanitizer {
                Some(sanitizer) => sanitizer.show(line, &mut out),
                None => out.extend_from_slice(line),
            }
        }
        out
    }

    /// What ends the stream.
    fn finish(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(sanitizer) = &mut self.sanitizer {
            sanitizer.finish(&mut out);
        }
        out
    }
}
