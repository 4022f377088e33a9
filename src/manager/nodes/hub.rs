//! The nodes of a cluster as others than the jobs' tasks use them: who serves the links, and who governs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::{NodeBook, witness};
use crate::inputs::Fetch;
use crate::runner::late;
use crate::shared::Shared;
use job::placement::OWN_LABELS;
use job::time::Timestamp;
use job::{Job, JobId, NodeName};
use protocol::wire::link::{FromNode, Hello, Lead, ToNode};
use store::StoreError;

/// What a hub is set up with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubSetup {
    /// Its own name.
    pub name: NodeName,
    /// It runs jobs itself.
    pub is_node: bool,
    /// How long a node that is not heard keeps its jobs.
    pub lost_after: Duration,
    /// The labels of the hub as a node.
    pub labels: BTreeMap<String, String>,
    /// Nodes are filled one after the other, and not evenly.
    pub packs: bool,
}

/// What is added to the labels of a node by itself.
#[must_use]
pub fn own_labels(name: &NodeName) -> [(String, String); 2] {
    let own = |key: &str, value: &str| (format!("{OWN_LABELS}{key}"), value.to_owned());
    [
        own("name", name.as_str()),
        own("arch", std::env::consts::ARCH),
    ]
}

/// A node as operators see it.
#[derive(Clone, Debug)]
pub struct NodeState {
    /// Its name.
    pub name: NodeName,
    /// The hub itself.
    pub is_here: bool,
    /// Is it heard?
    pub is_connected: bool,
    /// An operator wants no new jobs on it.
    pub is_draining: bool,
    /// It takes no jobs by itself: it is full, or it ends.
    pub is_shut: bool,
    /// The most that it runs, by weight.
    pub slots: u32,
    /// Its labels.
    pub labels: Arc<BTreeMap<String, String>>,
    /// How many jobs it has.
    pub jobs: usize,
    /// Their weight.
    pub weight: u64,
    /// The version of its program; unknown until it has been heard.
    pub version: Option<String>,
    /// Since when it is connected, or is not.
    pub since: Timestamp,
    /// When its jobs are lost, if it is not heard until then.
    pub lost_at: Option<Timestamp>,
}

/// A link of a node has begun.
#[derive(Debug)]
pub struct Joined {
    /// The node.
    pub node: NodeName,
    /// The number of the link.
    pub epoch: u64,
    /// What is to be sent; it ends when the link is to end.
    pub outgoing: mpsc::UnboundedReceiver<ToNode>,
}

/// Why nothing was done to a node.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// It has not joined, or has been forgotten.
    #[error("no such node")]
    NoSuchNode,
    /// One that is connected is not given up.
    #[error("the node is connected")]
    Connected,
    /// What was asked cannot be kept.
    #[error("cannot note it: {0}")]
    Io(#[from] std::io::Error),
    /// The other API nodes do not know of it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The nodes of the cluster whose hub this service is.
#[derive(Clone, Debug)]
pub struct Hub {
    shared: Arc<Shared>,
    nodes: Arc<NodeBook>,
}

impl Hub {
    pub(crate) fn of(shared: &Arc<Shared>) -> Option<Self> {
        let nodes = shared.nodes.clone()?;
        let shared = shared.clone();
        Some(Self { shared, nodes })
    }

    /// Every node.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeState> {
        self.nodes.states()
    }

    /// The node that has a job: another one, or this one once the job has started here.
    #[must_use]
    pub fn node_of<'a>(&'a self, job: &'a Job) -> Option<&'a NodeName> {
        match &job.claim {
            Some(claim) => Some(&claim.node),
            None => job.process.as_ref().map(|_| &self.nodes.own),
        }
    }

    /// Is this the name of the hub itself?
    #[must_use]
    pub(crate) fn is_own(&self, name: &str) -> bool {
        self.nodes.own.as_str() == name
    }

    /// Since when the node of a job that has not ended is not heard, and when the job is lost.
    #[must_use]
    pub fn unheard(&self, job: &Job) -> Option<(Timestamp, Timestamp)> {
        let claim = job.claim.as_ref().filter(|_| !job.state.is_terminal())?;
        self.nodes.unheard(&claim.node)
    }

    /// A node says hello, with the token of this actor.
    ///
    /// # Errors
    /// Says why it may not join, and what to do.
    pub async fn join(&self, hello: Hello, actor: &str) -> Result<Joined, String> {
        let held = hello.jobs.clone();
        let left = late::left_on(&self.shared, &hello.node, &held).await;
        let joined = self.nodes.join(hello, left, actor).await?;
        if let Err(error) = self.carry().await {
            self.nodes.part(&joined.node, joined.epoch);
            return Err(format!("the hub cannot note who has joined: {error}"));
        }
        self.shared.nodes_changed();
        let returned = late::catch_up(self.shared.clone(), joined.node.clone(), held);
        self.shared.spawn(returned);
        Ok(joined)
    }

    /// Lets the other API nodes know the nodes, if there are any.
    async fn carry(&self) -> Result<(), StoreError> {
        let files = store::SharedFiles(&self.shared.store);
        files.carry(super::file::NAME).await
    }

    /// A message of a node; `false` if its link is none any more.
    #[must_use]
    pub fn hear(&self, node: &NodeName, epoch: u64, message: FromNode) -> bool {
        let (is_linked, has_changed) = self.nodes.hear(node, epoch, message);
        if has_changed {
            self.shared.nodes_changed();
        }
        is_linked
    }

    /// A link has ended.
    pub fn part(&self, node: &NodeName, epoch: u64) {
        self.nodes.part(node, epoch);
        self.shared.nodes_changed();
    }

    /// Is this the link that the node has now, with the token of this actor?
    #[must_use]
    pub fn has_link(&self, node: &NodeName, epoch: u64, actor: &str) -> bool {
        self.nodes.has_link(node, epoch, actor)
    }

    /// Has some of the nodes that are connected ask all API nodes that they know how often the lead has been taken; gives
    /// their answers to be.
    #[must_use]
    pub fn ask_who_leads(&self) -> Vec<oneshot::Receiver<Option<Lead>>> {
        witness::ask_who_leads(&self.nodes)
    }

    /// Is this node about to get this job?
    #[must_use]
    pub fn is_given(&self, node: &NodeName, job: JobId) -> bool {
        let place = self.nodes.place_of(job);
        place.is_some_and(|(name, _, _)| name == *node)
    }

    /// Says how files of jobs on other nodes are read.
    pub fn fetch_with(&self, fetch: Fetch) {
        // The first one stays.
        let _ = self.nodes.fetch.set(fetch);
    }

    /// Gives a node no new jobs, or some again; durable when this returns.
    ///
    /// # Errors
    /// If there is no such node, or it cannot be kept.
    pub async fn drain(&self, node: &NodeName, draining: bool) -> Result<(), NodeError> {
        let (hub, node) = (self.clone(), node.clone());
        let drain = async move {
            let is_known = hub.nodes.drain(&node, draining).await?;
            hub.carry().await?;
            hub.shared.nodes_changed();
            is_known.then_some(()).ok_or(NodeError::NoSuchNode)
        };
        self.shared.see_through(drain).await
    }

    /// Gives a node up: its jobs are lost at once.
    ///
    /// # Errors
    /// If there is no such node, it is connected, or it cannot be kept.
    pub async fn forget(&self, node: &NodeName) -> Result<(), NodeError> {
        let (hub, node) = (self.clone(), node.clone());
        let forget = async move {
            let is_gone = hub.nodes.forget(&node).await?;
            hub.carry().await?;
            hub.shared.nodes_changed();
            match is_gone {
                None => Err(NodeError::NoSuchNode),
                Some(false) => Err(NodeError::Connected),
                Some(true) => Ok(()),
            }
        };
        self.shared.see_through(forget).await
    }
}
