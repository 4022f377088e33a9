//! Several API nodes with one ledger: PostgreSQL keeps the log of the changes of one store, and says who leads.
//!
//! The one that leads is a hub, whose store's writer appends each transaction to the log before it counts. The others follow:
//! each applies the log to a store of its own, and takes the lead when nothing is heard of the one that has it. What a job is
//! is not known here, nor HTTP.

mod database;
mod following;
mod hosts;
mod key;
mod leading;
mod snapshots;
mod status;
mod tls;
mod url;

use std::path::PathBuf;
use std::time::Duration;

pub use following::{Follower, Lead, Took};
pub use key::{Key, make_key};
pub use leading::Leader;
pub use status::{Member, Role, Status, View};
pub use url::Address;

/// How an API node is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// The database.
    pub address: Address,
    /// Where the other API nodes reach this one.
    pub advertise: String,
    /// The file of the key that seals what is in the database.
    pub key_file: Option<PathBuf>,
    /// The authority that the certificates of the other API nodes are from; without it, those that the system trusts.
    pub ca: Option<PathBuf>,
    /// So long must nothing be heard of who leads.
    pub takeover: Duration,
    /// The state directory.
    pub state_dir: PathBuf,
    /// The file of the store.
    pub store: PathBuf,
}

/// Why there is no ledger.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// PostgreSQL cannot be reached, or does not do what it is asked now. It may later.
    #[error("{0}")]
    Unavailable(String),
    /// What is there is of no use, and will not be later.
    #[error("{0}")]
    Unusable(String),
    /// Somebody else leads.
    #[error("{0}")]
    Deposed(String),
    /// The copy of the store on this machine cannot be used.
    #[error("the store of this API node: {0}")]
    Store(#[from] store::OpenError),
    /// The same.
    #[error("the state directory of this API node: {0}")]
    Io(#[from] std::io::Error),
}

impl LedgerError {
    /// May it be well later?
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}
