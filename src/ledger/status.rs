//! What an API node knows of the ledger and of who leads, for those who ask.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// What an API node does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// It has the lead.
    Leads,
    /// Another one has.
    #[default]
    Follows,
}

impl Role {
    /// The word for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Leads => "leads",
            Self::Follows => "follows",
        }
    }
}

/// An API node, as the one that leads knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where it is reached.
    pub url: String,
    /// The version of its program.
    pub version: String,
    /// The last change that it has.
    pub seq: u64,
    /// Has it been heard in the last seconds?
    pub is_heard: bool,
}

/// What is known at a moment.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// What this one does.
    pub role: Role,
    /// The cluster.
    pub cluster: String,
    /// How often the lead has been taken.
    pub epoch: u64,
    /// The last change that this one has.
    pub seq: u64,
    /// The last change in the log, as it was last seen.
    pub head: u64,
    /// Where the one that leads is reached; empty if there is none.
    pub leader: String,
    /// When the database was last heard.
    pub heard: Option<Instant>,
    /// Why it is not heard.
    pub trouble: Option<String>,
    /// Changes and bytes that this process has appended.
    pub appended: (u64, u64),
    /// The API nodes that follow; known to the one that leads.
    pub members: Vec<Member>,
    /// Until then nobody else can have taken the lead: an API node that follows waits for so long after each word of this one.
    pub sure_until: Option<Instant>,
}

impl View {
    /// Has the database been heard in the last seconds?
    #[must_use]
    pub fn is_heard(&self) -> bool {
        const LATELY: Duration = Duration::from_secs(5);
        self.trouble.is_none() && self.heard.is_some_and(|at| at.elapsed() < LATELY)
    }
}

/// The same for all who have a clone.
#[derive(Clone, Debug)]
pub struct Status(Arc<watch::Sender<View>>);

impl Default for Status {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(View::default())))
    }
}

impl Status {
    /// What is known now.
    #[must_use]
    pub fn view(&self) -> View {
        self.0.borrow().clone()
    }

    /// Tells of every change.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<View> {
        self.0.subscribe()
    }

    /// Until when this one leads for certain; nothing if it does not know. It may lead after that as well.
    #[must_use]
    pub fn sure_until(&self) -> Option<Instant> {
        self.0.borrow().sure_until
    }

    pub(crate) fn note(&self, change: impl FnOnce(&mut View)) {
        self.0.send_modify(change);
    }

    /// The database has answered.
    pub(crate) fn heard(&self) {
        self.note(|view| {
            view.heard = Some(Instant::now());
            view.trouble = None;
        });
    }

    /// It has not. `true`: it did before.
    pub(crate) fn failed(&self, why: &str) -> bool {
        let mut was_well = false;
        self.note(|view| was_well = view.trouble.replace(why.to_owned()).is_none());
        was_well
    }
}
