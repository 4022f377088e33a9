//! Looks whether a job is ready. What is made of it is decided by the job's task, which is told.
//!
//! Nothing is kept here: a server that comes later looks again, from the beginning of the attempt.

mod log;
mod notify;
mod probes;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::processes;
use super::shared::Shared;
use super::time::until;
use job::Job;
use job::ready::{Ready, Sign};
use job::time::Timestamp;
use linux::clock;
use linux::notify::NotifySocket;
use linux::tree::Tree;
pub(super) use log::found_in;
pub(super) use notify::{VARIABLE, socket_name};

/// How often it is looked for what nobody announces, at first, and later.
const OFTEN: Duration = Duration::from_millis(50);
const SELDOM: Duration = Duration::from_millis(500);
/// When it is later.
const FIRST: Duration = Duration::from_secs(10);

/// A job is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Since when.
    pub(super) at: Timestamp,
    /// What showed it.
    pub(super) message: Option<String>,
}

/// What has been seen of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Ready(Found),
    /// Its time is up, and this is why it is not ready.
    Late(Option<String>),
}

/// Looks for the sign of one attempt of a job, until it is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    found: Option<oneshot::Receiver<Found>>,
    /// Why it is not ready; something once it has been looked for.
    why: watch::Receiver<Option<String>>,
    /// When its time is up.
    deadline: Option<Instant>,
    /// What is to be told again.
    again: Option<(Seen, Instant)>,
    alive: oneshot::Sender<()>,
    /// Comes when nothing is looked at any more.
    ended: oneshot::Receiver<()>,
}

/// A job that is looked at.
struct Look {
    shared: Arc<Shared>,
    /// The job, as it is now.
    job: watch::Receiver<Arc<Job>>,
    began: Instant,
    why: watch::Sender<Option<String>>,
}

impl Watch {
    /// Looks at a job that has a process, and is published here. `socket`: where it reports.
    pub(super) fn begin(
        shared: &Arc<Shared>,
        job: watch::Receiver<Arc<Job>>,
        feed: watch::Receiver<u64>,
        socket: Option<NotifySocket>,
    ) -> Option<Self> {
        let present = job.borrow().clone();
        let ready = present.spec.ready.clone()?;
        let (found, is_found) = oneshot::channel();
        let (why, is_why) = watch::channel(None);
        let (alive, mut is_dropped) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let deadline = deadline(&present, &ready);
        let look = Look {
            shared: shared.clone(),
            job,
            began: Instant::now(),
            why,
        };
        let awaits = present.awaits_ready();
        shared.spawn(async move {
            let looking = async {
                match &ready.sign {
                    Sign::Log { log, stream } => {
                        log::look(&look, feed, (log, *stream), found).await
                    }
                    Sign::Port { port, address } => {
                        probes::port(&look, *port, *address, found).await
                    }
                    Sign::File { file } => probes::file(&look, file, found).await,
                    Sign::Notify { .. } => notify::listen(&look, socket, found).await,
                }
            };
            tokio::select! {
                () = looking => {}
                _ = &mut is_dropped => {}
            }
            drop(end);
        });
        Some(Self {
            found: awaits.then_some(is_found),
            why: is_why,
            deadline,
            again: None,
            alive,
            ended,
        })
    }

    /// Looks no more. After that the socket of the attempt is closed, and its name is free for the next one.
    pub(super) async fn end(self) {
        drop(self.alive);
        let _ = self.ended.await;
    }

    /// What is seen next; never where nothing more can be. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Seen {
        if let Some((_, at)) = &self.again {
            until(Some(*at)).await;
        }
        if let Some((seen, _)) = self.again.take() {
            return seen;
        }
        let found = async {
            match &mut self.found {
                Some(found) => found.await.ok(),
                None => None,
            }
        };
        let late = async {
            until(self.deadline).await;
            // It may have been ready long ago, and nobody looked.
            let why = self.why.wait_for(Option::is_some).await;
            why.map(|why| why.clone()).unwrap_or_default()
        };
        tokio::select! {
            biased;
            Some(found) = found => {
                self.found = None;
                self.deadline = None;
                Seen::Ready(found)
            }
            why = late => {
                self.deadline = None;
                Seen::Late(why)
            }
        }
    }

    /// Has this told again, after a while.
    pub(super) fn again(&mut self, seen: Seen, after: Duration) {
        self.again = Some((seen, Instant::now() + after));
    }
}

/// When it is to be told that the job is not ready, if that is still to be told.
fn deadline(job: &Job, ready: &Ready) -> Option<Instant> {
    if !job.awaits_ready() || job.not_ready_at.is_some() {
        return None;
    }
    let by = job.attempt_started_at()?.after(ready.timeout);
    Instant::now().checked_add(by.since(clock::wall()))
}

impl Look {
    /// Says why the job is not ready yet.
    fn say(&self, why: impl Into<String>) {
        self.why.send_replace(Some(why.into()));
    }

    fn present(&self) -> Arc<Job> {
        self.job.borrow().clone()
    }

    /// Where the processes of the job are, if it has any.
    fn tree(&self) -> Option<Tree> {
        let job = self.present();
        let supervisor = i32::try_from(self.shared.host.supervisor_pid).unwrap_or_default();
        let process = job.process.as_ref()?;
        Some(processes::watched(job.id, process, supervisor))
    }

    /// Waits until it is time to look again.
    async fn pause(&self) {
        let is_early = self.began.elapsed() < FIRST;
        let pause = if is_early { OFTEN } else { SELDOM };
        until(Some(Instant::now() + pause)).await;
    }
}
