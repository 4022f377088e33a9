//! Connections: accepted from the sockets that the supervisor holds, served until they or the service end.

mod pace;
mod peer;
mod places;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::{Router, middleware};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use crate::api::{AuthMode, Settings};
use crate::audit_log::Audit;
use crate::doctor::Doctor;
use crate::layers::auth::{PeerAddress, PeerHub, PeerUid};
use crate::layers::{guards, rest};
use crate::policy::{Policies, Policy};
use crate::relay::Peers;
use crate::request::SpecLimits;
use crate::standing::Standing;
use crate::streams::Streams;
use crate::tls::{self, Certificates};
use crate::tokens::sessions::{Maker, Sessions};
use crate::tokens::{self, Access, Tokens};
use manager::Manager;
use pace::{Answer, Heard, Pace};
use peer::Peer;
pub use places::Places;
use protocol::listeners::Listeners;

/// A TLS handshake must be done within this time, and a request head must come within it, from its first byte on.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// What is larger is refused here, with 431 and no body: twice what the guards refuse with a problem.
const HEAD_BYTES: usize = 2 * guards::HEAD_BYTES;
const HEAD_FIELDS: usize = 4 * guards::HEAD_FIELDS;

/// How long accepting pauses after it failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long the log says nothing of further failures.
const WARN_PAUSE: Duration = Duration::from_secs(10);

/// A peer that nothing is sent to is asked whether it is there after this time, then so often and so many times: one
/// that is gone without a word is noticed within two minutes. A body that is followed may say nothing for days.
/// No TCP_USER_TIMEOUT: it would also end a reader that is there and has paused.
const KEEPALIVE_IDLE: u32 = 60;
const KEEPALIVE_INTERVAL: u32 = 15;
const KEEPALIVE_PROBES: u32 = 4;

/// How long open connections get when the service ends.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long a stream of a node waits for a request of the hub; the link tells earlier that there will be none.
const STREAM_IDLE: Duration = Duration::from_hours(24 * 365);

/// How long a server that ends waits for the first request of a connection.
const FIRST_WORDS: Duration = Duration::from_millis(500);

/// How clients prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// By a bearer token.
    Token,
    /// Not at all; on a loopback address only.
    None,
}

/// What is served, to whom, and how much of it.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where tokens and the audit log are; absolute.
    pub state_dir: PathBuf,
    /// How clients prove who they are.
    pub auth: Auth,
    /// TLS on the TCP socket.
    pub tls: Option<tls::Files>,
    /// The command policy; absolute.
    pub policy: Option<PathBuf>,
    /// The most connections over TCP, and as many again over the unix socket.
    pub max_connections: usize,
    /// The most answers that follow a job, and WebSockets, at the same time.
    pub max_streams: usize,
    /// How long a connection is kept between two requests.
    pub keep_alive: Duration,
    /// The largest request body.
    pub max_body_bytes: usize,
    /// `POST /mcp` is there.
    pub mcp: bool,
    /// Webhooks may go to private, loopback and link-local addresses.
    pub webhook_allow_private: bool,
    /// Names that the `Host` header may have besides loopback names and addresses; in lower case.
    pub allowed_hosts: Vec<String>,
    /// Says how safe the service is with all of its settings.
    pub doctor: Doctor,
    /// The other API nodes that this hub shares its ledger with, if it does.
    pub ledger: Option<Peers>,
}

/// Everything that is being served.
#[derive(Debug)]
pub struct Connections {
    accepting: JoinSet<()>,
    /// Runs what has become a WebSocket.
    conversing: JoinSet<()>,
    closing: watch::Sender<bool>,
    audit: Arc<Audit>,
    page: String,
    /// What makes codes for browsers; nothing if nobody has to sign in.
    sessions: Option<Sessions>,
    hub_door: HubDoor,
    standing: Option<Standing>,
}

impl Connections {
    /// Begins to accept; the error is one line that says the fix.
    pub fn start(
        options: &Options,
        manager: Manager,
        listeners: Listeners,
    ) -> Result<Self, String> {
        let mut accepting = JoinSet::new();
        let (auth, sessions) = recognised(options, &mut accepting)?;
        let page = page(&listeners, options.tls.is_some())
            .map_err(|error| format!("cannot read the listening address: {error}"))?;
        let policy = options.policy.as_deref().map(Policy::read).transpose()?;
        let policy = policy.map(Policies::new);
        if let (Some(policy), Some(path)) = (policy.clone(), options.policy.clone()) {
            accepting.spawn(policy.follow(path));
        }
        let tls = options.tls.as_ref().map(Certificates::open).transpose()?;
        if let (Some(certificates), Some(files)) = (tls.clone(), options.tls.clone()) {
            accepting.spawn(async move { certificates.follow(&files).await });
        }
        let audit = Arc::new(Audit::open(&options.state_dir)?);
        let (streams, conversations) = Streams::new(options.max_streams);
        let places = Places::new(options.max_connections);
        let standing = |peers| Standing::new(peers, manager.hub());
        let standing = options.ledger.as_ref().map(standing).transpose()?;
        let app = crate::app(
            manager,
            Settings {
                auth,
                allowed_hosts: options.allowed_hosts.clone(),
                max_body_bytes: options.max_body_bytes,
                mcp: options.mcp,
                sessions: sessions.clone(),
                page: page.clone(),
                streams,
                places: places.clone(),
                audit: Some(audit.clone()),
                policy,
                spec_limits: SpecLimits {
                    private_webhooks: options.webhook_allow_private,
                    ..SpecLimits::default()
                },
                doctor: options.doctor.clone(),
                ledger: standing.clone(),
                uid: nix::unistd::geteuid().as_raw(),
                version: env!("CARGO_PKG_VERSION"),
                commit: option_env!("PROCESSION_COMMIT"),
            },
        );
        let app = app.layer(middleware::from_fn(rest::take));
        let (closing, watched) = watch::channel(false);
        let (tcp, unix) = adopt(listeners)
            .map_err(|error| format!("cannot use the listening sockets: {error}"))?;
        let sockets = Sockets {
            tcp,
            unix,
            tls,
            keep_alive: options.keep_alive,
            places,
        };
        let mut conversing = JoinSet::new();
        conversing.spawn(conversations.run(watched.clone(), LAST_WORDS));
        let hub_door = HubDoor {
            app: app.clone(),
            closing: watched.clone(),
        };
        accepting.spawn(accept_all(app, sockets, watched));
        Ok(Self {
            accepting,
            conversing,
            closing,
            audit,
            page,
            sessions: (options.auth == Auth::Token).then_some(sessions),
            hub_door,
            standing,
        })
    }

    /// Resolves when another API node leads, as the others say while the ledger cannot be asked; says which.
    pub fn deposed(&self) -> impl Future<Output = String> + use<> {
        let standing = self.standing.clone();
        async move {
            match standing {
                Some(standing) => standing.deposed().await,
                None => std::future::pending().await,
            }
        }
    }

    /// An address that leads a browser on this machine to the page, signed in once if that is needed.
    #[must_use]
    pub fn way_in(&self) -> Option<String> {
        let page = &self.page;
        let Some(sessions) = &self.sessions else {
            return Some(format!("{page}ui/"));
        };
        let maker = Maker::uid(nix::unistd::geteuid().as_raw());
        let code = sessions.code(maker, Access::Operate)?;
        Some(format!("{page}ui/signin#code={code}"))
    }

    /// Where the hub of this node comes in, if it is one.
    #[must_use]
    pub fn hub_door(&self) -> HubDoor {
        self.hub_door.clone()
    }

    /// Lets open connections finish what they are at, for a moment.
    pub async fn finish(mut self) {
        self.closing.send_replace(true);
        // The first to end is the one that accepts; whoever follows files never does.
        tokio::join!(self.accepting.join_next(), self.conversing.join_next());
        self.accepting.shutdown().await;
        self.audit.sync();
    }
}

/// How callers are recognised, and the sessions of browsers; what follows their files is among `followers`.
fn recognised(
    options: &Options,
    followers: &mut JoinSet<()>,
) -> Result<(AuthMode, Sessions), String> {
    let (auth, sessions) = match options.auth {
        Auth::Token => {
            let state_dir = options.state_dir.clone();
            let tokens = Tokens::open(&state_dir).map_err(|error| error.to_string())?;
            let followed = tokens.clone();
            followers.spawn(async move { followed.follow(&state_dir).await });
            (
                AuthMode::Token { tokens },
                Sessions::open(&options.state_dir),
            )
        }
        Auth::None => (AuthMode::None, Sessions::forgetful()),
    };
    followers.spawn(sessions.clone().keep());
    Ok((auth, sessions))
}

/// Reads every file that [`Connections::start`] will read, so that a mistake ends the start before anything is
/// forked; the error is one line that says the fix.
pub fn check_files(options: &Options) -> Result<(), String> {
    options.policy.as_deref().map(Policy::read).transpose()?;
    options.tls.as_ref().map(tls::acceptor).transpose()?;
    match options.auth {
        Auth::Token => tokens::check(&options.state_dir).map_err(|error| error.to_string()),
        Auth::None => Ok(()),
    }
}

/// Where a browser on this machine finds the service.
fn page(listeners: &Listeners, tls: bool) -> io::Result<String> {
    let mut address = listeners.tcp.local_addr()?;
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    let scheme = if tls { "https" } else { "http" };
    Ok(format!("{scheme}://{address}/"))
}

pub(crate) fn adopt(listeners: Listeners) -> io::Result<(TcpListener, UnixListener)> {
    listeners.tcp.set_nonblocking(true)?;
    listeners.unix.set_nonblocking(true)?;
    if let Err(error) = keep_alive(&listeners.tcp) {
        tracing::warn!(%error, "clients that vanish will not be noticed: TCP keepalive: {error}");
    }
    Ok((
        TcpListener::from_std(listeners.tcp)?,
        UnixListener::from_std(listeners.unix)?,
    ))
}

/// Accepted connections have these settings from the socket that they came in by.
fn keep_alive(listener: &std::net::TcpListener) -> nix::Result<()> {
    setsockopt(listener, sockopt::TcpKeepIdle, &KEEPALIVE_IDLE)?;
    setsockopt(listener, sockopt::TcpKeepInterval, &KEEPALIVE_INTERVAL)?;
    setsockopt(listener, sockopt::TcpKeepCount, &KEEPALIVE_PROBES)?;
    setsockopt(listener, sockopt::KeepAlive, &true)
}

/// Where connections come in.
pub(crate) struct Sockets {
    pub(crate) tcp: TcpListener,
    pub(crate) unix: UnixListener,
    pub(crate) tls: Option<Certificates>,
    pub(crate) keep_alive: Duration,
    pub(crate) places: Places,
}

/// A connection that has come in.
enum Incoming {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
    Failed(io::Error),
    Closing,
}

/// Serves every connection until `closing` says so.
pub(crate) async fn accept_all(app: Router, sockets: Sockets, mut closing: watch::Receiver<bool>) {
    let mut serving = JoinSet::new();
    let mut warn_at = None;
    let own_status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    loop {
        while serving.try_join_next().is_some() {}
        let incoming = tokio::select! {
            accepted = sockets.tcp.accept() => accepted.map_or_else(Incoming::Failed, |(stream, peer)| Incoming::Tcp(stream, peer)),
            accepted = sockets.unix.accept() => accepted.map_or_else(Incoming::Failed, |(stream, _)| Incoming::Unix(stream)),
            _ = closing.changed() => Incoming::Closing,
        };
        match incoming {
            Incoming::Tcp(stream, peer) => {
                // Over the limit a connection is closed at once: one that waited would look like a hang.
                let Some(place) = sockets.places.tcp() else {
                    continue;
                };
                // Answers are small and written whole: waiting to fill a packet only delays them.
                let _ = stream.set_nodelay(true);
                let serve = Serve {
                    app: app.clone(),
                    peer: Peer::Tcp(peer),
                    place: Some(place),
                    keep_alive: sockets.keep_alive,
                    closing: closing.clone(),
                };
                match sockets.tls.as_ref().map(Certificates::current) {
                    None => serving.spawn(serve.run(stream)),
                    Some(tls) => serving.spawn(serve.run_tls(tls, stream)),
                };
            }
            Incoming::Unix(stream) => match peer::of(&stream, &own_status) {
                Ok(peer) => {
                    let Some(place) = sockets.places.unix() else {
                        continue;
                    };
                    let serve = Serve {
                        app: app.clone(),
                        peer,
                        place: Some(place),
                        keep_alive: sockets.keep_alive,
                        closing: closing.clone(),
                    };
                    serving.spawn(serve.run(stream));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection without credentials was closed: {error}")
                }
            },
            Incoming::Failed(error) => {
                if warn_at.is_none_or(|at| tokio::time::Instant::now() >= at) {
                    tracing::warn!(%error, "connections cannot be accepted: {error}");
                    warn_at = Some(tokio::time::Instant::now() + WARN_PAUSE);
                }
                // Out of descriptors or memory: the error stays for a while.
                tokio::time::sleep_until(tokio::time::Instant::now() + ACCEPT_PAUSE).await;
            }
            Incoming::Closing => break,
        }
    }
    drop(sockets);
    let _ = tokio::time::timeout(LAST_WORDS, async {
        while serving.join_next().await.is_some() {}
    })
    .await;
    serving.shutdown().await;
}

/// What it takes to serve one connection.
struct Serve {
    app: Router,
    peer: Peer,
    /// Nothing for the streams of a node, which are few.
    place: Option<OwnedSemaphorePermit>,
    keep_alive: Duration,
    closing: watch::Receiver<bool>,
}

/// Where the hub of this node comes in.
#[derive(Clone, Debug)]
pub struct HubDoor {
    app: Router,
    closing: watch::Receiver<bool>,
}

impl HubDoor {
    /// Serves a stream that this node has opened, until it ends.
    pub async fn serve<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let serve = Serve {
            app: self.app,
            peer: Peer::Hub,
            place: None,
            keep_alive: STREAM_IDLE,
            closing: self.closing,
        };
        serve.run(stream).await;
    }
}

impl Serve {
    async fn run_tls(self, tls: TlsAcceptor, stream: TcpStream) {
        // Whoever does not get through is the client's affair; scanners would fill the log.
        match tokio::time::timeout(HEAD_TIME, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.run(stream).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed: {error}"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        }
    }

    async fn run<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Self {
            app,
            peer,
            place,
            keep_alive,
            mut closing,
        } = self;
        let (asks, mut asked) = watch::channel(false);
        let pace = Pace::new();
        let (at_head, at_answer) = (pace.clone(), pace.clone());
        let service = app.map_request(move |mut request: hyper::Request<hyper::body::Incoming>| {
            asks.send_replace(true);
            at_head.asked();
            match peer {
                Peer::Tcp(address) => drop(request.extensions_mut().insert(PeerAddress(address))),
                Peer::Unix(uid) => drop(request.extensions_mut().insert(PeerUid(uid))),
                Peer::Hub => drop(request.extensions_mut().insert(PeerHub)),
                Peer::Confined => {}
            }
            request.map(axum::body::Body::new)
        });
        let service = service.map_response(move |response: axum::response::Response| {
            let pace = at_answer.clone();
            response.map(|body| Answer { body, pace })
        });
        let stream = Heard {
            stream,
            pace: pace.clone(),
        };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(keep_alive)
            .max_buf_size(HEAD_BYTES)
            .max_headers(HEAD_FIELDS)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
            .with_upgrades();
        let mut connection = std::pin::pin!(connection);
        // A connection that breaks is the client's affair: its request went its way.
        let until_closing = async {
            let _ = closing.changed().await;
            // A request may be on its way, or here and not read yet: a connection that is closed before its
            // first one breaks it, and a client that has just connected cannot know why.
            let _ = tokio::time::timeout(FIRST_WORDS, asked.wait_for(|asked| *asked)).await;
        };
        let is_over = tokio::select! {
            _ = connection.as_mut() => true,
            () = pace.too_slow(HEAD_TIME) => true,
            () = until_closing => false,
        };
        // One that has broken off must not be polled again: it would end in order what it broke off.
        if !is_over {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
        drop(place);
    }
}
