//! The nodes of a cluster as its hub knows them: who has joined, who is connected, and which messages go to whom.
//!
//! How a message travels is not known here, and what is done about a job is its task's affair.

mod account;
mod file;
mod govern;
mod hub;
mod link;
mod witness;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};

use crate::inputs::Fetch;
use account::Slots;
pub(crate) use account::{Account, Class, Left};
use file::Saved;
pub use hub::{Hub, HubSetup, Joined, NodeError, NodeState, own_labels};
use job::time::Timestamp;
use job::{JobId, NodeName};
pub(super) use link::NodeLink;
use link::may_return;
use linux::clock;
use protocol::wire::link::{Ask, FromNode, Hello, Lead, PROTOCOL, ToNode};

/// The most nodes that a hub knows.
const NODES_MAX: usize = 2000;

/// A node that comes back within this time was only started again.
const BLINK: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Link {
    epoch: u64,
    place: String,
    outgoing: mpsc::UnboundedSender<ToNode>,
    /// Who hears what is said of a job, by the number of its subscription.
    jobs: HashMap<JobId, (u64, mpsc::UnboundedSender<FromNode>)>,
    asks: HashMap<u64, oneshot::Sender<bool>>,
    leads: HashMap<u64, oneshot::Sender<Option<Lead>>>,
}

#[derive(Debug)]
struct Node {
    saved: Saved,
    is_here: bool,
    link: Option<Link>,
    is_shut: bool,
    takes_files: bool,
    hears_others: bool,
    version: Option<String>,
    labels: Arc<BTreeMap<String, String>>,
    since: (Instant, Timestamp),
}

impl Node {
    fn new(saved: Saved, is_here: bool) -> Self {
        Self {
            labels: Arc::new(saved.labels.clone()),
            saved,
            is_here,
            link: None,
            is_shut: false,
            takes_files: is_here,
            hears_others: false,
            version: None,
            since: (Instant::now(), clock::wall()),
        }
    }

    fn slots(&self) -> Slots {
        Slots {
            most: self.saved.slots,
            is_open: (self.is_here || self.link.is_some()) && !self.is_shut && !self.saved.draining,
            is_here: self.is_here,
            takes_files: self.takes_files,
            labels: self.labels.clone(),
        }
    }
}

#[derive(Debug, Default)]
struct Books {
    nodes: BTreeMap<NodeName, Node>,
    account: Account,
    last_epoch: u64,
    last_ticket: u64,
    /// How often what is kept of the nodes has changed.
    changes: u64,
}

/// A change of what is kept of the nodes, to be made durable.
#[must_use]
#[derive(Clone, Copy, Debug)]
struct Unsaved(u64);

impl Books {
    fn refresh(&mut self, name: &NodeName) {
        let slots = self.nodes.get(name).map(Node::slots);
        self.account.set(name, slots);
    }

    fn link(&mut self, name: &NodeName) -> Option<&mut Link> {
        self.nodes.get_mut(name)?.link.as_mut()
    }

    fn saved(&self) -> Vec<Saved> {
        self.nodes.values().map(|node| node.saved.clone()).collect()
    }

    fn changed(&mut self) -> Unsaved {
        self.changes += 1;
        Unsaved(self.changes)
    }
}

/// The nodes of a hub.
#[derive(Debug)]
pub(super) struct NodeBook {
    /// The hub's own name.
    pub(super) own: NodeName,
    /// The hub's store.
    store: String,
    lost_after: Duration,
    state_dir: PathBuf,
    books: Mutex<Books>,
    changed: watch::Sender<()>,
    /// How files of jobs on other nodes are read.
    fetch: OnceLock<Fetch>,
    /// One at a time writes the file, and notes up to which change it has.
    writing: tokio::sync::Mutex<u64>,
}

/// Where a job's node is.
pub(super) enum Found {
    /// It is connected.
    Linked(NodeLink),
    /// It is not heard; at this moment its jobs are lost.
    Away(Instant),
    /// It was given up.
    Unknown,
}

impl NodeBook {
    pub(super) fn open(
        setup: &HubSetup,
        store: &str,
        state_dir: &Path,
        slots: u32,
    ) -> std::io::Result<Self> {
        let mut books = Books::default();
        books.account.packs = setup.packs;
        let mut own_drains = false;
        for saved in file::read(state_dir)? {
            if saved.name == setup.name {
                own_drains = saved.draining;
            } else if !saved.store.is_empty() {
                books
                    .nodes
                    .insert(saved.name.clone(), Node::new(saved, false));
            }
        }
        if setup.is_node {
            let saved = Saved {
                name: setup.name.clone(),
                store: String::new(),
                actor: String::new(),
                slots,
                draining: own_drains,
                labels: setup.labels.clone(),
            };
            books
                .nodes
                .insert(setup.name.clone(), Node::new(saved, true));
        }
        for name in books.nodes.keys().cloned().collect::<Vec<_>>() {
            books.refresh(&name);
        }
        Ok(Self {
            own: setup.name.clone(),
            store: store.to_owned(),
            lost_after: setup.lost_after,
            state_dir: state_dir.to_owned(),
            books: Mutex::new(books),
            changed: watch::Sender::new(()),
            fetch: OnceLock::new(),
            writing: tokio::sync::Mutex::new(0),
        })
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How files of jobs on other nodes are read; nothing before requests are served.
    pub(super) fn fetch(&self) -> Option<Fetch> {
        self.fetch.get().cloned()
    }

    /// Tells of every change of what nodes there are.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Has everybody look again who waits for a node.
    pub(super) fn tell(&self) {
        self.changed.send_replace(());
    }

    /// The weight that may run, and that of the heaviest job.
    pub(super) fn capacity(&self) -> (u32, u32) {
        let books = self.books();
        (books.account.most(), books.account.heaviest())
    }

    /// Looks at the account of all nodes, or changes it.
    pub(super) fn account<R>(&self, look: impl FnOnce(&mut Account) -> R) -> R {
        look(&mut self.books().account)
    }

    /// The place that a job was given, as the name and the store of the node, and whether it is this one; `None` if that
    /// node takes no jobs any more.
    pub(super) fn place_of(&self, job: JobId) -> Option<(NodeName, String, bool)> {
        let books = self.books();
        let name = books.account.place_of(job)?.clone();
        let node = books.nodes.get(&name).filter(|it| it.slots().is_open)?;
        Some((name, node.saved.store.clone(), node.is_here))
    }

    /// Notes a job that an earlier server gave to this node.
    pub(super) fn hold(&self, job: JobId, name: &NodeName, weight: u32) {
        self.books().account.hold(job, name, weight);
    }

    /// Takes a job's place back.
    pub(super) fn release(&self, job: JobId) {
        self.books().account.release(job);
    }

    /// A job that was given up for lost still runs on its node; `true` if that was not known.
    pub(super) fn is_left(&self, name: &NodeName, job: JobId, weight: u32) -> bool {
        self.books().account.is_left(name, job, weight)
    }

    /// A job that was given up for lost has not been on its node, or is gone from it; `true` if there is room for it now.
    pub(super) fn is_left_no_more(&self, name: &NodeName, job: JobId) -> bool {
        self.books().account.is_left_no_more(name, job)
    }

    /// This node has refused a job, and gets no other until it says that it takes some.
    pub(super) fn shut(&self, name: &NodeName) {
        let mut books = self.books();
        if let Some(node) = books.nodes.get_mut(name) {
            node.is_shut = true;
        }
        books.refresh(name);
    }

    /// Where is the node that has the job?
    pub(super) fn find(self: &Arc<Self>, name: &NodeName, job: JobId) -> Found {
        let mut books = self.books();
        match NodeLink::of(self, &mut books, name, job) {
            Some(link) => Found::Linked(link),
            None => match books.nodes.get(name) {
                Some(node) => Found::Away(node.since.0 + self.lost_after),
                None => Found::Unknown,
            },
        }
    }

    /// Is nothing left of a job that a node had? `false` if the node cannot say so within this time.
    pub(super) async fn is_gone(&self, name: &NodeName, job: JobId, limit: Duration) -> bool {
        let answered = {
            let mut books = self.books();
            books.last_ticket += 1;
            let ticket = books.last_ticket;
            if !books.nodes.contains_key(name) {
                // An operator has said that it does not come back.
                return true;
            }
            let Some(link) = books.link(name) else {
                return false;
            };
            let (answer, answered) = oneshot::channel();
            link.asks.retain(|_, waiting| !waiting.is_closed());
            link.asks.insert(ticket, answer);
            let ask = Ask::IsGone(limit);
            let _ = link.outgoing.send(ToNode::Ask { ticket, job, ask });
            answered
        };
        let answer = timeout(limit + BLINK, answered).await;
        answer.is_ok_and(|answer| answer.unwrap_or(false))
    }

    /// Asks a node that is connected to do something, whatever comes of it.
    pub(super) fn ask_blindly(&self, name: &NodeName, job: JobId, ask: Ask) {
        let mut books = self.books();
        books.last_ticket += 1;
        let ticket = books.last_ticket;
        if let Some(link) = books.link(name) {
            let _ = link.outgoing.send(ToNode::Ask { ticket, job, ask });
        }
    }

    /// Has nodes that are connected remove what is left of these jobs.
    pub(super) fn forget_jobs(&self, jobs: Vec<(NodeName, JobId)>) {
        let mut books = self.books();
        for (name, job) in jobs {
            if let Some(link) = books.link(&name) {
                let _ = link.outgoing.send(ToNode::Forget(vec![job]));
            }
        }
    }

    /// A node says hello, with the token of this actor, and has these jobs that were given up for lost, of these weights.
    /// The error says why it may not join, and what to do.
    pub(super) async fn join(
        &self,
        hello: Hello,
        left: Left,
        actor: &str,
    ) -> Result<Joined, String> {
        let (joined, unsaved) = self.admit(hello, left, actor)?;
        if let Err(error) = self.save(unsaved).await {
            self.part(&joined.node, joined.epoch);
            return Err(format!("the hub cannot note who has joined: {error}"));
        }
        Ok(joined)
    }

    fn admit(&self, hello: Hello, left: Left, actor: &str) -> Result<(Joined, Unsaved), String> {
        let name = hello.node;
        if hello.protocol != PROTOCOL {
            return Err(format!(
                "node {name} speaks version {} of the protocol of clusters, and this hub version {PROTOCOL}: upgrade the older one",
                hello.protocol
            ));
        }
        if name == self.own {
            return Err(format!(
                "{name} is the hub's own name: give the node another --node-name"
            ));
        }
        let mut books = self.books();
        if books.nodes.len() >= NODES_MAX && !books.nodes.contains_key(&name) {
            return Err(format!(
                "this hub knows {NODES_MAX} nodes, which is the most"
            ));
        }
        let has_jobs = books.account.held_weight(&name) > 0;
        let before = match books.nodes.get(&name) {
            Some(known) => {
                may_return(known, &hello.store, &hello.place, actor, has_jobs)?;
                Some(known.saved.clone())
            }
            None => None,
        };
        books.last_epoch += 1;
        let epoch = books.last_epoch;
        let (outgoing, receiver) = mpsc::unbounded_channel();
        let _ = outgoing.send(ToNode::Welcome {
            hub: self.store.clone(),
            epoch,
        });
        let saved = Saved {
            name: name.clone(),
            store: hello.store,
            actor: actor.to_owned(),
            slots: hello.slots,
            labels: hello.labels,
            draining: before.as_ref().is_some_and(|it| it.draining),
        };
        let mut node = Node::new(saved.clone(), false);
        node.version = Some(hello.version);
        node.takes_files = hello.takes_files;
        node.hears_others = hello.hears_others;
        node.link = Some(Link {
            epoch,
            place: hello.place,
            outgoing,
            jobs: HashMap::new(),
            asks: HashMap::new(),
            leads: HashMap::new(),
        });
        books.nodes.insert(name.clone(), node);
        books.account.set_left(&name, left);
        books.refresh(&name);
        let is_new = before != Some(saved);
        let joined = Joined {
            node: name,
            epoch,
            outgoing: receiver,
        };
        // What could not be written before is not durable yet, though nothing has changed since.
        let unsaved = match is_new {
            true => books.changed(),
            false => Unsaved(books.changes),
        };
        Ok((joined, unsaved))
    }

    /// Makes a change durable, and with it all that have come by then: of a thousand nodes that join at once, few write.
    async fn save(&self, Unsaved(change): Unsaved) -> std::io::Result<()> {
        let mut written = self.writing.lock().await;
        if *written >= change {
            return Ok(());
        }
        let (nodes, changes) = {
            let books = self.books();
            (books.saved(), books.changes)
        };
        let state_dir = self.state_dir.clone();
        let write = move || {
            linux::failpoint::hit("nodes.writing");
            file::write(&state_dir, nodes)
        };
        let done = tokio::task::spawn_blocking(write).await;
        done.map_err(std::io::Error::other)??;
        *written = changes;
        Ok(())
    }

    /// A message of a node; `false` if its link is none any more. Second: nodes can be given jobs that could not.
    pub(super) fn hear(&self, name: &NodeName, epoch: u64, message: FromNode) -> (bool, bool) {
        let mut books = self.books();
        let Some(node) = books.nodes.get_mut(name) else {
            return (false, false);
        };
        let Some(link) = node.link.as_mut().filter(|link| link.epoch == epoch) else {
            return (false, false);
        };
        let job = match &message {
            FromNode::Pong { accepts } => {
                let has_changed = node.is_shut == *accepts;
                node.is_shut = !accepts;
                books.refresh(name);
                return (true, has_changed);
            }
            FromNode::Hello(_) => return (false, false),
            FromNode::Lead { ticket, lead } => {
                link.hear_who_leads(*ticket, lead.clone());
                return (true, false);
            }
            FromNode::Answer { answered, .. } if link.asks.contains_key(&answered.ticket) => {
                let is_gone = match &answered.result {
                    Ok(answer) => *answer == 1,
                    Err(refused) => matches!(refused, protocol::wire::link::AskRefused::NoSuchJob),
                };
                if let Some(waiting) = link.asks.remove(&answered.ticket) {
                    let _ = waiting.send(is_gone);
                }
                return (true, false);
            }
            FromNode::Report(report) => report.job.id,
            FromNode::Prepared { job }
            | FromNode::NotHeld { job }
            | FromNode::Refused { job, .. }
            | FromNode::Answer { job, .. } => *job,
        };
        if let Some((_, task)) = link.jobs.get(&job) {
            // A task that is over needs nothing.
            let _ = task.send(message);
        }
        (true, false)
    }

    /// A link has ended.
    pub(super) fn part(&self, name: &NodeName, epoch: u64) {
        let mut books = self.books();
        if let Some(node) = books.nodes.get_mut(name)
            && node.link.as_ref().is_some_and(|link| link.epoch == epoch)
        {
            node.link = None;
            node.since = (Instant::now(), clock::wall());
            books.account.set_left(name, Left::new());
            books.refresh(name);
        }
    }

    /// Is this the link that the node has now, with the token of this actor?
    pub(super) fn has_link(&self, name: &NodeName, epoch: u64, actor: &str) -> bool {
        let books = self.books();
        let node = books.nodes.get(name);
        node.is_some_and(|node| {
            let link = node.link.as_ref();
            node.saved.actor == actor && link.is_some_and(|link| link.epoch == epoch)
        })
    }
}
