//! Places for connections, and how many are taken.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many places over TCP, and as many over the unix socket: nobody on the network can keep the service's own user out.
#[derive(Clone, Debug)]
pub struct Places {
    most: usize,
    tcp: Arc<Semaphore>,
    unix: Arc<Semaphore>,
}

impl Places {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            tcp: Arc::new(Semaphore::new(most)),
            unix: Arc::new(Semaphore::new(most)),
        }
    }

    pub(super) fn tcp(&self) -> Option<OwnedSemaphorePermit> {
        self.tcp.clone().try_acquire_owned().ok()
    }

    pub(super) fn unix(&self) -> Option<OwnedSemaphorePermit> {
        self.unix.clone().try_acquire_owned().ok()
    }

    /// How many are taken, by kind.
    pub(crate) fn taken(&self) -> [(&'static str, u64); 2] {
        [("tcp", &self.tcp), ("unix", &self.unix)].map(|(kind, places)| {
            let taken = self.most.saturating_sub(places.available_permits());
            (kind, u64::try_from(taken).unwrap_or(u64::MAX))
        })
    }
}
