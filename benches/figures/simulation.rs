//! F17, the large one: a real hub with a thousand nodes that speak the real protocol and run nothing.
//!
//! They are tasks of this program. Each takes what it is given, says that it runs, and that it has ended. One whose link
//! ends dials again, as a node does.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::cluster::{get, hub, token, until};
use crate::report::Row;
use crate::service::{Scratch, Service, pause};
use crate::stats::float64;
use crate::{Plan, note, processes};
use job::event::{Cursor, What};
use job::outcome::{Cause, Exit, ExitStatus, Termination};
use job::time::Timestamp;
use job::{Job, JobId, State};
use protocol::wire::link::{FromNode, Happened, Hello, PROTOCOL, Report, ToNode};

const NODES: usize = 1000;

/// The pause before a node dials again.
const AGAIN: Duration = Duration::from_secs(1);

/// How many jobs a second.
const RATE: u32 = 200;

type Socket = WebSocketStream<TcpStream>;

/// One node, until its link ends.
struct Node<'a> {
    socket: Socket,
    kept: &'a mut Kept,
}

/// What a node keeps between two links.
#[derive(Default)]
struct Kept {
    /// The number of the last event of its store.
    last: Cursor,
    /// The jobs that have ended, and the number of that event, until the hub has it.
    ended: HashMap<JobId, (Job, Cursor)>,
}

fn failed(error: &Error) -> io::Error {
    io::Error::other(error.to_string())
}

impl<'a> Node<'a> {
    async fn join(
        address: SocketAddr,
        token: &str,
        number: usize,
        kept: &'a mut Kept,
    ) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        let url = format!("ws://{address}/cluster/link");
        let mut request = url.into_client_request().map_err(|error| failed(&error))?;
        let token = HeaderValue::try_from(format!("Bearer {token}")).map_err(io::Error::other)?;
        request.headers_mut().insert("authorization", token);
        let (socket, _) = client_async(request, stream)
            .await
            .map_err(|error| failed(&error))?;
        let mut node = Self { socket, kept };
        let name = format!("sim-{number}");
        node.say(&FromNode::Hello(Hello {
            protocol: PROTOCOL,
            node: name.parse().map_err(io::Error::other)?,
            store: format!("urn:sim:{number}"),
            place: "here".to_owned(),
            version: "0".to_owned(),
            slots: 16,
            labels: [("zone".to_owned(), format!("z{}", number % 10))].into(),
            takes_files: false,
            hears_others: false,
            jobs: Vec::new(),
        }))
        .await?;
        Ok(node)
    }

    async fn say(&mut self, message: &FromNode) -> io::Result<()> {
        let text = serde_json::to_string(message)?;
        let sent = self.socket.send(Message::text(text)).await;
        sent.map_err(|error| failed(&error))
    }

    async fn serve(mut self) -> io::Result<()> {
        while let Some(message) = self.socket.next().await {
            let text = match message.map_err(|error| failed(&error))? {
                Message::Text(text) => text,
                Message::Close(_) => return Ok(()),
                Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {
                    continue;
                }
            };
            match serde_json::from_str(&text)? {
                ToNode::Ping => self.say(&FromNode::Pong { accepts: true }).await?,
                ToNode::Assign(assignment) => self.run(assignment.job).await?,
                ToNode::Refused { why } => return Err(io::Error::other(why)),
                ToNode::Follow { job, .. } => self.tell_again(job).await?,
                ToNode::Ack { job, seen } => {
                    let is_known = |it: &(Job, Cursor)| it.1 == seen;
                    if self.kept.ended.get(&job).is_some_and(is_known) {
                        self.kept.ended.remove(&job);
                    }
                }
                ToNode::Welcome { .. }
                | ToNode::Prepare(_)
                | ToNode::Ask { .. }
                | ToNode::WhoLeads { .. }
                | ToNode::Forget(_) => {}
            }
        }
        Ok(())
    }

    /// The hub asks after a job over a new link.
    async fn tell_again(&mut self, job: JobId) -> io::Result<()> {
        match self.kept.ended.get(&job).cloned() {
            Some((job, _)) => self.end(&job).await,
            None => self.say(&FromNode::NotHeld { job }).await,
        }
    }

    async fn end(&mut self, job: &Job) -> io::Result<()> {
        let ended = What::Finished {
            cause: Some(Cause::Exited),
            exit: job.exit,
            requested_by: None,
            reason: None,
        };
        self.kept
            .ended
            .insert(job.id, (job.clone(), self.kept.last + 1));
        self.report(job, ended).await
    }

    /// What a node reports of a job that ends at once.
    async fn run(&mut self, mut job: Job) -> io::Result<()> {
        let now = Timestamp::from_micros(job.created_at.as_micros() + 1000);
        job.state = State::Running;
        job.started_at = Some(now);
        job.version += 1;
        self.report(&job, What::Started { pid: Some(7) }).await?;
        job.state = State::Succeeded;
        job.finished_at = Some(now);
        job.version += 1;
        job.exit = Some(Exit {
            status: ExitStatus::Code(0),
            at: now,
            oom_killed: None,
        });
        job.termination = Some(Termination::unasked(Cause::Exited));
        job.output.complete = true;
        self.end(&job).await
    }

    async fn report(&mut self, job: &Job, what: What) -> io::Result<()> {
        self.kept.last += 1;
        let happened = Happened {
            at: job.started_at.unwrap_or_default(),
            state: job.state,
            attempt: 1,
            what,
        };
        let report = Report {
            job: job.clone(),
            events: vec![happened],
            seen: self.kept.last,
            answers: Vec::new(),
            unconfirmed: false,
        };
        self.say(&FromNode::Report(Box::new(report))).await
    }
}

/// A node for as long as it is wanted.
async fn live(address: SocketAddr, token: String, number: usize) {
    let mut kept = Kept::default();
    loop {
        let ended = match Node::join(address, &token, number, &mut kept).await {
            Ok(node) => node.serve().await,
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            note(&format!("node {number}: {error}"));
        }
        tokio::time::sleep_until(tokio::time::Instant::now() + AGAIN).await;
    }
}

/// Cores and memory in MB of the hub's server over this time.
fn cost(
    hub: &Service,
    time: Duration,
    mut work: impl FnMut() -> io::Result<()>,
) -> io::Result<(f64, f64)> {
    let server = hub.server_pid()?;
    let (begin, used) = (Instant::now(), processes::cpu(server));
    while begin.elapsed() < time {
        work()?;
    }
    let used = processes::cpu(server).saturating_sub(used);
    let cores = float64(used) / 1e9 / begin.elapsed().as_secs_f64();
    Ok((cores, float64(processes::rss(server)) / 1e3))
}

/// A thousand of them, for as long as this is held.
pub(crate) struct Nodes {
    _tasks: JoinSet<()>,
    _runtime: Runtime,
}

impl Nodes {
    /// Has all of them join a hub.
    pub(crate) fn join(hub: &Service, token: &str) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let address = hub.address;
        let tasks = runtime.block_on(async {
            let mut nodes = JoinSet::new();
            for number in 0..NODES {
                nodes.spawn(live(address, token.to_owned(), number));
            }
            nodes
        });
        until(|| Ok(connected(hub)? == NODES))?;
        Ok(Self {
            _tasks: tasks,
            _runtime: runtime,
        })
    }

    /// None of them has gone.
    pub(crate) fn are_all_there(&self, hub: &Service) -> io::Result<()> {
        match connected(hub)? {
            NODES => Ok(()),
            left => Err(io::Error::other(format!("{left} nodes are left"))),
        }
    }
}

fn connected(hub: &Service) -> io::Result<usize> {
    let list = get(hub, "/nodes")?;
    let nodes = list["nodes"].as_array().into_iter().flatten();
    Ok(nodes.filter(|node| node["state"] == "connected").count())
}

/// F17 with many nodes.
pub(crate) fn figures(plan: &Plan, rows: &mut Vec<Row>) -> io::Result<()> {
    note("F17 with 1000 nodes");
    let scratch = Scratch::new()?;
    let hub = hub(&scratch, &["--max-connections", "4096"])?;
    let token = token(&hub, "sim", &scratch.path().join("token"))?;
    let nodes = Nodes::join(&hub, &token)?;
    let time = plan.load * 2;
    let (idle, idle_mb) = cost(&hub, time, || {
        pause(Duration::from_millis(50));
        Ok(())
    })?;
    let mut connection = hub.connect()?;
    let (begin, mut submitted) = (Instant::now(), 0_u32);
    let (busy, busy_mb) = cost(&hub, time, || {
        let due = begin + Duration::from_secs(1) * submitted / RATE;
        pause(due.saturating_duration_since(Instant::now()));
        submitted += 1;
        let answer = connection.exchange(&hub.short_job(""))?;
        match answer.status {
            201 => Ok(()),
            _ => Err(io::Error::other(answer.body)),
        }
    })?;
    let rate = f64::from(submitted) / begin.elapsed().as_secs_f64();
    hub.wait_for_live(0)?;
    nodes.are_all_there(&hub)?;
    rows.push(Row::new(
        "F17",
        "the hub with 1000 simulated nodes, idle",
        format!("{idle:.2} cores, {idle_mb:.0} MB"),
        "≤ 0.2 cores",
        Some(idle <= 0.2),
    ));
    rows.push(Row::new(
        "F17",
        "the same at 200 jobs/s from one client",
        format!("{busy:.2} cores, {busy_mb:.0} MB at {rate:.0} jobs/s"),
        "≤ 1 core, 200 MB",
        Some(busy <= 1.0 && busy_mb <= 200.0),
    ));
    Ok(())
}
