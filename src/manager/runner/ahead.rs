//! A start while the job is on its way to the disk: its monitor makes everything ready and waits, and the program is
//! executed once the job is durable. So the answer takes the longer of the two and not both. In a hub, the job is claimed for
//! its node by the same commit that accepts it.
//!
//! Nothing else of the job depends on it: a launch that fails here is made again when the job starts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::oneshot;

use super::{Runner, there};
use crate::link::MonitorLink;
use crate::nodes::NodeBook;
use crate::shared::Shared;
use job::spec::Secrets;
use job::{Job, JobId};

/// How many jobs are on their way to the disk.
#[derive(Debug, Default)]
pub(crate) struct Arrivals(AtomicUsize);

/// One of them, until it is dropped.
pub(super) struct Arrival<'a>(&'a AtomicUsize);

impl Arrivals {
    /// One more, and whether it is alone: only then has a processor nothing else to do while the disk is waited for, and
    /// a monitor that is woken twice costs nobody anything.
    pub(super) fn come(&self) -> (Arrival<'_>, bool) {
        let before = self.0.fetch_add(1, Ordering::Relaxed);
        (Arrival(&self.0), before == 0)
    }
}

impl Drop for Arrival<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a job has got before it was durable.
pub(super) struct Ahead {
    job: JobId,
    pub(super) has_slot: oneshot::Receiver<()>,
    pub(super) is_granted: bool,
    /// It is stored with its node.
    pub(super) is_claimed: bool,
    /// The monitor that waits.
    pub(super) link: Option<MonitorLink>,
}

impl Ahead {
    /// The job is durable.
    pub(super) fn keep(&self, shared: &Shared) {
        shared.room.show(self.job);
    }

    /// It was not accepted after all. Its monitor sees the closed socket and takes back what it has made.
    pub(super) fn undo(self, shared: &Arc<Shared>) {
        drop(self.link);
        shared.room.turn_away(self.job);
        match &shared.nodes {
            Some(nodes) => {
                nodes.release(self.job);
                shared.nodes_changed();
            }
            None => shared.grant(),
        }
    }
}

/// Is this a job that nothing but a slot keeps from starting, and whose start is no more than a process?
pub(super) fn is_plain(job: &Job) -> bool {
    let spec = &job.spec;
    !job.hold
        && job.run_at.is_none()
        && job.depends_on.is_empty()
        && job.batch.is_none()
        && spec.concurrency.is_none()
        && spec.workspace.is_none()
        && spec.ready.is_none()
}

/// Takes the job's slot if there is one, and has its monitor made.
pub(super) async fn launch(runner: &Runner, secrets: &Secrets) -> Ahead {
    let mut ahead = enter(runner);
    if ahead.is_granted {
        ahead.link = Box::pin(runner.launch(secrets.clone(), true)).await.ok();
    }
    ahead
}

/// Takes the job's slot if there is one, and claims the job for the node that has it.
pub(super) fn claim(runner: &mut Runner, nodes: &NodeBook) -> Ahead {
    let mut ahead = enter(runner);
    if ahead.is_granted
        && let Some((node, store, false)) = nodes.place_of(runner.job.id)
    {
        there::claim(runner, (node, store));
        ahead.is_claimed = true;
    }
    ahead
}

fn enter(runner: &Runner) -> Ahead {
    let shared = &runner.shared;
    let (slot, mut has_slot) = oneshot::channel();
    let ticket = shared.room.ticket_of(&runner.job);
    shared.room.enter_ahead(ticket, slot);
    shared.grant();
    let is_granted = has_slot.try_recv().is_ok();
    Ahead {
        job: runner.job.id,
        has_slot,
        is_granted,
        is_claimed: false,
        link: None,
    }
}

/// Lets the monitor that waits go on; nothing if there is none.
pub(super) async fn begin(runner: &mut Runner) -> Option<MonitorLink> {
    let link = runner.ahead.take()?;
    // One that is gone by now is seen to be so by whoever follows it.
    let _ = link.begin().await;
    Some(link)
}
