//! `procession mcp`: the tools of [`mcp`] over standard input and output.

use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::header::{AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, RANGE};
use reqwest::{Method, Url};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use uuid::Uuid;

use super::connection::{Apart, Client, ConnectArgs};
use super::execute;
use super::failure::Failure;
use mcp::{Answer, Ask, Asking, Body, Door, OUTPUT_MAX, Options, Tools, Verb, WAIT_MAX, length_of};
use protocol::stderr::complain;

/// How the tools behave.
#[derive(Debug, clap::Args)]
pub struct McpArgs {
    /// Stop the jobs that this process has started when it ends
    #[arg(long)]
    stop_on_exit: bool,
    /// Offer only tools that change nothing
    #[arg(long)]
    read_only: bool,
    /// How long a tool waits for a job by default, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 25, value_parser = clap::value_parser!(u64).range(0..=WAIT_MAX))]
    wait_seconds: u64,
    /// How much output a tool shows by default, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 16_384, value_parser = clap::value_parser!(u64).range(1..=OUTPUT_MAX))]
    output_bytes: u64,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// How long a service may be away while a tool waits for its answer.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(200);
/// How long what was started is waited for at the end.
const GOODBYE: Duration = Duration::from_secs(30);

pub fn run(args: &McpArgs) -> ExitCode {
    execute::run(execute(args))
}

async fn execute(args: &McpArgs) -> Result<ExitCode, Failure> {
    let door = Remote {
        to: Arc::new(Client::new(&args.connect)?.apart()),
        left: Arc::default(),
    };
    let options = Options {
        read_only: args.read_only,
        wait_seconds: args.wait_seconds,
        output_bytes: args.output_bytes,
    };
    let tools = Tools::new(Arc::new(door.clone()), options, env!("CARGO_PKG_VERSION"));
    let failed = |error: &dyn std::fmt::Display| Failure::Local(error.to_string());
    let mut terminated = signal(SignalKind::terminate()).map_err(|error| failed(&error))?;
    let mut interrupted = signal(SignalKind::interrupt()).map_err(|error| failed(&error))?;
    let talk = async {
        // A client that goes away before it has said anything is no failure.
        if let Err(error) = mcp::converse(tools.clone()).await {
            complain(&format!("the client ended: {error}"));
        }
    };
    tokio::select! {
        () = talk => {}
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
    }
    if args.stop_on_exit {
        let stops = tools.started().into_iter();
        let stops = stops.map(async |id| door.ask(mcp::stop_at_exit(&id)).await.err());
        for why in join_all(stops).await.into_iter().flatten() {
            complain(&format!("a job was not stopped: {why}"));
        }
    }
    door.finish().await;
    Ok(ExitCode::SUCCESS)
}

/// The door of tools that run beside the client.
#[derive(Clone, Debug)]
struct Remote {
    to: Arc<Apart>,
    /// What nobody waits for.
    left: Arc<Mutex<JoinSet<()>>>,
}

impl Remote {
    async fn send(&self, ask: &Ask) -> Result<Answer, reqwest::Error> {
        let method = match ask.verb {
            Verb::Get => Method::GET,
            Verb::Post => Method::POST,
            Verb::Delete => Method::DELETE,
            Verb::Put => Method::PUT,
        };
        let mut request = self
            .to
            .http
            .request(method, url(&self.to.base, &ask.target()));
        request = request.timeout(Duration::from_secs(WAIT_MAX + 10));
        if let Some(token) = &self.to.token {
            request = request.header(AUTHORIZATION, token.clone());
        }
        if let Some(key) = &ask.idempotency_key {
            request = request.header("Idempotency-Key", key);
        }
        if let Some(range) = ask.range_header() {
            request = request.header(RANGE, range);
        }
        for (name, value) in &ask.trace {
            request = request.header(*name, value);
        }
        request = match &ask.body {
            Body::None => request,
            Body::Bytes(bytes) => request.body(bytes.clone()),
            Body::Json(value) => {
                let kind = HeaderValue::from_static("application/json");
                request.header(CONTENT_TYPE, kind).body(value.to_string())
            }
        };
        let response = request.send().await?;
        let next_offset = response.headers().get("procession-next-offset");
        let length = response.headers().get(CONTENT_RANGE);
        Ok(Answer {
            length: length.and_then(|value| length_of(value.to_str().ok()?)),
            status: response.status().as_u16(),
            next_offset: next_offset.and_then(|value| value.to_str().ok()?.parse().ok()),
            body: response.bytes().await?.into(),
        })
    }

    /// Waits for what was left to be done.
    async fn finish(&self) {
        let left = self.left.lock().map(|mut left| std::mem::take(&mut *left));
        let Ok(mut left) = left else {
            return;
        };
        let _ = timeout(GOODBYE, async { while left.join_next().await.is_some() {} }).await;
    }

    async fn ask_until_answered(&self, mut ask: Ask) -> Result<Answer, String> {
        if ask.verb == Verb::Post && ask.path == "/jobs" && ask.idempotency_key.is_none() {
            // So that it can be sent again.
            ask.idempotency_key = Some(Uuid::now_v7().to_string());
        }
        let repeatable = ask.verb != Verb::Post || ask.idempotency_key.is_some();
        let until = Instant::now() + PATIENCE;
        loop {
            match self.send(&ask).await {
                Ok(answer) => return Ok(answer),
                Err(error) if error.is_timeout() || !repeatable || Instant::now() >= until => {
                    let mut root: &dyn std::error::Error = &error;
                    while let Some(source) = root.source() {
                        root = source;
                    }
                    return Err(format!("no answer from {}: {root}", self.to.place));
                }
                Err(_) => sleep_until(Instant::now() + PAUSE).await,
            }
        }
    }
}

impl Door for Remote {
    fn ask(&self, ask: Ask) -> Asking<'_> {
        Box::pin(self.ask_until_answered(ask))
    }

    fn leave(&self, ask: Ask) {
        let door = self.clone();
        if let Ok(mut left) = self.left.lock() {
            left.spawn(async move {
                if let Err(why) = door.ask(ask).await {
                    complain(&why);
                }
            });
        }
    }
}

fn url(base: &Url, target: &str) -> Url {
    let mut url = base.clone();
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let prefix = url.path().trim_end_matches('/').to_owned();
    url.set_path(&format!("{prefix}{path}"));
    url.set_query(query);
    url
}
