//! The policy as it is in force now: that of the file, read again whenever it changes.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use super::Policy;
use crate::followed;

/// The policy that is in force; clones see the same.
#[derive(Clone, Debug)]
pub struct Policies(Arc<watch::Sender<Arc<Policy>>>);

impl Policies {
    /// This policy is in force until another one is read.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self(Arc::new(watch::Sender::new(Arc::new(policy))))
    }

    /// The one that is in force.
    #[must_use]
    pub fn now(&self) -> Arc<Policy> {
        self.0.borrow().clone()
    }

    /// Follows the file for as long as it is polled. While it cannot be used, the last one that could stays in force.
    pub(crate) async fn follow(self, path: PathBuf) {
        let files = [path];
        let [path] = &files;
        let take = |policy: Policy, is_first: bool| {
            let templates = policy.len();
            self.0.send_replace(Arc::new(policy));
            if !is_first {
                tracing::info!(
                    templates,
                    "the command policy was read again: {templates} templates"
                );
            }
        };
        followed::follow(&files, || Policy::read(path), take, |error| {
            tracing::error!(%error, "the changed command policy cannot be used, and the one before stays in force: {error}");
        })
        .await;
    }
}
