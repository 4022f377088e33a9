//! Connections: accepted from the sockets that the supervisor holds, served until they or the service end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tower::ServiceExt;

use crate::config::{Auth, Config};
use crate::http::{self, AuthMode, PeerUid, Settings, Verifier};
use crate::job::parse::SpecLimits;
use crate::manager::Manager;
use crate::state_dir;
use crate::supervisor::Listeners;

/// The most connections at a time; more wait in the listening socket's queue.
const MOST_CONNECTIONS: usize = 1024;

/// A request head must come within this time, and be within this size and number of headers.
const HEAD_TIME: Duration = Duration::from_secs(10);
const HEAD_BYTES: usize = 32 * 1024;
const HEAD_FIELDS: usize = 64;

/// How long accepting pauses after it failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long open connections get when the service ends.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Everything that is being served.
#[derive(Debug)]
pub(crate) struct Connections {
    accepting: JoinSet<()>,
    closing: watch::Sender<bool>,
}

impl Connections {
    /// Begins to accept; the error is one line that says the fix.
    pub(crate) fn start(
        config: &Config,
        manager: Manager,
        listeners: Listeners,
    ) -> Result<Self, String> {
        let auth = match config.auth {
            Auth::Token => {
                let token =
                    state_dir::token(&config.state_dir).map_err(|error| error.to_string())?;
                AuthMode::Token {
                    verifier: Verifier::of(&token),
                }
            }
            Auth::None => AuthMode::None,
        };
        let app = http::app(
            manager,
            Settings {
                auth,
                allowed_hosts: config.allowed_hosts.clone(),
                max_body_bytes: config.max_body_bytes,
                spec_limits: SpecLimits::default(),
                uid: nix::unistd::geteuid().as_raw(),
                version: env!("CARGO_PKG_VERSION"),
                commit: option_env!("PROCESSION_COMMIT"),
            },
        );
        let (closing, watched) = watch::channel(false);
        let (tcp, unix) = adopt(listeners)
            .map_err(|error| format!("cannot use the listening sockets: {error}"))?;
        let mut accepting = JoinSet::new();
        accepting.spawn(accept_all(app, tcp, unix, watched));
        Ok(Self { accepting, closing })
    }

    /// Lets open connections finish what they are at, for a moment.
    pub(crate) async fn finish(mut self) {
        self.closing.send_replace(true);
        while self.accepting.join_next().await.is_some() {}
    }
}

fn adopt(listeners: Listeners) -> io::Result<(TcpListener, UnixListener)> {
    listeners.tcp.set_nonblocking(true)?;
    listeners.unix.set_nonblocking(true)?;
    Ok((
        TcpListener::from_std(listeners.tcp)?,
        UnixListener::from_std(listeners.unix)?,
    ))
}

/// A connection that has come in.
enum Incoming {
    Tcp(TcpStream),
    Unix(UnixStream),
    Failed(io::Error),
    Closing,
}

async fn accept_all(
    app: Router,
    tcp: TcpListener,
    unix: UnixListener,
    mut closing: watch::Receiver<bool>,
) {
    let mut serving = JoinSet::new();
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        while serving.try_join_next().is_some() {}
        let Ok(place) = places.clone().acquire_owned().await else {
            break;
        };
        let incoming = tokio::select! {
            accepted = tcp.accept() => accepted.map_or_else(Incoming::Failed, |(stream, _)| Incoming::Tcp(stream)),
            accepted = unix.accept() => accepted.map_or_else(Incoming::Failed, |(stream, _)| Incoming::Unix(stream)),
            _ = closing.changed() => Incoming::Closing,
        };
        match incoming {
            Incoming::Tcp(stream) => {
                // Answers are small and written whole: waiting to fill a packet only delays them.
                let _ = stream.set_nodelay(true);
                serving.spawn(serve(app.clone(), stream, None, place, closing.clone()));
            }
            Incoming::Unix(stream) => match stream.peer_cred() {
                Ok(peer) => {
                    let peer = Some(PeerUid(peer.uid()));
                    serving.spawn(serve(app.clone(), stream, peer, place, closing.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection without credentials was closed: {error}")
                }
            },
            Incoming::Failed(error) => {
                tracing::warn!(%error, "a connection could not be accepted: {error}");
                // Out of descriptors or memory: the error stays for a while.
                tokio::time::sleep_until(tokio::time::Instant::now() + ACCEPT_PAUSE).await;
            }
            Incoming::Closing => break,
        }
    }
    drop((tcp, unix));
    let _ = tokio::time::timeout(LAST_WORDS, async {
        while serving.join_next().await.is_some() {}
    })
    .await;
    serving.shutdown().await;
}

async fn serve<S>(
    app: Router,
    stream: S,
    peer: Option<PeerUid>,
    place: OwnedSemaphorePermit,
    mut closing: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = app.map_request(move |mut request: hyper::Request<hyper::body::Incoming>| {
        if let Some(peer) = peer {
            request.extensions_mut().insert(peer);
        }
        request.map(axum::body::Body::new)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEAD_FIELDS)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    // A connection that breaks is the client's affair: its request went its way.
    tokio::select! {
        _ = connection.as_mut() => {}
        _ = closing.changed() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
    drop(place);
}
