//! What every handler can reach: the manager, the settings, and what followers share.

use std::ops::Deref;
use std::sync::Arc;

use axum::Router;
use tokio::sync::Semaphore;

use crate::audit_log::Audit;
use crate::connections::Places;
use crate::doctor::Doctor;
use crate::forward::Offered;
use crate::idempotency::Turns;
use crate::layers::auth::Caller;
use crate::output;
use crate::policy::Policies;
use crate::request::SpecLimits;
use crate::standing::Standing;
use crate::streams::Streams;
use crate::tokens::Tokens;
use crate::tokens::sessions::{Sessions, Tickets};
use manager::Manager;

/// How callers over TCP are recognised. The unix socket goes by [`PeerUid`](crate::PeerUid) in both modes.
#[derive(Clone, Debug)]
pub enum AuthMode {
    /// By a bearer token.
    Token {
        /// Those that are recognised.
        tokens: Tokens,
    },
    /// Not at all; for literal loopback addresses only, which whoever binds has to make sure of.
    None,
}

/// What the API needs to know besides the manager.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How callers are recognised.
    pub auth: AuthMode,
    /// Names that `Host` may carry besides loopback names and addresses, without ports.
    pub allowed_hosts: Vec<String>,
    /// The most bytes of a JSON body that are read.
    pub max_body_bytes: usize,
    /// Where a browser on this machine finds the service.
    pub page: String,
    /// Sessions of browsers.
    pub sessions: Sessions,
    /// Answers and WebSockets that last.
    pub streams: Streams,
    /// Places for connections.
    pub places: Places,
    /// Bounds on what a job may be.
    pub spec_limits: SpecLimits,
    /// Where write requests are recorded.
    pub audit: Option<Arc<Audit>>,
    /// With one, there are templates, and they may be all that can be run.
    pub policy: Option<Policies>,
    /// Says how safe the service is.
    pub doctor: Doctor,
    /// Of a hub that shares its ledger with other API nodes: whether it still leads.
    pub ledger: Option<Standing>,
    /// The uid of this process, which may use the unix socket.
    pub uid: u32,
    /// `POST /mcp` is there.
    pub mcp: bool,
    /// The program's version.
    pub version: &'static str,
    /// The commit it was built from, if that is known.
    pub commit: Option<&'static str>,
}

/// What every handler can reach. A request clones it in every layer, so that a clone is cheap.
#[derive(Clone, Debug)]
pub(super) struct Api {
    common: Arc<Common>,
    /// The same API for tools, which ask without a connection.
    pub(super) inside: Option<Router>,
}

/// What all clones share.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) manager: Manager,
    pub(super) settings: Arc<Settings>,
    pub(super) shared_tails: Arc<output::SharedTails>,
    pub(super) turns: Arc<Turns>,
    pub(super) places: Arc<output::Places>,
    /// Readings of whole logs at a time.
    pub(super) searches: Arc<Semaphore>,
    pub(super) tickets: Arc<Tickets<Caller>>,
    /// Streams of the nodes of the cluster whose hub this is.
    pub(super) offered: Arc<Offered>,
}

impl Deref for Api {
    type Target = Common;

    fn deref(&self) -> &Common {
        &self.common
    }
}

/// So many logs are read from end to end at a time.
const SEARCHES: usize = 2;

impl Api {
    pub(super) fn new(manager: Manager, settings: Settings) -> Self {
        Self {
            common: Arc::new(Common {
                manager,
                settings: Arc::new(settings),
                shared_tails: Arc::default(),
                turns: Arc::default(),
                places: Arc::default(),
                searches: Arc::new(Semaphore::new(SEARCHES)),
                tickets: Arc::default(),
                offered: Arc::default(),
            }),
            inside: None,
        }
    }

    pub(super) fn streams(&self) -> &Streams {
        &self.settings.streams
    }
}
