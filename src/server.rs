//! The server: store, manager and HTTP in one process that may crash, be killed or be upgraded at any time.
//!
//! It owns nothing that cannot be rebuilt from the store, the job directories and the monitors. It binds
//! nothing: the listening sockets are the supervisor's.

mod ledger;

use std::fs::File;
use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::geteuid;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::cli::doctor;
use crate::config::{Config, ConfigError, Part};
use crate::limits;
use ::ledger::Leader;
use cluster::Node;
use http::connections::{Auth, Connections, Options};
use http::doctor::Doctor;
use http::relay::Peers;
use linux::failpoint;
use linux::sys::bound_free_heap;
use manager::{self, Host, Info, Limits, Manager, Setup, SupervisorSaid, Tasks};
use protocol::inherited::Inherited;
use protocol::listeners::Listeners;
use protocol::notices::announce;
use protocol::record;
use protocol::state_dir::{SERVING, STORE, private_file};
use protocol::stderr::Failure;
use store::{self, Keeper, Store};

/// How long the server of a dead supervisor may take to end, when it is said that it is waited for, and how often it is
/// looked for. A disk that stands still for seconds holds it up: what it has answered has to be written.
const PREDECESSOR_END: Duration = Duration::from_secs(60);
const PREDECESSOR_SAID: Duration = Duration::from_secs(2);
const PREDECESSOR_PAUSE: Duration = Duration::from_millis(5);

/// The target of the line that says where the service listens; it is on standard output.
pub(crate) const LISTENING: &str = "procession::listening";

/// The target of lines that say what is insecure: whatever is read of the log, these are written.
pub(crate) const INSECURE: &str = "procession::insecure";

/// Runs the server until the supervisor says that the service ends; returns the exit code.
pub(crate) fn run(config: Config, inherited: Inherited) -> u8 {
    bound_free_heap();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("procession-srv")
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start the server: {error}");
            return 1;
        }
    };
    // Boxed, so that there is one copy of it rather than one for each kind of runtime.
    let serving: Pin<Box<dyn Future<Output = _>>> = Box::pin(serve(config, inherited));
    match runtime.block_on(serving) {
        Ok(Ended {
            store,
            leader,
            lock,
        }) => {
            runtime.shutdown_background();
            if let Some(store) = store {
                store.close();
            }
            if let Some(leader) = leader {
                leader.release();
            }
            drop(lock);
            0
        }
        Err(failure) => {
            tracing::error!("cannot start: {}", failure.message);
            runtime.shutdown_background();
            failure.code
        }
    }
}

/// What a server leaves to be closed.
struct Ended {
    store: Option<Store>,
    /// Whoever shares the ledger, and led.
    leader: Option<Leader>,
    lock: File,
}

/// What a service that shares its ledger has when it leads; nothing for one that does not share it.
#[derive(Default)]
struct Lead {
    leader: Option<Leader>,
    keeper: Option<Box<dyn Keeper>>,
    peers: Option<Peers>,
}

/// Waits until this server may write its store; `None` if the supervisor ends it before.
async fn lead(config: &Config, inherited: &Inherited) -> Result<Option<Lead>, Failure> {
    let Some(setup) = &config.ledger else {
        return Ok(Some(Lead::default()));
    };
    Ok(match ledger::follow(config, setup, inherited).await? {
        ledger::Came::Over => None,
        ledger::Came::Lead(lead, known) => Some(Lead {
            leader: Some(lead.leader),
            keeper: Some(lead.keeper),
            peers: Some(ledger::peers(setup, &known)),
        }),
    })
}

async fn serve(config: Config, inherited: Inherited) -> Result<Ended, Failure> {
    failpoint::fail("server.starting").map_err(Failure::system("cannot start the server"))?;
    let lock = wait_for_predecessor(&config.state_dir).await?;
    let Some(Lead {
        leader,
        keeper,
        peers,
    }) = lead(&config, &inherited).await?
    else {
        return Ok(Ended {
            store: None,
            leader: None,
            lock,
        });
    };
    let settings = store::Settings {
        max_events: config.max_events,
        ..store::Settings::new(&config.state_dir.join(STORE))
    };
    let store = Store::open_kept(&settings, keeper).map_err(Failure::config)?;
    let restarts = inherited.restarts;
    let (setup, listeners) = setup(&config, inherited, store);
    let (manager, tasks) = Manager::start(setup).await.map_err(|error| Failure {
        message: error.to_string(),
        code: 1,
    })?;
    let address = listeners
        .tcp
        .local_addr()
        .map_err(Failure::system("cannot read the listening address"))?;
    if config.auth == Auth::None && !address.ip().is_loopback() {
        let listen = address;
        return Err(Failure::config(ConfigError::OpenToNetwork { listen }));
    }
    let options = Options {
        ledger: peers,
        ..http_options(&config)
    };
    let connections =
        Connections::start(&options, manager.clone(), listeners).map_err(Failure::config)?;
    if config.ledger.is_some() {
        // Before anybody comes: the others take over tokens with the jobs.
        ledger::carry_all(&manager.store()).await;
    }
    manager
        .announce_ready()
        .await
        .map_err(Failure::system("cannot reach the supervisor"))?;
    if restarts == 0 {
        greet(&config, address, &connections, &manager.info());
    } else {
        say_back(restarts, &manager.info());
    }
    let (end_node, ending) = watch::channel(false);
    let mut joined = JoinSet::new();
    if let Some(node) = node(&config, &manager, &connections) {
        joined.spawn(node.run(ending));
    }
    let mut carrying = JoinSet::new();
    if config.ledger.is_some() {
        carrying.spawn(ledger::carry(manager.store()));
    }
    let deposed = connections.deposed();
    let lost = async {
        match &leader {
            Some(leader) => tokio::select! {
                why = leader.lost() => why,
                why = deposed => {
                    leader.abandon();
                    why
                }
            },
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = until_the_end(&manager, tasks, connections) => {}
        // Whatever this server knows may be wrong by now. The next one begins with what is in the ledger.
        why = lost => {
            return Err(Failure {
                message: format!("a hub that does not lead any more: {why}"),
                code: 1,
            });
        }
    }
    end_node.send_replace(true);
    // What it was at is in the store, or never was.
    joined.join_next().await;
    Ok(Ended {
        store: Some(manager.store()),
        leader,
        lock,
    })
}

/// What makes this service a node of a cluster, if it is to be one.
fn node(config: &Config, manager: &Manager, connections: &Connections) -> Option<Node> {
    let Part::Node(name, target, labels) = &config.part else {
        return None;
    };
    let door = connections.hub_door();
    let slots = manager.info().max_running;
    Some(Node {
        name: name.clone(),
        target: target.clone(),
        slots: u32::try_from(slots).unwrap_or(u32::MAX),
        labels: labels.clone(),
        assigned: manager.assigned(),
        serve: Arc::new(move |stream| Box::pin(door.clone().serve(stream))),
    })
}

/// What the manager is set up with, and the sockets that are left for the connections.
fn setup(config: &Config, inherited: Inherited, store: Store) -> (Setup, Listeners) {
    let Inherited {
        supervisor,
        supervisor_pid,
        listeners,
        jobs,
        boot_id,
        cgroup,
        no_cgroup,
        restarts,
        beat_every,
        draining,
    } = inherited;
    let setup = Setup {
        store,
        supervisor,
        jobs,
        beat_every,
        draining,
        host: Host {
            boot_id,
            cgroup: cgroup.ok_or_else(|| no_cgroup.unwrap_or_default()),
            supervisor_pid,
            restarts,
        },
        limits: Limits {
            max_running: places(config.max_running, restarts == 0),
            max_queued: config.max_queued,
            max_finished: config.max_finished,
            min_free_bytes: config.min_free_bytes,
            max_upload_bytes: config.max_upload_bytes,
            max_workspace_bytes: config.max_workspace_bytes,
            max_workspaces_bytes: config.max_workspaces_bytes,
        },
        part: match &config.part {
            Part::Alone => manager::Membership::Alone,
            Part::Hub(hub) => manager::Membership::Hub(hub.clone()),
            Part::Node(..) => manager::Membership::Node,
        },
        deny_root_jobs: config.deny_root_jobs,
        webhook_allow_private: config.webhook_allow_private,
        sandbox: config.sandbox,
        metrics_labels: config.metrics_labels.clone(),
        otlp: config.otlp.clone(),
        state_dir: config.state_dir.clone(),
        work_dir: config.work_dir.clone(),
        workspaces: config.workspaces_dir.clone(),
    };
    (setup, listeners)
}

/// Serves until the supervisor says that this server ends, and ends in order.
async fn until_the_end(manager: &Manager, tasks: Tasks, connections: Connections) {
    let mut tasks = std::pin::pin!(tasks.run());
    let mut connections = Some(connections);
    let mut listening = true;
    loop {
        tokio::select! {
            () = &mut tasks => break,
            said = manager.supervisor_said(), if listening => match said {
                // Requests are served on while jobs are stopped: their clients want to see the end.
                SupervisorSaid::Shutdown => {}
                SupervisorSaid::Gone => listening = false,
                SupervisorSaid::Replace => {
                    manager.end_news();
                    if let Some(connections) = connections.take() {
                        connections.finish().await;
                    }
                    manager.leave_jobs();
                }
            },
        }
    }
    manager.end_news();
    if let Some(connections) = connections {
        connections.finish().await;
    }
}

/// How many jobs may run at the same time: as many as was said, or as the limit of open files has room for, so that no job
/// fails for want of them. It is said once.
fn places(max_running: usize, says: bool) -> usize {
    let Ok((open_files, _)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return max_running;
    };
    let places = limits::affordable(max_running, open_files);
    if places < max_running && says {
        tracing::warn!("{}", limits::shortage(places, max_running, open_files));
    }
    places
}

/// The part of the settings that is about what is served.
pub(crate) fn http_options(config: &Config) -> Options {
    Options {
        state_dir: config.state_dir.clone(),
        auth: config.auth,
        tls: config.tls.clone(),
        policy: config.policy.clone(),
        max_connections: config.max_connections,
        max_streams: config.max_streams,
        keep_alive: config.keep_alive,
        max_body_bytes: config.max_body_bytes,
        mcp: config.mcp,
        webhook_allow_private: config.webhook_allow_private,
        allowed_hosts: config.allowed_hosts.clone(),
        ledger: None,
        doctor: Doctor::new({
            let config = config.clone();
            move || doctor::findings(&config)
        }),
    }
}

/// One server at a time: that of a supervisor which was killed may need a moment to notice. What it
/// accepts until then must be in the store before this one reads it.
async fn wait_for_predecessor(state_dir: &Path) -> Result<File, Failure> {
    let failed = |error| Failure::system("cannot lock the store")(error);
    let file = private_file(&state_dir.join(SERVING), false).map_err(failed)?;
    let began = Instant::now();
    let mut was_said = false;
    while !record::lock(&file).map_err(failed)? {
        if began.elapsed() >= PREDECESSOR_END {
            return Err(failed(io::Error::other(
                "the server of an earlier supervisor does not end",
            )));
        }
        if began.elapsed() >= PREDECESSOR_SAID && !std::mem::replace(&mut was_said, true) {
            tracing::warn!(
                "the server of an earlier supervisor still writes; it is waited for, up to {} s",
                PREDECESSOR_END.as_secs()
            );
        }
        tokio::time::sleep_until(Instant::now() + PREDECESSOR_PAUSE).await;
    }
    Ok(file)
}

/// Says that a server has taken the place of one that ended.
fn say_back(restarts: u32, jobs: &Info) {
    let (running, queued) = (jobs.running, jobs.queued);
    tracing::info!(
        running,
        queued,
        restarts,
        "the server is back; {running} jobs run on and {queued} wait"
    );
}

/// Says where the service listens and what it has found; on a terminal, a curl line that works as well.
fn greet(config: &Config, address: SocketAddr, connections: &Connections, jobs: &Info) {
    let scheme = if config.tls.is_some() {
        "https"
    } else {
        "http"
    };
    if config.tls.is_none() && !address.ip().is_loopback() {
        tracing::warn!(
            target: INSECURE,
            "plain HTTP on {address}: the network can read tokens; give --tls-cert and --tls-key, or put a proxy with TLS in front"
        );
    }
    if config.auth == Auth::None {
        tracing::warn!(target: INSECURE, "no authentication: every local user may run commands as this one");
    }
    if geteuid().is_root() && !config.deny_root_jobs {
        tracing::warn!(
            target: INSECURE,
            "running as root: jobs without `user` run as root; --deny-root-jobs refuses them"
        );
    }
    let (running, queued) = (jobs.running, jobs.queued);
    if running + queued > 0 {
        tracing::info!(
            running,
            queued,
            "found jobs of an earlier service: {running} run on and {queued} wait"
        );
    }
    let url = format!("{scheme}://{address}");
    tracing::info!(
        target: LISTENING,
        url,
        state_dir = %config.state_dir.display(),
        version = env!("CARGO_PKG_VERSION"),
        "listening on {url}"
    );
    if io::stdout().is_terminal() {
        let token = config.state_dir.join("token");
        let authorization = match config.auth {
            Auth::Token => format!(" -H \"Authorization: Bearer $(cat {})\"", token.display()),
            Auth::None => String::new(),
        };
        announce(&format!(
            "\nOpen in a browser, once:\n  {}\n\nOr try:\n  curl -s{authorization} -H 'Content-Type: application/json' \\\n    -d '{{\"command\":[\"echo\",\"hello\"]}}' '{scheme}://{address}/jobs?wait=5'\n",
            connections.way_in().unwrap_or_default()
        ));
    }
}
