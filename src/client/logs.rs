//! `procession logs`: what a job has written.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::ValueEnum;

use super::connection::{Client, ConnectArgs};
use super::execute;
use super::failure::Failure;
use super::follow::{Follow, Record, Selection, Sinks, Stream};
use super::lookup;
use super::sanitize::Sanitizer;
use protocol::stderr::complain;

#[derive(Debug, clap::Args)]
pub struct LogsArgs {
    /// An id, the beginning of one, or a name.
    job: String,
    /// Go on until the job has ended.
    #[arg(short, long)]
    follow: bool,
    /// Only the last so many lines.
    #[arg(short = 'n', long, value_name = "N")]
    tail: Option<u64>,
    /// Only one stream.
    #[arg(long, value_enum)]
    stream: Option<One>,
    /// Each line behind the time at which it began to come.
    #[arg(short, long, conflicts_with = "json")]
    timestamps: bool,
    /// On a terminal, too, the bytes as they are; they can do there what they like.
    #[arg(long)]
    raw: bool,
    /// Print the records as JSON, one a line.
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

pub fn run(args: &LogsArgs) -> ExitCode {
    execute::run(async {
        let client = Client::new(&args.connect)?;
        let id = lookup::id(&client, &args.job).await?;
        print_log(&client, &id, args).await?;
        Ok(ExitCode::SUCCESS)
    })
}

async fn print_log(client: &Client, id: &str, args: &LogsArgs) -> Result<(), Failure> {
    let selection = Selection {
        stream: args.stream.map(|stream| match stream {
            One::Stdout => "stdout".to_owned(),
            One::Stderr => "stderr".to_owned(),
        }),
        tail_lines: args.tail,
        follow: args.follow,
    };
    let mut follow = Follow::new(client, id, selection);
    let mut sinks = Sinks::new();
    let mut pages = [
        Page::of(Stream::Stdout, args),
        Page::of(Stream::Stderr, args),
    ];
    loop {
        let (record, mut line) = follow.next().await?;
        if args.json && !line.is_empty() {
            line.push(b'\n');
            sinks.write(Stream::Stdout, &line).await?;
        }
        match record {
            Record::Output { stream, at, bytes } if !args.json => {
                let page = match stream {
                    Stream::Stdout => &mut pages[0],
                    Stream::Stderr => &mut pages[1],
                };
                sinks.write(stream, &page.shown(&at, &bytes)).await?;
            }
            Record::Output { .. } | Record::Other => {}
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
}
