//! A node of a cluster: it dials its hub for as long as the service lasts, and does what comes over the link.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Upgraded;
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::dial::{DialError, Dialer, Target};
use crate::fetch::Source;
use crate::jobs::{Holding, Told};
use crate::socket::{self, PING, SILENCE};
use job::{JobId, NodeName};
use manager::Assigned;
use protocol::wire::link::{Answered, Ask, FromNode, Hello, PROTOCOL, ToNode};

/// The pauses between two attempts to reach the hub.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How many streams wait for a request of the hub.
const IDLE_STREAMS: usize = 4;

/// Serves HTTP on a connection, until it ends.
pub type Serve =
    Arc<dyn Fn(DuplexStream) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// What a node is started with.
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Its hub.
    pub target: Target,
    /// The most jobs that it runs, by weight.
    pub slots: u32,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its jobs.
    pub assigned: Assigned,
    /// What serves the requests of the hub.
    pub serve: Serve,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("Node");
        out.field("name", &self.name).finish_non_exhaustive()
    }
}

/// How a link ended.
enum Ended {
    /// It broke, or the hub ended it.
    Broken(String),
    /// The hub does not take this node.
    Refused(String),
    /// The service ends.
    Over,
}

impl Node {
    /// Dials the hub until `ending` says that the service ends. The jobs go on whether there is a link or not.
    pub async fn run(self, mut ending: watch::Receiver<bool>) {
        let dialer = match Dialer::new(&self.target) {
            Ok(dialer) => Arc::new(dialer),
            Err(error) => {
                tracing::error!(%error, "this node cannot join: {error}");
                return;
            }
        };
        let (mut pause, mut said) = (PAUSE, String::new());
        loop {
            let began = Instant::now();
            let ended = tokio::select! {
                ended = self.link(&dialer) => ended,
                _ = ending.wait_for(|ending| *ending) => Ended::Over,
            };
            self.assigned.linked(false);
            let url = dialer.base().clone();
            // Of several addresses the next one may be of an API node that lives.
            dialer.next();
            let why = match ended {
                Ended::Over => return,
                Ended::Refused(why) => format!("the hub {url} does not take this node: {why}"),
                Ended::Broken(why) => format!("no link to the hub {url}: {why}"),
            };
            if began.elapsed() > LONGEST_PAUSE * 2 {
                (pause, said) = (PAUSE, String::new());
            }
            // Once, and not with every attempt.
            if why != said {
                tracing::error!("{why}");
                said = why;
            }
            tokio::select! {
                () = tokio::time::sleep_until(Instant::now() + pause) => {}
                _ = ending.wait_for(|ending| *ending) => return,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One link, from the hello to its end.
    async fn link(&self, dialer: &Arc<Dialer>) -> Ended {
        let jobs = match self.assigned.held().await {
            Ok(jobs) => jobs,
            Err(error) => return Ended::Broken(error.to_string()),
        };
        let mut socket = match dialer.dial("/cluster/link", &[]).await {
            Ok(upgraded) => socket::over(upgraded, Role::Client).await,
            Err(error @ (DialError::Setting(_) | DialError::Unreachable(_))) => {
                return Ended::Broken(error.to_string());
            }
            Err(error) => return Ended::Refused(error.to_string()),
        };
        let hello = FromNode::Hello(Hello {
            protocol: PROTOCOL,
            node: self.name.clone(),
            store: self.assigned.store().to_owned(),
            place: self.assigned.place().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            slots: self.slots,
            labels: self.labels.clone(),
            takes_files: true,
            hears_others: true,
            jobs,
        });
        if let Err(error) = socket::send(&mut socket, &hello).await {
            return Ended::Broken(error.to_string());
        }
        let welcome = tokio::time::timeout(SILENCE, socket::receive(&mut socket)).await;
        let epoch = match welcome {
            Ok(Ok(Some(ToNode::Welcome { epoch, .. }))) => epoch,
            Ok(Ok(Some(ToNode::Refused { why }))) => return Ended::Refused(why),
            Ok(Ok(_)) => return Ended::Broken("it says no welcome".to_owned()),
            Ok(Err(error)) => return Ended::Broken(error.to_string()),
            Err(_) => return Ended::Broken("it says nothing".to_owned()),
        };
        self.assigned.linked(true);
        let (name, url) = (&self.name, dialer.base());
        tracing::info!(node = %name, "joined the hub {url} as node {name}");
        let mut streams = JoinSet::new();
        let offering = offer(dialer.clone(), self.name.clone(), epoch, self.serve.clone());
        streams.spawn(offering);
        let source = Arc::new(Source {
            dialer: dialer.clone(),
            node: self.name.clone(),
            epoch,
        });
        let ended = self.converse(socket, source).await;
        streams.shutdown().await;
        ended
    }

    async fn converse(&self, mut socket: WebSocketStream<Upgraded>, source: Arc<Source>) -> Ended {
        let (outgoing, mut sending) = mpsc::unbounded_channel();
        let mut holdings = Holdings::new(self.assigned.clone(), outgoing, source);
        let mut heard_at = Instant::now();
        let ended = loop {
            let heard = tokio::select! {
                heard = socket::receive(&mut socket) => heard,
                Some(message) = sending.recv() => {
                    match socket::send(&mut socket, &message).await {
                        Ok(()) => continue,
                        Err(error) => break Ended::Broken(error.to_string()),
                    }
                }
                Some(ended) = holdings.tasks.join_next() => {
                    holdings.ended(ended);
                    continue;
                }
                Some(_) = holdings.asides.join_next() => continue,
                () = tokio::time::sleep_until(heard_at + SILENCE) => {
                    let seconds = SILENCE.as_secs();
                    break Ended::Broken(format!("it has said nothing for {seconds} seconds"));
                }
            };
            heard_at = Instant::now();
            match heard {
                Ok(Some(ToNode::Refused { why })) => break Ended::Refused(why),
                Ok(Some(message)) => holdings.heard(message),
                Ok(None) => break Ended::Broken("the hub has ended it".to_owned()),
                Err(error) => break Ended::Broken(error.to_string()),
            }
        };
        holdings.end().await;
        ended
    }
}

/// The jobs that this link is about.
struct Holdings {
    assigned: Assigned,
    outgoing: mpsc::UnboundedSender<FromNode>,
    source: Arc<Source>,
    jobs: HashMap<JobId, mpsc::UnboundedSender<Told>>,
    /// One for each job.
    tasks: JoinSet<(JobId, Vec<Told>)>,
    /// What lasts, and nothing depends on.
    asides: JoinSet<()>,
}

impl Holdings {
    fn new(
        assigned: Assigned,
        outgoing: mpsc::UnboundedSender<FromNode>,
        source: Arc<Source>,
    ) -> Self {
        Self {
            assigned,
            outgoing,
            source,
            jobs: HashMap::new(),
            tasks: JoinSet::new(),
            asides: JoinSet::new(),
        }
    }

    fn heard(&mut self, message: ToNode) {
        match message {
            ToNode::Ping => {
                let accepts = self.assigned.ready().is_ok();
                let _ = self.outgoing.send(FromNode::Pong { accepts });
            }
            ToNode::WhoLeads { ticket } => {
                let (source, outgoing) = (self.source.clone(), self.outgoing.clone());
                self.asides.spawn(async move {
                    let lead = source.dialer.who_leads().await;
                    let _ = outgoing.send(FromNode::Lead { ticket, lead });
                });
            }
            ToNode::Prepare(job) => self.tell(job.id, Told::Prepare(job)),
            ToNode::Assign(assignment) => {
                self.tell(assignment.job.id, Told::Assign(assignment));
            }
            ToNode::Follow { job, seen } => self.tell(job, Told::Follow(seen)),
            ToNode::Ack { job, seen } => self.tell(job, Told::Ack(seen)),
            ToNode::Ask {
                ticket,
                job,
                ask: ask @ Ask::IsGone(_),
            } => {
                // It may last, and nothing else waits for it.
                let (assigned, outgoing) = (self.assigned.clone(), self.outgoing.clone());
                self.asides.spawn(async move {
                    let result = assigned.ask(job, ask).await;
                    let answered = Answered { ticket, result };
                    let _ = outgoing.send(FromNode::Answer { job, answered });
                });
            }
            ToNode::Ask { ticket, job, ask } => self.tell(job, Told::Ask(ticket, ask)),
            ToNode::Forget(jobs) => {
                // In turn with what else is said of each: a job may come anew.
                for job in jobs {
                    self.tell(job, Told::Forget);
                }
            }
            ToNode::Welcome { .. } | ToNode::Refused { .. } => {}
        }
    }

    /// Each job has a task, which ends when there is nothing to report of it.
    fn tell(&mut self, job: JobId, told: Told) {
        let unsent = match self.jobs.get(&job) {
            // A hub of before acknowledges the end as well.
            None if matches!(told, Told::Ack(_)) => None,
            Some(task) => task.send(told).err().map(|unsent| unsent.0),
            None => Some(told),
        };
        let Some(told) = unsent else {
            return;
        };
        let (sender, receiver) = mpsc::unbounded_channel();
        let _ = sender.send(told);
        self.jobs.insert(job, sender);
        let holding = Holding::new(
            self.assigned.clone(),
            job,
            self.outgoing.clone(),
            self.source.clone(),
        );
        self.tasks.spawn(holding.run(receiver));
    }

    /// A job's task has ended, and has left these messages unread.
    fn ended(&mut self, ended: Result<(JobId, Vec<Told>), JoinError>) {
        let Ok((job, left)) = ended else {
            return;
        };
        if self
            .jobs
            .get(&job)
            .is_some_and(mpsc::UnboundedSender::is_closed)
        {
            self.jobs.remove(&job);
        }
        for told in left {
            self.tell(job, told);
        }
    }

    /// What is being taken is taken before the next hello.
    async fn end(mut self) {
        self.jobs.clear();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Keeps streams open that wait for requests of the hub, and serves them.
async fn offer(dialer: Arc<Dialer>, node: NodeName, epoch: u64, serve: Serve) {
    let mut streams = JoinSet::new();
    let (taken, mut was_taken) = mpsc::unbounded_channel();
    for _ in 0..IDLE_STREAMS {
        let _ = taken.send(());
    }
    let epoch = epoch.to_string();
    loop {
        tokio::select! {
            Some(()) = was_taken.recv() => {}
            Some(_) = streams.join_next() => continue,
        }
        let query = [("node", node.as_str()), ("epoch", epoch.as_str())];
        let upgraded = loop {
            match dialer.dial("/cluster/stream", &query).await {
                Ok(upgraded) => break upgraded,
                // Without a hub the link ends as well, and this with it.
                Err(_) => tokio::time::sleep_until(Instant::now() + PING).await,
            }
        };
        let (near, carry) = socket::bytes(upgraded, Role::Client);
        let (serve, taken) = (serve.clone(), taken.clone());
        streams.spawn(async move {
            let serving = serve_when_asked(near, serve, taken);
            tokio::join!(carry, serving);
        });
    }
}

/// Serves a stream; as soon as it is used, another one is wanted in its place.
async fn serve_when_asked(near: DuplexStream, serve: Serve, taken: mpsc::UnboundedSender<()>) {
    use tokio::io::AsyncReadExt;
    let (mut outer, inner) = tokio::io::duplex(64 << 10);
    let mut near = near;
    let mut first = vec![0; 8 << 10];
    let length = near.read(&mut first).await.unwrap_or_default();
    let _ = taken.send(());
    if length == 0 {
        return;
    }
    let forwarding = async {
        use tokio::io::AsyncWriteExt;
        if outer.write_all(&first[..length]).await.is_ok() {
            let _ = tokio::io::copy_bidirectional(&mut outer, &mut near).await;
        }
        drop((outer, near));
    };
    tokio::join!(serve(inner), forwarding);
}
