//! The service's log: one form from its first line to its last. It is on standard error, except for the line that says
//! where the service listens, which is on standard output for programs that start a service and wait for it.

use std::io::{self, IsTerminal};

use tracing::Metadata;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogForm, LogFormat, LogLevel};
use crate::server::{INSECURE, LISTENING};
use protocol::notices;

/// Text for people on a terminal, else one JSON object a line.
pub(super) fn begin(form: LogForm) {
    let is_text = match form.format {
        Some(LogFormat::Text) => true,
        Some(LogFormat::Json) => false,
        None => io::stderr().is_terminal(),
    };
    // A program may wait for the line about listening, whatever it wants to read of the rest.
    let filter = Targets::new()
        .with_default(level(form.level))
        .with_target(LISTENING, LevelFilter::INFO)
        .with_target(INSECURE, LevelFilter::WARN);
    let log = tracing_subscriber::fmt::layer()
        .with_writer(Places)
        // It would complain on standard error, and panic if that fails.
        .log_internal_errors(false);
    let registry = tracing_subscriber::registry().with(filter);
    // Whoever has set another one already keeps it.
    let _ = if is_text {
        registry
            .with(log.with_ansi(io::stderr().is_terminal()))
            .try_init()
    } else {
        notices::set_json();
        // The list would repeat the one span that there is.
        registry
            .with(log.json().flatten_event(true).with_span_list(false))
            .try_init()
    };
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
}

fn level(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// Where a line goes.
#[derive(Clone, Copy, Debug)]
struct Places;

/// Either is written to without waiting.
#[derive(Clone, Copy, Debug)]
enum Place {
    Errors(notices::Log),
    Output(notices::Announcements),
}

impl MakeWriter<'_> for Places {
    type Writer = Place;

    fn make_writer(&self) -> Place {
        Place::Errors(notices::Log)
    }

    fn make_writer_for(&self, line: &Metadata<'_>) -> Place {
        if line.target() == LISTENING {
            Place::Output(notices::Announcements)
        } else {
            self.make_writer()
        }
    }
}

impl io::Write for Place {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self {
            Self::Errors(log) => log.write(line),
            Self::Output(output) => output.write(line),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
