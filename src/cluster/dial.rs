//! How a node gets a WebSocket to its hub, and why it does not.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONNECTION, HeaderValue, UPGRADE};
use reqwest::{Certificate, Response, StatusCode, Upgraded, redirect};
use serde::Deserialize;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use url::Url;

use crate::lead;
use protocol::wire::link::Lead;

/// How long a connection and the answer on it may take; with several addresses less, since another one may do.
const CONNECT: Duration = Duration::from_secs(10);
const ONE_OF_MANY: Duration = Duration::from_secs(5);

/// How long an API node may take to say how often the lead has been taken. Who wants to know waits a little longer.
const SAID: Duration = Duration::from_millis(800);

/// A token is no longer than this.
const TOKEN_BYTES: usize = 4096;

/// Which hub, and how it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where it is: one address, or those of all API nodes, any of which will do.
    pub urls: Vec<String>,
    /// The file of the token.
    pub token_file: PathBuf,
    /// The authority of the hub's certificate; without it, those that the system trusts.
    pub ca: Option<PathBuf>,
}

/// Why there is no connection to the hub.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// A file or the URL is of no use.
    #[error("{0}")]
    Setting(String),
    /// Nobody answers.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// It does not know the token.
    #[error("it does not accept the token of --join-token-file")]
    Token,
    /// The token is for something else.
    #[error("the token of --join-token-file has not the scope runner")]
    Scope,
    /// It is no hub.
    #[error(
        "it is no hub: start it with --cluster local, and upgrade it if it does not know that option"
    )]
    NoHub,
    /// It says something else.
    #[error("it refuses: {0}")]
    Refused(String),
}

#[derive(Deserialize)]
struct Problem {
    detail: String,
}

/// What dials.
#[derive(Debug)]
pub(crate) struct Dialer {
    client: reqwest::Client,
    bases: Vec<Url>,
    /// The address that is dialled now.
    turn: AtomicUsize,
    token_file: PathBuf,
}

impl Target {
    /// Reads the files, and dials nobody.
    ///
    /// # Errors
    /// One line that says the fix.
    pub fn check(&self) -> Result<(), DialError> {
        Dialer::new(self)?.token().map(drop)
    }
}

impl Dialer {
    pub(crate) fn new(target: &Target) -> Result<Self, DialError> {
        let setting = |why: String| DialError::Setting(why);
        let bases = target.urls.iter().map(|text| base(text));
        let bases = bases.collect::<Result<Vec<_>, _>>()?;
        let has_tls = bases.iter().any(|(base, _)| base.scheme() == "https");
        let is_loopback = bases.iter().all(|(_, is_loopback)| *is_loopback);
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("procession/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT)
            .http1_only()
            .pool_max_idle_per_host(0)
            .tcp_nodelay(true)
            .tls_built_in_root_certs(has_tls && target.ca.is_none());
        if is_loopback {
            builder = builder.no_proxy();
        }
        if let Some(path) = &target.ca {
            let bundle = Certificate::from_pem_bundle(&read(path, "--join-ca")?);
            let bundle = bundle.unwrap_or_default();
            if bundle.is_empty() {
                let path = path.display();
                return Err(setting(format!("--join-ca {path}: no certificate in PEM")));
            }
            builder = bundle
                .into_iter()
                .fold(builder, |builder, ca| builder.add_root_certificate(ca));
        }
        let client = builder
            .build()
            .map_err(|error| setting(format!("TLS cannot be set up: {}", root(&error))))?;
        Ok(Self {
            client,
            bases: bases.into_iter().map(|(base, _)| base).collect(),
            turn: AtomicUsize::new(0),
            token_file: target.token_file.clone(),
        })
    }

    /// The address that is dialled now.
    pub(crate) fn base(&self) -> &Url {
        let turn = self.turn.load(Ordering::Relaxed);
        &self.bases[turn % self.bases.len()]
    }

    /// Another address from now on, if there are several.
    pub(crate) fn next(&self) {
        self.turn.fetch_add(1, Ordering::Relaxed);
    }

    /// Asks all addresses how often the lead has been taken; gives the highest answer.
    pub(crate) async fn who_leads(&self) -> Option<Lead> {
        let mut asking = JoinSet::new();
        for base in &self.bases {
            let (client, url) = (self.client.clone(), base.to_string());
            asking.spawn(async move {
                let epoch = lead::epoch(&client, &url, SAID).await?;
                Some(Lead { epoch, url })
            });
        }
        asking.join_all().await.into_iter().flatten().max()
    }

    /// Read anew each time: it may have been replaced.
    fn token(&self) -> Result<HeaderValue, DialError> {
        let bytes = read(&self.token_file, "--join-token-file")?;
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim();
        let value = HeaderValue::from_str(&format!("Bearer {text}")).ok();
        let value = value.filter(|_| (1..=TOKEN_BYTES).contains(&text.len()));
        let mut value = value.ok_or_else(|| {
            let path = self.token_file.display();
            DialError::Setting(format!("--join-token-file {path}: holds no token"))
        })?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// A request to this path of the hub.
    fn request(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<reqwest::RequestBuilder, DialError> {
        let mut url = self.base().clone();
        let prefix = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{prefix}{path}"));
        let request = self.client.get(url).query(query);
        Ok(request.header(AUTHORIZATION, self.token()?))
    }

    /// Opens a connection that becomes a WebSocket at this path of the hub.
    pub(crate) async fn dial(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<Upgraded, DialError> {
        let key = generate_key();
        let request = self
            .request(path, query)?
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", &key);
        let response = self
            .answer(request, StatusCode::SWITCHING_PROTOCOLS)
            .await?;
        let accept = response.headers().get("sec-websocket-accept");
        if accept.is_none_or(|it| it.as_bytes() != derive_accept_key(key.as_bytes()).as_bytes()) {
            return Err(DialError::NoHub);
        }
        response
            .upgrade()
            .await
            .map_err(|error| unreachable(&error))
    }

    /// What is at this path of the hub.
    pub(crate) async fn get(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<Response, DialError> {
        self.answer(self.request(path, query)?, StatusCode::OK)
            .await
    }

    /// The answer of the hub, if it is as wanted.
    async fn answer(
        &self,
        request: reqwest::RequestBuilder,
        wanted: StatusCode,
    ) -> Result<Response, DialError> {
        let limit = match self.bases.len() {
            1 => CONNECT * 2,
            _ => ONE_OF_MANY,
        };
        let answer = tokio::time::timeout(limit, request.send()).await;
        let answer = answer.map_err(|_| DialError::Unreachable("no answer in time".to_owned()))?;
        let response = answer.map_err(|error| unreachable(&error))?;
        match response.status() {
            status if status == wanted => Ok(response),
            StatusCode::UNAUTHORIZED => Err(DialError::Token),
            StatusCode::FORBIDDEN => Err(DialError::Scope),
            StatusCode::NOT_FOUND => Err(DialError::NoHub),
            status => {
                let body = response.bytes().await.unwrap_or_default();
                let problem = serde_json::from_slice::<Problem>(&body);
                let detail = problem.map_or_else(|_| status.to_string(), |it| it.detail);
                Err(DialError::Refused(detail))
            }
        }
    }
}

fn unreachable(error: &reqwest::Error) -> DialError {
    DialError::Unreachable(root(error))
}

/// An address, and whether it is of this machine.
fn base(text: &str) -> Result<(Url, bool), DialError> {
    let setting = |why: String| Err(DialError::Setting(why));
    let base = match Url::parse(text) {
        Ok(base) => base,
        Err(error) => return setting(format!("--join {text}: {error}")),
    };
    let host = base.host_str().unwrap_or_default();
    let bare = host.trim_matches(['[', ']']);
    let is_loopback = host == "localhost"
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    match base.scheme() {
        "https" => Ok((base, is_loopback)),
        "http" if is_loopback => Ok((base, is_loopback)),
        "http" => setting(format!(
            "--join {base}: plain HTTP would show the token and every secret to the network: use https://"
        )),
        _ => setting(format!(
            "--join {base}: must begin with https://, or with http:// for a loopback address"
        )),
    }
}

fn read(path: &Path, flag: &str) -> Result<Vec<u8>, DialError> {
    fs::read(path)
        .map_err(|error| DialError::Setting(format!("{flag} {}: {error}", path.display())))
}

/// What is beneath all that was said about it.
fn root(error: &reqwest::Error) -> String {
    let mut innermost: &dyn Error = error;
    while let Some(next) = innermost.source() {
        innermost = next;
    }
    innermost.to_string()
}
