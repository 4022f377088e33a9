//! The policy as it is in force now: that of the file, read again whenever it changes.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::Policy;

/// How soon a changed file is noticed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The policy that is in force; clones see the same.
#[derive(Clone, Debug)]
pub struct Policies(Arc<watch::Sender<Arc<Policy>>>);

/// What a file looks like that nobody has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen(Option<(u64, u64, i64, i64, u64)>);

impl Seen {
    fn of(path: &Path) -> Self {
        let found = std::fs::metadata(path).ok();
        Self(found.map(|it| (it.dev(), it.ino(), it.ctime(), it.ctime_nsec(), it.size())))
    }
}

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
        // The first look reads again: the file may have changed since it was opened.
        let mut seen = None;
        let mut failed = false;
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let now = Some(Seen::of(&path));
            let is_new = now != seen;
            if !is_new && !failed {
                continue;
            }
            let is_first = seen.is_none();
            seen = now;
            failed = match Policy::read(&path) {
                Ok(policy) => {
                    let templates = policy.len();
                    self.0.send_replace(Arc::new(policy));
                    if !is_first {
                        tracing::info!(
                            templates,
                            "the command policy was read again: {templates} templates"
                        );
                    }
                    false
                }
                // It may be half written: the next look tells.
                Err(_) if is_new => true,
                Err(error) => {
                    tracing::error!(%error, "the changed command policy cannot be used, and the one before stays in force: {error}");
                    false
                }
            };
        }
    }
}
