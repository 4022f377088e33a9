//! The connection of client commands: requests, answers, problems, and patience with a service that
//! restarts.
//!
//! It knows HTTP and nothing of what the answers mean. Every request that is sent again is one that may
//! be: reading ones, and those with an idempotency key or an offset.

mod sight;
mod target;
mod tls;

use std::cell::Cell;
use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Upgraded, Url, redirect};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::failure::{Failure, Problem};
use protocol::state_dir::{Surroundings, UNIX_SOCKET};
use protocol::stderr::complain;
use target::{Given, Target};

/// How long making a connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long an ordinary answer may take.
const ANSWER: Duration = Duration::from_secs(60);
/// A host that vanished without a word is noticed after a few of these.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// The first pause before a request is sent again; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(50);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long a request asks the service to hold it at first; a longer wait is several requests. Proxies give up on
/// an answer after 30 s or more.
const HOLD: Duration = Duration::from_secs(25);
/// The shortest, after a proxy has given up earlier.
const SHORTEST_HOLD: Duration = Duration::from_secs(1);
/// A connection or a request that lasted this long shows that the service is there, whatever broke it.
pub(super) const CALM: Duration = Duration::from_secs(5);
/// The user is told that the service is away after this long.
const TELL_AFTER: Duration = Duration::from_secs(2);

/// Which service, and who asks.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectArgs {
    /// URL of the service, such as https://host:8080 [default: the unix socket in the state directory]
    #[arg(long, env = "PROCESSION_URL", value_name = "URL")]
    url: Option<String>,
    /// State directory of the service [default: the one `procession serve` uses]
    #[arg(long, env = "PROCESSION_STATE_DIR", value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// File with the token for --url [default: PROCESSION_TOKEN, or the state directory for a loopback address]
    #[arg(long, env = "PROCESSION_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// CA certificate (PEM) to trust for https instead of the system's
    #[arg(long, env = "PROCESSION_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Client certificate and private key (PEM, one file) for services that require one
    #[arg(long, env = "PROCESSION_CLIENT_CERT", value_name = "FILE")]
    client_cert: Option<PathBuf>,
    /// Seconds to keep retrying if the service goes away
    #[arg(
        long,
        env = "PROCESSION_RETRY_SECONDS",
        value_name = "SECONDS",
        default_value_t = 60
    )]
    retry_seconds: u64,
}

impl ConnectArgs {
    /// The address, where one was given.
    pub(super) fn url(&self) -> Option<&str> {
        self.url.as_deref()
    }
}

/// What a client is made of, for those that send by themselves.
#[derive(Debug)]
pub(super) struct Apart {
    pub(super) http: reqwest::Client,
    pub(super) base: Url,
    pub(super) token: Option<HeaderValue>,
    pub(super) place: String,
    /// Open for as long as requests go through the socket in it.
    _directory: Option<File>,
}

/// A service that can be asked.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<HeaderValue>,
    /// The state directory, opened: the address of the socket goes through it.
    directory: Option<File>,
    /// For people: where the service is.
    place: String,
    patience: Duration,
    /// The service has answered before, so that its absence will pass.
    was_reached: Cell<bool>,
    hold: Cell<Duration>,
}

impl Client {
    /// Finds the service and the token. Nothing is sent yet.
    pub(super) fn new(args: &ConnectArgs) -> Result<Self, Failure> {
        let surroundings = Surroundings::read();
        let state_dir = args.state_dir.clone().or_else(|| surroundings.state_dir());
        let target = target::find(args.url.as_deref(), state_dir.as_deref())?;
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("procession/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT)
            .tcp_keepalive(KEEPALIVE)
            .tcp_nodelay(true);
        let (mut directory, mut token) = (None, None);
        let (base, place) = match &target {
            Target::Socket(path) => {
                let opened = open(path)?;
                // An address has room for 108 bytes; this form does not depend on the length of the path.
                let address = format!("/proc/self/fd/{}/{UNIX_SOCKET}", opened.as_raw_fd());
                builder = builder.unix_socket(address).no_proxy();
                directory = Some(opened);
                let base = Url::parse("http://localhost/").expect("this is an URL");
                (base, format!("the socket in {}", path.display()))
            }
            Target::Url(url) => {
                let given = Given {
                    variable: std::env::var("PROCESSION_TOKEN").ok(),
                    file: args.token_file.as_deref(),
                };
                token = target::token(&given, url, state_dir.as_deref())?;
                if target::is_loopback(url) {
                    builder = builder.no_proxy();
                }
                (url.clone(), url.to_string())
            }
        };
        // Reading what the system trusts takes milliseconds, which only https is worth.
        let http = if base.scheme() == "https" {
            let files = tls::Files {
                ca: args.ca.as_deref(),
                client_cert: args.client_cert.as_deref(),
            };
            tls::build(builder, files)?
        } else {
            let built = builder.tls_built_in_root_certs(false).build();
            built.map_err(|error| Failure::Local(root(&error)))?
        };
        Ok(Self {
            http,
            base,
            token,
            directory,
            place,
            patience: Duration::from_secs(args.retry_seconds),
            was_reached: Cell::new(false),
            hold: Cell::new(HOLD),
        })
    }

    /// Its parts.
    pub(super) fn apart(self) -> Apart {
        Apart {
            http: self.http,
            base: self.base,
            token: self.token,
            place: self.place,
            _directory: self.directory,
        }
    }

    /// A request to this path, which must begin with a slash and be made of what an URL may have; it has
    /// a minute, unless it says otherwise.
    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut url = self.base.clone();
        let prefix = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{prefix}{path}"));
        let request = self.http.request(method, url).timeout(ANSWER);
        match &self.token {
            Some(token) => request.header(AUTHORIZATION, token.clone()),
            None => request,
        }
    }

    /// Does the service see this directory, under the same user?
    pub(super) fn sees(&self, directory: &Path) -> bool {
        self.directory.as_ref().is_some_and(|opened| {
            let socket = format!("/proc/self/fd/{}/{UNIX_SOCKET}", opened.as_raw_fd());
            sight::is_shared(Path::new(&socket), directory)
        })
    }

    pub(super) fn get(&self, path: &str) -> RequestBuilder {
        self.request(Method::GET, path)
    }

    pub(super) fn post(&self, path: &str) -> RequestBuilder {
        self.request(Method::POST, path)
    }

    /// Sends the request once; any answer but success is a failure.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Err(self.failed(&error)),
        };
        if response.status().is_success() {
            self.was_reached.set(true);
            return Ok(response);
        }
        Err(self.refusal(response).await)
    }

    /// Sends a request for another protocol once; gives the connection, which speaks it from here on, and
    /// the head of the answer.
    pub(super) async fn upgrade(
        &self,
        request: RequestBuilder,
    ) -> Result<(Upgraded, HeaderMap), Failure> {
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Err(self.failed(&error)),
        };
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(self.refusal(response).await);
        }
        self.was_reached.set(true);
        let headers = response.headers().clone();
        let upgraded = response.upgrade().await;
        let upgraded = upgraded.map_err(|error| Failure::Lost(root(&error)))?;
        Ok((upgraded, headers))
    }

    /// Sends a request that may be repeated until there is an answer or patience has run out. A service that has
    /// never been reached is not waited for.
    pub(super) async fn send_repeatedly(
        &self,
        mut request: impl FnMut() -> RequestBuilder,
    ) -> Result<Response, Failure> {
        let mut waiting = None;
        loop {
            match self.send(request()).await {
                Err(failure @ Failure::Unreachable(_)) if !self.was_reached.get() => {
                    return Err(failure);
                }
                Err(failure) if is_passing(&failure) => {
                    let waiting = waiting.get_or_insert_with(|| self.patience());
                    waiting.pause(failure).await?;
                }
                other => return other,
            }
        }
    }

    /// The answer to a repeatable request as JSON.
    pub(super) async fn json<T: DeserializeOwned>(
        &self,
        request: impl FnMut() -> RequestBuilder,
    ) -> Result<T, Failure> {
        let mut request = request;
        let mut waiting = None;
        loop {
            let response = self.send_repeatedly(&mut request).await?;
            match response.bytes().await {
                Ok(body) => {
                    return serde_json::from_slice(&body)
                        .map_err(|error| Failure::NotUnderstood(error.to_string()));
                }
                Err(error) => {
                    let waiting = waiting.get_or_insert_with(|| self.patience());
                    waiting.pause(Failure::Lost(root(&error))).await?;
                }
            }
        }
    }

    /// How long a request may ask the service to hold it.
    pub(super) fn hold(&self) -> Duration {
        self.hold.get()
    }

    /// A fresh measure of patience: how long the service may be away from now on.
    pub(super) fn patience(&self) -> Waiting {
        Waiting {
            since: Instant::now(),
            patience: self.patience,
            pause: PAUSE,
            told: false,
        }
    }

    /// A request to which there is no answer.
    fn failed(&self, error: &reqwest::Error) -> Failure {
        // A service that asks for a certificate says so only after the client has taken the connection for good.
        let disagreement = tls::disagreement(error);
        if disagreement.is_none() && !error.is_connect() {
            return Failure::Lost(root(error));
        }
        let place = &self.place;
        let why = disagreement.unwrap_or_else(|| root(error));
        Failure::Unreachable(if self.directory.is_some() {
            format!(
                "no service answers on {place}: {why}; start one with `procession serve`, \
                 or name another with --url or --state-dir"
            )
        } else {
            format!("cannot reach {place}: {why}")
        })
    }

    /// An answer other than the one that was requested.
    async fn refusal(&self, response: Response) -> Failure {
        let status = response.status().as_u16();
        let stdin_offset = response
            .headers()
            .get("procession-stdin-offset")
            .and_then(|value| value.to_str().ok()?.parse().ok());
        let body = response.bytes().await.unwrap_or_default();
        let problem = serde_json::from_slice::<Problem>(&body).ok();
        let Some(mut problem) = problem.filter(|problem| !problem.code.is_empty()) else {
            return self.answer_of_another(status);
        };
        self.was_reached.set(true);
        problem.status = status;
        problem.stdin_offset = stdin_offset;
        Failure::Refused(Box::new(problem))
    }

    /// An answer of something else than the service, most likely a proxy in front of it.
    fn answer_of_another(&self, status: u16) -> Failure {
        let place = &self.place;
        match status {
            502 | 503 => Failure::Unreachable(format!(
                "{place} is a proxy that cannot reach the service: status {status}"
            )),
            504 => {
                // The service was reached, and held the request longer than the proxy waits.
                self.was_reached.set(true);
                self.hold.set((self.hold.get() / 2).max(SHORTEST_HOLD));
                Failure::Lost(format!(
                    "{place} is a proxy that gave up waiting: status 504"
                ))
            }
            _ => Failure::Refused(Box::new(Problem::bare(status))),
        }
    }
}

/// Waiting for a service to come back.
#[derive(Debug)]
pub(super) struct Waiting {
    since: Instant,
    patience: Duration,
    pause: Duration,
    told: bool,
}

impl Waiting {
    /// The service has answered: patience begins again, while the pauses stay as long as they are.
    pub(super) fn reached(&mut self) {
        self.since = Instant::now();
        self.told = false;
    }

    /// Waits before the next try, or gives the failure back when the time is up.
    pub(super) async fn pause(&mut self, failure: Failure) -> Result<(), Failure> {
        let now = Instant::now();
        let waited = now.duration_since(self.since);
        if waited >= self.patience {
            return Err(if let Failure::Unreachable(why) = failure {
                Failure::Lost(why)
            } else {
                failure
            });
        }
        if !self.told && waited >= TELL_AFTER && std::io::stderr().is_terminal() {
            self.told = true;
            let seconds = self.patience.as_secs();
            complain(&format!(
                "the service is away; retrying for up to {seconds} s"
            ));
        }
        tokio::time::sleep_until(now + self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}

/// May the same request succeed a moment later, without anybody doing something?
pub(super) fn is_passing(failure: &Failure) -> bool {
    match failure {
        Failure::Unreachable(_) | Failure::Lost(_) => true,
        Failure::Refused(problem) => problem.code == "monitor_unavailable",
        Failure::Usage(_)
        | Failure::NotUnderstood(_)
        | Failure::NoSuchJob(_)
        | Failure::Local(_)
        | Failure::ReaderGone => false,
    }
}

/// The innermost reason: the outer ones say that there was a request.
fn innermost(error: &reqwest::Error) -> &(dyn std::error::Error + 'static) {
    let mut innermost: &(dyn std::error::Error + 'static) = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost
}

/// The same in words.
pub(super) fn root(error: &reqwest::Error) -> String {
    let innermost = innermost(error);
    if error.is_timeout() {
        "no answer in time".to_owned()
    } else {
        innermost.to_string()
    }
}

fn open(state_dir: &Path) -> Result<File, Failure> {
    File::open(state_dir).map_err(|error| {
        let path = state_dir.display();
        Failure::Unreachable(if error.kind() == std::io::ErrorKind::NotFound {
            format!(
                "no service uses {path}; start one with `procession serve`, \
                 or name another with --url or --state-dir"
            )
        } else if error.kind() == std::io::ErrorKind::PermissionDenied {
            format!("{path} belongs to another user: use --url and a token of that service")
        } else {
            format!("cannot open {path}: {error}")
        })
    })
}
