//! A server that shares its ledger with other API nodes: it follows until it leads, and is a hub from then on.

use std::os::fd::AsFd;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{LISTENING, http_options};
use crate::config::{Config, ConfigError};
use http::relay::{Peers, Relaying};
use ledger::{Follower, Lead, LedgerError, Setup, Status, Took};
use linux::sys;
use protocol::inherited::Inherited;
use protocol::listeners::Listeners;
use protocol::state_dir::SHARED;
use protocol::stderr::Failure;
use protocol::wire::messages::{FromSupervisor, ToSupervisor};
use protocol::wire::{self, Received};
use store::{SharedFiles, Store};

/// How long the first start waits for the database.
const FIRST: Duration = Duration::from_secs(10);

/// How often files of the state directory are looked at that belong to the cluster.
const LOOK: Duration = Duration::from_secs(1);

/// How following ended.
pub(super) enum Came {
    /// This server leads.
    Lead(Box<Lead>, Status),
    /// The supervisor ends it.
    Over,
}

/// The supervisor, as a server hears it that has no manager yet.
struct Overseer {
    socket: AsyncFd<std::os::fd::OwnedFd>,
    alive: Option<tokio::time::Interval>,
}

impl Overseer {
    fn new(inherited: &Inherited) -> std::io::Result<Self> {
        let socket = sys::watch(inherited.supervisor.try_clone()?, Interest::READABLE)?;
        let alive = inherited.beat_every.map(|every| {
            let mut alive = interval(every);
            alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
            alive
        });
        Ok(Self { socket, alive })
    }

    fn tell(&self, message: &ToSupervisor) {
        // If it does not take it, it is gone, which is heard.
        let _ = wire::send(self.socket.get_ref().as_fd(), message, &[]);
    }

    /// Resolves when this server is to end; says every now and then that it lives.
    async fn ends(&mut self) {
        loop {
            let (socket, alive) = (&self.socket, &mut self.alive);
            let beat = async {
                match alive {
                    Some(alive) => drop(alive.tick().await),
                    None => std::future::pending().await,
                }
            };
            let heard = socket.async_io(Interest::READABLE, |fd| {
                wire::receive::<FromSupervisor>(fd.as_fd())
            });
            tokio::select! {
                heard = heard => match heard {
                    Ok(Received::Message(FromSupervisor::Shutdown { .. } | FromSupervisor::Replace, _) | Received::Closed) => return,
                    Err(error) => tracing::error!(%error, "a message of the supervisor was not understood: {error}"),
                },
                () = beat => self.tell(&ToSupervisor::Alive),
            }
        }
    }
}

fn failure(error: LedgerError) -> Failure {
    match error {
        LedgerError::Unusable(message) => Failure::config(message),
        LedgerError::Unavailable(_)
        | LedgerError::Deposed(_)
        | LedgerError::Store(_)
        | LedgerError::Io(_) => Failure {
            message: error.to_string(),
            code: 1,
        },
    }
}

/// Follows until this server leads or is to end.
pub(super) async fn follow(
    config: &Config,
    setup: &Setup,
    inherited: &Inherited,
) -> Result<Came, Failure> {
    let mut overseer =
        Overseer::new(inherited).map_err(Failure::system("cannot hear the supervisor"))?;
    let mut follower = Follower::new(setup, env!("CARGO_PKG_VERSION")).map_err(failure)?;
    let status = follower.status();
    let began = Instant::now();
    let is_first = inherited.restarts == 0;
    let mut relaying: Option<Relaying> = None;
    loop {
        let took = tokio::select! {
            took = follower.turn() => took.map_err(failure)?,
            () = overseer.ends() => {
                finish(relaying).await;
                return Ok(Came::Over);
            }
        };
        if let Took::Lead(lead) = took {
            finish(relaying).await;
            return Ok(Came::Lead(lead, status));
        }
        let view = status.view();
        if relaying.is_some() {
            continue;
        }
        let has_all = view.seq > 0 && view.seq == view.head && !view.leader.is_empty();
        // One that was there before says that it can do nothing, so that clients and nodes look for another.
        let is_back = !is_first && view.trouble.is_some();
        if view.is_heard() && has_all || is_back {
            relaying = Some(relay(config, setup, inherited, &status)?);
            overseer.tell(&ToSupervisor::Ready);
        } else if let Some(why) = view.trouble
            && is_first
            && began.elapsed() > FIRST
        {
            let message = format!("the ledger cannot be reached: {why}");
            return Err(Failure { message, code: 1 });
        }
    }
}

async fn finish(relaying: Option<Relaying>) {
    if let Some(relaying) = relaying {
        relaying.finish().await;
    }
}

/// Begins to pass requests on.
fn relay(
    config: &Config,
    setup: &Setup,
    inherited: &Inherited,
    status: &Status,
) -> Result<Relaying, Failure> {
    let system = Failure::system("cannot use the listening sockets");
    let listeners: Listeners = inherited.listeners.try_clone().map_err(system)?;
    let address = listeners
        .tcp
        .local_addr()
        .map_err(Failure::system("cannot read the listening address"))?;
    if config.tls.is_none() && !address.ip().is_loopback() {
        let listen = address;
        tracing::warn!(
            target: super::INSECURE,
            "{}",
            ConfigError::OpenToNetwork { listen }
        );
    }
    let relaying = Relaying::start(&http_options(config), peers(setup, status), listeners);
    let relaying = relaying.map_err(Failure::config)?;
    let scheme = match config.tls {
        Some(_) => "https",
        None => "http",
    };
    let leader = status.view().leader;
    let url = format!("{scheme}://{address}");
    tracing::info!(
        target: LISTENING,
        url,
        state_dir = %config.state_dir.display(),
        version = env!("CARGO_PKG_VERSION"),
        "listening on {url}, and following {leader}"
    );
    Ok(relaying)
}

/// The other API nodes, and what is known of who leads.
pub(super) fn peers(setup: &Setup, status: &Status) -> Peers {
    Peers {
        own: setup.advertise.clone(),
        ca: setup.ca.clone(),
        takeover: setup.takeover,
        status: status.clone(),
    }
}

/// Keeps the files of the state directory that belong to the cluster in the ledger, for as long as it is polled.
pub(super) async fn carry(store: Store) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        carry_all(&store).await;
    }
}

/// The same once.
pub(super) async fn carry_all(store: &Store) {
    for name in SHARED {
        if let Err(error) = SharedFiles(store).carry(name).await {
            tracing::warn!(%error, "{name} is not known to the other API nodes: {error}");
        }
    }
}
