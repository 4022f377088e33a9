//! Changes of jobs, and requests on many of them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, timeout};

use super::room::Awake;
use super::runner::JobRequest;
use super::time::until;
use super::{Manager, RequestError};
use job::amendment::Amendment;
use job::event::{Event, What};
use job::life::Refusal;
use job::pty::Size;
use job::spec::Scope;
use job::{Job, JobId, Signal, State};
use linux::clock;
use protocol::wire::messages::{Input, Request};

/// How soon a drain looks again while a place is taken by a job that has not started or has ended.
const HANDING_ON: Duration = Duration::from_millis(50);

impl Manager {
    /// Sends a signal; returns how many processes it was delivered to.
    pub async fn signal(
        &self,
        id: JobId,
        signal: Signal,
        scope: Scope,
    ) -> Result<u64, RequestError> {
        let request = Request::Signal { signal, scope };
        self.shared
            .ask(id, |reply| JobRequest::Relay(request, reply))
            .await
    }

    /// Writes a packet of at most [`INPUT_BYTES`](crate::INPUT_BYTES) to the job's standard input; returns the offset after it
    /// once the job's pipe has taken it. A packet that has been sent is written even where the future is
    /// dropped.
    pub async fn write_stdin(
        &self,
        id: JobId,
        offset: Option<u64>,
        bytes: &[u8],
        eof: bool,
    ) -> Result<u64, RequestError> {
        let request = Request::Stdin(Input {
            offset,
            bytes: bytes.to_vec(),
            eof,
        });
        self.shared
            .ask(id, |reply| JobRequest::Relay(request, reply))
            .await
    }

    /// Gives the job's terminal another size.
    pub async fn resize(&self, id: JobId, size: Size) -> Result<(), RequestError> {
        if self.shared.get(id).await?.spec.pty.is_none() {
            return Err(RequestError::NoTerminal);
        }
        let request = Request::Resize(size);
        let asked = self
            .shared
            .ask(id, |reply| JobRequest::Relay(request, reply));
        asked.await.map(drop)
    }

    /// Stops every process of the job until a resume; a repeat changes nothing.
    pub async fn pause(&self, id: JobId) -> Result<Arc<Job>, RequestError> {
        self.relay(id, Request::Pause).await
    }

    /// Lets them go on; a repeat changes nothing.
    pub async fn resume(&self, id: JobId) -> Result<Arc<Job>, RequestError> {
        self.relay(id, Request::Resume).await
    }

    async fn relay(&self, id: JobId, request: Request) -> Result<Arc<Job>, RequestError> {
        self.shared
            .ask(id, |reply| JobRequest::Relay(request, reply))
            .await?;
        Ok(self.get(id).await?)
    }

    /// Changes a job that is still in this version; [`RequestError::Changed`] where it is not.
    pub async fn amend(
        &self,
        id: JobId,
        version: u64,
        amendment: Amendment,
    ) -> Result<Arc<Job>, RequestError> {
        let boxed = Box::new(amendment.clone());
        let asked = self
            .shared
            .ask(id, |reply| JobRequest::Amend(version, boxed, reply))
            .await;
        match asked {
            Ok(_) => Ok(self.get(id).await?),
            Err(RequestError::Refused(Refusal::Finished)) => {
                let manager = self.clone();
                let amending = async move { manager.amend_finished(id, version, amendment).await };
                // Its turn lasts until the change is durable.
                self.shared.see_through(amending).await
            }
            Err(error) => Err(error),
        }
    }

    /// Lets a held job go, and one that waits for another attempt, to wait for what else they wait for. One that waits
    /// for something else stays as it is.
    ///
    /// # Errors
    /// If there is no such job, or it does not wait.
    pub async fn release(&self, id: JobId) -> Result<Arc<Job>, RequestError> {
        loop {
            let job = self.get(id).await?;
            if job.state.is_terminal() {
                return Err(Refusal::Finished.into());
            }
            if job.state != State::Queued {
                return Err(RequestError::NotQueued);
            }
            let now = clock::wall();
            let is_in_pause = job.next_attempt_at.is_some_and(|at| at > now);
            if !job.hold && !is_in_pause {
                return Ok(job);
            }
            let amendment = Amendment {
                hold: false,
                next_attempt_at: job.next_attempt_at.map(|at| at.min(now)),
                ..Amendment::none(&job)
            };
            match self.amend(id, job.version, amendment).await {
                // Somebody else has changed it: look again.
                Err(RequestError::Changed) => {}
                other => return other,
            }
        }
    }

    async fn amend_finished(
        &self,
        id: JobId,
        version: u64,
        amendment: Amendment,
    ) -> Result<Arc<Job>, RequestError> {
        // One at a time, so that no change is lost.
        let _turn = self.shared.finished_amendments.acquire().await;
        if self.shared.chains.is_leaving(id) {
            return Err(RequestError::NoSuchJob);
        }
        let job = self.get(id).await?;
        if job.version != version {
            return Err(RequestError::Changed);
        }
        if amendment.changes_plan(&job) || amendment.changes_place(&job) {
            return Err(Refusal::Finished.into());
        }
        let mut job = Job::clone(&job);
        amendment.apply(&mut job);
        job.version += 1;
        let changed = Event {
            // Webhooks tell of a job up to its end; then their secrets are erased.
            webhooks: Vec::new(),
            ..Event::of(&job, clock::wall(), What::Changed)
        };
        let job = Arc::new(job);
        self.shared.store.finish(job.clone(), vec![changed]).await?;
        Ok(job)
    }

    /// Waits until the first or all of these jobs have finished, or `limit` has passed.
    pub async fn wait_many(&self, ids: &[JobId], all: bool, limit: Duration) {
        let mut ends: FuturesUnordered<_> = ids
            .iter()
            .map(|id| async move {
                if let Ok(Some(Awake { mut state, .. })) = self.shared.awake(*id).await {
                    let _ = state.wait_for(|job| job.state.is_terminal()).await;
                }
            })
            .collect();
        let _ = timeout(limit, async { while ends.next().await.is_some() && all {} }).await;
    }

    /// Accepts no new jobs from now on, or again; what is queued or runs goes on. Says which it is now:
    /// a service that ends accepts none, whatever is asked.
    pub async fn drain(&self, draining: bool) -> bool {
        let shared = &self.shared;
        shared.shutdown.drain(draining, &shared.supervisor).await;
        shared.shutdown.is_draining()
    }

    /// Waits until no job runs, for as long as `limit`; how many have started and not ended then, and how many wait.
    pub async fn drained(&self, limit: Duration) -> (usize, usize) {
        let end = Instant::now() + limit;
        let room = &self.shared.room;
        loop {
            let mut started = room.states();
            started.retain(|job| job.state != State::Queued && !job.state.is_terminal());
            let (places, waiting) = room.look(|it| (it.running(), it.waiting()));
            if (started.is_empty() && places == 0) || Instant::now() >= end {
                return (started.len(), waiting);
            }
            let ids: Vec<JobId> = started.iter().map(|job| job.id).collect();
            if ids.is_empty() {
                // A job is about to start, or has just ended.
                until(Some(Instant::now() + HANDING_ON)).await;
            }
            let left = end.saturating_duration_since(Instant::now());
            self.wait_many(&ids, true, left).await;
        }
    }
}
